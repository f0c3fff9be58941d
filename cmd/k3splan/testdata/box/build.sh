mkdir -p "$out/bin"
cp "$switch" "$out/bin/switch-to-configuration"
chmod 755 "$out/bin/switch-to-configuration"
ln -s "$kernel" "$out/kernel"
echo "24.11.box" > "$out/nixos-version"
for name in hosts row snippet serverName server agentName agent; do
  eval "printf %s \"\$$name\"" > "$out/$name"
done
