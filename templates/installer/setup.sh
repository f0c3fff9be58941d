#!/usr/bin/env bash
# Installs the host that this medium was made for, and powers the machine off. It starts by itself
# (system_setup.service), or by hand:
#
#   setup [--check] [--wipe] [--found-cluster] [--stay]
#
#   --check          say what would be done, and change nothing
#   --wipe           allow erasing a disk that is not blank (kernel parameter: k3splan.wipe)
#   --found-cluster  found a k3s cluster without asking the other servers of the plan
#                    (kernel parameter: k3splan.found-cluster)
#   --stay           do not power off
#
# Everything that can be doubtful is checked before anything is changed: `refuse` is only called before
# `begin`, and everything that changes a disk comes after it. Exit status: 0 done, 1 failed halfway, 2 wrong
# usage, 3 refused, and nothing was changed.
set -euo pipefail
shopt -s inherit_errexit
umask 022

config=/etc/k3splan/installer.json
root=/mnt                    # where the new system is mounted
work=/run/k3splan-setup      # in memory
stick=$work/stick            # the stick's own partition; see `open_stick`
unfinished=.k3splan-unfinished

say() { printf '%s\n' "$*"; }

# The reason goes to a file, which is checked before the first change and at the end: no refusal is lost, in
# however deep a subshell it happens.
refuse() {
  printf '%s\n' "$@" > "$work/reason"
  exit 3
}
fail() {
  printf '%s\n' "$@" > "$work/reason"
  exit 1
}

# of FILTER: a value of the configuration, empty for null
of() { jq -r "$1 // empty" "$config"; }
has_parameter() {
  local parameters parameter
  read -r -a parameters < /proc/cmdline
  for parameter in "${parameters[@]}"; do
    if [ "$parameter" = "$1" ]; then return 0; fi
  done
  return 1
}
# has LINES LINE: whether it is one of them. Without a pipe: one that closes early makes `pipefail` turn a
# match into a failure.
has() { grep -qxF -- "$2" <<< "$1"; }
count() { grep -c . <<< "$1" || true; }
is_efi() { [ -d /sys/firmware/efi ]; }

## Disks

# disk_of DEVICE: the whole disk that a disk or partition belongs to
disk_of() {
  local number
  number=$(lsblk --nodeps --noheadings --raw --output MAJ:MIN "$1") || return 1
  disk_of_number "$number"
}
disk_of_number() {
  local sys
  sys=$(readlink -e "/sys/dev/block/$1") || return 1
  [ ! -e "$sys/partition" ] || sys=$(dirname "$sys")
  lsblk --nodeps --noheadings --raw --output PATH "/dev/$(basename "$sys")"
}

# partition_of DISK NUMBER: its device, under whatever name (sda1, nvme0n1p1, mmcblk0p1), as soon as it exists
partition_of() {
  local file name tries
  for tries in $(seq 50); do
    for file in /sys/class/block/"$(basename "$(readlink -e "$1")")"/*/partition; do
      [ "$(cat "$file" 2> /dev/null)" = "$2" ] || continue
      name=$(basename "$(dirname "$file")")
      [ -b "/dev/$name" ] || continue
      printf '/dev/%s\n' "$name"
      return
    done
    [ "$tries" -lt 50 ] || break
    sleep 0.2
  done
  return 1
}

# labelled LABEL: the devices with a file system of that label, read from the disks now
labelled() {
  local status=0 found
  found=$(blkid -c /dev/null -o device -t LABEL="$1") || status=$?
  # 2: none found
  [ "$status" = 0 ] || [ "$status" = 2 ] || fail "blkid could not read the disks (exit status $status)"
  [ -z "$found" ] || sort -u <<< "$found"
}

# serials DISK: every serial and world wide name by which lsblk or udev know it, a line "KIND SERIAL" for each.
# KIND is `lsblk`, `udev`, or one of them with `-virtio`, which keeps the first 20 characters only.
serials() {
  local properties
  properties=$(udevadm info --query=property --name="$1") || fail "udevadm could not read the serial of $1"
  {
    lsblk --nodeps --noheadings --output SERIAL "$1" | sed 's/^/lsblk=/'
    printf '%s\n' "$properties"
    lsblk --nodeps --noheadings --output WWN "$1" | sed 's/^/wwn=/'
  } | awk -F= '
    { value = substr($0, length($1) + 2); gsub(/^[ \t]+|[ \t]+$/, "", value); of[$1] = value }
    function add(key,  value, kind) {
      value = of[key]
      if (value == "" || value in seen) return
      seen[value] = 1
      # virtio has one serial, and no bus for udev
      kind = key == "lsblk" || key == "wwn" ? "lsblk" : "udev"
      if (of["ID_BUS"] == "" && of["ID_SERIAL_SHORT"] == "" && value == of["ID_SERIAL"]) kind = kind "-virtio"
      print kind, value
    }
    END {
      add("lsblk"); add("wwn")
      # in the order in which lsblk prefers them (lsblk-properties.c of util-linux)
      add("SCSI_IDENT_SERIAL"); add("ID_SCSI_SERIAL"); add("ID_SERIAL_SHORT"); add("ID_SERIAL")
      add("ID_WWN_WITH_EXTENSION"); add("ID_WWN")
    }'
}

# disks_with SERIAL: the whole disks with exactly this serial. What lsblk shows counts first, because the plan's
# serials come from there. Case does not matter, nor whether a blank is written as `_`, as udev does.
disks_with() {
  local wanted disk type kind serial known shown='' others=''
  wanted=${1,,}
  wanted=${wanted//[[:space:]]/_}
  while read -r disk type; do
    [ "$type" = disk ] || [ "$type" = loop ] || continue
    known=$(serials "$disk")
    while read -r kind serial; do
      serial=${serial,,}
      serial=${serial//[[:space:]]/_}
      [ -n "$serial" ] || continue
      if [ "$serial" = "$wanted" ] || [ "${kind#*-}/$serial" = "virtio/${wanted:0:20}" ]; then
        case $kind in
          lsblk*) shown+=$disk$'\n' ;;
          *) others+=$disk$'\n' ;;
        esac
        break
      fi
    done <<< "$known"
  done < <(lsblk --nodeps --noheadings --raw --output PATH,TYPE)
  printf '%s' "${shown:-$others}"
}

describe() { # DISK
  local serial
  serial=$(serials "$1")
  serial=${serial%%$'\n'*}
  serial=${serial#* }
  say "$1: $(lsblk --nodeps --noheadings --output SIZE,MODEL "$1" | awk '{ $1 = $1; print }'), serial ${serial:-unknown}"
}

all_disks() {
  local disk type
  while read -r disk type; do
    [ "$type" != disk ] || describe "$disk"
  done < <(lsblk --nodeps --noheadings --raw --output PATH,TYPE)
}

# boot_disks: the disks that this system runs from, and the stick itself
boot_disks() {
  local point number device volume found
  for point in / /iso /nix/store /nix/.ro-store /nix/.rw-store "$stick"; do
    for number in $(findmnt --noheadings --raw --output MAJ:MIN --mountpoint "$point" || true); do
      disk_of_number "$number" || true # 0:N is not a device
    done
  done
  # once it is copied to memory, the medium is not mounted any more. (Only images whose stage 1 is a script have
  # root=LABEL= on the kernel's command line.)
  volume=$(jq -r .volume "$config") || fail "$config cannot be read"
  found=$(labelled "$volume")
  for device in $found; do disk_of "$device"; done
}

# content DISK: why it is not blank, line by line. Known signatures are not enough: a disk whose partition
# table was damaged is one that somebody wants to rescue.
content() {
  local signatures size status offset end=$((1024 * 1024))
  # assigned first, so that a failing program is not taken for an empty answer
  signatures=$(wipefs --no-act --noheadings --output TYPE,LABEL "$1") || fail "wipefs could not read $1"
  [ -z "$signatures" ] || say "  signatures: ${signatures//$'\n'/, }"
  lsblk --noheadings --raw --output PATH,SIZE,FSTYPE,LABEL "$1" | sed 1d | sed 's/^/  on it: /'
  [ -z "$signatures" ] || return 0
  size=$(blockdev --getsize64 "$1") || fail "the size of $1 is unknown"
  [ "$size" -gt $((2 * end)) ] || fail "$1 is too small ($size bytes)"
  for offset in 0 $((size - end)); do
    status=0
    cmp --quiet --bytes=$end --ignore-initial="$offset":0 "$1" /dev/zero || status=$?
    [ "$status" -lt 2 ] || fail "$1 cannot be read"
    [ "$status" = 0 ] || say "  unknown data at byte $offset or after it"
  done
}

# may_be_erased DISK: refuses a disk that must not be erased
may_be_erased() {
  local disk=$1 found
  found=$(boot_disks)
  ! has "$found" "$disk" ||
    refuse "$disk is the disk that this system was booted from; it will not be erased"
  [ "$(lsblk --nodeps --noheadings --raw --output RO "$disk")" = 0 ] || refuse "$disk is read-only"
  found=$(lsblk --noheadings --raw --output MOUNTPOINT "$disk" | grep . || true)
  [ -z "$found" ] || refuse "$disk is in use at ${found//$'\n'/ }" "unmount it, then: setup"
  found=$(loops_over "$disk")
  [ -z "$found" ] || refuse "$disk is in use by ${found//$'\n'/ }" "losetup --detach ${found//$'\n'/ }, then: setup"
  found=$(stacked "$disk")
  if [ -n "$found" ] && ! wiping_allowed; then
    refuse "$disk is not blank: it is part of ${found//$'\n'/ }" "$(how_to_allow)"
  fi
  alone "$disk" "$found"
  found=$(content "$disk")
  [ -n "$found" ] || return 0
  say "$disk is not blank:"
  say "$found"
  wiping_allowed || refuse "$disk is not blank, and erasing it is not allowed:" "$found" "$(how_to_allow)"
}

# loops_over DISK: the loop devices over it or a part of it, which the kernel does not count as its users
loops_over() {
  local parts loop file
  parts=$(lsblk --noheadings --raw --output PATH "$1")
  while read -r loop file; do
    file=$(readlink -e "$file") || continue
    if has "$parts" "$file"; then printf '%s\n' "$loop"; fi
  done < <(losetup --noheadings --raw --output NAME,BACK-FILE)
}

# stacked DISK: volumes and arrays that are built on it, upper ones first
stacked() { lsblk --noheadings --raw --output PATH,TYPE "$1" | awk '$2 != "part" && $2 != "disk" && $2 != "loop" && !seen[$1]++ { print $1 }' | tac; }

# alone DISK DEVICES: refuses devices that are built on other disks as well
alone() {
  local device other others
  for device in $2; do
    others=$(lsblk --inverse --noheadings --raw --output PATH,TYPE "$device" | awk '$2 == "disk" || $2 == "loop" { print $1 }')
    for other in $others; do
      [ "$other" = "$1" ] || refuse "$device on $1 is built on $other too, and the data of both would be lost" "take it apart by hand, then: setup"
    done
  done
}

# release DISK: takes apart what is built on it
release() {
  local device
  for device in $(stacked "$1"); do
    case $(lsblk --nodeps --noheadings --raw --output TYPE "$device") in
      raid*|linear) mdadm --stop "$device" ;;
      *) dmsetup remove "$device" ;;
    esac
  done
  [ -z "$(stacked "$1")" ] || fail "$1 is still part of $(stacked "$1")"
}

how_to_allow() {
  if [ -e "$stick/wiped" ]; then
    say "The stick's permission to erase is used up: $(cat "$stick/wiped")"
    [ ! -e "$stick/installed" ] || say "If this machine was installed by it: unplug the stick and switch on again."
  fi
  say "To allow it: k3splan boot-stick … --wipe, the kernel parameter k3splan.wipe, or setup --wipe on this machine"
}

## The stick's own partition: `host`, `id`, `wipe` if erasing is allowed, secrets/; and what is recorded on
## it: `wiped`, `installed`, `history`, `setup.log`

open_stick() {
  local devices device
  mountpoint -q "$stick" && return
  devices=$(labelled k3splan)
  case $(count "$devices") in
    0) say "the stick has no partition of k3splan, so no secrets and no permission to erase"; return ;;
    1) device=$devices ;;
    *) refuse "several sticks of k3splan are plugged in: ${devices//$'\n'/ }" "keep only the one that was made for $host" ;;
  esac
  mkdir -p "$stick"
  mount -t ext2 -o "ro,$stick_options" "$device" "$stick" || refuse "$device, the stick's own partition, cannot be mounted"
  [ "$(cat "$stick/host")" = "$host" ] ||
    refuse "the stick was made for $(cat "$stick/host"), and the image on it for $host" "write it again: k3splan boot-stick $host …"
}

stick_options=nosuid,nodev,noexec

# write_stick NAME CONTENT: writes a file of the stick durably; it is read back from the stick
write_stick() {
  local device
  mountpoint -q "$stick" || return 0
  device=$(findmnt --noheadings --raw --output SOURCE --mountpoint "$stick") || return 1
  mount -o remount,rw "$stick" || return 1
  if printf '%s\n' "$2" > "$stick/$1.new"; then mv "$stick/$1.new" "$stick/$1"; fi
  umount "$stick" || return 1
  blockdev --flushbufs "$device" || return 1
  mount -t ext2 -o "ro,$stick_options" "$device" "$stick" || return 1
  [ "$(cat "$stick/$1" 2> /dev/null)" = "$2" ]
}

machine() {
  local uuid
  uuid=$(cat /sys/class/dmi/id/product_uuid 2> /dev/null || true)
  say "machine ${uuid:-unknown} with $(cat /sys/class/net/*/address 2> /dev/null | grep -v '^00:00:00:00:00:00$' | sort | xargs)"
}
now() { date --utc +%Y-%m-%dT%H:%M:%SZ; }

wiping_allowed() {
  [ -n "$wipe" ] && return
  has_parameter k3splan.wipe && [ ! -e "$work/wiped" ] && return
  [ -e "$stick/wipe" ] && [ ! -e "$stick/wiped" ]
}

# use_up_permission: before the first change, whether it is needed or not. A second boot, or another machine,
# finds none.
use_up_permission() {
  touch "$work/wiped"
  [ -e "$stick/wipe" ] && [ ! -e "$stick/wiped" ] || return 0
  write_stick wiped "$(now), $(machine)" ||
    refuse "the stick's permission to erase cannot be marked as used: the stick is write-protected or broken"
}

## What will be done

# check_tools: a program that turns out to be missing halfway would leave half an installation
check_tools() {
  local tool
  for tool in awk blkid blockdev cmp findmnt jq losetup lsblk mkfs.ext4 mkfs.vfat mount nix-store nixos-generate-config nixos-install sfdisk udevadm wipefs; do
    command -v "$tool" > /dev/null || refuse "this system has no program $tool"
  done
}

# this_machine: refuses any other machine than that of the plan
this_machine() {
  local mac wanted
  wanted=$(of .mac)
  if [ -n "$wanted" ]; then
    mac=$(cat /sys/class/net/*/address)
    grep -qixF -- "$wanted" <<< "$mac" ||
      refuse "this is another machine: no interface has the MAC address $wanted of $host" "its MAC addresses: $(xargs <<< "$mac")"
  fi
  case $boot in
    efi) is_efi || refuse "the machine was booted in BIOS mode, and $host boots by EFI" "choose the stick's UEFI entry in the firmware's boot menu, or set boot to legacy in the plan" ;;
    legacy) ! is_efi || refuse "the machine was booted by EFI, and $host boots in BIOS mode" "choose the stick's other entry in the firmware's boot menu, or set boot to efi in the plan" ;;
    *) fail "the image has an unknown boot mode \"$boot\"" ;;
  esac
}

# choose_way: sets way (disko, own, existing) and disks, or refuses
choose_way() {
  local device found
  disks=()
  if [ -n "$(of .disko)" ]; then
    way=disko
    while IFS= read -r device; do
      found=$(readlink -e "$device") || true
      [ -b "$found" ] ||
        refuse "the disk $device of partitioning/$host.nix does not exist: is this $host?" "$(all_disks)"
      found=$(disk_of "$found") || refuse "$device is not a disk"
      [ "$(readlink -e "$device")" = "$(readlink -e "$found")" ] || refuse "$device of partitioning/$host.nix is not a whole disk"
      ! has "$(printf '%s\n' "${disks[@]}")" "$found" || refuse "partitioning/$host.nix names $found twice"
      disks+=("$found")
    done < <(jq -r '.disko.disks[]' "$config")
    [ ${#disks[@]} -gt 0 ] || fail "the disko layout names no disk"
  elif [ -n "$serial" ]; then
    found=$(disks_with "$serial")
    if [ -z "$found" ]; then # some disks are slow to appear
      sleep "$(of .pause)"
      udevadm settle || true
      found=$(disks_with "$serial")
    fi
    [ "$(count "$found")" != 0 ] || refuse "no disk has the serial $serial of $host: is this $host?" "$(all_disks)"
    [ "$(count "$found")" = 1 ] || refuse "several disks have the serial $serial:" "$found"
    way=own disks=("$found")
    [ "$(jq .labelled "$config")" = true ] || way=existing
  else
    way=existing
  fi
}

# check_disks: refuses to begin because of anything about them
check_disks() {
  local disk
  check_other_devices
  if [ $way = existing ]; then
    check_existing
    return
  fi
  [ $way != disko ] || check_keys
  if [ $way = own ]; then
    if resumes "${disks[0]}"; then
      say "this stick has begun to install $host on ${disks[0]}, and continues there"
      way=resume
      return
    fi
    others_labelled
  fi
  for disk in "${disks[@]}"; do may_be_erased "$disk"; done
}

# check_other_devices: what the system needs beside the disks that it is installed on
check_other_devices() {
  local device
  while IFS= read -r device; do
    device_for "$device" > /dev/null || exit $?
  done < <(jq -r '.otherDevices[]?' "$config")
}

# check_keys: a layout that cannot read its keys would fail once the disk is erased
check_keys() {
  local file
  while IFS= read -r file; do
    [ -r "$file" ] ||
      refuse "the layout of partitioning/$host.nix is encrypted with the key in $file, which does not exist here" \
        "put the key there, or plug in its device, then: setup"
  done < <(jq -r '.disko.keyFiles[]?' "$config")
}

# others_labelled: the new system finds its file systems by label, so no other may have the same
others_labelled() {
  local label device found
  for label in nixos boot; do
    found=$(labelled $label)
    for device in $found; do
      [ "$(disk_of "$device")" = "${disks[0]}" ] ||
        refuse "$device already has a file system labelled \"$label\", and $host could start from the wrong one" \
          "take that disk out, or change the label"
    done
  done
}

# look DEVICE OPTIONS COMMAND...: runs the command while the file system is mounted at $work/look, unchanged
look() {
  local device=$1 options=ro,nosuid,nodev,noexec${2:+,$2} status=0
  shift 2
  case $(blkid -p -s TYPE -o value "$device") in
    ext3|ext4) options+=,noload ;;
    xfs) options+=,norecovery ;;
  esac
  mkdir -p "$work/look"
  mount -o "$options" "$device" "$work/look" || return 2
  "$@" || status=1
  umount "$work/look"
  return $status
}
# shellcheck disable=SC2317 # called by look
is_ours() { [ "$(cat "$work/look/$unfinished" 2> /dev/null)" = "$(token)" ]; }
# shellcheck disable=SC2317
is_empty() { [ -z "$(find "$work/look" -mindepth 1 -maxdepth 1 ! -name lost+found ! -name "$unfinished" -print -quit)" ]; }
# token: identifies an installation that this stick began
token() { say "$host $(cat "$stick/id" 2> /dev/null || echo "without a stick")"; }

# resumes DISK: whether this very stick made the file systems on it and did not finish
resumes() {
  local nixos
  nixos=$(labelled nixos)
  [ -e "$stick/id" ] && [ "$(count "$nixos")" = 1 ] && [ "$(disk_of "$nixos")" = "$1" ] || return 1
  [ -z "$(lsblk --noheadings --raw --output MOUNTPOINT "$1" | grep . || true)" ] || return 1
  if [ "$boot" = efi ]; then
    [ "$(labelled boot)" = "$(partition_of "$1" 1)" ] || return 1
  fi
  look "$nixos" '' is_ours
}

# device_for DEVICE: the one device that a path in the configuration means
device_for() {
  local found
  case $1 in
    /dev/disk/by-label/*)
      found=$(labelled "${1#/dev/disk/by-label/}")
      case $(count "$found") in
        0) refuse "no file system is labelled \"${1##*/}\"" "make one, or set the serial of a disk in the plan" "$(all_disks)" ;;
        1) printf '%s\n' "$found" ;;
        *) refuse "several file systems are labelled \"${1##*/}\": ${found//$'\n'/ }" ;;
      esac ;;
    *) readlink -e "$1" || refuse "$1 of the configuration of $host does not exist: is this $host?" "$(all_disks)" ;;
  esac
}

# file_systems: those that the configuration mounts, in order: mount point, device, options
file_systems() { jq -r '.fileSystems[] | [.mountPoint, .device, ((.options // []) | join(","))] | @tsv' "$config"; }

check_existing() {
  local point device options disk status booted root_found=
  booted=$(boot_disks)
  while IFS=$'\t' read -r point device options; do
    # with an explicit status: a refusal ends its own subshell only
    device=$(device_for "$device") || exit $?
    disk=$(disk_of "$device") || refuse "$device is not on a disk"
    ! has "$booted" "$disk" || refuse "$device is on the disk that this system was booted from"
    [ -z "$(lsblk --noheadings --raw --output MOUNTPOINT "$device" | grep . || true)" ] || refuse "$device is mounted" "unmount it, then: setup"
    if [ ${#disks[@]} -gt 0 ] && [ "$disk" != "${disks[0]}" ]; then
      refuse "$device is not on the disk with the serial $serial"
    fi
    [ "$point" != /boot ] || [ "$boot" != legacy ] || check_grub_room "$disk"
    [ "$point" = / ] || continue
    root_found=$device
    status=0
    look "$device" "$options" is_empty || status=$?
    [ "$status" != 2 ] || refuse "$device cannot be mounted${options:+ with the options $options}"
    if [ "$status" = 1 ] && ! look "$device" "$options" is_ours && ! wiping_allowed; then
      refuse "the file system on $device is not empty, and installing over it is not allowed" "$(how_to_allow)"
    fi
  done < <(file_systems)
  [ -n "$root_found" ] || refuse "the configuration of $host mounts no file system at /"
  if [ "$boot" = legacy ] && ! has "$(file_systems | cut -f 1)" /boot; then check_grub_room "$(disk_of "$root_found")"; fi
}

# check_grub_room DISK: GRUB needs a place outside of the file systems
check_grub_room() {
  local table start
  [ -n "$(of .grub)" ] || return 0
  table=$(sfdisk --dump "$1" 2> /dev/null) || refuse "$1 has no partition table, so GRUB has no room on it" "partition the disk, then: setup"
  case $table in
    *'label: gpt'*)
      grep -qi 'type=21686148-6449-6E6F-744E-656564454649' <<< "$table" ||
        refuse "$1 has no BIOS boot partition, without which GRUB has no room on a GPT disk" \
          "make one of 1 MiB (sgdisk --new=0:0:+1M --typecode=0:EF02 $1), then: setup"
      ;;
    *)
      start=$(awk -F 'start= *' 'NF > 1 && (first == "" || $2 + 0 < first) { first = $2 + 0 } END { print first }' <<< "$table")
      [ -z "$start" ] || [ "$start" -ge 128 ] ||
        refuse "the first partition of $1 begins at sector $start, which leaves GRUB no room before it" \
          "partition the disk again, with the first partition at 1 MiB"
      ;;
  esac
}

# check_room: whether the system fits, if its size is known
check_room() {
  local needed available point device files
  [ -z "$recipe" ] || return 0
  mapfile -t files < <(nix-store --query --requisites "$system")
  [ ${#files[@]} -gt 0 ] || fail "nix-store does not know the system $system"
  needed=$(nix-store --query --size "${files[@]}" | awk '{ sum += $1 } END { printf "%.0f\n", sum * 1.05 }') || fail "the size of $system is unknown"
  case $way in
    own) available=$(($(blockdev --getsize64 "${disks[0]}") - 2 * 1024 * 1024)) device=${disks[0]}
      [ "$boot" != efi ] || available=$((available - 1024 * 1024 * 1024)) ;;
    existing)
      point=$(file_systems | cut -f 1 | grep -xE '/|/nix|/nix/store' | sort | tail -n 1)
      device=$(device_for "$(file_systems | awk -F '\t' -v point="$point" '$1 == point { print $2 }')") || exit $?
      available=$(blockdev --getsize64 "$device") ;;
    disko) available=0 device="${disks[*]}"
      for point in "${disks[@]}"; do available=$((available + $(blockdev --getsize64 "$point"))); done ;;
    *) return 0 ;; # it was checked when the installation began
  esac
  [ $way = own ] || needed=$((needed / 2)) # the file system may compress
  [ "$available" -ge "$needed" ] || refuse "$host needs $((needed / 1024 / 1024)) MiB, and $device has room for $((available / 1024 / 1024)) MiB" "use a larger disk"
  check_esp_room
}

# check_esp_room: kernel and initrd are copied to the EFI system partition
check_esp_room() {
  local needed available point device
  [ "$boot" = efi ] && [ -e "$system/kernel" ] && [ -e "$system/initrd" ] || return 0
  needed=$(($(stat -L -c %s "$system/kernel") + $(stat -L -c %s "$system/initrd") + 2 * 1024 * 1024))
  point=$(of '.espMounts[0]')
  case $way in
    disko) available=$(of .espSize) device="the EFI system partition of partitioning/$host.nix" ;;
    existing)
      # a boot loader that reads other file systems keeps only itself there
      [ "$boot_loader" != grub ] || [ "$point" = /boot ] || return 0
      device=$(device_for "$(file_systems | awk -F '\t' -v point="$point" '$1 == point { print $2 }')") || exit $?
      available=$(blockdev --getsize64 "$device") ;;
    *) return 0 ;; # the installer makes it large enough
  esac
  [ -z "$available" ] || [ "$available" -ge "$needed" ] ||
    refuse "kernel and initrd of $host need $((needed / 1024 / 1024)) MiB, and $device has $((available / 1024 / 1024)) MiB" "make it larger: 512 MiB or more"
}

# choose_system: sets system and recipe. The init server founds a cluster, unless one of the other servers
# answers: then it joins that one's cluster instead of founding a second one beside it.
choose_system() {
  local key='' address
  joins=
  if [ "$(jq '.joining | length' "$config")" -gt 0 ] && [ -z "$found_cluster" ]; then
    reach_network
    while IFS= read -r address; do
      if timeout 5 bash -c ": < /dev/tcp/$address/6443" 2> /dev/null; then
        joins=$address
        break
      fi
    done < <(jq -r '.joining | keys[]' "$config")
  fi
  if [ -n "$joins" ]; then
    key=".joining[\"$joins\"]"
    say "the server at $joins answers: $host joins its cluster instead of founding one"
  fi
  system=$(of "$key.path")
  recipe=$(of "$key.recipe")
  [ -n "$recipe" ] || [ -x "$system/bin/switch-to-configuration" ] || refuse "the image does not contain the system $system"
}

reach_network() {
  local gateway tries
  gateway=$(of .gateway)
  for tries in 1 2 3 4 5 6 7 8 9 10; do
    ping -c 1 -W 2 "$gateway" > /dev/null 2>&1 && return
    # some exist but do not answer
    ip -4 neigh show to "$gateway" 2> /dev/null | grep -q lladdr && return
    say "waiting for the network ($tries of 10)"
    sleep "$(of .pause)"
  done
  refuse "the gateway $gateway does not answer, so the other servers cannot be asked whether the cluster is running" \
    "To found a new one without asking: setup --found-cluster, or the kernel parameter k3splan.found-cluster"
}

announce() {
  local disk
  say
  say "installing $host"
  case $way in
    disko|own) for disk in "${disks[@]}"; do say "  ERASING $(describe "$disk")"; done ;;
    resume) say "  on $(describe "${disks[0]}")" ;;
    existing) say "  on the existing file systems" ;;
  esac
}

## Doing it

# begin: nothing is refused after this
begin() {
  local pause
  pause=$(of .pause)
  say "starting in $pause seconds; switch the machine off to prevent it"
  sleep "$pause"
  [ ! -e "$work/reason" ] || exit 3
  use_up_permission
  touch "$work/changed"
}

partition() {
  local disk=${disks[0]}
  release "$disk"
  # partitions first: their old file systems would reappear in new ones
  lsblk --noheadings --raw --output PATH,TYPE "$disk" | awk '$2 == "part" { print $1 }' | xargs --no-run-if-empty wipefs --all --force --quiet
  wipefs --all --force --quiet "$disk"
  if [ "$boot" = efi ]; then
    sfdisk --quiet --wipe always --wipe-partitions always "$disk" << 'END'
label: gpt
start=1MiB, size=1GiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="boot"
type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="nixos"
END
  else
    sfdisk --quiet --wipe always --wipe-partitions always "$disk" << 'END'
label: dos
start=1MiB, type=83, bootable
END
  fi
  udevadm settle || true
  find_partitions "$disk"
  [ -z "$esp" ] || mkfs.vfat -F 32 -n boot "$esp"
  mkfs.ext4 -q -F -L nixos "$nixos"
  udevadm settle || true
}

# find_partitions DISK: sets esp (empty in BIOS mode) and nixos
find_partitions() {
  esp=
  if [ "$boot" = efi ]; then
    esp=$(partition_of "$1" 1) || fail "the first partition of $1 did not appear"
    nixos=$(partition_of "$1" 2) || fail "the second partition of $1 did not appear"
  else
    nixos=$(partition_of "$1" 1) || fail "the partition of $1 did not appear"
  fi
}

mount_target() {
  local point device options command
  mkdir -p "$root"
  case $way in
    disko)
      mapfile -t command < <(jq -r '.disko.command[]' "$config")
      "${command[@]}" || fail "disko failed"
      mountpoint -q "$root" || fail "disko mounted nothing at $root"
      ;;
    own|resume)
      [ $way = resume ] || partition
      find_partitions "${disks[0]}"
      mount "$nixos" "$root"
      if [ -n "$esp" ]; then
        mkdir -p "$root/boot"
        mount -o umask=0077 "$esp" "$root/boot"
      fi
      ;;
    existing)
      while IFS=$'\t' read -r point device options; do
        device=$(device_for "$device") || exit $?
        mkdir -p "$root$point"
        mount ${options:+-o "$options"} "$device" "$root$point"
      done < <(file_systems)
      ;;
  esac
  token > "$root/$unfinished"
}

# place_secrets: before nixos-install, because the activation reads them
place_secrets() {
  local name file
  while IFS=$'\t' read -r name file; do
    if [ ! -e "$stick/secrets/$name" ]; then
      [ "$name" = ssh-host-key ] || say "the secret \"$name\" is not on the stick; k3splan deploy uploads it"
      continue
    fi
    # the folder of a secret is for root only, unlike those above it, and unlike sshd's
    mkdir -p "$root$(dirname "$(dirname "$file")")"
    case $file in
      /etc/ssh/*) mkdir -p "$root/etc/ssh" ;;
      *) install -d -m 0700 -o 0 -g 0 "$root$(dirname "$file")" ;;
    esac
    install -m 0400 -o 0 -g 0 "$stick/secrets/$name" "$root$file"
  done < <(jq -r '.secrets | to_entries[] | .key as $name | .value[] | [$name, .] | @tsv' "$config")
}

write_hardware() {
  mkdir -p "$root/etc/nixos"
  if nixos-generate-config --root "$root" --show-hardware-config --no-filesystems > "$work/hardware.nix"; then
    install -m 0644 "$work/hardware.nix" "$root/etc/nixos/hardware-configuration.nix"
  else
    say "the hardware configuration could not be generated; later: k3splan hardware $host"
  fi
}

# fetch: a system that is not on the image is fetched, or built by its recipe, in the new file system
fetch() {
  say "fetching the system from the network"
  local recipes
  mapfile -t recipes < <(nix-store --query --requisites "$recipe")
  nix-store --export "${recipes[@]}" | nix-store --store "$root" --import > /dev/null
  system=$(nix-store --store "$root" --realise "$recipe" --option extra-substituters 'auto?trusted=1') ||
    fail "the system could not be fetched or built"
}

install_boot_loader() {
  local disk=${disks[0]:-} grub
  grub=$(of .grub)
  [ -n "$grub" ] || return 0
  if [ $way = disko ] || [ $way = existing ]; then
    mkdir -p "$root/boot"
    # btrfs adds [/subvolume]
    disk=$(findmnt --noheadings --raw --output SOURCE --target "$root/boot")
    disk=$(disk_of "${disk%%[*}") || fail "the disk with /boot is unknown, so GRUB cannot be installed on it"
  fi
  "$grub" --target=i386-pc --boot-directory="$root/boot" "$disk" || fail "GRUB could not be installed on $disk"
  ! cmp --quiet --bytes=440 "$disk" /dev/zero || fail "$disk has no boot code"
  [ -s "$root/boot/grub/i386-pc/core.img" ] || fail "GRUB installed nothing in /boot/grub"
}

# inside PATH: where a path of the new system, which may be a link, is below $root
inside() {
  local path=$1 target
  while [ -L "$root$path" ]; do
    target=$(readlink "$root$path")
    case $target in
      /*) path=$target ;;
      *) path=$(dirname "$path")/$target ;;
    esac
  done
  printf '%s' "$path"
}

# check_result: will it start? `boot_loader` is the one that the configuration enables; without it, any will do.
check_result() {
  local fstab device point type options loader complete=
  local loaders=${boot_loader:-systemd-boot unified grub limine refind extlinux}
  in_boot() { [ -n "$(find "$root/boot" "$root/efi" ${esp_mount:+"$root$esp_mount"} "$@" -print -quit 2> /dev/null)" ]; }
  # has_entry LOADER: whether it has left what it starts the system from
  has_entry() {
    case $1 in
      systemd-boot) in_boot -path '*/loader/entries/*.conf' || in_boot -ipath '*/EFI/Linux/*.efi' ;;
      unified) in_boot -ipath '*/EFI/Linux/*.efi' ;;
      grub) in_boot -name grub.cfg -size +0 ;;
      limine) in_boot \( -name limine.conf -o -name limine.cfg \) ;;
      refind) in_boot \( -name refind.conf -o -name refind_linux.conf \) ;;
      extlinux) in_boot -path '*/extlinux/extlinux.conf' ;;
      raspberry-pi) in_boot -name config.txt ;;
      init-script) [ -x "$root/sbin/init" ] ;;
      *) true ;; # one that nothing is known of
    esac
  }
  [ -e "$root$(inside /nix/var/nix/profiles/system)/bin/switch-to-configuration" ] || fail "the new system has no profile"
  for loader in $loaders; do
    ! has_entry "$loader" || complete=$loader
  done
  [ -n "$complete" ] || fail "the boot loader (${boot_loader:-unknown}) has no entry for the new system in /boot"
  case $complete in
    extlinux|raspberry-pi|init-script|external|none) ;; # the firmware starts them in its own way
    *) [ "$boot" != efi ] || in_boot -ipath '*/EFI/*.efi' ! -ipath '*/EFI/Linux/*' || fail "the EFI partition contains no boot loader" ;;
  esac
  fstab=$root$(inside "$(inside "$system/etc")/fstab")
  [ -s "$fstab" ] || fail "the new system has no fstab"
  grep -q '^[^#[:space:]]*[[:space:]]*/[[:space:]]' "$fstab" || fail "the new system's fstab has no root file system"
  udevadm settle || true
  while read -r device point type options _; do
    case $device in \#*|'') continue ;; esac
    case ",$options," in *,nofail,*|*,noauto,*) continue ;; esac
    case $device in
      /dev/disk/by-label/*) [ -n "$(labelled "${device##*/}")" ] ;;
      /dev/*) [ -e "$device" ] ;;
      *) true ;;
    esac || fail "the new system needs $device at $point ($type), which does not exist"
  done < "$fstab"
}

finish() {
  [ ! -e "$work/reason" ] || exit 1
  rm -f "$root/$unfinished"
  mkdir -p "$root/var/log"
  install -m 0600 "$work/log" "$root/var/log/k3splan-setup.log" || true
  sync
  umount -R "$root" || say "$root is still in use, but everything is written"
  write_stick installed "$(now), $(machine)" || say "the stick could not be written"
  say
  say "$host is installed"
  [ -z "$joins" ] ||
    say "It joins the cluster of $joins. Remove its old etcd member there, or it is counted as lost: see k3splan status"
}

main() {
  host=$(of .host) boot=$(of .boot) serial=$(of .serial) boot_loader=$(of .bootLoader) esp_mount=$(of '.espMounts[0]')
  say "k3splan: setting up $host"
  check_tools
  [ "$(id -u)" = 0 ] || refuse "the installation needs root" "sudo setup"
  ! mountpoint -q "$root" || refuse "something is mounted at $root" "umount -R $root, then: setup"
  open_stick
  this_machine
  choose_way
  check_disks
  choose_system
  check_room
  announce
  if [ -n "$check" ]; then
    say "nothing was changed"
    return
  fi
  begin
  mount_target
  place_secrets
  write_hardware
  [ -z "$recipe" ] || fetch
  say "installing $system"
  nixos-install --root "$root" --system "$system" --no-root-passwd --no-channel-copy || fail "nixos-install failed"
  install_boot_loader
  check_result
  finish
}

## Around it: log, report, power off

usage() {
  sed -n '4,12s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

check='' wipe='' found_cluster='' stay=''
while [ $# -gt 0 ]; do
  case $1 in
    --check) check=1 ;;
    --wipe) wipe=1 ;;
    --found-cluster) found_cluster=1 ;;
    --stay) stay=1 ;;
    *) usage ;;
  esac
  shift
done
! has_parameter k3splan.found-cluster || found_cluster=1

mkdir -p "$work"
chmod 0700 "$work"
exec 9> "$work/lock"
flock --nonblock 9 || { say "setup is already running: journalctl -f -u system_setup" >&2; exit 3; }
rm -f "$work/reason" "$work/changed"

set +e # the status is checked below
(set -e; main) 2>&1 | tee "$work/log"
status=${PIPESTATUS[0]}
set -e

report() {
  say
  if [ -e "$work/changed" ]; then
    say "k3splan: THE INSTALLATION FAILED. The disk is incomplete and will not boot."
  else
    say "k3splan: NOT INSTALLED. Nothing was changed."
  fi
  if [ -s "$work/reason" ]; then sed 's/^/  /' "$work/reason"; else say "  a step failed: see above, or journalctl -u system_setup"; fi
}

if [ "$status" != 0 ]; then
  if mountpoint -q "$root" && [ -e "$work/changed" ]; then umount -R "$root" || true; fi
  report > "$work/failure"
  cat "$work/failure"
  cat "$work/failure" >> "$work/log"
fi
if [ -z "$check" ]; then
  write_stick setup.log "$(tail -c 262144 "$work/log")" || say "the stick could not be written"
  history=$(tail -n 99 "$stick/history" 2> /dev/null || true)
  write_stick history "$history${history:+$'\n'}$(now) exit status $status, $(machine)" || true
fi
if mountpoint -q "$stick"; then umount "$stick"; fi
if [ "$status" = 0 ] && [ -z "$check$stay" ]; then
  say "powering off; unplug the stick before you switch on again"
  systemctl poweroff
fi
exit "$status"
