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

	"k3splan/internal/diag"
	"k3splan/internal/fingerprint"
	"k3splan/internal/plan"
	"k3splan/internal/receipt"
)

// world is a rack that has been deployed to many times, and what really runs there.
type world struct {
	t        *rapid.T
	clock    int64
	hosts    map[string]row // the tables, by the host that the address belongs to
	pods     int
	k3s      int                 // 1.K3S
	machines map[string]*machine // what answers there
	members  map[string]bool     // of etcd
	// had are the hosts that were called by a name, as far as the tables do not tell their serials
	had map[string]map[string]bool
}

type row struct {
	name          string
	server, agent string
	address       int // of the server
	init          bool
}

type machine struct {
	at      string // the host that it really is
	receipt *receipt.Receipt
	etcd    []string
	row     row
	pods    int
	k3s     int
}

// known tells whether the tables have the serial of the host's disk.
func known(host string) bool { return (host[1]-'0')%2 == 0 }

func (w *world) plan() *plan.Plan {
	hosts, containers := "name,interface,ip,admin,serial\n", "host,name,type,ip\n"
	for _, at := range slices.Sorted(maps.Keys(w.hosts)) {
		row, number, serial := w.hosts[at], int(at[1]-'0'), ""
		if known(at) {
			serial = "disk-" + at
		} else {
			if w.had[row.name] == nil {
				w.had[row.name] = map[string]bool{}
			}
			w.had[row.name][at] = true
		}
		hosts += fmt.Sprintf("%s,eno1,10.0.0.%d,someone,%s\n", row.name, 2+number, serial)
		if row.server != "" {
			containers += fmt.Sprintf("%s,%s,%s,10.0.1.%d\n", row.name, row.server, map[bool]string{true: "init", false: "server"}[row.init], row.address)
		}
		if row.agent != "" {
			containers += fmt.Sprintf("%s,%s,agent,10.0.2.%d\n", row.name, row.agent, 2+number)
		}
	}
	p, problems := plan.Load(fstest.MapFS{
		"plans/hosts.csv": {Data: []byte(hosts)}, "plans/k3s.csv": {Data: []byte(containers)},
		"plans/network.yaml": {Data: []byte(fmt.Sprintf("netmask: 16\ngateway: 10.0.200.1\npod_cidr: 10.%d.0.0/16\nversions: {nixos: nixos-24.11, k3s: 1.%d}\n", w.pods, w.k3s))},
	})
	require.Zero(w.t, problems.Errors(), "%v", problems)
	return p
}

// at gives the host by its name in the tables.
func (w *world) at(name string) string {
	for at, row := range w.hosts {
		if row.name == name {
			return at
		}
	}
	panic(name)
}

// ambiguous tells that two hosts were called the same of which the tables tell only the addresses.
func (w *world) ambiguous() bool {
	for _, had := range w.had {
		if len(had) > 1 {
			return true
		}
	}
	return false
}

func (w *world) servers() (hosts []string) {
	for _, name := range slices.Sorted(maps.Keys(w.hosts)) {
		if w.hosts[name].server != "" {
			hosts = append(hosts, name)
		}
	}
	return hosts
}

// rows are what the machines run.
func (w *world) rows() map[string]row {
	rows := map[string]row{}
	for at, m := range w.machines {
		rows[at] = m.row
	}
	return rows
}

// edit changes one thing in the tables.
func (w *world) edit() {
	servers := w.servers()
	others := slices.DeleteFunc(slices.Sorted(maps.Keys(w.hosts)), func(name string) bool { return w.hosts[name].server != "" })
	at := func(from []string) string { return rapid.SampledFrom(from).Draw(w.t, "host") }
	set := func(name string, change func(*row)) {
		row := w.hosts[name]
		change(&row)
		w.hosts[name] = row
	}
	w.clock++
	switch kind := rapid.SampledFrom([]string{"rename", "readdress", "move", "remove", "add", "init", "agent", "away", "back", "pods", "k3s", "call", "call", "swap", "swap"}).Draw(w.t, "edit"); {
	case kind == "rename":
		set(at(servers), func(r *row) { r.server = fmt.Sprintf("s%d", w.clock) })
	case kind == "readdress":
		set(at(servers), func(r *row) { r.address = int(10 + w.clock) })
	case kind == "move" && len(others) > 0:
		from, to := at(servers), at(others)
		r := w.hosts[from]
		set(to, func(t *row) { t.server, t.address, t.init = r.server, r.address, r.init })
		set(from, func(f *row) { f.server, f.init = "", false })
	case kind == "add" && len(others) > 0:
		set(at(others), func(r *row) { r.server, r.address = fmt.Sprintf("s%d", w.clock), int(10+w.clock) })
	case (kind == "remove" || kind == "away") && len(servers) > 1:
		name := at(servers)
		if w.hosts[name].init {
			return
		}
		if set(name, func(f *row) { f.server = "" }); kind == "away" {
			delete(w.hosts, name)
		}
	case kind == "back":
		name := fmt.Sprintf("h%d", rapid.IntRange(0, 5).Draw(w.t, "number"))
		if _, there := w.hosts[name]; !there {
			w.hosts[name] = row{name: fmt.Sprintf("n%d", w.clock)}
		}
	case kind == "call": // perhaps as a machine was called that is gone
		name := fmt.Sprintf("n%d", w.clock)
		for at, m := range w.machines {
			taken := slices.ContainsFunc(slices.Collect(maps.Values(w.hosts)), func(r row) bool { return r.name == m.row.name })
			if _, there := w.hosts[at]; !there && !taken && m.row.name != "" {
				name = m.row.name
			}
		}
		set(at(slices.Sorted(maps.Keys(w.hosts))), func(r *row) { r.name = name })
	case kind == "swap":
		one, other := at(slices.Sorted(maps.Keys(w.hosts))), at(slices.Sorted(maps.Keys(w.hosts)))
		name := w.hosts[one].name
		set(one, func(r *row) { r.name = w.hosts[other].name })
		set(other, func(r *row) { r.name = name })
	case kind == "init":
		for _, name := range servers {
			set(name, func(r *row) { r.init = false })
		}
		set(at(servers), func(r *row) { r.init = true })
	case kind == "agent":
		set(at(slices.Sorted(maps.Keys(w.hosts))), func(r *row) { r.agent = fmt.Sprintf("a%d", w.clock) })
	case kind == "pods":
		w.pods = rapid.IntRange(44, 45).Draw(w.t, "pods")
	case kind == "k3s":
		w.k3s = rapid.IntRange(29, 33).Draw(w.t, "minor")
	}
}

// inputs are what moves with the rows; diff_test.go in fingerprint shows that these and diff agree.
func (w *world) inputs(p *plan.Plan, h *plan.Host) fingerprint.Inputs {
	r := receiptOf(w.t, p, h)
	in := r.Inputs
	in.Data["row"] = fmt.Sprint(w.hosts[w.at(h.Name)])
	in.Names = map[string]string{}
	for _, other := range p.Hosts {
		in.Names[other.Name] = other.Address.String()
		for _, c := range other.Containers() {
			in.Names[c.Name] = c.Address.String()
		}
	}
	if len(h.Containers()) > 0 {
		in.Data["k3s"], in.Servers = fmt.Sprint(w.k3s), p.InitServer().Address.String()
	}
	if h.Server != nil {
		in.Data["pods"] = fmt.Sprint(w.pods)
	}
	return in
}

// situation asks and decides as deploy does.
func (w *world) situation(p *plan.Plan, selected []string, all, membersKnown bool) Situation {
	s := Situation{Plan: p, Observed: map[string]Observed{}, Health: map[string]Health{}, Work: map[string]Work{}}
	concerned := slices.ContainsFunc(selected, func(name string) bool { return len(p.Host(name).Containers()) > 0 })
	for _, h := range p.Hosts {
		m := w.machines[w.at(h.Name)]
		if !slices.Contains(selected, h.Name) && (!concerned || h.Server == nil) {
			continue
		}
		o := Observed{System: "/nix/store/x", LAN: true, Receipt: m.receipt, Etcd: m.etcd}
		s.Observed[h.Name] = o
		if h.Server != nil && m.row.server != "" && w.members[m.row.server] {
			health := Health{Ready: true}
			if membersKnown {
				health.Members = slices.Sorted(maps.Keys(w.members))
			}
			s.Health[h.Name] = health
		}
	}
	past := NewPast(p)
	var err error
	s.Deployed, err = past.Deployed(s.Observed)
	require.NoError(w.t, err)
	for _, name := range selected {
		s.Work[name] = Decide(past, name, s.Observed[name], w.inputs(p, p.Host(name)), nil, all)
	}
	return s
}

// harm is what a deployment would do to the cluster that really runs.
func (w *world) harm(s Situation) (harm []string) {
	say := func(format string, args ...any) { harm = append(harm, fmt.Sprintf(format, args...)) }
	var cluster []*machine // what a new host would join; by force they may differ
	for _, at := range w.servers() {
		if m := w.machines[at]; s.Health[w.hosts[at].name].Ready && m.receipt != nil {
			cluster = append(cluster, m)
		}
	}
	for name, work := range s.Work {
		if work.None() {
			continue
		}
		at := w.at(name)
		row, m := w.hosts[at], w.machines[at]
		was := m.row
		if planned, still := w.hosts[m.at]; still && m.at != at && m.receipt != nil && (known(at) && known(m.at) || planned.name == was.name) {
			say("%s is the machine of %s", name, planned.name)
		}
		if was.server != "" && w.members[was.server] && (row.server != was.server || row.address != was.address) {
			say("%s has the server %v and gets %v", name, was, row)
		}
		for other, machine := range w.machines {
			if other != at && machine.at == other && row.server != was.server && row.server != "" && machine.row.server == row.server && w.members[row.server] && (s.Observed[w.hosts[other].name].Receipt != nil || len(s.Health) > 0 && slices.ContainsFunc(slices.Collect(maps.Values(s.Health)), func(h Health) bool { return len(h.Members) > 0 })) {
				say("%s gets the server of %s", name, other)
			}
		}
		runs, there := 0, 0 // members that the plan has, and those at its addresses
		for _, server := range w.servers() {
			is, planned := w.machines[server].row, w.hosts[server]
			if !w.members[is.server] {
				continue
			}
			if is.server == planned.server {
				runs++
			}
			if is.address == planned.address { // whatever it is called: what joins asks addresses
				there++
			}
		}
		if runs > 0 && there == 0 && row.agent != "" {
			say("%s looks for the servers where they are not", name)
		}
		if row.server != "" {
			basis := []*machine{m}
			if m.receipt == nil || was.server == "" {
				basis = cluster
			}
			if len(basis) > 0 && !slices.ContainsFunc(basis, func(b *machine) bool { return b.row.server == "" || b.pods == w.pods }) {
				say("%s gets other pods", name)
			}
		}
		basis := []*machine{m}
		if m.receipt == nil || was.server+was.agent == "" {
			basis = cluster
		}
		if len(basis) == 0 || row.server+row.agent == "" {
			continue
		}
		if !slices.ContainsFunc(basis, func(b *machine) bool { return w.k3s == b.k3s || w.k3s == b.k3s+1 }) {
			say("%s goes from k3s %d to %d", name, basis[0].k3s, w.k3s)
		}
	}
	return harm
}

// unsettled tells that etcd has a member that the plan does not have, or not on that machine, that a
// machine has the state of a server that is no member, or is not where the plan has it, or that the init
// server is not.
func (w *world) unsettled() bool {
	for at, m := range w.machines {
		if m.at != at || slices.ContainsFunc(m.etcd, func(name string) bool { return !w.members[name] }) {
			return true
		}
	}
	alive := map[string]bool{}
	for name, row := range w.hosts {
		runs := w.machines[name].row
		alive[row.server] = row.server == runs.server
		if row.init && (runs.server != row.server || runs.address != row.address) {
			return true
		}
	}
	return slices.ContainsFunc(slices.Collect(maps.Keys(w.members)), func(name string) bool { return !alive[name] })
}

// deploy is a deployment that went well, by force and with all hints followed if need be.
func (w *world) deploy(p *plan.Plan, s Situation) {
	w.clock++
	if s.founds() && !slices.ContainsFunc(slices.Collect(maps.Values(w.machines)), func(m *machine) bool { return len(m.etcd) > 0 }) {
		clear(w.members) // nothing is left of the old cluster
	}
	for name, work := range s.Work {
		if !work.None() {
			delete(w.members, w.machines[w.at(name)].row.server)
		}
	}
	for name, work := range s.Work {
		if work.None() {
			continue
		}
		at := w.at(name)
		m, h := w.machines[at], p.Host(name)
		m.at, m.etcd, m.row, m.pods, m.k3s = at, nil, w.hosts[at], w.pods, w.k3s
		if h.Server != nil {
			m.etcd = []string{h.Server.Name}
			w.members[h.Server.Name] = true
		}
		m.receipt = receiptOf(w.t, p, h)
		m.receipt.Inputs = w.inputs(p, h)
		m.receipt.Fingerprint, m.receipt.Time = m.receipt.Inputs.Fingerprint(), time.Unix(w.clock, 0)
	}
}

// forgetLostMembers removes the members of etcd that no machine of the plan runs.
func (w *world) forgetLostMembers() {
	runs := map[string]bool{}
	for at := range w.hosts {
		runs[w.machines[at].row.server] = true
	}
	maps.DeleteFunc(w.members, func(server string, _ bool) bool { return !runs[server] })
}

// Over random plans and histories: what would harm the cluster that runs is refused, and there is
// peace where all is as it was deployed.
func TestJudgeKnowsTheMachines(t *testing.T) {
	harmed, peace := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, clock: 20, hosts: map[string]row{}, pods: 44, k3s: 30, machines: map[string]*machine{}, members: map[string]bool{}, had: map[string]map[string]bool{}}
		for i := range 6 {
			name := fmt.Sprintf("h%d", i)
			w.machines[name] = &machine{at: name}
			if i < 5 {
				w.hosts[name] = row{name: name}
			}
		}
		w.hosts["h1"] = row{name: "h1", server: "s1", address: 2, init: true, agent: "a1"}
		w.hosts["h2"] = row{name: "h2", server: "s2", address: 3}
		w.hosts["h3"] = row{name: "h3", agent: "a3"}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			for range rapid.IntRange(0, 2).Draw(t, "edits") {
				w.edit()
			}
			someMachine := rapid.SampledFrom(slices.Sorted(maps.Keys(w.machines)))
			switch rapid.IntRange(0, 19).Draw(t, "machine") {
			case 0, 1: // is replaced
				at := someMachine.Draw(t, "host")
				w.machines[at] = &machine{at: at}
			case 2: // is where another one was
				one, other := someMachine.Draw(t, "host"), someMachine.Draw(t, "host")
				w.machines[one], w.machines[other] = w.machines[other], w.machines[one]
			}
			p := w.plan()
			selected := rapid.SliceOfNDistinct(rapid.SampledFrom(p.HostNames()), 1, len(p.Hosts), rapid.ID[string]).Draw(t, "selected")
			if rapid.Bool().Draw(t, "all hosts") {
				selected = p.HostNames()
			}
			s := w.situation(p, selected, rapid.Bool().Draw(t, "--all"), rapid.Bool().Draw(t, "members known"))
			objections := Judge(s)
			refused := slices.ContainsFunc(objections, isRefused)
			if harm := w.harm(s); len(harm) > 0 {
				harmed++
				if !refused {
					t.Fatalf("not refused: %s\nplan %v\nmachines %v\nmembers %v\n%s", strings.Join(harm, "; "), w.hosts, w.rows(), w.members, messages(objections))
				}
			}
			named, _ := s.etcd()
			known := len(named) > 0
			others := slices.DeleteFunc(slices.Clone(objections), func(o diag.Problem) bool {
				return !isRefused(o) || strings.Contains(o.Message, "second cluster") || strings.Contains(o.Message, "still has it as a member")
			})
			if len(w.harm(s)) == 0 && len(others) > 0 && known && !w.unsettled() && !w.ambiguous() {
				t.Fatalf("refused for nothing: %s\n%v\nmembers %v", messages(objections), w.hosts, w.members)
			}
			force := rapid.Bool().Draw(t, "--force")
			if refused && !force {
				continue
			}
			w.deploy(p, s)
			if refused { // with all hints followed
				w.forgetLostMembers()
			}
			// a member that nobody knew of when etcd did not name its members is still there
			if len(selected) == len(p.Hosts) && !w.unsettled() {
				for known := range 2 {
					s := w.situation(p, p.HostNames(), true, known == 1)
					questions := slices.DeleteFunc(Judge(s), func(o diag.Problem) bool { return strings.Contains(o.Message, "with 2 servers a restart") })
					if len(questions) > 0 {
						t.Fatalf("all is deployed: %v", questions)
					}
				}
				peace++
			}
		}
	})
	require.NotZero(t, harmed)
	require.NotZero(t, peace)
}

// by lets the situation's hosts be as they were deployed by other plans, and need the plan of it.
func (s Situation) by(t *testing.T, then map[string]*plan.Plan, touched ...string) Situation {
	t.Helper()
	for name, p := range then {
		o := s.Observed[name]
		o.Receipt, o.Etcd = nil, nil
		delete(s.Health, name)
		if p != nil {
			o.Receipt = receiptOf(t, p, p.Host(name))
			if server := p.Host(name).Server; server != nil {
				o.Etcd = []string{server.Name}
				s.Health[name] = Health{Ready: true}
			}
		}
		s.Observed[name] = o
	}
	var err error
	s.Deployed, err = NewPast(s.Plan).Deployed(s.Observed)
	require.NoError(t, err)
	s = s.change(touched...)
	for _, name := range touched {
		w := s.Work[name]
		w.New = s.Observed[name].Receipt == nil
		s.Work[name] = w
	}
	return s
}

// members lets olaf's server tell the members of etcd.
func (s Situation) knows(members ...string) Situation {
	s.Health["olaf"] = Health{Ready: true, Members: members}
	return s
}

func TestJudgeStories(t *testing.T) {
	roles := map[string]string{"karl": "a", "olaf": "i", "rolf": "s", "ulf": "s", "ulrich": ""}
	was := tables(t, roles, "")
	by := func(now *plan.Plan, then map[string]*plan.Plan, touched ...string) Situation {
		s := living(t, now)
		for _, h := range now.Hosts {
			if _, said := then[h.Name]; !said {
				s = s.by(t, map[string]*plan.Plan{h.Name: was})
			}
		}
		return s.by(t, then, touched...)
	}
	type receipts = map[string]*plan.Plan
	const versions = "versions: {nixos: <nixpkgs>, k3s: %s}\n"
	rolfElsewhere := edited(t, was, "10.0.10.4", "10.0.10.99")
	olafElsewhere := edited(t, was, "10.0.10.3", "10.0.10.99")
	otherPods := tables(t, roles, "pod_cidr: 10.50.0.0/16\n"+fmt.Sprintf(versions, "1.31"))
	k3sLater := tables(t, roles, fmt.Sprintf(versions, "1.33"))
	withoutRolf := tables(t, map[string]string{"karl": "a", "olaf": "i", "ulf": "s", "ulrich": ""}, "")
	ulrichAgent := maps.Clone(roles)
	ulrichAgent["ulrich"] = "a"
	noReceipt := func(s Situation, name, why string) Situation {
		s.Observed[name] = Observed{LAN: true, BadReceipt: why}
		s.Work[name] = Work{System: true, New: true, Reasons: []string{why}}
		return s
	}
	const rolfMoves = "refused server rolf-s: ip 10.0.10.4 → 10.0.10.99 (etcd keeps the old member)"
	const olafMoves = "refused server olaf-s: ip 10.0.10.3 → 10.0.10.99 (etcd keeps the old member)"
	for name, test := range map[string]struct {
		situation Situation
		want      []string
	}{
		"the address of a server that never came up is mended": {by(rolfElsewhere, receipts{"rolf": nil}, "rolf").knows("olaf-s", "ulf-s"), nil},
		"etcd does not say whether it ever did":                {by(rolfElsewhere, receipts{"rolf": nil}, "rolf"), []string{rolfMoves}},
		"of a host that has another receipt":                   {by(rolfElsewhere, receipts{"rolf": tables(t, map[string]string{"olaf": "i", "rolf": "a"}, "")}, "rolf"), []string{"asked agent rolf-a removed from rolf (its Node stays behind)"}},
		"the hint was followed": {func() Situation {
			s := by(rolfElsewhere, nil, "rolf").knows("olaf-s", "ulf-s")
			o := s.Observed["rolf"]
			o.Etcd = nil
			s.Observed["rolf"] = o
			return s
		}(), nil},
		"but not to the end":                                     {by(rolfElsewhere, nil, "rolf").knows("olaf-s", "ulf-s"), []string{rolfMoves}},
		"a new machine in the place of a server":                 {by(was, receipts{"rolf": nil}, "rolf").knows("olaf-s", "rolf-s", "ulf-s"), []string{"refused the server rolf-s is empty, and etcd still has it as a member: it would not be let in"}},
		"whose old member has left":                              {by(was, receipts{"rolf": nil}, "rolf").knows("olaf-s", "ulf-s"), nil},
		"an agent that was off when the init server moved":       {by(olafElsewhere, receipts{"olaf": olafElsewhere, "rolf": olafElsewhere, "ulf": olafElsewhere}, "karl"), nil},
		"an agent before the init server moves":                  {by(olafElsewhere, nil, "karl"), nil}, // it asks the others
		"a server removed with its host does not concern ulrich": {by(withoutRolf, nil, "ulrich"), nil},
		"nor anybody when olaf has heard of it":                  {by(withoutRolf, receipts{"olaf": withoutRolf}, "karl"), nil},
		"a new server of a cluster with other networks":          {by(otherPods, receipts{"rolf": nil}, "rolf"), []string{"refused pod_cidr 10.42.0.0/16 → 10.50.0.0/16"}},
		"a new agent of a cluster with another k3s":              {by(k3sLater, receipts{"karl": nil}, "karl"), []string{"refused k3s 1.31 → 1.33"}},
		"other networks before there is a cluster":               {by(otherPods, receipts{"karl": nil, "olaf": nil, "rolf": nil, "ulf": nil}, "karl", "olaf", "rolf", "ulf", "ulrich"), nil},
		"the first agent of a host that was deployed long ago":   {by(tables(t, ulrichAgent, ""), receipts{"ulrich": tables(t, map[string]string{"olaf": "i", "ulrich": ""}, fmt.Sprintf(versions, "1.28"))}, "ulrich"), nil},
		"a server that was off for two releases":                 {by(k3sLater, receipts{"karl": k3sLater, "olaf": k3sLater, "ulf": k3sLater}, "rolf"), []string{"refused k3s 1.31 → 1.33"}},
		"a damaged receipt":                                      {noReceipt(by(was, receipts{}), "karl", "the receipt cannot be read"), []string{"asked what karl was deployed with is not known: the receipt cannot be read"}},
		"a damaged receipt without k3s":                          {noReceipt(by(was, receipts{}), "ulrich", "the receipt cannot be read"), nil},
		"back to the old plan after an upgrade that did not end well": {func() Situation {
			s := by(was, receipts{}, "rolf")
			s.Health["rolf"] = Health{Version: "v1.32.3+k3s1"}
			return s
		}(), []string{"refused the server on rolf runs k3s 1.32, and would be changed to 1.31: k3s cannot go back to an older version"}},
		"again after an upgrade that did not end well": {func() Situation {
			s := by(tables(t, roles, fmt.Sprintf(versions, "1.32")), receipts{}, "rolf")
			s.Health["rolf"] = Health{Version: "v1.32.3+k3s1"}
			return s
		}(), nil},
		"another host's machine": {func() Situation {
			s := by(was, receipts{})
			o := s.Observed["karl"]
			o.Receipt = receiptOf(t, was, was.Host("ulf"))
			s.Observed["karl"] = o
			return s.change("karl")
		}(), []string{"refused the machine that answers as karl was deployed as ulf, which is another host of the plan"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := messages(Judge(test.situation))
			require.Len(t, got, len(test.want), "%v", got)
			for i, want := range test.want {
				require.Contains(t, got[i], want)
			}
		})
	}
}

// A host that has another name is the same machine, with the receipt of its old name.
func TestJudgeRenamedHost(t *testing.T) {
	was := tables(t, map[string]string{"olaf": "i", "rolf": "s", "ulf": "s"}, "")
	now := edited(t, was, `"rolf"`, `"ralf"`)
	s := living(t, now)
	o := s.Observed["ralf"]
	o.Receipt, o.Etcd = receiptOf(t, was, was.Host("rolf")), []string{"rolf-s"}
	s.Observed["ralf"] = o
	require.Empty(t, messages(Judge(s.by(t, nil, "ralf"))))
	// also if the others have heard of it before
	s.Plan = edited(t, now, "rolf-s", "ralf-s")
	require.Equal(t, []string{"refused server on ralf renamed: rolf-s → ralf-s (etcd keeps the old member)"}, messages(Judge(s.by(t, nil, "ralf"))))
}

// Hosts that take each other's names are the same machines if the tables tell by what to know them.
func TestJudgeHostsThatTakeNames(t *testing.T) {
	// servers and agents stay on their machines, by number
	rackOf := func(serials bool, names ...string) *plan.Plan {
		hosts, k3s := "name,interface,ip,admin,serial\n", "host,name,type,ip\n"
		for i, name := range names {
			serial := ""
			if serials {
				serial = fmt.Sprintf("disk-%d", i)
			}
			hosts += fmt.Sprintf("%s,eno1,10.0.0.%d,someone,%s\n", name, 2+i, serial)
			k3s += fmt.Sprintf("%s,s%d,%s,10.0.1.%d\n%[1]s,a%[2]d,agent,10.0.2.%[4]d\n", name, i, map[bool]string{true: "init", false: "server"}[i == 0], 2+i)
		}
		p, problems := plan.Load(fstest.MapFS{"plans/hosts.csv": {Data: []byte(hosts)}, "plans/k3s.csv": {Data: []byte(k3s)},
			"plans/network.yaml": {Data: []byte("netmask: 16\ngateway: 10.0.200.1\nversions: {nixos: nixos-24.11, k3s: 1.31}\n")}})
		require.Zero(t, problems.Errors(), "%v", problems)
		return p
	}
	// machines answer at their addresses, with the receipts of the names that they were deployed by
	situation := func(was, now *plan.Plan, done ...string) Situation {
		s := living(t, now)
		for _, host := range now.Hosts {
			if slices.Contains(done, host.Name) {
				continue
			}
			o := s.Observed[host.Name]
			for _, before := range was.Hosts {
				if before.Address == host.Address {
					o.Receipt = receiptOf(t, was, before)
				}
			}
			s.Observed[host.Name] = o
		}
		var err error
		s.Deployed, err = NewPast(now).Deployed(s.Observed)
		require.NoError(t, err)
		touched := slices.DeleteFunc(now.HostNames(), func(name string) bool { return slices.Contains(done, name) })
		return s.change(touched...)
	}
	was := rackOf(true, "anna", "bert", "cleo")
	for name, now := range map[string]*plan.Plan{
		"a chain": rackOf(true, "bert", "cleo", "dora"),
		"a ring":  rackOf(true, "bert", "cleo", "anna"),
		"a swap":  rackOf(true, "bert", "anna", "cleo"),
	} {
		t.Run(name, func(t *testing.T) {
			for _, done := range [][]string{nil, now.HostNames()[:1], now.HostNames()[1:2], now.HostNames()[2:], now.HostNames()[1:], now.HostNames()[:2]} {
				require.Empty(t, messages(Judge(situation(was, now, done...))), "%v", done)
			}
			// what would be refused still is
			other := edited(t, now, `"10.0.1.3"`, `"10.0.1.99"`)
			for _, done := range [][]string{nil, {now.Hosts[0].Name}} {
				s := situation(was, other)
				for _, name := range done { // by the plan in between
					s = s.by(t, map[string]*plan.Plan{name: now})
				}
				s = s.change(other.HostNames()...)
				require.Equal(t, []string{"refused server s1: ip 10.0.1.3 → 10.0.1.99 (etcd keeps the old member)"}, messages(Judge(s)))
			}
		})
	}
	swapped := rackOf(true, "bert", "anna", "cleo")
	s := situation(was, swapped)
	s.Observed["anna"], s.Observed["bert"] = s.Observed["bert"], s.Observed["anna"] // and their addresses
	require.Equal(t, []string{"refused the machine that answers as anna was deployed as anna, which is bert today", "refused the machine that answers as bert was deployed as bert, which is anna today"},
		messages(Judge(s.by(t, nil, "anna", "bert")))[:2])

	// without a serial it could be their addresses that were swapped
	was, swapped = rackOf(false, "anna", "bert", "cleo"), rackOf(false, "bert", "anna", "cleo")
	list := Judge(situation(was, swapped))
	require.Equal(t, "the machine that answers as anna was deployed as bert, which is another host of the plan", list[0].Message)
	require.Contains(t, list[0].Hint, "recognized by its serial or mac")

	// the one that had the name leaves servers behind
	gone := edited(t, edited(t, rackOf(true, "bert", "anna", "cleo"), `"s1"`, `"s9"`), `"a1"`, `"a9"`)
	gone = edited(t, edited(t, gone, "disk-1", "disk-9"), `"anna"`, `"dora"`)
	require.Contains(t, messages(Judge(situation(rackOf(true, "anna", "bert", "cleo"), gone, "dora"))), "refused server s1 removed: 3 left, the loss of 1 tolerated")
}

func TestParseMembers(t *testing.T) {
	parsed := func(out string) (h Health) { h.addMembers(out); return h }
	said := "readyz ok\nmember 8e9e05c52164694d, started, rolf-s-1a2b3c4d, https://10.0.10.4:2380, https://10.0.10.4:2379, false\n" +
		"member 91bc3c398fb3c146, started, olaf-s-00ff00ff, https://10.0.10.3:2380,https://10.0.20.3:2380, https://10.0.10.3:2379, false\n"
	listed := []Listed{{"8e9e05c52164694d", "rolf-s", "https://10.0.10.4:2380"}, {"91bc3c398fb3c146", "olaf-s", "https://10.0.10.3:2380,https://10.0.20.3:2380"}}
	require.Equal(t, Health{Members: []string{"olaf-s", "rolf-s"}, Listed: listed}, parsed(said))
	require.Equal(t, Health{Members: []string{"olaf-s", "rolf-s"}, Unnamed: 1, UnnamedLearners: 1,
		Listed: append(slices.Clone(listed), Listed{"fd422379fda50e48", "", "https://10.0.10.5:2380"})},
		parsed(said+"member fd422379fda50e48, unstarted, , https://10.0.10.5:2380, , true\n"))
	require.Equal(t, Health{Members: []string{"olaf-s", "rolf-s", "ulf-s"}, Learners: []string{"ulf-s"},
		Listed: append(slices.Clone(listed), Listed{"fd422379fda50e48", "ulf-s", "https://10.0.10.5:2380"})},
		parsed(said+"member fd422379fda50e48, started, ulf-s-0011aabb, https://10.0.10.5:2380, https://10.0.10.5:2379, true\n"))
	require.Equal(t, Health{}, parsed("readyz ok\n"))
}
