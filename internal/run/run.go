package run

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Command is a program to run. No shell is involved.
type Command struct {
	// Program is a name on PATH or a path.
	Program string
	Args    []string
	// Dir is the working directory, by default k3splan's own.
	Dir string
	// Env is added to k3splan's own environment and beats it ("SSH_CONFIG_FILE=/x"). Colmena joins
	// ssh's options with blanks for nix-copy-closure: that file's path must hold none.
	Env []string
	// Stdin is empty if nil.
	Stdin io.Reader
	// Stdout is thrown away if nil. A program can show progress only where it is given the
	// terminal itself, an *os.File.
	Stdout io.Writer
	// Stderr is kept for the error if nil.
	Stderr io.Writer
}

// grace is how long programs have to end after their context was cancelled.
var grace = 10 * time.Second

// Run runs a program until it ends. It passes SIGINT, SIGTERM and SIGHUP on to the program and
// whatever that has started, as often as they come, and still waits: what runs on a machine then is
// for the program to end. The program stays in k3splan's process group, the terminal's foreground
// one, so that it can ask for a passphrase.
//
// If ctx is done, all of these processes are ended, by SIGKILL after a grace of some seconds. So
// ctx must not come from signal.NotifyContext.
//
// The error is a *MissingError if there is no such program, an *ExitError if it failed or the user
// interrupted it, or wraps ctx's.
func Run(ctx context.Context, command Command) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", command.name(), context.Cause(ctx))
	}
	path, err := exec.LookPath(command.Program)
	if errors.Is(err, exec.ErrNotFound) {
		return &MissingError{Program: command.name()}
	} else if err != nil {
		return fmt.Errorf("starting %s: %w", command.name(), err)
	}
	cmd := exec.Command(path, command.Args...)
	cmd.Dir = command.Dir
	cmd.Env = append(os.Environ(), command.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = command.Stdin, command.Stdout, command.Stderr
	// something left behind by the program may hold its output open for ever
	cmd.WaitDelay = grace
	var said tail
	if command.Stderr == nil {
		cmd.Stderr = &said
	}

	signals := make(chan os.Signal, 8)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // nohup
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", command.name(), err)
	}
	end := wait(ctx, cmd, signals)

	var failed *exec.ExitError
	switch {
	case end.cancelled:
		return fmt.Errorf("%s: %w", command.name(), context.Cause(ctx))
	case errors.As(end.err, &failed), end.interrupted != nil:
		exit := &ExitError{Program: command.name(), Code: cmd.ProcessState.ExitCode(), Interrupted: end.interrupted, Stderr: said.String()}
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			exit.Signal = status.Signal()
		}
		return exit
	case end.err != nil && !errors.Is(end.err, exec.ErrWaitDelay):
		return fmt.Errorf("running %s: %w", command.name(), end.err)
	default:
		return nil
	}
}

// ending is how a program came to its end.
type ending struct {
	// err is what exec.Cmd.Wait gave.
	err error
	// interrupted is the first signal that was passed on, or nil.
	interrupted os.Signal
	cancelled   bool
}

// wait waits for the end of a program that was started.
func wait(ctx context.Context, cmd *exec.Cmd, signals <-chan os.Signal) (end ending) {
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var (
		cancel  = ctx.Done()
		meant   []process
		timeout <-chan time.Time
	)
	for {
		select {
		case end.err = <-ended:
			if end.interrupted == nil && end.err != nil {
				end.interrupted = lateSignal(cmd.ProcessState, signals)
			}
			if timeout != nil {
				finish(meant, timeout)
			}
			return end
		case s := <-signals:
			if end.interrupted == nil {
				end.interrupted = s
			}
			signalTree(cmd.Process.Pid, s.(syscall.Signal))
		case <-cancel:
			cancel, end.cancelled, timeout = nil, true, time.After(grace)
			meant = signalTree(cmd.Process.Pid, syscall.SIGTERM)
		case <-timeout:
			timeout = nil
			signalTree(cmd.Process.Pid, syscall.SIGKILL)
			kill(meant)
		}
	}
}

// lateSignal tells whether a program that failed did so because the user interrupted it. A Ctrl-C
// goes to the terminal's whole foreground group: the program may have died of it before k3splan's
// own copy has come through the Go runtime, and some catch it and exit with a code of theirs.
func lateSignal(state *os.ProcessState, signals <-chan os.Signal) os.Signal {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() && (status.Signal() == syscall.SIGINT || status.Signal() == syscall.SIGHUP) {
		return status.Signal()
	}
	select {
	case s := <-signals:
		return s
	case <-time.After(signalDelay):
		return nil
	}
}

// signalDelay is generous: the kernel has given k3splan the signal before it told of the program's end.
const signalDelay = 50 * time.Millisecond

// finish waits until the processes have ended as well, and kills those that live after the timeout.
func finish(processes []process, timeout <-chan time.Time) {
	for left := running(processes); len(left) > 0; left = running(left) {
		select {
		case <-timeout:
			kill(left)
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Output runs a program as Run does and gives what it wrote to its standard output.
func Output(ctx context.Context, command Command) (string, error) {
	var out bytes.Buffer
	command.Stdout = &out
	err := Run(ctx, command)
	return out.String(), err
}

func (c Command) name() string { return filepath.Base(c.Program) }

// ExitError is a program that failed, or that the user interrupted.
type ExitError struct {
	// Program is its name without the path.
	Program string
	// Code is its exit status, -1 if a signal ended it.
	Code int
	// Signal ended it, or nil.
	Signal os.Signal
	// Interrupted is the first signal that k3splan got while the program ran, or the SIGINT or SIGHUP
	// of which the program died, or nil. The program may have taken it well and ended with Code 0.
	Interrupted os.Signal
	// Stderr is the end of what it said there, if Command.Stderr was nil.
	Stderr string
}

func (e *ExitError) Error() string {
	text := ""
	switch {
	case e.Interrupted != nil:
		text = fmt.Sprintf("%s was interrupted (%s)", e.Program, e.Interrupted)
	case e.Signal != nil:
		text = fmt.Sprintf("%s was ended by a signal (%s)", e.Program, e.Signal)
	default:
		text = fmt.Sprintf("%s failed with exit code %d", e.Program, e.Code)
	}
	if e.Stderr != "" {
		text += ": " + e.Stderr
	}
	return text
}

// MissingError is a program that is not on PATH.
type MissingError struct{ Program string }

func (e *MissingError) Error() string { return e.Program + " is not on PATH" }

// Hint says what to install.
func (e *MissingError) Hint() string {
	switch {
	case e.Program == "colmena":
		return "install Nix, from which k3splan gets Colmena (https://nixos.org/download, or on Debian: apt install nix-bin), or Colmena itself (https://colmena.cli.rs)"
	case strings.HasPrefix(e.Program, "nix"):
		return "install Nix: https://nixos.org/download, or on Debian: apt install nix-bin"
	default:
		return fmt.Sprintf("install %s; on Debian: apt install %s", e.Program, cmp.Or(debianPackages[e.Program], e.Program))
	}
}

// debianPackages have another name than the program that is in them.
var debianPackages = map[string]string{"ssh": "openssh-client", "lsblk": "util-linux"}

// tail keeps the end of what is written to it.
type tail struct{ data []byte }

const tailSize = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if surplus := len(t.data) - tailSize; surplus > 0 {
		t.data = append(t.data[:0], t.data[surplus:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(strings.ToValidUTF8(string(t.data), "")) }
