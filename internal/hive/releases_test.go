package hive_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan"
	"k3splan/internal/colmena"
	"k3splan/internal/colmena/nixtest"
	"k3splan/internal/hive"
	"k3splan/internal/project"
	"k3splan/internal/release"
)

// k3sOf are the k3s of a release as its nixpkgs has them.
func k3sOf(r release.NixOS) map[string]string {
	versions := map[string]string{}
	for _, minor := range r.K3s {
		versions[minor] = minor + ".9+k3s1"
		if k, _ := release.FindK3s(minor); k.Leave != "" {
			versions[minor] = k.Leave
		}
	}
	return versions
}

// renderedWith renders the single host with other versions, whatever is wrong with them, and returns its hive.
func renderedWith(t *testing.T, nixos, k3s string) string {
	t.Helper()
	dir := copyExample(t, "single", map[string]string{
		"plans/network.yaml": "netmask: 24\ngateway: 192.168.1.1\nversions:\n  nixos: " + nixos + "\n  k3s: " + k3s + "\n", "plans/lock.json": "-"})
	p, _, err := project.Load(dir)
	require.NoError(t, err)
	tree, err := hive.Render(p, k3splan.Files)
	require.NoError(t, err)
	_, err = tree.Write(dir)
	require.NoError(t, err)
	return filepath.Join(dir, hive.Dir, "hive.nix")
}

// Systems and images evaluate with the newest k3s of every release, down to their derivations, and with each of
// the ended ones if the plan permits it. (The modules are those of the harness.)
func TestEveryRelease(t *testing.T) {
	for _, r := range release.All() {
		t.Run(r.Name, func(t *testing.T) {
			insecure := slices.DeleteFunc(slices.Clone(r.K3s), func(minor string) bool { return !r.Insecure(minor) })
			nixtest.SetK3s(t, k3sOf(r), insecure...)
			file := renderedWith(t, r.Branch(), r.NewK3s())
			out, code := evalHive(t, "--paths", file)
			require.Zero(t, code, out)
			require.Contains(t, out, "toplevel")
			require.Contains(t, out, "iso")
		})
	}
}

// A k3s that nixpkgs marks as insecure is refused in k3splan's words, for servers and agents alike, with the
// versions that are not; as a step of an upgrade exactly it is permitted.
func TestEndedK3s(t *testing.T) {
	const server = `(builtins.tryEval (builtins.seq nodes.olaf.config.k3splan.k3s.package.drvPath true)).success`
	const agent = `(builtins.tryEval (builtins.seq nodes.olaf.config.k3splan.k3s.image true)).success`
	r, _ := release.Find("25.11")
	nixtest.SetK3s(t, k3sOf(r), "1.31", "1.32")

	file := renderedWith(t, "nixos-25.11", `"1.31"`)
	require.Equal(t, []any{false, false}, evaluate(t, "[ "+server+" "+agent+" ]", file))
	text := messageOf(t, file, "nodes.olaf.config.k3splan.k3s.image")
	require.Contains(t, text, "k3s 1.31 is past its end of life: nixpkgs (nixos-25.11) marks it as insecure (k3s 1.31 has reached its end of life)")
	require.Contains(t, text, "It has 1.33, 1.34: set versions.k3s to one of these")
	require.NotContains(t, text, "NIXPKGS_ALLOW_INSECURE")

	// an exact version has an image of its own, which is refused all the same
	file = renderedWith(t, "nixos-25.11", "v1.31.14+k3s1")
	require.Equal(t, []any{false, false}, evaluate(t, "[ "+server+" "+agent+" ]", file))

	file = renderedWith(t, "nixos-25.11", "\"1.32\"\n  permit_ended: \"1.32\"")
	require.Equal(t, []any{true, "docker.io/rancher/k3s:v1.32.11-k3s3", []any{"k3s-1.32.11+k3s3"}},
		evaluate(t, "[ "+server+" nodes.olaf.config.k3splan.k3s.image nodes.olaf.config.nixpkgs.config.permittedInsecurePackages ]", file))

	file = renderedWith(t, "nixos-25.11", `"1.34"`)
	require.Equal(t, []any{true, true, false}, evaluate(t, "[ "+server+" "+agent+" (nodes.olaf.config.nixpkgs.config ? permittedInsecurePackages) ]", file))

	// and one that nixpkgs has dropped
	file = renderedWith(t, "nixos-25.11", `"1.29"`)
	text = messageOf(t, file, "nodes.olaf.config.k3splan.k3s.package.name")
	require.Contains(t, text, "the plan asks for k3s 1.29, which nixpkgs (nixos-25.11) does not have.")
	require.Contains(t, text, "It has 1.33, 1.34")

	// when all of a release have ended, none can be proposed
	nixtest.SetK3s(t, map[string]string{"1.34": "1.34.9+k3s1"}, "1.34")
	text = messageOf(t, renderedWith(t, "nixos-25.11", `"1.34"`), "nodes.olaf.config.k3splan.k3s.package.name")
	require.Contains(t, text, "It has none that is supported: take another versions.nixos. A running cluster takes one minor version after the other: k3splan upgrade.")
}

// messageOf returns what Nix says when an expression fails.
func messageOf(t *testing.T, hiveFile, expression string) string {
	t.Helper()
	said := filepath.Join(t.TempDir(), "said")
	out, err := os.Create(said)
	require.NoError(t, err)
	code := nixtest.HarnessTo(t, out, "evalhive.sh", "--expr", expression, hiveFile)
	require.NoError(t, out.Close())
	require.NotZero(t, code)
	text, err := os.ReadFile(said)
	require.NoError(t, err)
	return strings.Join(strings.Fields(string(text)), " ")
}

// The newest Nix of Debian reads and evaluates what is rendered, as the old one does.
func TestNewerNix(t *testing.T) {
	out, err := exec.Command("nix-instantiate", "--version").Output()
	require.NoError(t, err)
	nixtest.SetNewer(t)
	newer, err := exec.Command("nix-instantiate", "--version").Output()
	require.NoError(t, err)
	if string(out) == string(newer) {
		t.Skipf("SKIP: the Nix of this machine is Debian 13's as well: %s", out)
	}
	for _, name := range examples(t) {
		t.Run(name, func(t *testing.T) {
			file := rendered(t, name, nil)
			out, code := evalHive(t, "--parse", filepath.Dir(file))
			require.Zero(t, code, out)
			require.Contains(t, string(newer), evaluate(t, "builtins.nixVersion", file), "the program that ran")
			out, code = evalHive(t, "--check", file, "olaf") // a server and an agent: one of each is enough for the time it takes
			require.Zero(t, code, out)
			require.Empty(t, out)
		})
	}
}

// Colmena asks nixpkgs for its "system", an old name that makes releases from 25.11 on print a warning for every
// host. Users do not see it.
func TestColmenaWarnsOfNothing(t *testing.T) {
	nixtest.Needs(t, "colmena")
	file := renderedWith(t, "../nixpkgs", `"1.35"`)
	nixpkgs := filepath.Join(filepath.Dir(file), "../../nixpkgs")
	require.NoError(t, os.MkdirAll(nixpkgs, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(nixpkgs, "default.nix"), []byte(`
args: import <nixpkgs> args // {
  system = builtins.trace "evaluation warning: 'system' has been renamed to/replaced by 'stdenv.hostPlatform.system'" args.system;
}
`), 0o644))
	// the harness and "colmena eval" set this differently
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(file), "../nixConfigs/olaf.nix"), []byte("{ lib, ... }: { _module.check = lib.mkForce true; }\n"), 0o644))
	opened, err := colmena.OpenHive(file)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, opened.Close()) })
	command := exec.Command("colmena", "eval", "-f", opened.File, "-E", "{ nodes, ... }: nodes.olaf.config.nixpkgs.system")
	command.Env = slices.Concat(os.Environ(), nixtest.Private(t), nixtest.Environment(t), opened.Env)
	said := new(bytes.Buffer)
	command.Stderr = said
	out, err := command.Output()
	require.NoError(t, err, said.String())
	require.JSONEq(t, `"x86_64-linux"`, string(out))
	require.NotContains(t, said.String(), "warning")
}
