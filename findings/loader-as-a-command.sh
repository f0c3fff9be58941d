#!/usr/bin/env bash
# glibc 2.36: a program that is started by the dynamic loader, for its libraries to come from another folder.
#
# Guess:     "ld-linux-x86-64.so.2 --library-path FOLDER PROGRAM" is PROGRAM with other libraries.
# Behaviour: /proc/self/exe is the loader. A program that starts itself again starts the loader, with arguments that
#            mean something else to it: Podman 5.4, which unpacks layers that way, cannot import an image ("error while
#            loading shared libraries: ...: cannot read file data: Error 21"). --argv0 does not help. What helps is the
#            other loader in the place of the system's (a bind mount in a mount namespace) and LD_LIBRARY_PATH.
# Seen:      by itself /usr/bin/readlink; by the loader /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
# Needs readlink. Fails if the behaviour changes.
set -euo pipefail
loader=$(echo /lib*/ld-linux-*.so.*)
program=$(readlink -f "$(command -v readlink)")
"$loader" --version | head -1
[ "$("$program" /proc/self/exe | tee /dev/stderr)" = "$program" ]
[ "$("$loader" --argv0 readlink "$program" /proc/self/exe | tee /dev/stderr)" = "$(readlink -f "$loader")" ]
