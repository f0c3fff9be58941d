package colmena

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k3splan/internal/diag"
	"k3splan/internal/run/runtest"

	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena/nixtest"
	"k3splan/internal/run"
)

func TestFindOnPath(t *testing.T) {
	runtest.Fake(t, "nix-build", "exit 1")
	program := runtest.Fake(t, "colmena", "")
	found, err := Find(context.Background(), "no/such/sources.nix", io.Discard)
	require.NoError(t, err)
	require.Equal(t, program, found)
}

func TestFindNothing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Find(context.Background(), "sources.nix", io.Discard)
	var missing *run.MissingError
	require.ErrorAs(t, err, &missing)
	require.EqualError(t, err, "colmena is not on PATH")
	require.Contains(t, diag.HintOf(err), "nix-bin")
}

// onlyNix is a PATH with fake programs of Nix and without Colmena.
func onlyNix(t *testing.T, script string) {
	t.Helper()
	hideColmena(t)
	runtest.Fake(t, "nix-build", script)
}

// hideColmena takes the folders that hold a Colmena off PATH.
func hideColmena(t *testing.T) {
	t.Helper()
	folders := slices.DeleteFunc(filepath.SplitList(os.Getenv("PATH")), func(folder string) bool {
		_, err := os.Stat(filepath.Join(folder, "colmena"))
		return err == nil
	})
	t.Setenv("PATH", strings.Join(folders, string(os.PathListSeparator)))
}

func TestFindBuilds(t *testing.T) {
	store := nixtest.TempDir(t)
	t.Setenv("STORE", store)
	onlyNix(t, `
printf '%s\n' "$@" > "$STORE/args"
echo building >&2
mkdir -p "$STORE/colmena/bin"
printf '#!/bin/sh\n' > "$STORE/colmena/bin/colmena"
chmod +x "$STORE/colmena/bin/colmena"
echo "$STORE/colmena"
`)
	t.Chdir(store)
	var talk bytes.Buffer
	found, err := Find(context.Background(), filepath.Join("a b", "sources.nix"), &talk)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(store, "colmena/bin/colmena"), found)
	require.Equal(t, "building\n", talk.String())
	args, err := os.ReadFile(filepath.Join(store, "args"))
	require.NoError(t, err)
	require.Equal(t, FromSources(filepath.Join(store, "a b", "sources.nix")), strings.Split(strings.TrimSpace(string(args)), "\n"))
}

func TestFindFails(t *testing.T) {
	onlyNix(t, "echo run k3splan update >&2; exit 1")
	_, err := Find(context.Background(), "sources.nix", nil)
	require.EqualError(t, err, "getting Colmena from the pinned nixpkgs: nix-build failed with exit code 1: run k3splan update")

	onlyNix(t, "echo /no/such/path")
	_, err = Find(context.Background(), "sources.nix", nil)
	require.ErrorContains(t, err, "the pinned nixpkgs has no Colmena that runs")
}

// The real Nix builds what the pinned nixpkgs has, in a project whose path no Nix code could hold.
func TestFindInNix(t *testing.T) {
	hideColmena(t)
	nixtest.Needs(t, "nix-build")
	nixtest.SetPrivate(t)
	project := filepath.Join(nixtest.TempDir(t), hardNames[0])
	for name, text := range map[string]string{
		"generated/sources.nix": "{ nixpkgs = ../nixpkgs; disko = throw \"not needed\"; }",
		"nixpkgs/default.nix": `{ config, overlays }: assert config == { } && overlays == [ ]; {
  colmena = derivation {
    name = "colmena";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" "/bin/mkdir -p \"$out/bin\" && echo '#!/bin/sh' > \"$out/bin/colmena\" && /bin/chmod +x \"$out/bin/colmena\"" ];
  };
}`,
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(project, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(project, name), []byte(text), 0o644))
	}
	found, err := Find(context.Background(), filepath.Join(project, "generated", "sources.nix"), nil)
	require.NoError(t, err)
	require.Equal(t, os.Getenv("NIX_STORE_DIR"), filepath.Dir(filepath.Dir(filepath.Dir(found))))
	require.NoError(t, run.Run(context.Background(), run.Command{Program: found}))
	require.Equal(t, []string{"generated", "nixpkgs"}, listing(t, project), "nix-build left a link")
}
