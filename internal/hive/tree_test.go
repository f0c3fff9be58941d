package hive

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := []string{}
	for _, entry := range list {
		names = append(names, entry.Name())
	}
	return names
}

func TestWriteExchangesTheWholeTree(t *testing.T) {
	project := t.TempDir()
	first := Tree{"hive.nix": []byte("1"), "hosts/a.nix": []byte("a"), "hosts/b.nix": []byte("b")}
	changed, err := first.Write(project)
	require.NoError(t, err)
	require.True(t, changed)
	require.Equal(t, []string{Dir}, entries(t, project), "nothing is left beside it")

	long := time.Now().Add(-time.Hour)
	hive := filepath.Join(project, Dir, "hive.nix")
	require.NoError(t, os.Chtimes(hive, long, long))
	changed, err = first.Write(project)
	require.NoError(t, err)
	require.False(t, changed)
	info, err := os.Stat(hive)
	require.NoError(t, err)
	require.WithinDuration(t, long, info.ModTime(), time.Second, "an unchanged tree keeps its times")

	second := Tree{"hive.nix": []byte("1"), "hosts/a.nix": []byte("A")}
	diff, err := second.Diff(project)
	require.NoError(t, err)
	require.Contains(t, diff, "--- generated/hosts/b.nix\n+++ /dev/null")
	require.Contains(t, diff, "-a\n")
	require.NotContains(t, diff, "hive.nix")
	_, err = second.Write(project)
	require.NoError(t, err)
	require.Equal(t, []string{"a.nix"}, entries(t, filepath.Join(project, Dir, "hosts")), "a stale file is removed")
	require.Equal(t, []string{Dir}, entries(t, project))
	diff, err = second.Diff(project)
	require.NoError(t, err)
	require.Empty(t, diff)
}

func TestEmptyLeftoversAreDifferences(t *testing.T) {
	project := t.TempDir()
	tree := Tree{"hive.nix": []byte("1")}
	_, err := tree.Write(project)
	require.NoError(t, err)
	for _, leftover := range []string{"empty.nix", "folder/"} {
		name := filepath.Join(project, Dir, leftover)
		if leftover == "folder/" {
			require.NoError(t, os.Mkdir(name, 0o755))
		} else {
			require.NoError(t, os.WriteFile(name, nil, 0o644))
		}
		diff, err := tree.Diff(project)
		require.NoError(t, err)
		require.Equal(t, "--- generated/"+leftover+"\n+++ /dev/null\n", diff)
		changed, err := tree.Write(project)
		require.NoError(t, err)
		require.True(t, changed)
		require.Equal(t, []string{"hive.nix"}, entries(t, filepath.Join(project, Dir)))
	}
}

// What somebody left there that cannot be read is replaced like everything else.
func TestUnreadableLeftoversAreReplaced(t *testing.T) {
	project := t.TempDir()
	tree := Tree{"hive.nix": []byte("1")}
	_, err := tree.Write(project)
	require.NoError(t, err)
	for name, leave := range map[string]func(dir string) error{
		"a file whose name is not UTF-8":   func(dir string) error { return os.WriteFile(filepath.Join(dir, "b\xff"), nil, 0o644) },
		"a folder whose name is not UTF-8": func(dir string) error { return os.MkdirAll(filepath.Join(dir, "b\xff", "c"), 0o755) },
		"a folder that nobody may read":    func(dir string) error { return os.Mkdir(filepath.Join(dir, "closed"), 0) },
		"a file that nobody may read":      func(dir string) error { return os.WriteFile(filepath.Join(dir, "closed"), []byte("x"), 0) },
		"a file that is too large": func(dir string) error {
			name := filepath.Join(dir, "large")
			return errors.Join(os.WriteFile(name, nil, 0o644), os.Truncate(name, 1<<30))
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, leave(filepath.Join(project, Dir)))
			diff, err := tree.Diff(project)
			require.NoError(t, err)
			require.NotEmpty(t, diff)
			changed, err := tree.Write(project)
			require.NoError(t, err)
			require.True(t, changed)
			require.Equal(t, []string{"hive.nix"}, entries(t, filepath.Join(project, Dir)))
		})
	}
}

func TestWriteFailsAsAWhole(t *testing.T) {
	project := t.TempDir()
	old := Tree{"hive.nix": []byte("old")}
	_, err := old.Write(project)
	require.NoError(t, err)
	// a name that no file can have: writing fails in the middle
	_, err = Tree{"a.nix": []byte("new"), "hive.nix": []byte("new"), "hive.nix/x": []byte("new")}.Write(project)
	require.Error(t, err)
	content, err := os.ReadFile(filepath.Join(project, Dir, "hive.nix"))
	require.NoError(t, err)
	require.Equal(t, "old", string(content))
	require.Equal(t, []string{Dir}, entries(t, project))
}

func TestWriteRemovesWhatAKilledOneLeft(t *testing.T) {
	project := filepath.Join(t.TempDir(), `[a*] \b`)
	old, young := filepath.Join(project, ".generated-1"), filepath.Join(project, ".generated-2")
	require.NoError(t, os.MkdirAll(filepath.Join(old, "hosts"), 0o755))
	require.NoError(t, os.MkdirAll(young, 0o755))
	long := time.Now().Add(-2 * time.Hour)
	require.NoError(t, os.Chtimes(old, long, long))
	_, err := Tree{"hive.nix": []byte("x")}.Write(project)
	require.NoError(t, err)
	require.Equal(t, []string{".generated-2", Dir}, entries(t, project))
}

// A link put where the tree belongs is replaced in its folder, never followed.
func TestWriteDoesNotFollowLinks(t *testing.T) {
	project, elsewhere := t.TempDir(), t.TempDir()
	require.NoError(t, os.Symlink(elsewhere, filepath.Join(project, Dir)))
	_, err := Tree{"hive.nix": []byte("x")}.Write(project)
	require.ErrorContains(t, err, "not a folder")
	require.Empty(t, entries(t, elsewhere))
}
