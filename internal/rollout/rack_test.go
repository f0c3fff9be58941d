package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
	"k3splan/internal/fingerprint"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
)

// hostsOf plays the hosts of a plan by an ssh on PATH: it gives the answers that a test has put there,
// and a host without one does not answer.
type hostsOf struct {
	t      *testing.T
	folder string
}

func playHosts(t *testing.T) *hostsOf {
	h := &hostsOf{t, t.TempDir()}
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "ssh"), []byte(`#!/bin/sh
while [ "$1" != -- ]; do target=$1; shift; done
shift 4
case $(cat) in *k3splan-lan*) question=facts ;; *readyz*) question=health ;; *leases*) question=nodes ;; *"restart k3s"*) question=restart ;; esac
echo "$question ${target#root@}" "$@" >> "`+h.folder+`/asked"
cat "`+h.folder+`/$question-${target#root@}" 2> /dev/null && exit
echo noise >&2
echo "$target is away" >&2
exit 255
`), 0o755))
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	return h
}

func (h *hostsOf) answer(question string, host *plan.Host, text string) {
	h.t.Helper()
	require.NoError(h.t, os.WriteFile(filepath.Join(h.folder, question+"-"+host.Target.Host), []byte(text), 0o600))
}

// deployed lets a host say that it was deployed by a plan, with this server token.
func (h *hostsOf) deployed(p *plan.Plan, host *plan.Host, token string) {
	h.t.Helper()
	receipt := receiptOf(h.t, p, host)
	receipt.Secrets = fingerprint.Contents{serverToken: []byte(token)}.Seal()
	data, err := json.Marshal(receipt)
	require.NoError(h.t, err)
	h.answer("facts", host, "system /nix/store/x\nprofile /nix/store/x\nbooted /nix/store/x\nlan yes\nreceipt\n"+string(data)+"\n")
}

// asked gives the questions since the last call, sorted.
func (h *hostsOf) asked() []string {
	file := filepath.Join(h.folder, "asked")
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	require.NoError(h.t, os.Remove(file))
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	slices.Sort(lines)
	return lines
}

func rackOf(p *plan.Plan, hosts ...string) *Rack {
	r := &Rack{
		Situation: Situation{Plan: p}, Machine: (&remote.Config{File: "none"}).Machines("root"), Inputs: map[string]fingerprint.Inputs{},
		ReadSecrets: func(*plan.Host) (fingerprint.Contents, error) {
			return fingerprint.Contents{serverToken: []byte("today's")}, nil
		},
	}
	for _, host := range p.Hosts {
		r.Inputs[host.Name] = fingerprint.Inputs{Data: map[string]string{"new": "everywhere"}}
		if slices.Contains(hosts, host.Name) {
			r.Selected = append(r.Selected, host)
		}
	}
	return r
}

func TestRackAsksWhomItMust(t *testing.T) {
	p := tables(t, map[string]string{"olaf": "ia", "ulf": "s", "karl": "a", "ulrich": ""}, "")
	at := func(host string) string { return p.Host(host).Target.Host }
	hosts := playHosts(t)
	hosts.deployed(p, p.Host("ulrich"), "today's")
	hosts.deployed(p, p.Host("olaf"), "an older one")
	hosts.answer("health", p.Host("olaf"), "readyz ok\n")

	r := rackOf(p, "ulrich")
	require.NoError(t, r.Survey(context.Background()))
	waves, _ := r.Waves(context.Background(), Limits{Parallel: 1})
	require.Equal(t, []string{"ulrich"}, waves[0].Hosts)
	require.Equal(t, []string{"facts " + at("ulrich")}, hosts.asked(), "a host without containers concerns no server")

	r = rackOf(p, "karl")
	require.NoError(t, r.Survey(context.Background()))
	require.Equal(t, []string{"facts " + at("karl"), "facts " + at("olaf"), "facts " + at("ulf")}, hosts.asked())
	require.Equal(t, "root@"+at("karl")+" is away", r.Observed["karl"].Unreachable, "the last line, without the host's name")
	require.Empty(t, r.Work, "of a host that does not answer it is not known; olaf was not selected")
	require.Equal(t, []string{"olaf"}, r.OtherToken)

	r = rackOf(p, "olaf", "ulf")
	require.NoError(t, r.Survey(context.Background()))
	require.True(t, r.Work["olaf"].System)
	hosts.asked()
	r.Waves(context.Background(), Limits{Parallel: 1})
	require.Equal(t, []string{"health " + at("olaf") + " olaf-s"}, hosts.asked(), "a server may stop; ulf is away")
	require.Equal(t, "etcd does not answer", r.Health["olaf"].Why)
}

// A server is asked by the name that it was deployed with.
func TestRackAsksServersByTheirOldNames(t *testing.T) {
	before := tables(t, map[string]string{"olaf": "i"}, "")
	data, err := json.Marshal(before.Model())
	require.NoError(t, err)
	p, err := plan.FromModel([]byte(strings.ReplaceAll(string(data), "olaf-s", "odin-s"))) // today's
	require.NoError(t, err)
	hosts := playHosts(t)
	hosts.deployed(before, before.Host("olaf"), "today's")
	r := rackOf(p, "olaf")
	require.NoError(t, r.Survey(context.Background()))
	r.Waves(context.Background(), Limits{Parallel: 1})
	require.Contains(t, hosts.asked(), "health "+p.Host("olaf").Target.Host+" olaf-s")
}

// A token that a deployment was about to bring when it ended is brought again, and is not taken for one that
// somebody has changed.
func TestRackKnowsAnAttempt(t *testing.T) {
	p := tables(t, map[string]string{"karl": ""}, "")
	hosts := playHosts(t)
	hosts.deployed(p, p.Host("karl"), "today's")
	file := filepath.Join(hosts.folder, "facts-"+p.Host("karl").Target.Host)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	sealed, err := json.Marshal(fingerprint.Contents{serverToken: []byte("another")}.Seal())
	require.NoError(t, err)
	hosts.answer("facts", p.Host("karl"), "attempt "+string(sealed)+"\n"+string(text))
	r := rackOf(p, "karl")
	require.NoError(t, r.Survey(context.Background()))
	require.Equal(t, []string{serverToken}, r.Work["karl"].Secrets)
	require.Empty(t, r.OtherToken)
}

func TestRackEnds(t *testing.T) {
	p := tables(t, map[string]string{"olaf": "i"}, "")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(os.ErrDeadlineExceeded)
	playHosts(t)
	require.ErrorIs(t, rackOf(p, "olaf").Survey(ctx), os.ErrDeadlineExceeded, "interrupted: nothing is known of anybody")

	r := rackOf(p, "olaf")
	r.ReadSecrets = func(*plan.Host) (fingerprint.Contents, error) { return nil, os.ErrPermission }
	require.ErrorIs(t, r.Survey(context.Background()), os.ErrPermission)

	t.Setenv("PATH", t.TempDir())
	require.EqualError(t, rackOf(p, "olaf").Survey(context.Background()), "ssh is not on PATH")
}

func TestStatus(t *testing.T) {
	p := tables(t, map[string]string{"olaf": "ia"}, "")
	for name, test := range map[string]struct {
		change  func(*Rack, *Observed, map[string]Node)
		missing string
		want    HostStatus
	}{
		"well": {func(*Rack, *Observed, map[string]Node) {}, "", HostStatus{Healthy: true, State: StateCurrent}},
		"to be deployed": {func(r *Rack, _ *Observed, _ map[string]Node) {
			r.Work["olaf"] = Work{System: true, Reasons: []string{"a cell"}}
		}, "", HostStatus{Healthy: true, State: StateChanged, Reasons: []string{"a cell"}}},
		"new": {func(_ *Rack, o *Observed, _ map[string]Node) { o.Receipt = nil }, "",
			HostStatus{State: StateNew}},
		"another system": {func(_ *Rack, o *Observed, _ map[string]Node) { o.System = "/nix/store/y" }, "", HostStatus{State: StateForeign}},
		"failed units":   {func(_ *Rack, o *Observed, _ map[string]Node) { o.Failed = []string{"nginx.service"} }, "", HostStatus{State: StateCurrent, FailedUnits: []string{"nginx.service"}}},
		"away": {func(r *Rack, o *Observed, _ map[string]Node) {
			*o = Observed{Unreachable: "no route"}
			delete(r.Health, "olaf")
		}, "no server answers", HostStatus{State: StateUnreachable, Reasons: []string{"no route"}, Server: "unknown", Node: "unknown"}},
		"server not ready": {func(r *Rack, _ *Observed, _ map[string]Node) {
			r.Health["olaf"] = Health{Why: "etcd has no leader", Version: "v1"}
		}, "", HostStatus{State: StateCurrent, Server: "etcd has no leader"}},
		"server not asked": {func(r *Rack, _ *Observed, _ map[string]Node) { delete(r.Health, "olaf") }, "", HostStatus{State: StateCurrent, Server: "not deployed"}},
		"Node not ready":   {func(_ *Rack, _ *Observed, n map[string]Node) { n["olaf-a"] = Node{Why: "its disk is full"} }, "", HostStatus{State: StateCurrent, Node: "its disk is full"}},
		"no Node":          {func(_ *Rack, _ *Observed, n map[string]Node) { delete(n, "olaf-a") }, "", HostStatus{State: StateCurrent, Node: "not registered"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Rack{Situation: living(t, p)}
			r.Health["olaf"] = Health{Ready: true, Version: "v1"}
			nodes := map[string]Node{"olaf-a": {Ready: true, Version: "v2"}}
			o := r.Observed["olaf"]
			test.change(r, &o, nodes)
			r.Observed["olaf"] = o
			got := r.status(p.Host("olaf"), nodes, test.missing)
			require.Equal(t, test.want.Healthy, got.Healthy)
			require.Equal(t, test.want.State, got.State)
			require.Equal(t, append([]string{}, test.want.Reasons...), got.Reasons)
			require.Equal(t, append([]string{}, test.want.FailedUnits...), got.FailedUnits)
			for _, part := range [][2]string{{test.want.Server, got.Server}, {test.want.Node, got.Node}} {
				if part[0] == "" {
					part[0] = "ready"
				}
				require.Equal(t, part[0], part[1])
			}
			if o.Receipt != nil {
				require.Equal(t, time.Unix(1, 0), got.DeployedAt)
			}
		})
	}
}

// Of several servers the first that answers tells about the Nodes.
func TestStatusAsksTheServers(t *testing.T) {
	p := tables(t, map[string]string{"olaf": "ia", "ulf": "s"}, "")
	hosts := playHosts(t)
	const ready = "readyz ok\netcd_server_has_leader 1\netcd_server_is_learner 0\nversion v1\n"
	for _, host := range p.Hosts {
		hosts.deployed(p, host, "today's")
		hosts.answer("health", host, ready)
	}
	hosts.answer("nodes", p.Host("ulf"), `{"items":[{"metadata":{"name":"olaf-a"},"status":{"conditions":[{"type":"Ready","status":"True"}]}}]}
leases
{"items":[]}`)
	r := rackOf(p, "olaf")
	require.NoError(t, r.Survey(context.Background()))
	rows, err := r.Status(context.Background())
	require.NoError(t, err)
	require.Len(t, rows, 1)
	require.Equal(t, []string{"ready", "v1", "ready"}, []string{rows[0].Server, rows[0].ServerK3s, rows[0].Node})
	require.Contains(t, hosts.asked(), "nodes "+p.Host("olaf").Target.Host+" olaf-s", "which was asked first, and did not answer")
}

// Servers are restarted one after the other, each only while all others are healthy.
func TestRestart(t *testing.T) {
	p := tables(t, map[string]string{"olaf": "i", "rolf": "s", "ulf": "s"}, "")
	hosts := playHosts(t)
	const ready = "readyz ok\netcd_server_has_leader 1\netcd_server_is_learner 0\nversion v1\n"
	members := ""
	for _, server := range p.Servers() {
		members += "member 8e9e05c52164694d, started, " + server.Name + "-1a2b3c4d, x, x, false\n"
	}
	for _, host := range p.Hosts {
		hosts.deployed(p, host, "today's")
		hosts.answer("health", host, ready+members)
		hosts.answer("restart", host, "")
	}
	renewed := 0
	r := Restart{Plan: p, Machine: (&remote.Config{File: "none"}).Machines("root"), Timeout: time.Second, Pause: time.Millisecond,
		Renew: func(context.Context) error { renewed++; return nil }}
	restarts := func() (list []string) {
		for _, question := range hosts.asked() {
			if strings.HasPrefix(question, "restart ") {
				list = append(list, strings.Fields(question)[2])
			}
		}
		return list
	}
	var done []string
	servers := func() error {
		done = nil
		return r.Servers(context.Background(), func(server string) { done = append(done, server) })
	}
	require.NoError(t, r.Check(context.Background()))
	require.NoError(t, servers())
	require.Equal(t, []string{"olaf-s", "rolf-s", "ulf-s"}, done, "the init server first")
	require.Equal(t, []string{"olaf-s", "rolf-s", "ulf-s"}, restarts())
	require.Equal(t, 3, renewed)

	hosts.answer("health", p.Host("ulf"), "readyz no\n")
	const refused = "refused: olaf would be restarted while the server on ulf (/readyz: no) is down: of 3 servers etcd needs 2, and 1 would be left"
	require.EqualError(t, r.Check(context.Background()), refused)
	err := servers()
	require.EqualError(t, err, refused)
	require.Contains(t, diag.HintOf(err), "the servers after it were not restarted")
	require.Empty(t, done)
	require.Empty(t, restarts())

	// a member that is in no row of the plan
	hosts.answer("health", p.Host("ulf"), ready+members+"member 91bc3c398fb3c146, started, zora-s-00ff00ff, x, x, false\n")
	require.ErrorContains(t, servers(), "while the server zora-s (no host of the plan runs it) is down")
	require.Empty(t, restarts())

	// one that does not come back stops it
	hosts.answer("health", p.Host("ulf"), ready+members)
	r.Renew = func(context.Context) error { // the second time
		if len(done) == 1 {
			return diag.WithHint(errors.New("alice is changing this rack"), "wait")
		}
		return nil
	}
	require.EqualError(t, servers(), "alice is changing this rack")
	require.Equal(t, []string{"olaf-s"}, restarts())
}
