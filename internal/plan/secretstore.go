package plan

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"k3splan/internal/diag"

	"gopkg.in/yaml.v3"
)

// SecretKind says how a project's secrets are kept at rest.
type SecretKind string

const (
	// SecretFiles are plain files in secrets/, for their owner alone: the default.
	SecretFiles SecretKind = "files"
	// SecretAge are files in secrets/ that are encrypted with age.
	SecretAge SecretKind = "age"
	// SecretPass are entries of the program pass.
	SecretPass SecretKind = "pass"
	// SecretUnknown is what a network.yaml gives that cannot be understood.
	SecretUnknown SecretKind = "unknown"
)

// SecretKinds are those that can be chosen.
func SecretKinds() []string {
	return []string{string(SecretFiles), string(SecretAge), string(SecretPass)}
}

// SecretStore is where the secrets are kept: the keys `secrets` and `pass_prefix` of network.yaml.
// The zero SecretStore means plain files.
type SecretStore struct {
	Kind SecretKind
	// Prefix is the folder of the entries in pass, with SecretPass only ("k3splan/my-rack").
	Prefix string
}

const (
	secretsKey    = "secrets"
	passPrefixKey = "pass_prefix"
)

// no part of a prefix is . or .., and none begins with a hyphen, which pass takes for an option
var passPrefixForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._@+-]*(?:/[A-Za-z0-9_][A-Za-z0-9._@+-]*)*$`)

// CheckPassPrefix refuses what cannot be a folder of entries in pass.
func CheckPassPrefix(prefix string) error {
	if !passPrefixForm.MatchString(prefix) {
		return errors.New("not a folder of entries in pass: names of letters, digits and . _ @ + -, separated by slashes")
	}
	return nil
}

func (r *networkReader) readSecretStore() {
	store := SecretStore{Kind: SecretFiles}
	text, ok := r.text(secretsKey)
	switch kind := SecretKind(strings.ToLower(text)); {
	case r.unreadable || r.slips[secretsKey]:
		store.Kind = SecretUnknown
	case !ok:
	case kind == SecretFiles || kind == SecretAge || kind == SecretPass:
		store.Kind = kind
	default:
		store.Kind = SecretUnknown
		hint := cmp.Or(diag.DidYouMean(string(kind), SecretKinds()), "files, age or pass")
		r.fail(secretsKey, r.keys[secretsKey], &finding{"value-invalid", "secrets are not kept in this way", hint})
	}
	prefix, given := r.text(passPrefixKey)
	switch {
	case store.Kind != SecretPass:
	case !given:
		// never guessed: two racks must not share their tokens by chance
		r.missing(passPrefixKey, "k3splan/my-rack", ", a folder of entries for this cluster alone")
		store.Kind = SecretUnknown
	default:
		if err := CheckPassPrefix(prefix); err != nil {
			r.fail(passPrefixKey, r.keys[passPrefixKey], &finding{"value-invalid", err.Error(), "pass_prefix: k3splan/my-rack"})
			store.Kind = SecretUnknown
			break
		}
		store.Prefix = prefix
	}
	r.network.Secrets = store
}

// SetSecretStore writes a store into the text of a network.yaml and leaves everything else as it
// is, comments too. An error means that the text is of a shape in which that cannot be done.
func SetSecretStore(text []byte, store SecretStore) ([]byte, error) {
	changed, err := setYAMLKey(text, secretsKey, string(store.Kind))
	if err == nil && store.Kind == SecretPass {
		changed, err = setYAMLKey(changed, passPrefixKey, store.Prefix)
	}
	if err != nil {
		return nil, fmt.Errorf("%s cannot be edited: %w", NetworkFile, err)
	}
	return changed, nil
}

// setYAMLKey sets a key of the top level to a word that needs no quotes.
func setYAMLKey(text []byte, key, value string) ([]byte, error) {
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
