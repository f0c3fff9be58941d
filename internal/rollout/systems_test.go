package rollout

import (
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena"
	"k3splan/internal/evaluate"
)

// Colmena gets the real hive only for hosts that are not, or must not be, in the resolved one.
func TestHiveOfHosts(t *testing.T) {
	real, resolved := &colmena.Hive{File: "real"}, &colmena.Hive{File: "resolved"}
	s := &systems{real: real, resolved: resolved, hosts: map[string]*evaluate.Host{"a": {}, "b": {}, "text": {HasTexts: true}}}
	require.Same(t, resolved, s.hive("a", "b"))
	require.Same(t, real, s.hive("text"))
	require.Same(t, real, s.hive("a", "text"))
	require.Same(t, real, s.hive("unknown"))
	s.resolved = nil
	require.Same(t, real, s.hive("a"))
}
