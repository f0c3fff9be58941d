package project

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k3splan/internal/ask"
	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/run"
	"k3splan/internal/secrets"
)

// PasswordChange says whose password is set.
type PasswordChange struct {
	// Host has a password of its own; "" means all hosts that have none of their own.
	Host string
	// All replaces the passwords of single hosts as well.
	All bool
	// Given is the password, if it was not asked for.
	Given []byte
	// Asked says to ask for it.
	Asked bool
}

// PasswordSet is what was stored.
type PasswordSet struct {
	// Places are where the hashes are now, for people.
	Places []string
	// Own are the hosts with a password of their own, which was not replaced.
	Own []string
}

// ErrPassword is a password that cannot be used.
var ErrPassword = errors.New("invalid password")

// SetPassword stores the hash of a password among the secrets. A weak one has to be confirmed, or is only
// warned about if it was given.
func SetPassword(ctx context.Context, user ask.User, p *plan.Plan, vault *secrets.Vault, change PasswordChange) (set PasswordSet, err error) {
	password := change.Given
	if change.Asked {
		if password, err = user.NewPassword(ctx); err != nil {
			return set, err
		}
	}
	if weakness := secrets.Weakness(password, namesOf(p)); weakness != "" && len(password) > 0 {
		if change.Asked {
			err = user.Confirm(ctx, "the password "+weakness+". Use it all the same?")
		} else {
			user.Warn("the password %s", weakness)
		}
		if err != nil {
			return set, err
		}
	}
	err = vault.Lock(func(held *secrets.Vault) error {
		targets, own, err := passwordNames(p, held, change)
		if err != nil {
			return err
		}
		// all hashes before the first is stored; each has a salt of its own
		hashes := make([]string, len(targets))
		for i := range targets {
			if hashes[i], err = secrets.HashPassword(password); err != nil {
				return fmt.Errorf("%w: %w", ErrPassword, err)
			}
		}
		for _, name := range targets {
			if err := replaceable(held, name); err != nil {
				return err
			}
		}
		for i, name := range targets {
			if err := held.Replace(name, []byte(hashes[i]+"\n")); err != nil {
				return err
			}
			set.Places = append(set.Places, held.At(name))
		}
		if change.Host == "" && !change.All {
			set.Own = own
		}
		return nil
	})
	return set, err
}

// replaceable refuses a link in the place of a password file that leads to something else.
func replaceable(vault *secrets.Vault, name string) error {
	target := vault.Elsewhere(name).File
	if target == "" {
		return nil
	}
	present, err := vault.Read(name)
	if err != nil {
		return err
	}
	if len(secrets.CheckHash(present)) > 0 {
		return diag.WithHint(fmt.Errorf("%s is a link to %s, which does not contain a password hash; nothing was changed", vault.At(name), target),
			"remove the link: rm "+run.Word(vault.At(name)))
	}
	return nil
}

// passwordNames returns the secrets to be written, and the hosts that have a password of their own.
func passwordNames(p *plan.Plan, vault *secrets.Vault, change PasswordChange) (targets, own []string, err error) {
	present, err := vault.List()
	if err != nil {
		return nil, nil, err
	}
	targets = []string{secrets.PasswordName(change.Host, present)}
	for _, host := range p.HostNames() {
		if name := secrets.PasswordName(host, present); slices.Contains(present, name) {
			own = append(own, host)
			if change.All {
				targets = append(targets, name)
			}
		}
	}
	return targets, own, nil
}

// namesOf returns the names in a plan that a password must not be.
func namesOf(p *plan.Plan) []string {
	names := p.HostNames()
	for _, host := range p.Hosts {
		names = append(names, host.Admin)
	}
	for _, container := range p.Containers() {
		names = append(names, container.Name)
	}
	domain, _, _ := strings.Cut(p.Network.Domain, ".")
	return append(names, p.Network.Domain, domain)
}
