package hive_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k3splan"
	"k3splan/internal/hive"
	"k3splan/internal/project"

	"github.com/stretchr/testify/require"
)

// gpt is a disko layout of one disk with these partitions.
func gpt(partitions string) string {
	return `{ disko.devices.disk.main = { type = "disk"; device = "/dev/disk/by-id/x"; content = { type = "gpt"; partitions = { ` + partitions + ` }; }; }; }`
}

const (
	espPartition  = `ESP = { size = "512M"; type = "EF00"; content = { type = "filesystem"; format = "vfat"; mountpoint = "/boot"; }; }; `
	rootPartition = `root = { size = "100%"; content = { type = "filesystem"; format = "ext4"; mountpoint = "/"; }; }; `
)

func luks(settings string) string {
	return gpt(espPartition + `crypt = { size = "100%"; content = { type = "luks"; name = "crypt"; ` + settings +
		` content = { type = "filesystem"; format = "ext4"; mountpoint = "/"; }; }; };`)
}

// Everything that would end an installation halfway, as far as evaluation knows, is found before a stick is
// made, and nothing else is. Each host is one case.
func TestProblemsOfInstallation(t *testing.T) {
	hosts := map[string]struct {
		boot, serial, interface_ string
		snippet, layout          string
		codes                    string // sorted
	}{
		"plain":        {serial: "s1"},
		"foreign":      {serial: "s1", snippet: `{ fileSystems."/" = { device = "/dev/disk/by-uuid/1"; fsType = "ext4"; }; }`, codes: "file-system-foreign"},
		"as-uuid":      {serial: "s1", snippet: `{ fileSystems."/" = { device = "UUID=1"; fsType = "ext4"; }; }`, codes: "file-system-foreign"},
		"other-type":   {serial: "s1", snippet: `{ fileSystems."/".fsType = "btrfs"; }`, codes: "file-system-foreign"},
		"zfs-data":     {serial: "s1", snippet: `{ fileSystems."/tank" = { device = "tank/x"; fsType = "zfs"; }; networking.hostId = "12345678"; }`, codes: "file-system-foreign"},
		"more-disks":   {serial: "s1", snippet: `{ fileSystems."/srv" = { device = "/dev/disk/by-label/data"; fsType = "ext4"; }; swapDevices = [{ device = "/dev/disk/by-label/swap"; }]; }`, codes: "file-system-foreign file-system-foreign"},
		"encrypted":    {serial: "s1", snippet: `{ boot.initrd.luks.devices.root.device = "/dev/disk/by-uuid/2"; }`, codes: "luks-foreign"},
		"harmless":     {serial: "s1", snippet: `{ lib, ... }: { fileSystems."/".device = lib.mkForce "LABEL=nixos"; fileSystems."/srv" = { device = "/dev/sdb1"; fsType = "ext4"; options = [ "nofail" ]; }; fileSystems."/tmp" = { device = "tmpfs"; fsType = "tmpfs"; }; fileSystems."/nas" = { device = "nas:/x"; fsType = "nfs"; }; swapDevices = [{ device = "/swapfile"; }]; }`},
		"no-serial":    {snippet: `{ fileSystems."/" = { device = "/dev/disk/by-uuid/1"; fsType = "xfs"; }; }`},
		"zfs-root":     {snippet: `{ fileSystems."/" = { device = "rpool/root"; fsType = "zfs"; }; networking.hostId = "12345678"; }`, codes: "root-missing"},
		"esp-lost":     {serial: "s1", snippet: `{ boot.loader.efi.efiSysMountPoint = "/boot/efi"; }`, codes: "efi-partition-missing"},
		"bios-grub":    {serial: "s1", snippet: `{ boot.loader.systemd-boot.enable = false; boot.loader.grub = { enable = true; device = "nodev"; }; }`, codes: "boot-mode"},
		"efi-grub":     {serial: "s1", snippet: `{ boot.loader.systemd-boot.enable = false; boot.loader.grub = { enable = true; device = "nodev"; efiSupport = true; }; }`},
		"legacy":       {serial: "s1", boot: "legacy"},
		"legacy-efi":   {serial: "s1", boot: "legacy", snippet: `{ boot.loader.grub.enable = false; boot.loader.systemd-boot.enable = true; }`, codes: "boot-mode"},
		"no-loader":    {serial: "s1", snippet: `{ boot.loader.systemd-boot.enable = false; boot.loader.grub.enable = false; }`, codes: "boot-loader-missing"},
		"layout":       {layout: gpt(espPartition + rootPartition)},
		"data-disk":    {layout: gpt(espPartition + rootPartition), snippet: `{ fileSystems."/data" = { device = "UUID=d"; fsType = "xfs"; }; swapDevices = [{ device = "/dev/disk/by-label/swap"; }]; }`},
		"no-root":      {layout: gpt(espPartition), codes: "root-missing"},
		"no-esp":       {layout: gpt(rootPartition), codes: "efi-partition-missing"},
		"esp-type":     {layout: gpt(strings.Replace(espPartition, `type = "EF00";`, "", 1) + rootPartition), codes: "efi-partition-type"},
		"esp-small":    {layout: gpt(strings.Replace(espPartition, "512M", "40M", 1) + rootPartition), codes: "efi-partition-small"},
		"esp-end":      {layout: gpt(strings.Replace(espPartition, `size = "512M"`, `start = "1M"; end = "50M"`, 1) + rootPartition), codes: "efi-partition-small"},
		"board":        {layout: gpt(rootPartition), snippet: `{ boot.loader.systemd-boot.enable = false; boot.loader.grub.enable = false; boot.loader.generic-extlinux-compatible.enable = true; }`},
		"bios-layout":  {boot: "legacy", layout: gpt(rootPartition), codes: "bios-boot-missing"},
		"bios-boot":    {boot: "legacy", layout: gpt(`boot = { size = "1M"; type = "EF02"; }; ` + rootPartition)},
		"luks-file":    {layout: luks(`passwordFile = "/tmp/disk.key";`), codes: "disk-key-missing"},
		"luks-setting": {layout: luks(`settings.keyFile = "/tmp/disk.key"; additionalKeyFiles = [ "/tmp/other.key" ];`), codes: "disk-key-missing disk-key-missing"},
		"luks-asks":    {layout: luks(""), codes: "disk-key-missing"},
		"luks-hook":    {layout: luks(`passwordFile = "/tmp/disk.key"; preCreateHook = "echo x > /tmp/disk.key";`)},
		"luks-device":  {layout: luks(`settings.keyFile = "/dev/disk/by-id/usb-key";`)},
		"no-bond":      {serial: "s1", interface_: "bond0.20", codes: "interface-missing"},
		"bond":         {serial: "s1", interface_: "bond0.20", snippet: `{ networking.bonds.bond0.interfaces = [ "eno1" "eno2" ]; networking.vlans."bond0.20" = { id = 20; interface = "bond0"; }; }`},
		"half-a-bond":  {serial: "s1", interface_: "bond0.20", snippet: `{ networking.vlans."bond0.20" = { id = 20; interface = "bond0"; }; }`, codes: "interface-missing"},
		"renamed":      {serial: "s1", interface_: "lan.0", snippet: `{ systemd.network.links."10-lan" = { matchConfig.MACAddress = "52:54:00:00:00:01"; linkConfig.Name = "lan.0"; }; }`},
		"netdev":       {serial: "s1", interface_: "br0", snippet: `{ systemd.network.netdevs."10-br".netdevConfig = { Kind = "bridge"; Name = "br0"; }; }`},
		"accepted":     {serial: "s1", interface_: "br0", snippet: `{ k3splan.installation.accept = [ "interface-missing" ]; }`},
	}
	lock, err := os.ReadFile(filepath.Join(exampleRoot, "rack", "plans", "lock.json")) // pins disko
	require.NoError(t, err)
	files := map[string]string{"plans/lock.json": string(lock), "plans/k3s.csv": "host,name,type,ip\n", "nixConfigs/olaf.nix": "-", "manifests/hello.yaml": "-"}
	table := "name,interface,ip,admin,boot,serial\n"
	for i, name := range slices.Sorted(maps.Keys(hosts)) {
		host := hosts[name]
		if host.interface_ == "" {
			host.interface_ = "eno1"
		}
		table += fmt.Sprintf("%s,%s,192.168.1.%d,olaf,%s,%s\n", name, host.interface_, 10+i, host.boot, strings.Replace(host.serial, "s1", fmt.Sprint("s", i), 1))
		if host.snippet != "" {
			files["nixConfigs/"+name+".nix"] = host.snippet
		}
		if host.layout != "" {
			files["partitioning/"+name+".nix"] = host.layout
		}
	}
	files["plans/hosts.csv"] = table
	file := renderedWithWarnings(t, "single", files)
	installer := filepath.Join(filepath.Dir(file), "variant.nix")
	require.NoError(t, os.WriteFile(installer, []byte("{ sources }: import ./installer.nix { inherit sources; problems = true; }"), 0o600))
	t.Setenv("EVALHIVE_INSTALLER", installer)
	found := data(evaluate(t, "iso", file).(map[string]any))
	for name, host := range hosts {
		var codes []string
		for _, problem := range found.at(t, name).([]any) {
			codes = append(codes, problem.(map[string]any)["code"].(string))
		}
		slices.Sort(codes)
		require.Equal(t, host.codes, strings.Join(codes, " "), "%s: %v", name, found[name])
	}
	// what the installer must find beside the disks of the layout
	var settings struct {
		OtherDevices []string
		EspSize      int64
		BootLoader   string
	}
	require.NoError(t, json.Unmarshal(marshal(t, evaluate(t, "builtins.fromJSON (builtins.toJSON nodes.data-disk.config.k3splan.installation.facts)", file)), &settings))
	require.Equal(t, []string{"/dev/disk/by-uuid/d", "/dev/disk/by-label/swap"}, settings.OtherDevices)
	require.Equal(t, int64(512<<20), settings.EspSize)
	require.Equal(t, "systemd-boot", settings.BootLoader)
	foreign := found.at(t, "foreign").([]any)[0].(map[string]any)
	require.Equal(t, "nixConfigs/foreign.nix", foreign["file"])
	require.Contains(t, foreign["message"], "the file system / (ext4) is expected on /dev/disk/by-uuid/1, which the boot stick does not make")
	require.Contains(t, foreign["hint"], "take the serial of foreign out of plans/hosts.csv")
}

// What would prevent an installation is a warning in the hive, and an error of the image.
func TestForeignFileSystemsRefuseTheImage(t *testing.T) {
	file := rendered(t, "single", map[string]string{
		"plans/hosts.csv":     "name,interface,ip,admin,serial\nolaf,eno1,192.168.1.10,olaf,S1\n",
		"plans/k3s.csv":       "host,name,type,ip\n",
		"nixConfigs/olaf.nix": `{ imports = [ ./old.nix ]; }`,
		"nixConfigs/old.nix":  `{ fileSystems."/" = { device = "/dev/disk/by-uuid/1"; fsType = "ext4"; }; }`,
	})
	out, code := evalHive(t, "--check", file)
	require.Zero(t, code, "a running host can still be deployed")
	require.Contains(t, out, "nixConfigs/old.nix: a boot stick could not install olaf: the file system / (ext4) is expected on /dev/disk/by-uuid/1")
	_, code = evalHive(t, "--expr", "builtins.unsafeDiscardStringContext iso.olaf.drvPath", file)
	require.NotZero(t, code)
}

// The image evaluates a host as Colmena does: with its options, its arguments and the other hosts.
func TestImagesAreEvaluatedAsByColmena(t *testing.T) {
	file := rendered(t, "single", map[string]string{
		"plans/hosts.csv": "name,interface,ip,admin,serial\nolaf,bond0.20,192.168.1.10,olaf,S1\nulf,eno1,192.168.1.41,olaf,S2\n",
		"nixConfigs/all.nix": `{ name, nodes, config, lib, ... }: {
			deployment.buildOnTarget = true;
			deployment.keys.extra = { text = "x"; destDir = "/var/lib/extra"; };
			environment.etc.rack.text = builtins.toJSON {
				inherit name; inherit (config.deployment) tags targetUser buildOnTarget targetHost; inherit (config.deployment.keys.extra) path uploadAt;
			};
			# the harness cannot follow this in the hive
			environment.etc.others.text = builtins.toJSON (lib.mapAttrs (_: node: { inherit (node.config.networking) hostName; inherit (node.config.deployment) tags; }) nodes);
		}`,
		"nixConfigs/olaf.nix": `{
			networking = {
				bonds.bond0 = { interfaces = [ "eno1" "eno2" ]; driverOptions.mode = "802.3ad"; };
				vlans."bond0.20" = { id = 20; interface = "bond0"; };
				bridges.br0.interfaces = [ "eno3" ];
				interfaces.eno1.mtu = 9000;
				usePredictableInterfaceNames = false;
			};
			systemd.network.links."10-lan" = { matchConfig.MACAddress = "52:54:00:00:00:01"; linkConfig.Name = "eno2"; };
			services.udev.extraRules = "SUBSYSTEM==\"net\", ATTR{address}==\"52:54:00:00:00:02\", NAME=\"eno3\"";
		}`,
	})
	d := data(evaluate(t, `let
		etc = config: builtins.fromJSON config.environment.etc.rack.text;
		image = iso.olaf.config;
		network = config: {
			inherit (config.networking) hostName nameservers;
			vlans = lib.mapAttrs (_: v: { inherit (v) id interface; }) config.networking.vlans;
			bonds = lib.mapAttrs (_: b: { inherit (b) interfaces driverOptions; }) config.networking.bonds;
			bridges = lib.mapAttrs (_: b: b.interfaces) config.networking.bridges;
			macvlans = lib.mapAttrs (_: m: m.interface) config.networking.macvlans;
			mtu = config.networking.interfaces.eno1.mtu;
			address = config.networking.interfaces.k3splan-lan.ipv4.addresses;
			gateway = config.networking.defaultGateway.address;
			links = lib.mapAttrs (_: l: l.linkConfig) config.systemd.network.links;
			oldNames = builtins.elem "net.ifnames=0" config.boot.kernelParams;
			arp = config.boot.kernel.sysctl."net/ipv4/conf/bond0.20/arp_ignore" or null;
			rules = lib.hasInfix "52:54:00:00:00:02" config.services.udev.extraRules;
		};
	in {
		read = { hive = etc nodes.olaf.config; image = etc image.k3splan.installer.installed.config; };
		others = builtins.fromJSON image.k3splan.installer.installed.config.environment.etc.others.text;
		network = { hive = network nodes.olaf.config; image = network image; };
	}`, file).(map[string]any))
	require.Equal(t, d.at(t, "read", "hive"), d.at(t, "read", "image"))
	require.Equal(t, "olaf", d.at(t, "read", "image", "name"))
	require.Equal(t, "/var/lib/extra/extra", d.at(t, "read", "image", "path"))
	require.Equal(t, "ulf", d.at(t, "others", "ulf", "hostName"))
	require.Equal(t, d.at(t, "read", "image", "tags"), d.at(t, "others", "olaf", "tags"))
	require.Equal(t, d.at(t, "network", "hive"), d.at(t, "network", "image"))
	require.Equal(t, "bond0.20", d.at(t, "network", "image", "macvlans", "k3splan-lan"))
	require.Equal(t, float64(9000), d.at(t, "network", "image", "mtu"))
	require.Equal(t, true, d.at(t, "network", "image", "oldNames"))
}

// renderedWithWarnings is rendered for projects with warnings.
func renderedWithWarnings(t testing.TB, name string, changed map[string]string) string {
	t.Helper()
	dir := copyExample(t, name, changed)
	p, problems, err := project.Load(dir)
	require.NoError(t, err)
	require.Zero(t, problems.Errors(), problems)
	tree, err := hive.Render(p, k3splan.Files)
	require.NoError(t, err)
	_, err = tree.Write(dir)
	require.NoError(t, err)
	return filepath.Join(dir, hive.Dir, "hive.nix")
}
