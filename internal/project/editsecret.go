package project

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/secrets"
)

// SecretEdit says which secret is changed, and how.
type SecretEdit struct {
	Name string
	// Force lets a token that exists be changed.
	Force bool
	// New lets a secret be made that k3splan does not use itself.
	New bool
	// Editor changes the text in a file.
	Editor func(file string) error
}

// SecretEdited is what came of it.
type SecretEdited struct {
	// Place is where the secret is, for people.
	Place string
	// Changed is false if the text is as it was.
	Changed bool
	// Used reports whether k3splan uses a secret of this name.
	Used bool
	// Problems are about the new content, and name the place.
	Problems diag.Problems
}

var (
	// ErrWrongSecret is a secret that must not be made or changed in this way. Nothing was changed.
	ErrWrongSecret = errors.New("nothing was changed")
	errForm        = diag.WithHint(fmt.Errorf("the secret is not of the right form; %w", ErrWrongSecret), "see above")
)

// EditSecret lets the user change one secret as a file in the runtime folder, and stores what comes out if
// it is of the right form. A change that another process made in between is not overwritten.
func EditSecret(p *plan.Plan, vault *secrets.Vault, edit SecretEdit) (edited SecretEdited, err error) {
	name := vault.NameOf(edit.Name)
	edited.Place, edited.Used = vault.At(name), secrets.IsUsed(name, p.HostNames())
	before, err := vault.Read(name)
	isNew := errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !isNew:
		return edited, err
	case isNew && !edited.Used && !edit.New:
		present, _ := vault.List()
		return edited, unknownSecret(name, append(secrets.UsedNames(p.HostNames()), present...))
	case !isNew && !edit.Force && (name == string(secrets.InitToken) || name == string(secrets.AgentToken)):
		return edited, diag.WithHint(fmt.Errorf("%s may be the token of a running cluster, which would not start again with another; %w", edited.Place, ErrWrongSecret),
			"`k3splan token rotate` changes it in the cluster and here; --force edits it here alone")
	}
	after, err := inEditor(name, before, edit.Editor)
	if err != nil || bytes.Equal(before, after) {
		return edited, err
	}
	edited.Problems = secrets.Check(name, after)
	for i := range edited.Problems {
		edited.Problems[i].File = edited.Place
	}
	if edited.Problems.Errors() > 0 {
		return edited, errForm
	}
	err = vault.Lock(func(held *secrets.Vault) error {
		now, err := held.Read(name)
		switch {
		case errors.Is(err, fs.ErrNotExist) && isNew:
			return held.Create(name, after)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		case err != nil || isNew || !bytes.Equal(now, before):
			return fmt.Errorf("%s was changed while it was edited; nothing was stored", held.At(name))
		}
		return held.Replace(name, after)
	})
	edited.Place, edited.Changed = vault.At(name), err == nil
	return edited, err
}

// unknownSecret is about a name that nothing would read: a slip of the pen would store a secret for nothing.
func unknownSecret(name string, known []string) error {
	hint := diag.DidYouMean(name, known)
	if hint != "" {
		hint += "\n"
	}
	return diag.WithHint(fmt.Errorf("there is no secret %q, and k3splan would not use one of this name; %w", name, ErrWrongSecret),
		hint+"--new makes a secret of your own, for your Nix files")
}

// inEditor lets an editor change a text in a file that is removed afterwards.
func inEditor(name string, content []byte, editor func(file string) error) (changed []byte, err error) {
	runtime, err := secrets.NewRuntime()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, runtime.Close()) }()
	file, err := runtime.Put(name, content)
	if err != nil {
		return nil, err
	}
	if err := editor(file); err != nil {
		return nil, err
	}
	return secrets.ReadRuntime(runtime.Dir, name)
}
