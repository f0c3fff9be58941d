package k3s

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"k3splan/internal/ask"
	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/run"
)

// KubeconfigRequest is what the user wants of [FetchKubeconfig].
type KubeconfigRequest struct {
	Plan *plan.Plan
	// Servers are asked one after the other until one answers; Run asks them.
	Servers []*plan.Container
	Run     HostRunner
	// Name is that of the cluster, its context and its user; see [ClusterName].
	Name string
	// Address is HOST or HOST:PORT instead of the server's own address, or "".
	Address string
	// Target is the file to write. With Merge everything else in it stays; with Replace it may be lost.
	Target         string
	Merge, Replace bool
}

// ErrOthers is a file with entries of other clusters, which would be lost.
var ErrOthers = errors.New("contains entries of other clusters, which would be lost; nothing was changed")

// FetchKubeconfig fetches the administrator's kubeconfig from a server, logs in with it, and only then
// writes it, readable by the user alone.
func FetchKubeconfig(ctx context.Context, user ask.User, r KubeconfigRequest) error {
	config, err := r.fetch(ctx)
	if err != nil {
		return err
	}
	version, err := config.Check(ctx)
	if err != nil {
		return err
	}
	if err := r.write(config); err != nil {
		return err
	}
	user.Say("%s answers (%s)", config.Server, diag.Printable(version))
	user.Say("wrote context %s to %s", config.Name, diag.Printable(r.Target))
	return nil
}

// fetch asks the servers one after the other; the address is that of the first that answers.
func (r KubeconfigRequest) fetch(ctx context.Context) (*Kubeconfig, error) {
	var failed error
	for _, server := range r.Servers {
		asked := Server{Container: server.Name, Run: func(ctx context.Context, stdin string, command ...string) (string, error) {
			return r.Run(ctx, server.Host, stdin, command...)
		}}
		content, err := asked.Kubeconfig(ctx)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		address := r.Address
		if address == "" {
			address = server.Address.String()
		}
		return ReadKubeconfig(content, r.Name, address)
	}
	return nil, failed
}

// write writes a config that was tried.
func (r KubeconfigRequest) write(config *Kubeconfig) (err error) {
	if r.Merge {
		unlock, err := lockKubeconfig(r.Target)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unlock()) }()
	}
	present, err := files.Read(r.Target)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var content []byte
	switch {
	case r.Merge:
		content, err = config.Merge(present, func(server string) bool { return isOfPlan(r.Plan, server) || server == config.Server })
		if err != nil {
			return fmt.Errorf("%s: %w", r.Target, err)
		}
	case config.Others(present) && !r.Replace:
		return diag.WithHint(fmt.Errorf("%s %w", r.Target, ErrOthers), "--merge keeps them, --force replaces the file")
	default:
		if content, err = config.YAML(); err != nil {
			return err
		}
	}
	return files.Replace(r.Target, content, files.Private)
}

// lockKubeconfig keeps kubectl from writing at the same time, with the lock that kubectl uses.
func lockKubeconfig(target string) (unlock func() error, err error) {
	lock := target + ".lock"
	if err := files.MakeFolder(filepath.Dir(lock), 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(lock, os.O_CREATE|os.O_EXCL, 0)
	if errors.Is(err, fs.ErrExist) {
		return nil, diag.WithHint(fmt.Errorf("%s is locked: kubectl is writing it", target), "if it is not: rm "+run.Word(lock))
	} else if err != nil {
		return nil, err
	}
	return func() error { return os.Remove(lock) }, file.Close()
}

// isOfPlan reports whether a URL is that of one of the plan's servers.
func isOfPlan(p *plan.Plan, server string) bool {
	address, err := url.Parse(server)
	if err != nil {
		return false
	}
	for _, container := range p.Servers() {
		if ip := net.ParseIP(address.Hostname()); ip != nil && ip.String() == container.Address.String() {
			return true
		}
	}
	return false
}

// ClusterName returns the name of a plan's cluster in a kubeconfig: the domain, which is the same in each
// clone, else the name of the project's folder.
func ClusterName(p *plan.Plan, dir string) string {
	if p.Network.Domain != "" {
		return p.Network.Domain
	}
	if absolute, err := filepath.Abs(dir); err == nil {
		dir = absolute
	}
	if name := strings.Trim(notInNames.ReplaceAllString(filepath.Base(dir), "-"), "-."); name != "" {
		return name
	}
	return "k3splan"
}

// notInNames would have to be quoted in kubectl's commands.
var notInNames = regexp.MustCompile(`[^A-Za-z0-9._-]+`)
