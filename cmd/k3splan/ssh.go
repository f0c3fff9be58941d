package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/run"
)

func (a *app) sshCommand() *cobra.Command {
	var user string
	var terminal bool
	command := &cobra.Command{
		Use:   "ssh HOST [COMMAND…]",
		Short: "Log in to a host, or run a command there",
		Long: `Connects to a host by ssh with the address, port and admin of the plan. The host must show one of the
keys in plans/known_hosts (k3splan known-hosts); nothing is asked, and any other machine is refused.
Your own ssh configuration applies to everything else: Host blocks for the host's name, for its name
with the domain and for its address.

Options come before HOST; everything after it is the command. The exit code is ssh's: that of the
command, or 255 if there was no connection.`,
		Example: "  k3splan ssh olaf\n  k3splan ssh olaf systemctl --failed\n  k3splan ssh -t olaf sudo journalctl -b",
		Args:    usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			command := args[1:]
			if len(command) > 0 && command[0] == "--" { // a habit from other programs
				command = command[1:]
			}
			return a.ssh(args[0], user, terminal, command)
		},
		ValidArgsFunction: a.completeHostNames,
	}
	command.Flags().SetInterspersed(false)
	command.Flags().StringVarP(&user, "user", "l", "", "log in as `USER` (default: the host's admin)")
	_ = command.RegisterFlagCompletionFunc("user", a.completeValues(func(h *plan.Host) []string { return []string{h.Admin} }, remote.DeployUser))
	command.Flags().BoolVarP(&terminal, "tty", "t", false, "give the command a terminal, for example for sudo to ask on")
	return command
}

func (a *app) ssh(name, user string, terminal bool, words []string) (err error) {
	m, err := a.machines()
	if err != nil {
		return err
	}
	if err := m.valid(); err != nil {
		return err
	}
	host, err := m.host(name)
	if err != nil {
		return err
	}
	if host.Target.Local {
		return usageError(fmt.Errorf("%s is this machine", host.Name))
	}
	conf, err := m.prepare(host)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conf.Close()) }()
	session := remote.Session{Terminal: terminal, Command: words, Stdin: a.stdin, Stdout: a.stdout, Stderr: a.stderr}
	err = session.Run(context.Background(), conf.Machine(host, user))
	var exit *run.ExitError
	if errors.As(err, &exit) && exit.Code > 0 { // ssh has said why
		fmt.Fprint(a.stderr, a.hints(a.stderr, "", diag.HintOf(err)))
		return &exitError{code: exit.Code, err: err, quiet: true}
	}
	return err
}

func (a *app) sshConfigCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ssh-config",
		Short: "Print an ssh_config with all hosts, for ssh and editors",
		Long: `Prints an ssh_config with the names, addresses, ports, admins and keys of the hosts in the plan, and
writes the keys to .k3splan/known_hosts, to which it refers. Included at the top of ~/.ssh/config, it
makes plain ssh, scp, rsync and editors reach and verify the hosts as k3splan does. Print it again
when hosts or keys have changed.`,
		Example: "  k3splan ssh-config > ~/.ssh/rack.conf\n  sed -i '1i Include rack.conf' ~/.ssh/config\n  ssh olaf",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			m, err := a.machines()
			if err != nil {
				return err
			}
			if _, err := m.hosts(nil); err != nil {
				return err
			}
			known, err := remote.WriteKnownHosts(m.dir, m.plan, m.keys)
			if err != nil {
				return err
			}
			text, err := remote.ForInclusion(m.plan, m.keys, known)
			if err != nil {
				return err
			}
			for _, host := range m.plan.Hosts {
				if !host.Target.Local && !m.keys.Known(host.Name) {
					a.say("%s cannot be verified yet: its ssh key is unknown", host.Name)
				}
			}
			_, err = fmt.Fprint(a.stdout, text)
			return err
		},
	}
}
