package table

import (
	"fmt"
	"net/netip"
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
	{regexp.MustCompile(`^\d{1,3}([,'\x{a0}\x{202f}\x{2019}]\d{3})+([.,]\d+)?$|^\d{1,3}(\.\d{3}){2,}(,\d+)?$`), "a number with separators of thousands"},
	{regexp.MustCompile(`^\d{1,2}/\d{1,2}(/(\d{2}|\d{4}))?$|^\d{1,2}\.\d{1,2}\.\d{4}$|^\d{4}-\d{2}-\d{2}( 00:00:00)?$`), "a date"},
	{regexp.MustCompile(`(?i)^\d{1,2}[-. ]+(jan|feb|mar|mär|mrz|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez)([- .]+\d{2,4})?$`), "a date"},
	{regexp.MustCompile(`^#+$`), tooNarrow},
}

const tooNarrow = "signs for a number that its column was too narrow for"

func rewritten(cell string) (what string) {
	// names, addresses and MAC addresses, most cells of a large table, need no regular expression
	if cell == "" || !strings.ContainsRune("0123456789-#", rune(cell[0])) || strings.Count(cell, ":") == 5 {
		return ""
	}
	if _, err := netip.ParseAddr(cell); err == nil {
		return ""
	}
	for _, f := range rewrittenForms {
		if f.form.MatchString(cell) {
			return f.what
		}
	}
	return ""
}

// formulaError is what spreadsheet programs write for a formula that failed, in the language of their user:
// #REF!, #NAME?, #BEZUG!, #¿NOMBRE?, #N/A, #NV, Err:502.
var formulaError = regexp.MustCompile(`^(#[¿¡]?[\p{Lu}\d/._]+[!?]|#¡\p{Lu}+|#\p{Lu}/\p{Lu}+|#NV|Err:\d{3})$`)

// leftover returns what a spreadsheet program has left in a cell instead of its value.
func leftover(cell string) *finding {
	switch {
	case cell == "":
	case (cell[0] == '#' || cell[0] == 'E') && formulaError.MatchString(cell):
		return failedFormula
	case cell[0] == '=':
		return &finding{"cell-formula", "a formula of a spreadsheet, and not its value", "save the table with the values of its cells, or type the value"}
	case cell[0] == '\'' && len(cell) > 1 && strings.Count(cell, "'") == 1: // not a quotation
		return &finding{"cell-number", "the cell begins with an apostrophe, by which spreadsheet programs mark a text", "delete the apostrophe"}
	}
	return nil
}

var failedFormula = &finding{"cell-formula", "a formula of the spreadsheet failed here", "correct it there and save the table again"}

// reportLeftovers reports what a spreadsheet program has left in cells: in known columns as errors, in the
// user's own as one warning a column.
func (t *Table) reportLeftovers() {
	for i, column := range t.Columns {
		for _, r := range t.Rows {
			wrong := leftover(r.Cells[i])
			if column == "" || wrong == nil || t.lost[cellAt{r.Line, i}] {
				continue
			}
			if t.Knows(column) {
				t.Report(diag.Error, r.Line, column, r.Cells[i], wrong.code, wrong.message, wrong.hint)
				t.lost[cellAt{r.Line, i}] = true
				continue
			}
			t.Report(diag.Warning, r.Line, column, r.Cells[i], wrong.code, wrong.message, wrong.hint)
			break
		}
	}
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
