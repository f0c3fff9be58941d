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

Exit code 0 without errors, 2 with any; warnings count with --strict.`,
		Example: "  k3splan validate\n  k3splan validate --json | jq -r '.[].code'",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(*cobra.Command, []string) error { return a.validate(asJSON, strict) },
	}
	addJSON(command, &asJSON, diag.Problems{})
	command.Flags().BoolVar(&strict, "strict", false, "take warnings for errors")
	return command
}

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
	if problems.Errors() > 0 || strict && len(problems) > 0 {
		return invalid()
	}
	if !asJSON {
		a.say("the plan is valid: %s, %s, %s",
			text.Count(len(p.Plan.Hosts), "host"), text.Count(len(p.Plan.Servers()), "k3s server"), text.Count(len(p.Plan.Agents()), "k3s agent"))
	}
	return nil
}
