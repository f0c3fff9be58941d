package fingerprint

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"k3splan/internal/files"
	"k3splan/internal/hive"
)

// Secrets is what a host keeps about the secrets that it received: enough to detect that one has changed,
// and nothing of their content. Each kind is authenticated with a random salt, so that equal secrets look
// different on two hosts, and on one host at two times.
type Secrets struct {
	// Salt is random, in hexadecimal digits.
	Salt string `json:"salt"`
	// Kinds are HMAC-SHA256 values in hexadecimal digits, by the names of hive.Secret.
	Kinds map[string]string `json:"kinds"`
}

// Contents are secrets in memory, by kind.
type Contents map[string][]byte

// ReadSecrets returns what is uploaded to a host; read returns the entries that are stored encrypted. No
// error contains a secret.
func ReadSecrets(project string, secrets []hive.Secret, read func(entry string) ([]byte, error)) (Contents, error) {
	contents := Contents{}
	for _, secret := range secrets {
		var data []byte
		var err error
		switch {
		case secret.KeyFile != "":
			data, err = files.Read(filepath.Join(project, filepath.FromSlash(secret.KeyFile)))
		case secret.Entry != "":
			data, err = read(secret.Entry)
		default:
			err = errors.New("it has no source")
		}
		if err != nil {
			return nil, fmt.Errorf("reading the secret %s: %w", secret.Name, err)
		}
		contents[secret.Name] = data
	}
	return contents, nil
}

// Seal returns what a host may keep.
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

// Changed returns the kinds that differ from what was sealed, new ones included, sorted. A kind that the
// host no longer needs is not a change.
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
