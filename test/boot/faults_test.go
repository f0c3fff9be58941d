package main

import (
	"fmt"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func runOut(program string, args ...string) (string, error) {
	out, err := exec.Command(program, args...).Output()
	return string(out), err
}

// With Upholds= on the agent's unit systemd starts the agent again as soon as switch-to-configuration has
// stopped it, with its old definition: a change never arrives. The modules had that once. The gate must
// see it whatever the reason, and the modules of today must apply the same change.
func agentFault(t *testing.T, s *site) {
	s.write("nixConfigs/olaf.nix", `{ lib, ... }: {
  systemd.services.k3splan-agent-network = { unitConfig.Upholds = "podman-olaf-agent.service"; serviceConfig.RemainAfterExit = true; };
}
`)
	s.deploy("olaf")
	s.do("olaf", "systemctl start k3splan-agent-network")
	s.edit("plans/k3s.csv", "disk=large", "disk=huge")
	r := s.say("", "deploy", "--yes", "--gate-timeout", "30s")
	require.NotZero(t, r.code, "a change that does not reach the agent is called deployed: %s%s", r.out, r.messages)
	require.Contains(t, r.out+r.messages, "podman runs the agent olaf-agent with other arguments than were deployed")

	s.write("nixConfigs/olaf.nix", "{ }\n")
	s.edit("plans/k3s.csv", "disk=huge", "disk=large")
	s.deploy("olaf")
}

// networkUnits are the units of NixOS that make the host's network.
var networkUnits = []string{"k3splan-lan-netdev", "network-addresses-k3splan-lan", "network-setup"}

// A new nixpkgs gives every unit another definition. The host's network must not be down while its
// containers stop, or Colmena loses the connection and the deployment fails.
func rebuilt(t *testing.T, s *site) {
	const host = "olaf"
	definition := 0
	// write gives other definitions to units, and to the container's, which takes 25 s to stop from then on
	write := func(more string, units ...string) {
		definition++
		text := "{ lib, ... }: {\n" + more
		for _, unit := range slices.Concat(units, []string{"container@olaf-server"}) {
			text += fmt.Sprintf("  systemd.services.%q.environment.LAB = \"definition %d\";\n", unit, definition)
		}
		s.write("nixConfigs/olaf.nix", text+`  systemd.services."container@olaf-server".serviceConfig.ExecStop = "/bin/sh -c 'sleep 25'";`+"\n}\n")
	}
	// away deploys, and returns how long the host did not answer at its address
	away := func() time.Duration {
		stop, away := make(chan struct{}), make(chan time.Duration)
		go func() {
			longest, last := time.Duration(0), time.Now()
			for {
				if s.lab.Deployer("ping", "-c", "1", "-W", "1", "192.168.1.10").Run() == nil {
					longest, last = max(longest, time.Since(last)), time.Now()
				}
				select {
				case <-stop:
					away <- max(longest, time.Since(last))
					return
				case <-time.After(200 * time.Millisecond):
				}
			}
		}()
		r := s.say("", "deploy", "--yes", "--json")
		close(stop)
		longest := <-away
		fmt.Printf("network units of another definition: the host was away for %.1f s\n", longest.Seconds())
		require.Zero(s.t, r.code, "%s%s", r.out, r.messages)
		return longest
	}
	const withoutMends = "  systemd.services.k3splan-lan-netdev = { stopIfChanged = lib.mkOverride 40 true; partOf = lib.mkOverride 40 [ \"network-setup.service\" ]; };\n"
	write(withoutMends)
	s.deploy(host)
	for _, units := range [][]string{networkUnits[:1], networkUnits[2:]} {
		write(withoutMends, units...)
		require.Greater(t, away(), 20*time.Second, "without the mends the network is up all the time: this test proves nothing")
	}
	write("")
	require.Zero(t, s.say("", "deploy", "--yes").code)
	for _, units := range [][]string{networkUnits, networkUnits[:1]} {
		write("", units...)
		require.Less(t, away(), 10*time.Second)
		require.Contains(t, s.do(host, "ip route"), "default via 192.168.1.1 dev k3splan-lan")
		require.Contains(t, s.ok("deploy", "--dry-run", "--json").out, `"waves": []`)
	}
}

// withoutMends takes two things out of the server's container: the unit that takes the interface down when k3s
// has stopped, and the setting that does not wait for an IPv6 router.
const withoutMends = `{ lib, ... }: {
  systemd.services.k3splan-lan.enable = lib.mkForce false;
  systemd.network.networks."10-k3splan".networkConfig.IPv6AcceptRA = lib.mkForce true;
}
`

// Connections that are not closed to the end keep the network namespace of a stopped container, and in it a macvlan
// with the MAC address of its successor's, which the kernel then refuses to bring up. The modules take the
// interface down first.
func serverRestarts(t *testing.T, s *site) {
	const host, server = "olaf", "olaf-server"
	restart := func() time.Duration {
		began := time.Now()
		s.do(host, "systemctl restart container@"+server)
		s.wait(host, serverReady(server))
		return time.Since(began)
	}
	best := func() time.Duration { return min(restart(), restart(), restart()) }
	powerOn := func() time.Duration {
		require.NoError(t, s.lab.Machine(host).Stop())
		began := time.Now()
		s.start(host, "eno1")
		s.wait(host, serverReady(server))
		return time.Since(began)
	}
	// the address answers from outside of the container
	reachable := "ping -c 1 -W 1 192.168.1.11 > /dev/null"
	// hold opens a connection whose end never arrives, and restarts the container. What the other side has sent is
	// read, or the kernel would reset the connection and forget it.
	hold := func() {
		s.do(host, "nixos-container run "+server+` -- systemd-run --quiet --unit=hold /bin/bash -c "exec 3<>/dev/tcp/192.168.1.10/22; read -r banner <&3; sleep 1000"`)
		time.Sleep(time.Second)
		s.do(host, "iptables -I INPUT -s 192.168.1.11 -p tcp --dport 22 -j DROP")
		defer s.do(host, "iptables -D INPUT -s 192.168.1.11 -p tcp --dport 22 -j DROP")
		s.do(host, "systemctl restart container@"+server)
	}

	s.write("nixConfigs/olaf-server.nix", withoutMends)
	require.Zero(t, s.say("", "deploy", "--yes").code)
	before, onBefore := best(), powerOn()
	hold()
	_, err := s.lab.Machine(host).Do(reachable)
	require.Error(t, err, "without the mends the container has a network after all: this test proves nothing")
	fmt.Println("without the mends, a held connection:", s.do(host, "nixos-container run "+server+" -- journalctl -b -u systemd-networkd --no-pager -o cat | grep -m 1 'Could not bring up' || echo no word of networkd"))
	s.do(host, "systemctl restart container@"+server)

	s.write("nixConfigs/olaf-server.nix", "{ }\n")
	s.wait(host, serverReady(server))
	require.Zero(t, s.say("", "deploy", "--yes").code)
	after, onAfter := best(), powerOn()
	hold()
	s.wait(host, reachable)
	s.wait(host, serverReady(server))
	fmt.Printf("restart of the server until it is ready: %.1f s without the mends, %.1f s with them\n", before.Seconds(), after.Seconds())
	fmt.Printf("power on until the server is ready: %.1f s without the mends, %.1f s with them\n", onBefore.Seconds(), onAfter.Seconds())
	require.LessOrEqual(t, after, before/2)
}
