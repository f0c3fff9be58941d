// Package etcd keeps snapshots of a cluster's etcd on the operator's machine, and restores the cluster from
// one of them.
//
// A snapshot is k3s's own, made by a server that is a healthy voter ([Cluster.Save]). It contains everything
// that the cluster knows, its secrets included, so it is kept like a secret: in a file for its owner alone,
// encrypted to the recipients of the project's secrets where these are kept by age. Beside it is its
// [Description].
//
// [Cluster.Restore] stops all servers, lets k3s put the snapshot on the init server, and lets the others join
// again, one after the other. Each host records how far it is, so that a restore that was interrupted, at any
// point, is continued by the same call.
package etcd

import (
	"context"

	"k3splan/internal/k3s"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/secrets"
)

// Cluster is the cluster of a project.
type Cluster struct {
	// Dir is the project's folder, and Name what k3s.ClusterName calls its cluster.
	Dir, Name string
	Plan      *plan.Plan
	Vault     *secrets.Vault
	// Machine returns how a host is reached.
	Machine func(*plan.Host) remote.Machine
}

// run is a k3s.HostRunner.
func (c *Cluster) run(ctx context.Context, host *plan.Host, stdin string, command ...string) (string, error) {
	return c.Machine(host).Run(ctx, stdin, command...)
}

var _ k3s.HostRunner = (*Cluster)(nil).run

// tokenKind is the kind of the server token (hive.Secret).
const tokenKind = "server-token"
