package files

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is read of a project is read by this package: else one forgotten place waits for a pipe again.
func TestNothingElseReadsProjects(t *testing.T) {
	// these read what no user has put there, or look at it first
	others := map[string]string{
		"internal/stick/image.go":       "an image; it looks first",
		"internal/stick/inspect.go":     "/proc and /sys",
		"internal/colmena/platforms.go": "/proc",
		"internal/stick/build.go":       "an image that Nix has built",
		"internal/stick/make.go":        "an image that Nix has built",
		"internal/lease/lease.go":       "/etc/machine-id",
		"internal/run/process.go":       "/proc",
		"internal/files/files.go":       "the one way",
		"internal/files/lock.go":        "a folder, to lock it; what a killed process left",
		"internal/files/write.go":       "a folder, to sync it",
		"internal/secrets/runtime.go":   "the lock of a folder of ours",
		"internal/remote/scan.go":       "what ssh has written in a folder of ours",
	}
	reads := regexp.MustCompile(`\bos\.(ReadFile|Open|OpenFile|DirFS|OpenRoot|OpenInRoot)\(`)
	writes := regexp.MustCompile(`os\.O_WRONLY|os\.O_EXCL|"/dev/tty"`)
	root := filepath.Join("..", "..")
	var found []string
	require.NoError(t, filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		file := filepath.ToSlash(strings.TrimPrefix(name, root+string(filepath.Separator)))
		for line := range strings.Lines(string(text)) {
			if !reads.MatchString(line) || writes.MatchString(line) {
				continue
			}
			if found = append(found, file); others[file] == "" {
				t.Errorf("%s: %s: let package files read it", file, strings.TrimSpace(line))
			}
		}
		return nil
	}))
	for file := range others {
		require.True(t, slices.Contains(found, file), "%s reads nothing any more", file)
	}
}
