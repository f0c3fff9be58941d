package rollout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
	"k3splan/internal/diff"
	"k3splan/internal/fingerprint"
	"k3splan/internal/receipt"
)

// fakeSteps fails where it is told to and records what is done.
type fakeSteps struct {
	mutex                      sync.Mutex
	done                       []string
	failApply, failGate, failR string
	failCheck, failSnapshot    string
	at                         func(step string)
	running, most              atomic.Int32
}

func (f *fakeSteps) step(name, host, fails string) error {
	f.mutex.Lock()
	f.done = append(f.done, name+" "+host)
	f.mutex.Unlock()
	if f.at != nil {
		f.at(name + " " + host)
	}
	if host == fails || fails == "*" {
		return errors.New("it does not work")
	}
	return nil
}

func (f *fakeSteps) Snapshot(_ context.Context, why string) error {
	return f.step("snapshot", why, f.failSnapshot)
}

func (f *fakeSteps) Check(_ context.Context, host string, _ Work, _ Say) error {
	if host == f.failCheck {
		return diag.WithHint(errors.New("refused: a server is down"), "bring it back")
	}
	return nil
}

func (f *fakeSteps) Apply(_ context.Context, host string, _ Work, say Say) (string, error) {
	f.most.Store(max(f.most.Load(), f.running.Add(1)))
	defer f.running.Add(-1)
	say("applying", "")
	time.Sleep(time.Millisecond)
	return "/nix/store/" + host, f.step("apply", host, f.failApply)
}

func (f *fakeSteps) Gate(_ context.Context, host, system string, _ Work, _ Say) error {
	return f.step("gate", host, f.failGate)
}

func (f *fakeSteps) Record(_ context.Context, host, system string) error {
	return f.step("record", host, f.failR)
}

var threeWaves = []Wave{{Kind: kindInit, Hosts: []string{"a"}, Parallel: 1}, {Kind: kindOther, Hosts: []string{"b", "c", "d"}, Parallel: 2}, {Kind: kindNames, Hosts: []string{"e"}, Parallel: 1}}

func runThreeWaves(ctx context.Context, f *fakeSteps) map[string]Result {
	results := map[string]Result{}
	for _, r := range Run(ctx, threeWaves, map[string]Work{"a": {Reasons: []string{"why"}}}, f, func(Event) {}) {
		results[r.Host] = r
	}
	return results
}

func statuses(results map[string]Result) map[Status]string {
	by := map[Status][]string{}
	for host, r := range results {
		by[r.Status] = append(by[r.Status], host)
	}
	text := map[Status]string{}
	for status, hosts := range by {
		slices.Sort(hosts)
		text[status] = strings.Join(hosts, "")
	}
	return text
}

func TestRun(t *testing.T) {
	f := &fakeSteps{}
	results := runThreeWaves(t.Context(), f)
	require.Equal(t, map[Status]string{Deployed: "abcde"}, statuses(results))
	require.Equal(t, "/nix/store/a", results["a"].System)
	require.Equal(t, []string{"why"}, results["a"].Reasons)
	require.Equal(t, []string{"apply a", "gate a", "record a"}, f.done[:3])
	require.LessOrEqual(t, f.most.Load(), int32(2))
	require.Equal(t, []string{"apply e", "gate e", "record e"}, f.done[len(f.done)-3:])
}

// Whatever step fails: no receipt, and no later wave.
func TestRunStops(t *testing.T) {
	for name, f := range map[string]*fakeSteps{"apply": {failApply: "a"}, "gate": {failGate: "a"}, "record": {failR: "a"}} {
		t.Run(name, func(t *testing.T) {
			results := runThreeWaves(t.Context(), f)
			require.Equal(t, map[Status]string{Failed: "a", NotReached: "bcde"}, statuses(results))
			require.Equal(t, "it does not work", results["a"].Cause)
			require.Equal(t, "stopped after a", results["e"].Cause)
			require.Equal(t, 3, results["e"].Wave)
			require.Equal(t, name == "record", slices.Contains(f.done, "record a"))
		})
	}
	// what runs already in the same wave is ended properly
	f := &fakeSteps{failApply: "b"}
	results := runThreeWaves(t.Context(), f)
	require.Equal(t, Failed, results["b"].Status)
	require.Equal(t, NotReached, results["e"].Status)
	for _, host := range []string{"c", "d"} {
		require.Contains(t, []Status{Deployed, NotReached}, results[host].Status)
	}
}

// A step that is not safe any more is not begun, nor is anything after it.
func TestRunStopsBeforeWhatIsRefused(t *testing.T) {
	f := &fakeSteps{failCheck: "b"}
	f.at = func(step string) {
		if step == "apply c" || step == "apply d" {
			time.Sleep(20 * time.Millisecond)
		}
	}
	results := runThreeWaves(t.Context(), f)
	require.Equal(t, NotReached, results["b"].Status)
	require.Equal(t, "refused: a server is down\nbring it back", results["b"].Cause)
	require.Equal(t, Deployed, results["a"].Status)
	require.Equal(t, "stopped before b", results["e"].Cause)
	require.NotContains(t, f.done, "apply b")
	require.NotContains(t, f.done, "apply e")
}

// In a wave of several, no host is begun after one has failed.
func TestRunStopsWithinAWave(t *testing.T) {
	f := &fakeSteps{failApply: "*"}
	wave := []Wave{{Kind: kindOther, Hosts: []string{"a", "b", "c", "d"}, Parallel: 1}}
	count := map[Status]int{}
	for _, result := range Run(t.Context(), wave, nil, f, func(Event) {}) {
		count[result.Status]++
	}
	require.Equal(t, map[Status]int{Failed: 1, NotReached: 3}, count)
	require.Len(t, f.done, 1)
}

func TestRunInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	f := &fakeSteps{}
	f.at = func(step string) {
		if step == "apply a" {
			cancel(errors.New("Ctrl-C"))
		}
	}
	results := runThreeWaves(ctx, f)
	require.Equal(t, map[Status]string{Failed: "a", NotReached: "bcde"}, statuses(results))
	require.Equal(t, "interrupted: Ctrl-C", results["a"].Cause)
	require.Equal(t, []string{"apply a"}, f.done, "no receipt without a gate")
}

func TestParseObserved(t *testing.T) {
	o, err := parseObserved(`system /nix/store/a-system
booted /nix/store/b-system
profile /nix/store/c-system
generation system-42-link
boot 0a1b
reboot kernel
reboot switch inhibitors
nixos 24.11.7 (Vicuna)
failed nginx.service
failed a b
lan yes
etcd olaf-s
receipt
{"version": 2, "system": "/nix/store/a-system", "fingerprint": "sha256:x"}
`)
	require.NoError(t, err)
	require.Equal(t, Observed{
		System: "/nix/store/a-system", Booted: "/nix/store/b-system", Profile: "/nix/store/c-system", Generation: 42, NixOS: "24.11.7 (Vicuna)",
		BootID: "0a1b", RebootFor: []string{"kernel", "switch inhibitors"}, Failed: []string{"nginx.service", "a b"}, LAN: true, Etcd: []string{"olaf-s"},
		Receipt: &receipt.Receipt{Version: receipt.Version, System: "/nix/store/a-system", Fingerprint: "sha256:x"},
	}, o)

	o, err = parseObserved("system /run/current-system\nkernels \ngeneration \nreceipt\n")
	require.NoError(t, err)
	require.Equal(t, Observed{}, o, "no NixOS")

	_, err = parseObserved("system /nix/store/a")
	require.ErrorContains(t, err, "incomplete response")
	for text, why := range map[string]string{`{"vers`: "cannot be read", `{"version": 7}`: "another version of k3splan"} {
		o, err = parseObserved("system /nix/store/a\nreceipt\n" + text)
		require.NoError(t, err)
		require.Nil(t, o.Receipt)
		require.Contains(t, o.BadReceipt, why)
	}
}

func TestParseHealth(t *testing.T) {
	for text, want := range map[string]Health{
		"readyz ok\netcd_server_has_leader 1\netcd_server_is_learner 0\n": {Ready: true},
		"readyz ok\netcd_server_has_leader 1\netcd_server_is_learner 1\n": {Why: "still a learner of etcd, not a voter"},
		"readyz ok\netcd_server_has_leader 0\netcd_server_is_learner 0\n": {Why: "etcd has no leader"},
		"readyz ok\netcd_server_has_leader 1\netcd_server_is_learner 0\nversion v1.31.14+k3s1\nmember 8e9e05c52164694d, started, a-s-1a2b3c4d, https://10.0.0.2:2380, https://10.0.0.2:2379, false\n": {
			Ready: true, Version: "v1.31.14+k3s1", Members: []string{"a-s"}, Listed: []Listed{{"8e9e05c52164694d", "a-s", "https://10.0.0.2:2380"}},
		},
		"readyz ok\netcd_server_has_leader 1\netcd_server_is_learner 0\nstatus https://127.0.0.1:2379, 8e9e05c52164694d, 3.5.21, 3.4 MB, true, false, 3, 812, 812, \n": {
			Ready: true, ID: "8e9e05c52164694d",
		},
		"readyz ok\netcd_server_has_leader 1\netcd_server_is_learner 0\nstatus x, $(reboot), 3\n": {Ready: true},
		"readyz \nversion v1.31.14+k3s1\n": {Why: "/readyz: no answer", Version: "v1.31.14+k3s1"},
		"readyz ok\n":                      {Why: "etcd does not answer"},
		"readyz \n":                        {Why: "/readyz: no answer"},
		"readyz unauthorized\n":            {Why: "/readyz: unauthorized"},
		`readyz Error from server (InternalError): an error on the server ("[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/rbac/bootstrap-roles failed: reason withheld\n[+]shutdown ok\nreadyz check failed") has prevented the request from succeeding` + "\n": {
			Why: "/readyz: not ready: etcd, poststarthook/rbac/bootstrap-roles"},
		"": {Why: "/readyz: no answer"},
	} {
		require.Equal(t, want, parseHealth(text), text)
	}
}

func TestParseNodes(t *testing.T) {
	nodes, err := parseNodes(`{"kind":"List","items":[
		{"metadata":{"name":"a"},"status":{"nodeInfo":{"kubeletVersion":"v1.31.14+k3s1"},"conditions":[{"type":"MemoryPressure","status":"False"},{"type":"Ready","status":"True"}]}},
		{"metadata":{"name":"b"},"status":{"conditions":[{"type":"Ready","status":"Unknown","reason":"NodeStatusUnknown"}]}},
		{"metadata":{"name":"c"},"status":{}}]}

leases
{"kind":"List","items":[{"metadata":{"name":"a"},"spec":{"renewTime":"2024-01-01T00:00:00.000001Z"}},{"metadata":{"name":"z"},"spec":{"renewTime":"x"}}]}`)
	require.NoError(t, err)
	require.Equal(t, map[string]Node{
		"a": {Ready: true, Version: "v1.31.14+k3s1", Renewed: "2024-01-01T00:00:00.000001Z"},
		"b": {Why: "its Node is not ready: NodeStatusUnknown"},
		"c": {Why: "its Node has no state"},
	}, nodes)
	nodes, err = parseNodes(`{"kind":"Node","metadata":{"name":"a"},"status":{"conditions":[{"type":"Ready","status":"True"}]}}` + "\n\nleases\n" + `{"kind":"Lease","metadata":{"name":"a"},"spec":{"renewTime":"y"}}`)
	require.NoError(t, err)
	require.Equal(t, map[string]Node{"a": {Ready: true, Renewed: "y"}}, nodes)
	for _, bad := range []string{"", "{}", "{}\nleases\n", "x\nleases\n{}"} {
		_, err = parseNodes(bad)
		require.Error(t, err, bad)
	}
}

func TestApplySecrets(t *testing.T) {
	p := tables(t, map[string]string{"olaf": "ia", "karl": "a", "ulrich": ""}, "")
	for _, test := range []struct {
		host   string
		kinds  []string
		onHost bool
		want   string
	}{
		{"ulrich", []string{"passwd"}, true, "/run/current-system/bin/switch-to-configuration test"},
		{"ulrich", []string{"passwd"}, false, ""},
		{"olaf", []string{"passwd"}, true, "/run/current-system/bin/switch-to-configuration test\nnixos-container run olaf-s -- /run/current-system/bin/switch-to-configuration test"},
		{"olaf", []string{"passwd"}, false, "nixos-container run olaf-s -- /run/current-system/bin/switch-to-configuration test"},
		{"olaf", []string{"agent-token", "server-token"}, true, restartScript + "\nrestart /var/lib/k3splan/server k3s.service nixos-container run olaf-s --\nrestart /var/lib/k3splan/agent podman-olaf-a.service"},
		{"karl", []string{"agent-token"}, true, restartScript + "\nrestart /var/lib/k3splan/agent podman-karl-a.service"},
		{"ulrich", []string{"ssh-host-key"}, true, "systemctl restart sshd.service"},
	} {
		require.Equal(t, "set -e\n"+strings.TrimPrefix(test.want+"\n", "\n"), applySecrets(p.Host(test.host), test.kinds, test.onHost), "%v", test)
	}
}

// Times are in hundredths of a second since the machine's start.
func TestRestartOnlyWhatStartedBeforeItsTokens(t *testing.T) {
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Skip("SKIP: no /proc/uptime")
	}
	seconds, err := strconv.ParseFloat(strings.Fields(string(uptime))[0], 64)
	require.NoError(t, err)
	for name, test := range map[string]struct {
		began    float64 // s ago
		never    bool
		files    map[string]time.Duration // ago
		restarts bool
	}{
		"before the token":      {began: 3, files: map[string]time.Duration{"token": 2 * time.Second}, restarts: true},
		"before one of them":    {began: 3, files: map[string]time.Duration{"token": 2 * time.Second, "agent-token": time.Minute}, restarts: true},
		"after the token":       {began: 1, files: map[string]time.Duration{"token": 2 * time.Second, "agent-token": time.Minute}},
		"never":                 {never: true, files: map[string]time.Duration{"token": time.Second}, restarts: true},
		"and there is no token": {began: 1, restarts: true},
	} {
		for _, container := range []string{"", "within c --"} {
			t.Run(name+container, func(t *testing.T) {
				dir := t.TempDir()
				write := func(name, text string, mode os.FileMode) {
					require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), mode))
				}
				began := ""
				if !test.never {
					began = strconv.FormatInt(int64((seconds-test.began)*1e6), 10)
				}
				write("systemctl", "#!/bin/sh\nif [ $1 = show ]; then printf '"+began+"\\r\\n'; else echo \"$@\"; fi\n", 0o755)
				write("within", "#!/bin/sh\nshift 2\nexec \"$@\"\n", 0o755)
				for name, ago := range test.files {
					write(name, "", 0o600)
					require.NoError(t, os.Chtimes(filepath.Join(dir, name), time.Time{}, time.Now().Add(-ago)))
				}
				command := exec.Command("sh", "-euc", restartScript+"\nrestart "+dir+" k3s.service "+container)
				command.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
				out, err := command.CombinedOutput()
				require.NoError(t, err, "%s", out)
				require.Equal(t, map[bool]string{true: "restart k3s.service\n"}[test.restarts], string(out))
			})
		}
	}
}

func TestDecide(t *testing.T) {
	was := tables(t, map[string]string{"karl": ""}, "")
	p := edited(t, was, `"10.0.0.2"`, `"10.0.0.3"`)
	kept, err := receipt.Keep(was)
	require.NoError(t, err)
	in := fingerprint.Inputs{Data: map[string]string{"host.ip": "10.0.0.2"}, Names: map[string]string{"karl": "10.0.0.2"}, Files: map[string]string{"nixConfigs/all.nix": "x"}}
	good := func() Observed {
		return Observed{System: "/nix/store/s", Profile: "/nix/store/s", Booted: "/nix/store/s",
			Receipt: &receipt.Receipt{Version: receipt.Version, System: "/nix/store/s", Inputs: in, Fingerprint: in.Fingerprint(), Plan: kept}}
	}
	changed := in
	changed.Data = map[string]string{"host.ip": "10.0.0.3"}
	moved := Work{System: true, Changes: diff.Compare(was, p), Reasons: []string{"host karl: ip 10.0.0.2 → 10.0.0.3 (may cut the connection)"}}
	named := in
	named.Names = map[string]string{"karl": "10.0.0.2", "egon": "10.0.0.9"}
	loose := in
	loose.Loose = []string{"nixpkgs comes from <nixpkgs>, which has no hash"}
	for name, test := range map[string]struct {
		observed func(*Observed)
		today    fingerprint.Inputs
		secrets  []string
		all      bool
		want     Work
	}{
		"up to date":         {nil, in, nil, false, Work{}},
		"new":                {func(o *Observed) { o.Receipt = nil }, in, nil, false, Work{System: true, New: true, Reasons: []string{"new"}}},
		"a receipt of later": {func(o *Observed) { o.Receipt, o.BadReceipt = nil, "bad" }, in, nil, false, Work{System: true, New: true, Reasons: []string{"bad"}}},
		"a receipt without plan": {func(o *Observed) { o.Receipt.Plan = nil }, changed, nil, false,
			Work{System: true, New: true, Reasons: []string{"the plan in the receipt cannot be read: EOF"}}},
		"changed": {nil, changed, nil, false, moved},
		"names and a rollback": {func(o *Observed) { o.System = "/nix/store/old" }, in, nil, false,
			Work{System: true, Reasons: []string{"runs another system than was deployed (a rollback, or a deployment that did not end well)"}}},
		"booted an old one": {func(o *Observed) { o.System, o.Booted = "/nix/store/old", "/nix/store/old" }, in, nil, false,
			Work{System: true, Reasons: []string{"has booted into another system than was deployed"}}},
		"another profile": {func(o *Observed) { o.Profile = "/nix/store/new" }, in, nil, false,
			Work{System: true, Reasons: []string{"would boot into another system than was deployed"}}},
		"loose":    {nil, loose, nil, false, Work{System: true, Reasons: loose.Loose}},
		"secrets":  {nil, in, []string{"passwd"}, false, Work{Secrets: []string{"passwd"}, Reasons: []string{"password"}}},
		"all":      {nil, in, nil, true, Work{System: true, SameOptions: true, Reasons: []string{"--all"}}},
		"all also": {nil, changed, nil, true, moved},
	} {
		t.Run(name, func(t *testing.T) {
			o := good()
			if test.observed != nil {
				test.observed(&o)
			}
			require.Equal(t, test.want, Decide(NewPast(p), "karl", o, test.today, test.secrets, test.all))
		})
	}

	// the names of others are no change of the host's own plan
	names := Decide(NewPast(was), "karl", good(), named, nil, false)
	require.Equal(t, Work{System: true, OnlyNames: true, SameOptions: true, Reasons: []string{"/etc/hosts: +egon"}}, names)
	named.ReadsNames = true // a snippet may restart containers because of them
	require.Equal(t, Work{System: true, SameOptions: true, Reasons: []string{"/etc/hosts: +egon"}}, Decide(NewPast(was), "karl", good(), named, nil, false))
	named.ReadsNames = false
	after := good()
	after.System = "/nix/store/old"
	require.False(t, Decide(NewPast(was), "karl", after, named, nil, false).OnlyNames)
}

func TestWhatKeepsOptions(t *testing.T) {
	was := fingerprint.Inputs{Data: map[string]string{"host.ip": "1", "server.type": "server", "agent.labels": ""}, Names: map[string]string{"a": "1"},
		Servers: "1 2", Files: map[string]string{"rendered": "a", "k3s/server.yaml": "a", "manifests/a.yaml": "a"}, Pins: map[string]string{"nixpkgs": "a"}}
	with := func(change func(*fingerprint.Inputs)) fingerprint.Inputs {
		in := fingerprint.Inputs{Data: maps.Clone(was.Data), Names: maps.Clone(was.Names), Servers: was.Servers, Files: maps.Clone(was.Files), Pins: maps.Clone(was.Pins)}
		change(&in)
		return in
	}
	require.True(t, keepsOptions(was, with(func(in *fingerprint.Inputs) { // the init server has left, and this one takes its place
		in.Data["server.type"], in.Files["rendered"], in.Servers = "init", "b", "2"
		delete(in.Names, "a")
		in.Data["agent.labels"], in.Files["manifests/a.yaml"] = "disk=large", "b"
	})))
	for name, change := range map[string]func(*fingerprint.Inputs){
		"options":   func(in *fingerprint.Inputs) { in.Files["k3s/server.yaml"] = "b" },
		"a snippet": func(in *fingerprint.Inputs) { in.Files["nixConfigs/all.nix"] = "b" },
		"nixpkgs":   func(in *fingerprint.Inputs) { in.Pins["nixpkgs"] = "b" },
		"networks":  func(in *fingerprint.Inputs) { in.Data["network.pod_cidr"] = "b" },
		"k3s":       func(in *fingerprint.Inputs) { in.Data["k3s.server"] = "1.32" },
	} {
		require.False(t, keepsOptions(was, with(change)), name)
	}
}

func TestReasons(t *testing.T) {
	data := func(pairs ...string) fingerprint.Inputs {
		in := fingerprint.Inputs{Data: map[string]string{}}
		for i := 0; i < len(pairs); i += 2 {
			in.Data[pairs[i]] = pairs[i+1]
		}
		return in
	}
	pins := func(name, pin string) fingerprint.Inputs {
		return fingerprint.Inputs{Pins: map[string]string{name: pin}}
	}
	k3s := diff.Change{Where: "plans/network.yaml:7", Name: "versions.k3s", Sentence: "k3s 1.31 → 1.32 (all servers and agents)"}
	disko := diff.Change{Where: "plans/network.yaml:8", Name: "versions.disko", Sentence: "disko v1 → v2 (all hosts that it partitions)"}
	removed := diff.Change{Sentence: "agent olaf-a removed from olaf"}
	for _, test := range []struct {
		changes diff.Changes
		was, is fingerprint.Inputs
		want    []string
	}{
		{diff.Changes{k3s, disko, removed}, data("k3s.server", "1.31"), data("k3s.server", "1.32"), []string{"plans/network.yaml:7 k3s 1.31 → 1.32 (all servers and agents)", "agent olaf-a removed from olaf"}},
		{diff.Changes{disko}, pins("disko", "v1 sha256-a"), pins("disko", "v2 sha256-b"), []string{"plans/network.yaml:8 disko v1 → v2 (all hosts that it partitions)"}},
		{nil, pins("nixpkgs", "nixos-24.11 sha256-a"), pins("nixpkgs", "nixos-24.11 sha256-b"), []string{"plans/lock.json nixpkgs: another commit of nixos-24.11"}},
		{nil, fingerprint.Inputs{Files: map[string]string{"nixConfigs/ulf.nix": "a", "manifests/x.yaml": "b"}}, fingerprint.Inputs{Files: map[string]string{"nixConfigs/ulf.nix": "c", "manifests/y.yaml": "b"}},
			[]string{"manifest manifests/x.yaml (removed)", "manifest manifests/y.yaml (new)", "snippet nixConfigs/ulf.nix"}},
		{nil, data("keys.admin", "1", "cluster.ulf.host.ip", "a"), data("keys.admin", "2", "cluster.ulf.host.ip", "b"), []string{"ssh keys of the admin", "a snippet reads the plan of ulf"}},
		{nil, fingerprint.Inputs{Names: map[string]string{"a": "1", "b": "2"}}, fingerprint.Inputs{Names: map[string]string{"b": "3", "c": "4"}}, []string{"/etc/hosts: -a, b 2 → 3, +c"}},
		{nil, fingerprint.Inputs{Files: map[string]string{"rendered": "a"}}, fingerprint.Inputs{Files: map[string]string{"rendered": "b"}}, []string{"what k3splan renders for it"}},
		// what comes and goes with a container is no news
		{diff.Changes{removed}, fingerprint.Inputs{Data: map[string]string{"server.name": "s", "agent.name": "a"}, Files: map[string]string{"k3s/server.yaml": "a", "k3s/agent.yaml": "a", "manifests/x.yaml": "b"}}, data(), []string{"agent olaf-a removed from olaf"}},
		{nil, data(), fingerprint.Inputs{Data: map[string]string{"agent.name": "a"}, Files: map[string]string{"k3s/agent.yaml": "a", "nixConfigs/x.nix": "b"}}, []string{"snippet nixConfigs/x.nix (new)"}},
		{nil, fingerprint.Inputs{Data: map[string]string{"agent.name": "a"}}, fingerprint.Inputs{Data: map[string]string{"agent.name": "a"}, Files: map[string]string{"k3s/agent.yaml": "a"}}, []string{"k3s/agent.yaml (new)"}},
		// a host without k3s whose snippet asks for its version
		{nil, data("network.versions.k3s", "1.31", "network.gateway", "a"), data("network.versions.k3s", "1.32", "network.gateway", "a"), []string{"a snippet reads versions.k3s of the plan"}},
		// disko partitions other hosts
		{diff.Changes{{Object: diff.Network, Name: "versions.disko", Field: "versions.disko", Sentence: "disko latest → v1"}}, data("network.versions.disko", "latest"), data("network.versions.disko", "v1"),
			[]string{"a snippet reads versions.disko of the plan"}},
		{diff.Changes{{Object: diff.Network, Field: "domain", Sentence: "domain set to x"}}, data("network.domain", ""), data("network.domain", "x"), []string{"domain set to x"}},
	} {
		require.Equal(t, test.want, Reasons(test.changes, test.was, test.is))
	}
}

func TestLastLines(t *testing.T) {
	var said []string
	l := &lastLines{say: func(line string) { said = append(said, line) }}
	for i := range 8 {
		fmt.Fprintf(l, "line %d\r\n", i)
	}
	fmt.Fprint(l, "\x1b[31mERR")
	fmt.Fprint(l, "OR\x1b[0m it failed\nERROR -----\nBacktrace:\n   0: <a::b as c>::d::{{closure}}\n  12: __libc_start_call_main\n             at ./csu/../x.h:58:16\n  13: main\n")
	require.Equal(t, "line 3\nline 4\nline 5\nline 6\nline 7\nERROR it failed", l.end())
	require.Len(t, said, 15)
}

// A program may write a line that never ends.
func TestALineWithoutEnd(t *testing.T) {
	var said []string
	lines := &lastLines{say: func(line string) { said = append(said, line) }}
	for range 1000 {
		n, err := lines.Write(bytes.Repeat([]byte("x"), 10_000))
		require.NoError(t, err)
		require.Equal(t, 10_000, n)
		require.LessOrEqual(t, len(lines.part), maxLine)
	}
	_, err := lines.Write([]byte("\nthe next\n"))
	require.NoError(t, err)
	require.Equal(t, []string{strings.Repeat("x", maxLine), "the next"}, said)
}
