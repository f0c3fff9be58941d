package rollout

import (
	"context"
	"slices"

	"k3splan/internal/diff"
	"k3splan/internal/text"
)

// addSnapshots says before which waves a snapshot of etcd is made: k3s does not go back, and a server that
// moves takes none of its state along.
func (s Situation) addSnapshots(waves []Wave) {
	if !s.hasCluster() {
		return
	}
	for i, wave := range waves {
		var version, moved []string
		for _, name := range wave.Hosts {
			host, work := s.Plan.Host(name), s.Work[name]
			if work.K3s && work.System && len(host.Containers()) > 0 {
				version = append(version, name)
			}
			if slices.ContainsFunc(work.Changes, func(c diff.Change) bool { return c.Object == diff.Server && c.Action == diff.Moved }) {
				moved = append(moved, name)
			}
		}
		switch {
		case len(moved) > 0:
			waves[i].Snapshot = "before a server moves (" + text.Enumerate(moved) + ")"
		case len(version) > 0:
			waves[i].Snapshot = "before k3s may change on " + text.Enumerate(version)
		}
	}
}

// hasCluster reports whether there is something to make a snapshot of: a server was deployed, or answers.
func (s Situation) hasCluster() bool {
	return s.anyReady() || s.Deployed != nil && len(s.Deployed.Servers()) > 0
}

// Snapshot makes a snapshot of etcd.
func (d *Driver) Snapshot(ctx context.Context, why string) error {
	if err := d.renew(ctx, true); err != nil {
		return err
	}
	return d.TakeSnapshot(ctx, why)
}
