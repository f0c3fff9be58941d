package secrets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
)

// Ask asks the user for a passphrase. A nil Ask means that nobody may be asked: what cannot be read
// without is a *[LockedError].
type Ask func(prompt string) ([]byte, error)

// Once returns an Ask that asks each question once and remembers the answer.
func (ask Ask) Once() Ask {
	if ask == nil {
		return nil
	}
	answers := map[string][]byte{}
	return func(prompt string) ([]byte, error) {
		if answer, asked := answers[prompt]; asked {
			return answer, nil
		}
		answer, err := ask(prompt)
		if err == nil {
			answers[prompt] = answer
		}
		return answer, err
	}
}

// Vault reads and writes the secrets of one project wherever they are kept. A secret has the same
// name in all back ends: "init-token", "ulfpasswd", "hosts/ulf". What is read is in memory only.
//
// Every change holds the project's lock. If the secrets were moved to another back end since the vault
// was opened, changes follow them there.
type Vault struct {
	project string
	where   plan.SecretStore
	keeper  keeper
	ask     Ask
	chosen  stamp
	held    bool
}

// stamp is the state of the files that say where the secrets are kept.
type stamp [2]struct {
	inode    uint64
	size     int64
	modified time.Time
}

func stampOf(project string) (s stamp) {
	for i, file := range []string{files.NetworkFile, files.WorkbookFile} {
		info, err := os.Stat(filepath.Join(project, filepath.FromSlash(file)))
		if err != nil {
			continue
		}
		s[i].size, s[i].modified = info.Size(), info.ModTime()
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			s[i].inode = stat.Ino
		}
	}
	return s
}

// keeper is a back end. The errors of all methods are fit to follow the secret's place in a message.
type keeper interface {
	// list returns the names of all secrets, sorted, those in folders too.
	list() ([]string, error)
	// read returns a secret; shared is the mode of its file if that lets others in, else 0.
	read(name string, limit int64) (content []byte, shared fs.FileMode, err error)
	// create never overwrites: the error is then fs.ErrExist.
	create(name string, content []byte) error
	replace(name string, content []byte) error
	remove(name string) error
	// rename never overwrites: the error is then fs.ErrExist. Nothing is decrypted if it can be helped.
	rename(from, to string) error
}

// maxAny is the largest size in bytes of a secret of any kind.
const maxAny = 64 << 10

// ErrUnknownStore is a plan that does not say where the secrets are kept, or says it twice.
var ErrUnknownStore = errors.New("the plan does not say clearly where the secrets are kept: see `k3splan validate`")

// OpenVault opens the secrets of a project, without looking at any. Without a project ("") only those
// of pass can be reached, and nothing is locked. The error is [ErrUnknownStore], or a [files.Error] if the
// folder of the secrets is not this user's own.
func OpenVault(project string, where plan.SecretStore, ask Ask) (*Vault, error) {
	if where.Kind == plan.SecretUnknown {
		return nil, ErrUnknownStore
	}
	v := &Vault{project: project, where: where, keeper: newKeeper(folderOf(project), where, ask), ask: ask}
	if project == "" {
		return v, nil
	}
	v.chosen = stampOf(project)
	for _, folder := range []string{Dir, inSecrets(HostKeys), inSecrets(Retired)} {
		if err := files.CheckOwnFolder(project, folder); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// Held returns the vault for those who hold the project's lock already.
func (v *Vault) Held() *Vault {
	held := *v
	held.held = true
	return &held
}

// Lock runs work while no other k3splan process changes the project. held is the vault to be used in it.
func (v *Vault) Lock(work func(held *Vault) error) error {
	if v.held || v.project == "" {
		return work(v)
	}
	unlock, err := files.Lock(v.project)
	if err != nil {
		return err
	}
	defer unlock()
	if err := v.follow(); err != nil {
		return err
	}
	return work(v.Held())
}

// follow goes to where the secrets are kept now.
func (v *Vault) follow() error {
	now := stampOf(v.project)
	if now == v.chosen {
		return nil
	}
	p, _ := plan.Load(files.In(v.project)) // other mistakes in the tables do not matter here
	moved, err := OpenVault(v.project, p.Network.Secrets, v.ask)
	if err != nil {
		return err
	}
	if moved.where == v.where {
		v.chosen = now
		return nil
	}
	*v = *moved
	return nil
}

// Prepare reads the first of these secrets that exists, or without names any secret, so that a passphrase
// that will be needed is asked for before the project is locked.
func (v *Vault) Prepare(names ...string) error {
	if v.where.Kind == plan.SecretFiles {
		return nil
	}
	present, err := v.List()
	if err != nil {
		return err
	}
	if len(names) == 0 {
		names = present
	}
	for _, name := range names {
		if _, found := slices.BinarySearch(present, name); found {
			_, err := v.Read(name)
			return err
		}
	}
	return nil
}

func newKeeper(dir folder, where plan.SecretStore, ask Ask) keeper {
	switch where.Kind {
	case plan.SecretAge:
		return &ageKeeper{folder: dir, ask: ask}
	case plan.SecretPass:
		return passKeeper{prefix: where.Prefix, ask: ask}
	default:
		return dir
	}
}

// Where says the back end.
func (v *Vault) Where() plan.SecretStore { return v.where }

// At returns where a secret is: a file relative to the project, or an entry of pass.
func (v *Vault) At(name string) string { return at(v.where, name) }

// List returns the names of all secrets, sorted, without public keys.
func (v *Vault) List() ([]string, error) {
	names, err := v.keeper.list()
	if err != nil {
		return nil, fmt.Errorf("list the secrets: %w", err)
	}
	return names, nil
}

// Has reports whether there is a secret of this name.
func (v *Vault) Has(name string) (bool, error) {
	names, err := v.List()
	return slices.Contains(names, name), err
}

// Read returns a secret as it was stored. The error wraps fs.ErrNotExist if there is none.
func (v *Vault) Read(name string) ([]byte, error) {
	if err := checkPlace(name); err != nil { // users give their own files any name
		return nil, err
	}
	content, _, err := v.keeper.read(name, maxAny)
	if err != nil {
		return nil, fmt.Errorf("%s %w", v.At(name), err)
	}
	return content, nil
}

// Create stores a new secret. Where there is one already the error wraps fs.ErrExist and nothing
// has changed.
func (v *Vault) Create(name string, content []byte) error {
	return v.change(name, "create", func(k keeper) error { return k.create(name, content) })
}

// Replace stores a secret in place of another or of none, in one step where the back end can.
func (v *Vault) Replace(name string, content []byte) error {
	return v.change(name, "replace", func(k keeper) error { return k.replace(name, content) })
}

// Remove removes a secret.
func (v *Vault) Remove(name string) error {
	return v.change(name, "remove", func(k keeper) error { return k.remove(name) })
}

// Retire keeps a copy of a secret before it is replaced or removed, and returns the name of the copy.
// Snapshots of a cluster need the token that was good when they were taken.
func (v *Vault) Retire(name string, now time.Time) (kept string, err error) {
	content, err := v.Read(name)
	if err != nil {
		return "", err
	}
	kept = retiredName(name, now)
	return kept, v.Create(kept, content)
}

// Elsewhere is where else a secret is, which stays when it is removed; the zero value
// means nowhere.
type Elsewhere struct {
	// File is what a link leads to, absolute.
	File string
	// Inode is that of a file with further names, which only a search finds.
	Inode uint64
}

// Elsewhere says what [Vault.Remove] of a secret would leave.
func (v *Vault) Elsewhere(name string) Elsewhere {
	switch keeper := v.keeper.(type) {
	case folder:
		return keeper.elsewhere(name)
	case *ageKeeper:
		return keeper.folder.elsewhere(name + ageExtension)
	default:
		return Elsewhere{}
	}
}

// Rename changes the name of a secret. Where there is one of that name already the error wraps
// fs.ErrExist and nothing has changed.
func (v *Vault) Rename(from, to string) error {
	return v.change(from, "rename", func(k keeper) error {
		if err := checkName(to); err != nil {
			return err
		}
		return k.rename(from, to)
	})
}

// Rekey encrypts all secrets again, to the present recipients; only age has such. Everything is
// decrypted first, and each secret is stored only if this user can still decrypt it. A call that was
// interrupted can be made again.
func (v *Vault) Rekey() (names []string, err error) {
	if err := v.Prepare(); err != nil {
		return nil, err
	}
	err = v.Lock(func(held *Vault) error {
		names, err = held.rekey()
		return err
	})
	return names, err
}

func (v *Vault) rekey() (names []string, err error) {
	keeper, ok := v.keeper.(*ageKeeper)
	if !ok {
		return nil, errors.New("only secrets that are kept by age are encrypted to recipients")
	}
	if names, err = v.List(); err != nil {
		return nil, err
	}
	contents := make([][]byte, len(names))
	for i, name := range names {
		if contents[i], err = v.Read(name); err != nil {
			return nil, err
		}
	}
	for i, name := range names {
		err := keeper.seal(contents[i], func(sealed []byte) error {
			if _, err := keeper.open(sealed, maxAny); err != nil {
				return fmt.Errorf("you could no longer read it, as %s does not contain your key: %w", RecipientsFile, err)
			}
			return keeper.folder.replace(name+ageExtension, sealed)
		})
		if err != nil {
			return names[:i], fmt.Errorf("encrypt %s again: %w", v.At(name), err)
		}
	}
	return names, nil
}

func (v *Vault) change(name, verb string, change func(keeper) error) error {
	err := checkName(name)
	if err == nil {
		err = v.Lock(func(held *Vault) error { return change(held.keeper) })
	}
	if err != nil {
		return fmt.Errorf("%s the secret %s: %w", verb, v.At(name), err)
	}
	return nil
}

// at returns where a secret is kept, for people.
func at(where plan.SecretStore, name string) string {
	switch where.Kind {
	case plan.SecretAge:
		return inSecrets(name) + ageExtension
	case plan.SecretPass:
		return passPlace + path.Join(where.Prefix, name)
	default:
		return inSecrets(name)
	}
}

// NameOf returns the name of a secret from what people call it: its name, or where it is.
func (v *Vault) NameOf(text string) string { return nameOf(v.where, text) }

func nameOf(where plan.SecretStore, text string) string {
	name := text
	if where.Kind == plan.SecretPass {
		name = strings.TrimPrefix(strings.TrimPrefix(name, passPlace), where.Prefix+"/")
	}
	name = strings.TrimPrefix(name, Dir+"/")
	if where.Kind == plan.SecretAge {
		name = strings.TrimSuffix(name, ageExtension)
	}
	return name
}

// checkPlace refuses names outside the folder, and of files that are not secrets.
func checkPlace(name string) error {
	if !fs.ValidPath(name) || ClassOf(name) != Secret {
		return fmt.Errorf("%q cannot be the name of a secret", name)
	}
	return nil
}

// checkName also keeps new names to what needs no quotes anywhere.
func checkName(name string) error {
	odd := func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.@+/", r))
	}
	if strings.ContainsFunc(name, odd) || strings.HasPrefix(name, "-") {
		return fmt.Errorf("%q cannot be the name of a secret", name)
	}
	return checkPlace(name)
}

// Check judges the content of a secret by its name: a token, a password's hash, a host's ssh key.
// Others must only not be empty. The problems have no File and show nothing of the content.
func Check(name string, content []byte) diag.Problems {
	switch u, _ := useOf(name); {
	case u == useServers || u == useAgents:
		return CheckToken(TokenKind(name), content)
	case u == usePassword:
		return CheckHash(content)
	case u == useHostKey:
		if _, err := ssh.ParseRawPrivateKey(content); err != nil {
			return diag.Problems{finding{diag.Error, codeInvalid, "is not an ssh private key without passphrase", ""}.at("", 0)}
		}
	case len(strings.TrimSpace(string(content))) == 0:
		return diag.Problems{finding{diag.Error, codeInvalid, "is empty", ""}.at("", 0)}
	}
	return nil
}

// LockedError is a secret that exists and cannot be decrypted: no key of this machine decrypts it, or
// a passphrase is needed and nobody may be asked.
type LockedError struct{ reason string }

func (e *LockedError) Error() string { return "cannot be decrypted: " + e.reason }

func locked(reason, hint string) error { return diag.WithHint(&LockedError{reason}, hint) }
