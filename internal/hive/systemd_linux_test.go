package hive_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena/nixtest"
)

// unitsOfOlaf are the units that the modules make on a host and in its server, and the server's networkd files.
const unitsOfOlaf = `let
  host = nodes.olaf.config;
  server = host.containers.olaf-k3s-server.config;
  ours = units: lib.filterAttrs (name: _: builtins.match "(k3splan.*|k3s.*|container@.*|podman-.*)" name != null) (lib.mapAttrs (_: unit: unit.text) units);
in {
  host = ours host.systemd.units;
  server = ours server.systemd.units;
  network = lib.mapAttrs (_: unit: unit.text) server.systemd.network.units;
}`

// inNetworkd starts a networkd "$@" where there is the interface of a server, prints what it made of it, and on
// stderr what it said.
const inNetworkd = `
set -eu
mount -t tmpfs tmpfs /run
mount -t sysfs -o ro sysfs /sys # without udev
mkdir -p /run/systemd/network
cp network/* /run/systemd/network/
ip link add mv-eno1 type veth peer name switch
ip link set switch up
"$@" 2> /run/log & networkd=$!
for _ in $(seq 100); do if ip route | grep -q default; then break; fi; sleep 0.1; done
ip -4 -o address show mv-eno1 | awk '{ print $4 }'
ip route | grep default
kill $networkd
wait $networkd || true
cat /run/log >&2
`

// The systemd of this machine and that of Debian 13 find nothing wrong with the units and networkd files.
func TestSystemdTakesTheUnits(t *testing.T) {
	units := evaluate(t, unitsOfOlaf, rendered(t, "rack", nil)).(map[string]any)
	dir := nixtest.TempDir(t)
	for folder, files := range units {
		require.NotEmpty(t, files, folder)
		require.NoError(t, os.Mkdir(filepath.Join(dir, folder), 0o755))
		for name, text := range files.(map[string]any) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, folder, name), []byte(text.(string)), 0o644))
		}
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "server", "wrong.service"), []byte("[Service]\nExecStart=/bin/true\nKillMood=mixed\n"), 0o644))
	for name, program := range map[string]func(*testing.T, string) []string{
		"this machine": func(t *testing.T, program string) []string {
			nixtest.Needs(t, program)
			return []string{program}
		},
		"Debian 13": func(t *testing.T, program string) []string { return nixtest.Debian13(t, program) },
	} {
		t.Run(name, func(t *testing.T) {
			analyze := program(t, "/usr/bin/systemd-analyze")
			out, err := exec.Command(analyze[0], append(analyze[1:], "--version")...).Output()
			require.NoError(t, err)
			t.Log(strings.SplitN(string(out), "\n", 2)[0])
			require.Empty(t, complaints(t, filepath.Join(dir, "host"), analyze))
			require.Equal(t, []string{"wrong.service:3: Unknown key"}, complaints(t, filepath.Join(dir, "server"), analyze))

			if os.Getuid() != 0 {
				t.Skip("SKIP: interfaces of their own need root")
			}
			nixtest.Needs(t, "ip", "unshare")
			command := exec.Command("unshare", append([]string{"-mn", "sh", "-c", inNetworkd, "sh"}, program(t, "/usr/lib/systemd/systemd-networkd")...)...)
			command.Dir = dir
			said := new(strings.Builder)
			command.Stderr = said
			out, err = command.Output()
			require.NoError(t, err, said.String())
			require.Equal(t, "10.0.100.12/24\ndefault via 10.0.100.1 dev mv-eno1 proto static \n", string(out), said.String())
			require.NotContains(t, said.String(), ".network:", "it complains about a line")
		})
	}
}

// complaints is what systemd-analyze finds in a folder of units, but for the programs, which are not built.
func complaints(t *testing.T, folder string, analyze []string) (found []string) {
	t.Helper()
	units, err := filepath.Glob(filepath.Join(folder, "*"))
	require.NoError(t, err)
	command := exec.Command(analyze[0], slices.Concat(analyze[1:], []string{"verify", "--man=no"}, units)...)
	command.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+folder+":"+filepath.Join(filepath.Dir(analyze[len(analyze)-1]), "../lib/systemd/system"), "SYSTEMD_LOG_TARGET=console", "SYSTEMD_COLORS=0")
	out, _ := command.CombinedOutput() // fails for the programs
	require.NotEmpty(t, out)
	short := regexp.MustCompile(`^.*/(\S+:[0-9]+: Unknown key).*$`)
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); !regexp.MustCompile(`Command /nix/store/\S+ is not executable: No such file or directory$`).MatchString(line) {
			found = append(found, short.ReplaceAllString(line, "$1"))
		}
	}
	return found
}
