package table

import (
	"archive/zip"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k3splan/internal/diag"

	"github.com/xuri/excelize/v2"
)

// Workbook is an opened xlsx file (ECMA-376).
type Workbook struct {
	archive archive
	// file is how problems name the workbook
	file   string
	sheets []sheetPart
	// numberFormats are the number formats of the styles, "" for one that looks different on other
	// machines
	numberFormats []string
	shared        []string        // texts that cells refer to by their number
	from1904      bool            // dates count from 1904, as on old Macs
	merged        map[string]bool // areas of merged cells that were reported
	// comments are those of the sheets that were read, formulas the number of formulas in them
	comments map[string][]Comment
	formulas int
}

// Comment is a row of a sheet that begins with #.
type Comment struct {
	Line int
	Text string
}

// sheetPart is a sheet of a workbook.
type sheetPart struct{ name, part string }

// oleMark begins the files of Excel 97, and all encrypted workbooks.
var oleMark = []byte{0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1}

const (
	saveAsXLSX = "save it as .xlsx (Office Open XML, Excel 2007-365)"
	copyTables = "delete what is below and beside the tables, formats too, or copy the tables into a new workbook"
)

// OpenWorkbook opens a workbook. file is how problems name it ("plans/cluster.xlsx").
func OpenWorkbook(data []byte, file string) (*Workbook, *diag.Problem) {
	wrong := func(message, hint string) (*Workbook, *diag.Problem) {
		return nil, &diag.Problem{File: file, Severity: diag.Error, Code: "xlsx-syntax", Message: message, Hint: hint}
	}
	if bytes.HasPrefix(data, oleMark) {
		return wrong("the file is protected by a password, or in the format of old Excel versions", saveAsXLSX+", without a password")
	}
	if len(data) > MaxWorkbook {
		return wrong(fmt.Sprintf("the workbook has more than %d MB", MaxWorkbook>>20), "remove pictures, or copy the tables into a new workbook")
	}
	opened, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return wrong("not a workbook, or only a part of one: "+err.Error(), saveAsXLSX)
	}
	w := &Workbook{archive: archive{parts: opened.File, bytes: MaxUnpacked, elements: maxElements}, file: file, merged: map[string]bool{}, comments: map[string][]Comment{}}
	switch isTypes := func(f *zip.File) bool { return f.Name == "[Content_Types].xml" }; {
	case len(opened.File) > maxParts:
		return wrong(fmt.Sprintf("the workbook has more than %d parts", maxParts), "copy the tables into a new workbook")
	case !slices.ContainsFunc(opened.File, isTypes):
		return wrong("this is the file of another program, whatever its name says", saveAsXLSX)
	}
	if err := w.load(); err != nil {
		p := w.unreadable("the workbook", err)
		return nil, &p
	}
	return w, nil
}

// unreadable is the problem of an error in what is named.
func (w *Workbook) unreadable(what string, err error) diag.Problem {
	p := diag.Problem{File: w.file, Severity: diag.Error, Code: "xlsx-syntax",
		Message: what + " cannot be read: " + err.Error(), Hint: "open the workbook in a spreadsheet program and save it as .xlsx"}
	var limit *limitError
	if errors.As(err, &limit) {
		p.Message, p.Hint = limit.text, copyTables
	}
	return p
}

// load reads what all sheets have in common.
func (w *Workbook) load() error {
	ofPackage, err := w.archive.relations("")
	if err != nil {
		return err
	}
	i := slices.IndexFunc(ofPackage, func(r relation) bool { return r.is("officeDocument") })
	if i < 0 {
		return errors.New("it has no content")
	}
	main := ofPackage[i].Target
	relations, err := w.archive.relations(main)
	if err != nil {
		return err
	}
	for _, r := range relations {
		switch {
		case r.is("sharedStrings"):
			err = w.loadShared(r.Target)
		case r.is("styles"):
			err = w.loadFormats(r.Target)
		}
		if err != nil {
			return err
		}
	}
	return w.archive.each(main, func(_ *xml.Decoder, start xml.StartElement) error {
		switch start.Name.Local {
		case "workbookPr":
			value := attribute(start, "date1904")
			w.from1904 = value == "1" || value == "true"
		case "sheet":
			sheet := sheetPart{name: attribute(start, "name")}
			for _, r := range relations {
				// r:id, which is not the sheet's own number
				if slices.ContainsFunc(start.Attr, func(a xml.Attr) bool { return a.Name.Local == "id" && a.Value == r.ID }) {
					sheet.part = r.Target
				}
			}
			w.sheets = append(w.sheets, sheet)
		}
		return nil
	})
}

// loadShared reads the texts that the cells of all sheets share.
func (w *Workbook) loadShared(part string) error {
	return w.archive.each(part, func(decoder *xml.Decoder, start xml.StartElement) error {
		if start.Name.Local != "si" {
			return nil
		}
		text, err := readRich(decoder)
		w.shared = append(w.shared, text)
		return err
	})
}

// loadFormats reads the number formats of the styles (18.8.10, 18.8.31).
func (w *Workbook) loadFormats(part string) error {
	own := map[int]string{}
	inCells := false // other lists of styles are for names and tables
	return w.archive.each(part, func(_ *xml.Decoder, start xml.StartElement) error {
		switch start.Name.Local {
		case "numFmt":
			id, err := strconv.Atoi(attribute(start, "numFmtId"))
			if err == nil {
				own[id] = language.ReplaceAllString(attribute(start, "formatCode"), "")
			}
		case "cellXfs":
			inCells = true
		case "cellStyleXfs", "cellStyles", "dxfs", "tableStyles", "colors", "extLst":
			inCells = false
		case "xf":
			if inCells {
				id, _ := strconv.Atoi(attribute(start, "numFmtId"))
				format, isOwn := own[id]
				if !isOwn {
					format = builtInFormats[id]
				}
				w.numberFormats = append(w.numberFormats, format)
			}
		}
		return nil
	})
}

// format returns the number format of a style, "" for one that looks different on other machines. A
// workbook without formats shows everything as General.
func (w *Workbook) format(style int) string {
	switch {
	case style >= 0 && style < len(w.numberFormats):
		return w.numberFormats[style]
	case style == 0 || len(w.numberFormats) == 0:
		return builtInFormats[0]
	}
	return ""
}

// Has reports whether there is a sheet of a name, in any case.
func (w *Workbook) Has(name string) bool {
	return slices.ContainsFunc(w.sheets, func(sheet sheetPart) bool { return strings.EqualFold(strings.TrimSpace(sheet.name), name) })
}

// find returns the sheet of a name, which people begin with a capital.
func (w *Workbook) find(name string) (sheetPart, *diag.Problem) {
	wrong := &diag.Problem{File: w.file + "!" + name, Severity: diag.Error}
	var named []sheetPart
	var all []string
	for _, sheet := range w.sheets {
		all = append(all, sheet.name)
		if strings.EqualFold(strings.TrimSpace(sheet.name), name) {
			named = append(named, sheet)
		}
	}
	switch {
	case len(named) == 1:
		return named[0], nil
	case len(named) > 1:
		wrong.Code, wrong.Message = "sheet-duplicate", fmt.Sprintf("there are two sheets, %q and %q", named[0].name, named[1].name)
		wrong.Hint = "rename the one that is out of date"
		return sheetPart{}, wrong
	}
	wrong.Code, wrong.Message = "sheet-missing", fmt.Sprintf("the sheet %q is missing", name)
	wrong.Hint = "the workbook needs the sheets hosts, k3s and network; it has " + strings.Join(all, ", ")
	for _, sheet := range all {
		if diag.Nearest(strings.ToLower(sheet), []string{name}) != "" {
			wrong.Hint = fmt.Sprintf("rename the sheet %q to %q", sheet, name)
		}
	}
	return sheetPart{}, wrong
}

// Table reads a sheet as [ReadCSV] reads a file.
func (w *Workbook) Table(s Schema) *Table {
	name := s.Sheet
	s.File = w.file + "!" + name
	t := &Table{Schema: s, inSheet: true, lost: map[cellAt]bool{}}
	sheet, wrong := w.find(name)
	if wrong != nil {
		t.found.Add(*wrong)
		return t
	}
	t.Title = sheet.name
	records, wrong := w.records(sheet, name)
	if wrong != nil {
		t.found.Add(*wrong)
		return t
	}
	own := t.keepOwn(records)
	for _, r := range records {
		for _, cell := range r.lost {
			t.lost[cellAt{r.line, cell.column}] = true
		}
	}
	if len(records) == 0 || len(records[0].lost) == 0 {
		t.take(records, true)
	}
	t.reportLeftovers()
	for i, r := range records {
		for _, cell := range r.lost {
			problem := cell.problem(t.File, r.line)
			if cell.column < len(t.Columns) {
				problem.Column = t.Columns[cell.column]
			}
			if i == 0 && problem.Code == mergedCode {
				problem.Hint = "begin a title with #; split merged cells of the header"
			}
			if w.First(problem) {
				t.found.Add(problem)
			}
		}
	}
	for _, problem := range own {
		t.found.Add(problem)
	}
	return t
}

// keepOwn sets cells of the user's own columns to the value in the file, where they show it in
// another way: a date in the form of ISO 8601, a number without its format, TRUE. It returns one warning
// for each column in which a value is not what all its readers see.
func (t *Table) keepOwn(records []record) (warnings diag.Problems) {
	if len(records) == 0 || len(records[0].lost) > 0 {
		return nil
	}
	names := records[0].cells
	warned := map[int]bool{}
	for i, r := range records[1:] {
		records[i+1].lost = slices.DeleteFunc(r.lost, func(cell sheetCell) bool {
			if cell.wrong.code != "cell-number" || cell.column >= len(names) || names[cell.column] == "" || t.Knows(strings.ToLower(names[cell.column])) {
				return false
			}
			r.cells[cell.column] = cell.text
			if !cell.isDate && !warned[cell.column] {
				warned[cell.column] = true
				problem := cell.problem(t.File, r.line)
				problem.Severity, problem.Column = diag.Warning, strings.ToLower(names[cell.column])
				problem.Message = fmt.Sprintf("the cell may show something else, but its value is read as %s", cell.text)
				problem.Hint = "to keep what it shows, " + AsText
				warnings = append(warnings, problem)
			}
			return true
		})
	}
	return warnings
}

// First reports whether a problem is the first about an area of merged cells, or about something else.
func (w *Workbook) First(p diag.Problem) bool {
	if p.Code != mergedCode {
		return true
	}
	area := p.Table() + " " + p.Message
	again := w.merged[area]
	w.merged[area] = true
	return !again
}

// SheetRow is a row of a sheet of which only the caller knows what its columns are.
type SheetRow struct {
	Line int
	// Cells begin at column A. All rows of a sheet have the same number.
	Cells []string
	// Lost are the problems of cells whose text cannot be known, by their columns; Cells has "" for them.
	Lost map[int]diag.Problem
	// Numbers are the columns of cells that hold a number.
	Numbers []int
}

// Rows returns the rows of a sheet that are neither empty nor comments.
func (w *Workbook) Rows(name string) ([]SheetRow, *diag.Problem) {
	sheet, wrong := w.find(name)
	if wrong != nil {
		return nil, wrong
	}
	records, wrong := w.records(sheet, name)
	if wrong != nil {
		return nil, wrong
	}
	rows := make([]SheetRow, len(records))
	for i, r := range records {
		rows[i] = SheetRow{Line: r.line, Cells: r.cells, Numbers: r.numbers, Lost: map[int]diag.Problem{}}
		for _, cell := range r.lost {
			rows[i].Lost[cell.column] = cell.problem(w.file+"!"+name, r.line)
		}
	}
	return rows, nil
}

// Comments returns the rows of a sheet that begin with #, once the sheet was read.
func (w *Workbook) Comments(sheet string) []Comment { return w.comments[sheet] }

// extras are parts of a workbook that only spreadsheet programs show.
var extras = []struct{ part, what string }{
	{"xl/comments", "notes on cells"}, {"xl/threadedcomments", "notes on cells"}, {"xl/media/", "pictures"}, {"xl/charts/", "charts"}, {"xl/drawings/drawing", "drawings"},
	{"xl/pivottables/", "pivot tables"}, {"xl/embeddings/", "embedded files"}, {"xl/vbaproject", "macros"},
}

// Extras returns what else the workbook contains, once these sheets were read: formulas
// in them, other sheets, pictures and the like. Formats are not among it.
func (w *Workbook) Extras(sheets ...string) (what []string) {
	if w.formulas > 0 {
		what = append(what, fmt.Sprintf("the formulas of %d cells, whose values stay", w.formulas))
	}
	for _, sheet := range w.sheets {
		if !slices.ContainsFunc(sheets, func(name string) bool { return strings.EqualFold(strings.TrimSpace(sheet.name), name) }) {
			what = append(what, fmt.Sprintf("the sheet %q", sheet.name))
		}
	}
	for _, known := range extras {
		has := slices.ContainsFunc(w.archive.parts, func(f *zip.File) bool { return strings.HasPrefix(strings.ToLower(f.Name), known.part) })
		if has && !slices.Contains(what, known.what) {
			what = append(what, known.what)
		}
	}
	return what
}

// CellName returns a spreadsheet's name of a cell ("C5"). The column counts from 0, the row from 1.
func CellName(column, row int) string {
	name, err := excelize.CoordinatesToCellName(column+1, row)
	if err != nil {
		return fmt.Sprintf("row %d", row) // farther right than a sheet reaches
	}
	return name
}
