package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// rackOfFive is a rack of five hosts that run "NixOS", and a project for it: three servers, of which
// two have agents as well, an agent alone, and a host without k3s.
func rackOfFive(t *testing.T) *box {
	b := newBox(t)
	b.project5()
	for i, name := range []string{"olaf", "ulf", "rolf", "karl", "ulrich"} {
		b.add(name, "10.77.0."+string(rune('2'+i)))
	}
	return b
}

func (b *box) project5() {
	b.write("project/plans/hosts.csv", `name,interface,ip,admin,slot
olaf,lan,10.77.0.2,olaf,1
ulf,lan,10.77.0.3,ulf,2
rolf,lan,10.77.0.4,rolf,3
karl,lan,10.77.0.5,karl,4
ulrich,lan,10.77.0.6,ulrich,5
`, 0o644)
	b.write("project/plans/k3s.csv", `host,name,type,ip,labels
olaf,olaf-s,init,10.77.0.12,
ulf,ulf-s,server,10.77.0.13,
rolf,rolf-s,server,10.77.0.14,
olaf,olaf-a,agent,10.77.0.22,
ulf,ulf-a,agent,10.77.0.23,
karl,karl-a,agent,10.77.0.25,
`, 0o644)
	b.write("project/plans/network.yaml", "netmask: 24\ngateway: 10.77.0.254\nversions: {nixos: nixos-24.11, k3s: 1.31.14+k3s1}\n", 0o644)
	b.secretsAndPins()
}

func (b *box) secretsAndPins() {
	b.write("project/plans/lock.json", `{"nixpkgs": {"ref": "nixos-24.11", "rev": "50ab793786d9de88ee30ec4e4c24fb4236fc2674", "url": "https://example.org/n.tar.gz", "sha256": "sha256-/bVBlRpECLVzjV19t5KMdMFWSwKLtb5RyXdjz3LJT+g="}}`, 0o644)
	require.NoError(b.t, os.MkdirAll(filepath.Join(b.project(), "secrets"), 0o700))
	require.NoError(b.t, os.Chmod(filepath.Join(b.project(), "secrets"), 0o700))
	b.write("project/secrets/init-token", strings.Repeat("a1", 32)+"\n", 0o600)
	b.write("project/secrets/agent-token", strings.Repeat("b2", 32)+"\n", 0o600)
	b.write("project/secrets/passwd", testHash, 0o600)
	b.write("project/secrets/all.pub", testKey, 0o600)
}

// edit replaces text in a file of the project.
func (b *box) edit(file, old, new string) {
	b.t.Helper()
	text := b.read(filepath.Join("project", file))
	require.Contains(b.t, text, old)
	b.write(filepath.Join("project", file), strings.ReplaceAll(text, old, new), 0o600)
}

func all(status string, hosts ...string) map[string]string {
	m := map[string]string{}
	for _, host := range hosts {
		m[host] = status
	}
	return m
}

var five = []string{"karl", "olaf", "rolf", "ulf", "ulrich"}

func TestBoxFresh(t *testing.T) {
	b := rackOfFive(t)
	r := b.deploy()
	require.Equal(t, all("deployed", five...), r.status(), r.stderr)
	t.Log(r.stderr)
}
