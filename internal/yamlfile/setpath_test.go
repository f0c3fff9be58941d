package yamlfile

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSetIn(t *testing.T) {
	for name, c := range map[string]struct{ text, parent, key, value, want string }{
		"in a block":            {"a: 1\nversions:\n  nixos: nixos-24.11 # old\n  k3s: \"1.31\"\nb: 2\n", "versions", "nixos", "nixos-25.11", "a: 1\nversions:\n  nixos: nixos-25.11 # old\n  k3s: \"1.31\"\nb: 2\n"},
		"with quotes":           {"versions:\n  k3s: '1.31'  # x\n", "versions", "k3s", "1.32", "versions:\n  k3s: \"1.32\"  # x\n"},
		"in braces":             {"versions: {nixos: nixos-24.11, k3s: 1.31}\n", "versions", "k3s", "1.32", "versions: {nixos: nixos-24.11, k3s: \"1.32\"}\n"},
		"on top":                {"# x\nnixos: \"24.11\"\n", "", "nixos", "25.11", "# x\nnixos: \"25.11\"\n"},
		"a new one":             {"versions:\n  nixos: a\n  k3s: 1.31 # x\nb: 2\n", "versions", "permit_ended", "1.33", "versions:\n  nixos: a\n  k3s: 1.31 # x\n  permit_ended: \"1.33\"\nb: 2\n"},
		"a new one at the end":  {"versions:\n  nixos: a", "versions", "k3s", "1.33", "versions:\n  nixos: a\n  k3s: \"1.33\""},
		"a new one, Windows":    {"versions:\r\n  nixos: a\r\nb: 2\r\n", "versions", "k3s", "1.33", "versions:\r\n  nixos: a\r\n  k3s: \"1.33\"\r\nb: 2\r\n"},
		"a new one in braces":   {"versions: {nixos: a}\n", "versions", "k3s", "1.33", "versions: {nixos: a, k3s: \"1.33\"}\n"},
		"removed":               {"versions:\n  nixos: a\n  permit_ended: \"1.33\" # for now\nb: 2\n", "versions", "permit_ended", "", "versions:\n  nixos: a\nb: 2\n"},
		"removed from braces":   {"versions: {nixos: a, permit_ended: \"1.33\", k3s: b}\n", "versions", "permit_ended", "", "versions: {nixos: a, k3s: b}\n"},
		"the first from braces": {"versions: {permit_ended: \"1.33\", k3s: b}\n", "versions", "permit_ended", "", "versions: {k3s: b}\n"},
		"not there":             {"versions: {k3s: b}\n", "versions", "permit_ended", "", "versions: {k3s: b}\n"},
		"the same":              {"versions: {k3s: '1.31'}\n", "versions", "k3s", "1.31", "versions: {k3s: '1.31'}\n"},
		"behind ümlauts":        {"versions: {note: 'übung', k3s: 1.31}\n", "versions", "k3s", "1.32", "versions: {note: 'übung', k3s: \"1.32\"}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := SetIn([]byte(c.text), c.parent, c.key, c.value)
			require.NoError(t, err)
			require.Equal(t, c.want, string(got))
		})
	}
	for name, text := range map[string]string{
		"no mapping": "a: 1\n", "a list": "versions: [a]\n", "an alias": "a: &x b\nversions:\n  k3s: *x\n", "over lines": "versions:\n  k3s: >\n    1.31\n",
		"empty": "", "not YAML": "a: [\n", "the key of an alias": "versions: &v {k3s: 1.31}\nother: *v\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := SetIn([]byte(text), "versions", "k3s", "1.32")
			require.EqualError(t, err, `set versions.k3s to "1.32" there yourself`)
		})
	}
}

// Whatever the text is, an edit that succeeds has set the key and nothing else.
func FuzzSetIn(f *testing.F) {
	f.Add("versions:\n  nixos: a # x\n  k3s: \"1.31\"\n", "1.32")
	f.Add("versions: {nixos: a, k3s: 1.31}\n", "")
	f.Fuzz(func(t *testing.T, text, value string) {
		if len(text) > 2000 || strings.ContainsAny(value, "\"\\\n") {
			return
		}
		changed, err := SetIn([]byte(text), "versions", "k3s", value)
		if err != nil || string(changed) == text {
			return
		}
		require.True(t, differOnlyIn([]byte(text), changed, "versions", "k3s", value))
		again, err := SetIn(changed, "versions", "k3s", value)
		require.NoError(t, err)
		require.Equal(t, string(changed), string(again))
	})
}
