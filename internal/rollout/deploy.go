package rollout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"k3splan/internal/ask"
	"k3splan/internal/colmena"
	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/fingerprint"
	"k3splan/internal/hive"
	"k3splan/internal/lease"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/remote"
	"k3splan/internal/text"
)

// Request is what is to be deployed, and how.
type Request struct {
	Project *project.Project
	// Selected are the hosts, and Every reports whether they are all hosts because none was named.
	Selected []*plan.Host
	Every    bool
	// Args are the user's arguments for Colmena.
	Args []string
	// As is the login name for hosts that have no user deploy yet, or "".
	As string
	// All also deploys hosts that are up to date.
	All bool
	// Force does what is refused as well.
	Force bool
	// NoGates leaves all hosts to a single run of Colmena: nothing is compared, no gate waits, and no
	// receipt is written.
	NoGates bool
	// NoSnapshot makes no snapshots of etcd before waves that change k3s or move a server.
	NoSnapshot bool
	// DryRun changes nothing on the hosts. With Build the new systems are built all the same, and compared with those
	// that run; with Copy they are copied as well, and asked what their activation would do.
	DryRun, Build, Copy bool
	// Reboot allows to reboot hosts whose new system cannot be activated while the old one runs. Where that
	// is known before, it is asked about.
	Reboot bool
	// Keep leaves the rendered hive after success.
	Keep bool
	// EvalMemory is what the evaluations may take together, in bytes; 0 is most of what is available.
	EvalMemory int64

	Limits                 Limits
	GateTimeout, GatePause time.Duration
	// Order is for Reboot; without it hosts reboot in the waves of a deployment.
	Order *Order
}

// Environment is what a deployment uses of k3splan and of the machine that it runs on.
type Environment struct {
	// Templates are what hosts are rendered from.
	Templates fs.FS
	// Render writes the hive and returns its path.
	Render func(*project.Project) (hiveFile string, err error)
	// Colmena returns the Colmena to run with a hive.
	Colmena func(hiveFile string) (program string, err error)
	// ReadSecret returns the content of a secret that is not kept in plain text.
	ReadSecret func(entry string) ([]byte, error)
	// Unlock makes the secrets of hosts available to Colmena, by the environment, until lock is called.
	Unlock func(hosts []*plan.Host) (env []string, lock func() error, err error)
	// Snapshot makes a snapshot of etcd and keeps it on this machine.
	Snapshot func(ctx context.Context, machine func(*plan.Host) remote.Machine, why string) error
	// Stdin, Stdout and Stderr are given to Colmena where it alone does all the work.
	Stdin, Stdout, Stderr *os.File
}

// View is the user, who is shown what is about to be done before any question.
type View interface {
	ask.User
	Propose(Proposal)
	// Preview shows what the new systems of hosts change, before they are activated.
	Preview(map[string]Preview)
}

// Proposal is what a deployment would do.
type Proposal struct {
	Selected []*plan.Host
	Observed map[string]Observed
	Work     map[string]Work
	Waves    []Wave
	// Problems are what speaks against it.
	Problems diag.Problems
}

// hosts are those of all waves.
func (p Proposal) hosts() (hosts []string) {
	for _, wave := range p.Waves {
		hosts = append(hosts, wave.Hosts...)
	}
	return hosts
}

// Unreachable returns why hosts did not answer; what they need is unknown.
func (p Proposal) Unreachable() map[string]string {
	away := map[string]string{}
	for _, host := range p.Selected {
		if o := p.Observed[host.Name]; o.Unreachable != "" {
			away[host.Name] = o.Unreachable
		}
	}
	return away
}

// Outcome is what was decided and what became of it.
type Outcome struct {
	Proposal
	// Results are of all selected hosts, in the order of the waves; nil after a dry run and where Colmena
	// alone did the work.
	Results []Result
	// Previews are what new systems change, by host, as far as that was found out.
	Previews map[string]Preview
	// Begun reports whether the rollout was allowed to begin: it was not refused, and was confirmed.
	Begun bool
}

// deployment is one run of Deploy.
type deployment struct {
	environment Environment
	view        View
	request     Request
	started     time.Time

	// reboots means that hosts are rebooted and nothing is deployed, and rollsBack that they are brought back
	reboots, rollsBack bool

	ssh   *remote.Config
	lease *lease.Lease // nil if none is held
	rack  *Rack
}

// Deploy brings the plan to the hosts. Every form of it takes the project's lock and, where containers
// are concerned, the lease on the rack; whatever may stop a server is judged before.
//
// The outcome is nil if nothing was found out; it is not with an error about the hosts.
func Deploy(ctx context.Context, environment Environment, view View, request Request) (*Outcome, error) {
	d := &deployment{environment: environment, view: view, request: request, started: time.Now()}
	done, err := d.open()
	if err != nil {
		return nil, err
	}
	defer done()
	goal := colmena.Goal(request.Args)
	if request.NoGates || !colmena.IsKept(goal) {
		return d.byColmenaAlone(ctx, goal)
	}
	proposal, err := d.propose(ctx, goal, false)
	if err != nil {
		return nil, err
	}
	outcome := &Outcome{Proposal: proposal}
	if request.DryRun && (!request.Build || len(proposal.Waves) == 0) {
		return outcome, unknownChanges(proposal)
	}
	if request.DryRun {
		notBuilt, err := d.roll(ctx, outcome)
		if err == nil && len(notBuilt) > 0 {
			err = errors.New(notBuilt[0].Cause)
		}
		return outcome, errors.Join(err, unknownChanges(proposal))
	}
	view.Propose(proposal)
	if len(proposal.Waves) == 0 {
		outcome.Begun = true
		return d.finish(outcome, nil)
	}
	if err := d.consent(ctx, proposal.Problems); err != nil {
		outcome.Results = notReached(proposal, err)
		return outcome, err
	}
	outcome.Begun = true
	results, err := d.roll(ctx, outcome)
	if err != nil {
		return nil, err
	}
	return d.finish(outcome, results)
}

// unknownChanges is the error of a dry run that cannot say what all hosts need.
func unknownChanges(p Proposal) error {
	away := p.Unreachable()
	if len(away) == 0 {
		return nil
	}
	if len(away) == len(p.Selected) {
		return fmt.Errorf("no host answered (%s of %d), so what would be deployed is unknown", text.Count(len(away), "host"), len(p.Selected))
	}
	return fmt.Errorf("%s of %d did not answer, so their changes are unknown", text.Count(len(away), "host"), len(p.Selected))
}

// propose asks the hosts, and decides and judges what would be done, wave after wave or in no order.
func (d *deployment) propose(ctx context.Context, goal string, unordered bool) (Proposal, error) {
	machine, err := d.machines(ctx)
	if err != nil {
		return Proposal{}, err
	}
	if !d.request.DryRun {
		if err := d.takeLease(ctx, machine, hasContainers(d.request.Selected)); err != nil {
			return Proposal{}, err
		}
	}
	d.rack, err = NewRack(ctx, d.environment, d.request.Project, d.request.Selected, machine)
	if err != nil {
		return Proposal{}, err
	}
	d.rack.All, d.rack.Unordered, d.rack.Later = d.request.All, unordered, !colmena.IsActivated(goal)
	if err := d.rack.Survey(ctx); err != nil {
		return Proposal{}, err
	}
	if d.reboots {
		d.toReboot()
	}
	if !colmena.ChangesSystems(goal) {
		d.rack.leaveSystems()
	}
	if !d.request.DryRun { // a server may run on a host for which the plan has none any more
		if err := d.takeLease(ctx, machine, d.rack.touchesK3s()); err != nil {
			return Proposal{}, err
		}
	}
	p := Proposal{Selected: d.request.Selected, Observed: d.rack.Observed, Work: d.rack.Work}
	p.Waves, p.Problems = d.rack.Waves(ctx, d.request.Limits)
	if !d.request.NoSnapshot && !unordered {
		d.rack.addSnapshots(p.Waves)
	}
	if ctx.Err() != nil {
		return Proposal{}, context.Cause(ctx)
	}
	return p, nil
}

// machines returns how the hosts are reached before they are deployed.
func (d *deployment) machines(ctx context.Context) (func(*plan.Host) remote.Machine, error) {
	needed := slices.Clone(d.request.Selected)
	if hasContainers(needed) {
		needed = append(needed, lease.ServerHosts(d.request.Project.Plan)...)
	}
	if err := needSSH(needed); err != nil {
		return nil, err
	}
	deploy := d.ssh.Machines(remote.DeployUser)
	if d.request.As == "" {
		return deploy, nil
	}
	other := d.ssh.Machines(d.request.As)
	for _, host := range d.request.Selected {
		if err := CheckAccount(ctx, other(host)); err != nil {
			return nil, err
		}
	}
	return func(h *plan.Host) remote.Machine {
		if slices.Contains(d.request.Selected, h) {
			return other(h)
		}
		return deploy(h)
	}, nil
}

// takeLease takes the lease on the rack if it is needed and not held yet.
func (d *deployment) takeLease(ctx context.Context, machine func(*plan.Host) remote.Machine, needed bool) error {
	if !needed || d.lease != nil {
		return nil
	}
	var hosts []lease.Host
	for _, host := range lease.ServerHosts(d.request.Project.Plan) {
		hosts = append(hosts, lease.Host{Name: host.Name, Script: machine(host).Script})
	}
	held, err := lease.Take(ctx, lease.Request{Hosts: hosts, Dir: d.request.Project.Dir, Purpose: d.purpose()})
	switch {
	case err != nil && (!d.request.Force || lease.IsHeld(err) || ctx.Err() != nil):
		return err
	case err != nil:
		d.view.Warn("%v; going on without it (--force)", err)
		return nil
	}
	d.lease = held
	if warning := held.Warning(); warning != "" {
		d.view.Warn("%s", warning)
	}
	return nil
}

// renew makes sure that the lease is still held.
func (d *deployment) renew(ctx context.Context) error {
	if d.lease == nil {
		return nil
	}
	err := d.lease.Renew(ctx)
	if err != nil && d.request.Force && !lease.IsHeld(err) && ctx.Err() == nil {
		return nil
	}
	return err
}

func hasContainers(hosts []*plan.Host) bool {
	return slices.ContainsFunc(hosts, func(h *plan.Host) bool { return len(h.Containers()) > 0 })
}

// NewRack returns the rack of a project, before it is asked anything.
func NewRack(ctx context.Context, environment Environment, p *project.Project, selected []*plan.Host, machine func(*plan.Host) remote.Machine) (*Rack, error) {
	inputs, err := inputsOf(p, environment.Templates)
	if err != nil {
		return nil, err
	}
	return &Rack{
		Situation: Situation{Plan: p.Plan}, Selected: selected, Machine: machine, Inputs: inputs,
		ReadSecrets: func(host *plan.Host) (fingerprint.Contents, error) {
			return fingerprint.ReadSecrets(p.Dir, hive.Secrets(p, host), environment.ReadSecret)
		},
	}, nil
}

// consent stops at what is refused, unless it is forced, and asks about the rest.
func (d *deployment) consent(ctx context.Context, problems diag.Problems) error {
	question, questions := "", 0
	for _, p := range problems {
		if p.Severity != diag.Error {
			questions++
		}
	}
	if questions > 0 {
		question = fmt.Sprintf("deploy, with %s to be confirmed?", text.Count(questions, "point"))
	}
	return d.consentTo(ctx, problems, question)
}

// consentTo is consent with a question of the caller's, or none ("").
func (d *deployment) consentTo(ctx context.Context, problems diag.Problems, question string) error {
	var refused []string
	for _, p := range problems {
		if p.Severity == diag.Error {
			refused = append(refused, p.Message)
		}
	}
	if len(refused) > 0 && !d.request.Force {
		return diag.WithHint(errors.New("refused: "+strings.Join(refused, "\n  ")), "the hints above say what to do first; --force does it anyway")
	}
	if question != "" {
		return d.view.Confirm(ctx, question)
	}
	return nil
}

// roll writes the hive, builds, and deploys wave after wave. A dry run ends before the first host is touched.
func (d *deployment) roll(ctx context.Context, outcome *Outcome) ([]Result, error) {
	proposal := outcome.Proposal
	file, program, err := d.prepareColmena()
	if err != nil {
		return nil, err
	}
	logs, err := d.logFolder()
	if err != nil {
		return nil, err
	}
	var env []string
	if !d.request.DryRun {
		unlocked, lock, err := d.environment.Unlock(d.request.Selected)
		if err != nil {
			return nil, err
		}
		defer lock()
		env = unlocked
	}
	env = append(env, d.ssh.Env()...)
	d.view.Say("what Nix and Colmena say is kept in %s", logs)
	progress := d.view.Progress(len(proposal.hosts()))
	defer progress.Stop()
	// everything is evaluated and built before the first host is touched: a mistake in the last one's snippet must not
	// show when all others are deployed already, and little time must pass between the look at the servers and the step
	// that stops one
	systems, err := d.openSystems(ctx, evaluation{
		hiveFile: file, program: program, names: proposal.hosts(), inputs: d.rack.Inputs, private: true, users: d.users(), env: env, logs: logs,
	}, progress)
	if systems != nil {
		defer systems.close()
	}
	if err != nil {
		progress.Stop()
		if ctx.Err() != nil {
			return notReached(proposal, context.Cause(ctx)), nil
		}
		d.view.Say("nothing was deployed: %v\n  log: %s", err, logs)
		return notReached(proposal, errors.New("the systems cannot be evaluated")), nil
	}
	driver := &Driver{
		Before: d.rack.Situation, Agreed: d.rack.objections, MayReboot: d.mayReboot(), Systems: systems, Extra: d.request.Args,
		Env: env, Machine: d.ssh.Machines(remote.DeployUser), Renew: d.renew,
		Inputs: d.rack.Inputs, Secrets: d.rack.Secrets, TakeSnapshot: d.takeSnapshot,
		Logs: logs, GateTimeout: d.request.GateTimeout, Pause: d.request.GatePause,
	}
	if d.request.As != "" {
		driver.Other = d.ssh.Machines(d.request.As)
	}
	if err := driver.Build(ctx, proposal, progress); err != nil {
		progress.Stop()
		if ctx.Err() != nil {
			return notReached(proposal, context.Cause(ctx)), nil
		}
		d.view.Say("nothing was deployed: %v\n  log: %s", err, buildLog(logs))
		return notReached(proposal, errors.New("the systems cannot be built")), nil
	}
	outcome.Previews = d.previews(ctx, driver, proposal, d.request.Copy, progress)
	if d.request.DryRun {
		progress.Stop()
		return nil, d.removeHive()
	}
	d.view.Preview(outcome.Previews)
	driver.Previews = outcome.Previews
	results := d.follow(ctx, proposal, driver, driver.LogFile, progress, Deployed)
	for i, r := range results {
		if preview, known := driver.preview(r.Host); known {
			results[i].Changes = &preview
		}
	}
	return results, nil
}

// open takes the project's lock and prepares ssh. done undoes both, and gives back the lease if one was taken.
func (d *deployment) open() (done func(), err error) {
	unlock := func() {}
	if !d.request.DryRun || d.request.Build { // which writes the hive
		if unlock, err = LockProject(d.request.Project.Dir); err != nil {
			return nil, err
		}
	}
	if err := d.connect(); err != nil {
		unlock()
		return nil, err
	}
	return func() {
		if d.lease != nil {
			d.lease.Release()
		}
		d.ssh.Close()
		unlock()
	}, nil
}

// connect prepares ssh, with one connection for all that is asked of a host. d.ssh.Close ends it.
func (d *deployment) connect() (err error) {
	if d.ssh, err = remote.Prepare(d.request.Project.Dir, d.request.Project.Plan, d.request.Project.HostKeys); err != nil {
		return err
	}
	if err = d.ssh.Share(); err != nil {
		err = errors.Join(err, d.ssh.Close())
	}
	return err
}

// logFolder makes the folder for the output of this run, and names it.
func (d *deployment) logFolder() (string, error) {
	logs, err := files.OwnFolder(d.request.Project.Dir, files.StateDir, "logs", d.started.Format("20060102-150405"))
	if err != nil {
		return "", err
	}
	return logs, nil
}

// follow runs the waves and shows their progress. done is what becomes of a host whose steps have all ended
// well.
func (d *deployment) follow(ctx context.Context, proposal Proposal, steps Steps, logOf func(host string) string, progress ask.Progress, done Status) []Result {
	complete := func(r Result) Result {
		if r.Status == Deployed {
			r.Status = done
		}
		if _, err := os.Stat(logOf(r.Host)); err == nil {
			r.Log = logOf(r.Host)
		}
		return r
	}
	results := Run(ctx, proposal.Waves, proposal.Work, steps, func(e Event) {
		if e.Result != nil {
			progress.Done(e.Host, complete(*e.Result).String())
			return
		}
		progress.Step(e.Host, e.Phase, e.Detail)
	})
	for i, r := range results {
		results[i] = complete(r)
	}
	return results
}

// mayReboot returns the hosts whose reboot was confirmed.
func (d *deployment) mayReboot() (hosts []string) {
	if d.request.Reboot {
		return namesOf(d.request.Selected)
	}
	for _, o := range d.rack.objections {
		if o.Code == "reboots-in-wave" {
			hosts = append(hosts, o.about...)
		}
	}
	return hosts
}

// takeSnapshot asks the servers as they are reached during the rollout: a new version may have come to some.
func (d *deployment) takeSnapshot(ctx context.Context, why string) error {
	err := d.environment.Snapshot(ctx, d.ssh.Machines(remote.DeployUser), why)
	if err != nil {
		err = diag.WithHint(err, joinLines(diag.HintOf(err), "--no-snapshot deploys without one"))
	}
	return err
}

// prepareColmena renders the hive and finds the program to call with it.
func (d *deployment) prepareColmena() (hiveFile, program string, err error) {
	if hiveFile, err = d.environment.Render(d.request.Project); err != nil {
		return "", "", err
	}
	program, err = d.environment.Colmena(hiveFile)
	return hiveFile, program, err
}

// users are the login names of hosts that are not reached by the usual one.
func (d *deployment) users() map[string]string {
	users := map[string]string{}
	for _, host := range d.request.Selected {
		if d.request.As != "" && !host.Target.Local {
			users[host.Name] = d.request.As
		}
	}
	return users
}

// notReached returns the results of the hosts of all waves when none was begun.
func notReached(p Proposal, why error) (results []Result) {
	for i, wave := range p.Waves {
		for _, host := range wave.Hosts {
			results = append(results, Result{Host: host, Status: NotReached, Wave: i + 1, Reasons: p.Work[host].Reasons, Cause: why.Error()})
		}
	}
	return results
}

// finish completes the outcome, and removes what was rendered if everything is deployed.
func (d *deployment) finish(outcome *Outcome, results []Result) (*Outcome, error) {
	notDone := "not deployed"
	if d.reboots {
		notDone = "not rebooted"
	}
	if outcome, err := d.summary(outcome, results, notDone); err != nil || d.reboots {
		return outcome, err
	}
	return outcome, d.removeHive()
}

// summary adds the results of hosts that are in no wave. The error says how many hosts are not done.
func (d *deployment) summary(outcome *Outcome, results []Result, notDone string) (*Outcome, error) {
	inWave := outcome.hosts()
	for _, host := range d.request.Selected {
		switch o := outcome.Observed[host.Name]; {
		case slices.Contains(inWave, host.Name):
		case o.Unreachable != "":
			results = append(results, Result{Host: host.Name, Status: NotReached, Cause: o.Unreachable})
		case outcome.Work[host.Name].None():
			results = append(results, Result{Host: host.Name, Status: Unchanged})
		}
	}
	outcome.Results = results
	failed := 0
	for _, r := range results {
		if r.Status == Failed || r.Status == NotReached {
			failed++
		}
	}
	if failed > 0 {
		return outcome, fmt.Errorf("%s of %d %s", text.Count(failed, "host"), len(d.request.Selected), notDone)
	}
	return outcome, nil
}

func (d *deployment) removeHive() error {
	if d.request.Keep {
		return nil
	}
	return hive.Remove(d.request.Project.Dir)
}
