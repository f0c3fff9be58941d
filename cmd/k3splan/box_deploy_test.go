package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/xuri/excelize/v2"

	"k3splan/internal/diff"
	"k3splan/internal/plan"
	"k3splan/internal/receipt"
	"k3splan/internal/rollout"
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
	b.write("project/plans/network.yaml", "netmask: 24\ngateway: 10.77.0.254\nversions: {nixos: https://git.example.org/nixpkgs#box, k3s: 1.35.1+k3s1}\n", 0o644)
	b.secretsAndPins()
}

func (b *box) secretsAndPins() {
	url, hash := "https://example.org/n.tar.gz", "sha256-/bVBlRpECLVzjV19t5KMdMFWSwKLtb5RyXdjz3LJT+g="
	if b.nixpkgs != "" {
		url = "file://" + b.nixpkgs
		out, err := b.command("nix-prefetch-url", "--unpack", url).Output()
		require.NoError(b.t, err)
		hash = strings.TrimSpace(string(out))
	}
	b.write("project/plans/lock.json", fmt.Sprintf(`{"nixpkgs": {"ref": "https://git.example.org/nixpkgs#box", "rev": "50ab793786d9de88ee30ec4e4c24fb4236fc2674", "url": %q, "sha256": %q}}`, url, hash), 0o644)
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

// scenario runs a subtest, unless one before it has failed. One rack serves several scenarios, in their order;
// each leaves it well.
func (b *box) scenario(t *testing.T, name string, do func(t *testing.T)) {
	t.Helper()
	if t.Failed() {
		return
	}
	t.Run(name, func(t *testing.T) {
		outer := b.t
		b.t = t
		defer func() { b.t = outer }()
		for _, forget := range []func() []string{b.built, b.evaluated, b.applied, b.activated, b.events} {
			forget()
		}
		b.remove("uploads")
		do(t)
	})
}

// well checks that nothing is left to be deployed.
func (b *box) well(t *testing.T) {
	t.Helper()
	r := b.deploy("--dry-run")
	require.Contains(t, r.stdout, `"waves": []`, "the rack is well: %s%s", r.stdout, r.stderr)
}

// The life of a rack: changes of the plan, and what a gate waits for.
func TestRackInABox(t *testing.T) {
	t.Parallel()
	b := rackOfFive(t)
	scenario := func(name string, do func(t *testing.T)) { t.Helper(); b.scenario(t, name, do) }

	scenario("without a terminal what is to be confirmed stops", func(t *testing.T) {
		r := b.k3splan("deploy")
		require.Equal(t, 2, r.code)
		require.Contains(t, r.stderr, "macvlan")
		require.Contains(t, r.stderr, "--yes confirms")
		require.Empty(t, b.applied())
	})

	scenario("fresh cluster", func(t *testing.T) {
		r := b.deploy()
		require.Equal(t, all("deployed", five...), r.status(), r.stderr)
		require.Zero(t, r.code)
		require.Equal(t, five, b.evaluated())
		require.Equal(t, five, b.built())
		require.Equal(t, five, b.applied())
		require.Equal(t, five, b.activated())
		require.Equal(t, []string{"restart olaf-s", "restart olaf-a", "restart rolf-s", "restart ulf-s", "restart ulf-a", "restart karl-a"}, b.events())
		require.NoDirExists(t, filepath.Join(b.project(), "generated"))
		require.Equal(t, "600 root\n", b.on("olaf", "stat -c '%a %U' /var/lib/k3splan/receipt"))
		require.Contains(t, b.read("project/.k3splan/logs/"+onlyEntry(t, filepath.Join(b.project(), ".k3splan/logs"))+"/karl.log"), "Activation successful")
		b.well(t)
	})

	scenario("nothing changed", func(t *testing.T) {
		r := b.deploy()
		require.Equal(t, all("unchanged", five...), r.status(), r.stderr)
		require.Zero(t, r.code)
		require.Empty(t, b.applied())
		require.Empty(t, b.activated())
	})

	scenario("the receipt holds no secret", func(t *testing.T) {
		for _, host := range five {
			text := b.on(host, "cat /var/lib/k3splan/receipt")
			var receipt receipt.Receipt
			require.NoError(t, json.Unmarshal([]byte(text), &receipt))
			kept, err := receipt.Plan.Plan() // which is compressed
			require.NoError(t, err)
			model, err := json.Marshal(kept.Model())
			require.NoError(t, err)
			require.Contains(t, string(model), `"karl-a"`)
			for _, secret := range []string{"a1a1a1a1", "b2b2b2b2", "k3splantest"} {
				require.NotContains(t, text+string(model), secret)
			}
		}
		require.Contains(t, b.on("olaf", "cat /var/lib/k3splan/server/token"), "a1a1", "the search can find it")
	})

	scenario("a change that no other host sees", func(t *testing.T) {
		before := t.TempDir()
		require.NoError(t, os.CopyFS(before, os.DirFS(b.project())))
		b.edit("plans/hosts.csv", "karl,4", "karl,40")
		var changes diff.Changes
		require.NoError(t, json.Unmarshal([]byte(b.k3splan("diff", "--json", before).stdout), &changes))
		require.Len(t, changes, 1)
		was := map[string]int{"karl": b.connections("karl"), "olaf": b.connections("olaf"), "ulrich": b.connections("ulrich")}
		r := b.deploy()
		require.Equal(t, "deployed", r.status()["karl"], r.stderr)
		for host, most := range map[string]int{
			"ulrich": 1,
			"olaf":   1, // for the lease, the survey, its server, the gate of karl
			"karl":   3, // the survey; Colmena; whether one can still log in, the gate, the receipt
		} {
			require.LessOrEqual(t, b.connections(host)-was[host], most, "connections to %s", host)
		}
		require.Equal(t, []string{"plans/hosts.csv:5 host karl: slot 4 → 40"}, r.results["karl"].Reasons)
		require.Equal(t, changes[0].Where+" "+changes[0].Sentence, r.results["karl"].Reasons[0], "the words of diff")
		require.Equal(t, []string{"karl"}, b.evaluated())
		require.Equal(t, []string{"karl"}, b.built())
		require.Equal(t, []string{"karl"}, b.applied())
		require.Equal(t, []string{"karl"}, b.activated())
		require.Empty(t, b.events())
		b.well(t)
	})

	scenario("what changes is seen before anything is activated", func(t *testing.T) {
		b.edit("plans/k3s.csv", "karl-a,agent,10.77.0.25,", "karl-a,agent,10.77.0.25,disk=large")
		b.edit("plans/hosts.csv", "ulrich,5", "ulrich,55")
		b.write("project/nixConfigs/ulrich.nix", "{ pkgs, ... }: { boot.kernelPackages = pkgs.linuxPackages; /* linux_latest */ }\n", 0o644)
		dry := func(args ...string) map[string]rollout.Preview {
			r := b.deploy(append([]string{"--dry-run"}, args...)...)
			require.Zero(t, r.code, r.stderr)
			var proposal deployProposal
			require.NoError(t, json.Unmarshal([]byte(r.stdout), &proposal))
			return proposal.Changes
		}
		stores := func() string { return b.on("karl", "ls /nix/store | sort") + b.on("ulrich", "ls /nix/store | sort") }
		before := stores()
		require.Nil(t, dry())
		seen := dry("--build")
		require.Equal(t, []string{"karl", "ulrich"}, b.built())
		require.Len(t, seen, 2)
		require.Empty(t, seen["karl"].Unknown)
		require.Nil(t, seen["karl"].Units, "only a system that is there can say that")
		require.Equal(t, []string{"kernel"}, seen["ulrich"].Reboot)
		require.Empty(t, seen["karl"].Reboot)
		require.NotZero(t, seen["karl"].Bytes)
		require.Equal(t, before, stores(), "nothing was copied")

		seen = dry("--build", "--copy")
		require.Equal(t, []string{"podman-karl-a.service"}, seen["karl"].Units.Restart)
		require.Empty(t, seen["ulrich"].Units.Restart)
		require.Contains(t, stores(), strings.TrimPrefix(seen["karl"].System, "/nix/store/"))
		require.Empty(t, b.activated())
		require.Empty(t, b.events())
		require.NoDirExists(t, filepath.Join(b.project(), "generated"))

		out := b.k3splan("deploy", "--dry-run", "--build", "--copy").stdout
		require.Regexp(t, `(?m)^karl:\n  packages: .*\n  restart: podman-karl-a\.service\nulrich:\n  packages: .*\n  no unit restarts\n  takes effect at the next boot: kernel$`, out)

		// on its way a deployment shows the same
		r := b.deploy()
		require.Zero(t, r.code, r.stderr)
		require.Contains(t, r.stderr, "takes effect at the next boot: kernel")
		require.Contains(t, r.stderr, "karl: activation: restart: podman-karl-a.service")
		require.Equal(t, []string{"podman-karl-a.service"}, r.results["karl"].Changes.Units.Restart)
		require.Nil(t, r.results["olaf"].Changes)
		b.remove("project/nixConfigs/ulrich.nix")
		b.edit("plans/hosts.csv", "ulrich,55", "ulrich,5")
		b.edit("plans/k3s.csv", "disk=large", "")
		require.Zero(t, b.deploy().code)
		b.well(t)
	})

	scenario("a new host: the others learn its name last, and nothing restarts", func(t *testing.T) {
		b.edit("plans/hosts.csv", "ulrich,lan", "egon,lan,10.77.0.7,egon,6\nulrich,lan")
		b.add("egon", "10.77.0.7")
		r := b.deploy()
		require.Equal(t, all("deployed", "egon", "karl", "olaf", "rolf", "ulf", "ulrich"), r.status(), r.stderr)
		require.Equal(t, 1, r.results["egon"].Wave)
		// two servers are never in one wave
		for host, wave := range map[string]int{"olaf": 2, "rolf": 3, "ulf": 4, "karl": 5, "ulrich": 5} {
			require.Equal(t, wave, r.results[host].Wave, host)
			require.Equal(t, []string{"/etc/hosts: +egon"}, r.results[host].Reasons)
		}
		require.Empty(t, b.events())
		b.well(t)
	})

	scenario("the tables become a workbook: nothing changes; then a cell does", func(t *testing.T) {
		tables := t.TempDir()
		require.NoError(t, os.CopyFS(tables, os.DirFS(filepath.Join(b.project(), "plans"))))
		intoWorkbook(t, b.project())
		b.well(t)
		workbook := filepath.Join(b.project(), plan.WorkbookFile)
		file, err := excelize.OpenFile(workbook)
		require.NoError(t, err)
		require.NoError(t, file.SetCellStr("hosts", "E5", "41"))
		require.NoError(t, file.Save())
		require.NoError(t, file.Close())
		r := b.deploy()
		require.Equal(t, "deployed", r.status()["karl"], r.stderr)
		require.Equal(t, []string{"plans/cluster.xlsx!hosts!E5 host karl: slot 40 → 41"}, r.results["karl"].Reasons)
		require.Equal(t, []string{"karl"}, b.applied())

		require.NoError(t, os.Remove(workbook))
		for _, name := range []string{"hosts.csv", "k3s.csv", "network.yaml"} {
			require.NoError(t, os.Rename(filepath.Join(tables, name), filepath.Join(b.project(), "plans", name)))
		}
		require.Equal(t, []string{"plans/hosts.csv:5 host karl: slot 41 → 40"}, b.deploy().results["karl"].Reasons)
		b.well(t)
	})

	scenario("the last host's snippet is wrong: no host is touched", func(t *testing.T) {
		b.edit("plans/hosts.csv", "olaf,1", "olaf,10")
		b.write("project/nixConfigs/ulrich.nix", `throw "the snippet of ulrich"`, 0o644)
		r := b.deploy()
		require.Equal(t, 1, r.code)
		require.Equal(t, map[string]string{"olaf": "not reached", "ulrich": "not reached", "egon": "unchanged", "karl": "unchanged", "rolf": "unchanged", "ulf": "unchanged"}, r.status())
		require.Equal(t, "the systems cannot be evaluated", r.results["olaf"].Cause)
		require.Contains(t, r.stderr, "ulrich: the snippet of ulrich")
		require.Regexp(t, `log: .*/logs/[0-9-]+\n`, r.stderr)
		require.Empty(t, b.applied())
		require.Empty(t, b.activated())
		require.FileExists(t, filepath.Join(b.project(), "generated/hive.nix"), "stays after a failure")
		b.remove("project/nixConfigs/ulrich.nix")
		b.evaluated()
		require.Zero(t, b.deploy().code)
		require.Empty(t, b.evaluated(), "olaf is remembered, and ulrich runs what it should")
		b.well(t)
	})

	scenario("the activation fails halfway: deployed again next time", func(t *testing.T) {
		b.edit("plans/hosts.csv", "ulrich,5", "ulrich,50")
		b.write("hosts/ulrich/fail-units", "", 0o644)
		r := b.deploy()
		require.Equal(t, 1, r.code)
		require.Equal(t, "failed", r.status()["ulrich"])
		require.Contains(t, r.results["ulrich"].Cause, "nginx.service")
		require.FileExists(t, r.results["ulrich"].Log)
		require.FileExists(t, filepath.Join(b.project(), "generated/hive.nix"), "stays after a failure")
		// the new system runs already: that alone does not prove anything
		b.remove("hosts/ulrich/fail-units")
		r = b.deploy()
		require.Equal(t, "deployed", r.status()["ulrich"], r.stderr)
		require.Equal(t, "unchanged", r.status()["karl"])
		require.NoDirExists(t, filepath.Join(b.project(), "generated"))
		b.well(t)
	})

	scenario("the activation fails early: the edit taken back is deployed as well", func(t *testing.T) {
		b.edit("plans/hosts.csv", "ulrich,50", "ulrich,51")
		b.write("hosts/ulrich/fail-early", "", 0o644)
		require.Equal(t, "failed", b.deploy().status()["ulrich"])
		b.remove("hosts/ulrich/fail-early")
		b.edit("plans/hosts.csv", "ulrich,51", "ulrich,50")
		r := b.deploy()
		require.Equal(t, []string{"would boot into another system than was deployed"}, r.results["ulrich"].Reasons, r.stderr)
		require.Equal(t, "deployed", r.status()["ulrich"])
		b.well(t)
	})

	scenario("a server's gate fails: later servers stay untouched", func(t *testing.T) {
		b.edit("plans/network.yaml", "netmask: 24", "netmask: 24\nnameservers: [9.9.9.9]")
		b.write("hosts/rolf/broken-server", "", 0o644)
		r := b.deploy("--gate-timeout", "1s")
		require.Equal(t, 1, r.code)
		require.Equal(t, map[string]string{"olaf": "deployed", "rolf": "failed", "ulf": "not reached", "karl": "not reached", "ulrich": "not reached", "egon": "not reached"}, r.status(), r.stderr)
		require.Contains(t, r.results["rolf"].Cause, "rolf did not become healthy within 1s: server rolf-s: /readyz: not ready: etcd")
		require.Equal(t, "stopped after rolf", r.results["ulf"].Cause)
		require.Equal(t, []string{"olaf", "rolf"}, b.activated())
		require.NotContains(t, b.events(), "quorum lost")
		// the server that is down comes first
		b.remove("hosts/rolf/broken-server")
		b.remove("hosts/rolf/server")
		r = b.deploy()
		require.Equal(t, map[string]string{"olaf": "unchanged", "rolf": "deployed", "ulf": "deployed", "karl": "deployed", "ulrich": "deployed", "egon": "deployed"}, r.status(), r.stderr)
		require.Equal(t, 1, r.results["rolf"].Wave)
		require.Contains(t, r.stderr, "server that is down")
		b.well(t)
	})

	scenario("a learner is no voter yet", func(t *testing.T) {
		b.edit("plans/hosts.csv", "rolf,3", "rolf,30")
		b.write("learner-rolf-s", "", 0o644)
		r := b.deploy("--gate-timeout", "1s")
		require.Contains(t, r.results["rolf"].Cause, "still a learner", r.stderr)
		b.remove("learner-rolf-s")
		require.Zero(t, b.deploy().code)
	})

	scenario("an agent that has stopped is still Ready, but its lease is old", func(t *testing.T) {
		b.edit("plans/hosts.csv", "karl,40", "karl,41")
		b.write("deaf-karl-a", "", 0o644)
		r := b.deploy("--gate-timeout", "1s")
		require.Contains(t, r.results["karl"].Cause, "its lease is to be renewed", r.stderr)
		b.remove("deaf-karl-a")
		require.Zero(t, b.deploy().code)
	})

	scenario("an agent's machine was reinstalled, and the cluster remembers the old one", func(t *testing.T) {
		b.edit("plans/hosts.csv", "karl,41", "karl,44")
		b.write("deaf-karl-a", "", 0o644)
		b.write("rejected-karl-a", "", 0o644)
		r := b.deploy("--gate-timeout", "60s")
		require.Contains(t, r.results["karl"].Cause, "k3s rejects its node password", r.stderr)
		require.Contains(t, r.results["karl"].Cause, "on olaf: nixos-container run olaf-s -- k3s kubectl delete node karl-a\nthe agent joins by itself then; k3splan deploy karl", r.stderr)
		require.NotContains(t, r.results["karl"].Cause, "did not become healthy", "waiting does not mend that")
		b.remove("deaf-karl-a")
		b.remove("rejected-karl-a")
		b.edit("plans/hosts.csv", "karl,44", "karl,41")
		require.Zero(t, b.deploy().code)
	})

	scenario("a container that was not restarted runs what was there before", func(t *testing.T) {
		b.edit("plans/k3s.csv", "karl-a,agent,10.77.0.25,", "karl-a,agent,10.77.0.25,disk=old")
		b.write("hosts/karl/old-agent", "", 0o644)
		r := b.deploy("--gate-timeout", "1s")
		require.Contains(t, r.results["karl"].Cause, "podman runs the agent karl-a with other arguments than were deployed", r.stderr)
		b.remove("hosts/karl/old-agent")
		b.remove("hosts/karl/agent")
		b.edit("plans/network.yaml", "netmask: 24", "netmask: 24\ndomain: old.example")
		b.write("hosts/olaf/old-server", "", 0o644)
		r = b.deploy("--gate-timeout", "1s")
		require.Contains(t, r.results["olaf"].Cause, "the container of server olaf-s runs /nix/store/", r.stderr)
		require.Equal(t, "not reached", r.status()["rolf"])
		b.remove("hosts/olaf/old-server")
		b.remove("hosts/olaf/server")
		r = b.deploy()
		require.Zero(t, r.code, r.stderr)
		b.edit("plans/network.yaml", "\ndomain: old.example", "")
		b.edit("plans/k3s.csv", "disk=old", "")
		require.Zero(t, b.deploy().code)
		b.well(t)
	})

}

// Trouble, secrets and newcomers, in a rack whose operator lets ssh keep its connections.
func TestRackInABoxInTrouble(t *testing.T) {
	t.Parallel()
	b := rackOfFive(t)
	b.keepConnections()
	scenario := func(name string, do func(t *testing.T)) { t.Helper(); b.scenario(t, name, do) }
	b.edit("plans/network.yaml", "netmask: 24", "netmask: 24\nnameservers: [9.9.9.9]")
	require.Zero(t, b.deploy().code)

	scenario("a host is down", func(t *testing.T) {
		b.stop("karl")
		b.edit("plans/network.yaml", "[9.9.9.9]", "[1.1.1.1]")
		r := b.deploy()
		require.Equal(t, 1, r.code)
		require.Equal(t, map[string]string{"olaf": "deployed", "rolf": "deployed", "ulf": "deployed", "karl": "not reached", "ulrich": "deployed"}, r.status(), r.stderr)
		require.NotContains(t, b.events(), "quorum lost")
		b.start("karl")
		r = b.deploy()
		require.Equal(t, "deployed", r.status()["karl"], r.stderr)
		b.well(t)
	})

	scenario("a host dies in the middle", func(t *testing.T) {
		b.edit("plans/hosts.csv", "ulrich,5", "ulrich,52")
		b.write("hosts/ulrich/die", "", 0o644)
		r := b.deploy()
		require.Equal(t, "failed", r.status()["ulrich"], r.stderr)
		require.Equal(t, 1, r.code)
		b.remove("hosts/ulrich/die")
		b.stop("ulrich")
		b.start("ulrich")
		require.Equal(t, []string{"ulrich"}, b.evaluated())
		r = b.deploy()
		require.Equal(t, "deployed", r.status()["ulrich"], r.stderr)
		require.Empty(t, b.evaluated(), "it is remembered")
		b.well(t)
	})

	scenario("Ctrl-C, and again to the end", func(t *testing.T) {
		b.edit("plans/network.yaml", "[1.1.1.1]", "[8.8.4.4]")
		b.write("hosts/rolf/slow", "", 0o644)
		cmd := b.command("k3splan", "-p", b.project(), "deploy", "--json", "--yes", "--gate-pause", "100ms")
		s := b.begin(cmd)
		require.Eventually(t, func() bool { return strings.Contains(b.read("hosts/rolf/activations"), "switch ") }, time.Minute, 20*time.Millisecond)
		require.NoError(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGINT))
		r := b.finish(cmd, s)
		require.Equal(t, 1, r.code, r.stderr)
		require.Equal(t, map[string]string{"olaf": "deployed", "rolf": "failed", "ulf": "not reached", "karl": "not reached", "ulrich": "not reached"}, r.status(), r.stderr)
		require.Contains(t, r.results["rolf"].Cause, "interrupted")
		require.Contains(t, r.results["ulf"].Cause, "stopped after rolf")
		b.remove("hosts/rolf/slow")
		r = b.deploy()
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, "unchanged", r.status()["olaf"])
		require.NotContains(t, b.events(), "quorum lost")
		b.well(t)
	})

	scenario("two at once", func(t *testing.T) {
		b.edit("plans/hosts.csv", "ulrich,52", "ulrich,53")
		b.write("hosts/ulrich/slow", "", 0o644)
		cmd := b.command("k3splan", "-p", b.project(), "deploy", "--json", "--yes", "--gate-pause", "100ms")
		s := b.begin(cmd)
		require.Eventually(t, func() bool {
			return b.read("project/.k3splan/lock") != "" && strings.Contains(b.read("evaluations"), "ulrich")
		}, time.Minute, 20*time.Millisecond)
		second := b.deploy()
		require.Equal(t, 1, second.code)
		require.Regexp(t, "the project is in use by process [0-9]+ of ", second.stderr)
		// another operator has a project of their own, and no lock in common
		require.NoError(t, os.CopyFS(filepath.Join(b.dir, "clone"), os.DirFS(b.project())))
		require.NoError(t, os.Chmod(filepath.Join(b.dir, "clone/secrets"), 0o700))
		other := b.command("k3splan", "-p", filepath.Join(b.dir, "clone"), "deploy", "--yes")
		third := b.finish(other, b.begin(other))
		require.Equal(t, 1, third.code)
		require.Regexp(t, `k3splan deploy, process [0-9]+\) is changing this rack`, third.stderr)
		b.remove("hosts/ulrich/slow")
		r := b.finish(cmd, s)
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, []string{"ulrich"}, b.applied())
	})

	scenario("only the password changed", func(t *testing.T) {
		b.write("project/secrets/passwd", strings.Replace(testHash, "3NZs", "4NZs", 1), 0o600)
		r := b.deploy()
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, []string{"password"}, r.results["olaf"].Reasons)
		require.Empty(t, b.applied(), "no new system")
		require.Empty(t, b.activated(), "no new system is activated")
		for _, host := range five {
			require.Contains(t, b.read("hosts/"+host+"/shadow"), "4NZs", "in effect on "+host)
		}
		require.Contains(t, b.read("hosts/olaf/shadow-olaf-s"), "4NZs", "in effect in the container")
		require.Empty(t, b.events())
		b.well(t)
	})

	scenario("a changed server token is refused before anything is uploaded", func(t *testing.T) {
		before := b.read("project/secrets/init-token")
		b.write("project/secrets/init-token", strings.Repeat("c3", 32)+"\n", 0o600)
		r := b.deploy()
		require.Equal(t, 1, r.code)
		require.Contains(t, r.stderr, "the server token is not the one that olaf, rolf and ulf got")
		require.NotContains(t, r.stderr, "c3c3")
		require.Empty(t, b.read("uploads"))
		require.Empty(t, b.activated())
		b.write("project/secrets/init-token", before, 0o600)
		b.well(t)
	})

	scenario("the agent token: servers one after the other, then agents", func(t *testing.T) {
		b.write("project/secrets/agent-token", strings.Repeat("d4", 32)+"\n", 0o600)
		r := b.deploy()
		require.Zero(t, r.code, r.stderr)
		require.Empty(t, b.applied())
		require.Equal(t, []string{"restart olaf-s", "restart podman-olaf-a.service", "restart rolf-s", "restart ulf-s", "restart podman-ulf-a.service", "restart podman-karl-a.service"}, b.events())
		b.well(t)
	})

	scenario("no server is stopped while another is down", func(t *testing.T) {
		b.remove("running/rolf-s")
		b.edit("plans/hosts.csv", "ulf,2", "ulf,20")
		r := b.deploy()
		require.Equal(t, 1, r.code)
		require.Contains(t, r.stderr, "ulf would be restarted while the server on rolf (/readyz: not ready: etcd) is down: of 3 servers etcd needs 2, and 1 would be left")
		require.Empty(t, b.applied())
		// what concerns no server goes on
		require.Zero(t, b.deploy("karl", "ulrich").code)
		b.write("running/rolf-s", "", 0o644)
		r = b.deploy()
		require.Zero(t, r.code, r.stderr)
		b.well(t)
	})

	scenario("another address of a server: refused until the hint was followed", func(t *testing.T) {
		b.edit("plans/k3s.csv", "10.77.0.14", "10.77.0.34")
		r := b.deploy()
		require.Equal(t, 1, r.code)
		require.Contains(t, r.stderr, "refused: server rolf-s: ip 10.77.0.14 → 10.77.0.34 (etcd keeps the old member)")
		require.Contains(t, r.stderr, "etcdctl member remove ID of rolf-s")
		require.Empty(t, b.applied())
		emptied := func() {
			b.remove("running/rolf-s")
			b.remove("hosts/rolf/server")
			b.on("rolf", "rm -r /var/lib/nixos-containers/rolf-s")
		}
		emptied()
		b.remove("members/rolf-s")
		r = b.deploy()
		require.Zero(t, r.code, r.stderr)
		b.well(t)

		// a new machine in its place
		emptied()
		b.on("rolf", "rm /var/lib/k3splan/receipt")
		r = b.deploy()
		require.Equal(t, 1, r.code)
		require.Contains(t, r.stderr, "refused: the server rolf-s is empty, and etcd still has it as a member: it would not be let in")
		b.remove("members/rolf-s")
		require.Zero(t, b.deploy().code)
		b.well(t)
	})

	scenario("a rollback on the host is noticed", func(t *testing.T) {
		b.edit("plans/hosts.csv", "karl,4", "karl,42")
		b.on("karl", "readlink -f /run/current-system > /run/before")
		require.Zero(t, b.deploy().code)
		b.on("karl", "ln -sfn $(cat /run/before) /run/current-system")
		r := b.deploy()
		require.Equal(t, "deployed", r.status()["karl"], r.stderr)
		require.Equal(t, []string{"runs another system than was deployed (a rollback, or a deployment that did not end well)"}, r.results["karl"].Reasons)
		b.well(t)
		// a boot into an old generation
		b.on("karl", "ln -sfn $(cat /run/before) /run/current-system; ln -sfn $(cat /run/before) /run/booted-system")
		r = b.deploy()
		require.Equal(t, []string{"has booted into another system than was deployed"}, r.results["karl"].Reasons)
		b.on("karl", "ln -sfn $(readlink -f /run/current-system) /run/booted-system")
		b.well(t)
	})

	scenario("first contact as root", func(t *testing.T) {
		b.edit("plans/hosts.csv", "ulrich,lan", "emil,lan,10.77.0.8,emil,7\nulrich,lan")
		b.add("emil", "10.77.0.8")
		// a machine that k3splan has not met has no user deploy; its first system makes it
		b.remove("hosts/emil/etc/keys/deploy")
		r := b.deploy("emil")
		require.Equal(t, all("not reached", "emil"), r.status(), r.stderr)
		require.Contains(t, r.stderr, "--as")
		r = b.deploy("emil", "--as", "nobody")
		require.Equal(t, 1, r.code)
		require.Contains(t, r.stderr, "nobody@10.77.0.8 cannot log in")
		r = b.deploy("emil", "--as", "root")
		require.Equal(t, all("deployed", "emil"), r.status(), r.stderr)
		require.Equal(t, []string{"emil"}, b.applied())
		require.Equal(t, "unchanged", b.deploy("emil").status()["emil"])
	})

	scenario("first contact as somebody with sudo", func(t *testing.T) {
		b.edit("plans/hosts.csv", "ulrich,lan", "frida,lan,10.77.0.9,frida,8\nulrich,lan")
		b.add("frida", "10.77.0.9")
		b.remove("hosts/frida/etc/keys/deploy")
		b.write("hosts/frida/etc/keys/alice", b.read("key.pub"), 0o644)
		more := func(file, text string) {
			file = "hosts/frida/etc/" + file
			info, err := os.Stat(filepath.Join(b.dir, file))
			require.NoError(t, err)
			b.write(file, b.read(file)+text, info.Mode().Perm())
		}
		more("passwd", "alice:x:2000:2000::/tmp:/bin/sh\n")
		more("group", "alice:x:2000:\nrack-admins:x:2001:alice\n")
		more("shadow", "alice:*:19000:0:99999:7:::\n")
		refused := func(what, hint string) {
			t.Helper()
			r := b.deploy("frida", "--as", "alice")
			require.Equal(t, 1, r.code)
			require.Contains(t, r.stderr, what)
			require.Contains(t, r.stderr, hint)
			require.Empty(t, b.applied())
		}
		refused("alice@10.77.0.9 cannot become root without a password: sudo: a password is required", "wheelNeedsPassword = false")
		more("sudoers", "alice ALL=(ALL) NOPASSWD: ALL\n")
		refused("Nix on 10.77.0.9 does not accept systems from alice that were built elsewhere", `trusted-users = [ "root" "alice" ]`)
		more("nix/nix.conf", "extra-trusted-users = @rack-admins\n")
		b.stop("frida")
		b.start("frida")
		r := b.deploy("frida", "--as", "alice")
		require.Equal(t, all("deployed", "frida"), r.status(), r.stderr)
		require.Equal(t, "unchanged", b.deploy("frida").status()["frida"])
	})

	scenario("a system refuses to be activated: the way on is told, and leads there", func(t *testing.T) {
		require.Zero(t, b.deploy().code)
		b.edit("plans/hosts.csv", "ulrich,5", "ulrich,6")
		b.write("project/nixConfigs/ulrich.nix", "{ deployment.buildOnTarget = true; }\n", 0o644)
		b.write("hosts/ulrich/inhibits", "diskSpace", 0o644)
		r := b.deploy("ulrich")
		require.Equal(t, 1, r.code)
		require.Contains(t, r.stderr, "the system itself refuses its activation, by system.preSwitchChecks.diskSpace of its configuration")
		require.NotContains(t, r.stderr, "--reboot")
		b.write("hosts/ulrich/inhibits", "switchInhibitors", 0o644)
		r = b.deploy("ulrich")
		require.Equal(t, 1, r.code)
		require.Contains(t, r.stderr, "Pre-switch check 'switchInhibitors' failed")
		require.Contains(t, r.stderr, "k3splan deploy ulrich --reboot: it is set for the next boot, and the host reboots in its wave")
		b.events()
		r = b.deploy("ulrich", "--reboot")
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, all("deployed", "ulrich"), r.status())
		require.Equal(t, []string{"reboot ulrich"}, b.events())
		log, err := os.ReadFile(r.results["ulrich"].Log)
		require.NoError(t, err)
		require.Regexp(t, `(?m)ulrich \| Built "/nix/store/\S+-nixos-system-ulrich\S*" on target node$`, string(log), "which is how k3splan knows the system")
		b.remove("hosts/ulrich/inhibits")
		require.Equal(t, "unchanged", b.deploy("ulrich").status()["ulrich"])
	})

	scenario("status", func(t *testing.T) {
		require.Zero(t, b.deploy().code)
		r := b.k3splan("status")
		require.Zero(t, r.code, r.stdout+r.stderr)
		require.Regexp(t, `(?m)^olaf +up to date +v1.35.1\+k3s1 +v1.35.1\+k3s1 +26.05.box +20[-0-9]+ [0-9:]+ +[0-9]+$`, r.stdout)
		require.Regexp(t, `(?m)^ulrich +up to date +- +- +26.05.box +20`, r.stdout)

		b.write("project/nixConfigs/ulf.nix", "{ pkgs, ... }: { boot.kernelPackages = pkgs.linuxPackages; /* linux_latest */ }\n", 0o644)
		r = b.deploy()
		require.Zero(t, r.code)
		require.Equal(t, []string{"snippet nixConfigs/ulf.nix (new)"}, r.results["ulf"].Reasons)
		r = b.k3splan("status", "ulf")
		require.Regexp(t, `(?m)^ulf +up to date .* needed`, r.stdout)

		b.edit("plans/hosts.csv", "karl,42", "karl,43")
		b.write("hosts/ulrich/failed", "nginx.service\n", 0o644)
		b.on("frida", "rm /var/lib/k3splan/receipt")
		b.on("emil", "ln -sfn /nix/store/other /run/current-system")
		b.remove("running/rolf-s")
		b.remove("nodes/ulf-a")
		b.stop("olaf")
		r = b.k3splan("status", "--json")
		require.Equal(t, 1, r.code)
		var rows []rollout.HostStatus
		require.NoError(t, json.Unmarshal([]byte(r.stdout), &rows))
		byHost := map[string]rollout.HostStatus{}
		for _, row := range rows {
			byHost[row.Host] = row
		}
		require.Equal(t, rollout.StateUnreachable, byHost["olaf"].State)
		require.Equal(t, rollout.StateChanged, byHost["karl"].State)
		require.Equal(t, []string{"plans/hosts.csv:5 host karl: slot 42 → 43"}, byHost["karl"].Reasons)
		require.Equal(t, rollout.StateNew, byHost["frida"].State)
		require.Equal(t, rollout.StateForeign, byHost["emil"].State)
		require.Equal(t, []string{"nginx.service"}, byHost["ulrich"].FailedUnits)
		require.Equal(t, "/readyz: not ready: etcd", byHost["rolf"].Server)
		require.Equal(t, "not registered", byHost["ulf"].Node)
		for _, host := range []string{"olaf", "rolf", "frida", "emil", "ulrich", "ulf"} {
			require.False(t, byHost[host].Healthy, host)
		}
		require.True(t, byHost["karl"].Healthy)
	})

	scenario("on a terminal it asks, and shows a bar", func(t *testing.T) {
		if _, err := exec.LookPath("script"); err != nil {
			t.Skip("SKIP: script is not there (Debian: bsdutils)")
		}
		b.start("olaf")
		b.write("running/rolf-s", "", 0o644)
		b.write("nodes/ulf-a", "", 0o644)
		b.write("hosts/ulrich/failed", "", 0o644)
		require.Zero(t, b.deploy().code)
		b.applied()
		b.edit("plans/hosts.csv", "karl,lan", "karl,lan0")
		b.edit("plans/hosts.csv", "ulrich,lan", "ulrich,lan0") // the bar is for several hosts
		answer := func(text string) ran {
			cmd := b.command("script", "-qec", "k3splan -p "+b.project()+" deploy --gate-pause 100ms", "/dev/null")
			cmd.Env = append(cmd.Env, "TERM=xterm", "NO_COLOR=")
			cmd.Stdin = strings.NewReader(text)
			return b.finish(cmd, b.begin(cmd))
		}
		r := answer("n\n")
		require.Equal(t, 1, r.code, r.stdout)
		require.Contains(t, r.stdout, "host karl: interface lan → lan0 (may cut the connection)")
		require.Contains(t, r.stdout, "not confirmed; nothing was changed")
		require.Empty(t, b.applied())
		r = answer("y\n")
		require.Zero(t, r.code, r.stdout)
		require.Contains(t, r.stdout, "] 0 of 2 hosts")
		require.Regexp(t, "[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] karl copying, activating", r.stdout)
		require.Regexp(t, `(?m)^karl +deployed \([0-9]+ s\)`, r.stdout)
		b.stop("olaf")
	})

	// every run above looked for secrets in what k3splan said and in Colmena's output
	scenario("a secret in a log would be found", func(t *testing.T) {
		require.NotEmpty(t, b.leak("x "+b.read("project/secrets/init-token")))
		b.write("project/.k3splan/logs/poison", "x "+b.read("project/secrets/passwd"), 0o600)
		require.Contains(t, b.leak(""), "logs/poison")
		b.remove("project/.k3splan/logs/poison")
		require.Empty(t, b.leak(""))
	})

	scenario("hardware", func(t *testing.T) {
		r := b.k3splan("hardware", "karl")
		require.Zero(t, r.code, r.stderr)
		require.Contains(t, b.read("project/hardware/karl.nix"), "nvme")
		require.NotContains(t, b.read("project/hardware/karl.nix"), "fileSystems", "the installer's labels define them")
		r = b.k3splan("hardware", "karl")
		require.Contains(t, r.stderr, "up to date")
		b.edit("hardware/karl.nix", "nvme", "ahci")
		r = b.k3splan("hardware", "karl")
		require.Equal(t, 2, r.code, "stdin is not a terminal")
		require.Contains(t, r.stdout, "-  boot.initrd.availableKernelModules = [ \"ahci\" ];")
		require.Contains(t, b.read("project/hardware/karl.nix"), "ahci", "nothing is replaced without an answer")
		require.Zero(t, b.k3splan("hardware", "--yes", "karl").code)
		require.Contains(t, b.read("project/hardware/karl.nix"), "nvme")
		r = b.k3splan("hardware", "olaf")
		require.Equal(t, 1, r.code, "the machine is off")
		require.NoFileExists(t, filepath.Join(b.project(), "hardware/olaf.nix"))
	})
}

// The machine that deploys is a host itself: Colmena's local deployment, without ssh.
func TestBoxOfOne(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.write("project/plans/hosts.csv", "name,interface,ip,admin,slot\ndora,lan,10.77.0.9@local,dora,1\n", 0o644)
	b.write("project/plans/k3s.csv", "host,name,type,ip\n", 0o644)
	b.write("project/plans/network.yaml", "netmask: 24\ngateway: 10.77.0.254\nversions: {nixos: https://git.example.org/nixpkgs#box}\n", 0o644)
	b.secretsAndPins()
	r := b.deploy()
	require.Equal(t, all("deployed", "dora"), r.status(), r.stderr)
	require.Contains(t, b.read(strings.TrimPrefix(r.results["dora"].Log, b.dir+"/")), "$ colmena apply-local ")
	require.Contains(t, b.read("deployer/activations"), "done ")
	require.FileExists(t, filepath.Join(b.dir, "deployer/var/lib/k3splan/receipt"))
	require.Equal(t, []string{"dora"}, b.applied())
	require.Equal(t, "unchanged", b.deploy().status()["dora"])
	b.write("project/secrets/passwd", strings.Replace(testHash, "3NZs", "4NZs", 1), 0o600)
	r = b.deploy()
	require.Equal(t, []string{"password"}, r.results["dora"].Reasons, r.stderr)
	require.Equal(t, "deployed", r.status()["dora"])
	require.Contains(t, b.read("deployer/shadow"), "4NZs")
	require.Zero(t, b.k3splan("status").code)
}

func onlyEntry(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	return entries[0].Name()
}
