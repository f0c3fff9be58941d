package files

import "golang.org/x/sys/unix"

// renameNoReplace renames a file in one step, unless the new name is taken. It is a variable for tests.
var renameNoReplace = func(from, to string) error {
	return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
}
