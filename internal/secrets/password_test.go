package secrets

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHashPassword(t *testing.T) {
	first, err := HashPassword([]byte("correct horse"))
	require.NoError(t, err)
	require.Regexp(t, `^\$6\$rounds=[0-9]{6}\$[./0-9A-Za-z]{16}\$[./0-9A-Za-z]{86}$`, first)
	require.Empty(t, CheckHash([]byte(first)))
	second, err := HashPassword([]byte("correct horse"))
	require.NoError(t, err)
	require.NotEqual(t, first, second, "the salt is not random")
}

func TestHashPasswordRefusesWhatNobodyCanType(t *testing.T) {
	for name, password := range map[string]string{
		"empty": "", "newline": "hunter2\n", "carriage return": "hunter2\r", "null": "hun\x00ter2", "too long": strings.Repeat("x", 512),
	} {
		t.Run(name, func(t *testing.T) {
			hash, err := HashPassword([]byte(password))
			require.Error(t, err)
			require.Empty(t, hash)
			require.NotContains(t, err.Error(), "hun")
		})
	}
	_, err := HashPassword(bytes.Repeat([]byte("x"), 511))
	require.NoError(t, err)
}

// Not only our library, but the function that NixOS's login calls must come to the same hash.
func TestHashPasswordAgreesWithCrypt(t *testing.T) {
	crypt := systemCrypt(t)
	for _, password := range []string{"x", "hello", "größe €", `''${"quoted"}''`, strings.Repeat("long ", 40), " blanks "} {
		hash, err := HashPassword([]byte(password))
		require.NoError(t, err)
		require.Equal(t, hash, crypt(password, hash))
		require.NotEqual(t, hash, crypt(password+"x", hash), "crypt(3) takes any password")
	}
}

// The samples are real, and the shapes fit what the system's crypt(3) makes of other settings.
func TestCheckHashAgreesWithCrypt(t *testing.T) {
	crypt := systemCrypt(t)
	for name, sample := range hashesOfHello {
		if got := crypt("hello", sample); strings.HasPrefix(got, "*") || got == "" {
			t.Logf("SKIP %s: the system's crypt(3) does not know it", name)
		} else {
			require.Equal(t, sample, got, name)
		}
	}
	for _, setting := range []string{
		"$6$rounds=999999$0123456789abcdef$", "$6$rounds=99999$x$", "$6$....$",
		"$2b$04$......................", "$y$j9T$0123456789abcdefghijk1$", "$gy$j75$0123456789abcdefghijk1$", "$7$BU..../....0123456789abcdefghij$",
	} {
		hash := crypt("hello", setting)
		if !strings.HasPrefix(hash, "$") {
			t.Logf("SKIP %s: the system's crypt(3) does not know it", setting)
			continue
		}
		require.Empty(t, CheckHash([]byte(hash)), setting)
	}
	for _, setting := range []string{"$6$rounds=999$ab$", "$6$rounds=01000$ab$", "$6$rounds=1000000000$ab$", "$2b$03$abcdefghijklmnopqrstuu", "$6$a;b$"} {
		require.False(t, strings.HasPrefix(crypt("hello", setting), "$"), "crypt(3) takes %s, and we refuse it", setting)
	}
}

// systemCrypt returns crypt(3) by way of perl or python. The password goes by stdin.
func systemCrypt(t *testing.T) func(password, setting string) string {
	t.Helper()
	for _, command := range [][]string{
		{"perl", "-e", `local $/; my $w = <STDIN>; print crypt($w, $ARGV[0])`},
		{"python3", "-W", "ignore", "-c", `import crypt, sys; print(crypt.crypt(sys.stdin.read(), sys.argv[1]), end="")`},
	} {
		crypt := func(password, setting string) string {
			run := exec.Command(command[0], append(command[1:], setting)...)
			run.Stdin = strings.NewReader(password)
			out, err := run.Output()
			if err != nil {
				return ""
			}
			return string(out)
		}
		if crypt("hello", hashesOfHello["sha512"]) == hashesOfHello["sha512"] {
			return crypt
		}
	}
	t.Skip("SKIP: neither perl nor python3 has a crypt(3) that knows sha512-crypt")
	return nil
}

func TestCheckHashTakesStrongHashes(t *testing.T) {
	for name, hash := range hashesOfHello {
		t.Run(name, func(t *testing.T) {
			require.Empty(t, CheckHash([]byte(hash)))
			require.Empty(t, CheckHash([]byte(hash+"\n")), "a final newline is harmless in a file (defect 10)")
		})
	}
}

func TestCheckHashRefuses(t *testing.T) {
	sha512 := hashesOfHello["sha512"]
	for name, test := range map[string]struct{ content, want string }{
		"empty":                      {"", "empty"},
		"newline":                    {"\n", "empty"},
		"plain text":                 {"hunter2\n", "plain text"},
		"plain text with blanks":     {"correct horse battery staple", "plain text"},
		"plain text with a dollar":   {"pa$$word", "plain text"},
		"plain text with a colon":    {"pass:word", "plain text"},
		"plain text of 13 letters":   {"correcthorse1", "plain text or a DES hash"},
		"locked":                     {"!", "locks the account"},
		"locked as passwd -l does":   {"!" + sha512, "locks the account"},
		"locked twice":               {"!!\n", "locks the account"},
		"no password":                {"*", "locks the account"},
		"DES":                        {desOfHello, "DES"},
		"extended DES":               {"_J9..abcdPlWZ1aAGmXU", "old kind"},
		"MD5":                        {md5OfHello, "old kind"},
		"Apache's MD5":               {"$apr1$ab$GG.jb7EqbyCQUXKGIbIxc0", "old kind"},
		"SunMD5":                     {"$md5,rounds=5000$abcdefgh$$9hrDPNF9XK8CcpxFHRyVV/", "old kind"},
		"SHA-1":                      {"$sha1$40000$jtNX3nZ2$hBNaIXkt4wBI2o5rsi8KejSjNqIq", "old kind"},
		"NT":                         {"$3$$8846f7eaee8fb117ad06bdd830b7586c", "old kind"},
		"sha256, off in NixOS":       {sha256OfHello, "NixOS no longer takes"},
		"bcrypt 2x, off in NixOS":    {"$2x$05$abcdefghijklmnopqrstuuWHxnxkyNt6AHCwFMQaY6auyqJA8E98a", "NixOS no longer takes"},
		"unknown method":             {"$99$abc$def", "kind that NixOS takes"},
		"argon2":                     {"$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaA", "kind that NixOS takes"},
		"cut off":                    {sha512[:len(sha512)-1], "damaged"},
		"one too many":               {sha512 + "x", "damaged"},
		"no salt":                    {"$6$$" + sha512[6:], "damaged"},
		"salt too long":              {"$6$0123456789abcdefg$" + sha512[6:], "damaged"},
		"too few rounds":             {"$6$rounds=999$ab$" + sha512[6:], "damaged"},
		"too many rounds":            {"$6$rounds=1000000000$ab$" + sha512[6:], "damaged"},
		"letter outside":             {sha512[:len(sha512)-1] + "=", "damaged"},
		"bcrypt, impossible cost":    {"$2b$03$abcdefghijklmnopqrstuuWHxnxkyNt6AHCwFMQaY6auyqJA8E98a", "damaged"},
		"bcrypt, impossible salt":    {"$2b$05$abcdefghijklmnopqrstuvWHxnxkyNt6AHCwFMQaY6auyqJA8E98a", "damaged"},
		"eaten by the shell":         {strings.ReplaceAll(sha512, "$6$ab", ""), "kind that NixOS takes"},
		"yescrypt cut off":           {"$y$j9T$abcdefgh$epWtSs4Gu0", "damaged"},
		"Windows line end":           {sha512 + "\r\n", "Windows"},
		"two hashes":                 {sha512 + "\n" + sha512 + "\n", "more than one line"},
		"comment above":              {"# olaf\n" + sha512, "more than one line"},
		"byte-order mark":            {"\ufeff" + sha512, "byte-order mark"},
		"UTF-16":                     {"\xff\xfe$\x006\x00", "UTF-16"},
		"blank before":               {" " + sha512, "blanks around"},
		"blank behind":               {sha512 + " \n", "blanks around"},
		"line of a shadow file":      {"olaf:" + sha512 + ":19000:0:99999:7:::", "second field"},
		"rest of a shadow file":      {sha512 + ":19000:0:99999:7:::", "second field"},
		"salt with a colon":          {"$6$a:b$" + sha512[6:], "colon"},
		"null":                       {sha512 + "\x00", "damaged"},
		"a private key's first line": {"-----BEGIN OPENSSH PRIVATE" + " KEY-----", "plain text"},
	} {
		t.Run(name, func(t *testing.T) {
			problems := CheckHash([]byte(test.content))
			require.Len(t, problems, 1)
			require.Contains(t, problems[0].Message, test.want)
			require.Equal(t, "secret-invalid", problems[0].Code)
			require.Equal(t, "error", string(problems[0].Severity))
			require.Empty(t, problems[0].Value)
			require.Contains(t, problems[0].Hint, "k3splan passwd")
		})
	}
}

func BenchmarkHashPassword(b *testing.B) {
	for b.Loop() {
		_, err := HashPassword([]byte("hello"))
		require.NoError(b, err)
	}
}
