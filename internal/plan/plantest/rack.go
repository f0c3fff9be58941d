// Package plantest makes plans for tests and benchmarks. Nothing in it is for the program.
package plantest

import (
	"fmt"
	"strings"
)

// Rack returns the tables of a plan of n hosts by their files, with a server on every third host and an
// agent on each of the others.
func Rack(n int) map[string]string {
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
	return map[string]string{
		"plans/hosts.csv":    hosts.String(),
		"plans/k3s.csv":      k3s.String(),
		"plans/network.yaml": "netmask: 10\ngateway: 10.127.255.254\npod_cidr: 10.128.0.0/16\nservice_cidr: 10.129.0.0/16\nversions: {nixos: nixos-26.05, k3s: '1.35'}\n",
	}
}
