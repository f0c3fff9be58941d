#!/usr/bin/env bash
# On the first screen after an installation that failed: why, and a shell.
cat /run/k3splan-setup/failure
printf '%s\n' "" "This is a shell for root. To try again: setup. The log: less /run/k3splan-setup/log"
exec bash --login
