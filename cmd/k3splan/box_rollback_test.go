package main

import (
	"encoding/json"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/receipt"
	"k3splan/internal/rollout"
)

// rollback rolls back without questions.
func (b *box) rollback(args ...string) ran {
	b.t.Helper()
	return b.k3splan(append([]string{"rollback", "--json", "--yes", "--gate-timeout", "60s", "--gate-pause", "100ms"}, args...)...)
}

// generations are those of a host by what "k3splan generations" says, the newest first.
func (b *box) generations(host string) []generationRow {
	b.t.Helper()
	r := b.k3splan("generations", "--json", host)
	require.Zero(b.t, r.code, r.stderr)
	var rows []generationRow
	require.NoError(b.t, json.Unmarshal([]byte(r.stdout), &rows))
	return rows
}

// now are the numbers of the generations that run, boot next, and are named by the receipt.
func now(rows []generationRow) (runs, next, deployed int) {
	for _, row := range rows {
		if row.Runs {
			runs = row.Number
		}
		if row.BootsNext {
			next = row.Number
		}
		if row.Deployed {
			deployed = row.Number
		}
	}
	return runs, next, deployed
}

func (b *box) requireRuns(host string, number int) {
	b.t.Helper()
	runs, next, deployed := now(b.generations(host))
	require.Equal(b.t, []int{number, number, number}, []int{runs, next, deployed}, host)
}

func (b *box) stateOf(host string) rollout.HostStatus {
	b.t.Helper()
	var rows []rollout.HostStatus
	require.NoError(b.t, json.Unmarshal([]byte(b.k3splan("status", "--json", host).stdout), &rows))
	require.Len(b.t, rows, 1)
	return rows[0]
}

// Hosts go back to what they were, with the gates of a deployment.
func TestRackInABoxGoesBack(t *testing.T) {
	t.Parallel()
	b := rackOfFive(t)
	b.keepConnections()
	scenario := func(name string, do func(t *testing.T)) { t.Helper(); b.scenario(t, name, do) }

	scenario("no deployment yet", func(t *testing.T) {
		r := b.rollback("karl", "ulrich")
		require.Equal(t, 1, r.code)
		require.Contains(t, r.stderr, "karl: it has no receipt: no deployment of it has ended well yet\nulrich: it has no receipt")
		require.Empty(t, b.activated())
		r = b.k3splan("generations", "karl")
		require.Equal(t, 1, r.code)
		require.Contains(t, r.stderr, "karl has no generation of a system")
	})

	scenario("the first generation has none before it", func(t *testing.T) {
		require.Zero(t, b.deploy().code)
		b.activated()
		r := b.rollback("karl")
		require.Equal(t, 1, r.code)
		require.Contains(t, r.stderr, "karl: there is no generation before 1, which is deployed")
		require.Empty(t, b.activated())
	})

	scenario("an agent and a host without k3s, and back to the plan", func(t *testing.T) {
		b.edit("plans/hosts.csv", "karl,4", "karl,40")
		b.edit("plans/hosts.csv", "ulrich,5", "ulrich,50")
		require.Zero(t, b.deploy().code)
		b.applied()
		b.built()
		b.activated()
		b.remove("uploads")
		rows := b.generations("karl")
		require.Len(t, rows, 2)
		require.Equal(t, 2, rows[0].Number, "the newest first")
		require.NotEqual(t, rows[0].System, rows[1].System)
		for _, row := range rows {
			require.Equal(t, "26.05.box", row.NixOS)
			require.Equal(t, []string{"", "", "karl-a", "1.35.1+k3s1"}, []string{row.Server, row.ServerK3s, row.Agent, row.AgentK3s})
			require.NotEmpty(t, row.Receipt)
		}
		b.requireRuns("karl", 2)
		r := b.k3splan("generations", "olaf")
		require.Regexp(t, `(?m)^GENERATION +DATE +NIXOS +SERVER +AGENT +RECEIPT`, r.stdout)
		require.Regexp(t, `(?m)^1 +20\d\d-\d\d-\d\d \d\d:\d\d +26\.05\.box +1\.35\.1\+k3s1 +1\.35\.1\+k3s1 +20\d\d-\d\d-\d\d \d\d:\d\d +deployed, runs, boots next$`, r.stdout)

		r = b.rollback("--dry-run", "karl", "ulrich")
		require.Zero(t, r.code, r.stderr)
		require.Contains(t, r.stdout, "generation 2 (NixOS 26.05.box, agent k3s 1.35.1+k3s1) → generation 1 of ")
		require.Contains(t, r.stdout, "host karl: slot 40 → 4")
		require.Empty(t, b.activated())
		require.NoFileExists(t, b.dir+"/hosts/karl/var/lib/k3splan/rollback")
		r = b.k3splan("rollback", "karl")
		require.Equal(t, 2, r.code, "stdin is not a terminal")
		require.Contains(t, r.stderr, "confirmation needed")
		require.Empty(t, b.activated())

		r = b.rollback("karl", "ulrich")
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, all("rolled back", "karl", "ulrich"), r.status())
		require.Equal(t, []string{"karl", "ulrich"}, b.activated())
		require.Empty(t, b.applied(), "nothing is evaluated")
		require.Empty(t, b.read("uploads"))
		require.Contains(t, b.read(strings.TrimPrefix(r.results["karl"].Log, b.dir+"/")), "switching")
		b.requireRuns("karl", 1)
		require.Equal(t, r.results["karl"].System, b.generations("karl")[1].System)

		state := b.stateOf("karl")
		require.Equal(t, rollout.StateRolledBack, state.State)
		require.True(t, state.Healthy)
		require.Equal(t, []string{"plans/hosts.csv:5 host karl: slot 4 → 40", "was rolled back to generation 1 on " + state.Reasons[1][len("was rolled back to generation 1 on "):]}, state.Reasons)

		r = b.k3splan("deploy", "--gate-pause", "100ms")
		require.Equal(t, 2, r.code, "it asks")
		require.Regexp(t, `to be confirmed: karl was rolled back to generation 1 on .*: the deployment undoes that`, r.stderr)
		require.Contains(t, r.stderr, "k3splan deploy '!karl'")
		r = b.rollback("karl", "--to", "1")
		require.Equal(t, "unchanged", r.status()["karl"], r.stderr)
		r = b.deploy()
		require.Equal(t, "deployed", r.status()["karl"], r.stderr)
		b.requireRuns("karl", 2)
		require.Equal(t, rollout.StateCurrent, b.stateOf("karl").State)
		b.well(t)
	})

	scenario("the plan is changed back as well: nothing is left to deploy", func(t *testing.T) {
		require.Zero(t, b.rollback("ulrich").code)
		b.edit("plans/hosts.csv", "ulrich,50", "ulrich,5")
		require.Equal(t, rollout.StateCurrent, b.stateOf("ulrich").State)
		b.well(t)
		b.edit("plans/hosts.csv", "ulrich,5", "ulrich,50")
		require.Equal(t, rollout.StateRolledBack, b.stateOf("ulrich").State)
		require.Zero(t, b.deploy().code)
		b.well(t)
	})

	scenario("two servers: one after the other", func(t *testing.T) {
		b.edit("plans/network.yaml", "netmask: 24", "netmask: 24\nnameservers: [9.9.9.9]")
		require.Zero(t, b.deploy().code)
		b.events()
		b.activated()
		r := b.rollback("olaf", "rolf")
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, all("rolled back", "olaf", "rolf"), r.status())
		require.Equal(t, 1, r.results["olaf"].Wave)
		require.Equal(t, 2, r.results["rolf"].Wave)
		require.Equal(t, []string{"restart olaf-s", "restart rolf-s"}, b.events())
		require.Equal(t, []string{"olaf", "rolf"}, b.activated())
		// one that is down stops the next one
		b.remove("running/rolf-s")
		r = b.rollback("ulf")
		require.Equal(t, 1, r.code)
		require.Contains(t, r.stderr, "refused: ulf would be restarted while the server on rolf (/readyz: not ready: etcd) is down: of 3 servers etcd needs 2, and 1 would be left")
		require.Empty(t, b.activated())
		b.write("running/rolf-s", "", 0o644)
		// a gate that fails: the next one stays
		require.Zero(t, b.deploy().code)
		b.activated()
		b.events()
		b.write("hosts/olaf/broken-server", "", 0o644)
		r = b.rollback("olaf", "rolf", "--gate-timeout", "5s")
		require.Equal(t, 1, r.code)
		require.Equal(t, map[string]string{"olaf": "failed", "rolf": "not reached"}, r.status(), r.stderr)
		require.Equal(t, []string{"olaf"}, b.activated())
		require.NotContains(t, b.events(), "quorum lost")
		b.remove("hosts/olaf/broken-server")
		b.remove("hosts/olaf/server")
		r = b.rollback("olaf", "rolf")
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, all("rolled back", "olaf", "rolf"), r.status())
		require.Zero(t, b.deploy().code)
		b.well(t)
	})

	scenario("a minor version of k3s: servers stay, an agent goes back", func(t *testing.T) {
		b.edit("plans/network.yaml", "1.35.1+k3s1", "1.36.1+k3s1")
		require.Zero(t, b.deploy("--no-snapshot").code)
		b.activated()
		r := b.rollback("olaf", "karl")
		require.Equal(t, 1, r.code)
		require.Regexp(t, `refused: the server on olaf runs k3s 1\.36\.1\+k3s1, and generation \d has 1\.35\.1\+k3s1`, r.stderr)
		require.Contains(t, r.stderr, "k3splan etcd restore")
		require.Empty(t, b.activated())
		r = b.rollback("karl", "--dry-run")
		require.Contains(t, r.stdout, `"snapshot": "before k3s may change on karl"`)
		r = b.rollback("karl", "--no-snapshot")
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, "1.35.1+k3s1", b.generations("karl")[1].AgentK3s)
		require.Equal(t, []string{"karl"}, b.activated())
		b.edit("plans/network.yaml", "1.36.1+k3s1", "1.35.1+k3s1")
		require.Equal(t, 1, b.deploy().code, "no way back by the plan either")
		b.edit("plans/network.yaml", "1.35.1+k3s1", "1.36.1+k3s1")
		require.Zero(t, b.deploy("--no-snapshot").code)
		b.well(t)
	})

	scenario("a host is off, and a generation is gone", func(t *testing.T) {
		b.stop("karl")
		b.activated()
		r := b.rollback("karl", "ulrich")
		require.Equal(t, 1, r.code)
		require.Equal(t, map[string]string{"karl": "not reached", "ulrich": "rolled back"}, r.status(), r.stderr)
		require.Contains(t, r.stderr, "1 host of 2 not rolled back")
		r = b.rollback("--dry-run", "karl")
		require.Equal(t, 1, r.code)
		b.start("karl")
		r = b.rollback("karl", "--to", "99")
		require.Equal(t, 1, r.code)
		require.Regexp(t, `karl: it has no generation 99, only 1 2 .* \(garbage collection removes old ones\)`, r.stderr)
		b.on("karl", "nix-env --profile /nix/var/nix/profiles/system --delete-generations 1")
		r = b.rollback("karl", "ulrich", "--to", "1")
		require.Equal(t, 1, r.code)
		require.Regexp(t, `karl: it has no generation 1, only 2 `, r.stderr)
		require.Equal(t, []string{"ulrich"}, b.activated(), "of the first one")
		// its receipt goes with the next deployment
		b.edit("plans/hosts.csv", "karl,40", "karl,41")
		require.Zero(t, b.deploy().code)
		kept := strings.Fields(b.on("karl", "ls /var/lib/k3splan/receipts"))
		rows := b.generations("karl")
		var systems []string
		for _, row := range rows {
			systems = append(systems, strings.TrimPrefix(row.System, "/nix/store/"))
		}
		require.Subset(t, systems, kept)
		b.well(t)
	})

	scenario("after a deployment that did not end well: the last one that did", func(t *testing.T) {
		before, _, _ := now(b.generations("ulrich"))
		b.edit("plans/hosts.csv", "ulrich,50", "ulrich,51")
		b.write("hosts/ulrich/fail-units", "", 0o644)
		require.Equal(t, 1, b.deploy().code)
		b.remove("hosts/ulrich/fail-units")
		runs, next, deployed := now(b.generations("ulrich"))
		require.Equal(t, []int{before + 1, before + 1, before}, []int{runs, next, deployed})
		require.Empty(t, b.generations("ulrich")[0].Receipt)
		r := b.rollback("ulrich")
		require.Zero(t, r.code, r.stderr)
		b.requireRuns("ulrich", before)
		// the one that failed is passed over later as well
		b.edit("plans/hosts.csv", "ulrich,51", "ulrich,52")
		require.Zero(t, b.deploy().code)
		require.Zero(t, b.rollback("ulrich").code)
		b.requireRuns("ulrich", before)
		require.Zero(t, b.deploy().code)
		b.well(t)
	})

	scenario("interrupted in the middle: the same command continues", func(t *testing.T) {
		b.edit("plans/hosts.csv", "ulrich,52", "ulrich,53")
		require.Zero(t, b.deploy().code)
		b.activated()
		rows := b.generations("ulrich")
		want := rows[1].Number
		b.write("hosts/ulrich/slow", "10", 0o644)
		cmd := b.command("k3splan", "-p", b.project(), "rollback", "ulrich", "--json", "--yes", "--gate-pause", "100ms")
		s := b.begin(cmd)
		require.Eventually(t, func() bool { return strings.Contains(b.read("hosts/ulrich/activations"), "switch ") }, time.Minute, 20*time.Millisecond)
		require.NoError(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGINT))
		r := b.finish(cmd, s)
		require.Equal(t, 1, r.code, r.stderr)
		require.Equal(t, "failed", r.status()["ulrich"])
		require.Contains(t, r.results["ulrich"].Cause, "the activation of generation")
		b.remove("hosts/ulrich/slow")
		state := b.stateOf("ulrich")
		require.Contains(t, strings.Join(state.Reasons, "\n"), "a rollback to generation ")
		r = b.rollback("ulrich") // waits for the activation that goes on
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, 2, strings.Count(b.read("hosts/ulrich/activations"), "done "))
		b.requireRuns("ulrich", want)
		require.NoFileExists(t, b.dir+"/hosts/ulrich/var/lib/k3splan/rollback")
		require.Zero(t, b.deploy().code)
		b.well(t)
	})

	scenario("the power is cut in the middle", func(t *testing.T) {
		rows := b.generations("ulrich")
		runs, _, _ := now(rows)
		b.write("hosts/ulrich/die", "", 0o644)
		r := b.rollback("ulrich", "--gate-timeout", "3s")
		require.Equal(t, 1, r.code)
		require.Equal(t, "failed", r.status()["ulrich"], r.stderr)
		require.Contains(t, r.results["ulrich"].Cause, "ulrich did not become healthy within 3s: ssh: ")
		b.remove("hosts/ulrich/die")
		b.stop("ulrich")
		b.start("ulrich")
		r = b.rollback("ulrich")
		require.Zero(t, r.code, r.stderr)
		after, next, deployed := now(b.generations("ulrich"))
		require.Less(t, after, runs)
		require.Equal(t, after, next)
		require.Equal(t, after, deployed)
		require.Zero(t, b.deploy().code)
		b.well(t)
	})

	scenario("by hand: the next deployment notices, and so does a rollback", func(t *testing.T) {
		rows := b.generations("karl")
		older := rows[1]
		b.on("karl", "nix-env --profile /nix/var/nix/profiles/system --switch-generation "+strconv.Itoa(older.Number)+" && "+older.System+"/bin/switch-to-configuration switch")
		require.Equal(t, rollout.StateForeign, b.stateOf("karl").State)
		b.activated()
		r := b.rollback("karl", "--to", strconv.Itoa(older.Number))
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, rollout.StateRolledBack, b.stateOf("karl").State)
		require.Zero(t, b.deploy().code)
		b.well(t)
	})

	scenario("a generation without a receipt is asked about", func(t *testing.T) {
		b.on("karl", "rm -r /var/lib/k3splan/receipts")
		runs, _, _ := now(b.generations("karl"))
		var to string
		for _, row := range b.generations("karl") {
			if row.Number < runs {
				to = strconv.Itoa(row.Number)
				break
			}
		}
		b.activated()
		r := b.k3splan("rollback", "karl", "--to", to)
		require.Equal(t, 2, r.code)
		require.Contains(t, r.stderr, "to be confirmed: no receipt is kept of generation "+to+" of karl")
		require.Empty(t, b.activated())
		r = b.rollback("karl", "--to", to)
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, rollout.StateRolledBack, b.stateOf("karl").State)
		require.Zero(t, b.deploy().code)
		b.well(t)
	})

	scenario("what is kept on a host holds no secret", func(t *testing.T) {
		kept := b.on("karl", "cat /var/lib/k3splan/receipts/*")
		require.NotEmpty(t, kept)
		for line := range strings.Lines(kept) {
			var r receipt.Receipt
			require.NoError(t, json.Unmarshal([]byte(line), &r))
		}
		for _, secret := range []string{"a1a1a1a1", "b2b2b2b2", "k3splantest"} {
			require.NotContains(t, kept, secret)
		}
		require.Equal(t, "700\n", b.on("karl", "stat -c %a /var/lib/k3splan/receipts"))
	})
}
