#!/usr/bin/env bash
# Installs the host that this medium was made for, and powers the machine off. It starts by itself
# (system_setup.service), or by hand:
#
#   setup [--check] [--wipe] [--found-cluster] [--stay]
#
#   --check          say what would be done, and change nothing
#   --wipe           a disk may be erased though it is not blank (kernel parameter: k3splan.wipe)
#   --found-cluster  found a k3s cluster without asking the other servers of the plan
#                    (kernel parameter: k3splan.found-cluster)
#   --stay           do not power off
#
# Everything that can be doubtful is looked at before anything is changed: whatever `refuse` says is
# said before `begin`, and everything that changes a disk comes after it. Exit status: 0 done, 1 it
# failed halfway, 2 wrong usage, 3 refused, and nothing was changed.
set -euo pipefail
shopt -s inherit_errexit
umask 022

config=/etc/k3splan/installer.json
root=/mnt                    # where the new system is mounted
work=/run/k3splan-setup      # in memory
stick=$work/stick            # the stick's own partition; see `open_stick`
unfinished=.k3splan-unfinished

say() { printf '%s\n' "$*"; }

# The reason goes to a file, which is looked at before the first change and at the end: no refusal is
# lost, in however deep a subshell it happens.
refuse() {
  printf '%s\n' "$@" > "$work/reason"
  exit 3
}
fail() {
  printf '%s\n' "$@" > "$work/reason"
  exit 1
}

# of FILTER: a value of the configuration; empty for null
of() { jq -r "$1 // empty" "$config"; }
lower() { printf '%s' "${1,,}"; }
has_parameter() {
  local parameters parameter
  read -r -a parameters < /proc/cmdline
  for parameter in "${parameters[@]}"; do
    if [ "$parameter" = "$1" ]; then return 0; fi
  done
  return 1
}
# has LINES LINE: whether it is one of them. Not by a pipe: one that closes early makes `pipefail`
# turn a find into its contrary.
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

# partition_of DISK NUMBER: its device, under whatever name (sda1, nvme0n1p1, mmcblk0p1), as soon as
# it is there
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

# labelled LABEL: the devices with a file system of that label, as the disks say now
labelled() {
  local status=0 found
  found=$(blkid -c /dev/null -o device -t LABEL="$1") || status=$?
  # 2: there is none
  [ "$status" = 0 ] || [ "$status" = 2 ] || fail "blkid could not look at the disks (exit status $status)"
  [ -z "$found" ] || sort -u <<< "$found"
}

# serials DISK: what udev knows it by. Disks of virtio have no short form.
serials() {
  local properties
  properties=$(udevadm info --query=property --name="$1") || fail "udev could not say the serial of $1"
  awk -F= '
    $1 == "ID_SERIAL_SHORT" { short = substr($0, length($1) + 2) }
    $1 == "ID_SERIAL" { long = substr($0, length($1) + 2) }
    $1 == "ID_BUS" { bus = 1 }
    END { if (short != "") print "short", short; else if (long != "") print bus ? "long" : "virtio", long }' <<< "$properties"
}

# disks_with SERIAL: the whole disks with exactly this serial, whatever its case. Virtio keeps the
# first 20 characters only.
disks_with() {
  local wanted disk type kind serial
  wanted=$(lower "$1")
  while read -r disk type; do
    [ "$type" = disk ] || [ "$type" = loop ] || continue
    serial=$(serials "$disk")
    read -r kind serial <<< "$serial"
    serial=$(lower "$serial")
    if [ -n "$serial" ] && { [ "$serial" = "$wanted" ] || { [ "$kind" = virtio ] && [ "$serial" = "${wanted:0:20}" ]; }; }; then
      printf '%s\n' "$disk"
    fi
  done < <(lsblk --nodeps --noheadings --raw --output PATH,TYPE)
}

describe() { # DISK
  local serial
  serial=$(serials "$1")
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
      disk_of_number "$number" || true # 0:N is no device
    done
  done
  # copied to memory, the medium is not mounted any more
  volume=$(sed -n 's/.*\broot=LABEL=\([^ ]*\).*/\1/p' /proc/cmdline)
  if [ -n "$volume" ]; then
    found=$(labelled "$volume")
    for device in $found; do disk_of "$device"; done
  fi
}

# content DISK: what speaks against calling it blank, line by line. Known signatures are not enough:
# a disk whose partition table was damaged is one that somebody wants to rescue.
content() {
  local signatures size status offset end=$((1024 * 1024))
  # assigned first, so that a failing program is not taken for an empty answer
  signatures=$(wipefs --no-act --noheadings --output TYPE,LABEL "$1") || fail "wipefs could not look at $1"
  [ -z "$signatures" ] || say "  signatures: ${signatures//$'\n'/, }"
  lsblk --noheadings --raw --output PATH,SIZE,FSTYPE,LABEL "$1" | sed 1d | sed 's/^/  on it: /'
  [ -z "$signatures" ] || return 0
  size=$(blockdev --getsize64 "$1") || fail "the size of $1 is unknown"
  [ "$size" -gt $((2 * end)) ] || fail "$1 is too small ($size bytes)"
  for offset in 0 $((size - end)); do
    status=0
    cmp --quiet --bytes=$end --ignore-initial="$offset":0 "$1" /dev/zero || status=$?
    [ "$status" -lt 2 ] || fail "$1 cannot be read"
    [ "$status" = 0 ] || say "  data that nothing known explains, at byte $offset or behind it"
  done
}

# may_be_erased DISK: or a refusal
may_be_erased() {
  local disk=$1 found
  found=$(boot_disks)
  ! has "$found" "$disk" ||
    refuse "$disk is the disk that this system was started from; it is not erased"
  [ "$(lsblk --nodeps --noheadings --raw --output RO "$disk")" = 0 ] || refuse "$disk is read-only"
  found=$(lsblk --noheadings --raw --output MOUNTPOINT "$disk" | grep . || true)
  [ -z "$found" ] || refuse "$disk is in use, at: ${found//$'\n'/ }" "unmount it, then: setup"
  found=$(stacked "$disk")
  if [ -n "$found" ] && ! wiping_allowed; then
    refuse "$disk is not blank: it is part of ${found//$'\n'/ }" "$(how_to_allow)"
  fi
  alone "$disk" "$found"
  found=$(content "$disk")
  [ -n "$found" ] || return 0
  say "$disk is not blank:"
  say "$found"
  wiping_allowed || refuse "$disk is not blank, and nobody allowed to erase it:" "$found" "$(how_to_allow)"
}

# stacked DISK: volumes and arrays that were made of it, upper ones first
stacked() { lsblk --noheadings --raw --output PATH,TYPE "$1" | awk '$2 != "part" && $2 != "disk" && $2 != "loop" && !seen[$1]++ { print $1 }' | tac; }

# alone DISK DEVICES: refuses devices that other disks are part of
alone() {
  local device other others
  for device in $2; do
    others=$(lsblk --inverse --noheadings --raw --output PATH,TYPE "$device" | awk '$2 == "disk" || $2 == "loop" { print $1 }')
    for other in $others; do
      [ "$other" = "$1" ] || refuse "$device on $1 is made of $other too, whose data would be lost with it" "take it apart by hand, then: setup"
    done
  done
}

# release DISK: takes apart what was made of it
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
    [ ! -e "$stick/installed" ] || say "If this machine was installed by it: pull the stick out and switch on again."
  fi
  say "To allow it: k3splan boot-stick … --wipe, the kernel parameter k3splan.wipe, or here: setup --wipe"
}

## The stick's own partition: `host`, `id`, `wipe` if erasing is allowed, secrets/; and what is
## recorded on it: `wiped`, `installed`, `history`, `setup.log`

open_stick() {
  local devices device
  mountpoint -q "$stick" && return
  devices=$(labelled k3splan)
  case $(count "$devices") in
    0) say "no partition of k3splan on the stick: no secrets, and no permission to erase"; return ;;
    1) device=$devices ;;
    *) refuse "there are several sticks of k3splan: ${devices//$'\n'/ }" "leave the one in that was made for $host" ;;
  esac
  mkdir -p "$stick"
  mount -t ext2 -o "ro,$stick_options" "$device" "$stick" || refuse "$device, the stick's own partition, cannot be mounted"
  [ "$(cat "$stick/host")" = "$host" ] ||
    refuse "the stick was made for $(cat "$stick/host"), and the image on it for $host" "write it again: k3splan boot-stick $host …"
}

stick_options=nosuid,nodev,noexec

# write_stick NAME CONTENT: a file of the stick, so that it lasts: it is read again from the stick
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

# use_up_permission: before the first change, whether it is needed or not. A second start, or another
# machine, finds none.
use_up_permission() {
  touch "$work/wiped"
  [ -e "$stick/wipe" ] && [ ! -e "$stick/wiped" ] || return 0
  write_stick wiped "$(now), $(machine)" ||
    refuse "the stick's permission to erase cannot be used up: the stick is write-protected or broken"
}

## What is to be done

# check_tools: a program that is missed only halfway would leave half an installation
check_tools() {
  local tool
  for tool in awk blkid blockdev cmp findmnt jq lsblk mkfs.ext4 mkfs.vfat mount nixos-generate-config nixos-install sfdisk udevadm wipefs; do
    command -v "$tool" > /dev/null || refuse "this system lacks the program $tool"
  done
}

# this_machine: refuses another one than that of the plan
this_machine() {
  local mac wanted
  wanted=$(of .mac)
  if [ -n "$wanted" ]; then
    mac=$(cat /sys/class/net/*/address)
    grep -qixF -- "$wanted" <<< "$mac" ||
      refuse "this is another machine: no interface has the address $wanted, which the plan gives to $host" "it has: $(xargs <<< "$mac")"
  fi
  case $boot in
    efi) is_efi || refuse "the machine was started in BIOS mode, and $host boots by EFI" "choose the stick's UEFI entry in the firmware's boot menu, or set boot = legacy in the plan" ;;
    legacy) ! is_efi || refuse "the machine was started by EFI, and $host boots in BIOS mode" "choose the stick's other entry in the firmware's boot menu, or set boot = efi in the plan" ;;
    *) fail "the image says boot \"$boot\"" ;;
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
        refuse "there is no disk $device, which partitioning/$host.nix names: is this $host?" "$(all_disks)"
      found=$(disk_of "$found") || refuse "$device is no disk"
      [ "$(readlink -e "$device")" = "$(readlink -e "$found")" ] || refuse "$device, which partitioning/$host.nix names, is not a whole disk"
      ! has "$(printf '%s\n' "${disks[@]}")" "$found" || refuse "partitioning/$host.nix names $found twice"
      disks+=("$found")
    done < <(jq -r '.disko.disks[]' "$config")
    [ ${#disks[@]} -gt 0 ] || fail "the disko layout names no disk"
  elif [ -n "$serial" ]; then
    found=$(disks_with "$serial")
    if [ -z "$found" ]; then # some disks take their time
      sleep "$(of .pause)"
      udevadm settle || true
      found=$(disks_with "$serial")
    fi
    [ "$(count "$found")" != 0 ] || refuse "no disk has the serial $serial, which the plan gives to $host: is this $host?" "$(all_disks)"
    [ "$(count "$found")" = 1 ] || refuse "several disks have the serial $serial:" "$found"
    way=own disks=("$found")
    [ "$(jq .labelled "$config")" = true ] || way=existing
  else
    way=existing
  fi
}

# check_disks: everything about them that can speak against beginning
check_disks() {
  local disk
  if [ $way = existing ]; then
    check_existing
    return
  fi
  if [ $way = own ]; then
    if resumes "${disks[0]}"; then
      say "this stick began to install $host on ${disks[0]}; it goes on there"
      way=resume
      return
    fi
    others_labelled
  fi
  for disk in "${disks[@]}"; do may_be_erased "$disk"; done
}

# others_labelled: the new system finds its file systems by label, so no other may have it
others_labelled() {
  local label device found
  for label in nixos boot; do
    found=$(labelled $label)
    for device in $found; do
      [ "$(disk_of "$device")" = "${disks[0]}" ] ||
        refuse "there is a file system labelled \"$label\" on $device already: it would be unclear from which one $host starts" \
          "take that disk out, or change the label"
    done
  done
}

# look DEVICE COMMAND...: runs it while the file system is mounted at $work/look, without a change
look() {
  local device=$1 options=ro,nosuid,nodev,noexec status=0
  shift
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
# token: what tells an installation that this stick began
token() { say "$host $(cat "$stick/id" 2> /dev/null || echo "without a stick")"; }

# resumes DISK: this very stick made the file systems on it and did not come to its end
resumes() {
  local nixos
  nixos=$(labelled nixos)
  [ -e "$stick/id" ] && [ "$(count "$nixos")" = 1 ] && [ "$(disk_of "$nixos")" = "$1" ] || return 1
  [ -z "$(lsblk --noheadings --raw --output MOUNTPOINT "$1" | grep . || true)" ] || return 1
  if [ "$boot" = efi ]; then
    [ "$(labelled boot)" = "$(partition_of "$1" 1)" ] || return 1
  fi
  look "$nixos" is_ours
}

# device_for DEVICE: the one device that a line of fstab means
device_for() {
  local found
  case $1 in
    /dev/disk/by-label/*)
      found=$(labelled "${1#/dev/disk/by-label/}")
      case $(count "$found") in
        0) refuse "there is no file system labelled \"${1##*/}\": make one, or give the serial of a disk in the plan" "$(all_disks)" ;;
        1) printf '%s\n' "$found" ;;
        *) refuse "several file systems are labelled \"${1##*/}\": ${found//$'\n'/ }" ;;
      esac ;;
    *) readlink -e "$1" || refuse "there is no $1, which the configuration of $host names: is this $host?" "$(all_disks)" ;;
  esac
}

check_existing() {
  local point device disk status booted
  booted=$(boot_disks)
  while IFS=$'\t' read -r point device; do
    # with an explicit status: a refusal ends its own subshell only
    device=$(device_for "$device") || exit $?
    disk=$(disk_of "$device") || refuse "$device belongs to no disk"
    ! has "$booted" "$disk" || refuse "$device is on the disk that this system was started from"
    [ -z "$(lsblk --noheadings --raw --output MOUNTPOINT "$device" | grep . || true)" ] || refuse "$device is mounted" "unmount it, then: setup"
    if [ ${#disks[@]} -gt 0 ] && [ "$disk" != "${disks[0]}" ]; then
      refuse "$device is not on the disk with the serial $serial"
    fi
    [ "$point" = / ] || continue
    status=0
    look "$device" is_empty || status=$?
    [ "$status" != 2 ] || refuse "$device cannot be mounted"
    if [ "$status" = 1 ] && ! look "$device" is_ours && ! wiping_allowed; then
      refuse "the file system on $device is not empty, and nobody allowed to install over it" "$(how_to_allow)"
    fi
  done < <(jq -r '.fileSystems[] | [.mountPoint, .device] | @tsv' "$config")
}

# choose_system: sets system and recipe. The init server founds a cluster, unless one of the others
# lives: then a second cluster would come up beside it, and it joins.
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
    say "the server at $joins lives: $host joins its cluster instead of founding one"
  fi
  system=$(of "$key.path")
  recipe=$(of "$key.recipe")
  [ -n "$recipe" ] || [ -x "$system/bin/switch-to-configuration" ] || refuse "the image lacks the system $system"
}

reach_network() {
  local gateway tries
  gateway=$(of .gateway)
  for tries in 1 2 3 4 5 6 7 8 9 10; do
    ping -c 1 -W 2 "$gateway" > /dev/null 2>&1 && return
    # some do not answer, and yet are there
    ip -4 neigh show to "$gateway" 2> /dev/null | grep -q lladdr && return
    say "waiting for the network ($tries of 10)"
    sleep "$(of .pause)"
  done
  refuse "the gateway $gateway does not answer, so the other servers cannot be asked whether the cluster lives" \
    "To found a new one without asking: setup --found-cluster, or the kernel parameter k3splan.found-cluster"
}

announce() {
  local disk
  say
  say "installing $host"
  case $way in
    disko|own) for disk in "${disks[@]}"; do say "  ERASING $(describe "$disk")"; done ;;
    resume) say "  on $(describe "${disks[0]}")" ;;
    existing) say "  on the file systems that are there" ;;
  esac
}

## Doing it

# begin: nothing is refused behind this
begin() {
  local pause
  pause=$(of .pause)
  say "beginning in $pause seconds; switch off to prevent it"
  sleep "$pause"
  [ ! -e "$work/reason" ] || exit 3
  use_up_permission
  touch "$work/changed"
}

partition() {
  local disk=${disks[0]}
  release "$disk"
  # partitions first: their old file systems would show up again in new ones
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
  local point device command
  mkdir -p "$root"
  case $way in
    disko)
      mapfile -t command < <(jq -r '.disko.command[]' "$config")
      "${command[@]}" || fail "disko failed"
      mountpoint -q "$root" || fail "disko left nothing mounted at $root"
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
      while IFS=$'\t' read -r point device; do
        device=$(device_for "$device") || exit $?
        mkdir -p "$root$point"
        mount "$device" "$root$point"
      done < <(jq -r '.fileSystems[] | [.mountPoint, .device] | @tsv' "$config")
      ;;
  esac
  token > "$root/$unfinished"
}

# place_secrets: before nixos-install, whose activation reads them
place_secrets() {
  local name file
  while IFS=$'\t' read -r name file; do
    if [ ! -e "$stick/secrets/$name" ]; then
      [ "$name" = ssh-host-key ] || say "without the secret \"$name\": k3splan deploy brings it"
      continue
    fi
    # folders above are for everyone, that of the secret is not; sshd's is
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
    say "the hardware configuration could not be made; later: k3splan hardware $host"
  fi
}

# fetch: the system is not on the image: it is fetched, or built by its recipe, in the new file system
fetch() {
  say "getting the system from the network"
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
    disk=$(disk_of "${disk%%[*}") || fail "the disk that holds /boot is unknown, so GRUB cannot be put on it"
  fi
  "$grub" --target=i386-pc --boot-directory="$root/boot" "$disk" || fail "GRUB could not be put on $disk"
  ! cmp --quiet --bytes=440 "$disk" /dev/zero || fail "there is no boot code on $disk"
  [ -s "$root/boot/grub/i386-pc/core.img" ] || fail "GRUB left nothing in /boot/grub"
}

# inside PATH: where a path of the new system, which may be a link, lies below $root
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

# check_result: will it start?
check_result() {
  local fstab device point type options
  [ -e "$root$(inside /nix/var/nix/profiles/system)/bin/switch-to-configuration" ] || fail "the new system has no profile"
  if [ "$boot" = efi ]; then
    [ -n "$(find "$root/boot" "$root/efi" -iname '*.efi' -path '*/EFI/*' -print -quit 2> /dev/null)" ] || fail "there is no boot loader in the EFI partition"
    [ -n "$(find "$root/boot" "$root/efi" \( -path '*/loader/entries/*.conf' -o -name grub.cfg \) -print -quit 2> /dev/null)" ] || fail "the boot loader has no entry"
  else
    [ -s "$root/boot/grub/grub.cfg" ] || fail "GRUB has no menu"
  fi
  fstab=$root$(inside "$(inside "$system/etc")/fstab")
  [ -s "$fstab" ] || fail "the new system has no fstab"
  grep -q '^[^#[:space:]]*[[:space:]]*/[[:space:]]' "$fstab" || fail "the new system's fstab tells no root"
  udevadm settle || true
  while read -r device point type options _; do
    case $device in \#*|'') continue ;; esac
    case ",$options," in *,nofail,*|*,noauto,*) continue ;; esac
    case $device in
      /dev/disk/by-label/*) [ -n "$(labelled "${device##*/}")" ] ;;
      /dev/*) [ -e "$device" ] ;;
      *) true ;;
    esac || fail "the new system wants $device at $point ($type), which is not there"
  done < "$fstab"
}

finish() {
  [ ! -e "$work/reason" ] || exit 1
  rm -f "$root/$unfinished"
  mkdir -p "$root/var/log"
  install -m 0600 "$work/log" "$root/var/log/k3splan-setup.log" || true
  sync
  umount -R "$root" || say "$root is still in use; everything is written"
  write_stick installed "$(now), $(machine)" || say "the stick could not be written to"
  say
  say "$host is installed"
  [ -z "$joins" ] ||
    say "It joins the cluster of $joins. The etcd member that it was before must be removed there, or it is counted as lost: see k3splan status"
}

main() {
  host=$(of .host) boot=$(of .boot) serial=$(of .serial)
  say "k3splan: setting up $host"
  check_tools
  [ "$(id -u)" = 0 ] || refuse "only root may install: sudo setup"
  ! mountpoint -q "$root" || refuse "something is mounted at $root" "umount -R $root, then: setup"
  open_stick
  this_machine
  choose_way
  check_disks
  choose_system
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

## From outside: log, report, power off

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
flock --nonblock 9 || { say "setup is running already: journalctl -f -u system_setup" >&2; exit 3; }
rm -f "$work/reason" "$work/changed"

set +e # the status is looked at
(set -e; main) 2>&1 | tee "$work/log"
status=${PIPESTATUS[0]}
set -e

report() {
  say
  if [ -e "$work/changed" ]; then
    say "k3splan: THE INSTALLATION FAILED. The disk is not finished and will not start."
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
  write_stick setup.log "$(tail -c 262144 "$work/log")" || say "the stick could not be written to"
  history=$(tail -n 99 "$stick/history" 2> /dev/null || true)
  write_stick history "$history${history:+$'\n'}$(now) exit status $status, $(machine)" || true
fi
if mountpoint -q "$stick"; then umount "$stick"; fi
if [ "$status" = 0 ] && [ -z "$check$stay" ]; then
  say "powering off; pull the stick out before you switch on again"
  systemctl poweroff
fi
exit "$status"
