package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gobwas/glob"

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
		return "", &exitError{code: exitInvalid, err: fmt.Errorf("no project here: neither %s nor a folder above it holds plans/", here),
			hint: "k3splan setup DIR makes one; -p DIR names one"}
	}
	return dir, nil
}

// checkProject tells what is wrong with a folder that was named as the project.
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
	wrong.err = fmt.Errorf("%s is no project: it holds no folder plans", dir)
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

// load reads the whole project. Its problems are printed; with an error among them it fails.
func (a *app) load() (*project.Project, error) {
	dir, err := a.dir()
	if err != nil {
		return nil, err
	}
	p, problems, err := project.Load(dir)
	if err != nil {
		return nil, err
	}
	a.printProblems(a.stderr, problems)
	if problems.Errors() > 0 {
		return nil, invalid()
	}
	return p, nil
}

// loadPlan reads the tables alone, as load does.
func (a *app) loadPlan() (*plan.Plan, error) {
	dir, err := a.dir()
	if err != nil {
		return nil, err
	}
	p, problems := plan.Load(files.In(dir))
	if problems.Errors() > 0 {
		a.printProblems(a.stderr, problems)
		return nil, invalid()
	}
	return p, nil
}

// selectHosts resolves names, @tags and globs as Colmena's --on does; none select no host.
func selectHosts(p *plan.Plan, patterns []string) ([]*plan.Host, error) {
	chosen := map[string]bool{}
	for _, pattern := range patterns {
		for _, part := range strings.Split(strings.ToLower(pattern), ",") {
			if err := selectInto(chosen, p, part); err != nil {
				return nil, err
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(p.Hosts), func(h *plan.Host) bool { return !chosen[h.Name] }), nil
}

func selectInto(chosen map[string]bool, p *plan.Plan, pattern string) error {
	name, isTag := strings.CutPrefix(pattern, "@")
	matcher, err := glob.Compile(name)
	if err != nil || name == "" {
		return usageError(fmt.Errorf("%q selects no hosts: a name, @TAG or pattern is needed", pattern))
	}
	found := false
	for _, host := range p.Hosts {
		names := []string{host.Name}
		if isTag {
			names = slices.Concat(host.Tags, host.RoleTags())
		}
		if slices.ContainsFunc(names, matcher.Match) {
			chosen[host.Name], found = true, true
		}
	}
	if found {
		return nil
	}
	if isTag {
		return noSuch("tag", name, slices.Concat(p.Tags(), plan.RoleTags()), "@")
	}
	return noHost(p, name)
}

// noHost is the error about a name that no host has; a container's leads to its host.
func noHost(p *plan.Plan, name string) error {
	for _, c := range p.Containers() {
		if strings.EqualFold(c.Name, name) {
			return &exitError{code: exitInvalid, err: fmt.Errorf("%q is no host, but the %s of one", c.Name, c.Role.What()),
				hint: fmt.Sprintf("did you mean its host, %q?", c.Host.Name)}
		}
	}
	return noSuch("host", name, p.HostNames(), "")
}

func noSuch(what, name string, known []string, prefix string) error {
	hint := fmt.Sprintf("the %ss are: %s", what, strings.Join(known, " "))
	if nearest := plan.Nearest(name, known); nearest != "" {
		hint = fmt.Sprintf("did you mean %q?", prefix+nearest)
	}
	return &exitError{code: exitInvalid, err: fmt.Errorf("there is no %s %q in the plan", what, name), hint: hint}
}
