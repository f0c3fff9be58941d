package secrets

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/run"
	"k3splan/internal/secrets/secretstest"
)

var passStore = plan.SecretStore{Kind: plan.SecretPass, Prefix: "k3splan/rack"}

// What we store is what the real pass shows, and the other way round.
func TestPassAndWeReadEachOther(t *testing.T) {
	secretstest.Home(t)
	secretstest.Pass(t)
	dir := project(t, nil)
	vault := openVault(t, dir, passStore)
	require.NoError(t, vault.Create("init-token", []byte(goodToken)))
	require.Equal(t, goodToken, secretstest.Run(t, "", "pass", "show", "k3splan/rack/init-token"))
	secretstest.Run(t, goodHash, "pass", "insert", "--multiline", "k3splan/rack/ulfpasswd")
	secretstest.Run(t, "of another rack", "pass", "insert", "--multiline", "k3splan/other/passwd")
	content, err := vault.Read("ulfpasswd")
	require.NoError(t, err)
	require.Equal(t, goodHash, string(content))
	names, err := vault.List()
	require.NoError(t, err)
	require.Equal(t, []string{"init-token", "ulfpasswd"}, names)
	_, err = os.Stat(filepath.Join(dir, Dir, "init-token"))
	require.ErrorIs(t, err, os.ErrNotExist)

	t.Setenv("PASSWORD_STORE_DIR", t.TempDir())
	names, err = openVault(t, dir, passStore).List()
	require.NoError(t, err)
	require.Empty(t, names, "the variable of pass counts")
}

// pass overwrites in place: what it loses when gpg fails, or when the disk is full, is never the secret.
func TestPassKeepsASecretThatItCannotReplace(t *testing.T) {
	secretstest.Home(t)
	secretstest.Pass(t)
	vault := openVault(t, project(t, nil), passStore)
	require.NoError(t, vault.Create("init-token", []byte(goodToken)))
	store := filepath.Join(os.Getenv("HOME"), ".password-store", "k3splan", "rack")
	gpg, err := exec.LookPath("gpg")
	require.NoError(t, err)
	bin := t.TempDir()
	script := `#!/bin/sh
case " $* " in
  *" -e "*) while [ "$1" != -o ]; do shift; done; : > "$2"; echo "gpg: No space left on device" >&2; exit 2 ;;
esac
exec ` + gpg + ` "$@"
`
	require.NoError(t, os.WriteFile(filepath.Join(bin, "gpg"), []byte(script), 0o755))
	path := os.Getenv("PATH")
	t.Setenv("PATH", bin+string(os.PathListSeparator)+path)
	require.Error(t, vault.Replace("init-token", []byte(otherToken)))
	require.Error(t, vault.Create("agent-token", []byte(otherToken)))
	t.Setenv("PATH", path)
	content, err := vault.Read("init-token")
	require.NoError(t, err)
	require.Equal(t, goodToken, string(content))
	names, err := vault.List()
	require.NoError(t, err)
	require.Equal(t, []string{"init-token"}, names)
	left, err := os.ReadDir(store)
	require.NoError(t, err)
	require.Len(t, left, 1, "what was written aside is removed")

	require.NoError(t, vault.Replace("init-token", []byte(otherToken)))
	require.NoError(t, os.Mkdir(filepath.Join(store, "agent-token"), 0o700))
	require.ErrorContains(t, vault.Create("agent-token", []byte(goodToken)), "folder")
}

const otherToken = "another-token-of-the-same-length-0123456789\n"

func TestPassIsMissing(t *testing.T) {
	secretstest.Home(t)
	t.Setenv("PATH", t.TempDir())
	err := openVault(t, t.TempDir(), passStore).Create("init-token", []byte(poison))
	var missing *run.MissingError
	require.ErrorAs(t, err, &missing)
	require.Contains(t, diag.HintOf(err), "apt install pass")
}

// A pass of ours tells how it was called: no secret is in an argument or in the environment, and an
// error shows none, whatever pass writes to its output.
func TestPassIsGivenSecretsByStandardInput(t *testing.T) {
	home := secretstest.Home(t)
	bin := t.TempDir()
	log := filepath.Join(home, "log")
	require.NoError(t, os.WriteFile(filepath.Join(bin, "pass"), []byte(`#!/bin/sh
{ echo "$@"; tr '\0' '\n' < /proc/self/environ; tr '\0' ' ' < /proc/$PPID/cmdline; } >> '`+log+`'
cat > '`+log+`.stdin'
echo `+poison+`
echo talk >&2
exit 3
`), 0o755))
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	vault := openVault(t, t.TempDir(), passStore)
	store := filepath.Join(os.Getenv("HOME"), ".password-store", "k3splan", "rack")
	require.NoError(t, os.MkdirAll(store, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(store, "passwd.gpg"), nil, 0o600))

	_, readErr := vault.Read("passwd")
	var locked *LockedError
	require.ErrorAs(t, readErr, &locked)
	for _, err := range []error{readErr, vault.Create("init-token", []byte(poison)), vault.Replace("passwd", []byte(poison)), vault.Remove("passwd")} {
		require.ErrorContains(t, err, "talk")
		require.False(t, leaks(err.Error()), err)
	}
	require.Error(t, vault.Replace("passwd", []byte(poison)))
	given, err := os.ReadFile(log + ".stdin")
	require.NoError(t, err)
	require.True(t, leaks(string(given)), "the control: it did get the secret")
	seen, err := os.ReadFile(log)
	require.NoError(t, err)
	require.Contains(t, string(seen), "insert --multiline --force k3splan/rack/.k3splan-new-init-token")
	require.Contains(t, string(seen), "HOME=")
	require.False(t, leaks(string(seen)))
}
