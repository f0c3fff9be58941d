package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/rollout"
)

// Figures, not a test of behaviour: K3SPLAN_FIGURES=20 go test ./cmd/k3splan -run TestFigures -v
func TestFigures(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("K3SPLAN_FIGURES"))
	if err != nil {
		t.Skip("SKIP: figures are made with K3SPLAN_FIGURES=20, the number of hosts")
	}
	b := boxOf(t, n)
	figure := func(what string, args ...string) {
		t.Helper()
		r := b.deploy(args...)
		require.Zero(t, r.code, r.stderr)
		t.Logf("%-40s %6.2f s (%.2f s of processor on the deploying machine), evaluations: %d", what, r.seconds, r.cpu, len(b.evaluated()))
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

// boxOf is a rack of n hosts, not deployed yet: three servers, and agents on three quarters of the others.
func boxOf(t *testing.T, n int) *box {
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
	return b
}

// benchBase names another build of k3splan, with which deployments are compared.
const benchBase = "K3SPLAN_BENCH_BASE"

// A deployment that changes nothing, over 50 hosts, against the build of another commit: K3SPLAN_BENCH_BASE=FILE go test
// ./cmd/k3splan -run TestBenchNoOp -v, or make bench-eval. The two run in turn, so that what else the machine does meets
// both; the value is the median of the ratios.
func TestBenchNoOp(t *testing.T) {
	base := os.Getenv(benchBase)
	if base == "" {
		t.Skip("SKIP: needs another build of k3splan in " + benchBase)
	}
	const n, runs, target = 50, 9, 0.6
	// each has a rack of its own: what a host is made from may count differently for them
	racks := map[string]*box{}
	for _, program := range []string{base, "k3splan"} {
		b := boxOf(t, n)
		racks[program] = b
		cmd := b.command(program, "-p", b.project(), "deploy", "--json", "--yes", "--gate-pause", "100ms", "--max-unavailable", "25%")
		r := b.finish(cmd, b.begin(cmd))
		require.Zero(t, r.code, r.stderr)
		b.words("builds")
		b.words("evaluations")
	}
	took := func(program string) float64 {
		b := racks[program]
		cmd := b.command(program, "-p", b.project(), "deploy", "--json", "--yes")
		start := time.Now()
		r := b.finish(cmd, b.begin(cmd))
		seconds := time.Since(start).Seconds()
		require.Zero(t, r.code, r.stderr)
		require.Len(t, r.results, n)
		for host, result := range r.results {
			require.Equal(t, rollout.Unchanged, result.Status, host)
		}
		require.Empty(t, append(b.built(), b.evaluated()...))
		return seconds
	}
	var ratios []float64
	for range runs {
		was := took(base)
		ratios = append(ratios, took("k3splan")/was)
	}
	slices.Sort(ratios)
	verdict := "ok"
	if ratios[runs/2] > target {
		verdict = "short"
	}
	fmt.Printf("noop-deploy-50 %.2f %.2f %s\n", ratios[runs/2], target, verdict)
	t.Logf("all ratios: %.2f", ratios)
}
