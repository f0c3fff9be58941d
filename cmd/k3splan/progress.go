package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/charmbracelet/x/ansi"
	"golang.org/x/term"

	"k3splan/internal/ask"
	"k3splan/internal/diag"
	"k3splan/internal/text"
)

// progress shows what is being done: on a terminal one line with a spinner for each thing, and a bar
// below them; elsewhere a plain line whenever the phase of a thing changes.
type progress struct {
	app   *app
	live  bool
	total int

	mutex  sync.Mutex
	done   int
	active []*activity
	drawn  int // lines on the terminal
	frame  int
	end    chan struct{}
	ended  chan struct{}
}

var _ ask.Progress = (*progress)(nil)

type activity struct {
	name, phase, detail string
	since               time.Time
}

// newProgress starts to show the progress of total things. Until it is stopped, say prints above it.
func (a *app) newProgress(total int) *progress {
	p := &progress{app: a, total: total, live: term.IsTerminal(int(a.stderr.Fd())) && os.Getenv("TERM") != "dumb",
		end: make(chan struct{}), ended: make(chan struct{})}
	a.shown.Store(p)
	go p.spin()
	return p
}

func (p *progress) Stop() {
	if !p.app.shown.CompareAndSwap(p, nil) {
		return
	}
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

func (p *progress) Step(name, phase, detail string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	i := p.index(name)
	if i < 0 {
		p.active = append(p.active, &activity{name: name, since: time.Now()})
		i = len(p.active) - 1
	}
	entry := p.active[i]
	if entry.phase != phase && !p.live {
		fmt.Fprintf(p.app.stderr, "%s: %s\n", diag.Printable(name), diag.Printable(phase))
	}
	entry.phase, entry.detail = phase, detail
	p.draw()
}

func (p *progress) Done(name, result string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.drop(name)
	p.done++
	p.clear()
	fmt.Fprintf(p.app.stderr, "%s: %s\n", diag.Printable(name), diag.PrintableLines(result))
	p.draw()
}

func (p *progress) Drop(name string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.drop(name)
	p.draw()
}

// say prints a message above the progress.
func (p *progress) say(message string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.clear()
	fmt.Fprintln(p.app.stderr, message)
	p.draw()
}

func (p *progress) index(name string) int {
	return slices.IndexFunc(p.active, func(a *activity) bool { return a.name == name })
}

func (p *progress) drop(name string) {
	if i := p.index(name); i >= 0 {
		p.active = slices.Delete(p.active, i, i+1)
	}
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
		phase := a.phase
		if a.detail != "" {
			phase += ": " + a.detail
		}
		lines = append(lines, fmt.Sprintf("%c %s %s (%s)", spinner[p.frame%len(spinner)], a.name, phase, time.Since(a.since).Round(time.Second)))
	}
	if most := max(1, height-2); len(lines) > most {
		lines = lines[:most]
	}
	if p.total > 1 {
		const barWidth = 24
		full := barWidth * min(p.done, p.total) / p.total
		lines = append(lines, fmt.Sprintf("[%s%s] %d of %s", strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), p.done, text.Count(p.total, "host")))
	}
	for _, line := range lines {
		fmt.Fprintln(p.app.stderr, clipped(line, width-1))
	}
	p.drawn = len(lines)
}

// clipped returns as much of a line as fits into width columns.
func clipped(line string, width int) string { return ansi.Truncate(diag.Printable(line), width, "…") }
