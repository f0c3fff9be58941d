package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func requireFile(t *testing.T, path, content string) {
	t.Helper()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, content, string(got))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
}

// requireNames also shows that no temporary file was left.
func requireNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	require.Equal(t, want, names)
}

// Other users must not see a secret even for a moment, whatever the umask is. It belongs to the
// whole process, so these tests do not run in parallel.
func withUmask(t *testing.T, umask int) {
	t.Helper()
	old := syscall.Umask(umask)
	t.Cleanup(func() { syscall.Umask(old) })
}

func TestCreate(t *testing.T) {
	withUmask(t, 0)
	dir := filepath.Join(t.TempDir(), "a b", "c")
	path := filepath.Join(dir, "secrets", "init-token")
	require.NoError(t, Create(path, []byte("one\n"), Private))
	requireFile(t, path, "one\n")
	for _, folder := range []string{filepath.Dir(path), dir, filepath.Dir(dir)} {
		info, err := os.Stat(folder)
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o700), info.Mode().Perm())
	}

	err := Create(path, []byte("two\n"), Private)
	require.ErrorIs(t, err, fs.ErrExist)
	requireFile(t, path, "one\n")
	requireNames(t, filepath.Dir(path), "init-token")
}

// File systems that cannot rename without replacing have hard links, or neither (FAT).
func TestCreateOnOtherFileSystems(t *testing.T) {
	defer func(before func(from, to string) error) { renameNoReplace = before }(renameNoReplace)
	for _, unsupported := range []error{syscall.EINVAL, syscall.ENOSYS, errors.ErrUnsupported} {
		renameNoReplace = func(string, string) error { return unsupported }
		dir := t.TempDir()
		path := filepath.Join(dir, "passwd")
		require.NoError(t, Create(path, []byte("one\n"), Private))
		require.ErrorIs(t, Create(path, []byte("two\n"), Private), fs.ErrExist)
		requireFile(t, path, "one\n")
		require.NoError(t, os.WriteFile(filepath.Join(dir, "other"), []byte("x"), 0o600))
		require.ErrorIs(t, Rename(path, filepath.Join(dir, "other")), fs.ErrExist)
		require.NoError(t, Rename(path, filepath.Join(dir, "third")))
		requireNames(t, dir, "other", "third")
	}
}

func TestCreateFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "passwd")
	require.NoError(t, os.Symlink("elsewhere", path))
	require.ErrorIs(t, Create(path, []byte("x"), Private), fs.ErrExist)
	requireNames(t, dir, "passwd")
	require.Error(t, Create(filepath.Join(path, "x"), []byte("x"), Private), "a parent that is no folder")
}

func TestReplace(t *testing.T) {
	withUmask(t, 0)
	dir := filepath.Join(t.TempDir(), "secrets")
	path := filepath.Join(dir, "passwd")
	require.NoError(t, Replace(path, []byte("one\n"), Private), "a file that is not there yet")
	requireFile(t, path, "one\n")
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o700), info.Mode().Perm())

	require.NoError(t, os.Chmod(path, 0o644))
	old, err := os.Open(path)
	require.NoError(t, err)
	defer old.Close()
	require.NoError(t, Replace(path, []byte("two\n"), Private))
	requireFile(t, path, "two\n")
	requireNames(t, dir, "passwd")
	content := make([]byte, 8)
	n, err := old.Read(content)
	require.NoError(t, err)
	require.Equal(t, "one\n", string(content[:n]), "a reader of the old file keeps the old secret")
}

func TestReplaceKeepsALink(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	path, target := filepath.Join(dir, "passwd"), filepath.Join(elsewhere, "shared")
	require.NoError(t, os.WriteFile(target, []byte("one"), 0o644))
	require.NoError(t, os.Symlink(target, path))
	require.NoError(t, Replace(path, []byte("two"), Private))
	requireFile(t, target, "two")
	requireNames(t, elsewhere, "shared")
	info, err := os.Lstat(path)
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&fs.ModeSymlink)

	require.NoError(t, os.Remove(target))
	require.Error(t, Replace(path, []byte("three"), Private))
	requireNames(t, elsewhere)
}

func TestReplaceOfAFolder(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "passwd"), 0o700))
	require.ErrorContains(t, Replace(filepath.Join(dir, "passwd"), []byte("x"), Private), "is a folder, not a file")
	requireNames(t, dir, "passwd")
}
