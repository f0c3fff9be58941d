package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the man pages of all commands into a folder",
		Long: `Writes k3splan.1 and a page for each command (k3splan-validate.1 …) into DIR, which is made if need
be. man finds them in a folder man1 below one of its own (manpath shows those).`,
		Example: "  k3splan man man1 && man ./man1/k3splan-add-host.1\n  k3splan man ~/.local/share/man/man1",
		Args:    usageArgs(cobra.ExactArgs(1)),

		ValidArgsFunction: onlyFolders,
		RunE: func(command *cobra.Command, args []string) error {
			dir := args[0]
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			root := command.Root()
			root.DisableAutoGenTag = true
			date := buildTime()
			header := &doc.GenManHeader{Section: "1", Source: "k3splan", Manual: "k3splan", Date: &date}
			if err := doc.GenManTree(root, header, dir); err != nil {
				return fmt.Errorf("write the man pages: %w", err)
			}
			pages, err := filepath.Glob(filepath.Join(dir, "k3splan*.1"))
			if err != nil {
				return err
			}
			a.say("wrote %s into %s", count(len(pages), "page"), dir)
			return nil
		},
	}
}

// buildTime is when the program's commit was made: the pages of one program are the same every day.
func buildTime() time.Time {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key != "vcs.time" {
				continue
			}
			if t, err := time.Parse(time.RFC3339, setting.Value); err == nil {
				return t
			}
		}
	}
	return time.Unix(0, 0).UTC()
}
