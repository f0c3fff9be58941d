#!/bin/sh
# Runs a command on the machine that deploys: with a Nix store of its own, which is written without
# a daemon.
set -e
mount --make-rprivate /
mount --bind "$1/nix" /nix
shift
exec "$@"
