package rollout

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"k3splan/internal/diag"
	"k3splan/internal/fingerprint"
	"k3splan/internal/plan"
	"k3splan/internal/receipt"
)

// tables makes a plan of hosts with roles: "i" init server, "s" server, "a" agent, together as well
// ("ia"), or "" for no k3s.
func tables(t require.TestingT, roles map[string]string, network string) *plan.Plan {
	hosts, containers := "name,interface,ip,admin\n", "host,name,type,ip\n"
	// a name has its address whatever else there is
	known := []string{"karl", "olaf", "rolf", "ulf", "ulrich", "karl2"}
	for i, name := range slices.Sorted(maps.Keys(roles)) {
		if at := slices.Index(known, name); at >= 0 {
			i = at
		}
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
func receiptOf(t require.TestingT, p *plan.Plan, h *plan.Host) *receipt.Receipt {
	data := map[string]string{"host.name": h.Name}
	for _, c := range h.Containers() {
		data[map[bool]string{true: "server", false: "agent"}[c.IsServer()]+".name"] = c.Name
	}
	kept, err := receipt.Keep(p)
	require.NoError(t, err)
	in := fingerprint.Inputs{Data: data}
	return &receipt.Receipt{Version: receipt.Version, Time: time.Unix(1, 0), System: "/nix/store/x", Inputs: in, Fingerprint: in.Fingerprint(), Plan: kept,
		Secrets: fingerprint.Secrets{Salt: "s", Kinds: map[string]string{"server-token": "x"}}}
}

// living is the situation of a rack where all is deployed by the plan and well.
func living(t require.TestingT, p *plan.Plan) Situation {
	s := Situation{Plan: p, Deployed: p, Observed: map[string]Observed{}, Health: map[string]Health{}, Work: map[string]Work{}}
	for _, h := range p.Hosts {
		s.Observed[h.Name] = Observed{System: "/nix/store/x", Profile: "/nix/store/x", LAN: true, Receipt: receiptOf(t, p, h)}
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

// change lets the hosts need what the plan of the situation has changed since they were deployed.
func (s Situation) change(hosts ...string) Situation {
	past := NewPast(s.Plan)
	for _, host := range hosts {
		w := Work{System: true, Reasons: []string{"changed"}}
		if r := s.Observed[host].Receipt; r != nil {
			changes, err := past.Since(r)
			if err != nil {
				panic(err)
			}
			w.Changes = changes.Of(host)
			if name := past.nameNow(r, host); name != host {
				w.Other = name
			}
		}
		s.Work[host] = w
	}
	return s
}

func TestWaves(t *testing.T) {
	p := tables(t, map[string]string{"a": "s", "b": "ia", "c": "s", "d": "a", "e": "a", "f": "a", "g": "", "h": ""}, "")
	s := living(t, p).change(p.HostNames()...)
	shape := func(waves []Wave) (text []string) {
		for _, w := range waves {
			text = append(text, fmt.Sprintf("%s: %s /%d", w.Kind, strings.Join(w.Hosts, " "), w.Parallel))
		}
		return text
	}
	require.Equal(t, []string{"init server: b /1", "server: a /1", "server: c /1", "agents: d e /2", "agents: f /1", "hosts without k3s: g h /2"},
		shape(Waves(p, s.Work, Urgent{}, Limits{Unavailable: 2, Parallel: 5})))
	require.Equal(t, []string{"server that is down: c /1", "init server: b /1", "server: a /1"},
		shape(Waves(p, living(t, p).change("a", "b", "c").Work, Urgent{Down: map[string]bool{"c": true}}, Limits{1, 1})))
	s = living(t, p).change("d")
	for _, host := range []string{"a", "b", "g"} {
		s.Work[host] = Work{System: true, OnlyNames: true}
	}
	require.Equal(t, []string{"agents: d /1", "only /etc/hosts: b /1", "only /etc/hosts: a /1", "only /etc/hosts: g /1"}, shape(Waves(p, s.Work, Urgent{}, Limits{1, 5})))
	require.Equal(t, []string{"server that joins: c /1", "init server: b /1", "server: a /1"},
		shape(Waves(p, living(t, p).change("a", "b", "c").Work, Urgent{Joins: map[string]bool{"c": true}}, Limits{1, 1})))
	require.Empty(t, Waves(p, living(t, p).Work, Urgent{}, Limits{1, 1}))
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
		s := living(t, was)
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
		"nothing to do":      {living(t, was), nil},
		"a change":           {after(was, "olaf", "ulf", "rolf", "karl", "ulrich"), nil},
		"servers restart, 2": {living(t, two).change("olaf"), []string{"asked the server on olaf restarts (with 2 servers a restart loses the quorum for a moment)"}},
		"both servers, 2":    {living(t, two).change("olaf", "ulf"), []string{"asked the servers on olaf and ulf restart (with 2 servers a restart loses the quorum for a moment)"}},
		"agent alone, 2":     {living(t, two).change("karl"), nil},
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
		"server removed":                        {after(with(replaced("rolf", ""), ""), "rolf"), []string{"refused server rolf-s removed: 2 of 2 left, no loss tolerated any more"}},
		"server removed, host not deployed now": {after(with(replaced("rolf", ""), ""), "karl"), nil},
		"host with a server removed":            {after(with(without("rolf"), ""), "karl"), []string{"refused server rolf-s removed: 2 of 2 left, no loss tolerated any more"}},
		"agent removed":                         {after(with(replaced("karl", ""), ""), "karl"), []string{"asked agent karl-a removed from karl (its Node stays behind)"}},
		"host with an agent removed":            {after(with(without("karl"), ""), "ulf"), []string{"asked agent karl-a removed from karl (its Node stays behind)"}},
		"pod_cidr": {after(with(roles, "pod_cidr: 10.50.0.0/16\nversions: {nixos: nixos-24.11, k3s: 1.31}\n"), "ulf"),
			[]string{"refused pod_cidr 10.42.0.0/16 → 10.50.0.0/16 (all servers; a running cluster cannot change it)"}},
		"pod_cidr, no server touched":                          {after(with(roles, "pod_cidr: 10.50.0.0/16\nversions: {nixos: nixos-24.11, k3s: 1.31}\n"), "ulrich"), nil},
		"a member is left over, of a server that joined again": {after(was, "ulf").knows("olaf-s", "rolf-s", "rolf-s", "ulf-s"), []string{"refused ulf would be restarted while the server rolf-s (etcd has two members of this name, and one server runs) is down: of 4 servers etcd needs 3, and 2 would be left"}},
		"k3s up":        {after(with(roles, "versions: {nixos: nixos-24.11, k3s: 1.32}\n"), "ulf"), nil},
		"k3s skips":     {after(with(roles, "versions: {nixos: nixos-24.11, k3s: 1.33}\n"), "ulf"), []string{"refused k3s 1.31 → 1.33 (all servers and agents; skips 1.32)"}},
		"k3s downgrade": {after(with(roles, "versions: {nixos: nixos-24.11, k3s: 1.30}\n"), "karl"), []string{"refused k3s 1.31 → 1.30 (all servers and agents; k3s cannot go back to an older version)"}},
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
			got := Judge(test.situation)
			require.Len(t, got, len(test.want), "%v", got)
			for i, want := range test.want {
				kind, message, _ := strings.Cut(want, " ")
				require.Contains(t, got[i].Message, message)
				require.Equal(t, kind == "refused", isRefused(got[i]))
				require.NotEmpty(t, got[i].Hint)
			}
		})
	}
}

// edited is the plan with other text in its tables.
func edited(t *testing.T, p *plan.Plan, old, new string) *plan.Plan {
	t.Helper()
	data, err := json.Marshal(p.Model())
	require.NoError(t, err)
	require.Contains(t, string(data), old)
	now, err := plan.FromModel([]byte(strings.ReplaceAll(string(data), old, new)))
	require.NoError(t, err)
	return now
}

func isRefused(o diag.Problem) bool { return o.Severity == diag.Error }

func messages(objections diag.Problems) (list []string) {
	for _, o := range objections {
		list = append(list, map[bool]string{true: "refused ", false: "asked "}[isRefused(o)]+o.Message)
	}
	return list
}

func TestJudgeAddresses(t *testing.T) {
	was := tables(t, map[string]string{"olaf": "i", "rolf": "s", "ulf": "s"}, "")
	after := func(old, new string) Situation {
		s := living(t, was)
		s.Plan = edited(t, was, old, new)
		return s.change("rolf")
	}
	objections := Judge(after(`"10.0.10.4"`, `"10.0.10.99"`))
	require.Equal(t, []string{"refused server rolf-s: ip 10.0.10.4 → 10.0.10.99 (etcd keeps the old member)"}, messages(objections))
	require.Equal(t, "on olaf: nixos-container run olaf-s -- etcdctl member list\n"+
		"on olaf: nixos-container run olaf-s -- etcdctl member remove ID of rolf-s\n"+
		"on rolf: nixos-container stop rolf-s; rm -r /var/lib/nixos-containers/rolf-s/var/lib/rancher/k3s/server/{db,tls,cred}\n"+
		"k3splan deploy: it joins again", objections[0].Hint)
	require.Equal(t, []string{"asked host rolf: ip 10.0.0.4 → 10.0.0.99 (may cut the connection)"}, messages(Judge(after(`"10.0.0.4"`, `"10.0.0.99"`))))
	require.Equal(t, []string{"asked host rolf: interface eno1 → eno9 (may cut the connection)"}, messages(Judge(after(`"interface":"eno1"`, `"interface":"eno9"`))))
	require.Equal(t, []string{"asked gateway 10.0.200.1 → 10.0.200.2 (all hosts; may cut the connection)"}, messages(Judge(after(`10.0.200.1`, `10.0.200.2`))))
}

// A server or agent that has another name, or the same name on another host.
func TestJudgeContainers(t *testing.T) {
	roles := map[string]string{"karl": "", "olaf": "i", "rolf": "s", "ulf": "s"}
	was := tables(t, roles, "")
	s := living(t, was)
	s.Plan = edited(t, was, `"rolf-s"`, `"new-s"`)
	require.Equal(t, []string{"refused server on rolf renamed: rolf-s → new-s (etcd keeps the old member)"}, messages(Judge(s.change("rolf"))))

	// to the same effect if only the newest plan remembers it: rolf was reinstalled
	lost := s.Observed["rolf"]
	lost.Receipt, lost.Etcd = nil, nil
	s.Observed["rolf"] = lost
	require.Equal(t, []string{"refused server on rolf renamed: rolf-s → new-s (etcd keeps the old member)"}, messages(Judge(s.change("rolf"))))

	s = living(t, was)
	s.Plan = edited(t, was, `"olaf-s"`, `"new-s"`)
	s.Plan.Host("olaf").Server.Role, s.Plan.Host("rolf").Server.Role = plan.Server, plan.Init
	require.Equal(t, []string{"refused server on olaf renamed: olaf-s → new-s (etcd keeps the old member)"}, messages(Judge(s.change("olaf"))))

	agents := tables(t, map[string]string{"olaf": "i", "karl": "a", "karl2": ""}, "")
	s = living(t, agents)
	s.Plan = edited(t, agents, `"karl-a"`, `"new-a"`)
	require.Equal(t, []string{"asked agent on karl renamed: karl-a → new-a (its Node stays behind)"}, messages(Judge(s.change("karl"))))
	require.Equal(t, "kubectl drain karl-a --ignore-daemonsets before, kubectl delete node karl-a afterwards", Judge(s)[0].Hint)

	moved := edited(t, agents, `"karl-a"`, `"karl-a"`)
	karl, karl2 := moved.Host("karl"), moved.Host("karl2")
	karl.Agent, karl2.Agent, karl.Agent.Host = nil, karl.Agent, karl2
	s = living(t, agents)
	s.Plan = moved
	require.Equal(t, []string{"asked agent karl-a moved: karl → karl2 (its Node will be refused)"}, messages(Judge(s.change("karl2"))))
	s = living(t, agents)
	s.Plan = moved
	require.Empty(t, Judge(s.change("olaf")), "neither host is deployed now")
}

// The init server may become another one that is a member already, but not an empty one.
func TestJudgeInitServer(t *testing.T) {
	roles := map[string]string{"karl": "", "olaf": "i", "rolf": "s", "ulf": "s"}
	was := tables(t, roles, "")
	now := tables(t, map[string]string{"karl": "i", "olaf": "s", "rolf": "s", "ulf": "s"}, "")
	s := living(t, was)
	s.Plan = now
	require.Contains(t, messages(Judge(s.change("karl", "olaf"))), "refused the init server karl-s is empty, and olaf-s answers: it would found a second cluster beside the running one")

	joined := s.Observed["karl"]
	joined.Etcd = []string{"karl-s"}
	s.Observed["karl"] = joined
	for _, message := range messages(Judge(s.change("karl", "olaf"))) {
		require.NotContains(t, message, "second cluster")
	}
}

// A deployment that never reached a server leaves nothing that could be lost.
func TestJudgeAServerThatNeverWas(t *testing.T) {
	was := tables(t, map[string]string{"olaf": "i", "karl": ""}, "")
	s := living(t, was)
	s.Plan = edited(t, was, `"olaf-s"`, `"new-s"`)
	s.Observed["olaf"] = Observed{LAN: true}
	s.Health = nil
	s.Work["olaf"] = Work{System: true, New: true}
	require.Empty(t, Judge(s))
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
		s := living(t, p)
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
		waves := Waves(p, s.Work, Urgent{Down: down}, limits)

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

		refused := slices.ContainsFunc(Judge(s), isRefused)
		up := map[string]bool{}
		members := hostNames(s.members())
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

// What it takes to find out what has changed for 1,000 hosts that were deployed by the same plan.
func BenchmarkPast(b *testing.B) {
	roles := map[string]string{}
	for i := range 1000 {
		roles[fmt.Sprintf("host%04d", i)] = map[bool]string{true: "ia", false: "a"}[i == 0]
	}
	was := tables(b, roles, "")
	kept, err := receipt.Keep(was)
	require.NoError(b, err)
	for b.Loop() {
		past := NewPast(was)
		for range was.Hosts {
			_, err := past.Since(&receipt.Receipt{Plan: kept})
			require.NoError(b, err)
		}
	}
	b.ReportMetric(float64(len(kept)), "receipt-bytes")
}
