package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"
	kversion "k8s.io/apimachinery/pkg/util/version"

	"k3splan"
	"k3splan/internal/colmena"
	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/hive"
	"k3splan/internal/pins"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/run"
	"k3splan/internal/text"
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine has, and what it lacks for which command",
		Long: `Looks for the programs that k3splan runs (Nix, Colmena, ssh, git and others), asks each for its
version, and looks at the project: its problems, pins, ssh keys and rendered files. Nothing is
changed, and no other machine is asked.

  ok       as it should be
  note     nothing fails, but look at it
  missing  the commands that are named need it
  broken   it is there, and does not work, or is too old

The exit code is 0 if nothing is missing or broken, else 1.`,
		Example: "  k3splan doctor || true\n  k3splan doctor --json | jq -r '.[] | select(.state != \"ok\") | .name'",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(command *cobra.Command, _ []string) error { return a.doctor(command.Context(), asJSON) },
	}
	addJSON(command, &asJSON, []checkup{})
	return command
}

// state says how well something is.
type state string

const (
	stateOK      state = "ok"
	stateNote    state = "note"
	stateMissing state = "missing"
	stateBroken  state = "broken"
)

// checkup is one row of doctor's table.
type checkup struct {
	Name    string `json:"name"`
	State   state  `json:"state"`
	Version string `json:"version"`
	Path    string `json:"path"`
	// NeededFor are k3splan's commands.
	NeededFor []string `json:"needed_for"`
	Message   string   `json:"message"`
	Hint      string   `json:"hint"`
}

// tool is a program that k3splan runs.
type tool struct {
	program string
	version string // the argument with which it tells its version
	needed  []string
	oldest  string // the first version that will do
}

var tools = []tool{
	// oldest: lib/minver.nix of the oldest nixpkgs that k3splan works with
	{"nix-build", "--version", []string{"build", "deploy", "boot-stick"}, "2.3.17"},
	{"colmena", "--version", []string{"build", "deploy"}, ""},
	{"nix-prefetch-url", "--version", []string{"update"}, ""},
	{"git", "--version", []string{"update", "diff", "secrets audit"}, ""},
	{"ssh", "-V", []string{"deploy", "status", "hardware", "known-hosts", "ssh", "kubeconfig", "token"}, ""},
	{"lsblk", "--version", []string{"boot-stick"}, "2.27"}, // oldest: --json
}

// passTool is needed where it keeps the secrets.
var passTool = tool{"pass", "version", []string{"deploy", "boot-stick", "passwd", "secrets"}, ""}

// askTime is how long a program may take to answer a question.
var askTime = 10 * time.Second

func (a *app) doctor(ctx context.Context, asJSON bool) error {
	wanted := slices.Clone(tools)
	if p := a.planSoFar(); p != nil && p.Network.Secrets.Kind == plan.SecretPass {
		wanted = append(wanted, passTool)
	}
	checks := make([]checkup, 1+len(wanted))
	checks[0] = checkup{Name: "k3splan", State: stateOK, Version: version()}
	var asked sync.WaitGroup
	for i, t := range wanted {
		asked.Go(func() { checks[1+i] = examine(ctx, t) })
	}
	asked.Wait()
	checks = append(checks, a.examineProject(ctx)...)

	if asJSON {
		for i := range checks {
			if checks[i].NeededFor == nil {
				checks[i].NeededFor = []string{}
			}
		}
		if err := printJSON(a.stdout, checks); err != nil {
			return err
		}
	} else if err := a.printChecks(checks); err != nil {
		return err
	}
	if slices.ContainsFunc(checks, func(c checkup) bool { return c.State == stateMissing || c.State == stateBroken }) {
		return &exitError{code: exitFailed, err: errors.New("something is missing"), quiet: true}
	}
	return nil
}

// printChecks prints a table, with the hints below their rows.
func (a *app) printChecks(checks []checkup) error {
	const indent = "         " // as wide as the column of states
	left := 0                  // where the text begins
	for _, c := range checks {
		left = max(left, len(indent)+lipgloss.Width(inOneLine(c.Name))+2)
	}
	room := max(a.width()-left, 30)
	colours := map[state]colour{stateOK: green, stateNote: yellow, stateMissing: red, stateBroken: red}
	for _, c := range checks {
		text := lipgloss.Wrap(cmp.Or(inOneLine(c.Message), c.Version), room, " ")
		if len(c.NeededFor) > 0 {
			text = behind(text, "for "+strings.Join(c.NeededFor, ", "), room)
		}
		name := inOneLine(c.Name) + strings.Repeat(" ", left-len(indent)-lipgloss.Width(inOneLine(c.Name)))
		text = strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", left))
		state := a.paint(a.stdout, colours[c.State], string(c.State)) + indent[len(c.State):]
		if _, err := fmt.Fprint(a.stdout, strings.TrimRight(state+name+text, " ")+"\n"+a.hints(a.stdout, indent, c.Hint)); err != nil {
			return err
		}
	}
	return nil
}

// behind puts something behind a text, or below it where there is no room.
func behind(text, more string, width int) string {
	last := text[strings.LastIndex(text, "\n")+1:]
	if lipgloss.Width(last)+2+lipgloss.Width(more) <= width {
		return text + "  " + more
	}
	return text + "\n" + lipgloss.Wrap(more, width, " ")
}

// inOneLine: a row is a line, and the name of a file may hold a line break.
func inOneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

var versionNumber = regexp.MustCompile(`[0-9]+(?:\.[0-9]+)+[A-Za-z0-9.+_-]*`)

// examine asks a program for its version: one that cannot tell it does not work.
func examine(ctx context.Context, t tool) checkup {
	c := checkup{Name: t.program, NeededFor: t.needed, Hint: diag.HintOf(run.Missing(t.program))}
	path, err := exec.LookPath(t.program)
	if err != nil {
		c.State, c.Message = stateMissing, "not on PATH"
		if _, err := exec.LookPath("nix-build"); err == nil && t.program == "colmena" {
			c.State, c.Message, c.Hint = stateOK, "from the pinned nixpkgs", ""
		}
		return c
	}
	c.Path = path
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var said bytes.Buffer // ssh tells its version there
	out, err := run.Output(ctx, run.Command{Program: path, Args: []string{t.version}, Stderr: &said})
	c.Version = cmp.Or(versionNumber.FindString(out+said.String()), firstLine(out+said.String()))
	switch {
	case ctx.Err() != nil:
		c.State, c.Version, c.Message = stateBroken, "", fmt.Sprintf("gave no answer in %s", askTime)
		c.Hint = "see what keeps it: " + run.Words(path, t.version)
	case err != nil:
		c.State, c.Version, c.Message = stateBroken, "", firstLine(said.String()+"\n"+err.Error())
	case olderThan(c.Version, t.oldest):
		c.State, c.Message = stateBroken, fmt.Sprintf("%s is too old: %s is needed", c.Version, t.oldest)
	default:
		c.State, c.Hint = stateOK, ""
	}
	return c
}

// olderThan compares versions by their numbers; one that is not known is not older.
func olderThan(present, oldest string) bool {
	p, err := kversion.ParseGeneric(leadingNumbers.FindString(present))
	o, errOldest := kversion.ParseGeneric(oldest)
	return err == nil && errOldest == nil && p.LessThan(o)
}

var leadingNumbers = regexp.MustCompile(`^[0-9]+(\.[0-9]+)+`)

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// toMachines are the commands that need a plan without errors.
var toMachines = []string{"render", "build", "deploy", "boot-stick"}

// examineProject looks at the project, if there is one, and at what it needs beyond the programs.
func (a *app) examineProject(ctx context.Context) []checkup {
	c := checkup{Name: "project", State: stateOK, NeededFor: toMachines}
	dir, err := a.dir()
	if err != nil {
		c.State, c.Message, c.Hint = stateNote, "none here", "k3splan setup DIR makes one; -p DIR names one"
		if a.projectDir != "" {
			c.State, c.Message = stateBroken, err.Error()
		}
		return []checkup{c}
	}
	c.Path = dir
	w, err := a.workspace()
	if err != nil {
		c.State, c.Message = stateBroken, err.Error()
		return []checkup{c}
	}
	p, problems := w.Project()
	in := inProject(a.projectDir)
	errs := problems.Errors()
	c.Message = text.Count(len(p.Plan.Hosts), "host")
	switch {
	case errs > 0:
		c.State, c.Message = stateBroken, fmt.Sprintf("%s in %s", text.Count(errs, "error"), filesIn(problems))
	case len(problems) > 0:
		c.State, c.Message = stateNote, fmt.Sprintf("%s, %s in %s", c.Message, text.Count(len(problems), "warning"), filesIn(problems))
	}
	if c.State != stateOK {
		c.Hint = "k3splan validate" + in
	}
	checks := []checkup{c}
	checks = append(checks, examinePins(p, in)...)
	checks = append(checks, examineHostKeys(p, in)...)
	if errs == 0 {
		checks = append(checks, examineRendered(p, in)...)
	}
	checks = append(checks, examineSchema(w, dir)...)
	return append(checks, examineBuilders(ctx, p.Plan)...)
}

// filesIn names the files that have the worst of the problems.
func filesIn(problems diag.Problems) string {
	worst := diag.Warning
	if problems.Errors() > 0 {
		worst = diag.Error
	}
	var files []string
	for _, p := range problems {
		if p.Severity == worst && !slices.Contains(files, p.File) {
			files = append(files, p.File)
		}
	}
	if len(files) > 3 {
		files = append(files[:3], "…")
	}
	return strings.Join(files, ", ")
}

// examinePins: only update moves a pin, so what is not pinned stays so.
func examinePins(p *project.Project, in string) (checks []checkup) {
	sources := []plan.Source{p.Plan.Network.Versions.NixOS}
	if p.NeedsDisko() {
		sources = append(sources, p.Plan.Network.Versions.Disko)
	}
	for _, source := range sources {
		if source.IsZero() {
			continue // a problem of the plan
		}
		c := checkup{Name: string(source.Kind), State: stateOK, Message: source.String(), NeededFor: []string{"build", "deploy", "boot-stick"}}
		switch {
		case p.Lock.Origin(source).Missing != "":
			c.State, c.Message, c.Hint = stateMissing, fmt.Sprintf("%s is not pinned in %s", source, pins.File), "k3splan update"+in
		case source.NeedsLock():
			c.Message += ", pinned"
		}
		checks = append(checks, c)
	}
	return checks
}

// examineHostKeys: no connection is made to a machine whose key is unknown.
func examineHostKeys(p *project.Project, in string) []checkup {
	if len(p.Plan.Hosts) == 0 {
		return nil
	}
	var unknown []string
	for _, host := range p.Plan.Hosts {
		if !host.Target.Local && !p.HostKeys.Known(host.Name) {
			unknown = append(unknown, host.Name)
		}
	}
	c := checkup{Name: "host keys", State: stateOK, Message: "known of all hosts", NeededFor: []string{"deploy", "status", "ssh"}}
	if len(unknown) > 0 {
		c.State, c.Message = stateMissing, "unknown of "+strings.Join(unknown, ", ")
		c.Hint = fmt.Sprintf("k3splan known-hosts make%s for new machines, k3splan known-hosts scan%[1]s HOST for one that runs", in)
	}
	return []checkup{c}
}

// examineRendered compares generated/, if it is there. build and deploy render anew by themselves.
func examineRendered(p *project.Project, in string) []checkup {
	if !fileExists(filepath.Join(p.Dir, hive.Dir)) {
		return nil
	}
	c := checkup{Name: hive.Dir + "/", State: stateOK, Message: "as the plan says"}
	tree, err := hive.Render(p, k3splan.Files)
	diff := ""
	if err == nil {
		diff, err = tree.Diff(p.Dir)
	}
	if err != nil {
		c.State, c.Message = stateBroken, err.Error()
	} else if diff != "" {
		c.State, c.Message, c.Hint = stateNote, "was rendered from another plan", "k3splan render"+in
	}
	return []checkup{c}
}

// examineSchema: an older k3splan's schema lets editors mark keys that are right.
func examineSchema(w *project.Workspace, dir string) []checkup {
	c := checkup{Name: "schema", State: stateOK, Path: files.SchemaFile, Message: "of this k3splan"}
	switch {
	case !fileExists(filepath.Join(dir, files.SchemaFile)):
		return nil // not everybody has an editor that uses it
	case !isStarter(w, files.SchemaFile):
		c.State, c.Message, c.Hint = stateNote, "of another k3splan", renewSchema(dir)
	}
	return []checkup{c}
}

// examineBuilders looks for somebody who builds for each platform of the plan.
func examineBuilders(ctx context.Context, p *plan.Plan) (checks []checkup) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	builds, err := colmena.Platforms(ctx)
	if missing := (*run.MissingError)(nil); errors.As(err, &missing) {
		return nil // told already
	} else if err != nil {
		return []checkup{{Name: "nix", State: stateBroken, Message: firstLine(err.Error()), NeededFor: []string{"build", "deploy", "boot-stick"},
			Hint: "nix-instantiate --eval -E builtins.currentSystem, to see more; is Nix's daemon running?"}}
	}
	seen := map[string]bool{}
	for _, host := range p.Hosts {
		if seen[host.System] {
			continue
		}
		seen[host.System] = true
		c := checkup{Name: host.System, State: stateOK, Message: "can be built", NeededFor: []string{"build", "deploy"}}
		if !slices.Contains(builds, host.System) {
			c.State, c.Message = stateBroken, fmt.Sprintf("Nix builds for %s only", strings.Join(builds, ", "))
			c.Hint = "set a remote builder (/etc/nix/machines), or extra-platforms with binfmt, in Nix's configuration"
		}
		checks = append(checks, c)
	}
	return checks
}
