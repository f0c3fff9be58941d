package health

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/plan"
	"k3splan/internal/remote"
)

// servers are real ones on this machine.
type servers struct {
	http, https        string
	open, closed, mute int
}

func serve(t *testing.T) servers {
	t.Helper()
	handler := http.NewServeMux()
	handler.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "all is\nwell 'here'") })
	handler.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	handler.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	handler.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	handler.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(20 * time.Second):
		}
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	t.Cleanup(func() { plain.CloseClientConnections(); plain.Close(); secure.Close() })
	listen := func() net.Listener {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { listener.Close() })
		return listener
	}
	port := func(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
	open, closed := listen(), listen()
	closed.Close()
	mute := listen() // accepts by its backlog, and says nothing
	return servers{plain.URL, secure.URL, port(open), port(closed), port(mute)}
}

// Each type of check, from here and on the host, passes where it should and fails with its reason.
func TestChecks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP: the host is this machine, and commands on hosts run as root")
	}
	s := serve(t)
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "systemctl"), []byte("#!/bin/sh\ncase $3 in nginx.service) echo active;; *) echo inactive; exit 3;; esac\n"), 0o755))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for name, test := range map[string]struct {
		check plan.HealthCheck
		// here and there are the reasons, "" for a check that passes, "-" for one that is not made there
		here, there string
	}{
		"http":                 {plan.HealthCheck{Type: plan.CheckHTTP, URL: s.http + "/ok"}, "", ""},
		"http, no content":     {plan.HealthCheck{Type: plan.CheckHTTP, URL: s.http + "/empty"}, "", ""},
		"http, broken":         {plan.HealthCheck{Type: plan.CheckHTTP, URL: s.http + "/broken"}, "status 500", "status 500"},
		"http, status":         {plan.HealthCheck{Type: plan.CheckHTTP, URL: s.http + "/broken", ExpectStatus: 500}, "", ""},
		"http, another status": {plan.HealthCheck{Type: plan.CheckHTTP, URL: s.http + "/ok", ExpectStatus: 204}, "status 200", "status 200"},
		"http, moved":          {plan.HealthCheck{Type: plan.CheckHTTP, URL: s.http + "/moved"}, "", ""},
		"http, is moved":       {plan.HealthCheck{Type: plan.CheckHTTP, URL: s.http + "/moved", ExpectStatus: 302}, "", ""},
		"http, body":           {plan.HealthCheck{Type: plan.CheckHTTP, URL: s.http + "/ok", ExpectBody: "is\nwell 'h"}, "", ""},
		"http, another body": {plan.HealthCheck{Type: plan.CheckHTTP, URL: s.http + "/ok", ExpectBody: "all * well"},
			"the body does not contain what it should", "the body does not contain what it should"},
		"http, slow":       {plan.HealthCheck{Type: plan.CheckHTTP, URL: s.http + "/slow", Timeout: 1}, "no answer within 1 s", "no answer within 1 s"},
		"http, mute":       {plan.HealthCheck{Type: plan.CheckHTTP, URL: fmt.Sprintf("http://127.0.0.1:%d/", s.mute), Timeout: 1}, "no answer within 1 s", "no answer within 1 s"},
		"http, closed":     {plan.HealthCheck{Type: plan.CheckHTTP, URL: fmt.Sprintf("http://127.0.0.1:%d/", s.closed)}, "connection refused", "connect to 127.0.0.1"},
		"https":            {plan.HealthCheck{Type: plan.CheckHTTP, URL: s.https + "/ok"}, "certificate", "certificate"},
		"https, insecure":  {plan.HealthCheck{Type: plan.CheckHTTP, URL: s.https + "/ok", Insecure: true}, "", ""},
		"tcp":              {plan.HealthCheck{Type: plan.CheckTCP, Port: s.open}, "", ""},
		"tcp, host":        {plan.HealthCheck{Type: plan.CheckTCP, Port: s.open, Host: "127.0.0.1"}, "", ""},
		"tcp, closed":      {plan.HealthCheck{Type: plan.CheckTCP, Port: s.closed}, "connection refused", "Connection refused"},
		"command":          {plan.HealthCheck{Type: plan.CheckCommand, Command: "test -d /tmp && echo \"it's\" ${HOME}"}, "", ""},
		"command, status":  {plan.HealthCheck{Type: plan.CheckCommand, Command: "exit 7"}, "exit status 7", "exit status 7"},
		"command, reason":  {plan.HealthCheck{Type: plan.CheckCommand, Command: "echo one >&2; printf 'two\\033[31m' >&2; false"}, "two", "two"},
		"command, hangs":   {plan.HealthCheck{Type: plan.CheckCommand, Command: "sleep 19", Timeout: 1}, "no answer within 1 s", "no answer within 1 s"},
		"command, leaves":  {plan.HealthCheck{Type: plan.CheckCommand, Command: "setsid sleep 15 & sleep 18", Timeout: 1}, "no answer within 1 s", "no answer within 1 s"},
		"unit":             {plan.HealthCheck{Type: plan.CheckUnit, Unit: "nginx.service"}, "-", ""},
		"unit, not active": {plan.HealthCheck{Type: plan.CheckUnit, Unit: "cron.service"}, "-", "the unit is inactive"},
		"wrong":            {plan.HealthCheck{Type: plan.CheckTCP}, "a tcp check has no target", "a tcp check has no target"},
	} {
		for from, want := range map[plan.CheckFrom]string{plan.FromOperator: test.here, plan.FromHost: test.there} {
			if want == "-" {
				continue
			}
			t.Run(name+" from "+string(from), func(t *testing.T) {
				t.Parallel()
				check := test.check
				check.Name, check.From = name, from
				if check.Timeout == 0 {
					check.Timeout = 60 // the machine may be busy
				}
				began := time.Now()
				results := checksOf(check).Run(context.Background())
				require.Len(t, results, 1)
				r := results[0]
				require.Equal(t, want == "", r.Healthy, r.Reason)
				require.Equal(t, check, r.Check)
				for _, part := range strings.Split(want, "*") {
					require.Contains(t, strings.ToLower(r.Reason), strings.ToLower(part))
				}
				require.NotContains(t, r.Reason, "\033")
				if r.Healthy {
					require.Empty(t, r.Reason)
				}
				if check.Timeout == 1 {
					require.Less(t, time.Since(began), 14*time.Second, "a check never hangs")
				}
			})
		}
	}
}

// checksOf are checks of this machine.
func checksOf(checks ...plan.HealthCheck) Checks {
	host := &plan.Host{Name: "olaf", Target: plan.Target{Local: true}}
	return Checks{
		Hosts: []*plan.Host{host}, Machines: map[string]plan.Machine{"olaf": {HealthChecks: checks}},
		At: func(h *plan.Host) remote.Machine { return remote.Machine{Host: h} },
	}
}

// All checks on a host are one connection, and a host that does not answer fails all of them with its reason.
func TestOneConnection(t *testing.T) {
	bin := t.TempDir()
	log := filepath.Join(bin, "log")
	require.NoError(t, os.WriteFile(filepath.Join(bin, "ssh"), []byte(`#!/bin/sh
echo connection >> "`+log+`"
while [ "$1" != -- ]; do target=$1; shift; done
shift
case $target in *away) echo "ssh: connect to host away port 22: No route to host" >&2; exit 255 ;; esac
exec sh -c "$*"
`), 0o755))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	command := func(name, text string) plan.HealthCheck {
		return plan.HealthCheck{Name: name, Type: plan.CheckCommand, Command: text, Timeout: 60, From: plan.FromHost}
	}
	c := Checks{
		Machines: map[string]plan.Machine{
			"olaf": {HealthChecks: []plan.HealthCheck{command("a", "true"), command("b", "false"), command("c", "exit 3")}},
			"ulf":  {HealthChecks: []plan.HealthCheck{command("a", "true"), command("b", "true")}},
			"karl": {},
		},
		At: func(h *plan.Host) remote.Machine { return remote.Machine{Host: h, User: "root"} },
	}
	for _, name := range []string{"olaf", "ulf", "karl"} {
		target := plan.Target{Host: name}
		if name == "ulf" {
			target.Host = "away"
		}
		c.Hosts = append(c.Hosts, &plan.Host{Name: name, Target: target})
	}
	results := c.Run(context.Background())
	var words []string
	for _, r := range results {
		words = append(words, fmt.Sprintf("%s %s %v %s", r.Host, r.Check.Name, r.Healthy, r.Reason))
	}
	require.Equal(t, []string{"olaf a true ", "olaf b false exit status 1", "olaf c false exit status 3",
		"ulf a false ssh: connect to host away port 22: No route to host", "ulf b false ssh: connect to host away port 22: No route to host"}, words)
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	require.Equal(t, "connection\nconnection\n", string(text))
	require.False(t, Healthy(results))
}

// Wait ends as soon as all checks pass, and when the time is up.
func TestWait(t *testing.T) {
	file := filepath.Join(t.TempDir(), "there")
	check := plan.HealthCheck{Name: "x", Type: plan.CheckCommand, Command: "test -e " + file, Timeout: 60, From: plan.FromOperator}
	rounds := 0
	results := checksOf(check).Wait(context.Background(), time.Hour, time.Millisecond, func(results []Result) {
		require.False(t, Healthy(results))
		if rounds++; rounds == 3 {
			require.NoError(t, os.WriteFile(file, nil, 0o600))
		}
	})
	require.True(t, Healthy(results))
	require.Equal(t, 3, rounds)
	require.NoError(t, os.Remove(file))
	require.False(t, Healthy(checksOf(check).Wait(context.Background(), 10*time.Millisecond, time.Millisecond, func([]Result) {})))
}
