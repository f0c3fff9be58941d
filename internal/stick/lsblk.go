package stick

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// This reader of lsblk's output is our own because its answers decide which disk may be erased: it takes
// the JSON of every version since util-linux 2.27, whose types, keys and escapes differ, and keeps devices
// with several parents, which lsblk prints once below each.

// node is one block device: a disk, a partition, a mapping, an array.
type node struct {
	name      string // the kernel's name, "sdb1", "dm-0"
	path      string // "/dev/sdb1", "/dev/mapper/root"
	number    string // major:minor, or empty where it is not known
	kind      string // lsblk's TYPE: disk, part, loop, rom, crypt, lvm, raid1, …
	size      int64  // bytes; 0 without a medium
	sector    int64  // bytes of a logical sector; 0 where it is not known
	removable bool
	readOnly  bool
	bus       string // lsblk's TRAN: usb, sata, nvme, …
	vendor    string
	model     string
	serial    string
	fstype    string
	label     string
	partLabel string
	uuid      string
	table     string   // gpt, dos, …
	mounts    []string // mount points; "[SWAP]" for swap

	above []*node // what is built on it: partitions, mappings, arrays, loop devices
	below []*node // what it is built on
}

// swapMount is what lsblk prints as the mount point of active swap.
const swapMount = "[SWAP]"

// jsonNode is a device as lsblk prints it. The shapes differ by version:
// util-linux 2.27 to 2.32 prints every value as a string, later ones print
// numbers and booleans; "mountpoints" came with 2.37.
type jsonNode struct {
	Name        string     `json:"name"`
	KName       string     `json:"kname"`
	PKName      string     `json:"pkname"`
	Path        string     `json:"path"`
	Number      string     `json:"maj:min"`
	Type        string     `json:"type"`
	Size        jsonBytes  `json:"size"`
	Sector      jsonBytes  `json:"log-sec"`
	Removable   jsonBool   `json:"rm"`
	ReadOnly    jsonBool   `json:"ro"`
	Tran        string     `json:"tran"`
	Vendor      string     `json:"vendor"`
	Model       string     `json:"model"`
	Serial      string     `json:"serial"`
	FSType      string     `json:"fstype"`
	Label       string     `json:"label"`
	PartLabel   string     `json:"partlabel"`
	UUID        string     `json:"uuid"`
	Table       string     `json:"pttype"`
	MountPoint  string     `json:"mountpoint"`
	MountPoints []string   `json:"mountpoints"`
	Children    []jsonNode `json:"children"`
}

// jsonBool reads true, 1, "1" and "0"; null is false.
type jsonBool bool

func (b *jsonBool) UnmarshalJSON(text []byte) error {
	switch strings.Trim(string(text), `"`) {
	case "true", "1":
		*b = true
	case "false", "0", "null", "":
		*b = false
	default:
		return fmt.Errorf("%s is neither true nor false", text)
	}
	return nil
}

// jsonBytes reads a number of bytes, plain or in quotes; null is 0.
type jsonBytes int64

func (n *jsonBytes) UnmarshalJSON(text []byte) error {
	digits := strings.TrimSpace(strings.Trim(string(text), `"`))
	if digits == "null" || digits == "" {
		*n = 0
		return nil
	}
	value, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return fmt.Errorf("size %s is not a number of bytes", text)
	}
	*n = jsonBytes(value)
	return nil
}

// parseLsblk reads the output of `lsblk --json --bytes`, as a tree or as a list, and returns every device
// once, in the order of its first appearance. A device that is built on several others (an array, a logical
// volume) is printed below each of them; here it has several parents instead.
func parseLsblk(output []byte) ([]*node, error) {
	var document struct {
		BlockDevices []jsonNode `json:"blockdevices"`
	}
	if !json.Valid(output) {
		output = repairEscapes(output)
	}
	if err := json.Unmarshal(output, &document); err != nil {
		return nil, fmt.Errorf("read the output of lsblk: %w", err)
	}
	forest := forest{byName: map[string]*node{}, parentOf: map[string]string{}}
	for _, device := range document.BlockDevices {
		if err := forest.add(device, nil); err != nil {
			return nil, fmt.Errorf("read the output of lsblk: %w", err)
		}
	}
	for _, n := range forest.nodes {
		if below, ok := forest.byName[forest.parentOf[n.name]]; ok {
			link(below, n)
		}
	}
	return forest.nodes, nil
}

type forest struct {
	nodes    []*node
	byName   map[string]*node
	parentOf map[string]string // by PKNAME, for an output that is a list
}

func (f *forest) add(device jsonNode, parent *node) error {
	name := kernelName(device)
	if name == "" {
		return errors.New("a device has no name")
	}
	n, known := f.byName[name]
	if !known {
		n = newNode(name, device)
		f.byName[name] = n
		f.nodes = append(f.nodes, n)
	}
	for _, mount := range append(device.MountPoints, device.MountPoint) {
		if mount != "" && !slices.Contains(n.mounts, mount) {
			n.mounts = append(n.mounts, mount)
		}
	}
	if parent != nil {
		link(parent, n)
	}
	if device.PKName != "" {
		f.parentOf[name] = strings.TrimPrefix(device.PKName, "/dev/")
	}
	for _, child := range device.Children {
		if err := f.add(child, n); err != nil {
			return err
		}
	}
	return nil
}

func newNode(name string, device jsonNode) *node {
	path := device.Path
	if path == "" { // before util-linux 2.33
		path = "/dev/" + strings.TrimPrefix(name, "/dev/")
	}
	return &node{
		name:      name,
		path:      path,
		number:    strings.TrimSpace(device.Number),
		kind:      device.Type,
		size:      int64(device.Size),
		sector:    int64(device.Sector),
		removable: bool(device.Removable),
		readOnly:  bool(device.ReadOnly),
		bus:       strings.ToLower(device.Tran),
		vendor:    strings.TrimSpace(device.Vendor),
		model:     strings.TrimSpace(device.Model),
		serial:    strings.TrimSpace(device.Serial),
		fstype:    device.FSType,
		label:     device.Label,
		partLabel: device.PartLabel,
		uuid:      device.UUID,
		table:     device.Table,
	}
}

// kernelName returns the key of a device. With --paths lsblk prints it as a path.
func kernelName(device jsonNode) string {
	name := device.KName
	if name == "" {
		name = device.Name
	}
	return strings.TrimPrefix(name, "/dev/")
}

// link records that upper is built on lower.
func link(lower, upper *node) {
	if lower == upper || slices.Contains(lower.above, upper) {
		return
	}
	lower.above = append(lower.above, upper)
	upper.below = append(upper.below, lower)
}

// reach returns start and everything that can be reached from it by next.
func reach(start *node, next func(*node) []*node) []*node {
	seen := map[*node]bool{start: true}
	found := []*node{start}
	for i := 0; i < len(found); i++ {
		for _, n := range next(found[i]) {
			if !seen[n] {
				seen[n] = true
				found = append(found, n)
			}
		}
	}
	return found
}

// withAbove returns n and everything that is built on it.
func withAbove(n *node) []*node {
	return reach(n, func(n *node) []*node { return n.above })
}

// withBelow returns n and everything that it is built on.
func withBelow(n *node) []*node {
	return reach(n, func(n *node) []*node { return n.below })
}

// repairEscapes turns \xNN, which util-linux before 2.33 wrote into its JSON for bytes that it could not
// print, into what JSON allows.
// Seen in the wild: https://github.com/balena-io/etcher/issues/2614
func repairEscapes(text []byte) []byte {
	var out bytes.Buffer
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			out.WriteByte(text[i])
			continue
		}
		if text[i+1] == 'x' && i+3 < len(text) {
			if value, err := strconv.ParseUint(string(text[i+2:i+4]), 16, 8); err == nil {
				if value < ' ' || value == '"' || value == '\\' {
					fmt.Fprintf(&out, `\u%04x`, value)
				} else {
					out.WriteByte(byte(value))
				}
				i += 3
				continue
			}
		}
		out.Write(text[i : i+2])
		i++
	}
	return out.Bytes()
}
