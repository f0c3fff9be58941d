package main

import (
	"fmt"
	"os/exec"
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
	s.edit("plans/k3s.csv", "disk=large", "disk=huge")
	r := s.say("", "deploy", "--yes", "--gate-timeout", "30s")
	require.NotZero(t, r.code, "a change that does not reach the agent is called deployed: %s%s", r.out, r.messages)
	require.Contains(t, r.out+r.messages, "podman runs the agent olaf-agent with other arguments than were deployed")

	s.write("nixConfigs/olaf.nix", "{ }\n")
	s.edit("plans/k3s.csv", "disk=huge", "disk=large")
	s.deploy("olaf")
}

// A new nixpkgs gives every unit another definition. The host's network must not be down while its
// containers stop, or Colmena loses the connection and the deployment fails.
func rebuilt(t *testing.T, s *site) {
	s.write("nixConfigs/olaf.nix", `{ lib, ... }: {
  systemd.services.k3splan-lan-netdev.environment.LAB = "another definition";
  systemd.services.network-addresses-k3splan-lan.environment.LAB = "another definition";
  systemd.services."container@olaf-server".serviceConfig.ExecStop = "/bin/sh -c 'sleep 75'";
}
`)
	s.deploy("olaf")
	s.write("nixConfigs/olaf.nix", `{ lib, ... }: {
  systemd.services.k3splan-lan-netdev.environment.LAB = "a third definition";
  systemd.services.network-addresses-k3splan-lan.environment.LAB = "a third definition";
  systemd.services."container@olaf-server".environment.LAB = "stops after 75 s, by its definition of before";
}
`)
	s.deploy("olaf")
	require.Contains(t, s.do("olaf", "ip route"), "default via 192.168.1.1 dev k3splan-lan")
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
	// hold opens a connection whose end never arrives, and restarts the container
	hold := func() {
		s.do(host, "nixos-container run "+server+` -- systemd-run --quiet --unit=hold /bin/bash -c "exec 3<>/dev/tcp/192.168.1.10/22; sleep 1000"`)
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
