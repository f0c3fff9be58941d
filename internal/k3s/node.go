package k3s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/run"
)

// passwordSecret is where k3s keeps the hash of a Node's password, in kube-system. A machine that registers
// a Node of this name has to know it (https://docs.k3s.io/architecture#how-agent-node-registration-works).
func passwordSecret(node string) string { return node + ".node-password.k3s" }

func (s Server) kubectl(ctx context.Context, seconds int, words ...string) (string, error) {
	return s.inside(ctx, append([]string{"timeout", fmt.Sprint(seconds), "k3s", "kubectl"}, words...)...)
}

// Node is what the cluster knows of a machine, here of an agent.
type Node struct {
	Name string
	// Ready reports whether its kubelet has reported lately, within some 40 seconds, that it is healthy.
	Ready               bool
	Labels, Annotations map[string]string
	Taints              []Taint
	// Unschedulable reports whether the Node is cordoned: it takes no new pods.
	Unschedulable bool
}

// Taint keeps pods away from a Node.
type Taint struct{ Key, Value, Effect string }

// Node returns a Node of the cluster, nil if there is none of this name.
func (s Server) Node(ctx context.Context, name string) (*Node, error) {
	out, err := s.kubectl(ctx, 20, "get", "node", name, "--ignore-not-found", "-o", "json")
	if err != nil {
		return nil, fmt.Errorf("ask %s for the Node %s: %w", s.Container, name, err)
	}
	if strings.TrimSpace(out) == "" {
		return nil, nil
	}
	var answer struct {
		Metadata struct {
			Name                string
			Labels, Annotations map[string]string
		}
		Spec struct {
			Taints        []Taint
			Unschedulable bool
		}
		Status struct {
			Conditions []struct{ Type, Status string }
		}
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.Metadata.Name != name {
		return nil, fmt.Errorf("ask %s for the Node %s: the answer is not a Node", s.Container, name)
	}
	n := &Node{Name: name, Labels: answer.Metadata.Labels, Annotations: answer.Metadata.Annotations, Taints: answer.Spec.Taints, Unschedulable: answer.Spec.Unschedulable}
	for _, c := range answer.Status.Conditions {
		if c.Type == "Ready" {
			n.Ready = c.Status == "True"
		}
	}
	return n, nil
}

// Remembers reports whether the cluster has the password of a Node of this name.
func (s Server) Remembers(ctx context.Context, name string) (bool, error) {
	out, err := s.kubectl(ctx, 20, "get", "secret", passwordSecret(name), "-n", "kube-system", "--ignore-not-found", "-o", "name")
	if err != nil {
		return false, fmt.Errorf("ask %s for the password of the Node %s: %w", s.Container, name, err)
	}
	return strings.TrimSpace(out) != "", nil
}

// DeleteNode deletes a Node and its password, as far as they exist. Its agent must have stopped.
func (s Server) DeleteNode(ctx context.Context, name string) error {
	if _, err := s.kubectl(ctx, 60, "delete", "node", name, "--ignore-not-found"); err != nil {
		return fmt.Errorf("delete the Node %s, on %s: %w", name, s.Container, err)
	}
	return s.ForgetPasswords(ctx, name)
}

// ForgetPasswords deletes the passwords of Nodes, as far as they exist: an agent that starts again brings its own.
func (s Server) ForgetPasswords(ctx context.Context, nodes ...string) error {
	if len(nodes) == 0 {
		return nil
	}
	words := []string{"delete", "secret"}
	for _, name := range nodes {
		words = append(words, passwordSecret(name))
	}
	if _, err := s.kubectl(ctx, 60, append(words, "-n", "kube-system", "--ignore-not-found")...); err != nil {
		return fmt.Errorf("delete the password of the Node %s, on %s: %w", strings.Join(nodes, ", "), s.Container, err)
	}
	return nil
}

// Cordon lets a Node take no new pods, and Uncordon lets it take them again.
func (s Server) Cordon(ctx context.Context, name string) error {
	return s.schedule(ctx, "cordon", name)
}

// Uncordon undoes [Server.Cordon].
func (s Server) Uncordon(ctx context.Context, name string) error {
	return s.schedule(ctx, "uncordon", name)
}

func (s Server) schedule(ctx context.Context, verb, name string) error {
	if _, err := s.kubectl(ctx, 30, verb, name); err != nil {
		return fmt.Errorf("%s the Node %s, on %s: %w", verb, name, s.Container, err)
	}
	return nil
}

// Drain evicts all pods from a Node, except those of daemon sets, as PodDisruptionBudgets allow it. Pods with
// emptyDir volumes are evicted only if what is in those may be lost. The server's Run must wait longer than the
// limit.
func (s Server) Drain(ctx context.Context, name string, limit time.Duration, losesEmptyDir bool) error {
	seconds := int(limit.Round(time.Second) / time.Second)
	command := []string{"drain", name, "--ignore-daemonsets", fmt.Sprintf("--timeout=%ds", seconds)}
	if losesEmptyDir {
		command = append(command, "--delete-emptydir-data")
	}
	_, err := s.kubectl(ctx, seconds+15, command...)
	if err == nil {
		return nil
	}
	message := fmt.Sprintf("drain the Node %s, on %s", name, s.Container)
	var exit *run.ExitError
	if errors.As(err, &exit) {
		if blocked := blockedPods(exit.Stderr); len(blocked) > 0 {
			return diag.WithHint(fmt.Errorf("%s, within %s: %s", message, limit, strings.Join(blocked, "; ")),
				"what keeps a pod: kubectl get poddisruptionbudgets -A; more replicas elsewhere let it go, and the same command goes on")
		}
	}
	return fmt.Errorf("%s: %w", message, err)
}

// blockedPods returns what "kubectl drain" says about pods that it could not evict, each once.
func blockedPods(said string) (blocked []string) {
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		_, about, found := strings.Cut(line, "error when evicting ")
		if !found {
			if _, about, found = strings.Cut(line, "cannot delete "); found {
				about = "cannot delete " + about
			}
		}
		if found && !slices.Contains(blocked, about) {
			blocked = append(blocked, about)
		}
	}
	return blocked
}
