package project

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/nixtext"
	"k3splan/internal/plan"
)

// maxOrphans is for how many orphans the nearest name is looked for, which takes its time.
const maxOrphans = 50

// nixFiles are the user's Nix files by folder and name ("nixConfigs/olaf.nix"). The value is true for
// those that belong to something in the plan, or that another one imports.
type nixFiles map[string]bool

// has reports whether the project has the file.
func (f nixFiles) has(file string) bool {
	_, found := f[file]
	return found
}

// readNixFiles finds the user's Nix files, and those that belong to nothing in the plan.
func readNixFiles(fsys fs.FS, p *plan.Plan) (nixFiles, diag.Problems) {
	found := nixFiles{}
	var problems diag.Problems
	for _, dir := range []string{files.SnippetsDir, files.PartitioningDir, files.HardwareDir} {
		names, others, imports, wrong := nixFilesIn(fsys, dir)
		problems = append(problems, wrong...)
		owners := ownersOf(dir, p)
		isOwner := map[string]bool{}
		for _, owner := range owners {
			isOwner[owner] = true
		}
		for _, name := range others {
			if problem := notNix(fsys, dir, name, isOwner, imports); problem != nil {
				problems = append(problems, *problem)
			}
		}
		orphans := 0
		for _, name := range names {
			file, stem := path.Join(dir, name), strings.TrimSuffix(name, ".nix")
			found[file] = isOwner[stem] || !p.Complete || imports["./"+name]
			if found[file] {
				continue
			}
			candidates := owners
			if orphans++; orphans > maxOrphans {
				candidates = nil // a hint for each would take long
			}
			problems = append(problems, diag.Problem{
				File: file, Severity: diag.Warning, Code: "file-orphan",
				Message: orphanMessage(dir, stem, p), Hint: orphanHint(stem, candidates),
			})
		}
	}
	for _, server := range p.Servers() {
		file := snippetFile(server.Name)
		if text, err := fs.ReadFile(fsys, file); found.has(file) && err == nil {
			problems = append(problems, checkExtraFlags(file, string(text), p)...)
		}
	}
	return found, problems
}

// ownersOf are the names that a file in the folder may have, without ".nix".
func ownersOf(dir string, p *plan.Plan) []string {
	owners := p.HostNames()
	if dir != files.SnippetsDir {
		return owners
	}
	for _, server := range p.Servers() {
		owners = append(owners, server.Name)
	}
	for _, tag := range slices.Concat(p.Tags(), plan.RoleTags()) {
		owners = append(owners, "@"+tag)
	}
	return append(owners, "all")
}

func orphanMessage(dir, stem string, p *plan.Plan) string {
	for _, agent := range p.Agents() {
		if dir == files.SnippetsDir && agent.Name == stem {
			return "an agent runs in podman, which takes no NixOS configuration"
		}
	}
	if dir != files.SnippetsDir {
		return fmt.Sprintf("the plan has no host %q", stem)
	}
	if strings.HasPrefix(stem, "@") {
		return fmt.Sprintf("no host has the tag %q", strings.TrimPrefix(stem, "@"))
	}
	return fmt.Sprintf("the plan has no host or server %q, and no other file here imports it", stem)
}

func orphanHint(stem string, owners []string) string {
	nearest := diag.Nearest(strings.ToLower(stem), owners)
	if slices.Contains(owners, strings.ToLower(stem)) {
		nearest = strings.ToLower(stem)
	}
	if nearest == "" {
		return "rename or delete it"
	}
	return fmt.Sprintf("did you mean %q?", nearest+".nix")
}

// nixFilesIn returns the names of the Nix files in a folder, those of what else is there, and what the former
// import, as "./NAME.nix".
func nixFilesIn(fsys fs.FS, dir string) (names, others []string, imports map[string]bool, problems diag.Problems) {
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return nil, nil, nil, unreadableFolder(dir, err)
	}
	imports = map[string]bool{}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") || !strings.EqualFold(path.Ext(name), ".nix") {
			others = append(others, name)
			continue
		}
		if path.Ext(name) != ".nix" {
			problems = append(problems, diag.Problem{
				File: path.Join(dir, name), Severity: diag.Warning, Code: "file-orphan",
				Message: "k3splan does not read this file", Hint: "let its name end in .nix",
			})
			continue
		}
		text, err := fs.ReadFile(fsys, path.Join(dir, name))
		if err != nil {
			reason, hint := diag.Reason(err), diag.HintOf(err)
			problems = append(problems, diag.Problem{
				File: path.Join(dir, name), Severity: diag.Error, Code: "file-unreadable",
				Message: "the file cannot be read: " + reason.Error(), Hint: hint,
			})
			continue
		}
		names = append(names, name)
		tokens, _ := nixtext.Tokens(string(text))
		for _, token := range tokens {
			if token.Kind == nixtext.Path && token.Text != "./"+name {
				imports[token.Text] = true
			}
		}
	}
	return names, others, imports, problems
}

// definesRoot reports whether Nix code defines the root file system, as nixos-generate-config writes it:
// fileSystems."/" = or fileSystems = { "/".device =.
func definesRoot(text []byte) bool {
	tokens, _ := nixtext.Tokens(string(text))
	for i, token := range tokens {
		if !token.Whole() || token.Text != "/" {
			continue
		}
		if rest := tokens[i+1:]; len(rest) > 0 && rest[0].Is("=") || len(rest) > 1 && rest[0].Is(".") && rest[1].Is("device") {
			return true
		}
	}
	return false
}

// unreadableFolder is a problem unless the folder is missing: all of them are optional.
func unreadableFolder(dir string, err error) diag.Problems {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	reason, hint := diag.Reason(err), diag.HintOf(err)
	if errors.Is(err, syscall.ENOTDIR) {
		hint = "put a folder in its place, or remove it"
	}
	return diag.Problems{{
		File: dir, Severity: diag.Error, Code: "file-unreadable", Message: "the folder cannot be read: " + reason.Error(), Hint: hint,
	}}
}
