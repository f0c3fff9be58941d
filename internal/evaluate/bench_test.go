package evaluate_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena"
	"k3splan/internal/evaluate"
	"k3splan/internal/fingerprint"
)

// TestBenchEval measures evaluation against the real Colmena, each row as a ratio of two programs that run one after
// the other: make bench-eval. It prints a line a row, NAME VALUE TARGET ok|short, and fails for none.
func TestBenchEval(t *testing.T) {
	if os.Getenv("K3SPLAN_BENCH_EVAL") == "" {
		t.Skip("only for make bench-eval")
	}
	t.Cleanup(func() {
		if t.Skipped() {
			fmt.Println("SKIP all rows of make bench-eval: no real Colmena on PATH, or no evaluation harness (K3SPLAN_EVALHIVE)")
		}
	})
	needsColmena(t)
	b := &bench{t: t}
	hosts, err := strconv.Atoi(os.Getenv("K3SPLAN_BENCH_EVAL"))
	require.NoError(t, err)
	r := render(t, rackOf(hosts))
	all := strings.Join(r.hosts, ",")
	b.withoutBuilds()
	b.colmena(r, "build", "--on", r.hosts[0]) // so that the derivations that all have are in the store
	b.evaluate(r, r.hosts, 1<<30)

	// the largest process of all so far is what the kernel says: from small to large
	small := b.evaluate(r, r.hosts, 1<<30)
	ours := b.evaluate(r, r.hosts, 0)
	resolved, close := b.resolved(r)
	defer close()
	one := b.evaluate(r, r.hosts[1:2], 0)
	apply := b.measure(func() { b.colmenaOn(resolved, "build", "--on", r.hosts[1]) })
	theirOne := b.colmena(r, "build", "--on", r.hosts[1])
	their := b.colmena(r, "build", "--on", all)

	b.row(fmt.Sprintf("deploy-%d-cpu", hosts), (ours.cpu+float64(hosts)*apply.cpu)/(their.cpu+float64(hosts)*theirOne.cpu), 0.25)
	b.row(fmt.Sprintf("single-evaluation-%d-cpu", hosts), ours.cpu/their.cpu, 0.60)
	b.row(fmt.Sprintf("single-evaluation-%d-wall", hosts), ours.wall/their.wall, 0.45)
	b.row(fmt.Sprintf("largest-process-%d", hosts), ours.peak/their.peak, 0.25)
	b.row(fmt.Sprintf("largest-process-%d-with-1G", hosts), small.peak/their.peak, 0.20)
	b.row(fmt.Sprintf("one-row-of-%d-to-first-copy", hosts), (one.cpu+apply.cpu)/theirOne.cpu, 0.5)
	b.row("again-evaluations", float64(b.again(r)), 0)
	if many, _ := strconv.Atoi(os.Getenv("K3SPLAN_BENCH_HOSTS")); many > 0 {
		large := render(t, rackOf(many))
		b.evaluate(large, large.hosts[:1], 0)
		linear := b.evaluate(large, large.hosts, 0)
		b.row(fmt.Sprintf("linear-%d", many), linear.cpu/float64(many)/(ours.cpu/float64(hosts)), 1.1)
	} else {
		fmt.Println("SKIP linear-200: takes a quarter of an hour; K3SPLAN_BENCH_HOSTS=200 measures it")
	}
	fmt.Printf("# %d processors; evaluation of %d hosts: %.1f s of processor, %.1f s, largest process %.0f MB; Colmena's own: %.1f s, %.1f s, %.0f MB; one host on the resolved hive %.2f s, on the real one %.2f s\n",
		cpus(), hosts, ours.cpu, ours.wall, ours.peak/1e6, their.cpu, their.wall, their.peak/1e6, apply.cpu, theirOne.cpu)
}

type bench struct {
	t     *testing.T
	found *evaluate.Result
}

// use is what programs have taken: seconds, and bytes of the largest process.
type use struct{ cpu, wall, peak float64 }

func (b *bench) measure(do func()) use {
	before, start := childUse(b.t), time.Now()
	do()
	after := childUse(b.t)
	return use{after.cpu - before.cpu, time.Since(start).Seconds(), after.peak}
}

func childUse(t *testing.T) use {
	var usage syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_CHILDREN, &usage))
	return use{cpu: time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds(), peak: float64(usage.Maxrss) * 1024}
}

func (b *bench) row(name string, value, target float64) {
	verdict := "ok"
	if value > target {
		verdict = "short"
	}
	fmt.Printf("%s %.2f %.2f %s\n", name, value, target, verdict)
}

// withoutBuilds lets nothing be built: only evaluations are measured.
func (b *bench) withoutBuilds() {
	bin := b.t.TempDir()
	real, err := exec.LookPath("nix-store")
	require.NoError(b.t, err)
	script := "#!/bin/sh\ncase \"$*\" in *--realise*) echo /nix/store/00000000000000000000000000000000-nixos-system ;; *) exec " + real + " \"$@\" ;; esac\n"
	require.NoError(b.t, os.WriteFile(filepath.Join(bin, "nix-store"), []byte(script), 0o755))
	b.t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
}

func (b *bench) colmena(r rendered, args ...string) use {
	hive, err := colmena.OpenHive(r.hive)
	require.NoError(b.t, err)
	defer hive.Close()
	return b.measure(func() { b.colmenaOn(hive, args...) })
}

func (b *bench) colmenaOn(hive *colmena.Hive, args ...string) {
	command := exec.Command("colmena", append([]string{args[0], "-f", hive.File}, args[1:]...)...)
	command.Env = append(os.Environ(), hive.Env...)
	out, err := command.CombinedOutput()
	require.NoError(b.t, err, string(out))
}

func (b *bench) request(r rendered, memory int64) evaluate.Request {
	return evaluate.Request{Dir: r.dir, Hive: r.hive, Colmena: "colmena", Inputs: map[string]fingerprint.Inputs{}, Memory: memory}
}

func (b *bench) evaluate(r rendered, hosts []string, memory int64) use {
	return b.measure(func() {
		found, err := evaluate.Hosts(b.t.Context(), b.request(r, memory), hosts)
		require.NoError(b.t, err)
		require.NoError(b.t, found.Err())
		require.Len(b.t, found.Evaluated, len(hosts))
		b.found = found
	})
}

// resolved is a hive of what was evaluated last.
func (b *bench) resolved(r rendered) (*colmena.Hive, func() error) {
	known := map[string]colmena.Resolved{}
	for name, host := range b.found.Hosts {
		known[name] = host.Resolved()
	}
	hive, err := colmena.ResolvedHive(filepath.Join(filepath.Dir(r.hive), "sources.nix"), known, nil)
	require.NoError(b.t, err)
	return hive, hive.Close
}

// again counts the evaluations of hosts that were evaluated before. The nixpkgs of the harness has no hash: it is taken
// for pinned here.
func (b *bench) again(r rendered) int {
	request := b.request(r, 0)
	for name, in := range r.inputs {
		in.Loose = nil
		request.Inputs[name] = in
	}
	some := r.hosts[:3]
	for range 2 {
		found, err := evaluate.Hosts(b.t.Context(), request, some)
		require.NoError(b.t, err)
		if len(found.Evaluated) == 0 {
			return 0
		}
	}
	return len(some)
}

func cpus() int {
	text, _ := os.ReadFile("/proc/cpuinfo")
	return strings.Count("\n"+string(text), "\nprocessor")
}

// rackOf are the tables of a plan of n hosts, half of them with containers.
func rackOf(n int) map[string]string {
	hosts, k3s := "name,interface,ip,admin,serial,tags,room\n", "host,name,type,ip,labels\n"
	address := func(i int) string { return fmt.Sprintf("10.64.%d.%d", i>>8, i&255) }
	for i := range n {
		hosts += fmt.Sprintf("host-%d,eno1,%s,admin,serial-%d,a b,%d\n", i, address(2*i+2), i, i)
		role := "agent"
		switch {
		case i == 0:
			role = "init"
		case slices.Contains([]int{4, 8}, i):
			role = "server"
		case i%2 == 1:
			continue
		}
		k3s += fmt.Sprintf("host-%d,container-%d,%s,%s,\n", i, i, role, address(2*i+3))
	}
	return map[string]string{
		"plans/hosts.csv": hosts, "plans/k3s.csv": k3s,
		"plans/network.yaml": "netmask: 10\ngateway: 10.127.255.254\npod_cidr: 10.128.0.0/16\nservice_cidr: 10.129.0.0/16\nversions: {nixos: <nixpkgs>, k3s: '1.30'}\n",
	}
}
