package rollout

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
)

// Check asks all servers again and judges the one step that comes next, as hours may have passed since
// the rollout was decided on: no healthy member of etcd is stopped, and no server started, while that
// would be refused. What the user has forced stays forced, and nothing else does.
func (d *Driver) Check(ctx context.Context, host string, work Work, say Say) error {
	h := d.Before.Plan.Host(host)
	isServer := h.Server != nil || work.Server
	if err := d.renew(ctx, isServer); err != nil {
		return err
	}
	joins := h.Agent != nil && d.Before.Observed[host].Receipt.AgentName() != h.Agent.Name
	if !isServer && !joins {
		return nil
	}
	say("asking the servers", "")
	now := lookAgain(ctx, d.Before, host, work, leaving{d, host, d.guardFor(host, work)})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := sameMachine(host, d.Before.Observed[host], now.Observed[host]); err != nil {
		return err
	}
	return notAgreed(judge(now, true), d.Agreed)
}

// recently is far less than a lease lasts.
const recently = 10 * time.Second

// renew makes sure that no other operator changes the rack: always before a server is stopped or started,
// and before other steps unless that was just done.
func (d *Driver) renew(ctx context.Context, isServer bool) error {
	if d.Renew == nil {
		return nil
	}
	d.renewing.Lock()
	defer d.renewing.Unlock()
	// by the clock on the wall: the other one stops while this machine is suspended
	since := time.Now().Round(0).Sub(d.renewed)
	if !isServer && since >= 0 && since < recently {
		return nil
	}
	err := d.Renew(ctx)
	if err == nil {
		d.renewed = time.Now().Round(0)
	}
	return err
}

// leaving asks as hosts are reached during the rollout, and leaves a script behind on one of them.
type leaving struct {
	*Driver
	on, script string
}

func (l leaving) host(ctx context.Context, h *plan.Host) Observed {
	script := ""
	if h.Name == l.on {
		script = l.script
	}
	_, o := l.reach(ctx, h, script)
	return o
}

func (l leaving) server(ctx context.Context, h *plan.Host, name string) Health {
	return bySSH(l.Machine).server(ctx, h, name)
}

// lookAgain asks all hosts with a server, and the one that is about to be changed, and returns the
// situation in which it alone is.
func lookAgain(ctx context.Context, before Situation, host string, work Work, ask asker) Situation {
	s := before
	s.Work = map[string]Work{host: work}
	var asked []*plan.Host
	for _, h := range s.Plan.Hosts {
		if h.Server != nil || h.Name == host || s.Observed[h.Name].Receipt.ServerName() != "" {
			asked = append(asked, h)
		}
	}
	s.Observed = maps.Clone(s.Observed)
	maps.Copy(s.Observed, askHosts(ctx, s.Plan, asked, ask))
	s.Health = askServers(ctx, s, ask)
	return s
}

// sameMachine refuses a host that is another one than when it was asked first: installed again, put back
// to an older state, or deployed by another operator. That it runs another system is not a reason: an
// activation that was interrupted earlier may still have been going on.
func sameMachine(host string, before, now Observed) error {
	const again = "k3splan deploy asks it again"
	switch {
	case now.Unreachable != "":
		return fmt.Errorf("%s does not answer any more: %s", host, now.Unreachable)
	case !slices.Equal(before.Etcd, now.Etcd):
		return diag.WithHint(fmt.Errorf("the servers' state on %s is not what it was when it was asked first", host), again)
	case !before.Receipt.Same(now.Receipt):
		return diag.WithHint(fmt.Errorf("%s has another receipt than when it was asked first", host), again)
	}
	return nil
}

// notAgreed returns the first refusal that the user has not forced, as an error.
func notAgreed(objections, agreed []objection) error {
	for _, o := range objections {
		if o.Severity == diag.Error && !isAgreed(o, agreed) {
			return diag.WithHint(fmt.Errorf("refused: %s", o.Message), o.Hint)
		}
	}
	return nil
}

// isAgreed reports whether everything that an objection is about was forced before.
func isAgreed(o objection, agreed []objection) bool {
	for _, a := range agreed {
		if a.Code == o.Code && !slices.ContainsFunc(o.about, func(name string) bool { return !slices.Contains(a.about, name) }) {
			return true
		}
	}
	return false
}
