package rollout

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/systemdiff"
)

func TestPreviewLines(t *testing.T) {
	p := Preview{Packages: []systemdiff.Package{{Name: "initrd", Before: []string{""}, After: []string{""}, Bytes: 1 << 20}}, Bytes: 3 << 20, Reboot: []string{"kernel"}}
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		p.Packages = append(p.Packages, systemdiff.Package{Name: name, Before: []string{"1"}, After: []string{"2"}})
	}
	require.Equal(t, []string{
		"packages: a 1 → 2; b 1 → 2; c 1 → 2; d 1 → 2; e 1 → 2; f 1 → 2; and 2 more (--verbose); +3.0 MiB in all", "takes effect at the next boot: kernel",
	}, p.Lines(false))
	p.Units, p.Unknown = &systemdiff.Units{Restart: []string{"x.service"}}, "units: \x1b[31m"
	require.Equal(t, []string{"packages, +3.0 MiB:", "  a 1 → 2", "  b 1 → 2", "  c 1 → 2", "  d 1 → 2", "  e 1 → 2", "  f 1 → 2", "  g 1 → 2", "  h 1 → 2", "  initrd, +1.0 MiB",
		"restart: x.service", "takes effect at the next boot: kernel"}, p.Lines(true)[:12])
	require.NotContains(t, p.Lines(true)[12], "\x1b")
	require.Equal(t, []string{"packages: the same, +0 B", "no unit restarts"}, Preview{Units: &systemdiff.Units{}}.Lines(false))
	require.Equal(t, []string{"unknown: x"}, Preview{Unknown: "x"}.Lines(false), "nothing is claimed of what is unknown")
}

// What was booted is compared part by part; what one of the systems lacks does not count.
func TestRebootParts(t *testing.T) {
	store, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	system := filepath.Join(store, "system")
	require.NoError(t, os.Mkdir(system, 0o755))
	for name, target := range map[string]string{"kernel": "linux-2", "systemd": "systemd-1"} {
		require.NoError(t, os.WriteFile(filepath.Join(store, target), nil, 0o600))
		require.NoError(t, os.Symlink(filepath.Join(store, target), filepath.Join(system, name)))
	}
	require.NoError(t, os.WriteFile(filepath.Join(system, "kernel-params"), []byte("quiet\n"), 0o600))
	booted := "kernel " + store + "/linux-1\nsystemd " + store + "/systemd-1\ninitrd /nix/store/initrd\nkernel-params "
	require.Equal(t, []string{"kernel", "kernel params"}, rebootParts(booted+"loglevel=4\n", system))
	require.Equal(t, []string{"kernel"}, rebootParts(booted+"quiet\n", system))
	require.Equal(t, []string{"kernel"}, rebootParts(booted+"\n", system))
	require.Empty(t, rebootParts(booted, filepath.Join(store, "elsewhere")))
}
