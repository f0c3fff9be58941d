package edit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/xuri/excelize/v2"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/table"
)

// workbook is a plan that is edited with excelize, which keeps values and formats. After each edit the
// workbook is read again, as plan reads it, and nothing but the edit may have changed.
type workbook struct {
	file *excelize.File
	// data is the workbook after the last edit
	data       []byte
	hosts, k3s *sheet
	// checks is nil if there is no such sheet
	checks *sheet
	// network are the rows of its sheet
	network []table.SheetRow
}

// sheet is a sheet of a workbook with a table.
type sheet struct {
	*table.Table
	book   *workbook
	schema table.Schema
	before string
}

// openWorkbook reads the workbook. The error is an *Invalid if a table in it cannot be understood.
func openWorkbook(fsys fs.FS) (*workbook, error) {
	data, err := fs.ReadFile(fsys, plan.WorkbookFile)
	if err != nil {
		return nil, err
	}
	return loadWorkbook(data)
}

func loadWorkbook(data []byte) (w *workbook, err error) {
	w = &workbook{}
	w.hosts = &sheet{book: w, schema: plan.Schema(plan.HostsFile)}
	w.k3s = &sheet{book: w, schema: plan.Schema(plan.K3sFile)}
	if opened, problem := table.OpenWorkbook(data, plan.WorkbookFile); problem == nil && opened.Has("checks") {
		w.checks = &sheet{book: w, schema: plan.Schema(plan.ChecksFile)}
	}
	if problems := w.read(data); problems.Errors() > 0 {
		return nil, &Invalid{problems, true}
	}
	for _, s := range w.tables() {
		s.before = s.text()
	}
	// what k3splan reads is within limits, so excelize may load the rest
	limit := excelize.Options{UnzipSizeLimit: table.MaxUnpacked, UnzipXMLSizeLimit: table.MaxUnpacked}
	if w.file, err = excelize.OpenReader(bytes.NewReader(data), limit); err != nil {
		return nil, w.cannot(err)
	}
	return w, nil
}

// cannot is the error of a workbook that is right, but that excelize cannot edit.
func (w *workbook) tables() []*sheet {
	if w.checks == nil {
		return []*sheet{w.hosts, w.k3s}
	}
	return []*sheet{w.hosts, w.k3s, w.checks}
}

func (w *workbook) cannot(reason error) error {
	return refuse(fmt.Sprintf("%s cannot be edited without loss: %v", plan.WorkbookFile, reason),
		"edit it in a spreadsheet program, then: k3splan validate")
}

// read reads the tables of a workbook and keeps its content.
func (w *workbook) read(data []byte) diag.Problems {
	opened, problem := table.OpenWorkbook(data, plan.WorkbookFile)
	if problem != nil {
		return diag.Problems{*problem}
	}
	var problems diag.Problems
	for _, s := range w.tables() {
		s.Table = opened.Table(s.schema)
		problems = append(problems, s.Problems()...)
	}
	problems.Sort()
	w.network, _ = opened.Rows(networkSheet) // what is wrong with it does not matter here
	w.data = data
	return problems
}

// change makes a change of a sheet and reads the result.
func (w *workbook) change(sheet string, change func(file *excelize.File, sheet string) error) error {
	if err := change(w.file, sheet); err != nil {
		return w.cannot(err)
	}
	var data bytes.Buffer
	if err := w.file.Write(&data); err != nil {
		return w.cannot(err)
	}
	if problems := w.read(data.Bytes()); problems.Errors() > 0 {
		return &Invalid{problems, false}
	}
	return nil
}

// edit makes a change of a sheet and checks that it had this effect and no other.
func (s *sheet) edit(want [][]string, change func(file *excelize.File, sheet string) error) error {
	w := s.book
	others := func() (text string) {
		for _, other := range w.tables() {
			if other != s {
				text += other.text() + "\f"
			}
		}
		return text
	}
	before, network := others(), networkCells(w.network)
	if err := w.change(s.Title, change); err != nil {
		return err
	}
	got := [][]string{}
	for _, row := range s.Rows {
		got = append(got, row.Cells)
	}
	switch {
	case len(got) < len(want):
		return refuse("the row would begin with # and be a comment in "+s.name(), "another value in the column "+s.Columns[0])
	case !slices.EqualFunc(got, want, slices.Equal), others() != before, !slices.EqualFunc(networkCells(w.network), network, slices.Equal):
		return w.cannot(errors.New("other cells of it would change"))
	}
	return nil
}

func (s *sheet) name() string             { return s.File }
func (s *sheet) columns() []string        { return s.Columns }
func (s *sheet) knows(column string) bool { return s.Knows(column) }
func (s *sheet) rows() int                { return len(s.Rows) }
func (s *sheet) cells(row int) []string   { return s.Rows[row].Cells }
func (s *sheet) changed() bool            { return s.text() != s.before }

func (s *sheet) line(row int) int {
	if row < 0 {
		return s.HeaderLine
	}
	return s.Rows[row].Line
}

func (s *sheet) cell(row int, column string) string {
	return strings.ToLower(s.Rows[row].Raw(column))
}

// text is the table as CSV.
func (s *sheet) text() string {
	rows := [][]string{s.Columns}
	for _, row := range s.Rows {
		rows = append(rows, row.Cells)
	}
	return table.CSV(rows)
}

func (s *sheet) texts() (before, after string) { return s.before, s.text() }

// want is the cells of all rows, to be changed.
func (s *sheet) want() (cells [][]string) {
	for _, row := range s.Rows {
		cells = append(cells, slices.Clone(row.Cells))
	}
	return cells
}

func (s *sheet) insert(after int, cells map[string]string) (line int, err error) {
	texts := make([]string, len(s.Columns))
	for i, column := range s.Columns {
		texts[i] = cells[column]
	}
	above := s.line(after)
	isLast := after == s.rows()-1
	return above + 1, s.edit(slices.Insert(s.want(), after+1, texts), func(file *excelize.File, sheet string) error {
		// at the end of a table a formatted row may wait; elsewhere empty rows separate groups
		if free, err := isFree(file, sheet, len(s.Columns), above+1); err != nil {
			return err
		} else if !isLast || !free {
			if err := file.InsertRows(sheet, above+1, 1); err != nil {
				return err
			}
		}
		for i, text := range texts {
			if err := writeCell(file, sheet, i, above+1, text, table.CellName(i, above)); err != nil {
				return err
			}
		}
		return nil
	})
}

// isFree reports whether a row has nothing in the first columns, those of the table.
func isFree(file *excelize.File, sheet string, columns, line int) (bool, error) {
	for column := range columns {
		if text, err := file.GetCellValue(sheet, table.CellName(column, line)); err != nil || text != "" {
			return false, err
		}
	}
	return true, nil
}

// writeCell writes a text into a cell, with the format of a neighbour. It is a text, whatever a program would
// make of it if somebody typed it.
func writeCell(file *excelize.File, sheet string, column, line int, text, neighbour string) error {
	cell := table.CellName(column, line)
	style, err := file.GetCellStyle(sheet, neighbour)
	if err != nil {
		return err
	}
	if style != 0 {
		if err := file.SetCellStyle(sheet, cell, cell, style); err != nil {
			return err
		}
	}
	if text == "" {
		return nil
	}
	return file.SetCellStr(sheet, cell, text)
}

func (s *sheet) addColumn(name string) error {
	column := len(s.Columns)
	want := s.want()
	for i := range want {
		want[i] = append(want[i], "")
	}
	return s.edit(want, func(file *excelize.File, sheet string) error {
		return writeCell(file, sheet, column, s.HeaderLine, name, table.CellName(column-1, s.HeaderLine))
	})
}

func (s *sheet) remove(rows []int) error {
	if len(rows) == 0 {
		return nil
	}
	want := s.want()
	lines := []int{}
	for _, row := range slices.Backward(rows) {
		want = slices.Delete(want, row, row+1)
		lines = append(lines, s.line(row))
	}
	return s.edit(want, func(file *excelize.File, sheet string) error {
		for _, line := range lines { // the last one first
			if err := file.RemoveRow(sheet, line); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *sheet) set(rows []int, column, value string) error {
	i := slices.Index(s.Columns, column)
	want := s.want()
	for _, row := range rows {
		want[row][i] = value
	}
	return s.edit(want, func(file *excelize.File, sheet string) error {
		for _, row := range rows {
			if err := file.SetCellStr(sheet, table.CellName(i, s.line(row)), value); err != nil {
				return err
			}
		}
		return nil
	})
}
