#!/usr/bin/env bash
# Linux 6.18, util-linux 2.38.1: is a disk in use while a loop device over a part of it is mounted?
#
# Guess:     the kernel's exclusive open (O_EXCL), which fails while a partition, device-mapper or md uses the disk, fails
#            here too, and lsblk shows the loop device below the disk.
# Behaviour: it succeeds: a loop device opens what is behind it like any program. lsblk shows no child and no mount point,
#            /sys/block/DISK/holders is empty, and mkfs without --force would go ahead. Only losetup (backing_file in sysfs)
#            knows.
# Seen:      children of the disk: none; holders: none; exclusive open: succeeded
# Needs root for loop devices, python3 and a mount namespace. Fails if the behaviour changes.
set -euo pipefail
work=$(mktemp -d) disk='' over=''
trap '[ -z "$over" ] || losetup --detach "$over"; [ -z "$disk" ] || losetup --detach "$disk"; rm -rf "$work"' EXIT
uname -sr
lsblk --version
truncate --size 16M "$work/disk.img"
disk=$(losetup --find --show "$work/disk.img")
over=$(losetup --find --show --offset 1048576 "$disk")
mkfs.ext4 -q "$over"
mkdir "$work/mounted"
unshare --mount --propagation private bash -s "$disk" "$over" "$work/mounted" << 'END'
set -eu
mount "$2" "$3"
children=$(lsblk --noheadings --raw --output NAME "$1" | sed 1d | xargs)
holders=$(ls "/sys/block/$(basename "$1")/holders")
echo "children of the disk: ${children:-none}; holders: ${holders:-none}"
[ -z "$children$holders" ]
python3 -c 'import os, sys; os.close(os.open(sys.argv[1], os.O_RDWR | os.O_EXCL))' "$1"
echo "exclusive open: succeeded"
# a partition or a file system on the disk itself is noticed
if python3 -c 'import os, sys; os.close(os.open(sys.argv[1], os.O_RDWR | os.O_EXCL))' "$2" 2> /dev/null; then
  echo "the mounted loop device can be opened exclusively, too" >&2
  exit 1
fi
END
