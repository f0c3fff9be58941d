package rollout

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"k3splan/internal/plan"
)

// Situation is everything that is known before a deployment, or before one of its steps.
type Situation struct {
	Plan *plan.Plan
	// Observed are the hosts that were asked: all selected ones and, if a container is concerned, all
	// with a server.
	Observed map[string]Observed
	// Health is what the servers of hosts answered, as far as they were asked.
	Health map[string]Health
	// Work is what the selected hosts that answer need.
	Work map[string]Work
	// Deployed is the plan as it is on the machines (Past.Deployed); nil if none has a receipt.
	Deployed *plan.Plan
	// Steps are those of a rollback, by host; nil for a deployment.
	Steps map[string]Step
	// Unordered reports that the work is done in no order and without gates: nothing is repaired before
	// something else is stopped.
	Unordered bool
	// Later reports that the work takes effect when k3s or the machine starts again, and that nothing stops or
	// starts before.
	Later bool
	// NoNode are agents that the plan has no more, and that the cluster has no Node of.
	NoNode []string
	// OtherToken are hosts that were asked and got another server token than today's.
	OtherToken []string
}

// member is one of the members of etcd.
type member struct {
	// server is its name, "" for one that has been added to etcd and has not started yet.
	server string
	// host is the host of the plan that it runs on, "" if none does.
	host string
	// ready reports whether it is a healthy voter, and why says what it lacks.
	ready bool
	why   string
	// learner reports whether etcd does not count its vote yet.
	learner bool
}

// String names it in messages: "the server on rolf", or by its own name where no host has it.
func (m member) String() string {
	switch {
	case m.host != "":
		return "the server on " + m.host
	case m.server != "":
		return "the server " + m.server
	}
	return "a member without a name"
}

// members returns the members of etcd: those that etcd itself names or, if no ready server says, those
// that the machines must be taken for. One that is not a healthy voter counts as down, whether it is in
// the plan or not, and so does a learner: etcd takes no other member until it votes.
func (s Situation) members() []member {
	named, unnamed := s.etcd()
	var list []member
	if len(named) == 0 {
		for _, host := range s.presumedMembers() {
			list = append(list, s.member(s.runs(host), host))
		}
	}
	for i, server := range named {
		if i > 0 && server == named[i-1] { // it joined again at another address, and the old one was not removed
			list = append(list, member{server: server, why: "etcd has two members of this name, and one server runs"})
			continue
		}
		list = append(list, s.member(server, s.hostOf(server)))
	}
	learners, unnamedLearners := s.learners()
	for i := range list {
		list[i].learner = slices.Contains(learners, list[i].server)
	}
	for i := range unnamed {
		list = append(list, member{why: "it was added to etcd and has not started yet", learner: i < unnamedLearners})
	}
	return list
}

// voters counts the members whose votes etcd counts, and how many of these are healthy.
func (s Situation) voters() (healthy, all int) {
	for _, m := range s.members() {
		if m.learner {
			continue
		}
		all++
		if m.ready {
			healthy++
		}
	}
	return healthy, all
}

func (s Situation) member(server, host string) member {
	m := member{server: server, host: host}
	o, health := s.Observed[host], s.Health[host]
	switch {
	case host == "":
		m.why = "no host of the plan runs it"
	case o.Unreachable != "":
		m.why = o.Unreachable
	case s.runs(host) != server:
		m.why = "its host runs " + cmp.Or(s.runs(host), "no server") + " instead"
	case health.Ready:
		m.ready = true
	case health.Why == "" && !slices.Contains(o.Etcd, server):
		m.why = "its host has no state of it"
	default:
		m.why = cmp.Or(health.Why, "it does not answer")
	}
	return m
}

// etcd returns the names of etcd's members, sorted, as the ready servers report them, and how many of
// its members have no name yet. A name occurs as often as a server reports it. No names means that they are
// unknown.
func (s Situation) etcd() (names []string, unnamed int) {
	most := map[string]int{}
	for _, health := range s.Health {
		if !health.Ready {
			continue
		}
		unnamed = max(unnamed, health.Unnamed)
		count := map[string]int{}
		for _, name := range health.Members {
			count[name]++
			most[name] = max(most[name], count[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(most)) {
		names = append(names, slices.Repeat([]string{name}, most[name])...)
	}
	return names, unnamed
}

// learners returns the names of members that do not vote yet, and how many of those without a name do not.
func (s Situation) learners() (names []string, unnamed int) {
	for _, health := range s.Health {
		if health.Ready {
			names = append(names, health.Learners...)
			unnamed = max(unnamed, health.UnnamedLearners)
		}
	}
	return names, unnamed
}

// presumedMembers are the hosts whose server must be taken for a member where etcd does not say: those
// that have one, or had one in the last deployment, whatever is left of it.
func (s Situation) presumedMembers() []string {
	var hosts []string
	for _, host := range s.Plan.Hosts {
		o, asked := s.Observed[host.Name]
		switch {
		case !asked:
		case s.hadServer(host.Name), o.Unreachable == "" && s.isPresumed(host, o):
			hosts = append(hosts, host.Name)
		}
	}
	return hosts
}

// isPresumed reports whether the server of a host that answers must be taken for a member.
func (s Situation) isPresumed(host *plan.Host, o Observed) bool {
	return o.Receipt.ServerName() != "" ||
		host.Server != nil && (s.Health[host.Name].Ready || slices.Contains(o.Etcd, host.Server.Name))
}

// runs returns the name of the server that runs on a host now: a renamed one has its old name until it
// is deployed. It is "" if there should be none.
func (s Situation) runs(host string) string {
	if name := s.Observed[host].Receipt.ServerName(); name != "" {
		return name
	}
	if h := s.Plan.Host(host); h != nil && h.Server != nil {
		return h.Server.Name
	}
	return ""
}

// hostOf returns the host of the plan that a server runs on, or "".
func (s Situation) hostOf(server string) string {
	for _, host := range s.Plan.Hosts {
		if s.Observed[host.Name].Receipt.ServerName() == server {
			return host.Name
		}
	}
	for _, host := range s.Plan.Hosts {
		if slices.Contains(s.Observed[host.Name].Etcd, server) {
			return host.Name
		}
	}
	for _, planned := range s.Plan.Servers() {
		if planned.Name == server {
			return planned.Host.Name
		}
	}
	return ""
}

// hadServer reports whether the host was to have a server in the last deployment.
func (s Situation) hadServer(host string) bool {
	if s.Deployed == nil {
		return false
	}
	was := s.Deployed.Host(host)
	return was != nil && was.Server != nil
}

// readyServers are the servers of the plan that are healthy voters.
func (s Situation) readyServers() []*plan.Container {
	return slices.DeleteFunc(slices.Clone(s.Plan.Servers()), func(c *plan.Container) bool { return !s.Health[c.Host.Name].Ready })
}

// serversToJoin are those that are ready and have the address that the plan gives to what joins.
func (s Situation) serversToJoin() []*plan.Container {
	return slices.DeleteFunc(s.readyServers(), func(c *plan.Container) bool {
		return s.addressOf(c) != c.Address && !s.Work[c.Host.Name].System
	})
}

// addressOf returns the address at which a server of the plan answers: that of its host's last deployment.
func (s Situation) addressOf(server *plan.Container) netip.Addr {
	if s.Deployed != nil && s.Observed[server.Host.Name].Receipt != nil {
		if was := s.Deployed.Host(server.Host.Name); was != nil && was.Server != nil {
			return was.Server.Address
		}
	}
	return server.Address
}

// anyReady reports whether a server answers well. Without one there is no running cluster whose quorum
// could be kept.
func (s Situation) anyReady() bool {
	for _, health := range s.Health {
		if health.Ready {
			return true
		}
	}
	return false
}

// Down returns the hosts of the plan whose server is a member of a running cluster and is not ready.
func (s Situation) Down() map[string]bool {
	down := map[string]bool{}
	if !s.anyReady() {
		return down
	}
	for _, m := range s.members() {
		if !m.ready && m.host != "" {
			down[m.host] = true
		}
	}
	return down
}

// changed returns the hosts of the plan that need something.
func (s Situation) changed() []*plan.Host {
	return slices.DeleteFunc(slices.Clone(s.Plan.Hosts), func(h *plan.Host) bool { return s.Work[h.Name].None() })
}

// touchesK3s reports whether a host with a container is to be changed.
func (s Situation) touchesK3s() bool {
	return slices.ContainsFunc(s.changed(), func(h *plan.Host) bool {
		return len(h.Containers()) > 0 || s.Work[h.Name].Server
	})
}

// stoppedMembers are the healthy members that the work stops, in the order of the plan.
func (s Situation) stoppedMembers() []member {
	return slices.DeleteFunc(s.members(), func(m member) bool { return !m.ready || !s.Work[m.host].Restarts() })
}

// lostMembers are the members that are down and that the work does not repair first.
func (s Situation) lostMembers() []member {
	if !s.anyReady() {
		return nil
	}
	return slices.DeleteFunc(s.members(), func(m member) bool {
		return m.ready || !s.Unordered && !s.Work[m.host].None()
	})
}

// joining are the containers that are to become part of the cluster: servers that etcd does not name and
// that have no state of it, and agents that were never deployed on their host. The init server does not
// join: without a state it founds a cluster.
func (s Situation) joining() []*plan.Container {
	var list []*plan.Container
	named, _ := s.etcd()
	for _, host := range s.changed() {
		if !s.Work[host.Name].System {
			continue
		}
		if c := host.Server; c != nil && c.Role != plan.Init && s.isEmpty(c) && !slices.Contains(named, c.Name) {
			list = append(list, c)
		}
		if c := host.Agent; c != nil && s.Observed[host.Name].Receipt.AgentName() != c.Name {
			list = append(list, c)
		}
	}
	return list
}

// urgent returns the hosts whose server comes before all others.
func (s Situation) urgent() Urgent { return Urgent{Down: s.Down(), Joins: s.joinsFirst()} }

// joinsFirst returns the hosts of servers that join before another one restarts: of one or two voters, each that
// restarts takes the quorum with it until it is back; of three it does not. Otherwise they join last, as k3s lets
// nobody in whose options differ from those of the server that it joins by.
func (s Situation) joinsFirst() map[string]bool {
	first := map[string]bool{}
	for _, c := range s.joining() {
		if c.IsServer() {
			first[c.Host.Name] = true
		}
	}
	stopped := s.stoppedMembers()
	_, voters := s.voters()
	_, spare := plan.Quorum(voters + len(first))
	switch {
	case voters > 2 || spare == 0, len(first) == 0, len(stopped) == 0, len(s.Down()) > 0:
		return nil
	case slices.ContainsFunc(stopped, func(m member) bool { return !s.Work[m.host].SameOptions }):
		return nil
	case !slices.ContainsFunc(s.readyServers(), func(c *plan.Container) bool { return s.addressOf(c) == c.Address }):
		return nil
	}
	return first
}

// isEmpty reports whether the server has no state of etcd on its host, as far as the host says.
func (s Situation) isEmpty(server *plan.Container) bool {
	o, asked := s.Observed[server.Host.Name]
	return asked && o.Unreachable == "" && !slices.Contains(o.Etcd, server.Name) && !s.Health[server.Host.Name].Ready
}

// founds reports whether the init server is about to found a cluster: k3s does that when it starts
// without a state, deployed, rebooted or restarted.
func (s Situation) founds() bool {
	init := s.Plan.InitServer()
	if init == nil || !s.isEmpty(init) {
		return false
	}
	work := s.Work[init.Host.Name]
	return work.System || work.Restarts() && s.Observed[init.Host.Name].Receipt.ServerName() == init.Name
}

func listed(members []member) []string {
	list := make([]string, len(members))
	for i, m := range members {
		list[i] = m.String() + " (" + m.why + ")"
	}
	return list
}

func hostNames(members []member) []string {
	list := make([]string, len(members))
	for i, m := range members {
		list[i] = m.host
	}
	return list
}

func serverNames(members []member) []string {
	list := make([]string, len(members))
	for i, m := range members {
		list[i] = m.server
	}
	return list
}

func containerNames(containers []*plan.Container) []string {
	list := make([]string, len(containers))
	for i, c := range containers {
		list[i] = c.Name
	}
	return list
}

// place splits "plans/k3s.csv:5" into the file and the line, 0 if it names none.
func place(where string) (file string, line int) {
	at := strings.LastIndexByte(where, ':')
	if at < 0 {
		return where, 0
	}
	for _, digit := range where[at+1:] {
		if digit < '0' || digit > '9' {
			return where, 0
		}
		line = line*10 + int(digit-'0')
	}
	return where[:at], line
}
