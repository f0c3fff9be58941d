// Package schedule brings the hosts that are to be changed into an order: by what they depend on, by the order
// that they ask for, and never against the quorum of etcd. It is a pure function of what is known about all
// hosts of the plan.
package schedule

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"strings"
)

// Host is what is known about a host of the plan.
type Host struct {
	Name string
	// Changes: the host is to be deployed or rebooted. Hosts that are not matter for what others depend on by
	// them.
	Changes bool
	// Order: hosts with a lower number come first.
	Order int
	// Groups are those of which not all hosts may be away at once.
	Groups []string
	// Dependencies are the names of hosts that come before. Unknown names and its own do not count.
	Dependencies []string
	// Delay is waited before the host is changed, in seconds, unless it is the first one.
	Delay int
	// Critical: nothing else is changed together with the host.
	Critical bool
	// Server: a member of etcd is on the host, or is to be. Down: that does not work, so that nothing is lost by
	// its change, and it comes before all others.
	Server, Down bool
	// Init: the server is the one that the others join.
	Init bool
	// Agent: the host has an agent, and no server.
	Agent bool
}

// Limits bound how much happens at the same time.
type Limits struct {
	// Unavailable is how many hosts with agents, and how many of a group, may be away at once; at least 1.
	Unavailable int
	// Parallel is how many hosts are changed at once; at least 1.
	Parallel int
	// K3s: the change may be one of k3s's version, so that servers come before agents, whatever depends on what,
	// and the init server before the other servers.
	K3s bool
}

// Reason is why a step is where it is.
type Reason string

const (
	// ByOrder: the hosts' numbers and names.
	ByOrder Reason = "order"
	// ByDependency: a host had to wait for one that it depends on.
	ByDependency Reason = "dependency"
	// ByQuorum: a server that is down, one that has to wait for another one, or an agent that waits for servers.
	ByQuorum Reason = "quorum"
)

// Step are hosts that are changed together.
type Step struct {
	// Hosts are sorted by name.
	Hosts []string
	// After are the steps that have to be done, with all their hosts healthy, before this one begins: the last one
	// with a host that these depend on, and the one before. They are indices, ascending.
	After []int
	// Delay is waited before the step begins, in seconds: the longest of its hosts. The first step has none.
	Delay  int
	Reason Reason
}

// CycleError are hosts that wait for each other.
type CycleError struct {
	// Names are in the order in which each depends on the next one; the first and the last are the same.
	Names []string
}

func (e *CycleError) Error() string {
	return "the hosts wait for each other: " + strings.Join(e.Names, " → ")
}

// Of returns the steps in which the hosts that change are changed, in their order. Two hosts with servers are
// never in one step, nor two of which one depends on the other, directly or by hosts that do not change. A host
// comes after all on which it depends; where that contradicts the quorum, quorum beats dependency. The order of
// the list does not matter. The error is a [*CycleError].
func Of(hosts []Host, limits Limits) ([]Step, error) {
	g := newGraph(hosts, limits)
	if err := g.link(); err != nil {
		return nil, err
	}
	var steps []Step
	for {
		step, ok := g.next()
		if !ok {
			break
		}
		if n := len(steps); n > 0 {
			step.After = append(step.After, n-1)
		} else {
			step.Delay = 0
		}
		slices.Sort(step.After)
		step.After = slices.Compact(step.After)
		steps = append(steps, step)
	}
	if g.left > 0 {
		return nil, g.cycle()
	}
	return steps, nil
}

// node is a host in the graph of dependencies.
type node struct {
	Host
	// index is the place of the host if nothing depended on anything
	index int
	// phase comes before the host's order: what is down, then servers if k3s changes
	phase int
	// before are the nodes on which it depends and that count, after those that depend on it
	before, after []*node
	// waits are how many of before are not done; servers: it also waits for all servers
	waits   int
	servers bool
	// step is that of the host, -1 before it has one
	step int
	// lastBefore is the last step of those on which it depends, directly or by hosts that do not change
	lastBefore int
	// leads is the last phase of what changes among the host and what it depends on, or -1
	leads int
	// overtaken: a host that would come later came first
	overtaken bool
}

func (n *node) compare(other *node) int {
	return cmp.Or(cmp.Compare(n.phase, other.phase), cmp.Compare(n.Order, other.Order), cmp.Compare(n.Name, other.Name))
}

// beats reports whether the host comes first, although it depends on something that leads to a phase.
func (n *node) beats(leads int) bool {
	return n.phase == phaseDown && leads > phaseDown || leads == phaseAgent || n.phase == phaseInit && leads == phaseServer
}

// queue is a heap of the hosts that wait for nothing any more.
type queue []*node

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].index < q[j].index }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(*node)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	n := (*q)[last]
	*q = (*q)[:last]
	return n
}

type graph struct {
	limits Limits
	nodes  []*node
	byName map[string]*node
	ready  queue
	// left are how many hosts are not done; servers how many of them change and have one
	left, servers int
	// held are the agents that wait for servers alone
	held []*node
	// farthest is the host with the highest order that was taken
	farthest *node
	steps    int
}

const (
	phaseDown = iota
	phaseInit
	phaseServer
	phaseOther
	// phaseAgent is for agents that wait for all servers
	phaseAgent
)

func newGraph(hosts []Host, limits Limits) *graph {
	limits.Unavailable, limits.Parallel = max(1, limits.Unavailable), max(1, limits.Parallel)
	g := &graph{limits: limits, byName: make(map[string]*node, len(hosts))}
	all := make([]node, len(hosts))
	for i, host := range hosts {
		n := &all[i]
		n.Host, n.step, n.lastBefore, n.phase = host, -1, -1, phaseOther
		switch {
		case host.Server && host.Down:
			n.phase = phaseDown
		case host.Server && limits.K3s && host.Init:
			n.phase = phaseInit
		case host.Server && limits.K3s:
			n.phase = phaseServer
		}
		n.servers = limits.K3s && host.Agent && host.Changes
		g.nodes, g.byName[host.Name] = append(g.nodes, n), n
		if host.Changes && host.Server {
			g.servers++
		}
	}
	slices.SortFunc(g.nodes, (*node).compare)
	for i, n := range g.nodes {
		n.index = i
	}
	g.left = len(g.nodes)
	return g
}

// link adds the dependencies that count, and finds the hosts that wait for nothing.
func (g *graph) link() error {
	for _, n := range g.nodes {
		for _, name := range n.Dependencies {
			if on := g.byName[name]; on != nil && on != n && !slices.Contains(n.before, on) {
				n.before = append(n.before, on)
			}
		}
	}
	sorted, err := g.sorted()
	if err != nil {
		return err
	}
	g.dropAgainstQuorum(sorted)
	for _, n := range g.nodes {
		n.waits = len(n.before)
		for _, on := range n.before {
			on.after = append(on.after, n)
		}
	}
	var first []*node // collected before, as those that do not change are done at once
	for _, n := range g.nodes {
		if n.waits == 0 {
			first = append(first, n)
		}
	}
	for _, n := range first {
		g.free(n)
	}
	return nil
}

// sorted returns the nodes, each after those on which it depends. If hosts wait for each other, the error is a
// *CycleError.
func (g *graph) sorted() (sorted []*node, err error) {
	const open, done = 1, 2
	state := make([]int, len(g.nodes))
	type frame struct {
		n    *node
		next int
	}
	for _, root := range g.nodes {
		if state[root.index] != 0 {
			continue
		}
		stack := []frame{{n: root}}
		state[root.index] = open
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			if top.next == len(top.n.before) {
				state[top.n.index], sorted = done, append(sorted, top.n)
				stack = stack[:len(stack)-1]
				continue
			}
			on := top.n.before[top.next]
			top.next++
			switch state[on.index] {
			case open:
				from := slices.IndexFunc(stack, func(f frame) bool { return f.n == on })
				var names []string
				for _, f := range stack[from:] {
					names = append(names, f.n.Name)
				}
				least := slices.Index(names, slices.Min(names))
				return nil, &CycleError{append(slices.Concat(names[least:], names[:least]), names[least])}
			case 0:
				state[on.index] = open
				stack = append(stack, frame{n: on})
			}
		}
	}
	return sorted, nil
}

// dropAgainstQuorum forgets the dependencies of servers that quorum beats: those by which one that is down would
// wait for a host that is not, or, where k3s changes, a server for an agent or the init server for another
// server, directly or by others. What others depend on stays. The nodes come after those that they depend on.
func (g *graph) dropAgainstQuorum(sorted []*node) {
	for _, n := range sorted {
		n.before = slices.DeleteFunc(n.before, func(on *node) bool { return n.Changes && n.phase < phaseOther && n.beats(on.leads) })
		n.leads = -1
		for _, on := range n.before {
			n.leads = max(n.leads, on.leads)
		}
		switch {
		case !n.Changes:
		case n.servers:
			n.leads = max(n.leads, phaseAgent)
		case n.phase == phaseOther: // servers may wait for it, unless they are down
			n.leads = max(n.leads, phaseOther)
		default:
			n.leads = max(n.leads, n.phase)
		}
	}
}

// free takes a host that waits for no other one: one that does not change is done at once.
func (g *graph) free(n *node) {
	switch {
	case !n.Changes:
		g.done(n)
	case n.servers && g.servers > 0:
		g.held = append(g.held, n)
	default:
		heap.Push(&g.ready, n)
	}
}

// done frees those that have waited for a host.
func (g *graph) done(first *node) {
	open := []*node{first}
	for len(open) > 0 {
		n := open[len(open)-1]
		open = open[:len(open)-1]
		g.left--
		last := n.lastBefore
		if n.Changes {
			last = n.step
		}
		for _, waiting := range n.after {
			waiting.lastBefore = max(waiting.lastBefore, last)
			waiting.waits--
			switch {
			case waiting.waits > 0:
			case !waiting.Changes:
				open = append(open, waiting)
			default:
				waiting.overtaken = last >= 0 && g.farthest != nil && waiting.index < g.farthest.index
				g.free(waiting)
			}
		}
	}
}

// next takes the hosts of the next step from those that wait for nothing: the first one, and what may go
// together with it and asks for the same order.
func (g *graph) next() (Step, bool) {
	if len(g.ready) == 0 {
		return Step{}, false
	}
	first := heap.Pop(&g.ready).(*node)
	together := []*node{first}
	var later []*node
	agents, servers, groups := 0, 0, map[string]int{}
	count := func(n *node) {
		if n.Agent {
			agents++
		}
		if n.Server {
			servers++
		}
		for _, group := range n.Groups {
			groups[group]++
		}
	}
	count(first)
	for !first.Critical && len(g.ready) > 0 && g.ready[0].phase == first.phase && g.ready[0].Order == first.Order && len(together) < g.limits.Parallel &&
		len(later) < lookAhead {
		n := heap.Pop(&g.ready).(*node)
		full := func(group string) bool { return groups[group] >= g.limits.Unavailable }
		if n.Critical || n.Server && (servers > 0 || agents > 0) || n.Agent && (servers > 0 || agents >= g.limits.Unavailable) || slices.ContainsFunc(n.Groups, full) {
			later = append(later, n)
			continue
		}
		count(n)
		together = append(together, n)
	}
	for _, n := range later {
		heap.Push(&g.ready, n)
	}
	step := Step{Reason: g.reason(first)}
	for _, n := range together {
		n.step = g.steps
		if g.farthest == nil || n.index > g.farthest.index {
			g.farthest = n
		}
		step.Hosts, step.Delay = append(step.Hosts, n.Name), max(step.Delay, n.Delay)
		if n.lastBefore >= 0 {
			step.After = append(step.After, n.lastBefore)
		}
	}
	slices.Sort(step.Hosts)
	g.steps++
	for _, n := range together {
		if n.Server {
			g.servers--
		}
		g.done(n)
	}
	if g.servers == 0 {
		for _, n := range g.held {
			n.overtaken = false
			heap.Push(&g.ready, n)
		}
		g.held = nil
	}
	return step, true
}

// lookAhead is how many hosts that cannot go together with others are passed over, so that the time grows
// linearly with the plan.
const lookAhead = 16

// reason returns why a host is at its place.
func (g *graph) reason(n *node) Reason {
	switch {
	case n.phase < phaseOther:
		return ByQuorum
	case n.servers && g.farthest != nil && g.farthest.phase < phaseOther:
		return ByQuorum
	case n.overtaken:
		return ByDependency
	}
	return ByOrder
}

// cycle is for hosts that were not reached; it cannot happen after sorted.
func (g *graph) cycle() error {
	var names []string
	for _, n := range g.nodes {
		if n.step < 0 && n.Changes {
			names = append(names, n.Name)
		}
	}
	return fmt.Errorf("no order was found for %s", strings.Join(names, ", "))
}
