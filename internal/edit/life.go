package edit

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"unicode"

	"k3splan/internal/plan"
	"k3splan/internal/remote"
)

// Replace changes the cells of a host that describe its machine: serial, mac and interface. A column that
// the table lacks is added. If the host has the init server, successor is the server that becomes it; the
// host's own joins that one.
func (e *Edit) Replace(name string, cells map[string]string, successor string) error {
	rows := find(e.hosts, "name", name)
	if len(rows) == 0 {
		return e.noHost(name)
	}
	for _, column := range slices.Sorted(maps.Keys(cells)) {
		value := cells[column]
		if strings.ContainsFunc(value, unicode.IsControl) {
			return refuse(fmt.Sprintf("the value of %s contains a line break or another control character", column), "")
		}
		if !has(e.hosts, column) {
			if err := e.hosts.addColumn(column); err != nil {
				return err
			}
		}
		if err := e.hosts.set(find(e.hosts, "name", name), column, value); err != nil {
			return err
		}
	}
	return e.succeed(successor)
}

// Decommission removes a host with its containers and the ssh keys by which it is known. If it has the init
// server, successor is the server that becomes it.
func (e *Edit) Decommission(name, successor string) error {
	host := e.plan.Host(name)
	if host == nil {
		return e.noHost(name)
	}
	if successor == "" {
		if err := e.mayRemove(host.Containers()...); err != nil {
			return err
		}
	}
	if err := e.succeed(successor); err != nil {
		return err
	}
	if err := e.k3s.remove(find(e.k3s, "host", name)); err != nil {
		return err
	}
	if err := e.hosts.remove(find(e.hosts, "name", name)); err != nil {
		return err
	}
	if err := e.forgetInLists(name); err != nil {
		return err
	}
	return e.forgetKnown(name)
}

// succeed makes another server the init server, and the present one a server; "" changes nothing.
func (e *Edit) succeed(successor string) error {
	init := e.plan.InitServer()
	if successor == "" || init == nil || init.Name == successor {
		return nil
	}
	if err := e.k3s.set(find(e.k3s, "name", init.Name), "type", string(plan.Server)); err != nil {
		return err
	}
	return e.k3s.set(find(e.k3s, "name", successor), "type", string(plan.Init))
}

// forgetKnown removes the lines of a host from the file of known hosts.
func (e *Edit) forgetKnown(host string) error {
	data, err := fs.ReadFile(e.fsys, remote.KnownHostsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	pattern, kept := linesOf(host), strings.Builder{}
	for line := range strings.Lines(string(data)) {
		if !pattern.MatchString(line) {
			kept.WriteString(line)
		}
	}
	if kept.Len() < len(data) {
		e.known, e.knownBefore = []byte(kept.String()), data
	}
	return nil
}
