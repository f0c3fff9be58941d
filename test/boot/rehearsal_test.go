package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/rehearsal"
)

// The script of a rehearsal, with machines of the lab in place of virtual ones: three servers become healthy, and
// are then brought to a plan with other options of k3s and a further host. Secrets are those of the project.
func TestRehearsal(t *testing.T) {
	if !all() {
		t.Skip("SKIP: a rehearsal is of make boot-all")
	}
	s := newSite(t, "rack", "10.0.100.1/24")
	machines := map[string]string{"olaf": nics["olaf"], "ulf": nics["ulf"], "rolf": nics["rolf"], "karl": nics["karl"]}
	earlier := []string{"olaf", "ulf", "rolf"}
	s.ok("remove", "host", "karl", "--yes")
	for _, words := range [][]string{{"init", "-q"}, {"add", "-A"}, {"-c", "user.name=k", "-c", "user.email=k@example.org", "commit", "-qm", "the rack as it is"}} {
		_, err := runOut("git", append([]string{"-C", s.project}, words...)...)
		require.NoError(t, err)
	}
	before, err := s.lab.Build(s.project, earlier...)
	require.NoError(t, err)
	for _, host := range earlier {
		require.NoError(t, s.lab.Machine(host).Install(s.project, before[host]))
	}

	s.ok("add", "host", "karl", "--ip", "10.0.100.5", "--interface", "enP4p65s0", "--admin", "karl")
	s.ok("add", "agent", "karl", "--ip", "10.0.100.25")
	s.ok("known-hosts", "make", "karl")
	s.write("k3s/server.yaml", "etcd-snapshot-retention: 7\n")
	later := append(earlier, "karl")
	after, err := s.lab.Build(s.project, later...)
	require.NoError(t, err)
	require.NoError(t, s.lab.Machine("karl").Install(s.project, after["karl"]))
	for _, host := range later {
		machine := s.lab.Machine(host)
		require.NoError(t, machine.Copy(after[host]))
		// as templates/rehearse/vm.nix puts it there
		key := filepath.Join(machine.Root(), "etc/k3splan-rehearsal/key")
		require.NoError(t, os.MkdirAll(filepath.Dir(key), 0o755))
		content, err := os.ReadFile(filepath.Join(s.lab.Dir, "keys", "operator"))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(key, content, 0o400))
	}

	p, problems, err := project.Load(s.project)
	require.NoError(t, err)
	require.Zero(t, problems.Errors(), "%v", problems)
	var hosts []*plan.Host
	for _, name := range later {
		hosts = append(hosts, p.Plan.Host(name))
	}
	r, err := rehearsal.Prepare(t.Context(), rehearsal.Request{Project: p, Hosts: hosts, From: "HEAD", Templates: k3splan.Files})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	// as templates/rehearse/default.nix puts them together
	was, is := s.rehearsed(r, "from/generated"), s.rehearsed(r, "generated")
	data, err := json.Marshal(map[string]any{"nics": machines, "rehearsal": map[string]any{
		"plan":   was["plan"],
		"change": map[string]any{"plan": is["plan"], "waves": is["waves"], "systems": after},
	}})
	require.NoError(t, err)
	file := filepath.Join(s.lab.Dir, "rehearsal.json")
	require.NoError(t, os.WriteFile(file, data, 0o644))

	_, err = runOut("go", "build", "-o", filepath.Join(s.lab.Dir, "bin", "boot"), ".")
	require.NoError(t, err)
	script, err := filepath.Abs("../../templates/rehearse/script.py")
	require.NoError(t, err)
	command := exec.Command("python3", "testdata/rehearse.py", script, file)
	command.Env = append(os.Environ(), "LAB_DIR="+s.lab.Dir, "PATH="+filepath.Join(s.lab.Dir, "bin")+":"+os.Getenv("PATH"))
	out, err := command.CombinedOutput()
	fmt.Print(string(out))
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "after the change: ")
}

// rehearsed reads what a rehearsal knows, in one of its folders.
func (s *site) rehearsed(r *rehearsal.Rehearsal, folder string) (known map[string]any) {
	s.t.Helper()
	content, err := os.ReadFile(filepath.Join(filepath.Dir(r.File), folder, "rehearsal.json"))
	require.NoError(s.t, err)
	require.NoError(s.t, json.Unmarshal(content, &known))
	return known
}
