package files

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k3splan/internal/diag"
)

// Change is one of several files that change as one: it gets a new content, or another name.
type Change struct {
	// Name is the path of the file. If it is a link, the file that it leads to changes.
	Name string
	// Content is what the file will hold.
	Content []byte
	// From, if not empty, is the path of an existing file that gets the name Name; Content is ignored.
	From string
	// Remove deletes the file Name; Content and From are ignored.
	Remove bool
}

// Exchange changes several files as one, as far as a file system can: everything that needs room or
// permission happens first, aside, where it changes nothing. [Exchange.Commit] then only exchanges names.
//
//	exchange, err := files.Prepare(changes)
//	if err != nil { return err }  // nothing has changed
//	defer exchange.Discard()      // does nothing after Commit
//	return exchange.Commit()
//
// A process that is killed during Commit leaves a prefix of these steps, in the order of the changes: renamed
// files have both names; contents are exchanged; old names and files to remove are deleted. Preparing the
// same changes again, as far as they are still needed, goes on from there. The caller chooses an order of
// the contents in which every prefix is harmless, and holds a lock that keeps other processes away.
type Exchange struct {
	staged []staged
	// linked are the new names of files, made by this Exchange
	linked []string
	// the names that Commit removes last
	gone []string
}

// staged is an unfinished file, and the one whose place it takes.
type staged struct {
	*os.File
	name string
}

// Prepare writes all contents aside and returns files with a new name both names. A new name that is taken
// by a file with another content is an error that wraps fs.ErrExist. After an error nothing has changed.
func Prepare(changes []Change) (x *Exchange, err error) {
	x = &Exchange{}
	defer func() {
		if err != nil {
			err = errors.Join(err, x.Discard())
		}
	}()
	for _, change := range changes {
		if change.Remove {
			x.gone = append(x.gone, change.Name)
		} else if change.From == "" {
			if err := x.stage(change.Name, change.Content); err != nil {
				return x, err
			}
		}
	}
	for _, change := range changes { // last, for these names can be seen
		if change.From == "" {
			continue
		}
		if err := x.link(change.From, change.Name); err != nil {
			return x, err
		}
		x.gone = append(x.gone, change.From)
	}
	return x, nil
}

// stage writes a content beside the file whose place it will take, with the same mode and owner.
func (x *Exchange) stage(name string, content []byte) error {
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	p := pending{mode: Public}
	switch info, err := os.Lstat(name); {
	case err == nil && !info.Mode().IsRegular():
		return &fs.PathError{Op: "replace", Path: name, Err: notAFile(name, info.Mode())}
	case err == nil:
		p.like = info
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	file, err := stage(filepath.Dir(name), bytes.NewReader(content), p)
	if err == nil {
		x.staged = append(x.staged, staged{file, name})
	}
	return err
}

// link makes a second name for a file.
func (x *Exchange) link(from, to string) error {
	err := os.Link(from, to)
	switch {
	case err == nil:
		x.linked = append(x.linked, to)
		return nil
	case errors.Is(err, fs.ErrExist):
		if !sameContent(from, to) {
			return &fs.PathError{Op: "rename " + from + " to", Path: to, Err: fs.ErrExist}
		}
		return nil // an interrupted call has done it
	case errors.Is(err, fs.ErrNotExist):
		return err
	}
	// a file system on which a file has one name only (FAT, some network file systems)
	content, info, err := ReadAtMost(from, MaxSize)
	if err != nil {
		return err
	}
	if err := place(to, bytes.NewReader(content), pending{mode: info.Mode().Perm(), like: info}, moveNew); err != nil {
		return err
	}
	x.linked = append(x.linked, to)
	return nil
}

// sameContent reports whether two names are of one file, or of files that do not differ.
func sameContent(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	if errA != nil || errB != nil {
		return false
	}
	if os.SameFile(infoA, infoB) {
		return true
	}
	contentA, errA := Read(a)
	contentB, errB := Read(b)
	return errA == nil && errB == nil && bytes.Equal(contentA, contentB)
}

// Commit exchanges all contents, in the order of the changes, and removes what has another name now or is
// to be removed. Should it fail half-way, which a full disk cannot cause, the same changes prepared again
// complete it, and the error says so.
func (x *Exchange) Commit() error {
	done := 0
	err := x.commit(&done)
	if err != nil && done > 0 {
		x.linked = nil // they belong to what has changed
		err = diag.WithHint(fmt.Errorf("only a part of the files has changed: %w", err), "run the same command again, which completes the change")
	}
	return err
}

func (x *Exchange) commit(done *int) error {
	for len(x.staged) > 0 {
		next := x.staged[0]
		if err := os.Rename(next.Name(), next.name); err != nil {
			return err
		}
		*done++
		_ = next.Close()
		x.staged = x.staged[1:]
		syncFolder(filepath.Dir(next.name)) // so that a power cut keeps the order
	}
	x.linked = nil
	for _, name := range x.gone {
		if err := removeIfThere(name); err != nil {
			return err
		}
		*done++
		syncFolder(filepath.Dir(name))
	}
	return nil
}

// Discard removes what Prepare has written aside, and the new names that it has made.
func (x *Exchange) Discard() (err error) {
	for _, s := range x.staged {
		err = errors.Join(err, removeIfThere(s.Name()), s.Close())
	}
	for _, name := range x.linked {
		err = errors.Join(err, removeIfThere(name))
	}
	x.staged, x.linked = nil, nil
	return err
}
