package edit

import (
	"fmt"
	"strings"

	"k3splan/internal/diag"
)

// Invalid says that a plan has errors.
type Invalid struct {
	Problems diag.Problems
	// Already tells that the change makes none of the errors: they are there without it.
	Already bool
}

func (e *Invalid) Error() string { return fmt.Sprintf("the plan has %d errors", e.Problems.Errors()) }

// Refused says why a change is not made.
type Refused struct{ message, hint string }

func (e *Refused) Error() string { return e.message }

// Hint says what to do instead, or is empty.
func (e *Refused) Hint() string { return e.hint }

func refuse(message, hint string) error { return &Refused{message, hint} }

func (e *Edit) noHost(name string) error {
	return noSuch(fmt.Sprintf("there is no host %q in the plan", name), name, "hosts", e.plan.HostNames())
}

// noSuch refuses a name that is not among those that there are.
func noSuch(message, name, what string, names []string) error {
	hint := diag.DidYouMean(name, names)
	if hint == "" && len(names) > 0 {
		hint = fmt.Sprintf("the %s are: %s", what, strings.Join(names, " "))
	}
	return refuse(message, hint)
}
