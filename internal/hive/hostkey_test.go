package hive_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/remote"
	"k3splan/internal/secrets"
)

// The private key arrives where sshd reads it, for its owner alone, before it is needed; a machine
// whose own key was adopted keeps that.
func TestHostKeysArriveWhereSSHDReadsThem(t *testing.T) {
	dir := copyExample(t, "rack", nil)
	_, public, err := secrets.NewHostKey("ulf")
	require.NoError(t, err)
	_, err = project.AdoptHostKey(dir, vaultOf(t, dir), "ulf", remote.HostKey{Public: public})
	require.NoError(t, err)
	tree := render(t, dir)
	private, err := os.ReadFile(filepath.Join(dir, "secrets/hosts/olaf_ed25519"))
	require.NoError(t, err)
	for file, content := range tree {
		require.NotContains(t, string(content), string(private[40:80]), file)
	}
	require.Contains(t, string(tree["hosts/olaf.nix"]), `secrets."ssh-host-key"`)
	require.NotContains(t, string(tree["hosts/ulf.nix"]), `ssh-host-key`)

	_, err = tree.Write(dir)
	require.NoError(t, err)
	value := evaluate(t, `lib.mapAttrs (_: n: {
		keys = n.config.services.openssh.hostKeys;
		upload = n.config.deployment.keys.k3splan-ssh-host-key or null;
		file = toString (n.config.deployment.keys.k3splan-ssh-host-key.keyFile or "");
		folder = builtins.filter (rule: builtins.match ".*/ssh .*" rule != null) n.config.systemd.tmpfiles.rules;
	}) (lib.filterAttrs (name: _: name == "olaf" || name == "ulf") nodes)`, filepath.Join(dir, "generated", "hive.nix")).(map[string]any)

	const path = "/var/lib/k3splan/ssh/ssh_host_ed25519_key"
	olaf := data(value["olaf"].(map[string]any))
	require.Equal(t, []any{map[string]any{"path": path, "type": "ed25519"}}, olaf["keys"])
	require.Equal(t, path, olaf.at(t, "upload", "path"))
	require.Equal(t, "root", olaf.at(t, "upload", "user"))
	require.Equal(t, "0400", olaf.at(t, "upload", "permissions"))
	require.Equal(t, "pre-activation", olaf.at(t, "upload", "uploadAt"))
	require.Equal(t, []any{"d /var/lib/k3splan/ssh 0700 root root -"}, olaf["folder"])
	require.Equal(t, filepath.Join(dir, "secrets/hosts/olaf_ed25519"), olaf["file"])

	ulf := data(value["ulf"].(map[string]any))
	require.Nil(t, ulf["upload"])
	require.NotContains(t, string(marshal(t, ulf["keys"])), path)
	require.Contains(t, string(marshal(t, ulf["keys"])), "/etc/ssh/ssh_host_ed25519_key")
}

func vaultOf(t *testing.T, dir string) *secrets.Vault {
	t.Helper()
	vault, err := secrets.OpenVault(dir, plan.SecretStore{}, nil)
	require.NoError(t, err)
	return vault
}
