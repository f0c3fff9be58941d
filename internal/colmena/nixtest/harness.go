package nixtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// noSources is the exit code of the evaluation harness if its source trees are missing.
const noSources = 77

// home is the user's, where the harness may keep its sources; tests may set HOME to another folder.
var home = os.Getenv("HOME")

// HarnessFolder returns the folder of the evaluation harness, which evaluates a hive as Colmena does against
// a real nixpkgs. Without one it skips the test.
func HarnessFolder(t testing.TB) string {
	t.Helper()
	program := os.Getenv("K3SPLAN_EVALHIVE")
	if program == "" {
		program = "../../../shared/nixeval/evalhive.sh"
	}
	program, err := filepath.Abs(program)
	require.NoError(t, err)
	if _, err := os.Stat(program); err != nil {
		t.Skip("SKIP: no evaluation harness (K3SPLAN_EVALHIVE)")
	}
	return filepath.Dir(program)
}

// Harness runs a script of the evaluation harness, evalhive.sh or scan-secrets.sh. If the harness lacks its
// sources, it skips the test. What evalhive.sh prints about the hive of a project is kept until something that it
// reads changes.
func Harness(t testing.TB, script string, args ...string) (stdout string, code int) {
	t.Helper()
	if script == "evalhive.sh" {
		harness := HarnessFolder(t)
		if sources, root := realSources(harness), projectOf(t, args); sources != "" && root != "" {
			return kept(t, harness, sources, root, args)
		}
	}
	var out, messages bytes.Buffer
	if code = runHarness(t, &out, &messages, script, args...); messages.Len() > 0 {
		t.Log(messages.String())
	}
	return out.String(), code
}

// HarnessTo is Harness for what it says on stderr.
func HarnessTo(t testing.TB, stderr io.Writer, script string, args ...string) (code int) {
	t.Helper()
	return runHarness(t, new(bytes.Buffer), stderr, script, args...)
}

func runHarness(t testing.TB, out *bytes.Buffer, stderr io.Writer, script string, args ...string) (code int) {
	t.Helper()
	harness := HarnessFolder(t)
	command := exec.Command(filepath.Join(harness, script), args...)
	command.Env = append(os.Environ(), "HOME="+home, fmt.Sprintf("GC_INITIAL_HEAP_SIZE=%d", heap()))
	if folder := sources(t, harness); folder != "" {
		command.Env = append(command.Env, "NIXEVAL_SOURCES="+folder)
	}
	command.Stdout, command.Stderr = out, stderr
	if err := command.Run(); err != nil {
		exit := (*exec.ExitError)(nil)
		require.True(t, errors.As(err, &exit), err)
	}
	if code = command.ProcessState.ExitCode(); code == noSources {
		t.Skip(strings.TrimSpace(out.String()))
	}
	return code
}

// heap returns the size in bytes at which Nix starts to collect garbage, which otherwise takes up to 40 % of its
// time: 2 GiB, or a quarter of the available memory.
func heap() int64 {
	size := int64(2 << 30)
	memory, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(memory)) {
		var available int64 // in KiB
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &available); n == 1 {
			size = min(size, available<<10/4)
		}
	}
	return size
}

// Environment returns an environment in which <nixpkgs> is that of the evaluation harness, for programs that
// evaluate a hive themselves. If the harness or its sources are missing, it skips the test.
func Environment(t testing.TB) (env []string) {
	t.Helper()
	folder := HarnessFolder(t)
	Needs(t, "bash")
	command := exec.Command("bash", "-c", `. "$0/sources.sh"; prepare >&2; env -0`, folder)
	command.Env = append(os.Environ(), "HOME="+home)
	out, err := command.Output()
	if command.ProcessState.ExitCode() == noSources {
		t.Skip("SKIP: the evaluation harness has no sources")
	}
	require.NoError(t, err)
	for entry := range strings.SplitSeq(string(out), "\x00") {
		if strings.HasPrefix(entry, "NIX") {
			env = append(env, entry)
		}
	}
	return env
}
