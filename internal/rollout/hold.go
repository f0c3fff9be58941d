package rollout

import "k3splan/internal/receipt"

// ReceiptFiles are the files by which a host remembers its deployments, as words of a shell.
const ReceiptFiles = receipt.Files

// ForgetScript is a POSIX shell script that lets a host forget its deployments: the next one takes it for new.
const ForgetScript = "rm -f " + ReceiptFiles + "\n"

// controlFolders come before all other places of units for systemd, also before /etc/systemd/system, which on
// NixOS leads into the store: "systemctl mask" can write neither there nor, with an effect, to
// /run/systemd/system. The first one outlasts a boot; /etc may be read-only.
const controlFolders = "/etc/systemd/system.control /run/systemd/system.control"

// UnitScript prints "runs" if the unit "$1" runs or is about to, "held" if it does not and cannot start, else
// "stopped".
const UnitScript = `
case "$(systemctl show -p LoadState --value "$1") $(systemctl show -p ActiveState --value "$1")" in
  "masked inactive" | "masked failed" | "not-found inactive") echo held ;;
  *" inactive" | *" failed") echo stopped ;;
  *) echo runs ;;
esac
`

// HoldScript lets the host forget its deployments, stops the unit "$1" and keeps it from starting again. It is
// stopped first: of a masked unit systemd does not know any more how it is to be stopped. A later deployment
// lets it go (releaseScript).
const HoldScript = "set -e\n" + ForgetScript + `unit=$1
if [ "$(systemctl show -p LoadState --value "$unit")" != not-found ]; then systemctl stop "$unit"; fi
held=
for folder in ` + controlFolders + `; do
  if mkdir -p "$folder" 2> /dev/null && ln -sfn /dev/null "$folder/$unit" 2> /dev/null; then held=$folder; break; fi
done
if [ -z "$held" ]; then echo "no place for units is writable: ` + controlFolders + `" >&2; exit 1; fi
systemctl daemon-reload
state=$(systemctl show -p ActiveState --value "$unit")
case $state in
  inactive | failed) ;;
  *) echo "$unit is $state after it was stopped" >&2; exit 1 ;;
esac
case $held in /run/*) echo "until the next boot" ;; esac
`

// releaseScript lets units start again that HoldScript has stopped.
const releaseScript = `
released=
for unit; do
  for folder in ` + controlFolders + `; do
    if [ "$(readlink "$folder/$unit")" = /dev/null ]; then rm "$folder/$unit"; released=yes; fi
  done
done
if [ -n "$released" ]; then systemctl daemon-reload; fi
`
