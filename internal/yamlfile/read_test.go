package yamlfile

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var keys = []string{"netmask", "gateway", "tls_san", "versions.nixos", "versions.k3s"}

// A slip is reported in its own line, with what to write.
func TestSlips(t *testing.T) {
	for name, test := range map[string]struct {
		text          string
		line          int
		message, hint string
	}{
		"blank missing, first line":   {"netmask:24\ngateway: 10.0.100.1\n", 1, "a blank is missing after the colon", "write: netmask: 24"},
		"blank missing, last line":    {"netmask: 24\ngateway:10.0.100.1\n", 2, "a blank is missing after the colon", "write: gateway: 10.0.100.1"},
		"blank missing, in between":   {"netmask: 24\ngateway:10.0.100.1\ntls_san: [a]\n", 2, "a blank is missing after the colon", "write: gateway: 10.0.100.1"},
		"blank missing, alone":        {"gateway:10.0.100.1\n", 1, "a blank is missing after the colon", "write: gateway: 10.0.100.1"},
		"blank missing, below":        {"versions:\n  nixos:nixos-26.05\n  k3s: 1.31\n", 2, "a blank is missing after the colon", "write: nixos: nixos-26.05"},
		"blank missing before a list": {"tls_san:[a, b]\ngateway: 10.0.100.1\n", 1, "a blank is missing after the colon", "write: tls_san: [a, b]"},
		"a URL is no slip":            {"netmask: 24\nhttps://example.org\ngateway: [\n", 2, "could not find expected", ""},
		"a tab":                       {"versions:\n\tnixos: nixos-26.05\n", 2, "the line begins with a tab", "indent it with blanks"},
		"a tab after blanks":          {"versions:\n  \tnixos: nixos-26.05\n", 2, "the line begins with a tab", "indent it with blanks"},
		"a special character":         {"gateway: @home\n", 1, "cannot start any token", "single quotes"},
		"a star":                      {"gateway: *.home\n", 1, "alphabetic", "single quotes"},
		"two documents":               {"netmask: 24\n---\ngateway: 10.0.100.1\n", 0, "more than one document", "delete the line ---"},
		"a list":                      {"- netmask\n", 1, "keys with values are needed here", "key: value"},
		"a word":                      {"netmask\n", 1, "keys with values are needed here", "key: value"},
		"a no-break space":            {"netmask:\u00a024\n", 1, "no-break space", ""},
		"not UTF-8":                   {"netmask: 24\ndomain: \xe4\n", 2, "not UTF-8", ""},
	} {
		t.Run(name, func(t *testing.T) {
			mapping, problem := Read("plans/network.yaml", []byte(test.text), keys)
			require.Nil(t, mapping)
			require.NotNil(t, problem)
			require.Equal(t, test.line, problem.Line, problem)
			require.Contains(t, problem.Message, test.message)
			require.Contains(t, problem.Hint, test.hint)
		})
	}
}

func TestReadable(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":             "",
		"a comment":           "# netmask:24\n",
		"null":                "~\n",
		"a tab in a flow":     "tls_san: [\n\ta,\n\tb]\n",
		"a tab before a note": "netmask: 24\t# note\n",
		"a colon in a text":   "tls_san: ['gateway:1']\n",
		"UTF-16":              "\xff\xfen\x00:\x00 \x001\x00",
	} {
		t.Run(name, func(t *testing.T) {
			_, problem := Read("x.yaml", []byte(text), keys)
			require.Nil(t, problem)
		})
	}
	mapping, problem := Read("x.yaml", []byte("netmask: 1.30\ngateway: 0x10\n"), keys)
	require.Nil(t, problem)
	require.Equal(t, "1.30", mapping.Content[1].Value)
	require.Equal(t, "0x10", mapping.Content[3].Value)
	require.Equal(t, "write: nixos: x", MissingBlank("nixos:x", keys))
	require.Empty(t, MissingBlank("https://x", keys))
	require.Empty(t, MissingBlank("nixos:", keys))
}

func TestSet(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"nothing":        {"", "secrets: age\n"},
		"more":           {"a: b\n", "a: b\nsecrets: age\n"},
		"without an end": {"a: b", "a: b\nsecrets: age\n"},
		"another value":  {"a: b\nsecrets: files # plain\nc: d\n", "a: b\nsecrets: age # plain\nc: d\n"},
		"the same":       {"secrets: 'age'\n", "secrets: 'age'\n"},
		"Windows":        {"a: b\r\n", "a: b\r\nsecrets: age\r\n"},
	} {
		changed, err := Set([]byte(test.text), "secrets", "age")
		require.NoError(t, err, name)
		require.Equal(t, test.want, string(changed), name)
	}
	for _, text := range []string{"{a: b}", "secrets: |\n  files\n  age\n", "secrets: [files,\n  age]\n"} {
		_, err := Set([]byte(text), "secrets", "age")
		require.ErrorContains(t, err, "write this line there yourself: secrets: age", text)
	}
}

// Characters that end a line for YAML would make the lines of its messages those of no editor.
func TestInvisibleLineBreaks(t *testing.T) {
	for text, line := range map[string]int{
		"netmask: 24 # a\u2028gateway: x\n":           1,
		"netmask: 24\ngateway: 10.0.100.1\u0085\n":    2,
		"\xff\xfe" + utf16("netmask: 24\n# a\u2029b"): 2,
	} {
		_, problem := Read("x.yaml", []byte(text), keys)
		require.NotNil(t, problem, "%q", text)
		require.Equal(t, line, problem.Line)
		require.Contains(t, problem.Message, "an invisible line break")
	}
}

// utf16 returns a text of the basic plane in UTF-16, little-endian.
func utf16(text string) string {
	var coded []byte
	for _, char := range text {
		coded = append(coded, byte(char), byte(char>>8))
	}
	return string(coded)
}

// Whatever is in a file, reading it ends, and a problem says what it is.
func FuzzRead(f *testing.F) {
	for _, text := range []string{"netmask:24\n", "a: &a [*a]\n", "\t\n", "? [a]\n: b\n", strings.Repeat("[", 100), "\xff\xfe( (  V"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_, problem := Read("x.yaml", []byte(text), keys)
		if problem != nil {
			require.NotEmpty(t, problem.Message)
			require.LessOrEqual(t, problem.Line, strings.Count(text, "\n")+strings.Count(text, "\r")+2)
		}
	})
}
