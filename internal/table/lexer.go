package table

import (
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// CSV is read here and not with encoding/csv, which does not accept blanks around quotes and does not
// report the position of a cell in the file; editing a table in place needs both.

// Record is a row of a CSV table, or its header.
type Record struct {
	// Line is the line where the record starts, counted from 1.
	Line int
	// Start and End are its position in the text in bytes, including the end of its last line.
	Start, End int
	Cells      []Cell
}

// Cell is a cell of a CSV table.
type Cell struct {
	// Text is the content without quotes and surrounding white space.
	Text   string
	Quoted bool
	// Start and End are the cell's position in the text in bytes, between separators and line ends;
	// TextStart and TextEnd are those of Text in it, including the quotes.
	Start, TextStart, TextEnd, End int
}

// reader reads the text of a CSV table.
type reader struct {
	text      string
	separator byte
	// at is the position in the text, line its line
	at, line int
	cells    []Cell // of the last record
}

// sepLine is a first line by which Excel names the separator.
var sepLine = regexp.MustCompile(`^"?(?i:sep)=(.)"?\r?\n`)

// newReader returns the reader of a text. Its separator is 0 if the text does not name one.
func newReader(text string) *reader {
	r := &reader{text: text, line: 1}
	if m := sepLine.FindStringSubmatch(text); m != nil {
		r.at, r.line = len(m[0]), 2
		if strings.Contains(separators, m[1]) {
			r.separator = m[1][0]
		}
	}
	return r
}

const separators = ",;\t"

// records returns the records that are neither comments nor empty. Of a record that cannot be read it
// returns the line and what is wrong. Cells are valid until the next record.
func (r reader) records() iter.Seq2[Record, *finding] {
	return func(yield func(Record, *finding) bool) {
		for r.at < len(r.text) {
			record, wrong := r.record()
			if (wrong != nil || !record.isBlank() && !record.isComment()) && !yield(record, wrong) {
				return
			}
		}
	}
}

func (r Record) isBlank() bool {
	return !slices.ContainsFunc(r.Cells, func(c Cell) bool { return c.Text != "" })
}

// isComment reports whether the record is a comment that a spreadsheet program has quoted because it
// contains a separator or a quote. A cell such as "#5" beside others is the user's own data.
func (r Record) isComment() bool {
	return strings.HasPrefix(r.Cells[0].Text, "# ") ||
		strings.HasPrefix(r.Cells[0].Text, "#") && Record{Cells: r.Cells[1:]}.isBlank()
}

// record reads up to the end of a line. A comment has no cells.
func (r *reader) record() (record Record, wrong *finding) {
	record = Record{Line: r.line, Start: r.at}
	r.cells = r.cells[:0]
	for more := r.text[r.at] != '#'; more && wrong == nil; {
		var cell Cell
		cell, wrong = r.cell()
		r.cells = append(r.cells, cell)
		switch {
		case wrong != nil:
		case len(r.cells) > maxColumns:
			wrong = tooManyColumns
		case len(cell.Text) > maxText:
			wrong = longCell
		}
		if more = r.at < len(r.text) && r.text[r.at] == r.separator; more {
			r.at++
		}
		record.End = cell.End
	}
	if i := strings.IndexByte(r.text[r.at:], '\n'); i >= 0 {
		r.at += i + 1
		record.End = r.at
	} else {
		r.at = len(r.text)
	}
	r.line += strings.Count(r.text[record.Start:r.at], "\n")
	record.Cells = r.cells
	return record, wrong
}

var (
	bareQuote      = &finding{"csv-syntax", `a cell that is not quoted contains a quote (")`, `put the whole cell in quotes and double those inside: "19"" rack"`}
	tooManyColumns = &finding{"row-length", fmt.Sprintf("the row has more than %d cells", maxColumns), "delete what is beside the table"}
	longCell       = &finding{"csv-syntax", fmt.Sprintf("a cell has more than %d kB", maxText>>10), "is a quote missing, or is it the right file?"}
	openQuote      = &finding{"csv-syntax", "a quoted cell is not closed, or something follows its closing quote", `close it with ", and double quotes inside: "19"" rack"`}
)

// cell reads up to the separator, or the end of the line or text.
func (r *reader) cell() (c Cell, wrong *finding) {
	c.Start = r.at
	r.skipBlanks()
	if r.at < len(r.text) && r.text[r.at] == '"' {
		return r.quoted(c)
	}
	for ; r.at < len(r.text) && r.text[r.at] != r.separator && r.text[r.at] != '\n'; r.at++ {
		if r.text[r.at] == '"' {
			wrong = bareQuote
		}
	}
	c.End = r.at
	if r.at > c.Start && r.text[r.at-1] == '\r' && (r.at == len(r.text) || r.text[r.at] == '\n') {
		c.End--
	}
	rest := strings.TrimLeftFunc(r.text[c.Start:c.End], isBlank)
	c.Text = strings.TrimRightFunc(rest, isBlank)
	c.TextStart = c.End - len(rest)
	c.TextEnd = c.TextStart + len(c.Text)
	return c, wrong
}

// quoted reads a cell from its first quote on.
func (r *reader) quoted(c Cell) (Cell, *finding) {
	c.Quoted, c.TextStart = true, r.at
	for again := true; again; again = r.at < len(r.text) && r.text[r.at] == '"' { // a doubled quote
		r.at++
		end := strings.IndexByte(r.text[r.at:], '"')
		if end < 0 {
			r.at = len(r.text)
			return c, openQuote
		}
		r.at += end + 1
	}
	c.TextEnd = r.at
	c.Text = TrimCell(unquote.Replace(r.text[c.TextStart+1 : c.TextEnd-1]))
	r.skipBlanks()
	c.End = r.at
	if rest := r.text[r.at:]; rest == "\r" || strings.HasPrefix(rest, "\r\n") {
		r.at++
	}
	if r.at < len(r.text) && r.text[r.at] != r.separator && r.text[r.at] != '\n' {
		return c, openQuote
	}
	return c, nil
}

var unquote = strings.NewReplacer(`""`, `"`, "\r\n", "\n")

func (r *reader) skipBlanks() {
	for r.at < len(r.text) && (r.text[r.at] == ' ' || r.text[r.at] == '\t' && r.separator != '\t') {
		r.at++
	}
}

// TrimCell removes white space and invisible characters around a cell.
func TrimCell(text string) string { return strings.TrimFunc(text, isBlank) }

// isBlank reports whether a character is white space or invisible: text copied from web pages brings
// zero-width characters along.
func isBlank(char rune) bool {
	return unicode.IsSpace(char) || strings.ContainsRune("\u200b\u200c\u200d\u2060\ufeff", char)
}
