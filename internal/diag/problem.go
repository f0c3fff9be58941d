// Package diag holds the one kind of finding that all of k3splan reports: a [Problem] says what is
// wrong, where, and how to mend it. Plan problems, findings of the audit and of doctor, and what speaks
// against a deployment are Problems; an ordinary error gets advice by [WithHint] and becomes a Problem
// by [FromError].
package diag

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Severity says whether a problem stops k3splan or is only worth a look.
type Severity string

const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Problem is one finding in a project: what is wrong, where, and how to mend it.
type Problem struct {
	// File is relative to the project, with forward slashes ("plans/hosts.csv"). In a workbook it
	// names the sheet and the cell as well ("plans/cluster.xlsx!k3s!C5"). In another plan than the
	// project's own it begins with where that is ("HEAD:plans/hosts.csv").
	File string `json:"file"`
	// Line is where the record starts, counted from 1; 0 means the whole file.
	Line int `json:"line"`
	// Column is the header's name in a table, the key path in a YAML file, or empty.
	Column string `json:"column"`
	// Value is the text there. It is never set from a secret.
	Value    string   `json:"value"`
	Severity Severity `json:"severity"`
	// Code is stable and meant for programs ("address-duplicate").
	Code    string `json:"code"`
	Message string `json:"message"`
	// Hint says how to mend it, or is empty.
	Hint string `json:"hint"`

	// rest: the problem represents all others of its kind, and comes after those
	rest bool
}

// workbookMark ends the name of a workbook's file; the sheet and the cell follow it.
const workbookMark = ".xlsx!"

// maxShown is how much of a value String shows, in characters.
const maxShown = 80

// String returns `file:line: column "value": message`, without the hint, fit for a terminal.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(Printable(p.Place()) + ": ")
	value := p.Value
	if runes := []rune(value); len(runes) > maxShown {
		value = string(runes[:maxShown]) + "…"
	}
	switch {
	case p.Column != "" && p.Value != "" && !strings.EqualFold(p.Column, p.Value): // the same in a header
		fmt.Fprintf(&b, "%s %q: ", Printable(p.Column), value)
	case p.Column != "":
		b.WriteString(Printable(p.Column) + ": ")
	case p.Value != "":
		fmt.Fprintf(&b, "%q: ", value)
	}
	b.WriteString(Printable(p.Message))
	return b.String()
}

// Place is where the problem is: "plans/hosts.csv:3", or "plans/cluster.xlsx!k3s!C5", which names
// the row by itself.
func (p Problem) Place() string {
	if p.Line == 0 || strings.Contains(p.File, workbookMark) {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Table returns File without the cell of a workbook. Sorting by it and Line puts C10 after C9.
func (p Problem) Table() string {
	if before, sheet, ok := strings.Cut(p.File, workbookMark); ok {
		sheet, _, _ = strings.Cut(sheet, "!")
		return before + workbookMark + sheet
	}
	return p.File
}

// Problems are the findings of one run.
type Problems []Problem

// Sort orders by file, line, column and code, so that equal projects give equal output.
func (ps Problems) Sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(a.Table(), b.Table()),
			cmp.Compare(a.order(), b.order()),
			cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Code, b.Code),
			cmp.Compare(a.Message, b.Message),
		)
	})
}

// order is the line by which a problem is sorted.
func (p Problem) order() int {
	if p.rest {
		return math.MaxInt
	}
	return p.Line
}

// Errors counts the problems that stop k3splan.
func (ps Problems) Errors() int {
	n := 0
	for _, p := range ps {
		if p.Severity == Error {
			n++
		}
	}
	return n
}
