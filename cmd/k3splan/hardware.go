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
		Long: `Runs nixos-generate-config on the running machine and keeps its result as hardware/HOST.nix, which
belongs into git. File systems are left out where a disko layout or the installer's labels define them.
Before a file is replaced, the difference is shown and confirmed (--yes confirms).`,
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
				return &exitError{code: exitFailed, err: errors.Join(failures...)} // code 2 would mean that nothing was changed
			}
			return errors.Join(failures...)
		},
	}
	command.Flags().StringVar(&as, "as", remote.DeployUser, "log in as `USER`: root, or one with passwordless sudo")
	command.Flags().BoolVarP(&yes, "yes", "y", false, "replace a file without asking")
	return command
}

// generateHardware prints the machine's hardware configuration.
const generateHardware = `exec nixos-generate-config --show-hardware-config "$@"`

// hardware fetches the hardware configuration of a host and keeps it.
func (a *app) hardware(p *project.Project, host *plan.Host, as string, yes bool) error {
	if err := refuseUnknown([]*plan.Host{host}, p.HostKeys); err != nil {
		return err
	}
	for _, place := range []string{files.HardwareDir, hardwareFile(host)} {
		if target := files.LeadsOut(p.Dir, place); target != "" { // a clone can bring a link to anywhere
			return &exitError{code: exitInvalid, err: fmt.Errorf("%s is a link that leads out of the project, to %q", place, target), hint: "put the file or folder itself in its place"}
		}
	}
	configuration, err := fetchHardware(p, host, as)
	if err != nil {
		return err
	}
	return a.keepHardware(p, host, configuration, yes)
}

func fetchHardware(p *project.Project, host *plan.Host, as string) (string, error) {
	ctx, stop := interruptible()
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var options []string
	if p.Partitioned(host) || p.LabelledFileSystems(host) {
		options = append(options, "--no-filesystems")
	}
	ssh, err := remote.Prepare(p.Dir, p.Plan, p.HostKeys)
	if err != nil {
		return "", err
	}
	defer ssh.Close()
	answer, err := ssh.Machine(host, as).Script(ctx, generateHardware, options...)
	if failed := (*remote.Error)(nil); errors.As(err, &failed) { // without the host's name, which the caller adds
		return "", &exitError{code: exitFailed, err: fmt.Errorf("asking the machine: %w", failed.Err), hint: diag.HintOf(err)}
	} else if err != nil {
		return "", err
	}
	// the greeting of a shell, or of a program of the same name, must not become configuration
	if !strings.HasPrefix(strings.TrimSpace(answer), "#") || !strings.Contains(answer, "modulesPath") {
		return "", fmt.Errorf("the machine's answer is not a hardware configuration: %q", text.FirstLine(answer))
	}
	return answer, nil
}

func hardwareFile(host *plan.Host) string { return files.HardwareDir + "/" + host.Name + ".nix" }

// keepHardware writes a hardware configuration; a different one is only replaced after a question.
func (a *app) keepHardware(p *project.Project, host *plan.Host, configuration string, yes bool) error {
	name := hardwareFile(host)
	before, err := files.Read(filepath.Join(p.Dir, name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case string(before) == configuration:
		a.say("%s is up to date", name)
		return nil
	default:
		fmt.Fprint(a.stdout, diag.PrintableLines(udiff.Unified(name, name+" (the machine)", string(before), configuration)))
		if err := a.user(yes).Confirm(context.Background(), "replace "+name+"?"); err != nil {
			return err
		}
	}
	_, err = files.Update(p.Dir, name, func(present []byte) ([]byte, error) {
		if !bytes.Equal(present, before) {
			return nil, errors.New("it was changed since it was shown; nothing was written")
		}
		return []byte(configuration), nil
	})
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	a.say("wrote %s", name)
	return nil
}
