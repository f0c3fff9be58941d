package table

import (
	"slices"
	"strings"
	"unicode"

	"k3splan/internal/diag"
)

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
	// Words names the columns whose cells hold several words, separated by blanks.
	Words []string
	// Serials names the column with serial numbers, which may begin with zeros.
	Serials string
	// Reserved names belong to data that k3splan puts beside the columns.
	Reserved []string
	// Synonyms are what people call the known columns, by their names: letters and digits only.
	Synonyms map[string][]string
}

// Known returns the names of the columns that k3splan knows.
func (s Schema) Known() []string { return slices.Concat(s.Required, s.Optional) }

// Knows reports whether k3splan knows the column.
func (s Schema) Knows(column string) bool {
	return slices.Contains(s.Required, column) || slices.Contains(s.Optional, column)
}

// meant returns the known column that another name most likely means: one that people use for it, or a
// misspelt one; or "".
func (s Schema) meant(name string) string {
	letters := strings.Map(func(c rune) rune {
		if unicode.IsLetter(c) || unicode.IsDigit(c) {
			return c
		}
		return -1
	}, name)
	for _, column := range s.Known() {
		if letters == column || slices.Contains(s.Synonyms[column], letters) {
			return column
		}
	}
	return diag.Nearest(name, s.Known())
}
