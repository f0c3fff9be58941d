package edit

import (
	"strings"

	"github.com/aymanbagabas/go-udiff"

	"k3splan/internal/hostkeys"
	"k3splan/internal/plan"
)

// Diff shows the change of each of Files as a unified diff, in UTF-8 whatever the files are in.
func (e *Edit) Diff() map[string]string {
	diffs := map[string]string{}
	for _, t := range []*table{e.hosts, e.k3s} {
		if !t.changed() {
			continue
		}
		lines := strings.NewReplacer("\r\n", "\n")
		diffs[t.File] = udiff.Unified(t.File, t.File, lines.Replace(t.before.Text), lines.Replace(t.Text))
	}
	if e.known != nil {
		diffs[hostkeys.File] = udiff.Unified(hostkeys.File, hostkeys.File, string(e.knownBefore), string(e.known))
	}
	return diffs
}

// Names are the names that Files can have, in the order in which they are shown.
func Names() []string { return []string{plan.HostsFile, plan.K3sFile, hostkeys.File} }
