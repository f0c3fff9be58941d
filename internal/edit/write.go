package edit

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
)

// Write makes the change in the project's folder: all contents are written aside first and then exchanged,
// in an order in which every prefix is harmless (see [Edit.changes]). If that is interrupted, the same
// command called again completes it. A file that another program has changed in between is not overwritten,
// nor one that its owner has made read-only; both are refused before anything is written.
func (e *Edit) Write(dir string) (err error) {
	unlock, err := files.Lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	// the table that does not change counts, too: the result was judged with it
	originals := maps.Clone(e.originals)
	if e.known != nil {
		originals[remote.KnownHostsFile] = e.knownBefore
	}
	for _, file := range slices.Sorted(maps.Keys(originals)) {
		if data, err := files.Read(filepath.Join(dir, file)); err != nil {
			return err
		} else if !bytes.Equal(data, originals[file]) {
			return refuse("another program has changed "+file+"; nothing was written", "run the same command again")
		}
	}
	changes, err := e.changes(dir)
	if err != nil {
		return err
	}
	exchange, err := files.Prepare(changes)
	if err != nil {
		return err
	}
	copied, err := e.copyEntries()
	if err != nil {
		return errors.Join(err, exchange.Discard())
	}
	if err := exchange.Commit(); err != nil {
		return err
	}
	return e.removeEntries(copied)
}

// changes returns what is written, in this order: files with a new name have both names until the end, so
// that no host loses its hardware configuration or password; the known hosts; the containers before the
// hosts. In between, a renamed host is either unchanged, or its containers refer to a host that does not
// exist, and nothing is done with a plan that has errors; a removed host is one without containers.
func (e *Edit) changes(dir string) (changes []files.Change, err error) {
	contents := e.Files()
	for _, file := range []string{remote.KnownHostsFile, plan.ChecksFile, plan.K3sFile, plan.HostsFile, plan.WorkbookFile} {
		content, ok := contents[file]
		if !ok {
			continue
		}
		name := filepath.Join(dir, file)
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if info.Mode().Perm()&0o222 == 0 {
			return nil, refuse(file+" is read-only; nothing was written", "chmod u+w "+file)
		}
		changes = append(changes, files.Change{Name: name, Content: content})
	}
	for _, move := range e.Moves {
		if _, isEntry := e.entries[move.From]; !isEntry {
			changes = append(changes, files.Change{Name: filepath.Join(dir, move.To), From: filepath.Join(dir, move.From)})
		}
	}
	return changes, nil
}

// copyEntries stores secrets that are kept elsewhere under their new names as well. If one cannot be, those
// before are removed again.
func (e *Edit) copyEntries() (copied []Move, err error) {
	var created []string
	defer func() {
		if err == nil {
			return
		}
		for _, name := range created {
			err = errors.Join(err, e.vault.Remove(name))
		}
	}()
	for _, move := range e.Moves {
		from, isEntry := e.entries[move.From]
		if !isEntry {
			continue
		}
		content, err := e.vault.Read(from)
		if err != nil {
			return nil, err
		}
		to := e.vault.NameOf(move.To)
		err = e.vault.Create(to, content)
		switch {
		case err == nil:
			created = append(created, to)
		case !errors.Is(err, fs.ErrExist) || !e.same(move):
			return nil, err
		}
		copied = append(copied, move)
	}
	return copied, nil
}

func (e *Edit) removeEntries(copied []Move) (err error) {
	for _, move := range copied {
		err = errors.Join(err, e.vault.Remove(e.entries[move.From]))
	}
	return err
}

// same reports whether what gets a new name is already there under that name: a rename that was interrupted.
func (e *Edit) same(move Move) bool {
	read := func(place string) ([]byte, error) {
		if _, isEntry := e.entries[move.From]; isEntry {
			return e.vault.Read(e.vault.NameOf(place))
		}
		return fs.ReadFile(e.fsys, place)
	}
	from, errFrom := read(move.From)
	to, errTo := read(move.To)
	return errFrom == nil && errTo == nil && bytes.Equal(from, to)
}
