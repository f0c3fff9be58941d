package lifecycle

import (
	"context"
	"fmt"
	"strings"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/edit"
	"k3splan/internal/plan"
	"k3splan/internal/rollout"
)

// Decommissioning is what [Decommission] is to do.
type Decommissioning struct {
	Request
	// NoDrain stops the agent without moving its pods elsewhere first.
	NoDrain bool
	// DrainLimit is how long pods may take to leave.
	DrainLimit time.Duration
	// WipeState deletes the state of k3s and its tokens on the machine. Disks are never touched.
	WipeState bool
}

// Decommission takes a machine out of the cluster and out of the plan. It drains the agent, stops agent and
// server and keeps them from starting again, and only then removes the server from etcd: one that still runs
// would set its data aside and join again. Of a host that does not answer, what can be done is done.
//
// The outcome is nil if nothing was found out.
func Decommission(ctx context.Context, view View, r Decommissioning) (*Outcome, error) {
	w, err := begin(ctx, view, r.Request)
	if err != nil {
		return nil, err
	}
	if err := w.judge(ctx); err != nil {
		return nil, err
	}
	w.chooseSuccessor()
	if !w.answers() {
		w.object(diag.Warning, "host-unreachable", fmt.Sprintf("%s does not answer (%s): nothing can be done on the machine itself", r.Host.Name, w.away()),
			diag.HintOf(w.unreached()))
	}
	w.onMachine(r)
	if r.Host.Server != nil && w.hasCluster() {
		w.add(w.removeMember())
	}
	if r.Host.Agent != nil && w.hasCluster() {
		w.add(w.deleteNode())
	}
	if r.WipeState {
		w.add(w.wipe())
	}
	w.add(w.retireSecrets())
	row, err := w.write("remove "+r.Host.Name+" from the plan"+w.succession(), func(tables *edit.Edit) error {
		return tables.Decommission(r.Host.Name, w.successor)
	})
	if err != nil {
		return nil, err
	}
	w.add(row)
	w.whatIsLeft(r)
	return w.run(ctx, func(ctx context.Context) error {
		if w.leave.Last {
			return view.Type(ctx, "The cluster ends, with everything in it. Take "+r.Host.Name+" out?", r.Host.Name)
		}
		return view.Confirm(ctx, "decommission "+r.Host.Name+"?")
	})
}

// unreached is the reason why the host does not answer, with its hint.
func (w *work) unreached() error {
	o := w.seen.Observed[w.Host.Name]
	return diag.WithHint(fmt.Errorf("%s", o.Unreachable), o.Hint)
}

// onMachine adds the steps that need the machine.
func (w *work) onMachine(r Decommissioning) {
	host := w.Host
	cannot := ""
	if !w.answers() {
		cannot = host.Name + " does not answer"
	}
	if agent := host.Agent; agent != nil {
		if w.hasCluster() && !r.NoDrain {
			w.add(w.drain(r.DrainLimit, cannot))
		}
		w.add(w.hold("agent", "stop the agent "+agent.Name+" and keep it from starting again", rollout.Units(host)[0], cannot))
	}
	if server := host.Server; server != nil {
		units := rollout.Units(host)
		w.add(w.hold("server", "stop the server "+server.Name+" and keep it from starting again", units[len(units)-1], cannot))
	}
	if len(host.Containers()) == 0 {
		w.add(step{
			kind: "receipt", what: "delete the receipt on " + host.Name, cannot: cannot,
			so: func(ctx context.Context) (bool, error) {
				has, err := w.Rack.HasReceipt(ctx, host)
				return !has, err
			},
			do: func(ctx context.Context) error { return w.Rack.Forget(ctx, host) },
		})
	}
}

// drain moves the pods of the host's Node elsewhere.
func (w *work) drain(limit time.Duration, cannot string) step {
	agent := w.Host.Agent
	return step{
		kind: "drain", what: "drain the Node " + agent.Name, cannot: cannot,
		so: func(ctx context.Context) (bool, error) {
			node, err := byHelper(ctx, w.helpers, func(helper *plan.Container) (bool, error) {
				node, err := w.Rack.Node(ctx, helper, agent.Name)
				return node != nil, err
			})
			if err != nil || !node {
				return err == nil, err
			}
			// pods on an agent that has stopped would never end
			runs, _, err := w.Rack.Unit(ctx, w.Host, rollout.Units(w.Host)[0])
			return !runs, err
		},
		do: func(ctx context.Context) error {
			err := w.Rack.Drain(ctx, w.helpers[0], agent.Name, limit)
			if err == nil {
				return nil
			}
			return diag.WithHint(err, strings.TrimPrefix(diag.HintOf(err)+"\nthe Node takes no new pods until `kubectl uncordon "+agent.Name+"`; --no-drain leaves the pods where they are", "\n"))
		},
	}
}

// hold stops a container of the host for good. A server is stopped only while the others are a majority.
func (w *work) hold(kind, what, unit, cannot string) step {
	return step{
		kind: "stop-" + kind, what: what, cannot: cannot,
		so: func(ctx context.Context) (bool, error) {
			_, held, err := w.Rack.Unit(ctx, w.Host, unit)
			return held, err
		},
		do: func(ctx context.Context) error {
			if kind == "server" {
				if err := w.lookAgain(ctx); err != nil {
					return err
				}
			}
			lasting, err := w.Rack.Hold(ctx, w.Host, unit)
			if err == nil && !lasting {
				w.outcome.Left = append(w.outcome.Left, fmt.Sprintf("%s is read-only on %s, so %s starts again when the machine boots: switch it off", "/etc", w.Host.Name, unit))
			}
			return err
		},
	}
}

// wipe deletes k3s's state on the machine.
func (w *work) wipe() step {
	s := step{
		kind: "wipe-state", what: "delete the state of k3s and its tokens on " + w.Host.Name + ", with the local volumes of pods",
		so: func(ctx context.Context) (bool, error) {
			has, err := w.Rack.HasState(ctx, w.Host)
			return !has, err
		},
		do: func(ctx context.Context) error { return w.Rack.Wipe(ctx, w.Host) },
	}
	if !w.answers() {
		s.cannot = w.Host.Name + " does not answer"
	}
	return s
}

// retireSecrets moves the host's own secrets to the retired ones.
func (w *work) retireSecrets() step {
	own := func() ([]string, error) { return w.Vault.OfHost(w.Host.Name, w.Plan.HostNames()) }
	return step{
		kind: "secrets", what: "retire the password and the ssh key of " + w.Host.Name,
		so: func(context.Context) (bool, error) {
			names, err := own()
			return len(names) == 0, err
		},
		do: func(context.Context) error {
			names, err := own()
			if err != nil {
				return err
			}
			for _, name := range names {
				if _, err := w.Vault.SetAside(name, time.Now()); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// whatIsLeft says what only the user can do.
func (w *work) whatIsLeft(r Decommissioning) {
	host := w.Host
	switch {
	case !w.answers() && len(host.Containers()) > 0:
		w.outcome.Left = append(w.outcome.Left, fmt.Sprintf("when %s starts again, so %s, and would join the cluster again: erase its disks before it gets back to the network",
			host.Name, does(host)))
	case !w.answers():
		w.outcome.Left = append(w.outcome.Left, host.Name+" keeps its system and its secrets: erase its disks before it gets back to the network")
	case len(host.Containers()) > 0 && !r.WipeState:
		w.outcome.Left = append(w.outcome.Left, host.Name+" keeps the state of k3s and the tokens of the cluster: erase its disks before somebody else gets it")
	}
	if w.answers() && !host.Target.Local {
		w.outcome.Left = append(w.outcome.Left, host.Name+" keeps running: switch it off, or install it again")
	}
	if len(w.Plan.Hosts) > 1 {
		next := "k3splan deploy"
		if w.successor != "" {
			next += "   # k3s of " + w.successor + " restarts, as the init server"
		}
		w.outcome.Next = append(w.outcome.Next, next)
	}
}

func does(host *plan.Host) string {
	if len(host.Containers()) == 1 {
		return "does " + enumerate(host.Containers())
	}
	return "do " + enumerate(host.Containers())
}
