package stick

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k3splan/internal/diag"
)

// Target is a device that an image may be written to. Only [Machine.Choose] makes one.
type Target struct {
	Disk     Disk
	identity identity
	force    string
}

// identity distinguishes a device from another one that takes its place.
type identity struct {
	number   string // major:minor
	size     int64  // bytes
	serial   string
	model    string
	place    string // in sysfs
	sequence string // the kernel numbers devices and media, since Linux 5.15
}

func (m *Machine) identity(n *node) identity {
	return identity{
		number:   n.number,
		size:     n.size,
		serial:   n.serial,
		model:    modelOf(n),
		place:    m.places[n.name],
		sequence: m.sequences[n.name],
	}
}

// Choose returns the device at path as something to write to; else the error is a *[Refused]. path can be a
// link (/dev/disk/by-id/…). need is the size of the image in bytes, 0 if it is not known yet: [Write] checks
// again. force is the argument of --force-device, or empty.
func (m *Machine) Choose(path string, need int64, force string) (*Target, error) {
	n, err := m.find(path)
	if err != nil {
		return nil, err
	}
	if refusals := m.judge(n, need, force); len(refusals) > 0 {
		return nil, (&Refused{diag.Printable(path), refusals}).advised()
	}
	return &Target{Disk: m.disk(n), identity: m.identity(n), force: force}, nil
}

// find returns the device at path. It goes by the device's number, so it does not matter by which of its
// names the device is called.
func (m *Machine) find(path string) (*node, error) {
	const look = "`k3splan boot-stick --list` shows the devices"
	refused := func(reason Reason, message, hint string) error {
		return (&Refused{diag.Printable(path), []Refusal{{reason, message, hint}}}).advised()
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		hint := look
		if !filepath.IsAbs(path) {
			if n := m.byPath("/dev/" + path); n != nil {
				hint = "do you mean " + n.path + "?"
			}
		}
		return nil, refused(Missing, "the device does not exist", hint)
	case err != nil:
		return nil, fmt.Errorf("inspect the device: %w", err)
	case info.Mode()&os.ModeDevice == 0 || info.Mode()&os.ModeCharDevice != 0:
		return nil, refused(NotBlock, "it is not a block device", "to keep the image in a file use --output FILE; "+look)
	}
	n := m.byNumber(deviceNumber(path))
	if n == nil {
		return nil, refused(Missing, "lsblk does not list it", look)
	}
	return n, nil
}
