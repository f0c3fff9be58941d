package rollout

import (
	"context"
	"fmt"
	"slices"
	"time"

	"k3splan/internal/remote"
	"k3splan/internal/text"
)

// Reboot reboots those of the selected hosts that need it, or all of them with request.All: in the waves of
// a deployment, with the judge before each and the gate after. It deploys nothing. Every reboot is asked
// about.
func Reboot(ctx context.Context, environment Environment, view View, request Request) (*Outcome, error) {
	d := &deployment{environment: environment, view: view, request: request, started: time.Now()}
	unlock, err := LockProject(request.Project.Dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := d.connect(); err != nil {
		return nil, err
	}
	defer d.ssh.Close()
	defer func() {
		if d.lease != nil {
			d.lease.Release()
		}
	}()
	d.reboots = true
	proposal, err := d.propose(ctx, "reboot", false)
	if err != nil {
		return nil, err
	}
	outcome := &Outcome{Proposal: proposal}
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
	driver := Rebooter{&Driver{
		Before: d.rack.Situation, Agreed: d.rack.objections, Machine: d.ssh.Machines(remote.DeployUser), Renew: d.renew,
		GateTimeout: request.GateTimeout, Pause: request.GatePause,
	}}
	progress := view.Progress(len(proposal.hosts()))
	defer progress.Stop()
	results := Run(ctx, proposal.Waves, proposal.Work, driver, func(e Event) {
		if e.Result != nil {
			progress.Done(e.Host, e.Result.words("rebooted"))
			return
		}
		progress.Step(e.Host, e.Phase, e.Detail)
	})
	progress.Stop()
	return d.finish(outcome, results)
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
