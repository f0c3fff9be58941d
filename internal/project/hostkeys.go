package project

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/secrets"
)

// checkHostKeys compares the private ssh keys of the hosts, among the secrets, with the public ones
// in git. If one is missing or does not match, a deployment would give a host a key by which it is not
// known.
func (p *Project) checkHostKeys() diag.Problems {
	if p.Plan.Network.Secrets.Kind == plan.SecretUnknown {
		return nil // where the private ones would be is not known
	}
	var problems diag.Problems
	report := func(file, code, message, hint string) {
		problems = append(problems, diag.Problem{File: file, Severity: diag.Error, Code: code, Message: message, Hint: hint})
	}
	for _, host := range p.Plan.Hosts {
		file, public := p.Secrets.HostKeyFile(host.Name), p.Secrets.HostKey(host.Name)
		made, listed := false, false
		for _, key := range p.HostKeys.Of(host.Name) {
			made = made || key.Made
			listed = listed || public != nil && bytes.Equal(key.Public.Marshal(), public.Marshal())
		}
		switch {
		case file == "" && made:
			report(p.Secrets.At(secrets.HostKeyName(host.Name)), "secret-missing",
				"is missing: k3splan made the ssh host key of "+host.Name+", and its private part is not here",
				"copy the file from where it was made, or adopt the key that the machine has with `k3splan known-hosts scan "+host.Name+"`")
		case public != nil && !listed:
			report(file, "host-key-unlisted", "is not the key by which "+host.Name+" is known in "+remote.KnownHostsFile,
				"run `k3splan known-hosts make "+host.Name+"`, which adds its public part")
		}
	}
	return problems
}

// MakeHostKeys makes an ssh key for each of the hosts, private part in the vault and public part in
// [remote.KnownHostsFile] of the project in dir, unless it is known by one already. Where only the private
// part is there, the public one is added. With renew, a host gets a new key beside those by which
// it is known: it proves itself with the old one until the new one is deployed; the replaced
// private part is kept among the retired secrets. It returns the hosts that got something; after an
// error they are not known by it yet, and another call completes that.
func MakeHostKeys(dir string, vault *secrets.Vault, hosts []string, renew bool) (made []string, err error) {
	var names []string
	for _, host := range hosts {
		names = append(names, secrets.HostKeyName(host))
	}
	if len(names) == 0 {
		return nil, nil
	}
	if err := vault.Prepare(names...); err != nil {
		return nil, err
	}
	err = changeKeys(dir, vault, func(vault *secrets.Vault, known remote.HostKeys) (map[string][]remote.HostKey, error) {
		add := map[string][]remote.HostKey{}
		for _, host := range hosts {
			present := known.Of(host)
			key, err := makeHostKey(vault, host, present, renew)
			if err != nil {
				return nil, err
			}
			if key != nil {
				add[host] = append(slices.Clone(present), *key)
				made = append(made, host)
			}
		}
		return add, nil
	})
	return made, err
}

// changeKeys changes private and public keys under one lock.
func changeKeys(dir string, vault *secrets.Vault, change func(vault *secrets.Vault, known remote.HostKeys) (map[string][]remote.HostKey, error)) error {
	return vault.Lock(func(held *secrets.Vault) error {
		return remote.ChangeKnownHostsLocked(dir, func(known remote.HostKeys) (map[string][]remote.HostKey, error) { return change(held, known) })
	})
}

// NewHostKey lets a host be known by a new ssh key, and by no other: its machine is to be installed again. A
// private part that was there goes to the retired secrets.
func NewHostKey(dir string, vault *secrets.Vault, host string) error {
	name := secrets.HostKeyName(host)
	if err := vault.Prepare(name); err != nil {
		return err
	}
	return changeKeys(dir, vault, func(vault *secrets.Vault, _ remote.HostKeys) (map[string][]remote.HostKey, error) {
		private, public, err := secrets.NewHostKey(host)
		if err != nil {
			return nil, err
		}
		if _, err := vault.SetAside(name, now()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err := vault.Create(name, private); err != nil {
			return nil, err
		}
		return map[string][]remote.HostKey{host: {{Public: public, Made: true}}}, nil
	})
}

// makeHostKey returns the key that is to be added, nil if none is.
func makeHostKey(vault *secrets.Vault, host string, present []remote.HostKey, renew bool) (*remote.HostKey, error) {
	name := secrets.HostKeyName(host)
	private, err := vault.Read(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if len(present) > 0 && !renew {
			return nil, nil // known by a key that is not ours, or that was made elsewhere
		}
	case err != nil:
		return nil, err
	case renew:
		if _, err := vault.Retire(name, now()); err != nil {
			return nil, err
		}
	default: // a run that was interrupted in between
		public, err := secrets.ParseHostKey(private)
		if err != nil {
			return nil, fmt.Errorf("%s %w", vault.At(name), err)
		}
		for _, key := range present {
			if bytes.Equal(key.Public.Marshal(), public.Marshal()) {
				return nil, nil
			}
		}
		return &remote.HostKey{Public: public, Made: true}, nil
	}
	private, public, err := secrets.NewHostKey(host)
	if err != nil {
		return nil, err
	}
	store := vault.Create
	if renew {
		store = vault.Replace
	}
	if err := store(name, private); err != nil {
		return nil, err
	}
	return &remote.HostKey{Public: public, Made: true}, nil
}

// AdoptHostKey lets a host be known by the key that its machine has, and by no other. A private
// part that k3splan had made for it goes to the retired secrets: a deployment would replace the
// machine's key by it. kept is its name there, if there was one.
func AdoptHostKey(dir string, vault *secrets.Vault, host string, key remote.HostKey) (kept string, err error) {
	if err := vault.Prepare(secrets.HostKeyName(host)); err != nil {
		return "", err
	}
	err = changeKeys(dir, vault, func(vault *secrets.Vault, _ remote.HostKeys) (map[string][]remote.HostKey, error) {
		if key.Made, kept, err = giveWayTo(key, vault, secrets.HostKeyName(host)); err != nil {
			return nil, err
		}
		return map[string][]remote.HostKey{host: {key}}, nil
	})
	return kept, err
}

// giveWayTo retires a private key, unless it is that of the key in its place, which is k3splan's then.
func giveWayTo(key remote.HostKey, vault *secrets.Vault, name string) (ours bool, kept string, err error) {
	private, err := vault.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, "", nil
	} else if err != nil {
		return false, "", err
	}
	if public, err := secrets.ParseHostKey(private); err == nil && bytes.Equal(public.Marshal(), key.Public.Marshal()) {
		return true, "", nil
	}
	if kept, err = vault.Retire(name, now()); err != nil {
		return false, "", err
	}
	return false, kept, vault.Remove(name)
}

// hostKeys makes the keys of the hosts in the plan, as soon as it is the user's: nobody has the
// machines of the starter tables.
func (s *setup) hostKeys() error {
	table := plan.HostsFile
	if s.exists(plan.WorkbookFile) {
		table = plan.WorkbookFile
	}
	starter, err := s.starter(table)
	if err != nil {
		return err
	}
	if present, err := fs.ReadFile(s.fsys, table); err != nil || bytes.Equal(present, starter) {
		return nil
	}
	p, problems := s.Plan()
	if problems.Errors() > 0 {
		return nil
	}
	// not HostKeys, which are read once: here they are about to change
	if _, problems := remote.ReadKnownHosts(files.In(s.Dir), p.HostNames(), !p.Complete); problems.Errors() > 0 {
		return nil // which hosts have a key already is uncertain; validate says why
	}
	var hosts []string
	for _, host := range p.Hosts {
		if !host.Target.Local { // it runs already, with a key of its own
			hosts = append(hosts, host.Name)
		}
	}
	vault, err := s.Vault(nil)
	if err != nil {
		return err
	}
	hadFile := s.exists(remote.KnownHostsFile)
	made, err := MakeHostKeys(s.Dir, vault, hosts, false)
	for _, host := range made {
		s.made = append(s.made, Made{File: vault.At(secrets.HostKeyName(host))})
	}
	if len(made) > 0 {
		s.made = append(s.made, Made{File: remote.KnownHostsFile, Completed: hadFile})
	}
	return err
}

// now is a variable for tests.
var now = time.Now
