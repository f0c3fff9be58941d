package stick

import (
	"fmt"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/run"
)

// FormatSize formats a number of bytes as makers of sticks do, in powers of 1000 with three digits:
// "31.9 GB".
func FormatSize(bytes int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	value, unit := float64(bytes), 0
	for value >= 999.5 && unit < len(units)-1 {
		value /= 1000
		unit++
	}
	switch {
	case unit == 0 || value >= 99.95:
		return fmt.Sprintf("%.0f %s", value, units[unit])
	case value >= 9.995:
		return fmt.Sprintf("%.1f %s", value, units[unit])
	default:
		return fmt.Sprintf("%.2f %s", value, units[unit])
	}
}

// shellWord quotes a word for a command that the user should run.
func shellWord(word string) string { return run.Word(diag.Printable(word)) }

// shellWords quotes each word once, sorted.
func shellWords(words []string) string {
	sorted := slices.Compact(slices.Sorted(slices.Values(words)))
	for i := range sorted {
		sorted[i] = shellWord(sorted[i])
	}
	return strings.Join(sorted, " ")
}

// list returns every name once, sorted and printable.
func list(names []string) string {
	sorted := slices.Compact(slices.Sorted(slices.Values(names)))
	for i := range sorted {
		sorted[i] = diag.Printable(sorted[i])
	}
	return strings.Join(sorted, ", ")
}
