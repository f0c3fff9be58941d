package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"k3splan/internal/ask"
	"k3splan/internal/colmena"
	"k3splan/internal/files"
	"k3splan/internal/hive"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/receipt"
	"k3splan/internal/remote"
	"k3splan/internal/rollout"
	"k3splan/internal/text"
)

// deployOptions are the flags of deploy.
type deployOptions struct {
	all, yes, force, keep, noGates, dryRun, asJSON bool
	gateTimeout, gatePause                         time.Duration
	unavailable, as                                string
	parallel                                       int
}

func (a *app) deployCommand() *cobra.Command {
	var options deployOptions
	command := &cobra.Command{
		Use:   "deploy [HOST…] [-- ARGS]",
		Short: "Bring the plan to the hosts that it has changed for",
		Long: `Asks all hosts, or those that are named, what they run; shows which of them the plan has changed for,
and why; and lets Colmena build, copy and activate the new systems of these alone. Everything is built
before the first host is touched. A HOST may be a pattern or @TAG. What stands behind -- goes to Colmena.

The order keeps etcd's quorum: the init server first, the other servers one at a time, then agents,
then hosts without k3s. After each wave a gate waits until its hosts are well; if one is not, the
later waves do not start. Last of all a host gets a receipt, ` + receipt.File + `. A host is
up to date if its receipt names the system that runs, made from today's plan and secrets.

The hosts are verified by the keys in plans/known_hosts; one whose key is unknown is refused, as
Colmena itself would take any key.

What may cut a connection or leave something behind is asked about (--yes answers). What would hurt
the cluster is refused, with the way to do it (--force does it nevertheless).

generated/ is removed after success, and stays after a failure. Colmena's output is kept in
.k3splan/logs/. With --no-gates, or another goal than switch behind --, Colmena alone does it all:
nothing is compared, no gate waits, no receipt is written.`,
		Example: `  k3splan deploy --dry-run
  k3splan deploy
  k3splan deploy karl '@storage' -- --verbose
  k3splan deploy --as root karl          # a NixOS that k3splan has not met yet`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeHosts,
		RunE: func(command *cobra.Command, args []string) error {
			_, extra := splitArgs(command, args)
			if options.noGates || !switches(extra) {
				return a.plainDeploy(command, args, options.keep)
			}
			return a.deploy(command, args, options)
		},
	}
	flags := command.Flags()
	flags.BoolVar(&options.keep, "keep", false, "keep generated/ after success")
	flags.BoolVar(&options.dryRun, "dry-run", false, "show what would be deployed, in which order and why, and change nothing")
	flags.BoolVar(&options.all, "all", false, "deploy also to hosts that are up to date")
	flags.BoolVarP(&options.yes, "yes", "y", false, "answer all questions with yes")
	flags.BoolVar(&options.force, "force", false, "do also what is refused")
	flags.BoolVar(&options.noGates, "no-gates", false, "let Colmena alone deploy to all hosts that are named")
	flags.DurationVar(&options.gateTimeout, "gate-timeout", 10*time.Minute, "how long a host may take to become well")
	flags.DurationVar(&options.gatePause, "gate-pause", 2*time.Second, "how long a gate waits before it asks again")
	_ = flags.MarkHidden("gate-pause")
	flags.StringVar(&options.unavailable, "max-unavailable", "1", "how many `HOSTS` with agents may be away at once: a number or a per cent")
	flags.IntVar(&options.parallel, "parallel", 0, "how many hosts are deployed at once where nothing of the cluster stops (default: as many as this machine has processors, 2 to 10)")
	flags.StringVar(&options.as, "as", "", "log in as `USER`, root or one with sudo without password: for hosts that have no user deploy yet")
	flags.BoolVar(&options.asJSON, "json", false, "print what became of each host as JSON")
	return command
}

// parallelByDefault is as many hosts as this machine has processors, as each is evaluated by a
// process of its own, of half a gigabyte.
func parallelByDefault() int { return min(max(2, runtime.NumCPU()), 10) }

// deployment is one run of deploy.
type deployment struct {
	*app
	deployOptions
	*rollout.Rack // what observe has found out
	project       *project.Project
	patterns      []string
	extra         []string
	limits        rollout.Limits
	ssh           *remote.Config
	// other is how hosts are reached with --as, else nil.
	other      func(*plan.Host) remote.Machine
	waves      []rollout.Wave
	objections []rollout.Objection
	started    time.Time
}

func (a *app) deploy(command *cobra.Command, args []string, options deployOptions) error {
	d := &deployment{app: a, deployOptions: options, started: time.Now()}
	d.patterns, d.extra = splitArgs(command, args)
	selected, err := d.check(command.Flags().Changed("parallel"))
	if err != nil {
		return err
	}
	if !d.dryRun {
		unlock, err := lockProject(d.project.Dir)
		if err != nil {
			return err
		}
		defer unlock()
	}
	ctx, stop := interruptible()
	defer stop()
	if err := d.connect(selected); err != nil {
		return err
	}
	defer d.ssh.Close()
	if err := d.observe(ctx, selected); err != nil {
		return err
	}
	d.waves, d.objections = d.Waves(ctx, d.limits)
	if d.dryRun {
		return d.showDryRun()
	}
	d.showPlan(d.stderr)
	if len(d.waves) == 0 {
		return d.finish(nil)
	}
	if err := d.settle(); err != nil {
		if d.asJSON {
			return errors.Join(err, d.showResults(d.notReached(err)))
		}
		return err
	}
	results, err := d.roll(ctx)
	if err != nil {
		return err
	}
	return d.finish(results)
}

// check reads the project and looks at what the user has said, before anything is done.
func (d *deployment) check(parallelGiven bool) (selected []*plan.Host, err error) {
	if d.as != "" && len(d.patterns) == 0 {
		return nil, usageError(errors.New("--as needs the names of the hosts that it is for"))
	}
	if !parallelGiven {
		d.parallel = parallelByDefault()
	}
	if d.parallel < 1 || d.gateTimeout <= 0 {
		return nil, usageError(errors.New("--parallel and --gate-timeout must be above zero"))
	}
	if d.project, err = d.validProject(); err != nil {
		return nil, err
	}
	p := d.project.Plan
	selected = p.Hosts
	if len(d.patterns) > 0 {
		if selected, err = selectHosts(p, d.patterns); err != nil {
			return nil, err
		}
	}
	agents := slices.DeleteFunc(slices.Clone(p.Hosts), func(h *plan.Host) bool { return h.Agent == nil || h.Server != nil })
	d.limits.Parallel = d.parallel
	if d.limits.Unavailable, err = rollout.ParseUnavailable(d.unavailable, len(agents)); err != nil {
		return nil, usageError(fmt.Errorf("--max-unavailable: %w", err))
	}
	return selected, nil
}

// connect lets ssh know the hosts, if all is there that a deployment needs.
func (d *deployment) connect(selected []*plan.Host) (err error) {
	if err := requirePins(d.project); err != nil {
		return err
	}
	if err := refuseUnknown(selected, d.project.HostKeys); err != nil {
		return err
	}
	d.ssh, err = remote.Prepare(d.project.Dir, d.project.Plan, d.project.HostKeys)
	return err
}

// observe finds out what the hosts run, and what they need.
func (d *deployment) observe(ctx context.Context, selected []*plan.Host) (err error) {
	deploy := d.ssh.Machines(remote.DeployUser)
	machine := deploy
	if d.as != "" {
		d.other = d.ssh.Machines(d.as)
		for _, host := range selected {
			if err := rollout.CheckAccount(ctx, d.other(host)); err != nil {
				return err
			}
		}
		machine = func(h *plan.Host) remote.Machine {
			if slices.Contains(selected, h) {
				return d.other(h)
			}
			return deploy(h)
		}
	}
	d.Rack, err = d.survey(ctx, d.project, selected, machine, d.all)
	return err
}

// settle stops at what is refused, and asks about the rest.
func (d *deployment) settle() error {
	var refused []string
	for _, o := range d.objections {
		if o.Refused {
			refused = append(refused, o.Message)
		}
	}
	if len(refused) > 0 && !d.force {
		return &exitError{code: exitFailed, err: errors.New("refused: " + strings.Join(refused, "\n  ")),
			hint: "what to do first stands above; --force deploys nevertheless"}
	}
	if questions := len(d.objections) - len(refused); questions > 0 {
		return d.user(d.yes).Confirm(context.Background(), fmt.Sprintf("deploy, with %s to be confirmed?", text.Count(questions, "point")))
	}
	return nil
}

// roll writes the hive and deploys wave after wave.
func (d *deployment) roll(ctx context.Context) ([]rollout.Result, error) {
	file, err := d.render(d.project)
	if err != nil {
		return nil, err
	}
	program, err := d.findColmena(file)
	if err != nil {
		return nil, err
	}
	private, err := colmena.PrivateHive(file, d.users())
	if err != nil {
		return nil, err
	}
	defer private.Close()
	logs, err := files.OwnFolder(d.project.Dir, files.StateDir, "logs", d.started.Format("20060102-150405"))
	if err != nil {
		return nil, err
	}
	driver := &rollout.Driver{
		Plan: d.Plan, Program: program, Hive: private, Extra: d.extra, Machine: d.ssh.Machines(remote.DeployUser), Other: d.other,
		Inputs: d.Inputs, Secrets: d.Secrets, Before: d.Observed,
		Logs: logs, GateTimeout: d.gateTimeout, Pause: d.gatePause,
	}
	env, lock, err := d.unlock(d.project, d.Selected)
	if err != nil {
		return nil, err
	}
	defer lock()
	driver.Env = append(env, d.ssh.Env()...)
	d.say("Colmena's output is kept in %s", logs)
	progress := d.newProgress(len(d.hosts()))
	if err := d.buildFirst(driver, progress); err != nil {
		progress.Stop()
		if ctx.Err() != nil {
			return d.notReached(context.Cause(ctx)), nil
		}
		d.say("nothing was deployed: %v\n  log: %s", err, driver.BuildLog())
		return d.notReached(errors.New("the systems cannot be built")), nil
	}
	results := rollout.Run(ctx, d.waves, d.Work, driver, func(e rollout.Event) {
		if e.Result != nil {
			progress.Done(e.Host, d.statusText(*e.Result))
			return
		}
		progress.Step(e.Host, e.Phase, e.Detail)
	})
	progress.Stop()
	for i, result := range results {
		if _, err := os.Stat(driver.LogFile(result.Host)); err == nil {
			results[i].Log = driver.LogFile(result.Host)
		}
	}
	return results, nil
}

// users are the login names of hosts that are not reached by the usual one.
func (d *deployment) users() map[string]string {
	users := map[string]string{}
	for _, host := range d.Selected {
		if d.as != "" && !host.Target.Local {
			users[host.Name] = d.as
		}
	}
	return users
}

// buildFirst builds what is to be deployed, if that is for several hosts: one is built right before
// it is deployed, and leaves nothing half done.
func (d *deployment) buildFirst(driver *rollout.Driver, progress ask.Progress) error {
	hosts := slices.DeleteFunc(d.hosts(), func(host string) bool { return !d.Work[host].System })
	if len(hosts) < 2 {
		return nil
	}
	all := text.Count(len(hosts), "system")
	say := func(line string) {
		progress.Step(all, "evaluating, building", line)
	}
	say("")
	defer progress.Drop(all)
	return driver.Build(hosts, say)
}

// hosts are those of all waves.
func (d *deployment) hosts() (hosts []string) {
	for _, wave := range d.waves {
		hosts = append(hosts, wave.Hosts...)
	}
	return hosts
}

// finish shows what became of each selected host, and removes what was rendered if all is well.
func (d *deployment) finish(results []rollout.Result) error {
	done := map[string]bool{}
	for _, result := range results {
		done[result.Host] = true
	}
	for _, host := range d.Selected {
		switch o := d.Observed[host.Name]; {
		case done[host.Name]:
		case o.Unreachable != "":
			results = append(results, rollout.Result{Host: host.Name, Status: rollout.NotReached, Cause: o.Unreachable})
		case d.Work[host.Name].None():
			results = append(results, rollout.Result{Host: host.Name, Status: rollout.Unchanged})
		}
	}
	if err := d.showResults(results); err != nil {
		return err
	}
	bad := slices.DeleteFunc(slices.Clone(results), func(r rollout.Result) bool {
		return r.Status == rollout.Deployed || r.Status == rollout.Unchanged
	})
	if len(bad) > 0 {
		return &exitError{code: exitFailed, err: fmt.Errorf("%s of %d not deployed", text.Count(len(bad), "host"), len(d.Selected))}
	}
	if d.keep {
		return nil
	}
	return hive.Remove(d.project.Dir)
}
