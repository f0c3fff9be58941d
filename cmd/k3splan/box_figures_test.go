package main

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// Figures, not a test of behaviour: K3SPLAN_FIGURES=20 go test ./cmd/k3splan -run TestFigures -v
func TestFigures(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("K3SPLAN_FIGURES"))
	if err != nil {
		t.Skip("SKIP: figures are made with K3SPLAN_FIGURES=20, the number of hosts")
	}
	b := newBox(t)
	hosts, containers := "name,interface,ip,admin,slot\n", "host,name,type,ip\n"
	for i := range n {
		hosts += fmt.Sprintf("h%02d,lan,10.77.0.%d,someone,%d\n", i, 10+i, i)
		switch {
		case i < 3:
			containers += fmt.Sprintf("h%02d,s%02d,%s,10.77.0.%d\n", i, i, []string{"init", "server", "server"}[i], 100+i)
		case i < n*3/4:
			containers += fmt.Sprintf("h%02d,a%02d,agent,10.77.0.%d\n", i, i, 100+i)
		}
	}
	b.write("project/plans/hosts.csv", hosts, 0o644)
	b.write("project/plans/k3s.csv", containers, 0o644)
	b.write("project/plans/network.yaml", "netmask: 24\ngateway: 10.77.0.254\nversions: {nixos: https://git.example.org/nixpkgs#box, k3s: 1.35.1+k3s1}\n", 0o644)
	b.secretsAndPins()
	for i := range n {
		b.add(fmt.Sprintf("h%02d", i), fmt.Sprintf("10.77.0.%d", 10+i))
	}
	figure := func(what string, args ...string) {
		t.Helper()
		r := b.deploy(args...)
		require.Zero(t, r.code, r.stderr)
		t.Logf("%-40s %6.2f s (%.2f s of processor on the deploying machine), evaluations: %d", what, r.seconds, r.cpu, len(b.built())+len(b.evaluated()))
	}
	figure("fresh, all", "--max-unavailable", "25%")
	for range 3 {
		figure("nothing changed")
	}
	b.edit("plans/hosts.csv", fmt.Sprintf("someone,%d\n", n-1), "someone,190\n")
	figure("one row of a host without k3s")
	b.edit("plans/hosts.csv", "someone,7\n", "someone,70\n")
	figure("one row of a host with an agent")
	figure("all regardless", "--all", "--max-unavailable", "25%")
	if b.nixpkgs == "" {
		t.Log("evaluated by the stand-in; a real evaluation takes some 2 s a host")
	}
}
