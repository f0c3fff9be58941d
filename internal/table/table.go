package table

import (
	"io"
	"slices"
	"strings"

	"k3splan/internal/diag"

	"github.com/gocarina/gocsv"
)

// Table is a table whose header and row lengths have been checked. Cells are trimmed and keep their
// case.
type Table struct {
	Schema
	// Columns are the names in the header, in lower case; "" for a column without a name.
	Columns []string
	// Header are the same names as they are spelt in the table.
	Header []string
	Rows   []Row
	// Complete is false if a row could not be read, so that a missing value may be in that row.
	Complete bool
	// HeaderLine is the line of the header, 0 without one.
	HeaderLine int
	// Title is the name of the sheet in its workbook, in the spelling of its owner; "" for a file.
	Title string

	// reader holds the text of a CSV file, encoding how the file stores it
	reader   *reader
	encoding encoding
	// inSheet: the table is a sheet of a workbook, and File names the sheet
	inSheet bool
	// own are the columns of the user
	own []int
	// lost are cells whose text cannot be known; their consequences are not reported
	lost  map[cellAt]bool
	found diag.Collector
}

// cellAt is the place of a cell: a line and a column that counts from 0.
type cellAt struct{ line, column int }

// Row is one record of a table.
type Row struct {
	Table *Table
	// Line counts from 1, in the file or the sheet.
	Line int
	// Cells are in the order of the table's columns.
	Cells []string
}

// Missing returns a table that could not be read at all, with the reasons.
func Missing(s Schema, problems ...diag.Problem) *Table {
	t := &Table{Schema: s}
	t.found.Add(problems...)
	return t
}

// None returns a table that need not exist, and does not.
func None(s Schema) *Table { return &Table{Schema: s, Complete: true} }

// Problems returns what is wrong with the table: its form, and what was reported about its cells.
func (t *Table) Problems() diag.Problems { return t.found.Problems() }

// Errors returns the number of problems that are errors.
func (t *Table) Errors() int { return t.found.Errors() }

// Has reports whether the table has the column.
func (t *Table) Has(column string) bool { return slices.Contains(t.Columns, column) }

// Own returns the names of the user's own columns, in the order of the table.
func (t *Table) Own() []string {
	var own []string
	for _, column := range t.Columns {
		if column != "" && !t.Knows(column) {
			own = append(own, column)
		}
	}
	return own
}

// Report adds a problem. A line of 0 means the whole table, an empty column the whole row. Nothing is
// reported about a cell whose text is already known to be lost.
func (t *Table) Report(severity diag.Severity, line int, column, value, code, message, hint string) {
	if t.lost[cellAt{line, t.indexAt(line, column)}] {
		return
	}
	t.found.Add(diag.Problem{File: t.fileAt(line, column), Line: line, Column: column, Value: value,
		Severity: severity, Code: code, Message: message, Hint: hint})
}

// indexAt returns the column of a problem, or the first one if there is no such column.
func (t *Table) indexAt(line int, column string) (found int) {
	for i, name := range t.Columns {
		// a duplicate column is wrong the second time, but only in the header
		if column != "" && name == column && (found == 0 || line == t.HeaderLine) {
			found = i
		}
	}
	return found
}

// fileAt returns the file of a problem in a line and column; in a sheet it names the cell.
func (t *Table) fileAt(line int, column string) string {
	if !t.inSheet || line == 0 {
		return t.File
	}
	return t.File + "!" + CellName(t.indexAt(line, column), line)
}

// Place returns how messages name a cell: "plans/hosts.csv:3", "plans/cluster.xlsx!hosts!A3".
func (t *Table) Place(line int, column string) string {
	return diag.Problem{File: t.fileAt(line, column), Line: line}.Place()
}

// Raw returns the cell as it is in the file, "" if the table has no such column.
func (r Row) Raw(column string) string {
	if i := slices.Index(r.Table.Columns, column); i >= 0 && i < len(r.Cells) {
		return r.Cells[i]
	}
	return ""
}

// Own returns the cells of the user's own columns, in their own case: it may mean something to their Nix code.
func (r Row) Own() map[string]string {
	own := make(map[string]string, len(r.Table.own))
	for _, i := range r.Table.own {
		own[r.Table.Columns[i]] = r.Cells[i]
	}
	return own
}

// Fail reports an error about a cell, or about the part of it given as value.
func (r Row) Fail(column, value, code, message, hint string) {
	r.Table.Report(diag.Error, r.Line, column, value, code, message, hint)
}

// Warn reports a warning about a cell, or about the part of it given as value.
func (r Row) Warn(column, value, code, message, hint string) {
	r.Table.Report(diag.Warning, r.Line, column, value, code, message, hint)
}

// Where returns the place of a cell, or "" if the cell is empty or there is no such column.
func (r Row) Where(column string) string {
	if r.Table == nil || r.Raw(column) == "" {
		return ""
	}
	return r.Table.Place(r.Line, column)
}

// Concerns reports whether the problem is about this row.
func (r Row) Concerns(p diag.Problem) bool {
	return r.Table != nil && p.Line == r.Line && p.Table() == r.Table.File
}

// Decode returns the rows as values of a struct type whose fields are strings with csv tags. The cells
// of known columns are in lower case, except where case matters. A table without a valid header has no
// rows.
func Decode[T any](t *Table) ([]T, error) {
	var rows []T
	if len(t.Columns) == 0 {
		return nil, nil
	}
	return rows, gocsv.UnmarshalCSV(&normalized{Table: t}, &rows)
}

// normalized returns header and rows in the form in which k3splan works with them. It implements
// gocsv.CSVReader.
type normalized struct {
	*Table
	next int
}

func (n *normalized) Read() ([]string, error) {
	defer func() { n.next++ }()
	switch {
	case n.next == 0:
		return n.Columns, nil
	case n.next > len(n.Rows):
		return nil, io.EOF
	}
	cells := slices.Clone(n.Rows[n.next-1].Cells)
	for i, column := range n.Columns {
		if n.Knows(column) && !slices.Contains(n.KeepCase, column) {
			cells[i] = strings.ToLower(cells[i])
		}
	}
	return cells, nil
}

func (n *normalized) ReadAll() ([][]string, error) {
	var all [][]string
	for {
		record, err := n.Read()
		if err == io.EOF {
			return all, nil
		}
		all = append(all, record)
	}
}
