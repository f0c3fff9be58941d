package plan

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/xuri/excelize/v2"
	"gopkg.in/yaml.v3"
)

// WorkbookFile takes the place of the tables and of network.yaml.
const WorkbookFile = "plans/cluster.xlsx"

const (
	workbookFile = WorkbookFile
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

// readWorkbook reads plans/cluster.xlsx, whose sheets take the place of the other files. If those
// are there as well, nobody can know which of them holds.
func readWorkbook(fsys fs.FS) (tables, Problems) {
	nothing := tables{
		hosts:   &table{schema: hostsSchema},
		k3s:     &table{schema: k3sSchema},
		network: noNetwork(workbookFile + "!" + networkSheet),
	}
	wrong := func(code, message, hint string) (tables, Problems) {
		return nothing, Problems{{File: workbookFile, Severity: Error, Code: code, Message: message, Hint: hint}}
	}
	var others []string
	for _, file := range []string{hostsFile, k3sFile, networkFile, versionsFile} {
		if _, err := fs.Stat(fsys, file); err == nil {
			others = append(others, file)
		}
	}
	if len(others) > 0 {
		return wrong("plan-duplicate", "the plan stands here and in "+strings.Join(others, ", "),
			"keep the one that holds: the workbook, or the other files")
	}
	data, problem := readFile(fsys, workbookFile)
	if problem != nil {
		return nothing, Problems{*problem}
	}
	w, err := openWorkbook(data)
	switch {
	case errors.Is(err, excelize.ErrWorkbookPassword), bytes.HasPrefix(data, oleMark):
		return wrong("xlsx-syntax", "the file is protected by a password, or in the format of old Excels",
			"save it as .xlsx (Office Open XML, Excel 2007-365), without a password")
	case err != nil:
		return wrong("xlsx-syntax", "not a workbook that can be read: "+err.Error(),
			"save it as .xlsx (Office Open XML, Excel 2007-365)")
	}
	defer w.file.Close()
	found := tables{hosts: w.table(hostsSchema), k3s: w.table(k3sSchema)}
	found.network = w.network()
	return found, nil
}

// oleMark begins what Excel 97 wrote, and every encrypted workbook.
var oleMark = []byte{0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1}

// workbook is an opened xlsx file.
type workbook struct {
	file    *excelize.File
	formats map[int]string // by the number of a style
}

func openWorkbook(data []byte) (*workbook, error) {
	file, err := excelize.OpenReader(bytes.NewReader(data), excelize.Options{
		UnzipSizeLimit: workbookLimit, UnzipXMLSizeLimit: workbookLimit,
	})
	if err != nil {
		return nil, err
	}
	return &workbook{file, map[int]string{}}, nil
}

// sheet finds a sheet by its name, which people begin with a capital.
func (w *workbook) sheet(name string) (string, *finding) {
	sheets := w.file.GetSheetList()
	for _, sheet := range sheets {
		if strings.EqualFold(strings.TrimSpace(sheet), name) {
			return sheet, nil
		}
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
	s.file = workbookFile + "!" + s.sheet
	t := &table{schema: s, inSheet: true}
	records, wrong := w.records(s.sheet)
	if wrong != nil {
		t.report(Error, 0, "", "", wrong.code, wrong.message, wrong.hint)
		return t
	}
	whole := slices.DeleteFunc(slices.Clone(records), func(r record) bool { return len(r.lost) > 0 })
	complete := len(whole) == len(records)
	if complete || len(records[0].lost) == 0 {
		t.take(whole, complete)
	}
	for _, r := range records {
		for _, cell := range r.lost {
			column := ""
			if cell.column < len(t.columns) {
				column = t.columns[cell.column]
			}
			t.problems = append(t.problems, cell.problem(t.file, r.line, column))
		}
	}
	return t
}

// network reads rows of a key and its value. The items of a list stand in cells side by side, or
// in one cell separated by blanks or commas. A first row may name the columns "key" and "value";
// then other columns hold notes.
func (w *workbook) network() *networkReader {
	file := workbookFile + "!" + networkSheet
	records, wrong := w.records(networkSheet)
	if wrong != nil {
		return noNetwork(file, Problem{File: file, Severity: Error, Code: wrong.code, Message: wrong.message, Hint: wrong.hint})
	}
	d := &document{file: file, keys: map[string]*yaml.Node{}, slips: map[string]bool{}, cells: map[int][]string{}}
	keys, values, end := layout(records)
	d.values = values
	for i, r := range records {
		if i == 0 && end > 0 || keys >= len(r.cells) {
			continue
		}
		d.cells[r.line] = r.cells
		if d.takeLost(r, keys, values, end) {
			continue
		}
		if strings.HasPrefix(strings.ToLower(r.cells[keys]), "versions.") && values < len(r.cells) && w.lostZero(values, r) {
			d.report(r.line, strings.ToLower(r.cells[keys]), r.cells[values], finding{"cell-number",
				fmt.Sprintf("the spreadsheet program has made a number of it, which is the same for %s and %[1]s0", r.cells[values]), asText})
			d.slips[strings.ToLower(r.cells[keys])] = true
			continue
		}
		d.takeRow(r, keys, values, end)
	}
	return &networkReader{document: d, versions: d}
}

// takeLost reports the lost cells of a row, other than notes.
func (d *document) takeLost(r record, keys, values, end int) (lost bool) {
	for _, cell := range r.lost {
		if end > 0 && cell.column != keys && (cell.column < values || cell.column >= end) {
			continue
		}
		key := strings.ToLower(r.cells[keys])
		d.problems = append(d.problems, cell.problem(d.file, r.line, key))
		d.slips[key] = true
		lost = true
	}
	return lost
}

// lostZero tells whether a version may have ended in a zero before it became a number: 1.30.
func (w *workbook) lostZero(column int, r record) bool {
	sheet, wrong := w.sheet(networkSheet)
	if wrong != nil || !oneDecimal.MatchString(r.cells[column]) {
		return false
	}
	kind, err := w.file.GetCellType(sheet, cellName(column, r.line))
	return err == nil && (kind == excelize.CellTypeUnset || kind == excelize.CellTypeNumber)
}

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
		d.report(r.line, "", items[0].Value, finding{"key-missing", "the value has no key before it", "write the key into " + cellName(keys, r.line)})
	case !slices.Contains(networkKeys, key):
		d.unknownKey(name, key, networkKeys)
	case d.keys[key] != nil:
		d.report(r.line, key, "", finding{"key-duplicate", "the key is given twice", "delete one of the two; a list's items stand side by side"})
	case len(items) == 0:
	case slices.Contains(listKeys, key):
		d.keys[key] = &yaml.Node{Kind: yaml.SequenceNode, Line: r.line, Content: splitItems(items)}
	case len(items) > 1:
		d.report(r.line, key, "", finding{"value-invalid", "a single value is needed here, not a list", ""})
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

// lostCell is a cell whose text nobody can know.
type lostCell struct {
	finding
	column int // from 0
	text   string
}

func (c lostCell) problem(sheet string, row int, column string) Problem {
	return Problem{File: sheet + "!" + cellName(c.column, row), Line: row, Column: column,
		Value: c.text, Severity: Error, Code: c.code, Message: c.message, Hint: c.hint}
}

// records gives the rows of a sheet that are neither empty nor comments, all of one width.
func (w *workbook) records(name string) (records []record, wrong *finding) {
	sheet, wrong := w.sheet(name)
	if wrong != nil {
		return nil, wrong
	}
	rows, err := w.file.GetRows(sheet)
	if err != nil {
		return nil, &finding{"xlsx-syntax", "the sheet cannot be read: " + err.Error(), "save it as .xlsx (Office Open XML, Excel 2007-365)"}
	}
	merged, err := w.mergedCells(sheet, rows)
	if err != nil {
		return nil, &finding{"xlsx-syntax", "the sheet cannot be read: " + err.Error(), "save it as .xlsx (Office Open XML, Excel 2007-365)"}
	}
	width, begin := 0, -1 // begin is the first column of the header
	for i, cells := range rows {
		for column := range cells {
			cells[column] = strings.TrimSpace(strings.ReplaceAll(cells[column], "\r\n", "\n"))
		}
		first := slices.IndexFunc(cells, func(cell string) bool { return cell != "" })
		comment := first >= 0 && strings.HasPrefix(cells[first], "#") && (begin < 0 || first <= begin)
		if comment {
			continue
		}
		lost := w.lostCells(sheet, i+1, cells, merged)
		if first < 0 && len(lost) == 0 {
			continue
		}
		if begin < 0 {
			begin = first
		}
		width = max(width, len(cells))
		records = append(records, record{i + 1, cells, lost})
	}
	for i := range records {
		records[i].cells = append(records[i].cells, make([]string, width-len(records[i].cells))...)
	}
	return records, nil
}

// mergedCells gives the area of every cell that is part of one, by the cell's name, as far as the
// rows reach.
func (w *workbook) mergedCells(sheet string, rows [][]string) (map[string]string, error) {
	areas, err := w.file.GetMergeCells(sheet, true)
	if err != nil {
		return nil, err
	}
	merged := map[string]string{}
	for _, area := range areas {
		fromColumn, fromRow, err := excelize.CellNameToCoordinates(area.GetStartAxis())
		if err != nil {
			return nil, err
		}
		toColumn, toRow, err := excelize.CellNameToCoordinates(area.GetEndAxis())
		if err != nil {
			return nil, err
		}
		for row := fromRow; row <= min(toRow, len(rows)); row++ {
			for column := fromColumn; column <= min(toColumn, len(rows[row-1])); column++ {
				merged[cellName(column-1, row)] = area.GetStartAxis() + ":" + area.GetEndAxis()
			}
		}
	}
	return merged, nil
}

// lostCells finds the cells of a row that show something else than was meant, or something else
// on every machine.
func (w *workbook) lostCells(sheet string, row int, cells []string, merged map[string]string) (lost []lostCell) {
	for column, text := range cells {
		cell := cellName(column, row)
		wrong := w.checkCell(sheet, cell, text)
		if area, ok := merged[cell]; ok && wrong == nil {
			wrong = &finding{"cell-merged", "the cell is merged with others (" + area + "): which rows and columns its text is for cannot be known",
				"split the merged cells, and write the text into each"}
		}
		if wrong != nil {
			lost = append(lost, lostCell{*wrong, column, text})
		}
	}
	return lost
}

const asText = "format the cells as text (Format, Cells, Text) and type the value again"

func (w *workbook) checkCell(sheet, cell, text string) *finding {
	kind, err := w.file.GetCellType(sheet, cell)
	if err != nil {
		return &finding{"xlsx-syntax", err.Error(), ""}
	}
	switch kind {
	case excelize.CellTypeBool:
		return &finding{"cell-number", "the spreadsheet program has made a truth value of it, which shows in each user's language", asText}
	case excelize.CellTypeError:
		return &finding{"cell-formula", "the cell shows an error", "correct its formula"}
	case excelize.CellTypeUnset, excelize.CellTypeNumber, excelize.CellTypeDate, excelize.CellTypeFormula:
		if text == "" {
			return w.checkComputed(sheet, cell)
		}
		if kind == excelize.CellTypeFormula {
			break // whose value is text
		}
		format, err := w.format(sheet, cell)
		if err != nil {
			return &finding{"xlsx-syntax", err.Error(), ""}
		}
		return checkNumber(text, format)
	}
	if i := strings.IndexFunc(text, func(c rune) bool { return c != '\n' && c != '\t' && unicode.IsControl(c) }); i >= 0 {
		return &finding{"cell-invalid", "there is a control character in the cell", "delete the text and type it again"}
	}
	return nil
}

// checkComputed: a formula that no program has computed yet has no value in the file, which looks
// like one whose value is empty.
func (w *workbook) checkComputed(sheet, cell string) *finding {
	formula, err := w.file.GetCellFormula(sheet, cell)
	if err != nil || formula == "" {
		return nil
	}
	if value, err := w.file.CalcCellValue(sheet, cell); err == nil && value == "" {
		return nil
	}
	return &finding{"cell-formula", "the value of the formula is not in the file", "open the file in a spreadsheet program and save it"}
}

// builtInFormats are those that show a number alike on all machines, by their fixed ids (ECMA-376
// part 1, 18.8.30). The others follow the user's language and country.
var builtInFormats = map[int]string{0: "General", 1: "0", 2: "0.00", 9: "0%", 10: "0.00%", 49: "@"}

// format is the number format of a cell, "" for one that shows differently on other machines.
func (w *workbook) format(sheet, cell string) (string, error) {
	id, err := w.file.GetCellStyle(sheet, cell)
	if err != nil {
		return "", err
	}
	format, known := w.formats[id]
	if known {
		return format, nil
	}
	style, err := w.file.GetStyle(id)
	if err != nil {
		return "", err
	}
	format = builtInFormats[style.NumFmt]
	if style.CustomNumFmt != nil {
		format = *style.CustomNumFmt
	}
	w.formats[id] = format
	return format, nil
}

var (
	plainFormat = regexp.MustCompile(`^[0#]+(?:\.[0#]+)?%?$`)
	isoFormat   = regexp.MustCompile(`^yyyy-mm-dd(?:[t ]hh:mm(?::ss)?)?$`)
	oneDecimal  = regexp.MustCompile(`^[0-9]+\.[0-9]$`)
	plainNumber = regexp.MustCompile(`^-?[0-9]+(?:\.[0-9]+)?$`)
)

// generalDigits is what Excel shows of a number in a cell without a format, before it rounds it.
const generalDigits = 11

// checkNumber tells whether text is what everybody sees of a number in a cell of this format.
func checkNumber(text, format string) *finding {
	format = strings.ToLower(strings.TrimSuffix(strings.NewReplacer(`\`, "", `"`, "").Replace(format), ";@"))
	switch {
	case format == "general" || format == "@":
		if !plainNumber.MatchString(text) || len(strings.TrimPrefix(text, "-")) > generalDigits {
			return &finding{"cell-number", "the spreadsheet program has made a number of it, and shows it rounded", asText}
		}
	case plainFormat.MatchString(format), isoFormat.MatchString(format):
	default:
		return &finding{"cell-number", "the spreadsheet program has made a number or date of it, which shows differently on other machines", asText}
	}
	return nil
}
