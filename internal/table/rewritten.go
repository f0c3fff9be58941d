package table

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"k3splan/internal/diag"
)

// A spreadsheet program that opens a CSV file guesses what each cell is, and writes its guess when it saves
// the file: the serial number 5001234567890123 becomes 5.00123E+15, the name 2-jan a date. In a workbook
// the cell still says what it is; in CSV only its text shows it.

// rewrittenForms are texts that spreadsheet programs write and that no known column has otherwise.
var rewrittenForms = []struct {
	form *regexp.Regexp
	what string
}{
	{regexp.MustCompile(`^-?\d([.,]\d+)?[Ee]\+\d+$`), "a number in scientific notation"},
	{regexp.MustCompile(`^\d{1,3}([,']\d{3})+([.,]\d+)?$`), "a number with separators of thousands"},
	{regexp.MustCompile(`^\d{1,2}/\d{1,2}(/(\d{2}|\d{4}))?$|^\d{1,2}\.\d{1,2}\.\d{4}$|^\d{4}-\d{2}-\d{2}( 00:00:00)?$`), "a date"},
	{regexp.MustCompile(`(?i)^\d{1,2}[-. ]+(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)([- .]+\d{2,4})?$`), "a date"},
	{regexp.MustCompile(`^#+$`), "signs for a number that its column was too narrow for"},
}

func rewritten(cell string) (what string) {
	// names, addresses and MAC addresses, most cells of a large table, need no regular expression
	if cell == "" || !strings.ContainsRune("0123456789-#", rune(cell[0])) || strings.Count(cell, ".") == 3 || strings.Count(cell, ":") == 5 {
		return ""
	}
	for _, f := range rewrittenForms {
		if f.form.MatchString(cell) {
			return f.what
		}
	}
	return ""
}

// reportRewritten reports cells that a spreadsheet program has rewritten: in known columns as errors, in
// the user's own as one warning a column, and only where digits are lost. Columns with several words in a
// cell are the user's texts.
func (t *Table) reportRewritten() {
	warned := map[string]bool{}
	for i, column := range t.Columns {
		own := !t.Knows(column)
		if column == "" || slices.Contains(t.Words, column) {
			continue
		}
		for _, r := range t.Rows {
			cell := r.Cells[i]
			what := rewritten(cell)
			if what == "" {
				continue
			}
			message := fmt.Sprintf("a spreadsheet program turned the cell into %s", what)
			switch {
			case !own:
				t.Report(diag.Error, r.Line, column, cell, "cell-number", message, AsText)
				t.lost[cellAt{r.Line, i}] = true
			case !warned[column] && strings.Contains(cell, "E+"):
				warned[column] = true
				t.Report(diag.Warning, r.Line, column, cell, "cell-number", message, AsText)
			}
		}
		if column == t.Serials {
			t.reportLostZeros(i)
		}
	}
}

// reportLostZeros warns of serial numbers of digits that are shorter than all others: a spreadsheet program
// removes the zeros that they begin with.
func (t *Table) reportLostZeros(column int) {
	lengths := map[int]int{}
	longest := 0
	digits := func(cell string) bool { return cell != "" && strings.Trim(cell, "0123456789") == "" }
	for _, r := range t.Rows {
		if cell := r.Cells[column]; digits(cell) {
			lengths[len(cell)]++
			longest = max(longest, len(cell))
		}
	}
	if len(lengths) != 2 || lengths[longest] < 2 {
		return
	}
	for _, r := range t.Rows {
		if cell := r.Cells[column]; digits(cell) && len(cell) < longest {
			t.Report(diag.Warning, r.Line, t.Columns[column], cell, "cell-number",
				fmt.Sprintf("shorter than the other numbers: a spreadsheet program removes the zeros at the beginning (%s)", strings.Repeat("0", longest-len(cell))+cell), AsText)
		}
	}
}
