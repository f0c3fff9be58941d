package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/remote"
	"k3splan/internal/secrets"
	"k3splan/internal/text"
)

func (a *app) knownHostsCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "known-hosts",
		Short: "The ssh keys by which the hosts are known",
		Long: `Lists the ssh keys by which each host is known. They are in plans/known_hosts, which is public and
belongs in git, so that every clone of the project verifies the hosts from the first connection.

k3splan made a key and brings its private part (secrets/hosts/HOST_ed25519) to the machine, or the
machine had it and an operator adopted it.`,
		Example: "  k3splan known-hosts\n  k3splan known-hosts make\n  k3splan known-hosts scan karl",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(*cobra.Command, []string) error { return a.listKnownHosts(asJSON) },
	}
	addJSON(command, &asJSON, []hostKeyRow{})
	command.AddCommand(a.knownHostsMakeCommand(), a.knownHostsScanCommand(), a.knownHostsForgetCommand())
	return command
}

// hostKeyRow is an ssh key by which a host is known.
type hostKeyRow struct {
	Host        string `json:"host"`
	Type        string `json:"type"`
	Fingerprint string `json:"fingerprint"`
	// Made reports whether k3splan made the key; otherwise it was adopted.
	Made bool `json:"made"`
}

func (a *app) listKnownHosts(asJSON bool) error {
	m, err := a.machines()
	if err != nil {
		return err
	}
	keys := []hostKeyRow{}
	var rows [][]string
	for _, host := range m.plan.Hosts {
		known := m.keys.Of(host.Name)
		for _, key := range known {
			keys = append(keys, hostKeyRow{host.Name, key.Type(), key.Fingerprint(), key.Made})
			origin := "adopted"
			if key.Made {
				origin = "made by k3splan"
			}
			rows = append(rows, []string{host.Name, key.Fingerprint(), key.Type(), origin})
		}
		switch {
		case host.Target.Local:
			rows = append(rows, []string{host.Name, "this machine", "", ""})
		case len(known) == 0:
			rows = append(rows, []string{host.Name, "unknown", "", ""})
		}
	}
	return a.print(asJSON, keys, func() (string, error) {
		return a.table([]string{"HOST", "FINGERPRINT", "TYPE", "ORIGIN"}, rows), nil
	})
}

func (a *app) knownHostsMakeCommand() *cobra.Command {
	var renew bool
	command := &cobra.Command{
		Use:   "make [HOST…]",
		Short: "Make ssh keys for machines that are to be installed",
		Long: `Makes an ed25519 host key for each host that is not known yet, or for the named ones: the private part
in secrets/hosts/HOST_ed25519, the public one in plans/known_hosts. The boot stick or the next deploy
brings it to the machine. A HOST may be a pattern or @TAG; !HOST leaves hosts out.

With --renew a host gets a new key in addition to those by which it is known. Deploy it, and then
forget the old one (k3splan known-hosts forget).

A running machine has a key of its own: adopt that with k3splan known-hosts scan.`,
		Example: "  k3splan known-hosts make\n  k3splan known-hosts make ulf @storage\n  k3splan known-hosts make --renew olaf",
		Args:    cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if renew && len(args) == 0 {
				return usageError(errors.New("--renew needs the names of the hosts"))
			}
			m, err := a.machines()
			if err != nil {
				return err
			}
			hosts, err := m.hosts(args)
			if err != nil {
				return err
			}
			var names []string
			for _, host := range hosts {
				if len(args) == 0 && host.Target.Local {
					continue // it is running, with a key of its own
				}
				names = append(names, host.Name)
			}
			vault, err := m.vault()
			if err != nil {
				return err
			}
			made, err := project.MakeHostKeys(m.dir, vault, names, renew)
			for _, host := range made {
				a.say("made %s", vault.At(secrets.HostKeyName(host)))
			}
			if err != nil {
				return err
			}
			if len(made) == 0 {
				a.say("nothing to make: all hosts have known keys")
				return nil
			}
			a.say("their public parts are in %s, which belongs in git", remote.KnownHostsFile)
			return nil
		},
		ValidArgsFunction: a.completeHosts,
	}
	command.Flags().BoolVar(&renew, "renew", false, "make new keys for hosts that are known, too")
	return command
}

func (a *app) knownHostsScanCommand() *cobra.Command {
	var fingerprint string
	var yes bool
	command := &cobra.Command{
		Use:   "scan HOST…",
		Short: "Show the ssh key of a running machine, and adopt it",
		Long: `Asks a running machine for its ssh key, shows the fingerprint, and, if you confirm it, makes it the
key by which the project knows the machine. Compare the fingerprint with the one that the machine
itself prints, on its console or over a connection that you trust:

  ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub

A key that k3splan had made for the machine goes to secrets/retired: the machine keeps its own.`,
		Example: "  k3splan known-hosts scan karl\n  k3splan known-hosts scan karl --fingerprint SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
		Args:    usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			if fingerprint != "" && len(args) != 1 {
				return usageError(errors.New("--fingerprint needs exactly one host"))
			}
			m, err := a.machines()
			if err != nil {
				return err
			}
			if err := m.valid(); err != nil {
				return err
			}
			for _, name := range args {
				host, err := m.host(name)
				if err != nil {
					return err
				}
				if host.Target.Local {
					return usageError(fmt.Errorf("%s is this machine; it is deployed without ssh", host.Name))
				}
				if err := m.scan(host, fingerprint, yes); err != nil {
					return err
				}
			}
			return nil
		},
		ValidArgsFunction: a.completeEachHost,
	}
	command.Flags().StringVar(&fingerprint, "fingerprint", "", "adopt the key if it has this `FINGERPRINT`, without asking")
	command.Flags().BoolVarP(&yes, "yes", "y", false, "adopt any key that the machine shows, without asking")
	return command
}

// scan fetches a machine's key and adopts it.
func (m *machines) scan(host *plan.Host, fingerprint string, yes bool) error {
	key, err := m.look(host)
	if err != nil {
		return err
	}
	a := m.app
	a.say("%s at %s has the key", host.Name, host.Target.Host)
	a.say("  %s  %s", key.Fingerprint(), key.Type())
	if other := m.keys.SharedWith(host.Name, key); other != "" && m.plan.Host(other) != nil {
		return diag.WithHint(fmt.Errorf("%s is already known by this key, and each machine needs one of its own; nothing was changed", other), remote.SharedHint(host.Name))
	}
	present := m.keys.Of(host.Name)
	for _, known := range present {
		if known.Fingerprint() == key.Fingerprint() && len(present) == 1 {
			a.say("%s is already known by it", host.Name)
			return nil
		}
	}
	for _, known := range present {
		a.say("until now it was known by")
		a.say("  %s  %s", known.Fingerprint(), known.Type())
	}
	switch {
	case fingerprint != "":
		if fingerprint != key.Fingerprint() && "SHA256:"+fingerprint != key.Fingerprint() {
			return fmt.Errorf("the key of %s does not have the fingerprint %s; nothing was changed", host.Name, fingerprint)
		}
	default:
		if err := a.user(yes).Type(context.Background(), "is this the machine's own fingerprint?", "yes"); err != nil {
			return err
		}
	}
	vault, err := m.vault()
	if err != nil {
		return err
	}
	kept, err := project.AdoptHostKey(m.dir, vault, host.Name, key)
	if err != nil {
		return err
	}
	if kept != "" {
		a.say("the key that k3splan had made is now in %s", vault.At(kept))
	}
	a.say("%s is now known by it, in %s, which belongs in git", host.Name, remote.KnownHostsFile)
	return nil
}

// look asks a machine for its key, without logging in.
func (m *machines) look(host *plan.Host) (key remote.HostKey, err error) {
	conf, err := remote.Prepare(m.dir, m.plan, m.keys)
	if err != nil {
		return key, err
	}
	defer func() { err = errors.Join(err, conf.Close()) }()
	return conf.Machine(host, host.Admin).HostKey(context.Background())
}

func (a *app) knownHostsForgetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "forget HOST FINGERPRINT…",
		Short: "Remove a key by which a host is known",
		Long: `Removes keys from plans/known_hosts, for example the old one after a renewed key was deployed. The key
that k3splan brings to the machine cannot be removed.`,
		Example: "  k3splan known-hosts forget olaf SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
		Args:    usageArgs(cobra.MinimumNArgs(2)),
		RunE: func(_ *cobra.Command, args []string) error {
			m, err := a.machines()
			if err != nil {
				return err
			}
			host, err := m.host(args[0])
			if err != nil {
				return err
			}
			return m.forget(host, args[1:])
		},
		ValidArgsFunction: func(command *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.completeHostNames(command, args, word)
			}
			return a.fingerprints(args[0]), nothingElse
		},
	}
}

// fingerprints returns those of the keys by which a host is known.
func (a *app) fingerprints(host string) (words []cobra.Completion) {
	w, err := a.workspace()
	if err != nil {
		return nil
	}
	keys, _ := w.HostKeys()
	for _, key := range keys.Of(strings.ToLower(host)) {
		words = append(words, cobra.CompletionWithDesc(key.Fingerprint(), key.Type()))
	}
	return words
}

// ownFingerprint returns that of the key that k3splan brings to a host, or "".
func (m *machines) ownFingerprint(host *plan.Host) (string, error) {
	vault, err := m.vault()
	if err != nil {
		return "", err
	}
	private, err := vault.Read(secrets.HostKeyName(host.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	public, err := secrets.ParseHostKey(private)
	if err != nil {
		return "", fmt.Errorf("%s %w", vault.At(secrets.HostKeyName(host.Name)), err)
	}
	return remote.HostKey{Public: public}.Fingerprint(), nil
}

func (m *machines) forget(host *plan.Host, fingerprints []string) error {
	own, err := m.ownFingerprint(host)
	if err != nil {
		return err
	}
	left := 0
	err = remote.ChangeKnownHosts(m.dir, func(known remote.HostKeys) (map[string][]remote.HostKey, error) {
		keys := slices.Clone(known.Of(host.Name))
		for _, fingerprint := range fingerprints {
			fingerprint = "SHA256:" + strings.TrimPrefix(fingerprint, "SHA256:")
			if fingerprint == own {
				return nil, usageError(fmt.Errorf("%s is the key that k3splan brings to %s", fingerprint, host.Name))
			}
			before := len(keys)
			keys = slices.DeleteFunc(keys, func(key remote.HostKey) bool { return key.Fingerprint() == fingerprint })
			if len(keys) == before {
				return nil, &exitError{code: exitInvalid, err: fmt.Errorf("%s is not known by the key %s", host.Name, fingerprint), hint: "k3splan known-hosts lists them"}
			}
		}
		left = len(keys)
		return map[string][]remote.HostKey{host.Name: keys}, nil
	})
	if err != nil {
		return err
	}
	m.app.say("%s is now known by %s", host.Name, text.Count(left, "key"))
	return nil
}
