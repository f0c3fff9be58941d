package table

import "strings"

// CSV returns records as the text of a CSV table, separated by commas. encoding/csv, and gocsv with it,
// would not quote a first cell that begins with #, which then would be a comment.
func CSV(records [][]string) string {
	var text strings.Builder
	for _, record := range records {
		for i, cell := range record {
			if i > 0 {
				text.WriteByte(',')
			}
			if NeedsQuotes(cell, ',') || i == 0 && strings.HasPrefix(cell, "#") {
				cell = Quote(cell)
			}
			text.WriteString(cell)
		}
		text.WriteByte('\n')
	}
	return text.String()
}

// NeedsQuotes reports whether a cell can only be written in quotes.
func NeedsQuotes(cell string, separator byte) bool {
	return strings.ContainsAny(cell, "\"\r\n"+string(separator)) || TrimCell(cell) != cell
}

// Quote returns a cell in quotes.
func Quote(cell string) string { return `"` + strings.ReplaceAll(cell, `"`, `""`) + `"` }
