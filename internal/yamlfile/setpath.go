package yamlfile

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// plainForm are words that need no quotes and are not numbers.
var plainForm = regexp.MustCompile(`^[a-z][a-z0-9./_-]*$`)

// SetIn sets a key of a mapping, that of the top level if parent is "", to a word, or removes the key if
// the word is empty. Everything else in the text stays as it is, comments too. The mapping must be there. An
// error means that the text has a shape in which that cannot be done.
func SetIn(text []byte, parent, key, value string) ([]byte, error) {
	where := key
	if parent != "" {
		where = parent + "." + key
	}
	hand := fmt.Errorf("set %s to %q there yourself", where, value)
	if value == "" {
		hand = fmt.Errorf("remove %s there yourself", where)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil || len(root.Content) == 0 {
		return nil, hand
	}
	mapping := root.Content[0]
	if parent != "" {
		if _, mapping = pair(mapping, parent); mapping == nil {
			return nil, hand
		}
	}
	if mapping.Kind != yaml.MappingNode || len(mapping.Content) == 0 {
		return nil, hand
	}
	word := value
	if !plainForm.MatchString(word) {
		word = `"` + word + `"`
	}
	name, old := pair(mapping, key)
	inBraces := mapping.Style&yaml.FlowStyle != 0
	var changed []byte
	switch {
	case old == nil && value == "", old != nil && old.Kind == yaml.ScalarNode && old.Value == value:
		return text, nil
	case old != nil && old.Kind != yaml.ScalarNode:
		return nil, hand
	case old == nil: // after the last one
		last, lastValue := mapping.Content[len(mapping.Content)-2], mapping.Content[len(mapping.Content)-1]
		_, end, ok := token(text, lastValue)
		switch {
		case !ok || lastValue.Kind != yaml.ScalarNode:
			return nil, hand
		case inBraces:
			changed = splice(text, end, end, ", "+key+": "+word)
		default:
			indent := strings.Repeat(" ", last.Column-1)
			rest := bytes.IndexByte(text[end:], '\n')
			if rest < 0 {
				changed = splice(text, len(text), len(text), "\n"+indent+key+": "+word)
			} else {
				changed = splice(text, end+rest+1, end+rest+1, indent+key+": "+word+lineEnd(text))
			}
		}
	default:
		begin, end, ok := token(text, old)
		start, _, nameOK := token(text, name)
		switch {
		case !ok || !nameOK:
			return nil, hand
		case value != "":
			changed = splice(text, begin, end, word)
		case inBraces: // with the comma before, or the one behind
			before := bytes.TrimRight(text[:start], " ")
			behind := bytes.TrimLeft(text[end:], " ")
			switch {
			case bytes.HasSuffix(before, []byte(",")):
				changed = splice(text, len(before)-1, end, "")
			case bytes.HasPrefix(behind, []byte(",")):
				behind = bytes.TrimLeft(behind[1:], " ")
				changed = splice(text, start, len(text)-len(behind), "")
			default:
				return nil, hand
			}
		default:
			start = bytes.LastIndexByte(text[:start], '\n') + 1
			rest := bytes.IndexByte(text[end:], '\n')
			if rest < 0 {
				rest = len(text) - end - 1
			}
			changed = splice(text, start, end+rest+1, "")
		}
	}
	if !differOnlyIn(text, changed, parent, key, value) {
		return nil, hand
	}
	return changed, nil
}

// pair returns the nodes of a key and its value, or nil.
func pair(mapping *yaml.Node, key string) (name, value *yaml.Node) {
	if mapping.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i], mapping.Content[i+1]
		}
	}
	return nil, nil
}

// token returns where a scalar is written in a line of the text, with its quotes.
func token(text []byte, node *yaml.Node) (begin, end int, ok bool) {
	for range node.Line - 1 {
		i := bytes.IndexByte(text[begin:], '\n')
		if i < 0 {
			return 0, 0, false
		}
		begin += i + 1
	}
	line := []rune(string(text[begin:]))
	if node.Column < 1 || node.Column > len(line) {
		return 0, 0, false
	}
	begin += len(string(line[:node.Column-1]))
	rest := string(text[begin:])
	switch {
	case strings.HasPrefix(rest, `"`), strings.HasPrefix(rest, `'`):
		i := strings.IndexByte(rest[1:], rest[0])
		if i < 0 || rest[1:i+1] != node.Value {
			return 0, 0, false
		}
		return begin, begin + i + 2, true
	case node.Value != "" && strings.HasPrefix(rest, node.Value):
		return begin, begin + len(node.Value), true
	}
	return 0, 0, false
}

func splice(text []byte, begin, end int, with string) []byte {
	return append(append(append([]byte(nil), text[:begin]...), with...), text[end:]...)
}

func lineEnd(text []byte) string {
	if bytes.Contains(text, []byte("\r\n")) {
		return "\r\n"
	}
	return "\n"
}

// differOnlyIn reports whether the key has the value after the change and nothing else is another one:
// better no edit than a wrong one.
func differOnlyIn(before, after []byte, parent, key, value string) bool {
	var old, new map[string]any
	var scalar yaml.Node
	if yaml.Unmarshal(before, &old) != nil || yaml.Unmarshal(after, &new) != nil || yaml.Unmarshal(after, &scalar) != nil || len(scalar.Content) == 0 {
		return false
	}
	mapping, was, is := scalar.Content[0], old, new
	if parent != "" {
		_, mapping = pair(mapping, parent)
		var ok, ok2 bool
		was, ok = old[parent].(map[string]any)
		is, ok2 = new[parent].(map[string]any)
		if mapping == nil || !ok || !ok2 {
			return false
		}
	}
	if _, node := pair(mapping, key); (node == nil) != (value == "") || node != nil && node.Value != value {
		return false
	}
	delete(was, key)
	delete(is, key)
	return fmt.Sprint(old) == fmt.Sprint(new)
}
