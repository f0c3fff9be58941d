package project

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/edit"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/secrets"
)

// Moved is what MoveSecrets has done.
type Moved struct {
	// Names are the secrets that are in the new place now.
	Names []string
	// Foreign are those of them that k3splan does not use itself: a snippet may name them as files.
	Foreign []string
	// Files are the other files of the project that were changed.
	Files []string
	// Left are those of the secrets that were removed from the project and are still elsewhere, as they
	// were there: whose that is, and whether others need it, is not known.
	Left []Left
}

// Left is a secret that was a link.
type Left struct {
	// Place is where it was, for people.
	Place string
	secrets.Elsewhere
}

// MoveSecrets takes the secrets over into another back end and makes it the project's. Nothing is
// removed from the old place before everything was read back from the new one, and a call that was
// interrupted can be made again. If the back end is in use already, it takes over what is left in the other
// form in the project's folder.
//
// A secret that is in both places with different contents stops it: only the user knows which is right.
func MoveSecrets(dir string, to plan.SecretStore, ask secrets.Ask) (moved *Moved, err error) {
	ask = ask.Once()
	from, err := certainStore(dir)
	if err != nil {
		return nil, err
	}
	source, err := secrets.OpenVault(dir, from, ask)
	if err != nil {
		return nil, err
	}
	if err := source.Prepare(); err != nil {
		return nil, err
	}
	unlock, err := files.Lock(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if from, err = certainStore(dir); err != nil { // another MoveSecrets may have ended in between
		return nil, err
	}
	var network *networkFile // none, if the plan says so already, be it by default
	if from == to {
		from = otherFiles(to)
	} else if network, err = openNetworkFile(dir, to); err != nil {
		return nil, err
	}
	if source, err = secrets.OpenVault(dir, from, ask); err != nil {
		return nil, err
	}
	target, err := secrets.OpenVault(dir, to, ask)
	if err != nil {
		return nil, err
	}
	source, target = source.Held(), target.Held()
	moved = &Moved{}
	contents, err := takeOver(source, target)
	if err != nil {
		return nil, err
	}
	moved.Names = slices.Sorted(maps.Keys(contents))
	moved.Foreign = slices.DeleteFunc(slices.Clone(moved.Names), secrets.IsOurs)
	return moved, moved.finish(dir, to, network, source, contents)
}

// finish makes the new place the project's, once everything is there, and removes the secrets from the
// old one.
func (m *Moved) finish(dir string, to plan.SecretStore, network *networkFile, source *secrets.Vault, contents map[string][]byte) error {
	if network != nil {
		changed, err := network.write() // from here on the new place counts
		if err != nil {
			return fmt.Errorf("all secrets are in the new place as well, but %s does not say so yet: %w", network.file, err)
		}
		if changed {
			m.Files = append(m.Files, network.file)
		}
	}
	if completed, err := openGitignore(dir, to.Kind); err != nil {
		return err
	} else if completed {
		m.Files = append(m.Files, files.GitignoreFile)
	}
	if err := m.clear(source, contents); err != nil {
		return fmt.Errorf("everything is in the new place, but not removed from the old one: %w", err)
	}
	return nil
}

// certainStore returns where the plan says that the secrets are kept.
func certainStore(dir string) (where plan.SecretStore, err error) {
	p, problems := plan.Load(files.In(dir))
	if problems.Errors() > 0 {
		return where, diag.WithHint(errors.New("the tables have errors, so where the secrets are kept is uncertain"), "k3splan validate shows them")
	}
	return p.Network.Secrets, nil
}

// clear removes what was taken over from the old place, and nothing that was written there in the meantime.
func (m *Moved) clear(source *secrets.Vault, contents map[string][]byte) (err error) {
	var same []string
	for _, name := range m.Names { // all of them first: one may be a link to another
		now, readErr := source.Read(name)
		switch {
		case errors.Is(readErr, fs.ErrNotExist): // removed by another process
		case readErr != nil:
			err = errors.Join(err, readErr)
		case !bytes.Equal(now, contents[name]):
			err = errors.Join(err, fmt.Errorf("%s was changed by another process", source.At(name)))
		default:
			same = append(same, name)
		}
	}
	for _, name := range same {
		elsewhere := source.Elsewhere(name)
		if removeErr := source.Remove(name); removeErr != nil {
			err = errors.Join(err, removeErr)
		} else if elsewhere != (secrets.Elsewhere{}) {
			m.Left = append(m.Left, Left{source.At(name), elsewhere})
		}
	}
	m.Left = slices.DeleteFunc(m.Left, func(l Left) bool {
		_, err := os.Stat(l.File)
		return l.File != "" && errors.Is(err, fs.ErrNotExist) // it was another of the secrets
	})
	return err
}

// otherFiles is the back end in the same folder whose files could be left beside those of kept.
func otherFiles(kept plan.SecretStore) plan.SecretStore {
	if kept.Kind == plan.SecretFiles {
		return plan.SecretStore{Kind: plan.SecretAge}
	}
	return plan.SecretStore{Kind: plan.SecretFiles}
}

// takeOver copies all secrets and reads each of them back. If that fails, what it had created is
// removed again.
func takeOver(source, target *secrets.Vault) (contents map[string][]byte, err error) {
	names, err := source.List()
	if err != nil {
		return nil, err
	}
	present, err := target.List()
	if err != nil {
		return nil, err
	}
	contents = make(map[string][]byte, len(names))
	store := map[string]func(string, []byte) error{}
	for _, name := range names {
		if contents[name], err = source.Read(name); err != nil {
			return nil, err
		}
		if !slices.Contains(present, name) {
			store[name] = target.Create
			continue
		}
		other, err := target.Read(name)
		if err != nil {
			return nil, err
		}
		switch {
		case bytes.Equal(other, contents[name]):
		case len(other) == 0: // pass stores what it got of k3splan before that was killed
			store[name] = target.Replace
		default:
			return nil, diag.WithHint(fmt.Errorf("%s and %s hold different secrets; nothing was changed", source.At(name), target.At(name)),
				"remove the wrong one by hand: of a running cluster's tokens only one is right")
		}
	}
	var created []string
	defer func() {
		if err == nil {
			return
		}
		for _, name := range created {
			err = errors.Join(err, target.Remove(name))
		}
	}()
	for _, name := range names {
		if store[name] == nil {
			continue
		}
		if err := store[name](name, contents[name]); err != nil {
			return nil, err
		}
		created = append(created, name)
		read, err := target.Read(name)
		if err != nil {
			return nil, fmt.Errorf("nothing was changed, because what was stored cannot be read back: %w", err)
		}
		if !bytes.Equal(read, contents[name]) {
			return nil, fmt.Errorf("nothing was changed, for %s returns something other than what was stored", target.At(name))
		}
	}
	return contents, nil
}

// networkFile is network.yaml, or the workbook in its place, in which the choice of a back end is written.
type networkFile struct {
	// file is relative to the project
	file, path string
	to         plan.SecretStore
}

// openNetworkFile fails if the choice cannot be written there.
func openNetworkFile(dir string, to plan.SecretStore) (*networkFile, error) {
	n := &networkFile{file: plan.NetworkFile, to: to}
	if _, err := os.Stat(filepath.Join(dir, plan.WorkbookFile)); err == nil {
		n.file = plan.WorkbookFile
	}
	n.path = filepath.Join(dir, n.file)
	text, info, err := files.ReadAtMost(n.path, files.MaxSize)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o222 == 0 {
		return nil, diag.WithHint(fmt.Errorf("%s is read-only; nothing was changed", n.file), "chmod u+w "+n.file)
	}
	_, err = n.edit(text)
	return n, err
}

func (n *networkFile) edit(content []byte) ([]byte, error) {
	if n.file == plan.WorkbookFile {
		return edit.SetSecretStore(content, n.to)
	}
	return plan.SetSecretStore(content, n.to)
}

// write edits the file as it is by now: to encrypt everything takes its time.
func (n *networkFile) write() (changed bool, err error) { return files.Rewrite(n.path, n.edit) }

// sharedInGit lets git see what others need and may see: encrypted secrets and public keys. Everything else
// in secrets/ stays hidden, so that plain text cannot be committed by mistake.
var sharedInGit = []string{"/secrets/**", "!/secrets/**/", "!/secrets/**/*.age", "!/secrets/**/*.pub", "!/" + secrets.RecipientsFile}

// rewriteGitignore changes the project's .gitignore, but not one that is a link: git does not follow it, and
// it may lead anywhere.
func rewriteGitignore(dir string, change func(present []byte) ([]byte, error)) (changed bool, err error) {
	name := filepath.Join(dir, files.GitignoreFile)
	if info, err := os.Lstat(name); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return false, diag.WithHint(fmt.Errorf("%s is a link, which git does not follow", files.GitignoreFile), "put a file in its place")
	}
	return files.Rewrite(name, change)
}

// openGitignore replaces the line that hides all of secrets/, if age keeps what is there.
func openGitignore(dir string, kind plan.SecretKind) (changed bool, err error) {
	if kind != plan.SecretAge {
		return false, nil
	}
	return rewriteGitignore(dir, func(present []byte) ([]byte, error) {
		var lines []string
		for line := range strings.Lines(string(present)) {
			switch trimmed := strings.TrimSpace(line); {
			case trimmed == sharedInGit[0]:
				return present, nil
			case strings.Trim(trimmed, "/") == secrets.Dir && !strings.HasPrefix(trimmed, "!"):
			default:
				lines = append(lines, strings.TrimSuffix(line, "\n")+"\n")
			}
		}
		return []byte(strings.Join(lines, "") + strings.Join(sharedInGit, "\n") + "\n"), nil
	})
}
