package main

// What decommission and replace have in common.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"k3splan/internal/ask"
	"k3splan/internal/diag"
	"k3splan/internal/edit"
	"k3splan/internal/files"
	"k3splan/internal/lifecycle"
	"k3splan/internal/remote"
)

// lifeFlags are the flags of both commands.
type lifeFlags struct{ dryRun, yes, asJSON bool }

func (f *lifeFlags) add(command *cobra.Command) {
	command.Flags().BoolVar(&f.dryRun, "dry-run", false, "show what would be done, and change nothing")
	command.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	addJSON(command, &f.asJSON, lifecycle.Outcome{})
}

// takeOut calls a use case for a host, and prints what became of it.
func (a *app) takeOut(name string, flags lifeFlags, do func(context.Context, *machines, lifecycle.View, lifecycle.Request) (*lifecycle.Outcome, error)) (err error) {
	m, err := a.machines()
	if err != nil {
		return err
	}
	if err := m.valid(); err != nil {
		return err
	}
	host, err := m.host(name)
	if err != nil {
		return err
	}
	if _, problems := a.opened.HostKeys(); problems.Errors() > 0 {
		return invalid() // they were printed
	}
	vault, err := m.vault()
	if err != nil {
		return err
	}
	ssh, err := remote.Prepare(m.dir, m.plan, m.keys)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ssh.Close()) }()
	if err := ssh.Share(); err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	view := lifeView{User: a.user(flags.yes), app: a, quiet: flags.asJSON && flags.yes}
	outcome, err := do(ctx, m, view, lifecycle.Request{
		Dir: m.dir, Files: func() fs.FS { return files.In(m.dir) }, Plan: m.plan, Host: host, Vault: vault,
		Rack: lifecycle.Machines{Plan: m.plan, Machine: ssh.Machines(remote.DeployUser)},
		Lease: func(ctx context.Context) (lifecycle.Lease, error) {
			return m.lease(ctx, ssh, "k3splan, taking out "+name)
		},
		DryRun: flags.dryRun,
	})
	if outcome == nil {
		return a.lifeError(err)
	}
	return errors.Join(a.showOutcome(outcome, flags, err), err)
}

// lifeError prints the problems of a plan that would be invalid.
func (a *app) lifeError(err error) error {
	var wrong *edit.Invalid
	var refused *edit.Refused
	switch {
	case errors.As(err, &wrong):
		a.say("nothing was changed; the plan would have these problems:")
		_ = a.printProblems(a.stderr, wrong.Problems)
		return &exitError{code: exitInvalid, err: err, quiet: true}
	case errors.As(err, &refused):
		return usageError(err)
	}
	return err
}

// lifeView is the user of decommission and replace.
type lifeView struct {
	ask.User
	app   *app
	quiet bool
}

// Propose shows what is about to be done.
func (v lifeView) Propose(o *lifecycle.Outcome) {
	if !v.quiet {
		v.app.showPlanned(v.app.stderr, o)
	}
}

// showPlanned prints the steps, the changes of the plan, and what speaks against it.
func (a *app) showPlanned(out *os.File, o *lifecycle.Outcome) {
	for i, step := range o.Steps {
		note := ""
		switch step.Status {
		case lifecycle.Already:
			note = " (already so)"
		case lifecycle.Left:
			note = " (cannot be done: " + step.Detail + ")"
		}
		fmt.Fprintf(out, "%d. %s%s\n", i+1, diag.Printable(step.What), diag.Printable(note))
	}
	var tables []string
	for file := range o.Tables {
		tables = append(tables, file)
	}
	slices.Sort(tables)
	for _, file := range tables {
		fmt.Fprint(out, a.paintedDiff(out, o.Tables[file]))
	}
	for _, problem := range o.Objections {
		word := a.paint(out, yellow, "to be confirmed:")
		if problem.Severity == diag.Error {
			word = a.paint(out, red, "refused:")
		}
		fmt.Fprintf(out, "%s %s\n%s", word, diag.PrintableLines(problem.Message), a.hints(out, "  ", problem.Hint))
	}
}

// showOutcome prints what became of the steps, and what is left for the user.
func (a *app) showOutcome(o *lifecycle.Outcome, flags lifeFlags, failed error) error {
	begun := slices.ContainsFunc(o.Steps, func(s lifecycle.Step) bool {
		return s.Status == lifecycle.Done || s.Status == lifecycle.Failed
	})
	switch {
	case flags.asJSON && (flags.dryRun || begun || failed == nil):
		return printJSON(a.stdout, o)
	case flags.asJSON:
		return nil // not confirmed, or refused
	case flags.dryRun:
		a.showPlanned(a.stdout, o)
	case begun:
		var rows [][]string
		for _, step := range o.Steps {
			result := string(step.Status)
			if step.Detail != "" {
				first, _, _ := strings.Cut(step.Detail, "\n")
				result += ": " + first
			}
			rows = append(rows, []string{diag.Printable(step.What), diag.Printable(result)})
		}
		if _, err := a.stdout.WriteString(a.table([]string{"STEP", "RESULT"}, rows)); err != nil {
			return err
		}
	case failed == nil:
		a.say("nothing is left to be done by k3splan")
	}
	if failed != nil || flags.dryRun && len(o.Next)+len(o.Left) == 0 {
		return nil
	}
	for _, left := range o.Left {
		a.say("left: %s", left)
	}
	if len(o.Next) > 0 {
		var lines []string
		for _, next := range o.Next {
			command, comment, _ := strings.Cut(next, "   #")
			line := command + inProject(a.projectDir)
			if comment != "" {
				line += "   #" + comment
			}
			lines = append(lines, line)
		}
		a.say("next: %s", strings.Join(lines, "\n      "))
	}
	return nil
}
