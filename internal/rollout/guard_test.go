package rollout

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
	"k3splan/internal/run/runtest"
)

// The last question is asked on the machine, by NixOS, once; it keeps a server from being stopped while another
// member of etcd is down.
func TestGuard(t *testing.T) {
	asked := filepath.Join(t.TempDir(), "asked")
	runtest.Fake(t, "nixos-container", `echo "$*" >> `+asked+`
echo "https://10.0.10.3:2379 is healthy: successfully committed proposal: took = 2.5ms"
if [ -e `+asked+`.down ]; then
  echo '{"level":"warn","msg":"retrying"}' >&2
  echo "https://10.0.10.4:2379 is unhealthy: failed to commit proposal: context deadline exceeded" >&2
  echo "Error: unhealthy cluster" >&2
  exit 1
fi
`)
	folder := t.TempDir()
	guard := filepath.Join(folder, "guard")
	leave := func() {
		script := strings.ReplaceAll(strings.ReplaceAll(guardScript("olaf-s"), guardFile, guard), filepath.Dir(guardFile), folder)
		out, err := exec.Command("sh", "-c", script).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	leave()
	out, err := exec.Command("sh", guard).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoFileExists(t, guard)
	content, err := os.ReadFile(asked)
	require.NoError(t, err)
	require.Equal(t, "run olaf-s -- etcdctl endpoint health --cluster\n", string(content))

	require.NoError(t, os.WriteFile(asked+".down", nil, 0o600))
	leave()
	out, err = exec.Command("sh", guard).CombinedOutput()
	require.Error(t, err)
	require.Equal(t, "k3splan: olaf-s was not stopped, as another member of etcd went down: https://10.0.10.4:2379\n", string(out))
	require.NoFileExists(t, guard, "it is about one activation")
}

// What the user has forced is not asked again by the machine.
func TestGuardKnowsWhatWasForced(t *testing.T) {
	p := tables(t, map[string]string{"olaf": "i", "rolf": "s", "ulf": "s"}, "")
	d := &Driver{Before: living(t, p)}
	require.Contains(t, d.guardFor("rolf", Work{System: true}), "set -- 'rolf-s'")
	require.Contains(t, d.guardFor("rolf", Work{Reboot: true}), "set -- 'rolf-s'")
	require.Empty(t, d.guardFor("rolf", Work{System: true, OnlyNames: true}))
	forced := objection{Problem: diag.Problem{Severity: diag.Error, Code: "quorum-lost"}}
	d.Agreed = []objection{{Problem: diag.Problem{Code: "quorum-of-two"}}}
	require.NotEmpty(t, d.guardFor("rolf", Work{System: true}))
	d.Agreed = []objection{forced}
	require.Empty(t, d.guardFor("rolf", Work{System: true}))
	d.Agreed, d.Before.Health["rolf"] = nil, Health{}
	require.Empty(t, d.guardFor("rolf", Work{System: true}), "it is repaired")
}
