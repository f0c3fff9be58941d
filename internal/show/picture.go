package show

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
)

// The picture is a grid, laid out by hand. General layout engines draw a LAN of fifty machines as one line
// or a circle and measure text with the fonts of the machine they run on: the result is hard to read and
// differs between machines. Here the font has a fixed width, so the length of a text is known, and all
// measures are whole pixels.

// Measures in pixels.
const (
	margin    = 24 // around everything
	trunk     = 32 // the LAN's line at the left, before the first column
	spacing   = 16 // between boxes
	pad       = 10 // within boxes
	wireSpace = 18 // within a host's box, for the line from its port to the containers
	lineStep  = 16 // from one line of text to the next
	drop      = 26 // from a rail down to the hosts that hang on it

	narrowest = 190 // a host's box
	widest    = 290
	factsWide = 1000 // what the panels may take before they go on in another row
	badge     = 18   // the mark of a problem

	// pageWide is how wide the hosts may become, so that the picture has its own size in a page on a
	// screen of 1280 pixels
	pageWide = 1130
)

// textWidth returns the width of a text in pixels: fixed-width fonts have letters of 0.6 em or less, and
// some characters of double width.
func textWidth(text string, size int) int {
	return int(math.Ceil(float64(lipgloss.Width(text)) * float64(size) * 0.61))
}

// group is a part of the picture; its elements are drawn from back to front.
type group struct {
	Class string
	// Search is the text that the page searches; empty if the group cannot be found.
	Search string
	// Hint is shown at the mouse pointer.
	Hint   string
	Boxes  []box
	Paths  []string
	Ports  []port
	Texts  []label
	Groups []group
}

type box struct {
	X, Y, W, H int
	Class      string
}

type port struct{ X, Y int }

type label struct {
	X, Y int
	font
	Text string
}

// font is how a text is set. Size and weight are attributes of the elements, and no element has more than
// one class: LibreOffice 7.4 takes both from there, and neither from the style sheet of a nested group.
type font struct {
	Size  int
	Bold  bool
	Class string
}

var (
	titleFont = font{20, true, ""}
	nameFont  = font{14, true, "k3-name"}
	plainFont = font{12, false, ""}
	boldFont  = font{12, true, ""}
	smallFont = font{11, false, ""}
	paleFont  = font{12, false, "k3-pale"}
	noteFont  = font{11, false, "k3-pale"}
	alarmFont = font{12, true, "k3-on-alarm"}
)

// Stroke returns the width of a box's edge.
func (b box) Stroke() string {
	switch b.Class {
	case "k3-init":
		return "4"
	case "k3-gateway":
		return "2"
	}
	return "1.5"
}

// picture is everything with its position.
type picture struct {
	Width, Height int
	Title         string // empty within a page
	Fonts         string
	Style         template.CSS
	Groups        []group
}

//go:embed picture.svg.tmpl
var pictureSource string

var pictureTemplate = template.Must(template.New("picture").Parse(pictureSource))

// SVG draws the rack as a network diagram, without a script, its text selectable.
func (v *View) SVG(w io.Writer, theme Theme) error {
	return pictureTemplate.Execute(w, v.picture(v.Title, theme))
}

// Signs before the names of containers, which mean the same as the colours.
const (
	signInit   = "★"
	signServer = "■"
	signAgent  = "●"
	signAlarm  = "!"
)

func signOf(role plan.Role) string {
	return cmp.Or(map[plan.Role]string{plan.Init: signInit, plan.Server: signServer, plan.Agent: signAgent}[role], "?")
}

// picture lays everything out: title, panels of facts, and the hosts in rows below rails of the LAN, which
// starts at the gateway and runs down the left side.
func (v *View) picture(title string, theme Theme) picture {
	hosts := v.byImportance()
	boxWidth := v.boxWidth()
	columns := columnsFor(len(hosts), boxWidth)
	width := max(factsWide, trunk+columns*(boxWidth+spacing)-spacing)

	p := picture{Style: pictureStyle(theme), Fonts: fixedWidth}
	y := margin
	if title != "" {
		p.Title = "Network plan of " + title
		g := group{Texts: []label{{margin, y + 16, titleFont, title}}}
		counts := joined(", ", v.counts(), problemCounts(slices.DeleteFunc(slices.Clone(v.Problems), OfSecrets)))
		if x := margin + textWidth(title, 20) + spacing; x+textWidth(counts, 12) < margin+width {
			g.Texts = append(g.Texts, label{x, y + 16, paleFont, counts})
		}
		p.Groups = append(p.Groups, g)
		y += 36
	}

	panels, bottom := v.panels(margin, y, width)
	gateway := panels[0].Boxes[0]
	trunkX := margin + trunk/2
	y = bottom + spacing

	var rails []string
	var machines []group
	railY := y
	for row := range slices.Chunk(hosts, columns) {
		railY = y
		var drawn []group
		height := 0
		for i, host := range row {
			g, h := hostGroup(host, margin+trunk+i*(boxWidth+spacing), railY+drop, boxWidth)
			drawn = append(drawn, g)
			height = max(height, h)
		}
		last := 0
		for i := range drawn {
			drawn[i].Boxes[0].H = height
			x := drawn[i].Boxes[0].X + pad + wireSpace/2
			drawn[i].Paths = append([]string{fmt.Sprintf("M%d %dV%d", x, railY, railY+drop)}, drawn[i].Paths...)
			last = x
		}
		rails = append(rails, fmt.Sprintf("M%d %dH%d", trunkX, railY, last))
		machines = append(machines, drawn...)
		y = railY + drop + height + spacing
	}
	lan := group{Class: "k3-lan", Paths: append(rails, fmt.Sprintf("M%d %dV%d", trunkX, gateway.Y+gateway.H, railY)),
		Ports: []port{{trunkX, gateway.Y + gateway.H}}}
	if v.Subnet != "" {
		lan.Texts = append(lan.Texts, label{margin + trunk + pad + wireSpace, bottom + spacing + 17, noteFont, "LAN " + v.Subnet})
	}
	p.Groups = slices.Concat(p.Groups, panels, []group{lan}, machines)
	p.Groups = append(p.Groups, v.legend(y+8, slices.ContainsFunc(p.Groups, group.alarmed)))
	p.Width, p.Height = rightOf(p.Groups)+margin, y+8+margin
	return p
}

// rightOf returns the right edge of the rightmost box or text.
func rightOf(groups []group) (right int) {
	for _, g := range groups {
		for _, b := range g.Boxes {
			right = max(right, b.X+b.W)
		}
		for _, t := range g.Texts {
			right = max(right, t.X+textWidth(t.Text, t.Size))
		}
	}
	return right
}

// columnsFor returns the number of columns: a few hosts in one row, many in a shape like a page.
func columnsFor(hosts, boxWidth int) int {
	columns := max(hosts, 1)
	if hosts > 5 {
		columns = int(math.Ceil(math.Sqrt(1.2 * float64(hosts))))
	}
	return min(columns, (pageWide+spacing)/(boxWidth+spacing))
}

// byImportance returns the hosts: the init server's first, then those of servers, of agents, and the rest.
func (v *View) byImportance() []Host {
	rank := func(h Host) int {
		switch {
		case h.Has(plan.Init):
			return 0
		case h.Has(plan.Server):
			return 1
		case h.Has(plan.Agent):
			return 2
		}
		return 3
	}
	hosts := slices.Clone(v.Hosts)
	slices.SortStableFunc(hosts, func(a, b Host) int { return rank(a) - rank(b) })
	return hosts
}

// boxWidth returns the width of every host's box: that of the longest text, within limits.
func (v *View) boxWidth() int {
	need := narrowest
	for _, h := range v.Hosts {
		need = max(need, 2*pad+wireSpace+max(textWidth(h.Name+"   ", 14), textWidth("via "+h.Target, 11)))
		for _, c := range h.Containers {
			need = max(need, 3*pad+2*wireSpace+textWidth(signAgent+" "+c.Name, 12))
		}
	}
	return min(need, widest)
}

// broken breaks a text into lines of at most width pixels, at a blank if possible, else after a sign.
func broken(s string, size, width int) []string {
	most := max(width*100/(size*61), 8)
	var lines []string
	runes := []rune(s)
	for len(runes) > most {
		at := most
		for _, signs := range []string{" ", "-.:=/@,"} {
			if i := lastOf(signs, runes[:most+1]); i > most/3 {
				at = i
				break
			}
		}
		lines = append(lines, strings.TrimSpace(string(runes[:at])))
		runes = []rune(strings.TrimLeft(string(runes[at:]), " "))
	}
	return append(lines, string(runes))
}

// lastOf returns the position after the last sign in a line; a blank may be beyond its end.
func lastOf(signs string, line []rune) int {
	for i := len(line); i > 0; i-- {
		if strings.ContainsRune(signs, line[i-1]) && (i < len(line) || line[i-1] == ' ') {
			return i
		}
	}
	return 0
}

// writer writes lines of text below each other.
type writer struct {
	x, y, width int
	texts       []label
}

func (w *writer) write(s string, font font, step int) {
	if s == "" {
		return
	}
	for _, l := range broken(s, font.Size, w.width) {
		w.y += step
		w.texts = append(w.texts, label{w.x, w.y, font, l})
	}
}

// title writes a name and leaves room for the mark of problems.
func (w *writer) title(s string, font font, step int, problems diag.Problems) {
	width := w.width
	if len(problems) > 0 {
		w.width -= badge
	}
	w.write(s, font, step)
	w.width = width
}

// hostGroup draws a host and returns the height that it needs.
func hostGroup(h Host, x, y, width int) (group, int) {
	g := group{Class: "k3-machine", Search: h.searchText(), Boxes: []box{{x, y, width, 0, "k3-host"}}}
	w := &writer{x: x + pad + wireSpace, y: y + 4, width: width - 2*pad - wireSpace}
	portX := x + pad + wireSpace/2
	g.Ports = []port{{portX, y}}

	w.title(h.Name, nameFont, lineStep+2, h.Problems)
	w.write(h.AddressText(), plainFont, lineStep)
	for _, fact := range []string{
		prefixed("via ", h.Target), joined(", ", h.Interface, h.unusual()), prefixed("admin ", h.Admin),
		prefixed("@", strings.Join(h.Tags, " @")),
	} {
		w.write(fact, noteFont, lineStep)
	}
	bottom := w.y + pad
	g.Texts = w.texts

	for _, c := range h.Containers {
		inner, height := containerGroup(c, x+pad+wireSpace, bottom, width-2*pad-wireSpace)
		g.Groups = append(g.Groups, inner)
		g.Paths = append(g.Paths, fmt.Sprintf("M%d %dV%dH%d", portX, y, bottom+height/2, x+pad+wireSpace))
		bottom += height + 8
	}
	if len(h.Containers) == 0 {
		bottom += 2
	}
	g.Groups = append(g.Groups, alarms(h.Problems, x+width, y)...)
	return g, bottom + 2 - y
}

// unusual returns the system and boot mode that most machines do not have.
func (h Host) unusual() string {
	words := []string{h.System, h.Boot}
	return joined(", ", slices.DeleteFunc(words, func(word string) bool { return word == usualSystem || word == usualBoot })...)
}

// alarms marks problems in the upper right corner of a box, if there are any.
func alarms(problems diag.Problems, right, top int) []group {
	if len(problems) == 0 {
		return nil
	}
	x, y := right-badge-8, top+8
	return []group{{Class: "k3-problem", Hint: problemText(problems), Boxes: []box{{x, y, badge, badge, "k3-alarm"}},
		Texts: []label{{x + 6, y + 13, alarmFont, signAlarm}}}}
}

func containerGroup(c Container, x, y, width int) (group, int) {
	class := "k3-server"
	switch c.Role {
	case plan.Init:
		class = "k3-init"
	case plan.Agent:
		class = "k3-agent"
	case plan.Server:
	default:
		class = "k3-unknown"
	}
	w := &writer{x: x + pad, y: y + 2, width: width - 2*pad}
	w.title(signOf(c.Role)+" "+c.Name, boldFont, lineStep, c.Problems)
	w.write(roleText(c.Role), smallFont, lineStep)
	w.write(c.AddressText(), plainFont, lineStep)
	w.write(strings.Join(slices.Concat(c.Labels, c.Taints), " "), smallFont, lineStep-2)
	height := w.y + 9 - y
	return group{Boxes: []box{{x, y, width, height, class}}, Texts: w.texts, Groups: alarms(c.Problems, x+width, y)}, height
}

// panel is a box with facts, above the hosts.
type panel struct {
	headline string
	lines    []string
	// keys of network.yaml whose problems are marked here
	keys []string
}

// about returns the panels; the first one is the gateway.
func (v *View) about() []panel {
	n := v.Network
	panels := []panel{
		{"gateway", []string{n.Gateway, prefixed("DNS ", strings.Join(n.Nameservers, " "))}, []string{"gateway", "netmask", "nameservers"}},
		{"quorum of etcd", v.quorumLines(), nil},
	}
	if v.Quorum.Servers > 0 {
		panels = append(panels, panel{"inside k3s", []string{prefixed("pods      ", n.PodCIDR), prefixed("services  ", n.ServiceCIDR)},
			[]string{"pod_cidr", "service_cidr"}})
	}
	panels = append(panels, panel{"versions", []string{prefixed("NixOS  ", n.Versions.NixOS), prefixed("k3s    ", orNothing(n.Versions.K3s))}, []string{"versions.nixos", "versions.k3s"}})
	if v.Free.Of > 0 {
		next := ""
		if v.Free.Next.Host != nil {
			next = "next host " + v.Free.Next.Host.String()
		}
		panels = append(panels, panel{"free addresses", []string{fmt.Sprintf("%d of %d", v.Free.Number, v.Free.Of), next}, []string{"address_range"}})
	}
	return panels
}

// panels draws the panels, the gateway first, and returns their lower edge.
func (v *View) panels(x, y, width int) (groups []group, bottom int) {
	const height = 2*pad + 3*lineStep
	left, right := x, x+width
	for i, p := range v.about() {
		problems := slices.DeleteFunc(slices.Clone(v.Problems), func(problem diag.Problem) bool {
			return !inNetwork(problem) || !slices.Contains(p.keys, problem.Column)
		})
		need := textWidth(p.headline, 12)
		if len(problems) > 0 {
			need += badge + pad
		}
		for _, l := range p.lines {
			need = max(need, textWidth(l, 12))
		}
		need = min(need+2*pad, width)
		if left > x && left+need > right {
			left, y = x, y+height+spacing
		}
		class := "k3-panel"
		if i == 0 {
			class = "k3-gateway"
		}
		g := group{Class: "k3-fact", Boxes: []box{{left, y, need, height, class}}, Groups: alarms(problems, left+need, y),
			Texts: []label{{left + pad, y + pad + 11, noteFont, p.headline}}}
		at := y + pad + 13
		for _, l := range p.lines {
			if l != "" {
				at += lineStep
				g.Texts = append(g.Texts, label{left + pad, at, plainFont, l})
			}
		}
		groups = append(groups, g)
		left += need + spacing
		if i == 0 {
			// the LAN starts below the first panel: nothing else may be there
			x += trunk
		}
	}
	return groups, y + height
}

func (v *View) quorumLines() []string {
	if v.Quorum.Servers == 0 {
		return []string{v.Quorum.String()}
	}
	signs := ""
	for _, h := range v.byImportance() {
		for _, c := range h.Containers {
			if c.Role != plan.Agent {
				signs += signOf(c.Role) + " "
			}
		}
	}
	signs += fmt.Sprintf(" needs %d", v.Quorum.Needed)
	return []string{signs, v.Quorum.String()}
}

// alarmed reports whether anything in the group is marked.
func (g group) alarmed() bool {
	return g.Class == "k3-problem" || slices.ContainsFunc(g.Groups, group.alarmed)
}

// legend explains the signs that are in the picture.
func (v *View) legend(y int, alarmed bool) group {
	g := group{Class: "k3-legend"}
	x := margin + trunk
	explain := func(meaning string) {
		g.Texts = append(g.Texts, label{x + 26, y, noteFont, meaning})
		x += 26 + textWidth(meaning, 11) + 24
	}
	drawn := func(role plan.Role) bool {
		return slices.ContainsFunc(v.Hosts, func(h Host) bool { return h.Has(role) })
	}
	for _, entry := range []struct {
		drawn                bool
		sign, meaning, class string
		font                 font
	}{
		{drawn(plan.Init), signInit, "init server", "k3-init", plainFont},
		{drawn(plan.Server), signServer, "server, votes in etcd", "k3-server", plainFont},
		{drawn(plan.Agent), signAgent, "agent, runs pods", "k3-agent", plainFont},
		{alarmed, signAlarm, "problem", "k3-alarm", alarmFont},
	} {
		if entry.drawn {
			g.Boxes = append(g.Boxes, box{x, y - 13, badge, badge, entry.class})
			g.Texts = append(g.Texts, label{x + 5, y, entry.font, entry.sign})
			explain(entry.meaning)
		}
	}
	g.Paths = []string{fmt.Sprintf("M%d %dH%d", x, y-4, x+badge)}
	g.Ports = []port{{x + badge/2, y - 4}}
	explain("port in the LAN (macvlan)")
	return g
}

// inNetwork reports whether a problem is in network.yaml, versions.yaml, or their sheet.
func inNetwork(p diag.Problem) bool {
	return strings.Contains(p.File, "network") || strings.Contains(p.File, "versions")
}

// searchText returns everything about a host that a user may search for, in lower case.
func (h Host) searchText() string {
	words := []string{h.Name, h.AddressText(), h.Target, h.Interface, h.Admin, h.MAC, h.Serial, h.System, h.Boot}
	words = append(words, h.Tags...)
	words = append(words, ownWords(h.Own)...)
	for _, c := range h.Containers {
		words = append(words, c.searchText())
	}
	words = append(words, problemWords(h.AllProblems())...)
	return strings.ToLower(joined(" ", words...))
}

func (c Container) searchText() string {
	words := slices.Concat([]string{c.Name, roleText(c.Role), c.MAC, c.AddressText()}, c.Labels, c.Taints, ownWords(c.Own))
	words = append(words, problemWords(c.Problems)...)
	return strings.ToLower(joined(" ", words...))
}

// problemWords returns the words to find problems by: their text, and "problem" for all of them.
func problemWords(problems diag.Problems) []string {
	if len(problems) == 0 {
		return nil
	}
	words := []string{"problem"}
	for _, p := range problems {
		words = append(words, string(p.Severity), p.Message)
	}
	return words
}

func ownWords(own map[string]string) []string {
	var words []string
	for column, cell := range own {
		if cell != "" {
			words = append(words, cell, column+"="+cell)
		}
	}
	slices.Sort(words)
	return words
}

// problemText returns problems, one a line.
func problemText(problems diag.Problems) string {
	var lines []string
	for _, p := range problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}
