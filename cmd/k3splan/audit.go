package main

import (
	"cmp"
	"context"
	"errors"

	"github.com/spf13/cobra"

	"k3splan/internal/audit"
	"k3splan/internal/diag"
)

func (a *app) secretsAuditCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "audit [STOREPATH…]",
		Short: "Check that no secret is where it must not be",
		Long: `Checks the modes and owners of the secrets, and searches for their contents in all other files of the
project (generated/, logs, snippets, manifests), in git (the index and the whole history of what is
checked out), and in the Nix store: the closures of this plan's systems there, and of STOREPATHs. Each
finding comes with its repair; standard error lists what was searched. Nothing is changed.

Exit code 0 without findings, 1 with any.`,
		Example: "  k3splan secrets audit\n  k3splan secrets audit --json | jq -r '.[].file'",
		Args:    cobra.ArbitraryArgs,

		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault), // files
		RunE: func(_ *cobra.Command, args []string) error {
			return a.audit(args, asJSON)
		},
	}
	addJSON(command, &asJSON, diag.Problems{})
	return command
}

func (a *app) audit(storePaths []string, asJSON bool) error {
	w, err := a.workspace()
	if err != nil {
		return err
	}
	p, problems := w.Project()
	vault, err := p.Vault(a.asker())
	if err != nil {
		return usageError(diag.WithHint(err, cmp.Or(diag.HintOf(err), "k3splan validate")))
	}
	report, err := audit.Run(context.Background(), audit.Input{Dir: p.Dir, Plan: p.Plan, Vault: vault, Known: problems, StorePaths: storePaths})
	if err != nil {
		return err
	}
	for _, note := range report.Notes {
		a.say("%s", note)
	}
	if asJSON {
		if report.Findings == nil {
			report.Findings = diag.Problems{}
		}
		if err := printJSON(a.stdout, report.Findings); err != nil {
			return err
		}
	} else {
		a.printProblems(a.stdout, report.Findings)
	}
	if len(report.Findings) > 0 {
		return &exitError{code: exitFailed, err: errors.New("secrets are not safe"), quiet: true}
	}
	if !asJSON {
		a.say("nothing found")
	}
	return nil
}
