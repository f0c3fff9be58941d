package audit

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is listed may be gone when its turn comes, or be closed to this user.
func TestWalk(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b/c", "d/e", "f"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	a := &audit{Input: Input{Dir: dir}}
	var seen []string
	look := func(file string, entry fs.DirEntry) error {
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "b")))
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "d", "e")))
		if entry.IsDir() {
			return nil
		}
		_, err := os.ReadFile(file)
		if err == nil {
			seen = append(seen, filepath.Base(file))
		}
		return err
	}
	require.NoError(t, a.walk(dir, look))
	require.Equal(t, []string{"a", "f"}, seen)
	require.NoError(t, a.walk(filepath.Join(dir, "none"), look))
	require.Empty(t, a.Findings)
	require.NoError(t, a.walk(dir, func(file string, entry fs.DirEntry) error {
		if entry.Name() == "a" {
			return &fs.PathError{Op: "open", Path: "a", Err: fs.ErrPermission}
		}
		return nil
	}))
	require.Len(t, a.Findings, 1)
	require.Equal(t, "a: cannot be read: permission denied", a.Findings[0].String())
	require.Contains(t, a.Findings[0].Hint, "sudo chown -R ")
	other := errors.New("another error")
	require.ErrorIs(t, a.walk(dir, func(string, fs.DirEntry) error { return other }), other)
}
