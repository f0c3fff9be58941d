package convert

import (
	"bytes"
	"io/fs"
	"slices"
	"strings"

	"github.com/xuri/excelize/v2"
	"gopkg.in/yaml.v3"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/table"
	"k3splan/internal/yamlfile"
)

// sheetNames are the sheets of a workbook, in their order.
var sheetNames = []string{"hosts", "k3s", "checks", "network"}

// toWorkbook converts the files into a workbook.
func toWorkbook(fsys fs.FS) (*Conversion, error) {
	sheets, from, err := sheetsOf(fsys)
	if err != nil {
		return nil, err
	}
	data, err := write(sheets)
	return &Conversion{Create: map[string][]byte{plan.WorkbookFile: data}, Remove: from}, err
}

// sheetsOf returns the rows of the sheets, and the files from which they are.
func sheetsOf(fsys fs.FS) (sheets map[string][]row, from []string, err error) {
	sheets = map[string][]row{}
	for _, file := range []string{plan.HostsFile, plan.K3sFile, plan.ChecksFile} {
		if file == plan.ChecksFile && !exists(fsys, file) {
			continue
		}
		raw, problems := plan.ReadRaw(fsys, file)
		if problems.Errors() > 0 {
			return nil, nil, &InvalidError{problems}
		}
		sheets[raw.Sheet] = rowsOf(raw)
		from = append(from, file)
	}
	for _, file := range []string{plan.NetworkFile, plan.VersionsFile} {
		if !exists(fsys, file) {
			continue
		}
		data, err := fs.ReadFile(fsys, file)
		if err != nil {
			return nil, nil, err
		}
		mapping, problem := yamlfile.Read(file, data, nil)
		if problem != nil {
			return nil, nil, &InvalidError{diag.Problems{*problem}}
		}
		sheets["network"] = append(sheets["network"], networkRows(string(data), mapping, file == plan.VersionsFile)...)
		from = append(from, file)
	}
	sheets["network"] = withHeader(sheets["network"])
	return sheets, from, nil
}

// row is a row of a sheet: cells, a comment, or nothing.
type row struct {
	comment string
	cells   []string
}

// rowsOf returns the rows of a CSV table with its comments and single blank lines.
func rowsOf(t table.Raw) (rows []row) {
	at := 0
	between := func(text string) {
		for line := range strings.Lines(text) {
			line = table.TrimCell(line)
			if quoted, ok := strings.CutPrefix(line, `"`); ok { // as a spreadsheet program writes a comment
				quoted, _, _ = strings.Cut(strings.ReplaceAll(quoted, `""`, "\x00"), `"`)
				line = strings.ReplaceAll(quoted, "\x00", `"`)
			}
			switch {
			case strings.HasPrefix(line, "#"):
				rows = append(rows, row{comment: line})
			case len(rows) > 0 && (rows[len(rows)-1].comment != "" || rows[len(rows)-1].cells != nil):
				rows = append(rows, row{})
			}
		}
	}
	for _, r := range t.Records {
		if at > 0 || !strings.HasPrefix(strings.ToLower(t.Text), "sep=") {
			between(t.Text[at:r.Start])
		}
		at = r.End
		var cells []string
		for _, c := range r.Cells[:min(len(r.Cells), len(t.Columns))] {
			cells = append(cells, c.Text)
		}
		rows = append(rows, row{cells: cells})
	}
	between(t.Text[at:])
	return rows
}

// networkRows returns a row for each key, with a dot for each level, and the comments. The last cell of a row
// is the comment at the end of its line, "" without one.
func networkRows(text string, mapping *yaml.Node, versionsOnly bool) (rows []row) {
	// yaml.v3 attaches comments to what it thinks that they are about; only their lines are certain
	comments := []table.Comment{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		if line = table.TrimCell(line); strings.HasPrefix(line, "#") || line == "" {
			comments = append(comments, table.Comment{Line: number, Text: line})
		}
	}
	before := func(line int) {
		for len(comments) > 0 && comments[0].Line < line {
			switch text := comments[0].Text; {
			case text != "":
				rows = append(rows, row{comment: text})
			case len(rows) > 0 && (rows[len(rows)-1].comment != "" || rows[len(rows)-1].cells != nil): // one blank line of several
				rows = append(rows, row{})
			}
			comments = comments[1:]
		}
	}
	note := func(nodes ...*yaml.Node) string {
		notes := []string{}
		for _, node := range nodes {
			for line := range strings.Lines(node.LineComment) {
				notes = append(notes, strings.Trim(line, "# \n"))
			}
		}
		return strings.Join(notes, " ")
	}
	var walk func(prefix string, node *yaml.Node)
	walk = func(prefix string, node *yaml.Node) {
		for i := 0; i+1 < len(node.Content); i += 2 {
			key, written := node.Content[i], node.Content[i+1]
			before(key.Line)
			name, value := prefix+key.Value, yamlfile.Value(written)
			switch {
			case value.Kind == yaml.MappingNode:
				if text := note(key, written); text != "" {
					rows = append(rows, row{comment: "# " + text})
				}
				walk(name+".", value)
			case value.Kind == yaml.SequenceNode:
				cells, nodes := []string{name}, []*yaml.Node{key, written}
				for _, item := range value.Content {
					cells, nodes = append(cells, table.TrimCell(yamlfile.Value(item).Value)), append(nodes, item)
				}
				rows = append(rows, row{cells: append(cells, note(nodes...))})
			case !yamlfile.IsNull(value):
				rows = append(rows, row{cells: []string{name, table.TrimCell(value.Value), note(key, written)}})
			}
		}
	}
	prefix := ""
	if versionsOnly && !(mapping != nil && len(mapping.Content) > 0 && mapping.Content[0].Value == "versions") {
		prefix = "versions."
	}
	if mapping != nil {
		walk(prefix, mapping)
	}
	before(number + 1)
	return rows
}

// withHeader names the columns, with as many for values as the longest list has, and moves the notes behind
// them.
func withHeader(rows []row) []row {
	values := 1
	for _, r := range rows {
		values = max(values, len(r.cells)-2)
	}
	header := append(append([]string{"key", "value"}, make([]string, values-1)...), "note")
	for i, r := range rows {
		if r.cells != nil {
			last := len(r.cells) - 1
			cells := append(append([]string{}, r.cells[:last]...), make([]string, values+1-last)...)
			rows[i].cells = append(cells, r.cells[last])
		}
	}
	return append([]row{{cells: header}}, rows...)
}

// Widths of columns in characters, as spreadsheet programs count them.
const (
	narrowest = 9
	widest    = 60
)

// write makes a workbook whose cells are texts, those that are still empty too: what is typed there is not
// taken for a number or a date.
func write(sheets map[string][]row) ([]byte, error) {
	file := excelize.NewFile()
	defer file.Close()
	text, err := file.NewStyle(&excelize.Style{NumFmt: 49})
	if err != nil {
		return nil, err
	}
	head, err := file.NewStyle(&excelize.Style{NumFmt: 49, Font: &excelize.Font{Bold: true}})
	if err != nil {
		return nil, err
	}
	if err := file.SetSheetName("Sheet1", sheetNames[0]); err != nil {
		return nil, err
	}
	for _, sheet := range sheetNames {
		if sheets[sheet] == nil {
			continue // no checks
		}
		if _, err := file.NewSheet(sheet); err != nil { // does nothing to one that is there
			return nil, err
		}
		if err := writeSheet(file, sheet, sheets[sheet], text, head); err != nil {
			return nil, err
		}
	}
	var data bytes.Buffer
	err = file.Write(&data)
	return data.Bytes(), err
}

func writeSheet(file *excelize.File, sheet string, rows []row, text, head int) error {
	widths := []int{}
	isHead := true
	for i, r := range rows {
		cells := r.cells
		if r.comment != "" {
			cells = []string{r.comment}
		}
		for column, cell := range cells {
			if len(widths) <= column {
				widths = append(widths, narrowest)
			}
			if r.comment == "" {
				widths[column] = min(max(widths[column], len([]rune(cell))+2), widest)
			}
			if cell == "" {
				continue
			}
			if err := file.SetCellStr(sheet, table.CellName(column, i+1), cell); err != nil {
				return err
			}
		}
	}
	for column, width := range widths {
		name, err := excelize.ColumnNumberToName(column + 1)
		if err != nil {
			return err
		}
		if err := file.SetColWidth(sheet, name, name, float64(width)); err != nil {
			return err
		}
		if err := file.SetColStyle(sheet, name, text); err != nil {
			return err
		}
	}
	for i, r := range rows {
		if len(r.cells) == 0 || !isHead {
			continue
		}
		isHead = false
		if err := file.SetCellStyle(sheet, table.CellName(0, i+1), table.CellName(len(r.cells)-1, i+1), head); err != nil {
			return err
		}
		if err := file.SetPanes(sheet, &excelize.Panes{Freeze: true, YSplit: i + 1, TopLeftCell: table.CellName(0, i+2), ActivePane: "bottomLeft"}); err != nil {
			return err
		}
	}
	return nil
}

// Workbook returns the files of a plan as a workbook without comments, to begin with.
func Workbook(fsys fs.FS) ([]byte, error) {
	sheets, _, err := sheetsOf(fsys)
	if err != nil {
		return nil, err
	}
	for sheet, rows := range sheets {
		sheets[sheet] = slices.DeleteFunc(rows, func(r row) bool { return r.cells == nil })
	}
	return write(sheets)
}
