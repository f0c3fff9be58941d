package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"k3splan/internal/colmena"
	"k3splan/internal/hive"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/sshconf"
)

func (a *app) buildCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "build [HOST…] [-- ARGS]",
		Short: "Build the systems of the hosts with Colmena",
		Long: `Renders the hive and lets Colmena build the systems of all hosts, or of those that are named.
A HOST may be a pattern or @TAG. What stands behind -- goes to Colmena. generated/ stays.`,
		Example:           "  k3splan build\n  k3splan build olaf '@k3s-agent' -- --verbose",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeHosts,
		RunE: func(command *cobra.Command, args []string) error {
			return a.withColmena(command, args, func(ctx context.Context, c colmenaRun) error {
				return c.run(ctx, colmena.Build(c.hive.File, c.selection, c.extra))
			})
		},
	}
}

func (a *app) deployCommand() *cobra.Command {
	var keep bool
	command := &cobra.Command{
		Use:   "deploy [HOST…] [-- ARGS]",
		Short: "Bring the plan to the hosts with Colmena",
		Long: `Renders the hive and lets Colmena build, copy and activate the systems of all hosts, or of those
that are named. A HOST may be a pattern or @TAG. What stands behind -- goes to Colmena. With more
than one server among the hosts, one after the other is activated, so that etcd keeps its majority.

The hosts are verified by the keys in plans/known_hosts; one whose key is unknown is refused, as
Colmena itself would take any key.

generated/ is removed after success, and stays after a failure.`,
		Example:           "  k3splan deploy\n  k3splan deploy karl\n  k3splan deploy '@rack-a' -- --verbose",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeHosts,
		RunE: func(command *cobra.Command, args []string) error {
			return a.withColmena(command, args, func(ctx context.Context, c colmenaRun) (err error) {
				// with it, Colmena takes the keys by which the hosts are known and no others
				conf, err := sshconf.Prepare(c.project.Dir, c.project.Plan, c.project.HostKeys)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, conf.Close()) }()
				env, lock, err := a.unlock(c.project, c.hosts)
				if err != nil {
					return err
				}
				c.env = append(env, conf.Env()...)
				if err := errors.Join(c.apply(ctx), lock()); err != nil {
					return err
				}
				if keep {
					return nil
				}
				return os.RemoveAll(filepath.Join(c.project.Dir, hive.Dir))
			})
		},
	}
	command.Flags().BoolVar(&keep, "keep", false, "keep generated/ after success")
	return command
}

// colmenaRun is what Colmena is to be called for.
type colmenaRun struct {
	app       *app
	program   string
	project   *project.Project
	hive      *colmena.Hive
	selection colmena.Selection
	hosts     []*plan.Host
	extra     []string
	env       []string // beside the hive's own
}

// withColmena checks everything that can be checked, renders, finds Colmena and then does the work.
func (a *app) withColmena(command *cobra.Command, args []string, work func(context.Context, colmenaRun) error) error {
	patterns, extra := args, []string(nil)
	if dash := command.ArgsLenAtDash(); dash >= 0 {
		patterns, extra = args[:dash], args[dash:]
	}
	p, err := a.load()
	if err != nil {
		return err
	}
	hosts := p.Plan.Hosts
	if len(patterns) > 0 {
		if hosts, err = selectHosts(p.Plan, patterns); err != nil {
			return err
		}
	}
	if command.Name() != "build" { // which connects to no host
		if err := refuseUnknown(hosts, p.HostKeys); err != nil {
			return err
		}
	}
	file, err := a.render(p)
	if err != nil {
		return err
	}
	ctx := context.Background()
	program, err := colmena.Find(ctx, filepath.Join(filepath.Dir(file), "sources.nix"), a.stderr)
	if missing := (*colmena.MissingError)(nil); errors.As(err, &missing) {
		return &exitError{code: exitFailed, err: fmt.Errorf("%w; the hive is rendered at %s", err, file),
			hint: "install Nix (https://nixos.org/download) or Colmena (nix-env -iA nixpkgs.colmena)"}
	} else if err != nil {
		return err
	}
	opened, err := colmena.OpenHive(file)
	if err != nil {
		return err
	}
	run := colmenaRun{app: a, program: program, project: p, hive: opened, hosts: hosts, extra: extra,
		selection: selectionOf(hosts, len(patterns) == 0)}
	return errors.Join(work(ctx, run), opened.Close())
}

func selectionOf(hosts []*plan.Host, all bool) colmena.Selection {
	selection := colmena.Selection{All: all}
	for _, host := range hosts {
		selection.Hosts = append(selection.Hosts, host.Name)
		if host.Server != nil {
			selection.Servers++
		}
	}
	return selection
}

func (c colmenaRun) run(ctx context.Context, args []string) error {
	return colmena.Run(ctx, colmena.Command{
		Program: c.program, Args: args, Env: slices.Concat(c.hive.Env, c.env),
		Stdin: c.app.stdin, Stdout: c.app.stdout, Stderr: c.app.stderr,
	})
}

// apply deploys by ssh, and then to the deploying machine itself if it is among the hosts.
func (c colmenaRun) apply(ctx context.Context) error {
	remote := slices.Clone(c.hosts)
	remote = slices.DeleteFunc(remote, func(h *plan.Host) bool { return h.Target.Local })
	if len(remote) > 0 {
		all := c.selection.All && len(remote) == len(c.hosts)
		if err := c.run(ctx, colmena.Apply(c.hive.File, selectionOf(remote, all), c.extra)); err != nil {
			return err
		}
	}
	for _, host := range c.hosts {
		if !host.Target.Local {
			continue
		}
		if err := c.run(ctx, colmena.ApplyLocal(c.hive.File, host.Name, c.extra)); err != nil {
			return err
		}
	}
	return nil
}
