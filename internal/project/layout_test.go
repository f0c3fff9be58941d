package project

import (
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
)

func TestMissingKeys(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		keys []diskKey
	}{
		"a plain layout":         {`{ type = "gpt"; partitions.root.content = { type = "filesystem"; format = "ext4"; }; }`, nil},
		"a password file":        {"{\n  type = \"luks\";\n  passwordFile = \"/tmp/disk.key\";\n}", []diskKey{{file: "/tmp/disk.key", line: 3}}},
		"a key file in settings": {`{ type = "luks"; settings = { keyFile = "/tmp/a b.key"; }; }`, []diskKey{{file: "/tmp/a b.key", line: 1}}},
		"a key file by its path": {`{ type = "luks"; settings.keyFile = "/root/key"; }`, []diskKey{{file: "/root/key", line: 1}}},
		"several key files":      {`{ type = "luks"; passwordFile = "/a"; additionalKeyFiles = [ "/b" "/c" ]; }`, []diskKey{{file: "/a", line: 1}, {file: "/b", line: 1}, {file: "/c", line: 1}}},
		"no key at all":          {"{\n\n  type = \"luks\"; }", []diskKey{{line: 3}}},
		"asks":                   {`{ type = "luks"; askPassword = true; }`, []diskKey{{line: 1}}},
		"does not ask":           {`{ type = "luks"; askPassword = false; keyFile = keys.disk; }`, []diskKey{{computed: true, line: 1}}},
		"ZFS that asks":          {`{ rootFsOptions = { encryption = "aes-256-gcm"; keylocation = "prompt"; }; }`, []diskKey{{line: 1}}},
		"ZFS with a file":        {`{ options.keylocation = "file:///tmp/zfs.key"; }`, []diskKey{{file: "/tmp/zfs.key", line: 1}}},
		"a device":               {`{ type = "luks"; settings.keyFile = "/dev/disk/by-id/usb-key"; }`, nil},
		"a hook that makes it":   {`{ type = "luks"; passwordFile = "/tmp/k"; preCreateHook = "get-key > /tmp/k"; }`, nil},
		"a hook of another kind": {`{ type = "luks"; passwordFile = "/tmp/k"; preCreateHook = "modprobe dm-crypt"; }`, []diskKey{{file: "/tmp/k", line: 1}}},
		"in a comment":           {"{ # type = \"luks\"; passwordFile = \"/tmp/k\";\n}", nil},
		"computed":               {`{ type = "luks"; passwordFile = "${keys}/x"; }`, []diskKey{{computed: true, line: 1}}},
		"computed, with a hook":  {`{ type = "luks"; passwordFile = key; preCreateHook = "echo x > ${key}"; }`, nil},
		"a default":              {`{ type = "luks"; passwordFile = lib.mkDefault "/tmp/k"; }`, []diskKey{{file: "/tmp/k", line: 1}}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.keys, missingKeys(test.text)) })
	}
}

func TestEncryptedLayoutIsAWarning(t *testing.T) {
	dir := folder(t, map[string]string{
		"partitioning/olaf.nix":         "import ./layouts/luks.nix { # ./other.nix\n}",
		"partitioning/layouts/luks.nix": "{ }: {\n  type = \"luks\";\n  passwordFile = \"/tmp/disk.key\"; # ../olaf.nix and ../../../outside.nix\n  x = ../olaf.nix;\n}\n",
	})
	_, problems, err := Load(dir)
	require.NoError(t, err)
	require.Contains(t, problems, diag.Problem{
		File: "partitioning/layouts/luks.nix", Line: 3, Value: "/tmp/disk.key", Severity: diag.Warning, Code: "disk-key-missing",
		Message: "the layout is encrypted with a key file that a boot stick does not bring",
		Hint:    "take the encryption out, or install olaf without a boot stick and deploy to it then",
	})
}
