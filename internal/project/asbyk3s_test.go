package project

import (
	"bytes"
	"encoding/binary"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"k3splan/internal/diag"

	"github.com/stretchr/testify/require"
)

// utf16Of encodes a text, with a byte-order mark.
func utf16Of(order binary.AppendByteOrder, text string) string {
	var data []byte
	for _, unit := range utf16.Encode([]rune("\ufeff" + text)) {
		data = order.AppendUint16(data, unit)
	}
	return string(data)
}

// What k3s does with these was found out with the reader that it uses.
func TestManifestsAsK3sReadsThem(t *testing.T) {
	const a = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n"
	b := strings.Replace(a, "name: a", "name: b", 1)
	const nothing = "k3s deploys nothing of the file: "
	for name, test := range map[string]struct {
		file, content string
		line          int
		message, hint string // of the one error; none if it is in order
	}{
		"UTF-8 with a mark":              {"", "\ufeff" + a + "---\n" + b, 0, "", ""},
		"a mark before a separator":      {"", "\ufeff---\n" + a, 0, "", ""},
		"line ends of Windows":           {"", strings.ReplaceAll(a+"---\n"+b, "\n", "\r\n"), 0, "", ""},
		"comments around":                {"", "# x\n---\n# y\n---\n" + a + "--- # z\n" + b + "---\n# end\n", 0, "", ""},
		"JSON":                           {"a.json", `{"apiVersion": "v1", "kind": "Namespace"}`, 0, "", ""},
		"JSON with escapes of its own":   {"a.json", `{"apiVersion": "v1", "kind": "ConfigMap", "data": {"url": "http:\/\/x", "smile": "\ud83d\ude00"}}`, 0, "", ""},
		"JSON with a key of 1100 bytes":  {"a.json", `{"apiVersion": "v1", "kind": "ConfigMap", "data": {"` + strings.Repeat("k", 1100) + `": "x"}}`, 0, "", ""},
		"JSON without kind":              {"a.json", `{"apiVersion": "v1", "url": "http:\/\/x"}`, 0, "not an object of Kubernetes: apiVersion and kind are needed", ""},
		"a list in JSON":                 {"a.json", `{"apiVersion": "v1", "kind": "List", "items": [{"url": "http:\/\/x"}]}`, 0, "not an object of Kubernetes: apiVersion and kind are needed", ""},
		"a mark before a comment":        {"", "\ufeff# x\n---\n" + a, 1, nothing + "one of its documents is null", "save it as UTF-8 without byte-order mark"},
		"separators in a text":           {"", "apiVersion: v1\nkind: ConfigMap\ndata:\n  x: |\n    a\n    ---\n    b\n", 0, "", ""},
		"UTF-16 of Windows":              {"", utf16Of(binary.LittleEndian, a), 0, "the file is encoded as UTF-16, of which k3s reads the first object at best", "save it as UTF-8: iconv -f UTF-16 -t UTF-8 manifests/a.yaml > new && mv new manifests/a.yaml"},
		"UTF-16, big end first":          {"", utf16Of(binary.BigEndian, a+"---\n"+b), 0, "the file is encoded as UTF-16, of which k3s reads the first object at best", "iconv -f UTF-16 "},
		"UTF-32":                         {"", "\xff\xfe\x00\x00a\x00\x00\x00", 0, "the file is encoded as UTF-32, of which k3s reads the first object at best", "iconv -f UTF-32 "},
		"UTF-16 without mark":            {"", utf16Of(binary.LittleEndian, a)[2:], 0, "the file contains null bytes: UTF-16 without byte-order mark, or not a text", "iconv -f UTF-16LE "},
		"big end first, without mark":    {"", utf16Of(binary.BigEndian, a)[2:], 0, "the file contains null bytes: UTF-16 without byte-order mark, or not a text", "iconv -f UTF-16BE "},
		"a name with a blank":            {"a.b c.yaml", utf16Of(binary.LittleEndian, a), 0, "the file is encoded as UTF-16, of which k3s reads the first object at best", "'manifests/a.b c.yaml' > new && mv new 'manifests/a.b c.yaml'"},
		"line ends of old Macs":          {"", strings.ReplaceAll(a+"---\n"+b, "\n", "\r"), 0, "k3s sees 1 of the 2 objects in the file", "write a line --- between any two of them"},
		"YAML in braces":                 {"", a + "---\n{apiVersion: v1, kind: Namespace}\n", 6, nothing + "what begins with { is JSON for it, and this is none: invalid character 'a' looking for beginning of object key string", "put keys and texts into quotes, or write the object without braces around it"},
		"a directive":                    {"", "%YAML 1.1\n---\n" + a, 3, nothing + "did not find expected <document start>", "delete the line that begins with %"},
		"null":                           {"", "~\n---\n" + a, 1, nothing + "one of its documents is null", "delete it, with the line --- before it"},
		"something behind the separator": {"", a + "--- !!map\n" + b, 5, nothing + "invalid Yaml document separator: !!map", "nothing but a comment may follow --- in its line"},
	} {
		t.Run(name, func(t *testing.T) {
			file := "manifests/" + test.file
			if test.file == "" {
				file = "manifests/a.yaml"
			}
			_, problems, err := Load(folder(t, map[string]string{file: test.content}))
			require.NoError(t, err)
			problems = slices.DeleteFunc(problems, func(p diag.Problem) bool { return p.Code == "manifest-unnamed" }) // most have no name
			if test.message == "" {
				require.Empty(t, problems)
				return
			}
			require.Len(t, problems, 1)
			p := problems[0]
			require.Equal(t, diag.Problem{File: file, Line: test.line, Severity: diag.Error, Code: "manifest-invalid", Message: test.message, Hint: p.Hint}, p)
			require.Contains(t, p.Hint, test.hint)
		})
	}
}

// The command in the hint does what it says.
func TestHintForUTF16(t *testing.T) {
	if _, err := exec.LookPath("iconv"); err != nil {
		t.Skip("iconv is not there")
	}
	const text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, annotations: {b: ä}}\n"
	for name, content := range map[string]string{
		"with mark": utf16Of(binary.LittleEndian, text), "big end first": utf16Of(binary.BigEndian, text),
		"without": utf16Of(binary.LittleEndian, text)[2:], "big end first, without": utf16Of(binary.BigEndian, text)[2:],
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, map[string]string{"manifests/a.yaml": content})
			_, problems, err := Load(dir)
			require.NoError(t, err)
			require.Len(t, problems, 1)
			_, command, _ := strings.Cut(problems[0].Hint, ": ")
			run := exec.Command("sh", "-c", command)
			run.Dir = dir
			out, err := run.CombinedOutput()
			require.NoError(t, err, string(out))
			p, problems, err := Load(dir)
			require.NoError(t, err)
			require.Empty(t, problems)
			require.True(t, bytes.Equal([]byte(text), p.Manifests[0].Data))
		})
	}
}
