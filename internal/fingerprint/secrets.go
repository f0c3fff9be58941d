package fingerprint

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"

	"k3splan/internal/files"
	"k3splan/internal/hive"
	"k3splan/internal/run"
)

// Secrets is what a host keeps of the secrets that it got: enough to see that one has changed, and
// nothing of the secrets. Each kind is authenticated with a random salt, so that equal secrets of two
// hosts look different, and what is equal on one host at two times does too.
type Secrets struct {
	// Salt is random, in hexadecimal digits.
	Salt string `json:"salt"`
	// Kinds are HMAC-SHA256 values in hexadecimal digits, by the names of hive.Secret.
	Kinds map[string]string `json:"kinds"`
}

// Contents are secrets in memory, by kind.
type Contents map[string][]byte

// ReadSecrets reads what is uploaded to a host; read gives the entries that are not kept in plain
// text. No error holds a secret.
func ReadSecrets(ctx context.Context, project string, secrets []hive.Secret, read func(entry string) ([]byte, error)) (Contents, error) {
	contents := Contents{}
	for _, secret := range secrets {
		if secret.KeyFile != "" {
			data, err := files.Read(filepath.Join(project, filepath.FromSlash(secret.KeyFile)))
			if err != nil {
				return nil, fmt.Errorf("reading the secret %s: %w", secret.Name, err)
			}
			contents[secret.Name] = data
			continue
		}
		if secret.Entry != "" {
			data, err := read(secret.Entry)
			if err != nil {
				return nil, fmt.Errorf("reading the secret %s: %w", secret.Name, err)
			}
			contents[secret.Name] = data
			continue
		}
		if len(secret.KeyCommand) == 0 {
			return nil, fmt.Errorf("the secret %s comes from nowhere", secret.Name)
		}
		out, err := run.Output(ctx, run.Command{
			Program: secret.KeyCommand[0], Args: secret.KeyCommand[1:], Dir: project,
		})
		if err != nil {
			return nil, fmt.Errorf("getting the secret %s: %w", secret.Name, err)
		}
		contents[secret.Name] = []byte(out)
	}
	return contents, nil
}

// Seal gives what a host may keep.
func (c Contents) Seal() Secrets {
	salt := make([]byte, 32)
	_, _ = rand.Read(salt) // never fails
	sealed := Secrets{Salt: hex.EncodeToString(salt), Kinds: map[string]string{}}
	for kind := range c {
		sealed.Kinds[kind] = c.mac(sealed.Salt, kind)
	}
	return sealed
}

func (c Contents) mac(salt, kind string) string {
	mac := hmac.New(sha256.New, []byte(salt))
	fmt.Fprintf(mac, "k3splan %d %s\n", len(kind), kind)
	mac.Write(c[kind])
	return hex.EncodeToString(mac.Sum(nil))
}

// Changed gives the kinds that are not what was sealed, new ones included, sorted. A kind that the
// host does not need any more is no change.
func (c Contents) Changed(sealed Secrets) []string {
	var changed []string
	for kind := range c {
		if sealed.Kinds[kind] == "" || !hmac.Equal([]byte(sealed.Kinds[kind]), []byte(c.mac(sealed.Salt, kind))) {
			changed = append(changed, kind)
		}
	}
	slices.Sort(changed)
	return changed
}
