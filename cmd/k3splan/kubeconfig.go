package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"k3splan/internal/k3s"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
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
		Long: `Fetches the kubeconfig from a running k3s server by ssh, sets the server's address and the cluster's
name, logs in with it, and only then writes it, readable by you alone. The context has the cluster's
name: the domain in network.yaml, else the name of the project's folder, or --name.

Without -o it goes to .k3splan/kubeconfig. With --merge it becomes part of a file (without -o: the
first that KUBECONFIG names, else ~/.kube/config), whose other entries, comments and current context
stay as they are.`,
		Example: "  k3splan kubeconfig --merge\n  KUBECONFIG=.k3splan/kubeconfig kubectl get nodes\n  k3splan kubeconfig -o rack.yaml --server ulf",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(*cobra.Command, []string) error { return a.kubeconfig(o) },
	}
	flags := command.Flags()
	flags.StringVarP(&o.output, "output", "o", "", "write to `FILE`")
	flags.BoolVar(&o.merge, "merge", false, "keep everything else in the file")
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
	if err := m.valid(); err != nil {
		return err
	}
	servers, err := m.servers(o.server)
	if err != nil {
		return err
	}
	target, err := kubeconfigFile(m.dir, o)
	if err != nil {
		return err
	}
	var hosts []*plan.Host
	for _, server := range servers {
		hosts = append(hosts, server.Host)
	}
	run, done, err := m.runner(hosts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	return k3s.FetchKubeconfig(context.Background(), a.user(false), k3s.KubeconfigRequest{
		Plan: m.plan, Servers: servers, Run: run, Name: cmp.Or(o.name, k3s.ClusterName(m.plan, m.dir)), Address: o.address,
		Target: target, Merge: o.merge, Replace: o.force,
	})
}

// kubeconfigFile returns the file to write: with --merge the first that KUBECONFIG names, as kubectl
// reads it. In a list, what is empty names nothing.
func kubeconfigFile(dir string, o kubeconfigOptions) (string, error) {
	switch {
	case o.output != "":
		return o.output, nil
	case !o.merge:
		return filepath.Join(dir, remote.Folder, "kubeconfig"), nil
	}
	list := os.Getenv("KUBECONFIG")
	for _, file := range filepath.SplitList(list) {
		if file != "" {
			return file, nil
		}
	}
	if list != "" {
		return "", &exitError{code: exitInvalid, err: fmt.Errorf("KUBECONFIG is %q, which names no file: kubectl would read none", list), hint: "unset KUBECONFIG, or name the file with -o"}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".kube", "config"), nil
}
