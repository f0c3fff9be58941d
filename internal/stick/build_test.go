package stick

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBuildCommand(t *testing.T) {
	program, args := Build{File: "/a b/generated/installer.nix", Host: "olaf", Netinstall: true}.command("/tmp/x/result")
	require.Equal(t, "nix-build", program)
	require.Equal(t, []string{
		"--out-link", "/tmp/x/result", "--argstr", "file", "/a b/generated/installer.nix", "--argstr", "host", "olaf",
		"--arg", "netinstall", "true", "--arg", "legacyBoot", "false", "-E", installerOf,
	}, args)
}

// The same arguments find the host, whatever the names are.
func TestBuildEvaluates(t *testing.T) {
	nix, err := exec.LookPath("nix-instantiate")
	if err != nil {
		t.Skip("SKIP: nix-instantiate is not on PATH (Debian: nix-bin)")
	}
	file := filepath.Join(t.TempDir(), `a "b" ${c}`, "installer.nix")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte(`{ netinstall, legacyBoot }: { "123" = [ netinstall legacyBoot ]; }`), 0o600))
	args := Build{File: file, Host: "123", Legacy: true}.arguments()
	out, err := exec.Command(nix, append([]string{"--eval", "--strict"}, args...)...).Output()
	require.NoError(t, err)
	require.Equal(t, "[ false true ]\n", string(out))
}
