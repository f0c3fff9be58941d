package nixtest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// noSources is the exit code of the evaluation harness where it lacks the source trees.
const noSources = 77

// home is the user's own, where the harness may keep its sources; a test may set another.
var home = os.Getenv("HOME")

// HarnessFolder is that of the evaluation harness, which evaluates a hive as Colmena does against a
// real nixpkgs. Where there is none the test is skipped.
func HarnessFolder(t testing.TB) string {
	t.Helper()
	program := os.Getenv("K3SPLAN_EVALHIVE")
	if program == "" {
		program = "../../../shared/nixeval/evalhive.sh"
	}
	program, err := filepath.Abs(program)
	require.NoError(t, err)
	if _, err := os.Stat(program); err != nil {
		t.Skip("SKIP: there is no evaluation harness here (K3SPLAN_EVALHIVE)")
	}
	return filepath.Dir(program)
}

// Harness runs a script of the evaluation harness: evalhive.sh, or scan-secrets.sh. Where it has no
// sources the test is skipped.
func Harness(t testing.TB, script string, args ...string) (stdout string, code int) {
	t.Helper()
	command := exec.Command(filepath.Join(HarnessFolder(t), script), args...)
	command.Env = append(os.Environ(), "HOME="+home)
	var out, talk bytes.Buffer
	command.Stdout, command.Stderr = &out, &talk
	if err := command.Run(); err != nil {
		exit := (*exec.ExitError)(nil)
		require.True(t, errors.As(err, &exit), err)
	}
	if code = command.ProcessState.ExitCode(); code == noSources {
		t.Skip(strings.TrimSpace(out.String()))
	}
	if talk.Len() > 0 {
		t.Log(talk.String())
	}
	return out.String(), code
}
