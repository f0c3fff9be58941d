#!/bin/sh
# The first stage of the lab's virtual machines: what NixOS's own does for a root file system with a label, and for the
# image of an installer.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
for module in $(cat /modules); do modprobe "$module" || echo "lab: no module $module"; done
init=/nix/var/nix/profiles/system/init root=LABEL=nixos
for word in $(cat /proc/cmdline); do
  case $word in
    init=*) init=${word#init=} ;;
    root=*) root=${word#root=} ;;
  esac
done
tries=0
until device=$(findfs "$root"); do
  tries=$((tries + 1))
  [ $tries -lt 300 ] || { echo "lab: no file system with $root"; exec sh; }
  sleep 0.2
done
ln -s "$device" /dev/root

if [ "$root" = LABEL=nixos ]; then
  mount -t ext4 "$device" /target
else
  mount -t tmpfs -o mode=0755 tmpfs /target
  mkdir -p /target/iso /target/nix/.ro-store /target/nix/.rw-store /target/nix/store
  mount -t iso9660 -o ro "$device" /target/iso
  mount -t squashfs -o loop,ro /target/iso/nix-store.squashfs /target/nix/.ro-store
  mount -t tmpfs -o mode=0755 tmpfs /target/nix/.rw-store
  mkdir /target/nix/.rw-store/store /target/nix/.rw-store/work
  mount -t overlay -o lowerdir=/target/nix/.ro-store,upperdir=/target/nix/.rw-store/store,workdir=/target/nix/.rw-store/work overlay /target/nix/store
fi || { echo "lab: $root cannot be mounted"; exec sh; }

# the programs: those of the machine that this one runs on, and others that were unpacked for it
share=trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000
mkdir -p /usr/host /usr/more /usr/changes
mount -t 9p -o $share host /usr/host
mount -t 9p -o $share more /usr/more
mount -t tmpfs -o mode=0755 tmpfs /usr/changes
mkdir /usr/changes/upper /usr/changes/work
mkdir -p /target/usr
mount -t overlay -o lowerdir=/usr/more:/usr/host,upperdir=/usr/changes/upper,workdir=/usr/changes/work overlay /target/usr
for folder in $(cat /masked); do
  [ ! -d "/target$folder" ] || mount -t tmpfs -o mode=0755 tmpfs "/target$folder"
done
# file systems of fstab, names of interfaces
cp /usr/host/lib/systemd/system-generators/systemd-fstab-generator /target/usr/lib/systemd/system-generators/
cp /usr/host/lib/systemd/network/99-default.link /target/usr/lib/systemd/network/
# NixOS's sh is bash
rm /target/usr/bin/dash && cp /usr/host/bin/bash /target/usr/bin/dash
rm -rf /target/usr/lib/modules && ln -s /run/booted-system/kernel-modules/lib/modules /target/usr/lib/modules
for folder in bin sbin lib lib64; do ln -sfn usr/$folder /target/$folder; done

mkdir -p /target/proc /target/sys /target/dev /target/run
mount -t tmpfs -o mode=0755 tmpfs /target/run
for folder in proc sys dev; do mount -o move /$folder /target/$folder; done
exec switch_root /target "$init"
