package rollout

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diff"
	"k3splan/internal/fingerprint"
)

// A snapshot is made before each wave that asks for one, and without it neither that wave nor a later one
// begins.
func TestRunMakesSnapshots(t *testing.T) {
	waves := []Wave{{Hosts: []string{"a"}, Parallel: 1, Snapshot: "why"}, {Hosts: []string{"b"}, Parallel: 1}, {Hosts: []string{"c"}, Parallel: 1, Snapshot: "again"}, {Hosts: []string{"d"}, Parallel: 1}}
	f := &fakeSteps{}
	Run(t.Context(), waves, nil, f, func(Event) {})
	require.Equal(t, []string{"snapshot why", "apply a", "gate a", "record a", "apply b", "gate b", "record b", "snapshot again", "apply c"}, f.done[:9])

	f = &fakeSteps{failSnapshot: "again"}
	results := Run(t.Context(), waves, nil, f, func(Event) {})
	require.Equal(t, Deployed, results[1].Status)
	for _, r := range results[2:] {
		require.Equal(t, NotReached, r.Status)
		require.Equal(t, "no snapshot of etcd could be made: it does not work", r.Cause)
	}
	require.NotContains(t, f.done, "apply c")

	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	f = &fakeSteps{}
	Run(interrupted, waves, nil, f, func(Event) {})
	require.Empty(t, f.done)
}

func TestAddSnapshots(t *testing.T) {
	p := tables(t, map[string]string{"olaf": "i", "rolf": "s", "karl": "a", "ulrich": ""}, "")
	reasons := func(s Situation) map[string]string {
		waves := Waves(p, s.Work, Urgent{}, Limits{Unavailable: 1, Parallel: 1})
		s.addSnapshots(waves)
		found := map[string]string{}
		for _, wave := range waves {
			if wave.Snapshot != "" {
				found[wave.Hosts[0]] = wave.Snapshot
			}
		}
		return found
	}
	changed := func(work Work) Situation {
		s := living(t, p)
		s.Work = map[string]Work{}
		for _, host := range p.Hosts {
			s.Work[host.Name] = work
		}
		return s
	}
	require.Empty(t, reasons(changed(Work{System: true})))
	require.Empty(t, reasons(changed(Work{K3s: true, Secrets: []string{"passwd"}})), "the system stays")
	require.Equal(t, map[string]string{"olaf": "before k3s may change on olaf", "rolf": "before k3s may change on rolf", "karl": "before k3s may change on karl"},
		reasons(changed(Work{System: true, K3s: true})), "ulrich has no k3s")
	s := changed(Work{System: true})
	s.Work["rolf"] = Work{System: true, K3s: true, Changes: diff.Changes{{Object: diff.Server, Action: diff.Moved}}}
	require.Equal(t, map[string]string{"rolf": "before a server moves (rolf)"}, reasons(s))
	s = changed(Work{System: true, K3s: true})
	s.Deployed, s.Health = nil, nil
	require.Empty(t, reasons(s), "there is no cluster yet")
}

func TestChangesK3s(t *testing.T) {
	pinned := func(rev string) fingerprint.Inputs {
		return fingerprint.Inputs{Pins: map[string]string{"nixpkgs": "nixos-24.11 " + rev, "disko": "latest " + rev}}
	}
	require.False(t, changesK3s(nil, pinned("1"), pinned("1")))
	require.True(t, changesK3s(nil, pinned("1"), pinned("2")), "servers have the k3s of nixpkgs")
	disko := pinned("1")
	disko.Pins["disko"] = "latest 2"
	require.False(t, changesK3s(nil, pinned("1"), disko))
	require.True(t, changesK3s(diff.Changes{{Name: "versions.k3s"}}, pinned("1"), pinned("1")))
	require.False(t, changesK3s(diff.Changes{{Name: "gateway"}}, pinned("1"), pinned("1")))
}
