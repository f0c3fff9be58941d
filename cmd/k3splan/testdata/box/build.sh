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
if [ -n "$serverName" ]; then
  mkdir -p "$out/etc/nixos-containers"
  echo "SYSTEM_PATH=$container" > "$out/etc/nixos-containers/$serverName.conf"
fi
if [ -n "$agentName" ]; then
  ln -s "$start" "$out/start-$agentName"
  echo "ExecStart=$start " > "$out/etc/systemd/system/podman-$agentName.service"
fi
