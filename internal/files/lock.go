package files

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"k3splan/internal/diag"
)

// patience is how long Lock waits: everything that holds a lock is short, unless it asks for a
// passphrase. Variables are for tests.
var patience, pause = 30 * time.Second, 20 * time.Millisecond

// ErrBusy is a project that another k3splan process is changing.
var ErrBusy = errors.New("another k3splan process is changing it and still holds its lock")

// Lock keeps other k3splan processes from changing the files of a project until unlock is called. There
// is one lock for everything that reads, changes and writes: tables, secrets, pins, keys. If another
// process holds it for too long, the error wraps [ErrBusy]. The lock is the folder itself: no file is
// made, and no lock survives its process. It is not reentrant. On a file system without locks for
// folders (NFS) nothing is locked.
//
// A project whose folders lead elsewhere is refused, see [CheckOwn]. What an interrupted command left
// unfinished beside the project's files is removed.
func Lock(project string) (unlock func(), err error) {
	if err := checkFolders(project); err != nil {
		return nil, err
	}
	folder, err := os.OpenFile(project, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(patience); ; time.Sleep(pause) {
		err := unix.Flock(int(folder.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(end), errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			busy := diag.WithHint(fmt.Errorf("%s: %w", project, ErrBusy), "wait until it has ended, then run the same command again")
			return nil, errors.Join(busy, folder.Close())
		}
		sweep(project)
		return func() { _ = folder.Close() }, nil
	}
}

// unfinishedPrefix begins the names of files that are being written. Nothing else reads them.
const unfinishedPrefix = ".k3splan-new-"

// Unfinished returns the name of a file that is being written by another program on k3splan's behalf, until it
// gets the name base.
func Unfinished(base string) string { return unfinishedPrefix + base }

// IsUnfinished reports whether a file of this name is one that k3splan is writing, or was writing when
// it was killed.
func IsUnfinished(name string) bool { return strings.HasPrefix(filepath.Base(name), unfinishedPrefix) }

// sweep removes the unfinished files that a killed process left in a project. Those that are being
// written are locked by their process. What cannot be removed is tried again next time.
func sweep(project string) {
	for _, pattern := range []string{"", "*", SecretsDir + "/*", StateDir + "/*"} {
		found, _ := filepath.Glob(filepath.Join(globEscape(project), pattern, unfinishedPrefix+"*"))
		for _, name := range found {
			file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
			if err != nil {
				continue
			}
			if unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
				_ = os.Remove(name)
			}
			_ = file.Close()
		}
	}
}

func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}
