package main

import (
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// foreign are words and phrases that an experienced native engineer would not write there, with what to
// write instead. docs/glossary.md has the terms of k3splan.
var foreign = []struct{ words, instead string }{
	{`(?m)\btells\b|\btold(?: [^a]|[.,;:]|$)`, "returns, reports, says; is reported"},
	{`\b(stands|stood)\b`, "is, is written"},
	{`\banew\b`, "again, new"},
	{`(?:^|[^e]) (?:is|are|was|were) no (?:[^lm]|l[^o]|m[^o])`, "is not a, there are no"},
	{`\b(all|its|their) talk\b`, "messages"},
	{`\bgone\b`, "removed, missing, deleted"},
	{`\bliving\b`, "running"},
	{`\bmeanwhile\b`, "in the meantime; by another process"},
	{`\b(is|are|not|all) (well|ill)(?:[^\w-]|$)`, "healthy, unhealthy"},
	{`\b(is|are) in order\b`, "is valid, is correct"},
	{`\bwhom\b`, "the users who"},
	{`\bsits? at\b`, "is working on"},
	{`\ball else\b`, "everything else"},
	{`(?m)(?:^// |")(?-i:Who|Whoever|What) \w+s\b`, "anyone who, whatever; say it with a noun"},
	{`(?m)^// \w+ gives\b`, "returns"},
	{`\bbesides\b`, "as well, too"},
}

// allowed are matches that mean something else: the doc comment of a method What.
var allowed = []string{"// What returns"}

// Text that people read is plain English: comments and strings of the program, templates, starter files and
// documentation.
func TestWords(t *testing.T) {
	var found []string
	count := 0
	require.NoError(t, filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains([]string{".git", "testdata", "findings"}, entry.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		var texts []prose
		switch base := entry.Name(); {
		case strings.HasSuffix(base, "_test.go"):
		case filepath.Ext(base) == ".go":
			texts = goProse(t, name)
		case slices.Contains([]string{".md", ".nix", ".tmpl", ".sh", ".js", ".yaml", ".csv"}, filepath.Ext(base)), base == "Makefile":
			content, err := os.ReadFile(name)
			require.NoError(t, err)
			texts = []prose{{1, string(content)}}
		}
		for _, text := range texts {
			for _, f := range foreign {
				for _, at := range regexp.MustCompile("(?i)"+f.words).FindAllStringIndex(text.text, -1) {
					if slices.Contains(allowed, text.text[at[0]:at[1]]) {
						continue
					}
					count++
					line := text.line + strings.Count(text.text[:at[1]], "\n")
					found = append(found, strings.TrimPrefix(name, root+"/")+":"+strconv.Itoa(line)+": "+strings.TrimSpace(text.text[at[0]:at[1]])+" ("+f.instead+")")
				}
			}
		}
		return nil
	}))
	slices.Sort(found)
	require.Empty(t, found, "%d in all", count)
}

// prose is a text in a file, with the line where it begins.
type prose struct {
	line int
	text string
}

// goProse returns the comments and strings of a Go file. Lines of one comment are one text.
func goProse(t *testing.T, name string) (texts []prose) {
	t.Helper()
	source, err := os.ReadFile(name)
	require.NoError(t, err)
	set := token.NewFileSet()
	file := set.AddFile(name, -1, len(source))
	var s scanner.Scanner
	s.Init(file, source, nil, scanner.ScanComments)
	for {
		at, kind, literal := s.Scan()
		if kind == token.EOF {
			return texts
		}
		line := file.Line(at)
		switch last := len(texts) - 1; {
		case kind == token.COMMENT && last >= 0 && strings.HasPrefix(texts[last].text, "//") && texts[last].line+strings.Count(texts[last].text, "\n")+1 == line:
			texts[last].text += "\n" + literal
		case kind == token.COMMENT, kind == token.STRING:
			texts = append(texts, prose{line, literal})
		}
	}
}
