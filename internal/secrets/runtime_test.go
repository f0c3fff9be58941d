package secrets

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/secrets/secretstest"
)

// TestMain makes the test binary a process that holds a runtime until it is killed.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_HOLD_RUNTIME") != "" {
		r, err := NewRuntime()
		if err == nil {
			_, err = r.Put("init-token", []byte(poison))
		}
		if err != nil {
			os.Exit(1)
		}
		os.Stdout.WriteString(r.Dir + "\n")
		select {}
	}
	os.Exit(m.Run())
}

// hold starts such a process and returns its runtime's folder.
func hold(t *testing.T) (process *os.Process, dir string) {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), "TEST_HOLD_RUNTIME=1")
	out, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return command.Process, strings.TrimSpace(line)
}

// holds reports whether the poison is in a file below a folder; modes are checked on the way.
func holds(t *testing.T, dir string) (found bool) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, "%s: other users can access it", file)
		if entry.IsDir() {
			return nil
		}
		content, err := os.ReadFile(file)
		found = found || leaks(string(content))
		return err
	}))
	return found
}

func TestTheRuntimeOfADeadProcessIsSwept(t *testing.T) {
	home := secretstest.Home(t)
	dead, deadDir := hold(t)
	_, livingDir := hold(t)
	require.Equal(t, filepath.Join(home, "run", "k3splan"), filepath.Dir(deadDir))
	require.True(t, holds(t, deadDir), "the control: the search finds")

	swept, err := SweepRuntime()
	require.NoError(t, err)
	require.Zero(t, swept, "both live")

	require.NoError(t, dead.Kill())
	_, err = dead.Wait()
	require.NoError(t, err)
	require.True(t, holds(t, deadDir), "a killed process leaves it")
	swept, err = SweepRuntime()
	require.NoError(t, err)
	require.Equal(t, 1, swept)
	require.NoDirExists(t, deadDir)
	require.True(t, holds(t, livingDir), "what is in use stays")
}

func TestRuntime(t *testing.T) {
	secretstest.Home(t)
	r, err := NewRuntime()
	require.NoError(t, err)
	file, err := r.Put("hosts/olaf", []byte(poison))
	require.NoError(t, err)
	require.True(t, holds(t, r.Dir))
	require.NoError(t, os.WriteFile(file+"~", []byte("an editor's"), 0o600))
	content, err := ReadRuntime(r.Dir, "hosts/olaf")
	require.NoError(t, err)
	require.Equal(t, poison, string(content))
	_, err = ReadRuntime(r.Dir, "passwd")
	require.ErrorIs(t, err, fs.ErrNotExist)
	for _, name := range []string{"../x", "/etc/passwd", ".lock"} {
		_, err = ReadRuntime(r.Dir, name)
		require.Error(t, err)
		_, err = r.Put(name, nil)
		require.Error(t, err)
	}
	require.NoError(t, os.Chmod(r.Dir, 0o755))
	_, err = ReadRuntime(r.Dir, "hosts/olaf")
	require.ErrorContains(t, err, "other users can access it")
	require.NoError(t, r.Close())
	require.NoDirExists(t, r.Dir)
}

// A folder that another could have prepared, or can look into, is not used.
func TestARuntimeIsForOneself(t *testing.T) {
	home := secretstest.Home(t)
	run := filepath.Join(home, "run")
	for name, prepare := range map[string]func() error{
		"open folder": func() error {
			open := filepath.Join(run, "k3splan")
			return errors.Join(os.Mkdir(open, 0o755), os.Chmod(open, 0o755)) // whatever the umask
		},
		"link":        func() error { return os.Symlink(home, filepath.Join(run, "k3splan")) },
		"file":        func() error { return os.WriteFile(filepath.Join(run, "k3splan"), nil, 0o600) },
		"open parent": func() error { return os.Chmod(run, 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, prepare())
			r, err := NewRuntime()
			require.NoError(t, err)
			require.NotEqual(t, filepath.Join(run, "k3splan"), filepath.Dir(r.Dir))
			_, err = r.Put("passwd", []byte(poison))
			require.NoError(t, err)
			require.True(t, holds(t, r.Dir))
			require.NoError(t, r.Close())
			require.NoError(t, os.RemoveAll(filepath.Join(run, "k3splan")))
		})
	}
}
