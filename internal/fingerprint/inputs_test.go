package fingerprint

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan"
	"k3splan/internal/hive"
	"k3splan/internal/project"
	"k3splan/internal/secrets"
)

const (
	key  = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl someone"
	key2 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINhMHcOEtKd3JOsEFXwUbGMdKtBHsHZPIQAFQKFMdZBv other"
)

// rack is a project with a host of every kind: an init server with agent, a server with agent, a
// server alone, an agent alone, a host without k3s that has a disko layout, one with DHCP.
func rack(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	token, err := secrets.NewToken()
	require.NoError(t, err)
	agentToken, err := secrets.NewToken()
	require.NoError(t, err)
	for name, text := range map[string]string{
		"plans/hosts.csv": `name,interface,ip,admin,tags,slot
olaf,eno1,10.0.100.2,olaf,,1
ulf,eno1,10.0.100.3,ulf,,2
rolf,enp3s0,10.0.100.4,rolf,,3
karl,eno1,10.0.100.5,karl,storage,4
ulrich,eth0,10.0.100.6,ulrich,storage,5
dora,eth0,dhcp@dora.example.org,dora,,6
`,
		"plans/k3s.csv": `host,name,type,ip,labels
olaf,olaf-s,init,10.0.100.12,
ulf,ulf-s,server,10.0.100.13,
rolf,rolf-s,server,10.0.100.14,
olaf,olaf-a,agent,10.0.100.22,
ulf,ulf-a,agent,10.0.100.23,
karl,karl-a,agent,10.0.100.25,disk=large
`,
		"plans/network.yaml": `netmask: 24
gateway: 10.0.100.1
nameservers: [9.9.9.9]
domain: rack.example.org
timezone: Europe/Berlin
tls_san: [k3s.example.org]
versions: {nixos: nixos-26.05, k3s: 1.35.1+k3s1}
`,
		"plans/lock.json": `{
  "disko": {"ref": "latest", "rev": "de5708739256238fb912c62f03988815db89ec9a", "url": "https://example.org/d.tar.gz", "sha256": "sha256-CNzzBsRhq7gg4BMBuTDObiWDH/rFYHEuDRVOwCcwXw4="},
  "nixpkgs": {"ref": "nixos-26.05", "rev": "50ab793786d9de88ee30ec4e4c24fb4236fc2674", "url": "https://example.org/n.tar.gz", "sha256": "sha256-/bVBlRpECLVzjV19t5KMdMFWSwKLtb5RyXdjz3LJT+g="}
}
`,
		"k3s/server.yaml":           "write-kubeconfig-mode: \"0600\"\n",
		"k3s/agent.yaml":            "kubelet-arg: [max-pods=200]\n",
		"manifests/hello.yaml":      "apiVersion: v1\nkind: Namespace\nmetadata: {name: hello}\n",
		"nixConfigs/all.nix":        "{ imports = [ ./lib/common.nix ]; }\n",
		"nixConfigs/lib/common.nix": "{ environment.etc.motd.source = ../../files/motd; }\n",
		"files/motd":                "hello\n",
		"nixConfigs/@storage.nix":   "{ services.smartd.enable = true; }\n",
		"nixConfigs/ulf.nix":        "{ }\n",
		"nixConfigs/ulf-s.nix":      "{ }\n",
		"hardware/rolf.nix":         "{ }\n",
		"partitioning/ulrich.nix":   "{ }\n",
		"secrets/init-token":        token + "\n",
		"secrets/agent-token":       agentToken + "\n",
		"secrets/passwd":            "$6$abcdefghijklmnop$4L7bBCw/MjlIUPbOwVMmMl7nWCAWzKJHFXvnE8U/MXpWRfnd2hlUrO5g/kyMkjAWfQhGG1Cg9rk2y8QyzIGV20\n",
		"secrets/all.pub":           key + "\n",
	} {
		write(t, dir, name, text)
	}
	return dir
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	file := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
}

func swap(t *testing.T, dir, name, old, new string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	require.Contains(t, string(data), old)
	write(t, dir, name, strings.ReplaceAll(string(data), old, new))
}

func load(t *testing.T, dir string) *project.Project {
	t.Helper()
	p, problems, err := project.Load(dir)
	require.NoError(t, err)
	require.Zero(t, problems.Errors(), "%v", problems)
	return p
}

func inputs(t *testing.T, dir string) map[string]Inputs {
	t.Helper()
	p := load(t, dir)
	tree, err := hive.Render(p, k3splan.Files)
	require.NoError(t, err)
	all, err := Of(p, tree)
	require.NoError(t, err)
	return all
}

func everyone() []string { return []string{"dora", "karl", "olaf", "rolf", "ulf", "ulrich"} }

// Each kind of input in turn, and the hosts that move: no more and no fewer. "etc" are hosts where
// nothing but the names in /etc/hosts has changed.
func TestWhatMoves(t *testing.T) {
	for name, test := range map[string]struct {
		change func(t *testing.T, dir string)
		moved  []string
		etc    []string
	}{
		"nothing": {change: func(*testing.T, string) {}},
		"order and form of rows": {change: func(t *testing.T, dir string) {
			swap(t, dir, "plans/k3s.csv", "olaf,olaf-s,init,10.0.100.12,\n", "")
			swap(t, dir, "plans/k3s.csv", "karl,", " OLAF , olaf-s,init,10.0.100.12,\n\n# comment\nkarl,")
		}},
		"a host's own column": {
			change: func(t *testing.T, dir string) { swap(t, dir, "plans/hosts.csv", "karl,storage,4", "karl,storage,40") },
			moved:  []string{"karl"},
		},
		"interface": {
			change: func(t *testing.T, dir string) { swap(t, dir, "plans/hosts.csv", "enp3s0", "enp4s0") },
			moved:  []string{"rolf"},
		},
		"address": {
			change: func(t *testing.T, dir string) { swap(t, dir, "plans/hosts.csv", "10.0.100.5", "10.0.100.55") },
			moved:  []string{"karl"}, etc: []string{"dora", "olaf", "rolf", "ulf", "ulrich"},
		},
		"a new host": {
			change: func(t *testing.T, dir string) {
				swap(t, dir, "plans/hosts.csv", "dora,eth0", "egon,eth0,10.0.100.7,egon,,7\ndora,eth0")
			},
			moved: []string{"egon"}, etc: everyone(),
		},
		"a new host without address": {
			change: func(t *testing.T, dir string) {
				swap(t, dir, "plans/hosts.csv", "dora,eth0", "egon,eth0,dhcp@egon.example.org,egon,,7\ndora,eth0")
			},
			moved: []string{"egon"},
		},
		"a new agent": {
			change: func(t *testing.T, dir string) {
				swap(t, dir, "plans/k3s.csv", "karl,", "rolf,rolf-a,agent,10.0.100.24,\nkarl,")
			},
			moved: []string{"rolf"}, etc: []string{"dora", "karl", "olaf", "ulf", "ulrich"},
		},
		"an agent's label": {
			change: func(t *testing.T, dir string) { swap(t, dir, "plans/k3s.csv", "disk=large", "disk=small") },
			moved:  []string{"karl"},
		},
		"the init server's address": {
			change: func(t *testing.T, dir string) { swap(t, dir, "plans/k3s.csv", "10.0.100.12", "10.0.100.112") },
			moved:  []string{"olaf"}, etc: []string{"dora", "karl", "rolf", "ulf", "ulrich"},
		},
		"another init server": {
			change: func(t *testing.T, dir string) {
				swap(t, dir, "plans/k3s.csv", "olaf-s,init", "olaf-s,server")
				swap(t, dir, "plans/k3s.csv", "rolf-s,server", "rolf-s,init")
			},
			moved: []string{"olaf", "rolf"}, etc: []string{"karl", "ulf"}, // which ask it first
		},
		"another server's address": {
			change: func(t *testing.T, dir string) { swap(t, dir, "plans/k3s.csv", "10.0.100.14", "10.0.100.114") },
			moved:  []string{"rolf"}, etc: []string{"dora", "karl", "olaf", "ulf", "ulrich"},
		},
		"nameserver": {
			change: func(t *testing.T, dir string) { swap(t, dir, "plans/network.yaml", "[9.9.9.9]", "[9.9.9.9, 1.1.1.1]") },
			moved:  everyone(),
		},
		"netmask": {
			change: func(t *testing.T, dir string) { swap(t, dir, "plans/network.yaml", "netmask: 24", "netmask: 23") },
			moved:  []string{"karl", "olaf", "rolf", "ulf", "ulrich"},
		},
		"domain": {
			change: func(t *testing.T, dir string) {
				swap(t, dir, "plans/network.yaml", "rack.example.org", "x.example.org")
			},
			moved: everyone(),
		},
		"tls_san": {
			change: func(t *testing.T, dir string) { swap(t, dir, "plans/network.yaml", "k3s.example.org", "x.example.org") },
			moved:  []string{"olaf", "rolf", "ulf"},
		},
		"pod_cidr": {
			change: func(t *testing.T, dir string) {
				swap(t, dir, "plans/network.yaml", "gateway:", "pod_cidr: 10.50.0.0/16\ngateway:")
			},
			moved: []string{"olaf", "rolf", "ulf"},
		},
		"patch release of k3s: the agents' image": {
			change: func(t *testing.T, dir string) { swap(t, dir, "plans/network.yaml", "1.35.1", "1.35.2") },
			moved:  []string{"karl", "olaf", "ulf"},
		},
		"minor release of k3s": {
			change: func(t *testing.T, dir string) { swap(t, dir, "plans/network.yaml", "1.35.1", "1.36.1") },
			moved:  []string{"karl", "olaf", "rolf", "ulf"},
		},
		"pin of nixpkgs": {
			change: func(t *testing.T, dir string) { swap(t, dir, "plans/lock.json", "sha256-/b", "sha256-/c") },
			moved:  everyone(),
		},
		"pin of disko": {
			change: func(t *testing.T, dir string) { swap(t, dir, "plans/lock.json", "sha256-CN", "sha256-CM") },
			moved:  []string{"ulrich"},
		},
		"snippet for all": {
			change: func(t *testing.T, dir string) { write(t, dir, "nixConfigs/all.nix", "{ }\n") },
			moved:  everyone(),
		},
		"what a snippet imports": {
			change: func(t *testing.T, dir string) { write(t, dir, "nixConfigs/lib/common.nix", "{ }\n") },
			moved:  everyone(),
		},
		"a file that an import of a snippet names": {
			change: func(t *testing.T, dir string) { write(t, dir, "files/motd", "good day\n") },
			moved:  everyone(),
		},
		"snippet for a tag": {
			change: func(t *testing.T, dir string) { write(t, dir, "nixConfigs/@storage.nix", "{ }\n") },
			moved:  []string{"karl", "ulrich"},
		},
		"snippet for a host": {
			change: func(t *testing.T, dir string) { write(t, dir, "nixConfigs/ulf.nix", "{ a = 1; }\n") },
			moved:  []string{"ulf"},
		},
		"snippet for a server's container": {
			change: func(t *testing.T, dir string) { write(t, dir, "nixConfigs/ulf-s.nix", "{ a = 1; }\n") },
			moved:  []string{"ulf"},
		},
		"a snippet that comes": {
			change: func(t *testing.T, dir string) { write(t, dir, "nixConfigs/dora.nix", "{ }\n") },
			moved:  []string{"dora"},
		},
		"a snippet that goes": {
			change: func(t *testing.T, dir string) {
				require.NoError(t, os.Remove(filepath.Join(dir, "nixConfigs/ulf.nix")))
			},
			moved: []string{"ulf"},
		},
		"a file that nothing reads": {change: func(t *testing.T, dir string) { write(t, dir, "nixConfigs/lib/other.nix", "{ }\n") }},
		"hardware": {
			change: func(t *testing.T, dir string) { write(t, dir, "hardware/rolf.nix", "{ a = 1; }\n") },
			moved:  []string{"rolf"},
		},
		"partitioning": {
			change: func(t *testing.T, dir string) { write(t, dir, "partitioning/ulrich.nix", "{ a = 1; }\n") },
			moved:  []string{"ulrich"},
		},
		"manifest": {
			change: func(t *testing.T, dir string) { swap(t, dir, "manifests/hello.yaml", "{name: hello}", "{name: hallo}") },
			moved:  []string{"olaf", "rolf", "ulf"},
		},
		"a new manifest": {
			change: func(t *testing.T, dir string) {
				write(t, dir, "manifests/b.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n")
			},
			moved: []string{"olaf", "rolf", "ulf"},
		},
		"k3s/server.yaml": {
			change: func(t *testing.T, dir string) { write(t, dir, "k3s/server.yaml", "debug: true\n") },
			moved:  []string{"olaf", "rolf", "ulf"},
		},
		"k3s/agent.yaml": {
			change: func(t *testing.T, dir string) { write(t, dir, "k3s/agent.yaml", "debug: true\n") },
			moved:  []string{"karl", "olaf", "ulf"},
		},
		"ssh keys for all": {
			change: func(t *testing.T, dir string) { write(t, dir, "secrets/all.pub", key+"\n"+key2+"\n") },
			moved:  everyone(),
		},
		"ssh key for one": {
			change: func(t *testing.T, dir string) { write(t, dir, "secrets/karl.pub", key2+"\n") },
			moved:  []string{"karl"},
		},
		"secrets are not inputs": {change: func(t *testing.T, dir string) {
			write(t, dir, "secrets/init-token", strings.Repeat("b", 64)+"\n")
			swap(t, dir, "secrets/passwd", "bBCw", "aBCw")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := rack(t)
			before := inputs(t, dir)
			test.change(t, dir)
			moved, etc := compare(before, inputs(t, dir))
			require.Equal(t, test.moved, moved)
			require.Equal(t, test.etc, etc)
		})
	}
}

func compare(before, after map[string]Inputs) (moved, etc []string) {
	for name, in := range after {
		was := before[name]
		switch {
		case was.Fingerprint() == in.Fingerprint():
		case OnlyNames(was, in):
			etc = append(etc, name)
		default:
			moved = append(moved, name)
		}
	}
	slices.Sort(moved)
	slices.Sort(etc)
	return moved, etc
}

// Snippets that cannot be followed.
func TestWhatMovesWithHardSnippets(t *testing.T) {
	rowOfUlrich := func(t *testing.T, dir string) {
		swap(t, dir, "plans/hosts.csv", "ulrich,storage,5", "ulrich,storage,50")
	}
	for name, test := range map[string]struct {
		snippet string
		change  func(t *testing.T, dir string)
		moved   []string
	}{
		"the plan": {`{ config, ... }: { x = config.cluster.ulrich.slot; }`, rowOfUlrich, []string{"ulf", "ulrich"}},
		"a computed path": {`{ name, ... }: { imports = [ ./${name}.d ]; }`, func(t *testing.T, dir string) {
			write(t, dir, "nixConfigs/x/y.txt", "z")
		}, []string{"ulf"}},
		"readDir": {`builtins.readDir ./.`, func(t *testing.T, dir string) { write(t, dir, "nixConfigs/new", "") }, []string{"ulf"}},
		"a folder": {`{ imports = [ ../parts ]; }`, func(t *testing.T, dir string) {
			write(t, dir, "parts/a/b.nix", "{ }")
		}, []string{"ulf"}},
		"other nodes": {`{ nodes, ... }: { }`, func(t *testing.T, dir string) { write(t, dir, "hardware/rolf.nix", "{ b = 1; }") }, []string{"rolf", "ulf"}},
		"disko's source": {`{ sources, ... }: { }`, func(t *testing.T, dir string) {
			swap(t, dir, "plans/lock.json", "sha256-CN", "sha256-CM")
		}, []string{"ulf", "ulrich"}},
		"the whole project, without what changes by itself": {`{ x = ../.; }`, func(t *testing.T, dir string) {
			write(t, dir, "generated/x", "1")
			write(t, dir, ".k3splan/logs/x", "1")
			write(t, dir, ".git/x", "1")
			write(t, dir, "secrets/init-token", strings.Repeat("c", 64)+"\n")
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := rack(t)
			write(t, dir, "nixConfigs/ulf.nix", test.snippet)
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "parts"), 0o700))
			before := inputs(t, dir)
			test.change(t, dir)
			moved, _ := compare(before, inputs(t, dir))
			require.Equal(t, test.moved, moved)
		})
	}
}

// What Nix copies or lists has more than contents.
func TestWhatMovesBesideContents(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, file string){
		"executable":      func(t *testing.T, file string) { require.NoError(t, os.Chmod(file+"/script", 0o700)) },
		"an empty folder": func(t *testing.T, file string) { require.NoError(t, os.Mkdir(file+"/new", 0o700)) },
		"a link's target": func(t *testing.T, file string) {
			require.NoError(t, os.Remove(file+"/link"))
			require.NoError(t, os.Symlink("other", file+"/link"))
		},
		"what a link leads to": func(t *testing.T, file string) { write(t, filepath.Dir(file), "files/motd", "other") },
		"a file in a folder":   func(t *testing.T, file string) { write(t, file, "new2", "") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := rack(t)
			write(t, dir, "nixConfigs/ulf.nix", `{ x = ../parts; }`)
			write(t, dir, "parts/script", "")
			write(t, dir, "parts/other", "")
			require.NoError(t, os.Symlink("script", filepath.Join(dir, "parts/link")))
			require.NoError(t, os.Symlink("../files/motd", filepath.Join(dir, "parts/motd")))
			before := inputs(t, dir)["ulf"]
			change(t, filepath.Join(dir, "parts"))
			after := inputs(t, dir)["ulf"]
			require.NotEqual(t, before.Fingerprint(), after.Fingerprint())
			require.Empty(t, after.Loose)
		})
	}
}

// Public keys below secrets/ are inputs: when a snippet names them, or may read any file of the project.
func TestPublicKeysOfSnippets(t *testing.T) {
	for _, snippet := range []string{
		`{ users.users.git.openssh.authorizedKeys.keyFiles = [ ../secrets/git.pub ]; }`,
		`{ x = builtins.readFile ../secrets/people/git.pub; }`,
		`{ x = builtins.readFile (../secrets + "/people/git.pub"); }`,
		`{ name, ... }: { x = builtins.readFile (./. + "/../${name}/people/git.pub"); }`,
	} {
		dir := rack(t)
		write(t, dir, "nixConfigs/ulf.nix", snippet)
		write(t, dir, "secrets/git.pub", key+"\n")
		write(t, dir, "secrets/people/git.pub", key+"\n")
		before := inputs(t, dir)["ulf"]
		write(t, dir, "secrets/git.pub", key2+"\n")
		write(t, dir, "secrets/people/git.pub", key2+"\n")
		require.NotEqual(t, before.Fingerprint(), inputs(t, dir)["ulf"].Fingerprint(), snippet)
	}
}

// Links and files that nothing can be said about make a host change always, without keeping anybody from
// deploying.
func TestWhatCannotBeFollowed(t *testing.T) {
	for want, make := range map[string]func(t *testing.T, file string){
		"parts/loop cannot be followed":                func(t *testing.T, file string) { require.NoError(t, os.Symlink("loop", file+"/loop")) },
		"parts/out leads out of the project by a link": func(t *testing.T, file string) { require.NoError(t, os.Symlink("/usr", file+"/out")) },
		"parts/token is a link to secrets/init-token": func(t *testing.T, file string) {
			require.NoError(t, os.Symlink("../secrets/init-token", file+"/token"))
		},
		"parts/pipe is not a regular file":               func(t *testing.T, file string) { require.NoError(t, syscall.Mkfifo(file+"/pipe", 0o600)) },
		"nixConfigs/ulf.nix is nested too deep":          func(t *testing.T, file string) { write(t, file, "../nixConfigs/ulf.nix", strings.Repeat(`"${`, 1000)) },
		"nixConfigs/ulf.nix reads ../.git/HEAD, which":   func(t *testing.T, file string) { write(t, file, "../nixConfigs/ulf.nix", "../.git/HEAD") },
		"nixConfigs/ulf.nix reads ../generated/x, which": func(t *testing.T, file string) { write(t, file, "../nixConfigs/ulf.nix", "../generated/x") },
		"nixConfigs/ulf.nix names secrets/passwd, whose": func(t *testing.T, file string) { write(t, file, "../nixConfigs/ulf.nix", "../secrets/passwd") },
		"nixConfigs/ulf.nix imports nixpkgs without": func(t *testing.T, file string) {
			write(t, file, "../nixConfigs/ulf.nix", "{ sources, ... }: { x = import sources.nixpkgs { }; }")
		},
		"nixConfigs/ulf.nix uploads what a command print": func(t *testing.T, file string) {
			write(t, file, "../nixConfigs/ulf.nix", `{ deployment.keys.x.keyCommand = [ "x" ]; }`)
		},
	} {
		t.Run(want, func(t *testing.T) {
			dir := rack(t)
			write(t, dir, "nixConfigs/ulf.nix", `{ x = ../parts; }`)
			write(t, dir, "parts/x", "")
			make(t, filepath.Join(dir, "parts"))
			all := inputs(t, dir)
			require.Contains(t, strings.Join(all["ulf"].Loose, "\n"), want)
			require.Empty(t, all["karl"].Loose)
		})
	}
}

// A column of the user's may be called like a part of another cell.
func TestColumnsWithDots(t *testing.T) {
	dir := rack(t)
	swap(t, dir, "plans/hosts.csv", "admin,tags,slot", "admin,tags,target.host")
	swap(t, dir, "plans/k3s.csv", "host,name,type,ip,labels\n", "host,name,type,ip,labels,labels.disk\n")
	swap(t, dir, "plans/k3s.csv", ",\n", ",,\n")
	swap(t, dir, "plans/k3s.csv", ",disk=large\n", ",disk=large,mine\n")
	data := inputs(t, dir)["karl"].Data
	require.Equal(t, "10.0.100.5", data["host.target.host"])
	require.Equal(t, "4", data[`host."target.host"`])
	require.Equal(t, "large", data["agent.labels.disk"])
	require.Equal(t, "mine", data[`agent."labels.disk"`])
}

func TestLoose(t *testing.T) {
	dir := rack(t)
	write(t, dir, "nixConfigs/ulf.nix", `{ imports = [ (builtins.fetchTarball "https://example.org/x.tgz") /etc/nixos/x.nix ]; }`)
	all := inputs(t, dir)
	require.Equal(t, []string{
		"nixConfigs/ulf.nix reads /etc/nixos/x.nix, which is outside of the project",
		"nixConfigs/ulf.nix uses fetchTarball without a hash",
	}, all["ulf"].Loose)
	require.Empty(t, all["karl"].Loose)

	swap(t, dir, "plans/network.yaml", "nixos: nixos-26.05", "nixos: <nixpkgs>")
	require.NoError(t, os.Remove(filepath.Join(dir, "plans/lock.json")))
	all = inputs(t, dir)
	require.Equal(t, []string{"nixpkgs comes from <nixpkgs>, which has no hash"}, all["karl"].Loose)
	require.Equal(t, []string{"disko is not pinned", "nixpkgs comes from <nixpkgs>, which has no hash"}, all["ulrich"].Loose)
}

func TestInputsHoldNoSecret(t *testing.T) {
	dir := rack(t)
	write(t, dir, "nixConfigs/all.nix", "{ a = ../secrets/init-token; b = ../.; }")
	token, err := os.ReadFile(filepath.Join(dir, "secrets/init-token"))
	require.NoError(t, err)
	for _, in := range inputs(t, dir) {
		for name, sum := range in.Files {
			require.NotContains(t, name, "secrets/")
			require.NotEqual(t, digest(token), sum)
		}
	}
}

func TestSecrets(t *testing.T) {
	dir := rack(t)
	p := load(t, dir)
	read := func(host string) Contents {
		contents, err := ReadSecrets(dir, hive.Secrets(p, p.Plan.Host(host)), nil)
		require.NoError(t, err)
		return contents
	}
	sealed := read("ulf").Seal()
	require.Len(t, sealed.Kinds, 3)
	require.Empty(t, read("ulf").Changed(sealed))
	require.NotEqual(t, sealed, read("ulf").Seal(), "a new salt each time")
	require.NotEqual(t, sealed.Kinds["passwd"], read("rolf").Seal().Kinds["passwd"])
	require.NotContains(t, read("karl").Seal().Kinds, "server-token")

	write(t, dir, "secrets/agent-token", strings.Repeat("d", 64)+"\n")
	require.Equal(t, []string{"agent-token"}, read("ulf").Changed(sealed))
	require.Equal(t, []string{"agent-token", "passwd", "server-token"}, read("ulf").Changed(Secrets{}))

	_, err := ReadSecrets(dir, []hive.Secret{{Name: "x", KeyFile: "secrets/none"}}, nil)
	require.ErrorContains(t, err, "reading the secret x")
}

// The examples, which show what people write, do not count as changed always.
func TestExamplesAreNotLoose(t *testing.T) {
	examples, err := os.ReadDir("../../examples")
	require.NoError(t, err)
	for _, example := range examples {
		dir := t.TempDir()
		require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join("../../examples", example.Name()))))
		_, err := project.Setup(dir, k3splan.Files)
		require.NoError(t, err)
		write(t, dir, "secrets/all.pub", key+"\n")
		write(t, dir, "secrets/passwd", "$6$abcdefghijklmnop$4L7bBCw/MjlIUPbOwVMmMl7nWCAWzKJHFXvnE8U/MXpWRfnd2hlUrO5g/kyMkjAWfQhGG1Cg9rk2y8QyzIGV20\n")
		for name, in := range inputs(t, dir) {
			require.Empty(t, in.Loose, "%s of %s", name, example.Name())
		}
	}
}
