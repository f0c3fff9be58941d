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

// Wave is a group of hosts that are deployed together. The next one starts when all of them are healthy.
type Wave struct {
	// Kind describes what the hosts have in common.
	Kind string `json:"kind"`
	// Hosts are sorted by name.
	Hosts []string `json:"hosts"`
	// Parallel is how many hosts are deployed at the same time.
	Parallel int `json:"parallel"`
	// Snapshot says why a snapshot of etcd is made before the wave, or is empty.
	Snapshot string `json:"snapshot"`
}

// Limits bound how much happens at the same time.
type Limits struct {
	// Unavailable is how many hosts with agents may be down at the same time, at least 1.
	Unavailable int
	// Parallel is for hosts where nothing of the cluster stops, at least 1.
	Parallel int
}

// ParseUnavailable reads a number of hosts, or a percentage of the hosts that have only agents, rounded
// down; the result is at least one.
func ParseUnavailable(text string, agents int) (int, error) {
	number, isPercent := strings.CutSuffix(strings.TrimSpace(text), "%")
	n, err := strconv.Atoi(number)
	switch {
	case err != nil || n < 1:
		return 0, fmt.Errorf("%q is neither a number of hosts nor a percentage of them (2, 25%%)", text)
	case isPercent && n > 100:
		return 0, errors.New("more than 100% cannot be unavailable")
	case isPercent:
		return max(1, agents*n/100), nil
	}
	return n, nil
}

const (
	kindRepair  = "server that is down"
	kindJoins   = "server that joins"
	kindInit    = "init server"
	kindServer  = "server"
	kindRemoved = "server that is removed"
	kindAgents  = "agents"
	kindOther   = "hosts without k3s"
	kindNames   = "only /etc/hosts"
)

// Urgent are hosts whose server comes before all others.
type Urgent struct {
	// Down have a member of etcd that is down, and Joins a server that joins before another one restarts.
	Down, Joins map[string]bool
}

// Waves puts the hosts that need something into an order that keeps etcd's quorum: servers one after
// the other, the urgent ones first, then the init server, which on a fresh cluster founds what the
// others join; then agents; then the rest. Hosts that only learn new names come last. Two servers are
// never in one wave, whatever changes on their hosts.
func Waves(p *plan.Plan, work map[string]Work, urgent Urgent, limits Limits) []Wave {
	var servers, agents, others, names, namesOfServers []*plan.Host
	isServer := func(h *plan.Host) bool { return h.Server != nil || work[h.Name].Server }
	for _, host := range p.Hosts {
		switch w := work[host.Name]; {
		case w.None():
		case w.OnlyNames && !w.Restarts() && isServer(host):
			namesOfServers = append(namesOfServers, host)
		case w.OnlyNames && !w.Restarts():
			names = append(names, host)
		case isServer(host):
			servers = append(servers, host)
		case host.Agent != nil:
			agents = append(agents, host)
		default:
			others = append(others, host)
		}
	}
	kind := func(h *plan.Host) string {
		switch {
		case h.Server == nil:
			return kindRemoved
		case urgent.Down[h.Name]:
			return kindRepair
		case urgent.Joins[h.Name]:
			return kindJoins
		case h.Server.Role == plan.Init:
			return kindInit
		}
		return kindServer
	}
	order := []string{kindRepair, kindJoins, kindInit, kindServer, kindRemoved}
	rank := func(a, b *plan.Host) int {
		return cmp.Compare(slices.Index(order, kind(a)), slices.Index(order, kind(b)))
	}
	var waves []Wave
	alone := func(kind string, host *plan.Host) {
		waves = append(waves, Wave{Kind: kind, Hosts: []string{host.Name}, Parallel: 1})
	}
	together := func(kind string, hosts []*plan.Host, parallel int) {
		if len(hosts) > 0 {
			waves = append(waves, Wave{Kind: kind, Hosts: namesOf(hosts), Parallel: min(len(hosts), max(1, parallel))})
		}
	}
	slices.SortStableFunc(servers, rank)
	for _, host := range servers {
		alone(kind(host), host)
	}
	for batch := range slices.Chunk(agents, max(1, limits.Unavailable)) {
		together(kindAgents, batch, len(batch))
	}
	together(kindOther, others, limits.Parallel)
	slices.SortStableFunc(namesOfServers, rank)
	for _, host := range namesOfServers {
		alone(kindNames, host)
	}
	together(kindNames, names, limits.Parallel)
	return waves
}

func namesOf(hosts []*plan.Host) []string {
	names := make([]string, len(hosts))
	for i, host := range hosts {
		names[i] = host.Name
	}
	return names
}
