package rollout

import (
	"fmt"
	"slices"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/schedule"
)

// Sequence returns the steps in which the selected hosts reboot. machines is what all hosts of the plan say about
// themselves, as NixOS evaluates it; what is missing there is that of the tables. down are the hosts whose server
// is not healthy. The error is about what a snippet says.
func Sequence(p *plan.Plan, machines map[string]plan.Machine, selected []*plan.Host, down map[string]bool, limits Limits) ([]schedule.Step, error) {
	hosts := make([]schedule.Host, len(p.Hosts))
	chosen := make(map[*plan.Host]bool, len(selected))
	for _, host := range selected {
		chosen[host] = true
	}
	for i, host := range p.Hosts {
		m, evaluated := machines[host.Name]
		if !evaluated {
			m = host.Machine
		}
		for _, name := range m.Dependencies {
			if p.Host(name) == nil {
				return nil, diag.WithHint(fmt.Errorf("%s depends on %q, which is not a host of the plan", host.Name, name), diag.DidYouMean(name, p.HostNames()))
			}
		}
		hosts[i] = schedule.Host{
			Name: host.Name, Changes: chosen[host], Order: m.RebootOrder, Groups: m.Groups, Dependencies: m.Dependencies,
			Delay: m.Orchestration.RebootDelay, Critical: m.Orchestration.Criticality == plan.Critical,
			Server: host.Server != nil, Down: host.Server != nil && down[host.Name], Init: host.Server != nil && host.Server.Role == plan.Init,
			Agent: host.Agent != nil && host.Server == nil,
		}
		if slices.Contains(m.Dependencies, host.Name) {
			return nil, fmt.Errorf("%s depends on itself", host.Name)
		}
	}
	steps, err := schedule.Of(hosts, schedule.Limits{Unavailable: limits.Unavailable, Parallel: limits.Parallel})
	return steps, diag.WithHint(err, "take one of the dependencies away, in plans/hosts.csv or in a snippet")
}
