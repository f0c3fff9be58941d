package generations

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// root is a machine's file system, as far as the script looks at it.
type root struct {
	t   *testing.T
	dir string
}

func (r root) write(file, content string) {
	r.t.Helper()
	name := filepath.Join(r.dir, file)
	require.NoError(r.t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(r.t, os.WriteFile(name, []byte(content), 0o755))
}

func (r root) link(file, to string) {
	r.t.Helper()
	name := filepath.Join(r.dir, file)
	require.NoError(r.t, os.MkdirAll(filepath.Dir(name), 0o755))
	_ = os.Remove(name)
	require.NoError(r.t, os.Symlink(to, name))
}

// at returns a path of the machine's.
func (r root) at(file string) string { return filepath.Join(r.dir, file) }

// ask runs the script with every absolute path of the machine below the folder.
func (r root) ask() Host {
	r.t.Helper()
	here := script
	for _, folder := range []string{"/nix/var", "/run/", "/var/lib/", "/boot/", "/efi/"} {
		here = strings.ReplaceAll(here, folder, r.dir+folder)
	}
	out, err := exec.Command("sh", "-c", here).CombinedOutput()
	require.NoError(r.t, err, "%s", out)
	h, err := parse(string(out))
	require.NoError(r.t, err, "%s", out)
	return h
}

// What the script finds in systems as NixOS makes them, of older and of newer releases.
func TestScript(t *testing.T) {
	r := root{t, t.TempDir()}
	require.Empty(t, r.ask().All, "not a NixOS")

	old, recent := "nix/store/aaa-nixos-system-olaf-24.11", "nix/store/bbb-nixos-system-olaf-25.11"
	r.write(old+"/nixos-version", "24.11.717\n")
	r.write("nix/store/k1/bzImage", "")
	r.link(old+"/kernel", r.at("nix/store/k1/bzImage"))
	r.write("nix/store/c1/etc/systemd/system/k3s.service", "[Service]\nExecStart=/nix/store/xyz-k3s-1.31.14+k3s1/bin/k3s \\\n server --token-file x\n")
	r.write("nix/store/c1/etc/systemd/network/10-k3splan.network", "[Network]\nAddress=10.0.0.12/24\nGateway=10.0.0.1\n")
	r.write(old+"/etc/nixos-containers/olaf-s.conf", "PRIVATE_NETWORK=0\nSYSTEM_PATH="+r.at("nix/store/c1")+"\n")
	r.write("nix/store/c2/etc/systemd/system/nginx.service", "")
	r.write(old+"/etc/nixos-containers/web.conf", "SYSTEM_PATH="+r.at("nix/store/c2")+"\n")
	r.write(old+"/etc/systemd/system/podman-olaf-a.service", "ExecStart=/bin/podman run --name=olaf-a docker.io/rancher/k3s:v1.31.14-k3s1 agent\n")
	r.write(old+"/etc/systemd/system/podman-db.service", "ExecStart=/bin/podman run docker.io/postgres:16\n")

	r.write(recent+"/nixos-version", "25.11.2\n")
	r.write("nix/store/k3s/bin/k3s", "#!/bin/sh\necho 'k3s version v1.33.7+k3s3 (abc)'\n")
	r.write("nix/store/c3/etc/systemd/system/k3s.service", "ExecStart="+r.at("nix/store/k3s/bin/k3s")+" server\n")
	r.write(recent+"/etc/containers/olaf-s.conf", "SYSTEM_PATH="+r.at("nix/store/c3")+"\n")
	r.write("nix/store/start-a", "#!/bin/sh\nexec podman run \\\n  --name=olaf-a \\\n  'docker.io/rancher/k3s:v1.33.7-k3s3' \\\n  agent\n")
	r.write(recent+"/etc/systemd/system/podman-olaf-a.service", "ExecStart="+r.at("nix/store/start-a")+" \n")
	r.write(recent+"/etc/systemd/system/dbus-broker.service", "")

	r.link("nix/var/nix/profiles/system-9-link", r.at(old))
	r.link("nix/var/nix/profiles/system-10-link", r.at(recent))
	r.link("nix/var/nix/profiles/system-8-link", r.at("nix/store/collected"))
	r.link("nix/var/nix/profiles/system", "system-10-link")
	r.link("run/current-system", r.at(recent))
	r.link("run/booted-system", r.at(old))
	r.write("var/lib/k3splan/receipt", `{"version":2,"time":"2026-11-30T10:00:00Z","system":"`+r.at(recent)+`","fingerprint":""}`+"\n")
	r.write("var/lib/k3splan/receipts/"+filepath.Base(old), `{"version":2,"time":"2026-11-29T10:00:00Z","system":"x","inputs":{"names":{"time":"2020-01-01T00:00:00Z"}}}`+"\n")

	h := r.ask()
	require.Len(t, h.All, 2, "one was collected")
	require.Equal(t, []int{9, 10}, []int{h.All[0].Number, h.All[1].Number}, "by number")
	first, second := h.All[0], h.All[1]
	require.Equal(t, Container{"olaf-s", "1.31.14+k3s1", "10.0.0.12"}, first.Server)
	require.Equal(t, Container{"olaf-a", "1.31.14+k3s1", ""}, first.Agent)
	require.Equal(t, "24.11.717", first.NixOS)
	require.Equal(t, r.at("nix/store/k1/bzImage"), first.Kernel)
	require.Equal(t, time.Date(2026, 11, 29, 10, 0, 0, 0, time.UTC), first.Receipt)
	require.WithinDuration(t, time.Now(), first.Time, time.Minute)
	require.Empty(t, first.Boots)
	require.Equal(t, Container{"olaf-s", "1.33.7+k3s3", ""}, second.Server)
	require.Equal(t, Container{"olaf-a", "1.33.7+k3s3", ""}, second.Agent)
	require.True(t, second.Receipt.IsZero())
	require.Equal(t, []string{"D-Bus"}, second.Boots)
	require.Equal(t, "NixOS 25.11.2, server k3s 1.33.7+k3s3, agent k3s 1.33.7+k3s3", second.Versions())
	require.Equal(t, 10, h.Profile)
	require.Equal(t, 10, h.BootsNext())
	require.Equal(t, 10, h.With(h.Runs).Number)
	require.Equal(t, 9, h.With(h.Booted).Number)
	require.Equal(t, 10, h.With(h.Deployed).Number)

	r.write("boot/loader/loader.conf", "timeout 5\ndefault nixos-generation-9.conf\n")
	require.Equal(t, 9, r.ask().BootsNext(), "the boot loader was not told")
}

func TestParseRefuses(t *testing.T) {
	_, err := parse("runs /nix/store/x\n")
	require.EqualError(t, err, "incomplete response")
	_, err = parse("generation x\nend\n")
	require.ErrorContains(t, err, "cannot read the host's generations")
	_, err = parse("generation x 1 /nix/store/x\nend\n")
	require.ErrorContains(t, err, "cannot read the host's generations")
}

// The one to go back to where none is named.
func TestPrevious(t *testing.T) {
	made := func(number int, system string, receipt bool) Generation {
		g := Generation{Number: number, System: system}
		if receipt {
			g.Receipt = time.Unix(1, 0)
		}
		return g
	}
	all := []Generation{made(3, "/a", true), made(4, "/b", true), made(5, "/failed", false), made(6, "/c", true)}
	for name, test := range map[string]struct {
		host Host
		want int
		err  string
	}{
		"the last one that was deployed":        {Host{All: all, Runs: "/c", Profile: 6, Deployed: "/c"}, 4, ""},
		"none was deployed: the one before":     {Host{All: []Generation{made(1, "/a", false), made(2, "/b", false), made(3, "/c", false)}, Runs: "/c", Profile: 3, Deployed: "/c"}, 2, ""},
		"again":                                 {Host{All: all, Runs: "/b", Profile: 4, Deployed: "/b"}, 3, ""},
		"a deployment failed":                   {Host{All: all, Runs: "/failed", Profile: 5, Deployed: "/b"}, 4, ""},
		"a deployment failed before it ran":     {Host{All: all, Runs: "/b", Profile: 5, Deployed: "/b"}, 4, ""},
		"the same system twice":                 {Host{All: []Generation{made(1, "/a", true), made(2, "/b", true), made(3, "/b", true)}, Runs: "/b", Profile: 3, Deployed: "/b"}, 1, ""},
		"the first":                             {Host{All: all[:1], Runs: "/a", Profile: 3, Deployed: "/a"}, 0, "there is no generation before 3, which is deployed"},
		"the deployed one was collected":        {Host{All: all[:1], Runs: "/z", Profile: 9, Deployed: "/z"}, 0, "the generation that was deployed last was removed, so which one was before it is unknown"},
		"no NixOS that k3splan has deployed to": {Host{}, 0, "the generation that was deployed last was removed, so which one was before it is unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := test.host.Previous()
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, g.Number)
		})
	}
	_, err := Host{All: all}.Named(7)
	require.EqualError(t, err, "it has no generation 7, only 3 4 5 6 (garbage collection removes old ones)")
	_, err = Host{}.Named(7)
	require.EqualError(t, err, "it has no generation at all")
	g, err := Host{All: all}.Named(5)
	require.NoError(t, err)
	require.Equal(t, "/failed", g.System)
}
