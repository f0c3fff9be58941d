package plan

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func tablesOf(hosts, k3s, network string) fstest.MapFS {
	return fstest.MapFS{HostsFile: {Data: []byte(hosts)}, K3sFile: {Data: []byte(k3s)}, NetworkFile: {Data: []byte(network)}}
}

// Free agrees with a look at each address of the range.
func TestFree(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	address := func() string { return fmt.Sprintf("10.0.100.%d", random.IntN(34)) }
	for range 300 {
		first, last := random.IntN(34), random.IntN(34)
		network := "netmask: 27\ngateway: 10.0.100.1\nnameservers: [" + address() + ", 9.9.9.9]\ntls_san: [" + address() + ", api]\nversions: {nixos: nixos-26.05, k3s: \"1.35\"}\n"
		if first <= last {
			network += fmt.Sprintf("address_range: 10.0.100.%d-10.0.100.%d\n", first, last)
		}
		hosts := "name,interface,ip,admin\na,e,dhcp@" + address() + ",x\nb,e," + address() + "@" + address() + ",x\n"
		p, _ := Load(tablesOf(hosts, "host,name,type,ip\nb,s,init,"+address()+"\nb,t,agent,"+address()+"\n", network))
		taken := map[netip.Addr]bool{}
		for _, a := range p.taken(nil) {
			taken[a] = true
		}
		var want, got []string
		for a := p.Network.AddressRange.First; p.Network.AddressRange.Contains(a); a = a.Next() {
			if !taken[a] {
				want = append(want, a.String())
			}
		}
		for _, r := range p.Free() {
			for a := r.First; r.Contains(a); a = a.Next() {
				got = append(got, a.String())
			}
		}
		require.Equal(t, want, got, "%s%s", network, hosts)
		for _, role := range []Role{"", Init, Server, Agent} {
			if next := p.NextAddress(role); len(want) == 0 {
				require.False(t, next.IsValid())
			} else {
				require.Contains(t, want, next.String())
			}
		}
	}
}

func TestNextAddress(t *testing.T) {
	p, problems := Load(tablesOf(
		"name,interface,ip,admin\na,e,10.0.100.2,x\nb,e,10.0.100.60,x\n",
		"host,name,type,ip\na,s,init,10.0.100.12\nb,t,agent,10.0.100.22\na,u,agent,10.0.100.62\n",
		"netmask: 24\ngateway: 10.0.100.1\naddress_range: 10.0.100.12-10.0.100.40\nversions: {nixos: nixos-26.05, k3s: \"1.35\"}\n"))
	require.Zero(t, problems.Errors(), "%v", problems)
	require.Equal(t, "10.0.100.13", p.NextAddress("").String(), "no host is in the range")
	require.Equal(t, "10.0.100.13", p.NextAddress(Server).String())
	require.Equal(t, "10.0.100.23", p.NextAddress(Agent).String())

	// at home, other machines have the addresses below
	p, problems = Load(tablesOf("name,interface,ip,admin\na,e,10.0.100.10,x\n", "host,name,type,ip\na,s,init,10.0.100.20\n",
		"netmask: 24\ngateway: 10.0.100.1\nversions: {nixos: nixos-26.05, k3s: \"1.35\"}\n"))
	require.Zero(t, problems.Errors(), "%v", problems)
	require.Equal(t, "10.0.100.11", p.NextAddress("").String())
	require.Equal(t, "10.0.100.21", p.NextAddress(Agent).String(), "the first agent")

	// nothing is free above the last one
	for network, want := range map[string][]string{"": {"10.0.100.11", "10.0.100.22", "10.0.100.11"}, "address_range: 10.0.100.5-10.0.100.254\n": {"10.0.100.5", "10.0.100.22", "10.0.100.5"}} {
		p, problems = Load(tablesOf("name,interface,ip,admin\na,e,10.0.100.10,x\nb,e,10.0.100.253,x\n", "host,name,type,ip\na,s,init,10.0.100.21\n",
			"netmask: 24\ngateway: 10.0.100.254\nversions: {nixos: nixos-26.05, k3s: \"1.35\"}\n"+network))
		require.Zero(t, problems.Errors(), "%v", problems)
		require.Equal(t, want, []string{p.NextAddress("").String(), p.NextAddress(Server).String(), p.NextAddress(Agent).String()}, network)
	}
}

// Without a network, or where everything is taken, nothing is free.
func TestNothingFree(t *testing.T) {
	for name, network := range map[string]string{
		"no network":    "gateway: x\nnetmask: 99\n",
		"full":          "gateway: 10.0.100.1\nnetmask: 30\n",
		"a range of it": "gateway: 10.0.100.1\nnetmask: 24\naddress_range: 10.0.100.0-10.0.100.2\n",
	} {
		p, _ := Load(tablesOf("name,interface,ip,admin\na,e,10.0.100.2,x\n", "host,name,type,ip\n", network))
		require.Empty(t, p.Free(), name)
		require.False(t, p.NextAddress("").IsValid(), name)
	}
}

// A row with an address that it cannot have is offered a free one, each row a different one.
func TestSuggestions(t *testing.T) {
	_, problems := Load(tablesOf(
		"name,interface,ip,admin\na,e,10.0.100.2,x\nb,e,10.0.100.2,x\nc,e,10.0.100.1,x\nd,e,10.0.101.4,x\n",
		"host,name,type,ip\na,s,init,10.0.100.12\nb,t,agent,10.0.100.12\n",
		"netmask: 24\ngateway: 10.0.100.1\nversions: {nixos: nixos-26.05, k3s: \"1.35\"}\n"))
	hints := map[string]string{}
	for _, p := range problems {
		hints[p.Place()+" "+p.Code] = p.Hint
	}
	require.Equal(t, map[string]string{
		"plans/hosts.csv:3 address-duplicate":      "the next free one is 10.0.100.3",
		"plans/hosts.csv:4 address-reserved":       "the next free one is 10.0.100.4",
		"plans/hosts.csv:5 address-outside-subnet": "gateway and netmask in plans/network.yaml define the subnet",
		"plans/k3s.csv:3 address-duplicate":        "the next free one is 10.0.100.13",
	}, hints)

	// nothing is suggested where nothing is free or the network is not known
	for _, network := range []string{"netmask: 99\ngateway: 10.0.100.1\n", "netmask: 30\ngateway: 10.0.100.1\n"} {
		_, problems = Load(tablesOf("name,interface,ip,admin\na,e,10.0.100.2,x\nb,e,10.0.100.2,x\n", "host,name,type,ip\n", network+"versions: {nixos: nixos-26.05}\n"))
		for _, p := range problems {
			require.NotContains(t, p.Hint, "free")
		}
	}
}
