package secrets

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf16"

	"k3splan/internal/diag"

	"github.com/stretchr/testify/require"
)

func TestASecretInASource(t *testing.T) {
	token := strings.TrimSpace(goodToken)
	open := func(t *testing.T, secret map[string]string, sources map[string]string) diag.Problems {
		t.Helper()
		fsys := fstest.MapFS{}
		for name, content := range sources {
			fsys[name] = &fstest.MapFile{Data: []byte(content)}
		}
		_, problems := Open(project(t, complete(t, secret)), Needs{Hosts: []string{"olaf"}, K3s: true, Sources: fsys})
		return problems
	}
	for name, test := range map[string]struct {
		token, file, content, want string
	}{
		"in a snippet":         {goodToken, "nixConfigs/olaf.nix", "{\n  x = \"" + token + "\";\n}\n", "error secret-in-file nixConfigs/olaf.nix:2"},
		"in a folder below":    {goodToken, "nixConfigs/lib/a/b.nix", token, "error secret-in-file nixConfigs/lib/a/b.nix:1"},
		"in a manifest":        {goodToken, "manifests/a.yaml", "\n\nenv: --token=" + token + "\n", "error secret-in-file manifests/a.yaml:3"},
		"in base64":            {goodToken, "manifests/a.yaml", "x: " + base64.StdEncoding.EncodeToString([]byte(token)), "error secret-in-file manifests/a.yaml:1"},
		"in options of k3s":    {goodToken, "k3s/server.yaml", "token: " + token, "error secret-in-file k3s/server.yaml:1"},
		"in a table":           {goodToken, "plans/hosts.csv", "name,note\nolaf," + token + "\n", "error secret-in-file plans/hosts.csv:2"},
		"the last part alone":  {"K10" + strings.Repeat("0a", 32) + "::server:swordfish-and-salmon\n", "manifests/a.yaml", "x: swordfish-and-salmon", "error secret-in-file manifests/a.yaml:1"},
		"nowhere":              {goodToken, "manifests/a.yaml", "x: " + token[1:], ""},
		"a word that is short": {"swordfish\n", "nixConfigs/olaf.nix", "# swordfish", ""},
	} {
		t.Run(name, func(t *testing.T) {
			problems := open(t, map[string]string{"init-token": test.token}, map[string]string{test.file: test.content})
			var in []string
			for _, line := range found(problems) {
				if strings.Contains(line, codeInFile) {
					in = append(in, line)
				}
			}
			if test.want == "" {
				require.Empty(t, in)
				return
			}
			require.Equal(t, []string{test.want}, in)
			require.NotContains(t, fmt.Sprintf("%+v", problems), token)
		})
	}
	t.Run("in other forms of a table", func(t *testing.T) {
		wide := []byte("\xff\xfe")
		for _, char := range utf16.Encode([]rune("name,note\r\nolaf," + token + "\r\n")) {
			wide = binary.LittleEndian.AppendUint16(wide, char)
		}
		require.Contains(t, found(open(t, nil, map[string]string{"plans/hosts.csv": string(wide)})), "error secret-in-file plans/hosts.csv:2")
		var workbook bytes.Buffer
		parts := zip.NewWriter(&workbook)
		part, err := parts.Create("xl/sharedStrings.xml")
		require.NoError(t, err)
		_, err = part.Write([]byte(strings.Repeat("<si><t>olaf</t></si>", 50) + "<si><t>" + token + "</t></si>"))
		require.NoError(t, err)
		require.NoError(t, parts.Close())
		require.Contains(t, found(open(t, nil, map[string]string{"plans/cluster.xlsx": workbook.String()})), "error secret-in-file plans/cluster.xlsx")
	})
	t.Run("behind a link", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "nixConfigs"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "shared.nix"), []byte("# "+token), 0o600))
		require.NoError(t, os.Symlink("../shared.nix", filepath.Join(dir, "nixConfigs", "olaf.nix")))
		_, problems := Open(project(t, complete(t, nil)), Needs{Hosts: []string{"olaf"}, K3s: true, Sources: os.DirFS(dir)})
		require.Contains(t, found(problems), "error secret-in-file nixConfigs/olaf.nix:1")
	})
	hash := open(t, map[string]string{"passwd": goodHash}, map[string]string{"nixConfigs/all.nix": "{ users.users.x.hashedPassword = \"" + strings.TrimSpace(goodHash) + "\"; }"})
	require.Contains(t, found(hash), "error secret-in-file nixConfigs/all.nix:1")
}
