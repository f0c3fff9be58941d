package stick

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errNoMedium is the error of a reader without a card.
var errNoMedium = syscall.ENOMEDIUM

// deviceNumber returns major:minor of the block device at path, or "".
func deviceNumber(path string) string {
	var stat unix.Stat_t
	if unix.Stat(path, &stat) != nil || stat.Mode&unix.S_IFMT != unix.S_IFBLK {
		return ""
	}
	return formatNumber(uint64(stat.Rdev))
}

func formatNumber(number uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number))
}

// openedNumber returns major:minor of the block device that a link in /proc/PID/fd leads to, or "". It does
// not wait for file servers.
func openedNumber(link string) string {
	var stat unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &stat)
	if err != nil || stat.Mode&unix.S_IFMT != unix.S_IFBLK {
		return ""
	}
	return fmt.Sprintf("%d:%d", stat.Rdev_major, stat.Rdev_minor)
}

// backingOf returns what is behind a loop device. The kernel's path can lead nowhere: the file was
// deleted, or is in another mount namespace; then the loop device itself is asked, as far as this user may
// open it.
func backingOf(loop, path string) backing {
	b := backing{path: path}
	var stat unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_INO, &stat) == nil {
		if stat.Mode&unix.S_IFMT == unix.S_IFBLK {
			b.number = fmt.Sprintf("%d:%d", stat.Rdev_major, stat.Rdev_minor)
		} else {
			b.inode = fmt.Sprintf("%d:%d %d", stat.Dev_major, stat.Dev_minor, stat.Ino)
		}
		return b
	}
	fd, err := unix.Open(loop, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return b
	}
	defer unix.Close(fd)
	status, err := unix.IoctlLoopGetStatus64(fd)
	switch {
	case err != nil:
	case status.Rdevice != 0:
		b.number = formatNumber(status.Rdevice)
	default:
		b.inode = fmt.Sprintf("%s %d", formatNumber(status.Device), status.Inode)
	}
	return b
}

// disk is an opened block device.
type disk struct {
	file   *os.File
	number string
	bytes  int64
	sector int64
}

// CheckAccess checks that this user can write to the device now, and changes nothing: it opens the device
// for writing and closes it again. The error is a *[Failure], or an [ErrRefused].
func (t *Target) CheckAccess(ctx context.Context) error {
	d, err := t.open(ctx)
	if err != nil {
		return err
	}
	return d.Close()
}

// open opens the device for this process alone. O_EXCL fails as long as the device or a part of it is
// mounted, is swap, or belongs to a mapping, an array or a ZFS pool, in whatever namespace; and nothing of
// the kind can begin until it is closed.
func (t *Target) open(ctx context.Context) (*disk, error) {
	fail := func(kind Kind, err error) (*disk, error) {
		return nil, (&Failure{Kind: kind, Device: t.Disk.Path, Offset: -1, Err: err}).advised()
	}
	fd, err := unix.Open(t.Disk.Path, unix.O_RDWR|unix.O_EXCL|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		kind := classifyOpen(err)
		if kind == Denied {
			err = denied(t.Disk.Path, err)
		}
		return fail(kind, err)
	}
	d := &disk{file: os.NewFile(uintptr(fd), t.Disk.Path)}
	if err := d.measure(); err != nil {
		d.Close()
		return fail(classify(err, d.Present()), err)
	}
	if err := d.compare(t.identity); err != nil {
		d.Close()
		return fail(Replaced, err)
	}
	if d.sector != tableSector {
		d.Close()
		return nil, (&Refused{t.Disk.Path, []Refusal{wrongSectors(d.sector)}}).advised()
	}
	if readOnly, err := unix.IoctlGetUint32(fd, unix.BLKROGET); err != nil || readOnly != 0 {
		d.Close()
		if err == nil {
			err = errors.New("it is read-only")
		}
		return fail(Broken, err)
	}
	if err := d.lock(ctx); err != nil {
		d.Close()
		return fail(classify(err, d.Present()), err)
	}
	return d, nil
}

// denied adds to an error which group may open the device.
func denied(path string, err error) error {
	info, statErr := os.Stat(path)
	if statErr != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return err
	}
	group := strconv.FormatUint(uint64(stat.Gid), 10)
	if known, lookupErr := user.LookupGroupId(group); lookupErr == nil {
		group = known.Name
	}
	return fmt.Errorf("%w (group %s, mode %s)", err, group, info.Mode().Perm())
}

func (d *disk) measure() error {
	var stat unix.Stat_t
	if err := unix.Fstat(d.fd(), &stat); err != nil {
		return fmt.Errorf("inspect the opened device: %w", err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFBLK {
		return errors.New("it is not a block device any more")
	}
	d.number = formatNumber(uint64(stat.Rdev))
	size, err := d.size()
	if err != nil {
		return fmt.Errorf("read its size: %w", err)
	}
	sector, err := unix.IoctlGetUint32(d.fd(), unix.BLKSSZGET)
	if err != nil {
		return fmt.Errorf("read its sector size: %w", err)
	}
	if sector == 0 || blockSize%sector != 0 {
		return fmt.Errorf("unsupported sector size of %d bytes", sector)
	}
	d.bytes, d.sector = size, int64(sector)
	return nil
}

// compare compares the opened device, which cannot be exchanged any more, with the one that was shown.
func (d *disk) compare(shown identity) error {
	if d.number != shown.number {
		return fmt.Errorf("its number is %s and was %s", d.number, shown.number)
	}
	if d.bytes != shown.size {
		return fmt.Errorf("its size is %d bytes and was %d", d.bytes, shown.size)
	}
	if place, err := os.Readlink(filepath.Join("/sys/dev/block", d.number)); err == nil && place != shown.place {
		return errors.New("it was plugged in again")
	}
	sequence, err := d.sequence()
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) { // before Linux 5.15
		return nil
	}
	if err != nil {
		return fmt.Errorf("read its sequence number: %w", err)
	}
	if now := strconv.FormatUint(sequence, 10); now != shown.sequence {
		return fmt.Errorf("its sequence number is %s and was %s", now, shown.sequence)
	}
	return nil
}

// lock keeps udev from reading half a partition table (systemd's block device locking: an exclusive flock
// on the whole device). udev holds its own lock for moments only.
func (d *disk) lock(ctx context.Context) error {
	const tries, pause = 50, 100 * time.Millisecond
	for i := 0; ; i++ {
		err := unix.Flock(d.fd(), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || i == tries {
			if errors.Is(err, unix.EWOULDBLOCK) {
				return fmt.Errorf("another program has locked it: %w", unix.EBUSY)
			}
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *disk) fd() int { return int(d.file.Fd()) }

func (d *disk) size() (int64, error) {
	size, err := d.getUint64(unix.BLKGETSIZE64)
	return int64(size), err
}

func (d *disk) sequence() (uint64, error) { return d.getUint64(unix.BLKGETDISKSEQ) }

// getUint64 calls an ioctl that returns 64 bits on every architecture.
func (d *disk) getUint64(request uint) (uint64, error) {
	var value uint64
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.file.Fd(), uintptr(request), uintptr(unsafe.Pointer(&value)))
	if errno != 0 {
		return 0, errno
	}
	return value, nil
}

func (d *disk) ReadAt(p []byte, offset int64) (int, error)  { return d.file.ReadAt(p, offset) }
func (d *disk) WriteAt(p []byte, offset int64) (int, error) { return d.file.WriteAt(p, offset) }
func (d *disk) Sync() error                                 { return d.file.Sync() }
func (d *disk) Close() error                                { return d.file.Close() }
func (d *disk) Size() int64                                 { return d.bytes }
func (d *disk) Sector() int64                               { return d.sector }

// DropCache makes the kernel drop what it has cached of the device's content.
func (d *disk) DropCache() error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.file.Fd(), unix.BLKFLSBUF, 0)
	if errno == unix.EACCES || errno == unix.EPERM {
		return nil // needs root; direct I/O goes past the cache in any case
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// RereadTable makes the kernel read the partition table again. It waits a little for partitions that are in
// use. It needs root; for other users udev does the same once the device is closed.
func (d *disk) RereadTable() error {
	const tries, pause = 10, 200 * time.Millisecond
	for i := 0; ; i++ {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.file.Fd(), unix.BLKRRPART, 0)
		switch {
		case errno == 0, errno == unix.EINVAL: // a device without partitions
			return nil
		case errno == unix.EACCES || errno == unix.EPERM:
			if _, err := os.Stat("/run/udev/control"); err == nil {
				return nil
			}
			return errno
		case errno != unix.EBUSY || i == tries:
			return errno
		}
		time.Sleep(pause)
	}
}

// Present reports whether the device is still there. The size of an unplugged device becomes 0.
func (d *disk) Present() bool {
	size, err := d.size()
	if err != nil || size == 0 {
		return false
	}
	_, err = os.Stat(filepath.Join("/sys/dev/block", d.number))
	return d.number == "" || err == nil
}
