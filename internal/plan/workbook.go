package plan

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"k3splan/internal/diag"
	"k3splan/internal/files"

	"github.com/xuri/excelize/v2"
	"gopkg.in/yaml.v3"
)

// WorkbookFile takes the place of the tables and of network.yaml.
const WorkbookFile = files.WorkbookFile

const (
	networkSheet = "network"
	// workbookLimit is the size of an unpacked workbook, in bytes, from which on it is taken for
	// a mistake: 10,000 hosts have a few megabytes.
	workbookLimit = 128 << 20
)

// cellName gives a spreadsheet's name of a cell; the column counts from 0, the row from 1.
func cellName(column, row int) string {
	name, err := excelize.CoordinatesToCellName(column+1, row)
	if err != nil {
		return fmt.Sprintf("row %d", row) // farther right than a sheet reaches
	}
	return name
}

// noTables are the tables of a plan of which nothing could be read.
func noTables(file, code, message, hint string) (tables, diag.Problems) {
	return tables{
		hosts:   &table{schema: hostsSchema},
		k3s:     &table{schema: k3sSchema},
		network: noNetwork(WorkbookFile + "!" + networkSheet),
	}, diag.Problems{{File: file, Severity: diag.Error, Code: code, Message: message, Hint: hint}}
}

// readWorkbook reads plans/cluster.xlsx, whose sheets take the place of the other files. If those
// are there as well, nobody can know which of them holds.
func readWorkbook(fsys fs.FS) (tables, diag.Problems) {
	var others []string
	for _, file := range []string{HostsFile, K3sFile, NetworkFile, VersionsFile} {
		if _, err := fs.Stat(fsys, file); err == nil {
			others = append(others, file)
		}
	}
	if len(others) > 0 {
		return noTables(WorkbookFile, "plan-duplicate", "the plan stands here and in "+strings.Join(others, ", "),
			"keep the one that holds: the workbook, or the other files")
	}
	data, problem := readFile(fsys, WorkbookFile)
	if problem != nil {
		return noTables(WorkbookFile, problem.Code, problem.Message, problem.Hint)
	}
	w, wrong := openWorkbook(data)
	if wrong != nil {
		return noTables(WorkbookFile, wrong.code, wrong.message, wrong.hint)
	}
	defer w.file.Close()
	return tables{w.table(hostsSchema), w.table(k3sSchema), w.network()}, nil
}

// otherWorkbook finds a spreadsheet in plans/ that nobody reads, for people who have no tables there.
func otherWorkbook(fsys fs.FS) string {
	for _, file := range []string{HostsFile, K3sFile, NetworkFile} {
		if _, err := fs.Stat(fsys, file); err == nil {
			return ""
		}
	}
	found, _ := fs.Glob(fsys, files.PlansDir+"/[^.~]*") // others are locks
	for _, file := range found {
		switch strings.ToLower(path.Ext(file)) {
		case ".xlsx", ".xlsm", ".xls", ".ods", ".fods", ".numbers":
			return file
		}
	}
	return ""
}

// workbook is an opened xlsx file.
type workbook struct {
	file     *excelize.File
	formats  map[int]string  // by the number of a style
	shared   []string        // texts that cells name by their number
	from1904 bool            // dates count from 1904, as old Macs did
	merged   map[string]bool // areas of merged cells that were told
}

// oleMark begins what Excel 97 wrote, and every encrypted workbook.
var oleMark = []byte{0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1}

const saveAsXLSX = "save it as .xlsx (Office Open XML, Excel 2007-365)"

func openWorkbook(data []byte) (*workbook, *finding) {
	if bytes.HasPrefix(data, oleMark) {
		return nil, &finding{"xlsx-syntax", "the file is protected by a password, or in the format of old Excels", saveAsXLSX + ", without a password"}
	}
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, &finding{"xlsx-syntax", "this is no workbook, or only a part of one: " + err.Error(), saveAsXLSX}
	}
	if _, err := fs.Stat(archive, "[Content_Types].xml"); err != nil {
		return nil, &finding{"xlsx-syntax", "this is the file of another program, whatever its name says", saveAsXLSX}
	}
	var size uint64
	for _, part := range archive.File {
		size += min(part.UncompressedSize64, workbookLimit+1)
	}
	if size > workbookLimit {
		return nil, &finding{"xlsx-syntax", fmt.Sprintf("unpacked, the workbook has more than %d MB", workbookLimit>>20),
			"delete what is below and beside the tables, formats too, or copy them into a new workbook"}
	}
	file, err := excelize.OpenReader(bytes.NewReader(data), excelize.Options{UnzipSizeLimit: workbookLimit, UnzipXMLSizeLimit: workbookLimit})
	if err != nil {
		return nil, &finding{"xlsx-syntax", "the workbook cannot be read: " + err.Error(), saveAsXLSX}
	}
	w := &workbook{file: file, formats: map[int]string{}, merged: map[string]bool{}}
	if properties, err := file.GetWorkbookProps(); err == nil && properties.Date1904 != nil {
		w.from1904 = *properties.Date1904
	}
	return w, nil
}

// sheet finds a sheet by its name, which people begin with a capital.
func (w *workbook) sheet(name string) (string, *finding) {
	sheets := w.file.GetSheetList()
	named := slices.DeleteFunc(slices.Clone(sheets), func(sheet string) bool { return !strings.EqualFold(strings.TrimSpace(sheet), name) })
	if len(named) == 1 {
		return named[0], nil
	}
	if len(named) > 1 {
		return "", &finding{"sheet-duplicate", fmt.Sprintf("there are the sheets %q and %q", named[0], named[1]), "rename the one that does not hold"}
	}
	hint := fmt.Sprintf("the workbook needs the sheets hosts, k3s and network; it has %s", strings.Join(sheets, ", "))
	for _, sheet := range sheets {
		if Nearest(strings.ToLower(sheet), []string{name}) != "" {
			hint = fmt.Sprintf("rename the sheet %q to %q", sheet, name)
		}
	}
	return "", &finding{"sheet-missing", fmt.Sprintf("there is no sheet %q", name), hint}
}

// table reads a sheet as readTable reads a file.
func (w *workbook) table(s schema) *table {
	s.file = WorkbookFile + "!" + s.sheet
	t := &table{schema: s, inSheet: true, lost: map[string]bool{}}
	records, wrong := w.records(s.sheet)
	if wrong != nil {
		t.report(diag.Error, 0, "", "", wrong.code, wrong.message, wrong.hint)
		return t
	}
	if len(records) == 0 || len(records[0].lost) == 0 {
		t.take(records, true)
	}
	var told diag.Problems
	for i, r := range records {
		for _, cell := range r.lost {
			column := ""
			if cell.column < len(t.columns) {
				column = t.columns[cell.column]
			}
			problem := cell.problem(t.file, r.line, column)
			if i == 0 && problem.Code == mergedCode {
				problem.Hint = "begin a title with #; split merged cells of the header"
			}
			t.lost[problem.File] = true
			if w.tells(cell, t.file) {
				told = append(told, problem)
			}
		}
	}
	// of a lost cell nothing else is known
	t.problems = slices.DeleteFunc(t.problems, func(p diag.Problem) bool { return t.lost[p.File] })
	t.problems = append(t.problems, told...)
	return t
}

// tells is false for all but the first of the cells that are merged with each other.
func (w *workbook) tells(cell sheetCell, sheet string) bool {
	if cell.wrong.code != mergedCode {
		return true
	}
	told := w.merged[sheet+cell.wrong.message]
	w.merged[sheet+cell.wrong.message] = true
	return !told
}

// network reads rows of a key and its value. The items of a list stand in cells side by side, or
// in one cell separated by blanks or commas. A first row may name the columns "key" and "value";
// then other columns hold notes.
func (w *workbook) network() *networkReader {
	file := WorkbookFile + "!" + networkSheet
	records, wrong := w.records(networkSheet)
	if wrong != nil {
		return noNetwork(file, diag.Problem{File: file, Severity: diag.Error, Code: wrong.code, Message: wrong.message, Hint: wrong.hint})
	}
	d := &document{file: file, keys: map[string]*yaml.Node{}, slips: map[string]bool{}, cells: map[int][]string{}}
	keys, values, end := layout(records)
	d.values = values
	for i, r := range records {
		if i == 0 && end > 0 || keys >= len(r.cells) {
			continue
		}
		d.cells[r.line] = r.cells
		if w.takeLost(d, r, keys, values, end) {
			continue
		}
		key := strings.ToLower(r.cells[keys])
		if strings.HasPrefix(key, "versions.") && slices.Contains(r.numbers, values) && lostZero.MatchString(r.cells[values]) {
			d.report(r.line, key, r.cells[values], finding{"cell-number",
				fmt.Sprintf("the spreadsheet program has made a number of it, which is the same for %s and %[1]s0", r.cells[values]), asText})
			d.slips[key] = true
			continue
		}
		d.takeRow(r, keys, values, end)
	}
	return &networkReader{document: d, versions: d}
}

// takeLost reports the lost cells of a row, other than notes.
func (w *workbook) takeLost(d *document, r record, keys, values, end int) (lost bool) {
	for _, cell := range r.lost {
		if end > 0 && cell.column != keys && (cell.column < values || cell.column >= end) {
			continue
		}
		key := strings.ToLower(r.cells[keys])
		if w.tells(cell, d.file) {
			d.problems = append(d.problems, cell.problem(d.file, r.line, key))
		}
		d.slips[key] = true
		lost = true
	}
	return lost
}

// lostZero are versions that may have ended in a zero before they became numbers: 1.30.
var lostZero = regexp.MustCompile(`^[0-9]+\.[0-9]$`)

// layout finds the columns of the keys and values. With a header, end is where the values end;
// else it is 0.
func layout(records []record) (keys, values, end int) {
	if len(records) == 0 {
		return 0, 1, 0
	}
	lower := make([]string, len(records[0].cells))
	for i, cell := range records[0].cells {
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

func (d *document) takeRow(r record, keys, values, end int) {
	if end == 0 {
		end = len(r.cells)
	}
	key := strings.ToLower(r.cells[keys])
	var items []*yaml.Node
	for i := values; i < min(end, len(r.cells)); i++ {
		if r.cells[i] != "" {
			items = append(items, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: r.cells[i], Line: r.line, Column: i + 1})
		}
	}
	name := &yaml.Node{Kind: yaml.ScalarNode, Value: key, Line: r.line, Column: keys + 1}
	switch {
	case key == "" && len(items) == 0:
	case key == "":
		d.report(r.line, "", items[0].Value, finding{"key-missing", "the value has no key before it",
			"write the key into " + cellName(keys, r.line) + "; the items of a list stand side by side, in the row of their key"})
	case !slices.Contains(networkKeys, key):
		d.unknownKey(name, key, networkKeys)
	case d.keys[key] != nil:
		d.report(r.line, key, "", finding{"key-duplicate", "the key is given twice", "delete one of the two; a list's items stand side by side"})
	case len(items) == 0:
	case slices.Contains(listKeys, key):
		d.keys[key] = &yaml.Node{Kind: yaml.SequenceNode, Line: r.line, Content: splitItems(items)}
	case len(items) > 1:
		d.report(r.line, key, items[1].Value, finding{"value-invalid", "a single value is needed here, not a list",
			"notes stand in a column of their own, in a table whose first row is: key, value, note"})
		d.slips[key] = true
	default:
		d.keys[key] = items[0]
	}
}

// splitItems separates what stands in one cell.
func splitItems(cells []*yaml.Node) (items []*yaml.Node) {
	for _, cell := range cells {
		for text := range strings.FieldsFuncSeq(cell.Value, func(c rune) bool { return c == ',' || c == ';' || unicode.IsSpace(c) }) {
			item := *cell
			item.Value = text
			items = append(items, &item)
		}
	}
	return items
}

// records gives the rows of a sheet that are neither empty nor comments, all of one width.
func (w *workbook) records(name string) (records []record, wrong *finding) {
	sheet, wrong := w.sheet(name)
	if wrong != nil {
		return nil, wrong
	}
	rows, merged, err := w.readSheet(sheet)
	if err != nil {
		return nil, &finding{"xlsx-syntax", "the sheet cannot be read: " + err.Error(), "open the workbook in a spreadsheet program and save it as .xlsx"}
	}
	width, begin := 0, -1 // begin is the first column of the header
	for _, row := range rows {
		first := row.cells[0]
		if strings.HasPrefix(first.text, "#") && first.wrong == nil && (begin < 0 || first.column <= begin) {
			continue // a comment
		}
		if begin < 0 {
			begin = first.column
		}
		r := row.record(merged)
		width = max(width, len(r.cells))
		records = append(records, r)
	}
	for i := range records {
		records[i].cells = append(records[i].cells, make([]string, width-len(records[i].cells))...)
	}
	return records, nil
}

const mergedCode = "cell-merged"

// record gives the texts of a row that can be known.
func (row sheetRow) record(merged []mergedArea) record {
	r := record{line: row.line}
	for _, cell := range row.cells {
		if cell.column < maxColumns {
			r.cells = append(r.cells, make([]string, cell.column+1-len(r.cells))...)
		}
		if cell.wrong != nil {
			r.lost = append(r.lost, cell)
			continue
		}
		r.cells[cell.column] = cell.text
		if cell.number {
			r.numbers = append(r.numbers, cell.column)
		}
	}
	for _, area := range merged {
		if row.line < area.firstRow || row.line > area.row {
			continue
		}
		for column := area.firstColumn; column <= min(area.column, len(r.cells)-1); column++ {
			r.lost = append(r.lost, sheetCell{column: column, text: r.cells[column], wrong: &finding{mergedCode,
				"the cell is merged with others (" + area.name + "): which rows and columns its text is for cannot be known",
				"split the merged cells, and write the text into each"}})
			r.cells[column] = ""
		}
	}
	return r
}
