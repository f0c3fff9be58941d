package stick

import (
	"fmt"
	"strconv"
	"strings"
)

// mount is one line of mountinfo.
type mount struct {
	number  string // major:minor; 0:N for file systems without a device of their own, btrfs too
	point   string
	fstype  string
	source  string
	options []string // those of the file system
	// elsewhere is set for a mount that exists in the mount namespace of a container only.
	elsewhere bool
}

// parseMountinfo reads /proc/PID/mountinfo, proc_pid_mountinfo(5).
func parseMountinfo(text string) ([]mount, error) {
	var mounts []mount
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			continue
		}
		// Not strings.Fields: a source can be empty.
		fields := strings.Split(line, " ")
		dash := -1
		for i := 6; i < len(fields); i++ {
			if fields[i] == "-" {
				dash = i
				break
			}
		}
		if dash < 0 || len(fields) < dash+3 {
			return nil, fmt.Errorf("read mountinfo: line %q has an unknown form", line)
		}
		m := mount{
			number: fields[2],
			point:  unescape(fields[4]),
			fstype: fields[dash+1],
			source: unescape(fields[dash+2]),
		}
		if len(fields) > dash+3 {
			m.options = strings.Split(fields[dash+3], ",")
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

// layers returns the directories that an overlay consists of.
func (m mount) layers() []string {
	var paths []string
	for _, option := range m.options {
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "lowerdir", "lowerdir+", "datadir+":
			for _, path := range strings.Split(unescape(value), ":") {
				if path != "" { // "::" separates data-only layers
					paths = append(paths, path)
				}
			}
		case "upperdir":
			paths = append(paths, unescape(value))
		}
	}
	return paths
}

// swap is one line of /proc/swaps.
type swap struct {
	path   string
	number string // major:minor of the device, or empty where it could not be found
}

// parseSwaps reads /proc/swaps, proc_swaps(5).
func parseSwaps(text string) []swap {
	var swaps []swap
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] == "Filename" {
			continue
		}
		swaps = append(swaps, swap{path: strings.TrimSuffix(unescape(fields[0]), " (deleted)")})
	}
	return swaps
}

// unescape decodes the kernel's octal escapes: \040 is a blank.
func unescape(text string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if value, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(value))
				i += 3
				continue
			}
		}
		out.WriteByte(text[i])
	}
	return out.String()
}
