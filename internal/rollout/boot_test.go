package rollout

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena"
)

// Lines as Colmena 0.4.0 and 0.5 print them.
func TestSystemsBuiltOnTheirHosts(t *testing.T) {
	d := &Driver{Systems: &systems{real: &colmena.Hive{File: filepath.Join(t.TempDir(), "hive.nix")}}}
	d.note(`           karl | Evaluated olaf, karl`)
	d.note(`           karl | Built "/nix/store/1avns734v6v258zf5rarsb194zfd9226-nixos-system-karl-26.05" on target node`)
	d.note(`           olaf | Built "/nix/store/9452lj845q1h3r75f8z77b7w625pqr8h-nixos-system-olaf-26.05"`)
	require.Equal(t, "/nix/store/1avns734v6v258zf5rarsb194zfd9226-nixos-system-karl-26.05", d.result("karl"))
	require.Empty(t, d.result("olaf"), "Colmena keeps a link to it")
}

func TestRefusedBy(t *testing.T) {
	for text, want := range map[string]string{
		"colmena failed\n  olaf | Pre-switch check 'switchInhibitors' failed\n  olaf | Pre-switch checks failed": "switchInhibitors",
		"colmena failed\n  olaf | Pre-switch check 'diskSpace' failed":                                           "diskSpace",
		"colmena failed\n  olaf | " + guardRefused:                                                               "",
		"colmena failed\n  olaf | Activation failed":                                                             "",
	} {
		require.Equal(t, want, refusedBy(errors.New(text)), text)
	}
}
