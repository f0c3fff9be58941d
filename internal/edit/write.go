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

	"github.com/google/renameio/v2"
)

// Write brings the change to the project's folder: each table in one step, with its mode, then the
// files that follow. If something fails, what was done is taken back. A table that another program
// has written meanwhile is not overwritten.
func (e *Edit) Write(dir string) (err error) {
	files := e.Files()
	var undo []func() error
	defer func() {
		if err == nil {
			return
		}
		for _, step := range slices.Backward(undo) {
			err = errors.Join(err, step())
		}
	}()
	for _, file := range slices.Sorted(maps.Keys(files)) {
		before := e.Original(file)
		target, mode, err := unchanged(filepath.Join(dir, file), before)
		if err != nil {
			return fmt.Errorf("write %s: %w", file, err)
		}
		write := func(data []byte) error {
			return renameio.WriteFile(target, data, mode, renameio.WithExistingPermissions())
		}
		if err := write(files[file]); err != nil {
			return fmt.Errorf("write %s: %w", file, err)
		}
		undo = append(undo, func() error { return write(before) })
	}
	for _, move := range e.Moves {
		from, to := filepath.Join(dir, move.From), filepath.Join(dir, move.To)
		if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("rename %s: %s exists already", move.From, move.To)
		}
		if err := os.Rename(from, to); err != nil {
			return fmt.Errorf("rename %s: %w", move.From, err)
		}
		undo = append(undo, func() error { return os.Rename(to, from) })
	}
	return nil
}

// unchanged gives the file behind links, if it still has the content that was read.
func unchanged(name string, content []byte) (target string, mode fs.FileMode, err error) {
	if target, err = filepath.EvalSymlinks(name); err != nil {
		return "", 0, err
	}
	info, err := os.Stat(target)
	if err != nil {
		return "", 0, err
	}
	data, err := os.ReadFile(target)
	if err != nil {
		return "", 0, err
	}
	if !bytes.Equal(data, content) {
		return "", 0, errors.New("another program has changed it meanwhile")
	}
	return target, info.Mode().Perm(), nil
}
