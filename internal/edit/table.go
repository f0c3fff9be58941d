package edit

import (
	"io/fs"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"k3splan/internal/plan"
	"k3splan/internal/table"
)

// csvTable is a CSV table that changes.
type csvTable struct {
	table.Raw
	before table.Raw
}

// open reads a table. The error is a *Invalid if the table cannot be understood.
func open(fsys fs.FS, file string) (*csvTable, error) {
	raw, problems := plan.ReadRaw(fsys, file)
	if problems.Errors() > 0 {
		return nil, &Invalid{problems, true}
	}
	return &csvTable{raw, raw}, nil
}

// rows are the records below the header.
func (t *csvTable) rows() []table.Record { return t.Records[1:] }

// has tells whether the table has the column.
func (t *csvTable) has(column string) bool { return slices.Contains(t.Columns, column) }

// cell gives the normalized text of a cell, "" if there is no such column.
func (t *csvTable) cell(r table.Record, column string) string {
	i := slices.Index(t.Columns, column)
	if i < 0 || i >= len(r.Cells) {
		return ""
	}
	return strings.ToLower(r.Cells[i].Text)
}

// find gives the rows in whose column the value stands.
func (t *csvTable) find(column, value string) []table.Record {
	var found []table.Record
	for _, r := range t.rows() {
		if t.cell(r, column) == value {
			found = append(found, r)
		}
	}
	return found
}

// bytes are the file's bytes after all changes.
func (t *csvTable) bytes() []byte { return t.Encode(t.Text) }

// original are the bytes that the file has had.
func (t *csvTable) original() []byte { return t.before.Encode(t.before.Text) }

// changed tells whether the file is to be written.
func (t *csvTable) changed() bool { return t.Text != t.before.Text }

// replace exchanges a part of the text and reads it anew. The table must have so many records then: a
// new text can make a comment of its row.
func (t *csvTable) replace(start, end int, text string, records int) error {
	data := t.Encode(t.Text[:start] + text + t.Text[end:])
	raw, problems := plan.ReadRaw(overlay{files: map[string][]byte{t.File: data}}, t.File)
	switch {
	case problems.Errors() > 0:
		return &Invalid{problems, false}
	case len(raw.Records) != records:
		return refuse("the row would begin with # and be a comment in "+t.File, "another value in the column "+t.Columns[0])
	}
	t.Raw = raw
	return nil
}

// insert adds a row below a record, in the style of the table, and gives the line where it stands.
func (t *csvTable) insert(after table.Record, cells map[string]string) (line int, err error) {
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
	line = strings.Count(t.Text[:after.End], "\n") + 1
	eol := t.endOf(after)
	if eol == "" {
		return line + 1, t.replace(after.End, after.End, t.eol()+row, len(t.Records)+1)
	}
	return line, t.replace(after.End, after.End, row+eol, len(t.Records)+1)
}

// endOf is how the last line of a record ends; at the end of the text it need not.
func (t *csvTable) endOf(r table.Record) string {
	return t.Text[r.Cells[len(r.Cells)-1].End:r.End]
}

// eol is how lines of this text end.
func (t *csvTable) eol() string {
	if i := strings.IndexByte(t.Text, '\n'); i > 0 && t.Text[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// addColumn adds a column behind the others, empty in all rows, in the style of the last one.
func (t *csvTable) addColumn(name string) error {
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
	for i, r := range t.Records {
		f := r.Cells[last]
		text.WriteString(t.Text[at:f.End] + blanks(width, t.Text[f.Start:f.End]))
		text.WriteByte(t.Separator)
		if i == 0 {
			text.WriteString(t.write(last, name))
		} else {
			text.WriteString(t.write(last, ""))
		}
		at = f.End
	}
	return t.replace(0, len(t.Text), text.String()+t.Text[at:], len(t.Records))
}

// remove deletes a row with its line. At the end of a text without a last line end, the one before
// the row goes with it.
func (t *csvTable) remove(r table.Record) error {
	if t.endOf(r) == "" {
		before := strings.TrimSuffix(t.Text[:r.Start], "\n")
		r.Start = len(strings.TrimSuffix(before, "\r"))
	}
	return t.replace(r.Start, r.End, "", len(t.Records)-1)
}

// set writes another text into a cell.
func (t *csvTable) set(r table.Record, column, value string) error {
	i := slices.Index(t.Columns, column)
	f := r.Cells[i]
	content := value
	if f.Quoted || t.needsQuotes(i, value) {
		content = quote(value)
	}
	trail := t.Text[f.TextEnd:f.End]
	if width, ok := t.aligned(i); ok {
		trail = blanks(width, t.Text[f.Start:f.TextStart]+content)
	}
	if s, ok := t.slotOf(i); ok && written(r.Cells[i+1]) {
		return t.replace(f.TextStart, r.Cells[i+1].TextStart, content+trail+string(t.Separator)+s.lead(content+trail), len(t.Records))
	}
	return t.replace(f.TextStart, f.End, content+trail, len(t.Records))
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
func (t *csvTable) slotOf(column int) (s slot, ok bool) {
	s, onPurpose, ok := t.filled(column)
	for other := 0; ok && !onPurpose && other < len(t.Columns); other++ {
		_, varied, filled := t.filled(other)
		onPurpose = filled && varied
	}
	return s, ok && onPurpose
}

// filled is slotOf for a single column; varied tells that different numbers of blanks lead the next one.
func (t *csvTable) filled(column int) (s slot, varied, ok bool) {
	type room struct{ width, blanks int }
	var rooms []room
	for _, r := range t.Records {
		if column+1 >= len(r.Cells) {
			return s, false, false
		}
		cell, next := r.Cells[column], r.Cells[column+1]
		if column > 0 && !written(cell) || !written(next) {
			continue
		}
		lead := t.Text[next.Start:next.TextStart]
		if strings.Trim(lead, " ") != "" {
			return s, false, false
		}
		rooms = append(rooms, room{utf8.RuneCountInString(t.Text[cell.TextStart:next.TextStart]), len(lead)})
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
func written(c table.Cell) bool { return c.End > c.Start }

// blanks are what a text lacks of a width in characters.
func blanks(width int, text string) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

func quote(value string) string { return `"` + strings.ReplaceAll(value, `"`, `""`) + `"` }

func (t *csvTable) needsQuotes(column int, value string) bool {
	return strings.ContainsAny(value, "\"\r\n"+string(t.Separator)) || strings.TrimSpace(value) != value ||
		column == 0 && strings.HasPrefix(value, "#") // no comment
}

// write gives a new cell in the style of its column.
func (t *csvTable) write(column int, value string) string {
	needless, all := false, true
	leads, trails := map[string]int{}, map[string]int{}
	for _, r := range t.Records {
		for i, f := range r.Cells {
			all = all && f.Quoted
			if i == column && f.Text != "" {
				needless = needless || f.Quoted && !t.needsQuotes(i, f.Text)
				leads[t.Text[f.Start:f.TextStart]]++
				trails[t.Text[f.TextEnd:f.End]]++
			}
		}
	}
	content := value
	if all || value != "" && needless || t.needsQuotes(column, value) {
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
func (t *csvTable) aligned(column int) (width int, ok bool) {
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
func (t *csvTable) widthsOf(column int) (w widths, ok bool) {
	padded := map[int]bool{} // by width
	for i, r := range t.Records {
		if column >= len(r.Cells) {
			return w, false
		}
		cell := t.Text[r.Cells[column].Start:r.Cells[column].End]
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
	return w, len(t.Records) > 1
}
