package project

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/secrets"
)

// Moved is what MoveSecrets has done.
type Moved struct {
	// Names are the secrets that are in the new place now.
	Names []string
	// Foreign are those of them that k3splan does not use itself: a snippet may name them as files.
	Foreign []string
	// Files are the project's files that were changed besides.
	Files []string
}

// MoveSecrets takes the secrets over into another back end and makes it the project's. Nothing is
// removed from the old place before everything was read back from the new one, and a call that was
// interrupted can be made again. Without anything to move to another place, it clears away what lies
// about in plain files.
//
// A secret that is in both places, and not the same, stops it: only a person knows which is right.
func MoveSecrets(dir string, to plan.SecretStore, ask secrets.Ask) (moved *Moved, err error) {
	p, _ := plan.Load(files.In(dir)) // other mistakes in the tables do not matter here
	from := p.Network.Secrets
	if from.Kind == plan.SecretUnknown {
		return nil, errors.New("the plan does not tell where the secrets are kept: see `k3splan validate`")
	}
	network := &networkChange{} // none, if the plan says so already, be it by default
	if from == to {
		from = otherFiles(to)
	} else if network, err = newNetworkFile(dir, to); err != nil {
		return nil, err
	}
	source, err := secrets.OpenVault(dir, from, ask)
	if err != nil {
		return nil, err
	}
	target, err := secrets.OpenVault(dir, to, ask)
	if err != nil {
		return nil, err
	}
	moved = &Moved{}
	if moved.Names, err = takeOver(source, target); err != nil {
		return nil, err
	}
	moved.Foreign = slices.DeleteFunc(slices.Clone(moved.Names), secrets.IsOurs)
	if network.workbook {
		return moved, &workbookError{to}
	}
	if network.changed() {
		// from here on the new place counts
		if err := network.write(); err != nil {
			return moved, err
		}
		moved.Files = append(moved.Files, network.file)
	}
	if completed, err := openGitignore(dir, to.Kind); err != nil {
		return moved, err
	} else if completed {
		moved.Files = append(moved.Files, gitignoreFile)
	}
	for _, name := range moved.Names {
		if err := source.Remove(name); err != nil {
			return moved, fmt.Errorf("everything is in the new place, but not removed from the old one: %w", err)
		}
	}
	return moved, nil
}

// otherFiles is the back end in the same folder whose files could lie about beside those of kept.
func otherFiles(kept plan.SecretStore) plan.SecretStore {
	if kept.Kind == plan.SecretFiles {
		return plan.SecretStore{Kind: plan.SecretAge}
	}
	return plan.SecretStore{Kind: plan.SecretFiles}
}

// takeOver copies all secrets and reads each of them back. If that fails, what it had created is
// removed again.
func takeOver(source, target *secrets.Vault) (names []string, err error) {
	if names, err = source.List(); err != nil {
		return nil, err
	}
	present, err := target.List()
	if err != nil {
		return nil, err
	}
	contents := make(map[string][]byte, len(names))
	store := map[string]func(string, []byte) error{}
	for _, name := range names {
		if contents[name], err = source.Read(name); err != nil {
			return nil, err
		}
		if !slices.Contains(present, name) {
			store[name] = target.Create
			continue
		}
		other, err := target.Read(name)
		if err != nil {
			return nil, err
		}
		switch {
		case bytes.Equal(other, contents[name]):
		case len(other) == 0: // pass stores what it got of k3splan before that was killed
			store[name] = target.Replace
		default:
			return nil, &conflictError{source.At(name), target.At(name)}
		}
	}
	var created []string
	defer func() {
		if err == nil {
			return
		}
		for _, name := range created {
			err = errors.Join(err, target.Remove(name))
		}
	}()
	for _, name := range names {
		if store[name] == nil {
			continue
		}
		if err := store[name](name, contents[name]); err != nil {
			return nil, err
		}
		created = append(created, name)
		read, err := target.Read(name)
		if err != nil {
			return nil, fmt.Errorf("nothing was changed, for what was stored cannot be read back: %w", err)
		}
		if !bytes.Equal(read, contents[name]) {
			return nil, fmt.Errorf("nothing was changed, for %s gives back something else than was stored", target.At(name))
		}
	}
	return names, nil
}

// conflictError is a secret that is in two places with different contents.
type conflictError struct{ source, target string }

func (e *conflictError) Error() string {
	return fmt.Sprintf("%s and %s hold different secrets; nothing was changed", e.source, e.target)
}

// Hint says how to mend it.
func (e *conflictError) Hint() string {
	return "remove the one that is wrong by hand: of a living cluster's tokens only one is right"
}

// workbookError says that everything is in the new place, but that nobody is told.
type workbookError struct{ to plan.SecretStore }

func (e *workbookError) Error() string {
	return "all secrets are in the new place as well, but " + plan.WorkbookFile + " does not say so yet: only a spreadsheet program edits it without loss"
}

// Hint says how to go on.
func (e *workbookError) Hint() string {
	rows := "secrets: " + string(e.to.Kind)
	if e.to.Kind == plan.SecretPass {
		rows += " and pass_prefix: " + e.to.Prefix
	}
	return "write " + rows + " into its sheet network, key and value side by side, and call this again: it clears the old place"
}

// networkChange is an edit of network.yaml that was not written yet.
type networkChange struct {
	workbook      bool // there is no such file
	file, path    string
	before, after []byte
	mode          fs.FileMode
}

func newNetworkFile(dir string, to plan.SecretStore) (*networkChange, error) {
	if _, err := os.Stat(filepath.Join(dir, plan.WorkbookFile)); err == nil {
		return &networkChange{workbook: true}, nil
	}
	c := &networkChange{file: plan.NetworkFile}
	path, err := filepath.EvalSymlinks(filepath.Join(dir, c.file))
	if err != nil {
		return nil, err
	}
	c.path = path
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	c.mode = info.Mode().Perm()
	if c.before, err = files.Read(path); err != nil {
		return nil, err
	}
	c.after, err = plan.SetSecretStore(c.before, to)
	return c, err
}

func (c *networkChange) changed() bool { return !bytes.Equal(c.before, c.after) }

func (c *networkChange) write() error {
	return renameio.WriteFile(c.path, c.after, c.mode, renameio.WithStaticPermissions(c.mode))
}

const gitignoreFile = ".gitignore"

// sharedInGit lets git see what others need and may see: encrypted secrets and public keys. All else
// in secrets/ stays hidden, so that plain text cannot be committed by mistake.
var sharedInGit = []string{"/secrets/**", "!/secrets/**/", "!/secrets/**/*.age", "!/secrets/**/*.pub", "!/" + secrets.RecipientsFile}

// openGitignore replaces the line that hides all of secrets/, if age keeps what is there.
func openGitignore(dir string, kind plan.SecretKind) (changed bool, err error) {
	if kind != plan.SecretAge {
		return false, nil
	}
	file := filepath.Join(dir, gitignoreFile)
	text, err := files.Read(file)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = nil, nil
	} else if err != nil {
		return false, err
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		switch trimmed := strings.TrimSpace(line); {
		case trimmed == sharedInGit[0]:
			return false, nil
		case strings.Trim(trimmed, "/") == secrets.Dir && !strings.HasPrefix(trimmed, "!"):
		default:
			lines = append(lines, strings.TrimSuffix(line, "\n")+"\n")
		}
	}
	lines = append(lines, strings.Join(sharedInGit, "\n")+"\n")
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(file); err == nil {
		mode = info.Mode().Perm()
	}
	return true, renameio.WriteFile(file, []byte(strings.Join(lines, "")), mode, renameio.WithStaticPermissions(mode))
}
