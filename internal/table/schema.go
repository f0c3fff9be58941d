package table

import (
	"regexp"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

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

// meant returns the known column that another name most likely means: one that people use for it, with or
// without an explanation in brackets, or a misspelt one; or "".
func (s Schema) meant(name string) string {
	for _, text := range []string{name, explanation.ReplaceAllString(name, "")} {
		letters := letters(text)
		for _, column := range s.Known() {
			if letters == column || slices.Contains(s.Synonyms[column], letters) {
				return column
			}
		}
	}
	return diag.Nearest(name, s.Known())
}

// explanation is what people write behind the name of a column: "IP (LAN)", "MAC [of the NIC]".
var explanation = regexp.MustCompile(`[(\[].*`)

// letters returns the letters and digits of a lower-cased name, as they are written without umlauts.
func letters(name string) string {
	name = strings.NewReplacer("ä", "ae", "ö", "oe", "ü", "ue", "ß", "ss").Replace(norm.NFC.String(name))
	return strings.Map(func(c rune) rune {
		if unicode.IsLetter(c) || unicode.IsDigit(c) {
			return c
		}
		return -1
	}, name)
}
