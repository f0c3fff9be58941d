package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"k3splan/internal/k3s"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/rollout"
	"k3splan/internal/secrets"
)

func (a *app) tokenCommand() *cobra.Command {
	return groupOf(&cobra.Command{
		Use:   "token",
		Short: "The tokens by which servers and agents join the cluster",
		Long: `A server token and an agent token are made by k3splan setup, once. k3s encrypts its datastore's
bootstrap data with the server token, so it cannot simply be replaced in its file: rotate does it
together with a running server.`,
		Example: "  k3splan token rotate\n  k3splan token show --agent",
	}, a.tokenShowCommand(), a.tokenRotateCommand(), a.tokenAdoptCommand(), a.tokenPushCommand())
}

func (a *app) tokenShowCommand() *cobra.Command {
	var agent, server bool
	command := &cobra.Command{
		Use:     "show --agent|--server",
		Short:   "Print a token",
		Long:    "Prints a token, on purpose and nothing else. Without an agent token, agents join with that of the servers.",
		Example: "  k3splan token show --agent",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			kind := secrets.InitToken
			switch {
			case agent == server:
				return usageError(errors.New("say which token: --agent or --server"))
			case agent:
				kind = secrets.AgentToken
			}
			_, vault, err := a.vault(a.asker())
			if err != nil {
				return err
			}
			content, err := vault.Read(string(kind))
			if errors.Is(err, fs.ErrNotExist) && agent {
				return &exitError{code: exitFailed, err: errors.New("there is no agent token: agents join with that of the servers"), hint: "k3splan token show --server"}
			} else if err != nil {
				return err
			}
			if problems := secrets.CheckToken(kind, content); problems.Errors() > 0 {
				problems[0].File = vault.At(string(kind))
				a.printProblems(a.stderr, problems)
				return invalid()
			}
			_, err = fmt.Fprintln(a.stdout, strings.TrimSpace(string(content)))
			return err
		},
	}
	command.Flags().BoolVar(&agent, "agent", false, "the token that lets agents join")
	command.Flags().BoolVar(&server, "server", false, "the token that lets servers join")
	return command
}

func (a *app) tokenRotateCommand() *cobra.Command {
	var o rotation
	command := &cobra.Command{
		Use:   "rotate",
		Short: "Give the cluster a new server token",
		Long: `Lets k3s itself rotate the server token on a running server (k3s token rotate): k3s makes the new one.
k3splan then

  - asks etcd whether the cluster's data is for the new token, and only then
    replaces secrets/init-token;
  - brings it to all hosts with a server, and to those with an agent that has no
    token of its own;
  - keeps the old one in secrets/retired: restoring an older snapshot of etcd
    needs it.

Servers take the new token when they start again: the next deploy restarts them one after the other,
or at once with --restart, each after the one before is ready. No token appears in an argument, in the
environment or on the screen.`,
		Example: "  k3splan token rotate\n  k3splan token rotate --server ulf --restart --yes",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(*cobra.Command, []string) error { return a.rotateToken(o) },
	}
	o.flags(a, command)
	command.Flags().BoolVar(&o.restart, "restart", false, "restart the servers afterwards, one after the other")
	return command
}

func (a *app) tokenAdoptCommand() *cobra.Command {
	var o rotation
	command := &cobra.Command{
		Use:   "adopt",
		Short: "Take over the server token of the living cluster",
		Long: `Fetches the server token from a running server, asks etcd whether the cluster's data is for it, and
puts it into secrets/init-token. It is for a clone without secrets, and after a rotation that was
interrupted or made by hand. A token that was in the file is kept in secrets/retired.`,
		Example: "  k3splan token adopt\n  k3splan token adopt --server ulf",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(*cobra.Command, []string) error { return a.adoptToken(o) },
	}
	o.flags(a, command)
	return command
}

func (a *app) tokenPushCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "push",
		Short: "Bring the server token to the hosts again",
		Long: `Brings secrets/init-token to all hosts with a server, and to those with an agent that has no token of
its own, after a rotation during which some were not reachable. It is brought only if it is the one
that a running server takes.`,
		Example: "  k3splan token push",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) (err error) {
			c, err := a.openCluster("")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.close()) }()
			return c.Push(context.Background(), a.sayPushed)
		},
	}
}

// rotation is what the user says about a new token.
type rotation struct {
	server       string
	yes, restart bool
}

func (o *rotation) flags(a *app, command *cobra.Command) {
	command.Flags().StringVar(&o.server, "server", "", "ask the server `NAME`, or the one on this host (default: the init server, else any)")
	command.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	_ = command.RegisterFlagCompletionFunc("server", a.completeServers)
}

// cluster is the living one, with what is to be closed.
type cluster struct {
	*k3s.Cluster
	unlock func() // the project
	conf   *remote.Config
}

// openCluster finds a server that tells its token. All servers' hosts must be known. What it gives is
// to be closed.
func (a *app) openCluster(name string) (*cluster, error) {
	m, err := a.machines()
	if err != nil {
		return nil, err
	}
	servers, err := m.servers(name)
	if err != nil {
		return nil, err
	}
	var hosts []*plan.Host
	for _, server := range servers {
		hosts = append(hosts, server.Host)
	}
	vault, err := m.vault()
	if err != nil {
		return nil, err
	}
	c := &cluster{}
	// a deploy meanwhile would bring the old token, or half of the new one
	if c.unlock, err = rollout.LockProject(m.dir); err != nil {
		return nil, err
	}
	if c.conf, err = m.prepare(hosts...); err != nil {
		c.unlock()
		return nil, err
	}
	run := func(ctx context.Context, host *plan.Host, stdin string, command ...string) (string, error) {
		if err := remote.CheckKnown([]*plan.Host{host}, m.keys); err != nil {
			return "", err
		}
		return c.conf.Machine(host, remote.DeployUser).Run(ctx, stdin, command...)
	}
	if c.Cluster, err = k3s.Find(context.Background(), m.plan, servers, vault, run); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *cluster) close() error {
	defer c.unlock()
	return c.conf.Close()
}

func (a *app) rotateToken(o rotation) (err error) {
	ctx := context.Background()
	c, err := a.openCluster(o.server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	kept, err := c.Rotate(ctx, func() error {
		if !o.yes {
			a.say("%s lets the cluster take a new server token. Servers that are down now cannot start again\nbefore they get it (k3splan token push).", c.Server())
		}
		return a.user(o.yes).Type(ctx, "rotate the token?", "yes")
	})
	if err != nil {
		return err
	}
	a.say("the cluster has a new server token, and so has %s", c.File())
	a.say("the old one is kept in %s", kept)
	if err := c.Push(ctx, a.sayPushed); err != nil {
		return err
	}
	if !o.restart {
		a.say("servers take it when they start again: k3splan deploy restarts them one after the other")
		return nil
	}
	return c.Restart(ctx, func(server string) { a.say("%-12s restarted and ready", server) })
}

func (a *app) sayPushed(host string, err error) {
	if err != nil {
		a.say("%-12s failed: %v", host, err)
		return
	}
	a.say("%-12s has it", host)
}

func (a *app) adoptToken(o rotation) (err error) {
	c, err := a.openCluster(o.server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	kept, adopted, err := c.Adopt(context.Background(), func() error {
		return a.user(o.yes).Type(context.Background(), c.File()+" is not the token of "+c.Server()+": replace it?", "yes")
	})
	if kept != "" {
		a.say("the old one is kept in %s", kept)
	}
	switch {
	case err != nil:
		return err
	case !adopted:
		a.say("%s is the token of the cluster already", c.File())
	default:
		a.say("%s is the token of the cluster now; bring it to all hosts with k3splan token push", c.File())
	}
	return nil
}
