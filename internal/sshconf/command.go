package sshconf

import (
	"strings"

	"k3splan/internal/plan"
	"k3splan/internal/shell"
)

// Login gives ssh's arguments for a person at a terminal, or with a command, which is joined by
// blanks and read by the shell on the other side, as ssh does it. An empty user is the host's admin.
// With terminal a command gets one, too.
func (c *Config) Login(host *plan.Host, user string, terminal bool, command []string) []string {
	args := []string{"-F", c.File}
	if terminal {
		args = append(args, "-t")
	}
	if user != "" {
		args = append(args, "-l", user)
	}
	args = append(args, host.Name)
	if len(command) > 0 {
		args = append(append(args, "--"), command...)
	}
	return args
}

// Root gives ssh's arguments that run a command on a host as root, through the deploy user. Nothing
// is asked. The words arrive as they are. None of them may be a secret: others could see it there.
func (c *Config) Root(host *plan.Host, command ...string) []string {
	args := []string{"-F", c.File, "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15",
		"-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4", "-l", "deploy", host.Name, "--", "sudo", "-n", "-H", "--"}
	for _, word := range command {
		args = append(args, shell.Word(word))
	}
	return args
}

// Scan gives ssh's arguments that write the key of a host into a file of known hosts, in which it
// must not be yet, and then end without logging in. The connection is the user's own, jump hosts
// included.
func (c *Config) Scan(host *plan.Host, known string, algorithms ...string) []string {
	args := []string{"-F", c.File, "-T",
		"-o", "UserKnownHostsFile=" + known, "-o", "StrictHostKeyChecking=accept-new", "-o", "HashKnownHosts=no",
		"-o", "HostKeyAlias=" + host.Name, "-o", "ControlPath=none", "-o", "LogLevel=ERROR",
		// after the exchange of keys there is nothing to do
		"-o", "BatchMode=yes", "-o", "PreferredAuthentications=none", "-o", "ConnectTimeout=15"}
	if len(algorithms) > 0 {
		args = append(args, "-o", "HostKeyAlgorithms="+strings.Join(algorithms, ","))
	} else {
		args = append(args, "-o", "HostKeyAlgorithms=+ssh-ed25519") // all, instead of the known types
	}
	return append(args, host.Name, "--", "true")
}
