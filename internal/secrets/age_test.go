package secrets

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/secrets/secretstest"
)

var ageStore = plan.SecretStore{Kind: plan.SecretAge}

// ageProject returns a project whose secrets are encrypted to a key in the home.
func ageProject(t testing.TB, more ...string) string {
	t.Helper()
	secretstest.Home(t)
	dir := project(t, nil)
	writeRecipients(t, dir, append([]string{secretstest.AgeKey(t)}, more...)...)
	return dir
}

func needAge(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("age"); err != nil {
		t.Skip("SKIP: age is not on PATH (Debian: age)")
	}
}

// The real age decrypts what we encrypt, by an age key and by ssh keys, and we what it encrypts.
func TestAgeAndWeReadEachOther(t *testing.T) {
	needAge(t)
	home := func(name string) string { return filepath.Join(os.Getenv("HOME"), name) }
	private, public := privateKey(t, "")
	rsaPrivate, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	rsaBlock, err := ssh.MarshalPrivateKey(rsaPrivate, "")
	require.NoError(t, err)
	for name, test := range map[string]struct {
		private []byte // nil means age's own
		public  string
		file    string
	}{
		"age":         {nil, "", ".config/age/keys.txt"},
		"ssh ed25519": {private, public + " alice@laptop", ".ssh/id_ed25519"},
		"ssh rsa":     {pem.EncodeToMemory(rsaBlock), line(t, rsaPrivate.Public()), ".ssh/id_rsa"},
	} {
		t.Run(name, func(t *testing.T) {
			secretstest.Home(t)
			dir := project(t, nil)
			if test.private == nil {
				writeRecipients(t, dir, "# us", "", secretstest.AgeKey(t))
			} else {
				writeRecipients(t, dir, test.public)
				require.NoError(t, files.Create(home(test.file), test.private, files.Private))
			}
			vault := openVault(t, dir, ageStore)
			require.NoError(t, vault.Create("init-token", []byte(goodToken)))
			file := filepath.Join(dir, Dir, "init-token.age")
			require.Equal(t, goodToken, secretstest.Run(t, "", "age", "--decrypt", "--identity", home(test.file), file))

			for _, armored := range []string{"--armor", ""} {
				args := append(strings.Fields(armored), "--encrypt", "-R", filepath.Join(dir, RecipientsFile), "-o", filepath.Join(dir, Dir, "passwd.age"))
				secretstest.Run(t, goodHash, "age", args...)
				content, err := openVault(t, dir, ageStore).Read("passwd")
				require.NoError(t, err)
				require.Equal(t, goodHash, string(content))
			}
		})
	}
}

func TestNoPlainTextAtRest(t *testing.T) {
	dir := ageProject(t)
	vault := openVault(t, dir, ageStore)
	require.NoError(t, vault.Create("init-token", []byte(poison)))
	require.NoError(t, vault.Replace("init-token", []byte(poison)))
	sealed, err := os.ReadFile(filepath.Join(dir, Dir, "init-token.age"))
	require.NoError(t, err)
	require.False(t, leaks(string(sealed)))
	entries, err := os.ReadDir(filepath.Join(dir, Dir))
	require.NoError(t, err)
	require.Len(t, entries, 2, "nothing else is left there")
	require.True(t, bytes.HasPrefix(sealed, []byte(armor.Header)), "text, which git handles better")
}

// Without the key the secrets are there, but not checked; nobody is asked.
func TestSecretsOfOthersAreNotJudged(t *testing.T) {
	dir := ageProject(t)
	vault := openVault(t, dir, ageStore)
	require.NoError(t, os.WriteFile(filepath.Join(dir, Dir, "all.pub"), []byte(newKey(t)), 0o644))
	require.NoError(t, vault.Create("init-token", []byte(goodToken)))
	require.NoError(t, vault.Create("passwd", []byte("plain")))
	needs := fiveHosts
	needs.Where = ageStore

	require.NoError(t, os.Rename(filepath.Join(os.Getenv("HOME"), ".config"), filepath.Join(os.Getenv("HOME"), "away")))
	s, problems := Open(dir, needs)
	require.Equal(t, []string{"warning secret-locked secrets/init-token.age"}, found(problems), "one mistake, one problem")
	require.Contains(t, problems[0].Message, "1 more")
	require.Contains(t, problems[0].Hint, "~/.config/age")
	require.Equal(t, "secrets/passwd.age", s.PasswordFile("ulf"))

	_, err := openVault(t, dir, ageStore).Read("passwd")
	var locked *LockedError
	require.ErrorAs(t, err, &locked)

	stranger := secretstest.AgeKey(t)
	require.NotEmpty(t, stranger)
	_, err = openVault(t, dir, ageStore).Read("passwd")
	require.ErrorAs(t, err, &locked)
	require.Contains(t, diag.HintOf(err), "keys.txt")

	t.Setenv(IdentityVariable, filepath.Join(os.Getenv("HOME"), "away", "age", "keys.txt"))
	content, err := openVault(t, dir, ageStore).Read("passwd")
	require.NoError(t, err)
	require.Equal(t, "plain", string(content))

	t.Setenv(IdentityVariable, "/nowhere/key")
	_, err = openVault(t, dir, ageStore).Read("passwd")
	require.ErrorAs(t, err, &locked)
	require.Contains(t, diag.HintOf(err), "/nowhere/key: no such file")
}

func TestAPassphraseIsAskedForOnlyWhereOneMay(t *testing.T) {
	secretstest.Home(t)
	dir := project(t, nil)
	private, public := privateKey(t, "open sesame")
	require.NoError(t, files.Create(filepath.Join(os.Getenv("HOME"), ".ssh", "id_ed25519"), private, files.Private))
	other := secretstest.AgeKey(t) // tried first, and not asked for
	require.NotEmpty(t, other)
	writeRecipients(t, dir, public)
	require.NoError(t, openVault(t, dir, ageStore).Create("passwd", []byte(goodHash)))
	require.NoError(t, openVault(t, dir, ageStore).Create("init-token", []byte(goodToken)))

	_, err := openVault(t, dir, ageStore).Read("passwd")
	var locked *LockedError
	require.ErrorAs(t, err, &locked)
	require.ErrorContains(t, err, "needs its passphrase")

	asked := 0
	ask := func(prompt string) ([]byte, error) {
		asked++
		require.Contains(t, prompt, "id_ed25519")
		return []byte("open sesame"), nil
	}
	vault, err := OpenVault(dir, ageStore, ask)
	require.NoError(t, err)
	for name, want := range map[string]string{"passwd": goodHash, "init-token": goodToken} {
		content, err := vault.Read(name)
		require.NoError(t, err)
		require.Equal(t, want, string(content))
	}
	require.Equal(t, 1, asked, "once for all secrets")

	vault, err = OpenVault(dir, ageStore, func(string) ([]byte, error) { return []byte("wrong" + poison), nil })
	require.NoError(t, err)
	_, err = vault.Read("passwd")
	require.ErrorContains(t, err, "id_ed25519 is wrong")
	require.False(t, leaks(err.Error()))
}

// A file of age's keys may be encrypted with a passphrase itself, as text or not. A binary file may
// end in a byte that would be white space in a text.
func TestSealedIdentities(t *testing.T) {
	secretstest.Home(t)
	dir := project(t, nil)
	key, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	writeRecipients(t, dir, key.Recipient().String())
	require.NoError(t, openVault(t, dir, ageStore).Create("passwd", []byte(goodHash)))

	binary := sealWith(t, "open sesame", key.String()+"\n")
	for !strings.ContainsRune(" \t\r\n", rune(binary[len(binary)-1])) {
		binary = sealWith(t, "open sesame", key.String()+"\n")
	}
	var armored bytes.Buffer
	out := armor.NewWriter(&armored)
	_, err = out.Write(binary)
	require.NoError(t, errors.Join(err, out.Close()))

	for form, sealed := range map[string]string{
		"binary": string(binary), "armored": armored.String(), "armored with space": "\n \n" + armored.String() + "\n\n",
	} {
		t.Run(form, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "key.age")
			require.NoError(t, os.WriteFile(file, []byte(sealed), 0o600))
			t.Setenv(IdentityVariable, file)

			var locked *LockedError
			_, err := openVault(t, dir, ageStore).Read("passwd")
			require.ErrorAs(t, err, &locked)
			for passphrase, right := range map[string]bool{"open sesame": true, "x": false} {
				vault, err := OpenVault(dir, ageStore, func(string) ([]byte, error) { return []byte(passphrase), nil })
				require.NoError(t, err)
				content, err := vault.Read("passwd")
				require.Equal(t, right, err == nil, err)
				require.Equal(t, right, string(content) == goodHash)
			}
		})
	}
}

// sealWith encrypts with a passphrase, at a cost that is fit for tests only.
func sealWith(t *testing.T, passphrase, content string) []byte {
	scrypt, err := age.NewScryptRecipient(passphrase)
	require.NoError(t, err)
	scrypt.SetWorkFactor(1)
	var sealed bytes.Buffer
	in, err := age.Encrypt(&sealed, scrypt)
	require.NoError(t, err)
	_, err = io.WriteString(in, content)
	require.NoError(t, errors.Join(err, in.Close()))
	return sealed.Bytes()
}

func TestDamagedSecrets(t *testing.T) {
	dir := ageProject(t)
	needs := Needs{Hosts: []string{"ulf"}, Where: ageStore}
	require.NoError(t, os.WriteFile(filepath.Join(dir, Dir, "all.pub"), []byte(newKey(t)), 0o644))
	require.NoError(t, openVault(t, dir, ageStore).Create("passwd", []byte(goodHash)))
	file := filepath.Join(dir, Dir, "passwd.age")
	whole, err := os.ReadFile(file)
	require.NoError(t, err)
	for name, content := range map[string]string{
		"empty": "", "plain text": poison, "cut off": string(whole[:len(whole)/2]), "merge conflict": "<<<<<<< HEAD\n" + string(whole),
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
			_, problems := Open(dir, needs)
			require.Equal(t, []string{"error secret-invalid secrets/passwd.age"}, found(problems))
			requireNoPoison(t, problems[0])
		})
	}
}

func TestRecipients(t *testing.T) {
	ageKey := "age1uyz8k6zc3r800vwy0tzqdqe3sxfl5v9606n3wz2zhg8a744mzamqhtne3z"
	hybrid, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	private, public := privateKey(t, "")
	for name, test := range map[string]struct {
		content string
		want    []string
	}{
		"age":             {ageKey, nil},
		"comments":        {"# alice\n\n" + ageKey + "\r\n" + public + " bob\n", nil},
		"post-quantum":    {hybrid.Recipient().String(), nil},
		"missing":         {"-", []string{"error recipients-invalid secrets/recipients"}},
		"empty":           {"# nobody\n", []string{"error recipients-invalid secrets/recipients"}},
		"twice":           {ageKey + "\n" + public + "\n" + public + " again\n" + ageKey + "\n", []string{"warning recipients-invalid secrets/recipients:3", "warning recipients-invalid secrets/recipients:4"}},
		"rubbish":         {poison + "\n" + ageKey, []string{"error recipients-invalid secrets/recipients:1"}},
		"damaged":         {ageKey[:40], []string{"error recipients-invalid secrets/recipients:1"}},
		"plugin":          {"age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t", []string{"error recipients-invalid secrets/recipients:1"}},
		"mixed":           {ageKey + "\n\n" + hybrid.Recipient().String() + "\n", []string{"error recipients-invalid secrets/recipients:3"}},
		"mixed with ssh":  {hybrid.Recipient().String() + "\n" + public + "\n" + ageKey + "\n", []string{"error recipients-invalid secrets/recipients:2", "error recipients-invalid secrets/recipients:3"}},
		"ecdsa":           {ecdsaOf(t), []string{"error recipients-invalid secrets/recipients:1"}},
		"weak rsa":        {rsaKey(1024), []string{"error recipients-invalid secrets/recipients:1"}},
		"private age key": {"AGE-SECRET-" + "KEY-1" + strings.ToUpper(poison), []string{"error recipients-invalid secrets/recipients:1"}},
		"private ssh key": {string(private), []string{"error recipients-invalid secrets/recipients:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			secretstest.Home(t)
			dir := project(t, nil)
			if test.content != "-" {
				writeRecipients(t, dir, test.content)
			}
			_, problems := Open(dir, Needs{Where: ageStore})
			if test.want == nil {
				test.want = []string{}
			}
			require.Equal(t, test.want, found(problems))
			err := openVault(t, dir, ageStore).Create("passwd", []byte(goodHash))
			require.Equal(t, problems.Errors() > 0, err != nil, "what cannot be encrypted to everyone is not stored: %v", err)
			for _, p := range problems {
				requireNoPoison(t, p)
			}
			if err != nil {
				require.False(t, leaks(err.Error()))
				require.NoFileExists(t, filepath.Join(dir, Dir, "passwd.age"))
			}
		})
	}
}

// Files of private keys as age itself reads them: one with a line of a plugin was refused as a whole.
func TestIdentityFiles(t *testing.T) {
	const plugin = "AGE-PLUGIN-YUBIKEY-1QZD5DQVZF4XWLZGVQWGZN"
	for name, test := range map[string]struct {
		file func(key string) string
		hint string // if nothing can be decrypted
	}{
		"alone":            {func(key string) string { return key }, ""},
		"comments":         {func(key string) string { return "# created: today\n\n" + key + "\r\n# end" }, ""},
		"byte-order mark":  {func(key string) string { return byteOrderMark + key + "\n" }, ""},
		"blanks":           {func(key string) string { return "  " + key + " \n" }, ""},
		"after a plugin":   {func(key string) string { return plugin + "\n" + key + "\n" }, ""},
		"before a plugin":  {func(key string) string { return key + "\n" + plugin + "\n" }, ""},
		"two keys":         {func(key string) string { return newAgeKey(t) + "\n" + key + "\n" }, ""},
		"post-quantum too": {func(key string) string { return newHybridKey(t) + "\n" + key + "\n" }, ""},
		"a plugin alone":   {func(string) string { return plugin + "\n" }, "age-plugin-yubikey, which k3splan does not run"},
		"rubbish":          {func(key string) string { return key + "\n" + poison + "\n" }, "is not a file of age's private keys"},
		"empty":            {func(string) string { return "# nothing\n" }, "is not a file of age's private keys"},
	} {
		for _, sealed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, with a passphrase: %t", name, sealed), func(t *testing.T) {
				secretstest.Home(t)
				dir := project(t, nil)
				key, err := age.GenerateX25519Identity()
				require.NoError(t, err)
				writeRecipients(t, dir, key.Recipient().String())
				content := test.file(key.String())
				if sealed {
					content = seal(t, content, "open sesame")
				}
				file := filepath.Join(t.TempDir(), "key.txt")
				require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
				t.Setenv(IdentityVariable, file)
				vault, err := OpenVault(dir, ageStore, func(string) ([]byte, error) { return []byte("open sesame"), nil })
				require.NoError(t, err)
				require.NoError(t, vault.Create("passwd", []byte(goodHash)))
				got, err := vault.Read("passwd")
				if test.hint == "" {
					require.NoError(t, err)
					require.Equal(t, goodHash, string(got))
					return
				}
				require.Error(t, err)
				require.False(t, leaks(err.Error()+diag.HintOf(err)))
				if !sealed {
					require.Contains(t, diag.HintOf(err), test.hint)
				}
			})
		}
	}
}

func newAgeKey(t testing.TB) string {
	key, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	return key.String()
}

func newHybridKey(t testing.TB) string {
	key, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	return key.String()
}

// seal encrypts a text with a passphrase, at the lowest cost.
func seal(t testing.TB, text, passphrase string) string {
	recipient, err := age.NewScryptRecipient(passphrase)
	require.NoError(t, err)
	recipient.SetWorkFactor(10)
	var sealed bytes.Buffer
	armored := armor.NewWriter(&sealed)
	out, err := age.Encrypt(armored, recipient)
	require.NoError(t, err)
	_, err = out.Write([]byte(text))
	require.NoError(t, errors.Join(err, out.Close(), armored.Close()))
	return sealed.String()
}

func ecdsaOf(t testing.TB) string {
	return "ecdsa-sha2-nistp256 " + strings.Fields(newKey(t))[1]
}

func TestRekey(t *testing.T) {
	dir := ageProject(t)
	vault := openVault(t, dir, ageStore)
	require.NoError(t, vault.Create("init-token", []byte(goodToken)))
	require.NoError(t, vault.Create("passwd", []byte(goodHash)))
	before, err := os.ReadFile(filepath.Join(dir, Dir, "passwd.age"))
	require.NoError(t, err)

	recipients, err := os.ReadFile(filepath.Join(dir, RecipientsFile))
	require.NoError(t, err)
	stranger, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	writeRecipients(t, dir, stranger.Recipient().String())
	_, err = openVault(t, dir, ageStore).Rekey()
	require.ErrorContains(t, err, "you could no longer read it")
	after, err := os.ReadFile(filepath.Join(dir, Dir, "passwd.age"))
	require.NoError(t, err)
	require.Equal(t, before, after, "nobody is locked out")

	writeRecipients(t, dir, string(recipients), stranger.Recipient().String())
	names, err := openVault(t, dir, ageStore).Rekey()
	require.NoError(t, err)
	require.Equal(t, []string{"init-token", "passwd"}, names)
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, []byte(stranger.String()), 0o600))
	t.Setenv(IdentityVariable, key)
	content, err := openVault(t, dir, ageStore).Read("passwd")
	require.NoError(t, err)
	require.Equal(t, goodHash, string(content))
}
