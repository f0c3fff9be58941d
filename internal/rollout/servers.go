package rollout

import (
	"context"
	"fmt"
	"time"

	"k3splan/internal/plan"
	"k3splan/internal/remote"
)

// AskServer asks a server, in its container on a machine, how it is.
func AskServer(ctx context.Context, machine remote.Machine, server string) Health {
	ctx, cancel := context.WithTimeout(ctx, serverLimit)
	defer cancel()
	return askServer(ctx, machine, server)
}

// Await is a wait for a server.
type Await struct {
	// Timeout limits how long it takes, and Pause is between two questions; 0 is 5 minutes and 2 seconds.
	Timeout, Pause time.Duration
	// Also returns what a server that is a ready voter still lacks, or ""; it may be nil.
	Also func(Health) string
	// Say gets what is waited for; it may be nil.
	Say Say
}

// Server waits until a server is a ready voter.
func (a Await) Server(ctx context.Context, machine remote.Machine, server string) error {
	ready := func(ctx context.Context) (waits string, err error) {
		health := AskServer(ctx, machine, server)
		switch {
		case !health.Ready:
			return health.Why, nil
		case a.Also != nil:
			return a.Also(health), nil
		}
		return "", nil
	}
	say := a.Say
	if say == nil {
		say = func(string, string) {}
	}
	return wait(ctx, "server "+server, orDefault(a.Timeout, 5*time.Minute), orDefault(a.Pause, 2*time.Second), ready, say)
}

// LookAtAll asks all hosts of a plan what they run, and the servers how they are. Nothing is compared with
// the plan, so no secret is read.
func LookAtAll(ctx context.Context, p *plan.Plan, machine func(*plan.Host) remote.Machine) (Situation, error) {
	if err := needSSH(p.Hosts); err != nil {
		return Situation{}, err
	}
	s := Situation{Plan: p, Observed: askHosts(ctx, p, p.Hosts, bySSH(machine))}
	// if the receipts cannot be read, etcd's members are known all the same
	s.Deployed, _ = NewPast(p).Deployed(s.Observed)
	s.Health = askServers(ctx, s, bySSH(machine))
	if ctx.Err() != nil {
		return Situation{}, fmt.Errorf("asking the hosts: %w", context.Cause(ctx))
	}
	return s, nil
}

// Healthy reports whether a majority of etcd's voters are healthy.
func (s Situation) Healthy() bool {
	healthy, all := s.voters()
	needed, _ := plan.Quorum(all)
	return s.anyReady() && healthy >= needed
}

// Runs returns the name of the server that runs on a host now, or that the plan has there; "" without one.
func (s Situation) Runs(host string) string { return s.runs(host) }
