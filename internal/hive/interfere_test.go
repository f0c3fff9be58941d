package hive

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"k3splan/internal/diag"

	"github.com/stretchr/testify/require"
)

var small = Tree{
	"hive.nix": []byte("hive"), "cluster.json": []byte("{}"), "hosts/olaf.nix": []byte("olaf"), "hosts/ulf.nix": []byte("ulf"),
	"modules/a.nix": []byte("a"), "modules/b.nix": []byte("b"), "empty": nil,
}

func requireInterference(t *testing.T, err error, says string) {
	t.Helper()
	require.ErrorContains(t, err, says)
	require.Contains(t, diag.HintOf(err), "run the same command again")
}

// A part of what was being written was removed meanwhile (git clean), and the rest became the tree.
func TestAHalfTreeIsNotPutInPlace(t *testing.T) {
	for what, remove := range map[string]func(fresh string) error{
		"a part":   func(fresh string) error { return os.RemoveAll(filepath.Join(fresh, "hosts")) },
		"a file":   func(fresh string) error { return os.Remove(filepath.Join(fresh, "cluster.json")) },
		"all":      os.RemoveAll,
		"one more": func(fresh string) error { return os.WriteFile(filepath.Join(fresh, "x"), nil, 0o600) },
	} {
		t.Run(what, func(t *testing.T) {
			project := t.TempDir()
			dir, fresh := filepath.Join(project, Dir), filepath.Join(project, "fresh")
			spoil := func() {
				require.NoError(t, os.RemoveAll(fresh))
				require.NoError(t, os.Mkdir(fresh, 0o700))
				require.NoError(t, small.writeTo(fresh))
				require.NoError(t, remove(fresh))
			}
			spoil()
			requireInterference(t, small.place(fresh, dir), "what was to become generated/")
			require.NoDirExists(t, dir)

			old := Tree{"hive.nix": []byte("old")}
			_, err := old.Write(project)
			require.NoError(t, err)
			spoil()
			requireInterference(t, small.place(fresh, dir), "nothing was rendered")
			require.True(t, old.isAt(dir))
		})
	}
}

// A tree that was removed right after it was put in place is an error.
func TestATreeThatVanishesIsAnError(t *testing.T) {
	for what, remove := range map[string]func(dir string) error{
		"a part": func(dir string) error { return os.RemoveAll(filepath.Join(dir, "modules")) },
		"all":    os.RemoveAll,
	} {
		t.Run(what, func(t *testing.T) {
			project := t.TempDir()
			dir := filepath.Join(project, Dir)
			_, err := small.Write(project)
			require.NoError(t, err)
			require.NoError(t, small.confirm(dir))
			require.NoError(t, remove(dir))
			requireInterference(t, small.confirm(dir), "it is not to be used")
			changed, err := small.Write(project)
			require.NoError(t, err)
			require.True(t, changed)
			require.True(t, small.isAt(dir))
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

// A render or build while a deploy removes its tree sees all of it, or nothing.
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
				require.NoError(t, wrong, "a part is missing while the tree is there")
			}
		}
		require.NoError(t, <-done)
		require.Empty(t, entries(t, project))
	}
}
