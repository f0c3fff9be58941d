package hive

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aymanbagabas/go-udiff"
	"golang.org/x/sys/unix"

	"k3splan/internal/diag"
	"k3splan/internal/files"
)

// Dir is the folder of the rendered hive, relative to the project.
const Dir = files.GeneratedDir

// Tree is a rendered hive in memory: contents by slash path relative to Dir.
type Tree map[string][]byte

// Paths are the files of the tree, sorted.
func (t Tree) Paths() []string { return slices.Sorted(maps.Keys(t)) }

// interference is the error about another program that works on the rendered tree at the same time.
func interference(message string) error {
	return diag.WithHint(errors.New(message), "let it end (another k3splan's deploy, git clean or the like), then run the same command again")
}

// readTree reads what was rendered before; without the folder the tree is empty. What cannot be read, by its
// mode, its size or a name that is not UTF-8, is without content. A file that vanishes in between is an error
// that wraps fs.ErrNotExist.
func readTree(dir string) (Tree, error) {
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Tree{}, nil
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, fmt.Errorf("%s is not a folder; k3splan renders into it and would replace it", dir)
	}
	tree := Tree{}
	fsys := files.In(dir)
	err = fs.WalkDir(fsys, ".", func(file string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) || err != nil && file == ".":
			return err
		case !utf8.ValidString(file) && entry.IsDir(): // io/fs does not open such names
			tree[file+"/"] = nil
			return fs.SkipDir
		case err != nil:
			tree[file+"/"] = nil // cannot be read: never rendered, so it is a difference
			return nil
		case entry.IsDir():
			if inside, err := fs.ReadDir(fsys, file); errors.Is(err, fs.ErrNotExist) {
				return err
			} else if err == nil && len(inside) == 0 && file != "." {
				tree[file+"/"] = nil // an empty folder: never rendered, so it is a difference
			}
			return nil
		case !entry.Type().IsRegular() || !utf8.ValidString(file):
			tree[file] = nil // a link or the like: never rendered, so it is a difference
			return nil
		}
		content, err := fs.ReadFile(fsys, file)
		if errors.Is(err, fs.ErrNotExist) {
			return err
		}
		tree[file] = content // nil if it cannot be read
		return nil
	})
	return tree, err
}

// WriteNew puts the tree into a folder that is not there yet.
func (t Tree) WriteNew(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return t.writeTo(dir)
}

func (t Tree) equal(other Tree) bool {
	return maps.EqualFunc(t, other, func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) })
}

// Write puts the tree into the project's folder, as a whole or not at all. Files of an earlier
// tree vanish; if nothing differs, nothing is touched. It reports whether something was written.
func (t Tree) Write(project string) (changed bool, err error) {
	dir := filepath.Join(project, Dir)
	present, err := readTree(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist): // another program removes it; it is replaced as a whole anyway
	case err != nil:
		return false, err
	case len(present) > 0 && t.equal(present):
		return false, nil
	}
	removeLeftovers(project)
	// beside the old one, so that it can be exchanged in one step
	fresh, err := os.MkdirTemp(project, "."+Dir+"-*")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, removeAll(fresh)) }()
	if err := t.writeTo(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err := files.Inherit(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err := t.place(fresh, dir); err != nil {
		return false, err
	}
	return true, t.confirm(dir)
}

// place exchanges a folder that was written for the one with the earlier tree, if it holds the tree as a
// whole: folders are made where they are missing, so one of which a part was removed in between would
// seem to be in order.
func (t Tree) place(fresh, dir string) error {
	if !t.isAt(fresh) {
		return interference("another program has removed or changed what was to become " + Dir + "/; nothing was rendered")
	}
	return exchange(fresh, dir)
}

// confirm fails if the tree is no longer where it was put.
func (t Tree) confirm(dir string) error {
	if !t.isAt(dir) {
		return interference("another program has removed or changed " + Dir + "/ while it was rendered; it is not to be used")
	}
	return nil
}

// isAt reports whether a folder holds the tree and nothing else.
func (t Tree) isAt(dir string) bool {
	present, err := readTree(dir)
	return err == nil && maps.EqualFunc(t, present, bytes.Equal)
}

// Remove removes the tree from the project's folder, for other programs in one step: they see all of it
// or nothing. Without a tree there is nothing to do.
func Remove(project string) (err error) {
	aside, err := os.MkdirTemp(project, "."+Dir+"-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeAll(aside)) }()
	err = os.Rename(filepath.Join(project, Dir), filepath.Join(aside, Dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// removeLeftovers removes what a killed k3splan left beside the tree, if it is an hour old: anything
// younger may belong to one that runs.
func removeLeftovers(project string) {
	found, _ := filepath.Glob(filepath.Join(globEscape(project), "."+Dir+"-*"))
	for _, dir := range found {
		if info, err := os.Lstat(dir); err == nil && info.IsDir() && time.Since(info.ModTime()) > time.Hour {
			_ = removeAll(dir) // tried again next time
		}
	}
}

// removeAll removes a folder, write-protected folders in it too.
func removeAll(dir string) error {
	_ = filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			_ = os.Chmod(name, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

func (t Tree) writeTo(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, file := range t.Paths() {
		name := filepath.Join(dir, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, t[file], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// exchange lets fresh take the place of dir; what was there before is at fresh afterwards.
func exchange(fresh, dir string) error {
	err := unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE)
	for range 10 { // others may remove and make it at the same time
		if !errors.Is(err, unix.ENOENT) {
			break
		}
		if err = os.Rename(fresh, dir); errors.Is(err, fs.ErrExist) {
			err = unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE)
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return interference("another program has removed or changed what was to become " + Dir + "/; nothing was rendered")
	case !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS):
		return &os.LinkError{Op: "exchange", Old: fresh, New: dir, Err: err}
	}
	// a file system without the exchange (NFS): for a moment there is no tree
	old := fresh + ".old"
	if err := os.Rename(dir, old); err != nil {
		return err
	}
	if err := os.Rename(fresh, dir); err != nil {
		return errors.Join(err, os.Rename(old, dir))
	}
	return removeAll(old)
}

// Diff shows what Write would change, as a unified diff; it is empty if nothing differs.
func (t Tree) Diff(project string) (string, error) {
	present, err := readTree(filepath.Join(project, Dir))
	if errors.Is(err, fs.ErrNotExist) {
		return "", interference("another program is removing " + Dir + "/")
	} else if err != nil {
		return "", err
	}
	files := slices.Sorted(maps.Keys(present))
	files = append(files, t.Paths()...)
	slices.Sort(files)
	var diff strings.Builder
	for _, file := range slices.Compact(files) {
		before, wasThere := present[file]
		after, isThere := t[file]
		if wasThere == isThere && bytes.Equal(before, after) {
			continue
		}
		oldName, newName := Dir+"/"+file, Dir+"/"+file
		if !wasThere {
			oldName = "/dev/null"
		}
		if !isThere {
			newName = "/dev/null"
		}
		if len(before)+len(after) == 0 {
			fmt.Fprintf(&diff, "--- %s\n+++ %s\n", oldName, newName) // empty, so without lines
		}
		diff.WriteString(udiff.Unified(oldName, newName, string(before), string(after)))
	}
	return diff.String(), nil
}
