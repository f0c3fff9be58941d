package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/test/boot/lab"
)

// bare is a NixOS that somebody installed by hand: its address is on the interface itself, root logs in.
const bare = `_: {
  meta.specialArgs = { };
  defaults = { };
  olaf = { ... }: {
    networking = {
      hostName = "bare";
      useDHCP = false;
      interfaces.eno1.ipv4.addresses = [{ address = "192.168.1.10"; prefixLength = 24; }];
      defaultGateway = "192.168.1.1";
    };
    services.openssh.enable = true;
    services.openssh.settings.PermitRootLogin = "prohibit-password";
    users.users.root.openssh.authorizedKeys.keys = [ %q ];
    system.stateVersion = "24.11";
  };
}
`

// The first push to a NixOS that runs moves the host's address from the interface to a new macvlan on it. The
// machine must not be cut off by that, whether NixOS's switch starts the macvlan (nixpkgs#91751) or not.
func TestFirstPush(t *testing.T) {
	if !all() {
		t.Skip("SKIP: the first push is part of make boot-all")
	}
	s := newSite(t, "single", "192.168.1.1/24")
	s.row("a NixOS of another origin", func(t *testing.T) {
		public, err := os.ReadFile(filepath.Join(s.lab.Dir, "keys", "operator.pub"))
		require.NoError(t, err)
		hive := filepath.Join(s.lab.Dir, "bare.nix")
		require.NoError(t, os.WriteFile(hive, fmt.Appendf(nil, bare, strings.TrimSpace(string(public))), 0o644))
		system, err := s.lab.BuildHive(hive, "olaf")
		require.NoError(t, err)
		machine := s.lab.Machine("olaf")
		require.NoError(t, machine.InstallBare(system))
		s.start("olaf", "eno1")
		s.wait("olaf", "systemctl is-active --quiet sshd && ip -brief address show eno1 | grep -F 192.168.1.10")
	})
	s.row("its ssh key is adopted", func(t *testing.T) {
		fingerprint := strings.Fields(s.do("olaf", "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"))[1]
		s.ok("known-hosts", "scan", "olaf", "--fingerprint", fingerprint)
	})
	s.row("the first push", func(t *testing.T) {
		require.NoError(t, s.lab.Machine("olaf").Image(lab.AgentImage))
		s.deployed(s.ok("deploy", "--yes", "--json", "--as", "root", "olaf"), "olaf")
		addresses := s.do("olaf", "ip -brief address")
		require.Regexp(t, `(?m)^k3splan-lan@eno1 .* 192\.168\.1\.10/24`, addresses)
		require.NotRegexp(t, `(?m)^eno1\S* .* 192\.168\.1\.10/24`, addresses)
		s.wait("olaf", agentReady("olaf-server", "olaf-agent"))
		require.Contains(t, s.ok("deploy", "--dry-run", "--json").out, `"waves": []`)
	})
	s.row("it comes up by itself", func(t *testing.T) {
		require.NoError(t, s.lab.Machine("olaf").Stop())
		s.start("olaf", "eno1")
		s.wait("olaf", serverReady("olaf-server"))
		s.wait("olaf", agentReady("olaf-server", "olaf-agent"))
		require.Zero(t, s.say("", "status").code)
	})
}
