# Prints the generations of a host's system: lines of a word and its value. What is known of a generation
# follows its line.
broker() { if [ -e "$1/etc/systemd/system/dbus-broker.service" ]; then echo yes; else echo no; fi; }
link() { readlink -f "$1" 2> /dev/null || true; }
echo "runs $(link /run/current-system)"
echo "booted $(link /run/booted-system)"
number=$(readlink /nix/var/nix/profiles/system 2> /dev/null) number=${number##*/system-} number=${number#system-}
echo "profile ${number%-link}"
# systemd-boot starts what its own file says, which is behind the profile if an activation was cut short
for loader in /boot/loader/loader.conf /boot/efi/loader/loader.conf /efi/loader/loader.conf; do
  [ ! -e "$loader" ] || sed -n 's/^default *nixos-generation-\([0-9][0-9]*\)\.conf *$/loader \1/p' "$loader" | head -n 1
done
if [ -e /var/lib/k3splan/receipt ]; then
  sed -n 's/^{"version":[0-9]*,"time":"[^"]*","system":"\([^"]*\)".*/deployed \1/p' /var/lib/k3splan/receipt
fi
for generation in /nix/var/nix/profiles/system-[0-9]*-link; do
  system=$(readlink -e "$generation") || continue # its system was collected
  number=${generation##*/system-} number=${number%-link}
  echo "generation $number $(stat -c %Y "$generation") $system"
  echo "nixos $(cat "$system/nixos-version" 2> /dev/null)"
  echo "kernel $(link "$system/kernel")"
  # what cannot change while the booted system runs
  if [ -e /run/booted-system/etc ]; then
    [ "$(broker /run/booted-system)" = "$(broker "$system")" ] || echo "boot D-Bus"
    if [ -e /run/booted-system/switch-inhibitors ] && [ -e "$system/switch-inhibitors" ]; then
      cmp -s /run/booted-system/switch-inhibitors "$system/switch-inhibitors" || echo "boot switch inhibitors"
    fi
  fi
  kept=/var/lib/k3splan/receipts/${system##*/}
  [ ! -e "$kept" ] || sed -n 's/^{"version":[0-9]*,"time":"\([^"]*\)".*/receipt \1/p' "$kept"
  for conf in "$system"/etc/nixos-containers/*.conf "$system"/etc/containers/*.conf; do
    inside=$(sed -n 's/^SYSTEM_PATH=//p' "$conf" 2> /dev/null | head -n 1)
    unit=$inside/etc/systemd/system/k3s.service
    if [ -z "$inside" ] || [ ! -e "$unit" ]; then continue; fi # a container of the user's own
    name=${conf##*/}
    program=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$unit" | head -n 1)
    version=$(printf '%s\n' "$program" | sed -n 's/.*-k3s-\([0-9][^/]*\)\/.*/\1/p')
    if [ -z "$version" ] && [ -x "$program" ]; then
      version=$(timeout 20 "$program" --version 2> /dev/null | sed -n 's/^k3s version v\([^ ]*\).*/\1/p')
    fi
    address=$(sed -n 's/^Address=\([0-9.]*\).*/\1/p' "$inside/etc/systemd/network/10-k3splan.network" 2> /dev/null | head -n 1)
    echo "server ${name%.conf} ${version:--} ${address:--}"
  done
  for unit in "$system"/etc/systemd/system/podman-*.service; do
    start=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$unit" 2> /dev/null | head -n 1)
    # older releases of NixOS have the arguments in the unit itself
    case $(head -c 2 "$start" 2> /dev/null) in '#!') ;; *) start=$unit ;; esac
    version=$(cat "$unit" "$start" 2> /dev/null | sed -n 's/.*\/k3s:v\([0-9][^ '\''"\\]*\).*/\1/p' | head -n 1)
    [ -n "$version" ] || continue # not k3s
    name=${unit##*/podman-}
    # a tag cannot contain a plus sign
    echo "agent ${name%.service} $(printf %s "$version" | sed 's/-k3s/+k3s/')"
  done
done
echo end
