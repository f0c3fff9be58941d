package hive_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Other images than those that TestNoSecretLeaks and TestNoEncryptedSecretLeaks make evaluate: for BIOS, and small.
func TestImagesEvaluate(t *testing.T) {
	for example, images := range map[string]string{
		"rack":   `{ legacy = (image { legacyBoot = true; }).karl; }`,
		"single": `{ legacy = (image { legacyBoot = true; }).olaf; small = (image { netinstall = true; }).olaf; }`,
	} {
		t.Run(example, func(t *testing.T) {
			file := rendered(t, example, nil)
			installer := filepath.Join(filepath.Dir(file), "variants.nix")
			require.NoError(t, os.WriteFile(installer, []byte("{ sources }: let image = more: import ./installer.nix ({ inherit sources; } // more); in "+images), 0o600))
			t.Setenv("EVALHIVE_INSTALLER", installer)
			for name, drv := range evaluate(t, "lib.mapAttrs (_: image: image.drvPath) iso", file).(map[string]any) {
				require.Regexp(t, `^/nix/store/.*\.iso\.drv$`, drv, name)
			}
		})
	}
}

const settingsOf = `name: builtins.fromJSON (builtins.unsafeDiscardStringContext iso.${name}.config.environment.etc."k3splan/installer.json".text)`

func TestImagesKnowTheirHosts(t *testing.T) {
	file := rendered(t, "rack", nil)
	d := data(evaluate(t, `let
		settings = `+settingsOf+`;
		olaf = iso.olaf.config;
		joins = (olaf.k3splan.installer.joining "ulf").config;
		# what the text brings onto the image
		text = olaf.environment.etc."k3splan/installer.json".text;
		drv = builtins.unsafeDiscardStringContext olaf.k3splan.installer.installed.config.system.build.toplevel.drvPath;
	in {
		settings = { olaf = settings "olaf"; ulrich = settings "ulrich"; };
		image = {
			address = olaf.networking.interfaces.k3splan-lan.ipv4.addresses;
			inherit (olaf.networking) hostName nameservers defaultGateway useDHCP;
			keys = olaf.users.users.olaf.openssh.authorizedKeys.keys;
			volume = olaf.isoImage.volumeID;
			unit = { inherit (olaf.systemd.services.system_setup) wantedBy wants after onFailure; };
			networkManager = olaf.networking.networkmanager.enable;
			compression = olaf.isoImage.squashfsCompression or "";
			packages = map lib.getName olaf.environment.systemPackages;
			stored = (builtins.getContext text).${drv}.outputs or null;
		};
		joining = {
			inherit (joins.containers.olaf-k3s-server.config.services.k3s) clusterInit;
			script = joins.system.activationScripts.script;
		};
	}`, file).(map[string]any))
	json := func(path ...string) string { return strings.TrimSpace(string(marshal(t, d.at(t, path...)))) }

	require.Equal(t, `[{"address":"10.0.100.2","prefixLength":24}]`, json("image", "address"))
	require.Equal(t, "olaf", d.at(t, "image", "hostName"))
	require.Equal(t, `["9.9.9.9","1.1.1.1"]`, json("image", "nameservers"))
	require.Equal(t, "10.0.100.1", d.at(t, "image", "defaultGateway", "address"))
	require.Equal(t, []any{aliceKey}, d.at(t, "image", "keys"))
	require.Equal(t, "k3splan-olaf", d.at(t, "image", "volume"))
	require.Equal(t, "k3splan-olaf", d.at(t, "settings", "olaf", "volume"), "with systemd's stage 1 the command line does not say it")
	require.Equal(t, []any{"multi-user.target"}, d.at(t, "image", "unit", "wantedBy"))
	require.Equal(t, []any{"network-online.target"}, d.at(t, "image", "unit", "wants"), "nothing else waits for it from 25.05 on")
	require.Contains(t, d.at(t, "image", "unit", "after"), "network-online.target")
	require.Equal(t, false, d.at(t, "image", "networkManager"), "it would take a lease on the interface below the macvlan")
	require.Regexp(t, `^zstd |^$`, d.at(t, "image", "compression"))
	require.Equal(t, []any{"out"}, d.at(t, "image", "stored"), "the system is on the image")
	for _, name := range []string{"git", "parted", "setup", "jq", "gptfdisk"} {
		require.Contains(t, d.at(t, "image", "packages"), name)
	}
	require.Regexp(t, `"vim`, json("image", "packages"))

	olaf := func(path ...string) string { return json(append([]string{"settings", "olaf"}, path...)...) }
	require.Equal(t, `"s4ewnx0m700101"`, olaf("serial"))
	require.Equal(t, `"efi"`, olaf("boot"))
	require.Equal(t, "null", olaf("disko"))
	require.Equal(t, "true", olaf("labelled"))
	require.Regexp(t, `^"/nix/store/.*-nixos-system-olaf-`, olaf("path"))
	require.Equal(t, `["/var/lib/k3splan/secrets/passwd","/var/lib/k3splan/server/passwd"]`, olaf("secrets", "passwd"))
	require.Equal(t, `["/var/lib/k3splan/server/token"]`, olaf("secrets", "server-token"))
	require.Equal(t, `["/var/lib/k3splan/server/agent-token","/var/lib/k3splan/agent/token"]`, olaf("secrets", "agent-token"))

	// where Colmena puts them, too
	var uploaded, placed []any
	for _, key := range evaluated["rack"].of(t).part(t, "data", "olaf", "deployment", "keys") {
		uploaded = append(uploaded, key.(map[string]any)["path"])
	}
	for _, paths := range d.at(t, "settings", "olaf", "secrets").(map[string]any) {
		placed = append(placed, paths.([]any)...)
	}
	require.ElementsMatch(t, uploaded, placed)

	require.Equal(t, `["/dev/disk/by-id/ata-WDC_WD40EFRX-68N32N0_WD-WCC7K0ULRICH"]`, json("settings", "ulrich", "disko", "disks"))
	require.Regexp(t, `disko-destroy-format-mount","--yes-wipe-all-disks"\]$`, json("settings", "ulrich", "disko", "command"))
	require.Equal(t, "false", json("settings", "ulrich", "labelled"))
	require.Equal(t, "{}", json("settings", "ulrich", "joining"), "it is not a server")

	// a running cluster is joined through the server that answered
	require.Len(t, d.at(t, "settings", "olaf", "joining"), 2)
	require.NotEqual(t, olaf("path"), olaf("joining", "10.0.100.13", "path"))
	require.NotEqual(t, olaf("joining", "10.0.100.14", "path"), olaf("joining", "10.0.100.13", "path"))
	require.Equal(t, false, d.at(t, "joining", "clusterInit"))
	require.Contains(t, d.at(t, "joining", "script"), "printf %s '10.0.100.13\n10.0.100.14\n' > /var/lib/k3splan/server/servers.new")
	require.Contains(t, d.at(t, "joining", "script"), "printf %s '10.0.100.13\n10.0.100.12\n10.0.100.14\n' > /var/lib/k3splan/agent/servers.new")
}

func TestImagesOfOtherShapes(t *testing.T) {
	file := rendered(t, "single", map[string]string{
		"plans/hosts.csv": "name,interface,ip,admin,boot,serial,mac\n" +
			"olaf,eno1,192.168.1.10,olaf,legacy,ABC,52:54:00:00:00:01\n" +
			"ulf,enp1s0,dhcp@ulf.example,ulf,,,\n",
		"plans/k3s.csv":        "host,name,type,ip\n",
		"hardware/ulf.nix":     "{ fileSystems.\"/\" = { device = \"UUID=abc\"; fsType = \"btrfs\"; options = [ \"subvol=@\" \"noatime\" ]; }; fileSystems.\"/boot\" = { device = \"/dev/disk/by-uuid/DEF\"; fsType = \"vfat\"; }; fileSystems.\"/srv\" = { device = \"/dev/sdb\"; options = [ \"nofail\" ]; }; }",
		"nixConfigs/olaf.nix":  "{ }",
		"manifests/hello.yaml": "-",
	})
	installer := filepath.Join(filepath.Dir(file), "variant.nix")
	require.NoError(t, os.WriteFile(installer, []byte("{ sources }: import ./installer.nix { inherit sources; netinstall = true; }"), 0o600))
	t.Setenv("EVALHIVE_INSTALLER", installer)
	d := data(evaluate(t, `let settings = `+settingsOf+`; in {
		settings = { olaf = settings "olaf"; ulf = settings "ulf"; };
		dhcp = iso.ulf.config.networking.interfaces.enp1s0.useDHCP;
		stored = let
			inherit (iso.olaf.config.k3splan.installer.installed.config.system.build) toplevel;
		in (builtins.getContext iso.olaf.config.environment.etc."k3splan/installer.json".text).${builtins.unsafeDiscardStringContext toplevel.drvPath};
	}`, file).(map[string]any))
	require.Equal(t, "legacy", d.at(t, "settings", "olaf", "boot"))
	require.Regexp(t, `^/nix/store/.*/bin/grub-install$`, d.at(t, "settings", "olaf", "grub"))
	require.Equal(t, "52:54:00:00:00:01", d.at(t, "settings", "olaf", "mac"))
	require.Nil(t, d.at(t, "settings", "olaf", "path"), "a small image")
	require.Regexp(t, `^/nix/store/.*\.drv$`, d.at(t, "settings", "olaf", "recipe"))
	require.Equal(t, map[string]any{"path": true}, d.at(t, "stored"), "the recipe without what it makes")
	require.Equal(t, true, d.at(t, "dhcp"))
	require.Nil(t, d.at(t, "settings", "ulf", "gateway"))
	require.Equal(t, false, d.at(t, "settings", "ulf", "labelled"))
	require.Equal(t, `[{"device":"/dev/disk/by-uuid/abc","mountPoint":"/","options":["subvol=@"]},{"device":"/dev/disk/by-uuid/DEF","mountPoint":"/boot","options":[]}]`, strings.TrimSpace(string(marshal(t, d.at(t, "settings", "ulf", "fileSystems")))))
}

const moduleScripts = `let
	inherit (nodes.olaf) config options;
	activation = lib.head (lib.catAttrs "k3splan-manifests" options.system.activationScripts.definitions);
in {
	network = config.systemd.services.k3splan-agent-network.script;
	manifests = activation.text or activation;
}`

// Every shell script within the modules passes shellcheck; those of the images are checked in internal/stick.
func TestScriptsWithinModules(t *testing.T) {
	shellcheck, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Skip("SKIP: shellcheck is not on PATH (Debian: shellcheck)")
	}
	scripts := evaluated["rack"].of(t).part(t, "scripts")
	require.Len(t, scripts, 2)
	for name, script := range scripts {
		command := exec.Command(shellcheck, "--shell=bash", "-")
		command.Stdin = bytes.NewBufferString(script.(string))
		out, err := command.CombinedOutput()
		require.NoError(t, err, "%s: %s", name, out)
	}
}

// What is rendered for images is the same for all projects, and none of it is in a host's own file:
// a host's fingerprint does not depend on it.
func TestImagesAreStatic(t *testing.T) {
	one, other := render(t, copyExample(t, "rack", nil)), render(t, copyExample(t, "single", nil))
	found := 0
	for _, file := range one.Paths() {
		if strings.HasPrefix(file, "installer") {
			require.Equal(t, string(one[file]), string(other[file]))
			found++
		}
		if strings.HasPrefix(file, "hosts/") || strings.HasPrefix(file, "modules/") || file == "hive.nix" {
			require.NotContains(t, string(one[file]), "installer/", file)
		}
	}
	require.Greater(t, found, 4)
	require.Contains(t, one.Paths(), "installer/setup.sh")
}
