// Package ask is how use cases talk to the user: they get a [User] and neither print nor read a
// terminal themselves. The terminal itself is in cmd/k3splan; tests use package asktest.
//
//	func Rotate(ctx context.Context, user ask.User, r Request) error {
//		if err := user.Confirm(ctx, "rotate the token?"); err != nil {
//			return err
//		}
//		progress := user.Progress(len(hosts))
//		defer progress.Stop()
//		…
package ask

import (
	"context"
	"errors"
	"strings"

	"k3splan/internal/diag"
)

// User is the person who runs k3splan.
//
// Each question ends with [ErrInterrupted] when ctx is done, or at once when SIGINT, SIGTERM or SIGHUP
// arrives; the caller does not have to catch signals for it. Where stdin is not a terminal, a question
// is not asked and its error wraps [ErrNoTerminal].
type User interface {
	// Confirm asks a yes/no question, written without its "[y/N]". Anything but yes is [ErrDeclined].
	Confirm(ctx context.Context, question string) error
	// Type asks for a word to be typed in full, for what a slip of the finger must not confirm. The
	// question is written without the word: "erase /dev/sdb? Type olaf: " is Type(ctx, "erase
	// /dev/sdb?", "olaf"). Any other answer is [ErrDeclined].
	Type(ctx context.Context, question, word string) error
	// NewPassword asks for a password twice, without showing it. Two answers that differ are an error.
	NewPassword(ctx context.Context) ([]byte, error)
	// Passphrase asks once for something that is not shown. It asks on the controlling terminal, so
	// that stdin may be a pipe. The prompt ends with ": ".
	Passphrase(ctx context.Context, prompt string) ([]byte, error)
	// Say prints a message: a line, or several, to stderr. The text is a format.
	Say(format string, args ...any)
	// Warn is Say for what needs the user's attention.
	Warn(format string, args ...any)
	// Progress starts to show what is being done with total things, usually hosts. Until it is
	// stopped, Say prints above it.
	Progress(total int) Progress
}

// Progress shows what is being done with several things at the same time. Its methods may be called
// from several goroutines.
type Progress interface {
	// Step says what is being done with a thing now ("olaf", "building"), and a detail that changes
	// often and is shown only on a terminal.
	Step(name, phase, detail string)
	// Done ends a thing and prints its result.
	Done(name, result string)
	// Drop ends a thing that has no result.
	Drop(name string)
	// Stop ends the whole. It may be called more than once.
	Stop()
}

var (
	// ErrDeclined is any answer but the one that confirms.
	ErrDeclined = errors.New("not confirmed; nothing was changed")
	// ErrInterrupted is Ctrl-C, or another signal that ends k3splan, during a question.
	ErrInterrupted = errors.New("interrupted; nothing was changed")
	// ErrMismatch is a new password that was not repeated.
	ErrMismatch = errors.New("the two passwords differ; nothing was changed")
	// ErrNoTerminal is a question in a script. It is a wrong call, not a failed operation.
	ErrNoTerminal = diag.WithHint(errors.New("confirmation needed, but stdin is not a terminal"), "--yes confirms")
)

// Confirmed returns a user who confirms every question of Confirm and Type in advance (--yes), and is
// asked for everything else.
func Confirmed(user User) User { return confirmed{user} }

type confirmed struct{ User }

func (confirmed) Confirm(context.Context, string) error      { return nil }
func (confirmed) Type(context.Context, string, string) error { return nil }

// Agrees reports whether an answer to a yes/no question is a yes.
func Agrees(answer string) bool {
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes"
}
