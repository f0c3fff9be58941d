package upgrade

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/release"
	"k3splan/internal/rollout"
)

// walked is a rack of three servers whose deployments may stop in the middle: what nixpkgs has, what the plan
// pins of it, and what each server runs.
type walked struct {
	random  *rand.Rand
	newest  map[string]map[string]string // release -> minor version -> patch release of its newest commit
	pinned  map[string]string            // minor version -> patch release
	way     Way
	servers []string
}

// move pins the newest commit, and deploy brings it to some of the servers, or to all.
func (w *walked) move(to release.Pair) {
	w.way.From = to
	w.pinned = w.newest[to.NixOS]
}

func (w *walked) deploy(t *testing.T) {
	reach := len(w.servers)
	if w.random.IntN(3) == 0 {
		reach = w.random.IntN(len(w.servers))
	}
	for i := range reach {
		after := w.pinned[w.way.From.K3s]
		for _, runs := range w.servers {
			require.Contains(t, []string{release.MinorIn(runs), release.Following(release.MinorIn(runs))}, w.way.From.K3s, "a minor version is skipped")
			if k, _ := release.FindK3s(release.MinorIn(runs)); k.Minor != w.way.From.K3s && k.Leave != "" {
				require.False(t, release.OlderK3s(runs, k.Leave), "%s meets %s", after, runs)
			}
		}
		w.servers[i] = after
	}
}

func (w *walked) rows() (rows []rollout.HostStatus) {
	for i, runs := range w.servers {
		row := rollout.HostStatus{Host: fmt.Sprint("host", i), State: rollout.StateCurrent, Healthy: true, ServerK3s: runs}
		if runs != w.pinned[w.way.From.K3s] {
			row.State = rollout.StateChanged
		}
		rows = append(rows, row)
	}
	return rows
}

// newest returns what nixpkgs has: an old or a new patch release of each minor version.
func newest(isNew func() bool) map[string]map[string]string {
	releases := map[string]map[string]string{}
	for _, r := range release.All() {
		releases[r.Name] = map[string]string{}
		for _, minor := range r.K3s {
			version := minor + ".2+k3s1"
			if k, _ := release.FindK3s(minor); isNew() {
				version = cmp.Or(k.Leave, minor+".20+k3s1")
			}
			releases[r.Name][minor] = version
		}
	}
	return releases
}

// However often deployments stop in the middle, and however late nixpkgs gets patch releases: no call of upgrade
// takes more than one step, and no server meets an etcd that it must not meet.
func TestNoCallCrossesEtcd(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1796083200")
	arrived, patched := 0, 0
	for seed := range uint64(500) {
		random := rand.New(rand.NewPCG(1, seed))
		w := &walked{random: random, newest: newest(func() bool { return random.IntN(2) == 0 })}
		r := release.All()[random.IntN(4)]
		from := release.Pair{NixOS: r.Name, K3s: r.K3s[random.IntN(len(r.K3s))]}
		w.move(from)
		w.servers = slices.Repeat([]string{w.pinned[from.K3s]}, 3)
		for reached := false; !reached; {
			way, err := Find(planOf(t, fmt.Sprintf("{nixos: nixos-%s, k3s: %q, permit_ended: %[2]q}", w.way.From.NixOS, w.way.From.K3s)), "", "")
			require.NoError(t, err)
			w.way = way
			switch next := way.next(w.rows()); next {
			case Completes:
				w.deploy(t)
			case Patches:
				patched++
				require.NotEmpty(t, below(w.rows(), way.Patch()))
				w.move(way.From)
				w.deploy(t)
			case Steps:
				require.Empty(t, open(w.rows()))
				w.move(way.Steps[0].Pair)
				w.deploy(t)
			case Arrived:
				require.Equal(t, release.Pair{NixOS: "26.05", K3s: "1.35"}, way.From)
				reached = true
				arrived++
			default:
				t.Fatal(next)
			}
			if random.IntN(3) == 0 { // time goes by
				w.newest = newest(func() bool { return true })
			}
		}
	}
	require.Equal(t, 500, arrived)
	require.Greater(t, patched, 100)
}
