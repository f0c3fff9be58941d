package hive_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan"
	"k3splan/internal/diff"
	"k3splan/internal/fingerprint"
	"k3splan/internal/hive"
	"k3splan/internal/plan"
	"k3splan/internal/project"
)

// What "k3splan diff" says about restarts is what NixOS does: systemd restarts a container whose unit has
// changed, and an agent with its network.
func TestDiffShowsWhatRestarts(t *testing.T) {
	// a host of each kind: an agent, the init server with an agent, a server
	hosts := []string{"karl", "olaf", "rolf"}
	const units = `lib.mapAttrs (_: n: lib.mapAttrs (_: u: u.text)
		(lib.filterAttrs (name: _: builtins.match "(container@|podman-.+-k3s-agent|k3splan-agent-network).*service" name != null) n.config.systemd.units))
		(lib.getAttrs %s nodes)`
	// NixOS 20.09, which is evaluated here, starts podman from there; 24.11 by its own path
	systemPath := regexp.MustCompile(`/nix/store/[^/]+-system-path`)
	type found map[string]map[string]string
	var inputsBefore map[string]fingerprint.Inputs
	// A host of which nothing but /etc/hosts may have changed is as it was: TestNoChangeIsMissed and
	// TestAChangeStaysWhereItBelongs prove it, and evaluating takes seconds.
	of := func(was found, changed map[string]string) (*plan.Plan, found) {
		withoutAll := map[string]string{"nixConfigs/all.nix": "-"} // which reads the whole plan
		maps.Copy(withoutAll, changed)
		dir := copyExample(t, "rack", withoutAll)
		p, problems, err := project.Load(dir)
		require.NoError(t, err)
		require.Zero(t, problems.Errors(), "%v", problems)
		tree, err := hive.Render(p, k3splan.Files)
		require.NoError(t, err)
		_, err = tree.Write(dir)
		require.NoError(t, err)
		inputs, err := fingerprint.Of(p, tree)
		require.NoError(t, err)
		all, names := found{}, "["
		for _, host := range hosts {
			in, before := inputs[host], inputsBefore[host]
			if was != nil && (in.Fingerprint() == before.Fingerprint() || fingerprint.OnlyNames(before, in)) {
				all[host] = was[host]
				continue
			}
			names += " " + hive.NixString(host)
		}
		if inputsBefore == nil {
			inputsBefore = inputs
		}
		for host, units := range evaluate(t, fmt.Sprintf(units, names+" ]"), filepath.Join(dir, hive.Dir, "hive.nix")).(map[string]any) {
			all[host] = map[string]string{}
			for name, text := range units.(map[string]any) {
				all[host][name] = systemPath.ReplaceAllString(text.(string), "")
			}
		}
		return p.Plan, all
	}
	before, was := of(nil, nil)
	for _, test := range [][3]string{
		{"hosts.csv", "storage,4", "storage,9"},
		{"hosts.csv", "storage,4", "backup,4"},
		{"hosts.csv", "10.0.100.2,olaf,", "10.0.100.2,alice,"},
		{"hosts.csv", "olaf,eno1,", "olaf,eno9,"},
		{"hosts.csv", "karl,enP4p65s0,", "karl,eno9,"},
		{"hosts.csv", "10.0.100.2,", "10.0.100.42,"},
		{"hosts.csv", "10.0.100.2,", "10.0.100.2@10.9.9.9:2222,"},
		{"k3s.csv", "10.0.100.12", "10.0.100.42"},
		{"k3s.csv", "10.0.100.14", "10.0.100.44"},
		{"k3s.csv", "10.0.100.22", "10.0.100.52"},
		{"k3s.csv", "disk=large", "disk=small"},
		{"k3s.csv", "storage=only:PreferNoSchedule", ""},
		{"network.yaml", "255.255.255.0", "255.255.254.0"},
		{"network.yaml", "gateway: 10.0.100.1", "gateway: 10.0.100.254"},
		{"network.yaml", "[9.9.9.9, 1.1.1.1]", "[9.9.9.9]"},
		{"network.yaml", "rack.home.arpa\n", "other.home.arpa\n"},
		{"network.yaml", "Europe/Berlin", "Europe/Oslo"},
		{"network.yaml", "[k3s.rack.home.arpa]", "[]"},
		{"network.yaml", "gateway:", "pod_cidr: 10.52.0.0/16\ngateway:"},
		{"network.yaml", "gateway:", "service_cidr: 10.53.0.0/16\ngateway:"},
		{"network.yaml", `"1.35"`, "v1.35.99+k3s1"},
	} {
		t.Run(test[1]+" → "+test[2], func(t *testing.T) {
			file := "plans/" + test[0]
			text, err := os.ReadFile(filepath.Join(exampleRoot, "rack", file))
			require.NoError(t, err)
			require.Contains(t, string(text), test[1])
			now, is := of(was, map[string]string{file: strings.Replace(string(text), test[1], test[2], 1)})
			var announced, restarted []string
			for _, change := range diff.Compare(before, now) {
				announced = append(announced, change.Restarts...)
			}
			announced = slices.DeleteFunc(announced, func(container string) bool {
				host, _, _ := strings.Cut(container, "-")
				return !slices.Contains(hosts, host)
			})
			for _, name := range hosts {
				host := now.Host(name)
				for _, c := range host.Containers() {
					units := []string{"container@" + c.Name + ".service"}
					if c.Role == plan.Agent {
						units = []string{"podman-" + c.Name + ".service", "k3splan-agent-network.service"}
					}
					for _, unit := range units {
						require.NotEmpty(t, was[host.Name][unit], unit)
						if was[host.Name][unit] != is[host.Name][unit] {
							restarted = append(restarted, c.Name)
						}
					}
				}
			}
			slices.Sort(announced)
			slices.Sort(restarted)
			require.Equal(t, slices.Compact(restarted), slices.Compact(announced))
		})
	}
}

// The host keeps its address until its containers have stopped, which takes minutes: its interface is neither
// stopped when it changes nor when another unit of the network does. Seen in test/boot ("everything is built
// again").
func TestTheHostKeepsItsAddress(t *testing.T) {
	unit := evaluate(t, `nodes.olaf.config.systemd.units."k3splan-lan-netdev.service".text`, rendered(t, "single", nil)).(string)
	require.Contains(t, unit, "X-StopIfChanged=false\n")
	require.NotContains(t, unit, "PartOf=")
}
