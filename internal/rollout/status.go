package rollout

import (
	"context"
	"slices"
	"time"

	"k3splan/internal/plan"
)

// HostState is how what a host runs relates to the plan.
type HostState string

const (
	StateUnreachable HostState = "unreachable"
	StateNew         HostState = "never deployed"
	StateForeign     HostState = "foreign system"
	StateRolledBack  HostState = "rolled back"
	StateChanged     HostState = "changed"
	StateCurrent     HostState = "up to date"
)

// HostStatus is the state of a host.
type HostStatus struct {
	Host    string    `json:"host"`
	Healthy bool      `json:"healthy"`
	State   HostState `json:"state"`
	// Reasons explain why the state is not "up to date"; never nil.
	Reasons []string `json:"reasons"`
	// Hint says what to do if the host is unreachable, or is empty.
	Hint  string `json:"hint"`
	NixOS string `json:"nixos"`
	// Generation is that of the system profile; 0 is unknown.
	Generation   int  `json:"generation"`
	RebootNeeded bool `json:"reboot_needed"`
	// RebootFor are the parts of the system that wait for a reboot; never nil.
	RebootFor []string `json:"reboot_for"`
	// FailedUnits is never nil.
	FailedUnits []string `json:"failed_units"`
	// Server and Node are "ready" or what is missing; empty where there is none.
	Server    string `json:"server"`
	ServerK3s string `json:"server_k3s"`
	Node      string `json:"node"`
	NodeK3s   string `json:"node_k3s"`
	// Deployed is DeployedAt by RFC 3339, or empty if there is no receipt.
	Deployed   string    `json:"deployed"`
	DeployedAt time.Time `json:"-"`
}

// Status also asks the servers, and returns the state of each selected host. It is for after Survey.
func (r *Rack) Status(ctx context.Context) ([]HostStatus, error) {
	r.Health = askServers(ctx, r.Situation, r.ask())
	nodes, nodesMissing := r.askNodes(ctx)
	rows := make([]HostStatus, len(r.Selected))
	for i, host := range r.Selected {
		rows[i] = r.status(host, nodes, nodesMissing)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return rows, nil
}

func (r *Rack) status(host *plan.Host, nodes map[string]Node, nodesMissing string) HostStatus {
	o, work := r.Observed[host.Name], r.Work[host.Name]
	s := HostStatus{
		Host: host.Name, NixOS: o.NixOS, Generation: o.Generation, RebootNeeded: len(o.RebootFor) > 0, RebootFor: append([]string{}, o.RebootFor...),
		FailedUnits: append([]string{}, o.Failed...), Reasons: append([]string{}, work.Reasons...),
	}
	switch {
	case o.Unreachable != "":
		s.State, s.Reasons, s.Hint = StateUnreachable, []string{o.Unreachable}, o.Hint
	case o.Receipt == nil:
		s.State = StateNew
	case o.Receipt.System != o.System:
		s.State = StateForeign
	case o.Receipt.RolledBack != nil && work.System:
		s.State = StateRolledBack
	case !work.None():
		s.State = StateChanged
	default:
		s.State = StateCurrent
	}
	if o.Receipt != nil {
		s.DeployedAt = o.Receipt.Time
		s.Deployed = o.Receipt.Time.Format(time.RFC3339)
	}
	s.Healthy = slices.Contains([]HostState{StateRolledBack, StateChanged, StateCurrent}, s.State) && len(o.Failed) == 0
	if host.Server != nil {
		health, asked := r.Health[host.Name]
		s.Server, s.ServerK3s = "ready", health.Version
		if !health.Ready {
			s.Healthy, s.Server, s.ServerK3s = false, health.Why, ""
			switch {
			case o.Unreachable != "":
				s.Server = "unknown"
			case !asked:
				s.Server = "not deployed"
			}
		}
	}
	if host.Agent != nil {
		node, there := nodes[host.Agent.Name]
		s.Node, s.NodeK3s = "ready", node.Version
		switch {
		case nodesMissing != "":
			s.Node = "unknown"
		case !there:
			s.Node = "not registered"
		case !node.Ready:
			s.Node = node.Why
		}
		s.Healthy = s.Healthy && s.Node == "ready"
	}
	return s
}
