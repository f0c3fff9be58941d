package rehearsal

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan"
	"k3splan/internal/colmena/nixtest"
	"k3splan/internal/plan"
	"k3splan/internal/project"
)

// copyExample returns the project of an example, with secrets of its own.
func copyExample(t testing.TB, name string, changed map[string]string) *project.Project {
	t.Helper()
	dir := filepath.Join(t.TempDir(), `a "project" of ${x}`)
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join("../../examples", name))))
	_, err := project.Setup(dir, k3splan.Files)
	require.NoError(t, err)
	files := map[string]string{"secrets/all.pub": realKey + "\n", "secrets/passwd": realHash + "\n"}
	for file, content := range changed {
		files[file] = content
	}
	write(t, dir, files)
	return load(t, dir)
}

func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for file, content := range files {
		name := filepath.Join(dir, filepath.FromSlash(file))
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
	}
}

func load(t testing.TB, dir string) *project.Project {
	t.Helper()
	p, problems, err := project.Load(dir)
	require.NoError(t, err)
	require.Zero(t, problems.Errors(), "%v", problems)
	return p
}

const (
	realKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDYX2xUDgCQXsQ3EXtVPkPO6PtS6C5zxVbGWGbMHKP6t alice"
	// the hash of a password that nobody uses
	realHash = "$6$rounds=5000$k3splantest$3NZsTVpZzBrpJtNsvTBiEItI1rfXRWzF6wBnJqLWYxIfPaTvVfPTIuZVmp3WHVgNKr0wAnuW4NrXYbHtOpkzL1"
)

// prepare makes a rehearsal of all hosts, or of those named.
func prepare(t testing.TB, p *project.Project, from string, hosts ...string) *Rehearsal {
	t.Helper()
	var chosen []*plan.Host
	for _, name := range hosts {
		require.NotNil(t, p.Plan.Host(name))
		chosen = append(chosen, p.Plan.Host(name))
	}
	if len(hosts) == 0 {
		chosen = p.Plan.Hosts
	}
	r, err := Prepare(t.Context(), Request{Project: p, Hosts: chosen, From: from, Templates: k3splan.Files})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// evaluate returns the value of a Nix expression over the rehearsal as "test".
func evaluate(t testing.TB, r *Rehearsal, expression string) map[string]any {
	t.Helper()
	testers, err := filepath.Abs("testdata/testers.nix")
	require.NoError(t, err)
	content, err := os.ReadFile(testers)
	require.NoError(t, err)
	dir := filepath.Join(r.folder, "generated")
	// within the hive's folder, where the harness gives fetchers its own trees
	require.NoError(t, os.WriteFile(filepath.Join(dir, "testers.nix"), content, 0o600))
	call := "{ sources }: let pkgs = import ./testers.nix { inherit sources; }; rehearse = file: more: import file ({ inherit sources pkgs; } // more); in { rehearsal = "
	if filepath.Base(r.File) == "change.nix" {
		relative, err := filepath.Rel(dir, r.folder)
		require.NoError(t, err)
		call += "rehearse (./. + \"/" + relative + "/from/generated/rehearse\") { to = rehearse ./rehearse { }; }; }"
	} else {
		call += "rehearse ./rehearse { }; }"
	}
	installer := filepath.Join(dir, "standin.nix")
	require.NoError(t, os.WriteFile(installer, []byte(call), 0o600))
	t.Setenv("EVALHIVE_INSTALLER", installer)
	out, code := nixtest.Harness(t, "evalhive.sh", "--expr", "let test = iso.rehearsal; in "+expression, filepath.Join(dir, "hive.nix"))
	require.Zero(t, code, out)
	var value map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &value))
	return value
}

// The tests of both examples evaluate down to the derivations of their machines.
func TestExamplesEvaluate(t *testing.T) {
	for _, name := range []string{"single", "rack"} {
		t.Run(name, func(t *testing.T) {
			d := evaluate(t, prepare(t, copyExample(t, name, nil), ""), `{ drv = test.drvPath; hosts = lib.attrNames test.nodes; }`)
			require.Regexp(t, `^/nix/store/.*-vm-test-run-k3splan-rehearsal\.drv$`, d["drv"])
			require.Contains(t, d["hosts"], "olaf")
		})
	}
}
