package nixtest

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// debian13Variable names a folder with the system of Debian 13, whose Nix, Podman and systemd are newer than those
// of Debian 12. Without it that is debian13Folder below the user's home. .ci/packages makes it.
const (
	debian13Variable = "K3SPLAN_DEBIAN13"
	debian13Folder   = ".cache/k3splan-tests/debian13"
)

// Debian13 returns the words that start a program ("/usr/bin/nix") of Debian 13 on this system. Without that it
// skips the test.
func Debian13(t testing.TB, program string) []string {
	t.Helper()
	root := os.Getenv(debian13Variable)
	if root == "" {
		root = filepath.Join(home, debian13Folder)
	}
	if _, err := os.Stat(filepath.Join(root, program)); err != nil {
		t.Skipf("SKIP: no Debian 13 with %s in %s, where .ci/packages puts it as root ($%s)", program, root, debian13Variable)
	}
	loaders, err := filepath.Glob(filepath.Join(root, "usr/lib*/ld-linux-*.so.*"))
	require.NoError(t, err)
	require.NotEmpty(t, loaders)
	libraries, err := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu"))
	require.NoError(t, err)
	require.NotEmpty(t, libraries)
	return []string{loaders[0], "--library-path", libraries[0] + ":" + libraries[0] + "/systemd", filepath.Join(root, program)}
}

// FromDebian13 is Debian13 for a program that starts itself again, which its loader would spoil: it returns how a
// script of sh begins that is root in a mount namespace of its own. All of its programs use the newer libraries.
func FromDebian13(t testing.TB, program string) string {
	t.Helper()
	words := Debian13(t, program)
	hosts, err := filepath.Glob("/lib*/" + filepath.Base(words[0]))
	require.NoError(t, err)
	require.NotEmpty(t, hosts)
	return fmt.Sprintf("mount --bind %s %s\nexport LD_LIBRARY_PATH=%s PATH=%s:$PATH\n", words[0], hosts[0], words[2], filepath.Dir(words[3]))
}

// Newer returns a folder with the programs of Debian 13's Nix, which run on this system, to be put before
// PATH. Without that system it skips the test.
func Newer(t *testing.T) string {
	t.Helper()
	words := Debian13(t, "/usr/bin/nix")
	folder := TempDir(t)
	for _, name := range []string{"nix", "nix-build", "nix-hash", "nix-instantiate", "nix-prefetch-url", "nix-shell", "nix-store"} {
		script := fmt.Sprintf("#!/bin/sh\nexec %s --argv0 %s %s \"$@\"\n", words[0], name, strings.Join(words[1:], " "))
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(script), 0o755))
	}
	out, err := exec.Command(filepath.Join(folder, "nix-instantiate"), "--version").CombinedOutput()
	require.NoError(t, err, string(out))
	return folder
}

// SetNewer puts Debian 13's Nix before PATH for the rest of the test.
func SetNewer(t *testing.T) {
	t.Helper()
	t.Setenv("NIX_CONFIG", "build-users-group =") // Debian has that group with the package only
	t.Setenv("PATH", Newer(t)+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func shortHash(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))[:12] }
