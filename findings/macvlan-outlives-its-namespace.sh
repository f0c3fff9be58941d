#!/usr/bin/env bash
# Linux: a macvlan in a network namespace that was deleted.
#
# Guess:     when the last process of a network namespace has ended and its name is deleted, its interfaces are gone, and
#            a macvlan with the same MAC address can take their place at once (a container that is started again).
# Behaviour: a TCP connection that could not send all keeps the namespace, with its macvlan up, as long as the kernel
#            retries. A second macvlan of the same MAC address on the same parent cannot be brought up meanwhile.
#            With the interface taken down before the process ends, it can.
# Seen:      RTNETLINK answers: Address already in use; up after 0 s where the first was taken down before
#            (Linux 6.18; for a minute and longer)
# Needs root, iproute2 and python3; works in namespaces of its own. Fails if the behaviour changes.
set -euo pipefail
[ "${1:-}" = inside ] || exec unshare --net --mount "$0" inside
uname -r
mount -t tmpfs tmpfs /run && mkdir /run/netns
ip link set lo up
ip link add lan type bridge && ip address add 10.9.0.1/24 dev lan && ip link set lan up
ip link add port type veth peer name parent && ip link set port master lan up && ip link set parent up
# accepts, and reads nothing
python3 -c 'import socket, time
s = socket.create_server(("10.9.0.1", 9999)); kept = []
while True: kept.append(s.accept())' & server=$!
trap 'kill $server' EXIT
sleep 1

container() { # NAME MAC: a macvlan in a namespace
  ip netns add "$1"
  ip link add link parent name mv address "$2" netns "$1" type macvlan mode bridge
  ip -n "$1" address add 10.9.0.2/24 dev mv
}
connect() { # NAME: a process whose connection is not closed to the end
  timeout --signal=KILL 2 ip netns exec "$1" python3 -c 'import socket
s = socket.create_connection(("10.9.0.1", 9999))
while True: s.send(b"x" * 65536)' 2> /dev/null || true
}
container first 02:00:00:00:00:08 && ip -n first link set mv up && { connect first; } 2> /dev/null
ip netns delete first
container second 02:00:00:00:00:08
if ip -n second link set mv up 2> /run/error; then echo "up at once" >&2; exit 1; fi
cat /run/error
grep -q 'Address already in use' /run/error

# another address, taken down before the namespace goes
container third 02:00:00:00:00:09 && ip -n third link set mv up && { connect third; } 2> /dev/null
ip -n third link set mv down
ip netns delete third
container fourth 02:00:00:00:00:09
ip -n fourth link set mv up
echo "up at once"
