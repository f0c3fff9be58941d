package rollout

import (
	"k3splan/internal/plan"
)

// runningScript compares the containers that run with the system "$1" that was activated, and prints a
// line "differs …" for each that is not what it should be: a unit can be healthy and still be the one of before. "$2" is the system of
// before, "$3" the name of the server and "$4" that of the agent, or "".
//
// A server's container runs the system that the host's configuration of it names. An agent's runs with
// the arguments of podman that are in its unit or the unit's start script, apart from quotes and white
// space; it was started after the activation if its unit is another one than before.
const runningScript = `
system=$1 before=$2 server=$3 agent=$4
plain() { tr -d "\\\\ \t\n'\""; }
if [ -n "$server" ]; then
  for conf in "$system/etc/nixos-containers/$server.conf" "$system/etc/containers/$server.conf"; do
    if [ -e "$conf" ]; then break; fi
  done
  wanted=$(sed -n 's/^SYSTEM_PATH=//p' "$conf" 2> /dev/null | head -n 1)
  runs=$(timeout 20 nixos-container run "$server" -- readlink -f /run/current-system 2> /dev/null)
  if [ -z "$wanted" ]; then
    echo "differs the system has no container $server"
  elif [ "$runs" != "$(readlink -f "$wanted")" ]; then
    echo "differs the container of server $server runs ${runs:-nothing} and not $wanted"
  fi
fi
if [ -n "$agent" ]; then
  unit=etc/systemd/system/podman-$agent.service
  start=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$system/$unit" 2> /dev/null | head -n 1)
  runs=$(podman inspect --type container --format '{{range .Config.CreateCommand}}{{println .}}{{end}}' "$agent" 2> /dev/null | tail -n +2 | plain)
  if [ ! -e "$system/$unit" ]; then
    echo "differs the system has no unit podman-$agent.service"
  elif [ -z "$runs" ]; then
    echo "differs podman does not run the agent $agent"
  else
    # older releases of NixOS have the arguments in the unit itself
    case $(head -c 2 "$start") in '#!') ;; *) start= ;; esac
    case $(cat "$system/$unit" $start | plain) in
      *"$runs"*)
        started=$(podman inspect --type container --format '{{.State.StartedAt.Unix}}' "$agent" 2> /dev/null)
        activated=$(stat -c %Y /run/current-system)
        if [ -e "$before" ] && ! cmp -s "$before/$unit" "$system/$unit" && [ "${started:-0}" -lt "$activated" ]; then
          echo "differs the agent $agent was not restarted with its new unit"
        fi ;;
      *) echo "differs podman runs the agent $agent with other arguments than were deployed" ;;
    esac
  fi
fi
`

// containersOf returns the names of the server and of the agent that a host is to have, or "".
func containersOf(host *plan.Host) (server, agent string) {
	if host.Server != nil {
		server = host.Server.Name
	}
	if host.Agent != nil {
		agent = host.Agent.Name
	}
	return server, agent
}
