package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"k3splan/internal/edit"
	"k3splan/internal/plan"
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
	command.Flags().BoolVar(&e.asJSON, "json", false, "print {written, tables, moved, left, mentions}")
	if e.asks {
		command.Flags().BoolVarP(&e.yes, "yes", "y", false, "do not ask")
	}
}

// edited is what a change did, as --json prints it.
type edited struct {
	Written bool `json:"written"`
	// Tables are unified diffs by file.
	Tables map[string]string `json:"tables"`
	Moved  []edit.Move       `json:"moved"`
	// Left are files of the user that belong to nothing after the change.
	Left []string `json:"left"`
	// Mentions are places where a name stands that is another one now, "file:line".
	Mentions []string `json:"mentions"`
}

// run makes a change: show it, look at the plan that it would give, ask, write.
func (e *editing) run(change func(*edit.Edit) error) error {
	dir, err := e.app.dir()
	if err != nil {
		return err
	}
	tables, err := edit.Open(os.DirFS(dir))
	if err != nil {
		return e.refused(err, "the tables cannot be edited:")
	}
	result := edited{Tables: map[string]string{}, Moved: []edit.Move{}, Left: []string{}, Mentions: []string{}}
	if err := change(tables); err != nil {
		return e.refused(err, "the tables cannot be edited:")
	}
	changed, problems, err := tables.Result()
	if err != nil {
		return e.refused(err, "nothing was written; the plan would have these problems:")
	}
	result.Tables = tables.Diff()
	result.Moved = append(result.Moved, tables.Moves...)
	moved := map[string]string{}
	for _, move := range tables.Moves {
		moved[move.From] = move.To
	}
	for _, gone := range namesOf(tables.Before()) {
		if slices.Contains(namesOf(changed), gone) {
			continue
		}
		for _, file := range tables.FilesOf(gone) {
			if moved[file] == "" {
				result.Left = append(result.Left, file)
			}
		}
		for _, m := range tables.Mentions(gone) {
			if !slices.Contains(result.Left, m.File) {
				result.Mentions = append(result.Mentions, fmt.Sprintf("%s:%d", cmp.Or(moved[m.File], m.File), m.Line))
			}
		}
	}
	if !e.asJSON {
		e.show(result)
	}
	e.app.printProblems(e.app.stderr, newIn(problems, dir))
	if err := e.confirm(); err != nil {
		return err
	}
	if !e.dryRun {
		e.warnOpen(dir, tables)
		if err := tables.Write(dir); err != nil {
			return err
		}
		result.Written = true
	}
	if e.asJSON {
		return printJSON(e.app.stdout, result)
	}
	e.sayLeft(result)
	return nil
}

// namesOf are the names of all hosts and containers.
func namesOf(p *plan.Plan) []string {
	names := p.HostNames()
	for _, c := range slices.Concat(p.Servers(), p.Agents()) {
		names = append(names, c.Name)
	}
	return names
}

// refused prints the problems of a plan that cannot be, or gives the reason of a refusal.
func (e *editing) refused(err error, title string) error {
	var invalid *edit.Invalid
	if errors.As(err, &invalid) {
		e.app.say("%s", title)
		e.app.printProblems(e.app.stderr, invalid.Problems)
		return &exitError{code: exitInvalid, err: err, quiet: true}
	}
	var refused *edit.Refused
	if errors.As(err, &refused) {
		return &exitError{code: exitInvalid, err: err, hint: refused.Hint()}
	}
	return err
}

// newIn gives the problems that the project does not have yet.
func newIn(problems plan.Problems, dir string) plan.Problems {
	_, before := plan.Load(os.DirFS(dir))
	known := map[plan.Problem]bool{}
	for _, p := range before {
		p.Line = 0 // rows move
		known[p] = true
	}
	return slices.DeleteFunc(problems, func(p plan.Problem) bool {
		p.Line = 0
		return known[p]
	})
}

// show prints the change.
func (e *editing) show(result edited) {
	a := e.app
	for _, file := range edit.Names() {
		for line := range strings.Lines(result.Tables[file]) {
			text := strings.TrimSuffix(line, "\n")
			switch {
			case strings.HasPrefix(line, "+") && !strings.HasPrefix(line, "+++ "):
				text = a.paint(a.stdout, green, text)
			case strings.HasPrefix(line, "-") && !strings.HasPrefix(line, "--- "):
				text = a.paint(a.stdout, red, text)
			}
			fmt.Fprintln(a.stdout, text)
		}
	}
	for _, move := range result.Moved {
		fmt.Fprintf(a.stdout, "rename %s to %s\n", move.From, move.To)
	}
}

func (e *editing) confirm() error {
	if !e.asks || e.yes || e.dryRun {
		return nil
	}
	if e.asJSON || !term.IsTerminal(int(e.app.stdin.Fd())) {
		return &exitError{code: exitInvalid, err: errors.New("nothing was written: there is nobody to ask whether this is right"), hint: "--yes answers in advance"}
	}
	fmt.Fprint(e.app.stderr, "Write this? [y/N] ")
	answer, _ := bufio.NewReader(e.app.stdin).ReadString('\n')
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return &exitError{code: exitFailed, err: errors.New("nothing was written")}
	}
	return nil
}

// warnOpen tells that a table is open in LibreOffice, which would write its own state over ours.
func (e *editing) warnOpen(dir string, tables *edit.Edit) {
	for file := range tables.Files() {
		lock := path.Join(path.Dir(file), ".~lock."+path.Base(file)+"#")
		if fileExists(filepath.Join(dir, lock)) {
			e.app.say("%s is open in LibreOffice: load it again there, or the change is lost", file)
		}
	}
}

// sayLeft tells what only the user can do about a name that is gone.
func (e *editing) sayLeft(result edited) {
	if len(result.Left) > 0 {
		words := make([]string, len(result.Left))
		for i, file := range result.Left {
			words[i] = shellWord(file)
		}
		e.app.say("these files belong to nothing now: rm %s", strings.Join(words, " "))
	}
	if len(result.Mentions) > 0 {
		e.app.say("the old name also stands here, which only you can judge: %s", strings.Join(result.Mentions, " "))
	}
	if e.dryRun {
		e.app.say("nothing was written (--dry-run)")
	}
}

// completing offers names of the plan for the first argument.
func (a *app) completing(names func(*plan.Plan) []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		dir, err := a.dir()
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		p, _ := plan.Load(os.DirFS(dir))
		return names(p), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeValues offers what the plan's hosts have already, for the value of a flag.
func (a *app) completeValues(of func(*plan.Host) []string, more ...string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		values := slices.Clone(more)
		if dir, err := a.dir(); err == nil {
			p, _ := plan.Load(os.DirFS(dir))
			for _, host := range p.Hosts {
				values = append(values, of(host)...)
			}
		}
		slices.Sort(values)
		return slices.Compact(values), cobra.ShellCompDirectiveNoFileComp
	}
}

// hostsWhere gives the names of the hosts of which something is true.
func hostsWhere(condition func(*plan.Host) bool) func(*plan.Plan) []string {
	return func(p *plan.Plan) []string {
		var names []string
		for _, host := range p.Hosts {
			if condition(host) {
				names = append(names, host.Name)
			}
		}
		return names
	}
}
