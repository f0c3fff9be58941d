package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"k3splan/internal/colmena"
	"k3splan/internal/plan"
	"k3splan/internal/project"
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "doctor",
		Short: "Say what is on this machine, and what is missing for which command",
		Long: `Looks for the programs that k3splan runs (Nix, Colmena, ssh, git and others), asks each for its
version, and looks at the project. Nothing is changed, and no other machine is asked.

Exit code 0 if nothing is missing that a command needs, else 1. What only some people use (age,
pass) may be missing.`,
		Example: "  k3splan doctor || true\n  k3splan doctor --json | jq -r '.[] | select(.state != \"ok\") | .name'",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(command *cobra.Command, _ []string) error { return a.doctor(command.Context(), asJSON) },
	}
	command.Flags().BoolVar(&asJSON, "json", false, "print a list of {name, state, version, path, needed_for, message, hint}")
	return command
}

// state says how well something is.
type state string

const (
	stateOK      state = "ok"
	stateMissing state = "missing"
	stateBroken  state = "broken"
	// stateAbsent is missing, but not needed by everybody.
	stateAbsent state = "absent"
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
	program  string
	version  []string // the arguments with which it tells its version
	needed   []string
	optional bool
	hint     string
}

const nixHint = "install Nix: https://nixos.org/download, or on Debian: apt install nix-bin"

var tools = []tool{
	{"nix-build", []string{"--version"}, []string{"build", "deploy", "boot-stick"}, false, nixHint},
	{"nix-prefetch-url", []string{"--version"}, []string{"update"}, false, nixHint},
	{"git", []string{"--version"}, []string{"update", "diff"}, false, "on Debian: apt install git"},
	{"ssh", []string{"-V"}, []string{"deploy", "status", "hardware", "ssh", "kubeconfig"}, false, "on Debian: apt install openssh-client"},
	{"lsblk", []string{"--version"}, []string{"boot-stick"}, false, "on Debian: apt install util-linux"},
	{"age", []string{"--version"}, []string{"secrets"}, true, "only for secrets kept with age; on Debian: apt install age"},
	{"pass", []string{"--version"}, []string{"secrets"}, true, "only for secrets kept with pass; on Debian: apt install pass"},
}

// askTime is how long a program may take to tell its version.
const askTime = 10 * time.Second

func (a *app) doctor(ctx context.Context, asJSON bool) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	checks := make([]checkup, len(tools)+1)
	var asked sync.WaitGroup
	for i, t := range tools {
		asked.Go(func() { checks[i] = examine(ctx, t) })
	}
	asked.Go(func() { checks[len(tools)] = examineColmena(ctx) })
	asked.Wait()

	checks = slices.Insert(checks, 0, checkup{Name: "k3splan", State: stateOK, Version: version()})
	// Colmena beside Nix, from which it comes
	last := len(checks) - 1
	checks = slices.Insert(checks[:last], 2, checks[last])
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
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	for _, c := range checks {
		purpose := ""
		if len(c.NeededFor) > 0 {
			purpose = "for " + strings.Join(c.NeededFor, ", ")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", c.State, c.Name, cmp.Or(c.Message, c.Version), purpose)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	colours := map[state]colour{stateOK: green, stateAbsent: yellow, stateMissing: red, stateBroken: red}
	for i, line := range strings.Split(strings.TrimSuffix(table.String(), "\n"), "\n") {
		c := checks[i]
		rest := strings.TrimRight(strings.TrimPrefix(line, string(c.State)), " ")
		fmt.Fprintln(a.stdout, a.paint(a.stdout, colours[c.State], string(c.State))+rest)
		if c.Hint != "" && c.State != stateOK {
			fmt.Fprintf(a.stdout, "         %s %s\n", a.paint(a.stdout, cyan, "hint:"), c.Hint)
		}
	}
	return nil
}

var versionNumber = regexp.MustCompile(`[0-9]+(?:\.[0-9]+)+[A-Za-z0-9.+_-]*`)

// examine asks a program for its version: one that cannot tell it does not work.
func examine(ctx context.Context, t tool) checkup {
	c := checkup{Name: t.program, NeededFor: t.needed, Hint: t.hint}
	path, err := exec.LookPath(t.program)
	if err != nil {
		c.State, c.Message = stateMissing, "not on PATH"
		if t.optional {
			c.State = stateAbsent
		}
		return c
	}
	c.Path, c.State = path, stateOK
	var said bytes.Buffer // ssh tells its version there
	out, err := colmena.Output(ctx, colmena.Command{Program: path, Args: t.version, Stderr: &said})
	if err != nil {
		c.State, c.Message = stateBroken, firstLine(said.String()+"\n"+err.Error())
		return c
	}
	c.Version, c.Hint = cmp.Or(versionNumber.FindString(out+said.String()), firstLine(out+said.String())), ""
	return c
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// examineColmena: without it on PATH, k3splan takes that of the pinned nixpkgs.
func examineColmena(ctx context.Context) checkup {
	c := examine(ctx, tool{program: "colmena", version: []string{"--version"}, needed: []string{"build", "deploy"},
		hint: (&colmena.MissingError{Program: "colmena"}).Hint()})
	if c.State != stateMissing {
		return c
	}
	if _, err := exec.LookPath("nix-build"); err == nil {
		c.State, c.Message, c.Hint = stateOK, "from the pinned nixpkgs", ""
	}
	return c
}

// examineProject looks at the project, if there is one, and at what it needs beyond the programs.
func (a *app) examineProject(ctx context.Context) []checkup {
	c := checkup{Name: "project"}
	dir, err := a.dir()
	if err != nil {
		c.State, c.Message, c.Hint = stateAbsent, "none here", "k3splan setup DIR makes one; -p DIR names one"
		if a.projectDir != "" {
			c.State, c.Message = stateBroken, err.Error()
		}
		return []checkup{c}
	}
	c.Path = dir
	p, problems, err := project.Load(dir)
	if err != nil {
		c.State, c.Message = stateBroken, err.Error()
		return []checkup{c}
	}
	c.State = stateOK
	c.Message = fmt.Sprintf("%s, %s", count(len(p.Plan.Hosts), "host"), count(len(problems)-problems.Errors(), "warning"))
	if n := problems.Errors(); n > 0 {
		c.State, c.Message, c.Hint = stateBroken, count(n, "error")+" in the plan", "k3splan validate shows them"
	}
	checks := append([]checkup{c}, examineSchema(dir)...)
	return append(checks, examineBuilders(ctx, p.Plan)...)
}

// examineSchema: an older k3splan's schema lets editors mark keys that are right.
func examineSchema(dir string) []checkup {
	present, err := os.ReadFile(filepath.Join(dir, project.SchemaFile))
	if err != nil {
		return nil // not everybody has an editor that uses it
	}
	c := checkup{Name: "schema", State: stateOK, Path: project.SchemaFile, Message: "of this k3splan"}
	if own, err := schema(); err != nil || !bytes.Equal(present, own) {
		c.State, c.Message, c.Hint = stateAbsent, project.SchemaFile+" is of another k3splan", "k3splan schema > "+project.SchemaFile
	}
	return []checkup{c}
}

// examineBuilders looks for somebody who builds for each platform of the plan.
func examineBuilders(ctx context.Context, p *plan.Plan) (checks []checkup) {
	own, err := colmena.Output(ctx, colmena.Command{Program: "nix-instantiate", Args: []string{"--eval", "-E", "builtins.currentSystem"}, Stderr: io.Discard})
	if err != nil {
		return nil // told as missing Nix
	}
	builds := []string{strings.Trim(strings.TrimSpace(own), `"`)}
	builds = append(builds, foreignBuilders(ctx)...)
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

// foreignBuilders are the platforms for which Nix builds beside the machine's own, by emulation or
// on other machines.
func foreignBuilders(ctx context.Context) []string {
	type setting struct{ Value json.RawMessage }
	var settings map[string]setting
	for _, ask := range [][]string{{"config", "show", "--json"}, {"show-config", "--json"}} {
		out, err := colmena.Output(ctx, colmena.Command{Program: "nix",
			Args: append([]string{"--extra-experimental-features", "nix-command"}, ask...), Stderr: io.Discard})
		if err == nil && json.Unmarshal([]byte(out), &settings) == nil {
			break
		}
	}
	var platforms []string
	_ = json.Unmarshal(settings["extra-platforms"].Value, &platforms) // none of them, if it is not there
	var builders string
	_ = json.Unmarshal(settings["builders"].Value, &builders)
	for _, line := range strings.FieldsFunc(builders, func(c rune) bool { return c == '\n' || c == ';' }) {
		line = strings.TrimSpace(line)
		if file, found := strings.CutPrefix(line, "@"); found {
			text, err := os.ReadFile(file)
			if err != nil {
				continue
			}
			line = string(text)
		}
		for machine := range strings.Lines(line) {
			// STORE PLATFORM,PLATFORM …
			if words := strings.Fields(machine); len(words) > 1 && !strings.HasPrefix(words[0], "#") {
				platforms = append(platforms, strings.Split(words[1], ",")...)
			}
		}
	}
	slices.Sort(platforms)
	return slices.Compact(platforms)
}
