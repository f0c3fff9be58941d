package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
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

// Machines leave and come back. One rack serves all scenarios, in this order.
func TestLifeInABox(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.keepConnections()
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
			require.False(t, b.has("fault"), fault)
		}
		require.Contains(t, b.read("project/plans/hosts.csv"), "karl", "the command needs the row until the end")
		b.write("fault", "after daemon-reload\n", 0o666)
		require.Equal(t, 1, b.k3splan("decommission", "karl", "--yes").code)
		b.write("fault", "after delete node\n", 0o666) // another server helps at once
		r, o = b.life("decommission", "karl")
		require.Zero(t, r.code, r.stderr)
		require.False(t, b.has("fault"))
		require.Equal(t, []string{"drain already", "stop-agent already", "node done", "secrets done", "plan done"}, steps(o))
		require.Equal(t, []string{"karl keeps the state of k3s and the tokens of the cluster: erase its disks before somebody else gets it", "karl keeps running: switch it off, or install it again"}, o.Left)
		require.NotContains(t, tables(), "karl")
		require.False(t, b.has("nodes/karl-a"))
		require.False(t, b.has("passwords/karl-a"))
		require.False(t, b.has("project/secrets/karlpasswd"))
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
		require.True(t, b.has("hosts/karl/agent-runs"))
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
		require.False(t, b.has("members/rolf-s"))
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
		require.True(t, b.has("running/rolf-s"))
	})
}
