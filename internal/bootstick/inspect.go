package bootstick

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"k3splan/internal/diag"
)

// patience bounds how long lsblk may take: a dying disk can hold it up.
const patience = 30 * time.Second

// Unsupported says that this system cannot do what was asked for, and what can
// be done instead.
type Unsupported struct{ message, hint string }

func (u *Unsupported) Error() string { return u.message }

// Hint says what to do instead.
func (u *Unsupported) Hint() string { return u.hint }

// Inspect looks at the block devices of this machine and what they are used
// for. It needs no privileges and opens no device. The error is *[Unsupported]
// where devices cannot be looked at: elsewhere than on Linux, without lsblk.
func Inspect(ctx context.Context) (*Machine, error) {
	if runtime.GOOS != "linux" {
		return nil, &Unsupported{
			"sticks are written on Linux only",
			"keep the image with --output FILE and write it with Rufus (in its DD mode) on Windows, balenaEtcher on Windows and macOS, or dd",
		}
	}
	return inspect(ctx, "/proc", "/sys")
}

func inspect(ctx context.Context, proc, sys string) (*Machine, error) {
	// Before lsblk: a device that is replaced meanwhile then has another number
	// when it is written to.
	sequences, err := readEach(filepath.Join(sys, "class/block/*/diskseq"), 1)
	if err != nil {
		return nil, err
	}
	output, err := lsblk(ctx)
	if err != nil {
		return nil, err
	}
	nodes, err := parseLsblk(output)
	if err != nil {
		return nil, err
	}
	mounts, err := readMounts(proc)
	if err != nil {
		return nil, err
	}
	swaps, err := readSwaps(proc)
	if err != nil {
		return nil, err
	}
	backing, err := readEach(filepath.Join(sys, "class/block/*/loop/backing_file"), 2)
	if err != nil {
		return nil, err
	}
	holders, err := readHolders(sys)
	if err != nil {
		return nil, err
	}
	pools, err := readPools(sys)
	if err != nil {
		return nil, err
	}
	m := newMachine(nodes, mounts, swaps, holders, pools, backing)
	m.sequences = sequences
	m.places = readPlaces(sys)
	return m, nil
}

// lsblk prints every column: naming some would fail with versions that lack
// one. --all has old versions show readers without a medium.
func lsblk(ctx context.Context) ([]byte, error) {
	program, err := exec.LookPath("lsblk")
	if err != nil {
		return nil, &Unsupported{"lsblk was not found", "install util-linux"}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	command := exec.CommandContext(ctx, program, "--json", "--bytes", "--all", "--output-all")
	// In a Turkish locale old versions write "sIze"; in the C locale they
	// escape every letter beyond ASCII.
	command.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	var stderr bytes.Buffer
	command.Stderr = &stderr
	output, err := command.Output()
	if ctx.Err() == context.DeadlineExceeded {
		return nil, fmt.Errorf("lsblk did not answer within %s: a disk may be failing", patience)
	}
	if err != nil {
		return nil, fmt.Errorf("lsblk: %w: %s", err, diag.Printable(strings.TrimSpace(stderr.String())))
	}
	return output, nil
}

// readMounts reads the mounts that this process sees and, where it may, those
// of the first process, which sees more from within a private mount namespace.
func readMounts(proc string) ([]mount, error) {
	text, err := os.ReadFile(filepath.Join(proc, "self/mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	first, err := os.ReadFile(filepath.Join(proc, "1/mountinfo"))
	if err == nil && !bytes.Equal(first, text) {
		text = append(text, first...)
	}
	mounts, err := parseMountinfo(string(text))
	if err != nil {
		return nil, err
	}
	for i := range mounts {
		// By-uuid links and the like; others stay as they are.
		if target, err := filepath.EvalSymlinks(mounts[i].source); err == nil && strings.HasPrefix(mounts[i].source, "/dev/") {
			mounts[i].source = target
		}
	}
	return mounts, nil
}

func readSwaps(proc string) ([]swap, error) {
	text, err := os.ReadFile(filepath.Join(proc, "swaps"))
	if errors.Is(err, fs.ErrNotExist) { // a kernel without swap
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the swap devices: %w", err)
	}
	swaps := parseSwaps(string(text))
	for i := range swaps {
		swaps[i].number = deviceNumber(swaps[i].path)
	}
	return swaps, nil
}

// readEach reads the files of a pattern into a map by device. up says how many
// directories above the file the device's is.
func readEach(pattern string, up int) (map[string]string, error) {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("look for block devices: %w", err)
	}
	values := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			if gone(err) {
				continue
			}
			return nil, fmt.Errorf("look at block devices: %w", err)
		}
		directory := file
		for range up {
			directory = filepath.Dir(directory)
		}
		values[filepath.Base(directory)] = strings.TrimSuffix(string(text), "\n")
	}
	return values, nil
}

func readHolders(sys string) (map[string][]string, error) {
	links, err := filepath.Glob(filepath.Join(sys, "class/block/*/holders/*"))
	if err != nil {
		return nil, fmt.Errorf("look for holders: %w", err)
	}
	holders := map[string][]string{}
	for _, link := range links {
		name := filepath.Base(filepath.Dir(filepath.Dir(link)))
		holders[name] = append(holders[name], filepath.Base(link))
	}
	return holders, nil
}

// readPools reads which devices mounted btrfs and bcachefs file systems have.
func readPools(sys string) (map[string][]string, error) {
	pools := map[string][]string{}
	btrfs, err := filepath.Glob(filepath.Join(sys, "fs/btrfs/*/devices/*"))
	if err != nil {
		return nil, fmt.Errorf("look for btrfs: %w", err)
	}
	for _, link := range btrfs {
		uuid := filepath.Base(filepath.Dir(filepath.Dir(link)))
		pools[uuid] = append(pools[uuid], filepath.Base(link))
	}
	bcachefs, err := filepath.Glob(filepath.Join(sys, "fs/bcachefs/*/dev-*/block"))
	if err != nil {
		return nil, fmt.Errorf("look for bcachefs: %w", err)
	}
	for _, link := range bcachefs {
		target, err := os.Readlink(link)
		if err != nil {
			continue // the member is missing
		}
		uuid := filepath.Base(filepath.Dir(filepath.Dir(link)))
		pools[uuid] = append(pools[uuid], filepath.Base(target))
	}
	return pools, nil
}

// readPlaces reads where in the machine each device is plugged in. The path
// holds the number of the SCSI host, which grows each time a stick is put in.
func readPlaces(sys string) map[string]string {
	places := map[string]string{}
	links, _ := filepath.Glob(filepath.Join(sys, "class/block/*")) // the pattern is well-formed
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			places[filepath.Base(link)] = target
		}
	}
	return places
}
