package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/health"
	"k3splan/internal/k3s"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
)

// orderedReboots reboots hosts as they ask for it: after their delay, when what they depend on is healthy, with
// their Node drained before and uncordoned after, and with their health checks behind the gate.
type orderedReboots struct {
	Rebooter
	order  Order
	delays map[string]time.Duration

	mutex sync.Mutex
	// cordoned are the hosts whose Node was cordoned here
	cordoned map[string]bool
}

var _ Steps = (*orderedReboots)(nil)

const (
	// renewEvery is how often the lease is renewed while a delay is waited.
	renewEvery = 30 * time.Second
	// dependencyLimit is how long a host waits for those that it depends on.
	dependencyLimit = 30 * time.Second
	// uncordonLimit is for letting a Node take pods again after an interruption.
	uncordonLimit = 45 * time.Second
)

// Check waits the host's delay, until what it depends on is healthy, and judges as before any reboot.
func (o *orderedReboots) Check(ctx context.Context, host string, work Work, say Say) error {
	if err := o.pause(ctx, o.delays[host], say); err != nil {
		return err
	}
	for _, name := range o.order.Machines[host].Dependencies {
		on := o.Before.Plan.Host(name)
		if on == nil {
			continue // refused before
		}
		check := func(ctx context.Context) (string, error) { return o.unhealthy(ctx, on), nil }
		if err := wait(ctx, name, min(dependencyLimit, o.GateTimeout), o.Driver.Pause, check, say); err != nil {
			return diag.WithHint(fmt.Errorf("%s depends on it: %w", host, err), "k3splan status "+name+" and k3splan check "+name+" show what is wrong")
		}
	}
	return o.Rebooter.Check(ctx, host, work, say)
}

// pause waits, and keeps the lease on the rack.
func (o *orderedReboots) pause(ctx context.Context, delay time.Duration, say Say) error {
	end := time.Now().Add(delay)
	for {
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		say(fmt.Sprintf("waiting %s before its reboot", left.Round(time.Second)), "")
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(left, renewEvery)):
		}
		if o.Renew != nil {
			if err := o.Renew(ctx); err != nil {
				return err
			}
		}
	}
}

// unhealthy returns why a host that another one depends on is not healthy, or "".
func (o *orderedReboots) unhealthy(ctx context.Context, host *plan.Host) string {
	machine, seen := o.reach(ctx, host, "")
	switch {
	case seen.Unreachable != "":
		return "ssh: " + seen.Unreachable
	case len(seen.Failed) > 0:
		return "failed units: " + strings.Join(seen.Failed, " ")
	}
	if host.Server != nil {
		if server := askServer(ctx, machine, host.Server.Name); !server.Ready {
			return "server " + host.Server.Name + ": " + server.Why
		}
	}
	if host.Agent != nil {
		var node *k3s.Node
		err := o.byServer(ctx, "", func(s k3s.Server) (err error) {
			node, err = s.Node(ctx, host.Agent.Name)
			return err
		})
		switch {
		case err != nil:
			return "Node " + host.Agent.Name + ": " + remote.Reason(err)
		case node == nil || !node.Ready:
			return "Node " + host.Agent.Name + ": not ready"
		}
	}
	return o.failedChecks(ctx, host)
}

// failedChecks returns which health checks of a host fail, or "".
func (o *orderedReboots) failedChecks(ctx context.Context, host *plan.Host) string {
	var failed []string
	for _, r := range (health.Checks{Hosts: []*plan.Host{host}, Machines: o.order.Machines, At: o.Machine}).Run(ctx) {
		if !r.Healthy {
			failed = append(failed, fmt.Sprintf("check %s: %s", r.Check.Name, r.Reason))
		}
	}
	return strings.Join(failed, "; ")
}

var errNoServer = errors.New("no server answers")

// byServer asks the servers, those of other hosts than not first, until one answers.
func (o *orderedReboots) byServer(ctx context.Context, not string, ask func(k3s.Server) error) error {
	err := errNoServer
	for _, others := range []bool{true, false} {
		for _, server := range o.Before.Plan.Servers() {
			if (server.Host.Name != not) != others || ctx.Err() != nil {
				continue
			}
			machine := o.Machine(server.Host)
			machine.Timeout = o.order.DrainLimit + time.Minute
			if err = ask(k3s.Server{Container: server.Name, Run: machine.Run}); err == nil {
				return nil
			}
			var failed *remote.Error
			if !errors.As(err, &failed) || !failed.Unreached {
				return err
			}
		}
	}
	return cmp.Or(context.Cause(ctx), err)
}

// Apply drains the host's Node and reboots the host. If it is not rebooted, its Node takes pods again.
func (o *orderedReboots) Apply(ctx context.Context, host string, work Work, say Say) (string, error) {
	h := o.Before.Plan.Host(host)
	if err := o.drain(ctx, h, say); err != nil {
		return "", o.giveUp(h, err)
	}
	if ctx.Err() != nil {
		return "", o.giveUp(h, context.Cause(ctx))
	}
	system, err := o.Rebooter.Apply(ctx, host, work, say)
	return system, o.named(h, err)
}

// drain cordons the Node of a host and moves its pods elsewhere. A Node that is cordoned already stays so.
func (o *orderedReboots) drain(ctx context.Context, h *plan.Host, say Say) error {
	if h.Agent == nil || o.order.NoDrain {
		return nil
	}
	say("draining its Node", "")
	return o.byServer(ctx, h.Name, func(s k3s.Server) error {
		node, err := s.Node(ctx, h.Agent.Name)
		if err != nil || node == nil {
			return err
		}
		if !node.Unschedulable {
			o.set(h.Name, true) // before it is: an interruption may hide that it was
			if err := s.Cordon(ctx, h.Agent.Name); err != nil {
				return err
			}
		}
		return s.Drain(ctx, h.Agent.Name, o.order.DrainLimit, o.order.LosesEmptyDir)
	})
}

func (o *orderedReboots) set(host string, cordoned bool) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.cordoned[host] = cordoned
}

func (o *orderedReboots) isCordoned(host string) bool {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return o.cordoned[host]
}

// giveUp lets the Node of a host that was not rebooted take pods again, also after an interruption.
func (o *orderedReboots) giveUp(h *plan.Host, err error) error {
	if !o.isCordoned(h.Name) {
		return diag.WithHint(fmt.Errorf("%s was not rebooted: %w", h.Name, err), diag.HintOf(err))
	}
	ctx, cancel := context.WithTimeout(context.Background(), uncordonLimit)
	defer cancel()
	if uncordon := o.uncordon(ctx, h); uncordon != nil {
		return o.named(h, fmt.Errorf("%s was not rebooted: %w", h.Name, err))
	}
	return diag.WithHint(fmt.Errorf("%s was not rebooted, and its Node takes pods again: %w", h.Name, err), diag.HintOf(err))
}

func (o *orderedReboots) uncordon(ctx context.Context, h *plan.Host) error {
	err := o.byServer(ctx, h.Name, func(s k3s.Server) error { return s.Uncordon(ctx, h.Agent.Name) })
	if err == nil {
		o.set(h.Name, false)
	}
	return err
}

// named adds to an error that the Node of a host is cordoned, and how to undo that.
func (o *orderedReboots) named(h *plan.Host, err error) error {
	if err == nil || !o.isCordoned(h.Name) {
		return err
	}
	return diag.WithHint(err, joinLines(diag.HintOf(err), "its Node takes no new pods: kubectl uncordon "+h.Agent.Name))
}

// Gate is that of a deployment, and then the host's health checks; after them its Node takes pods again.
func (o *orderedReboots) Gate(ctx context.Context, host, system string, work Work, say Say) error {
	h := o.Before.Plan.Host(host)
	err := o.Rebooter.Gate(ctx, host, system, work, say)
	if err == nil {
		checks := func(ctx context.Context) (string, error) { return o.failedChecks(ctx, h), nil }
		err = wait(ctx, host, o.GateTimeout, o.Driver.Pause, checks, say)
	}
	if err == nil && o.isCordoned(host) {
		say("uncordoning its Node", "")
		err = o.uncordon(ctx, h)
	}
	return o.named(h, err)
}
