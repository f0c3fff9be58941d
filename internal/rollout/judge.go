package rollout

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/diff"
	"k3splan/internal/plan"
	"k3splan/internal/release"
	"k3splan/internal/text"
)

// rule is one way in which a deployment can do harm.
type rule struct {
	// code is that of its problems.
	code string
	// severity Error refuses unless the user forces it (--force); Warning asks the user (--yes).
	severity diag.Severity
	// live rules depend on how the servers are at the moment. They are checked again right before each
	// step that stops or starts a server.
	live bool
	find func(Situation) []finding
}

// finding is what a rule objects to.
type finding struct {
	// message says what would happen, and hint what to do instead.
	message, hint string
	// where is the place in the plan that asks for it ("plans/k3s.csv:5"), or empty.
	where string
	// about names what makes it true: members that are down, for example. A user who forces a deployment
	// agrees to these and to no others.
	about []string
}

// rules are all rules in the order of their weight: what could not be undone comes first.
var rules = []rule{
	{"second-cluster", diag.Error, true, secondCluster},
	{"two-clusters", diag.Error, true, twoClusters},
	{"restore-unfinished", diag.Error, true, restoreUnfinished},
	{"machine-of-another-host", diag.Error, false, machineOfAnotherHost},
	{"server-token-differs", diag.Error, false, serverTokenDiffers},
	{"quorum-lost", diag.Error, true, quorumLost},
	{"repair-of-a-voter", diag.Error, true, repairOfAVoter},
	{"change-refused", diag.Error, false, changesRefused},
	{"k3s-step", diag.Error, false, k3sStep},
	{"etcd-step", diag.Error, true, etcdStep},
	{"agent-newer", diag.Error, true, agentNewer},
	{"rollback-k3s-minor", diag.Error, false, rollbackK3sMinor},
	{"rollback-server", diag.Error, false, rollbackServer},
	{"member-emptied", diag.Error, true, memberEmptied},
	{"nothing-to-join", diag.Error, true, nothingToJoin},
	{"join-refused-by-etcd", diag.Error, true, joinRefusedByEtcd},

	{"cluster-founded-again", diag.Warning, false, clusterFoundedAgain},
	{"quorum-impossible", diag.Warning, false, quorumImpossible},
	{"init-server-down", diag.Warning, false, initServerDown},
	{"receipt-unreadable", diag.Warning, false, receiptUnreadable},
	{"quorum-of-two", diag.Warning, false, quorumOfTwo},
	{"reboots-in-wave", diag.Warning, false, rebootsInWave},
	{"change-risky", diag.Warning, false, changesRisky},
	{"first-contact", diag.Warning, false, firstContact},
	{"rollback-reboots", diag.Warning, false, rollbackReboots},
	{"rollback-undone", diag.Warning, false, rollbackUndone},
	{"rollback-agent", diag.Warning, false, rollbackAgent},
	{"rollback-unknown", diag.Warning, false, rollbackUnknown},
	{"rollback-secrets", diag.Warning, false, rollbackSecrets},
	{"rollback-apart", diag.Warning, false, rollbackApart},
}

// momentary are the rules about servers that stop or join while a deployment runs.
var momentary = []string{"quorum-lost", "repair-of-a-voter", "nothing-to-join", "join-refused-by-etcd", "quorum-impossible", "init-server-down", "quorum-of-two"}

// Judge returns what speaks against a deployment, most important first: problems of severity Error are
// refused unless the user forces them, Warnings are questions.
func Judge(s Situation) diag.Problems {
	var problems diag.Problems
	for _, o := range judge(s, false) {
		problems = append(problems, o.Problem)
	}
	return problems
}

// objection is a problem with what makes it true.
type objection struct {
	diag.Problem
	about []string
}

// judge applies the rules, or only the live ones. Where nothing is to be done there is no objection.
func judge(s Situation, live bool) (list []objection) {
	if len(s.changed()) == 0 {
		return nil
	}
	seen := map[string]bool{}
	for _, r := range rules {
		if live && !r.live || s.Later && slices.Contains(momentary, r.code) {
			continue
		}
		for _, f := range r.find(s) {
			if seen[f.message] {
				continue
			}
			seen[f.message] = true
			file, line := place(f.where)
			list = append(list, objection{about: f.about, Problem: diag.Problem{
				File: file, Line: line, Severity: r.severity, Code: r.code, Message: f.message, Hint: f.hint,
			}})
		}
	}
	return list
}

// one returns a finding as a list.
func one(f finding) []finding { return []finding{f} }

// secondCluster: an init server without state founds a cluster when k3s starts it. If another server has
// state, was deployed, or was and does not answer, there would be two clusters with one token: those who
// join next belong to either, and what was written to the first one is missing in the second. What counts
// is what is on the disks: a cluster without quorum does not answer, and is there all the same.
func secondCluster(s Situation) []finding {
	if !s.founds() {
		return nil
	}
	init := s.Plan.InitServer()
	for _, server := range s.readyServers() {
		return one(finding{
			message: fmt.Sprintf("the init server %s is empty, and %s answers: it would found a second cluster beside the running one", init.Name, server.Name),
			hint: fmt.Sprintf("let it join: make %s the init server and %s a server (%s); before\n", server.Name, init.Name, init.Where("type")) +
				s.remove(server, init.Name),
			where: init.Where("type"), about: []string{server.Name},
		})
	}
	var traces, hosts []string
	for _, host := range s.Plan.Hosts {
		if trace := s.traceOfServer(host); host != init.Host && trace != "" {
			traces, hosts = append(traces, host.Name+" "+trace), append(hosts, host.Name)
		}
	}
	if len(traces) == 0 {
		return nil
	}
	return one(finding{
		message: fmt.Sprintf("the init server %s is empty, and there is a cluster already (%s): it would found a second cluster", init.Name, strings.Join(traces, "; ")),
		hint: fmt.Sprintf("bring the servers of %s back and make one of them the init server (%s), so that %s joins it\n", text.Enumerate(hosts), init.Where("type"), init.Name) +
			"if that cluster is lost for good, --force founds a new one",
		where: init.Where("type"), about: hosts,
	})
}

// twoClusters: servers that have no member of etcd in common belong to clusters of their own, so no quorum
// of one of them can be counted with the others, and what joins next would belong to either.
func twoClusters(s Situation) []finding {
	if !s.touchesK3s() {
		return nil
	}
	return s.inTwoClusters()
}

func (s Situation) inTwoClusters() []finding {
	var first *plan.Container
	for _, server := range s.readyServers() {
		names := s.Health[server.Host.Name].Members
		switch {
		case len(names) == 0:
		case first == nil:
			first = server
		case !slices.ContainsFunc(s.Health[first.Host.Name].Members, func(name string) bool { return slices.Contains(names, name) }):
			return one(finding{
				message: fmt.Sprintf("%s and %s belong to two clusters: etcd has %s, and %s", first.Name, server.Name,
					text.Enumerate(s.Health[first.Host.Name].Members), text.Enumerate(names)),
				hint: "decide which one to keep (k3splan kubeconfig --server NAME shows what is in it), and make one of its servers the init server; on each host of the other one:\n" +
					"nixos-container stop NAME; rm -r /var/lib/nixos-containers/NAME/var/lib/rancher/k3s/server/{db,tls,cred}\nk3splan deploy: they join again",
				about: []string{first.Name, server.Name},
			})
		}
	}
	return nil
}

// restoreUnfinished: a server that is stopped for a restore does not start before it is continued, and what
// a deployment does in between could let it join, or found, another cluster.
func restoreUnfinished(s Situation) []finding {
	var hosts []string
	for _, host := range s.Plan.Hosts {
		if len(s.Observed[host.Name].Held) > 0 {
			hosts = append(hosts, host.Name)
		}
	}
	if len(hosts) == 0 || !s.touchesK3s() {
		return nil
	}
	return one(finding{
		message: "a restore of etcd is not finished: k3s is stopped on " + text.Enumerate(hosts),
		hint:    "continue it: k3splan etcd restore FILE, with the same snapshot",
		about:   hosts,
	})
}

// traceOfServer says how a host shows that it has a server of a cluster, or "".
func (s Situation) traceOfServer(host *plan.Host) string {
	o := s.Observed[host.Name]
	switch {
	case o.Unreachable != "" && s.hadServer(host.Name):
		return "was deployed with a server and does not answer"
	case len(o.Etcd) > 0:
		return "has the state of " + text.Enumerate(o.Etcd)
	case o.Receipt.ServerName() != "":
		return "was deployed with " + o.Receipt.ServerName()
	case o.BadReceipt != "" && host.Server != nil:
		return "has a receipt that cannot be read"
	}
	return ""
}

// machineOfAnotherHost: a machine that was deployed as another host of the plan would get that one's
// server taken away and another one's put in its place.
func machineOfAnotherHost(s Situation) (found []finding) {
	for _, h := range s.changed() {
		other := s.Work[h.Name].Other
		if other == "" {
			continue
		}
		was := other + ", which is another host of the plan"
		if name := s.Observed[h.Name].Receipt.HostName(h.Name); name != other {
			was = fmt.Sprintf("%s, which is %s today", name, other)
		}
		found = append(found, finding{
			message: fmt.Sprintf("the machine that answers as %s was deployed as %s", h.Name, was),
			hint: fmt.Sprintf("were their addresses swapped, or is it a copy of the disk? compare %s with %s\n", h.Where("ip"), s.Plan.Host(other).Where("ip")) +
				"if the hosts were renamed: a machine is recognized by its serial or mac if that and its ip stay; otherwise deploy one new name before the next",
			where: h.Where("ip"), about: []string{h.Name},
		})
	}
	return found
}

// serverTokenDiffers: k3s encrypts its bootstrap data with the server token, and a server that starts
// with another one fails.
func serverTokenDiffers(s Situation) []finding {
	hosts := slices.Sorted(slices.Values(s.OtherToken))
	if len(hosts) == 0 || !s.touchesK3s() {
		return nil
	}
	return one(finding{
		message: "the server token is not the one that " + text.Enumerate(hosts) + " got: k3s would fail at its next start",
		hint: "if the cluster's token was rotated while a host was away: k3splan token push\n" +
			"otherwise restore secrets/init-token; \"k3splan token rotate\" changes the token of a running cluster",
		about: hosts,
	})
}

// quorumLost: no healthy member of etcd is stopped while another member is down, unless that one is
// repaired first.
func quorumLost(s Situation) []finding {
	stopped, lost := s.stoppedMembers(), s.lostMembers()
	if len(stopped) == 0 || len(lost) == 0 {
		return nil
	}
	healthy, voters := s.voters()
	needed, _ := plan.Quorum(voters)
	verb := "is"
	if len(lost) > 1 {
		verb = "are"
	}
	return one(finding{
		message: fmt.Sprintf("%s would be restarted while %s %s down: of %s etcd needs %d, and %d would be left",
			text.Enumerate(hostNames(stopped)), text.Enumerate(listed(lost)), verb, text.Count(voters, "server"), needed, max(0, healthy-1)),
		hint:  bringBack + s.removal(lost),
		about: serverNames(lost),
	})
}

const bringBack = "bring back what is down first (k3splan status shows how the servers are); a member that is lost for good can be removed from etcd"

// removal says how lost members leave etcd, in lines below a hint: a dead machine by a command of k3splan, a
// server on a machine that answers by hand, on the host of a ready one.
func (s Situation) removal(lost []member) string {
	var lines []string
	ready := s.readyServers()
	for _, m := range lost {
		if m.host != "" && s.Observed[m.host].Unreachable != "" {
			lines = append(lines, fmt.Sprintf("k3splan replace %[1]s, or k3splan decommission %[1]s", m.host))
			continue
		}
		if len(ready) == 0 {
			continue
		}
		for line := range strings.Lines(s.remove(ready[0], m.server)) {
			if line = strings.TrimSpace(line); !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
	}
	if len(lines) == 0 {
		return ""
	}
	return "\n" + strings.Join(lines, "\n")
}

// remove returns the commands by which a member that is down leaves etcd, one a line. helper is a ready server,
// and server the name of the member, or "". Of two members of this name, the one that runs stays.
func (s Situation) remove(helper *plan.Container, server string) string {
	var lines []string
	listed, runs := 0, s.isMemberReady(server)
	for _, m := range s.Health[helper.Host.Name].Listed {
		if m.Name != server {
			continue
		}
		listed++
		if !runs || !s.isRunning(m) {
			lines = append(lines, fmt.Sprintf("on %s: nixos-container run %s -- etcdctl member remove %s # %s",
				helper.Host.Name, helper.Name, m.ID, strings.TrimSpace(m.Name+" "+m.Peer)))
		}
	}
	if len(lines) == 0 || runs && len(lines) == listed { // which of them runs is not known
		return diff.RemoveMember(helper, cmp.Or(server, "the member without a name"))
	}
	return strings.Join(lines, "\n")
}

// isMemberReady reports whether a ready server has this name.
func (s Situation) isMemberReady(server string) bool {
	return slices.ContainsFunc(s.readyServers(), func(c *plan.Container) bool { return s.runs(c.Host.Name) == server })
}

// isRunning reports whether a member of etcd is a ready server, by its ID or else by its address.
func (s Situation) isRunning(m Listed) bool {
	return slices.ContainsFunc(s.readyServers(), func(c *plan.Container) bool {
		h := s.Health[c.Host.Name]
		return h.ID == m.ID || h.ID == "" && m.Peer == fmt.Sprintf("https://%s:2380", s.addressOf(c))
	})
}

// repairOfAVoter: a server that does not answer well can still be the voter that keeps the quorum. That
// is so where etcd has a leader although too few other members are healthy.
func repairOfAVoter(s Situation) (found []finding) {
	if !s.anyReady() {
		return nil
	}
	healthy, voters := s.voters()
	if needed, _ := plan.Quorum(voters); healthy >= needed {
		return nil
	}
	for _, m := range s.members() {
		if m.ready || m.learner || !s.Work[m.host].Restarts() || !slices.Contains(s.Observed[m.host].Etcd, m.server) {
			continue
		}
		found = append(found, finding{
			message: fmt.Sprintf("%s would be restarted although it may still vote: etcd has a leader, and only %d of %d voters are healthy (%s is not: %s)",
				m, healthy, voters, m.server, m.why),
			hint:  "wait, or bring the other servers back first; k3splan status shows how they are",
			about: []string{m.server},
		})
	}
	return found
}

var k3sMinor = regexp.MustCompile(`^v([0-9]+\.[0-9]+)\.`)

// k3sStep: after a deployment that failed, a server may run another k3s than its receipt says. k3s does
// not go back, and skips no minor version.
func k3sStep(s Situation) (found []finding) {
	for _, h := range s.changed() {
		w := s.Work[h.Name]
		version := k3sMinor.FindStringSubmatch(s.Health[h.Name].Version)
		known := slices.ContainsFunc(w.Changes, func(c diff.Change) bool { return c.Name == "versions.k3s" && c.Risk == diff.Refuse })
		if h.Server == nil || !w.System || version == nil || known || s.Steps != nil { // rollbackK3sMinor
			continue
		}
		// patch releases of servers are those of nixpkgs
		runs, planned := plan.K3sVersion{Minor: version[1]}, plan.K3sVersion{Minor: s.Plan.Network.Versions.K3s.Minor}
		if step := diff.K3sStep(runs, planned); step.Risk == diff.Refuse {
			found = append(found, finding{
				message: fmt.Sprintf("the server on %s runs k3s %s, and would be changed to %s: %s", h.Name, runs, planned, step.Reason),
				hint:    step.Hint, where: s.Plan.Network.Where("versions.k3s"), about: []string{h.Name},
			})
		}
	}
	return found
}

// etcdStep: some minor versions of k3s bring an etcd whose first member must not meet members below a patch
// release (release.K3s.Leave).
func etcdStep(s Situation) (found []finding) {
	planned := s.Plan.Network.Versions.K3s.Minor
	starts := func(h *plan.Host) bool { return h.Server != nil && s.Work[h.Name].System && !s.Work[h.Name].OnlyNames }
	if s.Steps != nil || !slices.ContainsFunc(s.changed(), starts) { // a rollback brings no newer minor version
		return nil
	}
	var old, names []string
	leave := ""
	members, _ := s.etcd()
	for _, server := range s.Plan.Servers() {
		host := server.Host.Name
		version := s.Health[host].Version
		runs, known := release.FindK3s(release.MinorIn(version))
		leaves := known && runs.Leave != "" && release.OlderK3s(runs.Minor, planned)
		if leaves {
			leave = runs.Leave
		}
		if silent := !s.Health[host].Ready && version == "" && slices.Contains(members, server.Name); silent || leaves && release.OlderK3s(version, runs.Leave) {
			old = append(old, host+" ("+cmp.Or(strings.TrimPrefix(version, "v"), "unknown")+")")
			names = append(names, host)
		}
	}
	if len(old) == 0 || leave == "" { // no server leaves a version from which not every patch release may go on
		return nil
	}
	return one(finding{
		message: fmt.Sprintf("the servers have to run k3s %s at least before one of them gets %s, and these do not: %s; otherwise members that were removed from etcd can come back, and the quorum can be lost",
			leave, planned, text.Enumerate(old)),
		hint:  fmt.Sprintf("put versions.k3s back to %s; k3splan upgrade brings the patch release to all servers before it goes on", release.MinorIn(leave)),
		where: s.Plan.Network.Where("versions.k3s"), about: names,
	})
}

// agentNewer: an agent must not be of a newer minor version than any server (Kubernetes' version skew
// policy, https://kubernetes.io/releases/version-skew-policy/#kubelet). Servers that the same deployment
// changes come before it, and so does a server of the agent's own host.
func agentNewer(s Situation) (found []finding) {
	if s.Steps != nil {
		return rollbackAgentNewer(s)
	}
	planned := s.Plan.Network.Versions.K3s.Minor
	var old, names []string
	for _, server := range s.Plan.Servers() {
		host := server.Host.Name
		runs := release.MinorIn(s.Health[host].Version)
		if runs != "" && release.OlderK3s(runs, planned) && !s.Work[host].System {
			old, names = append(old, fmt.Sprintf("%s (%s)", host, runs)), append(names, host)
		}
	}
	if len(old) == 0 {
		return nil
	}
	for _, h := range s.changed() {
		if h.Agent == nil || h.Server != nil || !s.Work[h.Name].System || s.Work[h.Name].OnlyNames {
			continue
		}
		found = append(found, finding{
			message: fmt.Sprintf("the agent %s would run k3s %s, which is newer than that of the servers on %s", h.Agent.Name, planned, text.Enumerate(old)),
			hint:    "deploy the servers first, or all together: k3splan deploy",
			where:   s.Plan.Network.Where("versions.k3s"), about: names,
		})
	}
	return found
}

// memberEmptied: a server without state, on a new machine for example, cannot become the member again
// that etcd still has. (The init server would even found a cluster: secondCluster.)
func memberEmptied(s Situation) (found []finding) {
	names, _ := s.etcd()
	refused := serversOfRefusedChanges(s)
	for _, h := range s.changed() {
		server := h.Server
		if server == nil || server.Role == plan.Init || !s.Work[h.Name].System || slices.Contains(refused, server.Name) ||
			slices.Contains(s.Observed[h.Name].Etcd, server.Name) || !slices.Contains(names, server.Name) {
			continue
		}
		for _, helper := range s.readyServers() {
			if helper == server {
				continue
			}
			found = append(found, finding{
				message: fmt.Sprintf("the server %s is empty, and etcd still has it as a member: it would not be let in", server.Name),
				hint:    s.remove(helper, server.Name) + "\nk3splan deploy",
				where:   server.Where("name"), about: []string{server.Name},
			})
			break
		}
	}
	return found
}

// nothingToJoin: new servers and agents ask the servers of the plan (templates/modules/find-server.nix). One
// of them must be ready where the plan has it, or the init server be deployed before them.
func nothingToJoin(s Situation) []finding {
	init, joining := s.Plan.InitServer(), s.joining()
	if init == nil {
		return nil
	}
	if elsewhere := s.serversElsewhere(); len(elsewhere) > 0 {
		return elsewhere
	}
	o, asked := s.Observed[init.Host.Name]
	if len(joining) == 0 || !asked || len(s.readyServers()) > 0 {
		return nil
	}
	names := text.Enumerate(containerNames(joining))
	why := "it was never deployed"
	if o.Receipt != nil || len(o.Etcd) > 0 {
		why = s.member(s.runs(init.Host.Name), init.Host.Name).why
	}
	f := finding{about: []string{init.Name}, where: init.Where("type")}
	switch without := s.noQuorum(); {
	case o.Unreachable != "":
		f.message = fmt.Sprintf("no server answers yet, and the init server's host %s does not either: there is nothing to join for %s", init.Host.Name, names)
		f.hint = "bring " + init.Host.Name + " up first, or deploy only hosts without k3s"
	case without != "":
		f.message = fmt.Sprintf("%s: there is nothing to join for %s", without, names)
		f.hint = fmt.Sprintf("if they were never members of etcd: k3splan deploy %s first\n", init.Host.Name) + restoreSnapshot
	case s.Work[init.Host.Name].System:
		return nil
	default:
		f.message = fmt.Sprintf("no server is ready, the init server %s on %s included (%s): there is nothing to join for %s", init.Name, init.Host.Name, why, names)
		f.hint = "deploy " + init.Host.Name + " first, or together with them"
	}
	return one(f)
}

const restoreSnapshot = "otherwise restore a snapshot: see \"Back up and restore etcd\" in the README"

// serversElsewhere finds agents that are to be changed, and servers that are to join, while no ready server
// is where the plan has it.
func (s Situation) serversElsewhere() []finding {
	ready := s.readyServers()
	if len(ready) == 0 || len(s.serversToJoin()) > 0 {
		return nil
	}
	asking := s.joining()
	for _, host := range s.changed() {
		if c := host.Agent; c != nil && !slices.Contains(asking, c) {
			asking = append(asking, c)
		}
	}
	if len(asking) == 0 {
		return nil
	}
	is := ready[0]
	return one(finding{
		message: fmt.Sprintf("%s would look for the cluster where it is not: %s answers at %s, and the plan has it at %s",
			text.Enumerate(containerNames(asking)), is.Name, s.addressOf(is), is.Address),
		hint:  "deploy " + is.Host.Name + " first",
		where: is.Where("ip"), about: []string{is.Name},
	})
}

// initServerDown: what joins asks another server then, which takes the user by surprise if it is a mistake.
func initServerDown(s Situation) []finding {
	init, joining, others := s.Plan.InitServer(), s.joining(), s.serversToJoin()
	if init == nil || len(joining) == 0 || len(others) == 0 || s.Health[init.Host.Name].Ready || s.Work[init.Host.Name].System {
		return nil
	}
	why := s.member(s.runs(init.Host.Name), init.Host.Name).why
	return one(finding{
		message: fmt.Sprintf("the init server %s on %s is down (%s): %s will join by %s", init.Name, init.Host.Name, why, text.Enumerate(containerNames(joining)), others[0].Name),
		hint:    fmt.Sprintf("if %s does not come back, make a server that is ready the init server (%s)", init.Host.Name, init.Where("type")),
		where:   init.Where("type"), about: []string{init.Name},
	})
}

// quorumImpossible: servers without the others' votes do not become ready, however they are deployed.
func quorumImpossible(s Situation) []finding {
	without := s.noQuorum()
	if without == "" || len(nothingToJoin(s)) > 0 || !slices.ContainsFunc(s.changed(), func(h *plan.Host) bool { return h.Server != nil && s.Work[h.Name].Restarts() }) {
		return nil
	}
	return one(finding{
		message: without + ": no server can become ready",
		hint:    "if the others were never members of etcd, this is right\n" + restoreSnapshot,
		about:   s.presumedMembers(),
	})
}

// noQuorum says that the servers that have their state, or may have it, are too few for a quorum, or
// returns "". If a server is ready, or none has a state, there is nothing to say.
func (s Situation) noQuorum() string {
	if s.anyReady() {
		return ""
	}
	hosts := s.presumedMembers()
	var with []string
	for _, host := range hosts {
		if o := s.Observed[host]; o.Unreachable != "" || slices.Contains(o.Etcd, s.runs(host)) {
			with = append(with, host)
		}
	}
	if needed, _ := plan.Quorum(len(hosts)); len(with) == 0 || len(with) >= needed {
		return ""
	}
	return fmt.Sprintf("etcd cannot get its quorum: of the servers on %s only %s has its state", text.Enumerate(hosts), text.Enumerate(with))
}

// joinRefusedByEtcd: etcd refuses every new member, learners too, unless it is connected to all voters
// ("unhealthy cluster": StrictReconfigCheck, https://etcd.io/docs/v3.5/op-guide/runtime-configuration/).
func joinRefusedByEtcd(s Situation) []finding {
	joining := slices.DeleteFunc(s.joining(), func(c *plan.Container) bool { return !c.IsServer() })
	lost := s.lostMembers()
	if len(joining) == 0 || len(lost) == 0 {
		return nil
	}
	verb := "is"
	if len(lost) > 1 {
		verb = "are"
	}
	return one(finding{
		message: fmt.Sprintf("%s cannot join while %s %s down: etcd takes no new member then", text.Enumerate(containerNames(joining)), text.Enumerate(listed(lost)), verb),
		hint:    bringBack + s.removal(lost),
		where:   joining[0].Where("name"), about: serverNames(lost),
	})
}

// clusterFoundedAgain: the init server founds a cluster although the rack had one, of which no server has
// left a trace; or it cannot be known whether it had one.
func clusterFoundedAgain(s Situation) []finding {
	if !s.founds() || len(secondCluster(s)) > 0 {
		return nil
	}
	init := s.Plan.InitServer()
	var had, away []string
	for _, host := range s.Plan.Hosts {
		switch o := s.Observed[host.Name]; {
		case o.Receipt.HasK3s():
			had = append(had, host.Name)
		case o.Unreachable != "" && !s.hadServer(host.Name):
			away = append(away, host.Name)
		}
	}
	switch {
	case len(had) > 0:
		return one(finding{
			message: fmt.Sprintf("the init server %s is empty and founds a new cluster, without anything of the one that %s had", init.Name, text.Enumerate(had)),
			hint:    "a snapshot of the old cluster can still be restored instead; its agents cannot join the new cluster before their state (/var/lib/k3splan/agents) is removed",
			where:   init.Where("type"), about: had,
		})
	case len(away) > 0:
		return one(finding{
			message: fmt.Sprintf("the init server %s founds a cluster, and %s did not answer: whether there is a cluster already is unknown", init.Name, text.Enumerate(away)),
			hint:    "if the rack is new, this is right",
			where:   init.Where("type"), about: away,
		})
	}
	return nil
}

// receiptUnreadable: what the plan must not change on a host is known from its receipt.
func receiptUnreadable(s Situation) (found []finding) {
	for _, h := range s.changed() {
		w, o := s.Work[h.Name], s.Observed[h.Name]
		unreadable := w.New && (o.Receipt != nil || o.BadReceipt != "")
		if !unreadable || len(h.Containers())+len(o.Etcd) == 0 {
			continue
		}
		found = append(found, finding{
			message: fmt.Sprintf("what %s was deployed with is not known: %s", h.Name, strings.Join(w.Reasons, "; ")),
			hint: "make sure that its containers, the networks and the version of k3s are the same as then, or may change\n" +
				"\"k3splan diff REVISION\" compares with the plan of that time; a receipt of a newer k3splan needs that version here",
			where: h.Where("name"), about: []string{h.Name},
		})
	}
	return found
}

// quorumOfTwo: with two members every restart loses the quorum until the server is back, unless a third one
// joins before.
func quorumOfTwo(s Situation) []finding {
	stopped := s.stoppedMembers()
	if _, voters := s.voters(); len(stopped) == 0 || voters != 2 || !s.Unordered && len(s.joinsFirst()) > 0 {
		return nil
	}
	servers, restart := "the server", "restarts"
	if len(stopped) > 1 {
		servers, restart = "the servers", "restart"
	}
	return one(finding{
		message: fmt.Sprintf("%s on %s %s (%s)", servers, text.Enumerate(hostNames(stopped)), restart, diff.LosesQuorum),
		hint:    "the Kubernetes API does not answer during that time; a third server would change that",
		about:   serverNames(stopped),
	})
}

// firstContact: the address of a host moves to another interface once.
func firstContact(s Situation) []finding {
	var first []string
	for _, h := range s.changed() {
		if s.Work[h.Name].New && !h.DHCP() && !s.Observed[h.Name].LAN && !h.Target.Local {
			first = append(first, h.Name)
		}
	}
	if len(first) == 0 {
		return nil
	}
	return one(finding{
		message: "the address moves to a macvlan interface for the first time on " + text.Enumerate(first) + " (may cut the connection)",
		hint:    "have a console at hand", about: first,
	})
}

// changesRefused and changesRisky: what the plan has changed, in the words and by the judgement of
// "k3splan diff".
func changesRefused(s Situation) (found []finding) { return findings(s.changesOf(diff.Refuse)) }
func changesRisky(s Situation) (found []finding)   { return findings(s.changesOf(diff.Ask)) }

func findings(changes []diff.Change) (found []finding) {
	for _, c := range changes {
		found = append(found, finding{message: c.Sentence, hint: c.Hint, where: c.Where, about: []string{c.Name}})
	}
	return found
}

// serversOfRefusedChanges are servers that changesRefused speaks of already.
func serversOfRefusedChanges(s Situation) (names []string) {
	for _, c := range s.changesOf(diff.Refuse) {
		if c.Object == diff.Server {
			names = append(names, c.Name)
		}
	}
	return names
}

// changesOf returns the changes of one risk that the deployment would bring to the machines. A host's
// receipt says what has changed for the host itself; what becomes of containers is known from all
// receipts together.
func (s Situation) changesOf(risk diff.Risk) (list []diff.Change) {
	ofContainer := func(c diff.Change) bool { return c.Object == diff.Server || c.Object == diff.Agent }
	add := func(c diff.Change) {
		if c.Risk == risk && !s.isHarmless(c) {
			list = append(list, c)
		}
	}
	for _, h := range s.changed() {
		for _, change := range s.Work[h.Name].Changes {
			// a host that joins is judged by its cluster, which may have changed since
			if !ofContainer(change) && (change.Risk != diff.Refuse || s.wasOfCluster(h.Name, change)) {
				add(change)
			}
		}
	}
	if s.Deployed == nil {
		return list
	}
	touched := func(host string) bool { return !s.Work[host].None() }
	inPlan := func(host string) bool { return s.Plan.Host(host) != nil }
	for _, change := range diff.Compare(s.Deployed, s.Plan) {
		joins := func(host string) bool { return touched(host) && !s.wasOfCluster(host, change) }
		switch {
		case ofContainer(change) && (slices.ContainsFunc(change.Hosts, touched) || s.touchesK3s() && !slices.ContainsFunc(change.Hosts, inPlan)):
			add(change)
		case change.Risk == diff.Refuse && slices.ContainsFunc(change.Hosts, joins):
			add(change)
		}
	}
	return list
}

// wasOfCluster reports whether a host belonged to the cluster that a change is about when it was
// deployed. Networks concern servers alone.
func (s Situation) wasOfCluster(host string, change diff.Change) bool {
	r := s.Observed[host].Receipt
	return !s.Work[host].New && r.HasK3s() && (change.Name == "versions.k3s" || r.ServerName() != "")
}

// isHarmless reports whether a change that is risky by the plan is not, as things are on the machines.
func (s Situation) isHarmless(change diff.Change) bool {
	switch {
	case change.Reason == diff.LosesQuorum: // quorumOfTwo judges by the members that etcd really has
		return true
	case change.Object == diff.Agent && change.Action == diff.Removed && slices.Contains(s.NoNode, change.Name): // nothing stays behind
		return true
	case change.Reason == diff.SecondCluster && s.isMember(s.Plan.InitServer()):
		return true
	}
	return change.Risk == diff.Refuse && (s.hasNoCluster() || s.hasLeft(change))
}

// isMember reports whether a server is known to be a member of etcd.
func (s Situation) isMember(server *plan.Container) bool {
	return slices.ContainsFunc(s.members(), func(m member) bool { return m.server == server.Name })
}

// hasNoCluster reports whether all hosts with a server were asked, and nothing of k3s was ever deployed
// on them or on another host that was asked: earlier deployments did not reach them.
func (s Situation) hasNoCluster() bool {
	for name, o := range s.Observed {
		if o.Receipt.HasK3s() || o.BadReceipt != "" || len(o.Etcd) > 0 || o.Unreachable != "" && s.hadServer(name) {
			return false
		}
	}
	return !slices.ContainsFunc(s.Plan.Servers(), func(c *plan.Container) bool { _, asked := s.Observed[c.Host.Name]; return !asked })
}

// hasLeft reports whether the server of the change is not a member of etcd, and has no state that would
// keep it from joining: it has never been a member, or the hint was followed.
func (s Situation) hasLeft(change diff.Change) bool {
	names, unnamed := s.etcd()
	if change.Object != diff.Server || change.Reason == diff.SecondCluster || len(names) == 0 || unnamed > 0 {
		return false
	}
	name := change.Name
	if change.Action == diff.Renamed {
		name = change.From
	}
	hasState := func(host string) bool { return slices.Contains(s.Observed[host].Etcd, name) }
	return !slices.Contains(names, name) && (change.Action == diff.Removed || !slices.ContainsFunc(change.Hosts, hasState))
}
