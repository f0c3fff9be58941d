// Package files is the only way to the files of a project: their names, reading them whatever somebody
// has put in their place, and changing them so that no crash, no other process and no other user can
// make a difference.
//
// A file is there with its whole content or not at all ([Create], [Replace]). Whoever reads, changes and
// writes holds the project's one lock ([Lock], [Update]). What k3splan alone writes lies in folders that
// nobody else can have put there ([OwnFolder]). What root makes in somebody's project belongs to that
// user.
package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf8"

	"k3splan/internal/diag"
)

// MaxSize is the size in bytes of the largest file that Read and In return. 10,000 hosts have a few megabytes.
const MaxSize = 64 << 20

// Error is something in the place of a file that k3splan does not read or write: a pipe, a device, a
// folder, too much, or what is not one's own. The wrapping error says where, and how to mend it.
type Error struct{ reason string }

// Error is fit to follow the name of the file: "is a named pipe, not a file".
func (e *Error) Error() string { return e.reason }

// Read returns the content of a file of at most MaxSize bytes. Instead of waiting for a pipe, or for the
// end of a device, it fails at once, with an [Error].
func Read(name string) ([]byte, error) {
	content, _, err := ReadAtMost(name, MaxSize)
	return content, err
}

// ReadAtMost is Read with another limit, in bytes. info describes the file behind links; it may be nil
// if the file cannot be read.
func ReadAtMost(name string, limit int64) (content []byte, info fs.FileInfo, err error) {
	file, info, err := open(name, name, regular)
	if err != nil {
		return nil, info, err
	}
	defer file.Close()
	content, err = readAll(file, info, name, limit)
	return content, info, err
}

// Open opens a file of any size for reading, and nothing but a file.
func Open(name string) (*os.File, error) {
	file, _, err := open(name, name, regular)
	if err != nil {
		return nil, err
	}
	return file, nil
}

func readAll(file *os.File, info fs.FileInfo, shown string, limit int64) ([]byte, error) {
	tooLarge := &fs.PathError{Op: "read", Path: shown, Err: diag.WithHint(&Error{"is larger than " + size(limit)}, "check that it is the right file: k3splan reads no larger one here")}
	if info.Size() > limit {
		return nil, tooLarge
	}
	var content bytes.Buffer
	content.Grow(int(info.Size()) + bytes.MinRead)
	// the size that the file system reports cannot be relied on
	_, err := content.ReadFrom(io.LimitReader(file, limit+1))
	switch {
	case err != nil:
		return nil, &fs.PathError{Op: "read", Path: shown, Err: diag.Reason(err)}
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

// regular and orFolder report whether something may be opened.
func regular(mode fs.FileMode) bool  { return mode.IsRegular() }
func orFolder(mode fs.FileMode) bool { return mode.IsRegular() || mode.IsDir() }

// open opens a file whose mode is wanted. Errors name it as shown.
func open(name, shown string, wanted func(fs.FileMode) bool) (*os.File, fs.FileInfo, error) {
	fail := func(err error) error {
		return &fs.PathError{Op: "open", Path: shown, Err: diag.Reason(err)}
	}
	// looked at before it is opened: opening a device may have an effect
	info, err := os.Stat(name)
	if err != nil {
		return nil, nil, fail(err)
	}
	if !wanted(info.Mode()) {
		return nil, info, fail(notAFile(name, info.Mode()))
	}
	// without O_NONBLOCK, opening a pipe that was put there in between would wait
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

func notAFile(name string, mode fs.FileMode) error {
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
		return diag.WithHint(&Error{fmt.Sprintf("is a link to %s, not to a file", what)},
			fmt.Sprintf("it leads to %q: let it lead to a file, or remove it", target))
	}
	return diag.WithHint(&Error{fmt.Sprintf("is %s, not a file", what)}, "put a file in its place, or remove it")
}

// In returns the files below a folder as os.DirFS does, but opens only what [Read] reads, and folders.
func In(dir string) fs.FS { return tree{dir, os.DirFS(dir)} }

type tree struct {
	dir string
	fs.FS
}

// place returns the path of a file of the tree.
func (t tree) place(op, name string) (string, error) {
	if !utf8.ValidString(name) { // io/fs has no such names
		return "", &fs.PathError{Op: op, Path: name, Err: diag.WithHint(&Error{"its name is not UTF-8"}, "rename it")}
	}
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

// ReadFile returns the content of a file of at most MaxSize bytes.
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
	return readAll(file, info, name, maxSizeOf(name))
}

// maxSizeOf returns how many bytes a file of a project may have: what a rack of 10,000 hosts needs, several
// times over. Beyond it, what is read would need far more memory than the file has bytes.
func maxSizeOf(name string) int64 {
	const mega = 1 << 20
	folder, _, _ := strings.Cut(name, "/")
	switch {
	case name == WorkbookFile:
		return 32 * mega // it may have pictures
	case name == HostsFile, name == K3sFile, name == ChecksFile:
		return 16 * mega
	case name == KnownHostsFile:
		return 8 * mega
	case folder == ManifestsDir:
		return 5 * mega // bundles of CustomResourceDefinitions are the largest
	case folder == SnippetsDir, folder == PartitioningDir, folder == HardwareDir:
		return 2 * mega // nix-instantiate needs 200 times as much memory for deeply nested text
	case name == LockFile:
		return mega >> 4
	case folder == PlansDir, folder == K3sDir:
		return mega >> 2
	case folder == SecretsDir:
		return mega
	}
	return MaxSize
}

func (t tree) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(t.FS, name) }
func (t tree) Stat(name string) (fs.FileInfo, error)      { return fs.Stat(t.FS, name) }
func (t tree) Lstat(name string) (fs.FileInfo, error)     { return fs.Lstat(t.FS, name) }
func (t tree) ReadLink(name string) (string, error)       { return fs.ReadLink(t.FS, name) }
