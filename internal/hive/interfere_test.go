package hive

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

var small = Tree{
	"hive.nix": []byte("hive"), "cluster.json": []byte("{}"), "hosts/olaf.nix": []byte("olaf"), "hosts/ulf.nix": []byte("ulf"),
	"modules/a.nix": []byte("a"), "modules/b.nix": []byte("b"), "empty": nil,
}

func requireInterference(t *testing.T, err error, says string) {
	t.Helper()
	var wrong *InterferenceError
	require.ErrorAs(t, err, &wrong)
	require.ErrorContains(t, err, says)
	require.NotEmpty(t, wrong.Hint())
}

// Somebody removes what is being written (git clean): the rest became the tree.
func TestWriteNeverPutsAHalfTreeInPlace(t *testing.T) {
	defer func(before func(string)) { written = before }(written)
	for what, remove := range map[string]func(fresh string) error{
		"a part":   func(fresh string) error { return os.RemoveAll(filepath.Join(fresh, "hosts")) },
		"a file":   func(fresh string) error { return os.Remove(filepath.Join(fresh, "cluster.json")) },
		"all":      os.RemoveAll,
		"one more": func(fresh string) error { return os.WriteFile(filepath.Join(fresh, "x"), nil, 0o600) },
	} {
		t.Run(what, func(t *testing.T) {
			project := t.TempDir()
			written = func(fresh string) { require.NoError(t, remove(fresh)) }
			_, err := small.Write(project)
			requireInterference(t, err, "what was to become generated/")
			require.Empty(t, entries(t, project))

			old := Tree{"hive.nix": []byte("old")}
			written = func(string) {}
			_, err = old.Write(project)
			require.NoError(t, err)
			written = func(fresh string) { require.NoError(t, remove(fresh)) }
			_, err = small.Write(project)
			requireInterference(t, err, "nothing was rendered")
			require.True(t, old.isAt(filepath.Join(project, Dir)))
			require.Equal(t, []string{Dir}, entries(t, project))
		})
	}
}

// Nobody is told that the tree is there if it is not.
func TestWriteTellsThatTheTreeWasRemoved(t *testing.T) {
	defer func(before func(string)) { exchanged = before }(exchanged)
	for what, remove := range map[string]func(dir string) error{
		"a part": func(dir string) error { return os.RemoveAll(filepath.Join(dir, "modules")) },
		"all":    os.RemoveAll,
	} {
		t.Run(what, func(t *testing.T) {
			project := t.TempDir()
			exchanged = func(dir string) { require.NoError(t, remove(dir)) }
			_, err := small.Write(project)
			requireInterference(t, err, "it is not to be used")
			exchanged = func(string) {}
			changed, err := small.Write(project)
			require.NoError(t, err)
			require.True(t, changed)
			require.True(t, small.isAt(filepath.Join(project, Dir)))
		})
	}
}

func TestWriteWhileTheTreeIsRemoved(t *testing.T) {
	project := t.TempDir()
	dir := filepath.Join(project, Dir)
	done := make(chan struct{})
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					_ = os.RemoveAll(dir)
				}
			}
		})
	}
	group.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				if _, err := small.Diff(project); err != nil {
					requireInterference(t, err, "removing generated/")
				}
			}
		}
	})
	for range 300 {
		if _, err := small.Write(project); err != nil {
			requireInterference(t, err, "generated/")
		}
	}
	close(done)
	group.Wait()
	_, err := small.Write(project)
	require.NoError(t, err)
	require.True(t, small.isAt(dir))
	require.Equal(t, []string{Dir}, entries(t, project), "nothing is left behind")
}

// Who renders or builds while a deploy removes its tree sees all of it, or none.
func TestRemoveLeavesNoHalfTree(t *testing.T) {
	project := t.TempDir()
	require.NoError(t, Remove(project))
	require.Empty(t, entries(t, project))
	dir := filepath.Join(project, Dir)
	for range 100 {
		_, err := small.Write(project)
		require.NoError(t, err)
		done := make(chan error)
		go func() { done <- Remove(project) }()
		for {
			if _, err := os.Lstat(dir); err != nil {
				break
			}
			opened, err := os.OpenRoot(dir)
			if err != nil {
				continue
			}
			_, wrong := opened.Stat("modules/b.nix")
			require.NoError(t, opened.Close())
			if _, err := os.Lstat(dir); err == nil {
				require.NoError(t, wrong, "a part is gone while the tree is there")
			}
		}
		require.NoError(t, <-done)
		require.Empty(t, entries(t, project))
	}
}
