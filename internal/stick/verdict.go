package stick

import (
	"fmt"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/text"
)

// Reason is why a device is refused.
type Reason string

const (
	Missing    Reason = "missing"       // the device does not exist
	NotBlock   Reason = "not-block"     // the path is a file, a directory, …
	Partition  Reason = "partition"     // a part of a disk
	NotDisk    Reason = "not-disk"      // a mapping, an array, an optical drive
	NoMedium   Reason = "no-medium"     // a reader without a card
	ReadOnly   Reason = "read-only"     // the write protection is on
	System     Reason = "system"        // it holds the running system
	Mounted    Reason = "mounted"       // a file system on it is in use
	Swapping   Reason = "swap"          // it is in use as swap
	Held       Reason = "held"          // a mapping, an array or a loop device uses it
	Opened     Reason = "open"          // a process has it open
	SectorSize Reason = "sector-size"   // its logical sectors are not of 512 bytes
	NotStick   Reason = "not-removable" // not a removable USB device; --force-device
	LoopDevice Reason = "loop"          // a file that looks like a disk; --force-device
	TooSmall   Reason = "too-small"     // the image does not fit
	WrongForce Reason = "wrong-force"   // --force-device names another device
	Ambiguous  Reason = "same-as-other" // --force-device fits two devices
)

// Refusal is one reason with its message and advice.
type Refusal struct {
	Reason  Reason `json:"reason"`
	Message string `json:"message"` // follows the device: "it is read-only"
	Hint    string `json:"hint"`
}

// Refused is an [ErrRefused] about a device.
type Refused struct {
	Device   string
	Refusals []Refusal // at least one
}

// Error names the device and every reason in one line.
func (r *Refused) Error() string {
	var messages []string
	for _, refusal := range r.Refusals {
		messages = append(messages, refusal.Message)
	}
	return fmt.Sprintf("%s was refused: %s", r.Device, strings.Join(messages, "; "))
}

// Is reports that it is an [ErrRefused].
func (r *Refused) Is(target error) bool { return target == ErrRefused }

// Has reports whether the reason is among the refusals.
func (r *Refused) Has(reason Reason) bool {
	return slices.ContainsFunc(r.Refusals, func(refusal Refusal) bool { return refusal.Reason == reason })
}

// advised returns the refusal with the advice about its first reason: the later ones matter only when
// that is fixed.
func (r *Refused) advised() error { return diag.WithHint(r, r.Refusals[0].Hint) }

// Disk is a whole disk: what it is, what is on it, and why it is refused.
type Disk struct {
	Path      string `json:"path"`
	Number    string `json:"number"` // major:minor
	Size      int64  `json:"size"`   // bytes; 0 without a medium
	Model     string `json:"model"`  // with the vendor, where the system names one
	Serial    string `json:"serial"`
	Bus       string `json:"bus"` // usb, sata, nvme, mmc, …; empty if unknown
	Removable bool   `json:"removable"`
	ReadOnly  bool   `json:"read_only"`
	// SectorSize is the size of its logical sectors in bytes, 0 if lsblk does not report it.
	SectorSize int64     `json:"sector_size"`
	Table      string    `json:"table"` // gpt, dos, …; empty if there is none
	Contents   []Content `json:"contents"`
	// ForceName is what --force-device expects for this disk: its serial, or its path if it has none or
	// shares it with another disk.
	ForceName string `json:"force_name"`
	// Refusals are empty for a disk that can be written to without --force-device.
	Refusals []Refusal `json:"refusals"`
}

// Content is a partition, a mapping, or a file system on the disk itself.
type Content struct {
	Path   string   `json:"path"`
	Kind   string   `json:"kind"` // the file system, or lsblk's word (part, crypt, lvm, …)
	Label  string   `json:"label"`
	Size   int64    `json:"size"` // bytes
	Mounts []string `json:"mounts"`
}

// Stick reports whether it is a removable USB device.
func (d Disk) Stick() bool { return d.Removable && d.Bus == "usb" }

// Disks returns the whole disks, in the order of the system: those that can be written to and, with their
// refusals, those that cannot. Loop devices, disks in memory and drives that are not connected are omitted.
func (m *Machine) Disks() []Disk {
	disks := []Disk{}
	for _, n := range m.nodes {
		if n.kind != "disk" || len(n.below) > 0 {
			continue
		}
		if strings.HasPrefix(n.name, "zram") || strings.HasPrefix(n.name, "ram") {
			continue
		}
		if n.size == 0 && !n.removable { // an unconnected nbd
			continue
		}
		disks = append(disks, m.disk(n))
	}
	return disks
}

func (m *Machine) disk(n *node) Disk {
	d := Disk{
		Path:       n.path,
		Number:     n.number,
		Size:       n.size,
		Model:      diag.Printable(modelOf(n)),
		Serial:     diag.Printable(n.serial),
		Bus:        diag.Printable(n.bus),
		Removable:  n.removable,
		ReadOnly:   n.readOnly,
		SectorSize: n.sector,
		Table:      diag.Printable(n.table),
		Contents:   []Content{},
		ForceName:  m.forceName(n),
		Refusals:   m.judge(n, 0, ""),
	}
	for _, part := range withAbove(n) {
		if part == n && part.fstype == "" && len(m.uses[part].points) == 0 {
			continue
		}
		kind := part.fstype
		if kind == "" {
			kind = part.kind
		}
		label := part.label
		if label == "" {
			label = part.partLabel
		}
		content := Content{Path: part.path, Kind: diag.Printable(kind), Label: diag.Printable(label), Size: part.size, Mounts: []string{}}
		for _, point := range slices.Sorted(slices.Values(m.uses[part].points)) {
			content.Mounts = append(content.Mounts, diag.Printable(point))
		}
		if m.uses[part].swap {
			content.Mounts = append(content.Mounts, swapMount)
		}
		d.Contents = append(d.Contents, content)
	}
	return d
}

// modelOf puts the vendor before the model, unless the vendor is worthless: "ATA" for every SATA disk, a PCI
// number with virtio, or what the model repeats.
func modelOf(n *node) string {
	vendor := n.vendor
	if vendor == "ATA" || strings.HasPrefix(vendor, "0x") || strings.HasPrefix(strings.ToLower(n.model), strings.ToLower(vendor)) {
		vendor = ""
	}
	return strings.TrimSpace(vendor + " " + n.model)
}

// forceName returns what --force-device expects for a device; see Disk.ForceName.
func (m *Machine) forceName(n *node) string {
	if n.serial == "" || diag.Printable(n.serial) != n.serial {
		return n.path
	}
	for _, other := range m.nodes {
		if other != n && other.kind == n.kind && other.serial == n.serial {
			return n.path
		}
	}
	return n.serial
}

// isForced reports whether force, the argument of --force-device, names the device. One with a serial of its
// own is named by it alone: /dev/sdb may be another disk tomorrow. Any other is named by its path, by the
// kernel's name, or by a link to it.
func (m *Machine) isForced(n *node, force string) bool {
	name := m.forceName(n)
	if force == name {
		return true
	}
	return name == n.path && force != "" && (force == n.name || n.number != "" && deviceNumber(force) == n.number)
}

// judge returns why the device is refused, the weightiest reason first. need is the size of the image in
// bytes, 0 if it is not known yet; force is what --force-device names, or empty. force lifts NotStick and
// LoopDevice, and nothing else.
func (m *Machine) judge(n *node, need int64, force string) []Refusal {
	refusals := []Refusal{}
	refuse := func(reason Reason, message, hint string) {
		refusals = append(refusals, Refusal{reason, message, hint})
	}
	switch {
	case n.kind == "part":
		refuse(Partition, "it is a partition", "name the whole disk: "+paths(roots(n)))
		return append(refusals, m.judgeUse(n)...)
	case n.kind != "disk" && n.kind != "loop", len(n.below) > 0:
		hint := "name a disk; `k3splan boot-stick --list` shows them"
		if len(n.below) > 0 {
			hint = "it is built on " + paths(roots(n)) + "; name a disk that is not in use"
		}
		message := "it is not a disk but " + text.WithArticle(diag.Printable(n.kind))
		if n.kind == "disk" {
			message = "it consists of other devices" // bcache
		}
		refuse(NotDisk, message, hint)
		return append(refusals, m.judgeUse(n)...)
	}
	if n.size == 0 {
		refuse(NoMedium, "it has no medium", "insert a card, or name another device")
	}
	refusals = append(refusals, m.judgeUse(n)...)
	if n.readOnly {
		refuse(ReadOnly, "it is read-only", "move its write-protect switch, or use another stick")
	}
	if n.size > 0 && n.sector != 0 && n.sector != tableSector {
		refusals = append(refusals, wrongSectors(n.sector))
	}
	refusals = append(refusals, m.judgeForce(n, force)...)
	if n.size > 0 && n.size < need {
		refuse(TooSmall, fmt.Sprintf("it holds %s and the image needs %s", FormatSize(n.size), FormatSize(need)), "use a larger stick")
	}
	return refusals
}

// wrongSectors refuses a device whose logical sectors are not those by which the image's partition table
// counts: the machine would look for the partitions elsewhere, and find none.
func wrongSectors(size int64) Refusal {
	return Refusal{SectorSize, fmt.Sprintf("its logical sectors have %d bytes, and nothing boots from it: the image's partition table counts sectors of %d bytes", size, tableSector),
		"use another stick or another USB enclosure, with sectors of 512 bytes (lsblk -o NAME,LOG-SEC)"}
}

// judgeUse returns refusals for all uses of the device and of everything that is built on it.
func (m *Machine) judgeUse(n *node) []Refusal {
	var all use
	var swaps []string
	for _, part := range withAbove(n) {
		u := m.uses[part]
		all.system = append(all.system, u.system...)
		all.points = append(all.points, u.points...)
		all.foreign = append(all.foreign, u.foreign...)
		all.openers = append(all.openers, u.openers...)
		all.pool = all.pool || u.pool
		if u.swap {
			swaps = append(swaps, part.path)
		}
		for _, holder := range u.holders {
			all.holders = append(all.holders, "/dev/"+holder)
		}
		if part != n && part.kind != "part" {
			all.holders = append(all.holders, part.path)
		}
	}
	all.holders = append(all.holders, m.sharers(n)...)
	var refusals []Refusal
	refuse := func(reason Reason, message, hint string) {
		refusals = append(refusals, Refusal{reason, message, hint})
	}
	if len(all.system) > 0 {
		// Alone: unmounting the rest would not help.
		refuse(System, "it holds the running system ("+list(all.system)+")", "name another device; `k3splan boot-stick --list` shows them")
		return refusals
	}
	switch {
	case len(all.points) > 0:
		refuse(Mounted, "it is mounted at "+list(all.points), "if it is the right one: umount "+shellWords(all.points))
	case len(all.foreign) > 0:
		refuse(Mounted, "it is mounted at "+list(all.foreign)+" in another mount namespace", "if it is the right one, stop the container or service that has it mounted")
	case all.pool:
		refuse(Mounted, "it is part of a file system or pool in use", "if it is the right one, unmount that file system, or export that pool")
	}
	if len(swaps) > 0 {
		refuse(Swapping, "it is in use as swap ("+list(swaps)+")", "if it is the right one: swapoff "+shellWords(swaps))
	}
	if len(refusals) == 0 && len(all.holders) > 0 {
		refuse(Held, "it is in use by "+list(all.holders), "if it is the right one, close what uses it (cryptsetup close, vgchange -an, mdadm --stop, losetup --detach)")
	}
	if len(refusals) == 0 && len(all.openers) > 0 {
		refuse(Opened, "it is open in "+list(all.openers), "if it is the right one, wait until that program has finished, or end it")
	}
	return refusals
}

// sharers returns other loop devices over the file behind a loop device.
func (m *Machine) sharers(n *node) (paths []string) {
	own, isLoop := m.backing[n.name]
	if !isLoop {
		return nil
	}
	for _, other := range m.nodes {
		if behind, isLoop := m.backing[other.name]; isLoop && other != n && behind.same(own) {
			paths = append(paths, other.path)
		}
	}
	return paths
}

// judgeForce demands --force-device where the device is not a stick.
func (m *Machine) judgeForce(n *node, force string) []Refusal {
	name := m.forceName(n)
	switch {
	case m.isForced(n, force):
		return nil
	case force != "" && force == n.serial:
		return []Refusal{{Ambiguous, "another disk has the same serial", "name it by its path: --force-device " + shellWord(name)}}
	case force != "":
		return []Refusal{{WrongForce, fmt.Sprintf("--force-device names %q, and this is %q", force, name),
			"check `k3splan boot-stick --list` again before you go on"}}
	case n.kind == "loop":
		return []Refusal{{LoopDevice, "it is a file behind a loop device", "if that is what you want: --force-device " + shellWord(name)}}
	case n.bus == "usb" && n.removable:
		return nil
	}
	what := "removable"
	if !n.removable {
		what = "not removable"
	}
	bus := "on an unknown bus"
	if n.bus != "" {
		bus = "on the bus " + diag.Printable(n.bus)
	}
	return []Refusal{{NotStick, "it is not a removable USB device (" + what + ", " + bus + ")",
		"if you are sure that it is the right one: --force-device " + shellWord(name)}}
}

// roots returns the disks that a device is built on.
func roots(n *node) []*node {
	var found []*node
	for _, lower := range withBelow(n) {
		if len(lower.below) == 0 && lower != n {
			found = append(found, lower)
		}
	}
	return found
}

func paths(nodes []*node) string {
	var names []string
	for _, n := range nodes {
		names = append(names, n.path)
	}
	return list(names)
}
