package colmena

import (
	"testing"

	"github.com/stretchr/testify/require"
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
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, test.got) })
	}
}

// Colmena takes --parallel only once, and the user's word counts.
func TestArgumentsParallel(t *testing.T) {
	for _, test := range []struct {
		extra []string
		sets  bool
	}{
		{[]string{"-p", "3"}, true},
		{[]string{"-p3"}, true},
		{[]string{"-p=3"}, true},
		{[]string{"--parallel", "3"}, true},
		{[]string{"--parallel=3"}, true},
		{[]string{"-vp3"}, true},
		{[]string{"boot", "--verbose", "-vp", "3"}, true},
		{nil, false},
		{[]string{"-v"}, false},
		{[]string{"push"}, false},
		{[]string{"--parallelism"}, false},
		{[]string{"--nix-option", "max-jobs", "1"}, false},
		{[]string{"--", "-p", "3"}, false},
		{[]string{"", "-", "p3"}, false},
	} {
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
