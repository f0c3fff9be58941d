package upgrade

import (
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/release"
	"k3splan/internal/rollout"
)

func planOf(t *testing.T, versions string) *plan.Plan {
	p, problems := plan.Load(fstest.MapFS{
		"plans/hosts.csv":    {Data: []byte("name,interface,ip,admin\nolaf,eno1,10.0.0.2,someone\n")},
		"plans/k3s.csv":      {Data: []byte("host,name,type,ip\nolaf,olaf-s,init,10.0.0.12\n")},
		"plans/network.yaml": {Data: []byte("netmask: 24\ngateway: 10.0.0.1\nversions: " + versions + "\n")},
	})
	require.Zero(t, problems.Errors(), "%v", problems)
	return p
}

var today = time.Date(2026, time.December, 1, 0, 0, 0, 0, time.UTC)

func TestFind(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1796083200")
	w, err := Find(planOf(t, "{nixos: nixos-24.11, k3s: 1.31}"), "", "")
	require.NoError(t, err)
	require.Equal(t, release.Pair{NixOS: "26.05", K3s: "1.35"}, w.To)
	var steps []string
	for _, step := range w.Steps {
		steps = append(steps, Words(step))
	}
	require.Equal(t, []string{
		"NixOS 25.11 with k3s 1.32, then reboots", "NixOS 25.11 with k3s 1.33", "NixOS 25.11 with k3s 1.34",
		"NixOS 26.05 with k3s 1.34, then reboots", "NixOS 26.05 with k3s 1.35",
	}, steps)
	require.Empty(t, w.Patch(), "1.31 may be left from any patch release")

	w, err = Find(planOf(t, "{nixos: nixos-25.11-small, k3s: 1.33}"), "nixos-25.11", "1.34")
	require.NoError(t, err)
	require.Len(t, w.Steps, 1)
	require.Equal(t, "1.33.7+k3s3", w.Patch())

	_, err = Find(planOf(t, "{nixos: 50ab793786d9de88ee30ec4e4c24fb4236fc2674, k3s: 1.33}"), "", "")
	require.ErrorContains(t, err, "plans/network.yaml:3: versions.nixos (50ab793786d9de88ee30ec4e4c24fb4236fc2674) does not name a release of NixOS")
	_, err = Find(planOf(t, "{nixos: nixos-25.11, k3s: 1.33}"), "31.05", "")
	require.EqualError(t, err, "NixOS 31.05 is unknown to this version of k3splan")
	_, err = Find(planOf(t, "{nixos: nixos-26.05, k3s: 1.35}"), "25.11", "")
	require.EqualError(t, err, "NixOS 25.11 with k3s 1.34 is older than NixOS 26.05 with k3s 1.35, and an upgrade does not go back")
	require.Contains(t, diag.HintOf(err), "k3splan rollback")
	for _, test := range []struct{ versions, to, k3s, hint string }{
		{"{nixos: nixos-26.05, k3s: 1.35}", "", "1.36", "NixOS 26.11 has it: --to 26.11 --k3s 1.36"},
		{"{nixos: nixos-26.05, k3s: 1.35}", "", "1.40", "k3splan upgrade --dry-run"},
		{"{nixos: nixos-26.05, k3s: 1.35}", "", "1.34", "k3splan rollback"},
		{"{nixos: nixos-24.11, k3s: 1.33}", "", "", "(plans/network.yaml:3): k3splan status"},
	} {
		_, err = Find(planOf(t, test.versions), test.to, test.k3s)
		require.Error(t, err)
		require.Contains(t, diag.HintOf(err), test.hint)
	}
	_, err = Find(planOf(t, "{nixos: nixos-26.05, k3s: 1.35}"), "", "1.35.1")
	require.EqualError(t, err, `"1.35.1" is not a minor version of k3s`)
	require.Equal(t, "such as 1.35: the patch release is the one that nixpkgs has", diag.HintOf(err))

	// a plan that is ahead of the newest release, or has what the table does not know, has no step to take
	for _, versions := range []string{"{nixos: nixos-26.11, k3s: 1.36}", "{nixos: nixos-26.05, k3s: 1.36}", "{nixos: nixos-26.05, k3s: 1.35}"} {
		w, err = Find(planOf(t, versions), "", "")
		require.NoError(t, err, versions)
		require.Empty(t, w.Steps, versions)
	}
	w, err = Find(planOf(t, "{nixos: nixos-26.05, k3s: 1.34}"), "", "v1.35")
	require.NoError(t, err)
	require.Len(t, w.Steps, 1)
}

func TestKeys(t *testing.T) {
	from := release.Pair{NixOS: "24.11", K3s: "1.31"}
	p := planOf(t, "{nixos: nixos-24.11-small, k3s: 1.31.14+k3s1}")
	require.Equal(t, map[string]string{"nixos": "nixos-25.11-small", "k3s": "1.32", "permit_ended": "1.32"},
		keysOf(p, from, release.Step{Pair: release.Pair{NixOS: "25.11", K3s: "1.32"}}, today))
	require.Equal(t, map[string]string{"k3s": "1.35", "permit_ended": ""},
		keysOf(p, from, release.Step{Pair: release.Pair{NixOS: "24.11", K3s: "1.35"}}, today))
	require.Equal(t, map[string]string{"nixos": "nixos-25.11-small"}, keysOf(p, release.Pair{NixOS: "24.11"}, release.Step{Pair: release.Pair{NixOS: "25.11"}}, today))
}

func TestSetVersions(t *testing.T) {
	keys := map[string]string{"nixos": "nixos-25.11", "k3s": "1.32", "permit_ended": "1.32"}
	for _, c := range []struct{ table, before, after string }{
		{plan.NetworkFile, "netmask: 24\nversions: {nixos: nixos-24.11, k3s: 1.31}\n", "netmask: 24\nversions: {nixos: nixos-25.11, k3s: \"1.32\", permit_ended: \"1.32\"}\n"},
		{plan.VersionsFile, "nixos: nixos-24.11\nk3s: '1.31' # old\n", "nixos: nixos-25.11\nk3s: \"1.32\" # old\npermit_ended: \"1.32\"\n"},
		{plan.VersionsFile, "versions:\n  nixos: nixos-24.11\n  k3s: '1.31'\n", "versions:\n  nixos: nixos-25.11\n  k3s: \"1.32\"\n  permit_ended: \"1.32\"\n"},
	} {
		changed, err := setVersions(c.table, []byte(c.before), keys)
		require.NoError(t, err)
		require.Equal(t, c.after, string(changed))
		again, err := setVersions(c.table, changed, keys)
		require.NoError(t, err)
		require.Equal(t, c.after, string(again))
	}
	_, err := setVersions(plan.NetworkFile, []byte("versions: &v {nixos: a, k3s: b}\nother: *v\n"), keys)
	require.EqualError(t, err, `plans/network.yaml cannot be edited: set versions.nixos to "nixos-25.11" there yourself`)
}

func TestOpen(t *testing.T) {
	require.Equal(t, []string{
		"a: does not answer", "b: changed", "c: needs a reboot (kernel, systemd)", "d: is not healthy: etcd has no leader", "e: is not healthy: failed units x.service",
	}, open([]rollout.HostStatus{
		{Host: "a", State: rollout.StateUnreachable},
		{Host: "b", State: rollout.StateChanged, Healthy: true},
		{Host: "c", State: rollout.StateCurrent, Healthy: true, RebootNeeded: true, RebootFor: []string{"kernel", "systemd"}},
		{Host: "d", State: rollout.StateCurrent, Server: "etcd has no leader"},
		{Host: "e", State: rollout.StateCurrent, Server: "ready", FailedUnits: []string{"x.service"}},
		{Host: "f", State: rollout.StateCurrent, Healthy: true},
	}))
	require.Equal(t, []string{"b (1.33.5+k3s1)"}, below([]rollout.HostStatus{
		{Host: "a", ServerK3s: "v1.33.7+k3s3"}, {Host: "b", ServerK3s: "v1.33.5+k3s1"}, {Host: "c"}, {Host: "d", ServerK3s: "v1.34.1+k3s1"},
	}, "1.33.7+k3s3"))
}
