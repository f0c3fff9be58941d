package table

import "slices"

// Schema describes a table: where it is, and which of its columns k3splan knows. All other columns are
// the user's own.
type Schema struct {
	// File is relative to the project ("plans/hosts.csv").
	File string
	// Sheet is the table's name in a workbook.
	Sheet              string
	Required, Optional []string
	// KeepCase names the known columns whose case matters outside k3splan.
	KeepCase []string
	// Reserved names belong to data that k3splan puts beside the columns.
	Reserved []string
	// Synonyms maps what people call a known column to its name.
	Synonyms map[string]string
}

// Known returns the names of the columns that k3splan knows.
func (s Schema) Known() []string { return slices.Concat(s.Required, s.Optional) }

// Knows reports whether k3splan knows the column.
func (s Schema) Knows(column string) bool {
	return slices.Contains(s.Required, column) || slices.Contains(s.Optional, column)
}
