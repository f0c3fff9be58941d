package project

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
)

// loadSoon fails a test in which Load waits for a pipe.
func loadSoon(t *testing.T, dir string) diag.Problems {
	t.Helper()
	found := make(chan diag.Problems, 1)
	go func() {
		_, problems, err := Load(dir)
		if err != nil {
			problems = append(problems, diag.Problem{Message: err.Error()})
		}
		found <- problems
	}()
	select {
	case problems := <-found:
		return problems
	case <-time.After(20 * time.Second):
		require.FailNow(t, "it hangs")
		return nil
	}
}

// A pipe in the place of a table was waited for, for ever, and a link to /dev/zero filled the memory.
func TestNoFileInTheProjectIsWaitedFor(t *testing.T) {
	codes := map[string]string{
		"plans/hosts.csv": "file-unreadable", "plans/k3s.csv": "file-unreadable", "plans/network.yaml": "file-unreadable",
		"plans/versions.yaml": "file-unreadable", "plans/lock.json": "lock-invalid", "plans/known_hosts": "host-key-invalid",
		"nixConfigs/olaf.nix": "file-unreadable", "partitioning/olaf.nix": "file-unreadable", "hardware/olaf.nix": "file-unreadable",
		"manifests/x.yaml": "manifest-invalid", "manifests/y.json": "manifest-invalid",
		"k3s/server.yaml": "file-unreadable", "k3s/agent.yaml": "file-unreadable",
		"secrets/init-token": "secret-invalid", "secrets/agent-token": "secret-invalid", "secrets/passwd": "secret-invalid",
		"secrets/ulfpasswd": "secret-invalid", "secrets/all.pub": "ssh-key-invalid", "secrets/ulf.pub": "ssh-key-invalid",
		"secrets/hosts/olaf_ed25519": "secret-invalid",
	}
	folders := map[string]string{
		"nixConfigs": "file-unreadable", "partitioning": "file-unreadable", "hardware": "file-unreadable", "manifests": "file-unreadable",
		"k3s": "file-unreadable", "secrets": "secret-invalid", "secrets/hosts": "secret-invalid",
	}
	pipe := func(t *testing.T, name string) { require.NoError(t, syscall.Mkfifo(name, 0o600)) }
	kinds := map[string]struct {
		put  func(t *testing.T, name string)
		says string
	}{
		"a named pipe": {pipe, "is a named pipe, not a file"},
		"a folder":     {func(t *testing.T, name string) { require.NoError(t, os.Mkdir(name, 0o700)) }, "is a folder, not a file"},
		"a device":     {func(t *testing.T, name string) { require.NoError(t, os.Symlink("/dev/zero", name)) }, "is a link to a device, not to a file"},
		"a socket": {func(t *testing.T, name string) {
			t.Chdir(filepath.Dir(name)) // its path is short
			socket, err := net.Listen("unix", filepath.Base(name))
			require.NoError(t, err)
			t.Cleanup(func() { socket.Close() })
		}, "is a socket, not a file"},
		"a link to a pipe": {func(t *testing.T, name string) {
			target := filepath.Join(t.TempDir(), "pipe")
			pipe(t, target)
			require.NoError(t, os.Symlink(target, name))
		}, "is a link to a named pipe, not to a file"},
		"no end": {func(t *testing.T, name string) {
			require.NoError(t, os.WriteFile(name, nil, 0o600))
			require.NoError(t, os.Truncate(name, 1<<41))
		}, "is larger than "},
	}
	put := func(t *testing.T, dir, file string, how func(*testing.T, string)) {
		name := filepath.Join(dir, file)
		require.NoError(t, os.RemoveAll(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o700))
		how(t, name)
	}
	requireProblem := func(t *testing.T, problems diag.Problems, file, code, says string) {
		i := slices.IndexFunc(problems, func(p diag.Problem) bool { return p.File == file && p.Code == code })
		require.GreaterOrEqual(t, i, 0, "%s: %v", file, problems)
		require.Equal(t, diag.Error, problems[i].Severity)
		require.Contains(t, problems[i].Message, says)
		require.NotEmpty(t, problems[i].Hint)
		require.NotContains(t, problems[i].Message, "/tmp")
	}
	for kind, k := range kinds {
		t.Run(kind, func(t *testing.T) {
			for file, code := range codes {
				dir := folder(t, nil)
				put(t, dir, file, k.put)
				requireProblem(t, loadSoon(t, dir), file, code, k.says)
			}
			dir := folder(t, nil)
			put(t, dir, "plans/cluster.xlsx", k.put)
			for _, file := range []string{"hosts.csv", "k3s.csv", "network.yaml"} {
				require.NoError(t, os.Remove(filepath.Join(dir, "plans", file)))
			}
			requireProblem(t, loadSoon(t, dir), plan.WorkbookFile, "file-unreadable", k.says)
		})
	}
	t.Run("folders", func(t *testing.T) {
		for file, code := range folders {
			dir := folder(t, nil)
			put(t, dir, file, pipe)
			problems := loadSoon(t, dir)
			i := slices.IndexFunc(problems, func(p diag.Problem) bool { return p.File == file && p.Code == code })
			require.GreaterOrEqual(t, i, 0, "%s: %v", file, problems)
			require.NotEmpty(t, problems[i].Hint, file)
		}
	})
	t.Run("all at once", func(t *testing.T) {
		dir := folder(t, nil)
		// which define where the secrets are, and whose
		delete(codes, "plans/network.yaml")
		delete(codes, "plans/hosts.csv")
		for file := range codes {
			put(t, dir, file, pipe)
		}
		problems := loadSoon(t, dir)
		for file, code := range codes {
			requireProblem(t, problems, file, code, "is a named pipe, not a file")
		}
	})
}

// What is not named like a manifest was never expected to be one.
func TestPipesBesideManifests(t *testing.T) {
	dir := folder(t, map[string]string{"manifests/a.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n"})
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "manifests", "pipe"), 0o600))
	require.Equal(t, []string{"manifest-ignored manifests/pipe:0"}, slices.DeleteFunc(brief(loadSoon(t, dir)), func(line string) bool { return !strings.HasPrefix(line, "manifest") }))
}
