#!/bin/sh
# Prints twice a second how many members of etcd say of themselves that they are voters with a leader, and how many
# voters there are: the folder of etcdctl, and the members' addresses.
etcd=$1
shift
while :; do
  healthy=0 up=
  for address; do
    case $(curl -s -m 2 "http://$address:2381/metrics" | grep -E '^etcd_server_(has_leader|is_learner) ' | sort | tr '\n' ' ') in
      "etcd_server_has_leader 1 etcd_server_is_learner 0 ") healthy=$((healthy + 1)) up=$address ;;
    esac
  done
  voters=unknown
  if [ -n "$up" ]; then voters=$(ETCDCTL_API=3 "$etcd/etcdctl" --endpoints="http://$up:2379" member list | grep -c ', false$'); fi
  echo "$(date +%T.%N) $healthy $voters"
  sleep 0.5
done
