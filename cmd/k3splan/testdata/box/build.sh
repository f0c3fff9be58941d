mkdir -p "$out/bin"
cp "$switch" "$out/bin/switch-to-configuration"
chmod 755 "$out/bin/switch-to-configuration"
ln -s "$kernel" "$out/kernel"
echo "$release.box" > "$out/nixos-version"
mkdir -p "$out/etc/systemd/system"
if [ "$dbus" = broker ]; then touch "$out/etc/systemd/system/dbus-broker.service"; fi
for name in k3sVersion hosts row snippet serverName server agentName agent labels taints; do
  eval "printf %s \"\$$name\"" > "$out/$name"
done
# what the containers run is known from the host's system: the server's configuration of nspawn, and the
# start script in the agent's unit
hash() { sha256sum "$out/$1" | head -c 32; }
if [ -n "$serverName" ]; then
  mkdir -p "$out/etc/nixos-containers"
  echo "SYSTEM_PATH=/nix/store/$(hash server)-nixos-system-$serverName" > "$out/etc/nixos-containers/$serverName.conf"
fi
if [ -n "$agentName" ]; then
  printf '#!/bin/sh\nexec podman run \\\n  --name=%s \\\n  image \\\n  '"'--label=%s'"' agent\n' "$agentName" "$(hash agent)" > "$out/start-$agentName"
  echo "ExecStart=/run/current-system/start-$agentName " > "$out/etc/systemd/system/podman-$agentName.service"
fi
