package show

import (
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/text"

	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"
)

// Terminal is what tables are drawn for.
type Terminal struct {
	// Width is the number of columns. Longer text is broken into lines. Below 40 columns nothing would be
	// readable, so tables are never narrower.
	Width int
	// Colour adds escape sequences for colours, of the 16 that terminals configure.
	Colour bool
}

func (t Terminal) width() int { return max(t.Width, 40) }

// The styles of text in tables. Nothing is shown by colour alone.
var (
	plain    = lipgloss.NewStyle()
	headline = plain.Bold(true)
	faint    = plain.Faint(true)
	ofHost   = plain.Bold(true)
	ofServer = plain.Foreground(lipgloss.Blue)
	ofInit   = plain.Foreground(lipgloss.Blue).Bold(true)
	ofError  = plain.Foreground(lipgloss.Red).Bold(true)
	// styles are those of the kinds of addresses; others are plain, agents too: yellow is for warnings
	styles = map[string]lipgloss.Style{"host": ofHost, "init server": ofInit, "server": ofServer}
)

// line is a row of a table with the style of its cells.
type line struct {
	cells []string
	style lipgloss.Style
}

func (t Terminal) styled(style lipgloss.Style, text string) string {
	if !t.Colour {
		return text
	}
	return style.Render(text)
}

const gap = 2 // blanks between columns

// Table draws rows below their headers, the one style of tables in k3splan: as wide as the text is on a
// terminal. Columns without any text are left out. If the window is too narrow, columns are hidden from
// the right, which a line below says; the first two columns always stay.
func (t Terminal) Table(headers []string, rows [][]string) string {
	lines := make([]line, len(rows))
	var shown []string
	for i, header := range headers {
		if !slices.ContainsFunc(rows, func(row []string) bool { return row[i] != "" }) {
			continue
		}
		shown = append(shown, header)
		for j := range rows {
			lines[j] = line{append(lines[j].cells, diag.Printable(rows[j][i])), plain}
		}
	}
	var hidden []string
	for len(shown) > 2 && total(naturalWidths(shown, lines)) > t.width() {
		last := len(shown) - 1
		hidden = slices.Insert(hidden, 0, strings.ToLower(shown[last]))
		shown = shown[:last]
		for j := range lines {
			lines[j].cells = lines[j].cells[:last]
		}
	}
	if len(shown) == 0 {
		return ""
	}
	return t.table(shown, lines) + t.noRoom(hidden, "--json")
}

// table draws lines below headers, within the width.
func (t Terminal) table(headers []string, lines []line) string {
	headers, lines = printableCells(headers), slices.Clone(lines)
	for i := range lines {
		lines[i].cells = printableCells(lines[i].cells)
	}
	widths := fitted(naturalWidths(headers, lines), leastWidths(headers, lines), t.width())
	drawn := table.New().Border(lipgloss.HiddenBorder()).
		BorderTop(false).BorderBottom(false).BorderLeft(false).BorderRight(false).
		BorderHeader(false).BorderColumn(false).BorderRow(false).
		StyleFunc(func(row, column int) lipgloss.Style {
			style := plain
			switch {
			case !t.Colour:
			case row == table.HeaderRow:
				style = faint
			case row < len(lines):
				style = lines[row].style
			}
			if column < len(widths)-1 {
				style = style.PaddingRight(gap)
			}
			return style
		})
	broken := func(cells []string) []string {
		cells = slices.Clone(cells)
		for i := range cells {
			width := widths[i]
			if i < len(widths)-1 {
				width -= gap
			}
			cells[i] = breakCell(diag.Printable(cells[i]), width)
		}
		return cells
	}
	drawn.Headers(broken(headers)...)
	for _, l := range lines {
		drawn.Row(broken(l.cells)...)
	}
	return trimLines(drawn.String()) + "\n"
}

// printableCells returns cells without what a terminal would obey.
func printableCells(cells []string) []string {
	printed := make([]string, len(cells))
	for i, cell := range cells {
		printed[i] = diag.Printable(cell)
	}
	return printed
}

// breakCell breaks a cell into lines; in the tree, and below indented text, they are indented.
func breakCell(cell string, width int) string {
	for lead, below := range map[string]string{"├ ": "│ ", "└ ": "  ", "  ": "  "} {
		if text, ok := strings.CutPrefix(cell, lead); ok {
			return lead + strings.ReplaceAll(lipgloss.Wrap(text, max(width-lipgloss.Width(below), 1), "."), "\n", "\n"+below)
		}
	}
	return lipgloss.Wrap(cell, max(width, 1), ".")
}

// naturalWidths returns the widths of the columns, gaps included, if nothing is broken into lines.
func naturalWidths(headers []string, lines []line) []int {
	widths := make([]int, len(headers))
	take := func(cells []string) {
		for i, cell := range cells {
			w := lipgloss.Width(cell)
			if i < len(widths)-1 {
				w += gap
			}
			widths[i] = max(widths[i], w)
		}
	}
	take(headers)
	for _, l := range lines {
		take(l.cells)
	}
	return widths
}

// leastWidths returns how narrow the columns may become: addresses, interfaces and places stay whole.
func leastWidths(headers []string, lines []line) []int {
	widths := naturalWidths(headers, lines)
	for i, header := range headers {
		least := 10
		switch header {
		case "", "IP", "INTERFACE", "WHERE":
			continue
		case "NAME", "HOST", "VALUE":
			least = 20
		case "KIND": // words stay whole
			least = len(header)
			for _, l := range lines {
				for word := range strings.FieldsSeq(l.cells[i]) {
					least = max(least, len(word))
				}
			}
		}
		widths[i] = min(widths[i], least+gap)
	}
	return widths
}

// fitted narrows the columns with most to spare until the table fits; if that is not enough, the widest.
func fitted(widths, least []int, width int) []int {
	for _, least := range [][]int{least, slices.Repeat([]int{gap + 1}, len(widths))} {
		for total(widths) > width {
			most := 0
			for i := range widths {
				if widths[i]-least[i] > widths[most]-least[most] {
					most = i
				}
			}
			if widths[most] <= least[most] {
				break
			}
			widths[most]--
		}
	}
	return widths
}

func total(widths []int) (sum int) {
	for _, w := range widths {
		sum += w
	}
	return sum
}

// trimLines removes blanks at the ends of lines.
func trimLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	return strings.Join(lines, "\n")
}

// column is a column of the table of hosts. It is shown if it has contents and fits.
type column struct {
	header string
	of     func(Host) string
	// ofContainer may be nil
	ofContainer func(Container) string
	// usual is the value that is not worth a column
	usual string
}

// columns returns the columns of the table of hosts after name, ip and kind, by importance.
func (v *View) columns() []column {
	columns := []column{
		{header: "INTERFACE", of: func(h Host) string { return h.Interface }},
		{header: "ADMIN", of: func(h Host) string { return h.Admin }},
		{header: "TAGS", of: func(h Host) string { return strings.Join(h.Tags, " ") }},
		{header: "TARGET", of: func(h Host) string { return h.Target }},
		{header: "SYSTEM", of: func(h Host) string { return h.System }, usual: usualSystem},
		{header: "BOOT", of: func(h Host) string { return h.Boot }, usual: usualBoot},
		{header: "LABELS", of: nothing, ofContainer: func(c Container) string { return strings.Join(c.Labels, " ") }},
		{header: "TAINTS", of: nothing, ofContainer: func(c Container) string { return strings.Join(c.Taints, " ") }},
	}
	for _, name := range v.own {
		columns = append(columns, column{header: strings.ToUpper(name),
			of:          func(h Host) string { return h.Own[name] },
			ofContainer: func(c Container) string { return c.Own[name] }})
	}
	return append(columns,
		column{header: "MAC", of: func(h Host) string { return h.MAC }, ofContainer: func(c Container) string { return c.MAC }},
		column{header: "SERIAL", of: func(h Host) string { return h.Serial }},
	)
}

func nothing(Host) string { return "" }

// cells returns the cells of a column, in the order of the lines, and whether any is worth showing.
func (v *View) cells(c column) (cells []string, telling bool) {
	for _, h := range v.Hosts {
		cell := c.of(h)
		cells = append(cells, cell)
		telling = telling || cell != "" && cell != c.usual
		for _, container := range h.Containers {
			cell := ""
			if c.ofContainer != nil {
				cell = c.ofContainer(container)
			}
			cells = append(cells, cell)
			telling = telling || cell != ""
		}
	}
	return cells, telling
}

// always is how many of the columns after name, ip and kind are shown even if others have to be broken into
// lines for them: interface, admin and tags.
const always = 3

// Cluster draws the hosts with their containers, and a summary below.
func (t Terminal) Cluster(v *View) string {
	headers := []string{"NAME", "IP", "KIND"}
	var lines []line
	for _, h := range v.Hosts {
		name, style := marked(h.Name, ofHost, h.Problems)
		lines = append(lines, line{[]string{name, h.AddressText(), "host"}, style})
		for i, c := range h.Containers {
			branch := "├ "
			if i == len(h.Containers)-1 {
				branch = "└ "
			}
			name, style := marked(branch+c.Name, styles[roleText(c.Role)], c.Problems)
			lines = append(lines, line{[]string{name, c.AddressText(), roleText(c.Role)}, style})
		}
	}
	var left []string
	for i, c := range v.columns() {
		cells, telling := v.cells(c)
		if !telling {
			continue
		}
		wider := slices.Clone(lines)
		for j := range wider {
			wider[j].cells = append(slices.Clone(wider[j].cells), cells[j])
		}
		widerHeaders := append(slices.Clone(headers), c.header)
		need := naturalWidths(widerHeaders, wider)
		if i < always {
			need = leastWidths(widerHeaders, wider)
		}
		if total(need) > t.width() {
			left = append(left, strings.ToLower(c.header))
			continue
		}
		headers, lines = widerHeaders, wider
	}

	var b strings.Builder
	if v.Title != "" {
		b.WriteString(t.styled(headline, lipgloss.Wrap(diag.Printable(v.Title), t.width(), ".")) + "\n\n")
	}
	b.WriteString(t.table(headers, lines))
	b.WriteString(t.noRoom(left, "k3splan show host NAME"))
	facts := v.summary()
	if len(v.Problems) > 0 {
		facts = append(facts, Fact{"problems", problemCounts(v.Problems) + ": k3splan validate shows them"})
	}
	b.WriteString("\n" + t.facts(facts))
	return b.String()
}

// noRoom returns the line about the columns that are hidden, if any, and what shows them.
func (t Terminal) noRoom(columns []string, remedy string) string {
	if len(columns) == 0 {
		return ""
	}
	hidden := "hidden (window too narrow): " + strings.Join(columns, ", ") + "; see " + remedy
	return t.styled(faint, strings.Join(text.Wrap(hidden, t.width()), "\n")) + "\n"
}

// marked returns the name and the style of a row that may have problems.
func marked(name string, style lipgloss.Style, problems diag.Problems) (string, lipgloss.Style) {
	if len(problems) > 0 {
		name += " !"
	}
	if problems.Errors() > 0 {
		style = ofError
	}
	return name, style
}

// facts draws names and texts; long text is indented.
func (t Terminal) facts(facts []Fact) string {
	widest := 0
	for _, f := range facts {
		widest = max(widest, len(f.Name))
	}
	var b strings.Builder
	for _, f := range facts {
		name := f.Name + strings.Repeat(" ", widest-len(f.Name)+gap)
		text := lipgloss.Wrap(diag.Printable(f.Text), t.width()-len(name), " ")
		for i, part := range strings.Split(text, "\n") {
			if i > 0 {
				name = strings.Repeat(" ", widest+gap)
			}
			b.WriteString(strings.TrimRight(t.styled(faint, name)+part, " ") + "\n")
		}
	}
	return b.String()
}
