package secrets

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/secrets/secretstest"
)

// forEachStore runs a test with each back end. The project has recipients, and the home their key.
func forEachStore(t *testing.T, test func(t *testing.T, dir string, where plan.SecretStore)) {
	for _, where := range []plan.SecretStore{{Kind: plan.SecretFiles}, {Kind: plan.SecretAge}, {Kind: plan.SecretPass, Prefix: "k3splan/rack"}} {
		t.Run(string(where.Kind), func(t *testing.T) {
			secretstest.Home(t)
			dir := project(t, nil)
			switch where.Kind {
			case plan.SecretAge:
				writeRecipients(t, dir, secretstest.AgeKey(t))
			case plan.SecretPass:
				secretstest.Pass(t)
			}
			test(t, dir, where)
		})
	}
}

func writeRecipients(t testing.TB, dir string, lines ...string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, RecipientsFile), []byte(strings.Join(lines, "\n")+"\n"), 0o644))
}

func openVault(t testing.TB, dir string, where plan.SecretStore) *Vault {
	t.Helper()
	vault, err := OpenVault(dir, where, nil)
	require.NoError(t, err)
	return vault
}

// privateKey returns an ssh key in OpenSSH's format, as PEM, and its public line.
func privateKey(t testing.TB, passphrase string) (private []byte, public string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "test")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "test", []byte(passphrase))
	}
	require.NoError(t, err)
	return pem.EncodeToMemory(block), line(t, pub)
}

func TestAVaultKeepsSecrets(t *testing.T) {
	forEachStore(t, func(t *testing.T, dir string, where plan.SecretStore) {
		vault := openVault(t, dir, where)
		names, err := vault.List()
		require.NoError(t, err)
		require.Empty(t, names)
		_, err = vault.Read("init-token")
		require.ErrorIs(t, err, fs.ErrNotExist)

		hostKey, _ := privateKey(t, "")
		contents := map[string]string{
			"init-token": goodToken, "passwd": goodHash, "ulf_passwd": strings.TrimSpace(nextHash), HostKeys + "/olaf": string(hostKey),
			"wireguard.key": "\x00\xffnot text\r\n\n", "empty": "",
		}
		for name, content := range contents {
			require.NoError(t, vault.Create(name, []byte(content)))
		}
		vault = openVault(t, dir, where)
		names, err = vault.List()
		require.NoError(t, err)
		require.Equal(t, []string{"empty", "hosts/olaf", "init-token", "passwd", "ulf_passwd", "wireguard.key"}, names)
		for name, content := range contents {
			got, err := vault.Read(name)
			require.NoError(t, err)
			require.Equal(t, content, string(got), "%s: every byte", name)
			require.Equal(t, name, vault.NameOf(vault.At(name)))
			require.Equal(t, name, vault.NameOf(name))
			require.Equal(t, name, vault.NameOf("secrets/"+name))
		}

		require.ErrorIs(t, vault.Create("passwd", []byte("x")), fs.ErrExist)
		got, err := vault.Read("passwd")
		require.NoError(t, err)
		require.Equal(t, goodHash, string(got), "nothing is overwritten")
		require.NoError(t, vault.Replace("passwd", []byte(nextHash)))
		require.NoError(t, vault.Replace("ulfpasswd", []byte(goodHash)), "replacing nothing is making it")
		got, err = vault.Read("passwd")
		require.NoError(t, err)
		require.Equal(t, nextHash, string(got))

		require.NoError(t, vault.Remove("empty"))
		require.ErrorIs(t, vault.Remove("empty"), fs.ErrNotExist)
		there, err := vault.Has("empty")
		require.NoError(t, err)
		require.False(t, there)
	})
}

func TestASecretGetsAnotherName(t *testing.T) {
	forEachStore(t, func(t *testing.T, dir string, where plan.SecretStore) {
		vault := openVault(t, dir, where)
		for name, content := range map[string]string{"hosts/olaf_ed25519": "a key\n", "olafpasswd": goodHash, "ulfpasswd": nextHash} {
			require.NoError(t, vault.Create(name, []byte(content)))
		}
		require.NoError(t, vault.Rename("hosts/olaf_ed25519", "hosts/olga_ed25519"))
		require.ErrorIs(t, vault.Rename("olafpasswd", "ulfpasswd"), fs.ErrExist)
		require.ErrorIs(t, vault.Rename("passwd", "olgapasswd"), fs.ErrNotExist)
		require.ErrorContains(t, vault.Rename("olafpasswd", "../passwd"), "cannot be the name of a secret")
		names, err := vault.List()
		require.NoError(t, err)
		require.Equal(t, []string{"hosts/olga_ed25519", "olafpasswd", "ulfpasswd"}, names)
		for name, want := range map[string]string{"hosts/olga_ed25519": "a key\n", "ulfpasswd": nextHash} {
			content, err := vault.Read(name)
			require.NoError(t, err)
			require.Equal(t, want, string(content))
		}
	})
}

func TestOpenIsTheSameWithEachStore(t *testing.T) {
	forEachStore(t, func(t *testing.T, dir string, where plan.SecretStore) {
		needs := fiveHosts
		needs.Where = where
		keys := filepath.Join(dir, Dir, "all.pub")
		require.NoError(t, os.WriteFile(keys, []byte(newKey(t)), 0o644))
		vault := openVault(t, dir, where)

		s, problems := Open(dir, needs)
		require.ElementsMatch(t, []string{"error secret-missing " + vault.At("init-token"), "error secret-missing " + vault.At("passwd")}, found(problems))

		for name, content := range map[string]string{"init-token": goodToken, "passwd": goodHash, "ulf_passwd": nextHash} {
			require.NoError(t, vault.Create(name, []byte(content)))
		}
		s, problems = Open(dir, needs)
		require.Empty(t, problems)
		require.Equal(t, where.Kind == plan.SecretFiles, s.Plain())
		require.Equal(t, vault.At("init-token"), s.InitToken())
		require.Equal(t, "init-token", s.Name(s.InitToken()))
		require.Equal(t, "ulf_passwd", s.Name(s.PasswordFile("ulf")))
		require.Equal(t, "passwd", s.Name(s.PasswordFile("olaf")))
		names, err := vault.List()
		require.NoError(t, err)
		require.Equal(t, "ulf_passwd", PasswordName("ulf", names), "in the spelling that is there")

		for name, content := range map[string]string{"agent-token": "abcdef.0123456789abcdef", "karlpasswd": poison, "wolfpasswd": goodHash} {
			require.NoError(t, vault.Create(name, []byte(content)))
		}
		_, problems = Open(dir, needs)
		require.ElementsMatch(t, []string{
			"error secret-invalid " + vault.At("agent-token"), "error secret-invalid " + vault.At("karlpasswd"), "warning file-orphan " + vault.At("wolfpasswd"),
		}, found(problems))
		for _, p := range problems {
			requireNoPoison(t, p)
		}
	})
}

func TestNamesStayInTheirFolder(t *testing.T) {
	forEachStore(t, func(t *testing.T, dir string, where plan.SecretStore) {
		vault := openVault(t, dir, where)
		for _, name := range []string{
			"", ".", "..", "../x", "/x", "a/../x", "a//b", "-x", ".x", "hosts/.x", "a b", "a\nb", "a$b", "x\x00", "all.pub", "x.age", "README.md", "recipients",
			"passwd~", "hosts/known_hosts", "ä",
		} {
			require.Error(t, vault.Create(name, []byte("x")), "%q", name)
			require.Error(t, vault.Replace(name, []byte("x")), "%q", name)
			require.Error(t, vault.Remove(name), "%q", name)
			_, err := vault.Read(name)
			require.Error(t, err, "%q", name)
		}
		names, err := vault.List()
		require.NoError(t, err)
		require.Empty(t, names)
	})
}

// People name their own files as they like.
func TestAFileOfAnyNameIsRead(t *testing.T) {
	dir := project(t, map[string]string{"Kennwörter (alt)": "x"})
	vault := openVault(t, dir, plan.SecretStore{})
	names, err := vault.List()
	require.NoError(t, err)
	require.Equal(t, []string{"Kennwörter (alt)"}, names)
	content, err := vault.Read(names[0])
	require.NoError(t, err)
	require.Equal(t, "x", string(content))
}

func TestWithoutAKnownStoreNothingIsJudged(t *testing.T) {
	needs := fiveHosts
	needs.Where.Kind = plan.SecretUnknown
	_, problems := open(t, map[string]string{"all.pub": newKey(t), "passwd": "plain"}, needs)
	require.Empty(t, problems)
	_, err := OpenVault(t.TempDir(), needs.Where, nil)
	require.ErrorContains(t, err, "validate")
}

// What lies in the folder in plain text is read by nothing, and is reported.
func TestPlainTextBesideAnotherStore(t *testing.T) {
	secretstest.Home(t)
	dir := project(t, map[string]string{
		"init-token": goodToken, "ulfpasswd": goodHash, "wolfpasswd": goodHash, "all.pub": newKey(t), "README.md": "x", "wireguard.key": "x", "passwd~": "x",
	})
	hostKey, _ := privateKey(t, "")
	require.NoError(t, files.Create(filepath.Join(dir, Dir, HostKeys, "olaf"), hostKey, files.Private))
	writeRecipients(t, dir, secretstest.AgeKey(t))
	needs := fiveHosts
	needs.Where.Kind = plan.SecretAge
	_, problems := Open(dir, needs)
	require.Equal(t, []string{
		"warning secret-plain secrets/hosts/olaf", "warning secret-plain secrets/init-token", "error secret-missing secrets/init-token.age",
		"error secret-missing secrets/passwd.age", "warning file-orphan secrets/passwd~",
		"warning secret-plain secrets/ulfpasswd", "warning secret-plain secrets/wolfpasswd",
	}, found(problems))
	require.Contains(t, problems[0].Hint, "k3splan secrets move --to age")
}

// A secret that is kept in two forms, as after a move that was interrupted or a merge: never silently one.
func TestSecretsInTwoForms(t *testing.T) {
	secretstest.Home(t)
	secretstest.Pass(t)
	dir := project(t, map[string]string{"init-token": goodToken, "passwd": goodHash, "ulf_passwd": goodHash, "all.pub": newKey(t)})
	writeRecipients(t, dir, secretstest.AgeKey(t))
	sealed, entries := openVault(t, dir, ageStore), openVault(t, dir, passStore)
	for name, content := range map[string]string{"init-token": goodToken, "passwd": goodHash, "ulfpasswd": nextHash} {
		require.NoError(t, sealed.Create(name, []byte(content)))
		require.NoError(t, entries.Create(name, []byte(content)))
	}
	needs := fiveHosts
	for kind, want := range map[plan.SecretKind][]string{
		plan.SecretFiles: {"secrets/init-token.age", "secrets/passwd.age", "secrets/ulfpasswd.age"},
		plan.SecretAge:   {"secrets/init-token", "secrets/passwd", "secrets/ulf_passwd"},
		plan.SecretPass: {"secrets/init-token", "secrets/init-token.age", "secrets/passwd", "secrets/passwd.age",
			"secrets/ulf_passwd", "secrets/ulfpasswd.age"},
	} {
		t.Run(string(kind), func(t *testing.T) {
			needs.Where = plan.SecretStore{Kind: kind}
			if kind == plan.SecretPass {
				needs.Where = passStore
			}
			s, problems := Open(dir, needs)
			var places []string
			for _, p := range problems {
				require.Equal(t, "secret-duplicate", p.Code, p)
				require.Equal(t, diag.Error, p.Severity)
				places = append(places, p.File)
			}
			require.Equal(t, want, places)
			require.Contains(t, problems[0].Message, "is kept in "+s.At("init-token"), "both are named")
		})
	}
}

func TestCheck(t *testing.T) {
	good, _ := privateKey(t, "")
	sealed, _ := privateKey(t, "passphrase")
	for name, test := range map[string]struct {
		name, content string
		wrong         bool
	}{
		"token":             {"init-token", goodToken, false},
		"bootstrap token":   {"agent-token", "abcdef.0123456789abcdef", true},
		"hash":              {"ulf_passwd", goodHash, false},
		"plain text":        {"passwd", poison, true},
		"host key":          {"hosts/olaf", string(good), false},
		"sealed host key":   {"hosts/olaf", string(sealed), true},
		"no key":            {"hosts/olaf", poison, true},
		"other":             {"wireguard.key", "x", false},
		"other, empty":      {"wireguard.key", " \n", true},
		"a folder's passwd": {"x/passwd", "anything", false},
	} {
		t.Run(name, func(t *testing.T) {
			problems := Check(test.name, []byte(test.content))
			require.Equal(t, test.wrong, problems.Errors() > 0, problems)
			for _, p := range problems {
				requireNoPoison(t, p)
			}
		})
	}
}
