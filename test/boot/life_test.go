package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/test/boot/lab"
)

// lifeSite is three servers, two of them with an agent, and their voters.
type lifeSite struct {
	*site
	servers, agents map[string]string
	voters          *voters
	// snapshot is the name of the first one, or "".
	snapshot string
}

// phase is a row during which the majority votes.
func (l *lifeSite) phase(name string, do func(t *testing.T)) {
	l.t.Helper()
	l.row(name, func(t *testing.T) {
		l.voters.in(name)
		do(t)
		l.voters.majority(t)
	})
}

// until waits until the members of these hosts are healthy, and no others.
func (l *lifeSite) until(hosts ...string) {
	l.t.Helper()
	slices.Sort(hosts)
	require.Eventually(l.t, func() bool { return slices.Equal(l.voters.now(), hosts) }, 5*time.Minute, 200*time.Millisecond, "healthy: want %v", hosts)
}

// inside runs a command in the container of the server of a host.
func (l *lifeSite) inside(host, command string) string {
	l.t.Helper()
	return l.do(host, "nixos-container run "+l.servers[host]+" -- "+command)
}

// node is a Node as the API server of a host has it.
type node struct {
	Metadata struct {
		UID    string
		Labels map[string]string
	}
	Spec struct {
		Taints []struct{ Key, Value, Effect string }
	}
}

func (l *lifeSite) node(host, name string) (n node) {
	l.t.Helper()
	require.NoError(l.t, json.Unmarshal([]byte(l.inside(host, "k3s kubectl get node "+name+" -o json")), &n))
	return n
}

// taints returns those with a key, as the plan writes them.
func (n node) taints(key string) string {
	var words []string
	for _, t := range n.Spec.Taints {
		if t.Key == key {
			words = append(words, t.Key+"="+t.Value+":"+t.Effect)
		}
	}
	return strings.Join(words, ";")
}

// killedBetween runs a command that shows its steps, kills it as soon as the next step begins, and so on with the same
// command again, until nothing is left to be killed. It returns what the last run said, and how many were killed.
func (l *lifeSite) killedBetween(args ...string) (result, int) {
	l.t.Helper()
	at := map[string]bool{}
	for {
		command := l.command(args...)
		var out, messages bytes.Buffer
		command.Stdout = &out
		reader, writer, err := os.Pipe()
		require.NoError(l.t, err)
		command.Stderr = writer
		require.NoError(l.t, command.Start())
		_ = writer.Close()
		lines, first, killed := bufio.NewScanner(io.TeeReader(reader, &messages)), "", ""
		for lines.Scan() {
			step := lines.Text()
			switch {
			case !isStep(step):
				continue
			case first == "":
				first = step
				continue
			case at[step]:
				continue
			}
			at[step], killed = true, step
			_ = command.Process.Kill()
			break
		}
		if killed == "" {
			_, _ = io.Copy(&messages, reader)
		}
		_ = command.Wait()
		_ = reader.Close()
		if killed == "" {
			return result{out.String(), messages.String(), command.ProcessState.ExitCode()}, len(at)
		}
		fmt.Printf("  killed at %q\n", killed)
	}
}

// isStep reports whether a line of messages is that of a step of a host.
func isStep(line string) bool {
	host, what, is := strings.Cut(line, ": ")
	return is && nics[host] != "" && !strings.HasPrefix(what, "waiting")
}

// newBox puts a new machine, with the system of the plan as a boot stick installs it, in the place of a host's.
func (l *lifeSite) newBox(host string) {
	l.t.Helper()
	systems, err := l.lab.Build(l.project, host)
	require.NoError(l.t, err)
	require.NoError(l.t, l.lab.Machine(host).Install(l.project, systems[host]))
	l.start(host, nics[host])
	require.NoError(l.t, l.lab.Machine(host).Image(lab.AgentImage))
}

// upToDate requires that a deployment would do nothing, and that all hosts are healthy.
func (l *lifeSite) upToDate() {
	l.t.Helper()
	require.Contains(l.t, l.ok("deploy", "--dry-run", "--json").out, `"waves": []`)
	l.ok("status")
}

// replaced lets a machine die, and brings another one into its place; helper is a server that stays.
func (l *lifeSite) replaced(host, helper, serial string) {
	l.t.Helper()
	agent := l.agents[host]
	before := l.node(helper, agent).Metadata.UID
	require.NoError(l.t, l.lab.Machine(host).Kill())
	early := l.say("", "replace", host, "--yes", "--serial", serial)
	require.NotZero(l.t, early.code, early.out)
	require.Contains(l.t, early.messages, "its Node "+agent+" is ready")
	l.wait(helper, "! "+agentReady(l.servers[helper], agent))

	last, kills := l.killedBetween("replace", host, "--yes", "--serial", serial)
	require.Zero(l.t, last.code, "%s%s", last.out, last.messages)
	fmt.Printf("replace %s: killed %d times\n%s%s", host, kills, last.out, last.messages)
	require.NotContains(l.t, l.inside(helper, "etcdctl member list"), l.servers[host])
	require.Empty(l.t, l.inside(helper, "k3s kubectl get node --ignore-not-found -o name "+agent))
	hosts, err := os.ReadFile(filepath.Join(l.project, "plans", "hosts.csv"))
	require.NoError(l.t, err)
	require.Contains(l.t, string(hosts), serial)

	began := time.Now()
	l.newBox(host)
	l.deployAll(host)
	l.until("olaf", "ulf", "rolf")
	fmt.Printf("%s: installed, started, deployed and a voter after %.1f s\n", host, time.Since(began).Seconds())
	l.wait(helper, agentReady(l.servers[helper], agent))
	require.NotEqual(l.t, before, l.node(helper, agent).Metadata.UID, "registered again")
	require.Contains(l.t, l.inside(helper, "etcdctl member list"), l.servers[host])
	l.deployAll()
	l.upToDate()
}

// deployAll deploys hosts, or all, whatever has to be confirmed.
func (l *lifeSite) deployAll(hosts ...string) result {
	l.t.Helper()
	return l.ok(append([]string{"deploy", "--yes"}, hosts...)...)
}

// typed runs k3splan on a terminal on which something is typed.
func (l *lifeSite) typed(word string, args ...string) result {
	l.t.Helper()
	command := l.lab.Deployer("script", "-qec", "k3splan -p "+l.project+" "+strings.Join(args, " "), "/dev/null")
	command.Env = append(command.Env, l.agent...)
	reader, writer, err := os.Pipe()
	require.NoError(l.t, err)
	defer writer.Close() // script ends with its input
	command.Stdin = reader
	_, err = writer.WriteString(word + "\n")
	require.NoError(l.t, err)
	return l.finish(command)
}

// Three servers: machines die and are replaced, leave and come back; a host goes back to an earlier system; the cluster
// is lost and restored. Whatever has several steps is killed between them.
func TestLifeInTheLab(t *testing.T) {
	if !all() {
		t.Skip("SKIP: the life of the rack is part of make boot-all")
	}
	l := &lifeSite{site: newSite(t, "rack", "10.0.100.1/24"),
		servers: map[string]string{"olaf": "olaf-k3s-server", "ulf": "ulf-k3s-server", "rolf": "rolf-k3s-server"},
		agents:  map[string]string{"olaf": "olaf-k3s-agent", "ulf": "ulf-k3s-agent"}}
	for _, host := range []string{"karl", "ulrich"} {
		l.ok("remove", "host", host, "--yes")
	}
	// it reads the plan: each change would be one of every host
	l.write("nixConfigs/all.nix", "{ }\n")

	l.row("installed: three servers", func(t *testing.T) {
		l.install(map[string]string{"olaf": nics["olaf"], "ulf": nics["ulf"], "rolf": nics["rolf"]})
		for host, server := range l.servers {
			l.wait(host, serverReady(server))
		}
		for _, agent := range l.agents {
			l.wait("olaf", agentReady("olaf-k3s-server", agent))
		}
	})
	if t.Failed() {
		return
	}
	l.voters = watchVoters(t, l.lab, l.servers)
	l.phase("first deploy", func(t *testing.T) {
		l.deploy("olaf", "ulf", "rolf")
		l.upToDate()
	})
	l.row("figures", func(t *testing.T) {
		l.voters.in("figures")
		restart := func() time.Duration {
			began := time.Now()
			l.do("rolf", "systemctl restart container@rolf-k3s-server")
			l.until("olaf", "rolf", "ulf")
			l.wait("rolf", serverReady("rolf-k3s-server"))
			return time.Since(began)
		}
		fmt.Printf("restart of a member until it is ready: %.1f s, %.1f s, %.1f s\n", restart().Seconds(), restart().Seconds(), restart().Seconds())
		// a leader that just ends leaves the others without one
		for range 3 {
			host := l.leader()
			l.do(host, "systemctl restart container@"+l.servers[host])
			l.until("olaf", "rolf", "ulf")
			l.wait(host, serverReady(l.servers[host]))
		}
		require.NoError(t, l.lab.Machine("rolf").Stop())
		began := time.Now()
		l.start("rolf", nics["rolf"])
		l.wait("rolf", serverReady("rolf-k3s-server"))
		fmt.Printf("power on until the server is ready: %.1f s\n", time.Since(began).Seconds())
		l.until("olaf", "rolf", "ulf")
		l.voters.majority(t)
	})
	l.phase("labels and taints of a Node come, change and go", func(t *testing.T) {
		const row = "ulf,ulf-k3s-agent,agent,10.0.100.23,"
		for _, step := range []struct{ was, is, label, taint string }{
			{row + ",", row + "disk=fast,lab=one:PreferNoSchedule", "fast", "lab=one:PreferNoSchedule"},
			{"disk=fast,lab=one", "disk=slow,lab=two", "slow", "lab=two:PreferNoSchedule"},
			{"disk=slow,lab=two:PreferNoSchedule", ",", "", ""},
		} {
			l.edit("plans/k3s.csv", step.was, step.is)
			l.deploy("ulf")
			n := l.node("olaf", "ulf-k3s-agent")
			require.Equal(t, step.label, n.Metadata.Labels["disk"])
			require.Equal(t, step.taint, n.taints("lab"))
		}
	})
	l.phase("rollback, and what deploy says then", func(t *testing.T) {
		l.write("nixConfigs/rolf.nix", "{ environment.etc.life.text = \"new\"; }\n")
		l.deploy("rolf")
		require.Equal(t, "new", l.do("rolf", "cat /etc/life"))
		fmt.Print(l.ok("generations", "rolf").out)
		fmt.Print(l.ok("rollback", "rolf", "--dry-run").out)
		l.ok("rollback", "rolf", "--yes")
		require.Equal(t, "gone", l.do("rolf", "cat /etc/life 2> /dev/null || echo gone"))
		status := l.ok("status")
		require.Contains(t, status.out, "rolled back")
		fmt.Print(l.ok("generations", "rolf").out)
		asked := l.say("", "deploy")
		require.NotZero(t, asked.code, "not without a confirmation")
		require.Contains(t, asked.out+asked.messages, "rolled back", "%s%s", asked.out, asked.messages)
		fmt.Print(asked.out, asked.messages)
		l.deploy("rolf")
		require.Equal(t, "new", l.do("rolf", "cat /etc/life"))
		l.upToDate()
	})
	if os.Getenv("LAB_K3S") == "" {
		fmt.Println("SKIP: snapshots need a real etcd (LAB_K3S)")
	} else {
		l.row("a snapshot; the cluster is lost, and restored", func(t *testing.T) { l.restored(t) })
	}
	l.phase("options of all servers", func(t *testing.T) {
		l.edit("k3s/server.yaml", "*/6", "*/8")
		l.deployAll()
		l.upToDate()
	})
	l.phase("a server dies, and is replaced", func(t *testing.T) { l.replaced("ulf", "olaf", "NEW-ULF") })
	l.phase("the init server dies, and is replaced", func(t *testing.T) {
		l.replaced("olaf", "ulf", "NEW-OLAF")
		k3s, err := os.ReadFile(filepath.Join(l.project, "plans", "k3s.csv"))
		require.NoError(t, err)
		require.Contains(t, string(k3s), "ulf-k3s-server,init")
	})
	l.phase("the init server leaves, and joins again", func(t *testing.T) { l.leftAndBack(t) })
	if l.snapshot == "" {
		return
	}
	l.row("a snapshot from before machines were replaced", func(t *testing.T) {
		l.voters.in("restore")
		l.voters.excuse(func() {
			r := l.ok("etcd", "restore", "--force", "--yes", l.snapshot)
			fmt.Print(r.out, r.messages)
			l.until("olaf", "rolf", "ulf")
		})
		for host, agent := range l.agents {
			l.do(host, "systemctl restart podman-"+agent)
			l.wait("rolf", agentReady("rolf-k3s-server", agent)+" && "+`nixos-container run rolf-k3s-server -- k3s kubectl get secret -n kube-system `+agent+`.node-password.k3s > /dev/null`)
		}
		l.upToDate()
	})
}

// leftAndBack takes the init server's host out, and lets a new machine of its name join the two servers that are left.
func (l *lifeSite) leftAndBack(t *testing.T) {
	host := l.initHost()
	server, agent := l.servers[host], l.agents[host]
	addresses := map[string][]string{"olaf": {"10.0.100.2", "10.0.100.12", "10.0.100.22"}, "ulf": {"10.0.100.3", "10.0.100.13", "10.0.100.23"}}[host]
	last, kills := l.killedBetween("decommission", host, "--yes", "--wipe-state")
	require.Zero(t, last.code, "%s%s", last.out, last.messages)
	fmt.Printf("decommission: killed %d times\n%s%s", kills, last.out, last.messages)
	init, other := l.initHost(), ""
	for one := range l.servers {
		if one != host && one != init {
			other = one
		}
	}
	l.until(init, other)
	require.NotContains(t, l.inside(init, "etcdctl member list"), server)
	refused := l.say("", "decommission", other, "--yes")
	require.NotZero(t, refused.code)
	require.Contains(t, refused.messages, "etcd has 2 voters and needs 2")

	// switched off, and installed again
	require.NoError(t, l.lab.Machine(host).Stop())
	l.ok("add", "host", host, "--ip", addresses[0], "--interface", nics[host], "--admin", host)
	l.ok("known-hosts", "make", host)
	l.newBox(host)
	l.ok("add", "server", host, "--ip", addresses[1])
	l.ok("add", "agent", host, "--ip", addresses[2])
	l.wait(host, "systemctl is-active --quiet multi-user.target")
	proposed := l.ok("deploy", "--dry-run")
	fmt.Print(proposed.out)
	require.Regexp(t, `(?s)wave 1 of \d+: server that joins.*`+host+`.*wave 2 of \d+: init server.*`+init, proposed.out)
	otherBefore, initBefore := l.observe(other, l.servers[other], ""), l.observe(init, l.servers[init], l.agents[init])
	l.deployAll()
	require.Empty(t, restarted(otherBefore, l.observe(other, l.servers[other], "")), "another init server is nothing new for "+other)
	fmt.Printf("restarted on %s: %v\n", init, restarted(initBefore, l.observe(init, l.servers[init], l.agents[init])))
	l.until(init, other, host)
	l.wait(init, agentReady(l.servers[init], agent))
	l.upToDate()
}

// restored loses two of three members, and restores a snapshot.
func (l *lifeSite) restored(t *testing.T) {
	l.voters.in("restore")
	l.inside("olaf", "k3s kubectl create configmap before")
	file := strings.TrimSpace(l.ok("etcd", "snapshot").out)
	fmt.Print(l.ok("etcd", "list").out)
	require.Contains(t, l.ok("etcd", "list", "--json").out, `"token": "same"`)
	l.inside("olaf", "k3s kubectl create configmap after")
	name := filepath.Base(file)
	l.snapshot = name
	healthy := l.say("", "etcd", "restore", name, "--yes")
	require.NotZero(t, healthy.code)
	require.Contains(t, healthy.messages, "refused: the cluster is healthy")

	l.voters.excuse(func() {
		init := l.initHost()
		for host, server := range l.servers {
			if host == init {
				continue
			}
			require.NoError(t, l.lab.Machine(host).Kill())
			require.NoError(t, os.RemoveAll(filepath.Join(l.lab.Machine(host).Root(), "var/lib/nixos-containers", server, "var/lib/rancher/k3s/server/db")))
			l.start(host, nics[host])
		}
		l.until()
		unasked := l.say("", "etcd", "restore", name)
		require.NotZero(t, unasked.code, "not without the name of the cluster")
		wrong := l.typed("rock", "etcd", "restore", name)
		require.NotZero(t, wrong.code, "not with another name")
		began := time.Now()
		last, kills := l.killedBetween("etcd", "restore", name, "--yes")
		fmt.Printf("restore: killed %d times, %.0f s\n%s%s", kills, time.Since(began).Seconds(), last.out, last.messages)
		require.Zero(t, last.code, "%s%s", last.out, last.messages)
		l.until("olaf", "rolf", "ulf")
	})
	l.isRestored(t)

	l.inside("olaf", "k3s kubectl create configmap after")
	l.voters.excuse(func() {
		began := time.Now()
		cluster := name[:strings.LastIndex(name, "-")]
		whole := l.typed(cluster, "etcd", "restore", "--force", name)
		require.Zero(t, whole.code, "%s%s", whole.out, whole.messages)
		fmt.Printf("a restore without a failure: %.0f s\n", time.Since(began).Seconds())
		l.until("olaf", "rolf", "ulf")
	})
	l.isRestored(t)
}

// isRestored requires what the snapshot had, and nothing later.
func (l *lifeSite) isRestored(t *testing.T) {
	for host, server := range l.servers {
		l.wait(host, serverReady(server))
	}
	require.NotEmpty(t, l.inside("olaf", "k3s kubectl get configmap before -o name"))
	require.Empty(t, l.inside("olaf", "k3s kubectl get configmap after --ignore-not-found -o name"))
	for _, agent := range l.agents {
		l.wait("olaf", agentReady("olaf-k3s-server", agent))
	}
	l.upToDate()
}

// leader is the host of the leader of etcd. Without a real one there is none: then it is any.
func (l *lifeSite) leader() string {
	l.t.Helper()
	for host, server := range l.servers {
		status, err := l.lab.Machine(host).Do("nixos-container run " + server + " -- etcdctl endpoint status")
		if cells := strings.Split(status, ", "); err == nil && len(cells) > 4 && cells[4] == "true" {
			return host
		}
	}
	if os.Getenv("LAB_K3S") != "" {
		require.Fail(l.t, "no leader")
	}
	return "rolf"
}

// initHost is the host of the init server in the plan.
func (l *lifeSite) initHost() string {
	l.t.Helper()
	text, err := os.ReadFile(filepath.Join(l.project, "plans", "k3s.csv"))
	require.NoError(l.t, err)
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, ","); cells[2] == "init" {
			return cells[0]
		}
	}
	require.Fail(l.t, "no init server")
	return ""
}
