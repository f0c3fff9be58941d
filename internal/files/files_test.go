package files

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
)

// soon fails a test that waits for a pipe.
func soon(t *testing.T, what string, work func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); work() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		require.FailNow(t, what+" hangs")
	}
}

func TestReadTellsWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, syscall.Mkfifo(at("pipe"), 0o600))
	require.NoError(t, os.Mkdir(at("folder"), 0o700))
	t.Chdir(dir) // the path of a socket is short
	socket, err := net.Listen("unix", "socket")
	require.NoError(t, err)
	defer socket.Close()
	for link, target := range map[string]string{"link": "pipe", "zero": "/dev/zero", "loop": "loop"} {
		require.NoError(t, os.Symlink(target, at(link)))
	}
	require.NoError(t, os.WriteFile(at("large"), nil, 0o600))
	require.NoError(t, os.Truncate(at("large"), 1<<40))

	for name, want := range map[string][2]string{
		"pipe":      {"is a named pipe, not a file", "put a file in its place"},
		"folder":    {"is a folder, not a file", "put a file in its place"},
		"socket":    {"is a socket, not a file", "put a file in its place"},
		"link":      {"is a link to a named pipe, not to a file", `it leads to "pipe"`},
		"zero":      {"is a link to a device, not to a file", `it leads to "/dev/zero"`},
		"large":     {"is larger than 64 MiB", "check that it is the right file"},
		"loop":      {syscall.ELOOP.Error(), ""},
		"not there": {syscall.ENOENT.Error(), ""},
	} {
		t.Run(name, func(t *testing.T) {
			soon(t, "reading "+name, func() {
				for way, read := range map[string]func() ([]byte, error){
					"alone": func() ([]byte, error) { return Read(at(name)) },
					"tree":  func() ([]byte, error) { return fs.ReadFile(In(dir), name) },
				} {
					content, err := read()
					require.Error(t, err, way)
					require.Empty(t, content)
					reason, hint := diag.Reason(err), diag.HintOf(err)
					require.EqualError(t, reason, want[0], way)
					require.Contains(t, hint, want[1], way)
					require.Equal(t, want[1] == "", hint == "", way)
					shown := at(name)
					if way == "tree" {
						shown = name // without the machine's path
					}
					var wrong *fs.PathError
					require.ErrorAs(t, err, &wrong)
					require.Equal(t, shown, wrong.Path)
				}
				if name != "folder" {
					_, err := fs.ReadDir(In(dir), name)
					require.Error(t, err)
				}
			})
		})
	}
}

// A pipe can take the place of a file after one has looked.
func TestReadDuringExchange(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "x")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := range 300 {
			other := filepath.Join(dir, fmt.Sprint(i))
			if i%2 == 0 {
				_ = syscall.Mkfifo(other, 0o600)
			} else {
				_ = os.WriteFile(other, []byte("text"), 0o600)
			}
			_ = os.Rename(other, name)
		}
	}()
	soon(t, "reading", func() {
		for {
			if content, err := Read(name); err == nil && len(content) > 0 {
				require.Equal(t, "text", string(content))
			}
			select {
			case <-ended:
				return
			default:
			}
		}
	})
}

func TestReadAtMost(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x")
	require.NoError(t, os.WriteFile(name, []byte("four"), 0o640))
	content, info, err := ReadAtMost(name, 4)
	require.NoError(t, err)
	require.Equal(t, "four", string(content))
	require.Equal(t, fs.FileMode(0o640), info.Mode())
	_, info, err = ReadAtMost(name, 3)
	require.ErrorContains(t, err, "is larger than 0 KiB")
	require.NotNil(t, info)
	// a file that does not tell its size
	content, _, err = ReadAtMost("/proc/self/status", 1<<20)
	require.NoError(t, err)
	require.NotEmpty(t, content)
	_, _, err = ReadAtMost("/proc/self/status", 10)
	require.ErrorContains(t, err, "is larger")
}

func TestIn(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o755))
	for _, name := range []string{"a/b/c", "a/d", "e"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
	}
	require.NoError(t, os.Symlink("e", filepath.Join(dir, "f")))
	require.NoError(t, fstest.TestFS(In(dir), "a/b/c", "a/d", "e", "f"))
	_, err := fs.ReadFile(In(dir), "../e")
	require.ErrorIs(t, err, fs.ErrInvalid)
	_, err = fs.ReadFile(In(""), "e")
	require.ErrorIs(t, err, fs.ErrInvalid)
}

func TestUpdate(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "new", "file")
	add := func(text string) func([]byte) ([]byte, error) {
		return func(present []byte) ([]byte, error) { return append(bytes.Clone(present), text...), nil }
	}
	changed, err := Update(dir, "new/file", add("a"))
	require.NoError(t, err)
	require.True(t, changed)
	require.NoError(t, os.Chmod(name, 0o664))
	require.NoError(t, os.Symlink(name, filepath.Join(dir, "link")))
	changed, err = Update(dir, "link", add("b"))
	require.NoError(t, err)
	require.True(t, changed)
	content, info, err := ReadAtMost(name, 10)
	require.NoError(t, err)
	require.Equal(t, "ab", string(content))
	require.Equal(t, fs.FileMode(0o664), info.Mode())
	changed, err = Update(dir, "link", add(""))
	require.NoError(t, err)
	require.False(t, changed)
	no := errors.New("no")
	_, err = Update(dir, "link", func([]byte) ([]byte, error) { return []byte("c"), no })
	require.ErrorIs(t, err, no)
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	soon(t, "updating a pipe", func() {
		_, err = Update(dir, "pipe", add("a"))
	})
	require.ErrorContains(t, err, "is a named pipe")
	requireNames(t, filepath.Join(dir, "new"), "file")
}

func TestUpdateLosesNothing(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "real", "file")
	require.NoError(t, os.Mkdir(filepath.Dir(name), 0o700))
	require.NoError(t, os.Symlink(name, filepath.Join(dir, "link")))
	require.NoError(t, os.WriteFile(name, nil, 0o600))
	const writers = 40
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			at := []string{"real/file", "link"}[i%2]
			_, err := Update(dir, at, func(present []byte) ([]byte, error) {
				time.Sleep(time.Millisecond)
				return fmt.Appendf(bytes.Clone(present), "%d\n", i), nil
			})
			require.NoError(t, err)
		})
	}
	group.Wait()
	content, err := Read(name)
	require.NoError(t, err)
	require.Equal(t, writers, strings.Count(string(content), "\n"))
}

func TestLockTellsWhoseTurnItIs(t *testing.T) {
	defer func(before time.Duration) { patience = before }(patience)
	patience = 50 * time.Millisecond
	dir := t.TempDir()
	unlock, err := Lock(dir)
	require.NoError(t, err)
	_, err = Lock(dir)
	require.ErrorIs(t, err, ErrBusy)
	require.ErrorContains(t, err, dir)
	require.NotEmpty(t, diag.HintOf(err))
	unlock()
	unlock, err = Lock(dir)
	require.NoError(t, err)
	unlock()
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	soon(t, "locking", func() { _, err = Lock(filepath.Join(dir, "pipe")) })
	require.ErrorIs(t, err, syscall.ENOTDIR)
}

// A process that is killed leaves a file that it was writing; the next one that locks the project
// removes it, but not one that is being written.
func TestLockSweepsWhatAKilledProcessLeft(t *testing.T) {
	dir := t.TempDir()
	folders := []string{".", "plans", "secrets", "secrets/hosts", "secrets/retired"}
	for _, folder := range folders {
		require.NoError(t, MakeFolder(filepath.Join(dir, folder), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, folder, unfinishedPrefix+"x"), nil, 0o600))
	}
	writing, err := newUnfinished(filepath.Join(dir, "secrets"), Private)
	require.NoError(t, err)
	unlock, err := Lock(dir)
	require.NoError(t, err)
	unlock()
	for _, folder := range folders {
		require.NoFileExists(t, filepath.Join(dir, folder, unfinishedPrefix+"x"))
	}
	require.FileExists(t, writing.Name())
	require.NoError(t, writing.Close())
	unlock, err = Lock(dir)
	require.NoError(t, err)
	unlock()
	require.NoFileExists(t, writing.Name())
}
