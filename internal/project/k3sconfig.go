package project

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
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

// K3sConfig is a user's extra configuration for all servers or all agents, in the normal form of
// k3s's own configuration file: keys without leading hyphens or trailing plus; values are scalars
// or lists of scalars.
type K3sConfig map[string]any

// plannedKeys are told by the plan; the configuration file may not contradict it.
var plannedKeys = map[string][]string{
	"server.yaml": {
		"server", "cluster-init", "cluster-reset", "token-file", "agent-token-file", "node-ip", "node-name", "advertise-address",
		"cluster-cidr", "service-cidr", "https-listen-port", "disable-agent", "disable-etcd", "disable-apiserver", "data-dir", "config", "datastore-endpoint",
	},
	"agent.yaml": {"server", "token-file", "node-ip", "node-name", "data-dir", "config"},
}

// secretKeys hold secrets, which have no place in a rendered file.
var secretKeys = []string{"token", "agent-token", "cluster-secret", "etcd-s3-access-key", "etcd-s3-secret-key", "etcd-s3-session-token", "vpn-auth"}

// lists are the keys that k3splan gives as well: they are merged, so a single value becomes a list.
var lists = []string{"tls-san", "node-label", "node-taint"}

// readK3sConfig reads k3s/server.yaml or k3s/agent.yaml; without a file the configuration is empty.
func readK3sConfig(fsys fs.FS, name string) (K3sConfig, diag.Problems) {
	file := path.Join(files.K3sDir, name)
	config := K3sConfig{}
	var problems diag.Problems
	report := func(line int, key, code, message, hint string) {
		problems = append(problems, diag.Problem{
			File: file, Line: line, Column: key, Severity: diag.Error, Code: code, Message: message, Hint: hint,
		})
	}
	data, err := fs.ReadFile(fsys, file)
	if errors.Is(err, fs.ErrNotExist) {
		return config, nil
	} else if err != nil {
		reason, hint := diag.Reason(err), diag.HintOf(err)
		report(0, "", "file-unreadable", "the file cannot be read: "+reason.Error(), hint)
		return config, problems
	}
	var root yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	err = decoder.Decode(&root)
	if err == nil && decoder.Decode(new(yaml.Node)) != io.EOF {
		report(0, "", "yaml-syntax", "there is more than one document in the file", "delete the line ---")
		return config, problems
	}
	if err != nil && err != io.EOF {
		line, message := yamlfile.Error(err)
		report(line, "", "yaml-syntax", message, "")
		return config, problems
	}
	if len(root.Content) == 0 || root.Content[0].Tag == "!!null" {
		return config, nil
	}
	top := root.Content[0]
	if top.Kind != yaml.MappingNode {
		report(top.Line, "", "yaml-syntax", "there must be keys with values here", "the keys are k3s's options: key: value")
		return config, problems
	}
	for i := 0; i+1 < len(top.Content); i += 2 {
		written, node := top.Content[i].Value, top.Content[i+1]
		key := strings.TrimSuffix(strings.TrimLeft(written, "-"), "+")
		line := top.Content[i].Line
		if message, hint := refuseKey(name, key); message != "" {
			report(line, written, "key-reserved", message, hint)
			continue
		}
		if config[key] != nil {
			report(line, written, "key-duplicate", "the key is given twice", "write one list")
			continue
		}
		value, err := scalarOrList(node)
		if err != nil {
			report(node.Line, written, "value-invalid", err.Error(), "")
			continue
		}
		if slices.Contains(lists, key) {
			value = asList(value)
			if wrong := plan.CheckNodeOption(key, value.([]string)); wrong != nil {
				wrong.File, wrong.Line, wrong.Column = file, node.Line, written
				problems = append(problems, *wrong)
				continue
			}
		}
		config[key] = value
	}
	return config, problems
}

// refuseKey tells why an option of k3s has no place in the file of this name; without a message it has.
func refuseKey(name, key string) (message, hint string) {
	switch {
	case len(key) < 2:
		// k3s reads t as token, s as server, …
		return "k3s takes it for the short form of an option", "write the option's long name"
	case slices.Contains(secretKeys, key):
		return "a secret would be readable for everyone in the Nix store", "bring it to the machines as a file"
	case slices.Contains(plannedKeys[name], key):
		return "the plan decides this option", "take it out"
	}
	return "", ""
}

func scalarOrList(node *yaml.Node) (any, error) {
	asOldYAML(node)
	var value any
	if err := node.Decode(&value); err != nil {
		return nil, errors.New("not a value: " + strings.TrimPrefix(err.Error(), "yaml: "))
	}
	isScalar := func(value any) bool {
		switch value.(type) {
		case string, bool, int, int64, uint64, float64:
			return true
		}
		return false
	}
	list, isList := value.([]any)
	if isList && !slices.ContainsFunc(list, func(item any) bool { return !isScalar(item) }) || isScalar(value) {
		return value, nil
	}
	return nil, errors.New("k3s takes single values and lists of them here")
}

// asOldYAML makes truth values of the words that are such in YAML 1.1, by which k3s reads its own file:
// yes, off and the like. YAML 1.2 has them for texts.
func asOldYAML(node *yaml.Node) {
	for _, item := range append([]*yaml.Node{node}, node.Content...) {
		var truth bool
		if item.Kind == yaml.ScalarNode && item.Style == 0 && item.Tag == "!!str" && item.Decode(&truth) == nil {
			item.Tag, item.Value = "!!bool", strconv.FormatBool(truth)
		}
	}
}

// asList gives a list of strings; k3s splits single values at commas.
func asList(value any) []string {
	items, isList := value.([]any)
	if !isList {
		items = []any{value}
	}
	texts := []string{}
	for _, item := range items {
		for text := range strings.SplitSeq(fmt.Sprint(item), ",") {
			texts = append(texts, strings.TrimSpace(text))
		}
	}
	return texts
}

// checkK3sFolder reports files that k3splan does not read.
func checkK3sFolder(fsys fs.FS) diag.Problems {
	entries, err := fs.ReadDir(fsys, files.K3sDir)
	if err != nil {
		return unreadableFolder(files.K3sDir, err)
	}
	var problems diag.Problems
	known := []string{"server.yaml", "agent.yaml"}
	for _, entry := range entries {
		name := entry.Name()
		if slices.Contains(known, name) || strings.HasPrefix(name, ".") {
			continue
		}
		hint := cmp.Or(diag.DidYouMean(strings.ToLower(name), known), "server.yaml and agent.yaml are read")
		problems = append(problems, diag.Problem{
			File: path.Join(files.K3sDir, name), Severity: diag.Warning, Code: "file-orphan", Message: "k3splan does not read this file", Hint: hint,
		})
	}
	return problems
}
