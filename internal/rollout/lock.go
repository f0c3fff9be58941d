package rollout

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"k3splan/internal/diag"
	"k3splan/internal/files"
)

// InUseError says which process has the lock of a project.
type InUseError struct{ Holder string }

func (e *InUseError) Error() string { return "the project is in use by " + e.Holder }

// LockProject makes sure that one process at a time changes the hosts of a project from this machine, or
// uses what is rendered for them. Other machines are kept out by package lease. The error is an [*InUseError] if
// another one does.
func LockProject(dir string) (unlock func(), err error) {
	file, err := files.OwnFile(dir, "lock")
	if err != nil {
		return nil, fmt.Errorf("locking the project: %w", err)
	}
	if _, err := files.Read(file); err != nil && !errors.Is(err, fs.ErrNotExist) { // opening a pipe would wait
		return nil, fmt.Errorf("locking the project: %w", err)
	}
	lock := flock.New(file, flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking the project: %w", err)
	}
	if !locked {
		content, _ := files.Read(file)
		holder := cmp.Or(diag.Printable(strings.TrimSpace(string(content))), "another k3splan process")
		return nil, diag.WithHint(&InUseError{holder}, "wait until it has ended")
	}
	machine, _ := os.Hostname()
	holder := fmt.Sprintf("process %d of %s on %s, since %s\n", os.Getpid(), userName(), machine, time.Now().Format("15:04:05"))
	if err := errors.Join(os.WriteFile(file, []byte(holder), 0o600), files.Inherit(file)); err != nil {
		return nil, errors.Join(fmt.Errorf("locking the project: %w", err), lock.Unlock())
	}
	return func() { _ = lock.Unlock() }, nil
}

func userName() string {
	for _, name := range []string{"SUDO_USER", "USER", "LOGNAME"} {
		if user := os.Getenv(name); user != "" {
			return user
		}
	}
	return fmt.Sprintf("user %d", os.Getuid())
}
