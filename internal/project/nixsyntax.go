package project

import (
	"context"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/run"
)

const (
	// nixTime is how long Nix may take to parse all files.
	nixTime = 30 * time.Second
	// nixBatch is how many files one process parses.
	nixBatch = 500
	// maxNixProblems is of how many files what Nix says is reported: each costs a process.
	maxNixProblems = 20
)

// CheckNix parses the user's Nix files in nixConfigs, partitioning and hardware, where Nix is installed,
// and returns what it says, with the code "nix-syntax". A file that no host uses is worth a warning.
func (p *Project) CheckNix(ctx context.Context) diag.Problems {
	ctx, cancel := context.WithTimeout(ctx, nixTime)
	defer cancel()
	c := nixChecker{project: p}
	for batch := range slices.Chunk(slices.Sorted(maps.Keys(p.files)), nixBatch) {
		c.check(ctx, batch)
	}
	return c.problems
}

type nixChecker struct {
	project  *Project
	problems diag.Problems
}

// nixError matches the last error that Nix prints and, in a line of its own, its place.
var nixError = regexp.MustCompile(`error: ([^\n]+)\n(?:.*\n)*? *at ([^\n]+):([0-9]+):[0-9]+:`)

// check parses files with one process for each file that is wrong, and one more.
func (c *nixChecker) check(ctx context.Context, files []string) {
	if len(files) == 0 || len(c.problems) == maxNixProblems {
		return
	}
	args := []string{"--parse"}
	for _, file := range files {
		args = append(args, "./"+file)
	}
	err := run.Run(ctx, run.Command{Program: "nix-instantiate", Args: args, Dir: c.project.Dir, Env: []string{"LC_ALL=C", "NO_COLOR=1"}})
	var failed *run.ExitError
	if !errors.As(err, &failed) || failed.Interrupted != nil {
		return // in order, or no Nix that could say
	}
	m := nixError.FindStringSubmatch(failed.Stderr)
	if m == nil {
		return
	}
	at := slices.IndexFunc(files, func(file string) bool { return strings.HasSuffix(m[2], "/"+file) })
	if len(files) == 1 {
		at = 0
	}
	if at < 0 { // a link to a file of another name
		c.check(ctx, files[:len(files)/2])
		c.check(ctx, files[len(files)/2:])
		return
	}
	line, _ := strconv.Atoi(m[3])
	message := strings.ReplaceAll(m[1], c.project.Dir+"/", "")
	problem := diag.Problem{File: files[at], Line: line, Severity: diag.Error, Code: "nix-syntax", Message: "Nix does not parse it: " + message, Hint: nixHint(message)}
	if !c.project.files[files[at]] {
		problem.Severity = diag.Warning
	}
	c.problems = append(c.problems, problem)
	c.check(ctx, files[at+1:])
}

// nixHint returns the usual cause of an error.
func nixHint(message string) string {
	switch {
	case strings.Contains(message, "expecting ';'"):
		return "is a semicolon missing at the end of the line before?"
	case strings.Contains(message, "unexpected end of file"):
		return "is a bracket or a quote not closed?"
	case strings.Contains(message, "undefined variable"):
		return "is the name misspelt, or missing among the arguments at the top of the file?"
	case strings.Contains(message, "invalid token"):
		return "save the file as UTF-8 without byte-order mark"
	}
	return ""
}
