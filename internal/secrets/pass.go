package secrets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/run"
)

const (
	// passPlace precedes an entry's name, so that it is not taken for a file.
	passPlace     = "pass:"
	passExtension = ".gpg"
)

// passKeeper is the back end where each secret is an entry PREFIX/NAME of the program pass, in the
// store that PASSWORD_STORE_DIR names or ~/.password-store.
type passKeeper struct {
	prefix string
	ask    Ask
}

func (k passKeeper) entry(name string) string { return path.Join(k.prefix, name) }

// folder is where pass keeps the encrypted entries. Its contents are found by listing it, as pass shows
// it only as a tree for people.
func (k passKeeper) folder() (folder, error) {
	store := os.Getenv("PASSWORD_STORE_DIR")
	if store == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return folder{}, err
		}
		store = filepath.Join(home, ".password-store")
	}
	return folder{filepath.Join(store, filepath.FromSlash(k.prefix))}, nil
}

func (k passKeeper) list() ([]string, error) {
	dir, err := k.folder()
	if err != nil {
		return nil, err
	}
	names, err := dir.walk(func(file string) bool {
		name, sealed := strings.CutSuffix(file, passExtension)
		return sealed && ClassOf(name) == Secret
	})
	for i, name := range names {
		names[i] = strings.TrimSuffix(name, passExtension)
	}
	return names, err
}

func (k passKeeper) has(name string) (bool, error) {
	dir, err := k.folder()
	if err != nil {
		return false, err
	}
	_, err = os.Lstat(dir.path(name) + passExtension)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (k passKeeper) read(name string, limit int64) ([]byte, fs.FileMode, error) {
	if there, err := k.has(name); err != nil {
		return nil, 0, err
	} else if !there {
		return nil, 0, fmt.Errorf("is missing: %w", fs.ErrNotExist)
	}
	command := run.Command{Program: "pass", Args: []string{"show", k.entry(name)}}
	if k.ask == nil {
		// gpg fails instead of asking; what its agent remembers is opened all the same
		command.Env = []string{"PASSWORD_STORE_GPG_OPTS=" + strings.TrimSpace(os.Getenv("PASSWORD_STORE_GPG_OPTS")+" --pinentry-mode=error")}
	}
	out, err := run.Output(context.Background(), command)
	var failed *run.ExitError
	switch {
	case errors.As(err, &failed):
		return nil, 0, locked(failed.Error(), "try `pass show "+k.entry(name)+"`")
	case err != nil:
		return nil, 0, k.explain(err)
	case int64(len(out)) > limit:
		return nil, 0, fmt.Errorf("is larger than %d KiB", limit>>10)
	}
	return []byte(out), 0, nil
}

func (k passKeeper) create(name string, content []byte) error {
	if there, err := k.has(name); err != nil {
		return err
	} else if there {
		return fs.ErrExist
	}
	return k.replace(name, content)
}

// replace stores the content beside its place first: pass overwrites an entry in place, and would leave half
// of it, or nothing, on a full disk or when it is killed. The content goes by standard input: arguments are
// seen by everyone on the machine.
func (k passKeeper) replace(name string, content []byte) error {
	store, err := k.folder()
	if err != nil {
		return err
	}
	if info, err := os.Stat(store.path(name)); err == nil && info.IsDir() { // pass mv would put the entry into it
		return fmt.Errorf("pass has a folder %s", k.entry(name))
	}
	folder, base := path.Split(name)
	aside := k.entry(folder + files.Unfinished(base))
	for _, command := range []run.Command{
		{Program: "pass", Args: []string{"insert", "--multiline", "--force", aside}, Stdin: bytes.NewReader(content)},
		{Program: "pass", Args: []string{"mv", "--force", aside, k.entry(name)}},
	} {
		if _, err := run.Output(context.Background(), command); err != nil {
			return errors.Join(k.explain(err), k.forget(folder+files.Unfinished(base)))
		}
	}
	return nil
}

// forget removes what an interrupted replace left, or nothing.
func (k passKeeper) forget(name string) error {
	if err := k.remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (k passKeeper) remove(name string) error {
	if there, err := k.has(name); err != nil {
		return err
	} else if !there {
		return fs.ErrNotExist
	}
	_, err := run.Output(context.Background(), run.Command{Program: "pass", Args: []string{"rm", "--force", k.entry(name)}})
	return k.explain(err)
}

func (k passKeeper) rename(from, to string) error {
	switch there, err := k.has(from); {
	case err != nil:
		return err
	case !there:
		return fs.ErrNotExist
	}
	switch taken, err := k.has(to); {
	case err != nil:
		return err
	case taken:
		return fs.ErrExist
	}
	_, err := run.Output(context.Background(), run.Command{Program: "pass", Args: []string{"mv", k.entry(from), k.entry(to)}})
	return k.explain(err)
}

func (k passKeeper) explain(err error) error {
	var missing *run.MissingError
	if errors.As(err, &missing) {
		return diag.WithHint(err, "install it (on Debian: apt install pass), or keep the secrets by files or age instead: key `secrets` of the network")
	}
	return err
}
