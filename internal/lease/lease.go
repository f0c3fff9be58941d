// Package lease keeps two operators, on two machines, from changing the same rack at the same time.
//
// A lease is a file on the hosts of the rack's servers, with its owner and the time for which it is good.
// It is taken on the init server's host first, or else on the next one that answers, and then on all
// others; it counts only with a majority of these hosts. Two majorities have a host in common, so two
// operators never hold the lease together, not even if each of them reaches other hosts.
//
// The holder renews it in the background and, with [Lease.Renew], before each step that stops or starts
// anything. If the holder is dead, the lease ends by its time. Each host measures that time by its own
// clock since boot, so clocks that differ or jump do not matter.
//
// A rack without servers needs no lease: no quorum can be lost, no host depends on another, and NixOS
// itself locks the activation of each.
//
//	held, err := lease.Take(ctx, lease.Request{Hosts: hosts, Dir: project.Dir, Purpose: "k3splan deploy"})
//	if err != nil {
//		return err
//	}
//	defer held.Release()
//	if held.Warning() != "" {
//		user.Warn("%s", held.Warning())
//	}
//	for _, step := range steps {
//		if err := held.Renew(ctx); err != nil {
//			return err
//		}
//		…
package lease

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
)

const (
	// ttl is how long a lease is good after it was taken or renewed.
	ttl = 5 * time.Minute
	// renewal is how often it is renewed in the background.
	renewal = time.Minute
	// answerTime is how long a host has to answer.
	answerTime = 25 * time.Second
	// releaseTime is shorter, as a lease that is not released ends anyway.
	releaseTime = 10 * time.Second
)

//go:embed script.sh
var script string

// Host is a host on which a lease is kept.
type Host struct {
	Name string
	// Script runs a POSIX shell's script as root on the host, with arguments, and returns what it
	// prints, as remote.Machine.Script does.
	Script func(ctx context.Context, script string, words ...string) (string, error)
}

// ServerHosts returns the hosts on which the lease of a plan's rack is kept, in the order in which it is
// taken: that of the init server first.
func ServerHosts(p *plan.Plan) (hosts []*plan.Host) {
	for _, server := range p.Servers() {
		if server == p.InitServer() {
			hosts = slices.Insert(hosts, 0, server.Host)
		} else {
			hosts = append(hosts, server.Host)
		}
	}
	return hosts
}

// Request is what a lease is for.
type Request struct {
	// Hosts are those of the servers, see [ServerHosts].
	Hosts []Host
	// Dir is the project. Its lock, which the caller must hold, keeps two processes of this machine apart,
	// so a run that finds the lease of an earlier one from the same folder takes it over: that one has
	// ended.
	Dir string
	// Purpose is shown to other operators ("k3splan deploy").
	Purpose string
}

// Lease is the right to change a rack.
type Lease struct {
	request      Request
	token, place string
	owner        string

	mutex  sync.Mutex
	taken  map[string]bool // by the host's name
	silent []string        // hosts that did not confirm it

	stop    context.CancelFunc // of renewing it in the background
	stopped sync.WaitGroup
}

// verdict is what a host says of the lease.
type verdict string

const (
	taken    verdict = "taken"
	held     verdict = "held" // by another operator
	lost     verdict = "lost" // to another operator, or deleted
	released verdict = "released"
	// silent is a host that ran the script and gave no answer that makes sense.
	silent verdict = ""
)

type answer struct {
	host    string
	verdict verdict
	left    time.Duration // for held
	owner   string        // for held and lost
	err     error
}

// Take takes the lease on a rack, without waiting for another operator. It is to be released.
func Take(ctx context.Context, request Request) (*Lease, error) {
	l := &Lease{request: request, token: rand.Text(), place: place(request.Dir), owner: owner(request.Purpose), taken: map[string]bool{}}
	if len(request.Hosts) == 0 {
		return l, nil
	}
	// one after the other until one answers, so that of two operators at the same time one is first
	// everywhere; the others at once
	var answers []answer
	for i, host := range request.Hosts {
		answers = append(answers, l.ask(ctx, host, l.keepAction))
		if a := answers[i]; a.err == nil {
			if a.verdict != held {
				answers = append(answers, l.askAll(ctx, request.Hosts[i+1:], l.keepAction)...)
			}
			break
		}
	}
	if err := l.judge(ctx, answers); err != nil {
		l.release()
		return nil, err
	}
	background, stop := context.WithCancel(context.Background())
	l.stop = stop
	l.stopped.Go(func() { l.keep(background) })
	return l, nil
}

// Renew makes sure that the lease is still held, with a majority of the hosts, and begins its time again.
// It is to be called right before each step that stops or starts anything.
func (l *Lease) Renew(ctx context.Context) error {
	if len(l.request.Hosts) == 0 {
		return nil
	}
	return l.judge(ctx, l.askAll(ctx, l.request.Hosts, l.keepAction))
}

// keepAction is what a host is asked: to renew a lease that it keeps, or to begin one, as it was away when
// the others were asked.
func (l *Lease) keepAction(host string) string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.taken[host] {
		return "renew"
	}
	return "take"
}

// Warning returns a message for the user if hosts ran the script but did not confirm the lease, else "".
// The lease does not keep others away from these.
func (l *Lease) Warning() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if len(l.silent) == 0 {
		return ""
	}
	return fmt.Sprintf("%s did not confirm the lease on the rack: make sure that nobody else is changing it now", strings.Join(l.silent, ", "))
}

// Release returns the lease. If a host does not answer, the lease expires there.
func (l *Lease) Release() {
	if l.stop == nil {
		return
	}
	l.stop()
	l.stopped.Wait()
	l.release()
}

func (l *Lease) release() {
	// also after Ctrl-C
	ctx, cancel := context.WithTimeout(context.Background(), releaseTime)
	defer cancel()
	hosts := slices.DeleteFunc(slices.Clone(l.request.Hosts), func(h Host) bool { return l.keepAction(h.Name) != "renew" })
	l.askAll(ctx, hosts, func(string) string { return "release" })
}

// keep renews the lease until ctx is done. Whether it is still held is found out by Renew.
func (l *Lease) keep(ctx context.Context) {
	ticker := time.NewTicker(renewal)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			l.askAll(ctx, l.request.Hosts, l.keepAction)
		}
	}
}

// askAll asks hosts at the same time and returns their answers in the order of the hosts.
func (l *Lease) askAll(ctx context.Context, hosts []Host, action func(host string) string) []answer {
	answers := make([]answer, len(hosts))
	var group sync.WaitGroup
	for i, host := range hosts {
		group.Go(func() { answers[i] = l.ask(ctx, host, action) })
	}
	group.Wait()
	return answers
}

func (l *Lease) ask(ctx context.Context, host Host, action func(host string) string) answer {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, fmt.Errorf("no answer within %s", answerTime))
	defer cancel()
	out, err := host.Script(ctx, script, action(host.Name), l.token, l.place, strconv.Itoa(int(ttl/time.Second)), l.owner)
	if err != nil {
		return answer{host: host.Name, err: err}
	}
	a := parse(out)
	a.host = host.Name
	if a.verdict == taken {
		l.mutex.Lock()
		l.taken[host.Name] = true
		l.mutex.Unlock()
	}
	return a
}

// parse reads an answer. A shell may print a greeting before it.
func parse(out string) (a answer) {
	for line := range strings.Lines(out) {
		said, ok := strings.CutPrefix(strings.TrimSpace(line), "k3splan-lease ")
		if !ok {
			continue
		}
		word, rest, _ := strings.Cut(said, " ")
		seconds, owner, _ := strings.Cut(rest, " ")
		n, _ := strconv.Atoi(seconds)
		switch v := verdict(word); v {
		case taken, held, lost, released:
			a = answer{verdict: v, left: time.Duration(n) * time.Second, owner: diag.Printable(owner)}
		}
	}
	return a
}

// Error is why a rack may not be changed now.
type Error struct {
	message string
	// Other is whoever holds the lease, or "".
	Other string
}

func (e *Error) Error() string { return e.message }

// judge decides by the hosts' answers whether the lease is held. The error is an [*Error], with a hint.
func (l *Lease) judge(ctx context.Context, answers []answer) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var quiet, failed []string
	count := 0
	for _, a := range answers {
		switch {
		case a.err != nil:
			failed = append(failed, a.err.Error())
		case a.verdict == held:
			other := cmp.Or(a.owner, "another operator")
			return diag.WithHint(&Error{fmt.Sprintf("%s is changing this rack", other), other},
				fmt.Sprintf("wait until that ends; if the other process is dead, its lease on %s ends within %s", a.host, a.left))
		case a.verdict == lost:
			other := cmp.Or(a.owner, "another operator")
			return diag.WithHint(&Error{fmt.Sprintf("the lease on the rack is lost to %s (asked %s)", other, a.host), other},
				"this machine did not reach the rack for more than "+ttl.String()+"; when the other operator has finished, run the command again")
		case a.verdict == taken:
			count++
		default:
			quiet = append(quiet, a.host)
			count++
		}
	}
	l.mutex.Lock()
	l.silent = quiet
	l.mutex.Unlock()
	if need := len(l.request.Hosts)/2 + 1; count < need {
		return diag.WithHint(&Error{message: fmt.Sprintf("the lease on the rack needs a majority of the servers' hosts (%d of %d), and %d can be reached:\n  %s",
			need, len(l.request.Hosts), count, strings.Join(failed, "\n  "))},
			"without a majority another operator could be changing the rack unnoticed: bring these hosts back first")
	}
	return nil
}

// owner is how other operators are shown who holds the lease.
func owner(purpose string) string {
	name := "user " + strconv.Itoa(os.Getuid())
	if sudo := os.Getenv("SUDO_USER"); sudo != "" {
		name = sudo
	} else if u, err := user.Current(); err == nil {
		name = u.Username
	}
	machine, err := os.Hostname()
	if err != nil {
		machine = "an unknown machine"
	}
	return diag.Printable(fmt.Sprintf("%s on %s (%s, process %d)", name, machine, purpose, os.Getpid()))
}

// place identifies a project's folder on this machine, the same in each run.
func place(dir string) string {
	if absolute, err := filepath.Abs(dir); err == nil {
		dir = absolute
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	machine, _ := os.ReadFile("/etc/machine-id")
	host, _ := os.Hostname()
	inode := ""
	if info, err := os.Stat(dir); err == nil { // images of containers may share all of the above
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			inode = fmt.Sprint(stat.Dev, stat.Ino)
		}
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{string(machine), host, dir, inode}, "\x00")))
	return fmt.Sprintf("%x", sum[:16])
}

// IsHeld reports whether an error says that another operator holds the lease.
func IsHeld(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Other != ""
}
