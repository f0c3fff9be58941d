package files

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"k3splan/internal/diag"
)

const (
	// Public is the mode of files that everyone may read, unless the umask forbids it.
	Public fs.FileMode = 0o644
	// Private is the mode of secrets.
	Private fs.FileMode = 0o600
)

// Create writes a new file, and the folders that are missing above it. The file is there with its whole
// content or not at all, whenever the process is killed. It never overwrites: if the name is taken, even
// by a link, the error is fs.ErrExist and nothing has changed. A Private file lies in Private folders.
func Create(name string, content []byte, mode fs.FileMode) error {
	return CreateFrom(name, bytes.NewReader(content), mode)
}

// CreateFrom is Create for a content that is read, of any size.
func CreateFrom(name string, content io.Reader, mode fs.FileMode) error {
	if err := MakeFolder(filepath.Dir(name), folderMode(mode)); err != nil {
		return err
	}
	if _, err := os.Lstat(name); err == nil {
		return &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	return place(name, content, pending{mode: mode}, moveNew)
}

// Replace puts content into a file in one step, whether it exists or not: a reader, or a crash, sees the
// old content or the new. A symbolic link stays; the file it leads to is replaced. An existing file
// keeps its mode, but one that is to be Private becomes so. Missing folders are made as by [Create].
func Replace(name string, content []byte, mode fs.FileMode) error {
	if err := MakeFolder(filepath.Dir(name), folderMode(mode)); err != nil {
		return err
	}
	if info, err := os.Lstat(name); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		if name, err = filepath.EvalSymlinks(name); err != nil {
			return err
		}
	}
	return replace(name, content, mode)
}

// replace is Replace for a name behind links.
func replace(name string, content []byte, mode fs.FileMode) error {
	p := pending{mode: mode}
	switch info, err := os.Lstat(name); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return &fs.PathError{Op: "replace", Path: name, Err: notAFile(name, info.Mode())}
	default:
		p.like = info
	}
	return place(name, bytes.NewReader(content), p, os.Rename)
}

// Update changes a file of a project in one step, while it holds the project's lock: change gets the
// present content, nil without a file, and returns the new one. A link stays, and so do the mode and
// the owner of the file; a missing folder is made. It reports whether something was written: nothing
// is if nothing differs or change fails. file is relative to the project, with forward slashes.
func Update(project, file string, change func(present []byte) ([]byte, error)) (changed bool, err error) {
	unlock, err := Lock(project)
	if err != nil {
		return false, err
	}
	defer unlock()
	return Rewrite(filepath.Join(project, filepath.FromSlash(file)), change)
}

// Rewrite is Update for those who hold the project's lock.
func Rewrite(name string, change func(present []byte) ([]byte, error)) (changed bool, err error) {
	present, err := Read(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	content, err := change(present)
	if err != nil || bytes.Equal(content, present) {
		return false, err
	}
	if err := MakeFolder(filepath.Dir(name), folderMode(Public)); err != nil {
		return false, err
	}
	if target, err := filepath.EvalSymlinks(name); err == nil { // a link that leads nowhere is replaced
		name = target
	} else if info, err := os.Lstat(name); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return true, place(name, bytes.NewReader(content), pending{mode: Public}, os.Rename)
	}
	return true, replace(name, content, Public)
}

// Remove removes a file, not a folder.
func Remove(name string) error {
	if err := unix.Unlink(name); err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	syncFolder(filepath.Dir(name))
	return nil
}

// Rename changes the name of a file. It never overwrites: the error then wraps fs.ErrExist.
func Rename(from, to string) error {
	if err := moveNew(from, to); err != nil {
		return err
	}
	syncFolder(filepath.Dir(to))
	return nil
}

// MakeFolder makes a folder and those that are missing above it.
func MakeFolder(folder string, mode fs.FileMode) error {
	if info, err := os.Stat(folder); err == nil && info.IsDir() {
		return nil
	}
	if parent := filepath.Dir(folder); parent != folder {
		if err := MakeFolder(parent, mode); err != nil {
			return err
		}
	}
	switch err := os.Mkdir(folder, mode); {
	case errors.Is(err, fs.ErrExist):
		if info, statErr := os.Stat(folder); statErr == nil && info.IsDir() {
			return nil // another process made it
		}
		if target, err := os.Readlink(folder); err == nil {
			return &fs.PathError{Op: "make", Path: folder, Err: diag.WithHint(&Error{fmt.Sprintf("is a link to %q, which does not exist", target)}, "remove it, or put the folder itself in its place")}
		}
		return &fs.PathError{Op: "make", Path: folder, Err: unix.ENOTDIR}
	case err != nil:
		return err
	}
	return Inherit(folder)
}

// Append opens a file for writing at its end, and makes it for its owner alone if it is missing. A link
// is not followed.
func Append(name string) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, Private)
	if err != nil {
		return nil, err
	}
	if err := inheritFrom(file, filepath.Dir(name)); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func folderMode(file fs.FileMode) fs.FileMode {
	if file == Private {
		return 0o700
	}
	return 0o755
}

// pending says how a file is to be when it is written.
type pending struct {
	mode fs.FileMode
	// like is the file that it replaces, or nil.
	like fs.FileInfo
}

// place writes a file beside its place, so that it passes through no other file system, and then lets
// move bring it there.
func place(name string, content io.Reader, p pending, move func(from, to string) error) (err error) {
	file, err := stage(filepath.Dir(name), content, p)
	if err != nil {
		return err
	}
	defer file.Close() // and with it, its lock; an error would have come with Sync
	if err := move(file.Name(), name); err != nil {
		return errors.Join(err, removeIfThere(file.Name()))
	}
	syncFolder(filepath.Dir(name))
	return nil
}

// stage writes an unfinished file, which is locked until it is closed. After an error it is removed.
func stage(folder string, content io.Reader, p pending) (file *os.File, err error) {
	file, err = newUnfinished(folder, p.mode)
	if err != nil {
		return nil, err
	}
	err = p.adjust(file)
	if err == nil {
		_, err = io.Copy(file, content)
	}
	if err == nil {
		err = file.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, removeIfThere(file.Name()), file.Close())
	}
	return file, nil
}

// adjust sets the owner and mode of a file, before there is anything in it.
func (p pending) adjust(file *os.File) error {
	switch {
	case p.like != nil:
		if err := inherit(file, p.like); err != nil {
			return err
		}
	default:
		if err := inheritFrom(file, filepath.Dir(file.Name())); err != nil {
			return err
		}
	}
	switch {
	case p.mode == Private:
		return file.Chmod(Private)
	case p.like != nil:
		return file.Chmod(p.like.Mode().Perm())
	}
	return nil
}

// newUnfinished opens a file that is locked as long as it is being written, so that nobody sweeps it.
func newUnfinished(folder string, mode fs.FileMode) (*os.File, error) {
	for {
		name := filepath.Join(folder, unfinishedPrefix+rand.Text()[:13])
		file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, mode)
		if errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		// without locks (some network file systems) it is not swept either
		_ = unix.Flock(int(file.Fd()), unix.LOCK_EX)
		if _, err := os.Lstat(name); err == nil {
			return file, nil
		}
		_ = file.Close() // swept before it was locked
	}
}

func removeIfThere(name string) error {
	if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// moveNew returns a file a name that must not be taken.
func moveNew(from, to string) error {
	err := renameNoReplace(from, to)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, unix.EINVAL) {
		// a file system that cannot rename so; most of these have hard links
		if err = unix.Link(from, to); err == nil {
			return os.Remove(from)
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrNotExist):
		return &fs.PathError{Op: "create", Path: to, Err: err}
	case !errors.Is(err, unix.EPERM) && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, unix.EMLINK):
		return &os.LinkError{Op: "move", Old: from, New: to, Err: err}
	}
	// neither: the project's lock keeps other k3splan processes out
	if _, err := os.Lstat(to); err == nil {
		return &fs.PathError{Op: "create", Path: to, Err: fs.ErrExist}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(from, to)
}

// syncFolder makes a new name survive a power cut, on the file systems that can promise it.
func syncFolder(path string) {
	if folder, err := os.Open(path); err == nil {
		_ = folder.Sync()
		_ = folder.Close()
	}
}
