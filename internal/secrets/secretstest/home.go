// Package secretstest gives tests a home of their own for age and pass. Nothing in it is for the
// program.
package secretstest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/require"
)

// Home makes an empty home the user's for one test: no key, no configuration, a runtime directory and
// a folder for temporary files of its own. It returns their common parent.
func Home(t testing.TB) string {
	t.Helper()
	parent := t.TempDir()
	for variable, name := range map[string]string{"HOME": "home", "XDG_RUNTIME_DIR": "run", "TMPDIR": "tmp"} {
		dir := filepath.Join(parent, name)
		require.NoError(t, os.Mkdir(dir, 0o700))
		t.Setenv(variable, dir)
	}
	for _, variable := range []string{"XDG_CONFIG_HOME", "GNUPGHOME", "PASSWORD_STORE_DIR", "PASSWORD_STORE_GPG_OPTS", "K3SPLAN_IDENTITY", "K3SPLAN_UNLOCKED"} {
		t.Setenv(variable, "") // so that the old value comes back
		require.NoError(t, os.Unsetenv(variable))
	}
	return parent
}

// AgeKey puts a new key into the home, where it is found, and returns its public part.
func AgeKey(t testing.TB) string {
	t.Helper()
	key, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	dir := filepath.Join(os.Getenv("HOME"), ".config", "age")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "keys.txt"), []byte("# a comment\n"+key.String()+"\n"), 0o600))
	return key.Recipient().String()
}

// Pass makes a store of the real pass in the home, with a throw-away key of gpg.
func Pass(t testing.TB) {
	t.Helper()
	for program, pkg := range map[string]string{"pass": "pass", "gpg": "gpg", "gpg-agent": "gpg-agent"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIP: %s is not on PATH (Debian: %s)", program, pkg)
		}
	}
	// gpg's sockets must have short paths
	home, err := os.MkdirTemp("/tmp", "gpg")
	require.NoError(t, err)
	t.Setenv("GNUPGHOME", home)
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		_ = os.RemoveAll(home)
	})
	Run(t, "", "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "rack@example.org", "future-default", "default", "never")
	Run(t, "", "pass", "init", "rack@example.org")
}

// Run runs a program that must succeed and returns its output.
func Run(t testing.TB, stdin, program string, args ...string) string {
	t.Helper()
	command := exec.Command(program, args...)
	command.Stdin = strings.NewReader(stdin)
	var said strings.Builder
	command.Stderr = &said
	out, err := command.Output()
	require.NoError(t, err, "%s %v: %s", program, args, said.String())
	return string(out)
}
