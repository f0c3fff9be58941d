package secrets

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"k3splan/internal/files"

	"k3splan/internal/diag"

	"github.com/stretchr/testify/require"
)

// Ancestor's defect 16: the token was made by a living server, and of the wrong kind.
func TestNewTokenIsRandomAndOfTheRightKind(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		token, err := NewToken()
		require.NoError(t, err)
		require.Regexp(t, regexp.MustCompile(`^[0-9a-f]{64}$`), token)
		require.False(t, seen[token], "a token came twice")
		seen[token] = true
		require.Empty(t, CheckToken(InitToken, []byte(token)))
		require.Empty(t, CheckToken(AgentToken, []byte(token+"\n")))
	}
}

func TestCheckToken(t *testing.T) {
	const (
		word = "0123456789abcdef"
		ca   = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	)
	tests := map[string]struct {
		kind    TokenKind
		content string
		want    string // a part of the message, or "" if the token is good
	}{
		"word":                          {InitToken, word, ""},
		"final newline (defect 10)":     {InitToken, word + "\n", ""},
		"agents' word":                  {AgentToken, word + "\n", ""},
		"hostile to Nix (defect 15)":    {InitToken, `''${"` + word + `"}''`, ""},
		"colon":                         {InitToken, "a:b::c" + word, ""},
		"not ASCII":                     {InitToken, "größe" + word, ""},
		"full, server":                  {InitToken, "K10" + ca + "::server:" + word, ""},
		"full, server, without hash":    {InitToken, "K10::server:" + word, ""},
		"full, agent":                   {AgentToken, "K10" + ca + "::node:" + word, ""},
		"full, agent's for servers":     {InitToken, "K10" + ca + "::node:" + word, "wrong kind"},
		"full, server's for agents":     {AgentToken, "K10" + ca + "::server:" + word, "wrong kind"},
		"full, other user":              {InitToken, "K10" + ca + "::admin:" + word, "not a full k3s token"},
		"full, short hash":              {InitToken, "K10abc::server:" + word, "not a full k3s token"},
		"full, upper-case hash":         {InitToken, "K10" + strings.ToUpper(ca) + "::server:" + word, "not a full k3s token"},
		"full, without password":        {InitToken, "K10" + ca + "::server:", "not a full k3s token"},
		"word that starts with K10":     {InitToken, "K10" + word, "not a full k3s token"},
		"bootstrap (defect 16)":         {InitToken, "abcdef." + word, "bootstrap"},
		"bootstrap for agents":          {AgentToken, "abcdef." + word + "\n", "bootstrap"},
		"bootstrap, full":               {AgentToken, "K10" + ca + "::abcdef." + word, "bootstrap"},
		"nearly bootstrap":              {InitToken, "abcdefg." + word, ""},
		"upper case is no bootstrap":    {InitToken, "ABCDEF." + word, ""},
		"empty":                         {InitToken, "", "empty"},
		"newline":                       {InitToken, "\n", "empty"},
		"blank lines":                   {InitToken, " \r\n\n", "empty"},
		"two lines":                     {InitToken, word + "\n" + word, "more than one line"},
		"blank line below":              {InitToken, word + "\n\n", "more than one line"},
		"comment above":                 {InitToken, "# token\n" + word + "\n", "more than one line"},
		"Windows line end":              {InitToken, word + "\r\n", "Windows"},
		"carriage return inside":        {InitToken, word + "\r" + word, "Windows"},
		"byte-order mark":               {InitToken, "\ufeff" + word, "byte-order mark"},
		"UTF-16":                        {InitToken, "\xff\xfe0\x001\x00", "UTF-16"},
		"UTF-16, big endian":            {InitToken, "\xfe\xff\x000\x001", "UTF-16"},
		"blank before":                  {InitToken, " " + word, "blank"},
		"blank behind":                  {InitToken, word + " \n", "blank"},
		"blank inside":                  {InitToken, word + " " + word, "blank"},
		"tab":                           {InitToken, word + "\t" + word, "blank"},
		"no-break space":                {InitToken, word + "\u00a0" + word, "blank"},
		"zero-width space":              {InitToken, word + "\u200b", "invisible"},
		"byte-order mark inside":        {InitToken, word + "\ufeff", "invisible"},
		"null":                          {InitToken, word + "\x00", "invisible"},
		"escape":                        {InitToken, word + "\x1b[0m", "invisible"},
		"not UTF-8":                     {InitToken, word + "\xff", "invisible"},
		"password hash":                 {InitToken, hashesOfHello["sha512"], ""},
		"15 characters":                 {InitToken, word[1:], "shorter than 16"},
		"full with a short password":    {AgentToken, "K10" + ca + "::node:secret", "shorter than 16"},
		"what people type, and newline": {InitToken, "changeme\n", "shorter than 16"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			problems := CheckToken(test.kind, []byte(test.content))
			if test.want == "" {
				require.Empty(t, problems)
				return
			}
			require.Len(t, problems, 1)
			p := problems[0]
			require.Contains(t, p.Message, test.want)
			require.Empty(t, p.Value)
			if strings.HasPrefix(test.want, "shorter") {
				require.Equal(t, "secret-weak", p.Code)
				require.Equal(t, diag.Warning, p.Severity)
			} else {
				require.Equal(t, "secret-invalid", p.Code)
				require.Equal(t, diag.Error, p.Severity)
			}
		})
	}
}

// What a new project needs, made with our own means, is in order.
func TestWhatWeMakePassesOurChecks(t *testing.T) {
	dir := t.TempDir()
	for _, kind := range []TokenKind{InitToken, AgentToken} {
		token, err := NewToken()
		require.NoError(t, err)
		require.NoError(t, files.Create(filepath.Join(dir, Dir, string(kind)), []byte(token+"\n"), files.Private))
	}
	for _, host := range []string{"", "ulf"} {
		hash, err := HashPassword([]byte("correct horse"))
		require.NoError(t, err)
		require.NoError(t, files.Replace(filepath.Join(dir, Dir, PasswordName(host, nil)), []byte(hash+"\n"), files.Private))
	}
	require.NoError(t, files.Create(filepath.Join(dir, Dir, "all.pub"), []byte(newKey(t)+" olaf\n"), files.Private))
	s, problems := Open(dir, fiveHosts)
	require.Empty(t, problems)
	require.Equal(t, "secrets/ulfpasswd", s.PasswordFile("ulf"))
	require.Equal(t, "secrets/passwd", s.PasswordFile("olaf"))
}
