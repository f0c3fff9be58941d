package edit

import (
	"fmt"
	"strings"

	"k3splan/internal/diag"
)

// Invalid is a plan with errors.
type Invalid struct {
	Problems diag.Problems
	// Already means that none of the errors comes from the change: the plan had them before.
	Already bool
}

func (e *Invalid) Error() string { return fmt.Sprintf("the plan has %d errors", e.Problems.Errors()) }

// Refused is the reason why a change is not made.
type Refused struct{ message string }

func (e *Refused) Error() string { return e.message }

func refuse(message, hint string) error { return diag.WithHint(&Refused{message}, hint) }

func (e *Edit) noHost(name string) error {
	return noSuch(fmt.Sprintf("no host is called %q", name), name, "hosts", e.plan.HostNames())
}

// noSuch refuses a name that is not among the known ones.
func noSuch(message, name, what string, names []string) error {
	hint := diag.DidYouMean(name, names)
	if hint == "" && len(names) > 0 {
		hint = fmt.Sprintf("the %s are: %s", what, strings.Join(names, " "))
	}
	return refuse(message, hint)
}
