package project

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/run"
)

// folders are those in which a project keeps what its owner writes, with other names that people give them:
// lower-case letters only.
var folders = map[string][]string{
	files.PlansDir:        {"plan", "plaene", "pläne"},
	files.SnippetsDir:     {"nixconfig", "nixconfiguration", "nixconfigurations", "snippets"},
	files.PartitioningDir: {"partition", "partitions", "partitionen", "partitionierung"},
	files.HardwareDir:     {"hardwares", "hardwareconfiguration", "hardwareconfigurations"},
	files.SecretsDir:      {"secret", "geheimnisse"},
	files.ManifestsDir:    {"manifest", "manifeste"},
	files.K3sDir:          {"k3sconfig", "k3sconfigs"},
}

// checkFolders warns of folders with files that k3splan does not read, as they have almost the name of one that
// it reads: what is in them would be missing on the machines without a word.
func checkFolders(fsys fs.FS) (problems diag.Problems) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil // reported by all that reads
	}
	there := map[string]bool{}
	for _, entry := range entries {
		there[entry.Name()] = true
	}
	for _, entry := range entries {
		name := entry.Name()
		if _, known := folders[name]; known || strings.HasPrefix(name, ".") || !hasFiles(fsys, name) {
			continue
		}
		meant := meantFolder(name)
		if meant == "" {
			continue
		}
		hint := fmt.Sprintf("rename it: mv %s %s", run.Word(name), meant)
		if _, err := fs.Stat(fsys, meant); err == nil {
			if !there[meant] {
				continue // the file system does not distinguish the two names
			}
			hint = fmt.Sprintf("%s is read: move into it what is missing there, then delete or rename this folder", meant)
		}
		problems = append(problems, diag.Problem{File: name, Severity: diag.Warning, Code: "file-orphan", Message: "k3splan does not read this folder", Hint: hint})
	}
	return problems
}

// meantFolder returns the folder of a project that another name most likely means, or "".
func meantFolder(name string) string {
	letters := strings.NewReplacer("-", "", "_", "", " ", "", ".", "").Replace(strings.ToLower(name))
	for folder, others := range folders {
		if letters == strings.ToLower(folder) || slices.Contains(others, letters) {
			return folder
		}
	}
	return ""
}

// hasFiles reports whether a folder holds more than nothing.
func hasFiles(fsys fs.FS, dir string) bool {
	entries, err := fs.ReadDir(fsys, dir)
	return err == nil && slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return !strings.HasPrefix(e.Name(), ".") && !isCompanion(e.Name()) })
}

// Misnamed returns the folder in dir that is probably meant to be its folder of plans, or "".
func Misnamed(fsys fs.FS) string {
	entries, _ := fs.ReadDir(fsys, ".")
	for _, entry := range entries {
		if meantFolder(entry.Name()) == files.PlansDir && hasFiles(fsys, entry.Name()) {
			return entry.Name()
		}
	}
	return ""
}

// notNix returns what is wrong with an entry of a folder of Nix files that k3splan does not read although it
// has the name of something in the plan: olaf, olaf.nix.txt, or a folder olaf that no file there imports.
func notNix(fsys fs.FS, dir, name string, isOwner, imports map[string]bool) (problem *diag.Problem) {
	stem := strings.TrimSuffix(strings.TrimSuffix(name, ".txt"), ".nix")
	if !isOwner[strings.ToLower(stem)] || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".nix") {
		return nil
	}
	problem = &diag.Problem{File: path.Join(dir, name), Severity: diag.Warning, Code: "file-orphan",
		Message: "k3splan does not read this file", Hint: fmt.Sprintf("rename it to %s.nix", strings.ToLower(stem))}
	info, err := fs.Stat(fsys, problem.File)
	if err != nil || !info.IsDir() {
		return problem
	}
	for file := range imports {
		if file == "./"+name || strings.HasPrefix(file, "./"+name+"/") {
			return nil
		}
	}
	problem.Message = "k3splan does not read this folder, and no file beside it imports anything from it"
	problem.Hint = fmt.Sprintf("import it in %s.nix: { imports = [ ./%s ]; }", path.Join(dir, strings.ToLower(stem)), name)
	return problem
}
