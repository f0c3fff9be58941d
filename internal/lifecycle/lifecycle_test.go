package lifecycle

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"k3splan/internal/ask"
	"k3splan/internal/diag"
	"k3splan/internal/edit"
	"k3splan/internal/plan"
)

// inFull names the problems of a plan that would be invalid.
func inFull(err error) error {
	var invalid *edit.Invalid
	if asError(err, &invalid) {
		return fmt.Errorf("%w: %v", err, invalid.Problems)
	}
	return err
}

func (w *world) decommission(ctx context.Context, host string, with ...func(*Decommissioning)) (*Outcome, error) {
	w.t.Helper()
	r := Decommissioning{Request: w.request(host), DrainLimit: time.Minute, WipeState: true}
	for _, change := range with {
		change(&r)
	}
	o, err := Decommission(ctx, &user{}, r)
	return o, inFull(err)
}

func (w *world) replace(ctx context.Context, host string, with ...func(*Replacement)) (*Outcome, error) {
	w.t.Helper()
	r := Replacement{Request: w.request(host), Cells: map[string]string{"serial": "new-disk", "mac": "52:54:00:00:00:01"}}
	for _, change := range with {
		change(&r)
	}
	o, err := Replace(ctx, &user{}, r)
	return o, inFull(err)
}

func codes(problems diag.Problems) (list []string) {
	for _, p := range problems {
		list = append(list, string(p.Severity)+" "+p.Code)
	}
	return list
}

func statuses(o *Outcome) (list []string) {
	for _, s := range o.Steps {
		list = append(list, s.Step+" "+string(s.Status))
	}
	return list
}

// requireOut checks that nothing of the host is left in the cluster or in the plan.
func (w *world) requireOut(t testingT, host string) {
	t.Helper()
	require.Nil(t, w.plan().Host(host))
	require.NotContains(t, w.members, host+"-s")
	require.False(t, w.nodes[host+"-a"])
	require.False(t, w.password[host+"-a"])
	require.NotContains(t, "\n"+w.read("plans/known_hosts"), "\n"+host+" ")
	require.NoFileExists(t, filepath.Join(w.dir, "secrets", host+"passwd"))
	require.NoFileExists(t, filepath.Join(w.dir, "secrets/hosts", host+"_ed25519"))
	retired, err := filepath.Glob(filepath.Join(w.dir, "secrets/retired", host+"*"))
	require.NoError(t, err)
	require.Len(t, retired, 2)
	if !w.away[host] {
		require.False(t, w.runs[host+"-s"])
		require.False(t, w.runs[host+"-a"])
		require.False(t, w.receipts[host])
		require.True(t, w.held["podman-"+host+"-a.service"])
	}
	require.Zero(t, w.leases, "the lease is given back")
	require.Contains(t, w.read("plans/hosts.csv"), "# the rack\n", "everything else stays")
}

func TestDecommission(t *testing.T) {
	for _, host := range []string{"a", "h0", "h1"} {
		t.Run(host, func(t *testing.T) {
			w := newWorld(t, t.TempDir(), 3)
			o, err := w.decommission(t.Context(), host)
			require.NoError(t, err)
			w.requireOut(t, host)
			require.GreaterOrEqual(t, w.lowest, 0)
			want := []string{"drain a-a", "forget the receipt of a", "stop a-a", "mask podman-a-a.service", "delete a-a", "forget password of a-a", "wipe a"}
			if host != "a" {
				want = []string{"drain H-a", "forget the receipt of H", "stop H-a", "mask podman-H-a.service",
					"forget the receipt of H", "stop H-s", "mask container@H-s.service", "remove H-s", "delete H-a", "forget password of H-a", "wipe H"}
				for i := range want {
					want[i] = strings.ReplaceAll(want[i], "H", host)
				}
				require.Equal(t, []string{"warning spare-lost"}, codes(o.Objections))
			}
			require.Equal(t, want, w.log)
			init := "h0-s"
			if host == "h0" {
				init = "h1-s"
				require.Contains(t, o.Next[0], "h1-s")
			}
			require.Equal(t, init, w.plan().InitServer().Name)
			require.Contains(t, o.Left, host+" keeps running: switch it off, or install it again")
		})
	}
}

func TestDecommissionOfAHostThatDoesNotAnswer(t *testing.T) {
	w := newWorld(t, t.TempDir(), 3)
	w.die("h2")
	o, err := w.decommission(t.Context(), "h2")
	require.NoError(t, err)
	w.requireOut(t, "h2")
	require.Equal(t, []string{"drain left", "stop-agent left", "stop-server left", "etcd-member done", "node done", "wipe-state left", "secrets done", "plan done"}, statuses(o))
	require.Equal(t, "h2 does not answer", o.Steps[0].Detail)
	require.Equal(t, []string{"when h2 starts again, so do the server h2-s and the agent h2-a, and would join the cluster again: erase its disks before it gets back to the network"}, o.Left)
	require.Equal(t, []string{"warning spare-lost", "warning host-unreachable"}, codes(o.Objections))
}

func TestRefused(t *testing.T) {
	for _, test := range []struct {
		name    string
		servers int
		host    string
		prepare func(w *world)
		replace bool
		want    string // message of the first error
		hint    string
	}{
		{"another server is down", 3, "h0", func(w *world) { w.die("h1") }, false,
			"h0-s would be stopped while the server on h1 (no answer in 20s) is down: of 3 voters etcd needs 2, and 1 healthy ones would be left",
			"k3splan replace h1, or k3splan decommission h1"},
		{"one of two", 2, "h0", func(*world) {}, false,
			"etcd has 2 voters and needs 2: without h0-s it could decide nothing, not even to remove it", "let a third server join first: k3splan add server HOST, then k3splan deploy"},
		{"no quorum is left", 3, "h0", func(w *world) { w.die("h0"); w.die("h1") }, true,
			"only a healthy server can remove h0-s from etcd, and the server on h1 (no answer in 20s) and the server on h2 (it does not run) are down", "restore the cluster from a snapshot"},
		{"two of five are dead, and a third is to go", 5, "h0", func(w *world) { w.die("h1"); w.die("h2") }, false,
			"h0-s would be stopped while the server on h1 (no answer in 20s) and the server on h2 (no answer in 20s) are down: of 5 voters etcd needs 3, and 2 healthy ones would be left", "k3splan replace h2"},
		{"the machine to be replaced runs", 3, "h1", func(*world) {}, true,
			"h1 answers, and has the state of h1-s: only a machine that is dead or empty is replaced", "k3splan decommission h1"},
		{"ssh is dead, and the server runs", 3, "h1", func(w *world) { w.away["h1"] = true }, true,
			"h1 does not answer (no answer in 20s), but its server h1-s still answers h0-s", "switch the machine off"},
		{"ssh is dead, and the agent runs", 3, "a", func(w *world) { w.away["a"] = true }, false,
			"a does not answer (no answer in 20s), but its Node a-a is ready", "switch the machine off"},
		{"no server answers", 3, "a", func(w *world) { w.die("h0"); w.die("h1") }, false,
			"no server is ready, and only one that is can delete the Node a-a", "k3splan status"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, t.TempDir(), test.servers)
			test.prepare(w)
			facts, tree := w.facts(), w.tree()
			var o *Outcome
			var err error
			if test.replace {
				o, err = w.replace(t.Context(), test.host)
			} else {
				o, err = w.decommission(t.Context(), test.host)
			}
			require.ErrorContains(t, err, "refused: "+test.want)
			i := slices.IndexFunc(o.Objections, func(p diag.Problem) bool { return p.Message == test.want })
			require.GreaterOrEqual(t, i, 0)
			require.Contains(t, o.Objections[i].Hint, test.hint)
			require.Equal(t, facts, w.facts())
			require.Equal(t, tree, w.tree())
		})
	}
}

func TestReplace(t *testing.T) {
	for _, host := range []string{"a", "h0", "h1"} {
		t.Run(host, func(t *testing.T) {
			w := newWorld(t, t.TempDir(), 3)
			w.die(host)
			key := w.read("secrets/hosts/" + host + "_ed25519")
			o, err := w.replace(t.Context(), host)
			require.NoError(t, err)
			require.NotContains(t, w.members, host+"-s")
			require.False(t, w.nodes[host+"-a"])
			require.False(t, w.password[host+"-a"])
			p := w.plan()
			require.Equal(t, "new-disk", p.Host(host).Serial)
			require.Equal(t, "52:54:00:00:00:01", p.Host(host).MAC)
			require.Equal(t, key, w.read("secrets/hosts/"+host+"_ed25519"), "kept")
			require.GreaterOrEqual(t, w.lowest, 0)
			init := "h0-s"
			if host == "h0" {
				init = "h1-s"
				require.Equal(t, plan.Server, p.Host("h0").Server.Role)
			}
			require.Equal(t, init, p.InitServer().Name)
			require.Equal(t, "k3splan boot-stick "+host+" /dev/sdX   # installs the new machine", o.Next[0])
			require.Equal(t, "k3splan deploy", o.Next[len(o.Next)-1])
			require.Len(t, o.Left, 1)

			// again: nothing is left, nobody is asked
			facts, tree := w.facts(), w.tree()
			u := &user{}
			o, err = Replace(t.Context(), u, Replacement{Request: w.request(host), Cells: map[string]string{"serial": "new-disk", "mac": "52:54:00:00:00:01"}})
			require.NoError(t, err)
			require.Empty(t, u.asked)
			for _, s := range o.Steps {
				require.Equal(t, Already, s.Status, s.What)
			}
			require.Equal(t, facts, w.facts())
			require.Equal(t, tree, w.tree())
		})
	}
}

func TestReplaceKeys(t *testing.T) {
	w := newWorld(t, t.TempDir(), 3)
	w.die("a")
	before, known := w.read("secrets/hosts/a_ed25519"), w.read("plans/known_hosts")
	_, err := w.replace(t.Context(), "a", func(r *Replacement) { r.NewKey = true })
	require.NoError(t, err)
	require.NotEqual(t, before, w.read("secrets/hosts/a_ed25519"))
	retired, err := filepath.Glob(filepath.Join(w.dir, "secrets/retired/a_ed25519-*"))
	require.NoError(t, err)
	require.Len(t, retired, 1)
	kept, err := os.ReadFile(retired[0])
	require.NoError(t, err)
	require.Equal(t, before, string(kept))
	require.NotEqual(t, known, w.read("plans/known_hosts"))
	require.Equal(t, 1, strings.Count(w.read("plans/known_hosts"), "a ssh-ed25519"))

	// a key that was adopted was on the old machine only
	w = newWorld(t, t.TempDir(), 3)
	w.die("a")
	require.NoError(t, os.Remove(filepath.Join(w.dir, "secrets/hosts/a_ed25519")))
	o, err := w.replace(t.Context(), "a", withKeys(w))
	require.NoError(t, err)
	require.Contains(t, statuses(o), "ssh-key done")
	require.FileExists(t, filepath.Join(w.dir, "secrets/hosts/a_ed25519"))
	o, err = w.replace(t.Context(), "a", withKeys(w))
	require.NoError(t, err)
	require.NotContains(t, statuses(o), "ssh-key done")
}

func TestReplaceOfAnEmptyMachine(t *testing.T) {
	w := newWorld(t, t.TempDir(), 3)
	w.die("h1")
	w.away["h1"], w.state["h1"] = false, false // the new one answers already, with a receipt of the image that it was made from
	o, err := w.replace(t.Context(), "h1")
	require.ErrorContains(t, err, "was deployed on")
	require.Contains(t, codes(o.Objections), "error machine-answers")
	w.receipts["h1"] = false
	_, err = w.replace(t.Context(), "h1")
	require.NoError(t, err)
	require.NotContains(t, w.members, "h1-s")
}

func TestWrongCellsChangeNothing(t *testing.T) {
	w := newWorld(t, t.TempDir(), 3)
	w.die("a")
	facts, tree := w.facts(), w.tree()
	for _, cells := range []map[string]string{{"mac": "nonsense"}, {"serial": "disk0"}, {"interface": "a b"}, {"serial": "x\ny"}} {
		o, err := w.replace(t.Context(), "a", func(r *Replacement) { r.Cells = cells })
		require.Error(t, err)
		require.Nil(t, o)
		var invalid *edit.Invalid
		var refused *edit.Refused
		require.True(t, asError(err, &invalid) || asError(err, &refused), "%v", err)
	}
	require.Equal(t, facts, w.facts())
	require.Equal(t, tree, w.tree())
}

func TestTheLastServer(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1)
	_, err := w.decommission(t.Context(), "h0")
	require.ErrorContains(t, err, `"h0-s" is the last server, and agents would be left without one: a-a`)
	_, err = w.decommission(t.Context(), "a")
	require.NoError(t, err)
	u := &user{}
	o, err := Decommission(t.Context(), u, Decommissioning{Request: w.request("h0"), DrainLimit: time.Minute})
	var invalid *edit.Invalid
	if asError(err, &invalid) { // a plan without hosts is not one
		require.Contains(t, fmt.Sprint(invalid.Problems), "table")
		return
	}
	require.NoError(t, err)
	require.Equal(t, []string{"warning cluster-ends"}, codes(o.Objections))
	require.Contains(t, u.asked[0], "The cluster ends")
}

// The only server that runs is the cluster, even if the plan has others: those that were never deployed.
func TestTheOnlyServerThatWasDeployed(t *testing.T) {
	w := newWorld(t, t.TempDir(), 3)
	for _, host := range []string{"h0", "h1"} {
		delete(w.members, host+"-s")
		w.runs[host+"-s"], w.receipts[host], w.state[host] = false, false, false
	}
	facts, tree := w.facts(), w.tree()
	_, err := w.decommission(t.Context(), "h2")
	require.ErrorContains(t, err, "refused: h2-s is the only server that was deployed: the cluster would end with it, and everything in it")
	require.Equal(t, facts, w.facts())
	require.Equal(t, tree, w.tree())
	_, err = w.decommission(t.Context(), "h1")
	require.NoError(t, err, "that one has nothing")
	require.Zero(t, w.lowest, "and the cluster has its only voter")
}

func TestNothingWithoutConsent(t *testing.T) {
	w := newWorld(t, t.TempDir(), 3)
	facts, tree := w.facts(), w.tree()
	u := &user{decline: true}
	o, err := Decommission(t.Context(), u, Decommissioning{Request: w.request("h1"), DrainLimit: time.Minute})
	require.ErrorIs(t, err, ask.ErrDeclined)
	require.NotNil(t, u.proposed)
	require.Equal(t, o, u.proposed)
	r := w.request("h1")
	r.DryRun = true
	o, err = Decommission(t.Context(), u, Decommissioning{Request: r, DrainLimit: time.Minute})
	require.NoError(t, err)
	require.Contains(t, statuses(o), "etcd-member planned")
	require.Contains(t, o.Tables["plans/hosts.csv"], "-h1,eno1")
	require.Equal(t, facts, w.facts())
	require.Equal(t, tree, w.tree())
	require.Len(t, u.asked, 1)
}

// Whatever fails, and wherever: the same command again ends well, and etcd never loses its quorum.
func TestFailureAnywhere(t *testing.T) {
	type kind struct {
		name    string
		host    string
		prepare func(*world)
		do      func(*world, context.Context) (*Outcome, error)
	}
	var kinds []kind
	for _, host := range []string{"a", "h0", "h2"} {
		kinds = append(kinds,
			kind{"decommission " + host, host, func(*world) {}, func(w *world, ctx context.Context) (*Outcome, error) { return w.decommission(ctx, host) }},
			kind{"decommission dead " + host, host, func(w *world) { w.die(host) }, func(w *world, ctx context.Context) (*Outcome, error) { return w.decommission(ctx, host) }},
			kind{"replace " + host, host, func(w *world) { w.die(host) }, func(w *world, ctx context.Context) (*Outcome, error) { return w.replace(ctx, host) }},
		)
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			reference := newWorld(t, t.TempDir(), 3)
			k.prepare(reference)
			_, err := k.do(reference, t.Context())
			require.NoError(t, err)
			require.NotZero(t, reference.changes)
			failed := 0
			for failAt := 1; failAt <= reference.changes; failAt++ {
				for _, mode := range []string{"before", "after", "Ctrl-C before", "Ctrl-C after"} {
					w := newWorld(t, t.TempDir(), 3)
					k.prepare(w)
					w.failAt, w.after = failAt, strings.HasSuffix(mode, "after")
					ctx, cancel := context.WithCancel(t.Context())
					if strings.HasPrefix(mode, "Ctrl-C") {
						w.cancel = cancel
					}
					o, err := k.do(w, ctx)
					if err == nil { // another server has helped
						require.NotContains(t, mode, "Ctrl-C")
						require.Regexp(t, "^(remove|delete|forget password)", reference.log[failAt-1])
						require.Equal(t, reference.facts(), w.facts(), "%s %d", mode, failAt)
						cancel()
						continue
					}
					failed++
					require.Contains(t, diag.HintOf(err), "the same command again goes on from there")
					require.NotEqual(t, NotReached, o.Steps[0].Status)
					require.Equal(t, NotReached, o.Steps[len(o.Steps)-1].Status, "the plan changes last: the command needs it")
					require.Zero(t, w.leases)
					w.failAt, w.cancel = 0, nil
					_, err = k.do(w, t.Context())
					require.NoError(t, err, "%s %d", mode, failAt)
					require.Equal(t, reference.facts(), w.facts(), "%s %d", mode, failAt)
					require.GreaterOrEqual(t, w.lowest, 0)
					require.Equal(t, reference.read("plans/hosts.csv"), w.read("plans/hosts.csv"))
					require.Equal(t, reference.read("plans/k3s.csv"), w.read("plans/k3s.csv"))
					cancel()
				}
			}
			require.GreaterOrEqual(t, failed, 2*reference.changes)
		})
	}
}

// In any cluster: what is allowed never brings etcd below its majority, and what is refused changes nothing.
func TestNeverBelowTheMajority(t *testing.T) {
	allowed, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "life")
		require.NoError(t, err)
		defer os.RemoveAll(dir)
		servers := rapid.IntRange(1, 5).Draw(t, "servers")
		w := newWorld(t, dir, servers)
		for i := range servers {
			host := fmt.Sprintf("h%d", i)
			switch rapid.SampledFrom([]string{"", "", "", "", "dead", "stopped", "learner", "joining", "new"}).Draw(t, host) {
			case "dead":
				w.die(host)
			case "stopped":
				w.runs[host+"-s"] = false
			case "learner":
				w.members[host+"-s"] = false
			case "joining":
				delete(w.members, host+"-s")
			case "new":
				delete(w.members, host+"-s")
				w.runs[host+"-s"], w.receipts[host], w.state[host] = false, false, false
			}
		}
		host := rapid.SampledFrom(w.plan().HostNames()).Draw(t, "host")
		if rapid.Bool().Draw(t, "dies") {
			w.die(host)
		}
		had := w.hasQuorum()
		w.failAt, w.after = rapid.IntRange(0, 12).Draw(t, "fails"), rapid.Bool().Draw(t, "after")
		facts, tree := w.facts(), w.tree()
		do := w.decommissionPlain
		if rapid.Bool().Draw(t, "replace") {
			do = w.replacePlain
		}
		for range 2 {
			if w.plan().Host(host) == nil {
				break
			}
			if _, err = do(host); err == nil {
				allowed++
			} else if w.changes == 0 {
				refused++
				require.Equal(t, facts, w.facts())
				require.Equal(t, tree, w.tree())
			}
			w.failAt = 0
		}
		if had && servers > 1 {
			require.GreaterOrEqual(t, w.lowest, 0, "%v", w.log)
		}
	})
	require.NotZero(t, allowed)
	require.NotZero(t, refused)
}

func (w *world) decommissionPlain(host string) (*Outcome, error) {
	return w.decommission(context.Background(), host)
}
func (w *world) replacePlain(host string) (*Outcome, error) {
	return w.replace(context.Background(), host)
}
