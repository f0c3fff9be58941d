package diag

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "",
		`plain "text" with \ and 'ü€日'`: `plain "text" with \ and 'ü€日'`,
		"\x1b[31mred\x1b[0m":            `\x1b[31mred\x1b[0m`,
		"title\x1b]0;x\x07":             `title\x1b]0;x\a`,
		"C1\u009b31m":                   `C1\u009b31m`,
		"two\nlines\r\tand a tab":       `two\nlines\r\tand a tab`,
		"bidi \u202etxt\u2066":          `bidi \u202etxt\u2066`,
		"zero\u200bwidth\ufeff":         `zero\u200bwidth\ufeff`,
		"filler\u3164\U000e0041":        `filler\u3164\U000e0041`,
		"\x7f\x00":                      `\x7f\x00`,
		"not UTF-8: \xff\x9b":           `not UTF-8: \xff\x9b`,
		"a replacement: \ufffd":         "a replacement: \ufffd",
		"no\u00a0break":                 `no\u00a0break`,
	} {
		require.Equal(t, want, Printable(text))
	}
	require.Equal(t, "two\n\tlines\n\\x1b[2J\\r", PrintableLines("two\r\n\tlines\n\x1b[2J\r"))
}

func FuzzPrintable(f *testing.F) {
	f.Add("\x1b[2J\u202e\xff")
	f.Fuzz(func(t *testing.T, text string) {
		got := Printable(text)
		require.True(t, utf8.ValidString(got))
		require.Equal(t, -1, strings.IndexFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }))
		require.Equal(t, got, Printable(got))
	})
}

// Neither the place nor the key nor the message of a problem can write to the terminal.
func TestProblemIsPrintable(t *testing.T) {
	require.Equal(t, `plans/a\x1b.csv:3: k\x1b[2Jey "v\x1b": m\x1b`,
		Problem{File: "plans/a\x1b.csv", Line: 3, Column: "k\x1b[2Jey", Value: "v\x1b", Message: "m\x1b"}.String())
}
