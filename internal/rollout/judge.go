package rollout

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k3splan/internal/diff"
	"k3splan/internal/plan"
	"k3splan/internal/text"
)

// Objection is what speaks against a deployment.
type Objection struct {
	// Refused objections need to be overridden on purpose (--force); others are questions (--yes).
	Refused bool `json:"refused"`
	// Message says what would happen.
	Message string `json:"message"`
	// Hint is what to do instead, or how to go about it; it may have several lines.
	Hint string `json:"hint"`
}

// Situation is everything that is known before a deployment.
type Situation struct {
	Plan *plan.Plan
	// Observed are the hosts that were asked: all selected ones and, if a container is concerned, all
	// with a server.
	Observed map[string]Observed
	// Health is what the servers of hosts say, as far as they were asked.
	Health map[string]Health
	// Work is what the selected hosts that answer need.
	Work map[string]Work
	// Deployed is the plan as it is on the machines (Past.Deployed); nil if none has a receipt.
	Deployed *plan.Plan
	// OtherToken are hosts that were asked and got another server token than today's.
	OtherToken []string
}

// members are the hosts of the plan whose server belongs to etcd already, as far as is known.
func (s Situation) members() []string {
	var names []string
	for _, server := range s.Plan.Servers() {
		o, asked := s.Observed[server.Host.Name]
		switch {
		case !asked:
		case s.Health[server.Host.Name].Ready,
			o.Receipt != nil && o.Receipt.ServerName() == server.Name,
			slices.Contains(o.Etcd, server.Name):
			names = append(names, server.Host.Name)
		case o.Unreachable != "" && s.hadServer(server.Host.Name):
			names = append(names, server.Host.Name)
		}
	}
	return names
}

// hadServer tells whether the host was to have a server in the last deployment.
func (s Situation) hadServer(host string) bool {
	if s.Deployed == nil {
		return false
	}
	was := s.Deployed.Host(host)
	return was != nil && was.Server != nil
}

// etcd are the names of the servers that are members of etcd, by the word of those that are ready;
// empty if that is not known.
func (s Situation) etcd() (names []string) {
	for _, health := range s.Health {
		if health.Ready {
			names = append(names, health.Members...)
		}
	}
	return names
}

// Down gives the hosts whose server is a member of a living cluster and does not answer well. With
// no server answering there is no living cluster whose quorum could be kept.
func (s Situation) Down() map[string]bool {
	down := map[string]bool{}
	members := s.members()
	if !slices.ContainsFunc(members, func(name string) bool { return s.Health[name].Ready }) {
		return down
	}
	for _, name := range members {
		if !s.Health[name].Ready {
			down[name] = true
		}
	}
	return down
}

// Judge finds what speaks against deploying, most important first.
func Judge(s Situation) []Objection {
	busy := slices.ContainsFunc(slices.Collect(maps.Values(s.Work)), func(w Work) bool { return !w.None() })
	if !busy {
		return nil
	}
	j := &judge{Situation: s, seen: map[string]bool{}}
	j.machines()
	j.tokens()
	j.quorum()
	j.founder()
	j.secondCluster()
	j.changes()
	j.running()
	j.emptied()
	j.firstContact()
	slices.SortStableFunc(j.list, func(a, b Objection) int {
		switch {
		case a.Refused == b.Refused:
			return 0
		case a.Refused:
			return -1
		}
		return 1
	})
	return j.list
}

type judge struct {
	Situation
	list []Objection
	seen map[string]bool
	// servers are those of refused changes
	servers []string
}

func (j *judge) object(refused bool, message, hint string) {
	if j.seen[message] {
		return
	}
	j.seen[message] = true
	j.list = append(j.list, Objection{Refused: refused, Message: message, Hint: hint})
}

func (j *judge) refuse(message, hint string) { j.object(true, message, hint) }
func (j *judge) ask(message, hint string)    { j.object(false, message, hint) }

// hosts calls do for each host of the plan that is to be changed, with its receipt or nil.
func (j *judge) hosts(do func(h *plan.Host, w Work, o Observed)) {
	for _, host := range j.Plan.Hosts {
		if w := j.Work[host.Name]; !w.None() {
			do(host, w, j.Observed[host.Name])
		}
	}
}

// machines: what a host was deployed as tells what must not change.
func (j *judge) machines() {
	j.hosts(func(h *plan.Host, w Work, o Observed) {
		if w.Other != "" {
			was := fmt.Sprintf("%s, which is another host of the plan", w.Other)
			if name := o.Receipt.HostName(h.Name); name != w.Other {
				was = fmt.Sprintf("%s, which is %s today", name, w.Other)
			}
			j.refuse(fmt.Sprintf("the machine that answers as %s was deployed as %s", h.Name, was),
				fmt.Sprintf("were their addresses swapped, or is it a copy of the disk? look at %s and %s\n", h.Where("ip"), j.Plan.Host(w.Other).Where("ip"))+
					"if the hosts were renamed: a machine is known by its serial or mac if that and its ip stay; else deploy one new name before the next")
		}
		unreadable := w.New && (o.Receipt != nil || o.BadReceipt != "")
		if unreadable && len(h.Containers())+len(o.Etcd) > 0 {
			j.ask(fmt.Sprintf("what %s was deployed with is not known: %s", h.Name, strings.Join(w.Reasons, "; ")),
				"make sure that its containers, the networks and the version of k3s are the same as then, or may change\n"+
					"\"k3splan diff REVISION\" compares with a plan of then; a receipt of a newer k3splan needs a newer one here")
		}
	})
}

// tokens: k3s encrypts its bootstrap data with the server token, and fails at its next start with
// another one.
func (j *judge) tokens() {
	if hosts := slices.Sorted(slices.Values(j.OtherToken)); j.touchesK3s() && len(hosts) > 0 {
		j.refuse("the server token is not the one that "+text.Enumerate(hosts)+" got: k3s would fail at its next start",
			"restore secrets/init-token; \"k3splan token rotate\" changes the token of a running cluster\n"+
				"if the cluster knows the new token already, --force uploads it")
	}
}

// quorum: no server is stopped while another one is down.
func (j *judge) quorum() {
	members, down := j.members(), j.Down()
	var stopped, left []string
	for _, name := range members {
		if w := j.Work[name]; !w.None() && w.Restarts() && !down[name] {
			stopped = append(stopped, name)
		}
		if down[name] && j.Work[name].None() {
			left = append(left, name)
		}
	}
	quorum := len(members)/2 + 1
	if len(stopped) > 0 && len(left) > 0 {
		var why []string
		for _, name := range left {
			why = append(why, fmt.Sprintf("%s (%s)", name, j.whyDown(name)))
		}
		j.refuse(fmt.Sprintf("%s would be restarted while the server on %s is down: of %d servers etcd needs %d, and %d would be left",
			text.Enumerate(stopped), text.Enumerate(why), len(members), quorum, max(0, len(members)-len(down)-1)),
			"bring the server back first; k3splan status shows how it is")
	}
	if len(members) == 2 && len(stopped) > 0 {
		j.ask("the server on "+text.Enumerate(stopped)+" restarts ("+diff.LosesQuorum+")", "the Kubernetes API is away meanwhile; a third server would change that")
	}
}

func (j *judge) whyDown(name string) string {
	if o := j.Observed[name]; o.Unreachable != "" {
		return o.Unreachable
	}
	if why := j.Health[name].Why; why != "" {
		return why
	}
	return "it does not answer"
}

// founder: without the init server, and before there is another one, there is nothing to join.
func (j *judge) founder() {
	init := j.Plan.InitServer()
	if init == nil || j.Observed[init.Host.Name].Unreachable == "" {
		return
	}
	joins := false
	j.hosts(func(h *plan.Host, w Work, _ Observed) { joins = joins || h.Server != nil && w.Restarts() })
	for _, server := range j.Plan.Servers() {
		joins = joins && !j.Health[server.Host.Name].Ready
	}
	if joins {
		j.refuse(fmt.Sprintf("no server answers yet, and the init server's host %s does not either: there is nothing to join", init.Host.Name),
			"bring "+init.Host.Name+" up first, or name the hosts without k3s alone")
	}
}

// secondCluster: an init server without state founds a cluster.
func (j *judge) secondCluster() {
	init := j.Plan.InitServer()
	if init == nil {
		return
	}
	name := init.Host.Name
	w, o := j.Work[name], j.Observed[name]
	if w.None() || !w.System || o.Unreachable != "" || slices.Contains(o.Etcd, init.Name) || j.Health[name].Ready {
		return
	}
	for _, server := range j.Plan.Servers() {
		if server != init && j.Health[server.Host.Name].Ready {
			j.refuse(fmt.Sprintf("the init server %s is empty, and %s answers: it would found a second cluster beside the living one", init.Name, server.Name),
				fmt.Sprintf("let it join: make %s the init server and %s a server (%s); before\n", server.Name, init.Name, init.Where("type"))+
					diff.RemoveMember(server, init.Name))
			return
		}
	}
}

// touchesK3s tells whether a host with a container is to be changed.
func (j *judge) touchesK3s() (touches bool) {
	j.hosts(func(h *plan.Host, _ Work, _ Observed) { touches = touches || len(h.Containers()) > 0 })
	return touches
}

// changes: what the plan has changed, in the words and by the judgement of "k3splan diff". A host
// knows what has changed for itself; what becomes of containers is told by what all hosts know.
func (j *judge) changes() {
	ofContainer := func(c diff.Change) bool { return c.Object == diff.Server || c.Object == diff.Agent }
	// whether the host was of the cluster already; networks concern servers alone
	ofCluster := func(host string, change diff.Change) bool {
		r := j.Observed[host].Receipt
		return !j.Work[host].New && r.HasK3s() && (change.Name == "versions.k3s" || r.ServerName() != "")
	}
	j.hosts(func(h *plan.Host, w Work, _ Observed) {
		for _, change := range w.Changes {
			// a host that joins is judged by its cluster, which may have gone on since
			if !ofContainer(change) && (change.Risk != diff.Refuse || ofCluster(h.Name, change)) {
				j.change(change)
			}
		}
	})
	if j.Deployed == nil {
		return
	}
	touched := func(host string) bool { return !j.Work[host].None() }
	gone := func(host string) bool { return j.Plan.Host(host) == nil }
	for _, change := range diff.Compare(j.Deployed, j.Plan) {
		joins := func(host string) bool { return touched(host) && !ofCluster(host, change) }
		switch {
		case ofContainer(change) && (slices.ContainsFunc(change.Hosts, touched) || j.touchesK3s() && all(change.Hosts, gone)):
			j.change(change)
		case change.Risk == diff.Refuse && slices.ContainsFunc(change.Hosts, joins): // by the cluster that the host is to join
			j.change(change)
		}
	}
}

func all(list []string, holds func(string) bool) bool {
	return !slices.ContainsFunc(list, func(item string) bool { return !holds(item) })
}

func (j *judge) change(change diff.Change) {
	switch {
	case change.Risk.Compare(diff.Ask) < 0:
	case change.Reason == diff.LosesQuorum: // judged by the members that etcd really has
	case change.Reason == diff.SecondCluster && j.joined(j.Plan.InitServer()): // all the same
	case change.Risk == diff.Refuse && (j.noCluster() || j.hasLeft(change)): // nothing lives that could be harmed
	default:
		j.object(change.Risk == diff.Refuse, change.Sentence, change.Hint)
		if change.Object == diff.Server {
			j.servers = append(j.servers, change.Name)
		}
	}
}

// joined tells whether a server is known to be a member of etcd.
func (j *judge) joined(server *plan.Container) bool {
	return slices.Contains(j.members(), server.Host.Name)
}

// noCluster tells that all hosts with a server were asked, and that nothing of k3s was ever deployed
// on them or on another host that was asked: earlier deployments did not reach them.
func (j *judge) noCluster() bool {
	for name, o := range j.Observed {
		if o.Receipt.HasK3s() || o.BadReceipt != "" || len(o.Etcd) > 0 || o.Unreachable != "" && j.hadServer(name) {
			return false
		}
	}
	return !slices.ContainsFunc(j.Plan.Servers(), func(s *plan.Container) bool { _, asked := j.Observed[s.Host.Name]; return !asked })
}

// hasLeft tells that the server of the change is no member of etcd, nor has a state that would keep
// it from joining: it has never been one, or the hint was followed.
func (j *judge) hasLeft(change diff.Change) bool {
	members := j.etcd()
	if change.Object != diff.Server || change.Reason == diff.SecondCluster || len(members) == 0 {
		return false
	}
	name := change.Name
	if change.Action == diff.Renamed {
		name = change.From
	}
	hasState := func(host string) bool { return slices.Contains(j.Observed[host].Etcd, name) }
	return !slices.Contains(members, name) && (change.Action == diff.Removed || !slices.ContainsFunc(change.Hosts, hasState))
}

var k3sMinor = regexp.MustCompile(`^v([0-9]+\.[0-9]+)\.`)

// running: after a deployment that did not end well, a server may run another k3s than its receipt
// knows.
func (j *judge) running() {
	j.hosts(func(h *plan.Host, w Work, _ Observed) {
		version := k3sMinor.FindStringSubmatch(j.Health[h.Name].Version)
		told := slices.ContainsFunc(w.Changes, func(c diff.Change) bool { return c.Name == "versions.k3s" && c.Risk == diff.Refuse })
		if h.Server == nil || !w.System || version == nil || told {
			return
		}
		// patch releases of servers are those of nixpkgs
		runs, is := plan.K3sVersion{Minor: version[1]}, plan.K3sVersion{Minor: j.Plan.Network.Versions.K3s.Minor}
		if step := diff.K3sStep(runs, is); step.Risk == diff.Refuse {
			j.refuse(fmt.Sprintf("the server on %s runs k3s %s, and is to run %s: %s", h.Name, runs, is, step.Reason), step.Hint)
		}
	})
}

// emptied: a server without state, on a machine that is new for example, cannot be the member again
// that etcd still has. (The init server would even found a cluster: secondCluster.)
func (j *judge) emptied() {
	j.hosts(func(h *plan.Host, w Work, o Observed) {
		if h.Server == nil || h.Server.Role == plan.Init || !w.System || slices.Contains(j.servers, h.Server.Name) {
			return
		}
		if slices.Contains(o.Etcd, h.Server.Name) || !slices.Contains(j.etcd(), h.Server.Name) {
			return
		}
		for _, helper := range j.Plan.Servers() {
			if helper != h.Server && j.Health[helper.Host.Name].Ready {
				j.refuse(fmt.Sprintf("the server %s is empty, and etcd still has it as a member: it would not be let in", h.Server.Name),
					diff.RemoveMember(helper, h.Server.Name)+"\nk3splan deploy")
				return
			}
		}
	})
}

// firstContact: the address of a host moves to another interface once.
func (j *judge) firstContact() {
	var first []string
	j.hosts(func(h *plan.Host, w Work, o Observed) {
		if w.New && !h.DHCP() && !o.LAN && !h.Target.Local {
			first = append(first, h.Name)
		}
	})
	if len(first) > 0 {
		j.ask("the address moves to a macvlan interface for the first time on "+text.Enumerate(first)+" (may cut the connection)",
			"have a console at hand")
	}
}
