package diff

import (
	"fmt"
	"slices"
	"strings"

	"k3splan/internal/plan"
	"k3splan/internal/text"
)

const (
	memberStays = "etcd keeps the old member"
	clusterEnds = "the cluster ends"
	nodeStays   = "its Node stays behind"
	nodeHint    = "kubectl drain %[1]s --ignore-daemonsets before, kubectl delete node %[1]s afterwards"
)

// containers compares all servers, or all agents.
func (c *comparison) containers(object Object, older, newer []*plan.Container) {
	both := pairs(older, newer,
		same(func(k *plan.Container) string { return k.Name }),
		// what runs on the same host under a new name
		func(k *plan.Container) (string, string) { return c.nowCalled[k.Host.Name], k.Host.Name },
	)
	gone, come := unpaired(older, newer, both)
	for _, container := range gone {
		c.removed(object, container, len(older), len(newer))
	}
	for _, before := range older {
		if now := both[before]; now != nil {
			c.container(object, before, now)
		}
	}
	for _, container := range come {
		c.added(object, container, len(older), len(newer))
	}
}

// losing returns what a change of the number of servers does to the quorum.
func losing(before, now int) string {
	_, spareBefore := plan.Quorum(before)
	_, spare := plan.Quorum(now)
	number := fmt.Sprintf("%d servers", now)
	if now == 1 {
		number = "1 server"
	}
	if now < before {
		number = fmt.Sprintf("%d left", now)
	}
	switch {
	case now == 0:
		return "none left"
	case spare == 0 && spareBefore > 0:
		return fmt.Sprintf("%d of %d left, no loss tolerated any more", now, now)
	case spare == 0:
		return number + ", no loss tolerated"
	case now%2 == 0:
		return fmt.Sprintf("%s, the loss of %d tolerated, as with %d", number, spare, now-1)
	default:
		return fmt.Sprintf("%s, the loss of %d tolerated", number, spare)
	}
}

func (c *comparison) removed(object Object, container *plan.Container, before, now int) {
	change := Change{Object: object, Action: Removed, Name: container.Name, From: container.Host.Name}
	hosts := []string{c.hostNow(container.Host.Name)}
	if object == Agent {
		change.Risk, change.Reason, change.Hint = Ask, nodeStays, fmt.Sprintf(nodeHint, container.Name)
		c.add(change, fmt.Sprintf("agent %s removed from %s", container.Name, hosts[0]), hosts, nothing)
		return
	}
	sentence := fmt.Sprintf("server %s removed: %s", container.Name, losing(before, now))
	change.Risk, change.Hint = Refuse, c.rejoin(container, change)
	// what the sentence says of the quorum is the reason
	c.add(change, sentence, hosts, nothing)
	reason := memberStays
	if now == 0 {
		reason = clusterEnds
	}
	c.changes[len(c.changes)-1].Reason = reason
}

// rejoin returns how a server of the older plan leaves etcd, and how it joins again unless it is removed.
func (c *comparison) rejoin(server *plan.Container, change Change) string {
	host := c.hostNow(server.Host.Name)
	helper := c.stays(server)
	switch {
	case len(c.newer.Servers()) == 0:
		return "this gives up the cluster and everything in it: k3splan deploy --force; the servers' state stays on their hosts, in /var/lib/nixos-containers"
	case helper == nil && len(c.older.Servers()) > 1:
		return "change one server after the other: one that stays unchanged has to remove the others from etcd"
	case helper == nil && change.Field == "ip":
		// https://github.com/k3s-io/k3s/issues/4296
		return "it is the only server: k3splan deploy --force; then, in its container, stop k3s and run its command once with --cluster-reset, so that etcd takes the new address; then k3splan deploy --force once more"
	case helper == nil:
		return fmt.Sprintf("it is the only server: without its state, /var/lib/nixos-containers/%s on %s, an empty cluster begins", server.Name, host)
	}
	hint := RemoveMember(helper, server.Name) + fmt.Sprintf(
		"\non %s: nixos-container stop %s; rm -r /var/lib/nixos-containers/%[2]s/var/lib/rancher/k3s/server/{db,tls,cred}\nk3splan deploy",
		host, server.Name)
	if change.Action != Removed {
		hint += ": it joins again"
	}
	if init := c.newer.InitServer(); change.Action != Removed && init != nil && change.Name == init.Name {
		hint = fmt.Sprintf("first make another server the init server (%s) and deploy: this one comes back empty and would start a second cluster\n", init.Where("type")) + hint
	}
	return hint
}

// stays returns another server that is the same in both plans, or nil.
func (c *comparison) stays(server *plan.Container) *plan.Container {
	for _, now := range c.newer.Servers() {
		if now.Name != server.Name && slices.ContainsFunc(c.older.Servers(), func(before *plan.Container) bool {
			return before != server && before.Name == now.Name && before.Address == now.Address && c.hostNow(before.Host.Name) == now.Host.Name
		}) {
			return now
		}
	}
	return nil
}

// RemoveMember returns the commands by which a member leaves etcd, one a line. helper is another server.
// k3s itself has no command for a server that is not a Node; container.nix brings etcdctl.
func RemoveMember(helper *plan.Container, member string) string {
	return fmt.Sprintf("on %s: nixos-container run %s -- etcdctl member list\n"+
		"on %[1]s: nixos-container run %[2]s -- etcdctl member remove ID of %[3]s", helper.Host.Name, helper.Name, member)
}

// hostNow returns the name that a host of the older plan has in the newer one.
func (c *comparison) hostNow(name string) string {
	if now, ok := c.nowCalled[name]; ok {
		return now
	}
	return name
}

func (c *comparison) added(object Object, container *plan.Container, before, now int) {
	change := Change{Object: object, Action: Added, Name: container.Name, To: container.Host.Name, Where: container.Where("name")}
	hosts := []string{container.Host.Name}
	what := string(object)
	if container.Role == plan.Init {
		what = "init server"
	}
	sentence := fmt.Sprintf("%s added on %s: %s, %s", what, container.Host.Name, container.Name, container.Address)
	if object == Server && before > 0 {
		sentence += "; " + losing(before, now)
	}
	c.add(change, sentence, hosts, nothing)
}

// container compares a container that is in both plans.
func (c *comparison) container(object Object, before, now *plan.Container) {
	hosts := []string{now.Host.Name}
	restarts := servers
	if object == Agent {
		restarts = agents
	}
	risky := func(change Change) Change {
		change.Object, change.Name = object, now.Name
		if object == Server {
			change.Risk, change.Reason, change.Hint = Refuse, memberStays, c.rejoin(before, change)
		} else if change.Field == "" {
			change.Risk, change.Reason, change.Hint = Ask, nodeStays, fmt.Sprintf(nodeHint, before.Name)
		}
		return change
	}
	if was := c.hostNow(before.Host.Name); was != now.Host.Name {
		change := risky(Change{Action: Moved, From: was, To: now.Host.Name, Where: now.Where("host")})
		if object == Agent {
			change.Reason, change.Hint = "its Node will be refused", "its node password stays on the old host: "+fmt.Sprintf(nodeHint, now.Name)
		}
		c.add(change, fmt.Sprintf("%s %s moved: %s → %s", object, now.Name, was, now.Host.Name), []string{was, now.Host.Name}, nothing)
	}
	if before.Name != now.Name {
		change := risky(Change{Action: Renamed, From: before.Name, To: now.Name, Where: now.Where("name")})
		c.add(change, fmt.Sprintf("%s on %s renamed: %s → %s", object, now.Host.Name, before.Name, now.Name), hosts, nothing)
	}
	ip := Change{Action: Changed, Field: "ip", From: before.Address.String(), To: now.Address.String(), Where: now.Where("ip")}
	ip = risky(ip)
	if ip.From != ip.To {
		ip.Hint = strings.Trim(c.leaveFirst(now.Address, before.Name)+"\n"+ip.Hint, "\n")
	}
	c.field(ip, hosts, restarts)
	c.field(Change{Object: object, Action: Changed, Name: now.Name, Field: "mac", From: before.MAC, To: now.MAC, Where: now.Where("mac")}, hosts, restarts)
	c.marks(Change{Object: object, Name: now.Name, Field: "labels", Where: now.Where("labels")}, before.Labels, now.Labels, hosts)
	c.marks(Change{Object: object, Name: now.Name, Field: "taints", Where: now.Where("taints")}, before.Taints, now.Taints, hosts)
	c.own(Change{Object: object, Name: now.Name}, before.Own, now.Own, now.Where, hosts)
}

// marks adds the changes of a container's labels or taints. A deployment brings the agent's Node to them: k3s
// itself never takes a label away, and gives taints to a new Node only.
func (c *comparison) marks(change Change, before, now []string, hosts []string) {
	change.Action = Changed
	kind, restarts := strings.TrimSuffix(change.Field, "s"), agents
	gone, come := text.Without(before, now), text.Without(now, before)
	add := func(what, from, to string) {
		change.From, change.To = from, to
		if change.Object == Server {
			change.Hint, restarts = "a server is not a Node: labels and taints have no effect on it", nothing
		}
		c.add(change, fmt.Sprintf("%s %s: %s %s", change.Object, change.Name, kind, what), hosts, restarts)
	}
	for _, old := range gone {
		key := markKey(old)
		if i := slices.IndexFunc(come, func(mark string) bool { return markKey(mark) == key }); i >= 0 {
			add(old+" → "+come[i], old, come[i])
			come = slices.Delete(come, i, i+1)
			continue
		}
		add(old+" removed", old, "")
	}
	for _, mark := range come {
		add(mark+" added", "", mark)
	}
}

// markKey returns what of a label or taint its Node can have once: "disk" of "disk=large",
// "storage:NoSchedule" of "storage=only:NoSchedule".
func markKey(mark string) string {
	key, value, _ := strings.Cut(mark, "=")
	if i := strings.LastIndex(value, ":"); i >= 0 {
		return key + value[i:]
	}
	return key
}

// k3sHosts are the names of the hosts with a container.
func (c *comparison) k3sHosts() []string {
	return hostsOf(slices.Concat(c.newer.Servers(), c.newer.Agents()))
}

// initServer adds the change if another server is the init server now.
func (c *comparison) initServer() {
	before, now := c.older.InitServer(), c.newer.InitServer()
	if before == nil || now == nil || before.Name == now.Name || c.hostNow(before.Host.Name) == now.Host.Name {
		return
	}
	change := Change{Object: Server, Action: Changed, Name: now.Name, Field: "type", From: before.Name, To: now.Name, Where: now.Where("type")}
	known := slices.ContainsFunc(c.older.Servers(), func(s *plan.Container) bool { return s.Name == now.Name })
	if !known {
		change.Risk, change.Reason = Refuse, SecondCluster
		change.Hint = `let it join as "server" first; once it is a member of etcd, its type may become "init"`
	}
	c.add(change, fmt.Sprintf("init server %s → %s", before.Name, now.Name), []string{c.hostNow(before.Host.Name), now.Host.Name}, servers, "what joins asks it first")
	c.changes[len(c.changes)-1].Hosts = slices.Compact(slices.Sorted(slices.Values(c.k3sHosts()))) // a file, which restarts nothing
}
