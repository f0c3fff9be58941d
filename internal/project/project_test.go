package project

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k3splan/internal/diag"

	"github.com/stretchr/testify/require"

	"k3splan"
)

const (
	hosts   = "name,interface,ip,admin,tags\nolaf,eno1,10.0.100.2,olaf,big\nulf,eno1,10.0.100.3,ulf,\n"
	k3s     = "host,name,type,ip\nolaf,olaf-server,init,10.0.100.12\nulf,ulf-agent,agent,10.0.100.13\n"
	network = "netmask: 24\ngateway: 10.0.100.1\nversions: {nixos: nixos-26.05, k3s: '1.35'}\n"
	key     = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDYX2xUDgCQXsQ3EXtVPkPO6PtS6C5zxVbGWGbMHKP6t alice\n"
	hash    = "$6$rounds=5000$k3splantest$3NZsTVpZzBrpJtNsvTBiEItI1rfXRWzF6wBnJqLWYxIfPaTvVfPTIuZVmp3WHVgNKr0wAnuW4NrXYbHtOpkzL1\n"
)

// folder makes a project that is in order, and the files on top.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{
		"plans/hosts.csv": hosts, "plans/k3s.csv": k3s, "plans/network.yaml": network,
		"secrets/init-token": strings.Repeat("0123456789abcdef", 4) + "\n", "secrets/passwd": hash, "secrets/all.pub": key,
	}
	for file, content := range files {
		all[file] = content
	}
	for file, content := range all {
		name := filepath.Join(dir, file)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o700))
		require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
	}
	return dir
}

// brief returns problems as `code file:line column`.
func brief(problems diag.Problems) []string {
	lines := []string{}
	for _, p := range problems {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s:%d %s", p.Code, p.File, p.Line, p.Column)))
	}
	return lines
}

func TestFilesOfAProject(t *testing.T) {
	const object = "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n"
	for _, test := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"in order", map[string]string{"manifests/a.yaml": object, "manifests/b.yml": object, "manifests/c.json": `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"x"}}`}, nil},
		// manifests; ancestor-defect 12
		{"not YAML", map[string]string{"manifests/a.yaml": object + "x: [\n"}, []string{"manifest-invalid manifests/a.yaml:5"}},
		{"not an object", map[string]string{"manifests/a.yaml": object + "---\n- x\n"}, []string{"manifest-invalid manifests/a.yaml:5"}},
		{"without kind", map[string]string{"manifests/a.json": `{"apiVersion": "v1"}`}, []string{"manifest-invalid manifests/a.json:1"}},
		{"empty", map[string]string{"manifests/a.yaml": "# nothing\n"}, []string{"manifest-ignored manifests/a.yaml:0"}},
		{"key twice", map[string]string{"manifests/a.yaml": object + "kind: Pod\n"}, []string{"manifest-invalid manifests/a.yaml:4"}},
		{"a name that is none for an addon", map[string]string{"manifests/My_App.yaml": object}, []string{"manifest-invalid manifests/My_App.yaml:0"}},
		{"one addon twice", map[string]string{"manifests/a.x.yaml": object, "manifests/a.y.yaml": object}, []string{"manifest-duplicate manifests/a.y.yaml:0"}},
		{"an addon of k3s", map[string]string{"manifests/traefik.yaml": object}, []string{"manifest-duplicate manifests/traefik.yaml:0"}},
		{"editors and others", map[string]string{"manifests/.a.yaml.swp": "x", "manifests/a.yaml~": "x", "manifests/a.yaml.off": "x", "manifests/sub/a.yaml": object}, []string{
			"manifest-ignored manifests/.a.yaml.swp:0", "manifest-ignored manifests/a.yaml.off:0", "manifest-ignored manifests/a.yaml~:0", "manifest-ignored manifests/sub:0"}},
		{"what git, file managers and readers need", map[string]string{"manifests/.gitkeep": "", "manifests/.DS_Store": "x", "manifests/README.md": "x", "manifests/readme": "x", "k3s/README.md": "x"}, nil},
		{"a secret", map[string]string{"manifests/a.yaml": object + "---\napiVersion: v1\nkind: Secret\nstringData: {password: hunter2}\n"}, []string{"manifest-secret manifests/a.yaml:5"}},
		{"a secret in a list", map[string]string{"manifests/a.yaml": "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  data: {a: YQ==}\n"}, []string{"manifest-secret manifests/a.yaml:4"}},
		{"an empty secret", map[string]string{"manifests/a.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n"}, nil},
		// the user's Nix files
		{"of hosts, tags, servers and all", map[string]string{
			"nixConfigs/olaf.nix": "{ }", "nixConfigs/@big.nix": "{ }", "nixConfigs/@k3s-agent.nix": "{ }", "nixConfigs/olaf-server.nix": "{ }", "nixConfigs/all.nix": "{ }",
			"hardware/ulf.nix": "{ }"}, nil},
		{"of nothing", map[string]string{"nixConfigs/olav.nix": "{ }", "nixConfigs/@bigg.nix": "{ }", "hardware/x.nix": "{ }"}, []string{
			"file-orphan hardware/x.nix:0", "file-orphan nixConfigs/@bigg.nix:0", "file-orphan nixConfigs/olav.nix:0"}},
		{"in folders of other names", map[string]string{"nixconfigs/olaf.nix": "{ }", "Manifests/a.yaml": object, "manifest/a.yaml": object, "K3s/server.yaml": "debug: true\n",
			"partition/olaf.nix": "{ }", "Hardware/olaf.nix": "{ }", "secret/passwd": hash, "plan/hosts.csv": hosts, "nix-configs/README.md": "x", "docs/manifest.yaml": object}, []string{
			"file-orphan Hardware:0", "file-orphan K3s:0", "file-orphan Manifests:0", "file-orphan manifest:0", "file-orphan nixconfigs:0", "file-orphan partition:0",
			"file-orphan plan:0", "file-orphan secret:0"}},
		{"of other names", map[string]string{"nixConfigs/olaf.nix.txt": "{ }", "nixConfigs/@big": "{ }", "nixConfigs/Ulf/default.nix": "{ }", "hardware/olaf": "{ }", "nixConfigs/lib/x.nix": "{ }",
			"nixConfigs/README": "x", "k3s/Server.yaml": "debug: true\n", "versions.yaml": "nixos: x\n"}, []string{
			"file-orphan hardware/olaf:0", "file-orphan k3s/Server.yaml:0", "file-orphan nixConfigs/@big:0", "file-orphan nixConfigs/Ulf:0", "file-orphan nixConfigs/olaf.nix.txt:0",
			"file-orphan versions.yaml:0"}},
		{"in a folder that another imports", map[string]string{"nixConfigs/olaf.nix": "{ imports = [ ./olaf ]; }", "nixConfigs/olaf/default.nix": "{ }",
			"nixConfigs/ulf.nix": "{ imports = [ ./ulf/disks.nix ]; }", "nixConfigs/ulf/disks.nix": "{ }"}, nil},
		{"of an agent", map[string]string{"nixConfigs/ulf-agent.nix": "{ }"}, []string{"file-orphan nixConfigs/ulf-agent.nix:0"}},
		{"imported by another", map[string]string{"nixConfigs/olaf.nix": "{ imports = [ ./disks.nix ]; }", "nixConfigs/disks.nix": "{ }"}, nil},
		{"none is an orphan of tables with errors", map[string]string{"nixConfigs/karl.nix": "{ }", "plans/hosts.csv": hosts + "karl,eno1\n"}, []string{"row-length plans/hosts.csv:4"}},
		{"secrets of nothing", map[string]string{"secrets/olavpasswd": hash, "secrets/firewall.pub": key}, []string{
			"file-orphan secrets/firewall.pub:0", "file-orphan secrets/olavpasswd:0"}},
		{"plain text for a hash", map[string]string{"secrets/passwd": "hunter2\n"}, []string{"secret-invalid secrets/passwd:0"}},
		{"no key", map[string]string{"secrets/all.pub": "# none yet\n"}, []string{"ssh-key-missing secrets/all.pub:0"}},
		{"not a key", map[string]string{"secrets/ulf.pub": "ssh-ed25519 nonsense\n"}, []string{"ssh-key-invalid secrets/ulf.pub:1"}},
		// k3s's own options
		{"options", map[string]string{"k3s/server.yaml": "disable: [traefik]\ntls-san: a.example\n", "k3s/agent.yaml": "kubelet-arg+: [max-pods=50]\n"}, nil},
		{"what the plan decides", map[string]string{"k3s/server.yaml": "cluster-init: true\n--server: x\n"}, []string{
			"key-reserved k3s/server.yaml:1 cluster-init", "key-reserved k3s/server.yaml:2 --server"}},
		{"a secret in options", map[string]string{"k3s/agent.yaml": "debug: true\ntoken: hunter2\n"}, []string{"key-reserved k3s/agent.yaml:2 token"}},
		{"options of options", map[string]string{"k3s/agent.yaml": "debug: {b: c}\n"}, []string{"value-invalid k3s/agent.yaml:1 debug"}},
		{"no options", map[string]string{"k3s/agent.yaml": "- a\n"}, []string{"yaml-syntax k3s/agent.yaml:1"}},
		{"options of nothing", map[string]string{"k3s/servers.yaml": "a: b\n"}, []string{"file-orphan k3s/servers.yaml:0"}},
		{"a short option", map[string]string{"k3s/server.yaml": "t: hunter2\n"}, []string{"key-reserved k3s/server.yaml:1 t"}},
		{"a second document", map[string]string{"k3s/server.yaml": "a: b\n---\ntoken: hunter2\n"}, []string{"yaml-syntax k3s/server.yaml:0"}},
		{"a label in options", map[string]string{"k3s/agent.yaml": "node-label: [bad label]\n"}, []string{"label-invalid k3s/agent.yaml:1 node-label"}},
		{"a port that the plan decides", map[string]string{"k3s/server.yaml": "https-listen-port: 7443\n"}, []string{"key-reserved k3s/server.yaml:1 https-listen-port"}},
		{"secrets in their own list", map[string]string{"manifests/a.yaml": "apiVersion: v1\nkind: SecretList\nitems: []\n"}, []string{"manifest-secret manifests/a.yaml:1"}},
		{"disks defined twice", map[string]string{"partitioning/olaf.nix": "{ }", "hardware/olaf.nix": "{\n  fileSystems.\"/\" =\n    { device = \"x\"; };\n}"}, []string{"file-conflict hardware/olaf.nix:0"}},
		{"another spelling of .nix", map[string]string{"nixConfigs/all.Nix": "{ }"}, []string{"file-orphan nixConfigs/all.Nix:0"}},
		{"a type that is none leaves servers open", map[string]string{"plans/k3s.csv": strings.Replace(k3s, "init", "inti", 1), "nixConfigs/olaf-server.nix": "{ }"}, []string{"type-unknown plans/k3s.csv:2 type"}},
		{"a nixpkgs that is not there", map[string]string{"plans/network.yaml": strings.Replace(network, "nixos-26.05", "../nixpkgs", 1)}, []string{"version-invalid plans/network.yaml:3 versions.nixos"}},
		// pins
		{"a lock of another branch", map[string]string{"plans/lock.json": lockOf("nixos-25.05")}, []string{"lock-stale plans/lock.json:1 nixpkgs.ref"}},
		{"a lock of the branch", map[string]string{"plans/lock.json": lockOf("nixos-26.05")}, nil},
		{"disko without lock", map[string]string{"plans/lock.json": lockOf("nixos-26.05"), "partitioning/olaf.nix": "{ }"}, []string{"lock-stale plans/lock.json:0 disko"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, problems, err := Load(folder(t, test.files))
			require.NoError(t, err)
			if test.want == nil {
				require.Empty(t, problems)
				return
			}
			require.Equal(t, test.want, brief(problems), "%v", problems)
			for _, p := range problems {
				require.NotContains(t, p.String()+p.Hint, "hunter2")
			}
		})
	}
}

// One file that belongs to nothing says nothing about the others, however many there are.
func TestAnOrphanAmongManyFiles(t *testing.T) {
	rows, files := "", map[string]string{"hardware/h70x.nix": "{ }"}
	for i := 10; i < 80; i++ {
		rows += fmt.Sprintf("h%d,eno1,10.0.100.%d,olaf,\n", i, 100+i)
		files[fmt.Sprintf("hardware/h%d.nix", i)] = "{ }"
	}
	files["plans/hosts.csv"] = hosts + rows
	_, problems, err := Load(folder(t, files))
	require.NoError(t, err)
	require.Equal(t, []string{"file-orphan hardware/h70x.nix:0"}, brief(problems))
	require.Equal(t, `did you mean "h70.nix"?`, problems[0].Hint)
}

// k3s reads its configuration by YAML 1.1.
func TestTruthValuesOfK3s(t *testing.T) {
	p, problems, err := Load(folder(t, map[string]string{
		"k3s/server.yaml": "disable-network-policy: yes\ndisable-helm-controller: Off\nflannel-backend: none\nrootless: \"no\"\n",
		"k3s/agent.yaml":  "kubelet-arg: [on, a=on, 'y']\nselinux: Yes\n",
	}))
	require.NoError(t, err)
	require.Empty(t, problems)
	require.Equal(t, K3sConfig{
		"disable-network-policy": true, "disable-helm-controller": false, "flannel-backend": "none", "rootless": false,
	}, p.ServerConfig)
	require.Equal(t, K3sConfig{"kubelet-arg": []string{"on", "a=on", "y"}, "selinux": true}, p.AgentConfig)
}

func lockOf(ref string) string {
	return `{"nixpkgs": {"ref": "` + ref + `", "rev": "50ab793786d9de88ee30ec4e4c24fb4236fc2674",
  "url": "https://github.com/NixOS/nixpkgs/archive/50ab793786d9de88ee30ec4e4c24fb4236fc2674.tar.gz",
  "sha256": "sha256-/bVBlRpECLVzjV19t5KMdMFWSwKLtb5RyXdjz3LJT+g="}}`
}

// What configures a host comes from the general to the special, whatever the names of the tags.
func TestImports(t *testing.T) {
	p, problems, err := Load(folder(t, map[string]string{
		"nixConfigs/olaf.nix": "{ }", "nixConfigs/@big.nix": "{ }", "nixConfigs/@k3s-init.nix": "{ }", "nixConfigs/all.nix": "{ }",
		"nixConfigs/olaf-server.nix": "{ }", "hardware/olaf.nix": "{ fileSystems.\"/\" = { device = \"x\"; }; }",
	}))
	require.NoError(t, err)
	require.Empty(t, problems)
	olaf, ulf := p.Plan.Host("olaf"), p.Plan.Host("ulf")
	require.Equal(t, []string{
		"hardware/olaf.nix", "nixConfigs/all.nix", "nixConfigs/@big.nix", "nixConfigs/@k3s-init.nix", "nixConfigs/olaf.nix",
	}, p.Imports(olaf))
	require.Equal(t, []string{"nixConfigs/olaf-server.nix"}, p.ServerImports(olaf))
	require.Empty(t, p.ServerImports(ulf))
	require.False(t, p.LabelledFileSystems(olaf), "the hardware file defines the root")
	require.True(t, p.LabelledFileSystems(ulf))
	require.True(t, p.HardwareKnown(olaf))

	p, _, err = Load(folder(t, map[string]string{"nixConfigs/olaf.nix": `{ fileSystems."/".options = [ "noatime" ]; }`}))
	require.NoError(t, err)
	require.True(t, p.LabelledFileSystems(p.Plan.Host("olaf")), "a snippet may define only a part")
}

// Setup beside files of the user leaves each byte of them, and a second run makes nothing.
func TestSetupTwice(t *testing.T) {
	dir := folder(t, map[string]string{".gitignore": "secrets"})
	made, err := Setup(dir, k3splan.Files)
	require.NoError(t, err)
	require.Contains(t, made, Made{File: ".gitignore", Completed: true})
	require.NotContains(t, made, Made{File: "secrets/agent-token"}, "the agents of a living cluster joined without")
	present, err := os.ReadFile(filepath.Join(dir, "plans/hosts.csv"))
	require.NoError(t, err)
	require.Equal(t, hosts, string(present))
	made, err = Setup(dir, k3splan.Files)
	require.NoError(t, err)
	require.Empty(t, made)
}

func TestFind(t *testing.T) {
	dir := folder(t, nil)
	found, ok := Find(filepath.Join(dir, "plans"))
	require.True(t, ok)
	require.Equal(t, dir, found)
	_, ok = Find(string(filepath.Separator))
	require.False(t, ok)
}
