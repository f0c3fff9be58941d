#!/usr/bin/env bash
# Nix 2.8.0: builtins.fromJSON and integers above 2^63.
#
# Guess:     a number that does not fit is an error, as it is in a Nix expression, or becomes a float.
# Behaviour: numbers of 2^63 to 2^64-1 turn negative without a word; from 2^64 on they become floats. The same digits
#            in a Nix expression are an error.
# Seen:      -9223372036854775808, -1, 1.84467e+19; error: invalid integer '18446744073709551615'
# Needs nix-instantiate. Fails if the behaviour changes.
set -euo pipefail
nix-instantiate --version
read_json() { nix-instantiate --eval -E "builtins.fromJSON ''$1''" 2> /dev/null; }
[ "$(read_json 9223372036854775807 | tee /dev/stderr)" = 9223372036854775807 ]
[ "$(read_json 9223372036854775808 | tee /dev/stderr)" = -9223372036854775808 ]
[ "$(read_json 18446744073709551615 | tee /dev/stderr)" = -1 ]
[ "$(read_json 18446744073709551616 | tee /dev/stderr)" = 1.84467e+19 ]
! nix-instantiate --eval -E 18446744073709551615 2> error
grep 'invalid integer' error; rm error
