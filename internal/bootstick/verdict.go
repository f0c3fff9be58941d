package bootstick

import (
	"fmt"
	"slices"
	"strings"

	"k3splan/internal/diag"
)

// Reason names why a device is not written to.
type Reason string

const (
	Missing    Reason = "missing"       // there is no such device
	NotBlock   Reason = "not-block"     // the path is a file, a directory, …
	Partition  Reason = "partition"     // a part of a disk
	NotDisk    Reason = "not-disk"      // a mapping, an array, an optical drive
	NoMedium   Reason = "no-medium"     // a reader without a card
	ReadOnly   Reason = "read-only"     // the write protection is on
	System     Reason = "system"        // it holds the running system
	Mounted    Reason = "mounted"       // a file system on it is in use
	Swapping   Reason = "swap"          // it is in use as swap
	Held       Reason = "held"          // a mapping or an array is made of it
	NotStick   Reason = "not-removable" // not a removable USB device; --force-device
	LoopDevice Reason = "loop"          // a file that looks like a disk; --force-device
	TooSmall   Reason = "too-small"     // the image does not fit
	WrongForce Reason = "wrong-force"   // --force-device names another device
	Ambiguous  Reason = "same-as-other" // --force-device fits two devices
)

// Refusal is one reason with what to tell the person.
type Refusal struct {
	Reason  Reason `json:"reason"`
	Message string `json:"message"` // follows the device: "it is read-only"
	Hint    string `json:"hint"`
}

// Refused says why a device is not written to. Nothing was changed.
type Refused struct {
	Device   string
	Refusals []Refusal // at least one
}

// Error gives the device and every reason in one line.
func (r *Refused) Error() string {
	var messages []string
	for _, refusal := range r.Refusals {
		messages = append(messages, refusal.Message)
	}
	return fmt.Sprintf("%s is not written to: %s", r.Device, strings.Join(messages, "; "))
}

// Hint says how to mend the first reason that stands in the way: the later ones
// matter only once it is gone.
func (r *Refused) Hint() string { return r.Refusals[0].Hint }

// Has reports whether the reason is among the refusals.
func (r *Refused) Has(reason Reason) bool {
	return slices.ContainsFunc(r.Refusals, func(refusal Refusal) bool { return refusal.Reason == reason })
}

// Disk is a whole disk: what it is, what is on it, and why it is not written to.
type Disk struct {
	Path      string    `json:"path"`
	Number    string    `json:"number"` // major:minor
	Size      int64     `json:"size"`   // bytes; 0 without a medium
	Model     string    `json:"model"`  // with the vendor, where the system names one
	Serial    string    `json:"serial"`
	Bus       string    `json:"bus"` // usb, sata, nvme, mmc, …; empty if unknown
	Removable bool      `json:"removable"`
	ReadOnly  bool      `json:"readOnly"`
	Table     string    `json:"table"` // gpt, dos, …; empty if there is none
	Contents  []Content `json:"contents"`
	// ForceName is what --force-device takes for this disk: its serial, or its
	// path if it has none or shares it with another disk.
	ForceName string `json:"forceName"`
	// Refusals are empty for a disk that can be written to without being forced.
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

// Disks lists the whole disks, in the order of the system: those that can be
// written to and, with their refusals, those that cannot. Loop devices, disks
// in memory and drives that are not connected are left out.
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
		Path:      n.path,
		Number:    n.number,
		Size:      n.size,
		Model:     diag.Printable(modelOf(n)),
		Serial:    diag.Printable(n.serial),
		Bus:       diag.Printable(n.bus),
		Removable: n.removable,
		ReadOnly:  n.readOnly,
		Table:     diag.Printable(n.table),
		Contents:  []Content{},
		ForceName: m.forceName(n),
		Refusals:  m.judge(n, 0, ""),
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

// modelOf puts the vendor in front of the model, unless it says nothing: "ATA"
// for every SATA disk, a PCI number with virtio, or what the model repeats.
func modelOf(n *node) string {
	vendor := n.vendor
	if vendor == "ATA" || strings.HasPrefix(vendor, "0x") || strings.HasPrefix(strings.ToLower(n.model), strings.ToLower(vendor)) {
		vendor = ""
	}
	return strings.TrimSpace(vendor + " " + n.model)
}

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

// judge says why the device is not written to, the weightiest reason first.
// need is the size of the image in bytes, 0 if it is not known yet; force is
// what --force-device names, or empty. force lifts NotStick and LoopDevice, and
// nothing else.
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
			hint = "it stands on " + paths(roots(n)) + "; name a disk that is not in use"
		}
		message := "it is not a disk but " + article(diag.Printable(n.kind))
		if n.kind == "disk" {
			message = "it is made of other devices" // bcache
		}
		refuse(NotDisk, message, hint)
		return append(refusals, m.judgeUse(n)...)
	}
	if n.size == 0 {
		refuse(NoMedium, "there is no medium in it", "put in a card, or name another device")
	}
	refusals = append(refusals, m.judgeUse(n)...)
	if n.readOnly {
		refuse(ReadOnly, "it is read-only", "move its write-protect switch, or take another stick")
	}
	refusals = append(refusals, m.judgeForce(n, force)...)
	if n.size > 0 && n.size < need {
		refuse(TooSmall, fmt.Sprintf("it holds %s and the image needs %s", FormatSize(n.size), FormatSize(need)), "take a larger stick")
	}
	return refusals
}

// judgeUse says what the device and everything that stands on it serves for.
func (m *Machine) judgeUse(n *node) []Refusal {
	var system, points, swaps, holders []string
	pooled := false
	for _, part := range withAbove(n) {
		u := m.uses[part]
		system = append(system, u.system...)
		points = append(points, u.points...)
		pooled = pooled || u.pool
		if u.swap {
			swaps = append(swaps, part.path)
		}
		for _, holder := range u.holders {
			holders = append(holders, "/dev/"+holder)
		}
		if part != n && part.kind != "part" {
			holders = append(holders, part.path)
		}
	}
	var refusals []Refusal
	refuse := func(reason Reason, message, hint string) {
		refusals = append(refusals, Refusal{reason, message, hint})
	}
	if len(system) > 0 {
		// Alone: to unmount the rest of it would be no way out.
		refuse(System, "it holds the running system ("+list(system)+")", "name another device; `k3splan boot-stick --list` shows them")
		return refusals
	}
	if len(points) > 0 {
		refuse(Mounted, "it is mounted at "+list(points), "if it is the right one: umount "+shellWords(points))
	} else if pooled {
		refuse(Mounted, "it is part of a mounted file system", "if it is the right one, unmount that file system")
	}
	if len(swaps) > 0 {
		refuse(Swapping, "it is in use as swap ("+list(swaps)+")", "if it is the right one: swapoff "+shellWords(swaps))
	}
	if len(refusals) == 0 && len(holders) > 0 {
		refuse(Held, "it is part of "+list(holders), "if it is the right one, close what holds it (cryptsetup close, vgchange -an, mdadm --stop)")
	}
	return refusals
}

// judgeForce asks for --force-device where the device is not a stick.
func (m *Machine) judgeForce(n *node, force string) []Refusal {
	name := m.forceName(n)
	if force != "" && force != name {
		if force == n.serial {
			return []Refusal{{Ambiguous, "another disk has the same serial", "name it by its path: --force-device " + shellWord(name)}}
		}
		return []Refusal{{WrongForce, fmt.Sprintf("--force-device names %q, and this is %q", force, name),
			"look at `k3splan boot-stick --list` again before you go on"}}
	}
	if force == name {
		return nil
	}
	if n.kind == "loop" {
		return []Refusal{{LoopDevice, "it is a file behind a loop device", "if that is what you want: --force-device " + shellWord(name)}}
	}
	if n.bus == "usb" && n.removable {
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
	return []Refusal{{NotStick, "it is no removable USB device (" + what + ", " + bus + ")",
		"if you are sure that it is the right one: --force-device " + shellWord(name)}}
}

// roots are the disks that a device stands on.
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

// list gives every name once, in order.
func list(names []string) string {
	sorted := slices.Compact(slices.Sorted(slices.Values(names)))
	for i := range sorted {
		sorted[i] = diag.Printable(sorted[i])
	}
	return strings.Join(sorted, ", ")
}

func article(noun string) string {
	if noun == "" {
		return "something else"
	}
	if strings.ContainsAny(noun[:1], "aeiou") {
		return "an " + noun
	}
	return "a " + noun
}
