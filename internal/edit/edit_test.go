package edit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"unicode"
	"unicode/utf16"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/secrets/secretstest"
	"k3splan/internal/table"
	"k3splan/internal/text"
)

// style is how somebody writes tables.
type style struct {
	separator                       string
	eol                             string
	bom, utf16, sepLine, noFinalEOL bool
	quoteAll, quoteSome, blankAfter bool
	padded, tight                   bool // columns below each other, the widest cell without a blank
	led                             bool // the same by blanks behind the separators
	oldMac, comments, capitals      bool
}

func drawStyle(t *rapid.T) style {
	flag := func(name string) bool { return rapid.IntRange(0, 3).Draw(t, name) == 0 }
	s := style{
		separator: rapid.SampledFrom([]string{",", ";", "\t"}).Draw(t, "separator"),
		eol:       rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(t, "eol"),
		bom:       flag("bom"), utf16: flag("utf16"), noFinalEOL: flag("no final eol"), quoteAll: flag("quote all"),
		blankAfter: flag("blank after"), padded: flag("padded"), led: flag("led"), oldMac: flag("old Mac"), comments: flag("comments"),
		capitals: flag("capitals"), sepLine: flag("sep line"),
	}
	if s.oldMac {
		s.eol = "\n" // until the whole text is done
		s.sepLine = false
	}
	return s
}

// write gives a table's file in the style.
func (s style) write(t *rapid.T, columns []string, rows [][]string) []byte {
	order := rapid.Permutation(slices.Collect(func(yield func(int) bool) {
		for i := range columns {
			if !yield(i) {
				return
			}
		}
	})).Draw(t, "columns")
	all := append([][]string{columns}, rows...)
	widths := make([]int, len(columns))
	for i, row := range all {
		all[i] = make([]string, len(row))
		for j, column := range order {
			cell := row[column]
			if s.capitals && rapid.Bool().Draw(t, "capital") && cell != "" && cell[0] < 0x80 && cell != "eno1" {
				cell = strings.ToUpper(cell[:1]) + cell[1:]
			}
			if s.quoteAll || s.quoteSome && rapid.Bool().Draw(t, "quote") || strings.ContainsAny(cell, "\"\n"+s.separator) || j == 0 && strings.HasPrefix(cell, "#") {
				cell = table.Quote(cell)
			}
			if s.blankAfter && j > 0 {
				cell = " " + cell
			}
			all[i][j] = cell
			widths[j] = max(widths[j], len([]rune(cell)))
		}
	}
	var b strings.Builder
	if s.sepLine {
		b.WriteString("sep=" + s.separator + s.eol)
	}
	for i, row := range all {
		if s.comments && rapid.IntRange(0, 2).Draw(t, "comment") == 0 {
			b.WriteString(rapid.SampledFrom([]string{"# a comment, with \"quotes\"; and more", "#", "", "  ",
				`"# a comment, in quotes"`, `"#1"` + s.separator + s.separator, s.separator + " " + s.separator}).Draw(t, "between") + s.eol)
		}
		led := ""
		for j, cell := range row {
			row[j] = led + cell
			switch width := widths[j] + map[bool]int{false: 2}[s.tight]; {
			case j == len(row)-1:
			case s.padded:
				row[j] += blanks(width, row[j])
			case s.led:
				led = blanks(width, cell)
			}
		}
		b.WriteString(strings.Join(row, s.separator))
		if i < len(all)-1 || !s.noFinalEOL {
			b.WriteString(s.eol)
		}
	}
	if s.comments {
		b.WriteString(rapid.SampledFrom([]string{s.eol + "# the end", "", s.eol + "\u200b" + s.eol}).Draw(t, "end"))
	}
	text := b.String()
	if s.oldMac {
		text = strings.ReplaceAll(text, "\n", "\r")
	}
	switch {
	case s.utf16:
		return utf16LE(text)
	case s.bom:
		return []byte("\ufeff" + text)
	}
	return []byte(text)
}

func utf16LE(text string) []byte {
	data := []byte{0xff, 0xfe}
	for _, unit := range utf16.Encode([]rune(text)) {
		data = binary.LittleEndian.AppendUint16(data, unit)
	}
	return data
}

const network = "netmask: 24\ngateway: 10.0.100.1\nnameservers: [10.0.100.9, 9.9.9.9]\nversions: {nixos: nixos-26.05, k3s: '1.35'}\n"

var (
	ranges = []string{"", "address_range: 10.0.100.0/25\n", "address_range: 10.0.100.200-10.0.100.210\n", "address_range: 10.0.100.6-10.0.100.40\n"}
	// own are values of the user's own columns.
	own = rapid.SampledFrom([]string{"", "rack 1", "a,b;c\td", "two\nlines", `19" rack`, "#5", "ümlaut", "'", "$", "1 200,5"})
)

// drawProject gives a valid plan in any style.
func drawProject(t *rapid.T) fstest.MapFS {
	addresses := rapid.Permutation([]int{2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 100, 101, 102, 253, 254}).Draw(t, "addresses")
	next := func() string {
		address := fmt.Sprintf("10.0.100.%d", addresses[0])
		addresses = addresses[1:]
		return address
	}
	var hosts, servers, agents [][]string
	names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z][a-z0-9-]{0,6}[a-z0-9]`), 1, 6, rapid.ID[string]).Draw(t, "names")
	names = slices.DeleteFunc(names, func(name string) bool {
		return slices.Contains([]string{"all", "meta", "network", "defaults", "deploy", "localhost", "new"}, name)
	})
	if len(names) == 0 {
		names = []string{"olaf"}
	}
	for _, name := range names {
		ip := next()
		switch rapid.IntRange(0, 6).Draw(t, "target") {
		case 0:
			ip += "@" + name + ".example"
		case 1:
			ip += "@" + next()
		case 2:
			ip = "dhcp@" + name + ".example"
		}
		hosts = append(hosts, []string{name, "eno1", ip, "admin", own.Draw(t, "own")})
		if strings.HasPrefix(ip, "dhcp") {
			continue // and has no containers
		}
		if rapid.Bool().Draw(t, "server") {
			role := "server"
			if len(servers) == 0 {
				role = "init"
			}
			servers = append(servers, []string{name, name + "-k3s-server", role, next(), "", own.Draw(t, "own")})
		}
		if rapid.Bool().Draw(t, "agent") {
			agents = append(agents, []string{name, name + "-k3s-agent", "agent", next(), rapid.SampledFrom([]string{"", "a=b", "disk=large a=b"}).Draw(t, "labels"), own.Draw(t, "own")})
		}
	}
	containers := slices.Concat(servers, agents)
	if len(servers) == 0 {
		containers = nil
	} else if rapid.Bool().Draw(t, "shuffle") {
		containers = rapid.Permutation(containers).Draw(t, "containers")
	}
	return fstest.MapFS{
		plan.HostsFile:       {Data: drawStyle(t).write(t, []string{"name", "interface", "ip", "admin", "place"}, hosts)},
		plan.K3sFile:         {Data: drawStyle(t).write(t, []string{"host", "name", "type", "ip", "labels", "zone"}, containers)},
		"plans/network.yaml": {Data: []byte(network + rapid.SampledFrom(ranges).Draw(t, "range"))},
	}
}

// change opens a project, changes it and gives what the files hold then; the plan must be valid.
func change(t require.TestingT, fsys fstest.MapFS, edits ...func(*Edit) error) fstest.MapFS {
	e, err := Open(fsys)
	require.NoError(t, err)
	for _, edit := range edits {
		require.NoError(t, edit(e))
	}
	_, problems, err := e.Result()
	require.NoError(t, err, "%v", problems)
	return after(fsys, e)
}

func after(fsys fstest.MapFS, e *Edit) fstest.MapFS {
	changed := maps.Clone(fsys)
	for file, data := range e.Files() {
		changed[file] = &fstest.MapFile{Data: data}
	}
	return changed
}

func load(t require.TestingT, fsys fs.FS) *plan.Plan {
	p, problems := plan.Load(fsys)
	require.Zero(t, problems.Errors(), "%v", problems)
	return p
}

func requireSame(t require.TestingT, want, got fstest.MapFS) {
	for file := range want {
		require.Equal(t, string(want[file].Data), string(got[file].Data), file)
	}
}

// What is added changes nothing else, gets a free address, and can be removed again to the same
// bytes.
func TestAddAndRemove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fsys := drawProject(t)
		before := load(t, fsys)
		host := rapid.SampledFrom(before.Hosts).Draw(t, "host")
		value := own.Filter(func(text string) bool { return !strings.ContainsFunc(text, unicode.IsControl) }).Draw(t, "value")
		addHost := func(e *Edit) error {
			return e.AddHost(map[string]string{"name": "new", "interface": "eno1", "admin": "admin", "place": value})
		}
		what := rapid.SampledFrom([]string{"host", "server", "agent", "host with all"}).Draw(t, "what")
		role := map[string]plan.Role{"server": plan.Server, "agent": plan.Agent}[what]
		free := map[string]bool{"server": host.Server == nil, "agent": host.Agent == nil && len(before.Servers()) > 0}[what] && !host.DHCP()
		switch {
		case what == "host":
			with := change(t, fsys, addHost)
			requireAdded(t, before, load(t, with))
			requireOneInsertion(t, fsys, with)
			require.Equal(t, value, load(t, with).Host("new").Own["place"])
			requireSame(t, fsys, change(t, with, func(e *Edit) error { return e.RemoveHost("new") }))
		case free:
			with := change(t, fsys, func(e *Edit) error {
				return e.AddContainer(role, map[string]string{"host": host.Name, "zone": value})
			})
			requireAdded(t, before, load(t, with))
			requireOneInsertion(t, fsys, with)
			requireSame(t, fsys, change(t, with, func(e *Edit) error { return e.RemoveContainer(role, host.Name) }))
		default:
			with := change(t, fsys, addHost)
			with = change(t, with, func(e *Edit) error { return e.AddContainer(plan.Server, map[string]string{"host": "new"}) })
			with = change(t, with, func(e *Edit) error {
				return e.AddContainer(plan.Agent, map[string]string{"host": "new", "labels": "a=b c=D"})
			})
			require.Equal(t, []string{"a=b", "c=D"}, load(t, with).Host("new").Agent.Labels)
			if init := load(t, with).InitServer(); init.Host.Name == "new" { // the last server goes after the agents
				with = change(t, with, func(e *Edit) error { return e.RemoveContainer(plan.Agent, "new") })
			}
			requireSame(t, fsys, change(t, with, func(e *Edit) error { return e.RemoveHost("new") }))
		}
	})
}

// requireAdded: one thing is new, at an address that was free and may be given, and all else as it was.
func requireAdded(t require.TestingT, before, after *plan.Plan) {
	old, new := things(before), things(after)
	for name, model := range old {
		require.Equal(t, model, new[name])
	}
	require.Len(t, new, len(old)+1)
	for name := range new {
		if _, was := old[name]; was {
			continue
		}
		address := addresses(after)[name]
		require.True(t, before.Network.AddressRange.Contains(address), "%s", address)
		require.NotContains(t, slices.Collect(maps.Values(addresses(before))), address)
		require.NotEqual(t, netip.MustParseAddr("10.0.100.1"), address, "gateway")
		require.NotEqual(t, netip.MustParseAddr("10.0.100.9"), address, "nameserver")
	}
}

func things(p *plan.Plan) map[string]any {
	all := map[string]any{}
	for _, host := range p.Hosts {
		m := host.Model()
		delete(m, "k3s")
		all[host.Name] = m
		for _, c := range host.Containers() {
			all[c.Name] = []any{host.Name, c.Role, c.Address, c.Own}
		}
	}
	return all
}

func addresses(p *plan.Plan) map[string]netip.Addr {
	all := map[string]netip.Addr{}
	for _, host := range p.Hosts {
		all[host.Name] = host.Address
		for _, c := range host.Containers() {
			all[c.Name] = c.Address
		}
	}
	return all
}

// requireOneInsertion: the new bytes are the old ones with one piece put in.
func requireOneInsertion(t require.TestingT, before, after fstest.MapFS) {
	changed := 0
	for file := range before {
		old, new := string(before[file].Data), string(after[file].Data)
		if old == new {
			continue
		}
		changed++
		prefix := 0
		for prefix < len(old) && old[prefix] == new[prefix] {
			prefix++
		}
		require.True(t, strings.HasSuffix(new, old[prefix:]), "%q became %q", old, new)
	}
	require.Equal(t, 1, changed)
}

// Every removal leaves a plan in order, or is refused for whom it would leave without a server.
func TestRemove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fsys := drawProject(t)
		before := load(t, fsys)
		host := rapid.SampledFrom(before.Hosts).Draw(t, "host")
		e, err := Open(fsys)
		require.NoError(t, err)
		var gone []string
		switch kind := rapid.SampledFrom([]string{"host", "server", "agent"}).Draw(t, "kind"); {
		case kind == "server" && host.Server != nil:
			gone = []string{host.Server.Name}
			err = e.RemoveContainer(plan.Server, host.Server.Name)
		case kind == "agent" && host.Agent != nil:
			gone = []string{host.Agent.Name}
			err = e.RemoveContainer(plan.Agent, host.Name)
		default:
			gone = append([]string{host.Name}, plan.Names(host.Containers())...)
			err = e.RemoveHost(host.Name)
		}
		if init := before.InitServer(); init != nil && slices.Contains(gone, init.Name) {
			left := text.Without(plan.Names(before.Containers()), gone)
			require.Equal(t, len(left) > 0, err != nil)
			if err != nil {
				require.ErrorAs(t, err, new(*Refused))
				return
			}
		}
		require.NoError(t, err)
		p, problems, err := e.Result()
		if len(before.Hosts) == 1 && gone[0] == host.Name {
			require.ErrorAs(t, err, new(*Invalid)) // a plan has hosts
			return
		}
		require.NoError(t, err, "%v", problems)
		want := things(before)
		for _, name := range gone {
			delete(want, name)
		}
		require.Equal(t, want, things(p))
	})
}

// A new name reaches every row that told the old one, and nothing else; the old name brings the same
// bytes back, but for capitals.
func TestRename(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fsys := drawProject(t)
		before := load(t, fsys)
		old := rapid.SampledFrom(slices.Sorted(maps.Keys(things(before)))).Draw(t, "old")
		name := rapid.SampledFrom([]string{"x", "new", "a-name-that-is-longer-than-any-column"}).Draw(t, "name")
		renamed := change(t, fsys, func(e *Edit) error { return e.Rename(old, name) })
		p := load(t, renamed)
		require.NotContains(t, things(p), old)
		require.Contains(t, things(p), name)
		require.Equal(t, len(things(before)), len(things(p)))
		require.Equal(t, addresses(before)[old], addresses(p)[name])
		back := change(t, renamed, func(e *Edit) error { return e.Rename(name, old) })
		require.Equal(t, things(before), things(load(t, back)))
		requireSame(t, inLowerCase(fsys), inLowerCase(back))
	})
}

// inLowerCase gives files with their ASCII letters in lower case, in whatever encoding.
func inLowerCase(files fstest.MapFS) fstest.MapFS {
	lower := fstest.MapFS{}
	for name, file := range files {
		data := slices.Clone(file.Data)
		for i, c := range data {
			if 'A' <= c && c <= 'Z' {
				data[i] += 'a' - 'A'
			}
		}
		lower[name] = &fstest.MapFile{Data: data}
	}
	return lower
}

func TestRenameThereAndBack(t *testing.T) {
	fsys := rack(t)
	renamed := change(t, fsys, func(e *Edit) error { return e.Rename("olaf", "a-much-longer-name") })
	require.Equal(t, 3, strings.Count(string(renamed[plan.HostsFile].Data)+string(renamed[plan.K3sFile].Data), "a-much-longer-name,"))
	requireSame(t, fsys, change(t, renamed, func(e *Edit) error { return e.Rename("a-much-longer-name", "olaf") }))
}

// A column that needed no blanks gets some if the others have them; the last one never.
func TestRenameAmongAlignedColumns(t *testing.T) {
	for before, want := range map[string]string{
		"name,interface,ip        ,admin\nolaf,eno1     ,10.0.100.2,a\n":             "name,interface,ip        ,admin\no   ,eno1     ,10.0.100.2,a\n",
		"interface, ip         , admin, name\neno1     , 10.0.100.2 , a    , olaf\n": "interface, ip         , admin, name\neno1     , 10.0.100.2 , a    , o\n",
		"name,interface,ip ,admin\nolaf,eno1,10.0.100.2 ,a\n":                        "name,interface,ip ,admin\no,eno1,10.0.100.2 ,a\n",
		"name,  interface, ip,         admin\nolaf,  eno1,      10.0.100.2, a\n":     "name,  interface, ip,         admin\no,     eno1,      10.0.100.2, a\n",
		"name, interface, ip, admin\nolaf, eno1, 10.0.100.2, a\n":                    "name, interface, ip, admin\no, eno1, 10.0.100.2, a\n",
	} {
		fsys := rack(t)
		fsys[plan.HostsFile] = &fstest.MapFile{Data: []byte(before)}
		fsys[plan.K3sFile] = &fstest.MapFile{Data: []byte("host,name,type,ip\n")}
		renamed := change(t, fsys, func(e *Edit) error { return e.Rename("olaf", "o") })
		require.Equal(t, want, string(renamed[plan.HostsFile].Data))
	}
}

// rack gives the tables of the example.
func rack(t *testing.T) fstest.MapFS {
	t.Helper()
	fsys := fstest.MapFS{}
	for _, file := range []string{plan.HostsFile, plan.K3sFile, "plans/network.yaml"} {
		data, err := os.ReadFile(filepath.Join("..", "..", "examples", "rack", file))
		require.NoError(t, err)
		fsys[file] = &fstest.MapFile{Data: data}
	}
	return fsys
}

// The style of what stands there already.
func TestStyle(t *testing.T) {
	for _, test := range []struct{ name, before, want string }{
		{"plain", "name,interface,ip,admin\nolaf,eno1,10.0.100.2,a\n", "name,interface,ip,admin\nolaf,eno1,10.0.100.2,a\nnew,eno1,10.0.100.3,a\n"},
		{"no last line end", "name,interface,ip,admin\nolaf,eno1,10.0.100.2,a", "name,interface,ip,admin\nolaf,eno1,10.0.100.2,a\nnew,eno1,10.0.100.3,a"},
		{"CRLF and semicolons", "name;interface;ip;admin\r\nolaf;eno1;10.0.100.2;a\r\n", "name;interface;ip;admin\r\nolaf;eno1;10.0.100.2;a\r\nnew;eno1;10.0.100.3;a\r\n"},
		{"CRLF, no last line end", "name,interface,ip,admin\r\nolaf,eno1,10.0.100.2,a", "name,interface,ip,admin\r\nolaf,eno1,10.0.100.2,a\r\nnew,eno1,10.0.100.3,a"},
		{"all in quotes", "\"name\",\"interface\",\"ip\",\"admin\",\"x\"\n\"olaf\",\"eno1\",\"10.0.100.2\",\"a\",\"\"\n",
			"\"name\",\"interface\",\"ip\",\"admin\",\"x\"\n\"olaf\",\"eno1\",\"10.0.100.2\",\"a\",\"\"\n\"new\",\"eno1\",\"10.0.100.3\",\"a\",\"\"\n"},
		{"one column in quotes", "name,interface,ip,admin\nolaf,eno1,10.0.100.2,\"a\"\n", "name,interface,ip,admin\nolaf,eno1,10.0.100.2,\"a\"\nnew,eno1,10.0.100.3,\"a\"\n"},
		{"blanks", "name, interface, ip, admin, x\nolaf, eno1, 10.0.100.2, a,\n", "name, interface, ip, admin, x\nolaf, eno1, 10.0.100.2, a,\nnew, eno1, 10.0.100.3, a,\n"},
		{"filled up", "name ,interface,ip         ,admin\nolaf ,eno1     ,10.0.100.2 ,a\n", "name ,interface,ip         ,admin\nolaf ,eno1     ,10.0.100.2 ,a\nnew  ,eno1     ,10.0.100.3 ,a\n"},
		{"filled up, with a text that is too long", "name ,interface,ip        ,admin\nolaf ,eno1     ,10.0.100.2,a\nulrich,eno1     ,10.0.100.3,a\n",
			"name ,interface,ip        ,admin\nolaf ,eno1     ,10.0.100.2,a\nulrich,eno1     ,10.0.100.3,a\nnew  ,eno1     ,10.0.100.4,a\n"},
		{"blanks around", "name , interface , ip , admin\nulf , eno1 , 10.0.100.2 , a\n", "name , interface , ip , admin\nulf , eno1 , 10.0.100.2 , a\nnew , eno1 , 10.0.100.3 , a\n"},
		{"filled up behind the separators", "name,   interface, ip,         admin\nolaf,   eno1,      10.0.100.2, a\n", "name,   interface, ip,         admin\nolaf,   eno1,      10.0.100.2, a\nnew,    eno1,      10.0.100.3, a\n"},
		{"filled up behind the separators, some empty or too long", "name,  interface, serial, tags, ip,         admin\nolaf,  eno1,      ,       x,    10.0.100.2, anna\nulrich, eno1,      ,       ,     10.0.100.3, anna\n",
			"name,  interface, serial, tags, ip,         admin\nolaf,  eno1,      ,       x,    10.0.100.2, anna\nulrich, eno1,      ,       ,     10.0.100.3, anna\nnew,   eno1,      ,       ,     10.0.100.4, anna\n"},
		{"comments that a spreadsheet program has put into quotes", "\"# mine, all\",,,\nname,interface,ip,admin\nolaf,eno1,10.0.100.2,a\n\"#1, 2\",,,\n",
			"\"# mine, all\",,,\nname,interface,ip,admin\nolaf,eno1,10.0.100.2,a\nnew,eno1,10.0.100.3,a\n\"#1, 2\",,,\n"},
		{"what cannot be seen", "name,interface,ip,admin\n\u200bolaf,eno1,10.0.100.2,a\n", "name,interface,ip,admin\n\u200bolaf,eno1,10.0.100.2,a\nnew,eno1,10.0.100.3,a\n"},
		{"comments behind", "# top\nname,interface,ip,admin\nolaf,eno1,10.0.100.2,a\n\n# spare: 10.0.100.77\n", "# top\nname,interface,ip,admin\nolaf,eno1,10.0.100.2,a\nnew,eno1,10.0.100.3,a\n\n# spare: 10.0.100.77\n"},
		{"columns without a name", "name,interface,ip,admin,,\nolaf,eno1,10.0.100.2,a,,\n", "name,interface,ip,admin,,\nolaf,eno1,10.0.100.2,a,,\nnew,eno1,10.0.100.3,a,,\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			fsys := fstest.MapFS{plan.HostsFile: {Data: []byte(test.before)}, plan.K3sFile: {Data: []byte("host,name,type,ip\n")}, "plans/network.yaml": {Data: []byte(network)}}
			got := change(t, fsys, func(e *Edit) error { return e.AddHost(map[string]string{"name": "new"}) })
			require.Equal(t, test.want, string(got[plan.HostsFile].Data))
		})
	}
}

// A column that k3splan knows is added where a new row needs it.
func TestNewColumn(t *testing.T) {
	for _, test := range []struct{ name, before, want string }{
		{"plain", "name,interface,ip,admin\nolaf,eno1,10.0.100.2,a\n", "name,interface,ip,admin,boot,tags\nolaf,eno1,10.0.100.2,a,,\nnew,eno1,10.0.100.3,a,efi,x y\n"},
		{"CRLF and semicolons, no last line end", "name;interface;ip;admin\r\nolaf;eno1;10.0.100.2;a", "name;interface;ip;admin;boot;tags\r\nolaf;eno1;10.0.100.2;a;;\r\nnew;eno1;10.0.100.3;a;efi;x y"},
		{"all in quotes", "\"name\",\"interface\",\"ip\",\"admin\"\n\"olaf\",\"eno1\",\"10.0.100.2\",\"a\"\n",
			"\"name\",\"interface\",\"ip\",\"admin\",\"boot\",\"tags\"\n\"olaf\",\"eno1\",\"10.0.100.2\",\"a\",\"\",\"\"\n\"new\",\"eno1\",\"10.0.100.3\",\"a\",\"efi\",\"x y\"\n"},
		{"blanks", "name, interface, ip, admin\nolaf, eno1, 10.0.100.2, a\n", "name, interface, ip, admin, boot, tags\nolaf, eno1, 10.0.100.2, a,,\nnew, eno1, 10.0.100.3, a, efi, x y\n"},
		{"filled up", "name ,interface,ip         ,admin\nolaf ,eno1     ,10.0.100.2 ,a\n",
			"name ,interface,ip         ,admin,boot,tags\nolaf ,eno1     ,10.0.100.2 ,a    ,    ,\nnew  ,eno1     ,10.0.100.3 ,a    ,efi ,x y\n"},
		{"comments and empty rows", "# top\n\"# mine, all\",,,\nname,interface,ip,admin\nolaf,eno1,10.0.100.2,a\n,,,\n\n# spare, 10.0.100.77\n",
			"# top\n\"# mine, all\",,,\nname,interface,ip,admin,boot,tags\nolaf,eno1,10.0.100.2,a,,\nnew,eno1,10.0.100.3,a,efi,x y\n,,,\n\n# spare, 10.0.100.77\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			fsys := fstest.MapFS{plan.HostsFile: {Data: []byte(test.before)}, plan.K3sFile: {Data: []byte("host,name,type,ip\n")}, "plans/network.yaml": {Data: []byte(network)}}
			got := change(t, fsys, func(e *Edit) error {
				return e.AddHost(map[string]string{"name": "new", "boot": "efi", "tags": "x y", "serial": ""})
			})
			require.Equal(t, test.want, string(got[plan.HostsFile].Data))
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		fsys := drawProject(t)
		before := load(t, fsys)
		after := load(t, change(t, fsys, func(e *Edit) error {
			return e.AddHost(map[string]string{"name": "new", "interface": "eno1", "admin": "admin", "mac": "02:00:00:00:00:07"})
		}))
		requireAdded(t, before, after)
		require.Equal(t, "02:00:00:00:00:07", after.Host("new").MAC)
	})
}

// Servers and agents that stand apart stay so; those of a host that stand together, too.
func TestPlaceOfNewContainers(t *testing.T) {
	fsys := rack(t)
	got := change(t, fsys, func(e *Edit) error { return e.AddContainer(plan.Server, map[string]string{"host": "karl"}) })
	require.Contains(t, string(got[plan.K3sFile].Data), "rolf,rolf-k3s-server,server,10.0.100.14,,\nkarl,karl-k3s-server,server,10.0.100.15,,\nolaf,olaf-k3s-agent")
	fsys[plan.K3sFile] = &fstest.MapFile{Data: []byte("host,name,type,ip\nolaf,olaf-s,init,10.0.100.12\nolaf,olaf-a,agent,10.0.100.22\nulf,ulf-s,server,10.0.100.13\n# karl\nkarl,karl-s,server,10.0.100.14\n")}
	got = change(t, fsys, func(e *Edit) error { return e.AddContainer(plan.Agent, map[string]string{"host": "ulf"}) })
	require.Contains(t, string(got[plan.K3sFile].Data), "ulf,ulf-s,server,10.0.100.13\nulf,ulf-a,agent,10.0.100.23\n# karl")
}

// A new container is called as the others of its kind.
func TestNameOfNewContainers(t *testing.T) {
	for _, test := range []struct{ rows, want string }{
		{"olaf,olaf-k3s-server,init,10.0.100.12", "new-k3s-server"},
		{"olaf,olaf-s1,init,10.0.100.12", "new-s1"},
		{"olaf,srv-olaf,init,10.0.100.12", "srv-new"},
		{"olaf,etcd,init,10.0.100.12", "new-k3s-server"},
		{"olaf,olaf2,init,10.0.100.12", "new-k3s-server"},
		{"olaf,olaf-a,init,10.0.100.12\nulf,b-ulf,server,10.0.100.13\nkarl,b-karl,server,10.0.100.14", "b-new"},
	} {
		fsys := rack(t)
		fsys[plan.HostsFile].Data = append(slices.Clone(fsys[plan.HostsFile].Data), "new,eno1,10.0.100.9,new,,,\n"...)
		fsys[plan.K3sFile] = &fstest.MapFile{Data: []byte("host,name,type,ip\n" + test.rows + "\n")}
		got := change(t, fsys, func(e *Edit) error { return e.AddContainer(plan.Server, map[string]string{"host": "new"}) })
		require.Equal(t, test.want, load(t, got).Host("new").Server.Name, test.rows)
	}
}

// The next free address: never one that is used, reserved, or outside the range.
func TestAddresses(t *testing.T) {
	for _, test := range []struct{ name, rows, network, want string }{
		{"after the last host", "olaf,eno1,10.0.100.2,a\nulf,eno1,10.0.100.4,a\n", "", "10.0.100.5"},
		{"past nameservers, targets and names of the API", "olaf,eno1,10.0.100.8@10.0.100.10,a\n", "tls_san: [10.0.100.11]\n", "10.0.100.12"},
		{"never the broadcast address", "olaf,eno1,10.0.100.254,a\n", "", "10.0.100.2"},
		{"of the range", "olaf,eno1,10.0.100.2,a\n", "address_range: 10.0.100.40-10.0.100.50\n", "10.0.100.40"},
		{"next in the range", "olaf,eno1,10.0.100.45,a\nulf,eno1,10.0.100.60,a\n", "address_range: 10.0.100.40-10.0.100.50\n", "10.0.100.46"},
		{"from the beginning of the range again", "olaf,eno1,10.0.100.40,a\nulf,eno1,10.0.100.50,a\n", "address_range: 10.0.100.40-10.0.100.50\n", "10.0.100.41"},
		{"a range that ends with the network", "olaf,eno1,10.0.100.254,a\n", "address_range: 10.0.100.252/30\n", "10.0.100.252"},
		{"a range that begins with the network", "olaf,eno1,10.0.100.9,a\n", "address_range: 10.0.100.0/30\n", "10.0.100.2"},
		{"full", "olaf,eno1,10.0.100.40,a\nulf,eno1,10.0.100.41,a\n", "address_range: 10.0.100.40-10.0.100.41\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			fsys := fstest.MapFS{plan.HostsFile: {Data: []byte("name,interface,ip,admin\n" + test.rows)}, plan.K3sFile: {Data: []byte("host,name,type,ip\n")},
				"plans/network.yaml": {Data: []byte(network + test.network)}}
			load(t, fsys)
			e, err := Open(fsys)
			require.NoError(t, err)
			err = e.AddHost(map[string]string{"name": "new"})
			if test.want == "" {
				require.ErrorContains(t, err, "no free address in 10.0.100.40-10.0.100.41")
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, addresses(load(t, after(fsys, e)))["new"].String())
		})
	}
}

// Where no range is set, only a larger subnet helps.
func TestFullSubnet(t *testing.T) {
	fsys := fstest.MapFS{plan.HostsFile: {Data: []byte("name,interface,ip,admin\nolaf,eno1,10.0.100.2,a\n")}, plan.K3sFile: {Data: []byte("host,name,type,ip\n")},
		"plans/network.yaml": {Data: []byte("netmask: 30\ngateway: 10.0.100.1\nversions: {nixos: nixos-26.05}\n")}}
	e, err := Open(fsys)
	require.NoError(t, err)
	var refused *Refused
	err = e.AddHost(map[string]string{"name": "new"})
	require.ErrorAs(t, err, &refused)
	require.ErrorContains(t, refused, "no free address in 10.0.100.1-10.0.100.2")
	require.Contains(t, diag.HintOf(err), "netmask")
}

func TestRefused(t *testing.T) {
	for _, test := range []struct {
		name, want, hint string
		edit             func(*Edit) error
	}{
		{"host twice", `the host "olaf" already exists (plans/hosts.csv:3)`, "k3splan show host olaf", func(e *Edit) error { return e.AddHost(map[string]string{"name": "Olaf"}) }},
		{"unknown host", `no host is called "olav"`, `did you mean "olaf"?`, func(e *Edit) error { return e.AddContainer(plan.Agent, map[string]string{"host": "olav"}) }},
		{"second agent", `host "olaf" already has "olaf-k3s-agent" (plans/k3s.csv:5)`, "at most one", func(e *Edit) error { return e.AddContainer(plan.Agent, map[string]string{"host": "olaf"}) }},
		{"line break", "line break", "", func(e *Edit) error {
			return e.AddHost(map[string]string{"name": "x", "interface": "eno1", "slot": "a\nb"})
		}},
		{"no agent there", `no agent is called "rolf"`, "the agents are: karl-k3s-agent olaf-k3s-agent ulf-k3s-agent", func(e *Edit) error { return e.RemoveContainer(plan.Agent, "rolf") }},
		{"chosen name taken", `the name "rolf-k3s-agent" is taken (plans/k3s.csv:4)`, "--name", func(e *Edit) error {
			e.plan.Host("rolf").Server.Name = "rolf-k3s-agent"
			return e.AddContainer(plan.Agent, map[string]string{"host": "rolf"})
		}},
		{"agent without a server", "the plan has no server that an agent could join", "k3splan add server HOST", func(e *Edit) error {
			for _, host := range e.plan.Hosts {
				host.Server = nil
			}
			return e.AddContainer(plan.Agent, map[string]string{"host": "rolf"})
		}},
		{"init server with others left", `"olaf-k3s-server" is the init server, and other servers would be left without one: rolf-k3s-server ulf-k3s-server`, `type "init" for it`,
			func(e *Edit) error { return e.RemoveContainer(plan.Server, "olaf") }},
		{"host of the init server", `"olaf-k3s-server" is the init server`, "take over first", func(e *Edit) error { return e.RemoveHost("olaf") }},
		{"no such name", `no host, server or agent is called "karl-k3s-agnet"`, `did you mean "karl-k3s-agent"?`, func(e *Edit) error { return e.Rename("karl-k3s-agnet", "x") }},
		{"name taken", `the name "ulf-k3s-agent" is taken (plans/k3s.csv:6)`, "unique", func(e *Edit) error { return e.Rename("karl", "Ulf-k3s-agent") }},
		{"not a name", "is not a name", "", func(e *Edit) error { return e.Rename("karl", " x\n") }},
		{"the old name and what cannot be seen", "is not a name", "", func(e *Edit) error { return e.Rename("karl", "karl\u200b") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, err := Open(rack(t))
			require.NoError(t, err)
			err = test.edit(e)
			require.ErrorContains(t, err, test.want)
			require.ErrorAs(t, err, new(*Refused))
			require.Contains(t, diag.HintOf(err), test.hint)
		})
	}
}

// The result is looked at as a whole, also for what the change itself cannot know.
func TestResultIsValidated(t *testing.T) {
	for name, edit := range map[string]func(*Edit) error{
		"name-invalid": func(e *Edit) error { return e.Rename("karl", "ka_rl") },
		"name-duplicate": func(e *Edit) error {
			return e.AddHost(map[string]string{"name": "ulf-k3s-agent", "interface": "eno1"})
		},
		"address-duplicate": func(e *Edit) error {
			return e.AddContainer(plan.Agent, map[string]string{"host": "rolf", "ip": "10.0.100.2"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := Open(rack(t))
			require.NoError(t, err)
			require.NoError(t, edit(e))
			_, problems, err := e.Result()
			require.ErrorAs(t, err, new(*Invalid))
			require.True(t, slices.ContainsFunc(problems, func(p diag.Problem) bool { return p.Code == name }), "%v", problems)
		})
	}
}

// Everything that is wrong with an addition is told at once, with what to say on the command line.
func TestAllProblemsOfAnAddition(t *testing.T) {
	told := func(fsys fstest.MapFS, edit func(*Edit) error) []string {
		e, err := Open(fsys)
		require.NoError(t, err)
		require.NoError(t, edit(e))
		_, _, err = e.Result()
		var invalid *Invalid
		require.ErrorAs(t, err, &invalid)
		require.False(t, invalid.Already)
		var lines []string
		for _, p := range invalid.Problems {
			lines = append(lines, p.String()+" / "+p.Hint)
		}
		return lines
	}
	fsys := rack(t)
	require.Equal(t, []string{
		`plans/hosts.csv:2: slto: the table has no such column / did you mean "slot"?`,
		`plans/hosts.csv:8: interface: the cell is empty / --interface NAME; the plan has enP4p65s0, eno1, enp3s0, eth0`,
		`plans/hosts.csv:8: tags "a,b": not a tag / separate tags by blanks`,
	}, told(fsys, func(e *Edit) error {
		return e.AddHost(map[string]string{"name": "otto", "slto": "9", "boot": "efi", "tags": "a,b"})
	}))
	const long = "a-host-with-a-name-of-which-not-even-the-shortest-container-is-ok"
	fsys[plan.HostsFile].Data = append(slices.Clone(fsys[plan.HostsFile].Data), long[:59]+",eno1,10.0.100.9,olaf,,,\nolaf-k3s,eno1,10.0.100.10,olaf,,,"...)
	require.Equal(t, []string{
		`plans/k3s.csv:8: ip "10.0.100.1": the address of the gateway / the next free one is 10.0.100.26`,
		`plans/k3s.csv:8: name "` + long[:59] + `-k3s-agent": not a host name: letters a-z, digits and inner hyphens, at most 63 / choose another name with --name`,
	}, told(fsys, func(e *Edit) error {
		return e.AddContainer(plan.Agent, map[string]string{"host": long[:59], "ip": "10.0.100.1"})
	}))
	fsys = rack(t)
	fsys[plan.HostsFile] = &fstest.MapFile{Data: []byte("name,interface,ip,admin\n")}
	fsys[plan.K3sFile] = &fstest.MapFile{Data: []byte("host,name,type,ip\n")}
	require.Equal(t, []string{
		"plans/hosts.csv:2: admin: the cell is empty / --admin LOGIN",
		"plans/hosts.csv:2: interface: the cell is empty / --interface NAME",
	}, told(fsys, func(e *Edit) error { return e.AddHost(map[string]string{"name": "otto"}) }), "the first host")
}

// A plan that is wrong already gets no worse, and can be mended by a change.
func TestPlanThatIsWrongAlready(t *testing.T) {
	fsys := rack(t)
	fsys[plan.HostsFile] = &fstest.MapFile{Data: []byte(strings.ReplaceAll(string(fsys[plan.HostsFile].Data), "enP4p65s0", "eno 1"))}
	for _, edit := range []func(*Edit) error{
		func(e *Edit) error { return e.AddHost(map[string]string{"name": "otto", "interface": "eno1"}) },
		func(e *Edit) error { return e.RemoveContainer(plan.Agent, "ulf") },
		func(e *Edit) error { return e.Rename("olaf", "otto") },
	} {
		e, err := Open(fsys)
		require.NoError(t, err)
		require.NoError(t, edit(e))
		_, fresh, err := e.Result()
		var invalid *Invalid
		require.ErrorAs(t, err, &invalid)
		require.True(t, invalid.Already)
		require.Zero(t, fresh.Errors())
		require.Equal(t, "interface-invalid", invalid.Problems[0].Code)
	}
	load(t, change(t, fsys, func(e *Edit) error { return e.RemoveHost("karl") }))

	fsys = rack(t)
	fsys[plan.HostsFile] = &fstest.MapFile{Data: []byte(strings.ReplaceAll(string(fsys[plan.HostsFile].Data), "10.0.100.6", "10.0.100.5"))}
	e, err := Open(fsys)
	require.NoError(t, err)
	require.NoError(t, e.RemoveHost("rolf")) // above the two rows, which move
	_, fresh, err := e.Result()
	require.Zero(t, fresh.Errors())
	var invalid *Invalid
	require.ErrorAs(t, err, &invalid)
	require.True(t, invalid.Already)

	fsys = change(t, rack(t), func(e *Edit) error { return e.RemoveContainer(plan.Server, "rolf") }) // with a warning
	e, err = Open(fsys)
	require.NoError(t, err)
	require.NoError(t, e.Rename("karl", "all"))
	_, _, err = e.Result()
	require.ErrorAs(t, err, &invalid)
	require.Len(t, invalid.Problems, 1)
}

// A table that is written while it is read is one of the two, never a mixture.
func TestOpenReadsOnce(t *testing.T) {
	fsys := growing{rack(t), map[string]int{}}
	e, err := Open(fsys)
	require.NoError(t, err)
	require.Equal(t, e.hosts.rows(), len(e.plan.Hosts))
}

// growing is a project that somebody else adds hosts to.
type growing struct {
	fstest.MapFS
	reads map[string]int
}

func (g growing) ReadFile(file string) ([]byte, error) {
	data, err := g.MapFS.ReadFile(file)
	if file == plan.HostsFile {
		for i := range g.reads[file] {
			data = fmt.Appendf(data, "more-%d,eno1,10.0.100.%d,more,,,\n", i, 40+i)
		}
		g.reads[file]++
	}
	return data, err
}

// A file that is there is there, also if it cannot be opened: else its name would be taken for free.
func TestExistsWithoutOpening(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, rack(t)))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "hardware"), 0o700))
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "hardware", "olga.nix"), 0o600))
	e, err := Open(files.In(dir))
	require.NoError(t, err)
	require.True(t, e.exists("hardware/olga.nix"))
	require.False(t, e.exists("hardware/olaf.nix"))
	_, err = overlay{}.Stat("x")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestTablesOfWrongForm(t *testing.T) {
	fsys := rack(t)
	fsys[plan.K3sFile] = &fstest.MapFile{Data: []byte("host,name,type,ip\nolaf,\"x,init,1\n")}
	delete(fsys, plan.HostsFile)
	_, err := Open(fsys)
	var invalid *Invalid
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, "file-missing", invalid.Problems[0].Code)
	require.Equal(t, "csv-syntax", invalid.Problems[1].Code)
}

// A formula that failed may be a row that is lost.
func TestFailedFormulas(t *testing.T) {
	fsys := rack(t)
	fsys[plan.HostsFile].Data = append(fsys[plan.HostsFile].Data, "#REF!,eno1,10.0.100.9,a,,,\n"...)
	_, err := Open(fsys)
	var invalid *Invalid
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, "cell-formula", invalid.Problems[0].Code)
	require.True(t, invalid.Already)
}

// What would be a comment is no row.
func TestNoRowBecomesAComment(t *testing.T) {
	const hosts = "place,name,interface,ip,admin\nhere,olaf,eno1,10.0.100.2,olaf\n"
	for value, row := range map[string]string{"#5": `"#5",otto`, "#": `"#",otto`, "# 5": "", "#REF!": `"#REF!",otto`} {
		for _, separator := range []string{",", ";", "\t"} {
			fsys := rack(t)
			fsys[plan.K3sFile].Data = []byte("host,name,type,ip\n")
			fsys[plan.HostsFile].Data = []byte(strings.ReplaceAll(hosts, ",", separator))
			add := func(e *Edit) error { return e.AddHost(map[string]string{"name": "otto", "place": value}) }
			if row != "" {
				require.Contains(t, string(change(t, fsys, add)[plan.HostsFile].Data), "\n"+strings.ReplaceAll(row, ",", separator)+separator)
				continue
			}
			e, err := Open(fsys)
			require.NoError(t, err)
			require.Error(t, add(e))
			require.Empty(t, e.Files())
		}
	}
	for name, message := range map[string]string{"# x": "would begin with #", "#x": "1 errors", "#ref!": "1 errors"} {
		e, err := Open(rack(t))
		require.NoError(t, err)
		if err = e.Rename("ulrich", name); err == nil {
			_, _, err = e.Result()
		}
		require.ErrorContains(t, err, message)
	}
}

func TestFilesFollow(t *testing.T) {
	dir := t.TempDir()
	write := func(file, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
	}
	for file, data := range rack(t) {
		write(file, string(data.Data))
	}
	write(plan.HostsFile, string(rack(t)[plan.HostsFile].Data)+"olaf-2,eno1,10.0.100.8,nix,,,\nnix,eno1,10.0.100.7,nix,,,\n")
	follow := map[string]string{
		"nixConfigs/olaf.nix": "nixConfigs/olga.nix", "hardware/olaf.nix": "hardware/olga.nix", "partitioning/olaf.nix": "partitioning/olga.nix",
		"secrets/olafpasswd": "secrets/olgapasswd", "secrets/OLAF_passwd.age": "secrets/olga_passwd.age", "secrets/alice-olaf.PUB": "secrets/alice-olga.PUB",
		"secrets/olaf-x.olaf.pub": "secrets/olaf-x.olga.pub", "secrets/hosts/olaf_ed25519": "secrets/hosts/olga_ed25519",
	}
	for from := range follow {
		write(from, "here")
	}
	stay := []string{"secrets/x-olafpasswd", "secrets/x-olaf_ed25519", "nixConfigs/olaf-2.nix", "nixConfigs/olaf-k3s-server.nix", "secrets/olaf-2.pub", "secrets/alice-olaf-2.pub", "secrets/xolaf.pub", "secrets/all.pub", "nixConfigs/all.nix"}
	for _, file := range stay {
		write(file, "# see olaf\n# olaf-2, xolaf\nconfig.cluster.Olaf.ip")
	}
	write("plans/known_hosts", "# olaf\nolaf-2 ssh-ed25519 AAAA\nolaf ssh-ed25519 BBBB made by k3splan\nulf ssh-ed25519 CCCC was olaf once\n")
	e, err := Open(os.DirFS(dir))
	require.NoError(t, err)
	require.NoError(t, e.Rename("olaf", "olga"))
	p, _, err := e.Result()
	require.NoError(t, err)
	moved := map[string]string{}
	for _, move := range e.Moves {
		moved[move.From] = move.To
	}
	require.Equal(t, follow, moved)
	require.Equal(t, Aftermath{Left: []string{}, Taken: []string{}, Kept: []string{"olaf-k3s-server", "olaf-k3s-agent"}, Mentions: []string{
		"nixConfigs/all.nix:1", "nixConfigs/all.nix:3", "nixConfigs/olaf-2.nix:1", "nixConfigs/olaf-2.nix:3",
		"nixConfigs/olaf-k3s-server.nix:1", "nixConfigs/olaf-k3s-server.nix:3", "plans/known_hosts:1", "plans/known_hosts:4",
	}}, e.Aftermath(p))
	require.NoError(t, e.Write(dir))
	for from, to := range follow {
		require.NoFileExists(t, filepath.Join(dir, from))
		require.FileExists(t, filepath.Join(dir, to))
	}
	for _, file := range stay {
		require.FileExists(t, filepath.Join(dir, file))
	}
	load(t, os.DirFS(dir))
	known, err := os.ReadFile(filepath.Join(dir, "plans/known_hosts"))
	require.NoError(t, err)
	require.Equal(t, "# olaf\nolaf-2 ssh-ed25519 AAAA\nolga ssh-ed25519 BBBB made by k3splan\nulf ssh-ed25519 CCCC was olaf once\n", string(known))

	// what is left of a host, and what finds a new one
	require.NoError(t, os.Rename(filepath.Join(dir, "nixConfigs/all.nix"), filepath.Join(dir, "nixConfigs/@storage.nix")))
	e, err = Open(os.DirFS(dir))
	require.NoError(t, err)
	require.NoError(t, e.RemoveHost("karl"))
	p, _, err = e.Result()
	require.NoError(t, err)
	require.Equal(t, Aftermath{Left: []string{}, Taken: []string{}, Kept: []string{}, Mentions: []string{}}, e.Aftermath(p), "ulrich has the tag, too")
	require.NoError(t, e.Write(dir))
	var left Aftermath
	for _, name := range []string{"ulrich", "olaf-2"} {
		e, err = Open(os.DirFS(dir))
		require.NoError(t, err)
		require.NoError(t, e.RemoveHost(name))
		p, _, err = e.Result()
		require.NoError(t, err)
		require.NoError(t, e.Write(dir))
		left = e.Aftermath(p)
		if name == "ulrich" {
			require.Equal(t, []string{"nixConfigs/@storage.nix"}, left.Left)
		}
	}
	require.Equal(t, []string{"nixConfigs/olaf-2.nix", "secrets/alice-olaf-2.pub", "secrets/olaf-2.pub", "plans/known_hosts:2"}, left.Left)
	require.Equal(t, []string{"nixConfigs/@storage.nix:2", "nixConfigs/olaf-k3s-server.nix:2"}, left.Mentions)
	e, err = Open(os.DirFS(dir))
	require.NoError(t, err)
	require.NoError(t, e.AddHost(map[string]string{"name": "olaf-2", "interface": "eno1", "admin": "olaf"}))
	p, _, err = e.Result()
	require.NoError(t, err)
	require.Equal(t, left.Left[:3], e.Aftermath(p).Taken)

	// where the tables themselves tell a name elsewhere
	hosts := "name,interface,ip,admin,note\nolga,eno1,10.0.100.2@olga.example,olga,\nulf,eno1,10.0.100.3,olga,\"above\nOlga\"\nrolf,eno1,10.0.100.4,olga,see olga-2\n"
	e, err = Open(overlay{os.DirFS(dir), map[string][]byte{plan.HostsFile: []byte(hosts)}})
	require.NoError(t, err)
	require.NoError(t, e.Rename("olga", "ole"))
	require.Equal(t, []mention{{plan.HostsFile, 2, "10.0.100.2@olga.example"}, {plan.HostsFile, 3, "above\nOlga"}}, e.mentions("olga")[:2])

	// a name that is also an ending, and that of another host
	write("nixConfigs/nix.nix", "")
	write("secrets/b-nix.pub", "")
	data, err := os.ReadFile(filepath.Join(dir, plan.HostsFile))
	require.NoError(t, err)
	write(plan.HostsFile, string(data)+"b-nix,eno1,10.0.100.17,nix,,,\n")
	e, err = Open(os.DirFS(dir))
	require.NoError(t, err)
	require.NoError(t, e.Rename("nix", "neu"))
	require.Equal(t, []Move{{"nixConfigs/nix.nix", "nixConfigs/neu.nix"}}, e.Moves)

	// no file is overwritten
	write("hardware/neu.nix", "{ }")
	write("hardware/nix.nix", "")
	e, err = Open(os.DirFS(dir))
	require.NoError(t, err)
	require.NoError(t, e.Rename("nix", "neu"))
	_, _, err = e.Result()
	require.ErrorContains(t, err, "hardware/nix.nix would become hardware/neu.nix, which already exists")
}

// If something fails, what was done is taken back; what another program wrote stays.
func TestWriteTakesBack(t *testing.T) {
	dir := t.TempDir()
	fsys := rack(t)
	for file, data := range fsys {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), data.Data, 0o640))
	}
	for _, folder := range []string{"nixConfigs", "hardware"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, folder), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, folder, "olaf.nix"), nil, 0o644))
	}
	read := func() string {
		hosts, err := os.ReadFile(filepath.Join(dir, plan.HostsFile))
		require.NoError(t, err)
		k3s, err := os.ReadFile(filepath.Join(dir, plan.K3sFile))
		require.NoError(t, err)
		return string(hosts) + string(k3s)
	}
	before := read()
	e, err := Open(os.DirFS(dir))
	require.NoError(t, err)
	require.NoError(t, e.Rename("olaf", "olga"))
	require.Len(t, e.Moves, 2)
	require.NoError(t, os.WriteFile(filepath.Join(dir, e.Moves[1].To), []byte("other"), 0o644)) // comes meanwhile
	require.ErrorIs(t, e.Write(dir), fs.ErrExist)
	require.Equal(t, before, read())
	require.FileExists(t, filepath.Join(dir, e.Moves[0].From))
	require.NoError(t, os.Remove(filepath.Join(dir, e.Moves[1].To)))

	require.NoError(t, os.WriteFile(filepath.Join(dir, plan.K3sFile), append(slices.Clone(fsys[plan.K3sFile].Data), "# note\n"...), 0o640))
	before = read()
	require.ErrorContains(t, e.Write(dir), "another program has changed plans/k3s.csv")
	other, err := Open(fsys)
	require.NoError(t, err)
	require.NoError(t, other.RemoveHost("ulrich")) // has no containers, or so it was
	require.ErrorContains(t, other.Write(dir), "another program has changed plans/k3s.csv")
	require.Equal(t, before, read())

	e, err = Open(os.DirFS(dir))
	require.NoError(t, err)
	require.NoError(t, e.Rename("olaf", "olga"))
	require.NoError(t, os.Chmod(filepath.Join(dir, plan.K3sFile), 0o440))
	require.ErrorContains(t, e.Write(dir), "plans/k3s.csv is read-only")
	require.Equal(t, before, read())
	require.NoError(t, os.Chmod(filepath.Join(dir, plan.K3sFile), 0o640))
	require.NoError(t, os.Rename(filepath.Join(dir, plan.HostsFile), filepath.Join(dir, "sheet")))
	require.NoError(t, os.Chmod(filepath.Join(dir, "sheet"), 0o640))
	require.NoError(t, os.Symlink("../sheet", filepath.Join(dir, plan.HostsFile)))
	require.NoError(t, e.Write(dir))
	info, err := os.Lstat(filepath.Join(dir, "sheet"))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o640), info.Mode(), "the mode stays")
	info, err = os.Lstat(filepath.Join(dir, plan.HostsFile))
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&fs.ModeSymlink, "the link stays")
	require.Contains(t, read(), "olga")
}

// Of changes at the same time each one arrives, or is refused.
func TestWriteAtTheSameTime(t *testing.T) {
	dir := t.TempDir()
	for file, data := range rack(t) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), data.Data, 0o644))
	}
	names := strings.Fields("a1 b1 c1 d1 e1 f1 g1 h1")
	errs := make([]error, len(names))
	var group sync.WaitGroup
	for i, name := range names {
		group.Go(func() {
			for {
				e, err := Open(os.DirFS(dir))
				if err == nil {
					err = e.AddHost(map[string]string{"name": name, "interface": "eno1"})
				}
				if err == nil {
					err = e.Write(dir)
				}
				if err == nil || !strings.Contains(err.Error(), "has changed") {
					errs[i] = err
					return
				}
			}
		})
	}
	group.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Subset(t, load(t, os.DirFS(dir)).HostNames(), names)
}

// Secrets that pass keeps follow a new name, too, and come back if something fails.
func TestEntriesOfPassFollow(t *testing.T) {
	secretstest.Home(t)
	secretstest.Pass(t)
	dir := t.TempDir()
	for file, data := range rack(t) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), data.Data, 0o644))
	}
	where := "secrets: pass\npass_prefix: rack\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "plans/network.yaml"), append(rack(t)["plans/network.yaml"].Data, where...), 0o644))
	for _, entry := range []string{"rack/hosts/olaf_ed25519", "rack/olaf_passwd", "rack/passwd", "other/olafpasswd"} {
		secretstest.Run(t, "content of "+entry, "pass", "insert", "--multiline", entry)
	}
	rename := func() *Edit {
		e, err := Open(os.DirFS(dir))
		require.NoError(t, err)
		require.NoError(t, e.Rename("olaf", "olga"))
		_, _, err = e.Result()
		require.NoError(t, err)
		return e
	}
	e := rename()
	require.Equal(t, []Move{{"pass:rack/hosts/olaf_ed25519", "pass:rack/hosts/olga_ed25519"}, {"pass:rack/olaf_passwd", "pass:rack/olga_passwd"}}, e.Moves)
	secretstest.Run(t, "comes meanwhile", "pass", "insert", "--multiline", "rack/olga_passwd")
	require.ErrorIs(t, e.Write(dir), fs.ErrExist)
	require.Equal(t, "content of rack/hosts/olaf_ed25519", secretstest.Run(t, "", "pass", "show", "rack/hosts/olaf_ed25519"))
	secretstest.Run(t, "", "pass", "rm", "--force", "rack/olga_passwd")
	require.NoError(t, rename().Write(dir))
	require.Equal(t, "content of rack/hosts/olaf_ed25519", secretstest.Run(t, "", "pass", "show", "rack/hosts/olga_ed25519"))
	require.Equal(t, "content of rack/olaf_passwd", secretstest.Run(t, "", "pass", "show", "rack/olga_passwd"))
	require.Equal(t, "content of other/olafpasswd", secretstest.Run(t, "", "pass", "show", "other/olafpasswd"))
}

// FuzzTables: whatever stands in a table, its rows and cells are for an edit what they are for the
// plan, and what is wrong with its form for one is so for the other. What is added is a row for both.
func FuzzTables(f *testing.F) {
	for _, text := range []string{
		"name,interface,ip,admin\nolaf,eno1,1,a\n", "sep=;\r\nname;interface;ip;admin\r\n \"a\"\"b\" ;\" c\r\nd\" ;;\r\n", "\ufeffname\tinterface\tip\tadmin\n\t\"x\"\t\t\n#c\n\n,",
		"sep=0\nnAme;interfACe;ip;Admin", "name,interface,ip,admin\r\ra,\"b\" \r\n", string(utf16.Decode([]uint16{0xfeff, 'n'})), "name,interface,ip,admin\n\"#a\",b,c,d\r", "name,interface,ip,admin\n\" a \"\" \",,,\"\n\"",
		"\"# all, of\"\"them\"\"\"\nname,interface,ip,admin\n\"#a\",,,\n\"#a\",b,c,d\n\"# a\",b,c,d", "name,interface\u200b,ip,admin\n\u200bolaf\u200b,\"\ufeffb\",,\u2060\n\u200b,,,",
		"name,interface,ip,admin,\"x\ry\"\nolaf,eno1,10.0.0.3,a,", "name,interface,ip,admin,\nolaf,eno1,10.0.0.3,a,,,\n#N/A\n", "\"x\"y\nname,interface,ip,admin\n\"a",
	} {
		f.Add([]byte(text), "new")
	}
	f.Add([]byte("name,interface,ip,admin\nolaf,eno1,10.0.0.2,a\n"), "#x")
	f.Add([]byte("place,name,interface,ip,admin\n,olaf,eno1,10.0.0.2,a\n"), "# x")
	f.Add(utf16LE("name,interface,ip,admin\nolaf,eno1,10.0.0.2,a\n"), "new")
	f.Add(append(utf16LE("name,interface,ip,admin,x\nolaf,eno1,10.0.0.2,a,"), 0, 0xd8), "new")
	f.Fuzz(func(t *testing.T, data []byte, value string) {
		opened, err := open(fstest.MapFS{plan.HostsFile: {Data: data}}, plan.HostsFile)
		requireSeen(t, data, opened, err)
		if err != nil || !has(opened, "name") {
			return
		}
		require.Equal(t, data, opened.bytes())
		if strings.ContainsFunc(value, unicode.IsControl) {
			return
		}
		rows := opened.rows()
		line, err := opened.insert(opened.rows()-1, map[string]string{"name": value, "ip": "10.0.0.1"})
		if err != nil {
			return
		}
		requireSeen(t, opened.bytes(), opened, nil)
		require.Equal(t, rows+1, opened.rows())
		require.Equal(t, opened.Records[len(opened.Records)-1].Line, line)
		require.Equal(t, table.TrimCell(strings.ToLower(value)), opened.cell(opened.rows()-1, "name"))
		require.NoError(t, opened.remove([]int{opened.rows() - 1}))
		require.Equal(t, data, opened.bytes())
	})
}

// ofForm are the codes of problems with the form of a table, which keep it from being edited.
var ofForm = []string{"csv-syntax", "column-missing", "column-duplicate", "column-reserved", "column-invalid", "row-length", "cell-number", "cell-formula"}

// requireSeen compares what an edit has seen in a table of hosts, or why it could see nothing, with the
// plan.
func requireSeen(t require.TestingT, data []byte, seen *csvTable, err error) {
	p, problems := plan.Load(fstest.MapFS{plan.HostsFile: {Data: data},
		plan.K3sFile: {Data: []byte("host,name,type,ip\n")}, plan.NetworkFile: {Data: []byte(network)}})
	form := slices.DeleteFunc(problems, func(p diag.Problem) bool {
		return p.File != plan.HostsFile || p.Severity != diag.Error || !slices.Contains(ofForm, p.Code)
	})
	if err != nil {
		var invalid *Invalid
		require.ErrorAs(t, err, &invalid)
		told := slices.DeleteFunc(invalid.Problems, func(p diag.Problem) bool { return p.Severity != diag.Error })
		told.Sort()
		require.Equal(t, form, told)
		return
	}
	require.Empty(t, form)
	rows := map[string]string{} // the first of each name
	for row, r := range seen.Records[1:] {
		own := map[string]string{}
		for j, column := range seen.Columns {
			if column != "" && !plan.Schema(plan.HostsFile).Knows(column) {
				own[column] = r.Cells[j].Text
			}
		}
		face := r.Cells[slices.Index(seen.Columns, "interface")].Text
		if name := seen.cell(row, "name"); name != "" && rows[name] == "" {
			rows[name] = fmt.Sprintf("%d %q %q %q", r.Line, face, seen.cell(row, "admin"), own)
		}
	}
	same := map[string]string{}
	for _, host := range p.Hosts {
		same[host.Name] = fmt.Sprintf("%d %q %q %q", host.Line, host.Interface, host.Admin, host.Own)
	}
	require.Equal(t, same, rows)
}

// drawText gives a text of the pieces that tables are made of, in any order.
func drawText(t *rapid.T) string {
	pieces := rapid.SliceOf(rapid.SampledFrom([]string{",", ",", ",,,", ";", "\t", " ", `"`, `"`, `""`, "\n", "\n", "\r\n", "\r", "#", "# ", "#N/A", "\u200b", "\ufeff", "\u00a0",
		"name", "interface", "olaf,eno1,10.0.0.2,a", "olaf", "sep=;\n", "ü"}))
	header := rapid.SampledFrom([]string{"", "name,interface,ip,admin\n", "# x\r\nname;interface;ip;admin;\"a\"\"b\"\r\n", "sep=\t\n\tname\tinterface\tip\tadmin\t\n", "name,interface,ip,admin\r"})
	return strings.Join(append([]string{header.Draw(t, "header")}, pieces.Draw(t, "pieces")...), "")
}

// TestTablesOfAnyText: see FuzzTables.
func TestTablesOfAnyText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := []byte(drawText(t))
		table, err := open(fstest.MapFS{plan.HostsFile: {Data: data}}, plan.HostsFile)
		requireSeen(t, data, table, err)
	})
}
