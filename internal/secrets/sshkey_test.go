package secrets

import (
	"crypto/elliptic"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func mldsaKey() string {
	const kind = "ssh-mldsa-44"
	return rawKey(kind, struct{ Type, Key string }{kind, strings.Repeat("k", 1312)})
}

func keyLines(keys []key) []string {
	var all []string
	for _, k := range keys {
		all = append(all, k.line)
	}
	return all
}

func TestParseKeysTakesFilesAsPeopleHaveThem(t *testing.T) {
	a, b := newKey(t), newKey(t)
	for name, test := range map[string]struct {
		content string
		want    []string
	}{
		"one":                        {a + " olaf@desk\n", []string{a + " olaf@desk"}},
		"no newline (defect 10)":     {a, []string{a}},
		"several":                    {a + " one\n" + b + " two\n", []string{a + " one", b + " two"}},
		"comments and blank lines":   {"# people\n\n  # more\n" + a + "\n\t\n#" + b + "\n", []string{a}},
		"Windows":                    {a + " one\r\n\r\n" + b + " two\r\n", []string{a + " one", b + " two"}},
		"byte-order mark":            {"\ufeff" + a + " x\n", []string{a + " x"}},
		"byte-order mark, comment":   {"\ufeff# x\r\n" + a + "\r\n", []string{a}},
		"blanks around":              {"  \t" + a + " x \t\n", []string{a + " x"}},
		"several blanks between":     {strings.Replace(a, " ", " \t ", 1) + "\t x\n", []string{a + " x"}},
		"empty":                      {"", nil},
		"only comments":              {"# nobody yet\n", nil},
		"comment with blanks":        {a + " olaf  at  home", []string{a + " olaf  at  home"}},
		"hostile to Nix (defect 15)": {a + ` ''${builtins.abort "x"}'' "\n" $HOME`, []string{a + ` ''${builtins.abort "x"}'' "\n" $HOME`}},
		"not ASCII":                  {a + " größe \u202f€\u00a0", []string{a + " größe \u202f€\u00a0"}},
		"hash sign in a comment":     {a + " #1", []string{a + " #1"}},
		"comment that names a type":  {a + " replaces my old ssh-dss AAAA key", []string{a + " replaces my old ssh-dss AAAA key"}},
	} {
		t.Run(name, func(t *testing.T) {
			keys, problems, whole := parseKeys("secrets/all.pub", []byte(test.content))
			require.Empty(t, problems)
			require.True(t, whole)
			require.Equal(t, test.want, keyLines(keys))
		})
	}
}

func TestParseKeysTakesEveryStrongType(t *testing.T) {
	for name, k := range map[string]string{
		"ed25519": newKey(t), "security key": securityKey(t), "rsa 2048": rsaKey(2048), "rsa 4096": rsaKey(4096),
		"ecdsa 256": ecdsaKey(t, elliptic.P256()), "ecdsa 384": ecdsaKey(t, elliptic.P384()), "ecdsa 521": ecdsaKey(t, elliptic.P521()),
	} {
		t.Run(name, func(t *testing.T) {
			keys, problems, _ := parseKeys("secrets/all.pub", []byte(k+" x\n"))
			require.Empty(t, problems)
			require.Equal(t, []string{k + " x"}, keyLines(keys))
		})
	}
}

func TestParseKeysRefuses(t *testing.T) {
	good := newKey(t)
	_, blob, _ := strings.Cut(good, " ")
	for name, test := range map[string]struct{ line, want string }{
		"not a key":               {"hello", "not an ssh public key"},
		"words":                   {"hello my friend", "not an ssh public key"},
		"type without key":        {"ssh-ed25519", "not an ssh public key"},
		"key without type":        {blob, "not an ssh public key"},
		"another type's name":     {"ssh-rsa " + blob, "not an ssh public key"},
		"cut off":                 {good[:len(good)-4], "not an ssh public key"},
		"too long":                {good[:len(good)-4] + "AAAAAAAA", "not an ssh public key"},
		"host in front":           {"olaf.example.org " + good, "sshd does not understand"},
		"DSA":                     {dsaKey() + " old", "DSA"},
		"DSA with options":        {"restrict " + dsaKey(), "DSA"},
		"RSA 1024":                {rsaKey(1024) + " old", "RSA key of 1024 bits"},
		"RSA 2047":                {rsaKey(2047), "RSA key of 2047 bits"},
		"certificate":             {certificate(t) + " x", "certificate"},
		"authority":               {"cert-authority " + good, "certificate"},
		"authority, principals":   {`cert-authority,principals="olaf" ` + good, "certificate"},
		"unknown option":          {"no-such-thing " + good, "sshd does not understand"},
		"value not quoted":        {"from=10.0.0.1 " + good, "sshd does not understand"},
		"value for a flag":        {`restrict="x" ` + good, "sshd does not understand"},
		"flag for a value":        {"from " + good, "sshd does not understand"},
		"half a quote":            {`command="x\" ` + good, "not an ssh public key"},
		"quote inside a value":    {`from="a"b"" ` + good, "sshd does not understand"},
		"negated restrict":        {"no-restrict " + good, "sshd does not understand"},
		"null in the comment":     {good + " a\x00b", "control character"},
		"escape in the comment":   {good + " \x1b[31mred", "control character"},
		"tab in the comment":      {good + " a\tb", "control character"},
		"old Mac's line ends":     {good + " a\r" + good + " b", "control character"},
		"C1 control":              {good + " a\u0085b", "control character"},
		"control in an option":    {"from=\"a\x01\" " + good, "control character"},
		"Latin-1":                 {good + " J\xfcrgen", "not UTF-8"},
		"private key":             {"-----BEGIN OPENSSH PRIVATE" + " KEY-----", "private key"},
		"private RSA key":         {"-----BEGIN RSA PRIVATE" + " KEY-----", "private key"},
		"encrypted private key":   {"-----BEGIN ENCRYPTED PRIVATE" + " KEY-----", "private key"},
		"PuTTY's private key":     {"PuTTY-User-Key-File-3: ssh-ed25519", "private key"},
		"age's private key":       {"AGE-SECRET-" + "KEY-1QQQQ", "private key"},
		"PEM public key":          {"-----BEGIN PUBLIC KEY-----", "PEM"},
		"PuTTY's public key":      {"---- BEGIN SSH2 PUBLIC KEY ----", "RFC 4716"},
		"token":                   {strings.TrimSpace(goodToken), "not an ssh public key"},
		"password hash":           {strings.TrimSpace(goodHash), "not an ssh public key"},
		"newer than NixOS's sshd": {mldsaKey(), ""}, // which words depends on what Go knows
		"byte-order mark inside":  {"\ufeff" + good, "not an ssh public key"},
	} {
		t.Run(name, func(t *testing.T) {
			keys, problems, whole := parseKeys("secrets/ulf.pub", []byte("# comment\n\n"+test.line+"\n"))
			require.Equal(t, []string{"error ssh-key-invalid secrets/ulf.pub:3"}, found(problems))
			require.Contains(t, problems[0].Message, test.want)
			require.Empty(t, problems[0].Value)
			require.Empty(t, keys)
			require.False(t, whole)
		})
	}
}

func TestParseKeysKeepsTheGoodLinesAndTheirNumbers(t *testing.T) {
	a, b := newKey(t), newKey(t)
	keys, problems, whole := parseKeys("secrets/all.pub", []byte("\ufeff# x\r\n"+a+"\r\nrubbish\r\n\r\n"+b+" b\r\nmore rubbish"))
	require.Equal(t, []string{"error ssh-key-invalid secrets/all.pub:3", "error ssh-key-invalid secrets/all.pub:6"}, found(problems))
	require.Equal(t, []string{a, b + " b"}, keyLines(keys))
	require.Equal(t, 2, keys[0].row)
	require.Equal(t, 5, keys[1].row)
	require.False(t, whole)
}

func TestAPrivateKeyIsOneProblem(t *testing.T) {
	private := "-----BEGIN OPENSSH PRIVATE" + " KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\nAAAAB3NzaC1yc2EAAAADAQAB\n-----END OPENSSH PRIVATE" + " KEY-----\n"
	_, problems, whole := parseKeys("secrets/all.pub", []byte(private))
	require.Equal(t, []string{"error ssh-key-invalid secrets/all.pub:1"}, found(problems))
	require.False(t, whole)
}

func TestAWrongFileIsNotAThousandProblems(t *testing.T) {
	_, problems, whole := parseKeys("secrets/all.pub", []byte(strings.Repeat("rubbish\n", 100_000)))
	require.Len(t, problems, maxBadLines+1)
	require.Contains(t, problems[maxBadLines].Message, "too many lines")
	require.False(t, whole)

	_, problems, _ = parseKeys("secrets/all.pub", []byte("\xff\xfes\x00s\x00h\x00"))
	require.Equal(t, []string{"error ssh-key-invalid secrets/all.pub"}, found(problems))
}

func TestOptionsAreReportedAndKept(t *testing.T) {
	k := newKey(t)
	for name, test := range map[string]struct {
		options, names string
		forced         bool
	}{
		"restrict":        {"restrict", "(restrict)", false},
		"several":         {`restrict,pty,from="10.0.100.0/24,!10.0.100.7"`, "(restrict, pty, from)", false},
		"any case":        {"no-X11-forwarding,No-Pty", "(no-x11-forwarding, no-pty)", false},
		"forced command":  {`command="echo \"hello, ${USER}\" ''",no-pty`, "(command, no-pty)", true},
		"twice":           {`permitopen="a:1",permitopen="b:2"`, "(permitopen)", false},
		"expiry":          {`expiry-time="20300101"`, "(expiry-time)", false},
		"needs a touch":   {"verify-required", "(verify-required)", false},
		"empty value":     {`environment=""`, "(environment)", false},
		"blank in quotes": {`command="a b	c"`, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			keys, problems, whole := parseKeys("secrets/all.pub", []byte(test.options+" "+k+" olaf's\n"))
			if test.names == "" {
				require.Contains(t, problems[0].Message, "control character")
				return
			}
			require.Equal(t, []string{"warning ssh-key-options secrets/all.pub:1"}, found(problems))
			require.Contains(t, problems[0].Message, test.names)
			require.True(t, whole)
			require.Equal(t, []string{test.options + " " + k + " olaf's"}, keyLines(keys))
			require.Equal(t, test.forced, keys[0].forced)
		})
	}
}

// What comes out is read by sshd, so OpenSSH must read the same keys out of it.
func TestOpenSSHReadsTheLines(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("SKIP: ssh-keygen is not on PATH")
	}
	dir := t.TempDir()
	var content strings.Builder
	for _, args := range [][]string{{"-t", "ed25519"}, {"-t", "rsa", "-b", "2048"}, {"-t", "ecdsa", "-b", "521"}} {
		file := filepath.Join(dir, args[1])
		out, err := exec.Command(keygen, append(args, "-q", "-N", "", "-C", `real "key" ${x} ''`, "-f", file)...).CombinedOutput()
		require.NoError(t, err, string(out))
		public, err := os.ReadFile(file + ".pub")
		require.NoError(t, err)
		content.Write(public)
		content.WriteString("restrict,command=\"echo \\\"a, b\\\" #\"  " + string(public))
	}
	content.WriteString(securityKey(t))
	keys, problems, whole := parseKeys("secrets/all.pub", []byte(content.String()))
	require.True(t, whole, problems)
	require.Len(t, keys, 7)
	for i, k := range keys {
		file := filepath.Join(dir, "authorized_keys")
		require.NoError(t, os.WriteFile(file, []byte(k.line+"\n"), 0o600))
		out, err := exec.Command(keygen, "-l", "-f", file).CombinedOutput()
		require.NoError(t, err, "%s: %s", k.line, out)
		if i < 6 {
			require.Contains(t, string(out), `real "key" ${x} ''`)
		}
	}
	private, err := os.ReadFile(filepath.Join(dir, "rsa"))
	require.NoError(t, err)
	_, problems, _ = parseKeys("secrets/all.pub", private)
	require.Contains(t, problems[0].Message, "private key")
}
