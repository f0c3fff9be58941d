package main

// What is printed looks like this:
//
//	k3splan: error: what is wrong
//	hint: how to mend it
//
// and a problem of a project like this:
//
//	plans/k3s.csv:5: type "agnet": there is no such type
//	  hint: did you mean "agent"?
//
// No capital at the beginning, no full stop at the end. A warning says that it is one. Colours
// only on a terminal.

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"k3splan/internal/ask"
	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/text"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

const (
	exitFailed  = 1
	exitInvalid = 2
)

// exitError carries the exit code; with quiet everything was said already.
type exitError struct {
	code  int
	err   error
	hint  string
	quiet bool
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// Hint is the error's own, or else that of the one that it wraps.
func (e *exitError) Hint() string {
	if e.hint != "" {
		return e.hint
	}
	return diag.HintOf(e.err)
}

// invalid says that the project is not in order; its problems were printed.
func invalid() error {
	return &exitError{code: exitInvalid, err: errors.New("the plan is not valid"), quiet: true}
}

// fail prints an error and gives the exit code.
func (a *app) fail(command *cobra.Command, err error) int {
	code, hint := exitFailed, diag.HintOf(err)
	var exit *exitError
	var wrongFile *files.Error // in the place of a file of the project: nothing was done
	switch {
	case errors.Is(err, ask.ErrNoTerminal), errors.As(err, &wrongFile):
		code = exitInvalid
	case errors.As(err, &exit):
		if exit.quiet {
			return exit.code
		}
		code = exit.code
	}
	fmt.Fprintf(a.stderr, "%s %v\n", a.paint(a.stderr, red, "k3splan: error:"), diag.PrintableLines(err.Error()))
	if hint == "" && code == exitInvalid {
		hint = command.CommandPath() + " --help"
	}
	fmt.Fprint(a.stderr, a.hints(a.stderr, "", hint))
	return code
}

// hints gives a line for each of a hint's lines, or nothing without one.
func (a *app) hints(out *os.File, indent, hint string) string {
	var text strings.Builder
	for line := range strings.Lines(hint) {
		fmt.Fprintf(&text, "%s%s %s\n", indent, a.paint(out, cyan, "hint:"), diag.Printable(strings.TrimSpace(line)))
	}
	return text.String()
}

// say prints a message to the user that is not part of the result.
func (a *app) say(format string, args ...any) {
	if p := a.shown.Load(); p != nil {
		p.say(fmt.Sprintf(format, args...))
		return
	}
	a.printf(format, args...)
}

// warn prints a message that needs the user's attention.
func (a *app) warn(format string, args ...any) {
	a.say("%s %s", a.paint(a.stderr, yellow, "k3splan: warning:"), fmt.Sprintf(format, args...))
}

func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.stderr, format+"\n", args...) }

// printProblems prints every problem and, below, how many there are.
func (a *app) printProblems(out *os.File, problems diag.Problems) error {
	if _, err := io.WriteString(out, a.formatProblems(out, problems)); err != nil {
		return err
	}
	if len(problems) > 0 {
		errs := problems.Errors()
		a.say("%s, %s", text.Count(errs, "error"), text.Count(len(problems)-errs, "warning"))
	}
	return nil
}

func (a *app) formatProblems(out *os.File, problems diag.Problems) string {
	var text strings.Builder
	for _, p := range problems {
		colour, line := red, p.String()
		if p.Severity == diag.Warning {
			colour, line = yellow, line+" (warning)"
		}
		place, rest, _ := strings.Cut(line, ": ")
		fmt.Fprintf(&text, "%s %s\n", a.paint(out, colour, place+":"), rest)
		text.WriteString(a.hints(out, "  ", p.Hint))
	}
	return text.String()
}

// table draws a result as a table. In a pipe it is as wide as it needs to be.
func (a *app) table(headers []string, rows [][]string) string {
	t := a.terminal()
	if os.Getenv("COLUMNS") == "" && !term.IsTerminal(int(a.stdout.Fd())) {
		t.Width = math.MaxInt
	}
	return t.Table(headers, rows)
}

type colour string

const (
	red    colour = "31"
	yellow colour = "33"
	green  colour = "32"
	cyan   colour = "36"
)

func (a *app) paint(out *os.File, c colour, text string) string {
	if !a.coloured(out) {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// coloured tells whether colours may be printed there.
func (a *app) coloured(out *os.File) bool {
	return !a.noColor && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(out.Fd()))
}

// width is the number of columns to print in: $COLUMNS, that of the terminal, or 80.
func (a *app) width() int {
	if columns, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && columns > 0 {
		return columns
	}
	if columns, _, err := term.GetSize(int(a.stdout.Fd())); err == nil && columns > 0 {
		return columns
	}
	return 80
}
