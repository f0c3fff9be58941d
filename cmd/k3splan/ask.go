package main

// The terminal as use cases see it, see package ask.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"

	"k3splan/internal/ask"
	"k3splan/internal/diag"
)

// terminalUser is the user at the terminal.
type terminalUser struct{ app *app }

var _ ask.User = terminalUser{}

// user returns the user; with yes, one who confirms everything in advance.
func (a *app) user(yes bool) ask.User {
	if yes {
		return ask.Confirmed(terminalUser{a})
	}
	return terminalUser{a}
}

func (t terminalUser) Say(format string, args ...any)  { t.app.say(format, args...) }
func (t terminalUser) Warn(format string, args ...any) { t.app.warn(format, args...) }

func (t terminalUser) Progress(total int) ask.Progress { return t.app.newProgress(total) }

func (t terminalUser) Confirm(ctx context.Context, question string) error {
	answer, err := t.line(ctx, question+" [y/N] ")
	if err == nil && !ask.Agrees(answer) {
		err = ask.ErrDeclined
	}
	return err
}

func (t terminalUser) Type(ctx context.Context, question, word string) error {
	answer, err := t.line(ctx, fmt.Sprintf("%s Type %s: ", question, word))
	if err == nil && answer != word {
		err = ask.ErrDeclined
	}
	return err
}

// line asks for a line on stdin. The end of the input is an empty one.
func (t terminalUser) line(ctx context.Context, prompt string) (string, error) {
	in := t.app.stdin
	if !term.IsTerminal(int(in.Fd())) {
		return "", ask.ErrNoTerminal
	}
	line, err := heard(ctx, func() ([]byte, error) {
		fmt.Fprint(t.app.stderr, diag.PrintableLines(prompt)) // a question may have a line before it
		return readTo(in, '\n')
	})
	if errors.Is(err, ask.ErrInterrupted) {
		fmt.Fprintln(t.app.stderr) // the prompt is an open line
	}
	return strings.TrimSpace(string(line)), err
}

func (t terminalUser) NewPassword(ctx context.Context) ([]byte, error) {
	if !term.IsTerminal(int(t.app.stdin.Fd())) {
		return nil, diag.WithHint(errNoTerminal, "k3splan passwd --stdin reads the password from standard input")
	}
	first, err := hidden(ctx, t.app.stdin, t.app.stderr, "Password: ")
	if err != nil {
		return nil, err
	}
	second, err := hidden(ctx, t.app.stdin, t.app.stderr, "Repeat password: ")
	if err == nil && !bytes.Equal(first, second) {
		err = ask.ErrMismatch
	}
	return first, err
}

// errNoTerminal is a password or passphrase that cannot be asked for.
var errNoTerminal = usageError(errors.New("a password is needed, but stdin is not a terminal"))

func (t terminalUser) Passphrase(ctx context.Context, prompt string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, diag.WithHint(fmt.Errorf("a passphrase is needed, but there is no terminal to ask for it: %w", err), "run the command on a terminal")
	}
	defer tty.Close()
	return hidden(ctx, tty, tty, prompt)
}

// hidden asks for a line that is not shown, and leaves the terminal as it was.
func hidden(ctx context.Context, in, out *os.File, prompt string) ([]byte, error) {
	fd := int(in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	defer fmt.Fprintln(out)
	answer, err := heard(ctx, func() ([]byte, error) {
		fmt.Fprint(out, diag.Printable(prompt))
		return term.ReadPassword(fd)
	})
	if errors.Is(err, ask.ErrInterrupted) {
		_ = term.Restore(fd, before) // ReadPassword is still waiting and would not do it
	}
	return answer, err
}

// heard asks and reads an answer, unless the user interrupts it or ctx is done: from before the prompt is
// shown. The read that was interrupted
// goes on waiting in the background: k3splan is about to end.
func heard(ctx context.Context, read func() ([]byte, error)) ([]byte, error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	type result struct {
		answer []byte
		err    error
	}
	answered := make(chan result, 1)
	go func() {
		answer, err := read()
		answered <- result{answer, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ask.ErrInterrupted
	case r := <-answered:
		return r.answer, r.err
	}
}

// readTo reads up to a byte or the end, and nothing behind it: that is the answer to the next question.
func readTo(in io.Reader, end byte) ([]byte, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		switch n, err := in.Read(b); {
		case n == 1 && b[0] == end, errors.Is(err, io.EOF):
			return line, nil
		case err != nil:
			return nil, err
		default:
			line = append(line, b[:n]...)
		}
	}
}
