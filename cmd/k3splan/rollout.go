package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"k3splan"
	"k3splan/internal/colmena"
	"k3splan/internal/fingerprint"
	"k3splan/internal/hive"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/rollout"
	"k3splan/internal/sshconf"
)

const (
	// ownDir is k3splan's own folder in a project.
	ownDir = ".k3splan"

	// serverToken is the name of the servers' token in hive.Secret.
	serverToken = "server-token"

	askTimeout  = 20 * time.Second
	askParallel = 24
)

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
	own := filepath.Join(dir, ownDir)
	if err := os.MkdirAll(own, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(own, "lock")
	lock := flock.New(file, flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking the project: %w", err)
	}
	if !locked {
		holder, _ := os.ReadFile(file)
		who := strings.TrimSpace(string(holder))
		if who == "" {
			who = "another k3splan"
		}
		return nil, &exitError{code: exitFailed, err: fmt.Errorf("the project is in use by %s", who), hint: "wait until it has ended"}
	}
	host, _ := os.Hostname()
	who := fmt.Sprintf("process %d of %s on %s, since %s\n", os.Getpid(), userName(), host, time.Now().Format("15:04:05"))
	if err := os.WriteFile(file, []byte(who), 0o600); err != nil {
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

// rackState is a project and what its hosts say about themselves.
type rackState struct {
	project *project.Project
	tree    hive.Tree
	inputs  map[string]fingerprint.Inputs
	// secrets are those of the hosts that were asked.
	secrets   map[string]fingerprint.Contents
	selected  []*plan.Host
	situation rollout.Situation
}

// survey renders in memory, asks the hosts, and finds out what the selected ones need.
func (a *app) survey(ctx context.Context, p *project.Project, selected []*plan.Host, machine func(*plan.Host) sshconf.Machine, all bool) (*rackState, error) {
	tree, err := hive.Render(p, k3splan.Files)
	if err != nil {
		return nil, err
	}
	s := &rackState{project: p, tree: tree, selected: selected, secrets: map[string]fingerprint.Contents{}}
	if s.inputs, err = fingerprint.Of(p, tree); err != nil {
		return nil, err
	}
	asked := slices.Clone(selected)
	if slices.ContainsFunc(selected, func(h *plan.Host) bool { return len(h.Containers()) > 0 }) {
		for _, server := range p.Plan.Servers() {
			if !slices.Contains(asked, server.Host) {
				asked = append(asked, server.Host)
			}
		}
	}
	read := a.secretReader(p)
	for _, host := range asked {
		if s.secrets[host.Name], err = fingerprint.ReadSecrets(ctx, p.Dir, hive.Secrets(p, host), read); err != nil {
			return nil, err
		}
	}
	if slices.ContainsFunc(asked, func(h *plan.Host) bool { return !h.Target.Local }) {
		if _, err := exec.LookPath("ssh"); err != nil {
			return nil, &colmena.MissingError{Program: "ssh"} // else each host would not answer
		}
	}
	s.situation = rollout.Situation{Plan: p.Plan, Work: map[string]rollout.Work{}}
	s.situation.Observed = rollout.Each(names(asked), askParallel, func(name string) rollout.Observed {
		return rollout.WithLimit(ctx, askTimeout, func(ctx context.Context) rollout.Observed {
			return rollout.Observe(ctx, machine(p.Plan.Host(name)))
		})
	})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	past := rollout.NewPast(p.Plan)
	if s.situation.Deployed, err = past.Deployed(s.situation.Observed); err != nil {
		return nil, err
	}
	for _, host := range asked {
		o := s.situation.Observed[host.Name]
		if o.Unreachable != "" {
			continue
		}
		var changed []string
		if o.Receipt != nil {
			changed = s.secrets[host.Name].Changed(o.Receipt.Secrets)
			if slices.Contains(changed, serverToken) && o.Receipt.Secrets.Kinds[serverToken] != "" {
				s.situation.OtherToken = append(s.situation.OtherToken, host.Name)
			}
		}
		if slices.Contains(selected, host) {
			s.situation.Work[host.Name] = rollout.Decide(past, host.Name, o, s.inputs[host.Name], changed, all)
		}
	}
	return s, nil
}

// askServers asks all servers of the plan whose hosts answer how they are.
func (s *rackState) askServers(ctx context.Context, machine func(*plan.Host) sshconf.Machine) {
	containers := map[string]string{}
	var hosts []string
	for _, server := range s.project.Plan.Servers() {
		o, asked := s.situation.Observed[server.Host.Name]
		// without NixOS or a state there is nobody to ask
		if asked && o.Unreachable == "" && (o.Receipt != nil || len(o.Etcd) > 0) {
			hosts = append(hosts, server.Host.Name)
			containers[server.Host.Name] = server.Name
			// it may still have the name that it was deployed with
			if o.Receipt != nil {
				if name := o.Receipt.Inputs.Data["server.name"]; name != "" {
					containers[server.Host.Name] = name
				}
			}
		}
	}
	s.situation.Health = rollout.Each(hosts, askParallel, func(name string) rollout.Health {
		inner, cancel := context.WithTimeout(ctx, 2*askTimeout)
		defer cancel()
		return rollout.AskServer(inner, machine(s.project.Plan.Host(name)), containers[name])
	})
}

// stopsServers tells whether a server may be stopped or started.
func (s *rackState) stopsServers() bool {
	return slices.ContainsFunc(s.selected, func(h *plan.Host) bool {
		return h.Server != nil && s.situation.Work[h.Name].Restarts()
	})
}

func names(hosts []*plan.Host) []string {
	list := make([]string, len(hosts))
	for i, host := range hosts {
		list[i] = host.Name
	}
	return list
}
