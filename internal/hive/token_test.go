package hive_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// k3s does not start with a younger copy of another token than etcd has; what runs before it removes
// such a copy, and no other.
func TestStaleCopyOfTheTokenGoes(t *testing.T) {
	script := evaluated["single"].of(t).at(t, "preStart").(string)
	for name, test := range map[string]struct {
		token, passwd string
		stays         bool
	}{
		"the same":           {"abc\n", "abc,server,server,k3s:server\nxyz,node,node,k3s:agent\n", true},
		"the same, in full":  {"K10123::server:abc\n", "xyz,node,node,k3s:agent\nabc,server,server,k3s:server\n", true},
		"no last line end":   {"abc", "abc,server,server,k3s:server", true},
		"another":            {"new\n", "abc,server,server,k3s:server\nxyz,node,node,k3s:agent\n", false},
		"another, in full":   {"K10123::server:new", "xyz,node,node,k3s:agent\nabc,server,server,k3s:server\n", false},
		"only the agents'":   {"abc\n", "xyz,node,node,k3s:agent\n", true},
		"no line of its own": {"abc\n", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			write := func(path, content string) string {
				file := filepath.Join(root, path)
				require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
				require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
				return file
			}
			write("k3splan/server/token", test.token)
			write("k3splan/server/servers", "")
			file := write("rancher/k3s/server/cred/passwd", test.passwd)
			run := func() {
				command := exec.Command("bash", "-e", "-c", strings.ReplaceAll(script, "/var/lib/", root+"/"))
				out, err := command.CombinedOutput()
				require.NoError(t, err, "%s", out)
				require.Empty(t, string(out))
			}
			run()
			if test.stays {
				require.FileExists(t, file)
			} else {
				require.NoFileExists(t, file)
			}
			run() // the first start has none
		})
	}
}
