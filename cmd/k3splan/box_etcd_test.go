package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// etcdWatch asks the members of a real etcd twice a second how they are, each for itself.
type etcdWatch struct {
	b    *box
	file string
}

// watchEtcd watches until the test ends.
func (b *box) watchEtcd(addresses ...string) etcdWatch {
	b.t.Helper()
	w := etcdWatch{b, filepath.Join(b.dir, "watched")}
	out, err := os.Create(w.file)
	require.NoError(b.t, err)
	command := exec.Command("ip", append([]string{"netns", "exec", b.netns("deployer"), "sh", filepath.Join(b.data, "watch.sh"), strings.TrimSpace(b.read("etcd"))}, addresses...)...)
	command.Stdout = out
	require.NoError(b.t, command.Start())
	b.t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait(); _ = out.Close() })
	return w
}

// samples are those from a line on.
func (w etcdWatch) samples(from int) (list []struct{ healthy, voters int }) {
	text, err := os.ReadFile(w.file)
	require.NoError(w.b.t, err)
	for _, line := range strings.Split(string(text), "\n")[from:] {
		var when string
		sample := struct{ healthy, voters int }{}
		if _, err := fmt.Sscan(line, &when, &sample.healthy, &sample.voters); err == nil || strings.HasSuffix(line, "unknown") {
			list = append(list, sample)
		}
	}
	return list
}

// until waits until as many members are healthy, of as many voters.
func (w etcdWatch) until(healthy, voters int) {
	w.b.t.Helper()
	require.Eventually(w.b.t, func() bool {
		all := w.samples(0)
		return len(all) > 0 && all[len(all)-1].healthy == healthy && all[len(all)-1].voters == voters
	}, time.Minute, 100*time.Millisecond, "%d of %d: %s", healthy, voters, w.file)
}

// neverBelowMajority does something, and compares what was seen meanwhile.
func (w etcdWatch) neverBelowMajority(do func()) {
	w.b.t.Helper()
	from := len(w.samples(0))
	do()
	seen := w.samples(from)
	for _, sample := range seen {
		require.Greater(w.b.t, sample.healthy, sample.voters/2, "healthy voters: %v", seen)
	}
	w.b.t.Logf("%d times at least the majority", len(seen))
}

// Machines of servers with a real etcd die and are replaced, or leave, while k3splan is killed right after what
// it cannot take back.
func TestLifeWithRealEtcd(t *testing.T) {
	if os.Getenv("K3SPLAN_BOOT") != "all" {
		t.Skip("SKIP: a rack with a real etcd takes minutes (make boot-all)")
	}
	program, err := exec.LookPath("etcd")
	if err != nil {
		t.Skip("SKIP: etcd is not on PATH (Debian: apt-get install etcd-server etcd-client curl)")
	}
	b := newBox(t)
	b.write("etcd", filepath.Dir(program)+"\n", 0o644)
	b.project5()
	for i, name := range []string{"olaf", "ulf", "rolf", "karl", "ulrich"} {
		b.add(name, "10.77.0."+string(rune('2'+i)))
	}
	r := b.deploy()
	require.Equal(t, all("deployed", five...), r.status(), r.stderr)
	watch := b.watchEtcd("10.77.0.12", "10.77.0.13", "10.77.0.14")
	watch.until(3, 3)

	// replaced brings a new machine into the place of one that has died.
	replaced := func(t *testing.T, host, serial string) {
		b.stop(host)
		b.write("unready-"+host+"-a", "", 0o644)
		others := []string{"10.77.0.12", "10.77.0.13", "10.77.0.14"}
		others = slices.DeleteFunc(others, func(ip string) bool { return ip == strings.TrimSpace(b.read("members/"+host+"-s")) })
		require.Eventually(t, func() bool { // they believe in a leader that has died for a while
			return b.command("env", "ETCDCTL_API=3", "etcdctl", "--endpoints="+others[0]+":2379,"+others[1]+":2379", "endpoint", "health").Run() == nil
		}, time.Minute, 100*time.Millisecond)
		watch.until(2, 3)
		command := []string{"replace", host, "--serial", serial, "--yes"}
		watch.neverBelowMajority(func() {
			for _, moment := range []string{"member remove", "delete node " + host + "-a", "delete secret " + host + "-a"} {
				b.interrupted(syscall.SIGKILL, moment, command...)
			}
			r := b.k3splan(command...)
			require.Zero(t, r.code, r.stdout+r.stderr)
			require.Regexp(t, `(?m)^remove `+host+`-s from etcd +already`, r.stdout)
			watch.until(2, 2)
			require.Contains(t, b.read("project/plans/hosts.csv"), serial)
			require.False(t, b.has("nodes/"+host+"-a"))
			require.False(t, b.has("passwords/"+host+"-a"))
			b.install(host)
			r = b.deploy(host)
			require.Equal(t, all("deployed", host), r.status(), r.stderr)
			watch.until(3, 3)
			r = b.deploy()
			require.Zero(t, r.code, r.stderr)
		})
		require.Zero(t, b.k3splan("status").code)
	}

	b.scenario(t, "a dead server is replaced", func(t *testing.T) { replaced(t, "ulf", "WD-1") })
	b.scenario(t, "the init server is replaced: another one is what others join by", func(t *testing.T) {
		replaced(t, "olaf", "WD-2")
		require.NotContains(t, b.read("project/plans/k3s.csv"), "olaf-s,init")
	})
	b.scenario(t, "a server leaves, and joins again", func(t *testing.T) {
		watch.neverBelowMajority(func() {
			for _, moment := range []string{"stop container@ulf-s", "member remove"} {
				b.interrupted(syscall.SIGKILL, moment, "decommission", "ulf", "--yes", "--wipe-state")
			}
			require.Zero(t, b.k3splan("decommission", "ulf", "--yes", "--wipe-state").code)
			watch.until(2, 2)
			r := b.k3splan("decommission", "olaf", "--yes")
			require.Equal(t, 1, r.code)
			require.Contains(t, r.stderr, "refused: etcd has 2 voters and needs 2")
			require.Zero(t, b.k3splan("add", "host", "ulf", "--interface", "lan", "--ip", "10.77.0.3", "--admin", "ulf").code)
			require.Zero(t, b.k3splan("add", "server", "ulf", "--name", "ulf-s", "--ip", "10.77.0.13").code)
			b.remove("hosts/ulf/server")
			r = b.deploy()
			require.Zero(t, r.code, r.stderr)
			watch.until(3, 3)
		})
	})
}
