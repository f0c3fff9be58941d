package yamlfile

import (
	"bytes"
	"fmt"

	"gopkg.in/yaml.v3"
)

// Set sets a key of the top level to a value, a word that needs no quotes, and leaves everything else in
// the text as it is, comments too. An error means that the text has a shape in which that cannot be
// done.
func Set(text []byte, key, value string) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	end := "\n"
	if bytes.Contains(text, []byte("\r\n")) {
		end = "\r\n"
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	line := key + ": " + value
	found := false
	if len(root.Content) > 0 && root.Content[0].Kind == yaml.MappingNode {
		for i, node := range root.Content[0].Content {
			if i%2 != 0 || node.Value != key {
				continue
			}
			old := root.Content[0].Content[i+1]
			if old.Value == value && old.Kind == yaml.ScalarNode {
				return text, nil
			}
			if comment := old.LineComment; comment != "" {
				line += " " + comment
			}
			if node.Line > len(lines) { // YAML has more kinds of line ends than these
				return nil, byHand(key, value)
			}
			lines[node.Line-1] = []byte(line + end)
			found = true
		}
	}
	if !found {
		if last := lines[len(lines)-1]; len(last) > 0 {
			lines = append(lines, []byte(end))
		}
		lines = append(lines, []byte(line+end))
	}
	changed := bytes.Join(lines, nil)
	// a mapping in braces, a value over several lines: better no edit than a wrong one
	var before, after map[string]any
	if yaml.Unmarshal(text, &before) != nil || yaml.Unmarshal(changed, &after) != nil {
		return nil, byHand(key, value)
	}
	if before == nil {
		before = map[string]any{}
	}
	before[key] = value
	if fmt.Sprint(before) != fmt.Sprint(after) {
		return nil, byHand(key, value)
	}
	return changed, nil
}

func byHand(key, value string) error {
	return fmt.Errorf("write this line there yourself: %s: %s", key, value)
}
