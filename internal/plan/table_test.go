package plan

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"k3splan/internal/plan/plantest"
)

func modelOf(t *testing.T, files map[string]string) string {
	t.Helper()
	p, problems := Load(project(files))
	require.Empty(t, problems)
	data, err := json.MarshalIndent(p.Model(), "", "  ")
	require.NoError(t, err)
	return string(data)
}

func utf16LE(text string) string {
	data := []byte{0xff, 0xfe}
	for _, unit := range utf16.Encode([]rune(text)) {
		data = binary.LittleEndian.AppendUint16(data, unit)
	}
	return string(data)
}

// Whatever a spreadsheet program makes of a table, it means the same.
func TestTablesThatMeanTheSame(t *testing.T) {
	want := modelOf(t, nil)
	reversed := func(table string) string {
		lines := strings.Split(strings.TrimSpace(table), "\n")
		slices.Reverse(lines[1:])
		return strings.Join(lines, "\n")
	}
	for name, files := range map[string]map[string]string{
		"rows in another order":       {HostsFile: reversed(goodHosts), K3sFile: reversed(goodK3s)},
		"columns in another order":    {K3sFile: "type,taints,labels,ip,host,name,mac\ninit,,,10.0.100.12,olaf,olaf-server,\nagent,,,10.0.100.22,olaf,olaf-agent,\nagent,,disk=large,10.0.100.25,karl,karl-agent,\n"},
		"semicolons":                  {HostsFile: strings.ReplaceAll(goodHosts, ",", ";")},
		"tabs, with empty cells":      {HostsFile: strings.ReplaceAll(goodHosts, ",", "\t"), K3sFile: strings.ReplaceAll(goodK3s, ",", "\t")},
		"Excel's line":                {HostsFile: "sep=;\r\n" + strings.ReplaceAll(goodHosts, ",", ";")},
		"byte-order mark":             {HostsFile: "\ufeff" + goodHosts, NetworkFile: "\ufeff" + goodNetwork},
		"UTF-16":                      {HostsFile: utf16LE(goodHosts), K3sFile: utf16LE(strings.ReplaceAll(goodK3s, ",", "\t"))},
		"CRLF":                        {HostsFile: strings.ReplaceAll(goodHosts, "\n", "\r\n"), NetworkFile: strings.ReplaceAll(goodNetwork, "\n", "\r\n")},
		"CR":                          {HostsFile: strings.ReplaceAll(goodHosts, "\n", "\r")},
		"capitals":                    {HostsFile: strings.Replace(strings.Replace(goodHosts, "olaf", "Olaf", 2), "name,interface", "NAME,Interface", 1)},
		"blanks around cells":         {K3sFile: strings.ReplaceAll(goodK3s, ",", " ,\t")},
		"quotes with blanks":          {K3sFile: strings.ReplaceAll(goodK3s, "olaf-agent,agent,", ` "olaf-agent"  , "agent" ,`)},
		"quotes with blanks and tabs": {K3sFile: strings.ReplaceAll(strings.ReplaceAll(goodK3s, ",", "\t"), "olaf-agent\t", ` "olaf-agent" `+"\t")},
		"comments and blank lines":    {HostsFile: "# my hosts, all of them; \"here\"\n\n" + strings.Replace(goodHosts, "ulf,", "\n# ulf\n\t \nulf,", 1)},
		"comments in quotes":          {HostsFile: "\"# all of \"\"my\"\" hosts, by name\",,,\n" + strings.ReplaceAll(goodHosts, "\nulf", "\n\"# ulf, a big one\",,,,,,,,,\nulf")},
		"invisible characters":        {HostsFile: "# hosts\n\ufeff" + strings.ReplaceAll(goodHosts, ",", "\u200b,\u00a0"), K3sFile: strings.ReplaceAll(goodK3s, "name", "name\u200b")},
		"a title that is indented":    {HostsFile: "\u00a0# hosts\n\"\u200b# all\"\n" + strings.ReplaceAll(goodHosts, ",", ";")},
		"nameservers empty":           {NetworkFile: goodNetwork + "nameservers: ['']\n"},
		"rows of empty cells":         {HostsFile: ",,,\n" + goodHosts + ",,,,,,,,,\n,,,,,,,,,\n"},
		"surplus separators":          {K3sFile: strings.ReplaceAll(goodK3s, "\n", ",,\n")},
		"no newline at the end":       {HostsFile: strings.TrimSpace(goodHosts)},
		"init under another name":     {K3sFile: strings.Replace(goodK3s, ",init,", ",Init_Server,", 1)},
		"netmask with slash":          {NetworkFile: strings.Replace(goodNetwork, "24", "/24", 1)},
		"netmask in full":             {NetworkFile: strings.Replace(goodNetwork, "24", "255.255.255.0", 1)},
		"versions in their own file":  {NetworkFile: "netmask: 24\ngateway: 10.0.100.1\n", VersionsFile: "nixos: nixos-26.05\nk3s: 1.35\n"},
		"versions below versions":     {NetworkFile: "netmask: 24\ngateway: 10.0.100.1\n", VersionsFile: "versions:\n  nixos: '26.05'\n  k3s: 1.35\n"},
		"target written out":          {HostsFile: strings.Replace(goodHosts, "10.0.100.3", "10.0.100.3 @ 10.0.100.3", 1)},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, want, modelOf(t, files)) })
	}
}

// Line numbers are right whatever precedes them.
func TestLinesOfProblems(t *testing.T) {
	hosts := "# a comment\n\nname,interface,ip,admin,note\n" +
		"olaf,eno1,10.0.100.2,olaf,\"two\nlines\"\n" +
		",,,,\n" +
		"ulf,eno1,10.0.100.3,ulf,\n" +
		"karl,eno1,nonsense,karl,\n"
	for _, variant := range []string{hosts, strings.ReplaceAll(hosts, "\n", "\r\n"), "\ufeff" + hosts, "sep=,\n" + strings.TrimPrefix(hosts, "# a comment\n")} {
		_, problems := Load(project(map[string]string{HostsFile: variant, K3sFile: "host,name,type,ip\n"}))
		require.Equal(t, []string{"address-invalid hosts.csv:8 ip"}, brief(problems), "%v", problems)
	}
}

func TestOwnColumnsAreData(t *testing.T) {
	hosts := "name,interface,ip,admin,note,\"odd, name\"\n" +
		"olaf,eno1,10.0.100.2,olaf,\"Two\nlines, ${x} '' \"\"quoted\"\" \\ $$\",\n"
	p, problems := Load(project(map[string]string{HostsFile: hosts, K3sFile: "host,name,type,ip,Zone\nolaf,s,init,10.0.100.12, North \n"}))
	require.Empty(t, problems)
	olaf := p.Host("olaf")
	require.Equal(t, map[string]string{"note": "Two\nlines, ${x} '' \"quoted\" \\ $$", "odd, name": ""}, olaf.Own)
	require.Equal(t, map[string]string{"zone": "North"}, olaf.Server.Own)
	require.Equal(t, "North", p.Model().Hosts["olaf"]["k3s"].(map[string]any)["server"].(map[string]any)["zone"])
}

// ancestor-defects 1, 2, 5, 7 and the targets of design.md.
func TestAddressesAndTargets(t *testing.T) {
	for cell, want := range map[string]Host{
		"10.0.100.2":           {Target: Target{Host: "10.0.100.2"}},
		"10.0.100.2@1.2.3.4":   {Target: Target{Host: "1.2.3.4"}},
		"10.0.100.2@nas:2222":  {Target: Target{Host: "nas", Port: 2222}},
		"10.0.100.2@localhost": {Target: Target{Local: true}},
		"dhcp@olaf.example":    {Target: Target{Host: "olaf.example"}, saysDHCP: true},
		"Automatic @ THIS":     {Target: Target{Local: true}, saysDHCP: true},
		"@127.0.0.1:2222":      {Target: Target{Host: "127.0.0.1", Port: 2222}, saysDHCP: true},
	} {
		t.Run(cell, func(t *testing.T) {
			p, problems := Load(project(map[string]string{
				HostsFile: "name,interface,ip,admin\nolaf,eno1," + cell + ",olaf\n",
				K3sFile:   "host,name,type,ip\n",
			}))
			require.Empty(t, problems)
			olaf := p.Host("olaf")
			require.Equal(t, want.Target, olaf.Target)
			require.Equal(t, want.saysDHCP, olaf.DHCP())
		})
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(goodHosts, goodK3s, goodNetwork)
	f.Add("\ufeffname;interface\n\"a\n", "host\tname\n# x", "versions: {nixos: <nixpkgs>}\nnetmask: [1]")
	f.Add("sep=;\nname;\"interface\" ;ip;admin\na; \"b\nc\" ;;", "a,b\n\"", "- 1")
	f.Fuzz(func(t *testing.T, hosts, k3s, network string) {
		p, problems := Load(fstest.MapFS{
			HostsFile: {Data: []byte(hosts)}, K3sFile: {Data: []byte(k3s)}, NetworkFile: {Data: []byte(network)},
		})
		for _, problem := range problems {
			require.NotEmpty(t, problem.Code)
			require.LessOrEqual(t, problem.Line, strings.Count(hosts+k3s+network, "\n")+strings.Count(hosts+k3s+network, "\r")+3)
		}
		if problems.Errors() > 0 {
			return
		}
		data, err := json.Marshal(p.Model())
		require.NoError(t, err)
		require.True(t, utf8.Valid(data))
		for _, host := range p.Hosts {
			require.NotContains(t, host.Name, " ")
			require.Nil(t, checkInterface(host.Interface))
		}
	})
}

// rack returns the tables of n hosts.
func rack(n int) fstest.MapFS {
	fsys := fstest.MapFS{}
	for file, text := range plantest.Rack(n) {
		fsys[file] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			fsys := rack(n)
			b.ReportAllocs()
			for b.Loop() {
				if p, problems := Load(fsys); problems.Errors() > 0 || len(p.Hosts) != n {
					b.Fatal(problems)
				}
			}
		})
	}
}
