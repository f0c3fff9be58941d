package secrets

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k3splan/internal/diag"
	"k3splan/internal/files"

	"github.com/stretchr/testify/require"
)

// 32 hexadecimal digits that stand in no message by chance.
const poison = "5e6d08f1c3b9a7245e6d18f0c2b8a634"

// poisoned returns files that hold the poison and provoke every message we have.
func poisoned(t *testing.T) []string {
	k := newKey(t)
	contents := []string{
		poison, poison + "\n\n", poison + "\r\n", "\ufeff" + poison, "\xff\xfe" + poison, poison + " " + poison, poison + "\x00", poison + "\xff",
		poison + "\n" + poison, poison[:12], poison[:13], poison[:6] + "." + poison[:16], "K10" + poison, "K10::server:" + poison, "K10::node:" + poison,
		"K10::node:" + poison[:8], "K10::" + poison[:6] + "." + poison[:16], "!" + poison, "*" + poison, "$" + poison, "$1$" + poison, "$5$" + poison, "$6$" + poison,
		"$2b$" + poison, "$2x$" + poison, "$y$" + poison, "_" + poison[:19], "olaf:$6$" + poison, poison + ":" + poison, " " + hashesOfHello["yescrypt"] + " " + poison,
		poison + " " + k, "ssh-ed25519 " + poison, "ssh-rsa AAAA" + poison, k + " " + poison, k + " " + poison + "\x01", k + "\n" + k + " " + poison,
		`command="` + poison + `" ` + k, "from=" + poison + " " + k, `environment="X=` + poison + `" ` + k, `cert-authority,principals="` + poison + `" ` + k,
		rsaKey(1024) + " " + poison, dsaKey() + " " + poison, certificate(t) + " " + poison, "\ufeff" + poison + "\n" + poison,
		"-----BEGIN OPENSSH PRIVATE" + " KEY-----\n" + poison, "-----BEGIN PUBLIC KEY-----" + poison, "PuTTY-User-Key-File-3: " + poison,
		"AGE-SECRET-" + "KEY-1" + poison, "---- BEGIN SSH2 PUBLIC KEY ----" + poison, strings.Repeat(poison+"\n", 1000), strings.Repeat(poison, 40_000),
	}
	return append(contents, strings.ToUpper(poison), "ssh-ed25519 "+base64Of([]byte(poison)))
}

func TestNoProblemShowsASecret(t *testing.T) {
	seen := map[string]bool{}
	contents := poisoned(t)
	for i, content := range contents {
		files := map[string]string{}
		for _, name := range []string{
			"init-token", "agent-token", "passwd", "ulfpasswd", "ulf_passwd", "wolfpasswd", "all.pub", "bob-ulf.pub", "deploy.pub", "wolf.pub", "passwd~", ".all.pub", "passwd.txt",
		} {
			files[name] = content
		}
		// and beside each some other content, for what is found by comparing
		files["olafpasswd"], files["olaf_passwd"] = goodHash, nextHash
		files["karlpasswd"] = contents[(i+1)%len(contents)]
		files["karl.pub"] = contents[(i+1)%len(contents)]
		_, problems := open(t, files, fiveHosts)
		require.NotEmpty(t, problems)
		for _, p := range problems {
			requireNoPoison(t, p)
			require.Empty(t, p.Value)
			seen[p.Code] = true
		}
		for _, p := range append(CheckToken(AgentToken, []byte(content)), CheckHash([]byte(content))...) {
			requireNoPoison(t, p)
		}
	}
	_, problems := open(t, nil, fiveHosts) // what is missing, after what is wrong
	for _, p := range problems {
		seen[p.Code] = true
	}
	for _, code := range []string{
		codeMissing, codeInvalid, codeWeak, codeDuplicate, codeOrphan, codeKeyMissing, codeKeyInvalid, codeKeyOptions, codeKeyDuplicate,
	} {
		require.True(t, seen[code], "the poison never came to a %s problem", code)
	}
}

func TestNoErrorShowsASecret(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	_, hashError := HashPassword([]byte(poison + "\n"))
	_, longError := HashPassword([]byte(strings.Repeat(poison, 20)))
	for _, err := range []error{
		hashError, longError,
		files.Create(filepath.Join(dir, "file"), []byte(poison), files.Private), files.Create(filepath.Join(dir, "file", "x"), []byte(poison), files.Private),
		files.Replace(dir, []byte(poison), files.Private), files.Replace(filepath.Join(dir, "file", "x"), []byte(poison), files.Private),
	} {
		require.Error(t, err)
		require.False(t, leaks(err.Error()), err)
	}
}

// The control: the search finds what a careless message would show, whole or in part.
func TestTheSearchForPoisonFinds(t *testing.T) {
	for _, careless := range []diag.Problem{
		{Message: fmt.Sprintf("%q is not a token", poison)},
		{Hint: "did you mean " + poison[4:12] + "?"},
		{Value: strings.ToUpper(poison)},
		{Message: errors.Join(errors.New("crypt"), fmt.Errorf("bad salt %s", poison[:10])).Error()},
		{Message: base64Of([]byte(poison))},
		{Message: hex.EncodeToString([]byte(poison))},
	} {
		require.True(t, leaks(everything(t, careless)), careless)
	}
	require.False(t, leaks(everything(t, diag.Problem{File: "secrets/passwd", Message: "is plain text"})))
}

func requireNoPoison(t *testing.T, p diag.Problem) {
	t.Helper()
	require.False(t, leaks(everything(t, p)), "the problem shows a part of the secret: %v", p)
}

func everything(t *testing.T, p diag.Problem) string {
	t.Helper()
	data, err := json.Marshal(p)
	require.NoError(t, err)
	return p.String() + p.Hint + string(data)
}

// leaks looks for any eight characters of the poison, also where it is encoded.
func leaks(text string) bool {
	for _, form := range []string{poison, strings.ToUpper(poison), base64Of([]byte(poison)), hex.EncodeToString([]byte(poison))} {
		for i := range len(form) - 7 {
			if strings.Contains(text, form[i:i+8]) {
				return true
			}
		}
	}
	return false
}
