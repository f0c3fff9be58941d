package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func (b *box) reboot(args ...string) ran {
	b.t.Helper()
	return b.k3splan(append([]string{"reboot", "--json", "--yes", "--timeout", "60s", "--gate-pause", "100ms"}, args...)...)
}

// reboots are the names of the hosts that have rebooted since the last call, in their order.
func rebootsIn(events []string) (hosts []string) {
	for _, event := range events {
		if host, is := strings.CutPrefix(event, "reboot "); is {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// before reports whether an event is before another one, and both are there once.
func requireBefore(t *testing.T, events []string, first, second string) {
	t.Helper()
	i, j := slices.Index(events, first), slices.Index(events, second)
	require.True(t, i >= 0 && i < j, "%q before %q: %v", first, second, events)
}

// Hosts reboot in the order that they ask for, with their Nodes drained and their checks made by real servers in
// their namespaces. One rack serves all scenarios, in this order.
func TestRebootInABox(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.project5()
	b.write("project/plans/hosts.csv", `name,interface,ip,admin,reboot_order,depends_on,reboot_delay
olaf,lan,10.77.0.2,olaf,3,,0
ulf,lan,10.77.0.3,ulf,,olaf,1
rolf,lan,10.77.0.4,rolf,1,"ulf, karl",0
karl,lan,10.77.0.5,karl,2,,0
ulrich,lan,10.77.0.6,ulrich,1,karl,0
`, 0o644)
	b.write("project/plans/checks.csv", `host,name,type,target,timeout,from
*,ssh,tcp,22,20,
karl,web,http,http://10.77.0.5:8080/health,20,
karl,local,http,http://localhost:8080/health,20,host
karl,disk,command,test -e /run/box.env,20,
`, 0o644)
	for i, name := range []string{"olaf", "ulf", "rolf", "karl", "ulrich"} {
		b.add(name, fmt.Sprintf("10.77.0.%d", 2+i))
	}
	b.write("hosts/karl/www/health", "well\n", 0o644)
	b.stop("karl")
	b.start("karl")
	r := b.deploy()
	require.Zero(t, r.code, r.stderr)

	b.scenario(t, "checks", func(t *testing.T) {
		r := b.k3splan("check", "--wait", "60s")
		require.Zero(t, r.code, r.stdout+r.stderr)
		require.Equal(t, 8, strings.Count(r.stdout, "passed"), r.stdout)
		require.NoError(t, os.Rename(b.dir+"/hosts/karl/www/health", b.dir+"/hosts/karl/www/ill"))
		r = b.k3splan("check", "karl", "--json")
		require.Equal(t, 1, r.code)
		var rows []checkRow
		require.NoError(t, json.Unmarshal([]byte(r.stdout), &rows))
		words := []string{}
		for _, row := range rows {
			words = append(words, fmt.Sprintf("%s %v %s", row.Name, row.Healthy, row.Reason))
		}
		require.Equal(t, []string{"disk true ", "local false status 404", "ssh true ", "web false status 404"}, words)
		require.NoError(t, os.Rename(b.dir+"/hosts/karl/www/ill", b.dir+"/hosts/karl/www/health"))
	})

	b.scenario(t, "in order", func(t *testing.T) {
		r := b.k3splan("reboot", "--dry-run")
		require.Zero(t, r.code, r.stderr)
		require.Contains(t, r.stdout, "wave 1 of 5: reboot, by order\n  karl\nwave 2 of 5: reboot, by dependency\n  ulrich\n")
		require.Empty(t, b.events())
		r = b.reboot()
		require.Zero(t, r.code, r.stdout+r.stderr)
		require.Equal(t, all("rebooted", five...), r.status())
		events := b.events()
		require.Equal(t, []string{"karl", "ulrich", "olaf", "ulf", "rolf"}, rebootsIn(events))
		for _, name := range []string{"karl", "olaf", "ulf"} {
			requireBefore(t, events, "cordoned "+name+"-a", "drained "+name+"-a")
			requireBefore(t, events, "drained "+name+"-a", "reboot "+name)
			requireBefore(t, events, "reboot "+name, "uncordoned "+name+"-a")
		}
		requireBefore(t, events, "uncordoned karl-a", "reboot ulrich")
		require.NotContains(t, events, "quorum lost")
	})

	b.scenario(t, "a failing check stops what comes after", func(t *testing.T) {
		require.NoError(t, os.Rename(b.dir+"/hosts/karl/www/health", b.dir+"/hosts/karl/www/ill"))
		r := b.reboot("karl", "ulrich", "--timeout", "8s")
		require.Equal(t, 1, r.code)
		require.Equal(t, map[string]string{"karl": "failed", "ulrich": "not reached"}, r.status())
		require.Contains(t, r.results["karl"].Cause, "check web: status 404")
		require.Contains(t, r.results["karl"].Cause, "its Node takes no new pods: kubectl uncordon karl-a")
		require.Equal(t, []string{"karl"}, rebootsIn(b.events()))
		// what depends on it waits for it
		r = b.reboot("ulrich", "--timeout", "3s")
		require.Equal(t, 1, r.code)
		require.Contains(t, r.results["ulrich"].Cause, "ulrich depends on it: karl did not become healthy")
		require.Empty(t, rebootsIn(b.events()))
		require.NoError(t, os.Rename(b.dir+"/hosts/karl/www/ill", b.dir+"/hosts/karl/www/health"))
		// a Node that was cordoned before stays so
		r = b.reboot("karl", "ulrich")
		require.Zero(t, r.code, r.stdout+r.stderr)
		events := b.events()
		require.Equal(t, []string{"karl", "ulrich"}, rebootsIn(events))
		require.NotContains(t, events, "uncordoned karl-a")
		b.remove("cordoned-karl-a")
	})

	b.scenario(t, "a PodDisruptionBudget", func(t *testing.T) {
		b.write("pinned-karl-a", "db-0", 0o644)
		r := b.reboot("karl", "ulrich", "--drain-timeout", "1s")
		require.Equal(t, 1, r.code)
		require.Equal(t, map[string]string{"karl": "failed", "ulrich": "not reached"}, r.status())
		require.Contains(t, r.results["karl"].Cause, `pods/"db-0" -n "shop"`)
		require.Contains(t, r.results["karl"].Cause, "karl was not rebooted, and its Node takes pods again")
		require.Equal(t, []string{"cordoned karl-a", "uncordoned karl-a"}, b.events())
		r = b.reboot("karl", "--no-drain")
		require.Zero(t, r.code, r.stdout+r.stderr)
		b.remove("pinned-karl-a")
	})

	b.scenario(t, "a host that stays away", func(t *testing.T) {
		b.write("hosts/karl/stay-away", "", 0o644)
		r := b.reboot("karl", "ulrich", "--timeout", "5s")
		require.Equal(t, 1, r.code)
		require.Equal(t, map[string]string{"karl": "failed", "ulrich": "not reached"}, r.status())
		require.Contains(t, r.results["karl"].Cause, "karl did not become healthy within 5s: ssh:")
		require.Contains(t, r.results["karl"].Cause, "its console shows whether it comes up")
		require.Contains(t, r.results["ulrich"].Cause, "stopped after karl")
		b.remove("hosts/karl/stay-away")
		b.start("karl")
		b.remove("cordoned-karl-a")
	})

	b.scenario(t, "only those that need it", func(t *testing.T) {
		r := b.reboot("--needed")
		require.Zero(t, r.code, r.stdout+r.stderr)
		require.Equal(t, all("unchanged", five...), r.status())
		b.on("ulrich", "mkdir -p /run/other && echo old > /run/other/kernel && ln -sfn /run/other /run/booted-system")
		r = b.reboot("--needed")
		require.Zero(t, r.code, r.stdout+r.stderr)
		require.Equal(t, []string{"ulrich"}, rebootsIn(b.events()))
	})

	b.scenario(t, "Ctrl-C", func(t *testing.T) {
		r := b.interrupted(syscall.SIGINT, "kubectl drain karl-a", "reboot", "karl", "ulrich", "--yes", "--json", "--gate-pause", "100ms")
		require.Equal(t, 1, r.code, r.stdout+r.stderr)
		require.Equal(t, map[string]string{"karl": "failed", "ulrich": "not reached"}, r.status())
		require.Contains(t, r.results["karl"].Cause, "karl was not rebooted, and its Node takes pods again")
		events := b.events()
		require.Contains(t, events, "uncordoned karl-a")
		require.Empty(t, rebootsIn(events))
		require.False(t, b.has("cordoned-karl-a"))
		r = b.reboot("karl", "ulrich")
		require.Zero(t, r.code, r.stdout+r.stderr)
		require.Equal(t, []string{"karl", "ulrich"}, rebootsIn(b.events()))
	})
}
