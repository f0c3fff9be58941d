package plan

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"k3splan/internal/diag"

	"github.com/stretchr/testify/require"
)

// A plan in order; the cases below change one file of it.
const (
	goodHosts = `name,interface,ip,admin,serial,boot,system,tags,mac,rack
olaf,eno1,10.0.100.2,olaf,,,,,,a1
ulf,enP4p65s0,10.0.100.3,ulf,,,,,,a2
karl,enx001122334455,10.0.100.5,karl,,,,,,b1
`
	goodK3s = `host,name,type,ip,mac,labels,taints
olaf,olaf-server,init,10.0.100.12,,,
olaf,olaf-agent,agent,10.0.100.22,,,
karl,karl-agent,agent,10.0.100.25,,disk=large,
`
	goodNetwork = `netmask: 24
gateway: 10.0.100.1
versions:
  nixos: nixos-26.05
  k3s: "1.35"
`
)

func project(changed map[string]string) fstest.MapFS {
	files := map[string]string{HostsFile: goodHosts, K3sFile: goodK3s, NetworkFile: goodNetwork}
	for file, content := range changed {
		files[file] = content
	}
	fsys := fstest.MapFS{}
	for file, content := range files {
		if content != "-" { // a file that is not there
			fsys[file] = &fstest.MapFile{Data: []byte(content)}
		}
	}
	return fsys
}

// swap returns text with a part exchanged, which must be there.
func swap(t *testing.T, text, old, new string) string {
	t.Helper()
	require.Contains(t, text, old)
	return strings.Replace(text, old, new, 1)
}

// brief returns problems as `code file:line column`.
func brief(problems diag.Problems) []string {
	lines := []string{}
	for _, p := range problems {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s:%d %s", p.Code, strings.TrimPrefix(p.File, "plans/"), p.Line, p.Column)))
	}
	return lines
}

func TestGoodPlanHasNoProblems(t *testing.T) {
	p, problems := Load(project(nil))
	require.Empty(t, problems)
	require.True(t, p.Complete)
	require.Equal(t, "olaf-server", p.InitServer().Name)
	require.Equal(t, "enP4p65s0", p.Host("ulf").Interface, "the case of an interface means something")
	require.Equal(t, "a1", p.Host("olaf").Own["rack"])
}

// Each mistake leads to the problem that names it, at its place, and to no other.
func TestProblems(t *testing.T) {
	const h, k, n = HostsFile, K3sFile, NetworkFile
	for _, test := range []struct {
		name           string
		file, old, new string // new replaces the file if old is empty
		want           []string
	}{
		{"no hosts table", h, "", "-", []string{"file-missing hosts.csv:0"}},
		{"no k3s table", k, "", "-", []string{"file-missing k3s.csv:0"}},
		{"no network", n, "", "-", []string{"file-missing network.yaml:0"}},
		{"empty table", h, "", "", []string{"column-missing hosts.csv:0"}},
		{"header alone", h, "", "name,interface,ip,admin\n", []string{"table-empty hosts.csv:0"}},
		{"no header", h, "name,interface,ip,admin,serial,boot,system,tags,mac,rack\n", "", []string{"column-missing hosts.csv:1"}},
		{"bare quote", h, "karl,enx", `karl,e"nx`, []string{"csv-syntax hosts.csv:4"}},
		{"open quote", h, "ulf,enP", `"ulf,enP`, []string{"csv-syntax hosts.csv:3"}},
		{"Latin-1", h, "a2", "a\xfc", []string{"csv-syntax hosts.csv:3"}},
		{"null byte", h, "a2", "a\x00", []string{"csv-syntax hosts.csv:3"}},
		{"column missing", h, ",admin,", ",manager,", []string{"column-missing hosts.csv:1 admin"}},
		{"column misspelt", h, ",interface,", ",interfaec,", []string{"column-missing hosts.csv:1 interface"}},
		{"column twice", h, ",rack", ",tags", []string{"column-duplicate hosts.csv:1 tags"}},
		{"column reserved", h, ",rack", ",k3s", []string{"column-reserved hosts.csv:1 k3s"}},
		{"column of the module system", h, ",rack", ",_module", []string{"column-reserved hosts.csv:1 _module"}},
		{"column that the module system reads", h, ",rack", ",_type", []string{"column-reserved hosts.csv:1 _type"}},
		{"column nearly known", h, ",serial,", ",serail,", []string{"column-suspicious hosts.csv:1 serail"}},
		{"short row", h, "ulf,enP4p65s0,10.0.100.3,ulf,,,,,,a2", "ulf,enP4p65s0", []string{"row-length hosts.csv:3"}},
		{"long row", h, ",a2", ",a2,more", []string{"row-length hosts.csv:3"}},
		{"empty cell", h, "ulf,enP4p65s0,", "ulf,,", []string{"cell-empty hosts.csv:3 interface"}},
		{"empty admin", h, ",ulf,,", ",,,", []string{"cell-empty hosts.csv:3 admin"}},
		{"empty host", k, "karl,karl-agent", ",karl-agent", []string{"cell-empty k3s.csv:4 host"}},
		{"name with underscore", k, "karl-agent", "karl_agent", []string{"name-invalid k3s.csv:4 name"}},
		{"name with umlaut", h, "ulf,enP", "ülf,enP", []string{"name-invalid hosts.csv:3 name"}},
		{"name of digits", h, "ulf,enP", "42,enP", []string{"name-invalid hosts.csv:3 name"}},
		{"host twice", h, "ulf,enP", "olaf,enP", []string{"name-duplicate hosts.csv:3 name"}},
		{"row twice", h, "karl,enx", "olaf,eno1,10.0.100.2,olaf,,,,,,a1\nkarl,enx", []string{"name-duplicate hosts.csv:4 name"}},
		{"container named as a host", k, "karl-agent", "ulf", []string{"name-duplicate k3s.csv:4 name"}},
		{"container row twice", k, "karl,karl-agent", "olaf,olaf-agent,agent,10.0.100.22,,,\nkarl,karl-agent", []string{"name-duplicate k3s.csv:4 name"}},
		{"tag named as a host", h, "10.0.100.5,karl,,,,,", "10.0.100.5,karl,,,,ulf,", []string{"name-duplicate hosts.csv:4 tags"}},
		{"tag of k3splan", h, "10.0.100.5,karl,,,,,", "10.0.100.5,karl,,,,k3s-agent,", []string{"name-reserved hosts.csv:4 tags"}},
		{"tag with comma", h, "10.0.100.5,karl,,,,,", `10.0.100.5,karl,,,,"a,b",`, []string{"tag-invalid hosts.csv:4 tags"}},
		{"reserved name", h, "ulf,enP", "defaults,enP", []string{"name-reserved hosts.csv:3 name"}},
		{"reserved admin", h, "10.0.100.3,ulf", "10.0.100.3,root", []string{"name-reserved hosts.csv:3 admin"}},
		{"admin with blank", h, "10.0.100.3,ulf", "10.0.100.3,ulf ulfson", []string{"name-invalid hosts.csv:3 admin"}},
		{"interface too long", h, "enP4p65s0", "enp123456789012s0", []string{"interface-invalid hosts.csv:3 interface"}},
		{"interface with slash", h, "enP4p65s0", "dev/eth0", []string{"interface-invalid hosts.csv:3 interface"}},
		{"address too large", h, "10.0.100.3", "10.0.100.300", []string{"address-invalid hosts.csv:3 ip"}},
		{"IPv6", k, "10.0.100.25", "fe80::1", []string{"address-invalid k3s.csv:4 ip"}},
		{"leading zero", h, "10.0.100.3", "10.0.100.03", []string{"address-invalid hosts.csv:3 ip"}},
		{"address with netmask", h, "10.0.100.3", "10.0.100.3/24", []string{"address-invalid hosts.csv:3 ip"}},
		{"address twice", h, "10.0.100.3", "10.0.100.2", []string{"address-duplicate hosts.csv:3 ip"}},
		{"address of a host", k, "10.0.100.25", "10.0.100.3", []string{"address-duplicate k3s.csv:4 ip"}},
		{"outside", k, "10.0.100.25", "10.0.101.25", []string{"address-outside-subnet k3s.csv:4 ip"}},
		{"gateway", h, "10.0.100.3", "10.0.100.1", []string{"address-reserved hosts.csv:3 ip"}},
		{"network", h, "10.0.100.3", "10.0.100.0", []string{"address-reserved hosts.csv:3 ip"}},
		{"broadcast", h, "10.0.100.3", "10.0.100.255", []string{"address-reserved hosts.csv:3 ip"}},
		{"DHCP without target", h, "10.0.100.3", "dhcp", []string{"target-missing hosts.csv:3 ip"}},
		{"no address at all", h, "10.0.100.3", "", []string{"target-missing hosts.csv:3 ip"}},
		{"nothing behind @", h, "10.0.100.3", "10.0.100.3@", []string{"target-missing hosts.csv:3 ip"}},
		{"target not a name", h, "10.0.100.3", "10.0.100.3@a_b!", []string{"target-invalid hosts.csv:3 ip"}},
		{"target nearly an address", h, "10.0.100.3", "10.0.100.3@10.0.300", []string{"target-invalid hosts.csv:3 ip"}},
		{"target port", h, "10.0.100.3", "10.0.100.3@nas:99999", []string{"target-invalid hosts.csv:3 ip"}},
		{"target of another", h, "10.0.100.3", "10.0.100.3@10.0.100.2", []string{"target-duplicate hosts.csv:3 ip"}},
		{"target of a container", h, "10.0.100.3", "10.0.100.3@10.0.100.25", []string{"target-invalid hosts.csv:3 ip"}},
		{"boot", h, "10.0.100.3,ulf,,,", "10.0.100.3,ulf,,bios,", []string{"boot-unknown hosts.csv:3 boot"}},
		{"system", h, "10.0.100.3,ulf,,,", "10.0.100.3,ulf,,,arm64", []string{"system-unknown hosts.csv:3 system"}},
		{"unknown host", k, "karl,karl-agent", "krl,karl-agent", []string{"host-unknown k3s.csv:4 host"}},
		{"unknown type", k, "agent,10.0.100.25", "agnet,10.0.100.25", []string{"type-unknown k3s.csv:4 type"}},
		{"second server", k, "karl,karl-agent,agent,10.0.100.25,,disk=large", "olaf,karl-server,server,10.0.100.25,,", []string{"server-duplicate k3s.csv:4 host"}},
		{"init beside a server", k, "olaf,olaf-server,init", "olaf,early,server,10.0.100.30,,,\nolaf,olaf-server,init", []string{"server-duplicate k3s.csv:3 host"}},
		{"second agent", k, "karl,karl-agent", "olaf,karl-agent", []string{"agent-duplicate k3s.csv:4 host"}},
		{"no init", k, ",init,", ",server,", []string{"init-missing k3s.csv:0 type"}},
		{"agents alone", k, "olaf,olaf-server,init,10.0.100.12,,,\n", "", []string{"init-missing k3s.csv:0 type"}},
		{"two inits", k, "karl,karl-agent,agent,10.0.100.25,,disk=large,", "karl,karl-server,init_server,10.0.100.25,,,", []string{
			"init-duplicate k3s.csv:4 type"}},
		{"header twice", k, "karl,karl-agent", "Host,name,type,ip,mac,labels,taints\nkarl,karl-agent", []string{"csv-syntax k3s.csv:4"}},
		{"all rows too long", h, "admin,serial", "admin", []string{"row-length hosts.csv:2"}},
		{"a formula that failed", h, "ulf,enP", "#NAME?,enP", []string{"cell-formula hosts.csv:3"}},
		{"a spreadsheet's own file", h, "name,", "PK\x03\x04name,", []string{"csv-syntax hosts.csv:0"}},
		{"half a character of UTF-16", h, "", utf16LE(goodHosts) + "\x00\xd8", []string{"csv-syntax hosts.csv:5"}},
		{"half a pair of UTF-16", h, "", utf16LE("name\n") + "\x00\xd8" + utf16LE(goodHosts)[2:], []string{"csv-syntax hosts.csv:2"}},
		{"half a unit of UTF-16", h, "", utf16LE(goodHosts) + "a", []string{"csv-syntax hosts.csv:5"}},
		{"UTF-16 without mark", h, "name", "n\x00a\x00m\x00e\x00", []string{"csv-syntax hosts.csv:1"}},
		{"interface as ip link shows it", h, "enP4p65s0", "enP4p65s0@if2", []string{"interface-invalid hosts.csv:3 interface"}},
		{"interface with quote", h, "enP4p65s0", "e'n%", []string{"interface-invalid hosts.csv:3 interface"}},
		{"wireless", h, "enP4p65s0", "wlan0", []string{"interface-wireless hosts.csv:3 interface"}},
		{"target named as another host", h, "10.0.100.3", "10.0.100.3@karl", []string{"target-duplicate hosts.csv:3 ip"}},
		{"labels with comma", k, "disk=large", `"a=b,c=d"`, []string{"label-invalid k3s.csv:4 labels"}},
		{"taint twice", k, "disk=large,", "disk=large,a=:NoExecute a:NoExecute", []string{"taint-invalid k3s.csv:4 taints"}},
		{"no-break space", n, "  k3s:", "\u00a0 k3s:", []string{"yaml-syntax network.yaml:5"}},
		{"YAML in Latin-1", n, "versions:", "domain: h\xfcgel\nversions:", []string{"yaml-syntax network.yaml:3"}},
		{"two documents", n, "versions:", "---\nversions:", []string{"yaml-syntax network.yaml:0"}},
		{"nameserver nowhere", n, "versions:", "nameservers: [0.0.0.0]\nversions:", []string{"address-invalid network.yaml:3 nameservers"}},
		{"netmask in octal", n, "24", "024", []string{"netmask-invalid network.yaml:1 netmask"}},
		{"loopback pods", n, "versions:", "pod_cidr: 127.0.0.0/16\nversions:", []string{"cidr-invalid network.yaml:3 pod_cidr"}},
		{"mac", h, ",,a2", ",52:54:00:12:34,a2", []string{"mac-invalid hosts.csv:3 mac"}},
		{"mac of a group", h, ",,a2", ",01:00:5e:00:00:01,a2", []string{"mac-invalid hosts.csv:3 mac"}},
		{"label", k, "disk=large", "disk", []string{"label-invalid k3s.csv:4 labels"}},
		{"label that a kubelet refuses", k, "disk=large", "node-role.kubernetes.io/worker=", []string{"label-invalid k3s.csv:4 labels"}},
		{"label twice", k, "disk=large", "disk=large disk=small", []string{"label-invalid k3s.csv:4 labels"}},
		{"taint", k, "disk=large,", "disk=large,only=x:noschedule", []string{"taint-invalid k3s.csv:4 taints"}},
		{"label on a server", k, "10.0.100.12,,", "10.0.100.12,,a=b", []string{"label-ignored k3s.csv:2 labels"}},
		{"two servers", k, "karl,karl-agent,agent,10.0.100.25,,disk=large,", "karl,karl-server,server,10.0.100.25,,,", []string{
			"servers-even k3s.csv:0 type"}},
		{"netmask", n, "netmask: 24", "netmask: 255.255.0.255", []string{"netmask-invalid network.yaml:1 netmask"}},
		{"netmask too small", n, "netmask: 24", "netmask: 32", []string{"netmask-invalid network.yaml:1 netmask"}},
		{"gateway not an address", n, "10.0.100.1", "router", []string{"gateway-invalid network.yaml:2 gateway"}},
		{"gateway elsewhere", n, "10.0.100.1", "10.1.100.1", []string{"gateway-invalid network.yaml:2 gateway"}},
		{"gateway the network", n, "10.0.100.1", "10.0.100.0", []string{"gateway-invalid network.yaml:2 gateway"}},
		{"nameserver", n, "versions:", "nameservers:\n  - 9.9.9.9\n  - dns\nversions:", []string{"address-invalid network.yaml:5 nameservers"}},
		{"YAML", n, "gateway: 10", "gateway: [10", []string{"yaml-syntax network.yaml:2"}},
		{"unknown key", n, "gateway:", "gatway:", []string{"key-unknown network.yaml:2 gatway"}},
		{"key of versions too high", n, "versions:\n  nixos: nixos-26.05\n", "nixos: nixos-26.05\nversions:\n", []string{"key-unknown network.yaml:3 nixos"}},
		{"no gateway", n, "gateway: 10.0.100.1\n", "", []string{"key-missing network.yaml:0 gateway"}},
		{"no k3s version", n, "  k3s: \"1.35\"\n", "", []string{"key-missing network.yaml:0 versions.k3s"}},
		{"key twice", n, "versions:", "netmask: 24\nversions:", []string{"key-duplicate network.yaml:3 netmask"}},
		{"k3s version", n, `"1.35"`, "v1.35.4", []string{"version-invalid network.yaml:5 versions.k3s"}},
		{"k3s version with a zero", n, `"1.35"`, "01.35", []string{"version-invalid network.yaml:5 versions.k3s"}},
		{"old NixOS", n, "nixos-26.05", "nixos-23.05", []string{"version-invalid network.yaml:4 versions.nixos"}},
		{"pods in the LAN", n, "versions:", "pod_cidr: 10.0.0.0/16\nversions:", []string{"cidr-overlap network.yaml:3 pod_cidr"}},
		{"services in the pods", n, "versions:", "service_cidr: 10.42.128.0/17\nversions:", []string{"cidr-overlap network.yaml:3 service_cidr"}},
		{"cidr with host bits", n, "versions:", "pod_cidr: 10.99.0.1/16\nversions:", []string{"cidr-invalid network.yaml:3 pod_cidr"}},
		{"domain", n, "versions:", "domain: my_home\nversions:", []string{"domain-invalid network.yaml:3 domain"}},
		{"timezone", n, "versions:", "timezone: Europe/Berln\nversions:", []string{"timezone-invalid network.yaml:3 timezone"}},
		{"timezone of the machine", n, "versions:", "timezone: localtime\nversions:", []string{"timezone-invalid network.yaml:3 timezone"}},
		{"timezone with leap seconds", n, "versions:", "timezone: right/Europe/Berlin\nversions:", []string{"timezone-invalid network.yaml:3 timezone"}},
		{"timezone by a path", n, "versions:", "timezone: Europe//Berlin\nversions:", []string{"timezone-invalid network.yaml:3 timezone"}},
		{"san", n, "versions:", "tls_san: [ok.example, 'a b']\nversions:", []string{"tls-san-invalid network.yaml:3 tls_san"}},
		{"range", n, "versions:", "address_range: 10.0.100.9\nversions:", []string{"range-invalid network.yaml:3 address_range"}},
		{"range upside down", n, "versions:", "address_range: 10.0.100.9-10.0.100.8\nversions:", []string{"range-invalid network.yaml:3 address_range"}},
		{"range elsewhere", n, "versions:", "address_range: 10.0.100.9-10.0.101.8\nversions:", []string{"range-invalid network.yaml:3 address_range"}},
		{"range with host bits", n, "versions:", "address_range: 10.0.100.9/27\nversions:", []string{"range-invalid network.yaml:3 address_range"}},
		{"list for a value", n, "gateway: 10.0.100.1", "gateway: [10.0.100.1]", []string{"value-invalid network.yaml:2 gateway"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			content := test.new
			if test.old != "" {
				content = swap(t, map[string]string{h: goodHosts, k: goodK3s, n: goodNetwork}[test.file], test.old, test.new)
			}
			_, problems := Load(project(map[string]string{test.file: content}))
			require.Equal(t, test.want, brief(problems), "%v", problems)
			for _, p := range problems {
				require.NotEmpty(t, p.Message)
				require.NotEmpty(t, p.Severity)
			}
		})
	}
}

// Of two files that fit badly, the later row is the problem, and hosts come before containers.
func TestProblemsAcrossFiles(t *testing.T) {
	for _, test := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"mac of a host", map[string]string{
			HostsFile: swap(t, goodHosts, "ulf,,,,,,a2", "ulf,,,,,52-54-00-12-34-56,a2"),
			K3sFile:   swap(t, goodK3s, "10.0.100.25,", "10.0.100.25,52:54:00:12:34:56"),
		}, []string{"mac-duplicate k3s.csv:4 mac"}},
		{"containers need a static address", map[string]string{
			HostsFile: swap(t, goodHosts, "10.0.100.5", "dhcp@karl.example"),
		}, []string{"dhcp-with-containers k3s.csv:4 host"}},
		{"serial twice", map[string]string{
			HostsFile: swap(t, swap(t, goodHosts, "2,olaf,", "2,olaf,ABC"), "3,ulf,", "3,ulf,abc"),
		}, []string{"serial-duplicate hosts.csv:3 serial"}},
		{"two local hosts", map[string]string{
			HostsFile: swap(t, swap(t, goodHosts, "10.0.100.2", "10.0.100.2@local"), "10.0.100.3", "10.0.100.3@self"),
		}, []string{"target-duplicate hosts.csv:3 ip"}},
		{"versions in both files", map[string]string{
			VersionsFile: "nixos: nixos-26.05\n",
		}, []string{"key-duplicate versions.yaml:1 versions.nixos"}},
		{"a lost row decides nothing else", map[string]string{
			HostsFile: swap(t, goodHosts, "olaf,eno1,10.0.100.2", "olaf"),
		}, []string{"row-length hosts.csv:2"}},
		{"an unknown type may have been the init server", map[string]string{
			K3sFile: swap(t, goodK3s, ",init,", ",intl,"),
		}, []string{"type-unknown k3s.csv:2 type"}},
		{"a wrong gateway leaves the subnet open", map[string]string{
			NetworkFile: swap(t, goodNetwork, "10.0.100.1", "10.0.100"),
			HostsFile:   swap(t, goodHosts, "10.0.100.5", "10.7.7.7"),
		}, []string{"gateway-invalid network.yaml:2 gateway"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, problems := Load(project(test.files))
			require.Equal(t, test.want, brief(problems), "%v", problems)
		})
	}
}

// Several mistakes at once are all reported, sorted by file and line.
func TestAllProblemsInOneRun(t *testing.T) {
	_, problems := Load(project(map[string]string{
		HostsFile:   swap(t, swap(t, goodHosts, "enP4p65s0", "bad/if"), "10.0.100.5", "10.0.100.2"),
		K3sFile:     swap(t, swap(t, goodK3s, "karl,karl-agent", "krl,karl-agent"), "olaf-agent,agent", "olaf-agent,agnet"),
		NetworkFile: swap(t, goodNetwork, "nixos-26.05", "nixos-20.09"),
	}))
	require.Equal(t, []string{
		"interface-invalid hosts.csv:3 interface",
		"address-duplicate hosts.csv:4 ip",
		"type-unknown k3s.csv:3 type",
		"host-unknown k3s.csv:4 host",
		"version-invalid network.yaml:4 versions.nixos",
	}, brief(problems))
}

// A login in a URL is a secret.
func TestAPasswordInAURLIsNotShown(t *testing.T) {
	_, problems := Load(project(map[string]string{NetworkFile: swap(t, goodNetwork, "nixos-26.05", "https://olaf:hunter2@example.org/x.tar.gz")}))
	require.Equal(t, []string{"version-invalid network.yaml:4 versions.nixos"}, brief(problems))
	require.NotContains(t, fmt.Sprintf("%+v", problems), "hunter2")
}

func TestHints(t *testing.T) {
	hintOf := func(files map[string]string) string {
		_, problems := Load(project(files))
		require.Len(t, problems, 1, "%v", problems)
		return problems[0].Hint
	}
	require.Equal(t, `did you mean "karl"?`, hintOf(map[string]string{K3sFile: swap(t, goodK3s, "karl,", "krl,")}))
	require.Equal(t, `did you mean "agent"?`, hintOf(map[string]string{K3sFile: swap(t, goodK3s, "agent,10.0.100.25", "agnet,10.0.100.25")}))
	require.Equal(t, `did you mean "gateway"?`, hintOf(map[string]string{NetworkFile: swap(t, goodNetwork, "gateway", "gatway")}))
	for _, other := range []string{"version", "Versions", "verisons"} {
		require.Equal(t, `did you mean "versions"?`, hintOf(map[string]string{NetworkFile: swap(t, goodNetwork, "versions:", other+":")}))
	}
	for _, server := range []string{"10.0.100.0", "10.0.100.255", "127.0.0.53", "dns.example", "169.254.1.1"} {
		require.Equal(t, serverHint, hintOf(map[string]string{NetworkFile: goodNetwork + "nameservers: [" + server + "]\n"}), "no address of a machine that is free or not")
	}
	require.Equal(t, `did you mean "versions.nixos"?`, hintOf(map[string]string{
		NetworkFile: swap(t, goodNetwork, "versions:\n  nixos: nixos-26.05\n", "nixos: nixos-26.05\nversions:\n")}))
	require.Equal(t, `did you mean "server"?`, hintOf(map[string]string{K3sFile: swap(t, goodK3s, "agent,10.0.100.25,,disk=large", "master,10.0.100.25,,")}))
	require.Equal(t, `add a row of type "init": the server that starts the cluster`, hintOf(map[string]string{K3sFile: swap(t, goodK3s, "olaf,olaf-server,init,10.0.100.12,,,\n", "")}))
	require.Equal(t, "it contains the character U+200B", hintOf(map[string]string{HostsFile: swap(t, goodHosts, "10.0.100.3", "10.0\u200b.100.3")}))
	require.Equal(t, `write the address to deploy to after an @: ADDRESS@local`, hintOf(map[string]string{HostsFile: swap(t, goodHosts, "10.0.100.3", "local")}))
	require.Equal(t, `"karl-agent" would do`, hintOf(map[string]string{K3sFile: swap(t, goodK3s, "karl-agent", "karl_agent")}))
	require.Equal(t, `"anna-maria" would do`, hintOf(map[string]string{HostsFile: swap(t, goodHosts, "10.0.100.3,ulf", "10.0.100.3,anna.maria")}))
	require.Equal(t, `rename the column "hostname" to "name"`, hintOf(map[string]string{HostsFile: swap(t, goodHosts, "name,", "hostname,")}))
}
