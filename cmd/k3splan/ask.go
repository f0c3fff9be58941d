package main

// Questions on the terminal. A script answers them in advance, by --yes.

import (
	"bufio"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/term"
)

// nobodyToAsk: a question without --yes and without a person is a wrong call.
func nobodyToAsk() error {
	return &exitError{code: exitInvalid, err: errors.New("there is nobody to ask whether this is right; nothing was changed"), hint: "--yes answers in advance"}
}

// confirm asks for a yes or no, unless yes was said in advance.
func (a *app) confirm(question string, yes bool) error {
	return a.ask(question+" [y/N] ", yes, "y", "yes")
}

// consent is confirm for what is not to be agreed to by a slip: a whole word is typed.
func (a *app) consent(question string, yes bool) error {
	return a.ask(question+" Type yes: ", yes, "yes")
}

func (a *app) ask(question string, yes bool, agreeing ...string) error {
	if yes {
		return nil
	}
	if !term.IsTerminal(int(a.stdin.Fd())) {
		return nobodyToAsk()
	}
	fmt.Fprint(a.stderr, question)
	answer, _ := bufio.NewReader(a.stdin).ReadString('\n') // none is a no
	if !slices.Contains(agreeing, strings.ToLower(strings.TrimSpace(answer))) {
		return errors.New("not confirmed; nothing was changed")
	}
	return nil
}
