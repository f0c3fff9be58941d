package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"k3splan"
	"k3splan/internal/colmena"
	"k3splan/internal/diag"
	"k3splan/internal/etcd"
	"k3splan/internal/k3s"
	"k3splan/internal/nix"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/receipt"
	"k3splan/internal/remote"
	"k3splan/internal/rollout"
)

// deployFlags are those of deploy and rollback that are not in their requests as they are.
type deployFlags struct {
	yes, asJSON bool
	// verbose shows all that new systems change
	verbose     bool
	unavailable string
	memory      byteSize
}

func (a *app) deployCommand() *cobra.Command {
	var request rollout.Request
	var flags deployFlags
	command := &cobra.Command{
		Use:   "deploy [HOST…] [-- ARGS]",
		Short: "Bring the plan to the hosts that it has changed for",
		Long: `Asks all hosts, or those that are named, what they run; shows which of them the plan has changed for,
and why; evaluates and builds the new systems of these alone, and has Colmena copy and activate them.
Everything is built before the first host is touched. A HOST may be a pattern or @TAG; !HOST leaves
hosts out. Arguments after -- are passed to Colmena.

A host that was evaluated before, by build or by a deployment that failed, is not evaluated again.

The order keeps etcd's quorum: servers one at a time, the init server first (after a new one without
which its restart would lose the quorum), then agents, then hosts without k3s. Before each step that stops or starts a server, all servers are asked how they
are; after each wave a gate waits until its hosts are healthy and run what was deployed. If one is not,
the later waves do not start. At the end a host gets a receipt, ` + receipt.File + `. A host is up
to date if its receipt names the system that runs, made from today's plan and secrets.

Before a wave that may change the version of k3s or moves a server, a snapshot of etcd is made and kept
in .k3splan/snapshots/ (k3splan etcd list); without a healthy server that could make one, the rollout
stops (--no-snapshot).

Two operators do not deploy at the same time: on this machine the project is locked, and the hosts of
the servers keep a lease, which needs a majority of them.

The hosts are verified by the keys in plans/known_hosts; one whose key is unknown is refused, as
Colmena itself would accept any key.

A system that cannot be activated while the old one runs (another D-Bus, or what it declares as
switch inhibitors) is set for the next boot, and the host reboots in its wave. That is asked about
where it is known from the release; otherwise --reboot allows it.

What may cut a connection or leave something behind is asked about (--yes confirms). What would hurt
the cluster is refused, with the way to do it (--force does it anyway). With --dry-run nothing is
changed; the exit code is 1 if a host does not answer, as its changes are unknown then. With --build as
well, the new systems are built and compared with those that run: versions of packages, size, what
takes effect at a boot alone. With --copy they are also copied, and say which units they would restart.
A deployment shows the same on its way (--verbose: all of it).

generated/ is removed after success, and stays after a failure. What Nix and Colmena say is kept in
.k3splan/logs/. With --no-gates, or another goal than switch after --, a single run of Colmena does it
all: nothing is compared, no gate waits, no receipt is written. What it activates is judged before all
the same, unless --force is given as well: then the lease alone is asked for.`,
		Example: `  k3splan deploy --dry-run
  k3splan deploy
  k3splan deploy karl '@storage' -- --verbose
  k3splan deploy --as root karl          # a NixOS that k3splan has not met yet`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeHosts,
		RunE: func(command *cobra.Command, args []string) error {
			if !command.Flags().Changed("parallel") {
				request.Limits.Parallel = parallelByDefault()
			}
			return a.deploy(command, args, request, flags)
		},
	}
	f := command.Flags()
	f.BoolVar(&request.Keep, "keep", false, "keep generated/ after success")
	f.BoolVar(&request.DryRun, "dry-run", false, "show what would be deployed, in which order and why, and change nothing")
	f.BoolVar(&request.Build, "build", false, "with --dry-run: build the new systems and show what they change")
	f.BoolVar(&request.Copy, "copy", false, "with --build: copy them to the hosts and show which units they would restart")
	f.BoolVarP(&flags.verbose, "verbose", "v", false, "show all packages and units that new systems change")
	f.BoolVar(&request.All, "all", false, "also deploy hosts that are up to date")
	f.BoolVarP(&flags.yes, "yes", "y", false, "confirm everything in advance")
	f.BoolVar(&request.Force, "force", false, "also do what is refused")
	f.BoolVar(&request.Reboot, "reboot", false, "reboot hosts, each in its wave, whose new system cannot be activated while the old one runs")
	f.BoolVar(&request.NoSnapshot, "no-snapshot", false, "make no snapshot of etcd before waves that may change k3s or move a server")
	f.BoolVar(&request.NoGates, "no-gates", false, "let a single run of Colmena deploy to all selected hosts")
	addGateFlags(f, &request.GateTimeout, &request.GatePause, &flags.unavailable, &request.Limits.Parallel)
	addEvalMemory(f, &flags.memory)
	f.StringVar(&request.As, "as", "", "log in as `USER`, root or one with passwordless sudo: for hosts that have no user deploy yet")
	addJSON(command, &flags.asJSON, deployResults{}, deployProposal{})
	return command
}

// addGateFlags adds the flags by which waves and gates are set.
func addGateFlags(f *pflag.FlagSet, timeout, pause *time.Duration, unavailable *string, parallel *int) {
	f.DurationVar(timeout, "gate-timeout", 10*time.Minute, "how long a host may take to become healthy")
	f.DurationVar(pause, "gate-pause", 2*time.Second, "how long a gate waits before it asks again")
	_ = f.MarkHidden("gate-pause")
	f.StringVar(unavailable, "max-unavailable", "1", "how many `HOSTS` with agents may be down at the same time: a number or a percentage")
	f.IntVar(parallel, "parallel", 0, "how many hosts are changed at the same time where nothing of the cluster stops (default: the number of this machine's processors, 2 to 10)")
}

// parallelByDefault is the number of this machine's processors within limits: each host has a Colmena
// of its own.
func parallelByDefault() int { return min(max(2, runtime.NumCPU()), 10) }

// deploy completes the request, and shows what became of it.
func (a *app) deploy(command *cobra.Command, args []string, request rollout.Request, flags deployFlags) error {
	patterns, extra := splitArgs(command, args)
	request.Args, request.EvalMemory = extra, int64(flags.memory)
	if request.As != "" && len(patterns) == 0 {
		return usageError(errors.New("--as needs the names of the hosts that it is for"))
	}
	switch {
	case request.Copy && !request.Build:
		return usageError(errors.New("--copy needs --build: only what is built can be copied"))
	case request.Build && !request.DryRun:
		return usageError(errors.New("--build is for --dry-run; a deployment builds everything anyway"))
	case request.Build && (request.NoGates || !colmena.IsKept(colmena.Goal(extra))):
		return usageError(errors.New("--build compares with what runs; with --no-gates or another goal than switch nothing is compared"))
	}
	if err := a.selectFor(&request, patterns); err != nil {
		return err
	}
	if err := flags.complete(&request.Limits, request.GateTimeout, request.Project, request.Selected); err != nil {
		return err
	}
	return a.roll(flags, request.DryRun, rollout.Deployed, "nothing is to be deployed", func(ctx context.Context, view deployView) (*rollout.Outcome, error) {
		return rollout.Deploy(ctx, a.environment(request.Project), view, request)
	})
}

// complete puts the flags into the limits, and refuses what cannot be: in them, or in the hosts that are selected.
func (f deployFlags) complete(limits *rollout.Limits, gateTimeout time.Duration, p *project.Project, selected []*plan.Host) (err error) {
	if limits.Parallel < 1 || gateTimeout <= 0 {
		return usageError(errors.New("--parallel and --gate-timeout must be above zero"))
	}
	if limits.Unavailable, err = rollout.ParseUnavailable(f.unavailable, agentsAlone(p.Plan)); err != nil {
		return usageError(fmt.Errorf("--max-unavailable: %w", err))
	}
	return refuseUnknown(selected, p.HostKeys)
}

// agentsAlone counts the hosts that have an agent and no server.
func agentsAlone(p *plan.Plan) int {
	return len(slices.DeleteFunc(slices.Clone(p.Hosts), func(h *plan.Host) bool { return h.Agent == nil || h.Server != nil }))
}

// roll brings something to hosts in waves, and shows what became of it: done is what hosts become, nothing is
// the answer of a dry run for which none is left.
func (a *app) roll(flags deployFlags, dryRun bool, done rollout.Status, nothing string, do func(context.Context, deployView) (*rollout.Outcome, error)) error {
	started := time.Now()
	ctx, stop := interruptible()
	defer stop()
	view := deployView{User: a.user(flags.yes), app: a, verbose: flags.verbose}
	outcome, err := do(ctx, view)
	switch {
	case outcome == nil:
		return err
	case dryRun:
		return errors.Join(a.showDryRun(view, *outcome, nothing, flags.asJSON), err)
	case !outcome.Begun && !flags.asJSON: // nothing more to show than the error
		return err
	}
	return errors.Join(a.showResults(outcome.Results, done, started, flags.asJSON), err)
}

// selectFor puts the project and the hosts into a request for Colmena, if both are fit for it.
func (a *app) selectFor(request *rollout.Request, patterns []string) (err error) {
	if request.Project, err = a.validProject(); err != nil {
		return err
	}
	request.Every = len(patterns) == 0
	if request.Selected, err = selectHosts(request.Project.Plan, patterns); err != nil {
		return err
	}
	if err := requirePins(request.Project); err != nil {
		return err
	}
	return requireNix(request.Project)
}

// requireNix says before anything is started that this machine's Nix does not evaluate the plan's nixpkgs.
func requireNix(p *project.Project) error {
	return nix.Require(context.Background(), p.Plan.Network.Versions.NixOS, p.Dir)
}

// requirePins says before anything is started what Nix would say with a long trace.
func requirePins(p *project.Project) error {
	if p.Lock.Origin(p.Plan.Network.Versions.NixOS).Missing == "" {
		return nil
	}
	return &exitError{code: exitInvalid, err: fmt.Errorf("nixpkgs (%s) is not pinned in plans/lock.json", p.Plan.Network.Versions.NixOS), hint: "k3splan update"}
}

// environment is what a deployment of the project uses of this program.
func (a *app) environment(p *project.Project) rollout.Environment {
	return rollout.Environment{
		Templates:  k3splan.Files,
		Render:     a.render,
		Colmena:    func(hiveFile string) (string, error) { return rollout.FindColmena(hiveFile, a.stderr) },
		ReadSecret: a.secretReader(p),
		Unlock: func(hosts []*plan.Host) (env []string, lock func() error, err error) {
			return a.unlock(p, hosts)
		},
		Snapshot: func(ctx context.Context, machine func(*plan.Host) remote.Machine, why string) error {
			vault, err := a.openVault(p)
			if err != nil {
				return err
			}
			cluster := &etcd.Cluster{Dir: p.Dir, Name: k3s.ClusterName(p.Plan, p.Dir), Plan: p.Plan, Vault: vault, Machine: machine}
			snapshot, err := cluster.Save(ctx, a.user(false), etcd.SaveRequest{Reason: why, Now: time.Now()})
			if err == nil {
				a.say("kept the snapshot %s", diag.Printable(snapshot.File))
			}
			return err
		},
		Stdin: a.stdin, Stdout: a.stdout, Stderr: a.stderr,
	}
}

// splitArgs splits the arguments of a command at --.
func splitArgs(command *cobra.Command, args []string) (patterns, extra []string) {
	if dash := command.ArgsLenAtDash(); dash >= 0 {
		return args[:dash], args[dash:]
	}
	return args, nil
}
