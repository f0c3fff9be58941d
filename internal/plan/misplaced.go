package plan

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/run"
	"k3splan/internal/table"
)

// spreadsheets are the endings of files that only spreadsheet programs read.
var spreadsheets = []string{".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".fods", ".numbers"}

func isSpreadsheet(file string) bool {
	return slices.Contains(spreadsheets, strings.ToLower(path.Ext(file)))
}

// backups are endings that editors and careful people give to what they keep of a file.
var backups = []string{"~", ".bak", ".orig", ".old", ".save", ".swp", ".tmp", ".rej", ".age"}

// otherFiles are the files of plans/ that are not tables.
var otherFiles = []string{files.SchemaFile, files.LockFile, files.KnownHostsFile, files.PlansDir + "/README.md"}

// misplaced returns the files that are meant to be a table of the plan but have another name, by the name
// that k3splan reads: Hosts.csv, "rack - hosts.csv", hosts.csv.txt, hosts.ods, network.yml; also the right
// name in the project's folder instead of plans/. Instead of a missing table, any file that holds one.
func misplaced(fsys fs.FS) map[string][]string {
	found := map[string][]string{}
	entries, _ := fs.ReadDir(fsys, files.PlansDir) // without the folder, everything is missing anyway
	names := []string{}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	for _, name := range names {
		file := path.Join(files.PlansDir, name)
		meant := meantFile(name)
		if meant == "" || meant == file || slices.Contains(otherFiles, file) {
			continue
		}
		if _, err := fs.Stat(fsys, meant); err == nil && strings.EqualFold(meant, file) && !slices.Contains(names, path.Base(meant)) {
			continue // the file system does not distinguish the two names
		}
		found[meant] = append(found[meant], file)
	}
	for _, file := range []string{HostsFile, K3sFile, NetworkFile, VersionsFile, WorkbookFile} {
		if info, err := fs.Stat(fsys, path.Base(file)); err == nil && info.Mode().IsRegular() {
			found[file] = append(found[file], path.Base(file))
		}
	}
	for _, file := range []string{HostsFile, K3sFile, NetworkFile} {
		if _, err := fs.Stat(fsys, file); err == nil || len(found[file]) > 0 {
			continue
		}
		for _, entry := range entries {
			if entry.Type().IsRegular() && looksLike(fsys, path.Join(files.PlansDir, entry.Name()), file) {
				found[file] = append(found[file], path.Join(files.PlansDir, entry.Name()))
			}
		}
	}
	return found
}

// networkLine finds a line with a key that only network.yaml has.
var networkLine = regexp.MustCompile(`(?mi)^"?(netmask|gateway)"?[ \t]*[:,;\t]`)

// looksLike reports whether the contents of a file with a name of its own (machines.csv, lan.yaml) are those
// of the missing file of the plan.
func looksLike(fsys fs.FS, file, missing string) bool {
	name := path.Base(file)
	if isBackup(name) || meantFile(name) != "" || slices.Contains(otherFiles, file) {
		return false
	}
	ending := strings.ToLower(path.Ext(name))
	if missing == NetworkFile {
		if !slices.Contains([]string{".yaml", ".yml", ".json", ".csv", ".txt"}, ending) {
			return false
		}
		data, problem := readFile(fsys, file)
		return problem == nil && networkLine.Match(data)
	}
	if !slices.Contains([]string{".csv", ".tsv", ".tab", ".txt"}, ending) {
		return false
	}
	data, problem := readFile(fsys, file)
	if problem != nil {
		return false
	}
	t := table.ReadCSV(data, Schema(missing))
	return len(slices.DeleteFunc(slices.Clone(t.Required), t.Has)) <= 1 // hosts.csv and k3s.csv share two names
}

// isBackup reports whether a file is hidden, or kept or written by an editor.
func isBackup(name string) bool {
	lower := strings.ToLower(name)
	return strings.HasPrefix(lower, ".") || strings.HasPrefix(lower, "~") || strings.HasPrefix(lower, "#") ||
		slices.ContainsFunc(backups, func(ending string) bool { return strings.HasSuffix(lower, ending) })
}

// meantFile returns the file of the plan that one of another name in plans/ is meant to be, or "".
func meantFile(name string) string {
	lower := strings.ToLower(name)
	if isBackup(name) {
		return ""
	}
	if path.Join(files.PlansDir, name) == WorkbookFile {
		return WorkbookFile
	}
	var ending string
	for ending = path.Ext(lower); ending == ".txt" && path.Ext(strings.TrimSuffix(lower, ending)) != ""; ending = path.Ext(lower) {
		lower = strings.TrimSuffix(lower, ending) // hosts.csv.txt
	}
	isTable := slices.Contains([]string{".csv", ".tsv", ".tab", ".txt", ""}, ending) || isSpreadsheet(lower)
	isYAML := slices.Contains([]string{".yaml", ".yml", ".json", ".txt", ""}, ending) || isSpreadsheet(lower)
	words := strings.FieldsFunc(strings.TrimSuffix(lower, ending), func(c rune) bool { return !('a' <= c && c <= 'z' || '0' <= c && c <= '9') })
	for _, word := range words {
		switch {
		case isTable && (word == "hosts" || word == "host"):
			return HostsFile
		case isTable && word == "k3s":
			return K3sFile
		case isTable && (word == "checks" || word == "healthchecks"):
			return ChecksFile
		case isYAML && word == "network":
			return NetworkFile
		case isYAML && word == "versions" && !isSpreadsheet(lower):
			return VersionsFile
		case word == "cluster" && isSpreadsheet(lower):
			return WorkbookFile
		}
	}
	return ""
}

// Misplaced reports whether a file of the plan is missing, but another one is probably meant to be it, or to
// be the whole plan.
func Misplaced(fsys fs.FS, file string) bool {
	if !slices.Contains([]string{HostsFile, K3sFile, NetworkFile, WorkbookFile}, file) {
		return false
	}
	_, err := fs.Stat(fsys, file)
	if err == nil {
		return false
	}
	candidates := misplaced(fsys)
	return len(candidates[file]) > 0 || otherWorkbook(fsys) != "" || len(candidates[WorkbookFile]) > 0 && !hasTables(fsys)
}

// hasTables reports whether a table of the plan is there.
func hasTables(fsys fs.FS) bool {
	return slices.ContainsFunc([]string{HostsFile, K3sFile, NetworkFile}, func(file string) bool {
		_, err := fs.Stat(fsys, file)
		return err == nil
	})
}

// reportMisplaced adds what is wrong with files of another name: the hint of a missing file names the one
// that is probably meant, and beside a file that is read, the others get a warning.
func reportMisplaced(fsys fs.FS, problems diag.Problems) diag.Problems {
	candidates := misplaced(fsys)
	noTables := !hasTables(fsys)
	for i, p := range problems {
		others := candidates[p.File]
		if books := candidates[WorkbookFile]; p.Code == "file-missing" && len(others) == 0 && noTables && len(books) > 0 && !slices.Contains(books, p.File) {
			problems[i].Message = fmt.Sprintf("the file is missing; %s may be meant to be the whole plan", books[0])
			problems[i].Hint = moveHint(books[0], WorkbookFile)
			continue
		}
		if p.Code == "file-missing" && len(others) > 0 {
			problems[i].Message = fmt.Sprintf("the file is missing; %s may be meant to be it", strings.Join(others, " or "))
			problems[i].Hint = moveHint(others[0], p.File)
			delete(candidates, p.File)
		}
	}
	reported := map[string]bool{}
	for _, p := range problems {
		reported[p.File] = true
	}
	for file, others := range candidates {
		for _, other := range others {
			if reported[other] {
				continue // as the only spreadsheet
			}
			hint := fmt.Sprintf("%s is read: copy into it what is only here, then delete or rename this file", file)
			if _, err := fs.Stat(fsys, file); err != nil {
				hint = moveHint(other, file)
				if _, err := fs.Stat(fsys, WorkbookFile); err == nil {
					hint = fmt.Sprintf("%s is read: copy into it what is only here, then delete or rename this file", WorkbookFile)
				}
			}
			problems = append(problems, diag.Problem{File: other, Severity: diag.Warning, Code: "file-orphan", Message: "k3splan does not read this file", Hint: hint})
		}
	}
	return problems
}

// moveHint says how another file becomes one that is read.
func moveHint(from, to string) string {
	switch {
	case strings.EqualFold(path.Ext(from), ".xlsx") && to == WorkbookFile:
		return fmt.Sprintf("rename it: mv %s %s", run.Word(from), to)
	case isSpreadsheet(from) && to == WorkbookFile:
		return fmt.Sprintf("save it as %s (Office Open XML, Excel 2007-365)", to)
	case isSpreadsheet(from) && strings.HasSuffix(to, ".csv"):
		return fmt.Sprintf("save it as “CSV UTF-8” in %s; or keep all tables in one workbook, %s, with the sheets hosts, k3s and network", to, WorkbookFile)
	case isSpreadsheet(from):
		return fmt.Sprintf("write its keys and values into %s, or into the sheet network of %s", to, WorkbookFile)
	}
	if to == NetworkFile && strings.EqualFold(path.Ext(from), ".csv") {
		return fmt.Sprintf("write its keys and values into %s, as key: value", to)
	}
	return fmt.Sprintf("rename it: mv %s %s", run.Word(from), to)
}
