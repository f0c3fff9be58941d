// Package files is the one way to the files that people keep in a project: to read them, whatever
// somebody has put in their place, and to change them while another k3splan does the same.
package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// MaxSize is how many bytes a file may have that Read or In gives. 10,000 hosts have a few megabytes.
const MaxSize = 64 << 20

// Error is something in the place of a file that k3splan does not read: a pipe, a device, a folder, or
// too much. The wrapping fs.PathError tells where.
type Error struct{ reason, hint string }

// Error is fit to follow the name of the file: "is a named pipe, not a file".
func (e *Error) Error() string { return e.reason }

// Hint says how to mend it.
func (e *Error) Hint() string { return e.hint }

// Reason gives what is wrong with a file without its path, for messages that name it already, and how
// to mend it if that is known.
func Reason(err error) (reason error, hint string) {
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		hint = hinted.Hint()
	}
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		err = pathError.Err
	}
	return err, hint
}

// Read gives the content of a file of at most MaxSize bytes. Instead of waiting for a pipe, or for the
// end of a device, it fails at once, with an [Error].
func Read(name string) ([]byte, error) {
	content, _, err := ReadAtMost(name, MaxSize)
	return content, err
}

// ReadAtMost is Read with another limit, in bytes. info is that of the file, behind links; where the
// file cannot be read it may be nil.
func ReadAtMost(name string, limit int64) (content []byte, info fs.FileInfo, err error) {
	file, info, err := open(name, name, regular)
	if err != nil {
		return nil, info, err
	}
	defer file.Close()
	content, err = readAll(file, info, name, limit)
	return content, info, err
}

// Open opens a file of any size for reading, and nothing else.
func Open(name string) (*os.File, error) {
	file, _, err := open(name, name, regular)
	if err != nil {
		return nil, err
	}
	return file, nil
}

func readAll(file *os.File, info fs.FileInfo, shown string, limit int64) ([]byte, error) {
	tooLarge := &fs.PathError{Op: "read", Path: shown, Err: &Error{"is larger than " + size(limit), "is it the right file? k3splan reads no larger one here"}}
	if info.Size() > limit {
		return nil, tooLarge
	}
	var content bytes.Buffer
	content.Grow(int(info.Size()) + bytes.MinRead)
	// what the file system says of the size is not to be relied on
	_, err := content.ReadFrom(io.LimitReader(file, limit+1))
	switch {
	case err != nil:
		reason, _ := Reason(err)
		return nil, &fs.PathError{Op: "read", Path: shown, Err: reason}
	case int64(content.Len()) > limit:
		return nil, tooLarge
	}
	return content.Bytes(), nil
}

func size(bytes int64) string {
	if bytes >= 1<<20 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d KiB", bytes>>10)
}

// regular and orFolder tell what may be opened.
func regular(mode fs.FileMode) bool  { return mode.IsRegular() }
func orFolder(mode fs.FileMode) bool { return mode.IsRegular() || mode.IsDir() }

// open opens what has a wanted mode. Errors name the file as shown.
func open(name, shown string, wanted func(fs.FileMode) bool) (*os.File, fs.FileInfo, error) {
	fail := func(err error) error {
		reason, _ := Reason(err)
		return &fs.PathError{Op: "open", Path: shown, Err: reason}
	}
	// before it is opened, for a device may do something then
	info, err := os.Stat(name)
	if err != nil {
		return nil, nil, fail(err)
	}
	if !wanted(info.Mode()) {
		return nil, info, fail(notAFile(name, info.Mode()))
	}
	// without O_NONBLOCK a pipe put there meanwhile would be waited for
	file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, info, fail(err)
	}
	opened, err := file.Stat()
	if err == nil && !wanted(opened.Mode()) {
		err = notAFile(name, opened.Mode())
	}
	if err != nil {
		return nil, info, errors.Join(fail(err), file.Close())
	}
	return file, opened, nil
}

func notAFile(name string, mode fs.FileMode) *Error {
	what := "a device"
	switch {
	case mode.IsDir():
		what = "a folder"
	case mode&fs.ModeNamedPipe != 0:
		what = "a named pipe"
	case mode&fs.ModeSocket != 0:
		what = "a socket"
	}
	if target, err := os.Readlink(name); err == nil {
		return &Error{fmt.Sprintf("is a link to %s, not to a file", what),
			fmt.Sprintf("it leads to %q: let it lead to a file, or remove it", target)}
	}
	return &Error{fmt.Sprintf("is %s, not a file", what), "put a file in its place, or remove it"}
}

// In gives the files below a folder as os.DirFS does, but opens only what [Read] reads, and folders.
func In(dir string) fs.FS { return tree{dir, os.DirFS(dir)} }

type tree struct {
	dir string
	fs.FS
}

// place is where a file of the tree is.
func (t tree) place(op, name string) (string, error) {
	local, err := filepath.Localize(name)
	if err != nil || t.dir == "" {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return filepath.Join(t.dir, local), nil
}

// Open opens a file or a folder.
func (t tree) Open(name string) (fs.File, error) {
	place, err := t.place("open", name)
	if err != nil {
		return nil, err
	}
	file, _, err := open(place, name, orFolder)
	if err != nil {
		return nil, err
	}
	return file, nil
}

// ReadFile gives a file of at most MaxSize bytes.
func (t tree) ReadFile(name string) ([]byte, error) {
	place, err := t.place("open", name)
	if err != nil {
		return nil, err
	}
	file, info, err := open(place, name, regular)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readAll(file, info, name, MaxSize)
}

func (t tree) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(t.FS, name) }
func (t tree) Stat(name string) (fs.FileInfo, error)      { return fs.Stat(t.FS, name) }
func (t tree) Lstat(name string) (fs.FileInfo, error)     { return fs.Lstat(t.FS, name) }
func (t tree) ReadLink(name string) (string, error)       { return fs.ReadLink(t.FS, name) }
