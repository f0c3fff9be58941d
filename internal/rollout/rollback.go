package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/diff"
	"k3splan/internal/fingerprint"
	"k3splan/internal/generations"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/receipt"
	"k3splan/internal/remote"
	"k3splan/internal/run"
	"k3splan/internal/text"
)

// RollbackRequest is which hosts are to be brought back to an earlier generation, and how.
type RollbackRequest struct {
	Project  *project.Project
	Selected []*plan.Host
	// To is the number of the generation on each host; 0 is the one that was deployed before.
	To int
	// Force does what is refused as well, and DryRun changes nothing.
	Force, DryRun bool
	// NoSnapshot makes no snapshots of etcd before waves that change k3s.
	NoSnapshot bool

	Limits                 Limits
	GateTimeout, GatePause time.Duration
}

// Step is the way of a host from the generation that runs to another one.
type Step struct {
	// From is the zero value if what runs is not a generation of the host.
	From, To generations.Generation
	// Was is the receipt of To's deployment, or nil if none was kept.
	Was *receipt.Receipt
}

// changesK3s reports whether a server or agent may run another k3s afterwards.
func (s Step) changesK3s() bool {
	return s.From.Number == 0 || s.From.Server.K3s != s.To.Server.K3s || s.From.Agent.K3s != s.To.Agent.K3s
}

// Rollback brings hosts back to earlier generations: by the waves, the judge, the gates and the lease of a
// deployment. The outcome is nil if nothing was found out.
func Rollback(ctx context.Context, environment Environment, view View, request RollbackRequest) (*Outcome, error) {
	d := &deployment{environment: environment, view: view, started: time.Now(), rollsBack: true, request: Request{
		Project: request.Project, Selected: request.Selected, Force: request.Force, DryRun: request.DryRun, NoSnapshot: request.NoSnapshot, Limits: request.Limits,
		GateTimeout: request.GateTimeout, GatePause: request.GatePause,
	}}
	done, err := d.open()
	if err != nil {
		return nil, err
	}
	defer done()
	proposal, err := d.proposeRollback(ctx, request.To)
	if err != nil {
		return nil, err
	}
	outcome := &Outcome{Proposal: proposal}
	if request.DryRun {
		if away := len(proposal.Unreachable()); away > 0 {
			return outcome, fmt.Errorf("%s of %d did not answer, so what it would go back to is unknown", text.Count(away, "host"), len(request.Selected))
		}
		return outcome, nil
	}
	view.Propose(proposal)
	outcome.Begun = true
	if len(proposal.Waves) == 0 {
		return d.summary(outcome, nil, "not rolled back")
	}
	if err := d.consentTo(ctx, proposal.Problems, rollbackQuestion(proposal)); err != nil {
		outcome.Begun, outcome.Results = false, notReached(proposal, err)
		return outcome, err
	}
	logs, err := d.logFolder()
	if err != nil {
		return nil, err
	}
	driver := &returner{Driver: &Driver{
		Before: d.rack.Situation, Agreed: d.rack.objections, Machine: d.rack.Machine, Renew: d.renew, TakeSnapshot: d.takeSnapshot,
		Logs: logs, GateTimeout: request.GateTimeout, Pause: request.GatePause,
	}}
	progress := view.Progress(len(proposal.hosts()))
	defer progress.Stop()
	results := d.follow(ctx, proposal, driver, driver.LogFile, progress, RolledBack)
	return d.summary(outcome, results, "not rolled back")
}

// rollbackQuestion asks for everything at once.
func rollbackQuestion(p Proposal) string {
	question := "roll back " + text.Enumerate(p.hosts())
	questions := 0
	for _, problem := range p.Problems {
		if problem.Severity != diag.Error {
			questions++
		}
	}
	if questions > 0 {
		question += ", with " + text.Count(questions, "point") + " to be confirmed"
	}
	return question + "?"
}

// proposeRollback asks the hosts, and decides and judges what would be done.
func (d *deployment) proposeRollback(ctx context.Context, to int) (Proposal, error) {
	machine, err := d.machines(ctx)
	if err != nil {
		return Proposal{}, err
	}
	if !d.request.DryRun {
		if err := d.takeLease(ctx, machine, hasContainers(d.request.Selected)); err != nil {
			return Proposal{}, err
		}
	}
	d.rack = &Rack{
		Situation: Situation{Plan: d.request.Project.Plan}, Selected: d.request.Selected, Machine: machine,
		Inputs:      map[string]fingerprint.Inputs{},
		ReadSecrets: func(*plan.Host) (fingerprint.Contents, error) { return fingerprint.Contents{}, nil },
	}
	if err := d.rack.Survey(ctx); err != nil {
		return Proposal{}, err
	}
	if err := d.rack.goBack(ctx, to); err != nil {
		return Proposal{}, err
	}
	if !d.request.DryRun {
		if err := d.takeLease(ctx, machine, d.rack.touchesK3s()); err != nil {
			return Proposal{}, err
		}
	}
	p := Proposal{Selected: d.request.Selected, Observed: d.rack.Observed, Work: d.rack.Work}
	p.Waves, p.Problems = d.rack.Waves(ctx, d.request.Limits)
	if !d.request.NoSnapshot {
		d.rack.addSnapshots(p.Waves)
	}
	if ctx.Err() != nil {
		return Proposal{}, context.Cause(ctx)
	}
	return p, nil
}

// goBack decides what the selected hosts need to run an earlier generation, after Survey. The error names all
// hosts that have none.
func (r *Rack) goBack(ctx context.Context, to int) error {
	var hosts []string
	for _, host := range r.Selected {
		if r.Observed[host.Name].Unreachable == "" {
			hosts = append(hosts, host.Name)
		}
	}
	type answer struct {
		step Step
		err  error
	}
	answers := each(hosts, askParallel, func(name string) answer {
		limited, cancel := context.WithTimeout(ctx, serverLimit)
		defer cancel()
		step, err := stepOf(limited, r.Machine(r.Plan.Host(name)), r.Observed[name], to)
		return answer{step, err}
	})
	r.Steps, r.Work, r.OtherToken = map[string]Step{}, map[string]Work{}, nil
	var impossible []error
	past := NewPast(r.Plan)
	for _, name := range hosts {
		a := answers[name]
		if a.err != nil {
			impossible = append(impossible, fmt.Errorf("%s: %w", name, a.err))
			continue
		}
		r.Steps[name] = a.step
		r.Work[name] = decideRollback(past, name, r.Observed[name], a.step)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := errors.Join(impossible...); err != nil {
		return diag.WithHint(err, "k3splan generations HOST shows what a host has")
	}
	after, err := r.afterRollback()
	if err != nil {
		return err
	}
	r.Plan = after
	return nil
}

// stepOf asks a host for its generations and finds the one to go to.
func stepOf(ctx context.Context, machine remote.Machine, o Observed, to int) (Step, error) {
	if o.Receipt == nil {
		why := "it has no receipt: no deployment of it has ended well yet"
		if o.BadReceipt != "" {
			why = o.BadReceipt
		}
		return Step{}, errors.New(why)
	}
	has, err := generations.Of(ctx, machine)
	if err != nil {
		return Step{}, err
	}
	step := Step{}
	if from := has.With(o.System); from != nil {
		step.From = *from
	}
	switch {
	case to != 0:
		step.To, err = has.Named(to)
	case o.Rollback != 0 && has.Number(o.Rollback) != nil: // it was begun, and did not end
		step.To = *has.Number(o.Rollback)
	default:
		step.To, err = has.Previous()
	}
	if err != nil {
		return Step{}, err
	}
	kept, err := machine.Script(ctx, receipt.ReadKeptScript, step.To.System)
	if err != nil {
		return Step{}, errors.New(reason(err))
	}
	if kept = strings.TrimSpace(kept); kept != "" {
		// one that cannot be read is one that was not kept
		step.Was, _ = receipt.Parse([]byte(kept))
	}
	return step, nil
}

// decideRollback returns what a host needs to run another generation.
func decideRollback(past *Past, host string, o Observed, step Step) Work {
	w := Work{Server: o.Receipt.ServerName() != "" || len(o.Etcd) > 0}
	if name := past.nameNow(o.Receipt, host); name != host {
		w.Other = name
	}
	if o.System == step.To.System && o.Profile == o.System && o.Receipt.System == o.System && o.Rollback == 0 {
		return w
	}
	w.System, w.K3s = true, step.changesK3s()
	from := "what runs"
	if step.From.Number != 0 {
		from = fmt.Sprintf("generation %d (%s)", step.From.Number, step.From.Versions())
	}
	w.Reasons = []string{fmt.Sprintf("%s → %s (%s)", from, step.To, step.To.Versions())}
	if step.Was == nil {
		return w
	}
	before, err := o.Receipt.Plan.Plan()
	if err != nil {
		return w
	}
	after, err := step.Was.Plan.Plan()
	if err != nil {
		return w
	}
	// the version of k3s is judged by what the generations contain
	w.Changes = slices.DeleteFunc(diff.Compare(before, after).Of(o.Receipt.HostName(host)), func(c diff.Change) bool { return c.Name == "versions.k3s" })
	for _, c := range w.Changes {
		w.Reasons = append(w.Reasons, c.Sentence)
	}
	return w
}

// afterRollback is the plan as it will be on the machines: what is deployed now, with the rows of the hosts that
// go back as they were then. The hosts are reached as today's plan says.
func (r *Rack) afterRollback() (*plan.Plan, error) {
	if r.Deployed == nil {
		return r.Plan, nil
	}
	model := r.Deployed.Model()
	for name, step := range r.Steps {
		row := model.Hosts[name]
		if step.Was != nil {
			then, err := step.Was.Plan.Plan()
			if err == nil && then.Host(step.Was.HostName(name)) != nil {
				row = then.Host(step.Was.HostName(name)).Model()
			}
		} else if row != nil {
			row = maps.Clone(row)
			row["k3s"] = containersAsIn(row["k3s"], step.To)
		}
		if row != nil {
			row["name"] = name
			model.Hosts[name] = row
		}
	}
	for _, host := range r.Plan.Hosts {
		if row := model.Hosts[host.Name]; row != nil {
			row["target"] = host.Model()["target"]
		}
	}
	data, err := json.Marshal(model)
	if err != nil {
		return nil, err
	}
	return plan.FromModel(data)
}

// containersAsIn leaves out the containers of a row that a generation does not contain.
func containersAsIn(row any, g generations.Generation) map[string]any {
	var containers map[string]any
	data, err := json.Marshal(row)
	if err == nil {
		err = json.Unmarshal(data, &containers)
	}
	if err != nil {
		return map[string]any{"server": nil, "agent": nil}
	}
	for kind, name := range map[string]string{"server": g.Server.Name, "agent": g.Agent.Name} {
		if container, ok := containers[kind].(map[string]any); ok && container["name"] != name {
			containers[kind] = nil
		}
	}
	return containers
}

// returner carries out the steps of a rollback.
type returner struct{ *Driver }

var _ Steps = (*returner)(nil)

// returnScript activates the generation "$1", which has to be the system "$2". It goes on when the connection is
// lost, as it may be by a change of the network: the activation is a process of its own, which a script that is
// started again waits for.
const returnScript = `
number=$1 system=$2 goal=$3 profile=/nix/var/nix/profiles/system folder=/run/k3splan-rollback
if [ "$(readlink -f "$profile-$number-link")" != "$system" ]; then
  echo "generation $number is not $system any more" >&2
  exit 1
fi
` + receipt.RollbackScript + `
mkdir -p "$folder"
end=$folder/end.$$
rm -f "$end"
# the words of the inner shell: its log, its end, the profile, the generation, the system, the goal
setsid flock "$folder/lock" sh -c '
  exec > "$1" 2>&1
  nix-env --profile "$3" --switch-generation "$4" && "$5/bin/switch-to-configuration" "$6"
  echo $? > "$2.new"
  mv "$2.new" "$2"
' sh "$folder/log" "$end" "$profile" "$number" "$system" "$goal" > /dev/null 2>&1 &
while [ ! -e "$end" ]; do sleep 0.2; done
code=$(cat "$end")
rm -f "$end"
cat "$folder/log"
tail -n 6 "$folder/log" >&2
exit "$code"
`

// activationLimit is longer than any activation takes that ends.
const activationLimit = 20 * time.Minute

// Apply lets the generation run, and boot next.
func (r *returner) Apply(ctx context.Context, host string, _ Work, say Say) (string, error) {
	step, h, goal := r.Before.Steps[host], r.Before.Plan.Host(host), "switch"
	if len(step.To.Boots) > 0 {
		goal = "boot"
	}
	say(fmt.Sprintf("activating generation %d", step.To.Number), "")
	if system, err := r.activate(host, step, goal); err != nil || goal == "switch" {
		return system, err
	}
	return step.To.System, r.reboot(ctx, h, say)
}

// activate lets the generation be the profile's, and runs its activation.
func (r *returner) activate(host string, step Step, goal string) (string, error) {
	machine := r.Machine(r.Before.Plan.Host(host))
	machine.Timeout = activationLimit
	// its own context: what was begun is waited for
	out, err := machine.Script(context.Background(), returnScript, fmt.Sprint(step.To.Number), step.To.System, goal)
	r.disconnect(machine.Host)
	r.log(host, out)
	if failed := (*remote.Error)(nil); errors.As(err, &failed) && failed.Unreached {
		return step.To.System, nil // the connection was lost, and the activation goes on: the gate waits for it
	}
	if exit := (*run.ExitError)(nil); errors.As(err, &exit) {
		if exit.Interrupted != nil {
			return "", diag.WithHint(fmt.Errorf("the activation of generation %d goes on by itself", step.To.Number), "the same command again waits for it")
		}
		return "", fmt.Errorf("activating generation %d failed\n%s", step.To.Number, diag.PrintableLines(strings.TrimSpace(exit.Stderr)))
	}
	if err != nil {
		return "", fmt.Errorf("activating generation %d: %w", step.To.Number, err)
	}
	return step.To.System, nil
}

// Record writes the receipt: that of the deployment of then, with the mark that the host was brought back.
func (r *returner) Record(ctx context.Context, host, system string) error {
	step := r.Before.Steps[host]
	after := r.Before.Observed[host].Receipt.BackTo(step.Was, system, step.To.Number, step.To.Server.Name, step.To.Agent.Name)
	return r.write(ctx, host, after)
}
