package evaluate

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
)

// available returns how much memory processes can take before others are hurt, in bytes: what the kernel says of the
// machine (MemAvailable, see proc(5)), or less if this process is in a group with a limit (cgroups(7)). Where neither
// is known it is 2 GiB.
func available() int64 {
	memory := availableOf("/")
	if memory <= 0 {
		return 2 << 30
	}
	return memory
}

// availableOf is available with the folders proc and sys of another root; it is 0 if nothing is known.
func availableOf(root string) (memory int64) {
	text, _ := os.ReadFile(path.Join(root, "proc/meminfo"))
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			memory = kib << 10
		}
	}
	groups, _ := os.ReadFile(path.Join(root, "proc/self/cgroup"))
	for line := range strings.Lines(string(groups)) {
		// NUMBER:CONTROLLERS:PATH; version 2 has one line, 0::PATH
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		base, limit, usage := "sys/fs/cgroup", "memory.max", "memory.current"
		switch {
		case fields[1] == "memory":
			base, limit, usage = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
		case fields[1] != "":
			continue
		}
		// a limit of any group above counts
		for group := path.Join("/", fields[2]); ; group = path.Dir(group) {
			most, known := number(path.Join(root, base, group, limit))
			used, _ := number(path.Join(root, base, group, usage))
			if left := most - used + cached(path.Join(root, base, group, "memory.stat")); known && (memory == 0 || left < memory) {
				memory = max(1, left)
			}
			if group == "/" {
				break
			}
		}
	}
	return memory
}

// cached is how much of what a group uses are copies of files, which the kernel drops when it has to.
func cached(file string) (bytes int64) {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "inactive_file" || name == "active_file" {
			n, _ := strconv.ParseInt(value, 10, 64)
			bytes += n
		}
	}
	return bytes
}

// number reads a file with one number; "max" is none.
func number(file string) (n int64, ok bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil
}
