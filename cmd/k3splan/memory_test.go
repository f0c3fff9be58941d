package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// maxMemory is what k3splan may need, in bytes.
const maxMemory = 500 << 20

// memory runs k3splan and returns how much memory it needed at most, in bytes, what it wrote and how it ended.
func memory(t *testing.T, dir string, args ...string) (int64, string, error) {
	t.Helper()
	command := exec.Command("peak", append([]string{"k3splan"}, args...)...)
	command.Dir = dir
	var peak strings.Builder
	read, write, err := os.Pipe()
	require.NoError(t, err)
	command.ExtraFiles = []*os.File{write}
	out, failed := command.CombinedOutput()
	require.NoError(t, write.Close())
	_, err = io.Copy(&peak, read)
	require.NoError(t, errors.Join(err, read.Close()))
	used, err := strconv.ParseInt(peak.String(), 10, 64)
	require.NoError(t, err, string(out))
	return used, string(out), failed
}

// peak is the program `peak PROGRAM ARGS`: it writes to its file 3 how much memory the program needed. The test
// itself cannot tell: for Linux, a process has needed what the one had that it was made from.
func peak() {
	command := exec.Command(os.Args[1], os.Args[2:]...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	err := command.Run()
	if command.ProcessState == nil {
		must(err)
	}
	fmt.Fprint(os.NewFile(3, "peak"), command.ProcessState.SysUsage().(*syscall.Rusage).Maxrss<<10)
	os.Exit(command.ProcessState.ExitCode())
}

// hostile are texts that could be long in any file.
var hostile = []struct{ name, start, unit string }{
	{"lines", "", "olaf: [1, 2, {a: b}]\n"},
	{"items", "", "- a\n"},
	{"rows", "name,interface,ip,admin\n", "a,b,c,d\n"},
	{"cells", "", ","},
	{"one quote", "\"", "a\n"},
	{"brackets", "", "["},
	{"braces", "", "{a="},
	{"objects", "", `{"a":`},
	{"documents", "", "---\nkind: A\n"},
	{"keys", "", "x ssh-ed25519 AAAA\n"},
	{"escapes", "", "\x1b[2J\x1b]0;x\x07\n"},
}

// A file of 50 MB, or as large as k3splan reads it, needs little memory and does not fill the terminal.
func TestMemoryForHostileFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: large files take minutes")
	}
	const kilo, mega = 1 << 10, 1 << 20
	project := exampleProject(t)
	limits := map[string]int{
		"plans/hosts.csv": 16 * mega, "plans/k3s.csv": 16 * mega, "plans/network.yaml": mega / 4, "plans/versions.yaml": mega / 4, "plans/cluster.xlsx": 32 * mega,
		"plans/known_hosts": 8 * mega, "plans/lock.json": mega / 16, "plans/machines.csv": mega / 4,
		"manifests/app.yaml": 5 * mega, "manifests/app.json": 5 * mega, "k3s/server.yaml": mega / 4,
		"nixConfigs/olaf.nix": 2 * mega, "nixConfigs/data.json": 2 * mega, "partitioning/olaf.nix": 2 * mega, "hardware/olaf.nix": 2 * mega,
		"secrets/init-token": mega, "secrets/passwd": mega, "secrets/all.pub": mega, "secrets/recipients": mega, "secrets/hosts/olaf_ed25519": mega, ".gitignore": mega,
	}
	for i, file := range slices.Sorted(maps.Keys(limits)) {
		place := filepath.Join(project, filepath.FromSlash(file))
		before, missing := os.ReadFile(place)
		require.NoError(t, os.MkdirAll(filepath.Dir(place), 0o700))
		for j, content := range hostile {
			for _, size := range []int{limits[file] - kilo, 50 * mega} {
				if size == 50*mega && j != i%len(hostile) { // refused by its size, whatever it is
					continue
				}
				if os.Getenv(killsVariable) == "" && (i+j)%4 != 0 { // with `make kills`, all of them
					continue
				}
				text := content.start + strings.Repeat(content.unit, size/len(content.unit))
				require.NoError(t, os.WriteFile(place, []byte(text), 0o600))
				used, out, _ := memory(t, project, "validate")
				require.Less(t, used, int64(maxMemory), "%d bytes of %s in %s: %s", size, content.name, file, out[:min(len(out), 2000)])
				require.Less(t, len(out), 100*kilo, "%d bytes of %s in %s", size, content.name, file)
				require.NotContains(t, out, "\x1b", "%d bytes of %s in %s", size, content.name, file)
				if used > maxMemory/2 {
					t.Logf("%d MB for %d bytes of %s in %s", used/mega, size, content.name, file)
				}
			}
		}
		if missing != nil {
			require.NoError(t, os.Remove(place))
		} else {
			require.NoError(t, os.WriteFile(place, before, 0o600))
		}
	}
}

// 10,000 hosts are none too many for any command that shows or writes them.
func TestMemoryForManyHosts(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: 10,000 hosts take seconds")
	}
	project := exampleProject(t)
	var hosts, containers strings.Builder
	hosts.WriteString("name,interface,ip,admin\n")
	containers.WriteString("host,name,type,ip\n")
	for i := range 10000 {
		fmt.Fprintf(&hosts, "n%05d,eno1,10.%d.1.%d,admin\n", i, i/200, 2+i%200)
		if i < 3 {
			fmt.Fprintf(&containers, "n%05d,n%05[1]d-s,%s,10.%d.2.%d\n", i, map[bool]string{true: "init", false: "server"}[i == 0], i/200, 2+i%200)
		}
		fmt.Fprintf(&containers, "n%05d,n%05[1]d-a,agent,10.%d.3.%d\n", i, i/200, 2+i%200)
	}
	for file, text := range map[string]string{
		"hosts.csv": hosts.String(), "k3s.csv": containers.String(),
		"network.yaml": "netmask: 8\ngateway: 10.255.0.1\npod_cidr: 172.16.0.0/13\nservice_cidr: 172.24.0.0/16\nversions: {nixos: <nixpkgs>, k3s: '1.31'}\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(project, "plans", file), []byte(text), 0o644))
	}
	for _, args := range []string{"validate", "configuration", "configuration --json", "show", "show --json", "show --format svg", "show --format html", "show addresses", "diff", "diff --json", "render",
		"add host extra --admin a --interface eno1 --dry-run", "convert xlsx"} {
		used, out, err := memory(t, project, strings.Fields(args)...)
		require.NoError(t, err, "%s: %s", args, out[:min(len(out), 2000)])
		require.Less(t, used, int64(maxMemory), args)
		t.Logf("%3d MB %s", used>>20, args)
	}
}
