package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	"k3splan/internal/project"

	"github.com/spf13/cobra"
)

func (a *app) passwdCommand() *cobra.Command {
	var fromStdin, all bool
	command := &cobra.Command{
		Use:   "passwd [HOST | --all]",
		Short: "Set the admins' password, for all hosts or for one",
		Long: `Asks for a password twice, without showing it, and stores its hash (sha512-crypt) among the secrets:
as ` + "`passwd`" + ` for all hosts that have none of their own, with HOST as that host's own (HOSTpasswd, or
HOST_passwd if that exists), with --all for all hosts: those that have one of their own get the same
password. The password itself is stored nowhere. It takes effect with the next deploy. A weak one, such
as a host's name, has to be confirmed; with --stdin there is only a warning.

A hash that you already have (sha512-crypt, yescrypt, bcrypt) can be pasted with ` + "`k3splan secrets edit passwd`" + `.`,
		Example: "  k3splan passwd\n  k3splan passwd olaf\n  k3splan passwd --all\n  pass show rack/olaf | k3splan passwd olaf --stdin",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			host := ""
			if len(args) == 1 {
				host = strings.ToLower(args[0])
			}
			if all && host != "" {
				return usageError(errors.New("either HOST or --all"))
			}
			return a.passwd(host, all, fromStdin)
		},
		ValidArgsFunction: a.completeHostNames,
	}
	command.Flags().BoolVar(&fromStdin, "stdin", false, "read the password from standard input, one line")
	command.Flags().BoolVar(&all, "all", false, "set it for the hosts that have a password of their own, too")
	return command
}

func (a *app) passwd(host string, all, fromStdin bool) error {
	p, err := a.validPlan()
	if err != nil {
		return err
	}
	_, vault, err := a.vault(nil)
	if err != nil {
		return err
	}
	if host != "" && p.Host(host) == nil {
		return unknownHost(p, host)
	}
	change := project.PasswordChange{Host: host, All: all, Asked: !fromStdin}
	if fromStdin {
		if change.Given, err = readLine(a.stdin); err != nil {
			return err
		}
	}
	set, err := project.SetPassword(context.Background(), a.user(false), p, vault, change)
	if errors.Is(err, project.ErrPassword) {
		return usageError(err)
	} else if err != nil {
		return err
	}
	a.say("stored the hash in %s; it takes effect with the next deploy", strings.Join(set.Places, ", "))
	if len(set.Own) > 0 {
		a.say("not for %s: each has a password of its own, which --all replaces", strings.Join(set.Own, ", "))
	}
	return nil
}

// readLine reads the one line of standard input, without its end.
func readLine(in io.Reader) ([]byte, error) {
	reader := bufio.NewReader(in)
	line, err := reader.ReadBytes('\n')
	if err != nil && err != io.EOF {
		return nil, err
	}
	if rest, _ := io.ReadAll(io.LimitReader(reader, 1)); len(rest) > 0 {
		return nil, usageError(errors.New("standard input has more than one line; a password is one"))
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")), nil
}
