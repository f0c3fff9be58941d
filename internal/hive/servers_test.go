package hive_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/run/runtest"
)

// findServer are the scripts by which hosts of the rack find a server.
const findServer = `let k3s = host: nodes.${host}.config.containers."${host}-k3s-server".config.systemd.services.k3s; in {
	servers = lib.genAttrs [ "karl" "olaf" "ulf" ] (host: nodes.${host}.config.system.activationScripts.script);
	init = (k3s "olaf").preStart;
	server = (k3s "ulf").preStart;
	agent = nodes.karl.config.systemd.services.podman-karl-k3s-agent.preStart;
	variables = lib.genAttrs [ "olaf" "ulf" ] (host: (k3s host).serviceConfig.EnvironmentFile);
	container = nodes.karl.config.virtualisation.oci-containers.containers.karl-k3s-agent.extraOptions;
}`

// What runs before each start of k3s asks the servers of the plan, and finds one that answers.
func TestFindServer(t *testing.T) {
	scripts := evaluated["rack"].of(t).part(t, "find")
	text := func(path ...string) string { return scripts.at(t, path...).(string) }
	require.Equal(t, []any{}, scripts.at(t, "variables", "olaf"), "it founds the cluster")
	require.Equal(t, []any{"-/run/k3splan/server"}, scripts.at(t, "variables", "ulf"))
	require.Contains(t, scripts.at(t, "container"), "--env-file=/var/lib/k3splan/agents/karl-k3s-agent/server")

	answering := filepath.Join(t.TempDir(), "answering")
	runtest.Fake(t, "curl", `
for word; do address=$word; done
address=${address#https://}
if grep -qx "${address%:6443/readyz} away" `+answering+`; then sleep 1; printf 000; exit 28; fi
if grep -qx "${address%:6443/readyz} starting" `+answering+`; then printf 503; exit; fi
grep -qx "${address%:6443/readyz}" `+answering+` && printf 401 || { printf 000; exit 7; }
`)
	runtest.Fake(t, "podman", `case $* in "network inspect"*) echo HASH ;; esac`)

	// machine is a folder in which the scripts of one machine run
	type machine struct{ root string }
	runs := func(m machine, script string) (output string, err error) {
		for _, folder := range []string{"/var/lib/", "/run/"} {
			script = strings.ReplaceAll(script, folder, m.root+folder)
		}
		command := exec.Command("bash", "-ec", script)
		out, err := command.CombinedOutput()
		return string(out), err
	}
	// on starts a machine whose servers file was written by the activation
	on := func(t *testing.T, host string) machine {
		m := machine{t.TempDir()}
		write(t, m.root, "var/lib/k3splan/server/token", "secret\n")
		_, activation, found := strings.Cut(text("servers", host), "(\n  set -e\n  umask 077\n")
		require.True(t, found)
		activation, _, _ = strings.Cut(activation, "\n)")
		out, err := runs(m, activation)
		require.NoError(t, err, out)
		return m
	}
	answers := func(lines ...string) {
		require.NoError(t, os.WriteFile(answering, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	}
	const olaf, ulf, rolf = "10.0.100.12", "10.0.100.13", "10.0.100.14"
	script := map[string]string{
		"olaf": text("init"), "ulf": text("server"),
		"karl": strings.Replace(text("agent"), `$made" != `, `$made" != HASH -a x != `, 1),
	}
	chosen := map[string]string{"ulf": "run/k3splan/server", "karl": "var/lib/k3splan/agents/karl-k3s-agent/server"}
	starts := func(t *testing.T, m machine, host string) string {
		out, err := runs(m, script[host])
		require.NoError(t, err, out)
		content, err := os.ReadFile(filepath.Join(m.root, chosen[host]))
		require.NoError(t, err)
		address, found := strings.CutPrefix(strings.TrimSuffix(string(content), ":6443\n"), "K3S_URL=https://")
		require.True(t, found)
		return address
	}
	joined := map[string]string{"ulf": "var/lib/rancher/k3s/server/db/etcd/member/wal/0", "karl": "var/lib/k3splan/agents/karl-k3s-agent/k3s/agent/client-kubelet.crt"}

	t.Run("a new server", func(t *testing.T) {
		m := on(t, "ulf")
		answers(olaf, rolf)
		require.Equal(t, olaf, starts(t, m, "ulf"), "the init server first")
		require.Equal(t, rolf, starts(t, m, "ulf"), "it is asked again, so the first one did not let it join")
		require.Equal(t, olaf, starts(t, m, "ulf"))
		answers(rolf)
		require.Equal(t, rolf, starts(t, m, "ulf"))
		require.Equal(t, rolf, starts(t, m, "ulf"), "no other answers")
		answers(olaf+" starting", rolf)
		require.Equal(t, rolf, starts(t, m, "ulf"))
		answers(olaf+" away", ulf)
		require.Contains(t, []string{olaf, rolf}, starts(t, m, "ulf"), "never itself")
	})
	t.Run("a member", func(t *testing.T) {
		m := on(t, "ulf")
		write(t, m.root, joined["ulf"], "")
		answers(olaf+" away", rolf+" away")
		require.Equal(t, olaf, starts(t, m, "ulf"), "it knows the others, and asks nobody")
		require.Equal(t, olaf, starts(t, m, "ulf"))
	})
	t.Run("an agent", func(t *testing.T) {
		m := on(t, "karl")
		answers(rolf, ulf)
		require.Equal(t, rolf, starts(t, m, "karl"), "the servers by their hosts' names")
		write(t, m.root, joined["karl"], "")
		answers(olaf, rolf, ulf)
		require.Equal(t, rolf, starts(t, m, "karl"), "where it joined: k3s keeps a list of servers by that name")
		answers(olaf+" away", rolf+" away", ulf)
		require.Equal(t, ulf, starts(t, m, "karl"))
		answers()
		require.Equal(t, ulf, starts(t, m, "karl"))
		// the last choice is not a server of the plan any more
		write(t, m.root, chosen["karl"], "K3S_URL=https://10.0.100.99:6443\n")
		require.Equal(t, olaf, starts(t, m, "karl"))
	})
	t.Run("the init server", func(t *testing.T) {
		m := on(t, "olaf")
		answers(olaf, rolf+" starting")
		_, err := runs(m, script["olaf"])
		require.NoError(t, err, "it founds the cluster")
		answers(olaf, ulf)
		out, err := runs(m, script["olaf"])
		require.Error(t, err)
		require.Contains(t, out, "this server has no state, and the one at "+ulf+" answers: it would found a second cluster")
		write(t, m.root, "var/lib/k3splan/server/found", "")
		out, err = runs(m, script["olaf"])
		require.NoError(t, err, "by force: "+out)
		require.NoError(t, os.Remove(filepath.Join(m.root, "var/lib/k3splan/server/found")))
		write(t, m.root, joined["ulf"], "")
		out, err = runs(m, script["olaf"])
		require.NoError(t, err, "it has a state: "+out)
	})
	t.Run("without the list no server begins a cluster of its own", func(t *testing.T) {
		for _, host := range []string{"ulf", "olaf"} {
			m := on(t, host)
			require.NoError(t, os.Remove(filepath.Join(m.root, "var/lib/k3splan/server/servers")))
			_, err := runs(m, script[host])
			require.Error(t, err)
			// one that has joined does not need it
			require.NoError(t, os.MkdirAll(filepath.Join(m.root, "var/lib/rancher/k3s/server/db/etcd/member/wal"), 0o755))
			_, err = runs(m, script[host])
			require.NoError(t, err)
			require.NoError(t, os.RemoveAll(filepath.Join(m.root, "var/lib/rancher")))
			write(t, m.root, "var/lib/k3splan/server/servers", "")
			_, err = runs(m, script[host])
			require.Equal(t, host == "ulf", err != nil, "an init server may be the only one")
		}
	})
}

// A server that leads etcd hands over before it stops, and stops whatever becomes of that.
func TestLeaderHandsOver(t *testing.T) {
	stop := evaluated["single"].of(t).at(t, "preStop").(string)
	dir := t.TempDir()
	runtest.Fake(t, "etcdctl", `
[ "$ETCDCTL_ENDPOINTS" = https://127.0.0.1:2379 ] && [ "$ETCDCTL_KEY" = /var/lib/rancher/k3s/server/tls/etcd/client.key ] || exit 9
case $* in
  "endpoint status") cat `+dir+`/self ;;
  "endpoint status --cluster") cat `+dir+`/all; exit 1 ;; # one is down, which is said on stderr
  "move-leader "*) echo "$2" >> `+dir+`/moved; ! grep -qx "$2" `+dir+`/lags ;;
esac`)
	line := func(address, id, leads, learns string) string {
		return "https://" + address + ":2379, " + id + ", 3.5.21, 3.4 MB, " + leads + ", " + learns + ", 3, 812, 812, \n"
	}
	others := line("10.0.100.12", "a1", "false", "true") + line("10.0.100.14", "b2", "false", "false") + line("10.0.100.15", "c3", "false", "false")
	for name, test := range map[string]struct{ self, lags, moved string }{
		"leads":                     {line("127.0.0.1", "5e", "true", "false"), "", "b2\n"},
		"leads, and the next lags":  {line("127.0.0.1", "5e", "true", "false"), "b2\n", "b2\nc3\n"},
		"does not lead":             {line("127.0.0.1", "5e", "false", "false"), "", ""},
		"etcd does not answer here": {"", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, dir, "self", test.self)
			write(t, dir, "all", line("10.0.100.13", "5e", "true", "false")+others)
			write(t, dir, "lags", test.lags)
			write(t, dir, "moved", "")
			out, err := exec.Command("bash", "-ec", stop).CombinedOutput()
			require.NoError(t, err, "%s", out)
			moved, err := os.ReadFile(filepath.Join(dir, "moved"))
			require.NoError(t, err)
			require.Equal(t, test.moved, string(moved))
		})
	}
}

// The servers to join by are in a file: no member of etcd and no agent restarts when a server comes or goes, or
// another one is the init server.
func TestServersComeAndGo(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(exampleRoot, "rack", "plans/k3s.csv"))
	require.NoError(t, err)
	k3s := string(content)
	before := evaluated["rack"].of(t).part(t, "systems")
	for name, test := range map[string]struct {
		k3s   string
		hosts []string
	}{
		"two more servers and an agent": {k3s + "karl,karl-k3s-server,server,10.0.100.15,,\nulrich,ulrich-k3s-server,server,10.0.100.16,,\nrolf,rolf-k3s-agent,agent,10.0.100.24,,\n",
			[]string{"karl", "olaf", "rolf", "ulf"}},
		"another init server": {strings.NewReplacer("olaf-k3s-server,init", "olaf-k3s-server,server", "rolf-k3s-server,server", "rolf-k3s-server,init").Replace(k3s),
			[]string{"ulf"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"--expr", systems, rendered(t, "rack", map[string]string{"plans/k3s.csv": test.k3s})}, test.hosts...)
			out, code := evalHive(t, args...)
			require.Zero(t, code)
			var after data
			require.NoError(t, json.Unmarshal([]byte(out), &after))
			for _, host := range test.hosts {
				require.NotEqual(t, before.at(t, "host", host), after.at(t, "host", host), "/etc/hosts of %s, and its servers to join by", host)
				for _, kind := range []string{"container", "units"} {
					for name, path := range before.part(t, kind, host) {
						require.Equal(t, path, after.at(t, kind, host, name), name)
					}
				}
			}
		})
	}
}

func write(t *testing.T, root, name, content string) {
	t.Helper()
	file := filepath.Join(root, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
}
