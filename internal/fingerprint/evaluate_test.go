package fingerprint_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan"
	"k3splan/internal/colmena/nixtest"
	"k3splan/internal/fingerprint"
	"k3splan/internal/hive"
	"k3splan/internal/project"
)

const exampleDir = "../../examples/rack"

// A host whose fingerprint is the same must have the same system, and one whose fingerprint differs
// should have another: the real evaluation decides.
func TestNoChangeIsMissed(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: evaluates the example several times")
	}
	dir := t.TempDir()
	copyExample(t, dir)
	// without the snippet that reads the plan, which makes every host depend on everything
	require.NoError(t, os.Remove(filepath.Join(dir, "nixConfigs/all.nix")))
	inputsBefore := render(t, dir)
	before := evaluate(t, dir)
	type edit struct{ file, old, new string }
	// after looks at the rack after edits: the hosts whose fingerprints have moved, and those whose systems have changed.
	after := func(t *testing.T, edits ...edit) (moved, changed []string, inputs map[string]fingerprint.Inputs, is systems) {
		for _, e := range edits {
			name := filepath.Join(dir, e.file)
			original, err := os.ReadFile(name)
			require.NoError(t, err)
			require.Contains(t, string(original), e.old)
			require.NoError(t, os.WriteFile(name, []byte(strings.Replace(string(original), e.old, e.new, 1)), 0o600))
			t.Cleanup(func() { require.NoError(t, os.WriteFile(name, original, 0o600)) })
		}
		inputs = render(t, dir)
		// whose /etc/hosts is another one has another system: no need to evaluate the rest of it
		var names []string
		for host, in := range inputs {
			if !fingerprint.OnlyNames(inputsBefore[host], in) {
				names = append(names, host)
			}
		}
		is = evaluate(t, dir, names...)
		for host, in := range inputs {
			if in.Fingerprint() != inputsBefore[host].Fingerprint() {
				moved = append(moved, host)
			}
			if is.Names[host] != before.Names[host] || slices.Contains(names, host) && is.Host[host] != before.Host[host] {
				changed = append(changed, host)
			}
		}
		slices.Sort(moved)
		slices.Sort(changed)
		return moved, changed, inputs, is
	}
	for _, e := range []edit{
		{"plans/k3s.csv", "karl,karl-k3s-agent,agent,10.0.100.25", "karl,karl-k3s-agent,agent,10.0.100.26"},
		{"plans/network.yaml", "tls_san: [k3s.rack.home.arpa]", "tls_san: [k3s.rack.home.arpa]\npod_cidr: 10.60.0.0/16"},
		{"k3s/server.yaml", "", "debug: true\n"},
	} {
		t.Run(e.file, func(t *testing.T) {
			moved, changed, _, _ := after(t, e)
			require.Equal(t, changed, moved, "the evaluation says %v, the fingerprints say %v", changed, moved)
			require.NotEmpty(t, moved)
			if e.file == "plans/k3s.csv" {
				require.Len(t, moved, 5, "all have the agent's address in /etc/hosts")
			}
		})
	}
	// What each of these changes is told from the others by where it shows: a system of their own, a server container,
	// or nowhere.
	t.Run("a manifest, a snippet of a container, and a row", func(t *testing.T) {
		manifest, snippet := "manifests/namespaces.yaml", "nixConfigs/ulf-k3s-server.nix"
		moved, changed, inputs, is := after(t, edit{manifest, "apiVersion", "# changed\napiVersion"}, edit{snippet, "pkgs.etcd", "pkgs.htop"},
			edit{"plans/hosts.csv", "karl,,storage,4", "karl,,storage,40"})
		require.Equal(t, []string{"olaf", "rolf", "ulf"}, changed, "hosts with servers have the manifest, and nothing reads karl's column")
		require.Equal(t, []string{"karl", "olaf", "rolf", "ulf"}, moved, "but it is karl's row")
		for host, in := range inputs {
			require.Equal(t, slices.Contains(changed, host), in.Files[manifest] != inputsBefore[host].Files[manifest], "%s: %s", host, manifest)
			require.Equal(t, host == "ulf", in.Files[snippet] != inputsBefore[host].Files[snippet], "%s: %s", host, snippet)
			require.Equal(t, host == "ulf", !maps.Equal(is.Containers[host], before.Containers[host]), "container of %s", host)
			require.Equal(t, host == "ulf", !maps.Equal(is.Units[host], before.Units[host]), "units of %s", host)
		}
	})
}

// systems are the paths of derivations by host: of its system and its /etc/hosts, and by their names of the systems
// of its containers and of their units.
type systems struct {
	Host, Names       map[string]string
	Containers, Units map[string]map[string]string
}

// evaluate returns the systems of hosts, or of all, and the /etc/hosts of all.
func evaluate(t *testing.T, dir string, hosts ...string) systems {
	t.Helper()
	chosen := "nodes"
	if len(hosts) > 0 {
		names, err := json.Marshal(hosts)
		require.NoError(t, err)
		chosen = fmt.Sprintf("(lib.getAttrs (builtins.fromJSON %s) nodes)", hive.NixString(string(names)))
	}
	out, code := nixtest.Harness(t, "evalhive.sh", "--expr", `let chosen = `+chosen+`; in {
		names = lib.mapAttrs (_: n: toString n.config.environment.etc.hosts.source) nodes;
		host = lib.mapAttrs (_: n: n.config.system.build.toplevel.drvPath) chosen;
		containers = lib.mapAttrs (_: n: lib.mapAttrs (_: c: c.config.system.build.toplevel.drvPath) n.config.containers) chosen;
		units = lib.mapAttrs (_: n: lib.mapAttrs (_: u: u.unit.drvPath)
			(lib.filterAttrs (name: _: builtins.match "(container@|podman-).+" name != null) n.config.systemd.units)) chosen;
	}`, filepath.Join(dir, hive.Dir, "hive.nix"))
	require.Zero(t, code, out)
	var s systems
	require.NoError(t, json.Unmarshal([]byte(out), &s))
	return s
}

func copyExample(t *testing.T, dir string) {
	t.Helper()
	require.NoError(t, os.CopyFS(dir, os.DirFS(exampleDir)))
	for name, text := range map[string]string{
		"secrets/init-token": strings.Repeat("a1", 32) + "\n",
		"secrets/passwd":     "$6$abcdefghijklmnop$4L7bBCw/MjlIUPbOwVMmMl7nWCAWzKJHFXvnE8U/MXpWRfnd2hlUrO5g/kyMkjAWfQhGG1Cg9rk2y8QyzIGV20\n",
		"secrets/all.pub":    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl someone\n",
	} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
}

// render renders the project, and returns the inputs of all hosts.
func render(t *testing.T, dir string) map[string]fingerprint.Inputs {
	t.Helper()
	p, problems, err := project.Load(dir)
	require.NoError(t, err)
	require.Zero(t, problems.Errors(), "%v", problems)
	tree, err := hive.Render(p, k3splan.Files)
	require.NoError(t, err)
	_, err = tree.Write(dir)
	require.NoError(t, err)
	inputs, err := fingerprint.Of(p, tree)
	require.NoError(t, err)
	return inputs
}
