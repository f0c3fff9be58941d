#!/usr/bin/env bash
# Go 1.26's strconv.Quote, and Nix 2.8.0's strings.
#
# Guess:     what Go quotes with %q is a string of the same text in Nix: both have \n, \t, \" and \\.
# Behaviour: Go writes what is not printable as \u200b, \x00 or \a. Nix knows none of these, takes the backslash away
#            and keeps the letters, without a warning: a zero-width space becomes "u200b", DEL "x7f".
# Seen:      "rack\u200b1" gives "racku200b1", "a\x7fb" gives "ax7fb"
# Needs go and nix-instantiate. Fails if the behaviour changes.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
cd "$work"
go version; nix-instantiate --version
cat > main.go <<'END'
package main

import "fmt"

func main() { fmt.Printf("[ %q %q %q ]\n", "rack\u200b1", "a\x7fb", "plain \"text\"\n") }
END
go run main.go | tee strings.nix
nix-instantiate --eval --strict strings.nix 2> /dev/null | tee read
[ "$(cat read)" = '[ "racku200b1" "ax7fb" "plain \"text\"\n" ]' ]
