package nixtest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The harness has modules and packages of an old NixOS, made to look like 24.11. What differs between
// releases and matters here is which k3s they have: tests say that by a folder of sources in which an overlay
// of theirs comes last.

// k3sVariable contains the k3s of a release for the overlay, as JSON; without it the newest ones are added to those
// of the harness.
const k3sVariable = "K3SPLAN_TEST_K3S"

const overlay = `# k3s as the test wants it; made by internal/colmena/nixtest
final: prev:
let
  said = builtins.getEnv "` + k3sVariable + `";
  wanted = if said == "" then { versions = { "1.35" = "1.35.1+k3s1"; "1.36" = "1.36.1+k3s1"; }; insecure = [ ]; } else builtins.fromJSON said;
  attribute = minor: "k3s_" + builtins.replaceStrings [ "." ] [ "_" ] minor;
  package = minor: version: prev.k3s.overrideAttrs (old: {
    inherit version;
    name = "k3s-${version}";
    meta = old.meta // {
      knownVulnerabilities = if builtins.elem minor wanted.insecure then [ "k3s ${minor} has reached its end of life" ] else [ ];
    };
  });
  inherit (prev.lib) filter genAttrs hasPrefix mapAttrs' nameValuePair;
  others = if said == "" then [ ] else filter (hasPrefix "k3s_") (builtins.attrNames prev);
in
genAttrs others (name: throw "'${name}' has been removed from nixpkgs as it has reached end of life")
// mapAttrs' (minor: version: nameValuePair (attribute minor) (package minor version)) wanted.versions
`

// SetK3s makes the harness have the k3s of a release for the rest of the test: minor version -> version, and
// the minor versions that nixpkgs marks as insecure.
func SetK3s(t testing.TB, versions map[string]string, insecure ...string) {
	t.Helper()
	data, err := json.Marshal(map[string]any{"versions": versions, "insecure": append([]string{}, insecure...)})
	require.NoError(t, err)
	t.Setenv(k3sVariable, string(data))
}

// sources returns the folder of the harness's sources with the overlay, or "" if there are none. It is made
// once and kept, as the harness keeps what it derives from the folder.
func sources(t testing.TB, harness string) string {
	t.Helper()
	real := realSources(harness)
	if real == "" {
		return ""
	}
	if _, err := os.Stat(filepath.Join(real, "nixpkgs/pkgs/top-level/impure.nix")); err != nil {
		return ""
	}
	nixpkgs, err := filepath.EvalSymlinks(filepath.Join(real, "nixpkgs"))
	require.NoError(t, err)

	cache := filepath.Join(home, ".cache/k3splan-tests")
	require.NoError(t, os.MkdirAll(cache, 0o755))
	impure := fmt.Sprintf("args: import %s/pkgs/top-level/impure.nix (args // { overlays = (args.overlays or [ ]) ++ [ (import ./overlay.nix) ]; })\n", nixpkgs)
	made := filepath.Join(cache, "sources-"+shortHash(real+nixpkgs+impure+overlay))
	if _, err := os.Stat(made); err == nil {
		return made
	}
	building, err := os.MkdirTemp(cache, "building-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(building) })
	mirror(t, real, building, "nixpkgs")
	mirror(t, nixpkgs, filepath.Join(building, "nixpkgs"), "pkgs")
	mirror(t, filepath.Join(nixpkgs, "pkgs"), filepath.Join(building, "nixpkgs/pkgs"), "top-level")
	top := filepath.Join(building, "nixpkgs/pkgs/top-level")
	mirror(t, filepath.Join(nixpkgs, "pkgs/top-level"), top, "impure.nix")
	require.NoError(t, os.WriteFile(filepath.Join(top, "impure.nix"), []byte(impure), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(top, "overlay.nix"), []byte(overlay), 0o644))
	if err := os.Rename(building, made); err != nil {
		_, exists := os.Stat(made) // another test was faster
		require.NoError(t, exists, err)
	}
	return made
}

// realSources returns the folder of the harness's sources, or "" if there is none.
func realSources(harness string) string {
	real := os.Getenv("NIXEVAL_SOURCES")
	for _, folder := range []string{filepath.Join(harness, "../../nixeval-sources"), filepath.Join(home, ".cache/nixeval-sources")} {
		if info, err := os.Stat(folder); real == "" && err == nil && info.IsDir() {
			real = folder
		}
	}
	real, err := filepath.EvalSymlinks(real)
	if err != nil {
		return ""
	}
	return real
}

// mirror fills a folder with links to what is in another one, but for one entry.
func mirror(t testing.TB, from, to, but string) {
	t.Helper()
	entries, err := os.ReadDir(from)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(to, 0o755))
	for _, entry := range entries {
		if entry.Name() == but || strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		target, err := filepath.EvalSymlinks(filepath.Join(from, entry.Name()))
		require.NoError(t, err)
		require.NoError(t, os.Symlink(target, filepath.Join(to, entry.Name())))
	}
}
