package main

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/test/boot/lab"
)

// nics are the interfaces of the hosts of examples/rack.
var nics = map[string]string{"olaf": "eno1", "ulf": "eno1", "rolf": "enp3s0", "karl": "enP4p65s0", "ulrich": "eth0"}

// rackSite is examples/rack with what runs on its hosts.
type rackSite struct {
	*site
	// servers and agents by host
	servers, agents map[string]string
	before          map[string]running
}

func (r *rackSite) observeAll() map[string]running {
	r.t.Helper()
	all := map[string]running{}
	for host := range nics {
		all[host] = r.observe(host, r.servers[host], r.agents[host])
	}
	return all
}

// changes compares what runs with what ran before: the words are "host process".
func (r *rackSite) changes(expected ...string) {
	r.t.Helper()
	now, got := r.observeAll(), []string{}
	for host, one := range now {
		for _, what := range restarted(r.before[host], one) {
			got = append(got, host+" "+what)
		}
	}
	require.ElementsMatch(r.t, expected, got, "restarted")
	r.before = now
}

// votes succeeds on a machine if the member of etcd in a server's container says that it has a leader. It is asked
// several times a second, and nixos-container is a program in Perl.
func votes(server string) string {
	return "leader=$(pgrep --parent $(systemctl show --property MainPID --value container@" + server + ") | head -n 1) && " +
		"nsenter --target $leader --net timeout 5 curl -fs http://127.0.0.1:2381/metrics | grep -q '^etcd_server_has_leader 1'"
}

// voters counts the members of etcd that have a leader, every half second until stop is closed, and returns the
// smallest number and how often it looked.
func (r *rackSite) voters(stop <-chan struct{}) (least, looks int) {
	least = len(r.servers)
	for {
		var group sync.WaitGroup
		var mutex sync.Mutex
		ready := 0
		for host, server := range r.servers {
			group.Go(func() {
				if _, err := r.lab.Machine(host).Do(votes(server)); err == nil {
					mutex.Lock()
					defer mutex.Unlock()
					ready++
				}
			})
		}
		group.Wait()
		least, looks = min(least, ready), looks+1
		select {
		case <-stop:
			return least, looks
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// watched runs something, and requires that a majority of etcd's members votes all the time.
func (r *rackSite) watched(do func()) {
	r.t.Helper()
	stop, done := make(chan struct{}), make(chan struct{})
	least, looks := 0, 0
	go func() { defer close(done); least, looks = r.voters(stop) }()
	do()
	close(stop)
	<-done
	fmt.Printf("members of etcd that vote: never fewer than %d of %d, in %d looks\n", least, len(r.servers), looks)
	require.GreaterOrEqual(r.t, least, len(r.servers)/2+1)
}

// Five hosts with three servers and three agents: what changes the rack, and what breaks in it.
func TestRack(t *testing.T) {
	if !all() {
		t.Skip("SKIP: the rack is part of make boot-all")
	}
	r := &rackSite{site: newSite(t, "rack", "10.0.100.1/24"),
		servers: map[string]string{"olaf": "olaf-k3s-server", "ulf": "ulf-k3s-server", "rolf": "rolf-k3s-server"},
		agents:  map[string]string{"olaf": "olaf-k3s-agent", "ulf": "ulf-k3s-agent", "karl": "karl-k3s-agent"}}
	everyone := []string{"olaf", "ulf", "rolf", "karl", "ulrich"}

	// it reads the plan: each change would be one of every host
	r.write("nixConfigs/all.nix", "{ }\n")
	r.row("installed: the rack comes up by itself", func(t *testing.T) {
		r.install(nics)
		for host, server := range r.servers {
			fmt.Printf("%s: ready after %.1f s\n", server, r.wait(host, serverReady(server)).Seconds())
		}
		for _, agent := range r.agents {
			r.wait("olaf", agentReady("olaf-k3s-server", agent))
		}
		for host := range nics {
			require.Empty(t, r.do(host, "systemctl --failed --no-legend"), host)
		}
		r.before = r.observeAll()
	})
	r.row("first deploy", func(t *testing.T) {
		r.watched(func() { r.deploy(everyone...) })
		r.changes()
		require.Zero(t, r.say("", "status").code)
	})
	r.row("nothing to do", func(t *testing.T) {
		r.deploy()
		r.changes()
	})
	r.row("a label of one agent", func(t *testing.T) {
		r.edit("plans/k3s.csv", "disk=large", "disk=larger")
		r.deploy("karl")
		r.changes("karl agent")
		require.Contains(t, r.do("olaf", "nixos-container run olaf-k3s-server -- k3s kubectl get node karl-k3s-agent -o json | jq -c .metadata.labels"), `"disk":"larger"`)
	})
	r.row("options of the servers: one after the other", func(t *testing.T) {
		r.edit("k3s/server.yaml", "*/6", "*/8")
		r.watched(func() { r.deploy("olaf", "ulf", "rolf") })
		r.changes("olaf container", "olaf k3s", "ulf container", "ulf k3s", "rolf container", "rolf k3s")
	})
	r.row("an agent starts while the init server is off", func(t *testing.T) {
		require.NoError(t, r.lab.Machine("olaf").Stop())
		const chosen = "/var/lib/k3splan/agents/karl-k3s-agent/server"
		r.do("karl", "echo K3S_URL=https://10.0.100.12:6443 > "+chosen) // as if it had joined by that
		ready := agentReady("ulf-k3s-server", "karl-k3s-agent")
		r.do("karl", "systemctl stop podman-karl-k3s-agent")
		r.wait("ulf", "! "+ready)
		r.do("karl", "systemctl start podman-karl-k3s-agent")
		require.Regexp(t, `^K3S_URL=https://10\.0\.100\.1[34]:6443$`, r.do("karl", "cat "+chosen), "that of a server that answers")
		r.wait("ulf", ready)
		r.start("olaf", nics["olaf"])
		r.wait("olaf", serverReady("olaf-k3s-server"))
		r.before = r.observeAll()
	})
	r.row("a server dies in the middle", func(t *testing.T) {
		r.edit("k3s/server.yaml", "[traefik]", "[traefik, metrics-server]")
		command := r.command("deploy", "--yes", "--json", "--gate-timeout", "60s")
		require.NoError(t, command.Start())
		r.wait("olaf", "pgrep -f switch-to-configuration > /dev/null")
		require.NoError(t, r.lab.Machine("rolf").Kill())
		require.Error(t, command.Wait(), "with a server down")
		// two of three are a majority, and nothing more was stopped
		r.wait("ulf", serverReady("ulf-k3s-server"))
		r.start("rolf", nics["rolf"])
		for host, server := range r.servers {
			r.wait(host, serverReady(server))
		}
		require.Zero(t, r.say("", "deploy", "--yes").code)
		require.Contains(t, r.ok("deploy", "--dry-run", "--json").out, `"waves": []`)
		r.before = r.observeAll()
	})
	r.row("a host that is off", func(t *testing.T) {
		require.NoError(t, r.lab.Machine("karl").Stop())
		r.write("nixConfigs/@storage.nix", "{ environment.etc.storage.text = \"more\"; }\n")
		failed := r.say("", "deploy", "--yes")
		require.NotZero(t, failed.code)
		require.Contains(t, failed.out+failed.messages, "karl")
		require.Equal(t, "more", r.do("ulrich", "cat /etc/storage"), "the others get theirs")
		r.start("karl", nics["karl"])
		r.wait("olaf", agentReady("olaf-k3s-server", "karl-k3s-agent"))
		require.Zero(t, r.say("", "deploy", "--yes").code)
		require.Contains(t, r.ok("deploy", "--dry-run", "--json").out, `"waves": []`)
		r.before = r.observeAll()
	})
	r.row("the address of a host", func(t *testing.T) {
		r.edit("plans/hosts.csv", "ulrich,eth0,10.0.100.6,", "ulrich,eth0,10.0.100.7@10.0.100.6,")
		began := time.Now()
		first := r.say("", "deploy", "--yes", "ulrich")
		fmt.Printf("deploy of the new address: exit code %d after %.1f s\n", first.code, time.Since(began).Seconds())
		require.Contains(t, r.do("ulrich", "ip -brief address"), "10.0.100.7/24")
		r.edit("plans/hosts.csv", "10.0.100.7@10.0.100.6", "10.0.100.7")
		require.Zero(t, r.say("", "deploy", "--yes").code)
		require.Contains(t, r.do("olaf", "cat /etc/hosts"), "10.0.100.7")
		require.Contains(t, r.ok("deploy", "--dry-run", "--json").out, `"waves": []`)
		require.Equal(t, r.before["olaf"], r.observe("olaf", r.servers["olaf"], r.agents["olaf"]), "names of other hosts restart nothing")
	})
	r.row("a new agent", func(t *testing.T) {
		r.ok("add", "agent", "rolf")
		require.NoError(t, r.lab.Machine("rolf").Image(lab.AgentImage))
		r.deploy("rolf", "olaf", "ulf", "karl", "ulrich")
		r.wait("olaf", agentReady("olaf-k3s-server", "rolf-k3s-agent"))
		require.Equal(t, r.before["rolf"].K3S, r.observe("rolf", r.servers["rolf"], "").K3S)
	})
	r.row("a new server", func(t *testing.T) {
		r.ok("add", "server", "karl")
		r.watched(func() { require.Zero(t, r.say("", "deploy", "--yes").code) })
		r.wait("karl", serverReady("karl-k3s-server"))
		require.Equal(t, "1", r.do("karl", "nixos-container run karl-k3s-server -- journalctl -u k3s -o cat | grep -c '^Started'"), "starts of a server that joins")
		require.Contains(t, r.do("olaf", "nixos-container run olaf-k3s-server -- etcdctl member list"), "karl-k3s-server")
	})
	r.row("a host renamed", func(t *testing.T) {
		r.ok("rename", "ulrich", "otto")
		require.Zero(t, r.say("", "deploy", "--yes").code)
		require.Equal(t, "otto", r.do("ulrich", "hostname"))
		require.Contains(t, r.ok("deploy", "--dry-run", "--json").out, `"waves": []`)
	})
}
