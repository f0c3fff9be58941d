package project

import (
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
)

func TestMissingKeys(t *testing.T) {
	file := func(names ...string) (keys []diskKey) {
		for _, name := range names {
			keys = append(keys, diskKey{file: name})
		}
		return keys
	}
	asks, computed := []diskKey{{}}, []diskKey{{computed: true}}
	for name, test := range map[string]struct {
		text string
		keys []diskKey
	}{
		"a plain layout":         {`{ type = "gpt"; partitions.root.content = { type = "filesystem"; format = "ext4"; }; }`, nil},
		"a password file":        {`{ type = "luks"; passwordFile = "/tmp/disk.key"; }`, file("/tmp/disk.key")},
		"a key file in settings": {`{ type = "luks"; settings = { keyFile = "/tmp/a b.key"; }; }`, file("/tmp/a b.key")},
		"a key file by its path": {`{ type = "luks"; settings.keyFile = "/srv/key"; }`, file("/srv/key")},
		"several key files":      {`{ type = "luks"; passwordFile = "/a"; additionalKeyFiles = [ "/b" "/c" ]; }`, file("/a", "/b", "/c")},
		"a default":              {`{ type = "luks"; passwordFile = lib.mkDefault "/tmp/k"; }`, file("/tmp/k")},
		"no key at all":          {"{\n\n  type = \"luks\"; }", asks},
		"asks":                   {`{ type = "luks"; askPassword = true; }`, asks},
		"does not ask":           {`{ type = "luks"; askPassword = false; keyFile = keys.disk; }`, computed},
		"null":                   {`{ type = "luks"; passwordFile = null; settings.keyFile = "/dev/sdb"; }`, nil},
		"ZFS that asks":          {`{ rootFsOptions = { encryption = "aes-256-gcm"; keylocation = "prompt"; }; }`, asks},
		"ZFS with a file":        {`{ options.keylocation = "file:///tmp/zfs.key"; }`, file("/tmp/zfs.key")},
		"ZFS without a key":      {`{ options.keylocation = "none"; }`, nil},
		"a device":               {`{ type = "luks"; settings.keyFile = "/dev/disk/by-id/usb-key"; }`, nil},
		"a hook that makes it":   {`{ type = "luks"; passwordFile = "/tmp/k"; preCreateHook = "get-key > /tmp/k"; }`, nil},
		"a hook in lines":        {"{ type = \"luks\"; passwordFile = \"/tmp/k\"; preCreateHook = ''\n  get-key > /tmp/k\n''; }", nil},
		"a hook of another kind": {`{ type = "luks"; passwordFile = "/tmp/k"; preCreateHook = "modprobe dm-crypt"; }`, file("/tmp/k")},
		"computed":               {`{ type = "luks"; passwordFile = "${keys}/x"; }`, computed},
		"computed, with a hook":  {`{ type = "luks"; passwordFile = key; preCreateHook = "echo x > ${key}"; }`, nil},
		"in a comment":           {"{ # type = \"luks\"; passwordFile = \"/tmp/k\";\n /* type = \"luks\"; */ }", nil},
		"in a string":            {`{ x = "type = \"luks\"; passwordFile = /tmp/k"; }`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			keys := missingKeys(test.text)
			if len(test.keys) == 0 {
				require.Empty(t, keys)
				return
			}
			require.Equal(t, test.keys, keys)
		})
	}
}

func FuzzMissingKeys(f *testing.F) {
	f.Add(`{ type = "luks"; settings.keyFile = "/x"; additionalKeyFiles = [ "/b" ]; preCreateHook = ''x''; }`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, key := range missingKeys(text) {
			require.GreaterOrEqual(t, lineOf(text, key.file), 0)
		}
	})
}

func TestEncryptedLayoutIsAWarning(t *testing.T) {
	dir := folder(t, map[string]string{
		"partitioning/olaf.nix":         "import ./layouts/luks.nix { # ./other.nix\n}",
		"partitioning/layouts/luks.nix": "{ }: {\n  type = \"luks\";\n  passwordFile = \"/tmp/disk.key\"; # ../../../outside.nix\n  x = ../olaf.nix;\n}\n",
	})
	_, problems, err := Load(dir)
	require.NoError(t, err)
	require.Contains(t, problems, diag.Problem{
		File: "partitioning/layouts/luks.nix", Line: 3, Value: "/tmp/disk.key", Severity: diag.Warning, Code: "disk-key-missing",
		Message: "the layout is encrypted with a key file that a boot stick does not bring",
		Hint:    "take the encryption out, or install olaf without a boot stick and deploy to it then",
	})
}

func TestVirtualInterfaces(t *testing.T) {
	for name, test := range map[string]struct {
		interface_ string
		files      map[string]string
		missing    bool
	}{
		"hardware":              {interface_: "enp1s0f0np0"},
		"wireless":              {interface_: "wlan0"},
		"of a PCI domain":       {interface_: "enP4p65s0f1np0"},
		"a name with a capital": {interface_: "Eth0", missing: true},
		"capitals":              {interface_: "ENP4S0", missing: true},
		"renamed":               {interface_: "LAN", files: map[string]string{"nixConfigs/olaf.nix": `{ systemd.network.links."10-lan".linkConfig.Name = "LAN"; }`}},
		"a container engine's":  {interface_: "docker0", missing: true},
		"a bond":                {interface_: "bond0", missing: true},
		"a VLAN":                {interface_: "eno1.20", missing: true},
		"a bridge":              {interface_: "br-lan", missing: true},
		"made":                  {interface_: "bond0.20", files: map[string]string{"nixConfigs/olaf.nix": `{ networking.bonds.bond0 = { }; }`}},
		"made in an import":     {interface_: "br0", files: map[string]string{"nixConfigs/all.nix": `{ imports = [ ./net.nix ]; }`, "nixConfigs/net.nix": `{ networking.bridges.br0.interfaces = [ ]; }`}},
		"made for another one":  {interface_: "br0", files: map[string]string{"nixConfigs/olaf.nix": `{ networking.bridges.br1.interfaces = [ ]; }`}, missing: true},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"plans/hosts.csv": "name,interface,ip,admin\nolaf," + test.interface_ + ",192.168.1.10,olaf\n"}
			for file, content := range test.files {
				files[file] = content
			}
			_, problems, err := Load(folder(t, files))
			require.NoError(t, err)
			found := false
			for _, p := range problems {
				found = found || p.Code == "interface-missing" && p.File == "plans/hosts.csv" && p.Line == 2 && p.Value == test.interface_
			}
			require.Equal(t, test.missing, found, problems)
		})
	}
}
