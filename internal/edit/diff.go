package edit

import (
	"strings"

	"github.com/aymanbagabas/go-udiff"

	"k3splan/internal/plan"
	"k3splan/internal/remote"
)

// Diff shows the change of each of Files as a unified diff, in UTF-8 whatever the files are in.
func (e *Edit) Diff() map[string]string {
	diffs := map[string]string{}
	for _, t := range []*csvTable{e.hosts, e.k3s} {
		if !t.changed() {
			continue
		}
		lines := strings.NewReplacer("\r\n", "\n")
		diffs[t.File] = udiff.Unified(t.File, t.File, lines.Replace(t.before.Text), lines.Replace(t.Text))
	}
	if e.known != nil {
		diffs[remote.KnownHostsFile] = udiff.Unified(remote.KnownHostsFile, remote.KnownHostsFile, string(e.knownBefore), string(e.known))
	}
	return diffs
}

// Names are the names that Files can have, in the order in which they are shown.
func Names() []string { return []string{plan.HostsFile, plan.K3sFile, remote.KnownHostsFile} }
