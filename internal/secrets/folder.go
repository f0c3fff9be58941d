package secrets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/run"
)

const (
	maxSecret  = 4 << 10 // bytes of a token or a password file: both are one line
	maxKeyFile = 1 << 20 // bytes of a key file: some thousand keys
)

// folder is the back end where each secret is a plain file.
type folder struct{ dir string }

func folderOf(project string) folder { return folder{filepath.Join(project, Dir)} }

func (f folder) path(name string) string { return filepath.Join(f.dir, filepath.FromSlash(name)) }

// walk returns the files below the folder that are wanted, by slash path, sorted. Links count as files.
func (f folder) walk(wanted func(name string) bool) (names []string, err error) {
	if _, err := os.Stat(f.dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	err = fs.WalkDir(files.In(f.dir), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return unreadable(err)
		case name != "." && entry.IsDir() && isHidden(entry.Name()):
			return fs.SkipDir
		case !entry.IsDir() && wanted(name):
			names = append(names, name)
		}
		return nil
	})
	slices.Sort(names)
	return names, err
}

func (f folder) list() ([]string, error) {
	return f.walk(func(file string) bool { return ClassOf(file) == Secret })
}

func (f folder) create(name string, content []byte) error {
	return files.Create(f.path(name), content, files.Private)
}

func (f folder) replace(name string, content []byte) error {
	return files.Replace(f.path(name), content, files.Private)
}

func (f folder) remove(name string) error {
	if info, err := os.Lstat(f.path(name)); err == nil && info.IsDir() {
		return errors.New("is a folder, not a file")
	}
	return files.Remove(f.path(name))
}

// elsewhere returns where the content remains after the file is removed: behind a link, or under another name.
func (f folder) elsewhere(name string) Elsewhere {
	info, err := os.Lstat(f.path(name))
	if err != nil {
		return Elsewhere{}
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := filepath.EvalSymlinks(f.path(name))
		if err != nil {
			return Elsewhere{}
		}
		if absolute, err := filepath.Abs(target); err == nil {
			target = absolute
		}
		return Elsewhere{File: target}
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Nlink > 1 {
		return Elsewhere{Inode: stat.Ino}
	}
	return Elsewhere{}
}

func (f folder) rename(from, to string) error {
	if err := files.MakeFolder(filepath.Dir(f.path(to)), 0o700); err != nil {
		return err
	}
	return files.Rename(f.path(from), f.path(to))
}

// names lists the files, sorted; none if there is no folder yet. shared is the folder's mode if it
// lets others in, else 0.
func (f folder) names() (names []string, shared fs.FileMode, err error) {
	info, err := os.Stat(f.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(f.dir); err == nil {
			return nil, 0, errors.New("is a dangling symbolic link")
		}
		return nil, 0, nil
	case err != nil:
		return nil, 0, unreadable(err)
	case !info.IsDir():
		return nil, 0, errors.New("is not a folder")
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, 0, unreadable(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	slices.Sort(names)
	return names, othersIn(info), nil
}

// read returns a file's content and, if its mode lets others in, that mode. The errors are fit to
// be a problem's message: they name no absolute path.
func (f folder) read(name string, limit int64) (content []byte, shared fs.FileMode, err error) {
	path := f.path(name)
	content, info, err := files.ReadAtMost(path, limit)
	if info != nil && info.Mode().IsRegular() {
		shared = othersIn(info)
	}
	switch {
	case err == nil:
		return content, shared, nil
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(path); err != nil {
			return nil, 0, fmt.Errorf("is missing: %w", fs.ErrNotExist)
		}
		return nil, 0, errors.New("is a dangling symbolic link")
	}
	return nil, shared, unreadable(err)
}

// unreadable keeps the reason and drops the path, which the problem's File says already.
func unreadable(err error) error {
	reason := diag.Reason(err)
	if other := (*files.Error)(nil); errors.As(err, &other) {
		return reason
	}
	return fmt.Errorf("cannot be read: %w", reason)
}

func othersIn(info fs.FileInfo) fs.FileMode {
	if info.Mode().Perm()&0o077 == 0 {
		return 0
	}
	return info.Mode().Perm()
}

func sharedFile(mode fs.FileMode, path string) finding {
	return finding{diag.Warning, codeReadable,
		fmt.Sprintf("has mode %04o: other users can access it", mode), "chmod 0600 " + run.Word(path)}
}

func sharedFolder(mode fs.FileMode) finding {
	return finding{diag.Warning, codeReadable,
		fmt.Sprintf("has mode %04o: other users can look into it", mode), "chmod 0700 " + Dir}
}
