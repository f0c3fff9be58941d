package files

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// patience is how long Lock waits: all that holds a lock is short, unless it asks for a passphrase.
// Variables are for tests.
var patience, pause = 30 * time.Second, 20 * time.Millisecond

// BusyError is another k3splan that does not get ready with a folder.
type BusyError struct{ folder string }

func (e *BusyError) Error() string {
	return fmt.Sprintf("another k3splan is writing in %s, and does not end", e.folder)
}

// Hint says how to mend it.
func (e *BusyError) Hint() string { return "wait until it has ended, and run the same command again" }

// Lock keeps other k3splans from changing the files right in a folder until unlock is called. Another
// that does so is waited for, in the end in vain: then the error is a [BusyError]. No file is made, and
// no lock survives its process. It is not reentrant, and Update locks the folder of a file behind links,
// which may be any. On a file system without locks for folders (NFS) nothing is locked.
func Lock(folder string) (unlock func(), err error) {
	file, err := os.OpenFile(folder, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(patience); ; time.Sleep(pause) {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(end), errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			return nil, errors.Join(&BusyError{folder}, file.Close())
		}
		return func() { _ = file.Close() }, nil
	}
}

// Update changes a file in one step: change gets what is there, nil without a file, and gives what is
// to be there. Between the two no other k3splan changes it. A link stays, and so does the file's
// mode; a missing folder is made. It tells whether something was written: nothing is if nothing
// differs, or if change fails.
func Update(name string, change func(present []byte) ([]byte, error)) (changed bool, err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return false, err
	}
	unlock, err := Lock(filepath.Dir(behind(name)))
	if err != nil {
		return false, err
	}
	defer unlock()
	return Rewrite(name, change)
}

// Rewrite is Update for those who hold the lock.
func Rewrite(name string, change func(present []byte) ([]byte, error)) (changed bool, err error) {
	present, info, err := ReadAtMost(name, MaxSize)
	isNew := errors.Is(err, fs.ErrNotExist)
	if err != nil && !isNew {
		return false, err
	}
	content, err := change(present)
	if err != nil || bytes.Equal(content, present) {
		return false, err
	}
	name = behind(name)
	// a temporary file in the same folder, so that the exchange is a rename
	options := []renameio.Option{renameio.WithTempDir(filepath.Dir(name))}
	mode := fs.FileMode(0o644)
	if !isNew {
		mode = info.Mode().Perm()
		options = append(options, renameio.WithStaticPermissions(mode))
	}
	return true, renameio.WriteFile(name, content, mode, options...)
}

// behind is the file that a link leads to; a link that leads nowhere is a file's own name.
func behind(name string) string {
	if target, err := filepath.EvalSymlinks(name); err == nil {
		return target
	}
	return name
}
