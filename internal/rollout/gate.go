package rollout

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k3splan/internal/plan"
	"k3splan/internal/remote"
)

// Gate waits until the host answers, runs the system, and has no failed units that were not failed
// before; where containers may have restarted, until they are those that were deployed, its server is a
// ready voter and its agent's Node ready, alive, and labelled and tainted as planned.
func (d *Driver) Gate(ctx context.Context, host, system string, work Work, say Say) error {
	h := d.Before.Plan.Host(host)
	g := &gate{Driver: d, host: h, system: system, containers: !work.OnlyNames || work.Restarts() || h.Server != nil}
	return wait(ctx, host, d.GateTimeout, d.Pause, g.check, say)
}

// looks is how often a gate looks at least, however slow the answers are: an agent's lease is seen to be
// renewed by two looks.
const looks = 2

// wait calls check again and again until it waits for nothing any more, or the time is up. An error of check
// ends it.
func wait(ctx context.Context, what string, limit, pause time.Duration, check func(context.Context) (waits string, err error), say Say) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	last := ""
	for n := 1; ; n++ {
		asking := limited
		if n <= looks {
			asking = ctx
		}
		waits, err := check(asking)
		if err != nil {
			return err
		}
		if waits == "" {
			return nil
		}
		// what was cut short by the limit says nothing about the host
		if asking.Err() == nil || last == "" {
			last = waits
		}
		say("waiting: "+last, "")
		select {
		case <-ctx.Done():
			return fmt.Errorf("while waiting for %s: %s: %w", what, last, context.Cause(ctx))
		case <-time.After(pause):
		}
		if limited.Err() != nil && n >= looks {
			return fmt.Errorf("%s did not become healthy within %s: %s", what, limit, last)
		}
	}
}

type gate struct {
	*Driver
	host       *plan.Host
	system     string
	containers bool
	// renewed is the first renewal of the agent's lease that was seen. Clocks of machines differ, so
	// it is compared with later ones only.
	renewed string
}

// check returns what the gate still waits for, or "". The error is one that waiting does not fix.
func (g *gate) check(ctx context.Context) (waits string, err error) {
	script, words := "", []string(nil)
	if g.containers && len(g.host.Containers()) > 0 {
		server, agent := containersOf(g.host)
		script, words = runningScript, []string{g.system, g.Before.Observed[g.host.Name].System, server, agent}
	}
	machine, o := g.reach(ctx, g.host, script, words...)
	switch {
	case o.Unreachable != "":
		return "ssh: " + o.Unreachable, nil
	case o.System != g.system:
		return "", fmt.Errorf("%s runs %s and not %s", g.host.Name, cmp.Or(o.System, "nothing"), g.system)
	}
	if failed := g.newlyFailed(o); len(failed) > 0 {
		return "failed units: " + strings.Join(failed, " "), nil
	}
	if !g.containers || len(g.host.Containers()) == 0 {
		return "", nil
	}
	if len(o.Differs) > 0 {
		return strings.Join(o.Differs, "; "), nil
	}
	if g.host.Server != nil {
		if health := askServer(ctx, machine, g.host.Server.Name); !health.Ready {
			return "server " + g.host.Server.Name + ": " + health.Why, nil
		}
	}
	if g.host.Agent != nil {
		if waits, err := g.agent(ctx, machine); waits != "" || err != nil {
			return waits, err
		}
		return g.mark(ctx), nil
	}
	return "", nil
}

func (g *gate) newlyFailed(o Observed) []string {
	before := g.Before.Observed[g.host.Name].Failed
	return slices.DeleteFunc(slices.Clone(o.Failed), func(unit string) bool { return slices.Contains(before, unit) })
}

// agent asks whichever server answers about the agent's Node and lease.
func (g *gate) agent(ctx context.Context, machine remote.Machine) (waits string, err error) {
	name := g.host.Agent.Name
	why := "the plan has no server"
	for _, server := range g.Before.Plan.Servers() {
		node, err := askNode(ctx, g.Machine(server.Host), server.Name, name)
		if err != nil {
			why = "no server answers: " + server.Name + ": " + err.Error()
			continue
		}
		switch {
		case !node.Ready:
			why = node.Why
		case node.Renewed == "":
			why = "its Node has no lease"
		case g.renewed == "":
			g.renewed = node.Renewed
			return "agent " + name + ": its lease is to be renewed", nil
		case g.renewed == node.Renewed:
			why = "its lease is to be renewed"
		default:
			return "", nil
		}
		if g.rejected(ctx, machine) {
			return "", fmt.Errorf("agent %s: k3s rejects its node password: the cluster has a Node of this name, of a machine that was reinstalled since\n"+
				"if that is so, on %s: nixos-container run %s -- k3s kubectl delete node %[1]s\n"+
				"the agent joins by itself then; k3splan deploy %[4]s", name, server.Host.Name, server.Name, g.host.Name)
		}
		break
	}
	return "agent " + name + ": " + why, nil
}

// rejected reports whether k3s refuses the agent because another machine has had its name: an agent keeps a
// password that the cluster remembers with the Node
// (https://docs.k3s.io/architecture#how-agent-node-registration-works).
func (g *gate) rejected(ctx context.Context, machine remote.Machine) bool {
	out, err := machine.Script(ctx, `podman logs --since 30s "$1" 2>&1 | grep -F -m 1 "Node password rejected"; true`, g.host.Agent.Name)
	return err == nil && out != ""
}

// Node is what the cluster reports about an agent.
type Node struct {
	Ready bool
	// Why says what is missing if it is not ready.
	Why string
	// Version is its k3s, "v1.31.14+k3s1".
	Version string
	// Renewed is when its lease was renewed last, by its own clock.
	Renewed string
}

// nodesScript prints two lists, as the words of a JSON path would have to survive several shells.
const nodesScript = `
inside() { timeout 20 nixos-container run "$1" -- k3s kubectl get "$2" -n kube-node-lease $3 -o json; }
inside "$1" nodes "$2" && echo && echo leases && inside "$1" leases.coordination.k8s.io "$2"
`

// askNode asks a server container about one Node.
func askNode(ctx context.Context, machine remote.Machine, container, name string) (Node, error) {
	out, err := runKubectl(ctx, machine, container, name)
	if err != nil {
		if strings.Contains(err.Error(), "NotFound") || strings.Contains(err.Error(), "not found") && strings.Contains(err.Error(), name) {
			return Node{Why: "not registered yet"}, nil
		}
		return Node{}, err
	}
	nodes, err := parseNodes(out)
	if err != nil {
		return Node{}, err
	}
	node, there := nodes[name]
	if !there {
		node.Why = "not registered yet"
	}
	return node, nil
}

// askNodes asks a server container about all Nodes, by name.
func askNodes(ctx context.Context, machine remote.Machine, container string) (map[string]Node, error) {
	out, err := runKubectl(ctx, machine, container, "")
	if err != nil {
		return nil, err
	}
	return parseNodes(out)
}

// maxNodes is in bytes. A Node with many images has about 20 kB.
const maxNodes = 64 << 20

func runKubectl(ctx context.Context, machine remote.Machine, words ...string) (string, error) {
	words = slices.DeleteFunc(words, func(word string) bool { return word == "" })
	machine.Limit = maxNodes
	out, err := machine.Script(ctx, nodesScript, words...)
	if err != nil {
		return "", errors.New(reason(err))
	}
	return out, nil
}

// object is a Node or a Lease of Kubernetes, as far as it is looked at.
type object struct {
	Items    []object `json:"items"`
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		RenewTime string `json:"renewTime"`
	} `json:"spec"`
	Status struct {
		NodeInfo struct {
			KubeletVersion string `json:"kubeletVersion"`
		} `json:"nodeInfo"`
		Conditions []struct {
			Type, Status, Reason, Message string
		} `json:"conditions"`
	} `json:"status"`
}

// list returns the items of a list, or the single object.
func (o object) list() []object {
	if o.Metadata.Name != "" {
		return []object{o}
	}
	return o.Items
}

func parseNodes(out string) (map[string]Node, error) {
	head, tail, whole := strings.Cut(out, "\nleases\n")
	if !whole {
		return nil, errIncomplete
	}
	var nodes, leases object
	if err := errors.Join(json.Unmarshal([]byte(head), &nodes), json.Unmarshal([]byte(tail), &leases)); err != nil {
		return nil, fmt.Errorf("kubectl's answer cannot be read: %w", err)
	}
	found := map[string]Node{}
	for _, item := range nodes.list() {
		node := Node{Version: item.Status.NodeInfo.KubeletVersion, Why: "its Node has no state"}
		for _, condition := range item.Status.Conditions {
			if condition.Type == "Ready" {
				node.Ready, node.Why = condition.Status == "True", "its Node is not ready: "+condition.Reason
			}
		}
		if node.Ready {
			node.Why = ""
		}
		found[item.Metadata.Name] = node
	}
	for _, lease := range leases.list() {
		if node, there := found[lease.Metadata.Name]; there {
			node.Renewed = lease.Spec.RenewTime
			found[lease.Metadata.Name] = node
		}
	}
	return found, nil
}
