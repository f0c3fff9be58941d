package rollout

import (
	"context"
	"fmt"
	"slices"
	"time"

	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/text"
)

// Order lets hosts reboot in the order that they ask for, with what they need around it.
type Order struct {
	// Machines is what all hosts of the plan say about themselves, by name.
	Machines map[string]plan.Machine
	// NoDrain leaves the pods on the Nodes.
	NoDrain bool
	// DrainLimit is how long pods may take to leave a Node, and LosesEmptyDir whether what they keep in
	// emptyDir volumes may be lost.
	DrainLimit    time.Duration
	LosesEmptyDir bool
}

// Reboot reboots those of the selected hosts that need it, or all of them with request.All: with the judge before
// each and the gate after, in the waves of a deployment or, with an order, in that. It deploys nothing. Every
// reboot is asked about.
func Reboot(ctx context.Context, environment Environment, view View, request Request) (*Outcome, error) {
	d := &deployment{environment: environment, view: view, request: request, started: time.Now(), reboots: true}
	done, err := d.open()
	if err != nil {
		return nil, err
	}
	defer done()
	proposal, err := d.propose(ctx, "reboot", false)
	if err != nil {
		return nil, err
	}
	var steps Steps
	driver := &Driver{
		Before: d.rack.Situation, Agreed: d.rack.objections, Machine: d.ssh.Machines(remote.DeployUser), Renew: d.renew,
		GateTimeout: request.GateTimeout, Pause: request.GatePause,
	}
	steps = Rebooter{driver}
	if request.Order != nil {
		if steps, err = d.inOrder(&proposal, driver); err != nil {
			return nil, err
		}
	}
	outcome := &Outcome{Proposal: proposal}
	if request.DryRun {
		return outcome, unknownChanges(proposal)
	}
	if len(proposal.Waves) == 0 {
		outcome.Begun = true
		return d.finish(outcome, nil)
	}
	view.Propose(proposal)
	if err := d.consent(ctx, proposal.Problems); err != nil {
		outcome.Results = notReached(proposal, err)
		return outcome, err
	}
	if err := view.Confirm(ctx, "reboot "+text.Count(len(proposal.hosts()), "host")+"?"); err != nil {
		outcome.Results = notReached(proposal, err)
		return outcome, err
	}
	outcome.Begun = true
	progress := view.Progress(len(proposal.hosts()))
	defer progress.Stop()
	results := Run(ctx, proposal.Waves, proposal.Work, steps, func(e Event) {
		if e.Result != nil {
			progress.Done(e.Host, e.Result.words("rebooted"))
			return
		}
		progress.Step(e.Host, e.Phase, e.Detail)
	})
	progress.Stop()
	for i, r := range results {
		if r.Status == Deployed {
			results[i].Status = Rebooted
		}
	}
	return d.finish(outcome, results)
}

// inOrder puts the hosts that reboot into the steps of their sequence, and returns what is done with each.
func (d *deployment) inOrder(proposal *Proposal, driver *Driver) (Steps, error) {
	var hosts []*plan.Host
	for _, host := range d.request.Selected {
		if !proposal.Work[host.Name].None() {
			hosts = append(hosts, host)
		}
	}
	steps, err := Sequence(d.request.Project.Plan, d.request.Order.Machines, hosts, d.rack.Down(), d.request.Limits)
	if err != nil {
		return nil, err
	}
	ordered := &orderedReboots{Rebooter: Rebooter{driver}, order: *d.request.Order, delays: map[string]time.Duration{}, cordoned: map[string]bool{}}
	proposal.Waves = nil
	for _, step := range steps {
		kind := fmt.Sprintf("reboot, by %s", step.Reason)
		if step.Delay > 0 {
			kind += fmt.Sprintf(", %s after the one before", time.Duration(step.Delay)*time.Second)
		}
		proposal.Waves = append(proposal.Waves, Wave{Kind: kind, Hosts: step.Hosts, Parallel: len(step.Hosts)})
		for _, host := range step.Hosts {
			ordered.delays[host] = time.Duration(step.Delay) * time.Second
		}
	}
	return ordered, nil
}

// toReboot replaces the work of a deployment by the reboots that the hosts need.
func (d *deployment) toReboot() {
	d.rack.Work = map[string]Work{}
	for _, host := range d.request.Selected {
		o := d.rack.Observed[host.Name]
		switch {
		case o.Unreachable != "":
		case len(o.RebootFor) > 0 || d.request.All:
			d.rack.Work[host.Name] = rebootWork(o)
		default:
			d.rack.Work[host.Name] = Work{}
		}
	}
}

// rebootWork is what a host needs that is to be rebooted.
func rebootWork(o Observed) Work {
	w := Work{Reboot: true, Server: o.Receipt.ServerName() != "" || len(o.Etcd) > 0}
	if w.Reasons = slices.Clone(o.RebootFor); len(w.Reasons) > 0 {
		w.Reasons = []string{fmt.Sprintf("a reboot is needed for: %s", text.Enumerate(w.Reasons))}
	}
	return w
}

// purpose is what other operators read who wait for the lease.
func (d *deployment) purpose() string {
	switch {
	case d.reboots:
		return "k3splan's reboots"
	case d.rollsBack:
		return "k3splan rollback"
	}
	return "k3splan deploy"
}
