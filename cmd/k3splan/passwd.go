package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"k3splan/internal/plan"
	"k3splan/internal/secrets"
)

func (a *app) passwdCommand() *cobra.Command {
	var fromStdin bool
	command := &cobra.Command{
		Use:   "passwd [HOST]",
		Short: "Set the admins' password, for all hosts or for one",
		Long: `Asks for a password twice and stores its hash (sha512-crypt) in secrets/passwd, or for one host in
secrets/HOSTpasswd. The password itself is stored nowhere. It takes effect with the next deploy.`,
		Example: "  k3splan passwd\n  k3splan passwd olaf\n  pass show rack/olaf | k3splan passwd olaf --stdin",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			host := ""
			if len(args) == 1 {
				host = strings.ToLower(args[0])
			}
			return a.passwd(host, fromStdin)
		},
		ValidArgsFunction: a.completeHosts,
	}
	command.Flags().BoolVar(&fromStdin, "stdin", false, "read the password from standard input, one line")
	return command
}

func (a *app) passwd(host string, fromStdin bool) error {
	dir, err := a.dir()
	if err != nil {
		return err
	}
	p, _ := plan.Load(os.DirFS(dir)) // other mistakes in the tables do not matter here
	if host != "" && p.Host(host) == nil {
		return noSuch("host", host, p.HostNames(), "")
	}
	password, err := a.readPassword(fromStdin)
	if err != nil {
		return err
	}
	hash, err := secrets.HashPassword(password)
	if err != nil {
		return usageError(err)
	}
	store, _ := secrets.Open(dir, secrets.Needs{Hosts: p.HostNames()})
	file := store.PasswordTarget(host)
	if err := secrets.Replace(filepath.Join(dir, file), []byte(hash+"\n")); err != nil {
		return err
	}
	a.say("stored the hash in %s; it takes effect with the next deploy", file)
	return nil
}

func (a *app) readPassword(fromStdin bool) ([]byte, error) {
	if fromStdin {
		return readLine(a.stdin)
	}
	fd := int(a.stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, &exitError{code: exitInvalid, err: errors.New("there is no terminal to ask for the password"), hint: "k3splan passwd --stdin reads it from standard input"}
	}
	ask := func(prompt string) ([]byte, error) {
		fmt.Fprint(a.stderr, prompt)
		defer fmt.Fprintln(a.stderr)
		return term.ReadPassword(fd)
	}
	first, err := ask("Password: ")
	if err != nil {
		return nil, err
	}
	second, err := ask("The same again: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, errors.New("the two passwords differ; nothing was changed")
	}
	return first, nil
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
