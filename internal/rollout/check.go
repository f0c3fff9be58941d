package rollout

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
)

// Check asks all servers again and judges the one step that comes next, as hours may have passed since
// the rollout was decided on: no healthy member of etcd is stopped, and no server started, while that
// would be refused. What the user has forced stays forced, and nothing else does.
func (d *Driver) Check(ctx context.Context, host string, work Work, say Say) error {
	if d.Renew != nil {
		if err := d.Renew(ctx); err != nil {
			return err
		}
	}
	h := d.Before.Plan.Host(host)
	joins := h.Agent != nil && d.Before.Observed[host].Receipt.AgentName() != h.Agent.Name
	if h.Server == nil && !work.Server && !joins {
		return nil
	}
	say("asking the servers", "")
	now := lookAgain(ctx, d.Before, host, work, d)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := sameMachine(host, d.Before.Observed[host], now.Observed[host]); err != nil {
		return err
	}
	return notAgreed(judge(now, true), d.Agreed)
}

// host and server ask as they are reached during the rollout.
func (d *Driver) host(ctx context.Context, h *plan.Host) Observed {
	_, o := d.reach(ctx, h, "")
	return o
}

func (d *Driver) server(ctx context.Context, h *plan.Host, name string) Health {
	return bySSH(d.Machine).server(ctx, h, name)
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
// to an older state, or deployed by another operator.
func sameMachine(host string, before, now Observed) error {
	const again = "k3splan deploy asks it again"
	switch {
	case now.Unreachable != "":
		return fmt.Errorf("%s does not answer any more: %s", host, now.Unreachable)
	case before.System != now.System:
		return diag.WithHint(fmt.Errorf("%s runs another system than it did when it was asked first", host), again)
	case !slices.Equal(before.Etcd, now.Etcd):
		return diag.WithHint(fmt.Errorf("the servers' state on %s is not what it was when it was asked first", host), again)
	case (before.Receipt == nil) != (now.Receipt == nil), before.Receipt != nil && !before.Receipt.Time.Equal(now.Receipt.Time):
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
