package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/secrets/secretstest"
)

// boot-stick needs root for the device. After a `sudo k3splan` in somebody's project everything in it still
// belongs to its owner, who otherwise could neither render nor connect any more.
func TestAfterSudoTheProjectIsItsOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP: needs root")
	}
	const owner = 65534
	home := secretstest.Home(t)
	dir := filepath.Join(home, "rack")
	require.NoError(t, os.CopyFS(dir, os.DirFS("../../examples/rack")))
	require.NoError(t, exec.Command("chown", "-R", "65534:65534", dir).Run())
	require.NoError(t, os.WriteFile(filepath.Join(home, "editor"), []byte("#!/bin/sh\ncat \"$HASH\" > \"$1\"\n"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(home, "hash"), []byte(testHash), 0o600))
	t.Setenv("HASH", filepath.Join(home, "hash"))
	t.Setenv("EDITOR", filepath.Join(home, "editor"))
	run := func(args ...string) {
		command := exec.Command("k3splan", args...)
		command.Dir, command.Stdin = dir, strings.NewReader("a long enough password\n")
		out, err := command.CombinedOutput()
		require.NoError(t, err, "%s: %s", args, out)
	}
	own := func(file, content string) {
		name := filepath.Join(dir, file)
		require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
		require.NoError(t, os.Chown(name, owner, owner))
	}
	run("setup", ".")
	own("secrets/all.pub", testKey)
	own("secrets/recipients", secretstest.AgeKey(t)+"\n")
	for _, args := range [][]string{
		{"passwd", "--stdin"}, {"known-hosts", "make"}, {"secrets", "edit", "ulfpasswd"}, {"secrets", "move", "--to", "age"}, {"secrets", "rekey"},
		{"passwd", "--all", "--stdin"}, {"known-hosts", "make", "--renew", "olaf"}, {"add", "host", "zora", "--interface", "eno1", "--admin", "zora"},
		{"rename", "ulf", "udo"}, {"known-hosts", "make"}, {"ssh-config"}, {"render"}, {"render"},
	} {
		run(args...)
	}
	seen := 0
	require.NoError(t, filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := entry.Info()
		require.NoError(t, err)
		require.Equal(t, uint32(owner), info.Sys().(*syscall.Stat_t).Uid, name)
		seen++
		return nil
	}))
	require.FileExists(t, filepath.Join(dir, "generated", "hive.nix"))
	require.FileExists(t, filepath.Join(dir, ".k3splan", "known_hosts"))
	require.Greater(t, seen, 40)
}
