package files

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"k3splan/internal/diag"
)

// exchangeProject makes two tables, one of them behind a link, and two files that get another name.
func exchangeProject(t *testing.T, dir string) []Change {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range map[string]string{"hosts.csv": "old hosts", "real.csv": "old k3s", "ulf.nix": "nix of ulf", "ulf_passwd": "password of ulf"} {
		require.NoError(t, os.WriteFile(at(name), []byte(content), 0o640))
	}
	require.NoError(t, os.Chmod(at("ulf_passwd"), 0o600))
	require.NoError(t, os.Symlink("real.csv", at("k3s.csv")))
	return []Change{
		{Name: at("k3s.csv"), Content: []byte("new k3s")}, {Name: at("hosts.csv"), Content: []byte("new hosts")}, {Name: at("added"), Content: []byte("new file")},
		{Name: at("ulla.nix"), From: at("ulf.nix")}, {Name: at("ulla_passwd"), From: at("ulf_passwd")},
	}
}

func requireContents(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		require.NoError(t, err)
		got[entry.Name()] = string(content)
	}
	require.Equal(t, want, got)
}

var (
	before = map[string]string{"hosts.csv": "old hosts", "k3s.csv": "old k3s", "real.csv": "old k3s", "ulf.nix": "nix of ulf", "ulf_passwd": "password of ulf"}
	after  = map[string]string{"hosts.csv": "new hosts", "k3s.csv": "new k3s", "real.csv": "new k3s", "added": "new file",
		"ulla.nix": "nix of ulf", "ulla_passwd": "password of ulf"}
)

func TestExchange(t *testing.T) {
	dir := t.TempDir()
	changes := exchangeProject(t, dir)
	x, err := Prepare(changes)
	require.NoError(t, err)
	require.NoError(t, x.Discard())
	requireContents(t, dir, before)

	x, err = Prepare(changes)
	require.NoError(t, err)
	require.NoError(t, x.Commit())
	require.NoError(t, x.Discard())
	requireContents(t, dir, after)
	for name, mode := range map[string]fs.FileMode{"hosts.csv": 0o640, "real.csv": 0o640, "ulla_passwd": 0o600} {
		info, err := os.Lstat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode(), name)
	}

	x, err = Prepare([]Change{{Name: filepath.Join(dir, "added"), Remove: true}, {Name: filepath.Join(dir, "hosts.csv"), Content: []byte("newer")}})
	require.NoError(t, err)
	require.NoError(t, x.Commit())
	require.NoFileExists(t, filepath.Join(dir, "added"))
	content, err := os.ReadFile(filepath.Join(dir, "hosts.csv"))
	require.NoError(t, err)
	require.Equal(t, "newer", string(content))
}

// Nothing has changed if something is in the way, even if it comes last.
func TestExchangeOverwritesNoOtherFile(t *testing.T) {
	dir := t.TempDir()
	changes := exchangeProject(t, dir)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ulla_passwd"), []byte("of another one"), 0o600))
	_, err := Prepare(changes)
	require.ErrorIs(t, err, fs.ErrExist)
	content, err := os.ReadFile(filepath.Join(dir, "ulla_passwd"))
	require.NoError(t, err)
	require.Equal(t, "of another one", string(content))
	require.NoError(t, os.Remove(filepath.Join(dir, "ulla_passwd")))
	requireContents(t, dir, before)

	// one with the same content is left of a call that was killed
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ulla_passwd"), []byte("password of ulf"), 0o600))
	x, err := Prepare(changes)
	require.NoError(t, err)
	require.NoError(t, x.Discard())
	require.FileExists(t, filepath.Join(dir, "ulla_passwd"), "it may be all there is")
	x, err = Prepare(changes)
	require.NoError(t, err)
	require.NoError(t, x.Commit())
	requireContents(t, dir, after)
}

// What cannot be completed says so, and the same changes complete it.
func TestExchangeThatFailsHalfWay(t *testing.T) {
	dir := t.TempDir()
	changes := exchangeProject(t, dir)
	x, err := Prepare(changes)
	require.NoError(t, err)
	require.NoError(t, os.Remove(x.staged[1].Name()))
	err = x.Commit()
	require.ErrorContains(t, err, "only a part of the files has changed")
	require.Contains(t, diag.HintOf(err), "same command")
	require.NoError(t, x.Discard())

	x, err = Prepare(changes)
	require.NoError(t, err)
	require.NoError(t, x.Commit())
	requireContents(t, dir, after)
}

// A full disk changes nothing, whichever file it is that lacks the room.
func TestExchangeOnAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP: a small file system can only be mounted by root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("SKIP: no file system can be mounted here: ", err)
	}
	defer func() { require.NoError(t, unix.Unmount(dir, 0)) }()
	changes := exchangeProject(t, dir)
	for i := range 3 {
		full := append([]Change{}, changes...)
		full[i].Content = bytes.Repeat([]byte("x"), 128<<10)
		_, err := Prepare(full)
		require.ErrorIs(t, err, unix.ENOSPC)
		requireContents(t, dir, before)
	}
	x, err := Prepare(changes)
	require.NoError(t, err)
	// from here on it needs no more room
	filler, err := os.Create(filepath.Join(dir, "filler"))
	require.NoError(t, err)
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	require.ErrorIs(t, err, unix.ENOSPC)
	require.NoError(t, errors.Join(x.Commit(), filler.Close(), os.Remove(filler.Name())))
	requireContents(t, dir, after)
}
