package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"k3splan/internal/bootstick"
	"k3splan/internal/colmena"
	"k3splan/internal/fingerprint"
	"k3splan/internal/hive"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/run"
	"k3splan/internal/stickdata"
)

// stickOptions are what boot-stick was called with.
type stickOptions struct {
	host, device string

	list, asJSON, dryRun, netinstall, legacy, wipe, noSecrets, yes bool
	output, image, force                                           string
}

func (a *app) bootStickCommand() *cobra.Command {
	var o stickOptions
	command := &cobra.Command{
		Use:   "boot-stick HOST [DEVICE]",
		Short: "Make a stick that installs a host by itself",
		Long: `Builds the installer image of a host with Nix and writes it to DEVICE, a USB stick. Put into the
host's machine and switched on, it installs the host without keyboard and network, and powers the
machine off when it is done.

On the machine, the stick takes the disk of partitioning/HOST.nix (disko), else the one with the
serial of hosts.csv, else the file systems labelled "nixos" and "boot". It refuses, changing nothing,
if the disk is missing or not blank; --wipe lets it erase one that is not blank, once.

Here, only removable USB devices are written to, and none that is in use. The device is shown, and
the host's name is to be typed, before anything on it is erased. What was written is read back and
compared.

The image holds no secrets. The host's password hash, tokens and ssh key lie beside it on the stick,
on a partition that only root reads. Keep such a stick like a key, or make one with --no-secrets and
let k3splan deploy bring the secrets.

k3splan needs no root but to write to the device, and never calls sudo itself.`,
		Example: `  k3splan boot-stick --list
  k3splan boot-stick olaf /dev/sdb
  k3splan boot-stick olaf /dev/sdb --wipe
  k3splan boot-stick olaf --output olaf.iso      # to write it elsewhere
  sudo k3splan boot-stick olaf /dev/sdb --image olaf.iso`,
		Args: usageArgs(cobra.MaximumNArgs(2)),
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case o.list && len(args) > 0:
				return usageError(errors.New("--list takes no arguments"))
			case o.list:
				return a.listSticks(context.Background(), o.asJSON)
			case o.asJSON:
				return usageError(errors.New("--json goes with --list"))
			case len(args) == 0:
				return usageError(errors.New("no host is named"))
			}
			o.host = strings.ToLower(args[0])
			if len(args) == 2 {
				o.device = args[1]
			}
			return a.bootStick(o)
		},
		ValidArgsFunction: a.completeStick,
	}
	flags := command.Flags()
	flags.BoolVar(&o.list, "list", false, "show the disks of this machine, and why they would be refused")
	flags.BoolVar(&o.asJSON, "json", false, "with --list: print JSON")
	flags.BoolVar(&o.dryRun, "dry-run", false, "render, say what would be done, and build and write nothing")
	flags.StringVar(&o.output, "output", "", "keep the image in `FILE`; it holds no secrets")
	flags.StringVar(&o.image, "image", "", "write the image in `FILE` instead of building one")
	flags.BoolVar(&o.netinstall, "netinstall", false, "a small image: the host's system is fetched while it is installed")
	flags.BoolVar(&o.legacy, "legacy-boot", false, "the host starts in BIOS mode, whatever hosts.csv says")
	flags.BoolVar(&o.wipe, "wipe", false, "the stick may erase a disk that is not blank, once")
	flags.BoolVar(&o.noSecrets, "no-secrets", false, "leave the secrets out; k3splan deploy brings them")
	flags.StringVar(&o.force, "force-device", "", "write to a device that is no USB stick: its `NAME` as --list shows it")
	flags.BoolVar(&o.yes, "yes", false, "do not ask; for removable USB devices only, and without a short form, as it erases")
	_ = command.MarkFlagFilename("output", "iso") // the flags exist
	_ = command.MarkFlagFilename("image", "iso")
	return command
}

// completeStick offers hosts, then devices that could be written to.
func (a *app) completeStick(command *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return a.completeHostNames(command, args, word)
	case 1:
		var words []cobra.Completion
		if machine, err := bootstick.Inspect(context.Background()); err == nil {
			for _, disk := range machine.Disks() {
				if len(disk.Refusals) == 0 {
					words = append(words, cobra.CompletionWithDesc(disk.Path, strings.TrimSpace(disk.Model+" "+bootstick.FormatSize(disk.Size))))
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
	machine, err := bootstick.Inspect(ctx)
	if err != nil {
		return untouched(err)
	}
	disks := machine.Disks()
	if asJSON {
		return printJSON(a.stdout, disks)
	}
	var text strings.Builder
	free := 0
	for _, refused := range []bool{false, true} {
		for _, disk := range disks {
			if (len(disk.Refusals) > 0) != refused {
				continue
			}
			if !refused {
				free++
			}
			a.describeDisk(&text, disk)
		}
	}
	if _, err := a.stdout.WriteString(text.String()); err != nil {
		return err
	}
	if free == 0 {
		a.say("no removable USB device is free; put in a stick")
	}
	return nil
}

func (a *app) describeDisk(out io.Writer, disk bootstick.Disk) {
	words := []string{disk.Path, bootstick.FormatSize(disk.Size)}
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

// check finds contradictions before anything is done.
func (o stickOptions) check() error {
	wrong := func(message, hint string) error {
		return &exitError{code: exitInvalid, err: errors.New(message), hint: hint}
	}
	switch {
	case o.device == "" && o.image != "":
		return wrong("no device is named", "k3splan boot-stick --list shows them")
	case o.device == "" && o.output == "" && !o.dryRun:
		return wrong("no device is named", "k3splan boot-stick --list shows them; --output FILE keeps the image instead")
	case o.image != "" && o.output != "":
		return wrong("--output keeps an image that is built, and --image names one that is there", "")
	case o.image != "" && (o.netinstall || o.legacy):
		return wrong("--netinstall and --legacy-boot are for an image that is built, and --image names one that is there", "")
	case o.device == "" && o.wipe:
		return wrong("--wipe is noted on the stick, and no device is named",
			"with a stick that another program writes: give the kernel parameter k3splan.wipe when the machine starts from it")
	}
	if o.output == "" {
		return nil
	}
	if _, err := os.Lstat(o.output); err == nil {
		return wrong(o.output+" is there already", "name another file, or remove it")
	}
	if info, err := os.Stat(filepath.Dir(o.output)); err != nil || !info.IsDir() {
		return wrong(filepath.Dir(o.output)+" is not a folder", "")
	}
	return nil
}

// bootStick goes through the steps; each that can fail cheaply comes before those that take long.
func (a *app) bootStick(o stickOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	if err := a.checkHost(o.host); err != nil {
		return err
	}
	if o.image != "" {
		image, err := openStickImage(o, o.image)
		if err != nil {
			return untouched(err)
		}
		defer image.close()
		if o.noSecrets && !image.ours {
			// any image: the project has no part in it
			return a.writeStick(o, image, stickdata.Content{})
		}
	}
	p, err := a.validProject()
	if err != nil {
		return err
	}
	host := p.Plan.Host(o.host)
	ctx := context.Background()
	if o.device != "" && !o.dryRun {
		// before building for ten minutes
		if _, err := chooseStick(ctx, o.device, 0, o.force); err != nil {
			return untouched(err)
		}
	}
	content, err := a.stickContent(ctx, p, host, o)
	if err != nil {
		return err
	}
	a.sayAboutStick(p, host, o)

	file := o.image
	if file == "" {
		hiveFile, err := a.render(p)
		if err != nil {
			return err
		}
		image := colmena.Image{File: filepath.Join(filepath.Dir(hiveFile), "installer.nix"), Host: host.Name, Netinstall: o.netinstall, Legacy: o.legacy}
		if o.dryRun {
			a.say("would build: nix-build %s", run.Words(colmena.BuildImage(image, "RESULT")...))
		} else {
			built, discard, err := a.buildImage(ctx, image)
			if err != nil {
				return err
			}
			defer discard()
			file = built
		}
	}
	if o.dryRun {
		return a.sayPlanned(ctx, o, content)
	}
	if o.output != "" {
		if err := copyImage(file, o.output); err != nil {
			return err
		}
		a.say("the image is in %s", o.output)
		if o.device == "" {
			a.sayHowToWrite()
			return nil
		}
	}
	image, err := openStickImage(o, file)
	if err != nil {
		return untouched(err)
	}
	defer image.close()
	return a.writeStick(o, image, content)
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

// stickContent reads what the stick is to carry beside the image.
func (a *app) stickContent(ctx context.Context, p *project.Project, host *plan.Host, o stickOptions) (stickdata.Content, error) {
	content := stickdata.Content{Host: host.Name, Wipe: o.wipe}
	if o.noSecrets || o.device == "" {
		return content, nil
	}
	var err error
	content.Secrets, err = fingerprint.ReadSecrets(ctx, p.Dir, hive.Secrets(p, host), a.secretReader(p))
	return content, err
}

// sayAboutStick tells what the user may not expect.
func (a *app) sayAboutStick(p *project.Project, host *plan.Host, o stickOptions) {
	switch {
	case p.Partitioned(host):
		a.say("%s is installed on the disks of partitioning/%s.nix", host.Name, host.Name)
	case host.Serial != "" && p.LabelledFileSystems(host):
		a.say("%s is installed on the disk with the serial %s", host.Name, host.Serial)
	case p.LabelledFileSystems(host):
		a.say(`%s is installed on file systems labelled "nixos" and "boot", which its machine must have; with a serial in %s, the stick makes them`, host.Name, p.Plan.Tables.Hosts)
	default:
		a.say("%s is installed on the file systems that its own files name, which its machine must have", host.Name)
	}
	if o.legacy && host.Boot != plan.Legacy {
		a.say("%s says that %s boots by EFI: set boot to legacy before the next deploy, or it gets the other boot loader", host.Place, host.Name)
	}
	if host.Server != nil && len(p.Plan.Servers()) > 1 {
		if host.Server.Role == plan.Init {
			a.say("the stick asks the other servers first: if one of them lives, %s joins its cluster instead of founding a new one", host.Name)
		}
		a.say("if %s has been a member of a living cluster, its old etcd member must be removed there before it joins again", host.Server.Name)
	}
}

// buildImage gives the path of the image, in the Nix store; discard lets Nix collect it again.
func (a *app) buildImage(ctx context.Context, image colmena.Image) (file string, discard func(), err error) {
	temp, err := os.MkdirTemp("", "k3splan-image-")
	if err != nil {
		return "", nil, err
	}
	discard = func() { _ = os.RemoveAll(temp) } // a link and its folder
	defer func(remove func()) {
		if err != nil {
			remove()
		}
	}(discard)
	link := filepath.Join(temp, "result")
	a.say("building the image of %s", image.Host)
	err = run.Run(ctx, run.Command{Program: "nix-build", Args: colmena.BuildImage(image, link), Stdin: a.stdin, Stdout: a.stderr, Stderr: a.stderr})
	if err != nil {
		return "", nil, fmt.Errorf("build the image of %s: %w", image.Host, err)
	}
	found, err := fs.Glob(os.DirFS(link), "iso/*.iso") // the path of link is no pattern
	if err != nil || len(found) != 1 {
		return "", nil, errors.Join(fmt.Errorf("build the image of %s: there is no image in the result", image.Host), err)
	}
	return filepath.Join(link, found[0]), discard, nil
}

func copyImage(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("keep the image: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("keep the image: %w", err)
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			err = errors.Join(fmt.Errorf("keep the image: %w", err), os.Remove(to)) // half an image is none
		}
	}()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Sync()
}

func (a *app) sayHowToWrite() {
	a.say("It holds no secrets: after the installation, k3splan deploy brings them.")
	a.say("To write it to a stick as it is, byte by byte:")
	a.say("  Windows  Rufus, in its DD mode, or balenaEtcher")
	a.say("  macOS    balenaEtcher")
	a.say("  Linux    k3splan boot-stick HOST DEVICE --image FILE, which adds the secrets")
}

func (a *app) sayPlanned(ctx context.Context, o stickOptions, content stickdata.Content) error {
	if o.output != "" {
		a.say("would keep the image in %s", o.output)
	}
	if o.device != "" {
		machine, err := bootstick.Inspect(ctx)
		if err != nil {
			return untouched(err)
		}
		target, err := machine.Choose(o.device, 0, o.force)
		if err != nil {
			return untouched(err)
		}
		a.say("would erase and write:\n%s", target.Disk.Describe())
		a.say("secrets on the stick: %s", kinds(content))
		a.say("erasing a disk that is not blank: %s", map[bool]string{true: "allowed, once", false: "not allowed"}[content.Wipe])
	}
	a.say("nothing was built and nothing written")
	return nil
}

func kinds(content stickdata.Content) string {
	if len(content.Secrets) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(maps.Keys(content.Secrets)), ", ")
}

// stickImage is an image that is to be written.
type stickImage struct {
	bootstick.Image
	ours  bool // k3splan made it
	close func() error
}

// openStickImage opens an image and makes sure that it is the host's. One that k3splan did not make
// is written as it is, and only if nothing was to be added.
func openStickImage(o stickOptions, file string) (stickImage, error) {
	image, closeImage, err := bootstick.OpenImage(file)
	if err != nil {
		return stickImage{}, err
	}
	fits, known, err := stickdata.Fits(image.Reader.(io.ReaderAt), o.host) // OpenImage gives files
	switch {
	case err != nil:
	case known && !fits:
		err = &exitError{code: exitInvalid, err: fmt.Errorf("%s is the image of another host than %s", path.Base(file), o.host)}
	case !known && (o.wipe || !o.noSecrets):
		err = &exitError{code: exitInvalid, err: fmt.Errorf("%s was not made by k3splan: secrets and permissions beside it would mean nothing to it", path.Base(file)),
			hint: "--no-secrets writes it as it is"}
	}
	if err != nil {
		return stickImage{}, errors.Join(err, closeImage())
	}
	return stickImage{image, known, closeImage}, nil
}

// writeStick asks, writes and compares. From here on an interrupt ends the work within a moment.
func (a *app) writeStick(o stickOptions, image stickImage, content stickdata.Content) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // the second Ctrl-C does not wait for a hanging device
	whole := image.Image
	if image.ours {
		partition, err := content.Partition()
		if err != nil {
			return err
		}
		if whole, err = stickdata.Append(image.Image, partition); err != nil {
			return untouched(err)
		}
	}
	target, err := chooseStick(ctx, o.device, whole.Size, o.force)
	if err != nil {
		return untouched(err)
	}
	terminal := bootstick.Terminal{In: a.stdin, Out: a.stderr, Interactive: term.IsTerminal(int(a.stdin.Fd()))}
	if err := bootstick.Confirm(ctx, terminal, target, o.host, o.yes); err != nil {
		return untouched(err)
	}
	progress := stickProgress{out: a.stderr, live: term.IsTerminal(int(a.stderr.Fd())) && os.Getenv("TERM") != "dumb"}
	report, err := bootstick.Write(ctx, target, whole, progress.show)
	progress.end()
	if err != nil {
		return untouched(err)
	}
	if report.Warning != "" {
		a.warn("%s", report.Warning)
	}
	if len(content.Secrets) > 0 {
		a.say("secrets on the stick: %s; keep it like a key", kinds(content))
	}
	a.say("the stick for %s is written and compared (%s, written in %s, read back in %s); it can be taken out",
		o.host, bootstick.FormatSize(report.Bytes), report.Write.Round(time.Second), report.Verify.Round(time.Second))
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
	return usageError(err)
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
