package rollout

import (
	"context"
	"fmt"

	"k3splan/internal/k3s"
	"k3splan/internal/plan"
)

// mark brings the labels and taints of the agent's Node to what the plan says, and returns what it still waits
// for, or "". The receipt knows the plan that the Node had before.
func (g *gate) mark(ctx context.Context) (waits string) {
	want := marksOf(g.host.Agent)
	var was k3s.Marks
	if r := g.Before.Observed[g.host.Name].Receipt; r.AgentName() == g.host.Agent.Name {
		if before, err := r.Plan.Plan(); err == nil {
			if host := before.Host(r.HostName(g.host.Name)); host != nil && host.Agent != nil {
				was = marksOf(host.Agent)
			}
		}
	}
	if want.None() && was.None() {
		return ""
	}
	for _, server := range g.Before.Plan.Servers() {
		_, err := k3s.Server{Container: server.Name, Run: g.Machine(server.Host).Run}.Mark(ctx, g.host.Agent.Name, want, was)
		if err == nil {
			return ""
		}
		waits = reason(err)
	}
	return fmt.Sprintf("labels and taints of the Node %s: %s", g.host.Agent.Name, waits)
}

func marksOf(agent *plan.Container) k3s.Marks {
	return k3s.Marks{Labels: agent.Labels, Taints: agent.Taints}
}
