package k3s

// Merging a kubeconfig into the user's file is done by hand, on the YAML nodes: client-go's clientcmd reads
// the file into structs and writes those, which loses comments, order and fields that it does not know, and
// makes paths absolute. A tool that touches somebody's only way into other clusters changes nothing else.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/run"

	"gopkg.in/yaml.v3"
)

// conflict returns the error about an entry of the user's with our name, for another cluster.
func conflict(kind, name string) error {
	return diag.WithHint(fmt.Errorf("the file already has a %s %q that is not of this plan", kind, name),
		"give the cluster another name with --name, or remove that one: kubectl config delete-"+kind+" "+run.Word(name))
}

var kinds = []struct{ list, one string }{{"clusters", "cluster"}, {"users", "user"}, {"contexts", "context"}}

// Merge returns the content of the user's file with the config in it: entries of its name are replaced,
// everything else stays as it is, comments included. The current context stays if there is one. isOurs
// reports by a cluster's server whether an entry of that name may be replaced.
func (c *Kubeconfig) Merge(present []byte, isOurs func(server string) bool) ([]byte, error) {
	if len(bytes.TrimSpace(present)) == 0 {
		return c.YAML()
	}
	root, err := parse(present)
	if err != nil {
		return nil, err
	}
	own, err := c.YAML()
	if err != nil {
		return nil, err
	}
	ours, err := parse(own)
	if err != nil {
		return nil, err
	}
	if err := c.conflicts(root, isOurs); err != nil {
		return nil, err
	}
	for _, kind := range kinds {
		item := value(ours, kind.list).Content[0]
		list := value(root, kind.list)
		switch {
		case list == nil:
			root.Content = append(root.Content, scalar(kind.list), &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{item}})
			continue
		case isEmpty(list):
			*list = yaml.Node{Kind: yaml.SequenceNode, HeadComment: list.HeadComment, LineComment: list.LineComment, FootComment: list.FootComment}
		case list.Kind != yaml.SequenceNode:
			return nil, fmt.Errorf("%s of the kubeconfig is not a list", kind.list)
		}
		if at := index(list, c.Name); at >= 0 {
			item.HeadComment = list.Content[at].HeadComment
			list.Content[at] = item
		} else {
			list.Content = append(list.Content, item)
		}
	}
	for _, key := range []string{"apiVersion", "kind", "current-context"} {
		switch node := value(root, key); {
		case node == nil:
			root.Content = append(root.Content, scalar(key), value(ours, key))
		case node.Value == "" || isEmpty(node):
			*node = *value(ours, key)
		}
	}
	merged, err := encode(root)
	if err != nil {
		return nil, err
	}
	return merged, c.same(present, merged)
}

// encode writes YAML as kubectl does.
func encode(content any) ([]byte, error) {
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := errors.Join(encoder.Encode(content), encoder.Close()); err != nil {
		return nil, errors.New("the kubeconfig cannot be written as YAML") // its text may quote the content
	}
	return out.Bytes(), nil
}

// conflicts refuses entries of our name that are for another cluster.
func (c *Kubeconfig) conflicts(root *yaml.Node, isOurs func(string) bool) error {
	list := value(root, "clusters")
	if at := index(list, c.Name); at >= 0 {
		server := ""
		if node := value(value(list.Content[at], "cluster"), "server"); node != nil {
			server = node.Value
		}
		if !isOurs(server) {
			return conflict("cluster", c.Name)
		}
		return nil
	}
	for _, kind := range kinds[1:] {
		if index(value(root, kind.list), c.Name) >= 0 {
			return conflict(kind.one, c.Name)
		}
	}
	return nil
}

// same makes sure that nothing else of the user's means something different now.
func (c *Kubeconfig) same(before, after []byte) error {
	var old, now map[string]any
	if yaml.Unmarshal(before, &old) != nil || yaml.Unmarshal(after, &now) != nil {
		return errors.New("the kubeconfig cannot be read again after merging; nothing was changed")
	}
	for key, value := range old {
		kept := now[key]
		if key == "clusters" || key == "users" || key == "contexts" {
			value, kept = without(value, c.Name), without(kept, c.Name)
		} else if value == nil || value == "" {
			continue
		}
		if !reflect.DeepEqual(value, kept) {
			return fmt.Errorf("merging would change %q of the kubeconfig; nothing was changed", key)
		}
	}
	return nil
}

// without returns a list's entries except those of a name.
func without(list any, name string) []any {
	var rest []any
	items, _ := list.([]any)
	for _, item := range items {
		if entry, ok := item.(map[string]any); !ok || entry["name"] != name {
			rest = append(rest, item)
		}
	}
	return rest
}

// Others reports whether a kubeconfig has entries of other names than this config's, which replacing the
// file would lose. A file that is not a kubeconfig counts as such.
func (c *Kubeconfig) Others(present []byte) bool {
	if len(bytes.TrimSpace(present)) == 0 {
		return false
	}
	var content map[string]any
	if yaml.Unmarshal(present, &content) != nil {
		return true
	}
	if content["kind"] != "Config" {
		return true
	}
	for _, kind := range kinds {
		if len(without(content[kind.list], c.Name)) > 0 {
			return true
		}
	}
	return false
}

func parse(content []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		return nil, errors.New("the file is not YAML") // its text may quote the content
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("the file has more than one YAML document")
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("the file is not a kubeconfig")
	}
	root := document.Content[0]
	root.HeadComment = strings.Trim(document.HeadComment+"\n"+root.HeadComment, "\n")
	return root, nil
}

// value returns the value of a mapping's key, or nil.
func value(mapping *yaml.Node, key string) *yaml.Node {
	mapping = resolve(mapping)
	if mapping == nil || mapping.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return resolve(mapping.Content[i+1])
		}
	}
	return nil
}

// index returns the place of an entry in a list by its name, or -1.
func index(list *yaml.Node, name string) int {
	if list == nil || list.Kind != yaml.SequenceNode {
		return -1
	}
	for i, item := range list.Content {
		if node := value(item, "name"); node != nil && node.Value == name {
			return i
		}
	}
	return -1
}

func resolve(node *yaml.Node) *yaml.Node {
	if node != nil && node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func isEmpty(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && (node.Tag == "!!null" || node.Value == "") || node.Kind == yaml.SequenceNode && len(node.Content) == 0
}

func scalar(text string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: text} }
