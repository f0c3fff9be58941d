package hive

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena/nixtest"
)

// hard are strings that mean something to Nix, to a shell, or to a template.
var hard = []string{
	"", "plain", `"`, `\`, `\"`, "''", "'''${x}", "${x}", "$${x}", "$$$${x}", `\${x}`, `\\${x}`, "$", "${", "a$", "$\n{",
	"two\nlines\n", "tab\tcr\r\nend", "{{ .Name }}", "<no value>", "ünïcödé ☃ 🦊", "\u2028\ufeff", "builtins.readFile /etc/passwd",
	"\" + builtins.abort \"x", "/* x */ # y", "\x01\x1f\x7f", "`id`; $(id) && 'x'", strings.Repeat("$", 1000) + "{",
}

// Nix returns any text unchanged.
func TestNixStringThroughNix(t *testing.T) {
	nixtest.Needs(t, "nix-instantiate")
	roundTrip(t, hard)
}

func roundTrip(t testing.TB, texts []string) {
	t.Helper()
	var list strings.Builder
	for _, text := range texts {
		list.WriteString(NixString(text) + "\n")
	}
	command := exec.Command("nix-instantiate", "--eval", "--strict", "--json", "-E", "["+list.String()+"]")
	command.Env = []string{"NIX_REMOTE=dummy://", "HOME=/nonexistent", "PATH=" + t.TempDir()}
	out, err := command.Output()
	require.NoError(t, err)
	var back []string
	require.NoError(t, json.Unmarshal(out, &back))
	require.Equal(t, texts, back)
}

func FuzzNixString(f *testing.F) {
	for _, text := range hard {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || strings.Contains(text, "\x00") {
			return // the reader refuses both
		}
		literal := NixString(text)
		require.True(t, strings.HasPrefix(literal, `"`) && strings.HasSuffix(literal, `"`))
		// read it as Nix's lexer does: no quote and no dollar without a backslash before it
		var back strings.Builder
		escaped := false
		for _, char := range literal[1 : len(literal)-1] {
			switch {
			case escaped:
				back.WriteRune(map[rune]rune{'n': '\n', 'r': '\r', 't': '\t'}[char] + map[bool]rune{true: char}[!strings.ContainsRune("nrt", char)])
				escaped = false
			case char == '\\':
				escaped = true
			default:
				require.NotContains(t, `"$`, string(char))
				back.WriteRune(char)
			}
		}
		require.Equal(t, text, back.String())
	})
}
