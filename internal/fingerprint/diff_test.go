package fingerprint

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan"
	"k3splan/internal/diff"
	"k3splan/internal/hive"
	"k3splan/internal/project"
)

// Every cell and key in turn gets other values: the hosts that move are those that "k3splan diff"
// says are configured otherwise, no more and no fewer.
func TestDiffNamesTheHostsThatMove(t *testing.T) {
	values := []string{"", "x1", "10.0.100.77", "dhcp@far.example.org", "legacy", "a=b", "7", "storage", "server", "init", "agent", "rolf", "v1.35.15+k3s1", "1.36", "[1.1.1.1]", "10.44.0.0/16", "25"}
	dir := rack(t)
	swap(t, dir, "plans/network.yaml", "{nixos: nixos-26.05, k3s: 1.35.1+k3s1}", "\n  nixos: nixos-26.05\n  k3s: 1.35.1+k3s1\npod_cidr: 10.42.0.0/16\nservice_cidr: 10.43.0.0/16")
	before := load(t, dir)
	was := inputsOf(t, before)
	compared := 0
	for _, name := range []string{"plans/hosts.csv", "plans/k3s.csv", "plans/network.yaml"} {
		original, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		separator := map[bool]string{true: ",", false: ": "}[strings.HasSuffix(name, ".csv")]
		lines := strings.SplitAfter(string(original), "\n")
		for i, line := range lines {
			cells := strings.Split(strings.TrimSuffix(line, "\n"), separator)
			for j := range cells {
				for _, value := range values {
					changed := slices.Clone(cells)
					changed[j] = value
					write(t, dir, name, strings.Join(lines[:i], "")+strings.Join(changed, separator)+"\n"+strings.Join(lines[i+1:], ""))
					now, problems, err := project.Load(dir)
					require.NoError(t, err)
					if problems.Errors() > 0 {
						continue
					}
					compared++
					moved, _ := compare(was, inputsOf(t, now))
					said := slices.DeleteFunc(diff.Compare(before.Plan, now.Plan).Hosts(), func(host string) bool { return now.Plan.Host(host) == nil })
					if !slices.Equal(moved, said) {
						t.Errorf("%v %v %s:%d %s", moved, said, name, i+1, strings.Join(changed, separator))
					}
				}
			}
		}
		write(t, dir, name, string(original))
	}
	require.Greater(t, compared, 100)
}

func inputsOf(t *testing.T, p *project.Project) map[string]Inputs {
	t.Helper()
	tree, err := hive.Render(p, k3splan.Files)
	require.NoError(t, err)
	all, err := Of(p, tree)
	require.NoError(t, err)
	return all
}
