package secrets

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"

	"k3splan/internal/diag"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
)

const (
	ageExtension = ".age"
	// recipientsName is the file of the public keys that secrets are encrypted to, in the form of
	// age's own option -R.
	recipientsName = "recipients"
	// maxSealed is the size in bytes of an encrypted file: armor adds a third, each recipient 200 bytes,
	// or 2 KiB if it withstands quantum computers.
	maxSealed = 1 << 20
)

// RecipientsFile is the path of the recipients' file, relative to the project.
const RecipientsFile = Dir + "/" + recipientsName

// ageKeeper is the back end where each secret is a file NAME.age, encrypted to the recipients.
type ageKeeper struct {
	folder folder
	ask    Ask

	once       sync.Once
	identities *identities
}

func (k *ageKeeper) list() ([]string, error) {
	names, err := k.folder.walk(func(file string) bool {
		name, sealed := strings.CutSuffix(file, ageExtension)
		return sealed && ClassOf(name) == Secret
	})
	for i, name := range names {
		names[i] = strings.TrimSuffix(name, ageExtension)
	}
	return names, err
}

func (k *ageKeeper) read(name string, limit int64) ([]byte, fs.FileMode, error) {
	sealed, _, err := k.folder.read(name+ageExtension, maxSealed)
	if err != nil {
		return nil, 0, err
	}
	content, err := k.open(sealed, limit)
	return content, 0, err // an encrypted file may be readable by anyone
}

func (k *ageKeeper) open(sealed []byte, limit int64) ([]byte, error) {
	out, err := k.decrypt(unarmored(sealed))
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(out, limit+1))
	switch {
	case err != nil:
		return nil, errDamaged
	case int64(len(content)) > limit:
		return nil, fmt.Errorf("is larger than %d KiB", limit>>10)
	}
	return content, nil
}

// decrypt returns what was encrypted, not armored. An error of the returned reader means that it is damaged.
func (k *ageKeeper) decrypt(sealed io.Reader) (io.Reader, error) {
	k.once.Do(func() { k.identities = findIdentities(k.ask) })
	all := k.identities.all
	if len(all) == 0 {
		all = []age.Identity{noIdentity{}} // so that a damaged file is still distinguished from a locked one
	}
	k.identities.locked, k.identities.failed, k.identities.unanswered = "", "", nil
	out, err := age.Decrypt(sealed, all...)
	var none *age.NoIdentityMatchError
	switch {
	case k.identities.locked != "":
		return nil, locked("the key "+k.identities.locked+" needs its passphrase", "run the command on a terminal")
	case errors.As(err, &none):
		return nil, locked("no key of this machine decrypts it", k.identities.hint())
	case k.identities.unanswered != nil:
		return nil, fmt.Errorf("cannot be decrypted: %w", k.identities.unanswered)
	case k.identities.failed != "":
		return nil, fmt.Errorf("cannot be decrypted: the passphrase of %s is wrong, or was not given", k.identities.failed)
	case err != nil:
		return nil, errDamaged
	}
	return out, nil
}

// unarmored returns the binary form of what age encrypted. Only the text form may have white space around
// it: that of the binary form is part of it.
func unarmored(sealed []byte) io.Reader {
	if bytes.HasPrefix(bytes.TrimSpace(sealed), []byte(armor.Header)) {
		return armor.NewReader(bytes.NewReader(sealed))
	}
	return bytes.NewReader(sealed)
}

// errDamaged replaces the errors of age, which quote from what may be plain text.
var errDamaged = errors.New("was not encrypted by age, or is damaged")

type noIdentity struct{}

func (noIdentity) Unwrap([]*age.Stanza) ([]byte, error) { return nil, age.ErrIncorrectIdentity }

func (k *ageKeeper) create(name string, content []byte) error {
	return k.seal(content, func(sealed []byte) error { return k.folder.create(name+ageExtension, sealed) })
}

func (k *ageKeeper) replace(name string, content []byte) error {
	return k.seal(content, func(sealed []byte) error { return k.folder.replace(name+ageExtension, sealed) })
}

func (k *ageKeeper) remove(name string) error { return k.folder.remove(name + ageExtension) }

func (k *ageKeeper) rename(from, to string) error {
	return k.folder.rename(from+ageExtension, to+ageExtension)
}

// seal encrypts in memory, as text, which git and people handle better.
func (k *ageKeeper) seal(content []byte, store func([]byte) error) error {
	var sealed bytes.Buffer
	armored := armor.NewWriter(&sealed)
	out, err := k.encrypt(armored)
	if err != nil {
		return err
	}
	_, err = out.Write(content)
	if err = errors.Join(err, out.Close(), armored.Close()); err != nil {
		return err
	}
	return store(sealed.Bytes())
}

// encrypt returns a writer that encrypts to the recipients. Its Close does not close sealed.
func (k *ageKeeper) encrypt(sealed io.Writer) (io.WriteCloser, error) {
	recipients, problems := k.folder.recipients()
	for _, p := range problems {
		if p.Severity == diag.Error {
			return nil, fmt.Errorf("%w: %w", ErrRecipients, diag.WithHint(errors.New(p.String()), p.Hint))
		}
	}
	out, err := age.Encrypt(sealed, recipients...)
	if err != nil {
		return nil, fmt.Errorf("%w to %s: %w", ErrRecipients, RecipientsFile, err)
	}
	return out, nil
}

// ErrRecipients is a recipients' file that cannot be used: nothing was encrypted or stored.
var ErrRecipients = errors.New("nothing can be encrypted")

// recipients reads the keys to encrypt to.
func (f folder) recipients() (recipients []age.Recipient, problems diag.Problems) {
	report := func(row int, severity diag.Severity, message, hint string) {
		problems = append(problems, finding{severity, codeRecipients, message, hint}.at(RecipientsFile, row))
	}
	content, _, err := f.read(recipientsName, maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		report(0, diag.Error, "is missing: it names the public keys that may decrypt the secrets", recipientsHint)
		return nil, problems
	} else if err != nil {
		report(0, diag.Error, err.Error(), diag.HintOf(err))
		return nil, problems
	}
	seen := map[string]int{}
	row, firstRow := 0, 0
	quantum := false // whether the first key withstands quantum computers
	for line := range strings.Lines(strings.TrimPrefix(string(content), byteOrderMark)) {
		row++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if f := otherFormat(line); f != nil {
			report(row, diag.Error, f.message, f.hint)
			return nil, problems // the lines that follow belong to it
		}
		recipient, key, wrong := parseRecipient(line)
		if wrong != "" {
			report(row, diag.Error, wrong, "a line is like: age1…, ssh-ed25519 AAAA… or ssh-rsa AAAA…")
			continue
		}
		if first := seen[key]; first > 0 {
			report(row, diag.Warning, fmt.Sprintf("is the same key as in line %d", first), "remove one of the two")
			continue
		}
		seen[key] = row
		if _, hybrid := recipient.(*age.HybridRecipient); firstRow == 0 {
			firstRow, quantum = row, hybrid
		} else if hybrid != quantum {
			report(row, diag.Error, fmt.Sprintf("%s, and the key in line %d %s: age does not encrypt to both together", withstands[hybrid], firstRow, withstands[quantum]),
				"let every recipient have a post-quantum key (age1pq1…, made by `age-keygen -pq`), or none of them")
			continue
		}
		recipients = append(recipients, recipient)
	}
	if len(recipients) == 0 && len(problems) == 0 {
		report(0, diag.Error, "names no key", recipientsHint)
	}
	return recipients, problems
}

var withstands = map[bool]string{true: "is a post-quantum key", false: "is not a post-quantum key"}

const recipientsHint = "for example `mkdir -p ~/.config/age`, `age-keygen -o ~/.config/age/keys.txt` and `age-keygen -y ~/.config/age/keys.txt >> " + RecipientsFile +
	"`, or `cat ~/.ssh/id_ed25519.pub >> " + RecipientsFile + "`"

// parseRecipient also returns the key without its comment, and says in fixed words what is wrong.
func parseRecipient(line string) (recipient age.Recipient, key, wrong string) {
	var err error
	switch {
	case strings.HasPrefix(line, "age1pq1"):
		recipient, err = age.ParseHybridRecipient(line)
		key = line
	case strings.HasPrefix(line, "age1") && strings.LastIndex(line, "1") > len("age"):
		return nil, "", "is a key of an age plugin, which k3splan does not run"
	case strings.HasPrefix(line, "age1"):
		recipient, err = age.ParseX25519Recipient(line)
		key = line
	case strings.HasPrefix(line, "ssh-ed25519 "), strings.HasPrefix(line, "ssh-rsa "):
		k, f := parseKey(line)
		if f != nil {
			return nil, "", f.message
		}
		recipient, err = agessh.ParseRecipient(line)
		key = k.blob
	case strings.HasPrefix(line, "ecdsa-"), strings.HasPrefix(line, "sk-"):
		return nil, "", "is an ssh key of a type that age cannot encrypt to"
	default:
		return nil, "", "is not a public key of age or ssh"
	}
	if err != nil {
		return nil, "", "is not a public key of age or ssh: it is damaged"
	}
	return recipient, key, ""
}
