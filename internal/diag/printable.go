package diag

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable returns text of others (answers of hosts, names of files, cells and keys of tables, output
// of tools) as one line that is safe to print on a terminal: what a terminal would obey (control
// characters, escape sequences), what a reader would not see (zero-width and bidirectional marks) and
// bytes that are not UTF-8 become escapes as in Go, "\x1b". Text without any of these is returned as it
// is.
func Printable(text string) string { return printable(text, "") }

// PrintableLines is [Printable] for text of several lines: line breaks and tabs stay.
func PrintableLines(text string) string {
	return printable(strings.ReplaceAll(text, "\r\n", "\n"), "\n\t")
}

func printable(text, allowed string) string {
	clean := func(r rune, size int) bool {
		return strings.ContainsRune(allowed, r) || unicode.IsPrint(r) && !unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) && (r != utf8.RuneError || size > 1)
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case clean(r, size):
			b.WriteString(text[i : i+size])
		case size == 1:
			quoted := strconv.Quote(text[i : i+1])
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += size
	}
	return b.String()
}
