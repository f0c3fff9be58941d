package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"k3splan"
	"k3splan/internal/files"
	"k3splan/internal/fingerprint"
	"k3splan/internal/hive"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/remote"
	"k3splan/internal/rollout"
)

// ownDir is k3splan's own folder in a project.
const ownDir = ".k3splan"

// interruptible gives a context that ends with the first SIGINT, SIGTERM or SIGHUP. It is not for
// Colmena, which gets the signals itself.
func interruptible() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	go func() {
		select {
		case s := <-signals:
			cancel(fmt.Errorf("interrupted (%s)", s))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(signals); cancel(context.Canceled) }
}

// lockProject lets one command at a time change the hosts.
func lockProject(dir string) (unlock func(), err error) {
	file, err := files.OwnFile(dir, "lock")
	if err != nil {
		return nil, fmt.Errorf("locking the project: %w", err)
	}
	lock := flock.New(file, flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking the project: %w", err)
	}
	if !locked {
		holder, _ := files.Read(file)
		who := strings.TrimSpace(string(holder))
		if who == "" {
			who = "another k3splan"
		}
		return nil, &exitError{code: exitFailed, err: fmt.Errorf("the project is in use by %s", who), hint: "wait until it has ended"}
	}
	host, _ := os.Hostname()
	who := fmt.Sprintf("process %d of %s on %s, since %s\n", os.Getpid(), userName(), host, time.Now().Format("15:04:05"))
	if err := errors.Join(os.WriteFile(file, []byte(who), 0o600), files.Inherit(file)); err != nil {
		return nil, errors.Join(fmt.Errorf("locking the project: %w", err), lock.Unlock())
	}
	return func() { _ = lock.Unlock() }, nil
}

func userName() string {
	for _, name := range []string{"SUDO_USER", "USER", "LOGNAME"} {
		if user := os.Getenv(name); user != "" {
			return user
		}
	}
	return fmt.Sprintf("user %d", os.Getuid())
}

// survey renders in memory and asks the hosts what they run. machine tells how they are reached; with all,
// hosts that are up to date are to be deployed as well.
func (a *app) survey(ctx context.Context, p *project.Project, selected []*plan.Host, machine func(*plan.Host) remote.Machine, all bool) (*rollout.Rack, error) {
	tree, err := hive.Render(p, k3splan.Files)
	if err != nil {
		return nil, err
	}
	inputs, err := fingerprint.Of(p, tree)
	if err != nil {
		return nil, err
	}
	read := a.secretReader(p)
	rack := &rollout.Rack{
		Situation: rollout.Situation{Plan: p.Plan}, Selected: selected, Machine: machine, Inputs: inputs, All: all,
		ReadSecrets: func(host *plan.Host) (fingerprint.Contents, error) {
			return fingerprint.ReadSecrets(ctx, p.Dir, hive.Secrets(p, host), read)
		},
	}
	return rack, rack.Survey(ctx)
}
