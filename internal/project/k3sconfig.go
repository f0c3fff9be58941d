package project

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/yamlfile"
)

// K3sConfig is a user's extra configuration for all servers or all agents, in the normal form of k3s's
// own configuration file: keys without leading hyphens or trailing plus; values are scalars or lists of
// texts. k3s turns every value into a flag, so texts are as the user wrote them: 0644 stays 0644, of
// which k3s itself would make 420.
type K3sConfig map[string]any

// lists are the options that k3splan sets too: their values are merged, so a single one becomes a list.
var lists = []string{"tls-san", "node-label", "node-taint"}

// k3sReader reads the configuration for a role.
type k3sReader struct {
	role      k3sRole
	plan      *plan.Plan
	manifests []Manifest
	config    K3sConfig
	found     diag.Collector
}

// readK3sConfig reads the configuration for a role; without a file it is empty.
func readK3sConfig(fsys fs.FS, role k3sRole, p *plan.Plan, manifests []Manifest) (K3sConfig, diag.Problems) {
	file := role.file()
	r := &k3sReader{role: role, plan: p, manifests: manifests, config: K3sConfig{}}
	data, err := fs.ReadFile(fsys, file)
	if errors.Is(err, fs.ErrNotExist) {
		return r.config, nil
	} else if err != nil {
		problem := diag.FromError(err, file, "file-unreadable")
		problem.Message = "the file cannot be read: " + problem.Message
		return r.config, diag.Problems{problem}
	}
	mapping, problem := yamlfile.Read(file, data, optionNames(role))
	if problem != nil {
		return r.config, diag.Problems{*problem}
	}
	if mapping == nil {
		return r.config, nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		r.take(mapping.Content[i], yamlfile.Value(mapping.Content[i+1]))
	}
	return r.config, r.found.Problems()
}

// take reads one option.
func (r *k3sReader) take(name, value *yaml.Node) {
	written := name.Value
	key := strings.TrimSuffix(strings.TrimLeft(written, "-"), "+")
	report := func(line int, p diag.Problem) bool {
		p.File, p.Line, p.Column = r.role.file(), line, written
		r.found.Add(p)
		return p.Severity == diag.Error
	}
	if hint := yamlfile.MissingBlank(written, optionNames(r.role)); hint != "" {
		report(name.Line, diag.Problem{Severity: diag.Error, Code: yamlfile.Code, Message: yamlfile.NoBlank, Hint: hint})
		return
	}
	if wrong := checkOption(r.role, key, r.plan); wrong != nil && report(name.Line, *wrong) {
		return
	}
	if r.config[key] != nil {
		report(name.Line, diag.Problem{Severity: diag.Error, Code: "key-duplicate", Message: "the option is given twice", Hint: "write one list"})
		return
	}
	texts, isList, err := textsOf(value)
	if err != nil {
		report(value.Line, diag.Problem{Severity: diag.Error, Code: "value-invalid", Message: err.Error()})
		return
	}
	if slices.Contains(lists, key) { // of which k3s splits single values at commas
		texts, isList = splitAtCommas(texts), true
	}
	if wrong := checkOptionValue(key, texts, r.plan, r.manifests); wrong != nil && report(value.Line, *wrong) {
		return
	}
	switch {
	case isList:
		r.config[key] = texts
	default:
		r.config[key] = scalarOf(key, texts[0])
	}
}

// textsOf returns the texts of a scalar or of a list of scalars as they are in the file.
func textsOf(node *yaml.Node) (texts []string, isList bool, err error) {
	items := []*yaml.Node{node}
	if node.Kind == yaml.SequenceNode {
		items, isList = node.Content, true
	}
	texts = []string{}
	for _, item := range items {
		item = yamlfile.Value(item)
		switch {
		case item.Kind != yaml.ScalarNode:
			return nil, false, errors.New("k3s takes single values and lists of them here")
		case yamlfile.IsNull(item):
			return nil, false, errors.New("the value is missing")
		}
		texts = append(texts, item.Value)
	}
	return texts, isList, nil
}

func splitAtCommas(texts []string) []string {
	split := []string{}
	for _, text := range texts {
		for item := range strings.SplitSeq(text, ",") {
			split = append(split, strings.TrimSpace(item))
		}
	}
	return split
}

// scalarOf returns the value of an option that is not a list. A truth value is one in whatever words of
// YAML 1.1; a number is one if it reads the same as a text.
func scalarOf(key, text string) any {
	if truth, isTruth := truths[strings.ToLower(text)]; isTruth && k3sOptions[key].isBool {
		return truth
	}
	if number, err := strconv.Atoi(text); err == nil && strconv.Itoa(number) == text {
		return number
	}
	if text == "true" || text == "false" {
		return text == "true"
	}
	return text
}

// checkK3sFolder reports files that k3splan does not read.
func checkK3sFolder(fsys fs.FS) diag.Problems {
	entries, err := fs.ReadDir(fsys, files.K3sDir)
	if err != nil {
		return unreadableFolder(files.K3sDir, err)
	}
	var problems diag.Problems
	known := []string{path.Base(files.ServerConfigFile), path.Base(files.AgentConfigFile)}
	for _, entry := range entries {
		name := entry.Name()
		if slices.Contains(known, name) || strings.HasPrefix(name, ".") || isCompanion(name) {
			continue
		}
		hint := cmp.Or(diag.DidYouMean(strings.ToLower(name), known), "server.yaml and agent.yaml are read")
		if slices.Contains(known, strings.ToLower(name)) {
			hint = fmt.Sprintf("rename it to %q", strings.ToLower(name))
		}
		problems = append(problems, diag.Problem{
			File: path.Join(files.K3sDir, name), Severity: diag.Warning, Code: "file-orphan", Message: "k3splan does not read this file", Hint: hint,
		})
	}
	return problems
}
