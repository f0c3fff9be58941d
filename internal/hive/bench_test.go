package hive_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan"
	"k3splan/internal/hive"
	"k3splan/internal/project"
)

// bigProject makes a project of n hosts, a server or an agent on each.
func bigProject(b *testing.B, n int) string {
	b.Helper()
	dir := b.TempDir()
	var hosts, k3s strings.Builder
	hosts.WriteString("name,interface,ip,admin,serial,tags,rack\n")
	k3s.WriteString("host,name,type,ip,labels\n")
	address := func(i int) string { return fmt.Sprintf("10.%d.%d.%d", 64+i>>16, i>>8&255, i&255) }
	for i := range n {
		fmt.Fprintf(&hosts, "host-%d,eno1,%s,admin,serial-%d,a b,rack %d\n", i, address(2*i+2), i, i/40)
		role := "agent"
		if i == 0 {
			role = "init"
		} else if i%3 == 0 {
			role = "server"
		}
		fmt.Fprintf(&k3s, "host-%d,container-%d,%s,%s,\n", i, i, role, address(2*i+3))
	}
	for file, content := range map[string]string{
		"plans/hosts.csv": hosts.String(), "plans/k3s.csv": k3s.String(),
		"plans/network.yaml": "netmask: 10\ngateway: 10.127.255.254\npod_cidr: 10.128.0.0/16\nservice_cidr: 10.129.0.0/16\nversions: {nixos: nixos-24.11, k3s: '1.31'}\n",
		"secrets/all.pub":    aliceKey + "\n", "secrets/passwd": poisonHash + "\n",
	} {
		name := filepath.Join(dir, file)
		require.NoError(b, os.MkdirAll(filepath.Dir(name), 0o700))
		require.NoError(b, os.WriteFile(name, []byte(content), 0o600))
	}
	_, err := project.Setup(dir, k3splan.Files)
	require.NoError(b, err)
	return dir
}

// BenchmarkRender reads, validates and renders a whole project, in memory.
func BenchmarkRender(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := bigProject(b, n)
			b.ReportAllocs()
			for b.Loop() {
				p, problems, err := project.Load(dir)
				if err != nil || problems.Errors() > 0 {
					b.Fatal(err, problems)
				}
				tree, err := hive.Render(p, k3splan.Files)
				if err != nil || len(tree) < n {
					b.Fatal(err)
				}
			}
		})
	}
}
