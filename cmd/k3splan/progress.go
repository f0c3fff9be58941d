package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"k3splan/internal/rollout"
)

// progress shows what is done with each host: on a terminal one line a host with a spinner, and a
// bar; elsewhere a plain line whenever something else is done.
type progress struct {
	app   *app
	live  bool
	total int

	mutex  sync.Mutex
	done   int
	active []*activity
	drawn  int
	frame  int
	end    chan struct{}
	ended  chan struct{}
}

type activity struct {
	host, phase, detail string
	since               time.Time
}

func (a *app) newProgress(total int) *progress {
	p := &progress{app: a, total: total, live: term.IsTerminal(int(a.stderr.Fd())) && os.Getenv("TERM") != "dumb",
		end: make(chan struct{}), ended: make(chan struct{})}
	go p.spin()
	return p
}

// stop leaves the terminal as if nothing had been drawn.
func (p *progress) stop() {
	close(p.end)
	<-p.ended
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.clear()
}

func (p *progress) spin() {
	defer close(p.ended)
	tick := time.NewTicker(120 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.end:
			return
		case <-tick.C:
			p.mutex.Lock()
			p.frame++
			p.draw()
			p.mutex.Unlock()
		}
	}
}

// event takes what a rollout tells.
func (p *progress) event(e rollout.Event) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	i := slices.IndexFunc(p.active, func(a *activity) bool { return a.host == e.Host })
	if e.Result != nil {
		if i >= 0 {
			p.active = slices.Delete(p.active, i, i+1)
		}
		p.done++
		p.clear()
		p.app.say("%s: %s", e.Host, p.app.statusText(*e.Result))
		p.draw()
		return
	}
	if i < 0 {
		p.active = append(p.active, &activity{host: e.Host, since: time.Now()})
		i = len(p.active) - 1
	}
	entry := p.active[i]
	if entry.phase != e.Phase && !p.live {
		p.app.say("%s: %s", e.Host, e.Phase)
	}
	entry.phase, entry.detail = e.Phase, e.Detail
	p.draw()
}

// forget ends what was going on without a result.
func (p *progress) forget(host string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.active = slices.DeleteFunc(p.active, func(a *activity) bool { return a.host == host })
	p.draw()
}

func (p *progress) clear() {
	if p.drawn > 0 {
		fmt.Fprintf(p.app.stderr, "\x1b[%dA\x1b[J", p.drawn)
		p.drawn = 0
	}
}

var spinner = []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")

func (p *progress) draw() {
	if !p.live {
		return
	}
	width, height, err := term.GetSize(int(p.app.stderr.Fd()))
	if err != nil || width < 20 {
		width, height = 80, 24
	}
	p.clear()
	var lines []string
	for _, a := range p.active {
		text := a.phase
		if a.detail != "" {
			text += ": " + a.detail
		}
		lines = append(lines, fmt.Sprintf("%c %s %s (%s)", spinner[p.frame%len(spinner)], a.host, text, time.Since(a.since).Round(time.Second)))
	}
	if most := max(1, height-2); len(lines) > most {
		lines = lines[:most]
	}
	const barWidth = 24
	full := barWidth * p.done / max(1, p.total)
	lines = append(lines, fmt.Sprintf("[%s%s] %d of %s", strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), p.done, count(p.total, "host")))
	for _, line := range lines {
		runes := []rune(strings.Map(printable, line))
		fmt.Fprintln(p.app.stderr, string(runes[:min(len(runes), width-1)]))
	}
	p.drawn = len(lines)
}

// printable keeps what Colmena says from moving the cursor.
func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return -1
	}
	return r
}
