package plan

import (
	"io/fs"
	"slices"

	"k3splan/internal/diag"
)

// RawTable is a CSV table as it stands in its file, for a program that edits it in place.
type RawTable struct {
	File string
	// Text is that of the file in UTF-8, its lines ending in LF or CRLF.
	Text      string
	Separator byte
	// Columns are the names in the header, in lower case.
	Columns []string
	// Records are the header and all rows that are not empty, in their order.
	Records  []Record
	encoding encoding
}

// Encode gives the bytes of a file with a text, in the encoding of the table's.
func (t RawTable) Encode(text string) []byte { return t.encoding.encode(text) }

// ReadRaw reads HostsFile or K3sFile. A table with problems of form (not of meaning) cannot be
// edited: they are given instead.
func ReadRaw(fsys fs.FS, file string) (RawTable, diag.Problems) {
	s := hostsSchema
	if file == K3sFile {
		s = k3sSchema
	}
	t := readTable(fsys, s)
	if t.problems.Errors() > 0 {
		return RawTable{}, t.problems
	}
	raw := RawTable{File: file, Text: t.reader.text, Separator: t.reader.separator, Columns: t.columns, encoding: t.encoding}
	for r := range t.reader.records() {
		r.Cells = slices.Clone(r.Cells)
		raw.Records = append(raw.Records, r)
	}
	return raw, nil
}
