package rollout

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k3splan/internal/plan"
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
	// OtherToken are hosts that were asked and got another server token than today's.
	OtherToken []string
}

// members are the hosts of the plan whose server belongs to etcd already, as far as is known.
func (s Situation) members() []string {
	var names []string
	last := newest(s.Observed)
	for _, server := range s.Plan.Servers() {
		o, asked := s.Observed[server.Host.Name]
		switch {
		case !asked:
		case s.Health[server.Host.Name].Ready,
			o.Receipt != nil && o.Receipt.Inputs.Data["server.name"] == server.Name,
			slices.Contains(o.Etcd, server.Name):
			names = append(names, server.Host.Name)
		case o.Unreachable != "" && last != nil && last.Cluster.Servers[server.Name].Host == server.Host.Name:
			names = append(names, server.Host.Name)
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
	j.tokens()
	j.quorum()
	j.founder()
	j.secondCluster()
	j.servers()
	j.networks()
	j.versions()
	j.connections()
	j.agents()
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

// tokens: k3s encrypts its bootstrap data with the server token, and fails at its next start with
// another one.
func (j *judge) tokens() {
	concerned := false
	j.hosts(func(h *plan.Host, _ Work, _ Observed) { concerned = concerned || len(h.Containers()) > 0 })
	if hosts := slices.Sorted(slices.Values(j.OtherToken)); concerned && len(hosts) > 0 {
		j.refuse("the server token is not the one that "+enumerate(hosts)+" got: k3s would fail at its next start",
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
			enumerate(stopped), enumerate(why), len(members), quorum, max(0, len(members)-len(down)-1)),
			"bring the server back first; k3splan status shows how it is")
	}
	if len(members) == 2 && len(stopped) > 0 {
		j.ask("with two servers etcd has no quorum while "+enumerate(stopped)+" restarts: the Kubernetes API is away for a moment",
			"a third server would change that")
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
				fmt.Sprintf("let it join: in plans/k3s.csv make %s the init server and %s a server,\n", server.Name, init.Name)+
					removeMember(server.Host.Name, server.Name, init.Name))
			return
		}
	}
}

// removeMember is how a member leaves etcd; k3s has no command for a server without a Node.
func removeMember(host, container, member string) string {
	return fmt.Sprintf("remove the old member from etcd, on %s: nixos-container root-login %s, there etcdctl member list,\n"+
		"etcdctl member remove ID of %s (certificates in /var/lib/rancher/k3s/server/tls/etcd)", host, container, member)
}

// servers: etcd knows its members by name and address.
func (j *judge) servers() {
	type known struct {
		name string
		Place
	}
	var was []known
	if last := newest(j.Observed); last != nil {
		for _, name := range slices.Sorted(maps.Keys(last.Cluster.Servers)) {
			was = append(was, known{name, last.Cluster.Servers[name]})
		}
	}
	j.hosts(func(h *plan.Host, _ Work, o Observed) {
		if o.Receipt != nil && o.Receipt.Inputs.Data["server.name"] != "" {
			data := o.Receipt.Inputs.Data
			was = append(was, known{data["server.name"], Place{h.Name, data["server.ip"]}})
		}
	})
	today := ClusterOf(j.Plan).Servers
	for _, old := range was {
		now, there := today[old.name]
		host := j.Plan.Host(old.Host)
		// a server on a host that is not touched now is not changed now
		if host != nil && j.Work[old.Host].None() && (!there || j.Work[now.Host].None()) {
			continue
		}
		change := ""
		switch {
		case !there && host != nil && host.Server != nil:
			change = fmt.Sprintf("the server %s on %s becomes %s", old.name, old.Host, host.Server.Name)
		case !there:
			change = fmt.Sprintf("the server %s on %s is removed", old.name, old.Host)
		case now.Host != old.Host:
			change = fmt.Sprintf("the server %s moves from %s to %s", old.name, old.Host, now.Host)
		case now.IP != old.IP:
			change = fmt.Sprintf("the address of the server %s changes: %s", old.name, arrow(old.IP, now.IP))
		default:
			continue
		}
		helper := "another server's host"
		container := "NAME"
		for _, server := range j.Plan.Servers() {
			if j.Health[server.Host.Name].Ready && server.Host.Name != old.Host {
				helper, container = server.Host.Name, server.Name
				break
			}
		}
		j.refuse(change+": etcd keeps the old member, and the new one is not let in",
			removeMember(helper, container, old.name)+"\n"+
				fmt.Sprintf("then empty its state, on %s: nixos-container stop %s; rm -r /var/lib/nixos-containers/%s/var/lib/rancher/k3s/server/{db,tls,cred}\n", old.Host, old.name, old.name)+
				"then k3splan deploy --force lets it join again")
	}
}

// networks: the networks of a living cluster cannot change.
func (j *judge) networks() {
	model := j.Plan.Model().Network
	today := map[string]string{"pod_cidr": model.PodCIDR, "service_cidr": model.ServiceCIDR}
	j.hosts(func(_ *plan.Host, _ Work, o Observed) {
		if o.Receipt == nil {
			return
		}
		for _, key := range []string{"pod_cidr", "service_cidr"} {
			if was := o.Receipt.Inputs.Data["network."+key]; o.Receipt.Inputs.Data["server.name"] != "" && was != "" && was != today[key] {
				j.refuse(fmt.Sprintf("%s of a living cluster cannot change (%s)", key, arrow(was, today[key])),
					"set it back in plans/network.yaml; another network needs a new cluster")
			}
		}
	})
}

// versions: k3s goes up by one minor release at a time, and never down.
func (j *judge) versions() {
	today := j.Plan.Network.Versions.K3s.String()
	j.hosts(func(h *plan.Host, _ Work, o Observed) {
		if o.Receipt == nil || len(h.Containers()) == 0 {
			return
		}
		for _, key := range []string{"k3s.server", "k3s.agent"} {
			was := o.Receipt.Inputs.Data[key]
			if was == "" {
				continue
			}
			switch steps, comparable := versionSteps(was, today); {
			case !comparable || steps == 0:
			case steps < 0:
				j.refuse(fmt.Sprintf("k3s %s is a downgrade: its data may not be readable for the older release", arrow(was, today)),
					"set versions.k3s back in plans/network.yaml, or restore a snapshot of etcd from before the upgrade")
			case steps > 1:
				j.refuse(fmt.Sprintf("k3s %s skips a minor release, which Kubernetes does not support", arrow(was, today)),
					"deploy the releases between one after the other")
			}
		}
	})
}

// versionSteps gives by how many minor releases one version of k3s is above another: negative for a
// downgrade, 0 for the same minor release and no lower patch release.
func versionSteps(was, is string) (steps int, comparable bool) {
	before, ok := versionNumbers(was)
	after, ok2 := versionNumbers(is)
	if !ok || !ok2 {
		return 0, false
	}
	if before[0] != after[0] {
		if after[0] < before[0] {
			return -1, true
		}
		return 2, true
	}
	if before[1] == after[1] && len(before) > 2 && len(after) > 2 && slices.Compare(after[2:], before[2:]) < 0 {
		return -1, true
	}
	return after[1] - before[1], true
}

func versionNumbers(text string) ([]int, bool) {
	var numbers []int
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r < '0' || r > '9' }) {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil, false
		}
		numbers = append(numbers, n)
	}
	// "1.31.14+k3s1": the 3 of k3s is no number of the version
	if strings.Contains(text, "k3s") && len(numbers) == 5 {
		numbers = append(numbers[:3], numbers[4])
	}
	return numbers, len(numbers) >= 2
}

// connections: what may cut the connection that the deployment uses.
func (j *judge) connections() {
	var first []string
	j.hosts(func(h *plan.Host, w Work, o Observed) {
		switch {
		case o.Receipt != nil:
			was := o.Receipt.Inputs.Data
			address := ""
			if !h.DHCP() {
				address = h.Address.String()
			}
			if was["host.ip"] != address {
				j.ask(fmt.Sprintf("the address of %s changes (%s): this may cut the connection", h.Name, arrow(was["host.ip"], address)),
					"have a console at hand; with IP@TARGET in plans/hosts.csv the host is still reached by its old address")
			}
			if was["host.interface"] != h.Interface {
				j.ask(fmt.Sprintf("the interface of %s changes (%s): this may cut the connection", h.Name, arrow(was["host.interface"], h.Interface)),
					"have a console at hand")
			}
		case w.New && !h.DHCP() && !o.LAN && !h.Target.Local:
			first = append(first, h.Name)
		}
	})
	if len(first) > 0 {
		j.ask("the address moves to a macvlan interface for the first time on "+enumerate(first)+": this may cut the connection",
			"have a console at hand")
	}
}

// agents: Kubernetes keeps the Nodes of agents that are gone.
func (j *judge) agents() {
	was := map[string]Place{}
	if last := newest(j.Observed); last != nil {
		for name, place := range last.Cluster.Agents {
			if j.Plan.Host(place.Host) == nil {
				was[name] = place
			}
		}
	}
	j.hosts(func(h *plan.Host, _ Work, o Observed) {
		if o.Receipt != nil && o.Receipt.Inputs.Data["agent.name"] != "" {
			was[o.Receipt.Inputs.Data["agent.name"]] = Place{Host: h.Name}
		}
	})
	today := ClusterOf(j.Plan).Agents
	for _, name := range slices.Sorted(maps.Keys(was)) {
		old := was[name]
		now, there := today[name]
		change := ""
		host := j.Plan.Host(old.Host)
		switch {
		case !there && host != nil && host.Agent != nil:
			change = fmt.Sprintf("the agent %s on %s becomes %s", name, old.Host, host.Agent.Name)
		case !there:
			change = fmt.Sprintf("the agent %s on %s is removed", name, old.Host)
		case now.Host != old.Host:
			change = fmt.Sprintf("the agent %s moves from %s to %s", name, old.Host, now.Host)
		default:
			continue
		}
		j.ask(change+": its Node stays in the cluster", "afterwards: kubectl drain "+name+" --ignore-daemonsets; kubectl delete node "+name)
	}
}

// enumerate gives "a", "a and b", "a, b and c".
func enumerate(names []string) string {
	switch len(names) {
	case 0:
		return ""
	case 1:
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}
