package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"k3splan/internal/colmena"
	"k3splan/internal/hive"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/rollout"
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
later waves do not start. Last of all a host gets a receipt, ` + rollout.ReceiptFile + `. A host is
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

// plainDeploy leaves everything to Colmena.
func (a *app) plainDeploy(command *cobra.Command, args []string, keep bool) error {
	return a.withColmena(command, args, func(ctx context.Context, c colmenaRun) error {
		// with it, Colmena takes the keys by which the hosts are known and no others
		conf, err := sshconf.Prepare(c.project.Dir, c.project.Plan, c.project.HostKeys)
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
		return os.RemoveAll(filepath.Join(c.project.Dir, hive.Dir))
	})
}

// deployment is one run of deploy.
type deployment struct {
	*app
	deployOptions
	*rollout.Rack
	project  *project.Project
	patterns []string
	extra    []string
	limits   rollout.Limits
	ssh      *sshconf.Config
	// other is how hosts are reached with --as, else nil.
	other      func(*plan.Host) sshconf.Machine
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
	if !d.asJSON || !d.dryRun {
		d.showPlan()
	}
	if d.dryRun || len(d.waves) == 0 {
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
	if d.project, err = d.load(); err != nil {
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

// notReached is what became of the hosts of all waves when none started.
func (d *deployment) notReached(why error) (results []rollout.Result) {
	for i, wave := range d.waves {
		for _, host := range wave.Hosts {
			results = append(results, rollout.Result{
				Host: host, Status: rollout.NotReached, Wave: i + 1, Reasons: d.Work[host].Reasons, Cause: why.Error(),
			})
		}
	}
	return results
}

// connect lets ssh know the hosts, if all is there that a deployment needs.
func (d *deployment) connect(selected []*plan.Host) (err error) {
	if err := requirePins(d.project); err != nil {
		return err
	}
	if err := refuseUnknown(selected, d.project.HostKeys); err != nil {
		return err
	}
	d.ssh, err = sshconf.Prepare(d.project.Dir, d.project.Plan, d.project.HostKeys)
	return err
}

// observe finds out what the hosts run, and what they need.
func (d *deployment) observe(ctx context.Context, selected []*plan.Host) (err error) {
	machine := d.ssh.Machines(sshconf.DeployUser)
	if d.as != "" {
		d.other = d.ssh.Machines(d.as)
		for _, host := range selected {
			if err := rollout.CheckAccount(ctx, d.other(host)); err != nil {
				return err
			}
		}
		machine = func(h *plan.Host) sshconf.Machine {
			if slices.Contains(selected, h) {
				return d.other(h)
			}
			return d.ssh.Machine(h, sshconf.DeployUser)
		}
	}
	d.Rack, err = d.survey(ctx, d.project, selected, machine, d.all)
	return err
}

// showPlan tells the waves, and for each host why it is in one.
func (d *deployment) showPlan() {
	out := d.stderr
	if d.dryRun {
		out = d.stdout
	}
	var idle []string
	for _, host := range d.Selected {
		switch o := d.Observed[host.Name]; {
		case o.Unreachable != "":
			fmt.Fprintf(out, "%s does not answer: %s\n", host.Name, o.Unreachable)
			if strings.Contains(o.Unreachable, "Permission denied") && d.as == "" {
				fmt.Fprint(out, d.hints(out, "  ", "a NixOS that k3splan has not met yet: k3splan deploy --as root "+host.Name))
			}
		case d.Work[host.Name].None():
			idle = append(idle, host.Name)
		}
	}
	shared := d.sharedReasons()
	if len(shared) > 0 {
		const label = "every host below: "
		fmt.Fprintln(out, label+strings.Join(shared, "\n"+strings.Repeat(" ", len(label))))
	}
	for i, wave := range d.waves {
		fmt.Fprintf(out, "wave %d of %d: %s\n", i+1, len(d.waves), wave.Kind)
		var bare []string
		for _, host := range wave.Hosts {
			own := slices.DeleteFunc(slices.Clone(d.Work[host].Reasons), func(reason string) bool { return slices.Contains(shared, reason) })
			if len(own) == 0 {
				bare = append(bare, host)
				continue
			}
			// below each other, as the sentences are long
			fmt.Fprintf(out, "  %s: %s\n", host, strings.Join(own, "\n    "+strings.Repeat(" ", len(host))))
		}
		if len(bare) > 0 {
			fmt.Fprintf(out, "  %s\n", strings.Join(bare, " "))
		}
	}
	if len(d.waves) > 0 && len(idle) > 0 {
		fmt.Fprintf(out, "unchanged: %s\n", strings.Join(idle, " "))
	}
	for _, o := range d.objections {
		word := d.paint(out, yellow, "to be confirmed:")
		if o.Refused {
			word = d.paint(out, red, "refused:")
		}
		fmt.Fprintf(out, "%s %s\n%s", word, o.Message, d.hints(out, "  ", o.Hint))
	}
}

// hosts are those of all waves.
func (d *deployment) hosts() (hosts []string) {
	for _, wave := range d.waves {
		hosts = append(hosts, wave.Hosts...)
	}
	return hosts
}

// sharedReasons are those of all hosts in the waves, if there are several: to be told once.
func (d *deployment) sharedReasons() []string {
	hosts := d.hosts()
	if len(hosts) < 2 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(d.Work[hosts[0]].Reasons), func(reason string) bool {
		return slices.ContainsFunc(hosts, func(host string) bool { return !slices.Contains(d.Work[host].Reasons, reason) })
	})
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
		return d.confirm(fmt.Sprintf("deploy, with %s to be confirmed?", count(questions, "point")), d.yes)
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
	users := map[string]string{}
	if d.as != "" {
		for _, host := range d.Selected {
			if !host.Target.Local {
				users[host.Name] = d.as
			}
		}
	}
	private, err := colmena.PrivateHive(file, users)
	if err != nil {
		return nil, err
	}
	defer private.Close()
	logs := filepath.Join(d.project.Dir, ownDir, "logs", d.started.Format("20060102-150405"))
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return nil, err
	}
	driver := &rollout.Driver{
		Plan: d.Plan, Program: program, Hive: private, Extra: d.extra, Machine: d.ssh.Machines(sshconf.DeployUser), Other: d.other,
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
		progress.stop()
		if ctx.Err() != nil {
			return d.notReached(context.Cause(ctx)), nil
		}
		d.say("nothing was deployed: %v\n  log: %s", err, driver.BuildLog())
		return d.notReached(errors.New("the systems cannot be built")), nil
	}
	results := rollout.Run(ctx, d.waves, d.Work, driver, progress.event)
	progress.stop()
	for i, result := range results {
		if _, err := os.Stat(driver.LogFile(result.Host)); err == nil {
			results[i].Log = driver.LogFile(result.Host)
		}
	}
	return results, nil
}

// buildFirst builds what is to be deployed, if that is for several hosts: one is built right before
// it is deployed, and leaves nothing half done.
func (d *deployment) buildFirst(driver *rollout.Driver, progress *progress) error {
	hosts := slices.DeleteFunc(d.hosts(), func(host string) bool { return !d.Work[host].System })
	if len(hosts) < 2 {
		return nil
	}
	all := count(len(hosts), "system")
	say := func(line string) {
		progress.event(rollout.Event{Host: all, Phase: "evaluating, building", Detail: line})
	}
	say("")
	defer progress.forget(all)
	return driver.Build(hosts, say)
}

// finish shows what became of each selected host, and removes what was rendered if all is well.
func (d *deployment) finish(results []rollout.Result) error {
	done := map[string]bool{}
	for _, result := range results {
		done[result.Host] = true
	}
	away := map[string]string{}
	for _, host := range d.Selected {
		switch o := d.Observed[host.Name]; {
		case done[host.Name]:
		case o.Unreachable != "":
			away[host.Name] = o.Unreachable
			results = append(results, rollout.Result{Host: host.Name, Status: rollout.NotReached, Cause: o.Unreachable})
		case d.Work[host.Name].None():
			results = append(results, rollout.Result{Host: host.Name, Status: rollout.Unchanged})
		}
	}
	if d.dryRun {
		if d.asJSON {
			return printJSON(d.stdout, struct {
				Waves      []rollout.Wave      `json:"waves"`
				Reasons    map[string][]string `json:"reasons"`
				Objections []rollout.Objection `json:"objections"`
				// Unreachable says why hosts do not answer; what they need is not known.
				Unreachable map[string]string `json:"unreachable"`
			}{orNone(d.waves), reasonsOf(d.Work), orNone(d.objections), away})
		}
		switch {
		case len(away) > 0:
			fmt.Fprintf(d.stdout, "what %s that do not answer need is not known\n", count(len(away), "host"))
		case len(d.waves) == 0:
			fmt.Fprintln(d.stdout, "nothing is to be deployed")
		}
		return nil
	}
	if err := d.showResults(results); err != nil {
		return err
	}
	bad := slices.DeleteFunc(slices.Clone(results), func(r rollout.Result) bool {
		return r.Status == rollout.Deployed || r.Status == rollout.Unchanged
	})
	if len(bad) > 0 {
		return &exitError{code: exitFailed, err: fmt.Errorf("%s of %d not deployed", count(len(bad), "host"), len(d.Selected))}
	}
	if d.keep {
		return nil
	}
	return os.RemoveAll(filepath.Join(d.project.Dir, hive.Dir))
}

func reasonsOf(work map[string]rollout.Work) map[string][]string {
	reasons := map[string][]string{}
	for host, w := range work {
		if !w.None() {
			reasons[host] = w.Reasons
		}
	}
	return reasons
}

// orNone is never nil, so that an empty list is a list in JSON.
func orNone[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (d *deployment) showResults(results []rollout.Result) error {
	if d.asJSON {
		for i := range results {
			results[i].Reasons = orNone(results[i].Reasons)
		}
		return printJSON(d.stdout, struct {
			Results []rollout.Result `json:"results"`
			Seconds float64          `json:"seconds"`
		}{orNone(results), time.Since(d.started).Seconds()})
	}
	width := 4
	for _, result := range results {
		width = max(width, len(result.Host))
	}
	fmt.Fprintf(d.stdout, "%-*s  RESULT\n", width, "HOST")
	for _, result := range results {
		fmt.Fprintf(d.stdout, "%-*s  %s\n", width, result.Host, d.statusText(result))
	}
	deployed := 0
	for _, result := range results {
		if result.Status == rollout.Deployed {
			deployed++
		}
	}
	d.say("%s deployed in %s", count(deployed, "host"), time.Since(d.started).Round(100*time.Millisecond))
	return nil
}

// statusText is what became of a host, with the lines of the cause below.
func (a *app) statusText(r rollout.Result) string {
	switch r.Status {
	case rollout.Deployed:
		return fmt.Sprintf("deployed (%.0f s)", r.Seconds)
	case rollout.Failed:
		text := "failed: " + strings.ReplaceAll(r.Cause, "\n", "\n    ")
		if r.Log != "" {
			text += "\n    log: " + r.Log
		}
		return text
	case rollout.NotReached:
		return "not reached: " + r.Cause
	}
	return string(r.Status)
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
	if missing := (*colmena.MissingError)(nil); errors.As(err, &missing) {
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
