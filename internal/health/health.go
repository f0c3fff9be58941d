// Package health makes the health checks of hosts: from the machine that k3splan runs on, or on the host itself
// over one connection a host.
package health

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/run"
)

// Result is what became of a check.
type Result struct {
	Host    string
	Check   plan.HealthCheck
	Healthy bool
	// Reason is why the check failed, in one line that is fit for a terminal, or "".
	Reason string
	// Hint says what to do, or is "".
	Hint string
	Took time.Duration
}

// Checks are the checks of some hosts.
type Checks struct {
	Hosts []*plan.Host
	// Machines is what the hosts say about themselves, by name.
	Machines map[string]plan.Machine
	// At returns how a host is reached.
	At func(*plan.Host) remote.Machine
}

// atOnce is how many checks from this machine are made at the same time, and how many hosts are asked.
const atOnce = 32

// Run makes all checks at the same time and returns their results in the order of the hosts and of their
// checks. None takes longer than its timeout, and a connection to a host longer than that of its checks.
func (c Checks) Run(ctx context.Context) []Result {
	var results []Result
	type span struct{ first, checks int }
	at := map[*plan.Host]span{}
	for _, host := range c.Hosts {
		checks := c.Machines[host.Name].HealthChecks
		at[host] = span{len(results), len(checks)}
		for _, check := range checks {
			results = append(results, Result{Host: host.Name, Check: check})
		}
	}
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	begin := func(do func()) {
		all.Add(1)
		go func() {
			defer all.Done()
			slots <- struct{}{}
			defer func() { <-slots }()
			do()
		}()
	}
	for _, host := range c.Hosts {
		own := results[at[host].first:][:at[host].checks]
		var onHost []*Result
		for i := range own {
			r := &own[i]
			switch wrong := r.Check.Wrong(); {
			case wrong != "":
				r.Reason = wrong
			case r.Check.From == plan.FromHost:
				onHost = append(onHost, r)
			default:
				begin(func() { fromHere(ctx, host, r) })
			}
		}
		if len(onHost) > 0 {
			begin(func() { c.onHost(ctx, host, onHost) })
		}
	}
	all.Wait()
	for i := range results {
		results[i].Reason = diag.Printable(results[i].Reason)
	}
	return results
}

// Healthy reports whether all checks have passed.
func Healthy(results []Result) bool {
	return !slices.ContainsFunc(results, func(r Result) bool { return !r.Healthy })
}

// Wait runs all checks again and again, with a pause, until all of them pass or the time is up, and returns the
// last results. tell is called with the results of each round that is not the last one.
func (c Checks) Wait(ctx context.Context, limit, pause time.Duration, tell func([]Result)) []Result {
	end := time.Now().Add(limit)
	for {
		results := c.Run(ctx)
		if Healthy(results) || ctx.Err() != nil || !time.Now().Add(pause).Before(end) {
			return results
		}
		tell(results)
		select {
		case <-ctx.Done():
			return results
		case <-time.After(pause):
		}
	}
}

// fromHere makes a check from this machine.
func fromHere(ctx context.Context, host *plan.Host, r *Result) {
	limit := time.Duration(r.Check.Timeout) * time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	// a program may take a moment longer to be ended than the check may take
	ended := make(chan error, 1)
	go func() {
		switch r.Check.Type {
		case plan.CheckHTTP:
			ended <- askHTTP(ctx, r.Check)
		case plan.CheckTCP:
			ended <- connect(ctx, host, r.Check)
		default:
			_, err := run.Output(ctx, run.Command{Program: "sh", Args: []string{"-c", r.Check.Command}, Limit: 1 << 20})
			ended <- err
		}
	}()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	r.Took = time.Since(began)
	r.Healthy = err == nil
	if err != nil {
		r.Reason = reason(err, limit)
	}
}

// reason returns why a check failed in few words.
func reason(err error, limit time.Duration) string {
	var (
		exit    *run.ExitError
		network net.Error
		asked   *url.Error
		tooMuch *run.TooMuchError
		number  syscall.Errno
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return fmt.Sprintf("no answer within %.0f s", limit.Seconds())
	case errors.As(err, &tooMuch):
		return "it prints too much"
	case errors.As(err, &exit) && strings.TrimSpace(exit.Stderr) != "":
		lines := strings.Split(strings.TrimSpace(exit.Stderr), "\n")
		return lines[len(lines)-1]
	case errors.As(err, &exit):
		return fmt.Sprintf("exit status %d", exit.Code)
	case errors.As(err, &number):
		return number.Error()
	case errors.As(err, &asked):
		return asked.Err.Error()
	}
	return err.Error()
}

// maxBody is how much of a body is searched, in bytes.
const maxBody = 1 << 20

func askHTTP(ctx context.Context, check plan.HealthCheck) error {
	client := &http.Client{Transport: &http.Transport{
		Proxy: nil, DisableKeepAlives: true, // the machines are in the network of this one
		TLSClientConfig: &tls.Config{InsecureSkipVerify: check.Insecure}, //nolint:gosec // the user asks for it
	}}
	if check.ExpectStatus >= 300 && check.ExpectStatus < 400 {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, check.URL, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "k3splan")
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if expected := check.ExpectStatus; expected != 0 && answer.StatusCode != expected || expected == 0 && answer.StatusCode/100 != 2 {
		return fmt.Errorf("status %d", answer.StatusCode)
	}
	if check.ExpectBody == "" {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxBody))
	if err != nil {
		return err
	}
	if !strings.Contains(string(body), check.ExpectBody) {
		return errors.New("the body does not contain what it should")
	}
	return nil
}

func connect(ctx context.Context, host *plan.Host, check plan.HealthCheck) error {
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(cmp.Or(check.Host, addressOf(host)), strconv.Itoa(check.Port)))
	if err != nil {
		return err
	}
	return connection.Close()
}

// addressOf returns how a host is called from this machine.
func addressOf(host *plan.Host) string {
	switch {
	case !host.DHCP():
		return host.Address.String()
	case host.Target.Local:
		return "127.0.0.1"
	}
	return host.Target.Host
}

//go:embed script.sh
var script string

// connecting is how long a connection and the start of a shell may take beside the checks.
const connecting = 20 * time.Second

// onHost makes checks on the host itself.
func (c Checks) onHost(ctx context.Context, host *plan.Host, results []*Result) {
	text := strings.Builder{}
	text.WriteString(script)
	longest := 0
	for i, r := range results {
		longest = max(longest, r.Check.Timeout)
		text.WriteString(run.Words(append([]string{"one", strconv.Itoa(i), string(r.Check.Type), strconv.Itoa(r.Check.Timeout)}, words(r.Check)...)...) + " &\n")
	}
	text.WriteString("wait\n")
	machine := c.At(host)
	machine.Timeout = connecting + time.Duration(longest)*time.Second
	began := time.Now()
	out, err := machine.Script(ctx, text.String())
	for lines := bufio.NewScanner(strings.NewReader(out)); lines.Scan(); {
		fields := strings.SplitN(lines.Text(), " ", 5)
		if len(fields) != 5 || fields[0] != "check" {
			continue
		}
		number, errNumber := strconv.Atoi(fields[1])
		took, errTook := strconv.Atoi(fields[3])
		if errNumber != nil || errTook != nil || number < 0 || number >= len(results) {
			continue
		}
		r := results[number]
		r.Took, r.Healthy = time.Duration(took)*time.Millisecond, fields[2] == "passed"
		if r.Reason = strings.TrimSpace(fields[4]); r.Healthy {
			r.Reason = ""
		} else if r.Reason == "" {
			r.Reason = "it failed"
		}
	}
	for _, r := range results {
		if r.Healthy || r.Reason != "" {
			continue
		}
		r.Took, r.Reason = time.Since(began), "the host did not answer what it was asked"
		if err != nil {
			r.Reason, r.Hint = remote.Reason(err), diag.HintOf(err)
		}
	}
}

// words are the arguments of a check for the script.
func words(c plan.HealthCheck) []string {
	flag := func(set bool) string {
		if set {
			return "yes"
		}
		return ""
	}
	switch c.Type {
	case plan.CheckHTTP:
		status := ""
		if c.ExpectStatus != 0 {
			status = strconv.Itoa(c.ExpectStatus)
		}
		return []string{c.URL, status, c.ExpectBody, flag(c.Insecure), flag(c.ExpectStatus/100 != 3)}
	case plan.CheckTCP:
		return []string{cmp.Or(c.Host, "localhost"), strconv.Itoa(c.Port)}
	case plan.CheckCommand:
		return []string{c.Command}
	}
	return []string{c.Unit}
}
