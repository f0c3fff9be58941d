package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"k3splan/internal/diag"
	"k3splan/internal/project"
	"k3splan/internal/stick"
)

func (a *app) bootStickCommand() *cobra.Command {
	var request stick.Request
	var list, asJSON bool
	command := &cobra.Command{
		Use:   "boot-stick HOST [DEVICE]",
		Short: "Make a USB stick that installs a host by itself",
		Long: `Builds the installer image of a host with Nix and writes it to DEVICE, a USB stick. Plug it into the
host's machine and switch it on: the stick installs the host without keyboard and network, and powers
the machine off when it is done.

On the machine, the stick uses the disk of partitioning/HOST.nix (disko), else the one with the serial
in hosts.csv, else the file systems labelled "nixos" and "boot". It refuses, changing nothing, if the
disk is missing or not blank; --wipe allows it to erase one that is not blank, once. Before the image is
built, the host is evaluated: what would end the installation halfway is refused here.

On this machine, only removable USB devices are written to, and none that is in use. The device is
shown, and you type the host's name, before anything on it is erased. The written data is read back and
compared.

The image contains no secrets. The host's password hash, tokens and ssh key are beside it on the stick,
on a partition that only root can read. Keep such a stick as safe as a key, or make one with
--no-secrets and let k3splan deploy upload the secrets.

k3splan needs root only to write to the device, and never calls sudo itself.

--json belongs to --list.`,
		Example: `  k3splan boot-stick --list
  k3splan boot-stick olaf /dev/sdb
  k3splan boot-stick olaf /dev/sdb --wipe
  k3splan boot-stick olaf --output olaf.iso      # to write it elsewhere
  sudo k3splan boot-stick olaf /dev/sdb --image olaf.iso`,
		Args: usageArgs(cobra.MaximumNArgs(2)),
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case list && len(args) > 0:
				return usageError(errors.New("--list takes no arguments"))
			case list:
				return refusedIsUsage(a.listSticks(context.Background(), asJSON))
			case asJSON:
				return usageError(errors.New("--json requires --list"))
			case len(args) == 0:
				return usageError(errors.New("no host is named"))
			}
			request.Host = strings.ToLower(args[0])
			if len(args) == 2 {
				request.Device = args[1]
			}
			if err := a.checkHost(request.Host); err != nil {
				return err
			}
			return refusedIsUsage(stick.Make(context.Background(), request, stickProject{app: a, builds: request.Image == ""}, a.user(false), stick.Streams{In: a.stdin, Err: a.stderr}))
		},
		ValidArgsFunction: a.completeStick,
	}
	flags := command.Flags()
	flags.BoolVar(&list, "list", false, "show the disks of this machine, and why they would be refused")
	addJSON(command, &asJSON, []stick.Disk{})
	stickFlags(command, &request)
	return command
}

func stickFlags(command *cobra.Command, request *stick.Request) {
	flags := command.Flags()
	flags.BoolVar(&request.DryRun, "dry-run", false, "render and say what would be done; build and write nothing")
	flags.StringVar(&request.Output, "output", "", "keep the image in `FILE`; it contains no secrets")
	flags.StringVar(&request.Image, "image", "", "write the image in `FILE` instead of building one")
	flags.BoolVar(&request.Netinstall, "netinstall", false, "a small image: the host's system is fetched during the installation")
	flags.BoolVar(&request.Legacy, "legacy-boot", false, "the host boots in BIOS mode, whatever hosts.csv says")
	flags.BoolVar(&request.Wipe, "wipe", false, "allow the stick to erase a disk that is not blank, once")
	flags.BoolVar(&request.NoSecrets, "no-secrets", false, "leave the secrets out; k3splan deploy uploads them")
	flags.StringVar(&request.Force, "force-device", "", "write to a device that is not a USB stick: its `NAME` as shown by --list")
	flags.BoolVar(&request.Yes, "yes", false, "do not ask; for removable USB devices only, and without a short form, because it erases")
	_ = command.MarkFlagFilename("output", "iso") // the flags exist
	_ = command.MarkFlagFilename("image", "iso")
}

// refusedIsUsage returns what ended before anything was changed, and would end the same way again, as a
// wrong call: exit code 2.
func refusedIsUsage(err error) error {
	if errors.Is(err, stick.ErrRefused) {
		return usageError(err)
	}
	return err
}

// checkHost looks the host up. Other mistakes in the tables do not matter here.
func (a *app) checkHost(host string) error {
	w, err := a.workspace()
	if err != nil {
		return err
	}
	if p, _ := w.Plan(); p.Host(host) == nil {
		return unknownHost(p, host)
	}
	return nil
}

// stickProject is the command's project as package stick uses it.
type stickProject struct {
	app *app
	// builds reports whether an image is built, for which Nix must be new enough.
	builds bool
}

func (p stickProject) Load() (*project.Project, error) {
	project, err := p.app.validProject()
	if err == nil && p.builds {
		err = requireNix(project)
	}
	return project, err
}

func (p stickProject) Render(project *project.Project) (string, error) { return p.app.render(project) }

func (p stickProject) Report(problems diag.Problems) { p.app.printProblems(p.app.stderr, problems) }

func (p stickProject) SecretReader(project *project.Project) func(entry string) ([]byte, error) {
	return p.app.secretReader(project)
}

// completeStick offers hosts, then devices that could be written to.
func (a *app) completeStick(command *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return a.completeHostNames(command, args, word)
	case 1:
		var words []cobra.Completion
		if machine, err := stick.Inspect(context.Background()); err == nil {
			for _, disk := range machine.Disks() {
				if len(disk.Refusals) == 0 {
					words = append(words, cobra.CompletionWithDesc(disk.Path, strings.TrimSpace(disk.Model+" "+stick.FormatSize(disk.Size))))
				}
			}
		}
		return words, nothingElse
	default:
		return nil, nothingElse
	}
}

// listSticks prints the disks, those that can be written to first.
func (a *app) listSticks(ctx context.Context, asJSON bool) error {
	machine, err := stick.Inspect(ctx)
	if err != nil {
		return err
	}
	disks := machine.Disks()
	if asJSON {
		return printJSON(a.stdout, disks)
	}
	var text strings.Builder
	free := false
	for _, disk := range stick.Sorted(disks) {
		free = free || len(disk.Refusals) == 0
		a.describeDisk(&text, disk)
	}
	if _, err := a.stdout.WriteString(text.String()); err != nil {
		return err
	}
	if !free {
		a.say("no usable removable USB device: plug in a stick")
	}
	return nil
}

func (a *app) describeDisk(out io.Writer, disk stick.Disk) {
	words := []string{disk.Path, stick.FormatSize(disk.Size)}
	for _, word := range []string{disk.Bus, disk.Model} {
		if word != "" {
			words = append(words, word)
		}
	}
	if disk.Serial != "" {
		words = append(words, "serial "+disk.Serial)
	}
	fmt.Fprintln(out, strings.Join(words, "  "))
	for _, line := range disk.ContentLines() {
		fmt.Fprintln(out, "  "+line)
	}
	for _, refusal := range disk.Refusals {
		fmt.Fprintf(out, "  %s %s\n", a.paint(a.stdout, yellow, "refused:"), refusal.Message)
	}
}
