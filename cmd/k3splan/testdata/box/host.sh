#!/bin/sh
# One machine of the rack in a box. It runs in a network namespace and a mount namespace of its own,
# with its own Nix store and daemon, /run, /var/lib and users. Real: the network, sshd, sudo, Nix.
# Not there: systemd, NixOS; what stands in for them is in bin/.
set -e
box=$1
mount --make-rprivate /
# A copy of a mount keeps its device busy. What other tests mount from files and programs is theirs.
while read -r _ _ device _ point _; do
  case $device in
    7:* | 0:*) case $point in "${TMPDIR:-/tmp}"/*) umount -l "$point" ;; esac ;;
  esac
done < /proc/self/mountinfo
for folder in nix run var/lib; do
  mount --bind "$box/$folder" "/$folder"
done
for file in passwd group shadow sudoers; do
  mount --bind "$box/etc/$file" "/etc/$file"
done
mount --bind "$box/etc/systemd" /etc/systemd
mkdir -p /run/sshd
ip link set lo up
# the kernel's boot ID is one for all of them
[ -e "$box/boot-id" ] && [ ! -e "$box/reboot" ] || cat /proc/sys/kernel/random/uuid > "$box/boot-id"
mount --bind "$box/boot-id" /proc/sys/kernel/random/boot_id
if [ -e "$box/reboot" ]; then
  rm "$box/reboot"
  profile=$(readlink -f /nix/var/nix/profiles/system)
  ln -sfn "$profile" /run/booted-system
  PATH="$(sed -n 's/^rack=//p' /run/box.env)/bin:$PATH" "$profile/bin/switch-to-configuration" up
fi
# a real web server, as a service of the host's would be one
[ ! -d "$box/www" ] || python3 -m http.server --directory "$box/www" 8080 > /dev/null 2>&1 &
NIX_CONF_DIR=$box/etc/nix nix-daemon > "$box/nix-daemon.log" 2>&1 &
# -r: sshd does not start itself anew for each connection
exec /usr/sbin/sshd -D -r -E "$box/sshd.log" -f "$box/etc/sshd_config"
