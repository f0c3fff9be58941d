package plan

import (
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/table"

	"gopkg.in/yaml.v3"
)

// WorkbookFile takes the place of the tables and of network.yaml.
const WorkbookFile = files.WorkbookFile

const networkSheet = "network"

// noTables are the tables of a plan of which nothing could be read.
func noTables(file, code, message, hint string) (tables, diag.Problems) {
	return tables{
		hosts:   table.Missing(hostsSchema),
		k3s:     table.Missing(k3sSchema),
		checks:  table.None(checksSchema),
		network: noNetwork(WorkbookFile + "!" + networkSheet),
	}, diag.Problems{{File: file, Severity: diag.Error, Code: code, Message: message, Hint: hint}}
}

// readWorkbook reads plans/cluster.xlsx, whose sheets take the place of the other files. If those
// exist too, it is uncertain which of them is right.
func readWorkbook(fsys fs.FS) (tables, diag.Problems) {
	var others []string
	for _, file := range []string{HostsFile, K3sFile, ChecksFile, NetworkFile, VersionsFile} {
		if _, err := fs.Stat(fsys, file); err == nil {
			others = append(others, file)
		}
	}
	if len(others) > 0 {
		return noTables(WorkbookFile, "plan-duplicate", "the plan is here and in "+strings.Join(others, ", "),
			"keep the one that holds: the workbook, or the other files")
	}
	data, problem := readFile(fsys, WorkbookFile)
	if problem != nil {
		return noTables(WorkbookFile, problem.Code, problem.Message, problem.Hint)
	}
	w, problem := table.OpenWorkbook(data, WorkbookFile)
	if problem != nil {
		return noTables(WorkbookFile, problem.Code, problem.Message, problem.Hint)
	}
	checks := checksSchema
	checks.File = WorkbookFile + "!" + checks.Sheet
	t := tables{w.Table(hostsSchema), w.Table(k3sSchema), table.None(checks), readNetworkSheet(w)}
	if w.Has(checks.Sheet) {
		t.checks = w.Table(checks)
	}
	return t, nil
}

// otherWorkbook finds a spreadsheet in plans/ that nobody reads, for people who have no tables there.
func otherWorkbook(fsys fs.FS) string {
	if hasTables(fsys) {
		return ""
	}
	found, _ := fs.Glob(fsys, files.PlansDir+"/[^.~]*") // others are locks
	for _, file := range found {
		if isSpreadsheet(file) {
			return file
		}
	}
	return ""
}

// readNetworkSheet reads rows of a key and its value. The items of a list are in cells side by side, or
// in one cell separated by blanks or commas. A first row may name the columns "key" and "value"; then
// other columns hold notes.
func readNetworkSheet(w *table.Workbook) *networkReader {
	file := WorkbookFile + "!" + networkSheet
	rows, wrong := w.Rows(networkSheet)
	if wrong != nil {
		return noNetwork(file, *wrong)
	}
	d := newDocument(file)
	d.cells = map[int][]string{}
	keys, values, end := NetworkLayout(rows)
	d.values = values
	for i, r := range rows {
		if i == 0 && end > 0 || keys >= len(r.Cells) {
			continue
		}
		d.cells[r.Line] = r.Cells
		if d.takeLost(w, r, keys, values, end) {
			continue
		}
		key := strings.ToLower(r.Cells[keys])
		if strings.HasPrefix(key, "versions.") && slices.Contains(r.Numbers, values) && lostZero.MatchString(r.Cells[values]) {
			d.report(r.Line, key, r.Cells[values], finding{"cell-number",
				fmt.Sprintf("the spreadsheet program has made a number of it, which is the same for %s and %[1]s0", r.Cells[values]), table.AsText})
			d.slips[key] = true
			continue
		}
		d.takeRow(r, keys, values, end)
	}
	return &networkReader{document: d, versions: d}
}

// takeLost reports the lost cells of a row, other than notes.
func (d *document) takeLost(w *table.Workbook, r table.SheetRow, keys, values, end int) (lost bool) {
	for _, column := range slices.Sorted(maps.Keys(r.Lost)) {
		if end > 0 && column != keys && (column < values || column >= end) {
			continue
		}
		problem := r.Lost[column]
		problem.Column = strings.ToLower(r.Cells[keys])
		if w.First(problem) {
			d.found.Add(problem)
		}
		d.slips[problem.Column] = true
		lost = true
	}
	return lost
}

// lostZero are versions that may have ended in a zero before they became numbers: 1.30.
var lostZero = regexp.MustCompile(`^[0-9]+\.[0-9]$`)

// NetworkLayout returns the columns of the keys and of the first values in the sheet of the network. With a
// header, end is the column after the last value; without one it is 0, and there are no notes.
func NetworkLayout(rows []table.SheetRow) (keys, values, end int) {
	if len(rows) == 0 {
		return 0, 1, 0
	}
	lower := make([]string, len(rows[0].Cells))
	for i, cell := range rows[0].Cells {
		lower[i] = strings.ToLower(cell)
	}
	keys, values = slices.Index(lower, "key"), slices.Index(lower, "value")
	if keys < 0 || values <= keys {
		keys = max(slices.IndexFunc(lower, func(cell string) bool { return cell != "" }), 0)
		return keys, keys + 1, 0
	}
	end = values + 1
	for end < len(lower) && lower[end] == "" {
		end++
	}
	return keys, values, end
}

func (d *document) takeRow(r table.SheetRow, keys, values, end int) {
	if end == 0 {
		end = len(r.Cells)
	}
	key := strings.ToLower(r.Cells[keys])
	var items []*yaml.Node
	for i := values; i < min(end, len(r.Cells)); i++ {
		if r.Cells[i] != "" {
			items = append(items, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: r.Cells[i], Line: r.Line, Column: i + 1})
		}
	}
	name := &yaml.Node{Kind: yaml.ScalarNode, Value: key, Line: r.Line, Column: keys + 1}
	switch {
	case key == "" && len(items) == 0:
	case key == "":
		d.report(r.Line, "", items[0].Value, finding{"key-missing", "the value has no key before it",
			"write the key into " + table.CellName(keys, r.Line) + "; the items of a list are side by side, in the row of their key"})
	case !slices.Contains(networkKeys, key):
		d.unknownKey(name, key, networkKeys)
	case d.keys[key] != nil:
		d.report(r.Line, key, "", finding{"key-duplicate", "the key is given twice", "delete one of the two; the items of a list are side by side"})
		d.forget(key, networkKeys)
	case len(items) == 0:
		d.empty[key] = r.Line
	case slices.Contains(listKeys, key):
		d.keys[key] = &yaml.Node{Kind: yaml.SequenceNode, Line: r.Line, Content: splitItems(items)}
	case len(items) > 1:
		d.report(r.Line, key, items[1].Value, finding{"value-invalid", "a single value is needed here, not a list",
			"notes are in their own column, in a table whose first row is: key, value, note"})
		d.slips[key] = true
	default:
		d.keys[key] = items[0]
	}
}

// IsNetworkList reports whether a key of the network may have several values.
func IsNetworkList(key string) bool { return slices.Contains(listKeys, key) }

// splitItems separates the items in each cell.
func splitItems(cells []*yaml.Node) (items []*yaml.Node) {
	for _, cell := range cells {
		for _, text := range SplitList(cell.Value) {
			item := *cell
			item.Value = text
			items = append(items, &item)
		}
	}
	return items
}
