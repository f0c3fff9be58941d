package rollout

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"k3splan/internal/fingerprint"
	"k3splan/internal/plan"
)

// tables makes a plan of hosts with roles: "i" init server, "s" server, "a" agent, together as well
// ("ia"), or "" for no k3s.
func tables(t require.TestingT, roles map[string]string, network string) *plan.Plan {
	hosts, containers := "name,interface,ip,admin\n", "host,name,type,ip\n"
	for i, name := range slices.Sorted(maps.Keys(roles)) {
		hosts += fmt.Sprintf("%s,eno1,10.0.%d.%d,someone\n", name, i/100, 2+i%100)
		if strings.ContainsAny(roles[name], "is") {
			kind := map[bool]string{true: "init", false: "server"}[strings.Contains(roles[name], "i")]
			containers += fmt.Sprintf("%s,%s-s,%s,10.0.%d.%d\n", name, name, kind, 10+i/100, 2+i%100)
		}
		if strings.Contains(roles[name], "a") {
			containers += fmt.Sprintf("%s,%s-a,agent,10.0.%d.%d\n", name, name, 20+i/100, 2+i%100)
		}
	}
	if network == "" {
		network = "versions: {nixos: nixos-24.11, k3s: 1.31}\n"
	}
	p, problems := plan.Load(fstest.MapFS{
		"plans/hosts.csv":    {Data: []byte(hosts)},
		"plans/k3s.csv":      {Data: []byte(containers)},
		"plans/network.yaml": {Data: []byte("netmask: 16\ngateway: 10.0.200.1\n" + network)},
	})
	require.Zero(t, problems.Errors(), "%v", problems)
	return p
}

// receiptOf is the receipt of a host that was deployed by the plan.
func receiptOf(p *plan.Plan, h *plan.Host) *Receipt {
	data := map[string]string{"host.ip": h.Address.String(), "host.interface": h.Interface}
	if h.Server != nil {
		data["server.name"], data["server.ip"] = h.Server.Name, h.Server.Address.String()
		data["network.pod_cidr"], data["network.service_cidr"] = p.Network.PodCIDR.String(), p.Network.ServiceCIDR.String()
		data["k3s.server"] = p.Network.Versions.K3s.Minor
	}
	if h.Agent != nil {
		data["agent.name"] = h.Agent.Name
		data["k3s.agent"] = p.Network.Versions.K3s.String()
	}
	in := fingerprint.Inputs{Data: data}
	return &Receipt{Version: 1, Time: time.Unix(1, 0), System: "/nix/store/x", Inputs: in, Fingerprint: in.Fingerprint(), Cluster: ClusterOf(p),
		Secrets: fingerprint.Secrets{Salt: "s", Kinds: map[string]string{"server-token": "x"}}}
}

// living is the situation of a rack where all is deployed by the plan and well.
func living(p *plan.Plan) Situation {
	s := Situation{Plan: p, Observed: map[string]Observed{}, Health: map[string]Health{}, Work: map[string]Work{}}
	for _, h := range p.Hosts {
		s.Observed[h.Name] = Observed{System: "/nix/store/x", Profile: "/nix/store/x", LAN: true, Receipt: receiptOf(p, h)}
		s.Work[h.Name] = Work{}
		if h.Server != nil {
			s.Health[h.Name] = Health{Ready: true}
			o := s.Observed[h.Name]
			o.Etcd = []string{h.Server.Name}
			s.Observed[h.Name] = o
		}
	}
	return s
}

func (s Situation) change(hosts ...string) Situation {
	for _, host := range hosts {
		s.Work[host] = Work{System: true, Reasons: []string{"changed"}}
	}
	return s
}

func TestWaves(t *testing.T) {
	p := tables(t, map[string]string{"a": "s", "b": "ia", "c": "s", "d": "a", "e": "a", "f": "a", "g": "", "h": ""}, "")
	s := living(p).change(p.HostNames()...)
	shape := func(waves []Wave) (text []string) {
		for _, w := range waves {
			text = append(text, fmt.Sprintf("%s: %s /%d", w.Kind, strings.Join(w.Hosts, " "), w.Parallel))
		}
		return text
	}
	require.Equal(t, []string{"init server: b /1", "server: a /1", "server: c /1", "agents: d e /2", "agents: f /1", "hosts without k3s: g h /2"},
		shape(Waves(p, s.Work, nil, Limits{Unavailable: 2, Parallel: 5})))
	require.Equal(t, []string{"server that is down: c /1", "init server: b /1", "server: a /1"},
		shape(Waves(p, living(p).change("a", "b", "c").Work, map[string]bool{"c": true}, Limits{1, 1})))
	s = living(p).change("d")
	for _, host := range []string{"a", "b", "g"} {
		s.Work[host] = Work{System: true, OnlyNames: true}
	}
	require.Equal(t, []string{"agents: d /1", "only /etc/hosts: a b g /3"}, shape(Waves(p, s.Work, nil, Limits{1, 5})))
	require.Empty(t, Waves(p, living(p).Work, nil, Limits{1, 1}))
}

func TestParseUnavailable(t *testing.T) {
	for text, want := range map[string]int{"1": 1, "3": 3, "25%": 2, "1%": 1, " 100% ": 10} {
		n, err := ParseUnavailable(text, 10)
		require.NoError(t, err)
		require.Equal(t, want, n, text)
	}
	for _, text := range []string{"", "0", "-1", "x", "0%", "101%", "1.5"} {
		_, err := ParseUnavailable(text, 10)
		require.Error(t, err, text)
	}
}

func TestJudge(t *testing.T) {
	roles := map[string]string{"olaf": "ia", "ulf": "sa", "rolf": "s", "karl": "a", "ulrich": ""}
	was := tables(t, roles, "")
	with := func(roles map[string]string, network string) *plan.Plan { return tables(t, roles, network) }
	// after gives the living rack of the plan was with another plan
	after := func(p *plan.Plan, changed ...string) Situation {
		s := living(was)
		s.Plan = p
		return s.change(changed...)
	}
	without := func(name string) map[string]string {
		m := maps.Clone(roles)
		delete(m, name)
		return m
	}
	replaced := func(name, role string) map[string]string {
		m := maps.Clone(roles)
		m[name] = role
		return m
	}
	two := tables(t, map[string]string{"olaf": "i", "ulf": "s", "karl": "a"}, "")
	for name, test := range map[string]struct {
		situation Situation
		want      []string // "refused" or "asked", and a part of the message
	}{
		"nothing to do":      {living(was), nil},
		"a change":           {after(was, "olaf", "ulf", "rolf", "karl", "ulrich"), nil},
		"servers restart, 2": {living(two).change("olaf"), []string{"asked with two servers"}},
		"agent alone, 2":     {living(two).change("karl"), nil},
		"a server is down": {func() Situation {
			s := after(was, "ulf")
			s.Health["rolf"] = Health{Why: "etcd does not answer"}
			return s
		}(), []string{"refused ulf would be restarted while the server on rolf (etcd does not answer) is down: of 3 servers etcd needs 2, and 1 would be left"}},
		"a server's host is away": {func() Situation {
			s := after(was, "ulf")
			s.Observed["rolf"] = Observed{Unreachable: "no route to host"}
			delete(s.Health, "rolf")
			return s
		}(), []string{"refused ulf would be restarted while the server on rolf (no route to host) is down"}},
		"the server that is down is repaired": {func() Situation {
			s := after(was, "ulf", "rolf")
			s.Health["rolf"] = Health{}
			return s
		}(), nil},
		"fresh": {func() Situation {
			s := Situation{Plan: was, Observed: map[string]Observed{}, Work: map[string]Work{}}
			for _, h := range was.Hosts {
				s.Observed[h.Name], s.Work[h.Name] = Observed{LAN: true}, Work{System: true, New: true}
			}
			return s
		}(), nil},
		"fresh without the init server's host": {func() Situation {
			s := Situation{Plan: was, Observed: map[string]Observed{}, Work: map[string]Work{}}
			for _, h := range was.Hosts {
				s.Observed[h.Name], s.Work[h.Name] = Observed{LAN: true}, Work{System: true, New: true}
			}
			delete(s.Work, "olaf")
			s.Observed["olaf"] = Observed{Unreachable: "no route to host"}
			return s
		}(), []string{"refused no server answers yet, and the init server's host olaf does not either"}},
		"fresh, by hand": {func() Situation {
			s := Situation{Plan: was, Observed: map[string]Observed{"ulrich": {}}, Work: map[string]Work{"ulrich": {System: true, New: true}}}
			return s
		}(), []string{"asked the address moves to a macvlan interface for the first time on ulrich"}},
		"the init server is empty": {func() Situation {
			s := after(was, "olaf")
			s.Observed["olaf"] = Observed{LAN: true}
			delete(s.Health, "olaf")
			return s
		}(), []string{"refused the init server olaf-s is empty, and rolf-s answers"}},
		"server removed":                        {after(with(replaced("rolf", ""), ""), "rolf"), []string{"refused the server rolf-s on rolf is removed"}},
		"server removed, host not deployed now": {after(with(replaced("rolf", ""), ""), "karl"), nil},
		"host with a server removed":            {after(with(without("rolf"), ""), "karl"), []string{"refused the server rolf-s on rolf is removed"}},
		"agent removed":                         {after(with(replaced("karl", ""), ""), "karl"), []string{"asked the agent karl-a on karl is removed: its Node stays"}},
		"host with an agent removed":            {after(with(without("karl"), ""), "ulf"), []string{"asked the agent karl-a"}},
		"pod_cidr": {after(with(roles, "pod_cidr: 10.50.0.0/16\nversions: {nixos: nixos-24.11, k3s: 1.31}\n"), "ulf"),
			[]string{"refused pod_cidr of a living cluster cannot change (10.42.0.0/16 → 10.50.0.0/16)"}},
		"pod_cidr, no server touched": {after(with(roles, "pod_cidr: 10.50.0.0/16\nversions: {nixos: nixos-24.11, k3s: 1.31}\n"), "ulrich"), nil},
		"k3s up":                      {after(with(roles, "versions: {nixos: nixos-24.11, k3s: 1.32}\n"), "ulf"), nil},
		"k3s skips":                   {after(with(roles, "versions: {nixos: nixos-24.11, k3s: 1.33}\n"), "ulf"), []string{"refused k3s 1.31 → 1.33 skips a minor release"}},
		"k3s downgrade":               {after(with(roles, "versions: {nixos: nixos-24.11, k3s: 1.30}\n"), "karl"), []string{"refused k3s 1.31 → 1.30 is a downgrade"}},
		"server token, new agent": {func() Situation {
			s := after(was, "karl")
			s.OtherToken = []string{"ulf", "olaf"}
			return s
		}(), []string{"refused the server token is not the one that olaf and ulf got"}},
		"server token, no container concerned": {func() Situation {
			s := after(was, "ulrich")
			s.OtherToken = []string{"ulf"}
			return s
		}(), nil},
		"server token": {func() Situation {
			s := after(was)
			s.Work["ulf"] = Work{Secrets: []string{"server-token"}}
			s.OtherToken = []string{"ulf"}
			return s
		}(), []string{"refused the server token is not the one that ulf got"}},
	} {
		t.Run(name, func(t *testing.T) {
			// names decide about addresses in tables(): only the objections that are meant count
			got := slices.DeleteFunc(Judge(test.situation), func(o Objection) bool {
				return strings.Contains(o.Message, "address of") && !strings.Contains(name, "address")
			})
			require.Len(t, got, len(test.want), "%v", got)
			for i, want := range test.want {
				kind, message, _ := strings.Cut(want, " ")
				require.Contains(t, got[i].Message, message)
				require.Equal(t, kind == "refused", got[i].Refused)
				require.NotEmpty(t, got[i].Hint)
			}
		})
	}
}

func TestJudgeAddresses(t *testing.T) {
	roles := map[string]string{"olaf": "i", "rolf": "s", "ulf": "s"}
	s := living(tables(t, roles, "")).change("rolf")
	receipt := s.Observed["rolf"].Receipt
	receipt.Inputs.Data["host.ip"], receipt.Inputs.Data["host.interface"] = "10.0.0.99", "eno9"
	receipt.Inputs.Data["server.ip"] = "10.0.10.99"
	objections := Judge(s)
	require.Len(t, objections, 3)
	require.Equal(t, "the address of the server rolf-s changes: 10.0.10.99 → 10.0.10.3: etcd keeps the old member, and the new one is not let in", objections[0].Message)
	require.True(t, objections[0].Refused)
	require.Contains(t, objections[0].Hint, "etcdctl member remove")
	require.Equal(t, "the address of rolf changes (10.0.0.99 → 10.0.0.3): this may cut the connection", objections[1].Message)
	require.Equal(t, "the interface of rolf changes (eno9 → eno1): this may cut the connection", objections[2].Message)
}

// A server that has another name, or the same name on another host.
func TestJudgeServers(t *testing.T) {
	p := tables(t, map[string]string{"olaf": "i", "rolf": "s", "ulf": "s"}, "")
	s := living(p).change("rolf")
	s.Observed["rolf"].Receipt.Inputs.Data["server.name"] = "old-s"
	objections := Judge(s)
	require.Len(t, objections, 1)
	require.True(t, objections[0].Refused)
	require.Contains(t, objections[0].Message, "the server old-s on rolf becomes rolf-s")
	require.Contains(t, objections[0].Hint, "on olaf: nixos-container root-login olaf-s")
	require.Contains(t, objections[0].Hint, "on rolf: nixos-container stop old-s")

	s = living(p).change("ulf")
	last := s.Observed["olaf"].Receipt
	last.Time = last.Time.Add(time.Hour)
	last.Cluster.Servers["ulf-s"] = Place{"karl", "10.0.10.4"}
	objections = Judge(s)
	require.Len(t, objections, 1)
	require.Contains(t, objections[0].Message, "the server ulf-s moves from karl to ulf")

	// an agent that is renamed or moves leaves its Node behind
	p = tables(t, map[string]string{"olaf": "i", "karl": "a", "karl2": "a"}, "")
	s = living(p).change("karl")
	s.Observed["karl"].Receipt.Inputs.Data["agent.name"] = "old-a"
	objections = Judge(s)
	require.Len(t, objections, 1)
	require.False(t, objections[0].Refused)
	require.Equal(t, "the agent old-a on karl becomes karl-a: its Node stays in the cluster", objections[0].Message)
	s.Observed["karl"].Receipt.Inputs.Data["agent.name"] = "karl2-a"
	require.Contains(t, Judge(s)[0].Message, "the agent karl2-a moves from karl to karl2")
}

func TestVersionSteps(t *testing.T) {
	for _, test := range []struct {
		was, is string
		steps   int
	}{
		{"1.31", "1.31", 0}, {"1.31", "1.32", 1}, {"1.31", "1.33", 2}, {"1.31", "1.30", -1}, {"1.31.14+k3s1", "1.31.15+k3s1", 0},
		{"1.31.14+k3s1", "1.31.9+k3s1", -1}, {"1.31.14+k3s2", "1.31.14+k3s1", -1}, {"1.31.14+k3s1", "1.31", 0}, {"1.31", "1.32.1+k3s1", 1}, {"1.31", "2.0", 2}, {"2.0", "1.31", -1},
	} {
		steps, comparable := versionSteps(test.was, test.is)
		require.True(t, comparable)
		require.Equal(t, test.steps, steps, "%s %s", test.was, test.is)
	}
	_, comparable := versionSteps("", "1.31")
	require.False(t, comparable)
}

// Over random plans and states: never two servers in one wave, init first on a fresh cluster, no wave
// that loses the quorum, no host lost or twice.
func TestWavesKeepTheQuorum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 24).Draw(t, "hosts")
		roles := map[string]string{}
		withK3s := rapid.Bool().Draw(t, "k3s")
		for i := range n {
			role := ""
			if withK3s {
				role = rapid.SampledFrom([]string{"", "s", "sa", "a", "a"}).Draw(t, "role")
			}
			roles[fmt.Sprintf("h%02d", i)] = role
		}
		if withK3s {
			roles[fmt.Sprintf("h%02d", rapid.IntRange(0, n-1).Draw(t, "init"))] = rapid.SampledFrom([]string{"i", "ia"}).Draw(t, "init role")
		}
		p := tables(t, roles, "")
		s := living(p)
		fresh := rapid.Bool().Draw(t, "fresh")
		for _, h := range p.Hosts {
			o, w := s.Observed[h.Name], Work{}
			switch rapid.SampledFrom([]string{"same", "same", "changed", "names", "secrets", "new", "away", "down"}).Draw(t, h.Name) {
			case "changed":
				w = Work{System: true}
			case "names":
				w = Work{System: true, OnlyNames: true}
			case "secrets":
				w = Work{Secrets: []string{rapid.SampledFrom([]string{"passwd", "agent-token"}).Draw(t, "kind")}}
			case "new":
				o, w = Observed{LAN: true}, Work{System: true, New: true}
				delete(s.Health, h.Name)
			case "away":
				o = Observed{Unreachable: "away"}
				delete(s.Health, h.Name)
			case "down":
				if h.Server != nil {
					s.Health[h.Name] = Health{Why: "down"}
				}
				if rapid.Bool().Draw(t, "changed as well") {
					w = Work{System: true}
				}
			}
			if fresh {
				o, w = Observed{LAN: true}, Work{System: true, New: true}
				delete(s.Health, h.Name)
			}
			s.Observed[h.Name], s.Work[h.Name] = o, w
		}
		limits := Limits{Unavailable: rapid.IntRange(1, 5).Draw(t, "unavailable"), Parallel: rapid.IntRange(1, 5).Draw(t, "parallel")}
		down := s.Down()
		waves := Waves(p, s.Work, down, limits)

		// no host lost or twice
		var want, got []string
		for host, w := range s.Work {
			if !w.None() {
				want = append(want, host)
			}
		}
		for _, wave := range waves {
			got = append(got, wave.Hosts...)
			require.NotEmpty(t, wave.Hosts)
			require.Positive(t, wave.Parallel)
		}
		slices.Sort(want)
		slices.Sort(got)
		require.Equal(t, want, got)

		refused := slices.ContainsFunc(Judge(s), func(o Objection) bool { return o.Refused })
		up := map[string]bool{}
		members := s.members()
		for _, name := range members {
			if s.Health[name].Ready {
				up[name] = true
			}
		}
		quorum := len(members)/2 + 1
		seen := map[string]bool{}
		for _, wave := range waves {
			var stopped, agents []string
			for _, name := range wave.Hosts {
				if h := p.Host(name); h.Server != nil && s.Work[name].Restarts() {
					stopped = append(stopped, name)
				} else if h.Agent != nil && s.Work[name].Restarts() {
					agents = append(agents, name)
				}
			}
			require.LessOrEqual(t, len(stopped), 1, "never two servers in one wave")
			require.LessOrEqual(t, len(agents), limits.Unavailable)
			for _, name := range stopped {
				if fresh && p.Host(name).Server.Role != plan.Init {
					require.True(t, seen[p.InitServer().Host.Name], "init first")
				}
				// a wave that starts, starts with the waves before it well
				wasUp := up[name]
				up[name] = false
				left := len(slices.DeleteFunc(slices.Collect(maps.Keys(up)), func(name string) bool { return !up[name] || !slices.Contains(members, name) }))
				if wasUp && !refused && len(members) > 2 && left < quorum {
					// only what was lost before may be missing
					t.Fatalf("%s loses the quorum: %d of %d left", name, left, len(members))
				}
				up[name], seen[name] = true, true
			}
		}
	})
}
