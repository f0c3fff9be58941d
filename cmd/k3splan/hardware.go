package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/aymanbagabas/go-udiff"
	"github.com/spf13/cobra"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/remote"
	"k3splan/internal/text"
)

func (a *app) hardwareCommand() *cobra.Command {
	var as string
	var yes bool
	command := &cobra.Command{
		Use:   "hardware HOST…",
		Short: "Fetch the hardware configuration of running hosts into hardware/",
		Long: `Lets nixos-generate-config on the running machine say what hardware it has, and keeps that as
hardware/HOST.nix: keep it in git. File systems are left out where a disko layout or the installer's
labels define them. Before a file is replaced the difference is shown and asked about (--yes answers).`,
		Example:           "  k3splan hardware olaf\n  k3splan hardware --as root olaf",
		Args:              usageArgs(cobra.MinimumNArgs(1)),
		ValidArgsFunction: a.completeHosts,
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := a.validProject()
			if err != nil {
				return err
			}
			hosts, err := selectHosts(p.Plan, args)
			if err != nil {
				return err
			}
			var failures []error
			for _, host := range hosts {
				if err := a.hardware(p, host, as, yes); err != nil {
					failures = append(failures, fmt.Errorf("%s: %w", host.Name, err))
				}
			}
			if len(failures) > 0 && len(failures) < len(hosts) {
				return &exitError{code: exitFailed, err: errors.Join(failures...)} // 2 would mean that nothing was changed
			}
			return errors.Join(failures...)
		},
	}
	command.Flags().StringVar(&as, "as", remote.DeployUser, "log in as `USER`, root or one with sudo without password")
	command.Flags().BoolVarP(&yes, "yes", "y", false, "replace a file without asking")
	return command
}

// generate prints the machine's hardware configuration.
const generate = `exec nixos-generate-config --show-hardware-config "$@"`

func (a *app) hardware(p *project.Project, host *plan.Host, as string, yes bool) error {
	ctx, stop := interruptible()
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var words []string
	if p.Partitioned(host) || p.LabelledFileSystems(host) {
		words = append(words, "--no-filesystems")
	}
	if err := refuseUnknown([]*plan.Host{host}, p.HostKeys); err != nil {
		return err
	}
	ssh, err := remote.Prepare(p.Dir, p.Plan, p.HostKeys)
	if err != nil {
		return err
	}
	defer ssh.Close()
	answer, err := ssh.Machine(host, as).Script(ctx, generate, words...)
	if failed := (*remote.Error)(nil); errors.As(err, &failed) { // without the host's name, which stands before it
		return &exitError{code: exitFailed, err: fmt.Errorf("asking the machine: %w", failed.Err), hint: diag.HintOf(err)}
	} else if err != nil {
		return err
	}
	// a shell that prints a greeting, or a program that is another one, must not become configuration
	if !strings.HasPrefix(strings.TrimSpace(answer), "#") || !strings.Contains(answer, "modulesPath") {
		return fmt.Errorf("what the machine says is no hardware configuration: %q", text.FirstLine(answer))
	}
	name := filepath.Join("hardware", host.Name+".nix")
	file := filepath.Join(p.Dir, name)
	before, err := files.Read(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case string(before) == answer:
		a.say("%s is up to date", name)
		return nil
	default:
		fmt.Fprint(a.stdout, diag.PrintableLines(udiff.Unified(name, name+" (the machine)", string(before), answer)))
		if err := a.user(yes).Confirm(context.Background(), "replace "+name+"?"); err != nil {
			return err
		}
	}
	_, err = files.Update(p.Dir, filepath.ToSlash(name), func(present []byte) ([]byte, error) {
		if !bytes.Equal(present, before) { // than what the answer was about
			return nil, errors.New("it was changed meanwhile; nothing was written")
		}
		return []byte(answer), nil
	})
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	a.say("wrote %s", name)
	return nil
}
