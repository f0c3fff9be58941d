// Package stick makes boot sticks: it finds the removable disks of this machine, builds a host's
// installer image, and writes it to one of them in such a way that a mistake cannot hit another disk.
// Beside the image it puts what must not be in the Nix store; see [Data]. [Make] does all of it.
//
// A write goes through four steps, and each needs the result of the one before: [Inspect] reads the
// state of the machine, [Machine.Choose] turns a path into a [Target] or refuses it, [Confirm] asks the
// user, and [Write] writes, reads back and compares. A [Target] cannot be made in any other way, and
// Write inspects the machine once more before the first byte.
//
// Three checks keep a mistake away from the wrong disk, independent of each other: the verdict on what
// lsblk, /proc and sysfs report; the comparison of the opened device with the one that was shown; and
// the kernel's own exclusive open, which covers mounts in other namespaces too.
//
// The installer itself is a shell script, templates/installer/setup.sh; its tests are in this package.
package stick
