package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"k3splan/internal/bootstick"
	"k3splan/internal/plan"
)

// stickOptions are the flags of boot-stick.
type stickOptions struct {
	list, asJSON bool
	image        string
	force        string
	yes          bool
}

func (a *app) bootStickCommand() *cobra.Command {
	var o stickOptions
	command := &cobra.Command{
		Use:   "boot-stick HOST DEVICE",
		Short: "Write the stick that installs a host",
		Long: `Writes an image to a removable USB device, reads everything back, compares, and says when the
stick can be taken out. It shows what is on the device and asks for the host's name before it
erases it.

A device is refused if it holds the running system (also through LVM, RAID, encryption, btrfs), is
mounted, is swap, or belongs to a mapping; if it is a partition, read-only, or too small. What is
no removable USB device is refused, too, unless --force-device names it.`,
		Example: `  k3splan boot-stick --list
  k3splan boot-stick olaf /dev/sdb --image olaf.iso`,
		Args: usageArgs(cobra.MaximumNArgs(2)),
		RunE: func(_ *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			context.AfterFunc(ctx, stop) // the second Ctrl-C does not wait for a hanging device
			if o.list {
				if len(args) > 0 {
					return usageError(errors.New("--list takes no arguments"))
				}
				return a.listSticks(ctx, o.asJSON)
			}
			return a.bootStick(ctx, args, o)
		},
		ValidArgsFunction: a.completeStick,
	}
	flags := command.Flags()
	flags.BoolVar(&o.list, "list", false, "show the disks of this machine: what is on them, and which can be written to")
	flags.BoolVar(&o.asJSON, "json", false, "with --list: print JSON")
	flags.StringVar(&o.image, "image", "", "write this `FILE`, made before")
	flags.StringVar(&o.force, "force-device", "", "let a device through that is no removable USB device; `NAME` is its serial, or its path if it has none")
	flags.BoolVar(&o.yes, "yes", false, "do not ask; for removable USB devices only")
	return command
}

func (a *app) completeStick(command *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return a.completeHosts(command, args, word)
	case 1:
		var words []string
		if machine, err := bootstick.Inspect(context.Background()); err == nil {
			for _, disk := range machine.Disks() {
				if len(disk.Refusals) == 0 {
					words = append(words, disk.Path+"\t"+disk.Model+" "+bootstick.FormatSize(disk.Size))
				}
			}
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	default:
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// listSticks prints the disks, those that can be written to first.
func (a *app) listSticks(ctx context.Context, asJSON bool) error {
	machine, err := bootstick.Inspect(ctx)
	if err != nil {
		return untouched(err)
	}
	disks := machine.Disks()
	if asJSON {
		return printJSON(a.stdout, disks)
	}
	free := 0
	for _, refused := range []bool{false, true} {
		for _, disk := range disks {
			if (len(disk.Refusals) > 0) != refused {
				continue
			}
			if !refused {
				free++
			}
			a.printDisk(disk)
		}
	}
	if free == 0 {
		a.say("no removable USB device is free; put in a stick")
	}
	return nil
}

func (a *app) printDisk(disk bootstick.Disk) {
	words := []string{disk.Path, bootstick.FormatSize(disk.Size)}
	for _, word := range []string{disk.Bus, disk.Model} {
		if word != "" {
			words = append(words, word)
		}
	}
	if disk.Serial != "" {
		words = append(words, "serial "+disk.Serial)
	}
	fmt.Fprintln(a.stdout, strings.Join(words, "  "))
	for _, line := range disk.ContentLines() {
		fmt.Fprintln(a.stdout, "  "+line)
	}
	for _, refusal := range disk.Refusals {
		fmt.Fprintf(a.stdout, "  %s %s\n", a.paint(a.stdout, yellow, "refused:"), refusal.Message)
	}
}

// bootStick checks everything that can be checked, asks, and then writes.
func (a *app) bootStick(ctx context.Context, args []string, o stickOptions) error {
	switch {
	case o.asJSON:
		return usageError(errors.New("--json goes with --list"))
	case len(args) == 0:
		return usageError(errors.New("no host is named"))
	case o.image == "":
		return usageError(errors.New("no image is named: --image FILE"))
	case len(args) == 1:
		return &exitError{code: exitInvalid, err: errors.New("no device is named"), hint: "k3splan boot-stick --list shows them"}
	}
	host, device := args[0], args[1]
	if err := a.checkHost(host); err != nil {
		return err
	}
	image, closeImage, err := bootstick.OpenImage(o.image)
	if err != nil {
		return untouched(err)
	}
	defer closeImage()
	target, err := chooseStick(ctx, device, image.Size, o.force)
	if err != nil {
		return untouched(err)
	}
	terminal := bootstick.Terminal{In: a.stdin, Out: a.stderr, Interactive: term.IsTerminal(int(a.stdin.Fd()))}
	if err := bootstick.Confirm(ctx, terminal, target, host, o.yes); err != nil {
		return untouched(err)
	}
	return a.writeStick(ctx, target, image, host)
}

// checkHost looks the host up. Other mistakes in the tables do not matter here.
func (a *app) checkHost(host string) error {
	dir, err := a.dir()
	if err != nil {
		return err
	}
	p, _ := plan.Load(os.DirFS(dir))
	if p.Host(host) == nil {
		return noSuch("host", host, p.HostNames(), "")
	}
	return nil
}

// chooseStick finds the device and makes sure, before anything long begins, that it may be written
// to. need is the size of the image in bytes, 0 as long as there is none.
func chooseStick(ctx context.Context, device string, need int64, force string) (*bootstick.Target, error) {
	machine, err := bootstick.Inspect(ctx)
	if err != nil {
		return nil, err
	}
	target, err := machine.Choose(device, need, force)
	if err != nil {
		return nil, err
	}
	return target, target.CheckAccess(ctx)
}

func (a *app) writeStick(ctx context.Context, target *bootstick.Target, image bootstick.Image, host string) error {
	progress := stickProgress{out: a.stderr, live: term.IsTerminal(int(a.stderr.Fd())) && os.Getenv("TERM") != "dumb"}
	report, err := bootstick.Write(ctx, target, image, progress.show)
	progress.end()
	if err != nil {
		return untouched(err)
	}
	if report.Warning != "" {
		a.say("%s %s", a.paint(a.stderr, yellow, "warning:"), report.Warning)
	}
	a.say("the stick for %s is written and compared (%s, written in %s, read back in %s); it can be taken out",
		host, bootstick.FormatSize(report.Bytes), report.Write.Round(time.Second), report.Verify.Round(time.Second))
	return nil
}

// untouched gives what ended before anything was changed, and would end the same way again, the
// exit code of a wrong call. A Failure keeps 1: the operation failed.
func untouched(err error) error {
	var failure *bootstick.Failure
	var hinted interface {
		error
		Hint() string
	}
	if errors.As(err, &failure) || !errors.As(err, &hinted) {
		return err
	}
	return &exitError{code: exitInvalid, err: err, hint: hinted.Hint()}
}

// stickProgress shows progress: in one line that changes on a terminal, as a line for every tenth
// elsewhere.
type stickProgress struct {
	out   *os.File
	live  bool
	open  bool // a line without its end
	phase bootstick.Phase
	tenth int64
}

func (s *stickProgress) show(p bootstick.Progress) {
	if s.live {
		if p.Phase != s.phase {
			s.end()
		}
		s.phase, s.open = p.Phase, true
		fmt.Fprintf(s.out, "\r%s\x1b[K", progressLine(p))
		return
	}
	tenth := 10 * p.Done / max(p.Total, 1)
	if p.Phase == s.phase && tenth == s.tenth {
		return
	}
	s.phase, s.tenth = p.Phase, tenth
	fmt.Fprintln(s.out, progressLine(p))
}

// end leaves the last line as it is.
func (s *stickProgress) end() {
	if s.open {
		fmt.Fprintln(s.out)
		s.open = false
	}
}

func progressLine(p bootstick.Progress) string {
	line := fmt.Sprintf("%s %3d%%  %s of %s", p.Phase, 100*p.Done/max(p.Total, 1), bootstick.FormatSize(p.Done), bootstick.FormatSize(p.Total))
	if p.Rate > 0 {
		line += fmt.Sprintf("  %s/s", bootstick.FormatSize(int64(p.Rate)))
	}
	if p.Remaining >= time.Second {
		line += fmt.Sprintf("  %s left", p.Remaining.Round(time.Second))
	}
	return line
}
