package table

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"k3splan/internal/diag"
)

// ReadCSV reads a table as people's programs write them: UTF-8 with or without byte-order mark, UTF-16
// with one, any line end, separated by comma, semicolon or tab, with comments, blank lines and rows of
// empty cells.
func ReadCSV(data []byte, s Schema) *Table {
	t := &Table{Schema: s, lost: map[cellAt]bool{}}
	if t.decode(data) {
		t.take(t.split())
		t.reportFormulaErrors()
		t.reportLeftovers()
		t.reportRewritten()
	}
	return t
}

const saveAsUTF8 = "save the table as “CSV UTF-8”"

// decode prepares the text of a file for reading; ok is false if it is not the text of a table.
func (t *Table) decode(data []byte) (ok bool) {
	if bytes.HasPrefix(data, []byte("PK\x03\x04")) {
		t.Report(diag.Error, 0, "", "", "csv-syntax", "this is a spreadsheet program's own file, not CSV", saveAsUTF8)
		return false
	}
	if len(data) > MaxCSV {
		t.Report(diag.Error, 0, "", "", "csv-syntax", fmt.Sprintf("the file has more than %d MB", MaxCSV>>20), "is it the right file?")
		return false
	}
	text, encoding := decode(data)
	for i, char := range text {
		line := func() int { return 1 + strings.Count(text[:i], "\n") }
		switch {
		case char == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)):
			t.Report(diag.Error, line(), "", "", "csv-syntax", "a character here is not "+encoding.name, saveAsUTF8)
			return false
		case char == 0:
			t.Report(diag.Error, line(), "", "", "csv-syntax", "null byte: UTF-16 without byte-order mark, or not a text file", saveAsUTF8)
			return false
		case char != '\n' && char != '\t' && char != '\r' && unicode.IsControl(char):
			t.Report(diag.Error, line(), "", "", "csv-syntax", fmt.Sprintf("control character (U+%04X)", char),
				"delete it, or save the table as CSV again")
			return false
		}
	}
	t.encoding, t.reader = encoding, newReader(text)
	if t.reader.separator == 0 {
		t.reader.separator = t.findSeparator()
	}
	return true
}

// split returns the records that are not empty; complete is false if one could not be read.
func (t *Table) split() (records []record, complete bool) {
	complete = true
	cells := 0
	for r, wrong := range t.reader.records() {
		if wrong != nil {
			t.Report(diag.Error, r.Line, "", "", wrong.code, wrong.message, wrong.hint)
			complete = false
			continue
		}
		if cells += len(r.Cells); cells > maxCells || len(records) == maxRows {
			t.Report(diag.Error, r.Line, "", "", "csv-syntax", tooManyCells, "is it the right file?")
			return records, false
		}
		texts := make([]string, len(r.Cells))
		for i, c := range r.Cells {
			texts[i] = c.Text
		}
		records = append(records, record{line: r.Line, cells: texts})
	}
	return records, complete
}

// reportFormulaErrors reports rows that would be taken for comments, as they begin with what a spreadsheet program
// writes for a formula that failed, or for a number that its column was too narrow for.
func (t *Table) reportFormulaErrors() {
	line := 0
	for text := range strings.Lines(t.reader.text) {
		line++
		cell, rest, _ := strings.Cut(text, string(t.reader.separator))
		if cell = strings.TrimSpace(cell); !strings.HasPrefix(cell, "#") {
			continue
		}
		switch {
		case formulaError.MatchString(cell):
			t.Report(diag.Error, line, "", cell, failedFormula.code, failedFormula.message, failedFormula.hint)
		case strings.Trim(cell, "#") == "" && strings.ContainsFunc(rest, unicode.IsLetter):
			t.Report(diag.Error, line, "", cell, "cell-number", "a spreadsheet program turned the cell into "+tooNarrow, AsText)
		default:
			continue
		}
		t.Complete = false
	}
}

// findSeparator returns the separator by which the header names the most known columns, if only by other
// names.
func (t *Table) findSeparator() byte {
	best, most := byte(','), -1
	for _, separator := range []byte(separators) {
		reader := *t.reader
		reader.separator = separator
		for header, wrong := range reader.records() {
			known := 0
			for _, cell := range header.Cells {
				if name := strings.ToLower(cell.Text); t.Knows(name) {
					known += 100
				} else if len(header.Cells) > 1 && t.meant(name) != "" {
					known++
				}
			}
			if (wrong == nil || wrong == tooManyColumns) && known > most {
				best, most = separator, known
			}
			break
		}
	}
	return best
}
