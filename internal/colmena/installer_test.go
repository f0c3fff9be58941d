package colmena

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBuildImage(t *testing.T) {
	require.Equal(t, []string{
		"--out-link", "/tmp/x/result", "--argstr", "file", "/a b/generated/installer.nix", "--argstr", "host", "olaf",
		"--arg", "netinstall", "true", "--arg", "legacyBoot", "false", "-E", imageOf,
	}, BuildImage(Image{File: "/a b/generated/installer.nix", Host: "olaf", Netinstall: true}, "/tmp/x/result"))
}

// The same arguments find the host, whatever the names are.
func TestBuildImageEvaluates(t *testing.T) {
	nix, err := exec.LookPath("nix-instantiate")
	if err != nil {
		t.Skip("SKIP: nix-instantiate is not on PATH (Debian: nix-bin)")
	}
	file := filepath.Join(t.TempDir(), `a "b" ${c}`, "installer.nix")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte(`{ netinstall, legacyBoot }: { "123" = [ netinstall legacyBoot ]; }`), 0o600))
	args := BuildImage(Image{File: file, Host: "123", Legacy: true}, "link")[2:]
	out, err := exec.Command(nix, append([]string{"--eval", "--strict"}, args...)...).Output()
	require.NoError(t, err)
	require.Equal(t, "[ false true ]\n", string(out))
}
