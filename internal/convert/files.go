package convert

import (
	"cmp"
	"io/fs"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/table"
)

// toFiles converts the workbook into files.
func toFiles(fsys fs.FS) (*Conversion, error) {
	data, err := fs.ReadFile(fsys, plan.WorkbookFile)
	if err != nil {
		return nil, err
	}
	w, problem := table.OpenWorkbook(data, plan.WorkbookFile)
	if problem != nil {
		return nil, &InvalidError{diag.Problems{*problem}}
	}
	c := &Conversion{Create: map[string][]byte{}, Remove: []string{plan.WorkbookFile}}
	for _, file := range []string{plan.HostsFile, plan.K3sFile, plan.ChecksFile} {
		if file == plan.ChecksFile && !w.Has("checks") {
			continue
		}
		t := w.Table(plan.Schema(file))
		c.Create[file] = []byte(csvOf(t, w.Comments(t.Sheet)))
	}
	rows, problem := w.Rows("network")
	if problem != nil {
		return nil, &InvalidError{diag.Problems{*problem}}
	}
	if c.Create[plan.NetworkFile], err = yamlOf(rows, w.Comments("network")); err != nil {
		return nil, err
	}
	c.Lost = w.Extras(sheetNames...)
	return c, nil
}

// lines are the parts of a text by the lines of the sheet that they come from.
type lines struct {
	text strings.Builder
	last int // the sheet's last line
}

// next begins what comes from a line; empty rows before it become one blank line.
func (l *lines) next(line int) {
	if l.last > 0 && line > l.last+1 {
		l.text.WriteByte('\n')
	}
	l.last = line
}

// comment writes a comment, which in a cell may have several lines.
func (l *lines) comment(text string) {
	for i, line := range strings.Split(text, "\n") {
		if i > 0 && !strings.HasPrefix(line, "#") {
			line = "# " + line
		}
		l.text.WriteString(line + "\n")
	}
}

// csvOf returns a sheet as CSV, without columns that have no name.
func csvOf(t *table.Table, comments []table.Comment) string {
	var named []int
	for i, column := range t.Columns {
		if column != "" {
			named = append(named, i)
		}
	}
	only := func(cells []string) (kept []string) {
		for _, i := range named {
			kept = append(kept, cells[i])
		}
		return kept
	}
	type part struct {
		line    int
		comment string
		cells   []string
	}
	parts := []part{{line: t.HeaderLine, cells: only(t.Header)}}
	for _, r := range t.Rows {
		parts = append(parts, part{line: r.Line, cells: only(r.Cells)})
	}
	for _, c := range comments {
		parts = append(parts, part{line: c.Line, comment: c.Text})
	}
	slices.SortFunc(parts, func(a, b part) int { return a.line - b.line })
	var text lines
	for _, p := range parts {
		text.next(p.line)
		if p.cells == nil {
			text.comment(p.comment)
		} else {
			text.text.WriteString(table.CSV([][]string{p.cells}))
		}
	}
	return text.text.String()
}

// entry is a key of the network with its value, from a row of the sheet.
type entry struct {
	line       int
	head       []table.Comment
	key, value *yaml.Node
}

// yamlOf returns the rows of the sheet network as network.yaml: a key for each row, lists in brackets, the
// versions together where the first of them is, notes at the ends of lines, and blank lines where rows are
// empty.
func yamlOf(rows []table.SheetRow, comments []table.Comment) ([]byte, error) {
	keys, values, end := plan.NetworkLayout(rows)
	var order []string // of the keys of the top level; a group is one
	groups := map[string][]entry{}
	used := map[int]bool{0: true}
	for _, comment := range comments {
		used[comment.Line] = true
	}
	for i, r := range rows {
		used[r.Line] = true
		if i == 0 && end > 0 || keys >= len(r.Cells) || r.Cells[keys] == "" {
			continue
		}
		items, note := []string{}, ""
		for column := values; column < len(r.Cells); column++ {
			switch cell := r.Cells[column]; {
			case cell == "":
			case end == 0 || column < end:
				items = append(items, cell)
			default:
				note = strings.Join(strings.Fields(note+" "+cell), " ")
			}
		}
		if len(items) == 0 {
			continue
		}
		name := strings.ToLower(r.Cells[keys])
		e := entry{line: r.Line, value: scalar(name, items[0])}
		for len(comments) > 0 && comments[0].Line < r.Line {
			e.head, comments = append(e.head, comments[0]), comments[1:]
		}
		if plan.IsNetworkList(name) {
			e.value = &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
			for _, item := range items {
				for _, text := range plan.SplitList(item) {
					e.value.Content = append(e.value.Content, scalar(name, text))
				}
			}
		}
		if note != "" {
			e.value.LineComment = "# " + strings.TrimLeft(note, "# ")
		}
		top, below, _ := strings.Cut(name, ".")
		e.key = &yaml.Node{Kind: yaml.ScalarNode, Value: cmp.Or(below, top)}
		if groups[top] == nil {
			order = append(order, top)
		}
		groups[top] = append(groups[top], e)
	}
	w := yamlWriter{used: used}
	for _, top := range order {
		isGroup := groups[top][0].key.Value != top
		for i, e := range groups[top] {
			indent := ""
			if isGroup && i > 0 {
				indent = "  "
			}
			w.comments(indent, e.head)
			w.blank(e.line)
			if isGroup && i == 0 {
				w.text.WriteString(top + ":\n")
			}
			if isGroup {
				indent = "  "
			}
			if err := w.pair(indent, e); err != nil {
				return nil, err
			}
		}
	}
	w.comments("", comments)
	return []byte(w.text.String()), nil
}

// yamlWriter writes the lines of network.yaml.
type yamlWriter struct {
	text strings.Builder
	used map[int]bool // lines of the sheet that are not empty
}

// blank writes a blank line if there is an empty row above a line of the sheet.
func (w *yamlWriter) blank(line int) {
	if !w.used[line-1] && w.text.Len() > 0 {
		w.text.WriteByte('\n')
	}
}

func (w *yamlWriter) comments(indent string, comments []table.Comment) {
	for _, comment := range comments {
		w.blank(comment.Line)
		for i, line := range strings.Split(comment.Text, "\n") {
			if i > 0 && !strings.HasPrefix(line, "#") {
				line = "# " + line
			}
			w.text.WriteString(indent + line + "\n")
		}
	}
}

func (w *yamlWriter) pair(indent string, e entry) error {
	text, err := yaml.Marshal(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{e.key, e.value}})
	for line := range strings.Lines(string(text)) {
		w.text.WriteString(indent + line)
	}
	return err
}

// scalar is a text; only the netmask is written as the number that it is.
func scalar(key, text string) *yaml.Node {
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
	if key == "netmask" && strings.Trim(text, "0123456789") == "" {
		node.Tag = "!!int"
	}
	return node
}
