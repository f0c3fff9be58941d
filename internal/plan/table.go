package plan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"k3splan/internal/diag"
)

// schema says which columns of a table k3splan knows. All others are the user's own.
type schema struct {
	file string
	// sheet is the table's name in a workbook
	sheet    string
	required []string
	optional []string
	// keepCase: columns whose case means something outside of k3splan
	keepCase []string
	// reserved: names of the data that k3splan itself puts beside the columns (see Model)
	reserved []string
	// synonyms: what people call a column that k3splan knows under another name
	synonyms map[string]string
}

func (s schema) known() []string { return slices.Concat(s.required, s.optional) }

// KnowsColumn tells whether a column of HostsFile or K3sFile means something to k3splan; all others
// are the user's own.
func KnowsColumn(file, column string) bool {
	return slices.ContainsFunc([]schema{hostsSchema, k3sSchema}, func(s schema) bool {
		return s.file == file && slices.Contains(s.known(), column)
	})
}

// table is a table whose header and row lengths are right. Cells have lost surrounding white space
// and keep their case.
type table struct {
	schema
	columns []string
	rows    []row
	// header is the line of the header
	header int
	// reader is for the text of a file, encoding how that stands in it
	reader   *reader
	encoding encoding
	// inSheet: the table is a sheet of a workbook, and file names that
	inSheet bool
	// lost are the cells of a sheet whose text nobody can know, as fileAt names them; what follows
	// from that is not reported
	lost map[string]bool
	// complete is false if a row was lost, so that nothing can be said about what is missing
	complete bool
	problems diag.Problems
}

// row is one record; cells are in the order of the table's columns.
type row struct {
	table *table
	line  int
	cells []string
}

// has tells whether the table has the column.
func (t *table) has(column string) bool { return slices.Contains(t.columns, column) }

// own are the user's columns, sorted.
func (t *table) own() []string {
	var own []string
	for _, column := range t.columns {
		if column != "" && !slices.Contains(t.known(), column) {
			own = append(own, column)
		}
	}
	slices.Sort(own)
	return own
}

func (t *table) report(severity diag.Severity, line int, column, value, code, message, hint string) {
	if t.lost[t.fileAt(line, column)] {
		return
	}
	t.problems = append(t.problems, diag.Problem{
		File: t.fileAt(line, column), Line: line, Column: column, Value: value,
		Severity: severity, Code: code, Message: message, Hint: hint,
	})
}

// fileAt is the file of a problem in a line and column: in a sheet it names the cell, the row's
// first one if there is no such column.
func (t *table) fileAt(line int, column string) string {
	if !t.inSheet || line == 0 {
		return t.file
	}
	found := 0
	for i, name := range t.columns {
		// what stands in the header twice is wrong the second time, but only there
		if column != "" && name == column && (found == 0 || line == t.header) {
			found = i
		}
	}
	return t.file + "!" + cellName(found, line)
}

// place is how a message names a cell: "plans/hosts.csv:3", "plans/cluster.xlsx!hosts!A3".
func (t *table) place(line int, column string) string {
	return diag.Problem{File: t.fileAt(line, column), Line: line}.Place()
}

// raw is the cell as it stands in the file, "" if the table has no such column.
func (r row) raw(column string) string {
	if i := slices.Index(r.table.columns, column); i >= 0 && i < len(r.cells) {
		return r.cells[i]
	}
	return ""
}

// fail reports an error about one cell, or about the part of a cell given as value.
func (r row) fail(column, value, code, message, hint string) {
	r.table.report(diag.Error, r.line, column, value, code, message, hint)
}

func (r row) warn(column, value, code, message, hint string) {
	r.table.report(diag.Warning, r.line, column, value, code, message, hint)
}

// normalized gives header and rows in the form that all of k3splan works with: lower case, except
// where case means something. It implements gocsv.CSVReader.
type normalized struct {
	*table
	next int
}

func (n *normalized) Read() ([]string, error) {
	defer func() { n.next++ }()
	switch {
	case n.next == 0:
		return n.columns, nil
	case n.next > len(n.rows):
		return nil, io.EOF
	}
	cells := slices.Clone(n.rows[n.next-1].cells)
	for i, column := range n.columns {
		if !slices.Contains(n.keepCase, column) {
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

// readTable reads a table as people's programs write them: UTF-8 with or without byte-order mark,
// UTF-16 with one, any line end, separated by comma, semicolon or tab, with comments, blank lines
// and rows of empty cells.
func readTable(fsys fs.FS, s schema) *table {
	t := &table{schema: s}
	if t.read(fsys) {
		t.take(t.split())
		t.reportFormulaErrors()
	}
	return t
}

// take checks header and rows; complete is false if there are more records than these, which could
// not be read.
func (t *table) take(records []record, complete bool) {
	t.complete = complete
	if len(records) == 0 {
		if complete {
			t.report(diag.Error, 0, "", "", "column-missing", "there is no header", t.headerHint())
			t.complete = false
		}
		return
	}
	if !t.takeHeader(records[0]) {
		t.complete = false
		return
	}
	t.takeRows(records[1:])
}

func (t *table) headerHint() string {
	if t.inSheet {
		return "let the first row name the columns: " + strings.Join(t.required, ", ") + "; a title above begins with #"
	}
	return "let the first line name the columns, separated by comma, semicolon or tab: " + strings.Join(t.required, ",")
}

// read prepares the reading of the file's text.
func (t *table) read(fsys fs.FS) (ok bool) {
	data, problem := readFile(fsys, t.file)
	if problem != nil {
		t.problems = append(t.problems, *problem)
		return false
	}
	if bytes.HasPrefix(data, []byte("PK\x03\x04")) {
		t.report(diag.Error, 0, "", "", "csv-syntax", "this is a spreadsheet program's own file, not CSV", saveAsUTF8)
		return false
	}
	text, encoding := decode(data)
	for i, char := range text {
		line := func() int { return 1 + strings.Count(text[:i], "\n") }
		switch {
		case char == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)):
			t.report(diag.Error, line(), "", "", "csv-syntax", "a character here is not "+encoding.name, saveAsUTF8)
			return false
		case char == 0:
			t.report(diag.Error, line(), "", "", "csv-syntax", "there is a null byte: UTF-16 without byte-order mark, or not a text", saveAsUTF8)
			return false
		case char != '\n' && char != '\t' && char != '\r' && unicode.IsControl(char):
			t.report(diag.Error, line(), "", "", "csv-syntax", fmt.Sprintf("there is a control character (U+%04X)", char),
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

const saveAsUTF8 = "save the table as “CSV UTF-8”"

// readFile gives a file of the project, or the problem that keeps it from being read.
func readFile(fsys fs.FS, file string) ([]byte, *diag.Problem) {
	data, err := fs.ReadFile(fsys, file)
	if err == nil {
		return data, nil
	}
	problem := &diag.Problem{File: file, Severity: diag.Error, Code: "file-unreadable"}
	if errors.Is(err, fs.ErrNotExist) {
		problem.Code, problem.Message, problem.Hint = "file-missing", "there is no such file", "k3splan setup writes one to start from"
		return nil, problem
	}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		problem.Hint = hinted.Hint()
	}
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		err = pathError.Err // without the machine's path
	}
	problem.Message = "the file cannot be read: " + err.Error()
	return nil, problem
}

// record is a Record without its places, or a row of a sheet.
type record struct {
	line  int
	cells []string
	// lost are the cells of a sheet whose text nobody can know; cells has "" for them
	lost []sheetCell
	// numbers are the columns of a sheet's cells that hold a number
	numbers []int
}

// split gives the records that are not empty; complete is false if one could not be read.
func (t *table) split() (records []record, complete bool) {
	complete = true
	for r, wrong := range t.reader.records() {
		if wrong != nil {
			t.report(diag.Error, r.Line, "", "", wrong.code, wrong.message, wrong.hint)
			complete = false
			continue
		}
		cells := make([]string, len(r.Cells))
		for i, c := range r.Cells {
			cells[i] = c.Text
		}
		records = append(records, record{line: r.Line, cells: cells})
	}
	return records, complete
}

// formulaError is what a spreadsheet program writes for a formula that failed; as the first cell of
// a row it would make the row a comment.
var formulaError = regexp.MustCompile(`^"?(#NAME\?|#REF!|#N/A|#VALUE!|#DIV/0!|#NULL!|#NUM!)`)

func (t *table) reportFormulaErrors() {
	line := 0
	for text := range strings.Lines(t.reader.text) {
		line++
		if m := formulaError.FindStringSubmatch(text); m != nil {
			t.report(diag.Error, line, "", m[1], "csv-syntax",
				"a formula of the spreadsheet failed here", "correct it there and save the table again")
			t.complete = false
		}
	}
}

// findSeparator gives the separator by which the header names the most known columns.
func (t *table) findSeparator() byte {
	best, most := byte(','), -1
	for _, separator := range []byte(separators) {
		reader := *t.reader
		reader.separator = separator
		for header, wrong := range reader.records() {
			known := 0
			for _, cell := range header.Cells {
				if slices.Contains(t.known(), strings.ToLower(cell.Text)) {
					known++
				}
			}
			if wrong == nil && known > most {
				best, most = separator, known
			}
			break
		}
	}
	return best
}

// takeHeader checks the names of the columns; false means that the rows cannot be understood.
func (t *table) takeHeader(header record) bool {
	t.header = header.line
	for _, name := range header.cells {
		t.columns = append(t.columns, strings.ToLower(name))
	}
	var missing []string
	for _, column := range t.required {
		if !t.has(column) {
			missing = append(missing, column)
		}
	}
	if len(missing) == len(t.required) {
		t.report(diag.Error, header.line, "", "", "column-missing", "there is no header: this line names none of the columns",
			t.headerHint())
		return false
	}
	seen := map[string]bool{}
	for i, column := range t.columns {
		switch {
		case column == "":
			continue
		case seen[column]:
			t.report(diag.Error, header.line, column, header.cells[i], "column-duplicate", "the column stands in the header twice",
				"rename or delete one of the two")
		case slices.Contains(t.reserved, column) || column == "_module" || column == "_type": // of NixOS's module system
			t.report(diag.Error, header.line, column, header.cells[i], "column-reserved", "k3splan uses this name itself",
				"give your own column another name")
		case strings.ContainsFunc(column, unicode.IsControl):
			t.report(diag.Error, header.line, column, header.cells[i], "column-invalid", "there is a line break or tab in the name of the column",
				"write the name in one line")
		}
		seen[column] = true
	}
	misspelt := map[string]bool{}
	for _, column := range missing {
		hint := "add the column to the header"
		for _, own := range slices.Sorted(maps.Keys(seen)) {
			if !slices.Contains(t.known(), own) && !misspelt[own] && (t.synonyms[own] == column || Nearest(own, t.known()) == column) {
				misspelt[own] = true
				hint = fmt.Sprintf("rename the column %q to %q", own, column)
				break
			}
		}
		t.report(diag.Error, header.line, column, "", "column-missing", "the column is missing", hint)
	}
	for i, column := range t.columns {
		if column == "" || misspelt[column] || slices.Contains(t.known(), column) {
			continue
		}
		if nearest := Nearest(column, t.known()); nearest != "" && !seen[nearest] {
			t.report(diag.Warning, header.line, column, header.cells[i], "column-suspicious", "k3splan does not know this column and takes it for one of your own",
				DidYouMean(column, t.known()))
		}
	}
	return !slices.ContainsFunc(t.problems, func(p diag.Problem) bool { return p.Code == "column-duplicate" })
}

// takeRows checks the number of cells of each row.
func (t *table) takeRows(records []record) {
	var wrong []record
	unnamed := map[int]bool{}
	for _, r := range records {
		for len(r.cells) > len(t.columns) && r.cells[len(r.cells)-1] == "" {
			r.cells = r.cells[:len(r.cells)-1]
		}
		if len(r.cells) != len(t.columns) {
			wrong = append(wrong, r)
			continue
		}
		if slices.EqualFunc(r.cells, t.columns, strings.EqualFold) {
			t.report(diag.Error, r.line, "", "", "csv-syntax", "the header stands here again", "delete the line")
			continue
		}
		for i, column := range t.columns {
			if column == "" && r.cells[i] != "" && !unnamed[i] {
				unnamed[i] = true
				t.report(diag.Error, r.line, "", r.cells[i], "row-length", "the cell stands in a column without a name", "name the column in the header")
				if t.inSheet {
					t.problems[len(t.problems)-1].File = t.file + "!" + cellName(i, r.line)
				}
			}
		}
		if !t.inSheet || t.reaches(r) {
			t.rows = append(t.rows, row{t, r.line, r.cells})
		}
	}
	t.reportLengths(wrong, len(records))
}

// reaches tells whether something of a sheet's row stands in the table, not only beside it.
func (t *table) reaches(r record) bool {
	for i, column := range t.columns {
		if column != "" && (r.cells[i] != "" || slices.ContainsFunc(r.lost, func(c sheetCell) bool { return c.column == i })) {
			return true
		}
	}
	return false
}

// reportLengths tells of rows with too few or too many cells. If all rows are alike, it is the
// header that is wrong.
func (t *table) reportLengths(wrong []record, rows int) {
	if len(wrong) == 0 {
		return
	}
	t.complete = false
	const hint = "an empty cell needs its separator too; a cell that holds a separator needs quotes around it"
	alike := func(r record) bool { return len(r.cells) == len(wrong[0].cells) }
	if len(wrong) == rows && rows > 2 && !slices.ContainsFunc(wrong, func(r record) bool { return !alike(r) }) {
		t.report(diag.Error, wrong[0].line, "", "", "row-length",
			fmt.Sprintf("this and all other rows have %d cells, the header has %d", len(wrong[0].cells), len(t.columns)), "correct the header")
		return
	}
	for _, r := range wrong {
		t.report(diag.Error, r.line, "", "", "row-length",
			fmt.Sprintf("the row has %d cells, the header has %d", len(r.cells), len(t.columns)), hint)
	}
}
