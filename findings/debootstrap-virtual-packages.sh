#!/usr/bin/env bash
# debootstrap 1.0.128 (Debian 12), bootstrapping Debian 13 (trixie) with an additional package.
#
# Guess:     --include resolves dependencies, as it does for ordinary ones: with nix-bin comes all that it needs.
# Behaviour: a dependency that another package only provides is not resolved. nix-bin needs libdbd-sqlite3-perl, which
#            needs the virtual package perl-dbdabi-94 of libdbi-perl. debootstrap leaves libdbi-perl out, unpacks the
#            rest, fails to configure it five times, and ends with "Failure while configuring base packages".
# Seen:      --include=nix-bin lists libdbd-sqlite3-perl without libdbi-perl; --include=libdbi-perl,nix-bin works.
# Needs debootstrap and a Debian archive (MIRROR). Fails if the behaviour changes.
set -euo pipefail
debootstrap --version
listed() { debootstrap --print-debs --variant=minbase --include="$1" trixie "$(mktemp -d)/root" "${MIRROR:-http://deb.debian.org/debian}" 2> /dev/null | tr ' ' '\n'; }
with=$(listed nix-bin)
grep -x nix-bin <<< "$with"
grep -x libdbd-sqlite3-perl <<< "$with"
! grep -x libdbi-perl <<< "$with"
