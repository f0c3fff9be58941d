package hive_test

import (
	"fmt"
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

// units are what systemd runs of k3s on hosts of the rack.
const units = `lib.mapAttrs (_: n: lib.mapAttrs (_: u: u.text)
	(lib.filterAttrs (name: _: builtins.match "(container@|podman-.+-k3s-agent|k3splan-agent-network).*service" name != null) n.config.systemd.units))
	(lib.getAttrs %s nodes)`

// systemPath is where NixOS 20.09, which is evaluated here, starts podman; 24.11 has its own path.
var systemPath = regexp.MustCompile(`/nix/store/[^/]+-system-path`)

// edit replaces a text in a file of the rack's plan.
type edit struct{ file, old, new string }

// rackAfter renders the rack after edits, without the snippet that reads the whole plan, so that fingerprints show
// which hosts an edit concerns.
func rackAfter(t *testing.T, edits ...edit) (*plan.Plan, map[string]fingerprint.Inputs, string) {
	t.Helper()
	changed := map[string]string{"nixConfigs/all.nix": "-"}
	for _, e := range edits {
		file := "plans/" + e.file
		text, err := os.ReadFile(filepath.Join(exampleRoot, "rack", file))
		require.NoError(t, err)
		require.Contains(t, string(text), e.old)
		changed[file] = strings.Replace(string(text), e.old, e.new, 1)
	}
	dir := copyExample(t, "rack", changed)
	p, problems, err := project.Load(dir)
	require.NoError(t, err)
	require.Zero(t, problems.Errors(), "%v", problems)
	tree, err := hive.Render(p, k3splan.Files)
	require.NoError(t, err)
	_, err = tree.Write(dir)
	require.NoError(t, err)
	inputs, err := fingerprint.Of(p, tree)
	require.NoError(t, err)
	return p.Plan, inputs, filepath.Join(dir, hive.Dir, "hive.nix")
}

// What "k3splan diff" says about restarts is what NixOS does: systemd restarts a container whose unit has
// changed, and an agent with its network.
func TestDiffShowsWhatRestarts(t *testing.T) {
	t.Parallel()
	// a host of each kind: an agent, the init server with an agent, a server
	hosts := []string{"karl", "olaf", "rolf"}
	textsOf := func(t *testing.T, d data, host string) map[string]string {
		texts := map[string]string{}
		for name, text := range d.part(t, host) {
			texts[name] = systemPath.ReplaceAllString(text.(string), "")
		}
		return texts
	}
	before, inputsBefore, _ := rackAfter(t)
	was := evaluated["rack"].of(t).part(t, "texts")

	announced := func(now *plan.Plan) (containers []string) {
		for _, change := range diff.Compare(before, now) {
			for _, container := range change.Restarts {
				host, _, _ := strings.Cut(container, "-")
				if slices.Contains(hosts, host) {
					containers = append(containers, container)
				}
			}
		}
		slices.Sort(containers)
		return slices.Compact(containers)
	}
	restarted := func(t *testing.T, now *plan.Plan, inputs map[string]fingerprint.Inputs, file string) (containers []string) {
		// A host of which nothing but /etc/hosts may have changed is as it was: TestNoChangeIsMissed and
		// TestServersComeAndGo prove it, and evaluating takes seconds.
		var names []string
		for _, host := range hosts {
			if in := inputs[host]; in.Fingerprint() != inputsBefore[host].Fingerprint() && !fingerprint.OnlyNames(inputsBefore[host], in) {
				names = append(names, hive.NixString(host))
			}
		}
		if len(names) == 0 {
			return nil
		}
		is := data(evaluate(t, fmt.Sprintf(units, fmt.Sprint(names)), file).(map[string]any))
		for name := range is {
			texts, textsBefore := textsOf(t, is, name), textsOf(t, was, name)
			for _, c := range now.Host(name).Containers() {
				units := []string{"container@" + c.Name + ".service"}
				if c.Role == plan.Agent {
					units = []string{"podman-" + c.Name + ".service", "k3splan-agent-network.service"}
				}
				for _, unit := range units {
					require.NotEmpty(t, textsBefore[unit], unit)
					if texts[unit] != textsBefore[unit] {
						containers = append(containers, c.Name)
					}
				}
			}
		}
		slices.Sort(containers)
		return slices.Compact(containers)
	}

	for _, e := range []edit{
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
		t.Run(e.old+" → "+e.new, func(t *testing.T) {
			t.Parallel()
			now, inputs, file := rackAfter(t, e)
			require.Equal(t, restarted(t, now, inputs, file), announced(now))
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
