package secrets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"
)

// retiredFolder keeps secrets that were replaced and that somebody may still need, below Dir.
const retiredFolder = "retired"

// Read gives the content of a secret by its name below [Dir], with forward slashes ("init-token").
// The error is fs.ErrNotExist if there is no such secret; it shows nothing of one.
func Read(project, name string) ([]byte, error) {
	f := folder{filepath.Join(project, Dir)}
	if _, err := os.Lstat(f.path(name)); err != nil {
		return nil, fmt.Errorf("%s: %w", inSecrets(name), unreadable(err))
	}
	content, _, err := f.read(name, maxSecret)
	if err != nil {
		return nil, fmt.Errorf("%s %w", inSecrets(name), err)
	}
	return content, nil
}

// Add makes a new secret, as [Create] does: it never overwrites.
func Add(project, name string, content []byte) error {
	return Create(secretPath(project, name), content)
}

// Put makes a secret or replaces it in one step, as [Replace] does.
func Put(project, name string, content []byte) error {
	return Replace(secretPath(project, name), content)
}

// Remove deletes a secret; it is no error if there is none.
func Remove(project, name string) error {
	if err := os.Remove(secretPath(project, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a secret: %w", err)
	}
	return nil
}

// Retire keeps a copy of a secret before it is replaced or removed, and gives the name of the copy.
// Snapshots of a cluster need the token that was good when they were taken.
func Retire(project, name string, now time.Time) (kept string, err error) {
	content, err := Read(project, name)
	if err != nil {
		return "", err
	}
	kept = path.Join(retiredFolder, path.Base(name)+"-"+now.UTC().Format("20060102T150405.000Z"))
	return kept, Add(project, kept, content)
}

func secretPath(project, name string) string {
	return filepath.Join(project, Dir, filepath.FromSlash(name))
}
