package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"k3splan"
	"k3splan/internal/diag"
	"k3splan/internal/hive"
	"k3splan/internal/project"
	"k3splan/internal/text"
)

func (a *app) renderCommand() *cobra.Command {
	var diff bool
	command := &cobra.Command{
		Use:   "render",
		Short: "Write the hive that Colmena builds into generated/",
		Long: `Renders the NixOS hive into the project's folder generated/, as a whole or not at all. Secrets are
in it as paths only. If nothing has changed, nothing is written.`,
		Example: "  k3splan render\n  k3splan render --diff",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			p, err := a.validProject()
			if err != nil {
				return err
			}
			if !diff {
				_, err = a.render(p)
				return err
			}
			tree, err := hive.Render(p, k3splan.Files)
			if err != nil {
				return err
			}
			text, err := tree.Diff(p.Dir)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(a.stdout, diag.PrintableLines(text))
			return err
		},
	}
	command.Flags().BoolVar(&diff, "diff", false, "show what would change, and write nothing")
	return command
}

// render writes the hive and returns its path.
func (a *app) render(p *project.Project) (hiveFile string, err error) {
	tree, err := hive.Render(p, k3splan.Files)
	if err != nil {
		return "", err
	}
	changed, err := tree.Write(p.Dir)
	if err != nil {
		return "", fmt.Errorf("write the hive: %w", err)
	}
	if changed {
		a.say("rendered %s into %s/", text.Count(len(p.Plan.Hosts), "host"), hive.Dir)
	} else {
		a.say("%s/ is up to date", hive.Dir)
	}
	return filepath.Join(p.Dir, hive.Dir, "hive.nix"), nil
}
