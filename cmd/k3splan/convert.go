package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"k3splan/internal/convert"
	"k3splan/internal/diag"
)

func (a *app) convertCommand() *cobra.Command {
	var lossy, dryRun bool
	command := &cobra.Command{
		Use:   "convert csv|xlsx",
		Short: "Turn the tables into a workbook, or a workbook into tables",
		Long: `Writes the plan in the other form: xlsx is one workbook, plans/cluster.xlsx; csv means plans/hosts.csv,
plans/k3s.csv and plans/network.yaml. The files of the old form are removed. The plan means the same
afterwards, or nothing is written. Own columns, comments and the order of rows stay.

CSV has no formats, colours and widths. Whatever else the new form cannot hold, such as formulas, further
sheets and notes on cells, is listed, and nothing is written without --lossy.`,
		Example:   "  k3splan convert xlsx\n  k3splan convert csv --dry-run",
		Args:      usageArgs(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		ValidArgs: []string{string(convert.CSV), string(convert.XLSX)},
		RunE: func(_ *cobra.Command, args []string) error {
			return a.convert(convert.Form(args[0]), lossy, dryRun)
		},
	}
	command.Flags().BoolVar(&lossy, "lossy", false, "convert also what the new form cannot hold completely")
	command.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be written and removed, and write nothing")
	return command
}

func (a *app) convert(form convert.Form, lossy, dryRun bool) error {
	dir, err := a.dir()
	if err != nil {
		return err
	}
	w, err := a.workspace()
	if err != nil {
		return err
	}
	c, err := convert.To(w.FS(), form)
	var wrong *convert.InvalidError
	switch {
	case errors.As(err, &wrong):
		if err := a.printProblems(a.stderr, wrong.Problems); err != nil {
			return err
		}
		return &exitError{code: exitInvalid, err: err, quiet: true}
	case err != nil:
		return &exitError{code: exitInvalid, err: err, hint: diag.HintOf(err)}
	case c == nil:
		a.say("nothing to convert: the plan already has this form")
		return nil
	}
	if len(c.Lost) > 0 {
		a.say("the new form cannot hold:\n  %s", strings.Join(c.Lost, "\n  "))
	}
	if len(c.Lost) > 0 && !lossy && !dryRun {
		return &exitError{code: exitInvalid, err: errors.New("something would be lost; nothing was written"), hint: "--lossy converts the rest; commit or copy the old form first"}
	}
	var lines []string
	for _, file := range c.Created() {
		lines = append(lines, "write   "+file)
	}
	for _, file := range c.Remove {
		lines = append(lines, "remove  "+file)
	}
	if _, err := fmt.Fprintln(a.stdout, strings.Join(lines, "\n")); err != nil {
		return err
	}
	if dryRun {
		a.say("nothing was written (--dry-run)")
		return nil
	}
	for _, file := range append(slices.Clone(c.Remove), c.Created()...) {
		a.warnOpen(dir, file)
	}
	if err := c.Write(dir); err != nil {
		return err
	}
	a.say("next: %s", "k3splan diff"+inProject(a.projectDir)+"   # the tables mean the same as before")
	return nil
}
