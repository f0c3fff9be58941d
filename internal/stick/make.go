package stick

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"k3splan/internal/ask"
	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/fingerprint"
	"k3splan/internal/hive"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/run"
)

// Request is what a boot stick is to be made of.
type Request struct {
	Host string
	// Device is where the stick is written, or empty.
	Device string
	// Output is a file that keeps the image, or empty. It must not exist.
	Output string
	// Image is an image to be written instead of one that is built, or empty.
	Image string
	// Force is the argument of --force-device: the device that is known not to be a stick.
	Force string

	Netinstall bool // a small image: the host's system is fetched during the installation
	Legacy     bool // the host boots in BIOS mode, whatever the plan says
	Wipe       bool // the stick may erase a disk that is not blank, once
	NoSecrets  bool // leave the secrets out
	DryRun     bool // render, say what would be done, and build and write nothing
	Yes        bool // do not ask, for removable USB devices only
}

// Project is access to the project. Nothing of it is called for an image that k3splan did not make.
type Project interface {
	// Load returns the valid project and reports its problems; an error among them is an error.
	Load() (*project.Project, error)
	// Render writes the hive and returns its file.
	Render(*project.Project) (hiveFile string, err error)
	// Report shows problems of the project to the user.
	Report(diag.Problems)
	// SecretReader returns how entries of the project's encrypted secrets are read.
	SecretReader(*project.Project) func(entry string) ([]byte, error)
}

// Streams are where Nix reads and shows its progress.
type Streams struct {
	In  io.Reader
	Err io.Writer
}

// Make builds the installer image of a host, or takes the one in the request, and writes it to the device
// or keeps it in a file. Every step that can fail cheaply comes before those that take long. An error that
// is an [ErrRefused], or that comes from the project, means that nothing was changed beside generated/.
func Make(ctx context.Context, request Request, project Project, user ask.User, streams Streams) error {
	if err := request.check(); err != nil {
		return err
	}
	m := maker{Request: request, source: project, user: user, streams: streams}
	if m.Image != "" {
		image, err := m.open(m.Image)
		if err != nil {
			return err
		}
		defer image.close()
		if m.NoSecrets && !image.ours {
			return m.writeAny(ctx, image)
		}
	}
	if err := m.load(); err != nil {
		return err
	}
	// before building for ten minutes
	target, err := m.choose(ctx, 0)
	if err != nil {
		return err
	}
	data, err := m.data(ctx)
	if err != nil {
		return err
	}
	m.announce()
	file, discard, err := m.image(ctx)
	if err != nil {
		return err
	}
	defer discard()
	if m.DryRun {
		m.sayPlanned(target, data)
		return nil
	}
	if err := m.keep(file); err != nil || m.Device == "" {
		return err
	}
	image, err := m.open(file)
	if err != nil {
		return err
	}
	defer image.close()
	return m.write(ctx, image, data)
}

// writeAny writes an image that k3splan did not make: the project has no part in it.
func (m *maker) writeAny(ctx context.Context, image openedImage) error {
	if !m.DryRun {
		return m.write(ctx, image, Data{})
	}
	target, err := m.choose(ctx, image.Size)
	if err == nil {
		m.sayPlanned(target, Data{})
	}
	return err
}

// check finds contradictions before anything is done.
func (r Request) check() error {
	const list = "k3splan boot-stick --list shows them"
	switch {
	case r.Device == "" && r.Image != "":
		return refuse(list, "no device is named")
	case r.Device == "" && r.Output == "" && !r.DryRun:
		return refuse(list+"; --output FILE keeps the image instead", "no device is named")
	case r.Image != "" && r.Output != "":
		return refuse("omit one of them", "--output keeps an image that is built, and --image names one that exists")
	case r.Image != "" && (r.Netinstall || r.Legacy):
		return refuse("omit --image, or the others", "--netinstall and --legacy-boot are for an image that is built, and --image names one that exists")
	case r.Device == "" && r.Wipe:
		return refuse("for a stick written by another program: pass the kernel parameter k3splan.wipe when the machine boots from it",
			"--wipe is recorded on the stick, and no device is named")
	}
	if r.Output == "" {
		return nil
	}
	if _, err := os.Lstat(r.Output); err == nil {
		return refuse("name another file, or remove it", "%s already exists", r.Output)
	}
	if info, err := os.Stat(filepath.Dir(r.Output)); err != nil || !info.IsDir() {
		return refuse("name a file in a folder that exists", "%s is not a folder", filepath.Dir(r.Output))
	}
	return nil
}

// maker is one boot stick being made.
type maker struct {
	Request
	source  Project
	user    ask.User
	streams Streams

	project *project.Project
	host    *plan.Host
}

func (m *maker) load() (err error) {
	if m.project, err = m.source.Load(); err != nil {
		return err
	}
	if m.host = m.project.Plan.Host(m.Host); m.host == nil {
		return diag.WithHint(refusal{fmt.Errorf("the plan has no host %q", m.Host)}, "see plans/hosts.csv")
	}
	return nil
}

// choose returns the device, nil if none is named, and checks that it may be written to; a dry run does
// not open it. need is the size of the image in bytes, 0 as long as there is none.
func (m *maker) choose(ctx context.Context, need int64) (*Target, error) {
	if m.Device == "" {
		return nil, nil
	}
	machine, err := Inspect(ctx)
	if err != nil {
		return nil, err
	}
	target, err := machine.Choose(m.Device, need, m.Force)
	if err != nil || m.DryRun {
		return target, err
	}
	return target, target.CheckAccess(ctx)
}

// data reads what the stick carries beside the image.
func (m *maker) data(ctx context.Context) (Data, error) {
	data := Data{Host: m.host.Name, Wipe: m.Wipe}
	if m.NoSecrets || m.Device == "" {
		return data, nil
	}
	secrets, err := fingerprint.ReadSecrets(m.project.Dir, hive.Secrets(m.project, m.host), m.source.SecretReader(m.project))
	data.Secrets = secrets
	return data, err
}

// announce says what the user may not expect of the installation.
func (m *maker) announce() {
	host, say := m.host, m.user.Say
	switch labelled := m.project.LabelledFileSystems(host); {
	case m.project.Partitioned(host):
		say("%s will be installed on the disks of partitioning/%s.nix", host.Name, host.Name)
	case host.Serial != "" && labelled:
		say("%s will be installed on the disk with the serial %s", host.Name, host.Serial)
	case labelled:
		say(`%s will be installed on the file systems labelled "nixos" and "boot", which its machine must have; with a serial in %s, the stick makes them`,
			host.Name, m.project.Plan.Tables.Hosts)
	default:
		say("%s will be installed on the file systems of its own configuration, which its machine must have", host.Name)
	}
	if m.Legacy && host.Boot != plan.Legacy {
		m.user.Warn("%s: %s boots by EFI according to the plan; set boot to legacy before the next deploy, or it gets the other boot loader", host.Place, host.Name)
	}
	if host.Server != nil && len(m.project.Plan.Servers()) > 1 {
		if host.Server.Role == plan.Init {
			say("the installer asks the other servers first: if one of them answers, %s joins its cluster instead of founding a new one", host.Name)
		}
		say("if %s was a member of a running cluster, remove its old etcd member there before it joins again", host.Server.Name)
	}
}

// image returns the file of the image, which is built unless the request names one. discard must be called
// when the file is not needed any more.
func (m *maker) image(ctx context.Context) (file string, discard func(), err error) {
	none := func() {}
	if m.Image != "" {
		return m.Image, none, nil
	}
	hiveFile, err := m.source.Render(m.project)
	if err != nil {
		return "", none, err
	}
	build := Build{File: filepath.Join(filepath.Dir(hiveFile), "installer.nix"), Host: m.host.Name, Netinstall: m.Netinstall, Legacy: m.Legacy}
	if m.DryRun {
		program, args := build.command("RESULT")
		m.user.Say("would build: %s", run.Words(append([]string{program}, args...)...))
		return "", none, nil
	}
	problems, err := build.problems(ctx)
	if err != nil {
		return "", none, err
	}
	if len(problems) > 0 {
		m.source.Report(inTable(problems, m.project.Plan.Tables.Hosts))
		return "", none, refuse("fix the problems above; k3splan.installation.accept = [ \"CODE\" ] in a snippet ignores one ("+
			list(codes(problems))+")", "a boot stick could not install %s", m.host.Name)
	}
	m.user.Say("building the image of %s", m.host.Name)
	return build.build(ctx, m.streams)
}

// inTable puts the hosts' table of the project, which may be a sheet of a workbook, in the place of the one
// that the evaluation names.
func inTable(problems diag.Problems, table string) diag.Problems {
	for i := range problems {
		p := &problems[i]
		p.File, p.Hint = strings.ReplaceAll(p.File, files.HostsFile, table), strings.ReplaceAll(p.Hint, files.HostsFile, table)
	}
	return problems
}

func codes(problems diag.Problems) (codes []string) {
	for _, problem := range problems {
		codes = append(codes, problem.Code)
	}
	return codes
}

// sayPlanned ends a dry run. target is nil without a device.
func (m *maker) sayPlanned(target *Target, data Data) {
	if m.Output != "" {
		m.user.Say("would keep the image in %s", m.Output)
	}
	if target != nil {
		m.user.Say("would erase and write:\n%s", target.Disk.Describe())
		m.user.Say("secrets on the stick: %s", data.kinds())
		m.user.Say("erasing a disk that is not blank: %s", map[bool]string{true: "allowed, once", false: "not allowed"}[data.Wipe])
	}
	m.user.Say("nothing was evaluated, built or written")
}

// keep copies the image to the file of the request, if there is one.
func (m *maker) keep(image string) error {
	if m.Output == "" {
		return nil
	}
	if err := copyImage(image, m.Output); err != nil {
		return fmt.Errorf("keep the image: %w", err)
	}
	m.user.Say("the image is in %s", m.Output)
	if m.Device == "" {
		m.user.Say("%s", strings.Join([]string{
			"It contains no secrets: after the installation, k3splan deploy uploads them.",
			"To write it to a stick as it is, byte by byte:",
			"  Windows  Rufus, in its DD mode, or balenaEtcher",
			"  macOS    balenaEtcher",
			"  Linux    k3splan boot-stick HOST DEVICE --image FILE, which adds the secrets",
		}, "\n"))
	}
	return nil
}

// copyImage copies a file to one that must not exist.
func copyImage(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	return files.CreateFrom(to, in, files.Public)
}

// openedImage is an image that is to be written.
type openedImage struct {
	Image
	ours  bool // k3splan made it
	close func() error
}

// open opens an image and checks that it was made for the host. One that k3splan did not make is accepted
// only if nothing is to be added.
func (m *maker) open(file string) (openedImage, error) {
	image, closeImage, err := OpenImage(file)
	if err != nil {
		return openedImage{}, err
	}
	fits, known, err := Fits(image.Reader.(io.ReaderAt), m.Host) // OpenImage returns files
	switch {
	case err != nil:
	case known && !fits:
		err = refuse("name the image of "+m.Host+", or the other host", "%s is the image of another host than %s", filepath.Base(file), m.Host)
	case !known && (m.Wipe || !m.NoSecrets):
		err = refuse("--no-secrets writes it as it is", "%s was not made by k3splan and would ignore secrets and permissions beside it", filepath.Base(file))
	}
	if err != nil {
		return openedImage{}, errors.Join(err, closeImage())
	}
	return openedImage{image, known, closeImage}, nil
}

// write asks, writes and compares. From here on an interrupt ends the work within a moment.
func (m *maker) write(ctx context.Context, image openedImage, data Data) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // the second Ctrl-C does not wait for a hanging device
	whole := image.Image
	if image.ours {
		partition, err := data.Partition()
		if err != nil {
			return err
		}
		if whole, err = Append(image.Image, partition); err != nil {
			return err
		}
	}
	target, err := m.choose(ctx, whole.Size)
	if err != nil {
		return err
	}
	if err := Confirm(ctx, m.user, target, m.Host, m.Yes); err != nil {
		return err
	}
	progress := m.user.Progress(1)
	defer progress.Stop()
	report, err := Write(ctx, target, whole, func(p Progress) { progress.Step(target.Disk.Path, p.phase(), p.detail()) })
	progress.Stop()
	if err != nil {
		return err
	}
	if report.Warning != "" {
		m.user.Warn("%s", report.Warning)
	}
	if len(data.Secrets) > 0 {
		m.user.Say("secrets on the stick: %s; keep it as safe as a key", data.kinds())
	}
	m.user.Say("the boot stick of %s is written and compared (%s, written in %s, read back in %s); you can unplug it",
		m.Host, FormatSize(report.Bytes), report.Write.Round(time.Second), report.Verify.Round(time.Second))
	return nil
}

// phase names the phase with its progress in steps of ten percent: where there is no terminal, each change
// of it is a line.
func (p Progress) phase() string {
	return fmt.Sprintf("%s %d%%", p.Phase, 10*(10*p.Done/max(p.Total, 1)))
}

// detail is the progress in bytes, with speed and remaining time where they are known.
func (p Progress) detail() string {
	parts := []string{fmt.Sprintf("%s of %s", FormatSize(p.Done), FormatSize(p.Total))}
	if p.Rate > 0 {
		parts = append(parts, FormatSize(int64(p.Rate))+"/s")
	}
	if p.Remaining >= time.Second {
		parts = append(parts, p.Remaining.Round(time.Second).String()+" left")
	}
	return strings.Join(parts, ", ")
}

// Sorted returns the disks that can be written to before those that are refused.
func Sorted(disks []Disk) []Disk {
	return slices.SortedStableFunc(slices.Values(disks), func(a, b Disk) int {
		return min(len(a.Refusals), 1) - min(len(b.Refusals), 1)
	})
}
