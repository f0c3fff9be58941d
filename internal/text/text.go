// Package text has the few functions on words and lists that every room needs.
package text

import (
	"fmt"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// Count returns "1 host" or "2 hosts".
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// WithArticle puts "a" or "an" before a noun; without one it is "something else".
func WithArticle(noun string) string {
	switch {
	case noun == "":
		return "something else"
	case strings.ContainsAny(noun[:1], "aeiou"):
		return "an " + noun
	}
	return "a " + noun
}

// Enumerate returns "olaf", "olaf and ulf" or "olaf, rolf and ulf".
func Enumerate(names []string) string {
	switch n := len(names); n {
	case 0:
		return ""
	case 1:
		return names[0]
	default:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
}

// OrEmpty returns the list, or an empty one instead of nil, which JSON would show as null.
func OrEmpty[S ~[]T, T any](list S) S {
	if list == nil {
		return S{}
	}
	return list
}

// Without returns the elements of list that other does not contain, in their order.
func Without[T comparable](list, other []T) []T {
	var left []T
	for _, element := range list {
		if !slices.Contains(other, element) {
			left = append(left, element)
		}
	}
	return left
}

// Some returns Enumerate of the first few names and how many more there are: "a, b and 12 more". A
// message must stay readable with thousands of hosts.
func Some(names []string, few int) string {
	if more := len(names) - few; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), more)
	}
	return Enumerate(names)
}

// Wrap breaks a text into lines of at most width columns, at blanks only. A longer word has a line of its
// own.
func Wrap(text string, width int) (lines []string) {
	for word := range strings.FieldsSeq(text) {
		if last := len(lines) - 1; last >= 0 && ansi.StringWidth(lines[last])+1+ansi.StringWidth(word) <= width {
			lines[last] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

// FirstLine returns the first line of a text that is not blank.
func FirstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(line)
}
