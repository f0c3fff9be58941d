// Package run is the one way in which k3splan starts other programs: it passes signals on, waits for
// all that a program has started, and limits time and output. [Word] quotes for a shell.
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

	"k3splan/internal/diag"
)

// Command is a program to run. No shell is involved. A secret is never among Args or Env, where other
// users of the machine could read it: pass a file's path, or write it to Stdin.
type Command struct {
	// Program is a name on PATH or a path.
	Program string
	Args    []string
	// Dir is the working directory, by default k3splan's own.
	Dir string
	// Env is added to k3splan's own environment and overrides it ("SSH_CONFIG_FILE=/x"). Colmena joins
	// ssh's options with blanks for nix-copy-closure, so that file's path must contain none.
	Env []string
	// Stdin is empty if nil.
	Stdin io.Reader
	// Stdout is discarded if nil. A program can show progress only if it gets the terminal itself, an
	// *os.File.
	Stdout io.Writer
	// Stderr is kept for the error if nil.
	Stderr io.Writer
	// Timeout ends the program, with an error that wraps [context.DeadlineExceeded]. 0 means none.
	Timeout time.Duration
	// Limit is how many bytes [Output] accepts, by default 64 MiB; a program that writes more is ended
	// with a [*TooMuchError].
	Limit int64
	// Ended is called with what the program has used, once it has ended; it may be nil.
	Ended func(*os.ProcessState)
}

// grace is how long programs have to end after their context was cancelled.
var grace = 10 * time.Second

// Run runs a program until it ends. It passes SIGINT, SIGTERM and SIGHUP on to the program and everything
// that it has started, as often as they come, and still waits: the program has to end what it runs on
// other machines. The program stays in k3splan's process group, the terminal's foreground one, so that
// it can ask for a passphrase.
//
// When ctx is done or the timeout has passed, all of these processes are ended, by SIGKILL after a grace
// period of some seconds. So ctx must not come from signal.NotifyContext.
//
// The error is a [*MissingError] if there is no such program, an [*ExitError] if it failed or the user
// interrupted it, or wraps ctx's.
func Run(ctx context.Context, command Command) error {
	if command.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, command.Timeout, timeoutError(command.Timeout))
		defer cancel()
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", command.name(), context.Cause(ctx))
	}
	path, err := exec.LookPath(command.Program)
	if errors.Is(err, exec.ErrNotFound) {
		return Missing(command.Program)
	} else if err != nil {
		return fmt.Errorf("starting %s: %w", command.name(), err)
	}
	cmd := exec.Command(path, command.Args...)
	cmd.Dir = command.Dir
	cmd.Env = append(os.Environ(), command.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = command.Stdin, command.Stdout, command.Stderr
	// a process that the program leaves behind may keep its output open for ever
	cmd.WaitDelay = grace
	var said Excerpt
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
	end := wait(ctx, cmd, signals, &said)
	if command.Ended != nil {
		command.Ended(cmd.ProcessState)
	}

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

// timeoutError is the time that a program had.
type timeoutError time.Duration

func (e timeoutError) Error() string { return fmt.Sprintf("no answer within %s", time.Duration(e)) }
func (e timeoutError) Unwrap() error { return context.DeadlineExceeded }

// ending is how a program came to its end.
type ending struct {
	// err is what exec.Cmd.Wait gave.
	err error
	// interrupted is the first signal that was passed on, or nil.
	interrupted os.Signal
	cancelled   bool
}

// wait waits for the end of a program that was started.
func wait(ctx context.Context, cmd *exec.Cmd, signals <-chan os.Signal, said *Excerpt) (end ending) {
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
				delay := signalDelay
				if cmd.ProcessState.ExitCode() == silentEnd && cmd.Stderr == said && said.String() == "" {
					delay = silentDelay
				}
				end.interrupted = lateSignal(cmd.ProcessState, signals, delay)
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

// lateSignal reports whether a program failed because the user interrupted it. A Ctrl-C
// goes to the terminal's whole foreground group: the program may have died of it before k3splan's
// own copy has come through the Go runtime, and some catch it and exit with a code of theirs.
func lateSignal(state *os.ProcessState, signals <-chan os.Signal, delay time.Duration) os.Signal {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() && (status.Signal() == syscall.SIGINT || status.Signal() == syscall.SIGHUP) {
		return status.Signal()
	}
	select {
	case s := <-signals:
		return s
	case <-time.After(delay):
		return nil
	}
}

// signalDelay is generous: the kernel delivers the signal to k3splan before it reports the program's end.
const (
	signalDelay = 50 * time.Millisecond
	// silentEnd is how an ssh ends that shares a connection and is interrupted: it says nothing. Whoever fails for
	// another reason gives it, so there is time for a busy machine.
	silentEnd   = 255
	silentDelay = 2 * time.Second
)

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

// Output runs a program as [Run] does and returns what it wrote to its standard output, also if it
// failed.
func Output(ctx context.Context, command Command) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limit := cmp.Or(command.Limit, defaultLimit)
	out := &limited{left: limit, exceeded: func() { cancel(&TooMuchError{command.name(), limit}) }}
	command.Stdout = out
	err := Run(ctx, command)
	var tooMuch *TooMuchError
	if errors.As(context.Cause(ctx), &tooMuch) { // the program may have ended by itself first
		err = tooMuch
	}
	return out.kept.String(), err
}

// defaultLimit is in bytes.
const defaultLimit = 64 << 20

// limited keeps what is written to it up to a limit.
type limited struct {
	kept     bytes.Buffer // not embedded: io.Copy would call its ReadFrom
	left     int64
	exceeded func()
}

func (l *limited) Write(p []byte) (int, error) {
	kept := p[:min(int64(len(p)), l.left)]
	l.left -= int64(len(kept))
	l.kept.Write(kept)
	if len(kept) < len(p) {
		l.exceeded()
		return len(kept), io.ErrShortWrite
	}
	return len(p), nil
}

// TooMuchError is a program that wrote more than its [Command] accepts.
type TooMuchError struct {
	// Program is its name without the path.
	Program string
	// Limit is in bytes.
	Limit int64
}

func (e *TooMuchError) Error() string {
	return fmt.Sprintf("%s answers too much: more than %s", e.Program, size(e.Limit))
}

func size(bytes int64) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%d KiB", bytes>>10)
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
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
	// Interrupted is the first signal that k3splan received while the program ran, or the SIGINT or
	// SIGHUP that ended the program, or nil. The program may have handled it and ended with Code 0.
	Interrupted os.Signal
	// Stderr is what the program wrote there, or its beginning and its end, if Command.Stderr was nil.
	// It may contain anything: print it with [diag.Printable].
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

// Missing returns a [MissingError] for a program, with the hint what to install.
func Missing(program string) error {
	program = filepath.Base(program)
	hint := fmt.Sprintf("install %s; on Debian: apt install %s", program, cmp.Or(debianPackages[program], program))
	switch {
	case program == "colmena":
		hint = "install Nix, from which k3splan gets Colmena (https://nixos.org/download, or on Debian 13: apt install nix-bin), or Colmena itself (https://colmena.cli.rs)"
	case strings.HasPrefix(program, "nix"):
		hint = "install Nix: https://nixos.org/download, or on Debian 13: apt install nix-bin"
	}
	return diag.WithHint(&MissingError{Program: program}, hint)
}

// debianPackages are those with another name than the program in them.
var debianPackages = map[string]string{"ssh": "openssh-client", "ssh-keygen": "openssh-client", "lsblk": "util-linux"}

// Excerpt is a writer that keeps the beginning and the end of what is written to it: programs name the
// cause first, and the consequences last.
type Excerpt struct {
	head, tail []byte
	cut        bool
}

// excerptSize is how many bytes of either are kept.
const excerptSize = 4096

func (e *Excerpt) Write(p []byte) (int, error) {
	n := min(len(p), excerptSize-len(e.head))
	e.head = append(e.head, p[:n]...)
	e.tail = append(e.tail, p[n:]...)
	if surplus := len(e.tail) - excerptSize; surplus > 0 {
		e.tail, e.cut = append(e.tail[:0], e.tail[surplus:]...), true
	}
	return len(p), nil
}

func (e *Excerpt) String() string {
	text := string(e.head) + string(e.tail)
	if e.cut {
		text = string(e.head) + "\n…\n" + string(e.tail)
	}
	return strings.TrimSpace(strings.ToValidUTF8(text, ""))
}

// Capped returns a writer that passes the first limit bytes on to w, then a line that says so, and
// discards the rest: for logs of programs that may write without end.
func Capped(w io.Writer, limit int64) io.Writer { return &capped{w: w, left: limit} }

type capped struct {
	w    io.Writer
	left int64
	full bool
}

func (c *capped) Write(p []byte) (int, error) {
	kept := p[:min(int64(len(p)), c.left)]
	c.left -= int64(len(kept))
	if _, err := c.w.Write(kept); err != nil {
		return 0, err
	}
	if len(kept) < len(p) && !c.full {
		c.full = true
		if _, err := io.WriteString(c.w, "\n… the rest was too long to keep\n"); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
