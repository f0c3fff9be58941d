package hive_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena/nixtest"
	"k3splan/internal/hive"
	"k3splan/internal/secrets"
	"k3splan/internal/secrets/secretstest"
)

// scanSecrets makes the derivations of all systems and images of a hive in a store of their own, and searches them
// for the content of the files of secrets.
func scanSecrets(t testing.TB, hiveFile string, secrets ...string) (stdout string, code int) {
	t.Helper()
	return nixtest.Harness(t, "scan-secrets.sh", append([]string{hiveFile}, secrets...)...)
}

// distinct writes the lines of a private key that differ from key to key into a file.
func distinct(t testing.TB, key string) string {
	t.Helper()
	lines := strings.Split(key, "\n")
	require.Greater(t, len(lines), 5)
	file := filepath.Join(t.TempDir(), "private-key")
	require.NoError(t, os.WriteFile(file, []byte(strings.Join(lines[2:5], "\n")+"\n"), 0o600))
	return file
}

// No secret is in the rendered tree or in the store; ancestor-defect 14. The systems and images of all hosts of the
// rack are made down to their derivations.
func TestNoSecretLeaks(t *testing.T) {
	t.Parallel()
	file := rendered(t, "rack", nil)
	secrets := filepath.Join(filepath.Dir(filepath.Dir(file)), "secrets")
	token, err := os.ReadFile(filepath.Join(secrets, "init-token"))
	require.NoError(t, err)
	p := filepath.Dir(file)
	require.NoError(t, filepath.WalkDir(p, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		require.NotContains(t, string(content), strings.TrimSpace(string(token)))
		require.NotContains(t, string(content), poisonHash)
		return err
	}))
	private, err := os.ReadFile(filepath.Join(secrets, "hosts", "olaf_ed25519"))
	require.NoError(t, err)
	store := nixtest.TempDir(t)
	t.Cleanup(func() { nixtest.Writable(store) })
	out, code := scanSecrets(t, "--keep", store, file,
		filepath.Join(secrets, "init-token"), filepath.Join(secrets, "agent-token"), filepath.Join(secrets, "passwd"), distinct(t, string(private)))
	require.Zero(t, code, out)

	made := func(name string) []string {
		derivations, err := filepath.Glob(filepath.Join(store, "nix/store", "*-"+name+".drv"))
		require.NoError(t, err)
		return derivations
	}
	for _, host := range []string{"karl", "olaf", "rolf", "ulf", "ulrich"} {
		require.NotEmpty(t, made("nixos-system-"+host+"-*"), host)
	}
	require.Len(t, made("nixos-*.iso"), 5)
}

// No secret that is kept encrypted gets into the store, in plain text or encrypted.
func TestNoEncryptedSecretLeaks(t *testing.T) {
	secretstest.Home(t)
	dir, contents := encrypted(t, "single")
	_, err := render(t, dir).Write(dir)
	require.NoError(t, err)
	var searched []string
	for name, content := range contents {
		plain := filepath.Join(t.TempDir(), "plain")
		require.NoError(t, os.WriteFile(plain, []byte(content), 0o600))
		if strings.HasPrefix(name, secrets.HostKeys+"/") && !strings.HasSuffix(name, ".pub") {
			plain = distinct(t, content)
		}
		searched = append(searched, plain, filepath.Join(dir, secrets.Dir, name+".age"))
	}
	out, code := scanSecrets(t, filepath.Join(dir, hive.Dir, "hive.nix"), searched...)
	require.Zero(t, code, out)
}

// The search finds secrets that a snippet copies into the store, in plain text and encrypted, and one that only the
// image has.
func TestLeaksAreFound(t *testing.T) {
	secretstest.Home(t)
	dir, contents := encrypted(t, "single")
	for name, content := range map[string]string{
		"nixConfigs/olaf.nix":     `{ environment.etc = { plain.source = "${../secrets/passwd-in-plain}"; encrypted.source = "${../secrets/init-token.age}"; }; }`,
		"secrets/passwd-in-plain": contents["passwd"],
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	_, err := render(t, dir).Write(dir)
	require.NoError(t, err)
	// a script that is read while the image is evaluated
	script, err := os.OpenFile(filepath.Join(dir, hive.Dir, "installer", "after-failure.sh"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = script.WriteString(contents["agent-token"])
	require.NoError(t, err)
	require.NoError(t, script.Close())
	agentToken := filepath.Join(t.TempDir(), "agent-token")
	require.NoError(t, os.WriteFile(agentToken, []byte(contents["agent-token"]), 0o600))

	out, code := scanSecrets(t, filepath.Join(dir, hive.Dir, "hive.nix"), agentToken,
		filepath.Join(dir, "secrets/passwd-in-plain"), filepath.Join(dir, "secrets/init-token.age"))
	require.Equal(t, 1, code, out)
	for secret, place := range map[string]string{"passwd-in-plain": "passwd-in-plain", "init-token.age": "init-token.age", "agent-token": "after-failure"} {
		require.Regexp(t, "(?m)^secret "+secret+":[0-9]+ found in .*/nix/store/.*"+place, out)
	}
}
