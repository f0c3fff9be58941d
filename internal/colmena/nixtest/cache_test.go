package nixtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is known is not evaluated again, until anything that an evaluation can read has changed; it cannot read secrets.
func TestKeptEvaluations(t *testing.T) {
	Needs(t, "nix-instantiate", "bash")
	wasHome, wasAgain := home, again
	t.Cleanup(func() { home, again = wasHome, wasAgain })
	home, again = t.TempDir(), func() bool { return false }
	write := func(file, text string) {
		t.Helper()
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o755))
	}
	harness, sources, calls := filepath.Join(t.TempDir(), "nixeval"), t.TempDir(), filepath.Join(t.TempDir(), "calls")
	script := filepath.Join(harness, "evalhive.sh")
	write(script, `#!/bin/sh
echo call >> "$CALLS"
project=$(dirname "$(dirname "$3")")
printf '"%s has %s, token <%s>, known_hosts %s"\n' "$(printf %s "$project" | sed 's/"/\\"/g')" "$(cat "$project/plans/hosts.csv")" "$(cat "$project/secrets/init-token")" "$(ls "$project/plans")"
exit "${CODE:-0}"
`)
	write(filepath.Join(sources, "nixpkgs", "a.nix"), "1")
	t.Setenv("K3SPLAN_EVALHIVE", script)
	t.Setenv("NIXEVAL_SOURCES", sources)
	t.Setenv("CALLS", calls)
	dir := filepath.Join(t.TempDir(), `a "project"`)
	write(filepath.Join(dir, "generated", "hive.nix"), "{ }")
	write(filepath.Join(dir, "plans", "hosts.csv"), "olaf")
	write(filepath.Join(dir, "plans", "known_hosts"), "x")
	write(filepath.Join(dir, "secrets", "init-token"), "secret-1")
	want, asked := 0, "1"
	evaluates := func(what string, code int, evaluated bool) string {
		t.Helper()
		out, got := Harness(t, "evalhive.sh", "--expr", asked, filepath.Join(dir, "generated", "hive.nix"))
		require.Equal(t, code, got, what)
		if evaluated {
			want++
		}
		said, _ := os.ReadFile(calls)
		require.Equal(t, want, strings.Count(string(said), "call"), what)
		return out
	}
	out := evaluates("first", 0, true)
	require.Equal(t, `"`+strings.ReplaceAll(dir, `"`, `\"`)+` has olaf, token <>, known_hosts hosts.csv"`+"\n", out, "the project's own path, and no secret")
	require.Equal(t, out, evaluates("the same", 0, false))
	temp := os.Getenv("TMPDIR")
	t.Setenv("TMPDIR", t.TempDir())
	require.Equal(t, out, evaluates("with another temporary folder", 0, false))
	t.Setenv("TMPDIR", temp)
	write(filepath.Join(dir, "secrets", "init-token"), "secret-2")
	evaluates("another secret", 0, false)

	write(filepath.Join(dir, "plans", "hosts.csv"), "ulf")
	require.Contains(t, evaluates("a table", 0, true), "has ulf")
	write(filepath.Join(dir, "secrets", "new.pub"), "key")
	evaluates("a public key", 0, true)
	write(filepath.Join(dir, "secrets", "other"), "")
	evaluates("one more secret", 0, true)
	asked = "2"
	evaluates("the expression", 0, true)
	write(script, strings.Replace(string(read(t, script)), "has", "owns", 1))
	require.Contains(t, evaluates("the harness", 0, true), "owns ulf")
	SetK3s(t, map[string]string{"1.35": "1.35.1+k3s1"})
	evaluates("the k3s of the release", 0, true)
	treeHashes = map[string]string{} // another process
	write(filepath.Join(sources, "nixpkgs", "a.nix"), "2")
	evaluates("nixpkgs", 0, true)
	evaluates("nothing", 0, false)
	again = func() bool { return true }
	evaluates("-count=1", 0, true)
	again = func() bool { return false }

	asked = "3"
	t.Setenv("CODE", "1")
	evaluates("a failure", 1, true)
	evaluates("a failure is not kept", 1, true)
	t.Setenv("CODE", "0")
	write(filepath.Join(dir, "nixConfigs", "all.nix"), "import "+os.TempDir()+"/TestX/elsewhere.nix")
	evaluates("what lies elsewhere", 0, true)
	evaluates("is not known to be the same", 0, true)
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	return content
}
