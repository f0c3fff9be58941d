// Package nixtest lets tests run the real Nix without leaving a trace on the machine.
package nixtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// from names the Debian package of a program.
var from = map[string]string{"nix-instantiate": " (Debian: nix-bin)"}

// Needs skips the test if a program is not on PATH.
func Needs(t testing.TB, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIP: %s is not on PATH%s", program, from[program])
		}
	}
}

// TempDir is t.TempDir without symbolic links in its path, which Nix does not accept for a store.
func TempDir(t *testing.T) string {
	t.Helper()
	folder, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	return folder
}

var plain = regexp.MustCompile(`^[A-Za-z0-9/._+-]+$`)

// Plain reports whether a path needs no quotes anywhere, as Colmena requires for the path of a hive.
func Plain(path string) bool { return plain.MatchString(path) }

// PlainDir is TempDir with a path that needs no quotes, wherever temporary files are kept.
func PlainDir(t *testing.T) string {
	t.Helper()
	if folder := TempDir(t); Plain(folder) {
		return folder
	}
	folder, err := os.MkdirTemp("/tmp", "nixtest-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(folder)) })
	folder, err = filepath.EvalSymlinks(folder)
	require.NoError(t, err)
	return folder
}

// Private returns an environment in which Nix reads no configuration, and writes its store, database and
// caches below a temporary folder.
func Private(t *testing.T) []string {
	t.Helper()
	root := TempDir(t)
	t.Cleanup(func() { Writable(root) })
	conf := filepath.Join(root, "etc")
	require.NoError(t, os.Mkdir(conf, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(conf, "nix.conf"),
		[]byte("build-users-group =\nsandbox = false\nsubstituters =\n"), 0o644))
	return []string{
		"HOME=" + root,
		"XDG_CACHE_HOME=" + root + "/cache",
		"XDG_CONFIG_HOME=" + root + "/config",
		"XDG_DATA_HOME=" + root + "/data",
		"XDG_STATE_HOME=" + root + "/xdg-state",
		"NIX_CONFIG=",
		"NIX_CONF_DIR=" + conf,
		"NIX_LOG_DIR=" + root + "/log",
		"NIX_PATH=",
		"NIX_REMOTE=",
		"NIX_STATE_DIR=" + root + "/state",
		"NIX_STORE_DIR=" + root + "/store",
		"NIX_USER_CONF_FILES=",
	}
}

// SetPrivate sets the environment of Private for the rest of the test.
func SetPrivate(t *testing.T) {
	t.Helper()
	for _, entry := range Private(t) {
		name, value, _ := strings.Cut(entry, "=")
		t.Setenv(name, value)
	}
}

// Writable makes the folders of a store writable, so that the test can remove them.
func Writable(root string) {
	_ = filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			_ = os.Chmod(path, 0o755)
		}
		return nil
	})
}
