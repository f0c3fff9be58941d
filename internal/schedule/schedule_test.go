package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestOf(t *testing.T) {
	host := func(name string, order, delay int, depends ...string) Host {
		return Host{Name: name, Changes: true, Order: order, Delay: delay, Dependencies: depends}
	}
	with := func(h Host, change func(*Host)) Host { change(&h); return h }
	server := func(h *Host) { h.Server = true }
	agent := func(h *Host) { h.Agent = true }
	for name, test := range map[string]struct {
		hosts  []Host
		limits Limits
		want   string
	}{
		"order, then name": {[]Host{host("b", 1, 5), host("c", 1, 5), host("a", 2, 7)}, Limits{}, "[b]+0 order [] [c]+5 order [0] [a]+7 order [1]"},
		"together":         {[]Host{host("b", 1, 5), host("c", 1, 9), host("a", 2, 7)}, Limits{Parallel: 4}, "[b c]+0 order [] [a]+7 order [0]"},
		"dependency beats order": {[]Host{host("a", 1, 1, "c"), host("b", 2, 1), host("c", 3, 1)}, Limits{Parallel: 4},
			"[b]+0 order [] [c]+1 order [0] [a]+1 dependency [1]"},
		"by a host that does not change": {[]Host{host("a", 1, 1, "b"), with(host("b", 1, 1, "c"), func(h *Host) { h.Changes = false }), host("c", 1, 1)}, Limits{Parallel: 4},
			"[c]+0 order [] [a]+1 dependency [0]"},
		"servers alone": {[]Host{with(host("a", 1, 1), server), with(host("b", 1, 1), server), with(host("c", 1, 1), agent), host("d", 1, 1)}, Limits{Parallel: 4},
			"[a d]+0 order [] [b]+1 order [0] [c]+1 order [1]"},
		"what is down comes first": {[]Host{with(host("a", 1, 1), server), with(host("b", 2, 1, "a"), func(h *Host) { h.Server, h.Down = true, true })}, Limits{Parallel: 4},
			"[b]+0 quorum [] [a]+1 order [0]"},
		"agents after servers": {[]Host{with(host("a", 1, 1), agent), with(host("b", 2, 1, "a"), server), with(host("c", 3, 1), func(h *Host) { h.Server, h.Init = true, true }), host("d", 0, 1, "a")},
			Limits{Parallel: 4, K3s: true}, "[c]+0 quorum [] [b]+1 quorum [0] [a]+1 quorum [1] [d]+1 dependency [2]"},
		"unavailable": {[]Host{with(host("a", 1, 1), agent), with(host("b", 1, 1), agent), with(host("c", 1, 1), agent), host("d", 1, 1)}, Limits{Parallel: 9, Unavailable: 2},
			"[a b d]+0 order [] [c]+1 order [0]"},
		"groups": {[]Host{with(host("a", 1, 1), func(h *Host) { h.Groups = []string{"x"} }), with(host("b", 1, 1), func(h *Host) { h.Groups = []string{"x", "y"} }),
			with(host("c", 1, 1), func(h *Host) { h.Groups = []string{"y"} })}, Limits{Parallel: 9}, "[a c]+0 order [] [b]+1 order [0]"},
		"critical": {[]Host{host("a", 1, 1), with(host("b", 1, 1), func(h *Host) { h.Critical = true }), host("c", 1, 1)}, Limits{Parallel: 9},
			"[a c]+0 order [] [b]+1 order [0]"},
		"nothing":         {[]Host{with(host("a", 1, 1), func(h *Host) { h.Changes = false })}, Limits{}, ""},
		"unknown, itself": {[]Host{host("a", 1, 1, "a", "nobody")}, Limits{}, "[a]+0 order []"},
	} {
		t.Run(name, func(t *testing.T) {
			steps, err := Of(test.hosts, test.limits)
			require.NoError(t, err)
			got := ""
			for i, s := range steps {
				if i > 0 {
					got += " "
				}
				got += fmt.Sprintf("%v+%d %s %v", s.Hosts, s.Delay, s.Reason, s.After)
			}
			require.Equal(t, test.want, got)
		})
	}
	_, err := Of([]Host{host("c", 1, 1, "b"), host("b", 1, 1, "d"), host("d", 1, 1, "c"), host("a", 1, 1, "c")}, Limits{})
	require.EqualError(t, err, "the hosts wait for each other: b → d → c → b")
	var cycle *CycleError
	require.ErrorAs(t, err, &cycle)
}

func drawHosts(t *rapid.T) []Host {
	n := rapid.IntRange(0, 12).Draw(t, "hosts")
	hosts := make([]Host, n)
	// a hidden order in which dependencies lead backwards, so that most draws have none that cannot be
	hidden := rapid.Permutation(indices(n)).Draw(t, "hidden order")
	wild := rapid.IntRange(0, 9).Draw(t, "wild") == 0
	flag := func(name string, of int) bool { return rapid.IntRange(0, of).Draw(t, name) == 0 }
	for place, i := range hidden {
		h := &hosts[i]
		h.Name = fmt.Sprintf("h%d", i)
		h.Changes = !flag("stays", 3)
		h.Order = rapid.IntRange(0, 3).Draw(t, "order")
		h.Delay = rapid.IntRange(0, 5).Draw(t, "delay")
		h.Critical = flag("critical", 7)
		switch rapid.IntRange(0, 3).Draw(t, "k3s") {
		case 0:
			h.Server, h.Down = true, flag("down", 3)
		case 1, 2:
			h.Agent = true
		}
		for _, group := range []string{"x", "y"} {
			if flag("group", 3) {
				h.Groups = append(h.Groups, group)
			}
		}
		for range rapid.IntRange(0, 3).Draw(t, "dependencies") {
			on := rapid.IntRange(0, n).Draw(t, "on") // n is unknown
			if !wild && on < n {
				if place == 0 {
					continue
				}
				on = hidden[rapid.IntRange(0, place-1).Draw(t, "before")]
			}
			h.Dependencies = append(h.Dependencies, fmt.Sprintf("h%d", on))
		}
	}
	if i := slices.IndexFunc(hosts, func(h Host) bool { return h.Server }); i >= 0 {
		hosts[i].Init = true
	}
	return hosts
}

func indices(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// reachable returns all that a host depends on, directly or by others.
func reachable(hosts map[string]Host, name string) map[string]bool {
	seen := map[string]bool{}
	var walk func(string)
	walk = func(at string) {
		for _, on := range hosts[at].Dependencies {
			if _, known := hosts[on]; known && !seen[on] && on != at {
				seen[on] = true
				walk(on)
			}
		}
	}
	walk(name)
	return seen
}

// The promises of Of, by their definitions.
func checkSchedule(t *rapid.T) {
	hosts := drawHosts(t)
	limits := Limits{Unavailable: rapid.IntRange(0, 3).Draw(t, "unavailable"), Parallel: rapid.IntRange(0, 5).Draw(t, "parallel"), K3s: rapid.Bool().Draw(t, "k3s changes")}
	byName := map[string]Host{}
	needs := map[string]map[string]bool{}
	for _, h := range hosts {
		byName[h.Name] = h
	}
	circular := false
	for _, h := range hosts {
		needs[h.Name] = reachable(byName, h.Name)
		circular = circular || needs[h.Name][h.Name]
	}
	steps, err := Of(hosts, limits)
	if circular {
		var cycle *CycleError
		require.ErrorAs(t, err, &cycle)
		for i := range len(cycle.Names) - 1 {
			require.Contains(t, byName[cycle.Names[i]].Dependencies, cycle.Names[i+1])
		}
		return
	}
	require.NoError(t, err)

	at := map[string]int{}
	for i, step := range steps {
		require.NotEmpty(t, step.Hosts)
		require.True(t, slices.IsSorted(step.Hosts))
		servers, agents, groups, delay := 0, 0, map[string]int{}, 0
		for _, name := range step.Hosts {
			_, twice := at[name]
			require.False(t, twice, "%s is there twice", name)
			at[name] = i
			h := byName[name]
			require.True(t, h.Changes)
			delay = max(delay, h.Delay)
			if h.Server {
				servers++
			}
			if h.Agent {
				agents++
			}
			for _, group := range h.Groups {
				groups[group]++
			}
			require.False(t, h.Critical && len(step.Hosts) > 1, "a critical host is alone")
		}
		if i == 0 {
			delay = 0
		}
		require.Equal(t, delay, step.Delay)
		require.LessOrEqual(t, servers, 1, "never two servers")
		require.False(t, servers > 0 && agents > 0, "an agent does not go while a server does")
		require.LessOrEqual(t, agents, max(1, limits.Unavailable))
		require.LessOrEqual(t, len(step.Hosts), max(1, limits.Parallel))
		for _, count := range groups {
			require.LessOrEqual(t, count, max(1, limits.Unavailable))
		}
		if i > 0 {
			require.Contains(t, step.After, i-1)
		}
		for _, before := range step.After {
			require.Less(t, before, i)
		}
	}
	down := func(h Host) bool { return h.Server && h.Down }
	for _, h := range hosts {
		i, there := at[h.Name]
		require.Equal(t, h.Changes, there, "nobody is lost: %s", h.Name)
		if !there {
			continue
		}
		for _, other := range hosts {
			j, there := at[other.Name]
			if !there || other.Name == h.Name {
				continue
			}
			if down(h) && !down(other) {
				require.Less(t, i, j, "what is down comes first")
			}
			if limits.K3s && h.Server && other.Agent {
				require.Less(t, i, j, "%s has a server and comes before the agent %s", h.Name, other.Name)
			}
			if !needs[h.Name][other.Name] {
				continue
			}
			// quorum beats dependency for servers only, where what they depend on leads against it
			against := down(h)
			if limits.K3s && h.Server {
				for name := range needs[h.Name] {
					against = against || byName[name].Agent && byName[name].Changes || h.Init && byName[name].Server
				}
			}
			// and for a host that depends on another one by such a server
			for by := range needs[h.Name] {
				against = against || needs[by][other.Name] && byName[by].Changes && byName[by].Server && (limits.K3s || byName[by].Down)
			}
			if !against {
				require.Greater(t, i, j, "%s depends on %s", h.Name, other.Name)
			}
			if slices.Contains(h.Dependencies, other.Name) {
				require.False(t, i == j, "%s is changed together with %s, on which it depends", h.Name, other.Name)
			}
		}
	}
	if !limits.K3s {
		checkOrder(t, hosts, byName, needs, at, down)
	}

	// the order of the list does not matter
	shuffled := slices.Clone(hosts)
	rand.New(rand.NewPCG(uint64(len(hosts)), 7)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	again, err := Of(shuffled, limits)
	require.NoError(t, err)
	require.Equal(t, steps, again)
}

// checkOrder: a host comes before one with a higher number unless it waits for a host that comes no earlier.
func checkOrder(t *rapid.T, hosts []Host, byName map[string]Host, needs map[string]map[string]bool, at map[string]int, down func(Host) bool) {
	for _, h := range hosts {
		for _, other := range hosts {
			i, one := at[h.Name]
			j, two := at[other.Name]
			if !one || !two || h.Order >= other.Order || down(other) || i <= j {
				continue
			}
			waited := false
			for name := range needs[h.Name] {
				if k, there := at[name]; there {
					waited = waited || k >= j
				}
			}
			require.True(t, waited, "%s (%d) comes after %s (%d) without a reason", h.Name, h.Order, other.Name, other.Order)
		}
	}
}

func TestSchedule(t *testing.T) { rapid.Check(t, checkSchedule) }

func FuzzSchedule(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkSchedule)) }

// rack is a plan of n hosts with three dependencies each.
func rack(n int) []Host {
	random := rand.New(rand.NewPCG(1, 2))
	hosts := make([]Host, n)
	for i := range hosts {
		hosts[i] = Host{Name: fmt.Sprintf("host-%05d", i), Changes: i%10 != 0, Order: random.IntN(20), Groups: []string{fmt.Sprint("group-", i%7)}, Delay: 600,
			Server: i%3 == 0, Agent: i%3 == 1, Init: i == 0}
		for range min(3, i) {
			hosts[i].Dependencies = append(hosts[i].Dependencies, fmt.Sprintf("host-%05d", random.IntN(i)))
		}
	}
	return hosts
}

func BenchmarkSchedule(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		hosts := rack(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if _, err := Of(hosts, Limits{Unavailable: 2, Parallel: 8, K3s: true}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(n), "µs/host")
		})
	}
}
