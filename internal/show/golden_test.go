package show

import (
	"bytes"
	"encoding/xml"
	"flag"
	"fmt"
	"image/png"
	"io"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"charm.land/lipgloss/v2"
	"github.com/stretchr/testify/require"

	"k3splan/internal/plan"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err, "go test ./internal/show -update writes it")
	require.Equal(t, string(want), got)
}

// views are the plans that everything is drawn of.
func views(t *testing.T) map[string]*View {
	_, rack := example(t, "rack")
	_, single := example(t, "single")
	all := map[string]*View{"rack": rack, "single": single, "fifty": fifty().view(t, "fifty"), "long": longNames().view(t, "long"), "broken": brokenTables().view(t, "broken")}
	require.Empty(t, all["fifty"].Problems)
	require.Empty(t, all["long"].Problems.Errors(), "%v", all["long"].Problems)
	require.Greater(t, all["broken"].Problems.Errors(), 6)
	return all
}

func TestTerminal(t *testing.T) {
	for name, view := range views(t) {
		for _, width := range []int{80, 120} {
			for table, text := range map[string]string{
				"cluster":   Terminal{Width: width}.Cluster(view),
				"addresses": Terminal{Width: width}.Addresses(view),
			} {
				name := fmt.Sprintf("%s-%s-%d.txt", table, name, width)
				t.Run(name, func(t *testing.T) {
					golden(t, name, text)
					requireFits(t, text, width)
					require.NotContains(t, text, "\x1b", "colour was not asked for")
				})
			}
		}
	}
}

func requireFits(t *testing.T, text string, width int) {
	t.Helper()
	for line := range strings.Lines(text) {
		require.LessOrEqual(t, lipgloss.Width(strings.TrimSuffix(line, "\n")), width, line)
	}
}

var escape = regexp.MustCompile("\x1b\\[[0-9;]*m")

// Colour adds escape sequences and nothing else.
func TestTerminalInColour(t *testing.T) {
	for name, view := range views(t) {
		colourless, colour := Terminal{Width: 80}.Cluster(view), Terminal{Width: 80, Colour: true}.Cluster(view)
		require.Regexp(t, escape, colour, name)
		var lines []string
		for line := range strings.Lines(escape.ReplaceAllString(colour, "")) {
			lines = append(lines, strings.TrimRight(line, " \n"))
		}
		require.Equal(t, colourless, strings.Join(lines, "\n")+"\n", name)
	}
}

func TestTerminalNarrow(t *testing.T) {
	for name, view := range views(t) {
		for width := 1; width < 200; width += 7 {
			text := Terminal{Width: width}.Cluster(view)
			require.NotEmpty(t, text)
			if width >= 42 {
				requireFits(t, text, width)
				requireFits(t, Terminal{Width: width}.Addresses(view), width)
			} else if width < 40 {
				require.Equal(t, Terminal{Width: 40}.Cluster(view), text, "no narrower than can be read")
			}
		}
		require.NotEmpty(t, name)
	}
}

func TestHost(t *testing.T) {
	p, _ := example(t, "rack")
	for _, width := range []int{80, 120} {
		text := Terminal{Width: width}.Host(Details(p, p.Host("karl"), []File{{"nixConfigs/all.nix", "host's Nix"}}))
		golden(t, fmt.Sprintf("host-karl-%d.txt", width), text)
		requireFits(t, text, width)
	}
}

// Where the plan is wrong, the place is told and no value.
func TestHostWithErrors(t *testing.T) {
	p, _ := brokenTables().load()
	from := map[string]string{}
	for _, d := range Details(p, p.Host("ulf"), nil) {
		if d.Value == "" {
			from[d.Of+" "+d.Field] = d.Where
		}
	}
	require.Equal(t, map[string]string{"host ip": "plans/hosts.csv:3", "network nameservers": "plans/network.yaml:3", "host target": "",
		"host mac": "", "host serial": "", "host role tags": "", "host role": "", "host groups": "", "host depends_on": "", "network domain": "", "network timezone": ""}, from)
}

func TestOrderOfHosts(t *testing.T) {
	view := tables{"name,interface,ip,admin\nn10,e,10.0.0.10,x\nn9,e,10.0.0.9,x\nn-2,e,10.0.0.2,x\nm100,e,10.0.0.100,x\n", "host,name,type,ip\n",
		"{netmask: 24, gateway: 10.0.0.1, versions: {nixos: nixos-26.05}}"}.view(t, "order")
	var names []string
	for _, h := range view.Hosts {
		names = append(names, h.Name)
	}
	require.Equal(t, []string{"m100", "n-2", "n9", "n10"}, names)
}

// A table hides columns from the right where the window is too narrow, leaves out empty ones, and quotes what
// a terminal would obey. Widths are those that a terminal shows.
func TestTable(t *testing.T) {
	headers := []string{"HOST", "STATE", "NOTE", "REBOOT", "SINCE"}
	rows := [][]string{{"olaf", "up to date", "日本", "", "2026"}, {"ulf\x1b[2J", "changed", "a", "", "2025"}}
	require.Equal(t, `HOST        STATE       NOTE  SINCE
olaf        up to date  日本  2026
ulf\x1b[2J  changed     a     2025
`, Terminal{Width: 80}.Table(headers, rows))
	require.Equal(t, `HOST        STATE       NOTE
olaf        up to date  日本
ulf\x1b[2J  changed     a
hidden (window too narrow): since; see
--json
`, Terminal{Width: 40}.Table(headers, append(rows[:1:1], []string{"ulf\x1b[2J", "changed", "a", "", strings.Repeat("2025", 5)})))
	require.Empty(t, Terminal{Width: 80}.Table(headers, nil))
}

func TestBreakCell(t *testing.T) {
	require.Equal(t, "├ olaf-\n│ server", breakCell("├ olaf-server", 8))
	require.Equal(t, "└ olaf-server", breakCell("└ olaf-server", 13))
	require.Equal(t, "  a long\n  name", breakCell("  a long name", 8))
	require.Equal(t, "one two\nthree", breakCell("one two three", 7))
}

// Text in the picture is broken where people would break it.
func TestBroken(t *testing.T) {
	for text, want := range map[string][]string{
		"@edge @gpu @lab @rack-b":           {"@edge @gpu @lab", "@rack-b"},
		"storage=only:PreferNoSchedule":     {"storage=only:", "PreferNoSchedule"},
		"short":                             {"short"},
		"abcdefghijklmnopqrstuvwxyz":        {"abcdefghijklmnopqrst", "uvwxyz"},
		"exactly-twenty-signs":              {"exactly-twenty-signs"},
		"exactly-twenty-sign- and more":     {"exactly-twenty-sign-", "and more"},
		"":                                  {""},
		"very-very-very-very-very-far.away": {"very-very-very-very-", "very-far.away"},
	} {
		require.Equal(t, want, broken(text, 11, 20*11*61/100+1), text)
	}
}

func TestAddressForms(t *testing.T) {
	_, rack := example(t, "rack")
	golden(t, "addresses-rack.hosts", rack.AddressesHosts())
	golden(t, "addresses-rack.csv", rack.AddressesCSV())
	golden(t, "addresses-rack.md", rack.AddressesMarkdown())
	_, single := example(t, "single")
	golden(t, "addresses-single.hosts", single.AddressesHosts())
}

func TestQuorumInWords(t *testing.T) {
	for servers, words := range map[int]string{
		0: "no k3s servers",
		1: "1 server: does not survive its loss",
		2: "2 servers: survives no loss",
		3: "3 servers: survives the loss of 1",
		4: "4 servers: survives the loss of 1, as 3 would",
		5: "5 servers: survives the loss of 2",
	} {
		needed, spare := plan.Quorum(servers)
		require.Equal(t, words, Quorum{servers, needed, spare}.String())
	}
}

func TestFreeAddresses(t *testing.T) {
	for _, c := range []struct {
		name, hosts, network string
		want                 string
	}{
		{"small", "a,e,10.0.0.2,x\nb,e,10.0.0.5,y\n", "{netmask: 29, gateway: 10.0.0.1, nameservers: 10.0.0.6, versions: {nixos: nixos-26.05}}",
			"2 of 6 addresses: 10.0.0.3–4; host 10.0.0.3, server 10.0.0.4"},
		{"full", "a,e,10.0.0.2,x\n", "{netmask: 30, gateway: 10.0.0.1, versions: {nixos: nixos-26.05}}", "0 of 2 addresses"},
		{"target in the LAN", "a,e,10.0.0.2@10.0.0.3,x\n", "{netmask: 29, gateway: 10.0.0.1, versions: {nixos: nixos-26.05}}",
			"3 of 6 addresses: 10.0.0.4–6; host 10.0.0.4, server 10.0.0.5, agent 10.0.0.6"},
		{"address of the API", "a,e,10.0.0.2,x\n", "{netmask: 29, gateway: 10.0.0.1, tls_san: [10.0.0.4, 192.0.2.1, api], versions: {nixos: nixos-26.05}}",
			"3 of 6 addresses: 10.0.0.3, 10.0.0.5–6; host 10.0.0.3, server 10.0.0.5, agent 10.0.0.6"},
		{"large", "a,e,10.0.0.2,x\n", "{netmask: 8, gateway: 10.0.0.1, pod_cidr: 172.16.0.0/16, service_cidr: 172.17.0.0/16, versions: {nixos: nixos-26.05}}",
			"16777212 of 16777214 addresses: 10.0.0.3–10.255.255.254; host 10.0.0.3, server 10.0.0.4, agent 10.0.0.5"},
		{"a range", "a,e,10.0.0.2,x\nb,e,10.0.0.44,x\n", "{netmask: 24, gateway: 10.0.0.1, address_range: 10.0.0.40-10.0.0.50, versions: {nixos: nixos-26.05}}",
			"10 of the 11 of address_range 10.0.0.40–50: 10.0.0.40–43, 10.0.0.45–50; host 10.0.0.45, server 10.0.0.40, agent 10.0.0.41"},
	} {
		view := tables{"name,interface,ip,admin\n" + c.hosts, "host,name,type,ip\n", c.network}.view(t, c.name)
		require.Zero(t, view.Problems.Errors(), "%v", view.Problems)
		var texts []string
		for _, fact := range view.Free.facts(5) {
			texts = append(texts, fact.Text)
		}
		require.Equal(t, c.want, strings.Join(texts, "; "), c.name)
	}
	ranges := []plan.AddressRange{{First: netip.MustParseAddr("10.0.0.1"), Last: netip.MustParseAddr("10.0.0.1")},
		{First: netip.MustParseAddr("10.0.0.3"), Last: netip.MustParseAddr("10.0.1.5")}}
	require.Equal(t, "10.0.0.1, 1 more range", Free{Ranges: ranges}.some(1))
	require.Equal(t, "10.0.0.1, 10.0.0.3–10.0.1.5", Free{Ranges: ranges}.some(2))
}

// The picture is the same bytes for the same plan, well-formed XML, and has no script, no style
// attribute and nothing to load in it.
func TestSVG(t *testing.T) {
	for name, view := range views(t) {
		t.Run(name, func(t *testing.T) {
			svg := render(t, view.auto)
			require.Equal(t, svg, render(t, view.auto))
			if name != "broken" && name != "long" {
				golden(t, name+".svg", svg)
			}
			decoder := xml.NewDecoder(strings.NewReader(svg))
			for {
				token, err := decoder.Token()
				if err == io.EOF {
					break
				}
				require.NoError(t, err)
				if element, ok := token.(xml.StartElement); ok {
					require.Contains(t, []string{"svg", "g", "rect", "path", "circle", "text", "title", "style"}, element.Name.Local)
					for _, attribute := range element.Attr {
						require.NotRegexp(t, `^(on|href|style|src)`, attribute.Name.Local)
					}
				}
			}
			require.NotContains(t, svg, "ZgotmplZ", "the template did not trust a value")
			require.NotContains(t, svg, "url(")
		})
	}
}

// LibreOffice 7.4 drops the first rule of an @media block and applies the others always; it takes one class
// of an element, sizes and weights from attributes, and the first font of a list.
func TestSVGForLibreOffice(t *testing.T) {
	_, rack := example(t, "rack")
	svg := render(t, rack.auto)
	require.NotEmpty(t, regexp.MustCompile(`@media`).FindAllString(svg, -1))
	require.Equal(t, strings.Count(svg, "@media"), len(regexp.MustCompile(`(?m)^@media [^{}]*\{[^{}]*\{[^{}]*\}\}$`).FindAllString(svg, -1)))
	require.NotRegexp(t, `<(rect|text|path)[^>]* class="[^"]* `, svg)
	require.Contains(t, svg, `xml:space="preserve"`)
	require.Contains(t, svg, `font-family="DejaVu Sans Mono, `)
	for _, theme := range []Theme{Light, Dark} {
		svg := render(t, func(w io.Writer) error { return rack.SVG(w, theme) })
		require.NotContains(t, svg, "@media")
		require.Contains(t, svg, ".k3-paper{fill:"+shadeIn(paper, string(theme))+"}")
	}
	if testing.Short() {
		t.Skip("SKIP: no LibreOffice in a short test")
	}
	if _, err := exec.LookPath("soffice"); err != nil {
		t.Skip("SKIP: there is no soffice to look at the picture with (Debian: apt-get install libreoffice-draw)")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "rack.svg")
	require.NoError(t, os.WriteFile(file, []byte(svg), 0o644))
	convert := exec.Command("soffice", "-env:UserInstallation=file://"+dir+"/profile", "--headless", "--convert-to", "png", "--outdir", dir, file)
	convert.Env = append(os.Environ(), "HOME="+dir)
	out, err := convert.CombinedOutput()
	require.NoError(t, err, "%s", out)
	picture, err := os.Open(filepath.Join(dir, "rack.png"))
	if err != nil {
		t.Skip("SKIP: this LibreOffice does not read SVG (Debian: apt-get install libreoffice-draw)")
	}
	defer picture.Close()
	drawn, err := png.Decode(picture)
	require.NoError(t, err)
	colour := func(x, y int) string {
		r, g, b, _ := drawn.At(x, y).RGBA()
		return fmt.Sprintf("#%02x%02x%02x", r>>8, g>>8, b>>8)
	}
	require.Equal(t, paper.light, colour(6, 6))
	dark := 0 // the title, in bold letters of 20 pixels
	for x := margin; x < margin+textWidth("rack.home.arpa", 20); x++ {
		for y := margin; y < margin+22; y++ {
			if r, _, _, _ := drawn.At(x, y).RGBA(); r>>8 < 100 {
				dark++
			}
		}
	}
	require.Greater(t, dark, 400)
}

// A container whose host is unknown, or whose type is, is drawn with its problem; so is the host that it
// names.
func TestStrays(t *testing.T) {
	view := brokenTables().view(t, "broken")
	i := slices.IndexFunc(view.Hosts, func(h Host) bool { return h.Name == "nobody" })
	require.GreaterOrEqual(t, i, 0)
	host := view.Hosts[i]
	require.Equal(t, "?", host.AddressText())
	require.Len(t, host.Problems, 1)
	require.Equal(t, "host-unknown", host.Problems[0].Code)
	require.Equal(t, "x", host.Containers[0].Name)
	require.Equal(t, host.Problems, host.Containers[0].Problems)
	require.Contains(t, view.counts(), "4 hosts")

	twice := tables{"name,interface,ip,admin\nolaf,eno1,10.0.0.2,olaf\n",
		"host,name,type,ip\nolaf,a,init,10.0.0.12\nolaf,b,server,10.0.0.13\n", "netmask: 24\ngateway: 10.0.0.1\nversions: {nixos: nixos-26.05, k3s: \"1.35\"}\n"}.view(t, "twice")
	require.Len(t, twice.Hosts, 1)
	require.Len(t, twice.Hosts[0].Containers, 2)
	require.Equal(t, "server-duplicate", twice.Hosts[0].Containers[1].Problems[0].Code)
	require.Contains(t, Terminal{Width: 80}.Cluster(twice), "└ b !")
	require.Contains(t, Terminal{Width: 80}.Addresses(twice), "10.0.0.13")
}

// The user's own columns keep the order of the tables, in every form.
func TestOwnColumns(t *testing.T) {
	view := tables{"unit,name,interface,ip,admin,asset\n7,olaf,eno1,10.0.0.2,olaf,A1\n",
		"host,name,type,ip,zone,asset,bay\nolaf,a,init,10.0.0.12,z,A2,3\n", "netmask: 24\ngateway: 10.0.0.1\nversions: {nixos: nixos-26.05, k3s: \"1.35\"}\n"}.view(t, "own")
	require.Equal(t, []string{"unit", "asset", "zone", "bay"}, view.own)
	require.Regexp(t, `UNIT +ASSET +ZONE +BAY`, Terminal{Width: 120}.Cluster(view))
	require.Regexp(t, `>unit<.*>asset<.*>zone<.*>bay<`, render(t, view.HTML))
}

// A folder may be called anything.
func TestTitle(t *testing.T) {
	p, problems := fifty().load()
	p.Network.Domain = ""
	require.Equal(t, `b\xfcro 1\x1b[31mü`, New(p, problems, "b\xfcro 1\x1b[31mü").Title)
}

func (v *View) auto(w io.Writer) error { return v.SVG(w, Auto) }

func render(t *testing.T, draw func(io.Writer) error) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, draw(&b))
	return b.String()
}

func TestHTMLNeedsNothingElse(t *testing.T) {
	for name, view := range views(t) {
		html := render(t, view.HTML)
		require.NotContains(t, html, "ZgotmplZ", name)
		require.NotRegexp(t, `(?i)(src|href)="[^#]|@import|url\(|<link`, html, name)
		require.Equal(t, 1, strings.Count(html, "<script"), name)
		require.Equal(t, html, render(t, view.HTML), name)
	}
}

// luminance and contrast are those of WCAG 2.
func luminance(rgb [3]float64) float64 {
	sum := 0.0
	for i, weight := range [3]float64{0.2126, 0.7152, 0.0722} {
		sum += weight * linear(rgb[i])
	}
	return sum
}

func linear(c float64) float64 {
	if c <= 0.04045 {
		return c / 12.92
	}
	return math.Pow((c+0.055)/1.055, 2.4)
}

func rgb(t *testing.T, hex string) (c [3]float64) {
	t.Helper()
	var r, g, b int
	_, err := fmt.Sscanf(hex, "#%02x%02x%02x", &r, &g, &b)
	require.NoError(t, err)
	return [3]float64{float64(r) / 255, float64(g) / 255, float64(b) / 255}
}

func contrast(a, b [3]float64) float64 {
	x, y := luminance(a)+0.05, luminance(b)+0.05
	return max(x, y) / min(x, y)
}

// Text can be read and edges can be seen, by day and by night.
func TestContrast(t *testing.T) {
	pairs := []struct {
		what   string
		on, of shade
		least  float64
	}{
		{"text", paper, ink, 7}, {"text", hostFill, ink, 7}, {"text", serverFill, ink, 7}, {"text", agentFill, ink, 7},
		{"pale text", paper, pale, 4.5}, {"pale text", hostFill, pale, 4.5},
		{"text", alarm, onAlarm, 4.5}, {"text of problems", paper, alarm, 4.5}, {"links", paper, serverEdge, 4.5},
		{"wire", paper, wire, 3}, {"wire", hostFill, wire, 3}, {"edge", paper, hostEdge, 3},
		{"edge", hostFill, serverEdge, 3}, {"edge", hostFill, agentEdge, 3}, {"mark", hostFill, alarm, 3}, {"mark", agentFill, alarm, 3}, {"mark", serverFill, alarm, 3},
		{"edge", serverFill, serverEdge, 3}, {"edge", agentFill, agentEdge, 3}, {"links", serverFill, serverEdge, 4},
		{"text of problems", serverFill, alarm, 4.5},
	}
	for _, p := range pairs {
		require.GreaterOrEqual(t, contrast(rgb(t, p.on.light), rgb(t, p.of.light)), p.least, "%s %v on %v by day", p.what, p.of, p.on)
		require.GreaterOrEqual(t, contrast(rgb(t, p.on.dark), rgb(t, p.of.dark)), p.least, "%s %v on %v by night", p.what, p.of, p.on)
	}
}

// Servers, agents and problems differ also to eyes that lack one kind of cones (matrices of Machado, Oliveira
// and Fernandes 2009, full severity, in linear light).
func TestColourBlind(t *testing.T) {
	eyes := map[string][3][3]float64{
		"normal":       {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}},
		"protanopia":   {{0.152286, 1.052583, -0.204868}, {0.114503, 0.786281, 0.099216}, {-0.003882, -0.048116, 1.051998}},
		"deuteranopia": {{0.367322, 0.860646, -0.227968}, {0.280085, 0.672501, 0.047413}, {-0.011820, 0.042940, 0.968881}},
		"tritanopia":   {{1.255528, -0.076749, -0.178779}, {-0.078411, 0.930809, 0.147602}, {0.004733, 0.691367, 0.303900}},
	}
	seen := func(eye [3][3]float64, hex string) (c [3]float64) {
		colour := rgb(t, hex)
		for i := range c {
			for j := range c {
				c[i] += eye[i][j] * linear(colour[j])
			}
		}
		return c
	}
	distance := func(a, b [3]float64) float64 {
		sum := 0.0
		for i := range a {
			sum += (math.Cbrt(a[i]) - math.Cbrt(b[i])) * (math.Cbrt(a[i]) - math.Cbrt(b[i]))
		}
		return math.Sqrt(sum)
	}
	for name, eye := range eyes {
		for _, pair := range [][2]shade{{serverEdge, agentEdge}, {serverEdge, alarm}, {agentEdge, alarm}} {
			require.Greater(t, distance(seen(eye, pair[0].light), seen(eye, pair[1].light)), 0.2, "%s by day: %v", name, pair)
			require.Greater(t, distance(seen(eye, pair[0].dark), seen(eye, pair[1].dark)), 0.2, "%s by night: %v", name, pair)
		}
	}
}
