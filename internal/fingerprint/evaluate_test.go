package fingerprint_test

import (
	"encoding/json"
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
	before, systems := look(t, dir)
	type edit struct{ file, old, new string }
	row := edit{"plans/hosts.csv", "karl,,storage,4", "karl,,storage,40"}
	snippet := edit{"nixConfigs/ulf-k3s-server.nix", "pkgs.etcd", "pkgs.htop"}
	apply := func(t *testing.T, e edit) {
		name := filepath.Join(dir, e.file)
		original, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Contains(t, string(original), e.old)
		require.NoError(t, os.WriteFile(name, []byte(strings.Replace(string(original), e.old, e.new, 1)), 0o600))
		t.Cleanup(func() { require.NoError(t, os.WriteFile(name, original, 0o600)) })
	}
	for _, test := range []edit{
		snippet,
		{"plans/k3s.csv", "karl,karl-k3s-agent,agent,10.0.100.25", "karl,karl-k3s-agent,agent,10.0.100.26"},
		{"plans/network.yaml", "tls_san: [k3s.rack.home.arpa]", "tls_san: [k3s.rack.home.arpa]\npod_cidr: 10.60.0.0/16"},
		{"manifests/namespaces.yaml", "apiVersion", "# changed\napiVersion"},
		{"k3s/server.yaml", "", "debug: true\n"},
	} {
		t.Run(test.file, func(t *testing.T) {
			apply(t, test)
			if test == snippet {
				apply(t, row) // of a host that the snippet does not belong to: one evaluation for both
			}
			after, newSystems := look(t, dir)
			var moved, changed []string
			for host, system := range newSystems {
				if after[host].Fingerprint() != before[host].Fingerprint() {
					moved = append(moved, host)
				}
				if system != systems[host] {
					changed = append(changed, host)
				}
			}
			slices.Sort(moved)
			slices.Sort(changed)
			if test == snippet {
				require.Equal(t, []string{"ulf"}, changed, "nothing reads karl's column")
				changed = []string{"karl", "ulf"} // but it is karl's row
			}
			require.Equal(t, changed, moved, "the evaluation says %v, the fingerprints say %v", changed, moved)
			require.NotEmpty(t, moved)
		})
	}
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

// look returns the inputs of all hosts, and their systems as Nix evaluates them.
func look(t *testing.T, dir string) (map[string]fingerprint.Inputs, map[string]string) {
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

	out, code := nixtest.Harness(t, "evalhive.sh", "--expr", "lib.mapAttrs (_: t: t.drvPath) toplevel", filepath.Join(dir, hive.Dir, "hive.nix"))
	require.Zero(t, code, out)
	var systems map[string]string
	require.NoError(t, json.Unmarshal([]byte(out), &systems))
	return inputs, systems
}
