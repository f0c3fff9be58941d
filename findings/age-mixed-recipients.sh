#!/usr/bin/env bash
# filippo.io/age 1.3.2: a file of recipients of which one has moved to the post-quantum kind of 1.3.
#
# Guess:     a file is encrypted to any set of recipients that age knows, as to X25519 and ssh keys together.
# Behaviour: a recipient of the new kind (age1pq1…) and one of another kind exclude each other: nothing is encrypted,
#            and the message names neither the file nor a line.
# Seen:      error: incompatible recipients: can't mix post-quantum and classic recipients; both kinds alone, and age1… with ssh-ed25519: encrypted
# Needs go, ssh-keygen and a Go module proxy. Fails if the behaviour changes.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
cd "$work"
GOBIN=$work go install filippo.io/age/cmd/age@v1.3.2 filippo.io/age/cmd/age-keygen@v1.3.2
./age --version
ssh-keygen -q -t ed25519 -N '' -f ssh
./age-keygen -o classic.key 2> /dev/null && ./age-keygen -y classic.key > classic
./age-keygen -pq -o quantum.key 2> /dev/null && ./age-keygen -y quantum.key > quantum
encrypts() { cat "$@" > recipients; echo secret | ./age -R recipients -o out 2> error; }
encrypts quantum
encrypts classic ssh.pub
for other in classic ssh.pub; do
  if encrypts $other quantum; then echo "$other goes with the new kind" >&2; exit 1; fi
  cat error
  grep -q 'incompatible recipients' error
done
