package main

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

	"github.com/spf13/cobra"

	"k3splan/internal/files"
	"k3splan/internal/k3s"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/run"
)

// kubeconfigOptions are the user's wishes.
type kubeconfigOptions struct {
	output, server, name, address string
	merge, force                  bool
}

func (a *app) kubeconfigCommand() *cobra.Command {
	var o kubeconfigOptions
	command := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Fetch the kubeconfig of the cluster's administrator",
		Long: `Fetches the kubeconfig from a running k3s server by ssh, puts in the server's address and the
cluster's name, logs in with it, and only then writes it, readable by you alone. The name is that of
the context, too: the domain in network.yaml, else the project's folder, or --name.

Without -o it goes to .k3splan/kubeconfig. With --merge it becomes a part of the file (without -o:
the first in KUBECONFIG, else ~/.kube/config), whose other entries, comments and current context
stay as they are.`,
		Example: "  k3splan kubeconfig --merge\n  KUBECONFIG=.k3splan/kubeconfig kubectl get nodes\n  k3splan kubeconfig -o rack.yaml --server ulf",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(*cobra.Command, []string) error { return a.kubeconfig(o) },
	}
	flags := command.Flags()
	flags.StringVarP(&o.output, "output", "o", "", "write to `FILE`")
	flags.BoolVar(&o.merge, "merge", false, "keep what else is in the file")
	flags.StringVar(&o.server, "server", "", "use the server `NAME`, or the one on this host (default: the init server, else any that answers)")
	flags.StringVar(&o.name, "name", "", "the cluster's `NAME` in the file")
	flags.StringVar(&o.address, "address", "", "reach the API at `HOST[:PORT]` instead of the server's own address")
	flags.BoolVar(&o.force, "force", false, "replace a file that has other clusters in it")
	_ = command.MarkFlagFilename("output") // the flags exist
	_ = command.RegisterFlagCompletionFunc("server", a.completeServers)
	return command
}

func (a *app) kubeconfig(o kubeconfigOptions) (err error) {
	m, err := a.machines()
	if err != nil {
		return err
	}
	servers, err := m.servers(o.server)
	if err != nil {
		return err
	}
	name := o.name
	if name == "" {
		name = clusterName(m)
	}
	target, err := kubeconfigFile(m.dir, o)
	if err != nil {
		return err
	}
	config, err := m.fetchKubeconfig(servers, name, o.address)
	if err != nil {
		return err
	}
	version, err := config.Check(context.Background())
	if err != nil {
		return err
	}
	if err := writeKubeconfig(config, target, o, m.plan); err != nil {
		return err
	}
	a.say("%s answers (%s)", config.Server, version)
	a.say("wrote context %s to %s", config.Name, target)
	return nil
}

// clusterName is the domain, which is the same in each clone, else the folder's name.
func clusterName(m *machines) string {
	if m.plan.Network.Domain != "" {
		return m.plan.Network.Domain
	}
	dir, err := filepath.Abs(m.dir)
	if err != nil {
		dir = m.dir
	}
	name := strings.Trim(notInNames.ReplaceAllString(filepath.Base(dir), "-"), "-.")
	if name == "" {
		return "k3splan"
	}
	return name
}

// notInNames is what would have to be quoted in kubectl's commands.
var notInNames = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

func kubeconfigFile(dir string, o kubeconfigOptions) (string, error) {
	switch {
	case o.output != "":
		return o.output, nil
	case !o.merge:
		return filepath.Join(dir, remote.Folder, "kubeconfig"), nil
	}
	if first, _, _ := strings.Cut(os.Getenv("KUBECONFIG"), string(os.PathListSeparator)); first != "" {
		return first, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".kube", "config"), nil
}

// fetchKubeconfig asks the servers one after the other; the first that answers is the address, too.
func (m *machines) fetchKubeconfig(servers []*plan.Container, name, address string) (config *k3s.Kubeconfig, err error) {
	var failed error
	for _, server := range servers {
		conf, err := m.prepare(server.Host)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		asked := k3s.Server{Container: server.Name, Run: conf.Machine(server.Host, remote.DeployUser).Run}
		content, err := asked.Kubeconfig(context.Background())
		if err = errors.Join(err, conf.Close()); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		if address == "" {
			address = server.Address.String()
		}
		return k3s.ReadKubeconfig(content, name, address)
	}
	return nil, failed
}

// writeKubeconfig writes a checked config.
func writeKubeconfig(config *k3s.Kubeconfig, target string, o kubeconfigOptions, p *plan.Plan) (err error) {
	if o.merge {
		unlock, err := lockKubeconfig(target)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unlock()) }()
	}
	present, err := files.Read(target)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var content []byte
	switch {
	case o.merge:
		content, err = config.Merge(present, func(server string) bool { return isOfPlan(p, server) || server == config.Server })
		if err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
	case config.Others(present) && !o.force:
		return &exitError{code: exitFailed, err: fmt.Errorf("%s has other things in it, which would be lost; nothing was changed", target),
			hint: "--merge keeps them, --force replaces the file"}
	default:
		if content, err = config.YAML(); err != nil {
			return err
		}
	}
	return files.Replace(target, content, files.Private)
}

// lockKubeconfig keeps kubectl from writing at the same time, by the lock that kubectl uses.
func lockKubeconfig(target string) (unlock func() error, err error) {
	lock := target + ".lock"
	if err := os.MkdirAll(filepath.Dir(lock), 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(lock, os.O_CREATE|os.O_EXCL, 0)
	if errors.Is(err, fs.ErrExist) {
		return nil, &exitError{code: exitFailed, err: fmt.Errorf("%s is locked: kubectl is writing it", target), hint: "if that is not so: rm " + run.Word(lock)}
	} else if err != nil {
		return nil, err
	}
	return func() error { return os.Remove(lock) }, file.Close()
}

// isOfPlan tells whether a URL is that of one of the plan's servers.
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
