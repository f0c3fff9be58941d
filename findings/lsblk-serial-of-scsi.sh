#!/usr/bin/env bash
# lsblk of util-linux 2.38.1: which of a SCSI disk's serials is SERIAL?
#
# Guess:     SERIAL is udev's ID_SERIAL_SHORT, as for SATA and NVMe disks and as most scripts compare it.
# Behaviour: SCSI_IDENT_SERIAL (which sg3-utils' rules set), else ID_SCSI_SERIAL, comes before ID_SERIAL_SHORT, which
#            is the world wide name of a SAS disk; ID_SERIAL comes last. WWN is ID_WWN_WITH_EXTENSION. So one disk has up to
#            five names, and installing sg3-utils changes the one that lsblk shows.
# Seen:      all four: sg3; without the first: scsi; without both: short; ID_SERIAL alone: long
# Needs root for a loop device and a mount namespace. Fails if the behaviour changes.
set -euo pipefail
work=$(mktemp -d) && trap 'losetup --detach "$disk" 2> /dev/null || true; rm -rf "$work"' EXIT
lsblk --version
truncate --size 1M "$work/disk.img"
disk=$(losetup --find --show "$work/disk.img")
cat > "$work/inside.sh" << 'END'
set -eu
mount -t tmpfs tmpfs /run && mkdir -p /run/udev/data
record=/run/udev/data/b$(lsblk -dnro MAJ:MIN "$1")
shows() { # SERIAL PROPERTY...: what lsblk shows of a disk with these properties
  local expected=$1 seen
  shift
  printf 'E:%s\n' ID_BUS=scsi ID_WWN=0x5000 ID_WWN_WITH_EXTENSION=0x5000abcd "$@" > "$record"
  seen=$(lsblk -dno SERIAL "$disk" | xargs)
  echo "$*: $seen, $(lsblk -dno WWN "$disk" | xargs)"
  [ "$seen" = "$expected" ]
}
disk=$1
shows sg3 SCSI_IDENT_SERIAL=sg3 ID_SCSI_SERIAL=scsi ID_SERIAL_SHORT=short ID_SERIAL=long
shows scsi ID_SCSI_SERIAL=scsi ID_SERIAL_SHORT=short ID_SERIAL=long
shows short ID_SERIAL_SHORT=short ID_SERIAL=long
shows long ID_SERIAL=long
[ "$(lsblk -dno WWN "$disk" | xargs)" = 0x5000abcd ]
END
unshare --mount --propagation private bash "$work/inside.sh" "$disk"
