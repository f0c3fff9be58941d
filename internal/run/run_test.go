package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/run/runtest"

	"github.com/stretchr/testify/require"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// TestMain makes the test binary a k3splan that runs one program, so that signals can be sent to it.
func TestMain(m *testing.M) {
	if program := os.Getenv("TEST_RUN"); program != "" {
		command := Command{Program: program, Stdout: os.Stdout, Stderr: os.Stderr}
		if os.Getenv("TEST_RUN_KEEPS_STDERR") != "" {
			command.Stderr = nil
		}
		err := Run(context.Background(), command)
		fmt.Println("error:", err)
		if exit := (*ExitError)(nil); errors.As(err, &exit) {
			fmt.Printf("code %d, signal %v, interrupted %v\n", exit.Code, exit.Signal, exit.Interrupted)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestRunPassesEverything(t *testing.T) {
	runtest.Fake(t, "colmena", `
printf '<%s>' "$@"
pwd -P
echo "$SSH_CONFIG_FILE $HERITAGE"
cat
echo talk >&2
`)
	t.Setenv("HERITAGE", "inherited")
	t.Setenv("SSH_CONFIG_FILE", "overridden")
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	var out, talk bytes.Buffer
	err = Run(context.Background(), Command{
		Program: "colmena",
		Args:    []string{"apply", `a b`, `"$(touch x)" '${y}'`, "", "*"},
		Dir:     dir,
		Env:     []string{"SSH_CONFIG_FILE=/my/config"},
		Stdin:   strings.NewReader("typed\n"),
		Stdout:  &out, Stderr: &talk,
	})
	require.NoError(t, err)
	require.Equal(t, `<apply><a b><"$(touch x)" '${y}'><><*>`+dir+"\n/my/config inherited\ntyped\n", out.String())
	require.Equal(t, "talk\n", talk.String())
}

func TestRunFails(t *testing.T) {
	var exit *ExitError

	runtest.Fake(t, "colmena", "echo no such host >&2; exit 3")
	err := Run(context.Background(), Command{Program: "colmena"})
	require.ErrorAs(t, err, &exit)
	require.Equal(t, ExitError{Program: "colmena", Code: 3, Stderr: "no such host"}, *exit)
	require.EqualError(t, err, "colmena failed with exit code 3: no such host")

	var talk bytes.Buffer
	err = Run(context.Background(), Command{Program: "colmena", Stderr: &talk})
	require.EqualError(t, err, "colmena failed with exit code 3")
	require.Equal(t, "no such host\n", talk.String())

	runtest.Fake(t, "colmena", "kill -KILL $$")
	err = Run(context.Background(), Command{Program: "colmena"})
	require.ErrorAs(t, err, &exit)
	require.Equal(t, ExitError{Program: "colmena", Code: -1, Signal: syscall.SIGKILL}, *exit)
	require.EqualError(t, err, "colmena was ended by a signal (killed)")

	file := runtest.Fake(t, "broken", "")
	require.NoError(t, os.Chmod(file, 0o644))
	require.ErrorContains(t, Run(context.Background(), Command{Program: file}), "starting broken: ")

	runtest.Fake(t, "colmena", "printf BEGIN >&2; head -c 100000 /dev/zero | tr '\\0' x >&2; echo END >&2; exit 1")
	err = Run(context.Background(), Command{Program: "colmena"})
	require.ErrorAs(t, err, &exit)
	require.Len(t, exit.Stderr, 2*excerptSize+len("\n…\n")-1)
	require.True(t, strings.HasPrefix(exit.Stderr, "BEGINxxx") && strings.HasSuffix(exit.Stderr, "xxxEND"))
}

func TestRunMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for program, hint := range map[string]string{
		"colmena":          "https://colmena.cli.rs",
		"nix-prefetch-url": "apt install nix-bin",
		"git":              "install git; on Debian: apt install git",
		"ssh":              "install ssh; on Debian: apt install openssh-client",
	} {
		var missing *MissingError
		err := Run(context.Background(), Command{Program: program})
		require.ErrorAs(t, err, &missing)
		require.EqualError(t, err, program+" is not on PATH")
		require.Contains(t, diag.HintOf(err), hint)
	}
}

func TestOutput(t *testing.T) {
	runtest.Fake(t, "git", "echo result; echo talk >&2; exit $1")
	out, err := Output(context.Background(), Command{Program: "git", Args: []string{"0"}})
	require.NoError(t, err)
	require.Equal(t, "result\n", out)
	out, err = Output(context.Background(), Command{Program: "git", Args: []string{"2"}})
	require.EqualError(t, err, "git failed with exit code 2: talk")
	require.Equal(t, "result\n", out)
}

func TestOutputHasALimit(t *testing.T) {
	for name, script := range map[string]string{"endless": "exec yes", "deaf": "trap '' PIPE TERM; while :; do echo answer; done 2> /dev/null", "just too long": "printf 12345678901"} {
		t.Run(name, func(t *testing.T) {
			shortGrace(t)
			runtest.Fake(t, "ssh", script)
			out, err := Output(context.Background(), Command{Program: "ssh", Limit: 10})
			var tooMuch *TooMuchError
			require.ErrorAs(t, err, &tooMuch)
			require.Len(t, out, 10)
		})
	}
	runtest.Fake(t, "ssh", "printf 1234567890")
	out, err := Output(context.Background(), Command{Program: "ssh", Limit: 10})
	require.NoError(t, err)
	require.Equal(t, "1234567890", out)
	require.EqualError(t, &TooMuchError{"ssh", 4 << 20}, "ssh answers too much: more than 4 MiB")
}

func TestTimeout(t *testing.T) {
	runtest.Fake(t, "ssh", "exec sleep 1000")
	err := Run(context.Background(), Command{Program: "ssh", Timeout: 50 * time.Millisecond})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.EqualError(t, err, "ssh: no answer within 50ms")
}

func TestCapped(t *testing.T) {
	var log bytes.Buffer
	w := Capped(&log, 10)
	for range 5 {
		n, err := io.WriteString(w, "1234")
		require.NoError(t, err)
		require.Equal(t, 4, n)
	}
	require.Equal(t, "1234123412\n… the rest was too long to keep\n", log.String())
}

// A program that leaves something behind which holds its output open ends nevertheless.
func TestRunEndsWithTheProgram(t *testing.T) {
	shortGrace(t)
	pids := filepath.Join(t.TempDir(), "pids")
	runtest.Fake(t, "colmena", `sleep 1000 & echo $! > '`+pids+`'; echo done`)
	start := time.Now()
	out, err := Output(context.Background(), Command{Program: "colmena"})
	kill(readTrees(t, pids))
	require.NoError(t, err)
	require.Equal(t, "done\n", out)
	require.Less(t, time.Since(start), patience)
}

func shortGrace(t *testing.T) {
	before := grace
	grace = 300 * time.Millisecond
	t.Cleanup(func() { grace = before })
}

// readTrees waits for a file with a process's number and gives that process.
func readTrees(t *testing.T, file string) []process {
	t.Helper()
	var found []process
	require.Eventually(t, func() bool {
		data, err := os.ReadFile(file)
		if err != nil || !strings.HasSuffix(string(data), "\n") {
			return false
		}
		found = nil
		for _, field := range strings.Fields(string(data)) {
			pid, err := strconv.Atoi(field)
			require.NoError(t, err)
			p, ok := readProcess(pid)
			require.True(t, ok, "process %d has ended", pid)
			found = append(found, p)
		}
		return true
	}, patience, time.Millisecond)
	return found
}

// Whatever a program has started is gone when the context is, be it deaf or an orphan.
func TestRunCancelled(t *testing.T) {
	for name, script := range map[string]string{
		"waits for its child":        `sh -c 'echo $PPID $$ > "$1"; exec sleep 1000' - "$PIDS"; true`,
		"deaf":                       `trap '' TERM; sh -c 'echo $PPID $$ > "$1"; while :; do sleep 0.1; done' - "$PIDS"; true`,
		"ends before its deaf child": `sh -c 'trap "" TERM; echo $PPID $$ > "$1"; while :; do sleep 0.1; done' - "$PIDS" & wait`,
		"ends before its slow child": `sh -c 'trap "sleep 0.1; exit" TERM; echo $PPID $$ > "$1"; while :; do sleep 0.01; done' - "$PIDS" & wait`,
	} {
		t.Run(name, func(t *testing.T) {
			shortGrace(t)
			pids := filepath.Join(t.TempDir(), "pids")
			t.Setenv("PIDS", pids)
			runtest.Fake(t, "colmena", script)
			ctx, cancel := context.WithCancelCause(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- Run(ctx, Command{Program: "colmena"}) }()
			processes := readTrees(t, pids)
			t.Cleanup(func() { kill(processes) })
			why := errors.New("the reason")
			cancel(why)
			select {
			case err := <-ended:
				require.ErrorIs(t, err, why)
			case <-time.After(patience):
				t.Fatal("Run did not end")
			}
			require.Eventually(t, func() bool { return len(running(processes)) == 0 }, patience, time.Millisecond)
		})
	}
	t.Run("before the start", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "started")
		runtest.Fake(t, "colmena", "touch '"+file+"'")
		ctx, cancel := context.WithTimeout(context.Background(), 0)
		defer cancel()
		require.ErrorIs(t, Run(ctx, Command{Program: "colmena"}), context.DeadlineExceeded)
		require.NoFileExists(t, file)
	})
}

// startRunner starts a process of its own that calls Run.
func startRunner(t *testing.T, script string) (runner *exec.Cmd, events string, said *bytes.Buffer) {
	t.Helper()
	// under nohup SIGHUP is ignored, and a child inherits that; it does not inherit what is caught
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(caught) })
	events = filepath.Join(t.TempDir(), "events")
	t.Setenv("EVENTS", events)
	self, err := os.Executable()
	require.NoError(t, err)
	runner = exec.Command(self)
	runner.Env = append(os.Environ(), "TEST_RUN="+runtest.Fake(t, "colmena", script))
	said = new(bytes.Buffer)
	runner.Stdout = said
	require.NoError(t, runner.Start())
	t.Cleanup(func() { _ = runner.Process.Kill() })
	return runner, events, said
}

func waitForEvent(t *testing.T, events, wanted string) {
	t.Helper()
	require.Eventually(t, func() bool {
		data, _ := os.ReadFile(events)
		return strings.Contains(string(data), wanted+"\n")
	}, patience, time.Millisecond, wanted)
}

// The signal reaches the program, which may take its time; a second one is passed on as well.
func TestRunPassesSignals(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(s.String(), func(t *testing.T) {
			runner, events, said := startRunner(t, `
n=0
trap 'n=$((n + 1)); echo "signal $n" >> "$EVENTS"' INT TERM HUP
echo ready >> "$EVENTS"
while [ $n -lt 2 ]; do sleep 0.01 || :; done
sleep 0.2
echo "ended by itself"
exit 7
`)
			waitForEvent(t, events, "ready")
			require.NoError(t, runner.Process.Signal(s))
			waitForEvent(t, events, "signal 1")
			require.NoError(t, runner.Process.Signal(s))
			waitForEvent(t, events, "signal 2")
			require.NoError(t, runner.Wait())
			require.Equal(t, fmt.Sprintf("ended by itself\nerror: colmena was interrupted (%s)\ncode 7, signal <nil>, interrupted %s\n", s, s), said.String())
		})
	}
}

func TestRunSignalEndsTheTree(t *testing.T) {
	runner, events, said := startRunner(t, `sh -c 'trap "echo child >> \"\$EVENTS\"; exit" INT; echo ready >> "$EVENTS"; while :; do sleep 0.01; done'; echo "still here"`)
	waitForEvent(t, events, "ready")
	require.NoError(t, runner.Process.Signal(syscall.SIGINT))
	waitForEvent(t, events, "child")
	require.NoError(t, runner.Wait())
	require.Contains(t, said.String(), "error: colmena was interrupted (interrupt)\n")
}

// A program that ends well after Ctrl-C is still an interruption: nothing may go on after it.
func TestRunInterruptedAndWell(t *testing.T) {
	runner, events, said := startRunner(t, `trap 'exit 0' INT; echo ready >> "$EVENTS"; while :; do sleep 0.01; done`)
	waitForEvent(t, events, "ready")
	require.NoError(t, runner.Process.Signal(syscall.SIGINT))
	require.NoError(t, runner.Wait())
	require.Equal(t, "error: colmena was interrupted (interrupt)\ncode 0, signal <nil>, interrupted interrupt\n", said.String())
}

// Ctrl-C goes to the whole group, and the program may have died of it before k3splan hears of it.
func TestRunInterruptedBeforeItsOwnSignal(t *testing.T) {
	runner, _, said := startRunner(t, "kill -INT $$")
	require.NoError(t, runner.Wait())
	require.Equal(t, "error: colmena was interrupted (interrupt)\ncode -1, signal interrupt, interrupted interrupt\n", said.String())

	runner, _, said = startRunner(t, "kill -INT $PPID; exit 130")
	require.NoError(t, runner.Wait())
	require.Contains(t, said.String(), "error: colmena was interrupted (interrupt)\n")

	t.Setenv("TEST_RUN_KEEPS_STDERR", "1")
	// as an ssh that shares a connection, on a busy machine
	runner, _, said = startRunner(t, "(sleep 0.3; kill -INT $PPID) > /dev/null 2>&1 & exit 255")
	require.NoError(t, runner.Wait())
	require.Contains(t, said.String(), "error: colmena was interrupted (interrupt)\n")
}

// In a group of its own a program that asks for a passphrase would be stopped by the terminal.
func TestRunStaysInTheGroup(t *testing.T) {
	out, err := Output(context.Background(), Command{Program: runtest.Fake(t, "colmena", "cat /proc/$$/stat")})
	require.NoError(t, err)
	fields := strings.Fields(out[strings.LastIndex(out, ")")+1:])
	require.Equal(t, strconv.Itoa(syscall.Getpgrp()), fields[2])
}

// With nohup, SIGHUP stays ignored, here and in the program.
func TestRunNohup(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	events := filepath.Join(t.TempDir(), "events")
	t.Setenv("EVENTS", events)
	t.Setenv("TEST_RUN", runtest.Fake(t, "colmena", `echo ready >> "$EVENTS"; while [ ! -e "$EVENTS.go" ]; do sleep 0.01; done; echo well`))
	runner := exec.Command("sh", "-c", `trap '' HUP; exec "$0"`, self)
	var said bytes.Buffer
	runner.Stdout = &said
	require.NoError(t, runner.Start())
	t.Cleanup(func() { _ = runner.Process.Kill() })
	waitForEvent(t, events, "ready")
	require.NoError(t, runner.Process.Signal(syscall.SIGHUP))
	time.Sleep(100 * time.Millisecond)
	require.NoError(t, os.WriteFile(events+".go", nil, 0o644))
	require.NoError(t, runner.Wait())
	require.Equal(t, "well\nerror: <nil>\n", said.String())
}
