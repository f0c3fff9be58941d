package rollout

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k3splan/internal/run"

	"github.com/stretchr/testify/require"
)

// Whom Nix trusts, as nix.conf says it; what looks like a pattern of files is none.
func TestTrustedUsers(t *testing.T) {
	for conf, trusts := range map[string]bool{
		"":                                      false,
		"trusted-users = root nobody\n":         true,
		"trusted-users = root nobodyelse\n":     false,
		"extra-trusted-users = @nogroup\n":      true,
		"trusted-users = root *\n":              true,
		"trusted-users = root no*\n":            false,
		"trusted-users = root\n# nobody\n":      false,
		"  trusted-users=@wheel @nogroup root ": true,
	} {
		home := t.TempDir()
		t.Chdir(home) // where a login begins
		require.NoError(t, os.WriteFile("nobody", nil, 0o600))
		require.NoError(t, os.WriteFile("nix.conf", []byte(conf), 0o600))
		t.Setenv("NIX_CONF_DIR", home)
		t.Setenv("PATH", filepath.Join(home, "bin")+":"+os.Getenv("PATH"))
		require.NoError(t, os.Mkdir("bin", 0o700))
		require.NoError(t, os.WriteFile("bin/id", []byte("#!/bin/sh\necho nogroup\n"), 0o700))
		out, err := run.Output(t.Context(), run.Command{Program: "sh", Args: []string{"-s", "--", "nobody"}, Stdin: strings.NewReader(trusted)})
		require.NoError(t, err)
		require.Equal(t, trusts, out != "", conf)
	}
}
