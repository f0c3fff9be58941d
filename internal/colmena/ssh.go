package colmena

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Remote is a machine on which programs are run by ssh, or this one.
type Remote struct {
	// User logs in; commands run as root, by sudo if the user is another.
	User string
	Host string
	// Port is 0 if ssh's configuration is to decide.
	Port int
	// Config is an ssh_config that replaces the user's own (ssh -F), or "". With one, it decides
	// which host keys are good; without, an unknown key is accepted and a wrong one refused, as
	// Colmena does it.
	Config string
	// Local means this machine, without ssh.
	Local bool
	// Timeout limits the connecting, in whole seconds; 0 is ssh's own.
	Timeout int
}

// Shell gives the program and the arguments that run a POSIX shell as root, which reads its script
// from standard input. words come after "-s --" as the script's arguments; they must need no quoting.
func (r Remote) Shell(words ...string) (program string, args []string) {
	return r.Root(append([]string{"sh", "-s", "--"}, words...)...)
}

// Root gives the program and the arguments that run a command as root. ssh joins the words with
// blanks, and a shell on the other side splits them again: they must need no quoting.
func (r Remote) Root(command ...string) (program string, args []string) {
	if r.Local {
		if os.Geteuid() == 0 {
			return command[0], command[1:]
		}
		return "sudo", append([]string{"-H", "--"}, command...)
	}
	if r.User != "root" {
		command = append([]string{"sudo", "-n", "-H", "--"}, command...)
	}
	return r.Plain(command...)
}

// Plain gives the program and the arguments that run a command as the user who logs in.
func (r Remote) Plain(command ...string) (program string, args []string) {
	if r.Local {
		return command[0], command[1:]
	}
	return "ssh", append(append(r.Options(), r.Target(), "--"), command...)
}

// Target is what ssh and nix-copy-closure take as the destination.
func (r Remote) Target() string {
	if r.User == "" {
		return r.Host
	}
	return r.User + "@" + r.Host
}

// Options are those of ssh. There is no terminal on the other side, and nothing may ask.
func (r Remote) Options() []string {
	options := []string{"-T", "-o", "BatchMode=yes"}
	if r.Timeout > 0 {
		options = append(options, "-o", "ConnectTimeout="+strconv.Itoa(r.Timeout),
			"-o", "ServerAliveInterval="+strconv.Itoa(r.Timeout), "-o", "ServerAliveCountMax=2")
	}
	if r.Port != 0 {
		options = append(options, "-p", strconv.Itoa(r.Port))
	}
	if r.Config != "" {
		return append(options, "-F", r.Config)
	}
	return append(options, "-o", "StrictHostKeyChecking=accept-new")
}

// RunScript runs a script as root on a machine and gives what it prints. The programs that the script
// starts have no standard input: they would read the rest of the script from it.
func RunScript(ctx context.Context, r Remote, script string, words ...string) (string, error) {
	program, args := r.Shell(words...)
	return Output(ctx, Command{Program: program, Args: args, Stdin: strings.NewReader("{\n" + script + "\n} < /dev/null\n")})
}

// UploadKeys gives the arguments that replace the secrets of one host and nothing else.
func UploadKeys(hive, host string, extra []string) []string {
	return append([]string{"upload-keys", "-f", hive, "--on", host}, extra...)
}

// ApplyOne gives the arguments that deploy to one host by ssh and leave a link to its system at
// ResultLink.
func ApplyOne(hive, host string, extra []string) []string {
	return append([]string{"apply", "-f", hive, "--on", host, "--keep-result"}, extra...)
}

// BuildFirst gives the arguments that build the systems of hosts and touch none of them. Of extra, the
// user's arguments for "colmena apply", those are left out that tell what becomes of the systems.
func BuildFirst(hive string, hosts, extra []string) []string {
	afterwards := []string{"switch", "boot", "--reboot", "--keep-result"}
	kept := slices.DeleteFunc(slices.Clone(extra), func(arg string) bool { return slices.Contains(afterwards, arg) })
	return append([]string{"build", "-f", hive, "--on", strings.Join(hosts, ",")}, kept...)
}
