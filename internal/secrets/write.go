package secrets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

const (
	fileMode   = 0o600
	folderMode = 0o700
)

// Create writes a new file that only its owner can read, and the folders that are missing above
// it, which only their owner can enter. It never overwrites: where something stands already, a
// link even, the error is fs.ErrExist and nothing has changed.
func Create(path string, content []byte) error {
	if err := create(path, content); err != nil {
		return fmt.Errorf("create a secret: %w", err)
	}
	return nil
}

func create(path string, content []byte) error {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, folderMode); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(path)) // half a secret would pass for a wrong one
	}
	syncFolder(folder)
	return nil
}

// Replace puts content into a file in one step, whether it exists or not: a reader, or a crash,
// sees the old secret or the new one. Only the file's owner can read it afterwards. Missing
// folders are made as [Create] makes them. A symbolic link stays; the file it leads to is replaced.
func Replace(path string, content []byte) error {
	if err := replace(path, content); err != nil {
		return fmt.Errorf("replace a secret: %w", err)
	}
	return nil
}

func replace(path string, content []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), folderMode); err != nil {
		return err
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", path)
	}
	pending, err := newPending(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pending.Cleanup()) }()
	if _, err := pending.Write(content); err != nil {
		return err
	}
	if err := pending.CloseAtomicallyReplace(); err != nil { // syncs the file
		return err
	}
	syncFolder(filepath.Dir(path))
	return nil
}

// newPending opens a temporary file in the same folder: the secret passes through no other file
// system, and the exchange is a rename. What remains of it after a crash is known as a leftover.
func newPending(path string) (*renameio.PendingFile, error) {
	return renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(fileMode))
}

// syncFolder makes a new name survive a power cut, on the file systems that can promise it.
func syncFolder(path string) {
	if folder, err := os.Open(path); err == nil {
		_ = folder.Sync()
		_ = folder.Close()
	}
}
