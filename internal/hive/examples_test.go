package hive_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan"
	"k3splan/internal/colmena/nixtest"
	"k3splan/internal/hive"
	"k3splan/internal/project"
)

const (
	aliceKey = `ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDYX2xUDgCQXsQ3EXtVPkPO6PtS6C5zxVbGWGbMHKP6t alice's "key" ${x} '' \`
	// the hash of a password that nobody uses
	poisonHash  = "$6$rounds=5000$k3splantest$3NZsTVpZzBrpJtNsvTBiEItI1rfXRWzF6wBnJqLWYxIfPaTvVfPTIuZVmp3WHVgNKr0wAnuW4NrXYbHtOpkzL1"
	exampleRoot = "../../examples"
)

// copyExample returns the folder of a valid project with secrets of its own.
func copyExample(t testing.TB, name string, changed map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), `a "project" of ${x}`)
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join(exampleRoot, name))))
	_, err := project.Setup(dir, k3splan.Files)
	require.NoError(t, err)
	files := map[string]string{"secrets/all.pub": aliceKey + "\n", "secrets/passwd": poisonHash + "\n"}
	for file, content := range changed {
		files[file] = content
	}
	for file, content := range files {
		name := filepath.Join(dir, filepath.FromSlash(file))
		if content == "-" {
			require.NoError(t, os.Remove(name))
			continue
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
	}
	return dir
}

func render(t testing.TB, dir string) hive.Tree {
	t.Helper()
	p, problems, err := project.Load(dir)
	require.NoError(t, err)
	require.Empty(t, problems)
	tree, err := hive.Render(p, k3splan.Files)
	require.NoError(t, err)
	return tree
}

// rendered renders an example and returns the path of its hive.
func rendered(t testing.TB, name string, changed map[string]string) string {
	t.Helper()
	dir := copyExample(t, name, changed)
	_, err := render(t, dir).Write(dir)
	require.NoError(t, err)
	return filepath.Join(dir, hive.Dir, "hive.nix")
}

func examples(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir(exampleRoot)
	require.NoError(t, err)
	var names []string
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	require.NotEmpty(t, names)
	return names
}

// evalHive evaluates a hive with the evaluation harness; without one it skips the test.
func evalHive(t testing.TB, args ...string) (stdout string, code int) {
	t.Helper()
	return nixtest.Harness(t, "evalhive.sh", args...)
}

// evaluate returns the value of a Nix expression over the nodes of a hive.
func evaluate(t testing.TB, expression, hiveFile string) any {
	t.Helper()
	out, code := evalHive(t, "--expr", expression, hiveFile)
	require.Zero(t, code)
	var value any
	require.NoError(t, json.Unmarshal([]byte(out), &value))
	return value
}

func TestExamplesRenderAndParse(t *testing.T) {
	for _, name := range examples(t) {
		t.Run(name, func(t *testing.T) {
			dir := copyExample(t, name, nil)
			tree := render(t, dir)
			require.Equal(t, tree, render(t, dir), "same input, same bytes")
			_, err := tree.Write(dir)
			require.NoError(t, err)
			for _, file := range tree.Paths() {
				require.NotContains(t, string(tree[file]), "<no value>", file)
				require.NotContains(t, string(tree[file]), dir, "%s: the tree can be moved", file)
			}
			nixtest.Needs(t, "nix-instantiate")
			files := nixFiles(t, filepath.Join(dir, hive.Dir))
			out, err := exec.Command("nix-instantiate", append([]string{"--parse"}, files...)...).CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
}

func nixFiles(t testing.TB, dir string) (files []string) {
	require.NoError(t, filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		if filepath.Ext(file) == ".nix" {
			files = append(files, file)
		}
		return err
	}))
	require.NotEmpty(t, files)
	return files
}

func TestExamplesEvaluate(t *testing.T) {
	for _, name := range examples(t) {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, evaluated, name)
			out, code := checked(t, evaluated[name].of(t).part(t, "check"))
			require.Zero(t, code, out)
			require.Empty(t, out)
		})
	}
}

// data is JSON, to be looked at by path.
type data map[string]any

func (d data) at(t testing.TB, path ...string) any {
	t.Helper()
	var value any = map[string]any(d)
	for _, key := range path {
		object, ok := value.(map[string]any)
		require.True(t, ok, "%q of %v is not an object", key, path)
		require.Contains(t, object, key, "%v", path)
		value = object[key]
	}
	return value
}

// Where the systems read what is uploaded, and that they are what the plan says.
func TestRackIsWhatThePlanSays(t *testing.T) {
	d := evaluated["rack"].of(t).part(t, "data")
	texts := func(value any) string { return strings.TrimSpace(string(marshal(t, value))) }
	flags := func(host, container string) []any {
		return d.at(t, host, "containers", container, "k3s", "extraFlags").([]any)
	}

	// ancestor-defects 19, 24, 25: the host is on a macvlan, its parent takes no lease
	require.Equal(t, `{"k3splan-lan":{"interface":"eno1","mode":"bridge"}}`, texts(d.at(t, "olaf", "networking", "macvlans")))
	require.Equal(t, `[{"address":"10.0.100.2","prefixLength":24}]`, texts(d.at(t, "olaf", "networking", "interfaces", "k3splan-lan", "addresses")))
	require.Equal(t, false, d.at(t, "olaf", "networking", "useDHCP"))
	require.Equal(t, false, d.at(t, "olaf", "networking", "interfaces", "eno1", "useDHCP"))
	require.Equal(t, "10.0.100.1", d.at(t, "olaf", "networking", "defaultGateway", "address"))
	require.Equal(t, `["9.9.9.9","1.1.1.1"]`, texts(d.at(t, "olaf", "networking", "nameservers")))

	// the server container: address, gateway, names, ports
	server := []string{"olaf", "containers", "olaf-k3s-server"}
	in := func(path ...string) any { return d.at(t, append(append([]string{}, server...), path...)...) }
	require.Equal(t, `["eno1"]`, texts(in("macvlans")))
	require.Equal(t, `{"10-k3splan":{"address":["10.0.100.12/24"],"dns":[],"gateway":["10.0.100.1"],"linkConfig":{},"matchConfig":{"Name":"mv-eno1"},"networkConfig":{"DHCP":"no","IPv6AcceptRA":false}}}`,
		texts(in("networkd")))
	require.Equal(t, `[2379,2380,6443]`, texts(in("networking", "firewall", "allowedTCPPorts")))
	require.Equal(t, true, in("k3s", "clusterInit"))
	require.Equal(t, "", in("k3s", "serverAddr"))
	require.Equal(t, false, in("k3s", "hasInlineToken"))
	require.Equal(t, "26.05", in("stateVersion"))
	// ancestor-defect 20: names beside addresses in the certificate
	require.Equal(t, "", d.at(t, "ulf", "containers", "ulf-k3s-server", "k3s", "serverAddr"), "TestFindServer")
	require.Equal(t, false, d.at(t, "ulf", "containers", "ulf-k3s-server", "k3s", "clusterInit"))
	for _, flag := range []string{"--node-ip=10.0.100.13", "--node-name=ulf-k3s-server", "--cluster-cidr=10.42.0.0/16", "--service-cidr=10.43.0.0/16",
		"--egress-selector-mode=cluster", "--tls-san=ulf-k3s-server", "--tls-san=ulf-k3s-server.rack.home.arpa", "--tls-san=k3s.rack.home.arpa",
		"--tls-san=10.0.100.12", // of k3s/server.yaml: both lists count
		"--agent-token-file=/var/lib/k3splan/server/agent-token"} {
		require.Contains(t, flags("ulf", "ulf-k3s-server"), flag)
	}
	require.Contains(t, d.at(t, "ulf", "services", "container@ulf-k3s-server", "after"), "sys-subsystem-net-devices-eno1.device")

	// ancestor-defects 14, 17: each key arrives where something reads it, outside of k3s's own files
	require.Equal(t, "/var/lib/k3splan/server/token", in("k3s", "tokenFile"))
	binds := texts(in("bindMounts"))
	require.Contains(t, binds, `"hostPath":"/var/lib/k3splan/server"`)
	// ancestor-defect 18
	require.Contains(t, binds, `"mountPoint":"/var/lib/rancher/k3s/server/manifests/k3splan"`)
	require.Equal(t, "/var/lib/k3splan/server/token", d.at(t, "olaf", "deployment", "keys", "k3splan-server-token", "path"))
	require.Equal(t, "/var/lib/k3splan/server/agent-token", d.at(t, "olaf", "deployment", "keys", "k3splan-server-agent-token", "path"))
	require.Equal(t, "/var/lib/k3splan/server/passwd", d.at(t, "olaf", "deployment", "keys", "k3splan-server-passwd", "path"))
	require.Equal(t, d.at(t, "olaf", "deployment", "keys", "k3splan-passwd", "path"), d.at(t, "olaf", "users", "olaf", "hashedPasswordFile"))
	require.Equal(t, false, d.at(t, "olaf", "mutableUsers"))
	for name, unit := range d.at(t, "olaf", "services").(map[string]any) {
		if strings.HasSuffix(name, "-key") {
			continue
		}
		for _, relation := range []string{"requires", "bindsTo", "wants"} {
			require.NotRegexp(t, `-key\.service`, texts(unit.(map[string]any)[relation]), "%s: these units flap with each upload", name)
		}
	}

	// ancestor-defects 21, 22, 23: the agent
	agent := d.at(t, "karl", "ociContainers", "containers", "karl-k3s-agent").(map[string]any)
	require.Equal(t, "docker.io/rancher/k3s:v1.35.1-k3s1", agent["image"], "the very version of the servers")
	options, volumes, command := texts(agent["extraOptions"]), texts(agent["volumes"]), texts(agent["cmd"])
	require.Regexp(t, `^\["k3splan:ip=10\.0\.100\.25,mac=02(:[0-9a-f]{2}){5}"\]$`, texts(agent["networks"]))
	for _, option := range []string{"--tmpfs=/run", "--tmpfs=/var/run", "--pids-limit=-1", "--privileged"} {
		require.Contains(t, options, option)
	}
	for _, target := range []string{":/var/lib/rancher/k3s", ":/var/lib/kubelet", ":/var/lib/cni", ":/var/log", ":/etc/rancher/node", ":/lib/modules:ro"} {
		require.Contains(t, volumes, target)
	}
	for _, flag := range []string{"--node-ip=10.0.100.25", "--node-label=disk=large", "--node-taint=storage=only:PreferNoSchedule"} {
		require.Contains(t, command, flag)
	}
	tokenDir := filepath.Dir(d.at(t, "karl", "deployment", "keys", "k3splan-agent-token", "path").(string))
	require.Contains(t, volumes, `"`+tokenDir+":")

	// a network with other options is recreated; the agent waits for it, but not for a token
	network := d.at(t, "karl", "services", "k3splan-agent-network", "script").(string)
	require.Contains(t, network, "--subnet=10.0.100.0/24")
	require.Regexp(t, `--label=k3splan.hash=[0-9a-f]{64}`, network)
	unit := d.at(t, "karl", "services", "podman-karl-k3s-agent").(map[string]any)
	// systemd does not retry what a dependency keeps from starting, nor may anything start the agent
	// while its unit is being replaced
	require.Contains(t, unit["wants"], "k3splan-agent-network.service")
	require.Contains(t, unit["after"], "k3splan-agent-network.service")
	require.NotContains(t, texts(unit["requires"]), "k3splan")
	require.Equal(t, "always", unit["serviceConfig"].(map[string]any)["Restart"])
	for name, unit := range d.at(t, "olaf", "services").(map[string]any) {
		for _, relation := range []string{"Upholds", "BindsTo", "PartOf"} {
			require.NotContains(t, fmt.Sprint(unit.(map[string]any)["unitConfig"].(map[string]any)[relation]), "-k3s-", name)
		}
	}
	require.NotContains(t, texts(unit["unitConfig"]), "Condition")
	require.NotContains(t, command, "--node-external-ip")

	// people and the deploy user; ancestor-defect 26
	require.Equal(t, "no", d.at(t, "olaf", "openssh", "settings", "PermitRootLogin"))
	require.Equal(t, false, d.at(t, "olaf", "openssh", "settings", "PasswordAuthentication"))
	require.Equal(t, []any{aliceKey}, d.at(t, "olaf", "users", "olaf", "sshKeys"), "a comment is data (ancestor-defect 15)")
	require.Equal(t, []any{aliceKey}, d.at(t, "olaf", "users", "deploy", "sshKeys"))
	require.Contains(t, d.at(t, "olaf", "nixTrustedUsers"), "deploy")
	require.Equal(t, true, d.at(t, "olaf", "sudo", "wheelNeedsPassword"))
	require.Equal(t, "deploy", d.at(t, "olaf", "deployment", "targetUser"))
	require.ElementsMatch(t, []any{"k3s-server", "k3s-init", "k3s-agent"}, d.at(t, "olaf", "deployment", "tags"))
	require.ElementsMatch(t, []any{"storage"}, d.at(t, "ulrich", "deployment", "tags"))

	// ancestor-defect 33: the whole cluster by name, on hosts
	require.Equal(t, []any{"olaf-k3s-agent.rack.home.arpa", "olaf-k3s-agent"}, d.at(t, "ulrich", "networking", "hosts", "10.0.100.22"))
	require.NotContains(t, in("networking", "hosts"), "10.0.100.3")

	// disks: labels if nothing else defines them, disko if there is a layout
	require.Equal(t, "/dev/disk/by-label/nixos", d.at(t, "karl", "fileSystems", "/", "device"))
	require.NotContains(t, d.at(t, "ulrich", "fileSystems", "/", "device"), "by-label/nixos")
}

// ancestor-defects 25 and 32: nothing is ordered after a unit that may not exist, and all options of
// k3splan's own stand below cluster and k3splan, but for the alias of k3splan.machine.
func TestModulesKeepTheirPlace(t *testing.T) {
	comment := regexp.MustCompile(`(?m)^ *#.*`)
	for name, content := range render(t, copyExample(t, "rack", nil)) {
		require.NotContains(t, comment.ReplaceAllString(string(content), ""), "network-setup.service", name)
	}
	declared := 0
	for _, definition := range definitionsOfRack(t)["olaf"] {
		if definition.Kind == "declaration" {
			declared++
			if strings.Join(definition.Path, ".") != "lab.machine" {
				require.Contains(t, []string{"cluster", "k3splan"}, definition.Path[0], "%v", definition.Path)
			}
		}
	}
	require.Greater(t, declared, 5)
}

func marshal(t testing.TB, value any) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	require.NoError(t, encoder.Encode(value))
	return out.Bytes()
}

// Other shapes of hosts than those of the examples.
func TestOtherShapesEvaluate(t *testing.T) {
	file := rendered(t, "single", map[string]string{
		"plans/hosts.csv": "name,interface,ip,admin,boot,system,room\n" +
			"olaf,eno1,192.168.1.10@192.168.1.10:2222,olaf,legacy,,cellar\n" +
			"ulf,enp1s0,dhcp@ulf.example:2200,ulf,,,\n" +
			"rolf,enp1s0,192.168.1.13@local,rolf,,,\n" +
			"karl,end0,192.168.1.14,karl,,aarch64-linux,\n",
		"plans/k3s.csv":      "host,name,type,ip,mac\nolaf,s,init,192.168.1.20,52:54:00:00:00:01\nolaf,a,agent,192.168.1.21,52:54:00:00:00:02\n",
		"plans/network.yaml": "netmask: 24\ngateway: 192.168.1.1\nversions: {nixos: nixos-26.05, k3s: v1.35.1+k3s1}\n",
		"manifests/x.yaml":   "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n",
		"hardware/ulf.nix":   "{ fileSystems.\"/\" = { device = \"/dev/sda1\"; fsType = \"ext4\"; }; boot.loader.grub.device = \"/dev/sda\"; boot.loader.systemd-boot.enable = false; }",
	})
	all := data(evaluate(t, "{ inherit check data; }", file).(map[string]any))
	out, code := checked(t, all.part(t, "check"))
	require.Zero(t, code, out)
	d := all.part(t, "data")
	require.Equal(t, []any{"nodev"}, d.at(t, "olaf", "boot", "loader", "grubDevices"))
	require.Equal(t, false, d.at(t, "olaf", "boot", "loader", "systemd-boot"))
	require.Equal(t, float64(2222), d.at(t, "olaf", "deployment", "targetPort"))
	require.Equal(t, []any{float64(2222)}, d.at(t, "olaf", "openssh", "ports"))
	require.NotContains(t, d.at(t, "olaf", "fileSystems"), "/boot")
	require.Contains(t, string(marshal(t, d.at(t, "olaf", "ociContainers", "containers", "a", "networks"))), "mac=52:54:00:00:00:02")
	require.Contains(t, string(marshal(t, d.at(t, "olaf", "containers", "s", "networkd"))), "52:54:00:00:00:01")
	require.Equal(t, true, d.at(t, "ulf", "networking", "interfaces", "enp1s0", "useDHCP"))
	require.Equal(t, "ulf.example", d.at(t, "ulf", "deployment", "targetHost"))
	require.Equal(t, "/dev/sda1", d.at(t, "ulf", "fileSystems", "/", "device"))
	require.NotContains(t, d.at(t, "ulf", "fileSystems"), "/boot")
	require.Nil(t, d.at(t, "rolf", "deployment", "targetHost"))
	require.Equal(t, true, d.at(t, "rolf", "deployment", "allowLocalDeployment"))
}

// design.md, rule 1: a change of the plan changes the systems that use what has changed.
func TestAChangeStaysWhereItBelongs(t *testing.T) {
	t.Parallel()
	hosts, err := os.ReadFile(filepath.Join(exampleRoot, "rack", "plans/hosts.csv"))
	require.NoError(t, err)
	before := evaluated["rack"].of(t).part(t, "systems", "host")
	after := evaluate(t, `lib.mapAttrs (_: t: t.drvPath) toplevel`, rendered(t, "rack", map[string]string{
		"plans/hosts.csv": strings.Replace(string(hosts), "karl,,storage,4", "karl,,storage,9", 1)})).(map[string]any)
	require.NotEqual(t, before["karl"], after["karl"], "its message of the day contains the slot")
	after["karl"] = before["karl"]
	require.Equal(t, map[string]any(before), after)
}

// systems are those of the hosts and their containers, and the units of the containers.
const systems = `{ host = lib.mapAttrs (_: t: t.drvPath) toplevel;
	container = lib.mapAttrs (_: n: lib.mapAttrs (_: c: c.config.system.build.toplevel.drvPath) n.config.containers) nodes;
	units = lib.mapAttrs (_: n: lib.mapAttrs (_: u: u.unit.drvPath) (lib.filterAttrs (name: _: builtins.match "(container@|podman-).+" name != null) n.config.systemd.units)) nodes; }`

// design.md, rule 5: the content of a cell comes out of Nix as the same string.
func TestCellsAreData(t *testing.T) {
	cells := []string{`${x}`, `''`, `"`, `\`, "two\nlines", `$${builtins.abort "x"}`, "{{ .x }}", "ünïcödé ☃", "</script>&amp;", "a b", ""}
	header, row := "name,interface,ip,admin", "olaf,eno1,192.168.1.10,olaf"
	for i, cell := range cells {
		header += ",own " + string(rune('a'+i)) + ` ${y} ''`
		row += `,"` + strings.ReplaceAll(cell, `"`, `""`) + `"`
	}
	file := rendered(t, "single", map[string]string{
		"plans/hosts.csv": header + "\n" + row + "\n", "nixConfigs/olaf.nix": "{ }",
		"manifests/hello.x ${y} ''\"$(id).yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: hello}\n", "manifests/hello.yaml": "-",
	})
	all := data(evaluate(t, "{ inherit check; inherit (nodes.olaf.config) cluster; }", file).(map[string]any))
	out, code := checked(t, all.part(t, "check"))
	require.Zero(t, code, out)
	olaf := all.part(t, "cluster", "olaf")
	for i, cell := range cells {
		require.Equal(t, cell, olaf["own "+string(rune('a'+i))+" ${y} ''"])
	}
}

// A user may give a column of their own a type.
func TestOwnColumnsCanBeTyped(t *testing.T) {
	const module = `{ lib, config, ... }: {
		options.cluster = lib.mkOption { type = lib.types.attrsOf (lib.types.submodule {
			options.room = lib.mkOption { type = lib.types.enum [ "cellar" "attic" ]; };
		}); };
	}`
	file := rendered(t, "single", map[string]string{"nixConfigs/all.nix": module})
	require.Equal(t, "cellar", evaluate(t, "nodes.olaf.config.cluster.olaf.room", file))
	wrong := rendered(t, "single", map[string]string{"nixConfigs/all.nix": strings.Replace(module, "cellar", "kitchen", 1)})
	_, code := evalHive(t, "--expr", "nodes.olaf.config.cluster.olaf.room", wrong)
	require.NotZero(t, code)
}
