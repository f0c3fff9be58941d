#!/usr/bin/env bash
# Nix 2.8.0: a sum of a path and a string without blanks.
#
# Guess:     ./files+"/motd" is the sum of a path and a string, as (./files)+"/motd" is, and as "a"+"b" needs no blanks.
# Behaviour: "+" is a character of paths: the path is ./files+, applied to a string. With a variable,
#            ./files+name, it is one path of that name, and nothing is wrong until the file is read.
# Seen:      error: attempt to call something which is not a function but a path; /…/files+name
# Needs nix-instantiate. Fails if the behaviour changes.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
cd "$work"
nix-instantiate --version
mkdir files && echo hello > files/motd
evaluate() { nix-instantiate --eval -E "$1" 2>&1 || true; }
evaluate 'builtins.readFile (./files + "/motd")' | grep hello
evaluate 'builtins.readFile ((./files)+"/motd")' | grep hello
evaluate 'builtins.readFile (./files+"/motd")' | grep 'not a function but a path'
evaluate 'let name = "/motd"; in toString ./files+name' | grep 'files+name'
