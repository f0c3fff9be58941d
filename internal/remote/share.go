package remote

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/run"
)

// sharing makes ssh keep one connection a host and user for all programs that use the configuration, Colmena's among
// them: a new one takes several round trips and most of the processor time of a short command. It is written after the
// user's own configuration, which may say otherwise. Idle connections end by themselves, also after a crash.
const sharing = "    ControlMaster auto\n    ControlPath %s/%%n-%%p-%%r\n    ControlPersist 60\n"

// maxSocket is the longest path of a socket in bytes, less what ssh adds while it makes one.
const maxSocket = 107 - 17

// Share lets all connections of programs to the machines, as DeployUser or root, share one for each host and account
// until [Config.Close]. An activation may change how a host is reached: [Machine.Disconnect] makes the next connection
// a new one.
//
// It changes nothing where the user's configuration shares connections in its own way, where there is no path for
// sockets that is short enough, or where this ssh would keep the output of the program that made the connection open.
func (c *Config) Share() error {
	if c.sockets != "" || c.ownSharing || len(c.targets) == 0 || !sessionType.has(version()) {
		return nil
	}
	longest := len("/k3splan-ssh-0123456789/-65535-") + len(DeployUser) + len(slices.MaxFunc(c.targets, func(a, b string) int { return len(a) - len(b) }))
	fit := func(path string) bool { return plainPath.MatchString(path) && len(path)+longest <= maxSocket }
	folder, err := files.TempFolder("k3splan-ssh-", fit)
	if err != nil {
		return nil // connections of their own do as well
	}
	c.sockets = folder
	text := fmt.Sprintf("# Written by k3splan for one run.\nInclude %s\n\nMatch originalhost %s user %s,root\n"+sharing, c.File, strings.Join(c.targets, ","), DeployUser, folder)
	c.File = filepath.Join(folder, configName)
	if err := write(c.File, text); err != nil {
		return fmt.Errorf("write ssh's files: %w", err)
	}
	return nil
}

// unshare ends all shared connections.
func (c *Config) unshare() error {
	if c.sockets == "" {
		return nil
	}
	var group sync.WaitGroup
	for _, socket := range sockets(c.sockets) {
		group.Go(func() { hangUp(socket) })
	}
	group.Wait()
	return os.RemoveAll(c.sockets)
}

// sockets are those of the shared connections in a folder.
func sockets(folder string) (paths []string) {
	entries, _ := os.ReadDir(folder)
	for _, entry := range entries {
		if entry.Type() == os.ModeSocket {
			paths = append(paths, filepath.Join(folder, entry.Name()))
		}
	}
	return paths
}

// hangUp ends a shared connection. Whatever is left of one that does not answer any more is not used again.
func hangUp(socket string) {
	_ = run.Run(context.Background(), run.Command{Program: "ssh", Args: []string{"-F", "none", "-O", "exit", "-o", "ControlPath=" + socket, "host"}, Timeout: 5 * time.Second})
	_ = os.Remove(socket)
}

// Disconnect makes the next connection to the machine a new one, which shows whether its users can still log in.
func (m Machine) Disconnect() {
	if m.sockets == "" || m.Host.Target.Local {
		return
	}
	// ssh knows which one it is: the port may be the user's own, and the name of another host may begin with this one's
	settings, _ := askSSH(m.ssh(nil))
	for _, socket := range settings["controlpath"] {
		if filepath.Dir(socket) == m.sockets {
			hangUp(socket)
		}
	}
}

// lost reports whether a command ended in a way after which a shared connection is not to be trusted.
func lost(err error) bool {
	var failed *Error
	return errors.As(err, &failed) && failed.Unreached || errors.Is(err, context.DeadlineExceeded)
}

// targetsOf are the addresses by which programs call the hosts of a plan.
func targetsOf(p *plan.Plan) (targets []string) {
	for _, host := range p.Hosts {
		if !host.Target.Local {
			targets = append(targets, host.Target.Host)
		}
	}
	slices.Sort(targets)
	return slices.Compact(targets)
}
