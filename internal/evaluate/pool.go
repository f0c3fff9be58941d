package evaluate

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"k3splan/internal/diag"
	"k3splan/internal/run"
)

// A process of Nix gives no memory back, and spends up to 40 % of its time on looking for some if it has little. To
// start another one costs a quarter of a host. So each process evaluates as many hosts as fit into a heap in which
// nothing has to be collected, and then ends.
const (
	// hostMemory is what one host is taken to need before one was seen, in bytes.
	hostMemory = 450 << 20
	// processMemory is the most that one process is given, unless a single host needs more.
	processMemory = 1100 << 20
)

// outcome is what became of a host: one of both.
type outcome struct {
	host *Host
	err  error
}

// batch are hosts for one process.
type batch struct {
	hosts []string
	// thrifty is set for a host whose process was killed for its memory: it is evaluated alone, and collects garbage.
	thrifty bool
	// tries counts those in which the database of Nix was busy.
	tries int
}

const mostTries = 5

// pool evaluates hosts in several processes.
type pool struct {
	request      *Request
	folder, hive string
	budget       int64 // of all processes together
	all          int

	mutex    sync.Mutex
	changed  *sync.Cond
	waiting  []string // not begun
	again    []batch  // of processes that were killed
	running  int
	allowed  int // processes at a time
	perHost  int64
	outcomes map[string]outcome
	failure  error // of all hosts
}

func newPool(r *Request, folder, hive string, names []string) *pool {
	p := &pool{request: r, folder: folder, hive: hive, budget: r.Memory, all: len(names), waiting: names, perHost: hostMemory, outcomes: map[string]outcome{}}
	if p.budget <= 0 {
		p.budget = available() * 3 / 4
	}
	p.changed = sync.NewCond(&p.mutex)
	p.allowed = max(1, min(runtime.NumCPU(), len(names), int(p.budget/hostMemory)))
	return p
}

// run evaluates all hosts. The error is about all of them.
func (p *pool) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	for range p.allowed {
		group.Go(func() {
			for {
				b, ok := p.next(ctx)
				if !ok {
					return
				}
				p.evaluate(ctx, b)
				if p.failed() {
					cancel()
				}
			}
		})
	}
	// a cancelled context has to wake those who wait for a turn
	stop := context.AfterFunc(ctx, func() { p.mutex.Lock(); p.changed.Broadcast(); p.mutex.Unlock() })
	group.Wait()
	stop()
	if p.failure != nil {
		return p.failure
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (p *pool) failed() bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.failure != nil
}

// next takes what a process is to evaluate; it is not ok if nothing is left, or will be.
func (p *pool) next(ctx context.Context) (b batch, ok bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for {
		switch {
		case ctx.Err() != nil, p.failure != nil:
			return batch{}, false
		case len(p.again) == 0 && len(p.waiting) == 0:
			if p.running == 0 {
				return batch{}, false
			}
		case p.running >= p.allowed:
		case len(p.again) > 0 && (!p.again[0].thrifty || p.running == 0):
			b, p.again = p.again[0], p.again[1:]
			p.running++
			return b, true
		case len(p.waiting) > 0 && len(p.again) == 0:
			fit := max(1, int(p.share()/p.perHost))
			// the last ones are shared evenly
			n := min(len(p.waiting), fit, (len(p.waiting)+p.allowed-1)/p.allowed)
			b.hosts, p.waiting = p.waiting[:n], p.waiting[n:]
			p.running++
			return b, true
		}
		p.changed.Wait()
	}
}

// share is the memory of one process.
func (p *pool) share() int64 { return min(processMemory, p.budget/int64(p.allowed)) }

// evaluate runs one process, and takes what it has found.
func (p *pool) evaluate(ctx context.Context, b batch) {
	s := &session{pool: p, mark: rand.Text(), hosts: b.hosts}
	hosts, _ := json.Marshal(b.hosts) // strings
	args := []string{"--eval", "--read-write-mode", "--show-trace", "--log-format", "internal-json"}
	args = append(args, p.request.Options...)
	args = append(args, "--argstr", "evaluator", p.folder, "--argstr", "hive", p.hive,
		"--argstr", "hosts", string(hosts), "--argstr", "mark", s.mark, filepath.Join(p.folder, "evaluate.nix"))
	var env []string
	p.mutex.Lock()
	heap := p.share()
	p.mutex.Unlock()
	if os.Getenv(heapVariable) == "" && !b.thrifty {
		env = []string{fmt.Sprintf("%s=%d", heapVariable, heap)}
	}
	var peak int64
	err := run.Run(ctx, run.Command{Program: "nix-instantiate", Args: args, Env: env, Stdout: io.Discard, Stderr: &lines{take: s.line}, Ended: func(state *os.ProcessState) {
		if usage, ok := state.SysUsage().(*syscall.Rusage); ok {
			peak = int64(usage.Maxrss) << 10
		}
	}})
	s.close()

	p.mutex.Lock()
	defer p.mutex.Unlock()
	defer p.changed.Broadcast()
	p.running--
	if done := int64(len(b.hosts) - len(s.hosts)); done > 0 && err == nil {
		p.perHost = max(p.perHost, peak/done)
	}
	var exit *run.ExitError
	switch {
	case ctx.Err() != nil:
	case err == nil && len(s.hosts) > 0:
		p.failure = fmt.Errorf("evaluating %s: nix-instantiate has said nothing of it", s.hosts[0])
	case err == nil:
	case errors.As(err, &exit) && exit.Interrupted != nil, !errors.As(err, &exit):
		p.failure = err
	case len(s.hosts) == 0:
		p.failure = fmt.Errorf("evaluating: %w", err)
	case killed(exit, s.said):
		p.afterKill(b, s.hosts, err)
	case !s.ready && b.tries < mostTries && strings.Contains(s.said, "is busy"):
		// Nix without a daemon does not wait for others in each place where it opens its database
		p.again = append(p.again, batch{hosts: b.hosts, thrifty: b.thrifty, tries: b.tries + 1})
	case !s.ready:
		p.failure = fmt.Errorf("the hive cannot be evaluated: %s", s.message(err))
	default:
		p.outcomes[s.hosts[0]] = outcome{err: errors.New(s.message(err))}
		if rest := s.hosts[1:]; len(rest) > 0 {
			p.again = append(p.again, batch{hosts: rest})
		}
		p.tell()
	}
}

const heapVariable = "GC_INITIAL_HEAP_SIZE"

// killed reports whether a process ended for want of memory.
func killed(exit *run.ExitError, said string) bool {
	return exit.Signal == syscall.SIGKILL || exit.Code == 137 ||
		strings.Contains(said, "Too many heap sections") || strings.Contains(said, "out of memory") ||
		strings.Contains(said, "std::bad_alloc") || strings.Contains(said, "Cannot allocate memory")
}

// afterKill lets hosts be evaluated again with fewer in a process, and fewer processes.
func (p *pool) afterKill(b batch, left []string, err error) {
	p.allowed = max(1, p.allowed/2)
	switch {
	case len(left) > 1:
		p.perHost = max(p.perHost, p.share())
		half := len(left) / 2
		p.again = append(p.again, batch{hosts: left[:half]}, batch{hosts: left[half:]})
	case !b.thrifty:
		p.again = append(p.again, batch{hosts: left, thrifty: true})
	default:
		p.outcomes[left[0]] = outcome{err: diag.WithHint(fmt.Errorf("the memory of this machine is not enough to evaluate it: %w", err),
			"close other programs, or add swap: a host needs about 1 GiB")}
		p.tell()
	}
}

// tell reports how many hosts are done.
func (p *pool) tell() {
	if p.request.Tell != nil {
		p.request.Tell(len(p.outcomes), p.all)
	}
}

// session reads what one process says.
type session struct {
	pool  *pool
	mark  string
	ready bool
	// hosts are those that are not done, the present one first.
	hosts []string
	// said is the last error.
	said string

	log io.WriteCloser
	of  string // whose log that is
}

// line takes a line of Nix, which is a message as JSON for the most part.
func (s *session) line(line string) {
	var m message
	if !m.parse(line) {
		if line != "" && !strings.HasPrefix(line, messagePrefix) {
			s.keep(line)
			s.said = line
		}
		return
	}
	text := plain(m.Text)
	if found, ok := strings.CutPrefix(text, "trace: "+s.mark); ok {
		s.found(found)
		return
	}
	s.keep(text)
	if m.Raw != "" {
		s.said = m.words()
	}
}

// found takes what is known of a host.
func (s *session) found(data string) {
	var h struct {
		Ready bool
		Host
	}
	switch err := json.Unmarshal([]byte(data), &h); {
	case err == nil && h.Ready:
		s.ready = true
		return
	case err != nil, len(s.hosts) == 0, h.Name != s.hosts[0]:
		return // the process ends with hosts that are missing
	}
	s.hosts = s.hosts[1:]
	s.pool.mutex.Lock()
	defer s.pool.mutex.Unlock()
	s.pool.outcomes[h.Name] = outcome{host: &h.Host}
	s.pool.tell()
}

// keep puts a line into the log of the present host.
func (s *session) keep(line string) {
	if s.pool.request.Log == nil || len(s.hosts) == 0 {
		return
	}
	if s.of != s.hosts[0] {
		s.close()
		log, err := s.pool.request.Log(s.hosts[0])
		if err != nil {
			return
		}
		s.log, s.of = log, s.hosts[0]
	}
	if s.log != nil {
		fmt.Fprintln(s.log, line)
	}
}

func (s *session) close() {
	if s.log != nil {
		_ = s.log.Close()
		s.log, s.of = nil, ""
	}
}

// message is why the process failed.
func (s *session) message(err error) string {
	if s.said == "" {
		return err.Error()
	}
	return diag.PrintableLines(s.said)
}
