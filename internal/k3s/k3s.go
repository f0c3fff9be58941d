// Package k3s asks a running k3s server, inside its container, for what only it knows or can do: its
// kubeconfig, its token, a new token.
//
// No secret is in a command's arguments or environment: a server's own files and standard input and output
// carry them, inside the encrypted connection.
package k3s

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k3splan/internal/receipt"
)

// Runner runs a command as root on a server's host, with something on its standard input, and returns what
// it prints.
type Runner func(ctx context.Context, stdin string, command ...string) (string, error)

// Where k3s keeps things, inside the container. It writes the token itself, in its full form
// (K10HASH::server:PASSWORD).
const (
	tokenFile      = "/var/lib/rancher/k3s/server/token"
	kubeconfigFile = "/etc/rancher/k3s/k3s.yaml"
)

// Where a host keeps the tokens for its containers (templates/modules/places.nix).
const (
	serverTokenFile = "/var/lib/k3splan/server/token"
	agentTokenFile  = "/var/lib/k3splan/agent/token"
)

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

// Kubeconfig returns the administrator's kubeconfig as k3s wrote it, with the server's own loopback address.
func (s Server) Kubeconfig(ctx context.Context) ([]byte, error) {
	out, err := s.inside(ctx, "cat", kubeconfigFile)
	if err != nil {
		return nil, fmt.Errorf("fetch the kubeconfig from %s: %w", s.Container, err)
	}
	return []byte(out), nil
}

// Token returns the server token in its full form, as this server has it.
func (s Server) Token(ctx context.Context) (string, error) {
	out, err := s.inside(ctx, "cat", tokenFile)
	if err != nil {
		return "", fmt.Errorf("ask %s for its token: %w", s.Container, err)
	}
	token := strings.TrimSpace(out)
	if token == "" || strings.ContainsAny(token, " \n") {
		return "", fmt.Errorf("ask %s for its token: the answer is not a token", s.Container)
	}
	return token, nil
}

// RotateToken replaces the cluster's server token by a new random one. k3s makes it itself, so that it is in no command,
// and encrypts its datastore's bootstrap data with it; [Server.Token] returns it. Running servers keep
// running, and accept the old one; each needs the new token when it starts again, this one or the init
// server first.
func (s Server) RotateToken(ctx context.Context) error {
	if _, err := s.inside(ctx, "k3s", "token", "rotate"); err != nil {
		return fmt.Errorf("rotate the token on %s: %w", s.Container, err)
	}
	return nil
}

// CanStartWith reports whether the cluster's servers can start with the token of this secret part: k3s
// keeps in etcd what a starting server needs, encrypted with the token, under a key that is made from it
// (storageKey in k3s's pkg/cluster). The running servers do not know: each accepts the token that it
// started with.
func (s Server) CanStartWith(ctx context.Context, password string) (bool, error) {
	const folder = "/bootstrap/"
	out, err := s.inside(ctx, "etcdctl", "get", "--prefix", "--keys-only", folder)
	keys := strings.Fields(out)
	if err == nil && len(keys) == 0 {
		err = errors.New("it has no bootstrap data")
	}
	if err != nil {
		return false, fmt.Errorf("ask the etcd of %s which token its data is encrypted with: %w", s.Container, err)
	}
	return slices.Contains(keys, folder+fmt.Sprintf("%x", sha256.Sum256([]byte(password)))[:12]), nil
}

// forgetSeal takes the server token's seal out of a host's receipt, if it has one: the next deployment then
// finds a token that is new to the host, and restarts k3s with it in a safe order. With the seal of the old
// one it would take the new one for a mistake.
func forgetSeal(ctx context.Context, run Runner) error {
	out, err := run(ctx, receipt.ReadScript, "sh", "-s")
	if err != nil {
		return fmt.Errorf("read the receipt: %w", err)
	}
	script, err := receipt.ForgetScript([]byte(out), "server-token")
	if err != nil || script == "" {
		return nil // of another k3splan: a deployment does not trust it either
	}
	if _, err := run(ctx, script, "sh", "-s"); err != nil {
		return fmt.Errorf("write the receipt: %w", err)
	}
	return nil
}

// hasToken reports whether a file on a host contains this token.
func hasToken(ctx context.Context, run Runner, file, token string) (bool, error) {
	const script = `if [ "$(cat)" = "$(cat "$1" 2> /dev/null)" ]; then echo same; else echo other; fi`
	out, err := run(ctx, token+"\n", "sh", "-c", script, "sh", file)
	return strings.TrimSpace(out) == "same", err
}

// putToken replaces a token on a host in one step, as Colmena does when it uploads keys.
func putToken(ctx context.Context, run Runner, file, token string) error {
	const script = `umask 077 && mkdir -p "$(dirname "$1")" && cat > "$1.new" && chmod 0400 "$1.new" && mv "$1.new" "$1"`
	if _, err := run(ctx, token+"\n", "sh", "-c", script, "sh", file); err != nil {
		return fmt.Errorf("bring the token to %s: %w", file, err)
	}
	return nil
}
