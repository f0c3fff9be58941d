package stick

import (
	"maps"
	"path"
	"slices"
	"strings"
)

// facts are what lsblk and the kernel report about block devices. Devices are named by their kernel
// names ("sdb1"), unless stated otherwise.
type facts struct {
	nodes  []*node
	mounts []mount
	swaps  []swap
	// holders are the devices that have a device open as part of themselves
	// (/sys/class/block/NAME/holders).
	holders map[string][]string
	// pools are the members of each mounted file system that spreads over several devices
	// (/sys/fs/btrfs/UUID/devices and the like).
	pools map[string][]string
	// imported are the names of the imported ZFS pools.
	imported []string
	// backing is what is behind each loop device (/sys/class/block/NAME/loop/backing_file).
	backing map[string]backing
	// openers are the processes that have a device open, by its number.
	openers map[string][]string
	// sequences and places distinguish a device from its successor; see identity.
	sequences, places map[string]string
}

// backing is what is behind a loop device: a file, or another block device.
type backing struct {
	path   string
	number string // major:minor of a block device, or empty
	inode  string // the identity of a file, or empty if it is unknown
}

// same reports whether two loop devices have the same file behind them.
func (b backing) same(other backing) bool {
	if b.number != "" || other.number != "" {
		return false
	}
	if b.inode != "" && other.inode != "" {
		return b.inode == other.inode
	}
	return b.path == other.path
}

// Machine is the state of this machine's block devices at one moment.
type Machine struct {
	facts
	uses map[*node]use // computed once by trace
}

// use is what a device is used for, without what is built on it.
type use struct {
	points  []string // where it is mounted
	foreign []string // where it is mounted in the mount namespaces of containers
	system  []string // the part of the running system that it holds, as mount points
	pool    bool     // it is one of several devices of a mounted file system
	swap    bool
	holders []string
	openers []string // processes
}

// systemPoints are mount points that make a disk part of the running system: those of an installed system,
// and those where live media keep their root.
var systemPoints = []string{
	"/", "/boot", "/boot/efi", "/efi", "/esp", "/etc", "/nix", "/nix/store", "/nix/.ro-store", "/nix/.rw-store", "/sysroot", "/usr", "/var",
	"/iso", "/cdrom", "/isodevice", "/run/archiso/bootmnt", "/run/initramfs/live", "/run/live/medium", "/lib/live/mount/medium",
}

func isSystem(point string) bool { return slices.Contains(systemPoints, point) }

// spreading are the file systems that can have several devices, which share one UUID, and of which
// mountinfo names one or none.
var spreading = []string{"btrfs", "bcachefs"}

// newMachine connects the facts with each other.
func newMachine(f facts) *Machine {
	m := &Machine{facts: f}
	for _, n := range m.nodes {
		for _, holder := range m.holders[n.name] {
			if upper := m.byName(holder); upper != nil {
				link(n, upper)
			}
		}
		// Nothing but this shows a loop device over another device: the kernel does not count it as a holder.
		if behind, isLoop := m.backing[n.name]; isLoop {
			lower := m.byNumber(behind.number)
			if lower == nil {
				lower = m.byPath(behind.path)
			}
			if lower != nil {
				link(lower, n)
			}
		}
	}
	m.trace()
	return m
}

func (m *Machine) byName(name string) *node {
	for _, n := range m.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

func (m *Machine) byNumber(number string) *node {
	for _, n := range m.nodes {
		if number != "" && n.number == number {
			return n
		}
	}
	return nil
}

// byPath returns the device with one of its usual names.
func (m *Machine) byPath(path string) *node {
	for _, n := range m.nodes {
		if path == n.path || path == "/dev/"+n.name {
			return n
		}
	}
	return nil
}

// trace fills uses.
func (m *Machine) trace() {
	m.uses = map[*node]use{}
	for _, n := range m.nodes {
		u := use{holders: m.holders[n.name], openers: m.openers[n.number]}
		for _, point := range n.mounts {
			if point == swapMount {
				u.swap = true
			} else {
				u.points = append(u.points, point)
			}
		}
		m.uses[n] = u
	}
	for _, mount := range m.mounts {
		for _, n := range m.devicesOf(mount) {
			u := m.uses[n]
			switch {
			case mount.elsewhere:
				u.foreign = append(u.foreign, mount.point)
			case !slices.Contains(u.points, mount.point):
				u.points = append(u.points, mount.point)
			}
			m.uses[n] = u
		}
	}
	m.spread()
	for _, swap := range m.swaps {
		n := m.byNumber(swap.number)
		if n == nil {
			n = m.byPath(swap.path)
		}
		if n != nil {
			u := m.uses[n]
			u.swap = true
			m.uses[n] = u
		}
	}
	m.markSystem()
}

// spread copies the mount points of a file system to all of its members.
func (m *Machine) spread() {
	pooled := func(n *node) {
		u := m.uses[n]
		u.pool = true
		m.uses[n] = u
	}
	for _, names := range m.pools {
		for _, name := range names {
			if n := m.byName(name); n != nil {
				pooled(n)
			}
		}
	}
	for _, n := range m.nodes {
		if n.fstype == "zfs_member" && slices.Contains(m.imported, n.label) {
			pooled(n)
		}
	}
	for _, group := range m.groups() {
		var points []string
		for _, n := range group {
			for _, point := range m.uses[n].points {
				if !slices.Contains(points, point) {
					points = append(points, point)
				}
			}
		}
		for _, n := range group {
			u := m.uses[n]
			u.points = points
			m.uses[n] = u
		}
	}
}

// groups returns the devices that make up one file system: by equal UUID, and by what the kernel reports of
// mounted ones.
func (m *Machine) groups() [][]*node {
	members := map[string][]*node{}
	for _, n := range m.nodes {
		if n.uuid != "" && slices.Contains(spreading, n.fstype) {
			members[n.uuid] = append(members[n.uuid], n)
		}
	}
	var groups [][]*node
	for _, uuid := range slices.Sorted(maps.Keys(members)) {
		groups = append(groups, members[uuid])
	}
	for _, pool := range slices.Sorted(maps.Keys(m.pools)) {
		var group []*node
		for _, name := range m.pools[pool] {
			if n := m.byName(name); n != nil {
				group = append(group, n)
			}
		}
		groups = append(groups, group)
	}
	return groups
}

// devicesOf returns the devices of a mount: by number, by its source (several joined by ":" with bcachefs),
// or by the name of a ZFS pool.
func (m *Machine) devicesOf(mount mount) []*node {
	if n := m.byNumber(mount.number); n != nil {
		return []*node{n}
	}
	var found []*node
	if mount.fstype == "zfs" {
		pool, _, _ := strings.Cut(mount.source, "/")
		for _, n := range m.nodes {
			if n.fstype == "zfs_member" && n.label == pool {
				found = append(found, n)
			}
		}
		return found
	}
	for _, source := range strings.Split(mount.source, ":") {
		if n := m.byPath(source); n != nil {
			found = append(found, n)
		}
	}
	return found
}

// markSystem follows the running system down: from its mount points to their devices, from an overlay to
// its layers, from a loop device to its file.
func (m *Machine) markSystem() {
	for _, n := range m.nodes {
		for _, point := range m.uses[n].points {
			if isSystem(point) {
				m.markDevice(n, point, map[*node]bool{})
			}
		}
	}
	for _, mount := range m.mounts {
		if isSystem(mount.point) && !mount.elsewhere {
			for _, layer := range mount.layers() {
				m.markFile(layer, mount.point, map[*node]bool{})
			}
		}
	}
}

func (m *Machine) markDevice(n *node, point string, seen map[*node]bool) {
	for _, lower := range withBelow(n) {
		if seen[lower] {
			continue
		}
		seen[lower] = true
		u := m.uses[lower]
		if !slices.Contains(u.system, point) {
			u.system = append(u.system, point)
		}
		m.uses[lower] = u
		if behind := m.backing[lower.name]; behind.path != "" {
			m.markFile(behind.path, point, seen)
		}
	}
}

// markFile marks the devices that hold a file or directory. The path can be from before the root was
// switched, and lead nowhere; the mounted medium is then found by its own mount point.
func (m *Machine) markFile(file, point string, seen map[*node]bool) {
	holder := mount{}
	for _, mount := range m.mounts {
		if !mount.elsewhere && under(file, mount.point) && len(mount.point) >= len(holder.point) {
			holder = mount // of equal ones the last hides the others
		}
	}
	for _, n := range m.nodes {
		if slices.Contains(m.uses[n].points, holder.point) {
			m.markDevice(n, point, seen)
		}
	}
}

func under(file, directory string) bool {
	directory = path.Clean(directory)
	return directory == "/" || file == directory || strings.HasPrefix(file, directory+"/")
}
