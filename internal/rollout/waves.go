package rollout

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k3splan/internal/plan"
)

// Wave is hosts that are deployed together. The next one starts when all of them are well.
type Wave struct {
	// Kind says in words what the hosts have in common.
	Kind string `json:"kind"`
	// Hosts are sorted by name.
	Hosts []string `json:"hosts"`
	// Parallel is how many hosts are deployed at once.
	Parallel int `json:"parallel"`
}

// Limits bound how much happens at once.
type Limits struct {
	// Unavailable is how many hosts with agents may be away at once, at least 1.
	Unavailable int
	// Parallel is for hosts where nothing of the cluster stops, at least 1.
	Parallel int
}

// ParseUnavailable reads a number of hosts or a per cent of all hosts that only have agents,
// rounded down, at least one.
func ParseUnavailable(text string, agents int) (int, error) {
	number, isPercent := strings.CutSuffix(strings.TrimSpace(text), "%")
	n, err := strconv.Atoi(number)
	switch {
	case err != nil || n < 1:
		return 0, fmt.Errorf("%q is neither a number of hosts nor a per cent of them, like 2 or 25%%", text)
	case isPercent && n > 100:
		return 0, errors.New("more than 100% cannot be unavailable")
	case isPercent:
		return max(1, agents*n/100), nil
	}
	return n, nil
}

const (
	kindRepair = "server that is down"
	kindInit   = "init server"
	kindServer = "server"
	kindAgents = "agents"
	kindOther  = "hosts without k3s"
	kindNames  = "only /etc/hosts"
)

// Waves puts the hosts that need something into an order that keeps etcd's quorum: servers one after
// the other, those that are down first, then the init server, which on a fresh cluster founds what
// the others join; then agents; then the rest. Hosts that only learn new names come last.
func Waves(p *plan.Plan, work map[string]Work, down map[string]bool, limits Limits) []Wave {
	var servers, agents, others, names []*plan.Host
	for _, host := range p.Hosts {
		w, asked := work[host.Name]
		switch {
		case !asked || w.None():
		case w.OnlyNames && !w.Restarts():
			names = append(names, host)
		case host.Server != nil:
			servers = append(servers, host)
		case host.Agent != nil:
			agents = append(agents, host)
		default:
			others = append(others, host)
		}
	}
	rank := func(h *plan.Host) int {
		switch {
		case down[h.Name]:
			return 0
		case h.Server.Role == plan.Init:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(servers, func(a, b *plan.Host) int { return cmp.Compare(rank(a), rank(b)) })
	var waves []Wave
	for _, host := range servers {
		kind := []string{kindRepair, kindInit, kindServer}[rank(host)]
		waves = append(waves, Wave{Kind: kind, Hosts: []string{host.Name}, Parallel: 1})
	}
	for batch := range slices.Chunk(agents, max(1, limits.Unavailable)) {
		waves = append(waves, Wave{Kind: kindAgents, Hosts: namesOf(batch), Parallel: len(batch)})
	}
	together := func(kind string, hosts []*plan.Host) {
		if len(hosts) > 0 {
			waves = append(waves, Wave{Kind: kind, Hosts: namesOf(hosts), Parallel: min(len(hosts), max(1, limits.Parallel))})
		}
	}
	together(kindOther, others)
	together(kindNames, names)
	return waves
}

func namesOf(hosts []*plan.Host) []string {
	names := make([]string, len(hosts))
	for i, host := range hosts {
		names[i] = host.Name
	}
	return names
}
