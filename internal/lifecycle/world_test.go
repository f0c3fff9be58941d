package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/ask"
	"k3splan/internal/files"
	"k3splan/internal/fingerprint"
	"k3splan/internal/k3s"
	"k3splan/internal/plan"
	"k3splan/internal/receipt"
	"k3splan/internal/remote"
	"k3splan/internal/rollout"
	"k3splan/internal/secrets"
)

// testing is what a test and a property have in common.
type testingT interface {
	require.TestingT
	Helper()
}

// world is a rack whose machines, etcd and Nodes are here in memory, and its project in a folder.
type world struct {
	t   testingT
	dir string

	away     map[string]bool // hosts that do not answer
	members  map[string]bool // of etcd, by the server's name; true for voters
	runs     map[string]bool // servers and agents
	held     map[string]bool // units
	empty    map[string]bool // servers whose host has no state of them
	receipts map[string]bool
	nodes    map[string]bool
	password map[string]bool // of Nodes
	pods     map[string]bool // Nodes with pods that can go elsewhere
	state    map[string]bool // hosts with the state of k3s

	// failAt is which change fails, counted from 1: before it has an effect, or with after just then.
	// With cancel the user interrupts it.
	changes, failAt int
	after           bool
	cancel          context.CancelFunc
	log             []string
	// lowest is the smallest number of healthy voters beyond the majority, ever.
	lowest int
	leases int
}

// newWorld is a rack of hosts h0, h1, … with a server each, of which the first is the init server; every
// host has an agent, too, and one more host, "a", only that.
func newWorld(t testingT, dir string, servers int) *world {
	w := &world{t: t, dir: dir, away: map[string]bool{}, members: map[string]bool{}, runs: map[string]bool{}, held: map[string]bool{}, empty: map[string]bool{},
		receipts: map[string]bool{}, nodes: map[string]bool{}, password: map[string]bool{}, pods: map[string]bool{}, state: map[string]bool{}, lowest: 99}
	hosts, containers := "name,interface,ip,admin,serial\n# the rack\n", "host,name,type,ip\n"
	known := ""
	for i := range servers + 1 {
		name := fmt.Sprintf("h%d", i)
		if i == servers {
			name = "a"
		} else {
			kind := "server"
			if i == 0 {
				kind = "init"
			}
			containers += fmt.Sprintf("%s,%s-s,%s,10.0.1.%d\n", name, name, kind, 10+i)
			w.members[name+"-s"], w.runs[name+"-s"] = true, true
		}
		hosts += fmt.Sprintf("%s,eno1,10.0.0.%d,someone,disk%d\n", name, 10+i, i)
		containers += fmt.Sprintf("%s,%s-a,agent,10.0.2.%d\n", name, name, 10+i)
		w.runs[name+"-a"], w.nodes[name+"-a"], w.password[name+"-a"], w.pods[name+"-a"] = true, true, true, true
		w.receipts[name], w.state[name] = true, true
	}
	w.write("plans/hosts.csv", hosts)
	w.write("plans/k3s.csv", containers)
	w.write("plans/network.yaml", "netmask: 16\ngateway: 10.0.200.1\nversions: {nixos: nixos-24.11, k3s: 1.31}\n")
	for _, host := range w.plan().Hosts {
		private, public, err := secrets.NewHostKey(host.Name)
		require.NoError(t, err)
		w.write("secrets/hosts/"+host.Name+"_ed25519", string(private))
		w.write("secrets/"+host.Name+"passwd", "hash\n")
		known += host.Name + " " + remote.KeyLine(public) + " made by k3splan\n"
	}
	w.write("plans/known_hosts", known)
	for _, folder := range []string{"secrets", "secrets/hosts"} {
		require.NoError(t, os.Chmod(filepath.Join(dir, folder), 0o700))
	}
	return w
}

func (w *world) write(name, text string) {
	file := filepath.Join(w.dir, name)
	require.NoError(w.t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(w.t, os.WriteFile(file, []byte(text), 0o600))
}

func (w *world) read(name string) string {
	content, err := os.ReadFile(filepath.Join(w.dir, name))
	require.NoError(w.t, err)
	return string(content)
}

// tree is the project as text, to be compared.
func (w *world) tree() string {
	var all strings.Builder
	require.NoError(w.t, filepath.WalkDir(w.dir, func(file string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == ".k3splan" {
			return fs.SkipDir
		}
		if err == nil && !entry.IsDir() {
			content, _ := os.ReadFile(file)
			fmt.Fprintf(&all, "%s\n%s\n", file, content)
		}
		return err
	}))
	return all.String()
}

// facts are what is so on the machines, to be compared.
func (w *world) facts() string {
	return fmt.Sprint(w.members, w.runs, w.held, w.receipts, w.nodes, w.password, w.pods, w.state)
}

func (w *world) plan() *plan.Plan {
	w.t.Helper()
	p, problems := plan.Load(files.In(w.dir))
	require.Zero(w.t, problems.Errors(), "%v", problems)
	return p
}

func (w *world) request(host string) Request {
	w.t.Helper()
	p := w.plan()
	require.NotNil(w.t, p.Host(host))
	vault, err := secrets.OpenVault(w.dir, p.Network.Secrets, nil)
	require.NoError(w.t, err)
	return Request{
		Dir: w.dir, Files: func() fs.FS { return files.In(w.dir) }, Plan: p, Host: p.Host(host), Vault: vault, Rack: w,
		Lease: func(context.Context) (Lease, error) { w.leases++; return &heldLease{w}, nil },
	}
}

// die switches a machine off.
func (w *world) die(host string) {
	w.away[host], w.runs[host+"-s"], w.runs[host+"-a"] = true, false, false
}

type heldLease struct{ w *world }

func (l *heldLease) Renew(ctx context.Context) error { return ctx.Err() }
func (l *heldLease) Release()                        { l.w.leases-- }

// voters counts the voters of etcd, and the healthy ones.
func (w *world) voters() (healthy, all int) {
	for name, votes := range w.members {
		if votes {
			all++
			if w.runs[name] {
				healthy++
			}
		}
	}
	return healthy, all
}

func (w *world) hasQuorum() bool {
	healthy, all := w.voters()
	needed, _ := plan.Quorum(all)
	return all > 0 && healthy >= needed
}

// observe remembers how near etcd came to losing its quorum.
func (w *world) observe() {
	healthy, all := w.voters()
	needed, _ := plan.Quorum(all)
	w.lowest = min(w.lowest, healthy-needed)
}

var errInjected = errors.New("the connection was lost")

// change does something on a machine, unless it is the change that fails.
func (w *world) change(ctx context.Context, what string, effect func()) error {
	w.changes++
	w.log = append(w.log, what)
	fails := w.changes == w.failAt
	if !fails || w.after {
		effect()
		w.observe()
	}
	if fails && w.cancel != nil {
		w.cancel()
		return ctx.Err()
	}
	if fails {
		return errInjected
	}
	return nil
}

func (w *world) Look(_ context.Context, host *plan.Host) (rollout.Situation, error) {
	p := w.plan()
	s := rollout.Situation{Plan: p, Observed: map[string]rollout.Observed{}, Health: map[string]rollout.Health{}}
	for _, h := range p.Hosts {
		if h.Server == nil && h.Name != host.Name {
			continue
		}
		if w.away[h.Name] {
			s.Observed[h.Name] = rollout.Observed{Unreachable: "no answer in 20s"}
			continue
		}
		o := rollout.Observed{System: "/nix/store/x"}
		if w.receipts[h.Name] {
			data := map[string]string{"agent.name": h.Name + "-a"}
			if h.Server != nil {
				data["server.name"] = h.Server.Name
			}
			o.Receipt = &receipt.Receipt{Inputs: fingerprint.Inputs{Data: data}}
		}
		if h.Server != nil && w.state[h.Name] && !w.empty[h.Server.Name] {
			o.Etcd = []string{h.Server.Name}
		}
		s.Observed[h.Name] = o
		if h.Server == nil || o.Receipt == nil && o.Etcd == nil {
			continue
		}
		votes, isMember := w.members[h.Server.Name]
		health := rollout.Health{Why: "it does not run"}
		if w.runs[h.Server.Name] && isMember && votes && w.hasQuorum() {
			health = rollout.Health{Ready: true}
			for name, votes := range w.members {
				health.Members = append(health.Members, name)
				if !votes {
					health.Learners = append(health.Learners, name)
				}
			}
			slices.Sort(health.Members)
		}
		s.Health[h.Name] = health
	}
	return s, nil
}

func (w *world) helps(helper *plan.Container) error {
	if w.away[helper.Host.Name] || !w.runs[helper.Name] || !w.hasQuorum() {
		return errors.New(helper.Name + " does not answer")
	}
	return nil
}

func (w *world) Reaches(_ context.Context, helper *plan.Container, address netip.Addr) bool {
	for _, server := range w.plan().Servers() {
		if server.Address == address {
			return w.runs[server.Name] && w.helps(helper) == nil
		}
	}
	return false
}

func (w *world) Members(_ context.Context, helper *plan.Container) (all []k3s.Member, err error) {
	for name, votes := range w.members {
		all = append(all, k3s.Member{ID: "id-" + name, Name: name, Learner: !votes})
	}
	return all, w.helps(helper)
}

func (w *world) RemoveMember(ctx context.Context, helper *plan.Container, id string) error {
	if err := w.helps(helper); err != nil {
		return err
	}
	name := strings.TrimPrefix(id, "id-")
	require.False(w.t, w.runs[name], "%s still runs: it would join again", name)
	if _, there := w.members[name]; !there {
		return errors.New("member not found")
	}
	return w.change(ctx, "remove "+name, func() { delete(w.members, name) })
}

func (w *world) Node(_ context.Context, helper *plan.Container, name string) (*k3s.Node, error) {
	if err := w.helps(helper); err != nil || !w.nodes[name] {
		return nil, err
	}
	return &k3s.Node{Name: name, Ready: w.runs[name]}, nil
}

func (w *world) Remembers(_ context.Context, helper *plan.Container, name string) (bool, error) {
	return w.password[name], w.helps(helper)
}

func (w *world) Drain(ctx context.Context, helper *plan.Container, name string, _ time.Duration) error {
	if err := w.helps(helper); err != nil {
		return err
	}
	require.True(w.t, w.nodes[name])
	require.True(w.t, w.runs[name], "pods on %s would never end", name)
	return w.change(ctx, "drain "+name, func() { w.pods[name] = false })
}

func (w *world) DeleteNode(ctx context.Context, helper *plan.Container, name string) error {
	if err := w.helps(helper); err != nil {
		return err
	}
	require.False(w.t, w.runs[name])
	if err := w.change(ctx, "delete "+name, func() { w.nodes[name] = false }); err != nil {
		return err
	}
	return w.change(ctx, "forget password of "+name, func() { w.password[name] = false })
}

// container is what a unit runs.
func container(unit string) string {
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(unit, "podman-"), "container@"), ".service")
}

func (w *world) answers(host *plan.Host) error {
	if w.away[host.Name] {
		return fmt.Errorf("%s does not answer", host.Name)
	}
	return nil
}

func (w *world) Unit(_ context.Context, host *plan.Host, unit string) (runs, held bool, err error) {
	runs = w.runs[container(unit)]
	return runs, w.held[unit] && !runs, w.answers(host)
}

func (w *world) Hold(ctx context.Context, host *plan.Host, unit string) (bool, error) {
	if err := w.answers(host); err != nil {
		return false, err
	}
	for _, step := range []struct {
		what   string
		effect func()
	}{
		{"forget the receipt of " + host.Name, func() { w.receipts[host.Name] = false }},
		{"stop " + container(unit), func() { w.runs[container(unit)] = false }},
		{"mask " + unit, func() { w.held[unit] = true }},
	} {
		if err := w.change(ctx, step.what, step.effect); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (w *world) HasReceipt(_ context.Context, host *plan.Host) (bool, error) {
	return w.receipts[host.Name], w.answers(host)
}

func (w *world) Forget(ctx context.Context, host *plan.Host) error {
	return w.change(ctx, "forget the receipt of "+host.Name, func() { w.receipts[host.Name] = false })
}

func (w *world) HasState(_ context.Context, host *plan.Host) (bool, error) {
	return w.state[host.Name], w.answers(host)
}

func (w *world) Wipe(ctx context.Context, host *plan.Host) error {
	if err := w.answers(host); err != nil {
		return err
	}
	for _, unit := range rollout.Units(host) {
		require.False(w.t, w.runs[container(unit)], "%s runs", unit)
	}
	return w.change(ctx, "wipe "+host.Name, func() { w.state[host.Name] = false })
}

// user confirms everything, and remembers what was said.
type user struct {
	ask.User
	decline  bool
	asked    []string
	proposed *Outcome
}

func (u *user) Confirm(_ context.Context, question string) error {
	u.asked = append(u.asked, question)
	if u.decline {
		return ask.ErrDeclined
	}
	return nil
}
func (u *user) Type(ctx context.Context, question, word string) error {
	return u.Confirm(ctx, question+" Type "+word)
}
func (u *user) Say(string, ...any)        {}
func (u *user) Warn(string, ...any)       {}
func (u *user) Progress(int) ask.Progress { return noProgress{} }
func (u *user) Propose(o *Outcome)        { u.proposed = o }

type noProgress struct{}

func (noProgress) Step(string, string, string) {}
func (noProgress) Done(string, string)         {}
func (noProgress) Drop(string)                 {}
func (noProgress) Stop()                       {}

func asError[T error](err error, to *T) bool { return errors.As(err, to) }

// withKeys lets a replacement know the hosts by their keys.
func withKeys(w *world) func(*Replacement) {
	return func(r *Replacement) {
		r.Keys, _ = remote.ReadKnownHosts(files.In(w.dir), w.plan().HostNames(), false)
	}
}
