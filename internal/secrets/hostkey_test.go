package secrets

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"k3splan/internal/files"
	"k3splan/internal/plan"
)

func TestNewHostKeyIsOneThatSSHTakes(t *testing.T) {
	private, public, err := NewHostKey("olaf")
	require.NoError(t, err)
	parsed, err := ParseHostKey(private)
	require.NoError(t, err)
	require.Equal(t, public.Marshal(), parsed.Marshal())
	other, _, err := NewHostKey("olaf")
	require.NoError(t, err)
	require.NotEqual(t, private, other)

	program, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("SKIP: ssh-keygen is not on PATH (Debian: openssh-client)")
	}
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, files.Create(file, private, files.Private))
	out, err := exec.Command(program, "-y", "-P", "", "-f", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))+" olaf\n", string(out))
}

func TestHostKeyFiles(t *testing.T) {
	good, public, err := NewHostKey("olaf")
	require.NoError(t, err)
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(mustRawKey(t), "", []byte("x"))
	require.NoError(t, err)
	elliptic, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	ecdsaBlock, err := ssh.MarshalPrivateKey(elliptic, "")
	require.NoError(t, err)

	for name, test := range map[string]struct {
		file    string
		content []byte
		want    []string // `severity code file[:line]`
		path    string
	}{
		"good":        {"olaf_ed25519", good, nil, "secrets/hosts/olaf_ed25519"},
		"passphrase":  {"olaf_ed25519", pem.EncodeToMemory(locked), []string{"error secret-invalid secrets/hosts/olaf_ed25519"}, "secrets/hosts/olaf_ed25519"},
		"ecdsa":       {"olaf_ed25519", pem.EncodeToMemory(ecdsaBlock), []string{"error secret-invalid secrets/hosts/olaf_ed25519"}, "secrets/hosts/olaf_ed25519"},
		"public":      {"olaf_ed25519", ssh.MarshalAuthorizedKey(public), []string{"error secret-invalid secrets/hosts/olaf_ed25519"}, "secrets/hosts/olaf_ed25519"},
		"damaged":     {"olaf_ed25519", good[:len(good)/2], []string{"error secret-invalid secrets/hosts/olaf_ed25519"}, "secrets/hosts/olaf_ed25519"},
		"cut":         {"olaf_ed25519", bytes.TrimSpace(good), []string{"error secret-invalid secrets/hosts/olaf_ed25519"}, "secrets/hosts/olaf_ed25519"},
		"empty":       {"olaf_ed25519", nil, []string{"error secret-invalid secrets/hosts/olaf_ed25519"}, "secrets/hosts/olaf_ed25519"},
		"no host":     {"olav_ed25519", good, []string{"warning file-orphan secrets/hosts/olav_ed25519"}, ""},
		"other name":  {"olaf", good, []string{"warning file-orphan secrets/hosts/olaf"}, ""},
		"backup":      {"olaf_ed25519~", good, []string{"warning file-orphan secrets/hosts/olaf_ed25519~"}, ""},
		"public part": {"olaf_ed25519.pub", ssh.MarshalAuthorizedKey(public), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := project(t, map[string]string{"init-token": goodToken, "passwd": goodHash, "all.pub": newKey(t) + "\n"})
			require.NoError(t, files.Create(filepath.Join(dir, Dir, "hosts", test.file), test.content, files.Private))
			store, problems := Open(dir, fiveHosts)
			require.ElementsMatch(t, test.want, found(problems))
			require.Equal(t, test.path, store.HostKeyFile("olaf"))
			require.Equal(t, name == "good", store.HostKey("olaf") != nil)
			for _, p := range problems {
				for i := 40; i+12 < len(test.content); i += 12 {
					require.NotContains(t, p.Message+p.Hint, string(test.content[i:i+12]))
				}
			}
		})
	}
}

func mustRawKey(t *testing.T) any {
	t.Helper()
	private, _, err := NewHostKey("")
	require.NoError(t, err)
	key, err := ssh.ParseRawPrivateKey(private)
	require.NoError(t, err)
	return key
}

func TestHostKeysThatOthersCanRead(t *testing.T) {
	dir := project(t, map[string]string{"init-token": goodToken, "passwd": goodHash, "all.pub": newKey(t) + "\n"})
	private, _, err := NewHostKey("olaf")
	require.NoError(t, err)
	require.NoError(t, files.Create(filepath.Join(dir, Dir, HostKeyName("olaf")), private, files.Private))
	require.NoError(t, os.Chmod(filepath.Join(dir, Dir, "hosts", "olaf_ed25519"), 0o640))
	require.NoError(t, os.Chmod(filepath.Join(dir, Dir, "hosts"), 0o755))
	_, problems := Open(dir, fiveHosts)
	require.ElementsMatch(t, []string{"warning secret-readable secrets/hosts", "warning secret-readable secrets/hosts/olaf_ed25519"}, found(problems))
}

func TestRetire(t *testing.T) {
	dir := t.TempDir()
	vault, err := OpenVault(dir, plan.SecretStore{}, nil)
	require.NoError(t, err)
	now := time.Date(2026, 11, 21, 4, 5, 6, 7e6, time.FixedZone("", 3600))
	_, err = vault.Retire("hosts/x", now)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, vault.Create("hosts/x", []byte("three\n")))
	kept, err := vault.Retire("hosts/x", now)
	require.NoError(t, err)
	require.Equal(t, "retired/x-20261121T030506.007Z", kept)
	_, err = vault.Retire("hosts/x", now)
	require.ErrorIs(t, err, fs.ErrExist, "nothing that was kept is overwritten")
	content, err := vault.Read(kept)
	require.NoError(t, err)
	require.Equal(t, "three\n", string(content))
	require.True(t, IsOurs(kept), "in plain text it lies about, where another back end was chosen")
}

func TestTokenPassword(t *testing.T) {
	password := strings.TrimSpace(goodToken)
	for _, content := range []string{goodToken, "K10::server:" + password, "K10" + strings.Repeat("a", 64) + "::server:" + password + "\n"} {
		got, err := TokenPassword(InitToken, []byte(content))
		require.NoError(t, err)
		require.Equal(t, password, got)
	}
	_, err := TokenPassword(InitToken, []byte("abcdef.0123456789abcdef"))
	require.ErrorContains(t, err, "bootstrap token")
	require.NotContains(t, err.Error(), "0123456789")
}
