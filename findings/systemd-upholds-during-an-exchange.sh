#!/usr/bin/env bash
# systemd 252: Upholds= on a unit whose file is being replaced, in the order of NixOS's switch-to-configuration.
#
# Guess:     `systemctl stop`, a new unit file, `daemon-reload`, `systemctl start` ends with the new definition running.
# Behaviour: a unit that another one upholds is started again right after the stop, before the reload, with the old
#            definition. The start afterwards finds it running and does nothing. Restart=always does not do that.
# Seen:      upheld: old; with Restart=always alone: new
# Needs root and systemd; starts a user manager in namespaces of its own. Fails if the behaviour changes.
set -euo pipefail
[ "${1:-}" = inside ] || exec unshare --pid --fork --mount --mount-proc "$0" inside
systemctl --version | head -1
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system /run/user && chmod 0700 /run/user
export XDG_RUNTIME_DIR=/run/user XDG_CONFIG_HOME=/run/config HOME=/run
units=/run/config/systemd/user && mkdir -p $units
unit() { # TEXT: a service that is what it was started as
  printf '[Service]\nRestart=always\nRestartSec=5\nExecStart=/bin/sh -c "echo %s > /run/$0; exec sleep 600" %%n\n' "$1"
}
unit old > $units/upheld.service
unit old > $units/plain.service
printf '[Unit]\nUpholds=upheld.service\n[Service]\nExecStart=/bin/sleep 600\n' > $units/other.service
/lib/systemd/systemd --user > /run/log 2>&1 &
for _ in $(seq 50); do systemctl --user is-active --quiet basic.target 2> /dev/null && break; sleep 0.2; done
systemctl --user start other.service upheld.service plain.service
sleep 1
systemctl --user stop upheld.service plain.service
sleep 1 # the activation of the new system
unit new > $units/upheld.service
unit new > $units/plain.service
systemctl --user daemon-reload
systemctl --user start upheld.service plain.service
sleep 1
echo "upheld: $(cat /run/upheld.service); with Restart=always alone: $(cat /run/plain.service)"
[ "$(cat /run/upheld.service) $(cat /run/plain.service)" = "old new" ]
