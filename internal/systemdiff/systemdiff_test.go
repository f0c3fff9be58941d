package systemdiff

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena/nixtest"
)

const hash = "/nix/store/00000000000000000000000000000000-"

func TestSplit(t *testing.T) {
	for path, want := range map[string][2]string{
		hash + "k3s-1.35.1+k3s1":                          {"k3s", "1.35.1+k3s1"},
		hash + "linux-6.12.4-modules":                     {"linux", "6.12.4"},
		hash + "openssl-3.0.14-bin":                       {"openssl", "3.0.14"},
		hash + "nixos-system-olaf-26.05.20260801.abc":     {"nixos-system-olaf", "26.05.20260801.abc"},
		hash + "unit-sshd.service":                        {"unit-sshd.service", ""},
		hash + "etc-hosts":                                {"etc-hosts", ""},
		hash + "python3.12-requests-2.31.0":               {"python3.12-requests", "2.31.0"},
		hash + "libxcrypt-man":                            {"libxcrypt-man", ""},
		"/elsewhere/00000000000000000000000000000000-x-1": {"x", "1"},
	} {
		name, version := split(path)
		require.Equal(t, want, [2]string{name, version}, path)
	}
}

func TestCompare(t *testing.T) {
	const mega = 1 << 20
	before := []Path{{hash + "k3s-1.35.1", 60 * mega}, {hash + "glibc-2.40-66", 30 * mega}, {hash + "htop-3.3.0", mega}, {hash + "unit-k3s.service", 700},
		{hash + "python3-3.11.1", 5 * mega}, {hash + "python3-3.12.1", 5 * mega}, {hash + "initrd", 20 * mega}, {hash + "openssl-3.0.14", mega}, {hash + "openssl-3.0.14-bin", mega}}
	after := []Path{{hash + "k3s-1.35.2", 61 * mega}, {hash + "glibc-2.40-66", 30 * mega}, {hash + "jq-1.7", mega / 2}, {hash + "unit-k3s.service", 900},
		{hash + "python3-3.12.1", 5 * mega}, {hash + "initrd", 22 * mega}, {hash + "openssl-3.0.15", mega}, {hash + "openssl-3.0.15-bin", mega}}
	packages, bytes := Compare(before, after)
	var words []string
	for _, p := range packages {
		words = append(words, p.String())
	}
	require.Equal(t, []string{"removed: htop 3.3.0, -1.0 MiB", "new: jq 1.7, +512.0 KiB", "k3s 1.35.1 → 1.35.2, +1.0 MiB", "openssl 3.0.14 → 3.0.15",
		"python3 3.11.1 3.12.1 → 3.12.1, -5.0 MiB", "initrd, +2.0 MiB"}, words)
	require.EqualValues(t, -5*mega/2+200, bytes)
	packages, bytes = Compare(before, before)
	require.Empty(t, packages)
	require.Zero(t, bytes)
}

func TestSize(t *testing.T) {
	for bytes, want := range map[int64]string{0: "+0 B", -700: "-700 B", 1536: "+1.5 KiB", -3 << 30: "-3.0 GiB", 5 << 20: "+5.0 MiB"} {
		require.Equal(t, want, Size(bytes))
	}
}

func TestParseClosureRefuses(t *testing.T) {
	for _, out := range []string{"", hash + "a\n", hash + "a\nsizes\n", hash + "a\nsizes\n1\n2\n", hash + "a\nsizes\nmany\n", hash + "a\nsizes\n-1\n", "a\nsizes\n1\n"} {
		_, err := ParseClosure(out)
		require.Error(t, err, "%q", out)
	}
}

// The script prints what the real Nix knows of a closure.
func TestClosureScript(t *testing.T) {
	nixtest.Needs(t, "nix-store", "nix-build")
	nixtest.SetPrivate(t)
	file := filepath.Join(t.TempDir(), "default.nix")
	require.NoError(t, os.WriteFile(file, []byte(`let
  make = name: text: derivation { inherit name text; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "printf %s \"$text\" > $out" ]; };
in make "system-2" "needs ${make "tool-1.0" "abc"}"
`), 0o600))
	built, err := exec.Command("nix-build", "--no-out-link", file).Output()
	require.NoError(t, err)
	out, err := exec.Command("sh", "-c", ClosureScript, "sh", strings.TrimSpace(string(built))).Output()
	require.NoError(t, err)
	closure, err := ParseClosure(string(out))
	require.NoError(t, err)
	sizes := map[string]int64{}
	for _, p := range closure {
		name, version := split(p.Path)
		sizes[name+" "+version] = p.Size
	}
	require.Len(t, sizes, 2)
	require.Less(t, sizes["tool 1.0"], sizes["system 2"])
	require.Error(t, exec.Command("sh", "-c", ClosureScript, "sh", strings.TrimSpace(string(built))+"x").Run(), "a path that is not there")
}

func TestParseUnits(t *testing.T) {
	u := ParseUnits(`would stop the following units: k3s.service, old.service
would NOT stop the following changed units: getty@tty1.service
would activate the configuration...
would setup secrets
would restart systemd
would reload the following units: dbus.service
would restart the following units: sshd.service, container@olaf-s.service
would start the following units: k3s.service, new.service
`)
	require.Equal(t, Units{
		Restart: []string{"container@olaf-s.service", "k3s.service", "sshd.service"}, Stop: []string{"old.service"}, Start: []string{"new.service"},
		Reload: []string{"dbus.service"}, Left: []string{"getty@tty1.service"}, Systemd: true,
	}, u)
	require.Equal(t, []string{"restart: container@olaf-s.service k3s.service sshd.service", "stop: old.service", "start: new.service", "reload: dbus.service",
		"changed, but left running: getty@tty1.service", "systemd itself restarts"}, u.Lines())
	none := ParseUnits("would activate the configuration...\n")
	require.Empty(t, none.Lines())
	require.NotNil(t, none.Stop, "for JSON")
}
