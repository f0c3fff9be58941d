// Package k3s asks a running k3s server, inside its container, for what only it can tell or do.
//
// No secret goes by a command's arguments or environment: a server's own files and standard input
// and output carry them, inside the encrypted connection.
package k3s

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Runner runs a command as root on a server's host, with something on its standard input, and gives
// what it prints.
type Runner func(ctx context.Context, stdin string, command ...string) (string, error)

// Where k3s keeps things, inside the container. It writes the token itself, in its full form
// (K10HASH::server:PASSWORD).
const (
	tokenFile      = "/var/lib/rancher/k3s/server/token"
	kubeconfigFile = "/etc/rancher/k3s/k3s.yaml"
)

// Where a host keeps the tokens that it brings into its containers (templates/modules/places.nix).
const (
	serverTokenFile = "/var/lib/k3splan/server/token"
	agentTokenFile  = "/var/lib/k3splan/agent/token"
)

// receiptFile is what a deployment leaves on a host, with a seal of each secret.
const receiptFile = "/var/lib/k3splan/receipt"

// Server is a k3s server in a NixOS container.
type Server struct {
	// Container is the container's name.
	Container string
	Run       Runner
}

func (s Server) inside(ctx context.Context, command ...string) (string, error) {
	out, err := s.Run(ctx, "", append([]string{"nixos-container", "run", s.Container, "--"}, command...)...)
	return strings.ReplaceAll(out, "\r\n", "\n"), err
}

// Kubeconfig gives the administrator's kubeconfig as k3s wrote it: with the server's own loopback
// address.
func (s Server) Kubeconfig(ctx context.Context) ([]byte, error) {
	out, err := s.inside(ctx, "cat", kubeconfigFile)
	if err != nil {
		return nil, fmt.Errorf("fetch the kubeconfig from %s: %w", s.Container, err)
	}
	return []byte(out), nil
}

// Token gives the server token that is good now, in its full form.
func (s Server) Token(ctx context.Context) (string, error) {
	out, err := s.inside(ctx, "cat", tokenFile)
	if err != nil {
		return "", fmt.Errorf("ask %s for its token: %w", s.Container, err)
	}
	token := strings.TrimSpace(out)
	if token == "" || strings.ContainsAny(token, " \n") {
		return "", fmt.Errorf("ask %s for its token: the answer is not one", s.Container)
	}
	return token, nil
}

// RotateToken lets the cluster take a new random server token: k3s makes it itself, so that it
// stands in no command, and encrypts its datastore's bootstrap data with it. [Server.Token] tells
// it. Servers that run keep running, and take the old one; each needs the new token when it starts again,
// this one or the init server first.
func (s Server) RotateToken(ctx context.Context) error {
	if _, err := s.inside(ctx, "k3s", "token", "rotate"); err != nil {
		return fmt.Errorf("rotate the token on %s: %w", s.Container, err)
	}
	return nil
}

// CanStartWith tells whether the cluster's servers can start with the token of this secret part: k3s
// keeps in etcd what a starting server needs, encrypted with the token, under a key that is made from it
// (storageKey in k3s's pkg/cluster). The running ones cannot tell: each takes the token that it started
// with.
func (s Server) CanStartWith(ctx context.Context, password string) (bool, error) {
	const folder = "/bootstrap/"
	out, err := s.inside(ctx, "etcdctl", "get", "--prefix", "--keys-only", folder)
	keys := strings.Fields(out)
	if err == nil && len(keys) == 0 {
		err = errors.New("there is none")
	}
	if err != nil {
		return false, fmt.Errorf("ask the etcd of %s for which token its data is: %w", s.Container, err)
	}
	return slices.Contains(keys, folder+fmt.Sprintf("%x", sha256.Sum256([]byte(password)))[:12]), nil
}

// Ready tells whether the server serves its cluster.
func (s Server) Ready(ctx context.Context) error {
	if _, err := s.inside(ctx, "k3s", "kubectl", "get", "--raw=/readyz"); err != nil {
		return fmt.Errorf("%s is not ready: %w", s.Container, err)
	}
	return nil
}

// Restart restarts k3s in its container and waits until it is ready, at most for the time limit.
func (s Server) Restart(ctx context.Context, limit time.Duration) error {
	if _, err := s.inside(ctx, "systemctl", "restart", "k3s.service"); err != nil {
		return fmt.Errorf("restart %s: %w", s.Container, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errors.New("the time is up"))
	defer cancel()
	for {
		err := s.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("restart %s: it did not become ready in %s: %w", s.Container, limit, err)
		case <-time.After(readyInterval):
		}
	}
}

var readyInterval = 2 * time.Second

// forgetSeal takes the server token's seal out of a host's receipt, if it has one: the next deployment
// finds a token that is new to the host, and has k3s start with it in a safe order. With the seal of
// the old one it would take the new one for a mistake.
func forgetSeal(ctx context.Context, run Runner) error {
	out, err := run(ctx, "", "sh", "-c", `test ! -e "$1" || cat "$1"`, "sh", receiptFile)
	if err != nil {
		return fmt.Errorf("read the receipt: %w", err)
	}
	content, changed, err := withoutSeal([]byte(out))
	if err != nil || !changed {
		return err
	}
	const script = `umask 077 && cat > "$1.new" && mv "$1.new" "$1"`
	if _, err := run(ctx, string(content)+"\n", "sh", "-c", script, "sh", receiptFile); err != nil {
		return fmt.Errorf("write the receipt: %w", err)
	}
	return nil
}

// withoutSeal leaves everything else of a receipt as it is.
func withoutSeal(receipt []byte) (content []byte, changed bool, err error) {
	if len(strings.TrimSpace(string(receipt))) == 0 {
		return nil, false, nil
	}
	var all, secrets, kinds map[string]json.RawMessage
	if json.Unmarshal(receipt, &all) != nil || json.Unmarshal(all["secrets"], &secrets) != nil || json.Unmarshal(secrets["kinds"], &kinds) != nil {
		return nil, false, nil // of another k3splan: a deployment does not trust it either
	}
	if _, sealed := kinds["server-token"]; !sealed {
		return nil, false, nil
	}
	delete(kinds, "server-token")
	if secrets["kinds"], err = json.Marshal(kinds); err == nil {
		if all["secrets"], err = json.Marshal(secrets); err == nil {
			content, err = json.Marshal(all)
		}
	}
	return content, true, err
}

// putToken replaces a token on a host in one step, as Colmena does when it uploads keys.
func putToken(ctx context.Context, run Runner, file, token string) error {
	const script = `umask 077 && mkdir -p "$(dirname "$1")" && cat > "$1.new" && chmod 0400 "$1.new" && mv "$1.new" "$1"`
	if _, err := run(ctx, token+"\n", "sh", "-c", script, "sh", file); err != nil {
		return fmt.Errorf("bring the token to %s: %w", file, err)
	}
	return nil
}
