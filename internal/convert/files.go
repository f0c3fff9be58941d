package convert

import (
	"bytes"
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
	for _, file := range []string{plan.HostsFile, plan.K3sFile} {
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

// yamlOf returns the rows of the sheet network as network.yaml: a key for each row, lists in brackets, the
// versions together where the first of them is, notes at the ends of lines.
func yamlOf(rows []table.SheetRow, comments []table.Comment) ([]byte, error) {
	keys, values, end := plan.NetworkLayout(rows)
	root := &yaml.Node{Kind: yaml.MappingNode}
	groups := map[string]*yaml.Node{}
	head := func(line int) string {
		var texts []string
		for len(comments) > 0 && comments[0].Line < line {
			texts = append(texts, strings.ReplaceAll(comments[0].Text, "\n", "\n# "))
			comments = comments[1:]
		}
		return strings.Join(texts, "\n")
	}
	for i, r := range rows {
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
		into, name := root, strings.ToLower(r.Cells[keys])
		comment := head(r.Line)
		if group, key, found := strings.Cut(name, "."); found {
			name = key
			if groups[group] == nil {
				groups[group] = &yaml.Node{Kind: yaml.MappingNode}
				root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: group, HeadComment: comment}, groups[group])
				comment = ""
			}
			into = groups[group]
		}
		value := scalar(name, items[0])
		if plan.IsNetworkList(name) {
			value = &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
			for _, item := range items {
				for _, text := range plan.SplitList(item) {
					value.Content = append(value.Content, scalar(name, text))
				}
			}
		}
		if note != "" {
			value.LineComment = "# " + strings.TrimLeft(note, "# ")
		}
		into.Content = append(into.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name, HeadComment: comment}, value)
	}
	root.FootComment = head(1 << 30)
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	err := encoder.Encode(root)
	return text.Bytes(), err
}

// scalar is a text; only the netmask is written as the number that it is.
func scalar(key, text string) *yaml.Node {
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
	if key == "netmask" && strings.Trim(text, "0123456789") == "" {
		node.Tag = "!!int"
	}
	return node
}
