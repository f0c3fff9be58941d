package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"k3splan/internal/diag"
	"k3splan/internal/doctor"
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "doctor",
		Short: "Check what this machine has, and which command misses what",
		Long: `Looks for the programs that k3splan runs (Nix, Colmena, ssh, git and others), asks each for its
version, and examines the project: its problems, pins, ssh keys and rendered files. Nothing is
changed, and no other machine is asked.

  ok       as it should be
  note     nothing fails, but it deserves a look
  missing  the commands named beside it need it
  broken   it exists, and does not work, or is too old

The exit code is 0 if nothing is missing or broken, else 1.`,
		Example: "  k3splan doctor || true\n  k3splan doctor --json | jq -r '.[] | select(.state != \"ok\") | .name'",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(command *cobra.Command, _ []string) error { return a.doctor(command.Context(), asJSON) },
	}
	addJSON(command, &asJSON, []doctor.Check{})
	return command
}

func (a *app) doctor(ctx context.Context, asJSON bool) error {
	request := doctor.Request{Version: version(), ProjectFlag: inProject(a.projectDir)}
	if w, err := a.workspace(); err == nil {
		request.Workspace, request.RenewSchema = w, renewSchema(w.Dir)
	} else if a.projectDir != "" {
		request.NoProject = err
	}
	checks := doctor.Examine(ctx, request)
	show := a.printChecks
	if asJSON {
		show = func(checks []doctor.Check) error { return printJSON(a.stdout, checks) }
	}
	if err := show(checks); err != nil {
		return err
	}
	if !doctor.Healthy(checks) {
		return &exitError{code: exitFailed, err: errors.New("something is missing"), quiet: true}
	}
	return nil
}

// printChecks prints a table, with the hints below their rows.
func (a *app) printChecks(checks []doctor.Check) error {
	const indent = "         " // as wide as the column of states
	left := 0                  // where the text begins
	for _, c := range checks {
		left = max(left, len(indent)+lipgloss.Width(inOneLine(c.Name))+2)
	}
	room := max(a.width()-left, 30)
	colours := map[doctor.State]colour{doctor.OK: green, doctor.Note: yellow, doctor.Missing: red, doctor.Broken: red}
	for _, c := range checks {
		text := lipgloss.Wrap(cmp.Or(inOneLine(c.Message), inOneLine(c.Version)), room, " ")
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

// behind appends to a text, or puts below it what does not fit.
func behind(text, more string, width int) string {
	last := text[strings.LastIndex(text, "\n")+1:]
	if lipgloss.Width(last)+2+lipgloss.Width(more) <= width {
		return text + "  " + more
	}
	return text + "\n" + lipgloss.Wrap(more, width, " ")
}

// inOneLine keeps a row in one line: the name of a file may contain a line break.
func inOneLine(text string) string { return diag.Printable(strings.Join(strings.Fields(text), " ")) }
