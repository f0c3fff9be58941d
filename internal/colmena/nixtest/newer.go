package nixtest

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// NewerVariable names a folder with the system of Debian 13, whose Nix evaluates what older ones refuse. It
// is made outside of the checkout by: debootstrap --variant=minbase --include=libdbi-perl,nix-bin trixie FOLDER
const NewerVariable = "K3SPLAN_DEBIAN13"

// newerFolder is where it is without the variable.
const newerFolder = ".cache/k3splan-debian13"

// Newer returns a folder with the programs of Debian 13's Nix, which run on this system, to be put before
// PATH. Without that system it skips the test.
func Newer(t *testing.T) string {
	t.Helper()
	root := os.Getenv(NewerVariable)
	if root == "" {
		root = filepath.Join(home, newerFolder)
	}
	nix := filepath.Join(root, "usr/bin/nix")
	if _, err := os.Stat(nix); err != nil {
		t.Skipf("SKIP: no Debian 13 with nix-bin in %s (%s)", root, NewerVariable)
	}
	folder := TempDir(t)
	libraries, err := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu"))
	require.NoError(t, err)
	loaders, err := filepath.Glob(filepath.Join(root, "usr/lib*/ld-linux-*.so.*"))
	require.NoError(t, err)
	require.NotEmpty(t, libraries)
	require.NotEmpty(t, loaders)
	for _, name := range []string{"nix", "nix-build", "nix-hash", "nix-instantiate", "nix-prefetch-url", "nix-shell", "nix-store"} {
		script := fmt.Sprintf("#!/bin/sh\nexec %s --argv0 %s --library-path %s %s \"$@\"\n", loaders[0], name, libraries[0], nix)
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
