#!/usr/bin/env bash
# systemd-analyze verify 252 and 257: units with mistakes.
#
# Guess:     it fails for a unit whose key, section or value systemd does not know: that is what it is called for.
# Behaviour: it prints a warning and exits with 0. A program that does not exist makes it exit with 1. With
#            --recursive-errors=no all of them do; without that option its output has to be read.
# Seen:      misspelt key 0, misspelt section 0, unknown value 0, missing program 1; with the option 1, 1, 1, 1
# Needs systemd-analyze, no running systemd. Fails if the behaviour changes.
set -euo pipefail
systemd-analyze --version | head -1
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT && cd "$work"
printf '[Service]\nExecStart=/bin/true\nKillMood=mixed\n' > key.service
printf '[Service]\nExecStart=/bin/true\n[Instal]\nWantedBy=multi-user.target\n' > section.service
printf '[Service]\nExecStart=/bin/true\nRestart=sometimes\n' > value.service
printf '[Service]\nExecStart=/no/such/program\n' > program.service
verify() { # OPTION...: the exit codes
  local unit status
  for unit in key section value program; do
    status=0
    systemd-analyze verify --man=no "$@" "./$unit.service" || status=$?
    printf '%s ' "$status"
  done
}
[ "$(verify)" = '0 0 0 1 ' ]
[ "$(verify --recursive-errors=no 2> /dev/null)" = '1 1 1 1 ' ]
