#!/usr/bin/env bash
# Nix 2.8.0: builtins.compareVersions, which lib.versionAtLeast and versionOlder use, on versions of k3s.
#
# Guess:     a release candidate is older than its release, as "pre" is for Nix and "-rc1" for semantic versions.
# Behaviour: v1.33.7-rc1+k3s1 counts as newer than v1.33.7+k3s1, whose next component is "+k": of two words the later
#            in the alphabet is newer, and only "pre" is an exception. Without "+k3s1" the candidate is newer, too.
# Seen:      compareVersions "1.33.7-rc1+k3s1" "1.33.7+k3s1" = 1; "1.33.7-rc1" "1.33.7" = 1; "1.33.7pre1" "1.33.7" = -1
# Needs nix-instantiate. Fails if the behaviour changes.
set -euo pipefail
nix-instantiate --version
compare() { nix-instantiate --eval -E "builtins.compareVersions \"$1\" \"$2\"" 2> /dev/null | tee /dev/stderr; }
[ "$(compare 1.33.7-rc1+k3s1 1.33.7+k3s1)" = 1 ]
[ "$(compare 1.33.7-rc1 1.33.7)" = 1 ]
[ "$(compare 1.33.7pre1 1.33.7)" = -1 ]
nix-instantiate --eval --strict -E 'builtins.splitVersion "1.33.7-rc1+k3s1"' 2> /dev/null | grep -F '"rc" "1" "+k" "3"'
