package stick

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"k3splan/internal/run"
)

// patience is how long lsblk may take: a dying disk can block it.
const patience = 30 * time.Second

// Inspect reads which block devices this machine has and what uses them. It needs no privileges and
// opens no disk; without root it does not see which disks other users' processes have open. The error is
// an [ErrRefused] where devices cannot be inspected: on other systems than Linux, or without lsblk.
func Inspect(ctx context.Context) (*Machine, error) {
	if runtime.GOOS != "linux" {
		return nil, refuse("keep the image with --output FILE and write it with Rufus (in its DD mode) on Windows, balenaEtcher on Windows and macOS, or dd",
			"boot sticks can be written on Linux only")
	}
	return inspect(ctx, "/proc", "/sys")
}

func inspect(ctx context.Context, proc, sys string) (*Machine, error) {
	var f facts
	// Before lsblk: a device that is replaced in between has another number when it is written to.
	sequences, err := readEach(filepath.Join(sys, "class/block/*/diskseq"), 1)
	if err != nil {
		return nil, err
	}
	f.sequences = sequences
	output, err := lsblk(ctx)
	if err != nil {
		return nil, err
	}
	if f.nodes, err = parseLsblk(output); err != nil {
		return nil, err
	}
	processes := readProcesses(proc)
	if f.mounts, err = readMounts(proc, processes); err != nil {
		return nil, err
	}
	if f.swaps, err = readSwaps(proc); err != nil {
		return nil, err
	}
	if f.backing, err = readBacking(sys); err != nil {
		return nil, err
	}
	if f.holders, err = readHolders(sys); err != nil {
		return nil, err
	}
	if f.pools, err = readPools(sys); err != nil {
		return nil, err
	}
	f.imported = readImported(proc)
	f.places = readPlaces(sys)
	f.openers = lastingOpeners(ctx, proc, processes)
	return newMachine(f), nil
}

// lsblk prints every column: naming some would fail with versions that lack one. --all makes old
// versions show readers without a medium.
func lsblk(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// In a Turkish locale old versions write "sIze"; in the C locale they escape every letter beyond ASCII.
	output, err := run.Output(ctx, run.Command{Program: "lsblk", Args: []string{"--json", "--bytes", "--all", "--output-all"}, Env: []string{"LC_ALL=C.UTF-8"}})
	var missing *run.MissingError
	switch {
	case errors.As(err, &missing):
		return nil, refuse("install util-linux", "lsblk was not found")
	case ctx.Err() == context.DeadlineExceeded:
		return nil, fmt.Errorf("lsblk did not answer within %s: a disk may be failing", patience)
	case err != nil:
		return nil, err
	}
	return []byte(output), nil
}

// readMounts reads the mounts of every mount namespace that this process may read: its own, that of the
// first process, which has more within a private namespace, and those of containers.
func readMounts(proc string, processes []process) ([]mount, error) {
	own := filepath.Join(proc, "self")
	text, err := os.ReadFile(filepath.Join(own, "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	mounts, err := parseMountinfo(string(text))
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{namespaceOf(own): true}
	for _, p := range processes {
		dir := filepath.Join(proc, p.id)
		namespace := namespaceOf(dir)
		if namespace == "" || seen[namespace] {
			continue
		}
		seen[namespace] = true
		text, err := os.ReadFile(filepath.Join(dir, "mountinfo"))
		if err != nil {
			continue // the process ended
		}
		others, err := parseMountinfo(string(text))
		if err != nil {
			return nil, err
		}
		for i := range others {
			others[i].elsewhere = p.id != "1"
		}
		mounts = append(mounts, others...)
	}
	for i := range mounts {
		// By-uuid links and the like; others stay as they are.
		if target, err := filepath.EvalSymlinks(mounts[i].source); err == nil && strings.HasPrefix(mounts[i].source, "/dev/") {
			mounts[i].source = target
		}
	}
	return mounts, nil
}

// namespaceOf returns the identity of a process's mount namespace, "" if it may not be read.
func namespaceOf(dir string) string {
	namespace, err := os.Readlink(filepath.Join(dir, "ns/mnt"))
	if err != nil {
		return ""
	}
	return namespace
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

// readBacking reads what is behind each loop device.
func readBacking(sys string) (map[string]backing, error) {
	files, err := readEach(filepath.Join(sys, "class/block/*/loop/backing_file"), 2)
	if err != nil {
		return nil, err
	}
	found := map[string]backing{}
	for loop, file := range files {
		found[loop] = backingOf("/dev/"+loop, file)
	}
	return found, nil
}

// readEach reads the files that match a pattern, by device. up is how many directories above the file
// the device's directory is.
func readEach(pattern string, up int) (map[string]string, error) {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("read the block devices: %w", err)
	}
	values := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			if vanished(err) {
				continue
			}
			return nil, fmt.Errorf("read the block devices: %w", err)
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
		return nil, fmt.Errorf("read the holders of block devices: %w", err)
	}
	holders := map[string][]string{}
	for _, link := range links {
		name := filepath.Base(filepath.Dir(filepath.Dir(link)))
		holders[name] = append(holders[name], filepath.Base(link))
	}
	return holders, nil
}

// readPools reads which devices mounted btrfs and bcachefs file systems consist of.
func readPools(sys string) (map[string][]string, error) {
	pools := map[string][]string{}
	btrfs, err := filepath.Glob(filepath.Join(sys, "fs/btrfs/*/devices/*"))
	if err != nil {
		return nil, fmt.Errorf("read the btrfs file systems: %w", err)
	}
	for _, link := range btrfs {
		uuid := filepath.Base(filepath.Dir(filepath.Dir(link)))
		pools[uuid] = append(pools[uuid], filepath.Base(link))
	}
	bcachefs, err := filepath.Glob(filepath.Join(sys, "fs/bcachefs/*/dev-*/block"))
	if err != nil {
		return nil, fmt.Errorf("read the bcachefs file systems: %w", err)
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

// readImported returns the names of the imported ZFS pools; one need not have a mounted dataset.
func readImported(proc string) []string {
	var pools []string
	found, _ := filepath.Glob(filepath.Join(proc, "spl/kstat/zfs/*/state")) // the pattern is well-formed
	for _, file := range found {
		pools = append(pools, filepath.Base(filepath.Dir(file)))
	}
	return pools
}

// readPlaces reads where in the machine each device is plugged in. The path holds the number of the SCSI
// host, which grows each time a stick is plugged in.
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

// process is a process of this machine.
type process struct{ id, name string }

// readProcesses lists the processes, except this one.
func readProcesses(proc string) []process {
	files, _ := filepath.Glob(filepath.Join(proc, "[0-9]*/comm")) // the pattern is well-formed
	own := fmt.Sprint(os.Getpid())
	var processes []process
	for _, file := range files {
		id := filepath.Base(filepath.Dir(file))
		name, err := os.ReadFile(file)
		if err != nil || id == own {
			continue
		}
		processes = append(processes, process{id, strings.TrimSpace(string(name))})
	}
	return processes
}

// openerPause is how long a process must keep a device open to count as its user: desktops and udev
// look at devices for moments.
const openerPause = 300 * time.Millisecond

// lastingOpeners returns which processes have block devices open, now and a moment later.
func lastingOpeners(ctx context.Context, proc string, processes []process) map[string][]string {
	first := readOpeners(proc, processes)
	if len(first) == 0 {
		return nil
	}
	select {
	case <-time.After(openerPause):
	case <-ctx.Done():
	}
	lasting := map[string][]string{}
	later := readOpeners(proc, processes)
	for _, number := range slices.Sorted(maps.Keys(first)) {
		for _, name := range first[number] {
			if slices.Contains(later[number], name) {
				lasting[number] = append(lasting[number], name)
			}
		}
	}
	return lasting
}

// readOpeners returns which processes have block devices open, by the device's number. Processes of
// other users are visible to root only.
func readOpeners(proc string, processes []process) map[string][]string {
	openers := map[string][]string{}
	for _, p := range processes {
		dir := filepath.Join(proc, p.id, "fd")
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // it ended, or belongs to another user
		}
		text := fmt.Sprintf("%s (process %s)", p.name, p.id)
		for _, entry := range entries {
			number := openedNumber(filepath.Join(dir, entry.Name()))
			if number != "" && !slices.Contains(openers[number], text) {
				openers[number] = append(openers[number], text)
			}
		}
	}
	return openers
}
