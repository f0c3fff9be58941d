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
		"a plain layout":           {`{ type = "gpt"; partitions.root.content = { type = "filesystem"; format = "ext4"; }; }`, nil},
		"a password file":          {"{\n  type = \"luks\";\n  passwordFile = \"/tmp/disk.key\";\n}", []diskKey{{"/tmp/disk.key", 3}}},
		"a key file in settings":   {`{ type = "luks"; settings = { keyFile = "/tmp/a b.key"; }; }`, []diskKey{{"/tmp/a b.key", 1}}},
		"a key file by its path":   {`{ type = "luks"; settings.keyFile = "/root/key"; }`, []diskKey{{"/root/key", 1}}},
		"several key files":        {`{ type = "luks"; passwordFile = "/a"; additionalKeyFiles = [ "/b" "/c" ]; }`, []diskKey{{"/a", 1}, {"/b", 1}, {"/c", 1}}},
		"no key at all":            {"{\n\n  type = \"luks\"; }", []diskKey{{"", 3}}},
		"asks":                     {`{ type = "luks"; askPassword = true; }`, []diskKey{{"", 1}}},
		"does not ask":             {`{ type = "luks"; askPassword = false; keyFile = keys.disk; }`, nil},
		"ZFS that asks":            {`{ rootFsOptions = { encryption = "aes-256-gcm"; keylocation = "prompt"; }; }`, []diskKey{{"", 1}}},
		"ZFS with a file":          {`{ options.keylocation = "file:///tmp/zfs.key"; }`, []diskKey{{"/tmp/zfs.key", 1}}},
		"a device":                 {`{ type = "luks"; settings.keyFile = "/dev/disk/by-id/usb-key"; }`, nil},
		"a hook that makes it":     {`{ type = "luks"; passwordFile = "/tmp/k"; preCreateHook = "get-key > /tmp/k"; }`, nil},
		"a hook of another kind":   {`{ type = "luks"; passwordFile = "/tmp/k"; preCreateHook = "modprobe dm-crypt"; }`, []diskKey{{"/tmp/k", 1}}},
		"in a comment":             {"{ # type = \"luks\"; passwordFile = \"/tmp/k\";\n}", nil},
		"computed, so not by text": {`{ type = "luks"; passwordFile = "${keys}/x"; }`, nil},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.keys, missingKeys(test.text)) })
	}
}

func TestEncryptedLayoutIsAWarning(t *testing.T) {
	dir := folder(t, map[string]string{"partitioning/olaf.nix": "{\n  type = \"luks\";\n  passwordFile = \"/tmp/disk.key\";\n}\n"})
	_, problems, err := Load(dir)
	require.NoError(t, err)
	require.Contains(t, problems, diag.Problem{
		File: "partitioning/olaf.nix", Line: 3, Value: "/tmp/disk.key", Severity: diag.Warning, Code: "disk-key-missing",
		Message: "the layout is encrypted with a key file that a boot stick does not bring",
		Hint:    "take the encryption out, or install olaf without a boot stick and deploy to it then",
	})
}
