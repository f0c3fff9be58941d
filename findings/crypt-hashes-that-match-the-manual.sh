#!/usr/bin/env bash
# A hash that has the shape of crypt(5) and that no password opens.
#
# Versions: libxcrypt 4.4.33 (Debian 12: libcrypt1 4.4.33-2), called by perl 5.36.
# Guess: a text that matches the regular expression which crypt(5) gives for a method is a hash that crypt(3)
#   takes: for yescrypt \$y\$[./A-Za-z0-9]+\$[./A-Za-z0-9]{,86}\$[./A-Za-z0-9]{43}.
# Behaviour: most such texts are refused ("*0"), so that the account is locked.
#   - A salt must encode whole bytes: "ab" is refused, "a/" is taken.
#   - Of the modes only three exist: "." (classic), "/" and "j"; "i" and "k" are refused.
#   - N/p must be more than 3, and N at least 4: "j/5" is taken with p=1 and refused with p=2.
#   - Of the optional parameters' bits, those for hash upgrades (4) and a ROM (8) are refused, those above ignored.
#   - The last character of the hash encodes four bits only, so that three of four texts cannot be the result.
# Output seen: the five pairs below, each as written.
set -u
command -v perl > /dev/null || { echo "SKIP: perl is missing"; exit 77; }
crypt() { perl -e 'print crypt("hello", $ARGV[0])' "$1"; }
[[ $(crypt '$y$j75$a/$') == '$y$j75$a/$'* ]] || { echo "SKIP: crypt(3) here has no yescrypt"; exit 77; }
changed=0
refused() { [ "$(crypt "$1")" = '*0' ] && echo "refused: $1" || { echo "CHANGED: $1 is taken"; changed=1; }; }
taken() { [[ $(crypt "$1") == "$1"* ]] && echo "taken:   $1" || { echo "CHANGED: $1 is refused"; changed=1; }; }
refused '$y$j75$ab$'; taken '$y$j75$a/$'
refused '$y$i75$a/$'; taken '$y$.75$a/$'
refused '$y$j/5..$a/$'; taken '$y$j/5$a/$'
refused '$y$j751.$a/$'; taken '$y$.00T$a/$'
for password in $(seq 60); do
  last=$(perl -e 'print substr(crypt($ARGV[0], "\$y\$j75\$a/\$"), -1)' "$password")
  [[ $last == [./0-9A-D] ]] || { echo "CHANGED: a hash ends in $last"; changed=1; }
done
echo "60 hashes end in one of ./0-9A-D"
exit $changed
