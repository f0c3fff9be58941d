package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"k3splan/internal/k3s"
	"k3splan/internal/lease"
	"k3splan/internal/remote"
	"k3splan/internal/rollout"
	"k3splan/internal/secrets"
)

func (a *app) tokenCommand() *cobra.Command {
	return groupOf(&cobra.Command{
		Use:   "token",
		Short: "The tokens with which servers and agents join the cluster",
		Long: `k3splan setup makes a server token and an agent token, once. k3s encrypts its datastore's bootstrap
data with the server token, so the file cannot simply be replaced: rotate does it together with a
running server.`,
		Example: "  k3splan token rotate\n  k3splan token show --agent",
	}, a.tokenShowCommand(), a.tokenRotateCommand(), a.tokenAdoptCommand(), a.tokenPushCommand())
}

func (a *app) tokenShowCommand() *cobra.Command {
	var agent, server bool
	command := &cobra.Command{
		Use:     "show --agent|--server",
		Short:   "Print a token",
		Long:    "Prints a token and nothing else. Without an agent token, agents join with that of the servers.",
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
				return &exitError{code: exitFailed, err: errors.New("the agent token is missing: agents join with that of the servers"), hint: "k3splan token show --server"}
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
	command.Flags().BoolVar(&agent, "agent", false, "the token that agents join with")
	command.Flags().BoolVar(&server, "server", false, "the token that servers join with")
	return command
}

func (a *app) tokenRotateCommand() *cobra.Command {
	var o rotation
	command := &cobra.Command{
		Use:   "rotate",
		Short: "Give the cluster a new server token",
		Long: `Has k3s rotate the server token on a running server (k3s token rotate), which makes the new one.
k3splan then

  - asks etcd whether the cluster's data is encrypted with the new token, and
    only then replaces secrets/init-token;
  - brings it to all hosts with a server, and to those with an agent that has no
    token of its own;
  - keeps the old one in secrets/retired: restoring an older snapshot of etcd
    needs it.

Servers use the new token when they start again: the next deploy restarts them one after the other.
--restart does so now: before each server all others are asked, and the next one waits until it is a
ready voter of etcd again. It is refused while a server is down. No token appears in an argument, in
the environment or on the screen.`,
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
		Short: "Take over the server token of the running cluster",
		Long: `Fetches the server token from a running server, asks etcd whether the cluster's data is encrypted with it, and
puts it into secrets/init-token. Use it in a clone without secrets, and after a rotation that was
interrupted or made by hand. The file's previous token is kept in secrets/retired.`,
		Example: "  k3splan token adopt\n  k3splan token adopt --server ulf",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return a.withServers(o.server, func(ctx context.Context, w serverWork) error {
				return k3s.AdoptToken(ctx, a.user(o.yes), w.token())
			})
		},
	}
	o.flags(a, command)
	return command
}

func (a *app) tokenPushCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "push",
		Short: "Bring the server token to the hosts again",
		Long: `Brings secrets/init-token to all hosts with a server, and to those with an agent that has no token of
its own, after a rotation during which some were not reachable. The token must be the one of a
running server.`,
		Example: "  k3splan token push",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return a.withServers("", func(ctx context.Context, w serverWork) error {
				return w.leased(ctx, func(*lease.Lease) error { return k3s.PushToken(ctx, a.user(false), w.token()) })
			})
		},
	}
}

// rotation are the flags of the commands that ask a server.
type rotation struct {
	server       string
	yes, restart bool
}

func (o *rotation) flags(a *app, command *cobra.Command) {
	command.Flags().StringVar(&o.server, "server", "", "ask the server `NAME`, or the one on this host (default: the init server, else any)")
	command.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	_ = command.RegisterFlagCompletionFunc("server", a.completeServers) // the flag exists
}

func (a *app) rotateToken(o rotation) error {
	return a.withServers(o.server, func(ctx context.Context, w serverWork) error {
		return w.leased(ctx, func(held *lease.Lease) error {
			var restart k3s.Restarter
			if o.restart {
				restart = rollout.Restart{Plan: w.plan, Machine: w.ssh.Machines(remote.DeployUser), Renew: held.Renew}
			}
			return k3s.RotateToken(ctx, a.user(o.yes), w.token(), restart)
		})
	})
}

// token is a request about the server token.
func (w serverWork) token() k3s.TokenRequest {
	return k3s.TokenRequest{Plan: w.plan, Vault: w.secrets, Servers: w.servers, Run: w.runBy(w.ssh)}
}

// leased calls use while this machine holds the lease on the rack, and gives that back after Ctrl-C, too.
func (w serverWork) leased(ctx context.Context, use func(*lease.Lease) error) error {
	held, err := w.lease(ctx, w.ssh, "k3splan token")
	if err != nil {
		return err
	}
	defer held.Release()
	return use(held)
}
