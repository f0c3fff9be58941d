package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"k3splan/internal/diff"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/run"
	"k3splan/internal/text"
)

func (a *app) diffCommand() *cobra.Command {
	var format string
	var asJSON bool
	command := &cobra.Command{
		Use:   "diff [REV | DIR]",
		Short: "Show how the plan has changed since a git revision",
		Long: `Compares the tables with those of a git revision (default: HEAD) or of another project's DIR, and
shows what the changes mean, with their risk for a running cluster:

  none     no container is affected
  restart  k3s is restarted on the hosts concerned
  ask      may go wrong or leaves something behind: deploy asks
  refuse   a running cluster would not survive it, or not without further steps

The order of rows and columns, separators, comments, and the case of letters outside your own columns
do not matter. Only the tables are compared: ` + "`k3splan deploy --dry-run`" + ` also shows what changes by
your snippets, manifests, k3s options and pins. The exit code is 0 with and without changes.`,
		Example: `  k3splan diff
  k3splan diff v1.0 --format markdown
  k3splan diff ../rack-of-last-year
  k3splan diff --json origin/main | jq -r '.[] | select(.risk == "refuse").sentence'`,
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: a.completeRevisions,
		RunE: func(command *cobra.Command, args []string) error {
			changes, err := a.changesSince(command.Context(), args)
			switch {
			case err != nil:
				return err
			case asJSON:
				return printJSON(a.stdout, changes)
			case format == "markdown":
				_, err := fmt.Fprint(a.stdout, changes.Markdown())
				return err
			}
			return a.printChanges(changes)
		},
	}
	addFormat(command, &format, "text", "markdown")
	addJSON(command, &asJSON, diff.Changes{})
	return command
}

// completeRevisions offers branches and tags; if none fits, the shell offers folders.
func (a *app) completeRevisions(command *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	dir, err := a.dir()
	if err != nil || len(args) > 0 {
		return nil, nothingElse
	}
	names, _ := run.Output(command.Context(), run.Command{Program: "git", Stderr: io.Discard,
		Args: []string{"-C", dir, "for-each-ref", "--sort=-creatordate", "--format=%(refname:short)\t%(subject)"}})
	return strings.Split(strings.TrimSpace(names), "\n"), cobra.ShellCompDirectiveDefault
}

// changesSince compares with the revision or folder in args, by default with HEAD.
func (a *app) changesSince(ctx context.Context, args []string) (diff.Changes, error) {
	dir, err := a.dir()
	if err != nil {
		return nil, err
	}
	now, err := a.validPlan()
	if err != nil {
		return nil, err
	}
	rev := "HEAD"
	if len(args) > 0 {
		rev = args[0]
	}
	if rev == "" { // an unset variable of a script
		return nil, usageError(errors.New("an empty name is not a revision or folder"))
	}
	fsys, prefix, err := otherTables(ctx, dir, rev, len(args) > 0)
	if err != nil {
		return nil, err
	}
	before, problems := plan.Load(fsys)
	if problems.Errors() > 0 {
		for i := range problems {
			problems[i].File = prefix + problems[i].File
		}
		a.printProblems(a.stderr, problems)
		return nil, &exitError{code: exitInvalid, err: fmt.Errorf("the tables of %s are not valid, so they cannot be compared", rev),
			hint: "name a revision or folder with valid tables: k3splan diff REV"}
	}
	changes := diff.Compare(before, now)
	if changes == nil {
		changes = diff.Changes{}
	}
	return changes, nil
}

// otherTables returns the tables of a folder that contains plans/, or of a revision. prefix is what a
// reader needs before the name of a file in it.
func otherTables(ctx context.Context, dir, name string, maybeFolder bool) (fsys fs.FS, prefix string, err error) {
	isFolder := false
	if info, err := os.Stat(filepath.Join(name, "plans")); maybeFolder && err == nil {
		isFolder = info.IsDir()
	}
	isPath := filepath.Base(name) != name || name == "." || name == ".."
	if isFolder && isPath {
		return files.In(name), filepath.Clean(name) + "/", nil
	}
	fsys, err = diff.Revision(ctx, dir, name)
	switch {
	case isFolder && err == nil:
		return nil, "", &exitError{code: exitInvalid, err: fmt.Errorf("%q is both a revision and a folder", name),
			hint: fmt.Sprintf("the folder: k3splan diff ./%s\nthe revision: k3splan diff refs/heads/%s", name, name)}
	case isFolder:
		return files.In(name), filepath.Clean(name) + "/", nil
	case errors.Is(err, diff.ErrNoRevision):
		return nil, "", &exitError{code: exitInvalid, err: fmt.Errorf("%q is neither a revision of the project nor a folder that contains plans/", name),
			hint: "git log --oneline -- plans shows the revisions"}
	case err != nil:
		return nil, "", usageError(err)
	}
	return fsys, name + ":", nil
}

// printChanges prints a line for each change, with the hint below it.
func (a *app) printChanges(changes diff.Changes) error {
	var lines strings.Builder
	colours := map[diff.Risk]colour{diff.Refuse: red, diff.Ask: yellow, diff.Restart: cyan}
	for i, change := range changes {
		label := fmt.Sprintf("%-7s", change.Risk)
		if c, ok := colours[change.Risk]; ok {
			label = a.paint(a.stdout, c, label)
		}
		hint := change.Hint
		if i+1 < len(changes) && changes[i+1].Hint == hint {
			hint = "" // once, below the last change that has it
		}
		fmt.Fprintf(&lines, "%s  %s\n%s", label, change.Sentence, a.hints(a.stdout, "         ", hint))
	}
	if _, err := a.stdout.WriteString(lines.String()); err != nil {
		return err
	}
	switch hosts := len(changes.Hosts()); {
	case len(changes) == 0:
		a.say("the plan has not changed")
	case hosts == 0:
		a.say("%s, affecting no host", text.Count(len(changes), "change"))
	default:
		a.say("%s, affecting %s", text.Count(len(changes), "change"), text.Count(hosts, "host"))
	}
	return nil
}
