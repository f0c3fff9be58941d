package main

import (
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"k3splan"
	"k3splan/internal/files"
	"k3splan/internal/run"
)

func (a *app) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of plans/network.yaml, for editors",
		Long: `Prints the JSON Schema of plans/network.yaml, with which editors complete its keys and check their
values. setup writes it to plans/network.schema.json, and the first line of the starter network.yaml
names it:

  # yaml-language-server: $schema=network.schema.json`,
		Example: "  k3splan schema > plans/network.schema.json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			text, err := fs.ReadFile(k3splan.Files, files.SchemaFile)
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(text)
			return err
		},
	}
}

// renewSchema is the command with which a project gets the schema of this program.
func renewSchema(dir string) string {
	file := filepath.Join(dir, files.SchemaFile)
	if here, err := os.Getwd(); err == nil && (dir == "." || here == dir) {
		file = files.SchemaFile
	}
	return "k3splan schema > " + run.Word(file)
}
