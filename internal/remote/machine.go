package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"k3splan/internal/plan"
	"k3splan/internal/run"
)

// DeployUser is who Colmena logs in as; users.nix makes it.
const DeployUser = "deploy"

// Machine is a host to which a user logs in by ssh, or the one on which k3splan runs. What it runs has
// no terminal, and nothing is asked.
type Machine struct {
	Host *plan.Host
	// User logs in; commands run as root, by sudo if the user is another.
	User   string
	config string
}

// Machine gives a host for a user; an empty one is the host's admin.
func (c *Config) Machine(host *plan.Host, user string) Machine {
	return Machine{Host: host, User: cmp.Or(user, host.Admin), config: c.File}
}

// Machines is Machine for one user.
func (c *Config) Machines(user string) func(*plan.Host) Machine {
	return func(host *plan.Host) Machine { return c.Machine(host, user) }
}

// Target is what ssh and nix-copy-closure take as the destination.
func (m Machine) Target() string { return m.User + "@" + m.Host.Target.Host }

// LogIn finds out whether the user can log in. The error is an [Error].
func (m Machine) LogIn(ctx context.Context) error {
	if m.Host.Target.Local {
		return nil
	}
	_, err := m.output(ctx, "", "ssh", m.ssh(nil, "true"))
	return err
}

// Run runs a command as root and gives what it prints. The words arrive as they are; none of them may
// be a secret, as others could see it there. The error is an [Error].
func (m Machine) Run(ctx context.Context, stdin string, command ...string) (string, error) {
	program, args := m.root(command)
	return m.output(ctx, stdin, program, args)
}

// Script runs a POSIX shell's script as root and gives what it prints. The words are its arguments. The
// programs that it starts have no standard input: they would read the rest of the script from it. The
// error is an [Error].
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

// Racks are asked as a whole, so a machine that is down must not hold that up for long. A connection
// that stands is another matter: a command may be half done, and networks come back.
var times = []string{"-o", "ConnectTimeout=8", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"}

// ssh gives the arguments of a program's connection. It calls the machine by its address, as Colmena
// does: what the user's own configuration says about that holds for both.
func (m Machine) ssh(options []string, command ...string) []string {
	args := slices.Concat([]string{"-F", m.config, "-T", "-o", "BatchMode=yes"}, times, options)
	if port := m.Host.Target.Port; port != 0 {
		args = append(args, "-p", strconv.Itoa(port))
	}
	args = append(args, m.Target(), "--")
	for _, word := range command {
		args = append(args, run.Word(word)) // ssh joins them with blanks, and a shell splits them again
	}
	return args
}

// Login gives ssh's arguments for a person, who calls the machine by its name: a terminal, or a command,
// which is joined by blanks and read by the shell on the other side, as ssh does it. With terminal a
// command gets one, too.
func (m Machine) Login(terminal bool, command []string) []string {
	args := []string{"-F", m.config}
	if terminal {
		args = append(args, "-t")
	}
	args = append(args, "-l", m.User, m.Host.Name)
	if len(command) > 0 {
		args = append(append(args, "--"), command...)
	}
	return args
}

func (m Machine) output(ctx context.Context, stdin, program string, args []string) (string, error) {
	out, err := run.Output(ctx, run.Command{Program: program, Args: args, Stdin: strings.NewReader(stdin)})
	if err != nil {
		err = &Error{Machine: m, Err: err}
	}
	return out, err
}

// Error is a command that failed on a machine, or did not get there.
type Error struct {
	Machine Machine
	// Err says how, without naming the machine.
	Err error
}

func (e *Error) Error() string {
	if e.unreached() != nil {
		return fmt.Sprintf("no connection to %s: %v", e.Machine.Host.Name, e.Err)
	}
	return fmt.Sprintf("on %s: %v", e.Machine.Host.Name, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// unreached is what ssh says if there was no connection.
func (e *Error) unreached() *run.ExitError {
	var exit *run.ExitError
	if errors.As(e.Err, &exit) && exit.Program == "ssh" && exit.Code == 255 {
		return exit
	}
	return nil
}

// Hint explains ssh's words.
func (e *Error) Hint() string {
	exit, name := e.unreached(), e.Machine.Host.Name
	says := func(words string) bool { return strings.Contains(exit.Stderr, words) }
	switch {
	case exit == nil:
		if hinted := (interface{ Hint() string })(nil); errors.As(e.Err, &hinted) {
			return hinted.Hint()
		}
	case says("REMOTE HOST IDENTIFICATION HAS CHANGED"), says("no matching host key type"), says("Host key verification failed"):
		return "the machine there does not have the key by which " + name + " is known: it is another one, or it was installed anew\n" +
			"if you know why, look at its key and adopt it: k3splan known-hosts scan " + name
	case says("Permission denied") && e.Machine.User == DeployUser:
		return "the user `deploy` takes the keys in secrets/deploy.pub, or else the admins': is yours among them, and was it deployed?"
	}
	return ""
}
