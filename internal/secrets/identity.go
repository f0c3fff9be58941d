package secrets

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"golang.org/x/crypto/ssh"

	"k3splan/internal/files"
)

// IdentityVariable names, in the environment, the files of private keys that decrypt the secrets,
// separated as in PATH. Without it they are all files of age's keys in age/ of the user's
// configuration folder (~/.config/age), then ~/.ssh/id_ed25519 and ~/.ssh/id_rsa.
const IdentityVariable = "K3SPLAN_IDENTITY"

// identities are the private keys of this machine's user. Those with a passphrase are opened only
// when something is encrypted to them.
type identities struct {
	all []age.Identity
	// files are those that hold keys, unusable those that were named and are of no use, with why.
	files    []string
	unusable []string
	named    bool
	ask      Ask
	// locked is the file of the key that last needed a passphrase when nobody could be asked for it, failed
	// that of one that could not be opened with the passphrase given.
	locked, failed string
	// unanswered is why a question got no answer.
	unanswered error
}

// IdentityFiles returns the existing files in which private keys are looked for.
func IdentityFiles() []string {
	files, _ := identityFiles()
	return slices.DeleteFunc(files, func(file string) bool {
		info, err := os.Stat(file)
		return err != nil || !info.Mode().IsRegular()
	})
}

func identityFiles() (files []string, named bool) {
	if list := os.Getenv(IdentityVariable); list != "" {
		return filepath.SplitList(list), true
	}
	if config, err := os.UserConfigDir(); err == nil {
		entries, _ := os.ReadDir(filepath.Join(config, "age"))
		for _, entry := range entries {
			if !isHidden(entry.Name()) && !leftover.MatchString(entry.Name()) {
				files = append(files, filepath.Join(config, "age", entry.Name()))
			}
		}
	}
	if home, err := os.UserHomeDir(); err == nil {
		files = append(files, filepath.Join(home, ".ssh", "id_ed25519"), filepath.Join(home, ".ssh", "id_rsa"))
	}
	return files, false
}

func findIdentities(ask Ask) *identities {
	ids := &identities{ask: ask}
	var files []string
	files, ids.named = identityFiles()
	for _, file := range files {
		found, err := ids.parse(file)
		if errors.Is(err, fs.ErrNotExist) && !ids.named {
			continue
		}
		if err != nil {
			ids.unusable = append(ids.unusable, fmt.Sprintf("%s: %v", file, err))
			continue
		}
		if len(found) > 0 {
			ids.files = append(ids.files, file)
			ids.all = append(ids.all, found...)
		}
	}
	return ids
}

// hint says where keys were looked for.
func (ids *identities) hint() string {
	hint := "no private key was found: they are looked for in ~/.config/age/, ~/.ssh/id_ed25519 and ~/.ssh/id_rsa, or where " + IdentityVariable + " says"
	if len(ids.files) > 0 {
		hint = "it was not encrypted to any of the keys in " + strings.Join(ids.files, ", ") + "; " + IdentityVariable + " names other files"
	}
	if ids.named || len(ids.files) == 0 {
		for _, unusable := range ids.unusable {
			hint += "\n" + unusable
		}
	}
	return hint
}

// parse reads a file of private keys. No error quotes from it.
func (ids *identities) parse(file string) ([]age.Identity, error) {
	content, _, err := folder{filepath.Dir(file)}.read(filepath.Base(file), maxKeyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, syscall.ENOENT // "no such file or directory"
	case err != nil:
		return nil, err
	}
	text := bytes.TrimSpace(content)
	switch {
	case bytes.HasPrefix(text, []byte(armor.Header)), bytes.HasPrefix(content, []byte("age-encryption.org/")):
		return []age.Identity{ids.watch(file, &sealedIdentities{sealed: content, ask: ids.asker(file)})}, nil
	case bytes.HasPrefix(text, []byte("-----BEGIN")):
		identity, err := ids.parseSSH(file, content)
		if err != nil {
			return nil, errors.New("is not an ssh key that age can use (ed25519 or RSA)")
		}
		return []age.Identity{identity}, nil
	}
	found, plugins, err := parseIdentities(text)
	if err != nil {
		return nil, err
	}
	if len(plugins) > 0 {
		ids.unusable = append(ids.unusable, fmt.Sprintf("%s: holds a key of %s, which k3splan does not run", file, strings.Join(plugins, ", ")))
	}
	return found, nil
}

// pluginPrefix begins the private keys that a plugin of age keeps, on a token for instance.
const pluginPrefix = "AGE-PLUGIN-"

// parseIdentities reads a list of private keys as age does: one a line, with comments and blank lines.
// Keys of plugins are left out and named ("age-plugin-yubikey").
func parseIdentities(text []byte) (found []age.Identity, plugins []string, err error) {
	var own strings.Builder
	for line := range strings.Lines(strings.TrimPrefix(string(text), byteOrderMark)) {
		line = strings.TrimSpace(line)
		if rest, isPlugin := strings.CutPrefix(line, pluginPrefix); isPlugin {
			name, _, ok := strings.Cut(rest, "-1")
			if !ok {
				return nil, nil, errNoIdentities
			}
			plugins = append(plugins, "age-plugin-"+strings.ToLower(name))
			continue
		}
		own.WriteString(line + "\n")
	}
	if found, err = age.ParseIdentities(strings.NewReader(own.String())); err != nil && (len(plugins) == 0 || hasKeyLine(own.String())) {
		return nil, nil, errNoIdentities
	}
	return found, plugins, nil
}

// hasKeyLine reports whether a list holds more than comments: age refuses one without keys.
func hasKeyLine(text string) bool {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return true
		}
	}
	return false
}

// errNoIdentities replaces the errors of age, which may quote from a private key.
var errNoIdentities = errors.New("is not a file of age's private keys")

func (ids *identities) parseSSH(file string, content []byte) (age.Identity, error) {
	identity, err := agessh.ParseIdentity(content)
	var missing *ssh.PassphraseMissingError
	if !errors.As(err, &missing) {
		return identity, err
	}
	public := missing.PublicKey
	if public == nil { // the old format does not contain it
		line, err := files.Read(file + keyExtension)
		if err != nil {
			return nil, err
		}
		if public, _, _, _, err = ssh.ParseAuthorizedKey(line); err != nil {
			return nil, err
		}
	}
	sealed, err := agessh.NewEncryptedSSHIdentity(public, content, ids.asker(file))
	if err != nil {
		return nil, err
	}
	return ids.watch(file, sealed), nil
}

// watched is a key with a passphrase that records when it could not be opened.
type watched struct {
	age.Identity
	file string
	ids  *identities
}

func (ids *identities) watch(file string, identity age.Identity) age.Identity {
	return &watched{identity, file, ids}
}

func (w *watched) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	key, err := w.Identity.Unwrap(stanzas)
	if err != nil && !errors.Is(err, age.ErrIncorrectIdentity) {
		w.ids.failed = w.file
	}
	return key, err
}

func (ids *identities) asker(file string) func() ([]byte, error) {
	return func() ([]byte, error) {
		if ids.ask == nil {
			ids.locked = file
			return nil, errors.New("there is no terminal to ask for the passphrase")
		}
		answer, err := ids.ask("Passphrase of " + file + ": ")
		if err != nil {
			ids.unanswered = err
		}
		return answer, err
	}
}

// sealedIdentities are age keys in a file that is itself encrypted with a passphrase.
type sealedIdentities struct {
	sealed []byte
	ask    func() ([]byte, error)
	opened []age.Identity
}

// Unwrap asks for the passphrase when no key before has opened the file.
func (s *sealedIdentities) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if s.opened == nil {
		passphrase, err := s.ask()
		if err != nil {
			return nil, err
		}
		scrypt, err := age.NewScryptIdentity(string(passphrase))
		if err != nil {
			return nil, err
		}
		out, err := age.Decrypt(unarmored(s.sealed), scrypt)
		if err != nil {
			return nil, errors.New("the passphrase is wrong")
		}
		text, err := io.ReadAll(io.LimitReader(out, maxKeyFile))
		if err != nil {
			return nil, errors.New("the file is damaged")
		}
		if s.opened, _, err = parseIdentities(text); err != nil {
			return nil, errors.New("it holds no private keys of age")
		}
	}
	for _, identity := range s.opened {
		key, err := identity.Unwrap(stanzas)
		if !errors.Is(err, age.ErrIncorrectIdentity) {
			return key, err
		}
	}
	return nil, age.ErrIncorrectIdentity
}
