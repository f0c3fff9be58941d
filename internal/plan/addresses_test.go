package plan

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
)

// problemsOf loads a plan with changed files and returns its problems in words, with their hints.
func problemsOf(changed map[string]string) (problems diag.Problems, words string) {
	_, problems = Load(project(changed))
	var lines []string
	for _, p := range problems {
		lines = append(lines, p.String()+"\n  "+p.Hint)
	}
	return problems, strings.Join(lines, "\n")
}

// IPv6 and dual stack are refused in words that say so, wherever people write them.
func TestIPv6IsRefusedAsSuch(t *testing.T) {
	for name, test := range map[string]struct{ file, old, new, value string }{
		"host":                      {HostsFile, "10.0.100.3,", "fd00::3,", "fd00::3"},
		"host, dual stack":          {HostsFile, "10.0.100.3,", `"10.0.100.3, fd00::3",`, "fd00::3"},
		"host, dual stack, blank":   {HostsFile, "10.0.100.3,", "10.0.100.3 fd00::3,", "fd00::3"},
		"host, with prefix lengths": {HostsFile, "10.0.100.3,", `"10.0.100.3/24,fd00::3/64",`, "fd00::3/64"},
		"host, with a target":       {HostsFile, "10.0.100.3,", "fd00::3@10.0.0.1,", "fd00::3"},
		"host, with a slip":         {HostsFile, "10.0.100.3,", "fd00:0:0:0:0:0:3,", "fd00:0:0:0:0:0:3"},
		"target":                    {HostsFile, "10.0.100.3,", "10.0.100.3@fd00::3,", "fd00::3"},
		"target, with a port":       {HostsFile, "10.0.100.3,", "10.0.100.3@[fd00::3]:22,", "[fd00::3]:22"},
		"target, with a zone":       {HostsFile, "10.0.100.3,", "dhcp@fe80::1%eth0,", "fe80::1%eth0"},
		"host, by SLAAC":            {HostsFile, "10.0.100.3,", "slaac@ulf.home,", "slaac@ulf.home"},
		"host, by DHCPv6":           {HostsFile, "10.0.100.3,", "dhcp6@ulf.home,", "dhcp6@ulf.home"},
		"container":                 {K3sFile, "10.0.100.12,", "fd00::12,", "fd00::12"},
		"container, dual stack":     {K3sFile, "10.0.100.12,", `"10.0.100.12,fd00::12",`, "fd00::12"},
		"gateway":                   {NetworkFile, "10.0.100.1\n", "fd00::1\n", "fd00::1"},
		"nameserver":                {NetworkFile, "netmask", "nameservers: [9.9.9.9, '2620:fe::fe']\nnetmask", "2620:fe::fe"},
		"pods' network":             {NetworkFile, "netmask", "pod_cidr: 10.42.0.0/16,fd01::/48\nnetmask", "10.42.0.0/16,fd01::/48"},
		"services' network":         {NetworkFile, "netmask", "service_cidr: fd02::/112\nnetmask", "fd02::/112"},
		"range":                     {NetworkFile, "netmask", "address_range: fd00::1-fd00::9\nnetmask", "fd00::1-fd00::9"},
	} {
		t.Run(name, func(t *testing.T) {
			text := map[string]string{HostsFile: goodHosts, K3sFile: goodK3s, NetworkFile: goodNetwork}[test.file]
			problems, words := problemsOf(map[string]string{test.file: swap(t, text, test.old, test.new)})
			require.Len(t, problems, 1, words)
			require.Equal(t, "IPv6 is not supported", problems[0].Message)
			require.Contains(t, problems[0].Hint, "IPv4")
			require.Equal(t, test.value, problems[0].Value)
		})
	}
}

// Every address is looked at for what it is.
func TestAddressesThatNoMachineHas(t *testing.T) {
	for line, want := range map[string]string{
		"gateway: 127.0.0.1":                     "a loopback address",
		"gateway: 0.0.0.0":                       "the unspecified address",
		"gateway: 224.0.0.1":                     "a multicast address",
		"gateway: 255.255.255.255":               "the broadcast address",
		"gateway: 250.1.2.3":                     "a reserved address",
		"gateway: 169.254.0.1":                   "a link-local address",
		"gateway: 10.0.100.0":                    "the address of the network 10.0.100.0/24 itself",
		"gateway: 10.0.100.255":                  "the broadcast address of 10.0.100.0/24",
		"nameservers: 127.0.0.53":                "a loopback address",
		"nameservers: [9.9.9.9, 0.0.0.0]":        "the unspecified address",
		"nameservers: 239.1.1.1":                 "a multicast address",
		"nameservers: 10.0.100.0":                "the address of the network 10.0.100.0/24 itself",
		"nameservers: 10.0.100.255":              "the broadcast address of 10.0.100.0/24",
		"nameservers: 10.43.0.10":                "in the service network 10.43.0.0/16",
		"nameservers: 10.42.7.1":                 "in the pod network 10.42.0.0/16",
		"nameservers: 169.254.169.253":           "a link-local address",
		"pod_cidr: 127.0.0.0/8":                  "reserved",
		"pod_cidr: 224.0.0.0/8":                  "reserved",
		"service_cidr: 240.0.0.0/12":             "reserved",
		"service_cidr: 10.0.0.0/12":              "overlaps with the LAN",
		"tls_san: 0.0.0.0":                       "not the address of a machine",
		"tls_san: [api.example, 224.0.0.1]":      "not the address of a machine",
		"tls_san: 10.0.100.255":                  "the broadcast address of 10.0.100.0/24",
		"tls_san: ['fe80::1%eth0']":              "zone",
		"tls_san: ['api.example:6443']":          "without the port",
		"tls_san: ['https://api.example']":       "without https://",
		"tls_san: ['*.example']":                 "wildcard",
		"tls_san: 'a.example,b.example'":         "[a.example, b.example]",
		"tls_san: 10.0.100.0/24":                 "not a network",
		"address_range: 10.0.100.9-10.0.100.3":   "write 10.0.100.3-10.0.100.9",
		"address_range: 192.168.0.1-192.168.0.9": "not in the subnet",
		"domain: api.example:53":                 "not a DNS name",
		"gateway: 10.0.100.1/24":                 "without the netmask",
		"gateway: 10,0,100,1":                    "with points",
		"gateway: 10.0.100.1 10.0.100.2":         "more than one address",
		"gateway: 10.0.100.01":                   "leading zeros",
		"netmask: 64":                            "not a netmask of IPv4",
		"netmask: 255.0.255.0":                   "its 1 bits are not contiguous",
		"tls_san: [127.0.0.1, 'fd00::1', 'a.b']": "",
		"nameservers: [10.0.100.1, 192.168.0.1]": "",
	} {
		t.Run(line, func(t *testing.T) {
			key, _, _ := strings.Cut(line, ":")
			text := line + "\n"
			for present := range strings.Lines(goodNetwork) {
				if !strings.HasPrefix(present, key+":") {
					text += present
				}
			}
			problems, words := problemsOf(map[string]string{NetworkFile: text})
			if want == "" {
				require.Empty(t, words)
				return
			}
			require.Len(t, problems, 1, words)
			require.Contains(t, words, want)
			require.Equal(t, key, problems[0].Column)
		})
	}
}

// A host or container with such an address is refused for what it is, too.
func TestCellsThatNoMachineHas(t *testing.T) {
	_, words := problemsOf(map[string]string{
		HostsFile: swap(t, goodHosts, "10.0.100.3,", "127.0.0.1,"), K3sFile: swap(t, goodK3s, "10.0.100.25,", "224.0.0.7,")})
	require.Contains(t, words, "plans/hosts.csv:3: ip \"127.0.0.1\": a loopback address")
	require.Contains(t, words, "plans/k3s.csv:4: ip \"224.0.0.7\": a multicast address")
}

// What a hint offers no other row has, and no other hint offers.
func TestHintsOfferWhatIsFree(t *testing.T) {
	problems, words := problemsOf(map[string]string{HostsFile: goodHosts +
		"web_1,eno1,10.0.100.7,x,,,,,,\nweb.1,eno1,10.0.100.8,x,,,,,,\nweb-1,eno1,10.0.100.9,x,,,,,,\n" +
		// a second row of a host, and a container of a host that is not there, have addresses too
		"olaf,eno1,10.0.100.13,x,,,,,,\n",
		K3sFile: goodK3s + "ulf,ulf-agent,agent,10.0.100.22,,,\nnobody,nobody-agent,agent,10.0.100.26,,,\n"})
	require.Contains(t, words, `"web_1": not a host name: letters a-z, digits and inner hyphens, at most 63`+"\n  "+`"web-1-2" would do`)
	require.Contains(t, words, `"web-1-3" would do`)
	for _, p := range problems {
		if p.Code == "address-duplicate" {
			require.Equal(t, "the next free one is 10.0.100.27", p.Hint, words)
		}
	}
}
