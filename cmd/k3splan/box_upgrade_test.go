package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// rackToUpgrade has three servers and an agent, and a nixpkgs whose branches are known by name alone.
func rackToUpgrade(t *testing.T, versions string) *box {
	b := newBox(t)
	if b.nixpkgs != "" {
		t.Skip("SKIP: Colmena is on PATH, and there are no releases of nixpkgs for it to evaluate")
	}
	b.write("project/plans/hosts.csv", "name,interface,ip,admin\nolaf,lan,10.77.0.2,olaf\nulf,lan,10.77.0.3,ulf\nrolf,lan,10.77.0.4,rolf\nkarl,lan,10.77.0.5,karl\n", 0o644)
	b.write("project/plans/k3s.csv", "host,name,type,ip\nolaf,olaf-s,init,10.77.0.12\nulf,ulf-s,server,10.77.0.13\nrolf,rolf-s,server,10.77.0.14\nkarl,karl-a,agent,10.77.0.25\n", 0o644)
	b.write("project/plans/network.yaml", "netmask: 24\ngateway: 10.77.0.254\n# what runs\nversions:\n  "+versions+"\n", 0o644)
	b.secretsAndPins()
	b.edit("plans/lock.json", "https://git.example.org/nixpkgs#box", "nixos-25.11")
	// the newest commit of each branch is made of the digits of its release, and has newer patch releases of k3s
	// than a project with the file "patch"
	b.write("bin/git", `#!/bin/sh
[ "$1" = ls-remote ] || exec /usr/bin/git "$@"
for release in 24.11 25.05 25.11 26.05; do
  printf '%040d\trefs/heads/nixos-%s\n' "1$(echo $release | tr -d .)" $release
done
rm -f `+b.project()+`/patch
`, 0o755)
	// nothing here is evaluated that needs a newer Nix
	nix, err := exec.LookPath("nix-instantiate")
	require.NoError(t, err)
	b.write("bin/nix-instantiate", "#!/bin/sh\n[ \"$1\" != --version ] || { echo nix-instantiate 2.26.3; exit; }\nexec "+nix+" \"$@\"\n", 0o755)
	b.write("bin/nix-prefetch-url", "#!/bin/sh\necho 1fw7ixyz0yxcfvg3nbc5d7b2qm9v0x7zs1r9gjsn1m3k5vzvr9yp\n", 0o755)
	for i, name := range []string{"olaf", "ulf", "rolf", "karl"} {
		b.add(name, fmt.Sprintf("10.77.0.%d", 2+i))
	}
	return b
}

func (b *box) upgrade(args ...string) (ran, upgradeResult) {
	b.t.Helper()
	r := b.k3splan(append([]string{"upgrade", "--json", "--yes", "--no-snapshot", "--gate-timeout", "60s", "--gate-pause", "100ms"}, args...)...)
	var result upgradeResult
	if r.stdout != "" {
		require.NoError(b.t, json.Unmarshal([]byte(r.stdout), &result), r.stdout)
	}
	return r, result
}

// A rack goes from one release to another across the change of D-Bus, step by step, with failures.
func TestUpgradeInABox(t *testing.T) {
	t.Parallel()
	b := rackToUpgrade(t, "nixos: nixos-25.11\n  k3s: \"1.33\" # ended")
	b.write("project/patch", ".5+k3s1", 0o644)
	b.write("project/nixConfigs/karl.nix", "{ deployment.buildOnTarget = true; }\n", 0o644)
	r := b.deploy()
	require.Zero(t, r.code, r.stderr)
	b.events()

	r, way := b.upgrade("--dry-run")
	require.Zero(t, r.code, r.stderr)
	require.Empty(t, way.Open)
	require.Len(t, way.Steps, 3)
	require.Equal(t, "the plan asks for NixOS 25.11 with k3s 1.33\n"+
		"before step 1, all servers have to run k3s 1.33.7+k3s3 or newer; older: olaf (1.33.5+k3s1), rolf (1.33.5+k3s1) and ulf (1.33.5+k3s1)\n"+
		"STEP  NIXOS  K3S   NOTE\n"+
		"1     25.11  1.34  past its end of life, permitted for this step\n"+
		"2     26.05  1.34  reboots; past its end of life, permitted for this step\n"+
		"3     26.05  1.35\n", strings.ReplaceAll(b.k3splan("upgrade", "--dry-run").stdout, "  \n", "\n"))

	// first the patch release without which etcd must not become a newer one
	r, way = b.upgrade()
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, "NixOS 25.11 with k3s 1.33", way.Took)
	require.Len(t, way.Steps, 3)
	require.Empty(t, way.Below)
	require.Equal(t, "v1.33.14+k3s1\nv1.33.14+k3s1\nv1.33.14+k3s1\n", b.versions("olaf", "ulf", "rolf"))

	// one step, with a failure in its middle
	b.write("hosts/rolf/fail-early", "", 0o644)
	r, _ = b.upgrade()
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stderr, "k3splan upgrade goes on with this step")
	require.Contains(t, b.read("project/plans/network.yaml"), "# what runs\nversions:\n  nixos: nixos-25.11\n  k3s: \"1.34\" # ended\n")
	require.Equal(t, "v1.34.14+k3s1\nv1.33.14+k3s1\n", b.versions("olaf", "rolf"))
	b.remove("hosts/rolf/fail-early")
	r, way = b.upgrade("--dry-run")
	require.Zero(t, r.code, r.stderr)
	require.Len(t, way.Steps, 2)
	require.NotEmpty(t, way.Open)
	r, way = b.upgrade()
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, "NixOS 25.11 with k3s 1.34", way.Took)
	require.Empty(t, way.Open)
	require.Len(t, way.Steps, 2, "no second step")
	require.Equal(t, "v1.34.14+k3s1\nv1.34.14+k3s1\nv1.34.14+k3s1\n", b.versions("olaf", "ulf", "rolf"))
	for _, event := range b.events() {
		require.NotContains(t, event, "quorum lost")
		require.NotContains(t, event, "reboot")
	}

	// across D-Bus: each host is set to boot and reboots in its wave, also one that builds its system itself; one
	// does not come back at first
	b.activated()
	b.write("hosts/ulf/stay-away", "", 0o644)
	r, _ = b.upgrade("--gate-timeout", "5s")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stderr, "ulf did not become healthy within 5s: ssh:")
	require.Equal(t, []string{"reboot olaf", "restart olaf-s", "reboot rolf", "restart rolf-s", "reboot ulf"}, b.events())
	b.remove("hosts/ulf/stay-away")
	b.start("ulf")
	r, way = b.upgrade()
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, "NixOS 26.05 with k3s 1.34", way.Took)
	events := strings.Join(b.events(), "\n")
	require.NotContains(t, events, "quorum lost")
	require.Equal(t, 1, strings.Count(events, "reboot"), "what is done is not done again: %s", events)
	require.Contains(t, events, "reboot karl")
	require.NotContains(t, b.activated(), "karl", "what cannot be activated is not tried")
	require.Equal(t, 0, strings.Count(b.k3splan("status").stdout, "needed"))

	// the last one needs no reboot
	r, way = b.upgrade()
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, "NixOS 26.05 with k3s 1.35", way.Took)
	require.Empty(t, way.Steps)
	require.NotContains(t, strings.Join(b.events(), "\n"), "reboot")
	require.Equal(t, "netmask: 24\ngateway: 10.77.0.254\n# what runs\nversions:\n  nixos: nixos-26.05\n  k3s: \"1.35\" # ended\n", b.read("project/plans/network.yaml"))
	b.activated()
	r, _ = b.upgrade()
	require.Zero(t, r.code)
	require.Empty(t, b.activated())
}

// versions are those of k3s on the servers of hosts.
func (b *box) versions(hosts ...string) (versions string) {
	for _, host := range hosts {
		text := b.on(host, filepath.Join(b.dir, "bin/nixos-container")+" run "+host+"-s -- k3s --version")
		versions += strings.Fields(text)[2] + "\n"
	}
	return versions
}
