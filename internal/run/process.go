package run

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// process is a running program. Its number may be reused after its end; the start time
// distinguishes them.
type process struct {
	pid, parent int
	start       string
	zombie      bool
}

// readProcess reads /proc/PID/stat, see proc(5); ok is false if there is no such process.
func readProcess(pid int) (p process, ok bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, false
	}
	// the second field is the program's name in brackets and may hold blanks and brackets
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const state, parent, start = 0, 1, 19
	if len(fields) <= start {
		return process{}, false
	}
	p = process{pid: pid, start: fields[start], zombie: fields[state] == "Z"}
	p.parent, err = strconv.Atoi(fields[parent])
	return p, err == nil
}

// tree returns pid and all its descendants, parents first. Without /proc it is empty.
func tree(pid int) []process {
	root, ok := readProcess(pid)
	if !ok {
		return nil
	}
	children := make(map[int][]process)
	stats, _ := filepath.Glob("/proc/[0-9]*")
	for _, stat := range stats {
		if id, err := strconv.Atoi(filepath.Base(stat)); err == nil {
			if p, ok := readProcess(id); ok {
				children[p.parent] = append(children[p.parent], p)
			}
		}
	}
	found := []process{root}
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i].pid]...)
	}
	return found
}

// signalTree sends a signal to pid and all its descendants, as a terminal does with Ctrl-C,
// and returns the processes that it signalled. A program that has ended or belongs to somebody else
// (sudo) is not an error: nothing can be done about it.
func signalTree(pid int, signal syscall.Signal) []process {
	meant := tree(pid)
	if len(meant) == 0 {
		_ = syscall.Kill(pid, signal)
	}
	for _, p := range meant {
		_ = syscall.Kill(p.pid, signal)
	}
	return meant
}

// running returns the processes that have not ended.
func running(processes []process) []process {
	return slices.DeleteFunc(slices.Clone(processes), func(p process) bool {
		now, ok := readProcess(p.pid)
		return !ok || now.zombie || now.start != p.start
	})
}

// kill ends those of the processes that still run.
func kill(processes []process) {
	for _, p := range running(processes) {
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
	}
}
