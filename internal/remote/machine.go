package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/run"
)

// DeployUser is the account that Colmena logs in to; users.nix makes it.
const DeployUser = "deploy"

// Machine is a host to which a user logs in by ssh, or the one on which k3splan runs. What it runs has
// no terminal, and nothing is asked.
type Machine struct {
	Host *plan.Host
	// User logs in; commands run as root, by sudo if this is another user.
	User string
	// Limit is how many bytes an answer may have, and Timeout how long a command may take; 0 means
	// DefaultLimit and DefaultTimeout.
	Limit   int64
	Timeout time.Duration

	// Once is for a command after which none is expected soon: its connection is not kept for others.
	Once bool

	config, sockets string
}

const (
	// DefaultLimit is in bytes. What k3splan asks a host has some kilobytes.
	DefaultLimit = 4 << 20
	// DefaultTimeout is longer than whatever is asked of a host in working order takes.
	DefaultTimeout = 5 * time.Minute
)

// Machine returns a host for a user; an empty one is the host's admin.
func (c *Config) Machine(host *plan.Host, user string) Machine {
	return Machine{Host: host, User: cmp.Or(user, host.Admin), config: c.File, sockets: c.sockets}
}

// Machines is Machine for one user.
func (c *Config) Machines(user string) func(*plan.Host) Machine {
	return func(host *plan.Host) Machine { return c.Machine(host, user) }
}

// Target is what ssh and nix-copy-closure take as the destination.
func (m Machine) Target() string { return m.User + "@" + m.Host.Target.Host }

// LogIn checks that the user can log in. The error is an [*Error].
func (m Machine) LogIn(ctx context.Context) error {
	if m.Host.Target.Local {
		return nil
	}
	_, err := m.output(ctx, "", "ssh", m.ssh(nil, "true"))
	return err
}

// Run runs a command as root and returns what it prints. The words arrive as they are; none of them may
// be a secret, as other users could see it there. The error is an [*Error].
func (m Machine) Run(ctx context.Context, stdin string, command ...string) (string, error) {
	program, args := m.root(command)
	return m.output(ctx, stdin, program, args)
}

// Pipe is Run for what is too large for memory: stdin, which may be nil, and stdout are passed on as they
// come.
func (m Machine) Pipe(ctx context.Context, stdin io.Reader, stdout io.Writer, command ...string) error {
	program, args := m.root(command)
	err := run.Run(ctx, run.Command{Program: program, Args: args, Stdin: stdin, Stdout: stdout, Timeout: cmp.Or(m.Timeout, DefaultTimeout)})
	if err != nil {
		err = m.failure(err)
	}
	return err
}

// Script runs a POSIX shell's script as root and returns what it prints. The words are its arguments. The
// programs that it starts have no standard input: they would read the rest of the script from it. The
// error is an [*Error].
func (m Machine) Script(ctx context.Context, script string, words ...string) (string, error) {
	return m.Run(ctx, "{\n"+script+"\n} < /dev/null\n", append([]string{"sh", "-s", "--"}, words...)...)
}

func (m Machine) root(command []string) (program string, args []string) {
	switch {
	case !m.Host.Target.Local && m.User == "root":
		return "ssh", m.ssh(nil, command...)
	case !m.Host.Target.Local:
		return "ssh", m.ssh(nil, append([]string{"sudo", "-n", "-H", "--"}, command...)...)
	case os.Geteuid() == 0:
		return command[0], command[1:]
	}
	return "sudo", append([]string{"-H", "--"}, command...)
}

// connection are the options of our own connections: nothing is asked, a host that is down does not hold up
// the others for long, and only what went wrong is printed, not a greeting.
var connection = []string{"-o", "BatchMode=yes", "-o", "ConnectTimeout=8", "-o", "LogLevel=ERROR"}

// ssh returns the arguments of a program's connection. It calls the host by its address, as Colmena does,
// so that the same configuration applies to both.
func (m Machine) ssh(options []string, command ...string) []string {
	args := slices.Concat([]string{"-F", m.config, "-T"}, connection, options)
	if m.Once && m.sockets != "" {
		args = append(args, "-o", "ControlMaster=no")
	}
	if port := m.Host.Target.Port; port != 0 {
		args = append(args, "-p", strconv.Itoa(port))
	}
	args = append(args, m.Target(), "--")
	for _, word := range command {
		args = append(args, run.Word(word)) // ssh joins them with blanks, and a shell splits them again
	}
	return args
}

// CopyClosure returns the command that copies a store path, with all that it refers to, to the machine.
func (m Machine) CopyClosure(path string) run.Command {
	options := slices.Concat([]string{"-F", m.config}, connection)
	if port := m.Host.Target.Port; port != 0 {
		options = append(options, "-p", strconv.Itoa(port))
	}
	return run.Command{
		Program: "nix-copy-closure", Args: []string{"--to", "--gzip", "--use-substitutes", m.Target(), path},
		Env: []string{"NIX_SSHOPTS=" + strings.Join(options, " ")}, // which none of them needs quotes in
	}
}

// Session is ssh for a person: with a terminal, or with a command, which is joined by blanks and read by
// the shell on the other side, as ssh does it. With Terminal a command gets one, too.
type Session struct {
	Terminal       bool
	Command        []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Run connects a person to a machine. ssh prints its own messages. The error is a [*run.ExitError] with
// ssh's exit code: that of the command, or 255 with advice if there was no connection.
func (s Session) Run(ctx context.Context, m Machine) error {
	var said run.Excerpt
	err := run.Run(ctx, run.Command{
		Program: "ssh", Args: m.login(s.Terminal, s.Command), Stdin: s.Stdin, Stdout: s.Stdout, Stderr: io.MultiWriter(s.Stderr, &said),
	})
	var exit *run.ExitError
	if errors.As(err, &exit) && exit.Code == unreached {
		_, advice := m.explain(said.String())
		return diag.WithHint(err, advice)
	}
	return err
}

// login returns ssh's arguments for a person. They call the host by its name; ssh_config leads from there
// to the address and to what applies to it.
func (m Machine) login(terminal bool, command []string) []string {
	args := []string{"-F", m.config}
	if terminal {
		args = append(args, "-t")
	}
	args = append(args, "-l", m.User, m.Host.Name)
	if len(command) > 0 { // which ssh refuses beside a RemoteCommand of the user's configuration
		args = append(append(slices.Insert(args, 2, "-o", "RemoteCommand=none"), "--"), command...)
	}
	return args
}

func (m Machine) output(ctx context.Context, stdin, program string, args []string) (string, error) {
	out, err := run.Output(ctx, run.Command{
		Program: program, Args: args, Stdin: strings.NewReader(stdin),
		Limit: cmp.Or(m.Limit, DefaultLimit), Timeout: cmp.Or(m.Timeout, DefaultTimeout),
	})
	if err != nil {
		if err = m.failure(err); lost(err) {
			m.Disconnect()
		}
	}
	return out, err
}

// Error is a command that failed on a machine, or did not get there.
type Error struct {
	Host string
	// Unreached means that there was no connection.
	Unreached bool
	// Err is the cause, without the host's name. It wraps what [run.Output] returned.
	Err error
}

func (e *Error) Error() string {
	if e.Unreached {
		return fmt.Sprintf("no connection to %s: %v", e.Host, e.Err)
	}
	return fmt.Sprintf("on %s: %v", e.Host, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Reason returns why a machine did not do what it should, without its name, in one line that is fit for a
// terminal.
func Reason(err error) string {
	var failed *Error
	if errors.As(err, &failed) {
		err = failed.Err
	}
	text := err.Error()
	var exit *run.ExitError
	switch {
	case errors.As(err, &exit) && !(failed != nil && failed.Unreached) && exit.Interrupted == nil && exit.Stderr != "":
		lines := strings.Split(strings.TrimSpace(exit.Stderr), "\n")
		text = strings.TrimSpace(lines[len(lines)-1]) // the last thing that the command said
	case errors.Is(err, context.DeadlineExceeded):
		text = "no answer in time"
	}
	return diag.Printable(text)
}

// failure turns the error of a command into an [*Error] with the cause that ssh reported, and advice.
func (m Machine) failure(err error) error {
	var (
		exit    *run.ExitError
		tooMuch *run.TooMuchError
	)
	switch {
	case errors.As(err, &tooMuch):
		return &Error{Host: m.Host.Name, Err: &cause{fmt.Sprintf("the host answers too much (more than %d MiB)", tooMuch.Limit>>20), err}}
	case !errors.As(err, &exit) || exit.Interrupted != nil:
		return &Error{Host: m.Host.Name, Err: err}
	case exit.Program == "ssh" && exit.Code == unreached:
		line, advice := m.explain(exit.Stderr)
		if line == "" {
			line = "ssh says nothing about the reason"
		}
		return diag.WithHint(&Error{Host: m.Host.Name, Unreached: true, Err: &cause{line, err}}, advice)
	}
	for _, c := range commandCauses {
		if match := c.pattern.FindStringSubmatch(exit.Stderr); match != nil {
			return diag.WithHint(&Error{Host: m.Host.Name, Err: err}, c.advice(m, match))
		}
	}
	return &Error{Host: m.Host.Name, Err: err}
}

// unreached is the exit code that ssh has for itself.
const unreached = 255

// cause is an error whose words are others.
type cause struct {
	text string
	err  error
}

func (c *cause) Error() string { return c.text }
func (c *cause) Unwrap() error { return c.err }
