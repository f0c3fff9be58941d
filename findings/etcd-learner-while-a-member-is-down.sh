#!/usr/bin/env bash
# etcd 3.4.23 (Debian 12), three members of which one is down.
#
# Guess:     a learner has no vote and changes no quorum, so it can be added as long as a majority of the members is up.
# Behaviour: adding any member, a learner too, is refused unless the asked member has been connected to all voters for some
#            seconds. Removing the member that is down is allowed at once, and then a learner can be added.
# Seen:      etcdserver: unhealthy cluster; Member … removed; Member … added
# Needs etcd and etcdctl (apt-get download etcd-server etcd-client; dpkg -x); listens on 127.0.0.1 in a network namespace
# of its own. Fails if the behaviour changes.
set -euo pipefail
[ "${1:-}" = inside ] || exec unshare --net "$0" inside
work=$(mktemp -d) && trap 'kill $(jobs -p) 2> /dev/null; wait; rm -rf "$work"' EXIT
cd "$work"
export ETCDCTL_API=3 ETCD_UNSUPPORTED_ARCH=
ip link set lo up
etcd --version | head -1
cluster=a=http://127.0.0.1:1380,b=http://127.0.0.1:2380,c=http://127.0.0.1:3380
declare -A process
member() { # NAME PORT
  etcd --name "$1" --data-dir "$1" --initial-cluster $cluster --listen-client-urls "http://127.0.0.1:${2}379" --advertise-client-urls "http://127.0.0.1:${2}379" \
    --listen-peer-urls "http://127.0.0.1:${2}380" --initial-advertise-peer-urls "http://127.0.0.1:${2}380" > "$1.log" 2>&1 &
  process[$1]=$!
}
member a 1; member b 2; member c 3
ctl() { etcdctl --endpoints=http://127.0.0.1:1379 "$@"; }
for _ in $(seq 50); do ctl endpoint health > /dev/null 2>&1 && break; sleep 0.3; done
sleep 6 # members count as connected after five seconds
kill -9 "${process[c]}"; sleep 1
ctl get x > /dev/null && echo "the cluster answers"
if ctl member add d --learner --peer-urls=http://127.0.0.1:4380 2> error; then echo "a learner was added" >&2; exit 1; fi
cat error
grep -q 'unhealthy cluster' error
ctl member remove "$(ctl member list | grep ', c,' | cut -d, -f1)"
ctl member add d --learner --peer-urls=http://127.0.0.1:4380 | head -1
