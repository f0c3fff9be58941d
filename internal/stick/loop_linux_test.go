package stick

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"k3splan/internal/diag"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// loopDevice makes a file of a size and a loop device over it, and detaches the device at the end. It
// touches no other loop device.
func loopDevice(t testing.TB, size int64, options ...string) (device, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "disk.img")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Truncate(file, size))
	return attach(t, file, options...), file
}

func attach(t testing.TB, file string, options ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIP: loop devices need root")
	}
	losetup := tool(t, "losetup")
	tool(t, "lsblk")
	output, err := exec.Command(losetup, append(append([]string{"--find", "--show"}, options...), file)...).CombinedOutput()
	if err != nil {
		t.Skipf("SKIP: no loop device available: %v: %s", err, output)
	}
	device := strings.TrimSpace(string(output))
	t.Cleanup(func() {
		// Only if it is still ours: the test may have detached it itself.
		listed, err := exec.Command(losetup, "--noheadings", "--output", "BACK-FILE", device).Output()
		if err == nil && strings.HasPrefix(strings.TrimSpace(string(listed)), filepath.Dir(file)) {
			require.NoError(t, exec.Command(losetup, "--detach", device).Run())
		}
	})
	return device
}

func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("SKIP: %s is not installed", name)
	}
	return path
}

func runTool(t testing.TB, name string, args ...string) {
	t.Helper()
	output, err := exec.Command(tool(t, name), args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, output)
}

// choose accepts a loop device, as --force-device does.
func choose(t testing.TB, device string) *Target {
	t.Helper()
	machine, err := Inspect(t.Context())
	require.NoError(t, err)
	target, err := machine.Choose(device, 0, device)
	require.NoError(t, err)
	return target
}

func refusedBy(t *testing.T, device, force string, need int64) *Refused {
	t.Helper()
	machine, err := Inspect(t.Context())
	require.NoError(t, err)
	_, err = machine.Choose(device, need, force)
	var refused *Refused
	require.ErrorAs(t, err, &refused)
	return refused
}

func requireFailure(t *testing.T, err error, kinds ...Kind) *Failure {
	t.Helper()
	var failure *Failure
	require.ErrorAs(t, err, &failure)
	require.Contains(t, kinds, failure.Kind, err)
	return failure
}

// partitioned gives a disk an MBR with one partition from its first MiB on.
func partitioned(data []byte, bytes int64) []byte {
	entry := data[446:462]
	clear(data[440:512])
	entry[4] = 0x83
	binary.LittleEndian.PutUint32(entry[8:], mib/512)
	binary.LittleEndian.PutUint32(entry[12:], uint32(bytes/512))
	data[510], data[511] = 0x55, 0xaa
	return data
}

// partitionedLoop makes a loop device with a partition. parses is whether this kernel reads partition tables
// itself.
func partitionedLoop(t *testing.T) (device, partition string, parses bool) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk.img")
	require.NoError(t, os.WriteFile(file, partitioned(make([]byte, 64*mib), 32*mib), 0o600))
	device = attach(t, file, "--partscan")
	partition = device + "p1"
	if _, err := os.Stat(partition); err == nil {
		return device, partition, true
	}
	runTool(t, "addpart", device, "1", fmt.Sprint(mib/512), fmt.Sprint(32*mib/512))
	if _, err := os.Stat(partition); err != nil {
		t.Skip("SKIP: no partitions on loop devices here")
	}
	return device, partition, false
}

func TestLoopWrite(t *testing.T) {
	device, file := loopDevice(t, 64*mib)
	old := bytes.Repeat([]byte{0xee}, 64*mib)
	require.NoError(t, os.WriteFile(file, old, 0o600))
	data := pattern(21*mib + 700)

	require.True(t, refusedBy(t, device, "", 0).Has(LoopDevice), "not without being forced")
	target := choose(t, device)
	require.NoError(t, target.CheckAccess(t.Context()))
	require.FileExists(t, file)
	after, err := os.ReadFile(file)
	require.NoError(t, err)
	require.True(t, bytes.Equal(old, after), "asking for access changes nothing")

	var last Progress
	report, err := Write(t.Context(), target, imageOf(data), func(p Progress) { last = p })
	require.NoError(t, err)
	require.EqualValues(t, 21*mib+1024, report.Bytes)
	require.Equal(t, Verifying, last.Phase)
	require.Equal(t, last.Total, last.Done)

	image := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(image, data, 0o600))
	runTool(t, "cmp", "--bytes", fmt.Sprint(len(data)), image, device)
	require.NoError(t, exec.Command("losetup", "--detach", device).Run())
	after, err = os.ReadFile(file)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, after[:len(data)]))
	require.True(t, bytes.Equal(old[report.Bytes:63*mib], after[report.Bytes:63*mib]))
	requireAll(t, 0, after[63*mib:], "blank")
}

func TestLoopWriteTwice(t *testing.T) {
	device, _ := loopDevice(t, 16*mib)
	for range 2 {
		report, err := Write(t.Context(), choose(t, device), imageOf(pattern(5*mib)), nil)
		require.NoError(t, err)
		require.Empty(t, report.Warning, "a device without partitions has no table to read again")
	}
}

func TestLoopPartitionTableIsReadAgain(t *testing.T) {
	t.Run("the old partitions are gone", func(t *testing.T) {
		device, partition, _ := partitionedLoop(t)
		report, err := Write(t.Context(), choose(t, device), imageOf(pattern(mib)), nil)
		require.NoError(t, err)
		require.Empty(t, report.Warning)
		require.NoFileExists(t, partition)
	})
	t.Run("the new ones are there", func(t *testing.T) {
		device, partition, parses := partitionedLoop(t)
		if !parses {
			t.Skip("SKIP: this kernel reads no partition tables")
		}
		_, err := Write(t.Context(), choose(t, device), imageOf(partitioned(pattern(24*mib), 16*mib)), nil)
		require.NoError(t, err)
		size, err := os.ReadFile(filepath.Join("/sys/class/block", filepath.Base(partition), "size"))
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(16*mib/512), strings.TrimSpace(string(size)))
	})
	t.Run("a failure takes the old partitions away too", func(t *testing.T) {
		device, partition, _ := partitionedLoop(t)
		image := imageOf(pattern(24 * mib))
		image.Size++
		_, err := Write(t.Context(), choose(t, device), image, nil)
		requireFailure(t, err, BadImage)
		require.NoFileExists(t, partition)
	})
	t.Run("while someone looks at a partition", func(t *testing.T) {
		device, partition, _ := partitionedLoop(t)
		open, err := os.Open(partition)
		require.NoError(t, err)
		defer open.Close()
		report, err := Write(t.Context(), choose(t, device), imageOf(pattern(mib)), nil)
		require.NoError(t, err)
		require.Contains(t, report.Warning, "the kernel still shows the old partitions")
	})
}

func TestLoopTooSmall(t *testing.T) {
	device, file := loopDevice(t, 8*mib)
	require.True(t, refusedBy(t, device, device, 8*mib+1).Has(TooSmall))
	_, err := Write(t.Context(), choose(t, device), imageOf(pattern(8*mib+1)), nil)
	var refused *Refused
	require.ErrorAs(t, err, &refused)
	require.True(t, refused.Has(TooSmall))
	after, err := os.ReadFile(file)
	require.NoError(t, err)
	requireAll(t, 0, after, "nothing was written")
}

func TestLoopReadOnly(t *testing.T) {
	device, _ := loopDevice(t, 8*mib, "--read-only")
	require.True(t, refusedBy(t, device, device, 0).Has(ReadOnly))
	// Past the verdict, too.
	target := targetOf(t, device)
	require.ErrorContains(t, target.CheckAccess(t.Context()), "it is read-only")
}

// targetOf makes a target of any device, refused or not.
func targetOf(t *testing.T, device string) *Target {
	t.Helper()
	machine, err := Inspect(t.Context())
	require.NoError(t, err)
	n := machine.byPath(device)
	require.NotNil(t, n)
	return &Target{Disk: machine.disk(n), identity: machine.identity(n), force: device}
}

func TestLoopMountedPartition(t *testing.T) {
	device, partition, _ := partitionedLoop(t)
	before := choose(t, device)
	runTool(t, "mkfs.ext4", "-q", partition)
	point := t.TempDir()
	runTool(t, "mount", partition, point)
	mounted := true
	unmount := func() {
		if mounted {
			require.NoError(t, unix.Unmount(point, 0))
			mounted = false
		}
	}
	t.Cleanup(unmount)
	require.NoError(t, os.WriteFile(filepath.Join(point, "letter"), []byte("keep me"), 0o600))

	refused := refusedBy(t, device, device, 0)
	require.True(t, refused.Has(Mounted))
	require.Contains(t, refused.Error(), point)
	require.True(t, refusedBy(t, partition, partition, 0).Has(Partition))

	_, err := Write(t.Context(), before, imageOf(pattern(mib)), nil)
	require.ErrorAs(t, err, &refused, "mounted between the question and the write")
	require.True(t, refused.Has(Mounted))
	requireFailure(t, before.CheckAccess(t.Context()), Busy) // past the verdict, the kernel refuses

	unmount()
	runTool(t, "mount", partition, point)
	mounted = true
	letter, err := os.ReadFile(filepath.Join(point, "letter"))
	require.NoError(t, err)
	require.Equal(t, "keep me", string(letter))
	unmount()
	// a test of another package may have made a mount namespace meanwhile, which has a copy of the mount
	require.Eventually(t, func() bool {
		_, err = Write(t.Context(), before, imageOf(pattern(mib)), nil)
		return !errors.As(err, &refused) || !refused.Has(Mounted)
	}, 2*time.Minute, 100*time.Millisecond, "mounted elsewhere")
	require.NoError(t, err, "free again")
}

func TestLoopSwap(t *testing.T) {
	device, _ := loopDevice(t, 16*mib)
	before := choose(t, device)
	runTool(t, "mkswap", device)
	if output, err := exec.Command(tool(t, "swapon"), device).CombinedOutput(); err != nil {
		t.Skipf("SKIP: swap is not available: %v: %s", err, output)
	}
	t.Cleanup(func() { runTool(t, "swapoff", device) })
	require.True(t, refusedBy(t, device, device, 0).Has(Swapping))
	_, err := Write(t.Context(), before, imageOf(pattern(mib)), nil)
	var refused *Refused
	require.ErrorAs(t, err, &refused)
	require.True(t, refused.Has(Swapping))
	requireFailure(t, before.CheckAccess(t.Context()), Busy)
}

func TestLoopPartitionInsteadOfDisk(t *testing.T) {
	device, partition, _ := partitionedLoop(t)
	refused := refusedBy(t, partition, partition, 0)
	require.Equal(t, Partition, refused.Refusals[0].Reason)
	require.Equal(t, "name the whole disk: "+device, diag.HintOf(refused.advised()))
}

func TestLoopReplaced(t *testing.T) {
	swap := func(t *testing.T, size int64) (target *Target, other string) {
		other = filepath.Join(t.TempDir(), "other.img")
		require.NoError(t, os.WriteFile(other, bytes.Repeat([]byte{0xee}, int(size)), 0o600))
		for range 5 { // a free loop device is anybody's
			device, _ := loopDevice(t, 16*mib)
			target = choose(t, device)
			runTool(t, "losetup", "--detach", device)
			if exec.Command("losetup", device, other).Run() == nil {
				t.Cleanup(func() { runTool(t, "losetup", "--detach", device) })
				return target, other
			}
		}
		t.Skip("SKIP: other programs take the loop devices")
		return nil, ""
	}
	for name, size := range map[string]int64{"of the same size": 16 * mib, "of another size": 24 * mib} {
		t.Run(name, func(t *testing.T) {
			target, other := swap(t, size)
			_, err := Write(t.Context(), target, imageOf(pattern(mib)), nil)
			require.False(t, requireFailure(t, err, Replaced).Touched)
			// Past the first comparison, the opened device is compared again.
			require.Error(t, requireFailure(t, target.CheckAccess(t.Context()), Replaced).Err)
			after, err := os.ReadFile(other)
			require.NoError(t, err)
			requireAll(t, 0xee, after, "the other disk is untouched")
		})
	}
	t.Run("by nothing", func(t *testing.T) {
		device, _ := loopDevice(t, 16*mib)
		target := choose(t, device)
		runTool(t, "losetup", "--detach", device)
		_, err := Write(t.Context(), target, imageOf(pattern(mib)), nil)
		requireFailure(t, err, Replaced)
	})
	t.Run("the node is gone", func(t *testing.T) {
		device, _ := loopDevice(t, 16*mib)
		target := choose(t, device)
		target.Disk.Path = device + "-pulled"
		_, err := Write(t.Context(), target, imageOf(pattern(mib)), nil)
		requireFailure(t, err, Vanished)
		requireFailure(t, target.CheckAccess(t.Context()), Vanished)
	})
}

// Each property of a device counts by itself: older kernels do not have them all.
func TestLoopCompare(t *testing.T) {
	device, _ := loopDevice(t, 16*mib)
	target := choose(t, device)
	for name, change := range map[string]func(*identity){
		"number":   func(i *identity) { i.number = "7:99" },
		"size":     func(i *identity) { i.size++ },
		"place":    func(i *identity) { i.place += "/host7" },
		"sequence": func(i *identity) { i.sequence += "0" },
	} {
		t.Run(name, func(t *testing.T) {
			other := *target
			change(&other.identity)
			requireFailure(t, other.CheckAccess(t.Context()), Replaced)
		})
	}
	for name, change := range map[string]func(*identity){
		"serial": func(i *identity) { i.serial = "4C530" },
		"model":  func(i *identity) { i.model = "Ultra" },
	} {
		t.Run(name, func(t *testing.T) {
			other := *target
			change(&other.identity)
			_, err := Write(t.Context(), &other, imageOf(pattern(mib)), nil)
			requireFailure(t, err, Replaced)
		})
	}
}

// A sparse file on a file system that is too small for it: the device accepts some blocks and then none.
func TestLoopFailsInTheMiddle(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP: loop devices need root")
	}
	small := t.TempDir()
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, fmt.Sprintf("size=%d", 12*mib)); err != nil {
		t.Skipf("SKIP: tmpfs is not available: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(small, 0)) })
	file := filepath.Join(small, "disk.img")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Truncate(file, 64*mib))
	device := attach(t, file)
	report, err := Write(t.Context(), choose(t, device), imageOf(pattern(32*mib)), nil)
	failure := requireFailure(t, err, Broken, Full)
	t.Log(err)
	require.True(t, failure.Touched)
	require.Positive(t, failure.Offset)
	require.Zero(t, report)
	requireBlankStart(t, file)
}

func requireBlankStart(t *testing.T, file string) {
	t.Helper()
	after, err := os.ReadFile(file)
	require.NoError(t, err)
	requireAll(t, 0, after[:min(blockSize, len(after))], "an unfinished stick must not boot")
}

// A device that shrinks during the write, down to no size at all, like one that is unplugged.
func TestLoopShrinks(t *testing.T) {
	for name, test := range map[string]struct {
		to   int64
		kind Kind
	}{"to less than the image": {12 * mib, Full}, "to nothing": {0, Vanished}} {
		t.Run(name, func(t *testing.T) {
			device, file := loopDevice(t, 64*mib)
			shrunk := false
			_, err := Write(t.Context(), choose(t, device), imageOf(pattern(32*mib)), func(p Progress) {
				if !shrunk {
					shrunk = true
					require.NoError(t, os.Truncate(file, test.to))
					runTool(t, "losetup", "--set-capacity", device)
				}
			})
			t.Log(err)
			require.True(t, requireFailure(t, err, test.kind).Touched)
		})
	}
}

func TestLoopChangesBehindOurBack(t *testing.T) {
	device, file := loopDevice(t, 64*mib)
	_, err := Write(t.Context(), choose(t, device), imageOf(pattern(32*mib)), func(p Progress) {
		if p.Phase == Verifying && p.Done == 0 {
			backing, err := os.OpenFile(file, os.O_WRONLY, 0)
			require.NoError(t, err)
			defer backing.Close()
			_, err = backing.WriteAt([]byte("not the image"), 20*mib+5)
			require.NoError(t, err)
		}
	})
	require.EqualValues(t, 20*mib, requireFailure(t, err, Different).Offset)
	requireBlankStart(t, file)
}

func TestLoopCancel(t *testing.T) {
	device, file := loopDevice(t, 64*mib)
	for _, phase := range []Phase{Writing, Verifying} {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := Write(ctx, choose(t, device), imageOf(partitioned(pattern(48*mib), mib)), func(p Progress) {
			if p.Phase == phase {
				cancel()
			}
		})
		requireCancelled(t, err, true)
		requireBlankStart(t, file)
		require.NoError(t, choose(t, device).CheckAccess(t.Context()), "the device is free again")
	}
}

func TestLoopOneAtATime(t *testing.T) {
	device, _ := loopDevice(t, 64*mib)
	asked := false
	_, err := Write(t.Context(), choose(t, device), imageOf(pattern(32*mib)), func(Progress) {
		if !asked {
			asked = true
			_, err := Write(t.Context(), choose(t, device), imageOf(pattern(mib)), nil)
			require.False(t, requireFailure(t, err, Busy).Touched)
		}
	})
	require.NoError(t, err)
	require.True(t, asked)
}

func TestLoopLockedByUdev(t *testing.T) {
	device, _ := loopDevice(t, 16*mib)
	target := choose(t, device)
	probe, err := os.Open(device)
	require.NoError(t, err)
	defer probe.Close()
	lock := int(probe.Fd())
	require.NoError(t, unix.Flock(lock, unix.LOCK_SH))

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	requireFailure(t, target.CheckAccess(ctx), Cancelled)

	time.AfterFunc(300*time.Millisecond, func() { _ = unix.Flock(lock, unix.LOCK_UN) })
	require.NoError(t, target.CheckAccess(t.Context()), "udev looks for a moment only")
}

// A user without access gets the error before anything is built.
func TestLoopDenied(t *testing.T) {
	device, _ := loopDevice(t, 16*mib)
	allow(t, device, 0o600)
	target := choose(t, device)
	err := asNobody(func() error { return target.CheckAccess(context.Background()) })
	failure := requireFailure(t, err, Denied)
	require.Regexp(t, `no permission to write to it: permission denied \(group \S+, mode -rw-------\)`, err.Error())
	require.Contains(t, diag.HintOf(err), "never calls sudo")
	require.False(t, failure.Touched)
}

// A user with access needs no more: not root, no sudo.
func TestLoopAsAUserWithAccess(t *testing.T) {
	device, file := loopDevice(t, 16*mib)
	allow(t, device, 0o666)
	data := pattern(5 * mib)
	require.NoError(t, asNobody(func() error {
		machine, err := Inspect(context.Background())
		if err != nil {
			return err
		}
		target, err := machine.Choose(device, 0, device)
		if err != nil {
			return err
		}
		if err := target.CheckAccess(context.Background()); err != nil {
			return err
		}
		_, err = Write(context.Background(), target, imageOf(data), nil)
		return err
	}))
	after, err := os.ReadFile(file)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, after[:len(data)]))
}

// allow sets the permissions of a loop device for the time of the test.
func allow(t *testing.T, device string, mode os.FileMode) {
	t.Helper()
	info, err := os.Stat(device)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(device, mode))
	t.Cleanup(func() { require.NoError(t, os.Chmod(device, info.Mode().Perm())) })
}

// asNobody runs f without privileges. They are dropped for its thread alone, which ends with the goroutine.
func asNobody(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		for _, call := range [][2]uintptr{{unix.SYS_SETGROUPS, 0}, {unix.SYS_SETRESGID, 65534}, {unix.SYS_SETRESUID, 65534}} {
			if _, _, errno := unix.RawSyscall(call[0], call[1], call[1], call[1]); errno != 0 {
				result <- errno
				return
			}
		}
		result <- f()
	}()
	return <-result
}

func TestChooseRefusesWhatIsNoDevice(t *testing.T) {
	tool(t, "lsblk")
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for path, reason := range map[string]Reason{
		"/dev/k3splan-no-such-device": Missing,
		file:                          NotBlock,
		"/dev/null":                   NotBlock,
		"/":                           NotBlock,
	} {
		refused := refusedBy(t, path, path, 0)
		require.Equal(t, reason, refused.Refusals[0].Reason, path)
		require.NotEmpty(t, diag.HintOf(refused.advised()))
	}
}

func TestChooseTakesLinks(t *testing.T) {
	device, _ := loopDevice(t, 16*mib)
	link := filepath.Join(t.TempDir(), "by-id")
	require.NoError(t, os.Symlink(device, link))
	machine, err := Inspect(t.Context())
	require.NoError(t, err)
	target, err := machine.Choose(link, 0, device)
	require.NoError(t, err)
	require.Equal(t, device, target.Disk.Path)
	refused := refusedBy(t, filepath.Base(device), "", 0)
	require.Equal(t, "do you mean "+device+"?", diag.HintOf(refused.advised()))
}

func TestInspectWithoutLsblk(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Inspect(t.Context())
	require.ErrorIs(t, err, ErrRefused)
	require.Equal(t, "install util-linux", diag.HintOf(err))
}

func TestInspectWithABadLsblk(t *testing.T) {
	for name, test := range map[string]struct{ script, err string }{
		"it fails":          {"echo no sysfs >&2; exit 1", "lsblk failed with exit code 1: no sysfs"},
		"it prints rubbish": {"echo rubbish", "read the output of lsblk"},
	} {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(directory, "lsblk"), []byte("#!/bin/sh\n"+test.script+"\n"), 0o700))
			t.Setenv("PATH", directory+":"+os.Getenv("PATH"))
			_, err := Inspect(t.Context())
			require.ErrorContains(t, err, test.err)
		})
	}
	t.Run("it is cancelled", func(t *testing.T) {
		tool(t, "lsblk")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := Inspect(ctx)
		require.True(t, errors.Is(err, context.Canceled), "%v", err)
	})
}

// Uses that the kernel does not count: a loop device over the disk, one over the same file, and a process
// that has the disk open.
func TestLoopInUseByOthers(t *testing.T) {
	t.Run("a loop device over the disk", func(t *testing.T) {
		device, _ := loopDevice(t, 16*mib)
		before := choose(t, device)
		over := strings.TrimSpace(string(output(t, "losetup", "--find", "--show", "--offset", "1048576", device)))
		t.Cleanup(func() { runTool(t, "losetup", "--detach", over) })
		refused := refusedBy(t, device, device, 0)
		require.True(t, refused.Has(Held))
		require.Contains(t, refused.Error(), over)
		require.True(t, refusedBy(t, over, over, 0).Has(NotDisk), "it is built on a disk")
		_, err := Write(t.Context(), before, imageOf(pattern(mib)), nil)
		require.ErrorIs(t, err, ErrRefused, "set up between the question and the write")
	})
	t.Run("a loop device over the same file", func(t *testing.T) {
		device, file := loopDevice(t, 16*mib)
		hardLink := filepath.Join(filepath.Dir(file), "link.img")
		require.NoError(t, os.Link(file, hardLink))
		other := strings.TrimSpace(string(output(t, "losetup", "--find", "--show", hardLink)))
		t.Cleanup(func() { runTool(t, "losetup", "--detach", other) })
		refused := refusedBy(t, device, device, 0)
		require.True(t, refused.Has(Held))
		require.Contains(t, refused.Error(), other)
	})
	t.Run("a process", func(t *testing.T) {
		device, _ := loopDevice(t, 16*mib)
		reader := exec.Command("sleep", "60")
		file, err := os.Open(device)
		require.NoError(t, err)
		reader.Stdin = file
		require.NoError(t, reader.Start())
		t.Cleanup(func() {
			_ = reader.Process.Kill()
			_ = reader.Wait()
		})
		require.NoError(t, file.Close())
		refused := refusedBy(t, device, device, 0)
		require.True(t, refused.Has(Opened))
		require.Contains(t, refused.Error(), fmt.Sprintf("it is open in sleep (process %d)", reader.Process.Pid))
	})
}

func output(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, err := exec.Command(tool(t, name), args...).Output()
	require.NoError(t, err)
	return out
}

// A partition table counts sectors: nothing boots from a device with other ones than the image's.
func TestLoopLargeSectors(t *testing.T) {
	device, file := loopDevice(t, 16*mib, "--sector-size", "4096")
	require.True(t, refusedBy(t, device, device, 0).Has(SectorSize))
	// past the verdict, too
	target := targetOf(t, device)
	err := target.CheckAccess(t.Context())
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "its logical sectors have 4096 bytes")
	after, err := os.ReadFile(file)
	require.NoError(t, err)
	requireAll(t, 0, after, "nothing was written")
}

// However a device is named, it is the same device; and --force-device takes each name of one that has no
// serial.
func TestLoopNames(t *testing.T) {
	device, _ := loopDevice(t, 16*mib)
	name := filepath.Base(device)
	link := filepath.Join(t.TempDir(), "by-id")
	require.NoError(t, os.Symlink(device, link))
	machine, err := Inspect(t.Context())
	require.NoError(t, err)
	for _, path := range []string{device, "/dev/../dev/" + name, "//dev//" + name, link} {
		require.True(t, refusedBy(t, path, "", 0).Has(LoopDevice), path)
		for _, force := range []string{device, name, "/dev/../dev/" + name, link} {
			target, err := machine.Choose(path, 0, force)
			require.NoError(t, err, "%s %s", path, force)
			require.Equal(t, device, target.Disk.Path)
		}
		require.True(t, refusedBy(t, path, strings.ToUpper(name), 0).Has(WrongForce))
		require.True(t, refusedBy(t, path, "loop", 0).Has(WrongForce))
	}
	require.True(t, refusedBy(t, strings.ToUpper(device), device, 0).Has(Missing))
}

// BenchmarkLoop compares the writer with the commands that a person would type. Their ratio is what counts:
// a loop device is not a stick.
//
//	go test ./internal/stick -run '^$' -bench Loop -benchtime 3x
func BenchmarkLoop(b *testing.B) {
	const size = 512 * mib
	image := filepath.Join(b.TempDir(), "image")
	require.NoError(b, os.WriteFile(image, pattern(size), 0o600))
	device, _ := loopDevice(b, size+64*mib)
	b.Run("k3splan", func(b *testing.B) {
		b.SetBytes(size)
		for range b.N {
			file, err := os.Open(image)
			require.NoError(b, err)
			_, err = Write(b.Context(), choose(b, device), Image{"image", size, file}, nil)
			require.NoError(b, err)
			require.NoError(b, file.Close())
		}
	})
	for name, flags := range map[string][]string{"dd+cmp": nil, "dd-fsync+cmp": {"conv=fsync"}} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for range b.N {
				runTool(b, "dd", append([]string{"if=" + image, "of=" + device, "bs=4M", "oflag=direct"}, flags...)...)
				runTool(b, "blockdev", "--flushbufs", device)
				runTool(b, "cmp", "--bytes", fmt.Sprint(size), image, device)
			}
		})
	}
}
