package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"k3splan/internal/diag"
	"k3splan/internal/text"
)

func (a *app) validateCommand() *cobra.Command {
	var asJSON, strict bool
	command := &cobra.Command{
		Use:   "validate",
		Short: "Show every problem of the plan and its secrets",
		Long: `Reads the tables, the secrets and all other files of the project, and shows every problem with
the place where it is and how to mend it. Nothing is changed.

Exit code 0 without errors, 2 with any. Warnings count with --strict, but for those about releases that
have ended: they come with the calendar and not with a change of the plan.`,
		Example: "  k3splan validate\n  k3splan validate --json | jq -r '.[].code'",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(*cobra.Command, []string) error { return a.validate(asJSON, strict) },
	}
	addJSON(command, &asJSON, diag.Problems{})
	command.Flags().BoolVar(&strict, "strict", false, "treat warnings as errors, but for releases that have ended")
	return command
}

// isStrict reports whether a warning counts with --strict. The end of a release must not stop anyone's pipeline
// overnight.
func isStrict(p diag.Problem) bool { return p.Code != "release-ended" && p.Code != "k3s-ended" }

func (a *app) validate(asJSON, strict bool) error {
	w, err := a.workspace()
	if err != nil {
		return err
	}
	p, problems := w.Project()
	if syntax := p.CheckNix(context.Background()); len(syntax) > 0 {
		problems = slices.Concat(problems, syntax)
		problems.Sort()
	}
	if asJSON {
		if problems == nil {
			problems = diag.Problems{}
		}
		err = printJSON(a.stdout, problems)
	} else {
		err = a.printProblems(a.stdout, problems)
	}
	if err != nil {
		return err
	}
	if problems.Errors() > 0 || strict && slices.ContainsFunc(problems, isStrict) {
		return invalid()
	}
	if !asJSON {
		a.say("the plan is valid: %s, %s, %s",
			text.Count(len(p.Plan.Hosts), "host"), text.Count(len(p.Plan.Servers()), "k3s server"), text.Count(len(p.Plan.Agents()), "k3s agent"))
	}
	return nil
}
