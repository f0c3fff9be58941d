package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/run"
)

// dir is the project's folder: -p, or the nearest one upwards that holds plans/.
func (a *app) dir() (string, error) {
	if a.projectDir != "" {
		return a.projectDir, checkProject(a.projectDir)
	}
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	dir, ok := project.Find(here)
	if !ok {
		hint := "k3splan setup DIR makes one; -p DIR names one"
		if other := project.Misnamed(files.In(here)); other != "" {
			hint = fmt.Sprintf("%s may be meant to be it: mv %[1]s %s", run.Word(other), files.PlansDir)
		}
		return "", &exitError{code: exitInvalid, err: fmt.Errorf("no project here: neither %s nor a folder above it holds plans/", here), hint: hint}
	}
	return dir, nil
}

// checkProject checks a folder that was named as the project.
func checkProject(dir string) error {
	wrong := &exitError{code: exitInvalid, hint: "k3splan setup DIR makes a project"}
	switch info, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		wrong.err = fmt.Errorf("there is no folder %s", dir)
		return wrong
	case err != nil:
		wrong.err = err
		return wrong
	case !info.IsDir():
		wrong.err = fmt.Errorf("%s is not a folder", dir)
		return wrong
	}
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	found, _ := project.Find(absolute)
	if found == absolute {
		return nil
	}
	wrong.err = fmt.Errorf("%s is not a project: it has no folder plans", dir)
	if target, err := os.Readlink(filepath.Join(dir, files.PlansDir)); err == nil {
		wrong.err, wrong.hint = fmt.Errorf("%s is not a project: its folder plans is a link to %q, which does not exist", dir, target), "put the folder itself in its place"
		return wrong
	}
	if found != "" {
		wrong.hint = "did you mean" + inProject(found) + "?"
	}
	return wrong
}

// inProject is what a command that is to be pasted needs to find the project in a folder.
func inProject(dir string) string {
	if dir == "" || dir == "." {
		return ""
	}
	return " -p " + run.Word(dir)
}

func fileExists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// workspace opens the project of the command, once. Every command reads the project through it.
func (a *app) workspace() (*project.Workspace, error) {
	if a.opened != nil {
		return a.opened, nil
	}
	dir, err := a.dir()
	if err != nil {
		return nil, err
	}
	a.opened, err = project.Open(dir)
	return a.opened, err
}

// validProject returns the whole project and prints its problems; an error among them is refused.
func (a *app) validProject() (*project.Project, error) {
	w, err := a.workspace()
	if err != nil {
		return nil, err
	}
	p, problems := w.Project()
	a.printProblems(a.stderr, problems)
	if problems.Errors() > 0 {
		return nil, invalid()
	}
	return p, nil
}

// validPlan returns the plan in the tables; an error in them is printed and refused. What else is wrong
// with the project does not matter.
func (a *app) validPlan() (*plan.Plan, error) {
	w, err := a.workspace()
	if err != nil {
		return nil, err
	}
	p, problems := w.Plan()
	if problems.Errors() > 0 {
		a.printProblems(a.stderr, problems)
		return nil, invalid()
	}
	return p, nil
}

// selectHosts returns the hosts that the arguments of a command select; without any, all of them.
func selectHosts(p *plan.Plan, patterns []string) ([]*plan.Host, error) {
	hosts, err := p.Select(patterns...)
	if err != nil {
		return nil, usageError(err)
	}
	return hosts, nil
}

// unknownHost is the error about a name that no host has.
func unknownHost(p *plan.Plan, name string) error { return usageError(p.UnknownHost(name)) }
