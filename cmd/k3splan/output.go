package main

// Errors look like this:
//
//	k3splan: error: what is wrong
//	hint: how to fix it
//
// and problems of a project like this:
//
//	plans/k3s.csv:5: type "agnet": unknown type
//	  hint: did you mean "agent"?
//
// No capital at the beginning, no full stop at the end. A warning ends with "(warning)". Colours are for
// terminals only.

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
	"k3splan/internal/secrets"
	"k3splan/internal/text"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

const (
	exitFailed  = 1
	exitInvalid = 2
)

// exitError carries the exit code. With quiet, everything was printed already.
type exitError struct {
	code  int
	err   error
	hint  string
	quiet bool
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// Hint returns the error's own hint, or else that of the error that it wraps.
func (e *exitError) Hint() string {
	if e.hint != "" {
		return e.hint
	}
	return diag.HintOf(e.err)
}

// invalid is the error of an invalid project, whose problems were printed.
func invalid() error {
	return &exitError{code: exitInvalid, err: errors.New("the plan is not valid"), quiet: true}
}

// fail prints an error and returns the exit code.
func (a *app) fail(command *cobra.Command, err error) int {
	code, hint := exitFailed, diag.HintOf(err)
	var exit *exitError
	var wrongFile *files.Error // in the place of a file of the project: nothing was done
	switch {
	case errors.Is(err, ask.ErrNoTerminal), errors.Is(err, secrets.ErrRecipients), errors.As(err, &wrongFile):
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

// hints returns a line for each line of a hint.
func (a *app) hints(out *os.File, indent, hint string) string {
	var text strings.Builder
	for line := range strings.Lines(hint) {
		fmt.Fprintf(&text, "%s%s %s\n", indent, a.paint(out, cyan, "hint:"), diag.Printable(strings.TrimSpace(line)))
	}
	return text.String()
}

// say prints a message to the user that is not part of the result. Text of others in it cannot control the
// terminal.
func (a *app) say(format string, args ...any) {
	a.sayAbove(diag.PrintableLines(fmt.Sprintf(format, args...)))
}

// sayAbove prints a message, above the progress if there is any.
func (a *app) sayAbove(message string) {
	if p := a.shown.Load(); p != nil {
		p.say(message)
		return
	}
	fmt.Fprintln(a.stderr, message)
}

// warn prints a message that needs the user's attention.
func (a *app) warn(format string, args ...any) {
	a.sayAbove(a.paint(a.stderr, yellow, "k3splan: warning:") + " " + diag.PrintableLines(fmt.Sprintf(format, args...)))
}

// printProblems prints every problem, and their number to stderr.
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

// coloured reports whether colours may be printed there.
func (a *app) coloured(out *os.File) bool {
	return !a.noColor && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(out.Fd()))
}

// width returns the number of columns to print in: $COLUMNS, the width of the terminal, or 80.
func (a *app) width() int {
	if columns, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && columns > 0 {
		return columns
	}
	if columns, _, err := term.GetSize(int(a.stdout.Fd())); err == nil && columns > 0 {
		return columns
	}
	return 80
}
