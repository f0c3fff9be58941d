package plan

import (
	"errors"
	"fmt"
	"regexp"

	"k3splan/internal/yamlfile"
)

// SecretKind is the way in which a project's secrets are kept at rest.
type SecretKind string

const (
	// SecretFiles are plain files in secrets/, for their owner alone: the default.
	SecretFiles SecretKind = "files"
	// SecretAge are files in secrets/ that are encrypted with age.
	SecretAge SecretKind = "age"
	// SecretPass are entries of the program pass.
	SecretPass SecretKind = "pass"
	// SecretUnknown is that of a network.yaml that cannot be understood.
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

// Keys returns the keys of network.yaml, or of the sheet network, that name a store, with their values.
func (s SecretStore) Keys() [][2]string {
	keys := [][2]string{{secretsKey, string(s.Kind)}}
	if s.Kind == SecretPass {
		keys = append(keys, [2]string{passPrefixKey, s.Prefix})
	}
	return keys
}

// SetSecretStore writes a store into the text of a network.yaml and leaves everything else as it
// is, comments too. An error means that the text has a shape in which that cannot be done.
func SetSecretStore(text []byte, store SecretStore) (changed []byte, err error) {
	changed = text
	for _, key := range store.Keys() {
		if changed, err = yamlfile.Set(changed, key[0], key[1]); err != nil {
			return nil, fmt.Errorf("%s cannot be edited: %w", NetworkFile, err)
		}
	}
	return changed, nil
}
