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

// What is written into a project is written by this package: else it is there before its content, belongs
// to root after a sudo, or is where a link leads.
func TestNothingElseWritesProjects(t *testing.T) {
	others := map[string]string{
		"cmd/k3splan/man.go":            "a folder that the user names",
		"internal/colmena/evaluator.go": "a temporary folder",
		"internal/colmena/hive.go":      "a temporary folder",
		"internal/evaluate/evaluate.go": "removes a temporary folder",
		"internal/files/exchange.go":    "several files, written aside before",
		"internal/files/lock.go":        "removes what a killed process left",
		"internal/files/own.go":         "owners",
		"internal/files/temp.go":        "a temporary folder",
		"internal/files/write.go":       "the one way",
		"internal/hive/tree.go":         "a whole tree, exchanged in one step",
		"internal/k3s/fetch.go":         "the lock of kubectl",
		"internal/rehearsal/prepare.go": "a folder of ours, for one rehearsal",
		"internal/remote/config.go":     "removes a temporary folder",
		"internal/remote/scan.go":       "a folder in one of ours",
		"internal/remote/share.go":      "sockets in one of ours",
		"internal/rollout/lock.go":      "a lock in a folder of ours",
		"internal/secrets/runtime.go":   "a folder in memory",
		"internal/stick/build.go":       "removes a temporary folder",
	}
	check(t, regexp.MustCompile(`\bos\.(WriteFile|Create|CreateTemp|Rename|Mkdir|MkdirAll|MkdirTemp|Symlink|Link|Remove|RemoveAll|Chmod|Chown|Lchown)\(|O_CREATE|renameio`), nil, others, "write")
}

// What is read of a project is read by this package: else one forgotten place waits for a pipe again.
func TestNothingElseReadsProjects(t *testing.T) {
	// these read what no user has put there, or look at it first
	others := map[string]string{
		"internal/rehearsal/prepare.go": "a folder of ours, for one rehearsal",
		"internal/stick/image.go":       "an image; it looks first",
		"internal/stick/inspect.go":     "/proc and /sys",
		"internal/colmena/platforms.go": "/proc",
		"internal/stick/build.go":       "an image that Nix has built",
		"internal/stick/make.go":        "an image that Nix has built",
		"internal/lease/lease.go":       "/etc/machine-id",
		"internal/run/process.go":       "/proc",
		"internal/evaluate/memory.go":   "/proc and /sys",
		"internal/files/files.go":       "the one way",
		"internal/files/lock.go":        "a folder, to lock it; what a killed process left",
		"internal/files/write.go":       "a folder, to sync it",
		"internal/secrets/runtime.go":   "the lock of a folder of ours",
		"internal/remote/scan.go":       "what ssh has written in a folder of ours",
	}
	reads := regexp.MustCompile(`\bos\.(ReadFile|Open|OpenFile|DirFS|OpenRoot|OpenInRoot)\(`)
	check(t, reads, regexp.MustCompile(`os\.O_WRONLY|os\.O_EXCL|"/dev/tty"`), others, "read")
}

// check looks for what matches in the lines of the program, outside of others.
func check(t *testing.T, matching, except *regexp.Regexp, others map[string]string, verb string) {
	t.Helper()
	root := filepath.Join("..", "..")
	var found []string
	require.NoError(t, filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && name == filepath.Join(root, "test") { // the lab reads no projects
			return fs.SkipDir
		}
		if err != nil || entry.IsDir() || filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") || strings.HasSuffix(filepath.Base(filepath.Dir(name)), "test") {
			return err
		}
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		file := filepath.ToSlash(strings.TrimPrefix(name, root+string(filepath.Separator)))
		for line := range strings.Lines(string(text)) {
			if !matching.MatchString(line) || except != nil && except.MatchString(line) || strings.HasPrefix(strings.TrimSpace(line), "//") {
				continue
			}
			if found = append(found, file); others[file] == "" {
				t.Errorf("%s: %s: let package files %s it", file, strings.TrimSpace(line), verb)
			}
		}
		return nil
	}))
	for file := range others {
		require.True(t, slices.Contains(found, file), "%s no longer has to %s", file, verb)
	}
}
