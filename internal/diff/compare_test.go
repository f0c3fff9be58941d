package diff

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
)

// tables are the files of a project by the short names "hosts", "k3s" and "network".
type tables map[string]string

func example(t *testing.T, name string) tables {
	t.Helper()
	fsys := os.DirFS("../../examples/" + name + "/plans")
	read := func(file string) string {
		data, err := fs.ReadFile(fsys, file)
		require.NoError(t, err)
		return string(data)
	}
	return tables{"hosts": read("hosts.csv"), "k3s": read("k3s.csv"), "network": read("network.yaml")}
}

func (ts tables) load() (*plan.Plan, diag.Problems) {
	if ts["checks"] == "" {
		ts["checks"] = "host,name,type,target\n"
	}
	return plan.Load(fstest.MapFS{
		"plans/hosts.csv":    {Data: []byte(ts["hosts"])},
		"plans/k3s.csv":      {Data: []byte(ts["k3s"])},
		"plans/network.yaml": {Data: []byte(ts["network"])},
		"plans/checks.csv":   {Data: []byte(ts["checks"])},
	})
}

func (ts tables) plan(t *testing.T) *plan.Plan {
	t.Helper()
	p, problems := ts.load()
	require.Zero(t, problems.Errors(), "%v", problems)
	return p
}

// edited replaces text in the tables: file, old, new, and so on. Text to append has an empty old.
func (ts tables) edited(t *testing.T, edits ...string) tables {
	t.Helper()
	changed := tables{"hosts": ts["hosts"], "k3s": ts["k3s"], "network": ts["network"]}
	for edit := range slices.Chunk(edits, 3) {
		file, before, after := edit[0], edit[1], edit[2]
		if before == "" {
			changed[file] += after
			continue
		}
		require.Contains(t, changed[file], before)
		changed[file] = strings.Replace(changed[file], before, after, 1)
	}
	return changed
}

const allHosts = "karl olaf rolf ulf ulrich"

func TestCompare(t *testing.T) {
	const (
		karl      = "karl,enP4p65s0,10.0.100.5,karl,,storage,4\n"
		ulfServer = "ulf,ulf-k3s-server,server,10.0.100.13,,\n"
		karlAgent = "karl,karl-k3s-agent,agent,10.0.100.25,disk=large,storage=only:PreferNoSchedule\n"
	)
	cases := []struct {
		name  string
		edits []string
		// want: "risk | hosts | restarted containers | sentence"
		want []string
	}{
		{"ip", []string{"hosts", "10.0.100.5", "10.0.100.35"},
			[]string{"ask | karl | | host karl: ip 10.0.100.5 → 10.0.100.35 (may cut the connection)"}},
		{"ip to dhcp", []string{"hosts", "10.0.100.6", "dhcp@ulrich.home.arpa"},
			[]string{"ask | ulrich | | host ulrich: ip 10.0.100.6 → dhcp (may cut the connection)",
				"none | ulrich | | host ulrich: target set to ulrich.home.arpa"}},
		{"target", []string{"hosts", "10.0.100.5", "10.0.100.5@karl.example.org:2222"},
			[]string{"none | karl | | host karl: target set to karl.example.org:2222"}},
		{"local target", []string{"hosts", "10.0.100.5", "10.0.100.5@local"},
			[]string{"none | karl | | host karl: target set to local"}},
		{"interface", []string{"hosts", "enP4p65s0", "eth0"},
			[]string{"ask | karl | karl-k3s-agent | host karl: interface enP4p65s0 → eth0 (may cut the connection)"}},
		{"admin", []string{"hosts", "10.0.100.3,ulf", "10.0.100.3,anna"},
			[]string{"restart | ulf | ulf-k3s-server | host ulf: admin ulf → anna"}},
		{"serial", []string{"hosts", "S4EWNX0M700102", "x1"},
			[]string{"none | ulf | | host ulf: serial s4ewnx0m700102 → x1"}},
		{"serial gone", []string{"hosts", "S4EWNX0M700102", ""},
			[]string{"none | ulf | | host ulf: serial s4ewnx0m700102 removed"}},
		{"tags", []string{"hosts", "ulrich,,storage", "ulrich,,backup cold"},
			[]string{"none | ulrich | | host ulrich: tag storage removed",
				"none | ulrich | | host ulrich: tag backup added",
				"none | ulrich | | host ulrich: tag cold added"}},
		{"own cell", []string{"hosts", "storage,5", "storage,7"},
			[]string{"none | ulrich | | host ulrich: slot 5 → 7"}},
		{"own cell of two lines", []string{"hosts", "storage,5", "storage,\"top\n5\""},
			[]string{`none | ulrich | | host ulrich: slot 5 → "top\n5"`}},
		{"own column", []string{"hosts", "tags,slot", "tags,place"},
			[]string{"none | " + allHosts + " | | column place of the hosts added",
				"none | " + allHosts + " | | column slot of the hosts removed"}},
		{"host added", []string{"hosts", "", "anna,eno1,10.0.100.7,anna,,,6\n"},
			[]string{"none | anna | | host anna added: 10.0.100.7"}},
		{"host with a target added", []string{"hosts", "", "anna,eno1,dhcp@anna.example.org:2222,anna,,,6\n"},
			[]string{"none | anna | | host anna added: dhcp, target anna.example.org:2222"}},
		{"host removed", []string{"hosts", "ulrich,eth0,10.0.100.6,ulrich,,storage,5\n", ""},
			[]string{"none | ulrich | | host ulrich removed"}},
		{"host with an agent removed", []string{"hosts", karl, "", "k3s", karlAgent, ""},
			[]string{"none | karl | | host karl removed",
				"ask | karl | | agent karl-k3s-agent removed from karl (its Node stays behind)"}},
		{"host renamed, known by its address", []string{"hosts", "karl,en", "carl,en", "k3s", "karl,karl", "carl,karl"},
			[]string{"none | carl | | host karl renamed to carl"}},
		{"host renamed, known by its disk", []string{"hosts", "rolf,enp3s0,10.0.100.4", "ralf,enp3s0,10.0.100.34", "k3s", "rolf,", "ralf,"},
			[]string{"none | ralf | | host rolf renamed to ralf",
				"ask | ralf | | host ralf: ip 10.0.100.4 → 10.0.100.34 (may cut the connection)"}},
		{"another machine at the address", []string{"hosts", "rolf,enp3s0,10.0.100.4,rolf,S4EWNX0M700103", "ralf,enp3s0,10.0.100.4,rolf,OTHER", "k3s", "rolf,", "ralf,"},
			[]string{"none | ralf | | host ralf added: 10.0.100.4",
				"none | rolf | | host rolf removed",
				"refuse | ralf rolf | | server rolf-k3s-server moved: rolf → ralf (etcd keeps the old member)"}},
		{"names that go round", []string{"hosts", "olaf,eno1,10.0.100.2", "ulf,eno1,10.0.100.2", "hosts", "ulf,eno1,10.0.100.3", "rolf,eno1,10.0.100.3", "hosts", "rolf,enp3s0", "olaf,enp3s0",
			"k3s", "olaf,olaf-k3s-s", "ULF,olaf-k3s-s", "k3s", "olaf,olaf-k3s-a", "ULF,olaf-k3s-a", "k3s", "rolf,", "olaf,", "k3s", "ulf,ulf-k3s-s", "rolf,ulf-k3s-s", "k3s", "ulf,ulf-k3s-a", "rolf,ulf-k3s-a"},
			[]string{"none | olaf | | host rolf renamed to olaf", "none | rolf | | host ulf renamed to rolf", "none | ulf | | host olaf renamed to ulf"}},
		{"names that go round, without containers", []string{"hosts", "olaf,eno1,10.0.100.2", "ulf,eno1,10.0.100.2", "hosts", "ulf,eno1,10.0.100.3", "olaf,eno1,10.0.100.3"},
			[]string{"none | olaf | | host ulf renamed to olaf", "none | ulf | | host olaf renamed to ulf",
				"refuse | olaf ulf | | server olaf-k3s-server moved: ulf → olaf (etcd keeps the old member)",
				"refuse | olaf ulf | | server ulf-k3s-server moved: olaf → ulf (etcd keeps the old member)",
				"ask | olaf ulf | | agent olaf-k3s-agent moved: ulf → olaf (its Node will be refused)",
				"ask | olaf ulf | | agent ulf-k3s-agent moved: olaf → ulf (its Node will be refused)"}},
		{"addresses swapped", []string{"hosts", "karl,enP4p65s0,10.0.100.5", "karl,enP4p65s0,10.0.100.6", "hosts", "ulrich,eth0,10.0.100.6", "ulrich,eth0,10.0.100.5"},
			[]string{"ask | karl | | host karl: ip 10.0.100.5 → 10.0.100.6 (may cut the connection)", "ask | ulrich | | host ulrich: ip 10.0.100.6 → 10.0.100.5 (may cut the connection)"}},
		{"another host has the name of one that is gone", []string{"hosts", "olaf,eno1,10.0.100.2", "ulf,eno1,10.0.100.2", "hosts", "ulf,eno1,10.0.100.3,ulf,S4EWNX0M700102,,2\n", "", "k3s", "olaf,olaf-k3s-s", "ulf,olaf-k3s-s", "k3s", "olaf,olaf-k3s-a", "ulf,olaf-k3s-a", "k3s", ulfServer, "", "k3s", "ulf,ulf-k3s-agent,agent,10.0.100.23,,\n", ""},
			[]string{"none | ulf | | host olaf renamed to ulf", "none | ulf (removed) | | host ulf removed",
				"refuse | ulf (removed) | | server ulf-k3s-server removed: 2 of 2 left, no loss tolerated any more",
				"ask | ulf (removed) | | agent ulf-k3s-agent removed from ulf (removed) (its Node stays behind)"}},
		{"and its containers", []string{"hosts", "ulf,eno1,10.0.100.3,ulf,S4EWNX0M700102,,2\n", "", "hosts", "rolf,enp", "ulf,enp", "k3s", "rolf,rolf-k3s-server,server,10.0.100.14,,\n", ""},
			[]string{"none | ulf | | host rolf renamed to ulf", "none | ulf (removed) | | host ulf removed",
				"refuse | ulf | | server rolf-k3s-server removed: 2 of 2 left, no loss tolerated any more",
				"refuse | ulf ulf (removed) | | server ulf-k3s-server moved: ulf (removed) → ulf (etcd keeps the old member)",
				"ask | ulf ulf (removed) | | agent ulf-k3s-agent moved: ulf (removed) → ulf (its Node will be refused)"}},
		{"agent added", []string{"k3s", "", "rolf,rolf-k3s-agent,agent,10.0.100.24,,\n"},
			[]string{"none | rolf | | agent added on rolf: rolf-k3s-agent, 10.0.100.24"}},
		{"agent removed", []string{"k3s", karlAgent, ""},
			[]string{"ask | karl | | agent karl-k3s-agent removed from karl (its Node stays behind)"}},
		{"agent renamed", []string{"k3s", "karl-k3s-agent", "store"},
			[]string{"ask | karl | | agent on karl renamed: karl-k3s-agent → store (its Node stays behind)"}},
		{"agent moved", []string{"k3s", "karl,karl", "rolf,karl"},
			[]string{"ask | karl rolf | | agent karl-k3s-agent moved: karl → rolf (its Node will be refused)"}},
		{"agent's ip", []string{"k3s", "10.0.100.25", "10.0.100.35"},
			[]string{"restart | karl | karl-k3s-agent | agent karl-k3s-agent: ip 10.0.100.25 → 10.0.100.35"}},
		{"label and taint", []string{"k3s", "disk=large,storage=only:PreferNoSchedule", "disk=small,"},
			[]string{"restart | karl | karl-k3s-agent | agent karl-k3s-agent: label disk=large → disk=small",
				"restart | karl | karl-k3s-agent | agent karl-k3s-agent: taint storage=only:PreferNoSchedule removed"}},
		{"server removed", []string{"k3s", ulfServer, ""},
			[]string{"refuse | ulf | | server ulf-k3s-server removed: 2 of 2 left, no loss tolerated any more"}},
		{"two servers removed", []string{"k3s", ulfServer, "", "k3s", "rolf,rolf-k3s-server,server,10.0.100.14,,\n", ""},
			[]string{"refuse | rolf | | server rolf-k3s-server removed: 1 of 1 left, no loss tolerated any more",
				"refuse | ulf | | server ulf-k3s-server removed: 1 of 1 left, no loss tolerated any more"}},
		{"server added", []string{"k3s", "", "karl,karl-k3s-server,server,10.0.100.15,,\n"},
			[]string{"none | karl | | server added on karl: karl-k3s-server, 10.0.100.15; 4 servers, the loss of 1 tolerated, as with 3"}},
		{"servers added", []string{"k3s", "", "karl,karl-k3s-server,server,10.0.100.15,,\nulrich,ulrich-k3s-server,server,10.0.100.16,,\n"},
			[]string{"none | karl | | server added on karl: karl-k3s-server, 10.0.100.15; 5 servers, the loss of 2 tolerated",
				"none | ulrich | | server added on ulrich: ulrich-k3s-server, 10.0.100.16; 5 servers, the loss of 2 tolerated"}},
		{"server renamed", []string{"k3s", "ulf-k3s-server", "ulf-s"},
			[]string{"refuse | ulf | | server on ulf renamed: ulf-k3s-server → ulf-s (etcd keeps the old member)"}},
		{"server moved", []string{"k3s", "ulf,ulf-k3s-server", "karl,ulf-k3s-server"},
			[]string{"refuse | karl ulf | | server ulf-k3s-server moved: ulf → karl (etcd keeps the old member)"}},
		{"server's ip", []string{"k3s", "10.0.100.13", "10.0.100.43"},
			[]string{"refuse | ulf | ulf-k3s-server | server ulf-k3s-server: ip 10.0.100.13 → 10.0.100.43 (etcd keeps the old member)"}},
		{"init server's ip", []string{"k3s", "10.0.100.12", "10.0.100.42"},
			[]string{"refuse | olaf | olaf-k3s-server | server olaf-k3s-server: ip 10.0.100.12 → 10.0.100.42 (etcd keeps the old member)"}},
		{"another init server", []string{"k3s", "server,init", "server,server", "k3s", "ulf-k3s-server,server", "ulf-k3s-server,init"},
			[]string{"restart | karl olaf rolf ulf | olaf-k3s-server ulf-k3s-server | init server olaf-k3s-server → ulf-k3s-server (what joins asks it first)"}},
		{"a new init server", []string{"k3s", "server,init", "server,server", "k3s", "", "karl,karl-k3s-server,init,10.0.100.15,,\n"},
			[]string{"none | karl | | init server added on karl: karl-k3s-server, 10.0.100.15; 4 servers, the loss of 1 tolerated, as with 3",
				"refuse | karl olaf rolf ulf | olaf-k3s-server | init server olaf-k3s-server → karl-k3s-server (what joins asks it first; an empty init server starts a second cluster)"}},
		{"netmask", []string{"network", "255.255.255.0", "/23"},
			[]string{"ask | " + allHosts + " | " + allContainers + " | netmask 24 → 23 (all hosts; may cut the connection)"}},
		{"gateway", []string{"network", "gateway: 10.0.100.1", "gateway: 10.0.100.254"},
			[]string{"ask | " + allHosts + " | " + allContainers + " | gateway 10.0.100.1 → 10.0.100.254 (all hosts; may cut the connection)"}},
		{"nameserver added", []string{"network", "1.1.1.1]", "1.1.1.1, 8.8.8.8]"},
			[]string{"restart | " + allHosts + " | " + allContainers + " | nameserver added (all hosts): 8.8.8.8"}},
		{"nameserver removed", []string{"network", ", 1.1.1.1]", "]"},
			[]string{"restart | " + allHosts + " | " + allContainers + " | nameserver removed (all hosts): 1.1.1.1"}},
		{"nameservers in another order", []string{"network", "[9.9.9.9, 1.1.1.1]", "[1.1.1.1, 9.9.9.9]"},
			[]string{"restart | " + allHosts + " | " + allContainers + " | nameservers 9.9.9.9 1.1.1.1 → 1.1.1.1 9.9.9.9 (all hosts)"}},
		{"domain", []string{"network", "domain: rack.home.arpa\n", ""},
			[]string{"restart | " + allHosts + " | " + allServers + " | domain rack.home.arpa removed (all hosts)"}},
		{"timezone", []string{"network", "Europe/Berlin", "Europe/Oslo"},
			[]string{"restart | " + allHosts + " | " + allServers + " | timezone Europe/Berlin → Europe/Oslo (all hosts)"}},
		{"tls_san", []string{"network", "[k3s.rack.home.arpa]", "[api.rack.home.arpa]"},
			[]string{"restart | olaf rolf ulf | " + allServers + " | name of the API removed (all servers): k3s.rack.home.arpa",
				"restart | olaf rolf ulf | " + allServers + " | name of the API added (all servers): api.rack.home.arpa"}},
		{"pod_cidr", []string{"network", "", "pod_cidr: 10.44.0.0/16\n"},
			[]string{"refuse | olaf rolf ulf | " + allServers + " | pod_cidr 10.42.0.0/16 → 10.44.0.0/16 (all servers; a running cluster cannot change it)"}},
		{"service_cidr", []string{"network", "", "service_cidr: 10.44.0.0/16\n"},
			[]string{"refuse | olaf rolf ulf | " + allServers + " | service_cidr 10.43.0.0/16 → 10.44.0.0/16 (all servers; a running cluster cannot change it)"}},
		{"nixos", []string{"network", "nixos-26.05", "nixos-26.11"},
			[]string{"restart | " + allHosts + " | " + allContainers + " | nixos 26.05 → 26.11 (all hosts)"}},
		{"next minor of k3s", []string{"network", `"1.35"`, "v1.36.3+k3s1"},
			[]string{"restart | karl olaf rolf ulf | " + allContainers + " | k3s 1.35 → 1.36.3+k3s1 (all servers and agents)"}},
		{"k3s pinned to a patch", []string{"network", `"1.35"`, "v1.35.1+k3s1"},
			[]string{"restart | karl olaf ulf | karl-k3s-agent olaf-k3s-agent ulf-k3s-agent | k3s 1.35 → 1.35.1+k3s1 (all agents)"}},
		{"skipped minor of k3s", []string{"network", `"1.35"`, `"1.37"`},
			[]string{"refuse | karl olaf rolf ulf | " + allContainers + " | k3s 1.35 → 1.37 (all servers and agents; skips 1.36)"}},
		{"older k3s", []string{"network", `"1.35"`, `"1.34"`},
			[]string{"refuse | karl olaf rolf ulf | " + allContainers + " | k3s 1.35 → 1.34 (all servers and agents; k3s cannot go back to an older version)"}},
		{"disko", []string{"network", "  nixos", "  disko: v1.9.0\n  nixos"},
			[]string{"none | " + allHosts + " | | disko latest → v1.9.0 (all hosts that it partitions)"}},
		{"what no machine knows of", []string{"network", "", "address_range: 10.0.100.64/26\nsecrets: pass\npass_prefix: racks/mine\n"},
			[]string{"none |  | | address_range set to 10.0.100.64-10.0.100.127 (for k3splan add)",
				"none |  | | secrets files → pass (how the project keeps them)",
				"none |  | | pass_prefix set to racks/mine (how the project keeps them)"}},
	}
	rack := example(t, "rack")
	before := rack.plan(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			now := rack.edited(t, c.edits...).plan(t)
			var got []string
			for _, change := range Compare(before, now) {
				got = append(got, fmt.Sprintf("%s | %s |%s | %s", change.Risk, strings.Join(change.Hosts, " "),
					strings.TrimRight(" "+strings.Join(change.Restarts, " "), " "), change.Sentence))
				require.NotNil(t, change.Hosts, "a list in JSON")
				require.Equal(t, change.Risk == None || change.Risk == "", change.Reason == "", "a risk has a reason: %+v", change)
				if change.Action != Removed && change.To != "" && change.Object != Column {
					require.Regexp(t, `^plans/(hosts\.csv|k3s\.csv|network\.yaml):[0-9]+$`, change.Where, "%+v", change)
				}
			}
			require.Equal(t, c.want, got)
		})
	}
}

const (
	allServers    = "olaf-k3s-server rolf-k3s-server ulf-k3s-server"
	allContainers = "karl-k3s-agent olaf-k3s-agent olaf-k3s-server rolf-k3s-server ulf-k3s-agent ulf-k3s-server"
)

func TestOlderNixOS(t *testing.T) {
	rack := example(t, "rack")
	changes := Compare(rack.edited(t, "network", "nixos-26.05", "nixos-26.11").plan(t), rack.plan(t))
	require.Len(t, changes, 1)
	require.Equal(t, Ask, changes[0].Risk)
	require.Equal(t, "nixos 26.11 → 26.05 (all hosts; older than before)", changes[0].Sentence)
}

// What restarts one of two servers is to be asked about: each restart loses the quorum.
func TestTwoServers(t *testing.T) {
	two := example(t, "rack").edited(t, "k3s", "ulf,ulf-k3s-server,server,10.0.100.13,,\n", "")
	before := two.plan(t)
	changes := Compare(before, two.edited(t, "network", "Europe/Berlin", "Europe/Oslo").plan(t))
	require.Len(t, changes, 1)
	require.Equal(t, Ask, changes[0].Risk)
	require.Equal(t, "timezone Europe/Berlin → Europe/Oslo (all hosts; with 2 servers a restart loses the quorum for a moment)", changes[0].Sentence)

	// an agent's restart does not touch etcd
	changes = Compare(before, two.edited(t, "k3s", "10.0.100.25", "10.0.100.35").plan(t))
	require.Equal(t, Restart, changes.Risk())
}

func TestNewCluster(t *testing.T) {
	rack := example(t, "rack")
	header, _, _ := strings.Cut(rack["k3s"], "\n")
	empty := tables{"hosts": rack["hosts"], "k3s": header + "\n", "network": rack["network"]}
	changes := Compare(empty.plan(t), rack.edited(t, "network", "", "pod_cidr: 10.44.0.0/16\n").plan(t))
	require.Equal(t, None, changes.Risk(), "nothing lives that could be harmed: %v", changes)
	require.Contains(t, changes[1].Sentence+changes[0].Sentence, "added on")
	require.Equal(t, []string{"karl", "olaf", "rolf", "ulf"}, changes.Hosts())

	// and away with it
	changes = Compare(rack.plan(t), empty.plan(t))
	require.Equal(t, Refuse, changes.Risk())
	require.Len(t, changes.With(Refuse), 3)
	given := changes.With(Refuse)[0]
	require.Equal(t, "server olaf-k3s-server removed: none left", given.Sentence)
	require.Equal(t, "the cluster ends", given.Reason)
	require.Contains(t, given.Hint, "k3splan deploy --force", "there is no other way")
}

// The same plan told otherwise is the same plan.
func TestNoChange(t *testing.T) {
	rack := example(t, "rack")
	before := rack.plan(t)
	told := map[string]tables{
		"rows in another order": {
			"hosts": reversed(rack["hosts"], 2), "k3s": reversed(rack["k3s"], 1), "network": rack["network"],
		},
		"columns in another order": {
			"hosts": turned(rack["hosts"]), "k3s": turned(rack["k3s"]), "network": rack["network"],
		},
		"in capitals, where case means nothing": {
			"hosts":   strings.NewReplacer("olaf", "OLAF", "storage", "STORAGE", "name", "Name").Replace(rack["hosts"]),
			"k3s":     strings.NewReplacer("agent", "AGENT", "ulf", "Ulf").Replace(rack["k3s"]),
			"network": strings.ReplaceAll(rack["network"], "rack.home.arpa", "Rack.Home.Arpa"),
		},
		"with semicolons, spaces, comments and CRLF": {
			"hosts":   "\ufeff" + strings.NewReplacer(",", " ; ", "\n", "\r\n").Replace(rack["hosts"]),
			"k3s":     strings.ReplaceAll(rack["k3s"], ",", ";") + "\n# the end\n;;;;;\n",
			"network": strings.ReplaceAll(rack["network"], "\n", "\r\n"),
		},
		"with tabs and other words": {
			"hosts": strings.ReplaceAll(rack["hosts"], ",", "\t"),
			"k3s":   strings.ReplaceAll(strings.ReplaceAll(rack["k3s"], "init", "init-server"), ",", "\t"),
			"network": "tls_san:\n  - k3s.rack.home.arpa\nversions: {k3s: v1.35, nixos: nixos-26.05, disko: latest, state: \"26.05\"}\n" +
				"timezone: Europe/Berlin\ndomain: rack.home.arpa.\nnameservers: 9.9.9.9 1.1.1.1\nnetmask: /24\ngateway: 10.0.100.1\n" +
				"pod_cidr: 10.42.0.0/16\n",
		},
	}
	for name, tables := range told {
		t.Run(name, func(t *testing.T) {
			require.Empty(t, Compare(before, tables.plan(t)))
		})
	}
}

// reversed turns the order of all lines but the first ones.
func reversed(text string, first int) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	slices.Reverse(lines[first:])
	return strings.Join(lines, "\n") + "\n"
}

// turned turns the order of the columns.
func turned(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		cells := strings.Split(strings.TrimSuffix(line, "\n"), ",")
		slices.Reverse(cells)
		b.WriteString(strings.Join(cells, ",") + "\n")
	}
	return b.String()
}

// Every cell and key in turn gets other values: there is a change exactly where what Nix sees is
// another, both ways, and no change is told of a host that is in neither plan.
func TestChangeExactlyWhereTheModelDiffers(t *testing.T) {
	values := []string{"", "x1", "10.0.100.77", "dhcp@far.example.org", "legacy", "aarch64-linux", "a=b", "OLAF", "7", "storage", "server", "agent", "rolf"}
	compared, different := 0, 0
	for _, name := range []string{"rack", "single"} {
		original := example(t, name)
		before := original.plan(t)
		for file, text := range original {
			lines := strings.SplitAfter(text, "\n")
			for i, line := range lines {
				separator := ","
				if file == "network" {
					separator = ": "
				}
				cells := strings.Split(strings.TrimSuffix(line, "\n"), separator)
				for j := range cells {
					for _, value := range values {
						changed := slices.Clone(cells)
						changed[j] = value
						edited := tables{"hosts": original["hosts"], "k3s": original["k3s"], "network": original["network"]}
						edited[file] = strings.Join(lines[:i], "") + strings.Join(changed, separator) + "\n" + strings.Join(lines[i+1:], "")
						now, problems := edited.load()
						if problems.Errors() > 0 {
							continue
						}
						compared++
						same := asJSON(t, before) == asJSON(t, now)
						if !same {
							different++
						}
						require.Equal(t, same, len(Compare(before, now)) == 0, "%s %s:%d %v", name, file, i+1, changed)
						require.Equal(t, same, len(Compare(now, before)) == 0, "back: %s %s:%d %v", name, file, i+1, changed)
						require.Equal(t, sentences(Compare(before, now)), sentences(Compare(remembered(t, before), now)), "a plan that was kept as its model")
						for _, host := range Compare(before, now).Hosts() {
							require.True(t, before.Host(host) != nil || now.Host(host) != nil, host)
						}
					}
				}
			}
		}
	}
	require.Greater(t, different, 100)
	require.Greater(t, compared-different, 10)
}

func asJSON(t *testing.T, p *plan.Plan) string {
	t.Helper()
	text, err := json.Marshal(p.Model())
	require.NoError(t, err)
	return string(text)
}

// remembered is the plan as deploy keeps it on a host.
func remembered(t *testing.T, p *plan.Plan) *plan.Plan {
	t.Helper()
	back, err := plan.FromModel([]byte(asJSON(t, p)))
	require.NoError(t, err)
	return back
}

func sentences(changes Changes) (list []string) {
	for _, change := range changes {
		list = append(list, change.Sentence)
	}
	return list
}

// An address that somebody else still has is to be left first; the way by the old address is told only
// where nobody else gets that.
func TestHintsOfAddresses(t *testing.T) {
	rack := example(t, "rack")
	hints := func(edits ...string) (hints []string) {
		for _, change := range Compare(rack.plan(t), rack.edited(t, edits...).plan(t)) {
			hints = append(hints, change.Name+": "+change.Hint)
		}
		return hints
	}
	require.Equal(t, []string{"karl: have a console at hand; with 10.0.100.35@10.0.100.5 as its ip k3splan still reaches the host at the old address"},
		hints("hosts", "10.0.100.5", "10.0.100.35"))
	const leave = ", which has to leave it first, in a deployment of its own"
	require.Equal(t, []string{"karl: have a console at hand; 10.0.100.6 is still the address of host ulrich" + leave, "ulrich: have a console at hand; 10.0.100.5 is still the address of host karl" + leave},
		hints("hosts", "10.0.100.5", "x", "hosts", "10.0.100.6", "10.0.100.5", "hosts", "x,", "10.0.100.6,"))
	require.Equal(t, []string{"karl: have a console at hand", "ulrich: have a console at hand; 10.0.100.5 is still the address of host karl" + leave},
		hints("hosts", "10.0.100.5", "10.0.100.35", "hosts", "10.0.100.6", "10.0.100.5"))
	require.Equal(t, []string{"karl-k3s-agent: 10.0.100.23 is still the address of agent ulf-k3s-agent" + leave, "ulf-k3s-agent: "},
		hints("k3s", "10.0.100.23", "10.0.100.43", "k3s", "10.0.100.25", "10.0.100.23"))
	// a host that is given up is never deployed again
	require.Equal(t, "karl: have a console at hand; 10.0.100.6 is still the address of host ulrich, which is no longer in the plan: switch it off first",
		hints("hosts", "ulrich,eth0,10.0.100.6,ulrich,,storage,5\n", "", "hosts", "10.0.100.5", "10.0.100.6")[0])
	require.Contains(t, hints("hosts", "karl,enP4p65s0,10.0.100.5,karl,,storage,4\n", "", "k3s", "karl,karl-k3s-agent,agent,10.0.100.25,disk=large,storage=only:PreferNoSchedule\n", "", "k3s", "10.0.100.23", "10.0.100.25"),
		"ulf-k3s-agent: 10.0.100.25 is still the address of agent karl-k3s-agent on karl, which is no longer in the plan: switch it off first")
	servers := hints("k3s", "10.0.100.13", "x", "k3s", "10.0.100.14", "10.0.100.13", "k3s", "x,", "10.0.100.14,")
	require.Regexp(t, `^rolf-k3s-server: 10\.0\.100\.13 is still the address of server ulf-k3s-server`+leave+"\non olaf: ", servers[0])
}

// The way out of what is refused must work: by a server that is there and stays as it is, and not by
// an init server that comes back empty.
func TestHintsOfServers(t *testing.T) {
	rack := example(t, "rack")
	hint := func(before, now tables, name string) string {
		t.Helper()
		for _, change := range Compare(before.plan(t), now.plan(t)) {
			if change.Risk == Refuse && change.Name == name {
				return change.Hint
			}
		}
		t.Fatal("nothing is refused")
		return ""
	}
	const helpers = "on ulf: nixos-container run ulf-k3s-server -- etcdctl member list"
	moreInit := rack.edited(t, "k3s", "10.0.100.12", "10.0.100.42")
	require.Regexp(t, `^first make another server the init server \(plans/k3s.csv:[0-9]+\) and deploy: this one comes back empty and would start a second cluster\n`+
		`on rolf: nixos-container run rolf-k3s-server -- etcdctl member list\n`, hint(rack, moreInit, "olaf-k3s-server"))
	// as a server it joins what the new init server has
	now := moreInit.edited(t, "k3s", "server,init", "server,server", "k3s", "ulf-k3s-server,server", "ulf-k3s-server,init")
	require.NotContains(t, hint(rack, now, "olaf-k3s-server"), "before")

	// anna has no server yet, and olaf's becomes another one at the same time
	now = rack.edited(t, "hosts", "", "anna,eno1,10.0.100.7,anna,,,6\n", "k3s", "", "anna,anna-s,server,10.0.100.17,,\n",
		"k3s", "10.0.100.14", "10.0.100.44", "k3s", "olaf-k3s-server", "olaf-s")
	require.True(t, strings.HasPrefix(hint(rack, now, "rolf-k3s-server"), helpers), hint(rack, now, "rolf-k3s-server"))
	now = rack.edited(t, "k3s", "10.0.100.13", "10.0.100.43", "k3s", "10.0.100.14", "10.0.100.44", "k3s", "olaf-k3s-server", "olaf-s")
	require.Contains(t, hint(rack, now, "rolf-k3s-server"), "one server after the other")
}

func TestK3sVersionsOfOtherKinds(t *testing.T) {
	rack := example(t, "rack")
	with := func(version string) Changes {
		return Compare(rack.plan(t), rack.edited(t, "network", `"1.35"`, `"`+version+`"`).plan(t))
	}
	require.Equal(t, "k3s 1.35 → 2.0 (all servers and agents; another major version)", with("2.0").With(Refuse)[0].Sentence)
	require.NotPanics(t, func() { with("1.99999999999999999999") })
}

// What a Node takes over of a changed label or taint, and what needs kubectl.
func TestLabelsAndTaints(t *testing.T) {
	rack := example(t, "rack")
	hints := func(edits ...string) map[string]string {
		found := map[string]string{}
		for _, change := range Compare(rack.plan(t), rack.edited(t, edits...).plan(t)) {
			found[change.Sentence] = change.Hint
		}
		return found
	}
	const agent = "agent karl-k3s-agent: "
	const row = "disk=large,storage=only:PreferNoSchedule"
	for name, test := range map[string]struct {
		cells string
		want  map[string]string
	}{
		"label added":         {"disk=large zone=a,storage=only:PreferNoSchedule", map[string]string{agent + "label zone=a added": ""}},
		"label changed":       {"disk=small,storage=only:PreferNoSchedule", map[string]string{agent + "label disk=large → disk=small": ""}},
		"label removed":       {",storage=only:PreferNoSchedule", map[string]string{agent + "label disk=large removed": ""}},
		"taint added":         {row + " gpu=yes:NoExecute", map[string]string{agent + "taint gpu=yes:NoExecute added": ""}},
		"taint changed":       {"disk=large,storage=no:PreferNoSchedule", map[string]string{agent + "taint storage=only:PreferNoSchedule → storage=no:PreferNoSchedule": ""}},
		"taint removed":       {"disk=large,", map[string]string{agent + "taint storage=only:PreferNoSchedule removed": ""}},
		"taint without value": {row + " gpu:NoExecute", map[string]string{agent + "taint gpu:NoExecute added": ""}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, hints("k3s", row, test.cells)) })
	}
}

// A cell of an own column that differs by case alone is a change, which says why it may matter.
func TestOwnCellsOfAnotherCase(t *testing.T) {
	rack := example(t, "rack")
	before := rack.edited(t, "hosts", "storage,5", "storage,abc").plan(t)
	now := rack.edited(t, "hosts", "storage,5", "storage,abc").plan(t)
	require.Empty(t, Compare(before, now))
	now.Host("ulrich").Own["slot"] = "ABC"
	changes := Compare(before, now)
	require.Len(t, changes, 1)
	require.Equal(t, "host ulrich: slot abc → ABC", changes[0].Sentence)
	require.Contains(t, changes[0].Hint, "keep the case of letters")
}

// sshd listens on the port that k3splan connects to: the first deployment after a change would not get
// there.
func TestSSHPort(t *testing.T) {
	table := func(ip string) tables {
		return tables{"hosts": "name,interface,ip,admin\nolaf,eno1," + ip + ",olaf\n", "k3s": "host,name,type,ip\n",
			"network": "netmask: 24\ngateway: 10.0.100.1\nversions: {nixos: nixos-26.05}\n"}
	}
	const plain, port, other, routed, local = "10.0.100.2", "10.0.100.2@10.0.100.2:2222", "10.0.100.2@10.0.100.2:2200", "10.0.100.2@gate.example:2222", "10.0.100.2@local"
	for name, test := range map[string]struct{ from, to, hint string }{
		"another port":         {plain, port, "services.openssh.ports = [ 22 2222 ]"},
		"from one to another":  {port, other, "services.openssh.ports = [ 2222 2200 ]"},
		"the usual one again":  {port, plain, "services.openssh.ports = [ 2222 22 ]"},
		"behind a router now":  {port, routed, "services.openssh.ports = [ 2222 22 ]"},
		"only the router's":    {plain, routed, ""},
		"deployed from itself": {port, local, ""},
		"no longer":            {local, port, "services.openssh.ports = [ 22 2222 ]"},
		"the same":             {plain, "10.0.100.2@10.0.100.2:22", ""},
	} {
		t.Run(name, func(t *testing.T) {
			changes := Compare(table(test.from).plan(t), table(test.to).plan(t))
			if test.hint == "" {
				require.Equal(t, None, changes.Risk())
				return
			}
			require.Len(t, changes, 1)
			require.Equal(t, Ask, changes[0].Risk)
			require.Equal(t, cutsConnection, changes[0].Reason)
			require.Contains(t, changes[0].Hint, "nixConfigs/olaf.nix with "+test.hint)
		})
	}
}
