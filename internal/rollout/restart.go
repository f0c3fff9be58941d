package rollout

import (
	"context"
	"fmt"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/lease"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
)

// Restart restarts k3s on servers without deploying anything: after the server token was rotated, for
// example. The same judge and the same gate stand before and behind each of them as in a deployment.
type Restart struct {
	Plan *plan.Plan
	// Machine returns how a host is reached.
	Machine func(*plan.Host) remote.Machine
	// Renew makes sure that no other operator changes the rack; it may be nil.
	Renew func(context.Context) error
	// Timeout limits how long a server may take to become a ready voter again, and Pause is between two
	// questions; 0 is 5 minutes and 2 seconds.
	Timeout, Pause time.Duration
}

// Check returns why no server may be restarted now, or nil. It changes nothing.
func (r Restart) Check(ctx context.Context) error {
	for _, host := range lease.ServerHosts(r.Plan) {
		return r.check(ctx, host, r.ask(ctx))
	}
	return nil
}

// Servers restarts k3s on all servers of the plan, one after the other, the init server first. Before
// each of them all others are asked how they are, and after each it waits until that one is a ready voter.
// done is called after each. The error names the server; the ones after it were not restarted.
func (r Restart) Servers(ctx context.Context, done func(server string)) error {
	hosts := lease.ServerHosts(r.Plan)
	for i, host := range hosts {
		err := r.server(ctx, host)
		if err != nil {
			hint := diag.HintOf(err)
			if left := hosts[i+1:]; len(left) > 0 {
				hint = joinLines(hint, "the servers after it were not restarted")
			}
			return diag.WithHint(err, hint)
		}
		done(host.Server.Name)
	}
	return nil
}

func (r Restart) server(ctx context.Context, host *plan.Host) error {
	if r.Renew != nil {
		if err := r.Renew(ctx); err != nil {
			return err
		}
	}
	s := r.ask(ctx)
	if err := r.check(ctx, host, s); err != nil {
		return err
	}
	machine, name := r.Machine(host), s.runs(host.Name)
	if out, err := machine.Script(ctx, othersScript+"nixos-container run \"$1\" -- systemctl restart k3s.service", name); err != nil {
		return fmt.Errorf("restarting %s: %s%s", name, out, reason(err))
	}
	err := Await{Timeout: r.Timeout, Pause: r.Pause}.Server(ctx, machine, name)
	return diag.WithHint(err, "see its journal: k3splan ssh "+host.Name)
}

// ask finds out how all servers are.
func (r Restart) ask(ctx context.Context) Situation {
	s := Situation{Plan: r.Plan}
	s.Observed = askHosts(ctx, r.Plan, lease.ServerHosts(r.Plan), bySSH(r.Machine))
	// if the receipts cannot be read, etcd's members are known all the same
	s.Deployed, _ = NewPast(r.Plan).Deployed(s.Observed)
	s.Health = askServers(ctx, s, bySSH(r.Machine))
	return s
}

// check judges the restart of one server.
func (r Restart) check(ctx context.Context, host *plan.Host, s Situation) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if o := s.Observed[host.Name]; o.Unreachable != "" {
		return fmt.Errorf("%s does not answer: %s", host.Name, o.Unreachable)
	}
	s.Work = map[string]Work{host.Name: {Secrets: []string{serverToken}}}
	return notAgreed(judge(s, true), nil)
}

func orDefault(d, standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return d
}

func joinLines(a, b string) string {
	if a == "" {
		return b
	}
	return a + "\n" + b
}
