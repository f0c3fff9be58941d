package stick

import "time"

// meter turns bytes done into progress, a few times a second.
type meter struct {
	phase  Phase
	total  int64
	done   int64
	report func(Progress)
	now    func() time.Time
	marks  []mark // the last few reports
}

type mark struct {
	at   time.Time
	done int64
}

const (
	reportEvery = 250 * time.Millisecond
	// rateOver is how many reports the rate is computed over: some five seconds. A stick is fast until its
	// own cache is full.
	rateOver = 20
)

func newMeter(phase Phase, total int64, report func(Progress)) *meter {
	m := &meter{phase: phase, total: total, report: report, now: time.Now}
	m.send(m.now())
	return m
}

func (m *meter) add(bytes int64) {
	m.done += bytes
	if now := m.now(); now.Sub(m.marks[len(m.marks)-1].at) >= reportEvery {
		m.send(now)
	}
}

// end reports the end of the phase.
func (m *meter) end() { m.send(m.now()) }

func (m *meter) send(now time.Time) {
	m.marks = append(m.marks, mark{now, m.done})
	if len(m.marks) > rateOver {
		m.marks = m.marks[1:]
	}
	p := Progress{Phase: m.phase, Done: m.done, Total: m.total}
	if passed := now.Sub(m.marks[0].at).Seconds(); passed > 0 {
		p.Rate = float64(m.done-m.marks[0].done) / passed
	}
	if p.Rate > 0 {
		p.Remaining = time.Duration(float64(m.total-m.done) / p.Rate * float64(time.Second))
	}
	m.report(p)
}
