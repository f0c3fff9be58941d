package main

import (
	"encoding/json"
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

	"k3splan/internal/lifecycle"
)

// life runs replace or decommission, and reads its JSON.
func (b *box) life(args ...string) (ran, lifecycle.Outcome) {
	b.t.Helper()
	r := b.k3splan(append(args, "--json", "--yes")...)
	var o lifecycle.Outcome
	if r.stdout != "" {
		require.NoError(b.t, json.Unmarshal([]byte(r.stdout), &o), r.stdout)
	}
	return r, o
}

// steps are the steps of an outcome with their status, in order.
func steps(o lifecycle.Outcome) (list []string) {
	for _, s := range o.Steps {
		list = append(list, s.Step+" "+string(s.Status))
	}
	return list
}

// die switches a machine off, with its containers.
func (b *box) die(host string) {
	b.t.Helper()
	b.stop(host)
	b.remove("running/" + host + "-s")
	if _, err := os.Stat(filepath.Join(b.dir, "nodes", host+"-a")); err == nil {
		b.write("unready-"+host+"-a", "", 0o644)
	}
}

// interrupted runs k3splan and signals it right after a command on a machine has had its effect.
func (b *box) interrupted(signal syscall.Signal, moment string, args ...string) ran {
	b.t.Helper()
	b.write("fault", "slow "+moment+"\n", 0o666)
	cmd := b.command(append([]string{"k3splan", "-p", b.project()}, args...)...)
	s := b.begin(cmd)
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	for !strings.HasPrefix(b.read("fault"), "seen") {
		select {
		case <-ended:
			r := b.finish(cmd, s)
			require.Fail(b.t, "it has ended before "+moment, "%d: %s%s", r.code, r.stdout, r.stderr)
		case <-time.After(20 * time.Millisecond):
		}
	}
	require.NoError(b.t, syscall.Kill(-cmd.Process.Pid, signal))
	<-ended
	b.remove("fault")
	return b.finish(cmd, s)
}

// A machine leaves, another one dies and is replaced. One rack serves all scenarios, in this order.
func TestLifeInABox(t *testing.T) {
	b := newBox(t)
	b.project5()
	hosts := []string{"olaf", "ulf", "rolf", "karl", "ulrich"}
	for i, name := range hosts {
		b.add(name, "10.77.0."+string(rune('2'+i)))
	}
	b.write("project/secrets/karlpasswd", testHash, 0o600)
	r := b.deploy()
	require.Equal(t, all("deployed", five...), r.status(), r.stderr)
	rows := map[string]string{"hosts": b.read("project/plans/hosts.csv"), "k3s": b.read("project/plans/k3s.csv")}
	tables := func() string { return b.read("project/plans/hosts.csv") + b.read("project/plans/k3s.csv") }
	has := func(name string) bool {
		_, err := os.Stat(filepath.Join(b.dir, name))
		return err == nil
	}
	scenario := func(name string, do func(t *testing.T)) {
		t.Helper()
		if t.Failed() {
			return
		}
		t.Run(name, func(t *testing.T) {
			outer := b.t
			b.t = t
			defer func() { b.t = outer }()
			b.events()
			b.activated()
			do(t)
		})
	}

	scenario("nothing is done without an answer, nor with wrong input", func(t *testing.T) {
		before := tables()
		for _, wrong := range []struct {
			args []string
			says string
		}{
			{[]string{"decommission", "karl"}, "confirmation needed, but stdin is not a terminal"},
			{[]string{"replace", "karl"}, "refused: karl answers, and was deployed on 20"},
			{[]string{"decommission", "carl", "--yes"}, `did you mean "karl"?`},
			{[]string{"replace", "karl", "--yes", "--mac", "xyz"}, "mac-invalid|not a MAC address"},
			{[]string{"decommission", "karl", "--yes", "--drain-timeout", "0s"}, "--drain-timeout must be a second or more"},
		} {
			r := b.k3splan(wrong.args...)
			require.NotZero(t, r.code)
			if !strings.Contains(r.stderr, "refused") {
				require.Equal(t, 2, r.code, "%s: %s", wrong.args, r.stderr)
			}
			require.Regexp(t, wrong.says, r.stdout+r.stderr)
		}
		r := b.k3splan("decommission", "karl", "--dry-run")
		require.Zero(t, r.code, r.stderr)
		require.Contains(t, r.stdout, "1. drain the Node karl-a\n2. stop the agent karl-a and keep it from starting again\n3. delete the Node karl-a and its password\n4. retire the password and the ssh key of karl\n5. remove karl from the plan\n")
		require.Contains(t, r.stdout, "-karl,lan,10.77.0.5,karl,4\n")
		require.Equal(t, before, tables())
		require.Empty(t, b.events())
	})

	scenario("the Node has the labels and taints of the plan", func(t *testing.T) {
		b.write("labels-karl-a", b.read("labels-karl-a")+"mine=1\n", 0o644) // set by somebody else
		for _, step := range []struct{ cells, labels, taints string }{
			{"disk=large zone=a,gpu=yes:NoSchedule", "disk=large\nmine=1\nzone=a\n", "gpu=yes:NoSchedule\n"},
			{"disk=small,gpu=no:NoSchedule store:NoExecute", "disk=small\nmine=1\n", "gpu=no:NoSchedule\nstore:NoExecute\n"},
			{",", "mine=1\n", ""},
		} {
			table := strings.ReplaceAll(rows["k3s"], "type,ip,labels", "type,ip,labels,taints")
			table = strings.ReplaceAll(table, ",\n", ",,\n")
			b.write("project/plans/k3s.csv", strings.Replace(table, "10.77.0.25,,", "10.77.0.25,"+step.cells, 1), 0o644)
			r := b.deploy()
			require.Zero(t, r.code, r.stderr)
			sorted := func(name string) string {
				lines := strings.SplitAfter(b.read(name), "\n")
				slices.Sort(lines)
				return strings.Join(lines, "")
			}
			require.Equal(t, step.labels, sorted("labels-karl-a"))
			require.Equal(t, step.taints, sorted("taints-karl-a"))
		}
		b.write("project/plans/k3s.csv", rows["k3s"], 0o644)
		require.Zero(t, b.deploy().code)
	})

	scenario("an agent leaves: whatever fails, the same command goes on", func(t *testing.T) {
		b.write("pinned-karl-a", "db-0", 0o644)
		r, o := b.life("decommission", "karl", "--drain-timeout", "1s")
		require.Equal(t, 1, r.code)
		require.Equal(t, []string{"drain failed", "stop-agent not reached", "node not reached", "secrets not reached", "plan not reached"}, steps(o))
		require.Contains(t, r.stderr, `drain the Node karl-a, on olaf-s, within 1s: pods/"db-0" -n "shop"`)
		require.Contains(t, r.stderr, "the Node takes no new pods until `kubectl uncordon karl-a`; --no-drain leaves the pods where they are")
		require.Empty(t, b.events())
		b.remove("pinned-karl-a")
		for _, fault := range []string{"before drain", "after drain", "before stop podman-karl-a", "after stop podman-karl-a", "before daemon-reload"} {
			b.write("fault", fault+"\n", 0o666)
			r, _ := b.life("decommission", "karl")
			require.Equal(t, 1, r.code, "%s: %s%s", fault, r.stdout, r.stderr)
			require.Contains(t, r.stderr, "the same command again goes on from there")
			require.False(t, has("fault"), fault)
		}
		require.Contains(t, b.read("project/plans/hosts.csv"), "karl", "the command needs the row until the end")
		b.write("fault", "after daemon-reload\n", 0o666)
		require.Equal(t, 1, b.k3splan("decommission", "karl", "--yes").code)
		b.write("fault", "after delete node\n", 0o666) // another server helps at once
		r, o = b.life("decommission", "karl")
		require.Zero(t, r.code, r.stderr)
		require.False(t, has("fault"))
		require.Equal(t, []string{"drain already", "stop-agent already", "node done", "secrets done", "plan done"}, steps(o))
		require.Equal(t, []string{"karl keeps the state of k3s and the tokens of the cluster: erase its disks before somebody else gets it", "karl keeps running: switch it off, or install it again"}, o.Left)
		require.NotContains(t, tables(), "karl")
		require.False(t, has("nodes/karl-a"))
		require.False(t, has("passwords/karl-a"))
		require.False(t, has("project/secrets/karlpasswd"))
		retired, err := filepath.Glob(filepath.Join(b.project(), "secrets/retired/karlpasswd-*"))
		require.NoError(t, err)
		require.Len(t, retired, 1)
		require.Equal(t, "/dev/null\n", b.on("karl", "readlink /etc/systemd/system.control/podman-karl-a.service"))
		require.Equal(t, "no\n", b.on("karl", "test -e /var/lib/k3splan/receipt && echo yes || echo no"))
		r = b.k3splan("decommission", "karl", "--yes")
		require.Equal(t, 2, r.code, "it is not in the plan any more")
		// the others only learn that a name is away; that no Node stays behind is known
		r = b.k3splan("deploy", "--dry-run")
		require.NotContains(t, r.stdout, "stays behind")
		r = b.deploy()
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, []string{"/etc/hosts: -karl, -karl-a"}, r.results["ulrich"].Reasons)
		require.NotContains(t, strings.Join(b.events(), " "), "restart")
	})

	scenario("the same machine comes back", func(t *testing.T) {
		b.write("project/plans/hosts.csv", rows["hosts"], 0o644)
		b.write("project/plans/k3s.csv", rows["k3s"], 0o644)
		b.remove("hosts/karl/agent") // its container does not run
		r := b.deploy()
		require.Zero(t, r.code, r.stderr)
		require.True(t, has("hosts/karl/agent-runs"))
		require.Equal(t, "no\n", b.on("karl", "test -L /etc/systemd/system.control/podman-karl-a.service && echo yes || echo no"))
	})

	scenario("a server leaves, killed in the middle: never below the majority", func(t *testing.T) {
		b.on("rolf", "mkdir -p /var/lib/nixos-containers/rolf-s/var/lib/rancher/k3s/volume && mount -t tmpfs tmpfs /var/lib/nixos-containers/rolf-s/var/lib/rancher/k3s/volume")
		for _, moment := range []string{"stop container@rolf-s", "member remove"} {
			b.interrupted(syscall.SIGKILL, moment, "decommission", "rolf", "--yes", "--wipe-state")
			require.Contains(t, tables(), "rolf")
		}
		r := b.interrupted(syscall.SIGINT, "systemctl show", "decommission", "rolf", "--yes", "--wipe-state")
		require.Equal(t, 1, r.code)
		require.Contains(t, r.stderr, "interrupted")
		r, o := b.life("decommission", "rolf", "--wipe-state")
		require.Zero(t, r.code, r.stderr)
		require.Contains(t, steps(o), "wipe-state done")
		require.False(t, has("members/rolf-s"))
		require.NotContains(t, tables(), "rolf")
		events := strings.Join(b.events(), "\n")
		require.NotContains(t, events, "rejoined")
		require.NotContains(t, events, "quorum lost")
		require.Contains(t, events, "stop container@rolf-s.service")
		require.Equal(t, "empty\n", b.on("rolf", "ls /var/lib/nixos-containers/rolf-s/var/lib/rancher /var/lib/k3splan/server/token 2> /dev/null || echo empty"))
	})

	scenario("one of two servers is refused, with the way out", func(t *testing.T) {
		before := tables()
		r, _ := b.life("decommission", "ulf")
		require.Equal(t, 1, r.code)
		require.Contains(t, r.stderr, "refused: etcd has 2 voters and needs 2: without ulf-s it could decide nothing, not even to remove it")
		r = b.k3splan("decommission", "ulf", "--yes")
		require.Contains(t, r.stderr, "hint: let a third server join first: k3splan add server HOST, then k3splan deploy")
		require.Equal(t, before, tables())
		require.Empty(t, b.events())
	})

	scenario("it joins again, as a new member", func(t *testing.T) {
		b.write("project/plans/hosts.csv", rows["hosts"], 0o644)
		b.write("project/plans/k3s.csv", rows["k3s"], 0o644)
		b.remove("hosts/rolf/server")
		b.on("rolf", "rm -r /var/lib/nixos-containers/rolf-s")
		r := b.deploy()
		require.Zero(t, r.code, r.stderr)
		require.True(t, has("running/rolf-s"))
	})

	scenario("the init server's machine is replaced", func(t *testing.T) {
		b.die("olaf")
		r, o := b.life("replace", "olaf", "--serial", "new-disk", "--mac", "52:54:00:00:00:09", "--new-key")
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, []string{"etcd-member done", "node done", "plan done", "ssh-key done"}, steps(o))
		require.Contains(t, b.read("project/plans/hosts.csv"), "olaf,lan,10.77.0.2,olaf,1,new-disk,52:54:00:00:00:09\n")
		require.Contains(t, b.read("project/plans/k3s.csv"), "olaf,olaf-s,server,10.77.0.12,\n")
		require.Contains(t, b.read("project/plans/k3s.csv"), "rolf,rolf-s,init,10.77.0.14,\n")
		require.Equal(t, []string{"k3splan boot-stick olaf /dev/sdX   # installs the new machine", "k3splan deploy olaf   # its server joins etcd again, before any other restarts", "k3splan deploy"}, o.Next)
		require.False(t, has("members/olaf-s"))
		require.False(t, has("nodes/olaf-a"))
		require.True(t, has("project/secrets/hosts/olaf_ed25519"))
		// again: there is nothing left
		r, o = b.life("replace", "olaf", "--serial", "new-disk", "--mac", "52:54:00:00:00:09")
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, []string{"etcd-member already", "node already", "plan already"}, steps(o))

		// the new machine
		b.remove("hosts/olaf/server")
		b.remove("hosts/olaf/agent")
		b.remove("hosts/olaf/agent-runs")
		for _, folder := range []string{"var/lib/k3splan", "var/lib/nixos-containers", "etc/systemd/system.control", "run/current-system"} {
			b.remove("hosts/olaf/" + folder)
		}
		require.NoError(t, os.MkdirAll(filepath.Join(b.dir, "hosts/olaf/var/lib/k3splan"), 0o755))
		b.installed("hosts/olaf")
		b.remove("project/secrets/hosts/olaf_ed25519") // the key is that of the box
		b.start("olaf")
		r = b.deploy("olaf")
		require.Zero(t, r.code, r.stderr)
		require.True(t, has("running/olaf-s"))
		r = b.deploy()
		require.Zero(t, r.code, r.stderr)
		require.NotContains(t, strings.Join(b.events(), "\n"), "quorum lost")
		r = b.k3splan("replace", "olaf", "--yes")
		require.Equal(t, 1, r.code)
		require.Contains(t, r.stderr, "only a machine that is dead or empty is replaced")
	})

	scenario("a dead machine leaves: what can be done is done", func(t *testing.T) {
		b.die("ulf")
		b.write("running/ulf-s", "", 0o644) // ssh is dead, the server is not
		r, _ := b.life("decommission", "ulf")
		require.Equal(t, 1, r.code)
		require.Contains(t, r.stderr, "but its server ulf-s still answers olaf-s")
		b.remove("running/ulf-s")
		r, o := b.life("decommission", "ulf")
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, []string{"drain left", "stop-agent left", "stop-server left", "etcd-member done", "node done", "secrets already", "plan done"}, steps(o))
		require.Contains(t, o.Left[0], "when ulf starts again, so do the server ulf-s and the agent ulf-a")
		require.NotContains(t, strings.Join(b.events(), "\n"), "rejoined")
	})

	scenario("a host without k3s", func(t *testing.T) {
		r := b.k3splan("decommission", "ulrich", "--yes")
		require.Zero(t, r.code, r.stderr)
		require.Regexp(t, `(?m)^delete the receipt on ulrich +done$`, r.stdout)
		require.Contains(t, r.stderr, "next: k3splan deploy -p "+b.project())
		require.Equal(t, "no\n", b.on("ulrich", "test -e /var/lib/k3splan/receipt && echo yes || echo no"))
	})
}

// The same with real members of etcd, whose own status is looked at twice a second all the time: the healthy voters
// are never less than the majority, whatever is killed in the middle.
func TestLeavingARealEtcd(t *testing.T) {
	b := newBox(t)
	programs := map[string]string{}
	for _, program := range []string{"etcd", "etcdctl", "curl"} {
		found, err := exec.LookPath(program)
		if err != nil {
			t.Skipf("SKIP: %s is not there (Debian: etcd-server etcd-client curl)", program)
		}
		programs[program] = found
	}
	require.NoError(t, os.MkdirAll(filepath.Join(b.dir, "etcd-bin"), 0o755))
	for program, found := range programs {
		require.NoError(t, os.Symlink(found, filepath.Join(b.dir, "etcd-bin", program)))
	}
	b.write("etcd", filepath.Join(b.dir, "etcd-bin"), 0o644)
	b.project5()
	for i, name := range []string{"olaf", "ulf", "rolf", "karl", "ulrich"} {
		b.add(name, "10.77.0."+string(rune('2'+i)))
	}
	hosts, k3s := b.read("project/plans/hosts.csv"), b.read("project/plans/k3s.csv")
	r := b.deploy()
	require.Equal(t, all("deployed", five...), r.status(), r.stderr)

	watch := b.command(filepath.Join(b.data, "watch.sh"), filepath.Join(b.dir, "etcd-bin"), "10.77.0.12", "10.77.0.13", "10.77.0.14")
	seen, err := os.Create(filepath.Join(b.dir, "seen"))
	require.NoError(t, err)
	watch.Stdout = seen
	require.NoError(t, watch.Start())
	defer func() { _ = watch.Process.Kill(); _ = watch.Wait() }()
	samples := func() []string { return strings.Split(strings.TrimSpace(b.read("seen")), "\n") }
	healthy := func(want string) {
		t.Helper()
		require.Eventually(t, func() bool { all := samples(); return strings.HasSuffix(all[len(all)-1], want) }, 3*time.Minute, 100*time.Millisecond, want)
	}
	var excused int // samples while a machine is dead and the others elect a leader: no command of k3splan runs
	lowest, counted := 9, 0
	check := func(what string) {
		t.Helper()
		all := samples()
		low := 9
		for _, line := range all[excused+counted:] {
			fields := strings.Fields(line)
			up, err := strconv.Atoi(fields[1])
			require.NoError(t, err)
			voters, err := strconv.Atoi(fields[2])
			require.NoError(t, err, "%s: %s", what, line)
			require.GreaterOrEqual(t, up, voters/2+1, "%s: %s", what, line)
			low = min(low, up-(voters/2+1))
			counted++
		}
		lowest = min(lowest, low)
		t.Logf("%s: never less than %d beyond the majority", what, low)
	}
	healthy(" 3 3")
	check("three servers")

	// killed while the server has stopped, and while it has been removed
	for _, moment := range []string{"stop container@rolf-s", "member remove"} {
		b.interrupted(syscall.SIGKILL, moment, "decommission", "rolf", "--yes", "--wipe-state")
		check("decommission killed at " + moment)
	}
	r, o := b.life("decommission", "rolf", "--wipe-state")
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, "plan done", steps(o)[len(o.Steps)-1])
	healthy(" 2 2")
	check("decommission, again")
	r, _ = b.life("decommission", "ulf")
	require.Equal(t, 1, r.code, "one of two is refused")
	check("one of two refused")

	b.write("project/plans/hosts.csv", hosts, 0o644)
	b.write("project/plans/k3s.csv", k3s, 0o644)
	b.remove("hosts/rolf/server")
	r = b.deploy()
	require.Zero(t, r.code, r.stderr)
	healthy(" 3 3")
	check("it joins again")

	// the init server's machine dies: until the others have a leader, etcd itself has none
	b.die("olaf")
	b.remove("hosts/olaf/etcd.pid")
	before := excused + counted
	healthy(" 2 3")
	excused += len(samples()) - before
	b.write("fault", "after member remove\n", 0o666)
	r, _ = b.life("replace", "olaf", "--serial", "new-disk")
	if r.code != 0 { // the other server could not know
		r, _ = b.life("replace", "olaf", "--serial", "new-disk")
	}
	require.Zero(t, r.code, r.stderr)
	healthy(" 2 2")
	check("replace")
	for _, folder := range []string{"server", "agent", "agent-runs", "var/lib/k3splan", "var/lib/nixos-containers", "run/current-system"} {
		b.remove("hosts/olaf/" + folder)
	}
	require.NoError(t, os.MkdirAll(filepath.Join(b.dir, "hosts/olaf/var/lib/k3splan"), 0o755))
	b.installed("hosts/olaf")
	b.start("olaf")
	r = b.deploy("olaf")
	require.Zero(t, r.code, r.stderr)
	healthy(" 3 3")
	check("the new machine joins")
	r = b.deploy()
	require.Zero(t, r.code, r.stderr)
	healthy(" 3 3")
	check("the others restart, one after the other")
	require.Zero(t, lowest, "while a server is away, two of three are just the majority")
	t.Logf("%d samples, %d more while a leader was elected after the machine had died; lowest: %d beyond the majority", counted, excused, lowest)
}
