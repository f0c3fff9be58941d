package colmena

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena/nixtest"
)

func TestRemote(t *testing.T) {
	words := func(program string, args []string) string { return program + " " + strings.Join(args, " ") }
	deploy := Remote{User: "deploy", Host: "10.0.0.2"}
	require.Equal(t, "ssh -T -o BatchMode=yes -o StrictHostKeyChecking=accept-new deploy@10.0.0.2 -- sudo -n -H -- sh -s -- olaf-s", words(deploy.Shell("olaf-s")))
	require.Equal(t, "ssh -T -o BatchMode=yes -o StrictHostKeyChecking=accept-new deploy@10.0.0.2 -- true", words(deploy.Plain("true")))
	root := Remote{User: "root", Host: "x", Port: 2222, Timeout: 5}
	require.Equal(t, "ssh -T -o BatchMode=yes -o ConnectTimeout=5 -o ServerAliveInterval=5 -o ServerAliveCountMax=2 -p 2222 -o StrictHostKeyChecking=accept-new root@x -- sh -s --", words(root.Shell()))
	// an ssh_config decides about host keys itself
	config := Remote{User: "deploy", Host: "x", Config: "/a/config"}
	require.Equal(t, "ssh -T -o BatchMode=yes -F /a/config deploy@x -- sudo -n -H -- true", words(config.Root("true")))
	local := Remote{Local: true}
	if os.Geteuid() == 0 {
		require.Equal(t, "sh -s --", words(local.Shell()))
	} else {
		require.Equal(t, "sudo -H -- sh -s --", words(local.Shell()))
	}
}

// What a script starts cannot read the rest of it.
func TestRunScript(t *testing.T) {
	fake(t, "ssh", `while [ "$1" != -- ]; do shift; done; shift; exec "$@"`)
	out, err := RunScript(context.Background(), Remote{User: "root", Host: "x"}, "set -e\ncat\necho \"$1\"\ncat << 'end'\n$1\nend", "word")
	require.NoError(t, err)
	require.Equal(t, "word\n$1\n", out)
	_, err = RunScript(context.Background(), Remote{User: "root", Host: "x"}, "echo talk >&2; exit 3")
	require.EqualError(t, err, "ssh failed with exit code 3: talk")
}

func TestRolloutArguments(t *testing.T) {
	require.Equal(t, []string{"apply", "-f", "h", "--on", "olaf", "--keep-result", "--verbose"}, ApplyOne("h", "olaf", []string{"--verbose"}))
	require.Equal(t, []string{"build", "-f", "h", "--on", "olaf,ulf", "--verbose", "--nix-option", "cores", "2"},
		BuildFirst("h", []string{"olaf", "ulf"}, []string{"boot", "--verbose", "--reboot", "--nix-option", "cores", "2"}))
	require.Equal(t, []string{"upload-keys", "-f", "h", "--on", "olaf"}, UploadKeys("h", "olaf", nil))
}

func TestPrivateHive(t *testing.T) {
	t.Setenv("TMPDIR", nixtest.TempDir(t))
	file := writeHive(t, filepath.Join(nixtest.TempDir(t), "rack"), "{ }")
	hive, err := PrivateHive(file, nil)
	require.NoError(t, err)
	require.NotEqual(t, file, hive.File)
	info, err := os.Stat(filepath.Dir(hive.File))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	require.Empty(t, hive.Result("olaf"))
	roots := filepath.Join(filepath.Dir(hive.File), ".gcroots")
	require.NoError(t, os.Mkdir(roots, 0o755))
	require.NoError(t, os.Symlink("/nix/store/x-system", filepath.Join(roots, "node-olaf")))
	require.Equal(t, "/nix/store/x-system", hive.Result("olaf"))
	require.NoError(t, hive.Close())
	require.NoFileExists(t, hive.File)
}

// Another login name is a matter of one host; everything else of the hive stays.
func TestPrivateHiveAsUser(t *testing.T) {
	nixtest.Needs(t, "nix-instantiate")
	t.Setenv("TMPDIR", nixtest.TempDir(t))
	file := writeHive(t, filepath.Join(nixtest.TempDir(t), hardNames[0]), `{ sources ? "found" }: { meta.description = sources; "olaf" = ./olaf.nix; "ulf" = ./ulf.nix; }`)
	hive, err := PrivateHive(file, map[string]string{"olaf": `ro"ot${x}`})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, hive.Close()) })
	out, err := Output(context.Background(), Command{
		Program: "nix-instantiate",
		Args: []string{"--eval", "--json", "--strict", "-E", `
			let hive = import ` + hive.File + ` { }; olaf = hive.olaf { lib.mkForce = x: x; };
			in [ hive.meta.description olaf.deployment.targetUser (map baseNameOf olaf.imports) (baseNameOf hive.ulf) ]`},
		Env: nixtest.Private(t),
	})
	require.NoError(t, err)
	require.JSONEq(t, `["found", "ro\"ot${x}", ["olaf.nix"], "ulf.nix"]`, out)
}
