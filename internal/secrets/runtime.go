package secrets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"k3splan/internal/files"
)

// Runtime is a folder for secrets in plain text while one k3splan needs them as files: for an
// editor, and for Colmena's key commands. It is for its owner alone and, where the machine has such a
// place, in memory. [SweepRuntime] removes those whose process has ended.
type Runtime struct {
	// Dir is the folder.
	Dir  string
	lock *os.File // held as long as this process lives
}

const runtimeName = "k3splan"

// runtimeParents are the folders in which those of the runtimes may be, the best first: the first
// two are in memory and not in a backup.
func runtimeParents() []string {
	own := runtimeName + "-" + strconv.Itoa(os.Geteuid())
	var parents []string
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) && mustBeOwn(dir) == nil {
		parents = append(parents, filepath.Join(dir, runtimeName))
	}
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		parents = append(parents, filepath.Join("/dev/shm", own))
	}
	return append(parents, filepath.Join(os.TempDir(), own))
}

// mustBeOwn refuses what another user could have put there or can read.
func mustBeOwn(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder", dir)
	case !ok || int(owner.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to another user", dir)
	case othersIn(info) != 0:
		return fmt.Errorf("%s has mode %04o: other users can access it", dir, info.Mode().Perm())
	}
	return nil
}

// NewRuntime makes a runtime.
func NewRuntime() (*Runtime, error) {
	var refused error
	for _, parent := range runtimeParents() {
		r, err := newRuntime(parent)
		if err == nil {
			return r, nil
		}
		refused = errors.Join(refused, err)
	}
	return nil, fmt.Errorf("make a folder for secrets in use: %w", refused)
}

func newRuntime(parent string) (*Runtime, error) {
	if err := os.Mkdir(parent, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := errors.Join(files.SafeParent(filepath.Dir(parent)), mustBeOwn(parent)); err != nil {
		return nil, err
	}
	guard, err := lockFile(filepath.Join(parent, guardName), 0)
	if err != nil {
		return nil, err
	}
	defer guard.Close()
	dir, err := os.MkdirTemp(parent, "secrets-*") // of mode 0700
	if err != nil {
		return nil, err
	}
	lock, err := lockFile(filepath.Join(dir, lockName), unix.LOCK_NB)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &Runtime{Dir: dir, lock: lock}, nil
}

const (
	// guardName is locked while a runtime is made or swept, so that none is swept half made.
	guardName = "guard"
	// lockName is locked by the owner of a runtime. The lock goes with its process, however that ends,
	// and is not inherited by what it starts.
	lockName = ".lock"
)

func lockFile(name string, how int) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, files.Private)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// Put writes a secret into the runtime and returns the file's path.
func (r *Runtime) Put(name string, content []byte) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	file := folder{r.Dir}.path(name)
	return file, files.Create(file, content, files.Private)
}

// Close removes the runtime with all that is in it, what an editor left there too.
func (r *Runtime) Close() error {
	err := os.RemoveAll(r.Dir)
	if err = errors.Join(err, r.lock.Close()); err != nil {
		return fmt.Errorf("remove the secrets in use: %w", err)
	}
	return nil
}

// SweepRuntime removes the runtimes of this user whose process has ended, and reports how many.
func SweepRuntime() (swept int, err error) {
	for _, parent := range runtimeParents() {
		if mustBeOwn(parent) != nil {
			continue // not there, or not ours
		}
		n, sweepErr := sweep(parent)
		swept += n
		err = errors.Join(err, sweepErr)
	}
	if err != nil {
		return swept, fmt.Errorf("remove secrets that an earlier k3splan left: %w", err)
	}
	return swept, nil
}

func sweep(parent string) (swept int, err error) {
	entries, err := os.ReadDir(parent)
	var dirs []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), "secrets-") {
			dirs = append(dirs, filepath.Join(parent, entry.Name()))
		}
	}
	if err != nil || len(dirs) == 0 {
		return 0, err
	}
	guard, err := lockFile(filepath.Join(parent, guardName), 0)
	if err != nil {
		return 0, err
	}
	defer guard.Close()
	for _, dir := range dirs {
		if mustBeOwn(dir) != nil {
			continue // closed in between
		}
		lock, lockErr := lockFile(filepath.Join(dir, lockName), unix.LOCK_NB)
		if errors.Is(lockErr, unix.EWOULDBLOCK) {
			continue // in use
		} else if lockErr != nil {
			err = errors.Join(err, lockErr)
			continue
		}
		err = errors.Join(err, os.RemoveAll(dir), lock.Close())
		swept++
	}
	return swept, err
}

// ReadRuntime reads a secret from the runtime of another process of this user.
func ReadRuntime(dir, name string) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if err := mustBeOwn(dir); err != nil {
		return nil, err
	}
	content, _, err := folder{dir}.read(name, maxAny)
	if err != nil {
		return nil, fmt.Errorf("%s %w", name, err)
	}
	return content, nil
}
