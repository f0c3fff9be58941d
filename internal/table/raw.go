package table

import (
	"slices"

	"k3splan/internal/diag"
)

// Raw is a CSV table as it is in its file, for editing it in place.
type Raw struct {
	Schema
	// Text is that of the file in UTF-8, with lines that end in LF or CRLF.
	Text      string
	Separator byte
	// Columns are the names in the header, in lower case.
	Columns []string
	// Records are the header and all rows that are not empty, in their order.
	Records  []Record
	encoding encoding
}

// Encode returns the bytes of a file with the text, in the encoding of the table's file.
func (t Raw) Encode(text string) []byte { return t.encoding.encode(text) }

// ReadRaw reads a CSV table for editing. A table with errors of form (not of meaning) cannot be edited:
// they are returned instead.
func ReadRaw(data []byte, s Schema) (Raw, diag.Problems) {
	t := ReadCSV(data, s)
	if t.Errors() > 0 {
		return Raw{}, t.Problems()
	}
	raw := Raw{Schema: s, Text: t.reader.text, Separator: t.reader.separator, Columns: t.Columns, encoding: t.encoding}
	for r := range t.reader.records() {
		r.Cells = slices.Clone(r.Cells)
		raw.Records = append(raw.Records, r)
	}
	return raw, nil
}
