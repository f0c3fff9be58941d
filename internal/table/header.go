package table

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"k3splan/internal/diag"
)

// finding is what is wrong with a cell or record, without its place.
type finding struct{ code, message, hint string }

// record is a record of a CSV file without its positions, or a row of a sheet.
type record struct {
	line  int
	cells []string
	// lost are the cells of a sheet whose text cannot be known; cells has "" for them
	lost []sheetCell
	// numbers are the columns of a sheet's cells that hold a number
	numbers []int
}

// take checks header and rows. complete is false if a record could not be read.
func (t *Table) take(records []record, complete bool) {
	t.Complete = complete
	if len(records) == 0 {
		if complete {
			t.Report(diag.Error, 0, "", "", "column-missing", "there is no header", t.headerHint())
			t.Complete = false
		}
		return
	}
	if !t.takeHeader(records[0]) {
		t.Complete = false
		return
	}
	t.takeRows(records[1:])
}

func (t *Table) headerHint() string {
	if t.inSheet {
		return "let the first row name the columns: " + strings.Join(t.Required, ", ") + "; begin a title above it with #"
	}
	return "let the first line name the columns, separated by comma, semicolon or tab: " + strings.Join(t.Required, ",") + "; begin a title above it with #"
}

// takeHeader checks the names of the columns; false means that the rows cannot be understood.
func (t *Table) takeHeader(header record) bool {
	t.HeaderLine, t.Header = header.line, slices.Clone(header.cells)
	named := 0 // columns that a header of this table would have
	for i, name := range header.cells {
		column := strings.ToLower(name)
		t.Columns = append(t.Columns, column)
		if column != "" && !t.Knows(column) {
			t.own = append(t.own, i)
		}
		if t.Knows(column) || t.meant(column) != "" {
			named++
		}
	}
	missing := slices.DeleteFunc(slices.Clone(t.Required), t.Has)
	if len(missing) == len(t.Required) && named < 2 {
		t.Report(diag.Error, header.line, "", "", "column-missing", "there is no header: this line names none of the columns",
			t.headerHint())
		return false
	}
	unique := t.checkNames(header)
	t.reportSynonyms(header, t.reportMissing(header, missing))
	return unique
}

// checkNames reports columns that are named twice or by a name that cannot be used. It reports whether
// every name is there once.
func (t *Table) checkNames(header record) (unique bool) {
	unique = true
	seen := map[string]bool{}
	for i, column := range t.Columns {
		switch {
		case column == "":
			continue
		case seen[column]:
			unique = false
			t.Report(diag.Error, header.line, column, header.cells[i], "column-duplicate", "the column is in the header twice",
				"rename or delete one of the two")
		case slices.Contains(t.Reserved, column) || column == "_module" || column == "_type": // of NixOS's module system
			t.Report(diag.Error, header.line, column, header.cells[i], "column-reserved", "k3splan uses this name itself",
				"give your own column another name")
		case strings.ContainsFunc(column, unicode.IsControl):
			t.Report(diag.Error, header.line, column, header.cells[i], "column-invalid", "the name of the column contains a line break or tab",
				"write the name in one line")
		}
		seen[column] = true
	}
	return unique
}

// reportMissing reports the required columns that are missing, with the one that is probably meant. It
// returns the columns that were named in that way.
func (t *Table) reportMissing(header record, missing []string) (misspelt map[string]bool) {
	misspelt = map[string]bool{}
	for _, column := range missing {
		hint := "add the column to the header"
		for _, own := range slices.Sorted(slices.Values(t.Columns)) {
			if own != "" && !t.Knows(own) && !misspelt[own] && t.meant(own) == column {
				misspelt[own] = true
				hint = fmt.Sprintf("rename the column %q to %q", own, column)
				break
			}
		}
		t.Report(diag.Error, header.line, column, "", "column-missing", "the column is missing", hint)
	}
	return misspelt
}

// reportSynonyms warns of columns that were probably meant to be one that k3splan knows, apart from those
// that were named already.
func (t *Table) reportSynonyms(header record, named map[string]bool) {
	for i, column := range t.Columns {
		if column == "" || named[column] || t.Knows(column) {
			continue
		}
		meant := t.meant(column)
		if meant == "" || t.Has(meant) || named[meant] {
			continue
		}
		named[meant] = true // once: a second column of the kind is the user's own
		hint := fmt.Sprintf("did you mean %q?", meant)
		if diag.Nearest(column, t.Known()) != meant {
			hint = fmt.Sprintf("rename it to %q if that is what it holds", meant)
		}
		t.Report(diag.Warning, header.line, column, header.cells[i], "column-suspicious",
			"k3splan does not know this column and treats it as one of your own", hint)
	}
}

// takeRows checks the number of cells of each row.
func (t *Table) takeRows(records []record) {
	var wrong []record
	unnamed := map[int]bool{}
	for _, r := range records {
		for len(r.cells) > len(t.Columns) && r.cells[len(r.cells)-1] == "" {
			r.cells = r.cells[:len(r.cells)-1]
		}
		if len(r.cells) != len(t.Columns) {
			wrong = append(wrong, r)
			continue
		}
		if slices.EqualFunc(r.cells, t.Columns, strings.EqualFold) {
			t.Report(diag.Error, r.line, "", "", "csv-syntax", "repeated header row", "delete the line")
			continue
		}
		for i, column := range t.Columns {
			if column == "" && r.cells[i] != "" && !unnamed[i] {
				unnamed[i] = true
				t.reportUnnamed(i, r)
			}
		}
		if !t.inSheet || t.reaches(r) {
			t.Rows = append(t.Rows, Row{t, r.line, r.cells})
		}
	}
	t.reportLengths(wrong, len(records))
}

// reportUnnamed reports a cell in a column without a name.
func (t *Table) reportUnnamed(column int, r record) {
	file := t.File
	if t.inSheet {
		file += "!" + CellName(column, r.line)
	}
	if !t.lost[cellAt{r.line, column}] {
		t.found.Add(diag.Problem{File: file, Line: r.line, Value: r.cells[column], Severity: diag.Error,
			Code: "row-length", Message: "the cell is in a column without a name", Hint: "name the column in the header"})
	}
}

// reaches reports whether a row of a sheet has a cell in the table, and not only beside it.
func (t *Table) reaches(r record) bool {
	for i, column := range t.Columns {
		if column != "" && (r.cells[i] != "" || slices.ContainsFunc(r.lost, func(c sheetCell) bool { return c.column == i })) {
			return true
		}
	}
	return false
}

// reportLengths reports rows with too few or too many cells. If all rows are alike, the header is wrong.
func (t *Table) reportLengths(wrong []record, rows int) {
	if len(wrong) == 0 {
		return
	}
	t.Complete = false
	const hint = "an empty cell needs its separator too; a cell that contains a separator needs quotes around it"
	alike := func(r record) bool { return len(r.cells) == len(wrong[0].cells) }
	if len(wrong) == rows && rows > 2 && !slices.ContainsFunc(wrong, func(r record) bool { return !alike(r) }) {
		t.Report(diag.Error, wrong[0].line, "", "", "row-length",
			fmt.Sprintf("this and all other rows have %d cells, the header has %d", len(wrong[0].cells), len(t.Columns)), "correct the header")
		return
	}
	for _, r := range wrong {
		t.Report(diag.Error, r.line, "", "", "row-length",
			fmt.Sprintf("the row has %d cells, the header has %d", len(r.cells), len(t.Columns)), hint)
	}
}
