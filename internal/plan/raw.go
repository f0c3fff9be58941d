package plan

import (
	"io/fs"
	"strings"
)

// RawTable is a CSV table as it stands in its file, for a program that edits it in place.
type RawTable struct {
	File      string
	Separator byte
	// Columns are the names in the header, in lower case.
	Columns []string
	// Records are the header and all rows that are not empty, in their order.
	Records []RawRecord
}

// RawRecord is a record with the line where it starts, counted from 1. Cells have lost surrounding
// white space.
type RawRecord struct {
	Line  int
	Cells []string
}

// ReadRaw reads HostsFile or K3sFile. A table with problems of form (not of meaning) cannot be
// edited: they are given instead.
func ReadRaw(fsys fs.FS, file string) (RawTable, Problems) {
	s := hostsSchema
	if file == K3sFile {
		s = k3sSchema
	}
	t := &table{schema: s}
	data, ok := t.read(fsys)
	if !ok {
		return RawTable{}, t.problems
	}
	records, complete := t.split(data)
	t.take(records, complete)
	if t.problems.Errors() > 0 {
		return RawTable{}, t.problems
	}
	raw := RawTable{File: file, Separator: byte(t.separator), Columns: t.columns}
	for _, r := range records {
		raw.Records = append(raw.Records, RawRecord{r.line, r.cells})
	}
	return raw, nil
}

// TrimCell takes the white space off that surrounds a cell, and what cannot be seen.
func TrimCell(text string) string { return strings.TrimFunc(text, isBlank) }
