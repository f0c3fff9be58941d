#!/usr/bin/env bash
# OpenSSH 9.2p1 (Debian 12): Host blocks in the second pass of CanonicalizeHostname.
#
# Guess:     CanonicalizeHostname only changes which name is connected to. `ssh olaf`, with HostName 192.0.2.2 in
#            its block, never gets anything from `Host 192.0.2.*`: that block is for `ssh 192.0.2.2`.
# Behaviour: with CanonicalizeHostname yes in the block of olaf alone, all files are read a second time, and this
#            time Host is compared with the address. That is the one way to let `Host ADDRESS` blocks (a jump
#            host) apply to a call by name; but what such a block holds for programs (RequestTTY no,
#            ClearAllForwardings yes) then reaches people's calls by name, too, forwardings of `Host olaf` included.
#            `Match originalhost 192.0.2.2` does not: in both passes it is compared with what was typed.
# Seen:      proxyjump jump and clearallforwardings yes for `ssh olaf`
# Needs ssh. Nothing is contacted (ssh -G). Fails if the behaviour changes.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
cd "$work"
ssh -V
config() {
  printf 'Host olaf\n  HostName 192.0.2.2\n  LocalForward 8080 localhost:80\n%s\n%s 192.0.2.2\n  ProxyJump jump\n  ClearAllForwardings yes\n' "$1" "$2" > config
}
asks() { ssh -T -G -F config olaf | grep -E '^(proxyjump|clearallforwardings) ' | sort | tr '\n' ' '; }
same() { echo "$1: $2"; [ "$2" = "$3" ]; }
config '' Host
same 'one pass' "$(asks)" 'clearallforwardings no '
config '  CanonicalizeHostname yes' Host
same 'two passes' "$(asks)" 'clearallforwardings yes proxyjump jump '
config '  CanonicalizeHostname yes' 'Match originalhost'
same 'two passes, what was typed' "$(asks)" 'clearallforwardings no '
