package colmena

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena/nixtest"
	"k3splan/internal/run"
)

func TestArguments(t *testing.T) {
	const hive = "/rack/generated/hive.nix"
	two := Selection{Hosts: []string{"olaf", "ulf"}, Servers: 2}
	for name, test := range map[string]struct {
		got, want []string
	}{
		"build all": {
			Build(hive, Selection{All: true, Servers: 1}, nil),
			[]string{"build", "-f", hive},
		},
		"build one": {
			Build(hive, Selection{Hosts: []string{"olaf"}, Servers: 1}, []string{"--verbose"}),
			[]string{"build", "-f", hive, "--on", "olaf", "--verbose"},
		},
		"apply two servers": {
			Apply(hive, two, nil),
			[]string{"apply", "-f", hive, "--on", "olaf,ulf", "--parallel", "1"},
		},
		"apply all": {
			Apply(hive, Selection{All: true, Servers: 3}, []string{"boot", "--reboot"}),
			[]string{"apply", "-f", hive, "--parallel", "1", "boot", "--reboot"},
		},
		"many hosts, one server": {
			Apply(hive, Selection{Hosts: []string{"a", "b", "c"}, Servers: 1}, nil),
			[]string{"apply", "-f", hive, "--on", "a,b,c"},
		},
		"nobody must not become everybody": {
			Apply(hive, Selection{}, nil),
			[]string{"apply", "-f", hive, "--on", ""},
		},
		"a hive with blanks is one argument": {
			Build(`/a b/"hive".nix`, Selection{All: true}, nil),
			[]string{"build", "-f", `/a b/"hive".nix`},
		},
		"local": {
			ApplyLocal(hive, "olaf", []string{"test"}),
			[]string{"apply-local", "-f", hive, "--node", "olaf", "--sudo", "test"},
		},
		"local, without what is about other hosts": {
			ApplyLocal(hive, "olaf", []string{"--parallel", "2", "-p3", "--on=x", "--verbose", "--no-gzip", "--nix-option", "a", "b"}),
			[]string{"apply-local", "-f", hive, "--node", "olaf", "--sudo", "--verbose", "--nix-option", "a", "b"},
		},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, test.got) })
	}
}

// parallelTests are arguments of a user, and whether they set --parallel.
var parallelTests = []struct {
	extra []string
	sets  bool
}{
	{[]string{"-p", "3"}, true},
	{[]string{"-p3"}, true},
	{[]string{"-p=3"}, true},
	{[]string{"--parallel", "3"}, true},
	{[]string{"--parallel=3"}, true},
	{[]string{"-vp3"}, true},
	{[]string{"boot", "--reboot", "-vp", "3"}, true},
	{nil, false},
	{[]string{"-v"}, false},
	{[]string{"push"}, false},
	{[]string{"--parallelism"}, false},
	{[]string{"--nix-option", "max-jobs", "1"}, false},
	{[]string{"--", "-p", "3"}, false},
	{[]string{"", "-", "p3"}, false},
}

// Colmena takes --parallel only once, and the user's word counts.
func TestArgumentsParallel(t *testing.T) {
	for _, test := range parallelTests {
		given := append([]string(nil), test.extra...)
		args := Apply("h", Selection{All: true, Servers: 2}, test.extra)
		want := append([]string{"apply", "-f", "h"}, test.extra...)
		if !test.sets {
			want = append([]string{"apply", "-f", "h", "--parallel", "1"}, test.extra...)
		}
		require.Equal(t, want, args)
		require.Equal(t, given, test.extra)
	}
}

// The real Colmena takes what the builders give, and does not take --parallel twice.
func TestArgumentsInColmena(t *testing.T) {
	nixtest.Needs(t, "colmena")
	hive := filepath.Join(t.TempDir(), "hive.nix")
	require.NoError(t, os.WriteFile(hive, []byte("{ }"), 0o644))
	// with --help behind them, the arguments are read and nothing is done
	read := func(args ...string) error {
		_, err := run.Output(context.Background(), run.Command{Program: "colmena", Args: append(args, "--help")})
		return err
	}
	three := Selection{Hosts: []string{"olaf", "ulf", "rolf"}, Servers: 3}
	require.NoError(t, read(Build(hive, three, []string{"--verbose"})...))
	require.NoError(t, read(Build(hive, Selection{}, nil)...))
	require.NoError(t, read(Apply(hive, three, []string{"boot", "--reboot"})...))
	require.NoError(t, read(ApplyLocal(hive, "olaf", []string{"test"})...))
	require.NoError(t, read(BuildFirst(hive, three.Hosts, []string{"boot", "--reboot", "--parallel", "3", "--build-on-target", "--no-keys", "--show-trace"})...))
	require.ErrorContains(t, read(Apply(hive, three, []string{"no-goal"})...), "invalid value 'no-goal'")

	all := Selection{All: true, Servers: 3}
	for _, test := range parallelTests {
		if test.sets {
			require.NoError(t, read(Apply(hive, all, test.extra)...), test.extra)
			require.ErrorContains(t, read(append([]string{"apply", "-f", hive, "--parallel", "1"}, test.extra...)...),
				"cannot be used multiple times", test.extra)
		}
	}
}

func TestRolloutArguments(t *testing.T) {
	require.Equal(t, []string{"apply", "-f", "h", "--on", "olaf", "--keep-result", "--verbose"}, ApplyOne("h", "olaf", []string{"--verbose"}))
	require.Equal(t, []string{"build", "-f", "h", "--on", "olaf,ulf", "--keep-result", "--verbose", "--nix-option", "cores", "2"},
		BuildFirst("h", []string{"olaf", "ulf"}, []string{"boot", "--verbose", "--reboot", "--nix-option", "cores", "2"}))
	require.Equal(t, []string{"upload-keys", "-f", "h", "--on", "olaf"}, UploadKeys("h", "olaf", nil))
}

func TestParallel(t *testing.T) {
	for _, test := range []struct {
		args  []string
		value string
		isSet bool
	}{
		{nil, "", false},
		{[]string{"--verbose", "switch"}, "", false},
		{[]string{"--parallel", "3"}, "3", true},
		{[]string{"--parallel=1", "-v"}, "1", true},
		{[]string{"-p", "4"}, "4", true},
		{[]string{"-p4"}, "4", true},
		{[]string{"-vp3"}, "3", true},
		{[]string{"-v", "-p"}, "", true},
		{[]string{"--", "-p", "4"}, "", false},
		{[]string{"--parallelism"}, "", false},
		{[]string{"push"}, "", false},
	} {
		value, isSet := Parallel(test.args)
		require.Equal(t, test.value, value, "%q", test.args)
		require.Equal(t, test.isSet, isSet, "%q", test.args)
	}
}

func TestGoal(t *testing.T) {
	for _, test := range []struct {
		args                        []string
		goal                        string
		activated, kept, onTheHosts bool
	}{
		{nil, "switch", true, true, true},
		{[]string{"--verbose"}, "switch", true, true, true},
		{[]string{"--verbose", "test"}, "test", true, false, true},
		{[]string{"boot"}, "boot", false, false, true},
		{[]string{"boot", "--reboot"}, "reboot", true, true, true},
		{[]string{"upload-keys"}, "upload-keys", false, false, true},
		{[]string{"dry-activate"}, "dry-activate", false, false, false},
		{[]string{"push"}, "push", false, false, false},
		{[]string{"--on", "build"}, "switch", true, true, true},
		{[]string{"--nix-option", "keys", "build", "-p", "2", "test"}, "test", true, false, true},
	} {
		goal := Goal(test.args)
		require.Equal(t, test.goal, goal)
		require.Equal(t, []bool{test.activated, test.kept, test.onTheHosts}, []bool{IsActivated(goal), IsKept(goal), ChangesHosts(goal)}, goal)
	}
}

func TestWhatIsForNix(t *testing.T) {
	require.Equal(t, []string{"--option", "cores", "2", "--option", "a", "b"}, NixOptions([]string{"--verbose", "--nix-option", "cores", "2", "-p", "3", "--nix-option", "a", "b", "--nix-option", "x"}))
	require.Empty(t, NixOptions([]string{"--on", "--nix-option"}))
	require.True(t, BuildsOnTarget([]string{"--build-on-target"}, false))
	require.False(t, BuildsOnTarget([]string{"--no-build-on-target"}, true))
	require.True(t, BuildsOnTarget(nil, true))
	require.False(t, BuildsOnTarget([]string{"--verbose"}, false))
}
