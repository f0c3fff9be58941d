#!/usr/bin/env bash
# systemd-networkd and systemd-networkd-wait-online 252: an interface with a static IPv4 address only.
#
# Guess:     an interface whose network file has Address= and DHCP=no is configured, and online, as soon as it has the address.
# Behaviour: it is "configuring" until no router has answered three IPv6 router solicitations: wait-online returns after
#            12 to 14 s where no router advertises IPv6, and after about 2 s with IPv6AcceptRA=no.
# Seen:      13 s; 2 s
# Needs root, systemd-networkd and iproute2; works in namespaces of its own. Fails if the behaviour changes.
set -euo pipefail
[ "${1:-}" = inside ] || exec unshare --net --mount "$0" inside
/lib/systemd/systemd-networkd --version | head -1
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/network
mount -t sysfs -o ro sysfs /sys
time_online() { # SETTING
  printf '[Match]\nName=lan0\n[Network]\nDHCP=no\nAddress=10.9.0.2/24\n%s\n' "$1" > /run/systemd/network/10-lan.network
  ip link add lan0 type veth peer name switch && ip link set switch up
  /lib/systemd/systemd-networkd 2> /run/log & local networkd=$! start=$SECONDS
  /lib/systemd/systemd-networkd-wait-online --interface=lan0 --timeout=60
  took=$((SECONDS - start))
  kill $networkd; wait $networkd || true
  ip link delete lan0
  echo "$took s with ${1:-no further setting}"
}
time_online ''; [ "$took" -ge 10 ]
time_online IPv6AcceptRA=no; [ "$took" -le 6 ]
