#!/bin/sh
# Runs a command on the machine that deploys: with a Nix store of its own, which is written without
# a daemon. It can be a host of the rack itself, so it has /run and /var/lib of its own, too.
set -e
mount --make-rprivate /
for folder in nix run var/lib; do
  mount --bind "$1/$folder" "/$folder"
done
mount --bind "$1/os-release" /etc/os-release
mount --bind "$1/sudoers" /etc/sudoers
shift
exec "$@"
