package lifecycle

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/k3s"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/rollout"
)

// Machines is a [Rack] that is reached by ssh.
type Machines struct {
	Plan *plan.Plan
	// Machine returns how a host is reached.
	Machine func(*plan.Host) remote.Machine
}

var _ Rack = Machines{}

// Look implements [Rack].
func (m Machines) Look(ctx context.Context, host *plan.Host) (rollout.Situation, error) {
	return rollout.Look(ctx, m.Plan, m.Machine, host)
}

// at returns a server; its commands may take that long.
func (m Machines) at(helper *plan.Container, limit time.Duration) k3s.Server {
	machine := m.Machine(helper.Host)
	machine.Timeout = limit
	return k3s.Server{Container: helper.Name, Run: machine.Run}
}

// askLimit is for commands that k3s answers within seconds.
const askLimit = 90 * time.Second

// Reaches implements [Rack].
func (m Machines) Reaches(ctx context.Context, helper *plan.Container, address netip.Addr) bool {
	return m.at(helper, askLimit).Reaches(ctx, address)
}

// Members implements [Rack].
func (m Machines) Members(ctx context.Context, helper *plan.Container) ([]k3s.Member, error) {
	return m.at(helper, askLimit).Members(ctx)
}

// RemoveMember implements [Rack].
func (m Machines) RemoveMember(ctx context.Context, helper *plan.Container, id string) error {
	return m.at(helper, askLimit).RemoveMember(ctx, id)
}

// Node implements [Rack].
func (m Machines) Node(ctx context.Context, helper *plan.Container, name string) (*k3s.Node, error) {
	return m.at(helper, askLimit).Node(ctx, name)
}

// Remembers implements [Rack].
func (m Machines) Remembers(ctx context.Context, helper *plan.Container, name string) (bool, error) {
	return m.at(helper, askLimit).Remembers(ctx, name)
}

// Drain implements [Rack].
func (m Machines) Drain(ctx context.Context, helper *plan.Container, name string, limit time.Duration) error {
	return m.at(helper, limit+time.Minute).Drain(ctx, name, limit, true)
}

// DeleteNode implements [Rack].
func (m Machines) DeleteNode(ctx context.Context, helper *plan.Container, name string) error {
	return m.at(helper, 3*time.Minute).DeleteNode(ctx, name)
}

func (m Machines) script(ctx context.Context, host *plan.Host, what, script string, words ...string) (string, error) {
	out, err := m.Machine(host).Script(ctx, script, words...)
	if err != nil {
		return "", diag.WithHint(fmt.Errorf("%s on %s: %s", what, host.Name, remote.Reason(err)), diag.HintOf(err))
	}
	return strings.TrimSpace(out), nil
}

// Unit implements [Rack].
func (m Machines) Unit(ctx context.Context, host *plan.Host, unit string) (runs, held bool, err error) {
	out, err := m.script(ctx, host, "asking for "+unit, rollout.UnitScript, unit)
	return out == "runs", out == "held", err
}

// Hold implements [Rack].
func (m Machines) Hold(ctx context.Context, host *plan.Host, unit string) (lasting bool, err error) {
	out, err := m.script(ctx, host, "stopping "+unit, rollout.HoldScript, unit)
	return out != "until the next boot", err
}

// HasReceipt implements [Rack].
func (m Machines) HasReceipt(ctx context.Context, host *plan.Host) (bool, error) {
	out, err := m.script(ctx, host, "looking for the receipt", hasReceiptScript)
	return out == "yes", err
}

// Forget implements [Rack].
func (m Machines) Forget(ctx context.Context, host *plan.Host) error {
	_, err := m.script(ctx, host, "deleting the receipt", rollout.ForgetScript)
	return err
}

// HasState implements [Rack].
func (m Machines) HasState(ctx context.Context, host *plan.Host) (bool, error) {
	out, err := m.script(ctx, host, "looking for the state of k3s", hasStateScript, statePlaces(host)...)
	return out == "yes", err
}

// Wipe implements [Rack].
func (m Machines) Wipe(ctx context.Context, host *plan.Host) error {
	_, err := m.script(ctx, host, "deleting the state of k3s", wipeScript, append([]string{strings.Join(rollout.Units(host), " ")}, statePlaces(host)...)...)
	return err
}

const hasReceiptScript = `for file in ` + rollout.ReceiptFiles + `; do if [ -e "$file" ]; then echo yes; exit; fi; done`

// statePlaces are where the containers of a host keep what they would join the cluster with
// (templates/modules/places.nix).
func statePlaces(host *plan.Host) []string {
	places := []string{"/var/lib/k3splan/server/token", "/var/lib/k3splan/server/agent-token", "/var/lib/k3splan/agent/token"}
	if host.Server != nil {
		places = append(places, "/var/lib/nixos-containers/"+host.Server.Name+"/var/lib/rancher")
	}
	if host.Agent != nil {
		places = append(places, "/var/lib/k3splan/agents/"+host.Agent.Name)
	}
	return places
}

const hasStateScript = `for place; do if [ -e "$place" ]; then echo yes; exit; fi; done`

// wipeScript deletes the places behind "$1", the units that must have stopped. What is mounted below a place,
// volumes of pods for example, is unmounted and keeps its content.
const wipeScript = `
for unit in $1; do
  case $(systemctl show -p ActiveState --value "$unit") in
    inactive | failed | '') ;;
    *) echo "$unit runs" >&2; exit 1 ;;
  esac
done
shift
left=
for place; do
  while read -r _ _ _ _ point _; do
    case $point in "$place" | "$place"/*) printf '%s\n' "$point" ;; esac
  done < /proc/self/mountinfo | sort -r | while IFS= read -r point; do
    umount -- "$(printf '%b' "$point")"
  done
  rm -rf --one-file-system -- "$place"
  if [ -e "$place" ]; then left="$left $place"; fi
done
if [ -n "$left" ]; then echo "not empty, perhaps because something is mounted there:$left" >&2; exit 1; fi
`
