package edit

import (
	"github.com/aymanbagabas/go-udiff"

	"k3splan/internal/remote"
)

// Diff shows the change of each table, and of each other file that changes, as a unified diff.
func (e *Edit) Diff() map[string]string {
	diffs := map[string]string{}
	for _, t := range e.tables() {
		if t.changed() {
			before, after := t.texts()
			diffs[t.name()] = udiff.Unified(t.name(), t.name(), before, after)
		}
	}
	if e.known != nil {
		diffs[remote.KnownHostsFile] = udiff.Unified(remote.KnownHostsFile, remote.KnownHostsFile, string(e.knownBefore), string(e.known))
	}
	return diffs
}

// Names are the names in a Diff, in the order in which they are shown.
func (e *Edit) Names() (names []string) {
	for _, t := range e.tables() {
		names = append(names, t.name())
	}
	return append(names, remote.KnownHostsFile)
}
