package rollout

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"k3splan"
	"k3splan/internal/colmena/nixtest"
	"k3splan/internal/plan"
	"k3splan/internal/project"
)

// What a snippet says counts. (That nothing is evaluated twice is shown in internal/evaluate: the nixpkgs of the
// harness has no hash.)
func TestMachines(t *testing.T) {
	nixtest.Needs(t, "colmena", "nix-instantiate")
	for _, entry := range nixtest.Environment(t) {
		name, value, _ := strings.Cut(entry, "=")
		t.Setenv(name, value)
	}
	dir := filepath.Join(nixtest.TempDir(t), "rack")
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	require.NoError(t, os.CopyFS(dir, os.DirFS("../../examples/single")))
	write("plans/hosts.csv", "name,interface,ip,admin,reboot_order\nolaf,eno1,192.168.1.10,olaf,5\nulf,eno1,192.168.1.20,olaf,\n")
	write("plans/k3s.csv", "host,name,type,ip\n")
	write("nixConfigs/olaf.nix", "{ }")
	write("nixConfigs/ulf.nix", `{ lab.machine = { role = "store"; dependencies = [ "olaf" ]; groups = [ "web" "db" ]; }; }`)
	write("plans/network.yaml", "netmask: 24\ngateway: 192.168.1.1\nversions: {nixos: <nixpkgs>, k3s: '1.30'}\n")
	_, err := project.Setup(dir, k3splan.Files)
	require.NoError(t, err)
	write("secrets/passwd", "$6$abcdefghijklmnop$4L7bBCw/MjlIUPbOwVMmMl7nWCAWzKJHFXvnE8U/MXpWRfnd2hlUrO5g/kyMkjAWfQhGG1Cg9rk2y8QyzIGV20\n")
	write("secrets/all.pub", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl someone\n")
	p, problems, err := project.Load(dir)
	require.NoError(t, err)
	require.Zero(t, problems.Errors(), "%v", problems)

	// the NixOS of the harness and Colmena set this differently
	templates := fstest.MapFS{}
	require.NoError(t, fs.WalkDir(k3splan.Files, "templates", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(k3splan.Files, name)
		text := strings.Replace(string(data), "defaults = ./modules/deployment.nix;", "defaults = { lib, ... }: { imports = [ ./modules/deployment.nix ]; _module.check = lib.mkForce true; };", 1)
		templates[name] = &fstest.MapFile{Data: []byte(text)}
		return err
	}))
	environment := Environment{Templates: templates, Colmena: func(string) (string, error) { return "colmena", nil }}
	evaluated := 0
	machines, err := Machines(t.Context(), environment, p, func(done, all int) { evaluated = all })
	require.NoError(t, err)
	require.Equal(t, 2, evaluated)
	require.Equal(t, 5, machines["olaf"].RebootOrder)
	require.Equal(t, plan.Machine{
		Role: "store", Groups: []string{"db", "web"}, RebootOrder: 100, Dependencies: []string{"olaf"}, HealthChecks: []plan.HealthCheck{},
		Orchestration: plan.Orchestration{Strategy: plan.Rolling, RebootDelay: 600, Criticality: plan.Medium},
	}, machines["ulf"])
	require.NoDirExists(t, filepath.Join(dir, "generated"), "what was not there before is not there after")
	steps, err := Sequence(p.Plan, machines, p.Plan.Hosts, nil, Limits{Parallel: 8})
	require.NoError(t, err)
	require.Len(t, steps, 2)
	require.Equal(t, []string{"ulf"}, steps[1].Hosts)
	machines = map[string]plan.Machine{"ulf": {Dependencies: []string{"olga"}}}
	_, err = Sequence(p.Plan, machines, p.Plan.Hosts, nil, Limits{})
	require.ErrorContains(t, err, `ulf depends on "olga", which is not a host of the plan`)
	machines = map[string]plan.Machine{"ulf": {Dependencies: []string{"olaf"}}, "olaf": {Dependencies: []string{"ulf"}}}
	_, err = Sequence(p.Plan, machines, p.Plan.Hosts, nil, Limits{})
	require.ErrorContains(t, err, "the hosts wait for each other: olaf → ulf → olaf")
}

// A deployment evaluates what is rendered, for minutes: nobody may exchange or remove it.
func TestMachinesLeavesTheHiveOfOthersAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "rack")
	require.NoError(t, os.CopyFS(dir, os.DirFS("../../examples/single")))
	_, err := project.Setup(dir, k3splan.Files)
	require.NoError(t, err)
	p, _, err := project.Load(dir)
	require.NoError(t, err)
	hive := filepath.Join(dir, "generated", "hive.nix")
	require.NoError(t, os.MkdirAll(filepath.Dir(hive), 0o755))
	require.NoError(t, os.WriteFile(hive, []byte("that of a deployment"), 0o600))
	unlock, err := LockProject(dir)
	require.NoError(t, err)
	defer unlock()
	environment := Environment{Templates: k3splan.Files, Colmena: func(string) (string, error) { return "", errors.New("no Colmena") }}
	_, err = Machines(t.Context(), environment, p, func(int, int) {})
	var not *NotEvaluatedError
	require.ErrorAs(t, err, &not)
	require.ErrorContains(t, err, "the project is in use by process")
	content, err := os.ReadFile(hive)
	require.NoError(t, err)
	require.Equal(t, "that of a deployment", string(content))
}
