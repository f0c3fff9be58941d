package nixtext

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTokens(t *testing.T) {
	text := func(text string) Token { return Token{Kind: String, Text: text, Parts: []string{text}} }
	for code, want := range map[string][]Token{
		`a ./b # ./c`:    {{Kind: Word, Text: "a"}, {Kind: Path, Text: "./b"}},
		`/* "x */ "y"`:   {text("y")},
		`__readFile ~/x`: {{Kind: Word, Text: "readFile"}, {Kind: Path, Text: "~/x"}},
		`<nixpkgs/x>`:    {{Kind: Lookup, Text: "<nixpkgs/x>"}},
		`a ++ b // c`: {
			{Kind: Word, Text: "a"}, {Kind: Punctuation, Text: "++"}, {Kind: Word, Text: "b"}, {Kind: Punctuation, Text: "//"}, {Kind: Word, Text: "c"},
		},
		`"a${b}-c"`: {
			{Kind: String, Text: "a", Parts: []string{"a", "-c"}}, {Kind: Open, Text: "${"}, {Kind: Word, Text: "b"}, {Kind: Close, Text: "-"},
		},
		`./a/${b}/c.nix d`: {
			{Kind: ComputedPath, Text: "./a/", Parts: []string{"./a/", "/c.nix"}},
			{Kind: Open, Text: "${"}, {Kind: Word, Text: "b"}, {Kind: Close, Text: "/"}, {Kind: Word, Text: "d"},
		},
		`a.${b}`: {{Kind: Word, Text: "a"}, {Kind: Punctuation, Text: "."}, {Kind: Open, Text: "${"}, {Kind: Word, Text: "b"}, {Kind: Close}},
		`''a ''${b} ''' ${c}''`: {
			{Kind: String, Text: "a ''${b} ''' ", Parts: []string{"a ''${b} ''' ", ""}},
			{Kind: Open, Text: "${"}, {Kind: Word, Text: "c"}, {Kind: Close, Text: "'"},
		},
		`https://example.org/x?y=1 z`: {text("https://example.org/x?y=1"), {Kind: Word, Text: "z"}},
		`"a`:                          {text("a")},
	} {
		got, whole := Tokens(code)
		require.Equal(t, want, got, code)
		require.True(t, whole)
	}
	_, whole := Tokens(strings.Repeat(`"${`, 1_000_000))
	require.False(t, whole)
}

func FuzzTokens(f *testing.F) {
	f.Add("{ a = \"x ${./a.sh} y\"; b = ''${./b.sh}''; c = ./d/${e}/f; }")
	f.Fuzz(func(_ *testing.T, text string) { Tokens(text) })
}

// A file of nothing but brackets is cut, and what is cut off is known to be missing.
func TestTooManyTokens(t *testing.T) {
	for _, unit := range []string{"[", "{a=", "a ", "\"${x}", "./${x}/", "''${"} {
		tokens, whole := Tokens(strings.Repeat(unit, 2<<20/len(unit)))
		require.False(t, whole, unit)
		require.Less(t, len(tokens), maxTokens+10, unit)
	}
	_, whole := Tokens(strings.Repeat("a = 1;", maxTokens/5))
	require.True(t, whole)
}
