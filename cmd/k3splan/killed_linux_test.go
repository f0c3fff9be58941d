package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A command that is killed before any change of a name leaves a project in which the same command completes
// the change.
func TestKilledBetweenFiles(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("SKIP: strace is not on PATH (Debian: strace)")
	}
	project := exampleProject(t)
	require.NoError(t, os.MkdirAll(filepath.Join(project, "hardware"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(project, "hardware", "karl.nix"), []byte("{ }\n"), 0o644))
	for _, test := range []struct{ command, done string }{
		{"rename karl carl", "! grep -q ^karl, plans/hosts.csv plans/k3s.csv && test -e hardware/carl.nix && ! test -e hardware/karl.nix"},
		{"remove host karl --yes", "! grep -q ^karl, plans/hosts.csv plans/k3s.csv"},
		{"convert xlsx", "test -e plans/cluster.xlsx && ! test -e plans/hosts.csv && ! test -e plans/k3s.csv && ! test -e plans/network.yaml"},
	} {
		for _, call := range []string{"renameat", "unlinkat"} {
			for n := 1; n <= 4; n++ {
				killed := fmt.Sprintf("strace -f -qq -o /dev/null -e trace=%[1]s -e inject=%[1]s:signal=KILL:when=%[2]d k3splan %[3]s || true", call, n, test.command)
				script := fmt.Sprintf("{ %s; } >/dev/null 2>&1; if ! { %s; }; then k3splan %s; fi; %s", killed, test.done, test.command, test.done)
				out, err := inShell(t, project, script).CombinedOutput()
				require.NoError(t, err, "%s, killed before %s %d: %s", test.command, call, n, out)
			}
		}
	}
}
