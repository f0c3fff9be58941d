package colmena

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena/nixtest"
)

func resolvedOf(t *testing.T, sources string, users map[string]string) *Hive {
	t.Helper()
	h, err := ResolvedHive(sources, map[string]Resolved{
		"olaf": {Derivation: "/nix/store/1-olaf.drv", System: "/nix/store/1-olaf", Deployment: map[string]json.RawMessage{"targetUser": []byte(`"deploy"`), "tags": []byte(`["a b"]`)}},
		"karl": {Derivation: "/nix/store/2-karl.drv", System: "/nix/store/2-karl", Deployment: map[string]json.RawMessage{"targetUser": []byte(`"deploy"`)}},
	}, users)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	return h
}

func TestResolvedHive(t *testing.T) {
	nixtest.Needs(t, "nix-instantiate")
	nixtest.SetPrivate(t)
	sources := writeHive(t, filepath.Join(nixtest.TempDir(t), hardNames[0]), `{ nixpkgs = ./.; }`)
	require.NoError(t, os.MkdirAll(filepath.Join(filepath.Dir(sources), "lib"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(sources), "lib/default.nix"), []byte(`"the library"`), 0o600))
	t.Chdir(filepath.Dir(sources))
	h := resolvedOf(t, filepath.Base(sources), map[string]string{"karl": "root"})
	require.Regexp(t, pathLiteral, h.File)
	info, err := os.Stat(filepath.Dir(h.File))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	out, err := exec.Command("nix-instantiate", "--eval", "--strict", "--json", "-E", `
		let
		  hive = import `+h.File+`;
		  of = name: (import (hive.meta.nixpkgs.path + "/nixos/lib/eval-config.nix") { system = 1; modules = [ ]; specialArgs = { inherit name; }; }).config;
		in {
		  inherit (hive.meta.nixpkgs) lib;
		  names = builtins.attrNames hive;
		  users = [ (of "olaf").deployment.targetUser (of "karl").deployment.targetUser ];
		  tags = (of "olaf").deployment.tags;
		  paths = [ (of "olaf").system.build.toplevel.drvPath (of "karl").system.build.toplevel.outPath ];
		}`).Output()
	require.NoError(t, err)
	require.JSONEq(t, `{"lib": "the library", "names": ["karl", "meta", "olaf"], "users": ["deploy", "root"], "tags": ["a b"],
		"paths": ["/nix/store/1-olaf.drv", "/nix/store/2-karl"]}`, string(out))
}

func TestAccepts(t *testing.T) {
	bin := t.TempDir()
	say := func(text string) {
		require.NoError(t, os.WriteFile(filepath.Join(bin, "colmena"), []byte("#!/bin/sh\n"+text+"\n"), 0o755))
	}
	h := resolvedOf(t, "sources.nix", nil)
	hosts := map[string]Resolved{"olaf": {Derivation: "/nix/store/1-olaf.drv"}}
	program := filepath.Join(bin, "colmena")
	say(`echo '{"olaf": "/nix/store/1-olaf.drv", "karl": "/nix/store/2-karl.drv"}'`)
	require.NoError(t, Accepts(t.Context(), program, h, hosts))
	say(`echo '{"olaf": "/nix/store/9-olaf.drv"}'`)
	require.ErrorContains(t, Accepts(t.Context(), program, h, hosts), "takes /nix/store/9-olaf.drv for the system of olaf")
	say(`echo '[ERROR] no such thing' >&2; exit 1`)
	require.ErrorContains(t, Accepts(t.Context(), program, h, hosts), "no such thing")
	say(`echo 'nonsense'`)
	require.Error(t, Accepts(t.Context(), program, h, hosts))
}

// The real Colmena shows the code that it has.
func TestShowEvaluatorOfColmena(t *testing.T) {
	nixtest.Needs(t, "colmena", "nix-instantiate")
	for _, entry := range append(nixtest.Private(t), nixtest.Environment(t)...) {
		name, value, _ := strings.Cut(entry, "=")
		t.Setenv(name, value)
	}
	sources := writeHive(t, filepath.Join(nixtest.TempDir(t), hardNames[0]), `{ nixpkgs = <nixpkgs>; }`)
	e, err := ShowEvaluator(t.Context(), "colmena", sources)
	require.NoError(t, err)
	require.Contains(t, e.Files["eval.nix"], "deploymentConfigSelected")
	require.Contains(t, e.Files["options.nix"], "privilegeEscalationCommand")
	require.Contains(t, e.Files["modules.nix"], "keyServiceModule")
	require.Len(t, e.Nix, 3)
	again, err := ShowEvaluator(t.Context(), "colmena", sources)
	require.NoError(t, err)
	require.Equal(t, e.Digest(), again.Digest())
	again.Files["eval.nix"] += " "
	require.NotEqual(t, e.Digest(), again.Digest())
}
