package evaluate_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan"
	"k3splan/internal/colmena"
	"k3splan/internal/colmena/nixtest"
	"k3splan/internal/evaluate"
	"k3splan/internal/fingerprint"
	"k3splan/internal/hive"
	"k3splan/internal/project"
)

// A rendered project, to be evaluated by the real Colmena against the nixpkgs of the harness.
type rendered struct {
	dir, hive string
	hosts     []string
	inputs    map[string]fingerprint.Inputs
}

// render makes a project of files, with secrets of its own.
func render(t *testing.T, files map[string]string) rendered {
	t.Helper()
	dir := filepath.Join(nixtest.TempDir(t), "a project")
	write := func(name, text string) {
		file := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
	for name, text := range files {
		write(name, text)
	}
	_, err := project.Setup(dir, k3splan.Files)
	require.NoError(t, err)
	write("secrets/passwd", "$6$abcdefghijklmnop$4L7bBCw/MjlIUPbOwVMmMl7nWCAWzKJHFXvnE8U/MXpWRfnd2hlUrO5g/kyMkjAWfQhGG1Cg9rk2y8QyzIGV20\n")
	write("secrets/all.pub", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl someone\n")
	p, problems, err := project.Load(dir)
	require.NoError(t, err)
	require.Zero(t, problems.Errors(), "%v", problems)
	tree, err := hive.Render(p, k3splan.Files)
	require.NoError(t, err)
	// the NixOS of the harness and "colmena eval" set this differently
	const defaults = "defaults = ./modules/deployment.nix;"
	require.Contains(t, string(tree["hive.nix"]), defaults)
	tree["hive.nix"] = []byte(strings.Replace(string(tree["hive.nix"]), defaults,
		"defaults = { lib, ... }: { imports = [ ./modules/deployment.nix ]; _module.check = lib.mkForce true; };", 1))
	_, err = tree.Write(dir)
	require.NoError(t, err)
	inputs, err := fingerprint.Of(p, tree)
	require.NoError(t, err)
	return rendered{dir, filepath.Join(dir, hive.Dir, "hive.nix"), p.Plan.HostNames(), inputs}
}

// needsColmena prepares for the real Colmena, or skips the test.
func needsColmena(t *testing.T) {
	t.Helper()
	nixtest.Needs(t, "colmena", "nix-instantiate")
	for _, entry := range nixtest.Environment(t) {
		name, value, _ := strings.Cut(entry, "=")
		t.Setenv(name, value)
	}
	out, err := exec.Command("colmena", "--version").Output()
	require.NoError(t, err)
	t.Logf("with %s", strings.TrimSpace(string(out)))
}

func (r rendered) evaluate(t *testing.T) *evaluate.Result {
	t.Helper()
	found, err := evaluate.Hosts(t.Context(), evaluate.Request{Dir: r.dir, Hive: r.hive, Colmena: "colmena", Inputs: r.inputs}, r.hosts)
	require.NoError(t, err)
	require.NoError(t, found.Err())
	require.Equal(t, r.hosts, slices.Sorted(maps.Keys(found.Hosts)))
	return found
}

// ask has Colmena evaluate a function of a hive.
func ask(t *testing.T, h *colmena.Hive, expression string) (value any) {
	t.Helper()
	command := exec.Command("colmena", "eval", "-f", h.File, "-E", expression)
	command.Env, command.Stderr = append(os.Environ(), h.Env...), os.Stderr
	out, err := command.Output()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out, &value))
	return value
}

// whatColmenaReads is everything that Colmena takes from a hive.
const whatColmenaReads = `{ nodes, ... }: builtins.mapAttrs (_: node: {
	system = node.config.system.build.toplevel.drvPath;
	deployment = node.config.deployment // { keys = builtins.mapAttrs (_: key: removeAttrs key [ "text" ]) node.config.deployment.keys; };
}) nodes`

// Colmena reads the same from a resolved hive as from the real one.
func TestColmenaReadsTheSame(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: evaluates many hosts")
	}
	needsColmena(t)
	projects := map[string]map[string]string{}
	for _, example := range []string{"rack", "single"} {
		projects[example] = exampleFiles(t, example)
	}
	for i := range plans {
		projects[fmt.Sprintf("plan %d", i)] = generated(i)
	}
	for _, name := range slices.Sorted(maps.Keys(projects)) {
		t.Run(name, func(t *testing.T) {
			r := render(t, projects[name])
			known := map[string]colmena.Resolved{}
			for name, host := range r.evaluate(t).Hosts {
				known[name] = host.Resolved()
			}
			resolved, err := colmena.ResolvedHive(filepath.Join(filepath.Dir(r.hive), "sources.nix"), known, nil)
			require.NoError(t, err)
			defer resolved.Close()
			real, err := colmena.OpenHive(r.hive)
			require.NoError(t, err)
			defer real.Close()
			want := ask(t, real, whatColmenaReads)
			require.Len(t, want, len(r.hosts))
			require.Equal(t, want, ask(t, resolved, whatColmenaReads))
			require.NoError(t, colmena.Accepts(t.Context(), "colmena", resolved, known))
		})
	}
}

func exampleFiles(t *testing.T, name string) map[string]string {
	t.Helper()
	files := map[string]string{}
	root := os.DirFS(filepath.Join("../../examples", name))
	require.NoError(t, walk(root, func(name, text string) {
		switch name {
		case "plans/lock.json": // the harness has the sources
			return
		case "plans/network.yaml":
			text = strings.NewReplacer("nixos: nixos-26.05", "nixos: <nixpkgs>\n  disko: <disko>", `k3s: "1.35"`, `k3s: "1.30"`, "k3s: v1.35.1+k3s1", `k3s: "1.30"`).Replace(text)
		}
		files[name] = text
	}))
	require.Contains(t, files["plans/network.yaml"], "<nixpkgs>")
	return files
}

const plans = 20

// Without Colmena it is seen at least that these plans can be rendered.
func TestGeneratedPlans(t *testing.T) {
	for i := range plans {
		render(t, generated(i))
	}
}

// generated are the tables of a plan, and snippets, drawn at random by a number.
func generated(number int) map[string]string {
	random := rand.New(rand.NewPCG(uint64(number), 14))
	hosts := "name,interface,ip,admin,boot,tags,room\n"
	k3s := "host,name,type,ip,labels\n"
	files := map[string]string{}
	pick := func(values ...string) string { return values[random.IntN(len(values))] }
	for i := range 1 + random.IntN(2) {
		name := fmt.Sprintf("host%d", i)
		address := fmt.Sprintf("10.0.100.%d", 10+i)
		server := i == 0 && random.IntN(2) == 0
		if i > 0 && random.IntN(3) == 0 {
			address = "dhcp@" + name + ".example:2200"
		} else {
			targets := []string{"", "@" + name + ".example:2222"}
			if i == 0 { // only one host is this machine, or has an address outside of the plan
				targets = append(targets, "@10.0.100.250", "@local")
			}
			address += pick(targets...)
			if server {
				k3s += fmt.Sprintf("%s,server%d,init,10.0.100.%d,\n", name, i, 20+i)
			}
			if strings.Contains(k3s, "init") && random.IntN(2) == 0 {
				k3s += fmt.Sprintf("%s,agent%d,agent,10.0.100.%d,%s\n", name, i, 30+i, pick("", "disk=large"))
			}
		}
		hosts += fmt.Sprintf("%s,%s,%s,alice,%s,%s,%s\n", name, pick("eno1", "enP4p65s0"), address, pick("", "legacy"), pick("", "storage", "a b"), pick("", "cellar"))
		if random.IntN(2) == 0 {
			files["nixConfigs/"+name+".nix"] = pick(
				"{ deployment.buildOnTarget = true; }",
				`{ config, ... }: { environment.etc.room.text = config.cluster.`+name+`.room; }`,
				`{ deployment.keys.mine = { keyCommand = [ "echo" "x y" ]; destDir = "/run/mine"; user = "alice"; uploadAt = "post-activation"; }; }`,
				`{ nodes, ... }: { environment.etc.peers.text = toString (builtins.attrNames nodes); deployment.tags = [ "own" ]; }`)
		}
	}
	files["plans/hosts.csv"], files["plans/k3s.csv"] = hosts, k3s
	files["plans/network.yaml"] = "netmask: 24\ngateway: 10.0.100.1\nversions: {nixos: <nixpkgs>, k3s: '1.30'}\n"
	return files
}

func walk(root fs.FS, take func(name, text string)) error {
	return fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(root, name)
		take(name, string(text))
		return err
	})
}
