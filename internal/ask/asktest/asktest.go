// Package asktest has a user for tests who answers from a script and remembers what was shown.
package asktest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"k3splan/internal/ask"
)

// Answer is one answer of a script, to the question that contains Question.
type Answer struct {
	Question string
	// Text is what is typed. Confirm takes "y" or "yes", Type the word, the others anything.
	Text string
	// Err is returned instead: ask.ErrInterrupted, ask.ErrNoTerminal.
	Err error
}

// Yes is an Answer that confirms.
func Yes(question string) Answer { return Answer{Question: question, Text: "yes"} }

// No is an Answer that does not.
func No(question string) Answer { return Answer{Question: question, Text: "no"} }

// User answers the questions of a script, in the order in which they are expected. A question that the
// script does not expect fails the test, and so does one that was never asked.
type User struct {
	t      testing.TB
	mutex  sync.Mutex
	script []Answer
	said   []string
}

var _ ask.User = (*User)(nil)

// New returns a user with a script.
func New(t testing.TB, script ...Answer) *User {
	u := &User{t: t, script: script}
	t.Cleanup(func() {
		if len(u.script) > 0 && !t.Failed() {
			t.Errorf("never asked: %q", u.script[0].Question)
		}
	})
	return u
}

// Said returns all that was printed, questions included, one element for each.
func (u *User) Said() []string {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	return slices.Clone(u.said)
}

// Saw reports whether anything printed contains the text.
func (u *User) Saw(text string) bool {
	return strings.Contains(strings.Join(u.Said(), "\n"), text)
}

func (u *User) answer(ctx context.Context, question string) (string, error) {
	u.t.Helper()
	u.mutex.Lock()
	defer u.mutex.Unlock()
	u.said = append(u.said, question)
	if ctx.Err() != nil {
		return "", ask.ErrInterrupted
	}
	if len(u.script) == 0 || !strings.Contains(question, u.script[0].Question) {
		u.t.Errorf("unexpected question %q", question)
		return "", ask.ErrDeclined
	}
	next := u.script[0]
	u.script = u.script[1:]
	return next.Text, next.Err
}

func (u *User) Confirm(ctx context.Context, question string) error {
	u.t.Helper()
	text, err := u.answer(ctx, question)
	if err == nil && !ask.Agrees(text) {
		err = ask.ErrDeclined
	}
	return err
}

func (u *User) Type(ctx context.Context, question, word string) error {
	u.t.Helper()
	text, err := u.answer(ctx, fmt.Sprintf("%s Type %s: ", question, word))
	if err == nil && text != word {
		err = ask.ErrDeclined
	}
	return err
}

func (u *User) NewPassword(ctx context.Context) ([]byte, error) {
	u.t.Helper()
	text, err := u.answer(ctx, "Password: ")
	return []byte(text), err
}

func (u *User) Passphrase(ctx context.Context, prompt string) ([]byte, error) {
	u.t.Helper()
	text, err := u.answer(ctx, prompt)
	return []byte(text), err
}

func (u *User) Say(format string, args ...any) {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	u.said = append(u.said, fmt.Sprintf(format, args...))
}

func (u *User) Warn(format string, args ...any) { u.Say("warning: "+format, args...) }

func (u *User) Progress(int) ask.Progress { return progress{u} }

// progress remembers the steps as "olaf: building" and the results as "olaf: deployed".
type progress struct{ user *User }

func (p progress) Step(name, phase, _ string) { p.user.Say("%s: %s", name, phase) }
func (p progress) Done(name, result string)   { p.user.Say("%s: %s", name, result) }
func (p progress) Drop(string)                {}
func (p progress) Stop()                      {}
