package edit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
)

// Write brings the change to the project's folder: each table in one step, with its mode, then what
// follows. If something fails, what was done is taken back. A table that another program has
// written meanwhile is not overwritten, nor one that its owner has made read-only; that is refused
// before anything is written.
func (e *Edit) Write(dir string) (err error) {
	unlock, err := files.Lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	// the table that stays as it is counts, too: the result was looked at with it
	originals := map[string][]byte{plan.HostsFile: e.hosts.original(), plan.K3sFile: e.k3s.original()}
	if e.known != nil {
		originals[remote.KnownHostsFile] = e.knownBefore
	}
	for _, file := range slices.Sorted(maps.Keys(originals)) {
		if data, err := files.Read(filepath.Join(dir, file)); err != nil {
			return err
		} else if !bytes.Equal(data, originals[file]) {
			return refuse("another program has changed "+file+" meanwhile; nothing was written", "the same command again")
		}
	}
	contents := e.Files()
	writers := map[string]func([]byte) error{}
	for file := range contents {
		if writers[file], err = writer(dir, file); err != nil {
			return err
		}
	}
	var undo []func() error
	defer func() {
		if err == nil {
			return
		}
		for _, step := range slices.Backward(undo) {
			err = errors.Join(err, step())
		}
	}()
	for _, file := range slices.Sorted(maps.Keys(contents)) {
		if err := writers[file](contents[file]); err != nil {
			return fmt.Errorf("write %s: %w", file, err)
		}
		undo = append(undo, func() error { return writers[file](originals[file]) })
	}
	for _, move := range e.Moves {
		if err := e.move(dir, move); err != nil {
			return fmt.Errorf("rename %s: %w", move.From, err)
		}
		undo = append(undo, func() error { return e.move(dir, Move{move.To, move.From}) })
	}
	return nil
}

// writer gives what writes a file, or refuses it. The file behind links is written.
func writer(dir, file string) (func([]byte) error, error) {
	target, err := filepath.EvalSymlinks(filepath.Join(dir, file))
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(target)
	if err != nil {
		return nil, err
	}
	mode := info.Mode().Perm()
	if mode&0o222 == 0 {
		return nil, refuse(file+" is read-only; nothing was written", "chmod u+w "+file)
	}
	return func(data []byte) error { return files.Replace(target, data, files.Public) }, nil
}

// move renames a file or a secret, never onto another one.
func (e *Edit) move(dir string, move Move) error {
	_, entry := e.entries[move.From]
	_, back := e.entries[move.To]
	if entry || back {
		return e.vault.Rename(e.vault.NameOf(move.From), e.vault.NameOf(move.To))
	}
	from, to := filepath.Join(dir, move.From), filepath.Join(dir, move.To)
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists already", move.To)
	}
	return os.Rename(from, to)
}
