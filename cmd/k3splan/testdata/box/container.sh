# The inside of a server's container, as far as k3splan looks at it.
mkdir -p "$out/etc/systemd/system" "$out/etc/systemd/network"
echo "ExecStart=/nix/store/00000000000000000000000000000000-k3s-$k3s/bin/k3s server" > "$out/etc/systemd/system/k3s.service"
echo "Address=$ip/24" > "$out/etc/systemd/network/10-k3splan.network"
