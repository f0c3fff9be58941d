package lease

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"k3splan/internal/diag"
)

// machine is a host that runs the real script by the real sh, with a folder, a clock and a boot of its own.
type machine struct {
	name, dir string
	away      atomic.Bool
	says      string // instead of running the script
}

func newMachine(t testing.TB, name string) *machine {
	m := &machine{name: name, dir: t.TempDir()}
	m.boots("first")
	m.clock(1000)
	return m
}

// clock sets the seconds since boot.
func (m *machine) clock(seconds int) { m.put("uptime", fmt.Sprintf("%d.42 99.00\n", seconds)) }

// boots restarts the machine: its clock begins again.
func (m *machine) boots(id string) { m.put("boot", id+"\n"); m.clock(1) }

func (m *machine) put(name, content string) {
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(content), 0o600); err != nil {
		panic(err)
	}
}

func (m *machine) run(ctx context.Context, script string, words ...string) (string, error) {
	if m.away.Load() {
		return "", errors.New("no connection to " + m.name)
	}
	if m.says != "" {
		return m.says, nil
	}
	script = strings.NewReplacer("/var/lib/k3splan", m.dir+"/state", "/proc/uptime", m.dir+"/uptime", "/proc/sys/kernel/random/boot_id", m.dir+"/boot").Replace(script)
	command := exec.CommandContext(ctx, "sh", append([]string{"-s", "--"}, words...)...)
	command.Stdin = strings.NewReader("{\n" + script + "\n} < /dev/null\n")
	var said strings.Builder
	command.Stderr = &said
	out, err := command.Output()
	if err != nil {
		err = fmt.Errorf("on %s: %w: %s", m.name, err, said.String())
	}
	return string(out), err
}

type rack []*machine

func newRack(t testing.TB, names ...string) (r rack) {
	for _, name := range names {
		r = append(r, newMachine(t, name))
	}
	return r
}

// request is that of an operator with a project in dir.
func (r rack) request(dir string) Request {
	request := Request{Dir: dir, Purpose: "k3splan deploy"}
	for _, m := range r {
		request.Hosts = append(request.Hosts, Host{m.name, m.run})
	}
	return request
}

func (r rack) clock(seconds int) {
	for _, m := range r {
		m.clock(seconds)
	}
}

func TestOneOperatorAtATime(t *testing.T) {
	r, ctx := newRack(t, "olaf", "ulf", "rolf"), context.Background()
	mine, theirs := r.request(t.TempDir()), r.request(t.TempDir())
	first, err := Take(ctx, mine)
	require.NoError(t, err)
	require.Empty(t, first.Warning())
	require.NoError(t, first.Renew(ctx))

	r.clock(1100)
	_, err = Take(ctx, theirs)
	require.ErrorContains(t, err, "k3splan deploy, process")
	require.ErrorContains(t, err, "is changing this rack")
	require.Equal(t, "wait until that ends; if the other process is dead, its lease on olaf ends within 3m20s", diag.HintOf(err))
	require.True(t, IsHeld(err))
	require.NoError(t, first.Renew(ctx))

	first.Release()
	second, err := Take(ctx, theirs)
	require.NoError(t, err)
	require.ErrorContains(t, first.Renew(ctx), "the lease on the rack is lost to ")
	second.Release()
	require.ErrorContains(t, second.Renew(ctx), "is lost to another operator", "it is gone")
}

// The owner died: its lease ends by the host's time since boot, whatever the time of day is, and a later
// run from the same folder of the same machine need not wait.
func TestTheOwnerIsGone(t *testing.T) {
	r, ctx := newRack(t, "olaf", "ulf", "rolf"), context.Background()
	mine, theirs := r.request(t.TempDir()), r.request(t.TempDir())
	_, err := Take(ctx, mine)
	require.NoError(t, err)
	again, err := Take(ctx, mine)
	require.NoError(t, err)

	r.clock(1299)
	_, err = Take(ctx, theirs)
	require.Error(t, err)
	r.clock(1300)
	other, err := Take(ctx, theirs)
	require.NoError(t, err)
	require.ErrorContains(t, again.Renew(ctx), "is lost to")
	other.Release()

	// a host that was restarted does not know how long it was away
	_, err = Take(ctx, mine)
	require.NoError(t, err)
	for _, m := range r {
		m.boots("second")
		m.clock(299)
	}
	_, err = Take(ctx, theirs)
	require.Error(t, err)
	r.clock(300)
	_, err = Take(ctx, theirs)
	require.NoError(t, err)
}

func TestRenewAfterARestart(t *testing.T) {
	r, ctx := newRack(t, "olaf", "ulf", "rolf"), context.Background()
	l, err := Take(ctx, r.request(t.TempDir()))
	require.NoError(t, err)
	r[0].boots("second")
	require.NoError(t, l.Renew(ctx))
	r[1].away.Store(true)
	require.NoError(t, l.Renew(ctx))
	r[2].away.Store(true)
	err = l.Renew(ctx)
	require.ErrorContains(t, err, "needs a majority of the servers' hosts (2 of 3), and 1 can be reached:\n  no connection to ulf\n  no connection to rolf")
	require.False(t, IsHeld(err))
}

func TestMajority(t *testing.T) {
	r, ctx := newRack(t, "olaf", "ulf", "rolf"), context.Background()
	mine, theirs := r.request(t.TempDir()), r.request(t.TempDir())
	// the init server's host is away
	r[0].away.Store(true)
	l, err := Take(ctx, mine)
	require.NoError(t, err)
	// another operator reaches that one, and only one of the others
	r[0].away.Store(false)
	r[1].away.Store(true)
	_, err = Take(ctx, theirs)
	require.ErrorContains(t, err, "is changing this rack")
	require.NoFileExists(t, filepath.Join(r[0].dir, "state", "lease"), "what was taken is given back")
	// the one that was away keeps the lease from now on
	r[1].away.Store(false)
	require.NoError(t, l.Renew(ctx))
	require.FileExists(t, filepath.Join(r[0].dir, "state", "lease"))
	l.Release()
	for _, m := range r {
		require.NoFileExists(t, filepath.Join(m.dir, "state", "lease"))
	}

	r[0].away.Store(true)
	r[2].away.Store(true)
	_, err = Take(ctx, mine)
	require.ErrorContains(t, err, "a majority of the servers' hosts")
	require.NoFileExists(t, filepath.Join(r[1].dir, "state", "lease"))
}

func TestNoServers(t *testing.T) {
	l, err := Take(context.Background(), Request{Dir: t.TempDir()})
	require.NoError(t, err)
	require.NoError(t, l.Renew(context.Background()))
	require.Empty(t, l.Warning())
	l.Release()
}

// A host whose answer makes no sense is named; one that cannot keep a lease does not count.
func TestAnswersThatMakeNoSense(t *testing.T) {
	r, ctx := newRack(t, "olaf", "ulf", "rolf"), context.Background()
	r[0].says, r[1].says = "\n", "welcome\nk3splan-lease perhaps\n"
	l, err := Take(ctx, r.request(t.TempDir()))
	require.NoError(t, err)
	require.Equal(t, "olaf, ulf did not confirm the lease on the rack: make sure that nobody else is changing it now", l.Warning())
	l.Release()

	r[0].says, r[1].says = "welcome\nk3splan-lease held 12 eve\x1b[2J on x\n", ""
	_, err = Take(ctx, r.request(t.TempDir()))
	require.EqualError(t, err, `eve\x1b[2J on x is changing this rack`)

	full := newRack(t, "olaf")
	full[0].put("state", "not a folder")
	_, err = Take(ctx, full.request(t.TempDir()))
	require.ErrorContains(t, err, "(1 of 1), and 0 can be reached:\n  on olaf: ")
}

// A lease that cannot be read ends as well: at the latest when its time has passed since the last boot.
func TestUnreadableLease(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "cut": "token\nplace\n", "no numbers": "t\np\nfirst\nnever\nlong\nsomebody\n",
		"octal": "t\np\nfirst\n08\n09\nsomebody\n", "huge": "t\np\nfirst\n99999999999999999999\n99999999999999999999\nsomebody\n",
	} {
		t.Run(name, func(t *testing.T) {
			m, ctx := newMachine(t, "olaf"), context.Background()
			require.NoError(t, os.Mkdir(filepath.Join(m.dir, "state"), 0o700))
			m.put("state/lease", content)
			m.clock(301)
			l, err := Take(ctx, rack{m}.request(t.TempDir()))
			require.NoError(t, err)
			l.Release()
		})
	}
}

// Of many operators at the same moment, one has the lease at most, and one more for each that gives it back.
func TestAtTheSameMoment(t *testing.T) {
	r, ctx := newRack(t, "olaf", "ulf", "rolf"), context.Background()
	var inside, succeeded atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		dir := t.TempDir()
		group.Go(func() {
			for range 3 {
				l, err := Take(ctx, r.request(dir))
				if err != nil {
					continue
				}
				if now := inside.Add(1); now > 1 {
					t.Errorf("%d operators hold the lease", now)
				}
				if err := l.Renew(ctx); err != nil {
					t.Error(err)
				}
				inside.Add(-1)
				succeeded.Add(1)
				l.Release()
			}
		})
	}
	group.Wait()
	require.NotZero(t, succeeded.Load())
}

// Whatever happens, Renew succeeds for one of two operators at most, unless the other's lease has ended.
func TestTwoOperators(t *testing.T) {
	places := []string{t.TempDir(), t.TempDir()}
	rapid.Check(t, func(rt *rapid.T) {
		r, ctx := newRack(t, "olaf", "ulf", "rolf"), context.Background()
		leases := make([]*Lease, 2)
		holder := -1 // who was confirmed last
		now, renewed := 1000, 0
		for range rapid.IntRange(1, 9).Draw(rt, "steps") {
			who := rapid.IntRange(0, 1).Draw(rt, "who")
			for i, m := range r {
				m.away.Store(rapid.Bool().Draw(rt, fmt.Sprintf("away %d", i)))
			}
			var err error
			switch action := rapid.SampledFrom([]string{"take", "renew", "renew", "release", "time"}).Draw(rt, "action"); {
			case action == "time":
				now += rapid.IntRange(1, 400).Draw(rt, "seconds")
				r.clock(now)
				continue
			case action == "take":
				if leases[who] != nil {
					leases[who].Release()
				}
				leases[who], err = Take(ctx, r.request(places[who]))
			case leases[who] == nil:
				continue
			case action == "renew":
				err = leases[who].Renew(ctx)
			default:
				leases[who].Release()
				leases[who] = nil
				if holder == who {
					holder = -1
				}
				continue
			}
			if err != nil {
				if holder == who {
					holder = -1 // it stops
				}
				continue
			}
			if holder == 1-who && now-renewed < 300 {
				rt.Fatalf("both hold the lease, %d s after it was renewed", now-renewed)
			}
			holder, renewed = who, now
		}
		for _, l := range leases {
			if l != nil {
				l.Release()
			}
		}
	})
}
