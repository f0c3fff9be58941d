package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"k3splan/internal/ask"
	"k3splan/internal/diag"
	"k3splan/internal/diff"
	"k3splan/internal/edit"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
)

// editing is what add, remove and rename have in common.
type editing struct {
	app    *app
	dryRun bool
	asJSON bool
	// asks: the change is shown and asked about before it is written, unless yes
	asks, yes bool
}

func (e *editing) flags(command *cobra.Command) {
	command.Flags().BoolVar(&e.dryRun, "dry-run", false, "show the change, and write nothing")
	addJSON(command, &e.asJSON, edited{})
	if e.asks {
		command.Flags().BoolVarP(&e.yes, "yes", "y", false, "do not ask")
	}
}

// edited is what a change did, as --json prints it.
type edited struct {
	Written bool `json:"written"`
	// Changes are what the change means; none if the plan was invalid before.
	Changes diff.Changes `json:"changes"`
	// Tables are unified diffs by file.
	Tables map[string]string `json:"tables"`
	Moved  []edit.Move       `json:"moved"`
	edit.Aftermath
}

// run makes a change: show it, check the plan that it would give, ask, write. next returns the commands that
// the user runs afterwards.
func (e *editing) run(change func(*edit.Edit) error, next func(dir string, now *plan.Plan) []string) error {
	dir, err := e.app.dir()
	if err != nil {
		return err
	}
	w, err := e.app.workspace()
	if err != nil {
		return err
	}
	tables, err := edit.Open(w.FS())
	if err != nil {
		return e.refused(err, nil)
	}
	_, already := tables.Before()
	if err := change(tables); err != nil {
		return e.refused(err, already)
	}
	now, fresh, err := tables.Result()
	if err != nil {
		return e.refused(err, already)
	}
	result := resultOf(tables, now)
	if !e.asJSON {
		if err := e.show(tables.Names(), result); err != nil {
			return err
		}
	}
	e.app.printProblems(e.app.stderr, fresh)
	if !e.asJSON {
		e.sayLeft(result.Aftermath)
	}
	if err := e.confirm(); err != nil {
		return err
	}
	if !e.dryRun {
		for file := range tables.Files() {
			e.app.warnOpen(dir, file)
		}
		if err := tables.Write(dir); err != nil {
			return err
		}
		result.Written = true
	}
	if e.asJSON {
		return printJSON(e.app.stdout, result)
	}
	switch {
	case e.dryRun:
		e.app.say("nothing was written (--dry-run)")
	case result.Changes.Risk() != diff.Refuse: // else the changes' hints come first
		e.app.say("next: %s", strings.Join(next(dir, now), "\n      "))
	}
	return nil
}

// resultOf returns what a change does that leads to a plan.
func resultOf(tables *edit.Edit, now *plan.Plan) edited {
	result := edited{Changes: diff.Changes{}, Tables: tables.Diff(), Moved: append([]edit.Move{}, tables.Moves...), Aftermath: tables.Aftermath(now)}
	before, problems := tables.Before()
	if problems.Errors() > 0 {
		return result
	}
	for _, c := range diff.Compare(before, now) {
		if c.Object == diff.Host && c.Action == diff.Renamed {
			c.Hint = "" // it is about renaming the files, which are among the moves
		}
		result.Changes = append(result.Changes, c)
	}
	return result
}

// refused prints the problems of a plan that would be invalid, or returns the reason of a refusal after the
// problems that the plan already has, which may be the cause.
func (e *editing) refused(err error, already diag.Problems) error {
	var invalid *edit.Invalid
	var refused *edit.Refused
	switch {
	case errors.As(err, &invalid):
		title := "nothing was written; the plan would have these problems:"
		if invalid.Already {
			title = "nothing was written, because the plan already has these problems:"
		}
		e.app.say("%s", title)
		e.app.printProblems(e.app.stderr, invalid.Problems)
		return &exitError{code: exitInvalid, err: err, quiet: true}
	case errors.As(err, &refused):
		if already.Errors() > 0 {
			e.app.say("the plan already has these problems:")
			e.app.printProblems(e.app.stderr, already)
		}
		return usageError(err)
	}
	return err
}

// show prints the change.
func (e *editing) show(tables []string, result edited) error {
	a := e.app
	var shown strings.Builder
	for _, file := range tables {
		shown.WriteString(a.paintedDiff(a.stdout, result.Tables[file]))
	}
	for _, move := range result.Moved {
		fmt.Fprintf(&shown, "rename %s to %s\n", move.From, move.To)
	}
	if len(result.Changes) > 0 {
		shown.WriteString("\n")
	}
	if _, err := a.stdout.WriteString(shown.String()); err != nil || len(result.Changes) == 0 {
		return err
	}
	return a.printChanges(result.Changes)
}

// paintedDiff returns a unified diff in colours.
func (a *app) paintedDiff(out *os.File, diff string) string {
	var shown strings.Builder
	for line := range strings.Lines(diff) {
		text := strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "+") && !strings.HasPrefix(line, "+++ "):
			text = a.paint(out, green, text)
		case strings.HasPrefix(line, "-") && !strings.HasPrefix(line, "--- "):
			text = a.paint(out, red, text)
		}
		shown.WriteString(text + "\n")
	}
	return shown.String()
}

func (e *editing) confirm() error {
	switch {
	case !e.asks || e.dryRun:
		return nil
	case e.asJSON && !e.yes:
		return ask.ErrNoTerminal // nothing was shown
	}
	return e.app.user(e.yes).Confirm(context.Background(), "write this?")
}

// warnOpen warns that a table is open in a spreadsheet program, which would overwrite the change.
func (a *app) warnOpen(dir, file string) {
	for program, lock := range map[string]string{"LibreOffice": ".~lock." + path.Base(file) + "#", "Excel": "~$" + path.Base(file)} {
		if fileExists(filepath.Join(dir, path.Dir(file), lock)) {
			a.say("%s is open in %s: load it again there, or the change is lost", file, program)
		}
	}
}

// sayLeft says what only the user can do about names that are added and removed.
func (e *editing) sayLeft(a edit.Aftermath) {
	for _, part := range []struct {
		text   string
		places []string
	}{
		{"these containers keep their names, which a running cluster uses; change them with k3splan rename", a.Kept},
		{"these already exist and will belong to the new name", a.Taken},
		{"these will belong to nothing: delete them, unless the name comes back", a.Left},
		{"the old name is also mentioned here; check whether it means the host", a.Mentions},
	} {
		if len(part.places) > 0 {
			e.app.say("%s:\n  %s", part.text, strings.Join(part.places, "\n  "))
		}
	}
}

// thenDeploy follows most changes.
func (e *editing) thenDeploy(string, *plan.Plan) []string { return []string{e.command("deploy")} }

// thenInstall follows a new machine.
func (e *editing) thenInstall(name string) func(string, *plan.Plan) []string {
	return func(dir string, now *plan.Plan) []string {
		var steps []string
		known := remote.HostKeys{}
		if w, err := e.app.workspace(); err == nil {
			known, _ = remote.ReadKnownHosts(w.FS(), now.HostNames(), false)
		}
		if host := now.Host(name); !host.Target.Local {
			if !known.Known(name) {
				steps = append(steps, e.command("known-hosts make "+name)+"   # its ssh key; for a machine that already runs: known-hosts scan")
			}
			steps = append(steps, e.command("boot-stick "+name+" /dev/sdX")+"   # installs it")
		}
		return append(steps, e.command("deploy"))
	}
}

// command returns a command of k3splan for this project, to be pasted into a shell.
func (e *editing) command(text string) string {
	return "k3splan " + text + inProject(e.app.projectDir)
}
