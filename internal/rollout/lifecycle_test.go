package rollout

import (
	"context"
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

// rackModel is a rack of machines with etcd as it behaves, to which whole rollouts are made while
// machines die, come back empty or with what they had long ago, lose their receipts, answer in part or
// not at all, and have clocks of their own. It answers as the machines would, by asker and Steps.
type rackModel struct {
	t     *rapid.T
	roles map[string]string // the tables: "i", "s", "a" by host
	pods  int               // changes every server when it changes
	past  []map[string]string

	nodes    map[string]*node
	clusters []map[string]bool // the members of each cluster that was ever founded

	// of the rollout that runs
	plan      *plan.Plan
	agreed    []objection
	before    Situation
	order     []string // of the hosts
	warned    bool     // the founding of a cluster was asked about
	disturbed bool     // machines change while it runs
	calm      bool     // every answer comes, and is complete
	harm      []string
}

// node is a machine.
type node struct {
	on      bool
	system  int
	receipt *receipt.Receipt
	bad     string // instead of a receipt
	// etcd is the name of the server whose state is on its disk, of the cluster with this number
	etcd    string
	cluster int
	up      bool // the server runs
	learner bool // it has joined and does not vote yet
	agent   string
	backup  *node
}

func (n *node) copy() *node { c := *n; c.backup = nil; return &c }

const modelHosts = 5

func modelHost(i int) string { return fmt.Sprintf("h%d", i) }

func newRackModel(t *rapid.T) *rackModel {
	w := &rackModel{t: t, roles: map[string]string{}, nodes: map[string]*node{}, pods: 1}
	servers := rapid.IntRange(1, 4).Draw(t, "servers")
	for i := range modelHosts {
		name := modelHost(i)
		w.nodes[name] = &node{on: true}
		switch {
		case i == 0:
			w.roles[name] = "i"
		case i < servers:
			w.roles[name] = "s"
		default:
			w.roles[name] = rapid.SampledFrom([]string{"", "a"}).Draw(t, "role")
		}
	}
	return w
}

func (w *rackModel) tables() *plan.Plan {
	hosts, containers := "name,interface,ip,admin,tags\n", "host,name,type,ip\n"
	for i := range modelHosts {
		name := modelHost(i)
		role, there := w.roles[name]
		if !there {
			continue
		}
		hosts += fmt.Sprintf("%s,eno1,10.0.0.%d,someone,%s\n", name, 2+i, []string{"left", "right"}[i%2])
		switch role {
		case "i", "s":
			containers += fmt.Sprintf("%s,%s-s,%s,10.0.1.%d\n", name, name, map[string]string{"i": "init", "s": "server"}[role], 2+i)
		case "a":
			containers += fmt.Sprintf("%s,%s-a,agent,10.0.2.%d\n", name, name, 2+i)
		}
	}
	p, problems := plan.Load(fstest.MapFS{
		"plans/hosts.csv": {Data: []byte(hosts)}, "plans/k3s.csv": {Data: []byte(containers)},
		"plans/network.yaml": {Data: []byte("netmask: 16\ngateway: 10.0.200.1\nversions: {nixos: nixos-24.11, k3s: 1.31}\n")},
	})
	require.Zero(w.t, problems.Errors(), "%v", problems)
	return p
}

// edit changes the tables, or takes them back to what they were.
func (w *rackModel) edit() {
	name := modelHost(rapid.IntRange(0, modelHosts-1).Draw(w.t, "host"))
	w.past = append(w.past, maps.Clone(w.roles))
	switch rapid.SampledFrom([]string{"pods", "pods", "pods", "server", "agent", "nothing", "gone", "revert", "init"}).Draw(w.t, "edit") {
	case "pods":
		w.pods++
	case "server":
		if w.roles[name] != "i" {
			w.roles[name] = "s"
		}
	case "agent":
		if w.roles[name] != "i" {
			w.roles[name] = "a"
		}
	case "nothing":
		if w.roles[name] != "i" {
			w.roles[name] = ""
		}
	case "gone":
		if w.roles[name] != "i" {
			delete(w.roles, name)
		}
	case "revert":
		w.roles = maps.Clone(rapid.SampledFrom(w.past).Draw(w.t, "past"))
	case "init":
		if w.roles[name] == "s" {
			for other, role := range w.roles {
				if role == "i" {
					w.roles[other] = "s"
				}
			}
			w.roles[name] = "i"
		}
	}
}

// disturb lets something happen to a machine.
func (w *rackModel) disturb() {
	name := modelHost(rapid.IntRange(0, modelHosts-1).Draw(w.t, "machine"))
	n := w.nodes[name]
	switch rapid.SampledFrom([]string{"dies", "dies", "comes back", "comes back", "comes back empty", "comes back old", "is backed up", "loses its receipt", "receipt is garbled", "receipt of another rack", "server crashes", "server starts", "all servers are replaced"}).Draw(w.t, "event") {
	case "dies":
		n.on = false
	case "comes back":
		n.on, n.up = true, n.etcd != ""
	case "comes back empty":
		*n = node{on: true, backup: n.backup}
	case "comes back old":
		if n.backup != nil {
			backup := n.backup
			*n = *backup.copy()
			n.on, n.up, n.backup = true, n.etcd != "", backup
		}
	case "is backed up":
		n.backup = n.copy()
	case "loses its receipt":
		n.receipt, n.bad = nil, ""
	case "receipt is garbled":
		n.receipt, n.bad = nil, "the receipt cannot be read"
	case "receipt of another rack":
		other := tables(w.t, map[string]string{"x": "i", "y": "s"}, "")
		n.receipt = receiptOf(w.t, other, other.Host("y"))
	case "server crashes":
		n.up = false
	case "server starts":
		n.up = n.on && n.etcd != ""
	case "all servers are replaced":
		for name, role := range w.roles {
			if role == "i" || role == "s" {
				*w.nodes[name] = node{on: true}
			}
		}
	}
}

// healthy counts the members of a cluster that vote, of how many.
func (w *rackModel) healthy(cluster int) (up, members int) {
	members = len(w.clusters[cluster])
	for _, n := range w.nodes {
		switch {
		case n.etcd == "" || n.cluster != cluster || !w.clusters[cluster][n.etcd]:
		case n.learner:
			members--
		case n.on && n.up:
			up++
		}
	}
	return up, members
}

// learners returns the names of the members of a cluster that do not vote.
func (w *rackModel) learners(cluster int) (names []string) {
	for _, n := range w.nodes {
		if n.learner && n.cluster == cluster && w.clusters[cluster][n.etcd] {
			names = append(names, n.etcd)
		}
	}
	slices.Sort(names)
	return names
}

func (w *rackModel) hasQuorum(cluster int) bool {
	up, members := w.healthy(cluster)
	return up >= members/2+1
}

// isHealthy reports whether the server of a machine is a voter of a cluster with a leader.
func (w *rackModel) isHealthy(n *node) bool {
	return n.on && n.up && n.etcd != "" && !n.learner && w.clusters[n.cluster][n.etcd] && w.hasQuorum(n.cluster)
}

// chance is true once in so many times.
func (w *rackModel) chance(n int, of string) bool {
	return !w.calm && rapid.IntRange(1, n).Draw(w.t, of) == n
}

func (w *rackModel) host(_ context.Context, h *plan.Host) Observed {
	n := w.nodes[h.Name]
	if !n.on || w.chance(25, "no answer") {
		return Observed{Unreachable: "no route to host"}
	}
	system := fmt.Sprintf("/nix/store/%d", n.system)
	o := Observed{System: system, Profile: system, Booted: system, LAN: true, Receipt: n.receipt, BadReceipt: n.bad}
	if n.etcd != "" {
		o.Etcd = []string{n.etcd}
	}
	return o
}

func (w *rackModel) server(_ context.Context, h *plan.Host, name string) Health {
	n := w.nodes[h.Name]
	switch {
	case n.etcd != name || !w.isHealthy(n):
		return Health{Why: "etcd does not answer"}
	case w.chance(12, "server does not answer in time"):
		return Health{Why: "no answer in time"}
	case w.chance(6, "etcd does not name its members"):
		return Health{Ready: true}
	}
	return Health{Ready: true, Members: slices.Sorted(maps.Keys(w.clusters[n.cluster])), Learners: w.learners(n.cluster)}
}

func (w *rackModel) say(format string, args ...any) {
	w.harm = append(w.harm, fmt.Sprintf(format, args...))
}

func (w *rackModel) Snapshot(context.Context, string) error { return nil }

func (w *rackModel) Check(ctx context.Context, host string, work Work, _ Say) error {
	if w.disturbed && w.chance(4, "event before a step") {
		w.disturb()
	}
	h := w.plan.Host(host)
	joins := h.Agent != nil && w.before.Observed[host].Receipt.AgentName() != h.Agent.Name
	if h.Server == nil && !work.Server && !joins {
		return nil
	}
	now := lookAgain(ctx, w.before, host, work, w)
	if err := sameMachine(host, w.before.Observed[host], now.Observed[host]); err != nil {
		return err
	}
	return notAgreed(judge(now, true), w.agreed)
}

// Apply is what a machine and etcd do when the host is activated; what harms the cluster is remembered.
func (w *rackModel) Apply(_ context.Context, host string, work Work, _ Say) (string, error) {
	h, n := w.plan.Host(host), w.nodes[host]
	if !n.on {
		return "", fmt.Errorf("no route to host")
	}
	if !work.OnlyNames || work.Restarts() {
		if w.calm && w.isHealthy(n) && len(w.clusters[n.cluster]) <= 2 {
			if other := w.couldJoinBefore(host, n.cluster); other != "" {
				w.say("%s is stopped although it has the quorum, and %s could join before", host, other)
			}
		}
		w.stop(host, n)
		if h.Server != nil {
			w.start(h.Server, n)
		}
	}
	if h.Agent != nil {
		n.agent = h.Agent.Name
	}
	n.system++
	return fmt.Sprintf("/nix/store/%d", n.system), nil
}

// couldJoinBefore returns the host of a server that comes after one of one or two members, and whose vote, with those
// of others like it, would let that one be missed; or "". The members get nothing but another role.
func (w *rackModel) couldJoinBefore(host string, cluster int) (later string) {
	votes := len(w.clusters[cluster])
	for i, other := range w.order {
		h := w.plan.Host(other)
		if h.Server == nil || w.clusters[cluster][h.Server.Name] {
			continue
		}
		votes++
		if i > slices.Index(w.order, host) {
			later = other
		}
	}
	for name, n := range w.nodes {
		if w.isHealthy(n) && w.before.Observed[name].Receipt.Inputs.Data["pods"] != fmt.Sprint(w.pods) {
			return ""
		}
	}
	if votes < 3 {
		return ""
	}
	return later
}

func (w *rackModel) stop(host string, n *node) {
	if w.isHealthy(n) {
		up, members := w.healthy(n.cluster)
		if up-1 < members/2+1 && members > 2 {
			w.say("%s is stopped with %d of %d members up", host, up, members)
		}
	}
	n.up = false
}

func (w *rackModel) start(server *plan.Container, n *node) {
	name := server.Host.Name
	switch {
	case n.etcd == server.Name:
		n.up = true
		n.learner = n.learner && !w.hasQuorum(n.cluster) // etcd promotes it
	case server.Role == plan.Init:
		for _, other := range slices.Sorted(maps.Keys(w.nodes)) {
			if _, planned := w.roles[other]; planned && w.nodes[other] != n && w.nodes[other].etcd != "" && !w.warned {
				w.say("%s founds a cluster, and %s has one", name, other)
			}
		}
		w.clusters = append(w.clusters, map[string]bool{server.Name: true})
		n.etcd, n.cluster, n.up = server.Name, len(w.clusters)-1, true
	default:
		var by *node // it asks a server that answers
		for _, other := range w.plan.Servers() {
			if n := w.nodes[other.Host.Name]; other != server && w.isHealthy(n) && (by == nil || other.Role == plan.Init) {
				by = n
			}
		}
		if by == nil {
			w.say("%s joins, and no server answers", name)
			return
		}
		cluster := w.clusters[by.cluster]
		if cluster[server.Name] {
			w.say("%s is empty and still a member", name)
			return
		}
		if learners := w.learners(by.cluster); len(learners) > 0 {
			w.say("%s joins while %s is a learner", name, learners)
			return
		}
		if up, members := w.healthy(by.cluster); up < members {
			w.say("%s joins with %d of %d members up", name, up, members)
			return
		}
		cluster[server.Name] = true
		n.etcd, n.cluster, n.up, n.learner = server.Name, by.cluster, true, w.chance(6, "stays a learner")
	}
}

func (w *rackModel) Gate(_ context.Context, host, _ string, _ Work, _ Say) error {
	n := w.nodes[host]
	if !n.on || w.plan.Host(host).Server != nil && !w.isHealthy(n) {
		return fmt.Errorf("%s did not become healthy", host)
	}
	return nil
}

func (w *rackModel) Record(_ context.Context, host, system string) error {
	n := w.nodes[host]
	if !n.on {
		return fmt.Errorf("no route to host")
	}
	n.receipt, n.bad = receiptOf(w.t, w.plan, w.plan.Host(host)), ""
	n.receipt.System, n.receipt.Inputs = system, w.inputs(w.plan)[host]
	n.receipt.Fingerprint = n.receipt.Inputs.Fingerprint()
	// the clock of whoever deploys
	n.receipt.Time = time.Unix(int64(rapid.IntRange(0, 1000).Draw(w.t, "clock")), 0)
	return nil
}

func (w *rackModel) inputs(p *plan.Plan) map[string]fingerprint.Inputs {
	all := map[string]fingerprint.Inputs{}
	names := map[string]string{}
	for _, h := range p.Hosts {
		names[h.Name] = h.Address.String()
	}
	for _, h := range p.Hosts {
		in := receiptOf(w.t, p, h).Inputs
		in.Names, in.Servers = names, p.InitServer().Name
		if h.Server != nil {
			in.Data["pods"], in.Data["server.type"] = fmt.Sprint(w.pods), string(h.Server.Role)
		}
		all[h.Name] = in
	}
	return all
}

// deploy is a whole deployment without --force, of all hosts or of some, and reports whether it was begun.
func (w *rackModel) deploy(selectors ...string) bool {
	w.plan, w.harm = w.tables(), nil
	if len(selectors) == 0 {
		selectors = append([]string{"*", "*", "*", "@k3s-server", "@left", "!h1"}, w.plan.HostNames()...)
	}
	selected, err := w.plan.Select(rapid.SampledFrom(selectors).Draw(w.t, "selector"))
	if err != nil {
		return false
	}
	rack := &Rack{Situation: Situation{Plan: w.plan}, Selected: selected, Inputs: w.inputs(w.plan), asker: w,
		All:         rapid.Bool().Draw(w.t, "--all"),
		ReadSecrets: func(*plan.Host) (fingerprint.Contents, error) { return nil, nil }}
	require.NoError(w.t, rack.Survey(context.Background()))
	waves, problems := rack.Waves(context.Background(), Limits{Unavailable: 1, Parallel: 1})
	if slices.ContainsFunc(problems, isRefused) {
		return false
	}
	for _, wave := range waves {
		servers := slices.DeleteFunc(slices.Clone(wave.Hosts), func(host string) bool {
			return w.plan.Host(host).Server == nil && !rack.Work[host].Server
		})
		require.LessOrEqual(w.t, len(servers), 1, "two servers in one wave")
	}
	w.before, w.agreed, w.order = rack.Situation, rack.objections, Proposal{Waves: waves}.hosts()
	w.warned = slices.ContainsFunc(problems, func(p diag.Problem) bool { return p.Code == "cluster-founded-again" })
	Run(context.Background(), waves, rack.Work, w, func(Event) {})
	if len(w.harm) > 0 {
		w.t.Fatalf("%s\n%v\n%s", strings.Join(w.harm, "\n"), w.roles, messages(problems))
	}
	return true
}

// Over racks, histories and accidents: no rollout that is not forced stops a healthy server when that
// loses the quorum, founds a second cluster without asking, or starts a server that etcd would refuse.
func TestNoRolloutHarmsTheCluster(t *testing.T) {
	defer func(n int) { askParallel = n }(askParallel)
	askParallel = 1 // as draws belong to one goroutine
	begun, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		w := newRackModel(t)
		if rapid.IntRange(0, 3).Draw(t, "fresh") < 3 {
			w.calm = true
			require.True(t, w.deploy("*"))
			w.calm = false
		}
		for range rapid.IntRange(1, 10).Draw(t, "steps") {
			for range rapid.IntRange(0, 2).Draw(t, "edits") {
				w.edit()
			}
			for range rapid.IntRange(0, 2).Draw(t, "events") {
				w.disturb()
			}
			w.disturbed = rapid.Bool().Draw(t, "disturbed")
			if w.deploy() {
				begun++
			} else {
				refused++
			}
		}
	})
	require.NotZero(t, begun)
	require.NotZero(t, refused)
}

// Servers leave and others come, as by decommission and replace: whenever one of two or fewer members only gets another
// role, it keeps running until the new servers vote. What the new ones would not share comes to the members first.
func TestServersJoinBeforeOthersRestart(t *testing.T) {
	defer func(n int) { askParallel = n }(askParallel)
	askParallel = 1
	first, last := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		w := &rackModel{t: t, roles: map[string]string{"h0": "i"}, nodes: map[string]*node{}, pods: 1, calm: true}
		for i := range modelHosts {
			w.nodes[modelHost(i)] = &node{on: true}
		}
		members := rapid.IntRange(1, 2).Draw(t, "members")
		if members == 2 {
			w.roles["h1"] = "s"
		}
		require.True(t, w.deploy("*"))
		for i := range rapid.IntRange(1, 2).Draw(t, "new servers") {
			w.roles[modelHost(2+i)] = "s"
		}
		if members == 2 && rapid.Bool().Draw(t, "another init server") {
			w.roles["h0"], w.roles["h1"] = "s", "i"
		}
		if rapid.Bool().Draw(t, "other options") {
			w.pods++
		}
		require.True(t, w.deploy("*"))
		up, all := w.healthy(0)
		require.Equal(t, len(w.tables().Servers()), all)
		require.Equal(t, all, up)
		if w.order[0] > "h1" {
			first++
		} else {
			last++
		}
	})
	require.NotZero(t, first)
	require.NotZero(t, last)
}
