// Package bootstick finds the removable disks of this machine and writes an
// image to one of them, in such a way that no other disk can be hit by a slip.
//
// A write goes through four steps, and each needs the result of the one before:
// [Inspect] looks at the machine, [Machine.Choose] turns a path into a [Target]
// or refuses it, [Confirm] asks the person, and [Write] writes, reads back and
// compares. A [Target] cannot be made in any other way, and Write looks at the
// machine once more before the first byte.
//
// Three things stand between a slip and the wrong disk, independent of each
// other: the verdict over what lsblk, mountinfo, swaps and sysfs say; the
// comparison of the opened device with the one that was shown; and the kernel's
// own exclusive open, which knows mounts of other namespaces too.
package bootstick
