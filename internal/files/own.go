package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"k3splan/internal/diag"
	"k3splan/internal/run"
)

// OwnFolder returns the path of a folder in a project that k3splan itself writes, such as [StateDir] and
// folders in it, and makes it for its owner alone if it is missing. It refuses, with an [Error], what
// somebody else could have put there: a link, a folder of another user, one that others can write to.
// A clone of a repository may bring a link that leads anywhere.
func OwnFolder(project string, names ...string) (string, error) {
	parent, err := unix.Open(project, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: project, Err: err}
	}
	defer func() { _ = unix.Close(parent) }()
	owner, err := ownerOf(parent)
	if err != nil {
		return "", &fs.PathError{Op: "stat", Path: project, Err: err}
	}
	path, shown := project, ""
	for _, name := range names {
		path, shown = filepath.Join(path, name), filepath.ToSlash(filepath.Join(shown, name))
		child, err := openOwn(parent, name, owner)
		if wrong := checkOwn(path, shown, owner, true); wrong != nil {
			return "", errors.Join(wrong, closeIfOpen(child, err))
		}
		if err != nil {
			return "", &fs.PathError{Op: "open", Path: shown, Err: err}
		}
		_ = unix.Close(parent)
		parent = child
	}
	return path, nil
}

// OwnFile returns the path of a file in k3splan's own folder of a project. What is in its place must be
// a file of one's own, which nobody else can write to.
func OwnFile(project string, names ...string) (string, error) {
	last := len(names) - 1
	folder, err := OwnFolder(project, append([]string{StateDir}, names[:last]...)...)
	if err != nil {
		return "", err
	}
	owner, err := folderOwner(project)
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, names[last])
	return path, checkOwn(path, strings.Join(append([]string{StateDir}, names...), "/"), owner, false)
}

// CheckOwnFolder returns what is wrong with a folder that must be one's own, an [Error]; nil if nothing
// is, or if it is missing.
func CheckOwnFolder(project, name string) error {
	owner, err := folderOwner(project)
	if err != nil {
		return nil // reported by whoever reads the project
	}
	return checkOwn(filepath.Join(project, filepath.FromSlash(name)), name, owner, true)
}

// checkFolders refuses a project in which a write could end up anywhere.
func checkFolders(project string) error {
	owner, err := folderOwner(project)
	if err != nil {
		return nil // reported by whoever opens it
	}
	if wrong := checkInside(project, PlansDir, owner); wrong != nil {
		return fmt.Errorf("%s %w", PlansDir, wrong)
	}
	return checkOwn(filepath.Join(project, SecretsDir), SecretsDir, owner, true)
}

// LeadsOut returns the target of a link in the place of a project's file, if it is outside of the project;
// else "". A clone may bring such a link.
func LeadsOut(project, file string) string {
	target, err := filepath.EvalSymlinks(filepath.Join(project, filepath.FromSlash(file)))
	if err != nil {
		return ""
	}
	root, err := filepath.EvalSymlinks(project)
	if err != nil {
		return ""
	}
	if relative, err := filepath.Rel(root, target); err == nil && filepath.IsLocal(relative) {
		return ""
	}
	return target
}

// CheckOwn reports the folders and files of a project that must be one's own and are not: somebody who
// can put a link or a file there can have k3splan write or read anywhere.
func CheckOwn(project string) (problems diag.Problems) {
	owner, err := folderOwner(project)
	if err != nil {
		return nil // what is wrong with the project as a whole is reported elsewhere
	}
	for _, place := range []struct {
		name   string
		folder bool
	}{{SecretsDir, true}, {SecretsDir + "/hosts", true}, {SecretsDir + "/retired", true}, {StateDir, true}, {StateDir + "/logs", true}, {StateDir + "/snapshots", true}, {StateDir + "/lock", false}, {GeneratedDir, true}} {
		path := filepath.Join(project, filepath.FromSlash(place.name))
		// below a link everything is wrong
		if parent := filepath.Dir(path); parent != project && checkOwn(parent, "", owner, true) != nil {
			continue
		}
		if wrong := checkOwn(path, place.name, owner, place.folder); wrong != nil {
			var reason *Error
			errors.As(wrong, &reason)
			problems = append(problems, diag.Problem{File: place.name, Severity: diag.Error, Code: "not-own", Message: reason.Error(), Hint: diag.HintOf(wrong)})
		}
	}
	for _, name := range []string{PlansDir, LockFile} {
		if wrong := checkInside(project, name, owner); wrong != nil {
			problems = append(problems, diag.Problem{File: name, Severity: diag.Error, Code: "not-own", Message: wrong.Error(), Hint: diag.HintOf(wrong)})
		}
	}
	return append(problems, checkSources(project)...)
}

// checkSources warns of what the machines are built from and everyone can change: it becomes code that root
// runs on them.
func checkSources(project string) (problems diag.Problems) {
	check := func(name string) {
		info, err := os.Stat(filepath.Join(project, filepath.FromSlash(name)))
		if err != nil || name == PlansDir || name == LockFile || !info.IsDir() && !info.Mode().IsRegular() {
			return // missing, reported where it is read, or checked above
		}
		if wrong := forEveryone(info, name); wrong != nil {
			problems = append(problems, diag.Problem{File: name, Severity: diag.Warning, Code: "not-own", Message: wrong.Error(), Hint: diag.HintOf(wrong)})
		}
	}
	check(".")
	for _, folder := range []string{PlansDir, SnippetsDir, PartitioningDir, HardwareDir, ManifestsDir, K3sDir} {
		check(folder)
		entries, _ := os.ReadDir(filepath.Join(project, folder))
		for _, entry := range entries {
			check(folder + "/" + entry.Name())
		}
	}
	return problems
}

// forEveryone refuses what every user of this machine can change; in a sticky folder they cannot.
func forEveryone(info fs.FileInfo, name string) error {
	if info.Mode().Perm()&0o002 == 0 || info.Mode()&fs.ModeSticky != 0 {
		return nil
	}
	return diag.WithHint(&Error{fmt.Sprintf("can be changed by every user of this machine (mode %04o)", info.Mode().Perm())}, "chmod o-w "+run.Word(name))
}

// checkInside refuses a link that leads out of the project, and a file of another user or one that
// everyone can change: it says which sources the machines are built from.
func checkInside(project, name string, owner int) error {
	path := filepath.Join(project, filepath.FromSlash(name))
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 && name == LockFile {
		return nil // package pins refuses it
	}
	if target := LeadsOut(project, name); target != "" {
		return diag.WithHint(&Error{fmt.Sprintf("is a link that leads out of the project, to %q", target)}, "put the file or folder itself in its place")
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil // missing, or a dangling link: reported where it is read
	}
	if !isOwn(info, owner) && !info.IsDir() {
		return foreign(info, name)
	}
	return forEveryone(info, name)
}

// openOwn opens a folder in a folder, and makes it if it is missing.
func openOwn(parent int, name string, owner int) (int, error) {
	const how = unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	child, err := unix.Openat(parent, name, how, 0)
	if !errors.Is(err, unix.ENOENT) {
		return child, err
	}
	if err := unix.Mkdirat(parent, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	if child, err = unix.Openat(parent, name, how, 0); err != nil || os.Geteuid() != 0 {
		return child, err
	}
	return child, errors.Join(unix.Fchown(child, owner, groupOf(parent)))
}

func closeIfOpen(fd int, err error) error {
	if err != nil {
		return nil
	}
	return unix.Close(fd)
}

// checkOwn returns what is wrong with a place, an [Error] with advice, or nil; nothing is wrong where
// nothing is.
func checkOwn(path, shown string, owner int, folder bool) error {
	info, err := os.Lstat(path)
	if err != nil {
		return nil
	}
	wrong := func(hint, format string, args ...any) error {
		return diag.WithHint(fmt.Errorf("%s %w", shown, &Error{fmt.Sprintf(format, args...)}), hint)
	}
	what := "file"
	if folder {
		what = "folder"
	}
	stat, _ := info.Sys().(*syscall.Stat_t)
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, _ := os.Readlink(path)
		return wrong("remove the link (rm "+shown+"), or put the "+what+" itself in its place",
			"is a symbolic link to %q; it must be a %s of the project itself, for k3splan writes there", target, what)
	case folder != info.IsDir() || !folder && !info.Mode().IsRegular():
		return wrong("remove it, or move it away", "is not a %s", what)
	case !isOwn(info, owner):
		return fmt.Errorf("%s %w", shown, foreign(info, shown))
	case info.Mode().Perm()&0o002 != 0, info.Mode().Perm()&0o020 != 0 && !isPrivateGroup(info):
		return wrong("chmod go-w "+shown, "can be changed by other users of this machine (mode %04o)", info.Mode().Perm())
	case !folder && stat != nil && stat.Nlink > 1:
		return wrong("remove it: k3splan makes it again", "has a second name elsewhere (a hard link)")
	}
	return nil
}

// isOwn reports whether something belongs to this process's user. To root the project's owner is as
// good: what root makes in a project belongs to that user.
func isOwn(info fs.FileInfo, owner int) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	uid := int(stat.Uid)
	return uid == os.Geteuid() || os.Geteuid() == 0 && uid == owner
}

// isPrivateGroup reports whether the group of something is that of its owner alone, by the usual convention
// of a group with the user's name: with it comes a umask under which a clone is writable by the group.
func isPrivateGroup(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	owner, err := user.LookupId(strconv.Itoa(int(stat.Uid)))
	if err != nil {
		return false
	}
	group, err := user.LookupGroupId(strconv.Itoa(int(stat.Gid)))
	return err == nil && group.Name == owner.Username
}

func foreign(info fs.FileInfo, shown string) error {
	name := "user " + strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Uid))
	if u, err := user.LookupId(name[len("user "):]); err == nil {
		name = u.Username
	}
	me := strconv.Itoa(os.Geteuid())
	if u, err := user.Current(); err == nil {
		me = u.Username
	}
	return diag.WithHint(&Error{"belongs to another user (" + name + ")"}, fmt.Sprintf("if you trust it: sudo chown -R %s %s; else remove it", me, shown))
}

func folderOwner(folder string) (int, error) {
	info, err := os.Stat(folder)
	if err != nil {
		return 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return os.Geteuid(), nil
	}
	return int(stat.Uid), nil
}

func ownerOf(fd int) (int, error) {
	var stat unix.Stat_t
	err := unix.Fstat(fd, &stat)
	return int(stat.Uid), err
}

func groupOf(fd int) int {
	var stat unix.Stat_t
	if unix.Fstat(fd, &stat) != nil {
		return -1
	}
	return int(stat.Gid)
}

// Inherit hands a file or folder that root has just made, with everything in it, to the owner of the
// folder it is in: after a `sudo k3splan` its owner can still use the project. For other users it does
// nothing.
func Inherit(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Uid == 0 {
		return nil
	}
	return filepath.WalkDir(path, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(name, int(stat.Uid), int(stat.Gid)) // not through a link that was put there in between
	})
}

// inheritFrom hands an open file that root has made to the owner of a folder.
func inheritFrom(file *os.File, folder string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(folder)
	if err != nil {
		return err
	}
	return inherit(file, info)
}

// inherit hands an open file that root has made to the owner of something else.
func inherit(file *os.File, like fs.FileInfo) error {
	stat, ok := like.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || stat.Uid == 0 {
		return nil
	}
	return file.Chown(int(stat.Uid), int(stat.Gid))
}

// SafeParent refuses a folder in which another user could exchange what this process makes there, as
// sshd does with the folders above a file of authorized keys.
func SafeParent(folder string) error {
	absolute, err := filepath.Abs(folder)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(absolute)
	if err != nil {
		return err
	}
	for {
		info, err := os.Stat(real)
		if err != nil {
			return err
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		switch {
		case ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid():
			return fmt.Errorf("%s belongs to another user", real)
		case info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0:
			return fmt.Errorf("%s can be changed by other users (mode %04o)", real, info.Mode().Perm())
		}
		parent := filepath.Dir(real)
		if parent == real {
			return nil
		}
		real = parent
	}
}
