package main

// build, and deploy as Colmena alone does it.

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"k3splan/internal/colmena"
	"k3splan/internal/hive"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/remote"
	"k3splan/internal/run"
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

// plainDeploy leaves everything to Colmena.
func (a *app) plainDeploy(command *cobra.Command, args []string, keep bool) error {
	return a.withColmena(command, args, func(ctx context.Context, c colmenaRun) error {
		// with it, Colmena takes the keys by which the hosts are known and no others
		conf, err := remote.Prepare(c.project.Dir, c.project.Plan, c.project.HostKeys)
		if err != nil {
			return err
		}
		defer conf.Close()
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
		return hive.Remove(c.project.Dir)
	})
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
	patterns, extra := splitArgs(command, args)
	p, err := a.validProject()
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
	if err := requirePins(p); err != nil {
		return err
	}
	file, err := a.render(p)
	if err != nil {
		return err
	}
	program, err := a.findColmena(file)
	if err != nil {
		return err
	}
	opened, err := colmena.OpenHive(file)
	if err != nil {
		return err
	}
	run := colmenaRun{app: a, program: program, project: p, hive: opened, hosts: hosts, extra: extra,
		selection: selectionOf(hosts, len(patterns) == 0)}
	return errors.Join(work(context.Background(), run), opened.Close())
}

// requirePins tells before anything is started what Nix would tell by a long trace.
func requirePins(p *project.Project) error {
	if p.Lock.Origin(p.Plan.Network.Versions.NixOS).Missing == "" {
		return nil
	}
	return &exitError{code: exitInvalid, err: fmt.Errorf("nixpkgs (%s) is not pinned in plans/lock.json", p.Plan.Network.Versions.NixOS), hint: "k3splan update"}
}

// findColmena gives the Colmena to run with the hive in file.
func (a *app) findColmena(file string) (program string, err error) {
	program, err = colmena.Find(context.Background(), filepath.Join(filepath.Dir(file), "sources.nix"), a.stderr)
	if missing := (*run.MissingError)(nil); errors.As(err, &missing) {
		return "", fmt.Errorf("%w; the hive is rendered at %s", err, file)
	}
	return program, err
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
	return run.Run(ctx, run.Command{
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

func splitArgs(command *cobra.Command, args []string) (patterns, extra []string) {
	if dash := command.ArgsLenAtDash(); dash >= 0 {
		return args[:dash], args[dash:]
	}
	return args, nil
}

// otherGoals are what "colmena apply" can be told to do instead of switching to the new system.
var otherGoals = []string{"build", "push", "boot", "test", "dry-activate", "keys", "upload-keys"}

// switches tells whether the user's arguments leave it at running the new system: Colmena's reboot
// does, too, by way of the goal boot.
func switches(extra []string) bool {
	if slices.Contains(extra, "--reboot") {
		return true
	}
	return !slices.ContainsFunc(extra, func(arg string) bool { return slices.Contains(otherGoals, arg) })
}
