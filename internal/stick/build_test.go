package stick

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"k3splan/internal/diag"

	"github.com/stretchr/testify/require"
)

func TestBuildCommand(t *testing.T) {
	program, args := Build{File: "/a b/generated/installer.nix", Host: "olaf", Netinstall: true}.command("/tmp/x/result")
	require.Equal(t, "nix-build", program)
	require.Equal(t, []string{
		"--out-link", "/tmp/x/result", "--argstr", "file", "/a b/generated/installer.nix", "--argstr", "host", "olaf",
		"--arg", "netinstall", "true", "--arg", "legacyBoot", "false", "-E", imageExpression,
	}, args)
}

// The same arguments find the host, whatever the names are.
func TestBuildEvaluates(t *testing.T) {
	nix, err := exec.LookPath("nix-instantiate")
	if err != nil {
		t.Skip("SKIP: nix-instantiate is not on PATH (Debian: nix-bin)")
	}
	file := filepath.Join(t.TempDir(), `a "b" ${c}`, "installer.nix")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	build := Build{File: file, Host: "123", Legacy: true}
	write := func(content string) { require.NoError(t, os.WriteFile(file, []byte(content), 0o600)) }
	write(`{ netinstall, legacyBoot }: { "123" = [ netinstall legacyBoot ]; }`)
	out, err := exec.Command(nix, append([]string{"--eval", "--strict"}, build.arguments(imageExpression)...)...).Output()
	require.NoError(t, err)
	require.Equal(t, "[ false true ]\n", string(out))

	write(`{ netinstall, legacyBoot, problems }: { "123" = [
		{ code = "b"; file = "y"; message = "two"; hint = "h"; } { code = "a"; file = "x"; message = "one"; hint = ""; } ]; }`)
	problems, err := build.problems(t.Context())
	require.NoError(t, err)
	require.Equal(t, diag.Problems{
		{File: "x", Severity: diag.Error, Code: "a", Message: "one"},
		{File: "y", Severity: diag.Error, Code: "b", Message: "two", Hint: "h"},
	}, problems)

	write(`{ netinstall, legacyBoot, problems }: throw "later"`)
	problems, err = build.problems(t.Context())
	require.NoError(t, err, "the build shows why")
	require.Empty(t, problems)
}

func TestProblemsWithABadNix(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "nix-instantiate"), []byte("#!/bin/sh\necho rubbish\n"), 0o700))
	t.Setenv("PATH", dir)
	_, err := Build{File: "/x", Host: "olaf"}.problems(t.Context())
	require.ErrorContains(t, err, "read the output of nix-instantiate")
	t.Setenv("PATH", t.TempDir())
	_, err = Build{File: "/x", Host: "olaf"}.problems(t.Context())
	require.NoError(t, err, "nix-build is missing too, and that is said")
}
