package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// One host with a server and an agent, from its first deployment to a power cut.
func TestSingle(t *testing.T) {
	s := newSite(t, "single", "192.168.1.1/24")
	const host, server, agent, nic = "olaf", "olaf-server", "olaf-agent", "eno1"
	var before running
	observe := func() running { return s.observe(host, server, agent) }
	// changes deploys, and compares what was restarted.
	changes := func(t *testing.T, expected ...string) {
		t.Helper()
		s.deploy(host)
		now := observe()
		require.ElementsMatch(t, expected, restarted(before, now), "restarted: %+v, %+v", before, now)
		before = now
	}
	inside := func(command string) string { return s.do(host, "nixos-container run "+server+" -- "+command) }
	arguments := func() string {
		return s.do(host, "podman inspect --format '{{range .Config.CreateCommand}}{{println .}}{{end}}' "+agent)
	}
	labels := func() string { return inside("k3s kubectl get node " + agent + " -o json | jq -c .metadata.labels") }

	s.row("installed: comes up by itself", func(t *testing.T) {
		began := time.Now()
		s.install(map[string]string{host: nic})
		s.wait(host, serverReady(server))
		s.wait(host, agentReady(server, agent))
		fmt.Printf("built, installed, started and ready after %.1f s\n", time.Since(began).Seconds())
		require.Empty(t, s.do(host, "systemctl --failed --no-legend; nixos-container run "+server+" -- systemctl --failed --no-legend"))
		before = observe()
	})
	s.row("first deploy", func(t *testing.T) {
		changes(t)
		require.Zero(t, s.say("", "status").code)
		require.NotEmpty(t, s.do(host, "cat /var/lib/k3splan/receipt"))
	})
	s.row("nothing to do", func(t *testing.T) {
		require.Contains(t, s.ok("deploy", "--dry-run", "--json").out, `"waves": []`)
		s.deploy()
		require.Empty(t, restarted(before, observe()))
	})
	s.row("a label of an agent", func(t *testing.T) {
		s.edit("plans/k3s.csv", "host,name,type,ip\nolaf,olaf-server,init,192.168.1.11\nolaf,olaf-agent,agent,192.168.1.12",
			"host,name,type,ip,labels\nolaf,olaf-server,init,192.168.1.11,\nolaf,olaf-agent,agent,192.168.1.12,disk=large")
		require.NotContains(t, arguments(), "disk=large")
		changes(t, "agent")
		require.Contains(t, arguments(), "disk=large")
		require.Contains(t, labels(), `"disk":"large"`)
	})
	s.row("a password", func(t *testing.T) {
		shadow := "grep ^olaf: /etc/shadow"
		host0, container0 := s.do(host, shadow), inside(shadow)
		require.Zero(t, s.say("another horse battery staple\n", "passwd", "--stdin").code)
		changes(t)
		require.NotEqual(t, host0, s.do(host, shadow))
		require.NotEqual(t, container0, inside(shadow))
	})
	s.row("the machine restarts", func(t *testing.T) {
		require.NoError(t, s.lab.Machine(host).Stop())
		began := time.Now()
		s.start(host, nic)
		s.wait(host, serverReady(server))
		ready := time.Since(began)
		s.wait(host, agentReady(server, agent))
		fmt.Printf("from power on: server ready after %.1f s, agent after %.1f s\n", ready.Seconds(), time.Since(began).Seconds())
		require.Contains(t, s.ok("deploy", "--dry-run", "--json").out, `"waves": []`)
		before = observe()
	})
	if !all() {
		return
	}

	s.row("an own column", func(t *testing.T) {
		s.edit("plans/hosts.csv", "cellar", "attic")
		changes(t)
		require.Equal(t, "attic", s.do(host, "cat /etc/room"))
	})
	s.row("a manifest", func(t *testing.T) {
		file := filepath.Join(s.project, "manifests", "hello.yaml")
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		s.write("manifests/hello.yaml", string(text)+"# changed\n")
		changes(t)
		require.Contains(t, inside("cat /var/lib/rancher/k3s/server/manifests/k3splan/hello.yaml"), "# changed")
	})
	s.row("a snippet", func(t *testing.T) {
		s.write("nixConfigs/olaf.nix", "{ environment.etc.snippet.text = \"new\"; }\n")
		changes(t)
		require.Equal(t, "new", s.do(host, "cat /etc/snippet"))
	})
	s.row("k3s options of the servers", func(t *testing.T) {
		s.write("k3s/server.yaml", "etcd-snapshot-retention: 7\n")
		changes(t, "container", "k3s")
		require.Contains(t, inside("sh -c 'tr \"\\\\0\" \" \" < /proc/$(systemctl show k3s --property MainPID --value)/cmdline; cat /nix/store/*-k3s-server.json'"), "etcd-snapshot-retention")
	})
	s.row("a token rotated", func(t *testing.T) {
		old := s.secret("init-token")
		s.ok("token", "rotate", "--yes")
		require.NotEqual(t, old, s.secret("init-token"))
		changes(t, "k3s", "agent")
		require.Contains(t, inside("etcdctl get --prefix --keys-only /bootstrap/"), "/bootstrap/")
	})
	s.row("an ssh host key", func(t *testing.T) {
		s.ok("known-hosts", "make", "--renew", host)
		changes(t, "ssh")
		require.Contains(t, s.do(host, "ssh-keyscan -t ed25519 192.168.1.10 2> /dev/null"), strings.Fields(s.hostKey(host))[1])
		s.ok("status")
	})
	s.row("a gateway that is wrong", func(t *testing.T) {
		s.edit("plans/network.yaml", "gateway: 192.168.1.1", "gateway: 192.168.1.254")
		s.deploy(host)
		require.Contains(t, s.do(host, "ip route"), "default via 192.168.1.254")
		s.edit("plans/network.yaml", "gateway: 192.168.1.254", "gateway: 192.168.1.1")
		s.deploy(host)
		require.Contains(t, s.do(host, "ip route"), "default via 192.168.1.1 ")
		before = observe()
	})
	s.row("a fault of the agent is seen", func(t *testing.T) { agentFault(t, s) })
	s.row("the power is cut while it activates", func(t *testing.T) {
		s.write("nixConfigs/olaf.nix", "{ environment.etc.snippet.text = \"after the cut\"; }\n")
		s.edit("plans/k3s.csv", "disk=large", "disk=small")
		command := s.command("deploy", "--yes", "--json")
		require.NoError(t, command.Start())
		s.wait(host, "pgrep -f switch-to-configuration > /dev/null")
		require.NoError(t, s.lab.Machine(host).Kill())
		require.Error(t, command.Wait())
		s.start(host, nic)
		s.wait(host, serverReady(server))
		s.deploy(host)
		require.Equal(t, "after the cut", s.do(host, "cat /etc/snippet"))
		require.Contains(t, arguments(), "disk=small")
		require.Contains(t, s.ok("deploy", "--dry-run", "--json").out, `"waves": []`)
	})
	s.row("a label that goes", func(t *testing.T) {
		before = observe()
		require.Contains(t, labels(), `"disk":"small"`)
		s.edit("plans/k3s.csv", "disk=small", "")
		changes(t, "agent")
		require.NotContains(t, labels(), `"disk"`)
	})
	s.row("the server restarts", func(t *testing.T) { serverRestarts(t, s) })
	s.row("everything is built again, as by a new nixpkgs", func(t *testing.T) { rebuilt(t, s) })
}

func (s *site) secret(name string) string {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.project, "secrets", name))
	require.NoError(s.t, err)
	return string(data)
}

func (s *site) hostKey(host string) string {
	s.t.Helper()
	out, err := os.ReadFile(filepath.Join(s.project, "secrets", "hosts", host+"_ed25519.pub"))
	if err == nil {
		return string(out)
	}
	public, err := runOut("ssh-keygen", "-y", "-f", filepath.Join(s.project, "secrets", "hosts", host+"_ed25519"))
	require.NoError(s.t, err)
	return public
}
