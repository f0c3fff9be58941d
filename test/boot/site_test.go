package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena/nixtest"
	"k3splan/test/boot/lab"
)

// site is a project of an example, the lab in which its hosts run, and the operator with an ssh agent.
type site struct {
	t       *testing.T
	lab     *lab.Lab
	project string
	agent   []string
}

// newSite makes a project of an example. Its lab is removed with the test.
func newSite(t *testing.T, example, gateway string) *site {
	t.Helper()
	return newSiteIn(t, openLab(t, example), example, gateway)
}

// openLab opens the lab in a folder of that name.
func openLab(t *testing.T, name string) *lab.Lab {
	t.Helper()
	if os.Getenv("K3SPLAN_BOOT") == "" {
		t.Skip("SKIP: machines are started by make boot")
	}
	for _, program := range []string{"ssh-agent", "ssh-add", "ssh-keygen"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIP: %s is not on PATH", program)
		}
	}
	if os.Getenv("K3SPLAN_EVALHIVE") == "" {
		t.Setenv("K3SPLAN_EVALHIVE", filepath.Join(nixtest.HarnessFolder(t), "evalhive.sh"))
	}
	dir := os.Getenv("LAB_DIR")
	if dir == "" {
		dir = "/var/tmp/k3splan-boot"
	}
	l, err := lab.Open(filepath.Join(dir, name))
	skipIfMissing(t, err)
	return l
}

// skipIfMissing skips the test if the error says what this machine lacks, and fails it for any other.
func skipIfMissing(t *testing.T, err error) {
	t.Helper()
	if missing := (lab.Missing{}); errors.As(err, &missing) {
		t.Skip("SKIP: " + missing.What)
	}
	require.NoError(t, err)
}

func newSiteIn(t *testing.T, l *lab.Lab, example, gateway string) *site {
	t.Helper()
	require.NoError(t, l.Down(), "what an earlier run left")
	require.NoError(t, l.Up(gateway))
	t.Cleanup(func() { require.NoError(t, l.Down()) })
	for _, line := range l.Substitutes() {
		fmt.Println("substituted:", line)
	}
	s := &site{t: t, lab: l, project: filepath.Join(l.Dir, "project")}
	require.NoError(t, os.RemoveAll(s.project))
	require.NoError(t, os.CopyFS(s.project, os.DirFS(filepath.Join("..", "..", "examples", example))))
	s.program("k3splan")
	s.startAgent()
	s.ok("setup")
	s.write("secrets/all.pub", s.key("operator"))
	require.Zero(t, s.say("correct horse battery staple\n", "passwd", "--stdin").code)
	require.NoError(t, l.Pin(s.project))
	return s
}

// program builds the program under test into the lab.
func (s *site) program(name string) {
	s.t.Helper()
	out, err := exec.Command("go", "build", "-o", filepath.Join(s.lab.Dir, "bin", name), "../../cmd/"+name).CombinedOutput()
	require.NoError(s.t, err, "%s", out)
}

// startAgent starts an ssh agent that ends with the test.
func (s *site) startAgent() {
	s.t.Helper()
	socket := filepath.Join(s.lab.Dir, "agent")
	require.NoError(s.t, errors.Join(os.RemoveAll(socket), os.RemoveAll(filepath.Join(s.lab.Dir, "keys")), os.MkdirAll(filepath.Join(s.lab.Dir, "keys"), 0o700)))
	command := exec.Command("ssh-agent", "-D", "-a", socket)
	require.NoError(s.t, command.Start())
	s.t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })
	require.Eventually(s.t, func() bool { _, err := os.Stat(socket); return err == nil }, 10*time.Second, 20*time.Millisecond)
	s.agent = []string{"SSH_AUTH_SOCK=" + socket, "HOME=" + filepath.Join(s.lab.Dir, "home"), "NO_COLOR=1"}
}

// key makes an ssh key that the agent has, and returns its public part.
func (s *site) key(name string) string {
	s.t.Helper()
	file := filepath.Join(s.lab.Dir, "keys", name)
	for _, words := range [][]string{{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file}, {"ssh-add", "-q", file}} {
		command := exec.Command(words[0], words[1:]...)
		command.Env = append(os.Environ(), s.agent...)
		out, err := command.CombinedOutput()
		require.NoError(s.t, err, "%s", out)
	}
	public, err := os.ReadFile(file + ".pub")
	require.NoError(s.t, err)
	return string(public)
}

type result struct {
	out, messages string
	code          int
}

// say runs k3splan in the project with something on its standard input.
func (s *site) say(stdin string, args ...string) result {
	s.t.Helper()
	command := s.command(args...)
	command.Stdin = strings.NewReader(stdin)
	return s.finish(command)
}

func (s *site) command(args ...string) *exec.Cmd {
	command := s.lab.Deployer(append([]string{"k3splan", "-p", s.project}, args...)...)
	command.Env = append(command.Env, s.agent...)
	return command
}

func (s *site) finish(command *exec.Cmd) result {
	s.t.Helper()
	var out, messages bytes.Buffer
	command.Stdout, command.Stderr = &out, &messages
	err := command.Run()
	exit := (*exec.ExitError)(nil)
	if err != nil {
		require.True(s.t, errors.As(err, &exit), err)
	}
	return result{out.String(), messages.String(), command.ProcessState.ExitCode()}
}

// ok runs k3splan, which has to succeed.
func (s *site) ok(args ...string) result {
	s.t.Helper()
	r := s.say("", args...)
	require.Zero(s.t, r.code, "k3splan %s: %s%s", strings.Join(args, " "), r.out, r.messages)
	return r
}

// deploy deploys, which has to succeed for these hosts and no others.
func (s *site) deploy(hosts ...string) {
	s.t.Helper()
	s.deployed(s.ok("deploy", "--yes", "--json"), hosts...)
}

func (s *site) deployed(r result, hosts ...string) {
	s.t.Helper()
	var answer struct {
		Results []struct{ Host, Status string }
	}
	require.NoError(s.t, json.Unmarshal([]byte(r.out), &answer), r.out)
	got := []string{}
	for _, one := range answer.Results {
		if one.Status == "deployed" {
			got = append(got, one.Host)
		}
	}
	require.ElementsMatch(s.t, hosts, got, "%s%s", r.out, r.messages)
}

func (s *site) write(name, text string) {
	s.t.Helper()
	file := filepath.Join(s.project, name)
	require.NoError(s.t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(s.t, os.WriteFile(file, []byte(text), 0o600))
}

// edit replaces text in a file of the project.
func (s *site) edit(name, old, new string) {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.project, name))
	require.NoError(s.t, err)
	require.Contains(s.t, string(data), old, name)
	s.write(name, strings.ReplaceAll(string(data), old, new))
}

// install makes the machines of hosts as boot sticks would have, and starts them.
func (s *site) install(nics map[string]string) {
	s.t.Helper()
	var hosts []string
	for host := range nics {
		hosts = append(hosts, host)
	}
	systems, err := s.lab.Build(s.project, hosts...)
	require.NoError(s.t, err)
	for host, nic := range nics {
		machine := s.lab.Machine(host)
		require.NoError(s.t, machine.Install(s.project, systems[host]))
		s.start(host, nic)
		require.NoError(s.t, machine.Image(""))
	}
}

func (s *site) start(host, nic string) {
	s.t.Helper()
	require.NoError(s.t, s.lab.Machine(host).Start(nic, ""))
}

// do runs a command of bash on a machine.
func (s *site) do(host, script string) string {
	s.t.Helper()
	out, err := s.lab.Machine(host).Do(script)
	require.NoError(s.t, err)
	return out
}

// wait waits until a command succeeds on a machine, and returns how long that took.
func (s *site) wait(host, script string) time.Duration {
	s.t.Helper()
	began := time.Now()
	require.NoError(s.t, s.lab.Machine(host).Wait(script, 5*time.Minute))
	return time.Since(began)
}

// Commands that succeed when the server or the agent of a host is there.
func serverReady(server string) string {
	return fmt.Sprintf(`[ "$(nixos-container run %s -- k3s kubectl get --raw=/readyz 2> /dev/null)" = ok ]`, server)
}

func agentReady(server, agent string) string {
	// jq 1.6 succeeds without any input, whatever -e says
	return fmt.Sprintf(`nixos-container run %s -- k3s kubectl get node %s -o json 2> /dev/null | jq -r '.status.conditions[] | select(.type == "Ready").status' | grep -qx True`, server, agent)
}

// running says since when the processes of a host run. What restarts gets another value.
type running struct{ Boot, SSH, Container, K3S, Agent, Network string }

func (s *site) observe(host, server, agent string) running {
	s.t.Helper()
	lines := strings.Split(s.do(host, fmt.Sprintf(`
since() { systemctl show "$1" --property ExecMainStartTimestampMonotonic --value; }
of() { cut -d ' ' -f 22 "/proc/${1:-none}/stat" 2> /dev/null || echo none; } # when a process began
of 1
since sshd
[ -z %[1]q ] && echo || since container@%[1]s
[ -z %[1]q ] && echo || nixos-container run %[1]s -- systemctl show k3s --property ExecMainStartTimestampMonotonic --value | tr -d '\r'
[ -z %[2]q ] && echo || of "$(podman inspect --format '{{.State.Pid}}' %[2]s)"
cat /sys/class/net/k3splan-lan/ifindex 2> /dev/null || echo none
`, server, agent)), "\n")
	require.Len(s.t, lines, 6, lines)
	return running{lines[0], lines[1], lines[2], lines[3], lines[4], lines[5]}
}

// restarted returns what runs since another time than before.
func restarted(before, now running) []string {
	names := []string{}
	for _, one := range []struct{ name, before, now string }{
		{"machine", before.Boot, now.Boot}, {"ssh", before.SSH, now.SSH}, {"container", before.Container, now.Container},
		{"k3s", before.K3S, now.K3S}, {"agent", before.Agent, now.Agent}, {"network", before.Network, now.Network},
	} {
		if one.before != one.now {
			names = append(names, one.name)
		}
	}
	return names
}

// row is one row of the table of what may happen to a host. Rows build on each other, so after one that
// fails there are no more.
func (s *site) row(name string, do func(t *testing.T)) {
	s.t.Helper()
	if s.t.Failed() {
		return
	}
	began := time.Now()
	s.t.Run(name, func(t *testing.T) {
		outer := s.t
		s.t = t
		defer func() { s.t = outer }()
		do(t)
	})
	fmt.Printf("%-50s %5.1f s\n", name, time.Since(began).Seconds())
}

// all reports whether make boot-all runs.
func all() bool { return os.Getenv("K3SPLAN_BOOT") == "all" }
