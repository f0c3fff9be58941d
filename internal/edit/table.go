package edit

import (
	"bytes"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"k3splan/internal/plan"
)

// table is the text of a CSV file, cut into its records and cells.
type table struct {
	plan.RawTable
	encoding encoding
	text     string
	original []byte
	// records are the header and the rows that are not empty, as in RawTable
	records []record
}

// record is a part of the text: text[start:end], of which the last len(eol) bytes end the line.
type record struct {
	start, end int
	eol        string
	fields     []field
}

// field is a part of the text between separators: lead, content and trail, where the content of a
// quoted cell has its quotes around it.
type field struct {
	start, contentStart, contentEnd, end int
	quoted                               bool
	value                                string
}

// open reads a table. The error is a *Invalid if the table cannot be understood.
func open(fsys fs.FS, file string) (*table, error) {
	data, err := fs.ReadFile(fsys, file)
	if err == nil {
		fsys = overlay{fsys, map[string][]byte{file: data}} // whoever writes it meanwhile
	}
	if _, problems := plan.ReadRaw(fsys, file); problems.Errors() > 0 {
		return nil, &Invalid{problems, true}
	}
	t := &table{original: data, RawTable: plan.RawTable{File: file}}
	var same bool
	if t.text, t.encoding, same = decode(data); !same {
		return nil, refuse(file+" is not proper UTF-8 or UTF-16, and would not stay as it is", "save the table as “CSV UTF-8”")
	}
	return t, t.scan()
}

// scan cuts the text into pieces. The plan's own reader decides what a record is: if it sees
// other cells, nothing is edited.
func (t *table) scan() error {
	raw, problems := plan.ReadRaw(overlay{files: map[string][]byte{t.File: t.bytes()}}, t.File)
	if problems.Errors() > 0 {
		return &Invalid{problems, true}
	}
	t.RawTable = raw
	t.records = cut(t.text, raw.Separator)
	same := slices.EqualFunc(t.records, raw.Records, func(r record, want plan.RawRecord) bool {
		return slices.EqualFunc(r.fields, want.Cells, func(f field, cell string) bool { return f.value == cell })
	})
	if !same {
		return refuse(t.File+" is written in a way that cannot be edited in place", "edit it in a spreadsheet program")
	}
	return nil
}

var sepLine = regexp.MustCompile(`^"?(?i:sep)=."?\r?\n`)

// cut finds the records that are neither empty nor comments.
func cut(text string, separator byte) (records []record) {
	at := len(sepLine.FindString(text))
	for at < len(text) {
		if text[at] == '#' || text[at] == '\n' || strings.HasPrefix(text[at:], "\r\n") {
			at = lineEnd(text, at)
			continue
		}
		r := record{start: at}
		var cells []string
		for {
			f := cutField(text, at, separator)
			r.fields = append(r.fields, f)
			cells = append(cells, f.value)
			at = f.end
			if at >= len(text) || text[at] != separator {
				break
			}
			at++
		}
		r.end = lineEnd(text, at)
		r.eol = text[at:r.end]
		at = r.end
		if r.eol == "\r" { // behind the last cell of the text, where it ends no line
			r.eol, r.end = "", r.end-1
		}
		if strings.Join(cells, "") != "" && !plan.IsQuotedComment(cells) {
			records = append(records, r)
		}
	}
	return records
}

// lineEnd is where the next line begins.
func lineEnd(text string, at int) int {
	if i := strings.IndexByte(text[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(text)
}

// cutField finds the cell that begins at a place; its end is the separator, the end of the line or
// that of the text.
func cutField(text string, at int, separator byte) field {
	f := field{start: at}
	isBlank := func(i int) bool { return i < len(text) && (text[i] == ' ' || text[i] == '\t' && separator != '\t') }
	for isBlank(at) {
		at++
	}
	f.contentStart = at
	if at < len(text) && text[at] == '"' {
		f.quoted = true
		for at++; at < len(text); at++ {
			if text[at] != '"' {
				continue
			}
			if at+1 < len(text) && text[at+1] == '"' {
				at++
				continue
			}
			at++
			break
		}
		f.contentEnd = at
		inside := strings.TrimSuffix(text[f.contentStart+1:at], `"`)
		f.value = plan.TrimCell(strings.NewReplacer(`""`, `"`, "\r\n", "\n").Replace(inside))
	}
	for at < len(text) && text[at] != separator && text[at] != '\n' {
		at++
	}
	f.end = at
	if f.end > f.start && (at == len(text) || text[at] == '\n') && text[at-1] == '\r' {
		f.end-- // a part of the line's end
	}
	if !f.quoted {
		f.value = plan.TrimCell(text[f.start:f.end])
		if f.value == "" {
			f.contentStart, f.contentEnd = f.end, f.end
		} else {
			f.contentStart = f.start + strings.Index(text[f.start:f.end], f.value)
			f.contentEnd = f.contentStart + len(f.value)
		}
	}
	return f
}

// rows are the records below the header.
func (t *table) rows() []record { return t.records[1:] }

// has tells whether the table has the column.
func (t *table) has(column string) bool { return slices.Contains(t.Columns, column) }

// cell gives the normalized text of a cell, "" if there is no such column.
func (t *table) cell(r record, column string) string {
	i := slices.Index(t.Columns, column)
	if i < 0 || i >= len(r.fields) {
		return ""
	}
	return strings.ToLower(r.fields[i].value)
}

// find gives the rows in whose column the value stands.
func (t *table) find(column, value string) []record {
	var found []record
	for _, r := range t.rows() {
		if t.cell(r, column) == value {
			found = append(found, r)
		}
	}
	return found
}

// bytes are the file's bytes after all changes.
func (t *table) bytes() []byte { return t.encoding.encode(t.text) }

// changed tells whether the file is to be written.
func (t *table) changed() bool { return !bytes.Equal(t.bytes(), t.original) }

// replace exchanges a part of the text and reads it anew.
func (t *table) replace(start, end int, text string) error {
	t.text = t.text[:start] + text + t.text[end:]
	return t.scan()
}

// insert adds a row below a record, in the style of the table, and gives the line where it stands.
func (t *table) insert(after record, cells map[string]string) (line int, err error) {
	fields := make([]string, len(t.Columns))
	for i, column := range t.Columns {
		fields[i] = t.write(i, cells[column])
		if i == 0 {
			continue
		}
		if s, ok := t.slotOf(i - 1); ok && (cells[column] != "" || i < len(fields)-1) {
			fields[i] = s.lead(strings.TrimLeft(fields[i-1], " ")) + strings.TrimLeft(fields[i], " ")
		}
	}
	row := strings.Join(fields, string(t.Separator))
	if strings.HasPrefix(row, "#") {
		row = `"` + strings.ReplaceAll(fields[0], `"`, `""`) + `"` + row[len(fields[0]):] // no comment
	}
	line = strings.Count(t.text[:after.end], "\n") + 1
	if after.eol == "" {
		return line + 1, t.replace(after.end, after.end, t.eol()+row)
	}
	return line, t.replace(after.end, after.end, row+after.eol)
}

// eol is how lines of this text end.
func (t *table) eol() string {
	if i := strings.IndexByte(t.text, '\n'); i > 0 && t.text[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// addColumn adds a column behind the others, empty in all rows, in the style of the last one.
func (t *table) addColumn(name string) error {
	last := len(t.Columns) - 1
	width := 0
	for column := range last {
		if _, ok := t.aligned(column); ok {
			w, _ := t.widthsOf(last)
			width = w.most
		}
	}
	var text strings.Builder
	at := 0
	for i, r := range t.records {
		f := r.fields[last]
		text.WriteString(t.text[at:f.end] + blanks(width, t.text[f.start:f.end]))
		text.WriteByte(t.Separator)
		if i == 0 {
			text.WriteString(t.write(last, name))
		} else {
			text.WriteString(t.write(last, ""))
		}
		at = f.end
	}
	return t.replace(0, len(t.text), text.String()+t.text[at:])
}

// remove deletes a row with its line. At the end of a text without a last line end, the one before
// the row goes with it.
func (t *table) remove(r record) error {
	if r.eol == "" {
		before := strings.TrimSuffix(t.text[:r.start], "\n")
		r.start = len(strings.TrimSuffix(before, "\r"))
	}
	return t.replace(r.start, r.end, "")
}

// set writes another text into a cell.
func (t *table) set(r record, column, value string) error {
	i := slices.Index(t.Columns, column)
	f := r.fields[i]
	content := value
	if f.quoted || t.needsQuotes(value) {
		content = quote(value)
	}
	trail := t.text[f.contentEnd:f.end]
	if width, ok := t.aligned(i); ok {
		trail = blanks(width, t.text[f.start:f.contentStart]+content)
	}
	if s, ok := t.slotOf(i); ok && r.fields[i+1].written() {
		return t.replace(f.contentStart, r.fields[i+1].contentStart, content+trail+string(t.Separator)+s.lead(content+trail))
	}
	return t.replace(f.contentStart, f.end, content+trail)
}

// slot is the room in characters from where the text of a cell begins to where the next one does, in a
// table whose owner has put blanks behind the separators so that the columns stand below each other.
type slot struct {
	width int
	// least is the number of blanks where the text is too long for it
	least int
}

// lead is what stands between a cell and the text of the next one, besides the separator.
func (s slot) lead(cell string) string {
	return strings.Repeat(" ", max(s.least, s.width-1-utf8.RuneCountInString(cell)))
}

// slotOf looks at a column and the blanks that lead the next one; ok is false if those do not fill it up
// to one width. That they do so on purpose is shown by different numbers of them, there or elsewhere.
func (t *table) slotOf(column int) (s slot, ok bool) {
	s, onPurpose, ok := t.filled(column)
	for other := 0; ok && !onPurpose && other < len(t.Columns); other++ {
		_, varied, filled := t.filled(other)
		onPurpose = filled && varied
	}
	return s, ok && onPurpose
}

// filled is slotOf for a single column; varied tells that different numbers of blanks lead the next one.
func (t *table) filled(column int) (s slot, varied, ok bool) {
	type room struct{ width, blanks int }
	var rooms []room
	for _, r := range t.records {
		if column+1 >= len(r.fields) {
			return s, false, false
		}
		cell, next := r.fields[column], r.fields[column+1]
		if column > 0 && !cell.written() || !next.written() {
			continue
		}
		lead := t.text[next.start:next.contentStart]
		if strings.Trim(lead, " ") != "" {
			return s, false, false
		}
		rooms = append(rooms, room{utf8.RuneCountInString(t.text[cell.contentStart:next.contentStart]), len(lead)})
	}
	if len(rooms) < 2 {
		return s, false, false
	}
	fewest := rooms[0].blanks
	s.width = rooms[0].width
	for _, r := range rooms {
		s.width, fewest = min(s.width, r.width), min(fewest, r.blanks)
	}
	s.least = min(fewest, 1)
	for _, r := range rooms {
		varied = varied || r.blanks > fewest
		if r.width == s.width {
			continue
		}
		if r.blanks > max(fewest, 1) {
			return s, false, false
		}
		s.least = r.blanks
	}
	return s, varied, true
}

// written tells whether anything stands there, if only blanks.
func (f field) written() bool { return f.end > f.start }

// blanks are what a text lacks of a width in characters.
func blanks(width int, text string) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

func quote(value string) string { return `"` + strings.ReplaceAll(value, `"`, `""`) + `"` }

func (t *table) needsQuotes(value string) bool {
	return strings.ContainsAny(value, "\"\r\n"+string(t.Separator)) || strings.TrimSpace(value) != value
}

// write gives a new cell in the style of its column.
func (t *table) write(column int, value string) string {
	needless, all := false, true
	leads, trails := map[string]int{}, map[string]int{}
	for _, r := range t.records {
		for i, f := range r.fields {
			all = all && f.quoted
			if i == column && f.value != "" {
				needless = needless || f.quoted && !t.needsQuotes(f.value)
				leads[t.text[f.start:f.contentStart]]++
				trails[t.text[f.contentEnd:f.end]]++
			}
		}
	}
	content := value
	if all || value != "" && needless || t.needsQuotes(value) {
		content = quote(value)
	}
	lead, trail := "", ""
	if content != "" {
		lead, trail = mostCommon(leads), mostCommon(trails)
	}
	if width, ok := t.aligned(column); ok {
		trail = blanks(width, lead+content)
	}
	return lead + content + trail
}

// mostCommon gives the text that was counted most, the first of several.
func mostCommon(count map[string]int) string {
	best := ""
	for _, text := range slices.Sorted(maps.Keys(count)) {
		if count[text] > count[best] {
			best = text
		}
	}
	return best
}

// aligned gives the width in characters to which the owner of the table fills up a column with
// blanks, so that the columns stand below each other. Texts that are too long for it stand out. Where
// a column needs no blanks, the others tell.
func (t *table) aligned(column int) (width int, ok bool) {
	w, ok := t.widthsOf(column)
	padded := w.padded
	for other := 0; ok && !padded && column < len(t.Columns)-1 && other < len(t.Columns); other++ {
		o, otherOK := t.widthsOf(other)
		padded = otherOK && o.padded && o.least == o.most
	}
	return w.least, ok && padded
}

// widths are those of the cells of a column, in characters.
type widths struct {
	least, most int
	// padded: cells of the least width end in blanks
	padded bool
}

// widthsOf looks at a column; ok is false if blanks do not fill up its cells to one width.
func (t *table) widthsOf(column int) (w widths, ok bool) {
	padded := map[int]bool{} // by width
	for i, r := range t.records {
		if column >= len(r.fields) {
			return w, false
		}
		cell := t.text[r.fields[column].start:r.fields[column].end]
		width := utf8.RuneCountInString(cell)
		if w.most = max(w.most, width); i == 0 || width < w.least {
			w.least = width
		}
		padded[width] = padded[width] || strings.HasSuffix(cell, " ")
	}
	for width, blank := range padded {
		if blank && width != w.least {
			return w, false
		}
	}
	w.padded = padded[w.least]
	return w, len(t.records) > 1
}
