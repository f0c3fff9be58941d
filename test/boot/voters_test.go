package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"k3splan/test/boot/lab"
)

// voters asks members of etcd every 500 ms, each for itself, whether they are healthy: voters that have a leader. While
// another leader is elected no member has one, for some 50 ms; so one without is asked again after a moment.
type voters struct {
	stop  chan struct{}
	group sync.WaitGroup

	mutex   sync.Mutex
	healthy map[string]bool
	// exempt is while a majority is not to be expected.
	exempt bool
	spans  map[bool]*span
	row    string
}

// span is what was seen while a majority was expected, or while it was not.
type span struct {
	least, looks int
	when         string
}

// watchVoters watches the servers, by host, until the test ends. All of them are healthy now.
func watchVoters(t *testing.T, l *lab.Lab, servers map[string]string) *voters {
	w := &voters{stop: make(chan struct{}), healthy: map[string]bool{}, spans: map[bool]*span{}}
	for _, exempt := range []bool{false, true} {
		w.spans[exempt] = &span{least: len(servers)}
	}
	for host := range servers {
		w.healthy[host] = true
	}
	for host, server := range servers {
		w.group.Go(func() {
			m := &memberOf{machine: l.Machine(host), server: server}
			defer m.forget()
			for {
				healthy := m.votes()
				if !healthy && m.network != nil {
					time.Sleep(300 * time.Millisecond)
					healthy = m.votes()
				}
				w.saw(host, healthy)
				select {
				case <-w.stop:
					return
				case <-time.After(500 * time.Millisecond):
				}
			}
		})
	}
	t.Cleanup(func() { close(w.stop); w.group.Wait() })
	return w
}

func (w *voters) saw(host string, healthy bool) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.healthy[host] = healthy
	count := 0
	for _, is := range w.healthy {
		if is {
			count++
		}
	}
	s := w.spans[w.exempt]
	s.looks++
	if count < s.least {
		s.least, s.when = count, fmt.Sprintf("%s in %q: %v", time.Now().Format("15:04:05.0"), w.row, w.healthy)
	}
}

// excuse does something during which no majority is expected.
func (w *voters) excuse(do func()) {
	set := func(exempt bool) { w.mutex.Lock(); defer w.mutex.Unlock(); w.exempt = exempt }
	set(true)
	defer set(false)
	do()
}

// in names what happens from now on.
func (w *voters) in(row string) { w.mutex.Lock(); defer w.mutex.Unlock(); w.row = row }

// say prints what was seen, and returns the smallest number of healthy voters while a majority was expected.
func (w *voters) say() int {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	for _, exempt := range []bool{false, true} {
		s, words := w.spans[exempt], "in a restore"
		if !exempt {
			words = "outside of a restore"
		}
		if s.looks > 0 {
			fmt.Printf("healthy voters of etcd %s: never fewer than %d of %d, in %d looks; %s\n", words, s.least, len(w.healthy), s.looks, s.when)
		}
	}
	return w.spans[false].least
}

// now returns the hosts whose members are healthy, sorted.
func (w *voters) now() []string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(w.healthy)), func(host string) bool { return !w.healthy[host] })
}

// memberOf is a member of etcd in a container of a machine. Its network is looked for again whenever it does not
// answer.
type memberOf struct {
	machine lab.Machine
	server  string
	network *os.File
	client  *http.Client
}

func (m *memberOf) votes() bool {
	if m.network == nil {
		network, err := m.machine.Network(m.server)
		if err != nil {
			return false
		}
		m.network = network
		m.client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: dialFrom(network)}}
	}
	answer, err := m.client.Get("http://127.0.0.1:2381/metrics")
	if err != nil {
		m.forget()
		return false
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return err == nil && bytes.Contains(text, []byte("etcd_server_has_leader 1\n")) && bytes.Contains(text, []byte("etcd_server_is_learner 0\n"))
}

func (m *memberOf) forget() {
	if m.network != nil {
		m.client.CloseIdleConnections()
		_ = m.network.Close()
		m.network = nil
	}
}

// dialFrom connects from inside a network namespace. A thread that has entered one is not used for anything else.
func dialFrom(network *os.File) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, kind, address string) (connection net.Conn, err error) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			if err = unix.Setns(int(network.Fd()), unix.CLONE_NEWNET); err == nil {
				connection, err = (&net.Dialer{}).DialContext(ctx, kind, address)
			}
		}()
		<-done
		return connection, err
	}
}

// majority requires that a majority of three voted all the time.
func (w *voters) majority(t *testing.T) { require.GreaterOrEqual(t, w.say(), 2) }
