package project

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
	"k3splan/internal/run/runtest"
)

func nixProblems(t *testing.T, dir string) diag.Problems {
	t.Helper()
	p, _, err := Load(dir)
	require.NoError(t, err)
	return p.CheckNix(context.Background())
}

// Each file that Nix does not parse is reported, whatever the others are like.
func TestNixFilesThatDoNotParse(t *testing.T) {
	if _, err := exec.LookPath("nix-instantiate"); err != nil {
		t.Skip("SKIP: nix-instantiate is not on PATH (Debian: nix-bin)")
	}
	files := map[string]string{
		"nixConfigs/@big.nix":  "{ config, ... }:\n{\n  a = 1\n  b = 2;\n}\n",
		"nixConfigs/all.nix":   "{ a = 1; }",
		"nixConfigs/draft.nix": "{\n  a = 1\n}",
		"nixConfigs/olaf.nix":  "{ pkgs, ... }: { x = pgs.hello; }",
		"hardware/ulf.nix":     "{ a = \"x; }",
		"hardware/olaf.nix":    "{ a = 1; a = 2; }",
	}
	dir := folder(t, files)
	outside := filepath.Join(t.TempDir(), "elsewhere.nix")
	require.NoError(t, os.WriteFile(outside, []byte("{ a = 1; a = 2; }"), 0o600))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "partitioning"), 0o700))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "partitioning", "olaf.nix")))
	problems := nixProblems(t, dir)
	problems.Sort()
	require.Equal(t, []string{
		"nix-syntax hardware/olaf.nix:1", "nix-syntax hardware/ulf.nix:1", "nix-syntax nixConfigs/@big.nix:4", "nix-syntax nixConfigs/draft.nix:3",
		"nix-syntax nixConfigs/olaf.nix:1", "nix-syntax partitioning/olaf.nix:1",
	}, brief(problems), "%v", problems)
	require.Equal(t, "nixConfigs/@big.nix:4: Nix does not parse it: syntax error, unexpected '=', expecting ';'", problems[2].String())
	require.Equal(t, "is a semicolon missing at the end of the line before?", problems[2].Hint)
	require.Equal(t, diag.Warning, problems[3].Severity, "no host uses it")
	require.Equal(t, diag.Error, problems[4].Severity)
	require.Equal(t, "nixConfigs/olaf.nix:1: Nix does not parse it: undefined variable 'pgs'", problems[4].String())
	require.Equal(t, "hardware/olaf.nix:1: Nix does not parse it: attribute 'a' already defined at hardware/olaf.nix:1:3", problems[0].String())
	require.Empty(t, nixProblems(t, folder(t, map[string]string{"nixConfigs/all.nix": "{ }"})))
}

// Few processes parse many files, and a Nix that is missing or broken says nothing about the files.
func TestNixIsAskedInBatches(t *testing.T) {
	files := map[string]string{}
	for i := range 2 * nixBatch {
		files[fmt.Sprintf("nixConfigs/x%d.nix", i)] = "{ }"
	}
	dir := folder(t, files)
	log := filepath.Join(t.TempDir(), "log")
	t.Setenv("CALLS", log)
	runtest.Fake(t, "nix-instantiate", `echo $# >> "$CALLS"`)
	require.Empty(t, nixProblems(t, dir))
	calls, err := os.ReadFile(log)
	require.NoError(t, err)
	require.Equal(t, "501\n501\n", string(calls))
	runtest.Fake(t, "nix-instantiate", "echo 'error: cannot connect to daemon' >&2; exit 1")
	require.Empty(t, nixProblems(t, dir))
	t.Setenv("PATH", t.TempDir())
	require.Empty(t, nixProblems(t, dir))
}

// Flags in a snippet of a server's container: k3s does not start with one that it does not know.
func TestExtraFlags(t *testing.T) {
	for text, want := range map[string]string{
		`{ services.k3s.extraFlags = [ "--etcd-expose-metrics" "--etcd-arg=x=y" ]; }`:                            "",
		`{ services.k3s.extraFlags = [ "--etcd-expose-metric" ]; }`:                                              "k3s-option-unknown nixConfigs/olaf-server.nix:1 extraFlags",
		"{ services.k3s = {\n  extraFlags = toString [\n    \"--debug\"\n    \"--no-deploy traefik\"\n ];\n}; }": "k3s-option-removed nixConfigs/olaf-server.nix:4 extraFlags",
		"{ services.k3s.extraFlags = ''\n  --debug\n  --cluster-cidr=10.44.0.0/16\n''; }":                        "key-reserved nixConfigs/olaf-server.nix:3 extraFlags",
		"{\n  # services.k3s.extraFlags = [ \"--nonsense\" ];\n}":                                                "",
		`{ services.other.extraFlags = [ "--nonsense" ]; }`:                                                      "",
	} {
		_, problems, err := Load(folder(t, map[string]string{"nixConfigs/olaf-server.nix": text}))
		require.NoError(t, err)
		if want == "" {
			require.Empty(t, problems, text)
			continue
		}
		require.Equal(t, []string{want}, brief(problems), text)
		require.NotContains(t, problems[0].Message, "skip")
	}
}
