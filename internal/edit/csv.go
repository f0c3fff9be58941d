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

// csvTable is a CSV table that is edited in place: what does not change keeps its bytes.
type csvTable struct {
	table.Raw
	before table.Raw
}

// open reads a table. The error is an *Invalid if the table cannot be understood.
func open(fsys fs.FS, file string) (*csvTable, error) {
	raw, problems := plan.ReadRaw(fsys, file)
	if problems.Errors() > 0 {
		return nil, &Invalid{problems, true}
	}
	return &csvTable{raw, raw}, nil
}

func (t *csvTable) name() string             { return t.File }
func (t *csvTable) columns() []string        { return t.Columns }
func (t *csvTable) knows(column string) bool { return t.Knows(column) }
func (t *csvTable) rows() int                { return len(t.Records) - 1 }
func (t *csvTable) line(row int) int         { return t.Records[row+1].Line }
func (t *csvTable) changed() bool            { return t.Text != t.before.Text }

func (t *csvTable) texts() (before, after string) {
	lines := strings.NewReplacer("\r\n", "\n")
	return lines.Replace(t.before.Text), lines.Replace(t.Text)
}

func (t *csvTable) cells(row int) []string {
	var texts []string
	for _, c := range t.Records[row+1].Cells {
		texts = append(texts, c.Text)
	}
	return texts
}

func (t *csvTable) cell(row int, column string) string {
	i := slices.Index(t.Columns, column)
	if r := t.Records[row+1]; i >= 0 && i < len(r.Cells) {
		return strings.ToLower(r.Cells[i].Text)
	}
	return ""
}

// bytes returns the file after all edits, original before them.
func (t *csvTable) bytes() []byte    { return t.Encode(t.Text) }
func (t *csvTable) original() []byte { return t.before.Encode(t.before.Text) }

// splice is a part of the text that is replaced.
type splice struct {
	start, end int
	text       string
}

// apply makes splices, in the order of the text, and reads the text again. The table must have so many
// rows then: a new text can turn its row into a comment.
func (t *csvTable) apply(rows int, splices ...splice) error {
	var text strings.Builder
	at := 0
	for _, s := range splices {
		text.WriteString(t.Text[at:s.start] + s.text)
		at = s.end
	}
	return t.read(rows, text.String()+t.Text[at:])
}

func (t *csvTable) read(rows int, text string) error {
	raw, problems := table.ReadRaw(t.Encode(text), t.Schema)
	switch {
	case problems.Errors() > 0:
		return &Invalid{problems, false}
	case len(raw.Records) != rows+1:
		return refuse("the row would begin with # and be a comment in "+t.File, "another value in the column "+t.Columns[0])
	}
	t.Raw = raw
	return nil
}

func (t *csvTable) insert(after int, cells map[string]string) (line int, err error) {
	above := t.Records[after+1]
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
	line = strings.Count(t.Text[:above.End], "\n") + 1
	eol := t.endOf(above)
	if eol == "" {
		return line + 1, t.apply(t.rows()+1, splice{above.End, above.End, t.eol() + row})
	}
	return line, t.apply(t.rows()+1, splice{above.End, above.End, row + eol})
}

// endOf returns the line end of a record, which may be missing at the end of the text.
func (t *csvTable) endOf(r table.Record) string {
	return t.Text[r.Cells[len(r.Cells)-1].End:r.End]
}

// eol returns the line end of this text.
func (t *csvTable) eol() string {
	if i := strings.IndexByte(t.Text, '\n'); i > 0 && t.Text[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

func (t *csvTable) addColumn(name string) error {
	last := len(t.Columns) - 1
	width := 0
	for column := range last {
		if _, ok := t.aligned(column); ok {
			w, _ := t.widthsOf(last)
			width = w.most
		}
	}
	splices := make([]splice, len(t.Records))
	for i, r := range t.Records {
		f := r.Cells[last]
		cell := ""
		if i == 0 {
			cell = name
		}
		splices[i] = splice{f.End, f.End, blanks(width, t.Text[f.Start:f.End]) + string(t.Separator) + t.write(last, cell)}
	}
	return t.apply(t.rows(), splices...)
}

// remove deletes rows with their lines. At the end of a text without a last line end, the one before the
// row is deleted instead.
func (t *csvTable) remove(rows []int) error {
	var splices []splice
	noEnd := false
	for _, row := range rows {
		r := t.Records[row+1]
		noEnd = t.endOf(r) == ""
		splices = append(splices, splice{r.Start, r.End, ""})
	}
	var text strings.Builder
	at := 0
	for _, s := range splices {
		text.WriteString(t.Text[at:s.start])
		at = s.end
	}
	left := text.String()
	if noEnd {
		left = strings.TrimSuffix(strings.TrimSuffix(left, "\n"), "\r")
	}
	return t.read(t.rows()-len(rows), left+t.Text[at:])
}

func (t *csvTable) set(rows []int, column, value string) error {
	i := slices.Index(t.Columns, column)
	width, aligned := t.aligned(i)
	slot, inSlot := t.slotOf(i)
	splices := make([]splice, len(rows))
	for n, row := range rows {
		r := t.Records[row+1]
		f := r.Cells[i]
		content := value
		if f.Quoted || t.needsQuotes(i, value) {
			content = table.Quote(value)
		}
		trail := t.Text[f.TextEnd:f.End]
		if aligned {
			trail = blanks(width, t.Text[f.Start:f.TextStart]+content)
		}
		splices[n] = splice{f.TextStart, f.End, content + trail}
		if inSlot && written(r.Cells[i+1]) {
			splices[n] = splice{f.TextStart, r.Cells[i+1].TextStart, content + trail + string(t.Separator) + slot.lead(content+trail)}
		}
	}
	return t.apply(t.rows(), splices...)
}

// slot is the distance in characters from the beginning of a cell's text to that of the next one, in a
// table whose owner aligns the columns by blanks after the separators.
type slot struct {
	width int
	// least is the number of blanks where the text is too long for it
	least int
}

// lead returns the blanks between a cell's separator and the text of the next one.
func (s slot) lead(cell string) string {
	return strings.Repeat(" ", max(s.least, s.width-1-utf8.RuneCountInString(cell)))
}

// slotOf looks at a column and the blanks before the next one; ok is false if those do not fill it up to one
// width. Different numbers of blanks, there or elsewhere, show that they do so on purpose.
func (t *csvTable) slotOf(column int) (s slot, ok bool) {
	s, onPurpose, ok := t.filled(column)
	for other := 0; ok && !onPurpose && other < len(t.Columns); other++ {
		_, varied, filled := t.filled(other)
		onPurpose = filled && varied
	}
	return s, ok && onPurpose
}

// filled is slotOf for a single column; varied means that the numbers of blanks differ.
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

// written reports whether the cell has any characters, if only blanks.
func written(c table.Cell) bool { return c.End > c.Start }

// blanks returns what a text lacks of a width in characters.
func blanks(width int, text string) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

func (t *csvTable) needsQuotes(column int, value string) bool {
	return table.NeedsQuotes(value, t.Separator) ||
		column == 0 && strings.HasPrefix(value, "#") // or it would begin a comment
}

// write returns a new cell in the style of its column.
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
		content = table.Quote(value)
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

// mostCommon returns the text with the highest count, the first of several.
func mostCommon(count map[string]int) string {
	best := ""
	for _, text := range slices.Sorted(maps.Keys(count)) {
		if count[text] > count[best] {
			best = text
		}
	}
	return best
}

// aligned returns the width in characters to which the owner of the table fills up a column with blanks, so
// that the columns are aligned; longer texts exceed it. Where a column needs no blanks, the others decide.
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
