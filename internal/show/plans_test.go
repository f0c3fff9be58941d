package show

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
)

// tables is a project of which only the tables are known.
type tables struct{ hosts, k3s, network string }

func (ts tables) load() (*plan.Plan, diag.Problems) {
	return plan.Load(fstest.MapFS{
		"plans/hosts.csv":    {Data: []byte(ts.hosts)},
		"plans/k3s.csv":      {Data: []byte(ts.k3s)},
		"plans/network.yaml": {Data: []byte(ts.network)},
	})
}

func (ts tables) view(t *testing.T, name string) *View {
	t.Helper()
	p, problems := ts.load()
	return New(p, problems, name)
}

func example(t *testing.T, name string) (*plan.Plan, *View) {
	t.Helper()
	p, problems := plan.Load(os.DirFS("../../examples/" + name))
	require.Empty(t, problems)
	return p, New(p, problems, name)
}

// fifty is a cluster of 50 hosts: 5 servers, 40 agents, 5 hosts without k3s, all sorts of columns.
func fifty() tables {
	hosts := &strings.Builder{}
	k3s := &strings.Builder{}
	hosts.WriteString("name,interface,ip,admin,serial,boot,system,tags,mac,rack,unit\n")
	k3s.WriteString("host,name,type,ip,mac,labels,taints\n")
	admins := []string{"olaf", "ulf", "rolf", "karl", "ulrich"}
	for i := 1; i <= 50; i++ {
		name := fmt.Sprintf("node-%02d", i)
		rack := 'a' + rune((i-1)/10)
		boot, system, tags := "", "", fmt.Sprintf("rack-%c", rack)
		switch {
		case i%10 == 0:
			boot, tags = "legacy", tags+" storage"
		case i%7 == 0:
			system, tags = "aarch64-linux", tags+" edge"
		}
		ip := fmt.Sprintf("10.20.1.%d", i)
		if i == 49 {
			ip += "@203.0.113.7:2222"
		}
		if i == 50 {
			ip = "dhcp@node-50.example.org"
		}
		fmt.Fprintf(hosts, "%s,enp%ds0,%s,%s,SN%04d,%s,%s,%s,52:54:00:00:01:%02x,%c,%d\n",
			name, i%4+1, ip, admins[i%5], i, boot, system, tags, i, rack, (i-1)%10+1)
		if i <= 5 {
			role := "server"
			if i == 3 {
				role = "init"
			}
			fmt.Fprintf(k3s, "%s,%s-k3s-server,%s,10.20.2.%d,,,\n", name, name, role, i)
		}
		if i > 2 && i <= 42 {
			labels, taints := "", ""
			if i%10 == 0 {
				labels, taints = "disk=large zone=cellar", "storage=only:NoSchedule"
			}
			fmt.Fprintf(k3s, "%s,%s-k3s-agent,agent,10.20.3.%d,52:54:00:00:03:%02x,%s,%s\n", name, name, i, i, labels, taints)
		}
	}
	return tables{hosts.String(), k3s.String(), `
netmask: 22
gateway: 10.20.0.1
nameservers: [10.20.0.2, 9.9.9.9]
domain: fifty.example.org
versions: {nixos: nixos-26.05, k3s: v1.35.3+k3s1}
`}
}

// brokenTables is a plan with problems in a host's row, in a container's, in the network, and elsewhere;
// its cells try to be markup.
func brokenTables() tables {
	return tables{
		"name,interface,ip,admin,tags,<b>own\n" +
			"olaf,eno1,10.0.0.2,olaf,,<script>alert(1)</script>\n" +
			"ulf,eno1,10.0.0.299,root,rack-a,]]>&amp;\n" +
			"rolf,eno1,10.0.0.2,rolf,rack-b,\"'\"\n" +
			"karl,this-is-no-interface,10.0.0.5,karl,,\n",
		"host,name,type,ip,labels\n" +
			"olaf,olaf-server,init,10.0.0.12,\n" +
			"ulf,ulf-agent,agnet,10.0.0.22,\n" +
			"karl,karl-agent,agent,192.168.7.1,no label\n" +
			"nobody,x,agent,10.0.0.33,\n",
		"netmask: 24\ngateway: 10.0.0.1\nnameservers: [nine]\nversions: {nixos: nixos-26.05, k3s: \"1.35\"}\n",
	}
}

// longNames has names as long as they may be.
func longNames() tables {
	long := strings.Repeat("abcdefgh-", 6) + "abcdefghi"
	return tables{
		"name,interface,ip,admin,tags\n" +
			long + ",enp4s0f1np1,10.0.0.2@" + strings.Repeat("very-", 8) + "far.example.org:22022,administrator-of-this-machine,one two three four five six seven eight nine ten eleven\n" +
			"b,e,10.0.0.3,b,\n",
		"host,name,type,ip,labels,taints\n" +
			long + "," + long[:60] + "srv,init,10.0.0.12,,\n" +
			long + "," + long[:60] + "agt,agent,10.0.0.13,example.org/a-rather-long-label=with-a-value,k=v:NoSchedule\n",
		"netmask: 24\ngateway: 10.0.0.1\ndomain: " + strings.Repeat("long.", 10) + "example.org\nversions: {nixos: nixos-26.05, k3s: \"1.35\"}\n",
	}
}
