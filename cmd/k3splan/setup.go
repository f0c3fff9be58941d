package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"k3splan"
	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/remote"
	"k3splan/internal/run"
	"k3splan/internal/secrets"
)

func (a *app) setupCommand() *cobra.Command {
	workbook := false
	command := &cobra.Command{
		Use:   "setup [DIR]",
		Short: "Make a project: folders, starter tables, tokens, .gitignore",
		Long: `Makes a project in DIR (default: here), or completes one. Existing files are never
overwritten. It is the only command that makes tokens for a k3s cluster.`,
		Example: "  k3splan setup my-rack\n  k3splan setup my-rack --workbook",
		Args:    usageArgs(cobra.MaximumNArgs(1)),

		ValidArgsFunction: onlyFolders,
		RunE: func(_ *cobra.Command, args []string) error {
			dir := "."
			switch {
			case len(args) == 1 && a.projectDir != "":
				return usageError(errors.New("the project is named twice: by DIR and by -p"))
			case len(args) == 1 && args[0] == "":
				return usageError(errors.New("DIR is empty"))
			case len(args) == 1:
				dir = args[0]
			case a.projectDir != "":
				dir = a.projectDir
			default:
				if err := refuseInside(); err != nil {
					return err
				}
			}
			return a.setup(dir, workbook)
		},
	}
	command.Flags().BoolVar(&workbook, "workbook", false, "make the tables in one workbook, plans/cluster.xlsx")
	return command
}

// refuseInside refuses a folder of another project that the user did not name: it is probably a mistake.
func refuseInside() error {
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	if found, ok := project.Find(here); ok && found != here {
		return &exitError{code: exitInvalid, err: fmt.Errorf("this is a folder of the project %s", found),
			hint: fmt.Sprintf("to complete that: k3splan setup %s\nto make another one in this folder: k3splan setup .", run.Word(found))}
	}
	return nil
}

func (a *app) setup(dir string, workbook bool) error {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return usageError(fmt.Errorf("%s is a file, not a folder", dir))
	}
	hadPlan := fileExists(filepath.Join(dir, plan.HostsFile)) || fileExists(filepath.Join(dir, plan.WorkbookFile))
	w, err := project.Open(dir)
	if err != nil {
		return err
	}
	setup := w.Setup
	if workbook {
		setup = w.SetupWorkbook
	}
	made, err := setup(k3splan.Files)
	for _, m := range made {
		verb := "made"
		if m.Completed {
			verb = "completed"
		}
		a.say("%-9s %s", verb, filepath.Join(dir, m.File)+map[bool]string{true: "/"}[strings.HasSuffix(m.File, "/")])
	}
	if errors.Is(err, project.ErrPlanInFiles) {
		return usageError(err)
	}
	if err != nil {
		return err
	}
	_, problems := w.Plan()
	if len(made) == 0 && problems.Errors() == 0 {
		a.say("nothing to make: the project is complete")
	}
	hasMade := func(part string) bool {
		return slices.ContainsFunc(made, func(m project.Made) bool { return strings.Contains(m.File, part) })
	}
	if hadPlan && hasMade(string(secrets.InitToken)) {
		a.say("\nThe token is new. If this plan's cluster is running already, its token belongs there instead:\n" +
			"`k3splan secrets show init-token` prints it where the cluster was set up, and\n" +
			"`k3splan secrets edit init-token --force` stores it here.")
	}
	if hasMade(remote.KnownHostsFile) {
		a.say("\nThe ssh keys of the hosts are new. A machine that runs already has its own: look at it and adopt\n" +
			"it with k3splan known-hosts scan HOST.")
	}
	if hasMade(files.SchemaFile) && !hasMade(plan.NetworkFile) {
		a.say("\nEditors complete and check plans/network.yaml if it begins with the line\n" +
			"# yaml-language-server: $schema=network.schema.json")
	}
	if problems.Errors() > 0 {
		a.printProblems(a.stderr, problems)
		kept := "nothing was made"
		if len(made) > 0 {
			kept = "no tokens and keys were made"
		}
		a.say("%s; correct the tables, then run this again", kept)
		return invalid()
	}
	a.sayLeft(w, dir, hasMade(".csv") || isStarter(w, plan.HostsFile) || isStarter(w, plan.WorkbookFile))
	return nil
}

// isStarter reports whether a file of the project is as setup writes it.
func isStarter(w *project.Workspace, file string) bool {
	present, err := fs.ReadFile(w.FS(), file)
	if err != nil {
		return false
	}
	starter, errStarter := project.Starter(k3splan.Files, file)
	return errStarter == nil && bytes.Equal(present, starter)
}

// sayLeft lists what only the user can supply. dir is the project as the user named it.
func (a *app) sayLeft(w *project.Workspace, dir string, tables bool) {
	p, problems := w.Project()
	in := inProject(dir)
	var steps []string
	has := func(code, file string) bool {
		return slices.ContainsFunc(problems, func(p diag.Problem) bool { return p.Code == code && strings.Contains(p.File, file) })
	}
	if tables {
		steps = append(steps, "fill in the tables in "+filepath.Join(dir, "plans"))
	}
	if has("secret-missing", "passwd") {
		steps = append(steps, "set the admins' password:       k3splan passwd"+in)
	}
	if has("ssh-key-missing", "") {
		steps = append(steps, "bring your ssh key:             cp ~/.ssh/id_ed25519.pub "+run.Word(filepath.Join(dir, "secrets", "all.pub")))
	}
	if p.Plan.Network.Versions.NixOS.NeedsLock() && !fileExists(filepath.Join(dir, "plans", "lock.json")) {
		steps = append(steps, "pin nixpkgs:                    k3splan update"+in)
	}
	if slices.ContainsFunc(p.Plan.Hosts, func(h *plan.Host) bool { return !h.Target.Local && !p.HostKeys.Known(h.Name) }) {
		steps = append(steps, "then make the hosts' ssh keys:  k3splan known-hosts make"+in)
	}
	if fileExists(filepath.Join(dir, files.SchemaFile)) && !isStarter(w, files.SchemaFile) {
		steps = append(steps, "renew the schema for editors:   "+renewSchema(dir))
	}
	steps = append(steps, "check the project:              k3splan validate"+in)
	a.say("\nWhat is left to do:")
	for _, step := range steps {
		a.say("  - %s", step)
	}
}
