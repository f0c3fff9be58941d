package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"k3splan/internal/secrets"
	"k3splan/internal/secrets/secretstest"
)

// killsVariable is the number of kills; without it there are a few. `make kills` asks for 300.
const killsVariable = "K3SPLAN_KILLS"

// A command that writes can be killed at any moment, on a full disk too: afterwards the project has no
// error that it did not have, or the same command completes what was begun. No secret is lost.
func TestKilledAtAnyMoment(t *testing.T) {
	kills := 6
	if text := os.Getenv(killsVariable); text != "" {
		var err error
		kills, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("RAPID_SEED"); text != "" { // as the property tests
		fixed, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		seed = fixed
	}
	t.Logf("seed %d: RAPID_SEED=%d %s=%d repeats it", seed, seed, killsVariable, kills)
	k := &killer{t: t, random: rand.New(rand.NewPCG(seed, 0)), home: secretstest.Home(t), errors: map[string]map[string]bool{}, calls: map[string]int{}}
	k.prepare()
	commands := k.commands()
	k.random.Shuffle(len(commands), func(i, j int) { commands[i], commands[j] = commands[j], commands[i] })
	attempts := 0
	for ; k.killed < kills && attempts < 10*kills; attempts++ {
		k.kill(commands[attempts%len(commands)], k.full != "" && k.random.IntN(2) == 0)
	}
	t.Logf("%d kills in %d attempts: the others ended before; %d were aimed at one of the writes and the rest at a random time; %d were on a full disk, where %d commands failed by themselves",
		k.killed, attempts, k.aimed, k.onFull, k.failed)
	t.Logf("afterwards the project was in order %d times, and the same command completed it %d times", k.inOrder, k.completed)
	require.Equal(t, kills, k.killed)
	require.Equal(t, attempts, k.inOrder+k.completed)
}

type killer struct {
	t      *testing.T
	random *rand.Rand
	home   string
	full   string                     // a small file system, "" where none can be made
	errors map[string]map[string]bool // that may be there, by command
	calls  map[string]int             // how many calls of the system write something, by command

	killed, aimed, onFull, failed, inOrder, completed int
}

// killCommand is a command that writes, in a copy of a project; without one it makes the project.
type killCommand struct {
	project string
	args    []string
	stdin   string
}

func (c killCommand) String() string { return c.project + ": " + strings.Join(c.args, " ") }

func (k *killer) commands() []killCommand {
	const password = "a long enough password\n"
	return []killCommand{
		{"", []string{"setup", "."}, ""},
		{"plain", []string{"secrets", "move", "--to", "age"}, ""},
		{"age", []string{"secrets", "rekey"}, ""},
		{"age", []string{"secrets", "move", "--to", "files"}, ""},
		{"plain", []string{"passwd", "--all", "--stdin"}, password},
		{"age", []string{"passwd", "ulf", "--stdin"}, password},
		{"keyless", []string{"known-hosts", "make"}, ""},
		{"plain", []string{"known-hosts", "make", "--renew", "olaf", "ulf"}, ""},
		{"plain", []string{"add", "host", "zora", "--interface", "eno1", "--admin", "zora"}, ""},
		{"plain", []string{"rename", "ulf", "zora"}, ""},
		{"plain", []string{"remove", "host", "karl", "--yes"}, ""},
		{"plain", []string{"render"}, ""},
		{"age", []string{"secrets", "edit", "ulfpasswd"}, ""},
		{"half", []string{"setup", "."}, ""},
	}
}

func (k *killer) k3splan(dir string, args ...string) *exec.Cmd {
	command := exec.Command("k3splan", args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "EDITOR="+filepath.Join(k.home, "editor"))
	return command
}

func (k *killer) must(command *exec.Cmd) {
	k.t.Helper()
	out, err := command.CombinedOutput()
	require.NoError(k.t, err, "%s: %s", command.Args, out)
}

func (k *killer) project(name string) string { return filepath.Join(k.home, "projects", name) }

// prepare makes the projects that the commands get copies of.
func (k *killer) prepare() {
	require.NoError(k.t, os.WriteFile(filepath.Join(k.home, "hash"), []byte(testHash), 0o600))
	require.NoError(k.t, os.WriteFile(filepath.Join(k.home, "editor"), []byte("#!/bin/sh\nsed -i s/k3splantest/k3splankills/ \"$1\"\n"), 0o755))
	require.NoError(k.t, os.MkdirAll(k.project(""), 0o755))
	k.must(exec.Command("cp", "-r", "../../examples/rack", k.project("keyless")))
	for name, content := range map[string]string{"all.pub": testKey, "passwd": testHash, "ulfpasswd": testHash, "recipients": secretstest.AgeKey(k.t) + "\n"} {
		file := filepath.Join(k.project("keyless"), "secrets", name)
		require.NoError(k.t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(k.t, os.WriteFile(file, []byte(content), 0o600))
	}
	k.must(k.k3splan(k.project("keyless"), "setup", "."))
	k.must(exec.Command("cp", "-a", k.project("keyless"), k.project("plain")))
	require.NoError(k.t, os.RemoveAll(filepath.Join(k.project("keyless"), "secrets", "hosts")))
	require.NoError(k.t, os.RemoveAll(filepath.Join(k.project("keyless"), "plans", "known_hosts")))
	k.must(k.k3splan(k.project("plain"), "known-hosts", "make"))
	k.must(exec.Command("cp", "-a", k.project("plain"), k.project("age")))
	k.must(k.k3splan(k.project("age"), "secrets", "move", "--to", "age"))
	// tables of the user's own, and nothing else yet
	require.NoError(k.t, os.MkdirAll(k.project("half"), 0o755))
	k.must(exec.Command("cp", "-r", "../../examples/rack/plans", k.project("half")))

	if os.Geteuid() != 0 {
		k.t.Log("SKIP: only root can make a file system that gets full")
		return
	}
	full := filepath.Join(k.home, "full")
	require.NoError(k.t, os.Mkdir(full, 0o755))
	if err := unix.Mount("tmpfs", full, "tmpfs", 0, "size=3m"); err != nil {
		k.t.Logf("SKIP: a file system that gets full: %v", err)
		return
	}
	k.t.Cleanup(func() { require.NoError(k.t, unix.Unmount(full, unix.MNT_DETACH)) })
	k.full = full
}

// kill lets a command work in a copy of its project, kills it at some moment, and looks what it left.
func (k *killer) kill(c killCommand, onFull bool) {
	parent := filepath.Join(k.home, "work")
	if onFull {
		parent = k.full
	}
	dir := filepath.Join(parent, "rack")
	require.NoError(k.t, os.MkdirAll(parent, 0o755))
	allowed := k.allowed(c)
	k.copy(c, dir)
	filler := filepath.Join(parent, "filler")
	if onFull {
		k.onFull++
		k.fill(filler)
	}
	ended, ok := k.run(c, dir)
	switch {
	case !ended:
		k.killed++
	case !ok && onFull:
		k.failed++
	}
	require.NoError(k.t, os.RemoveAll(filler))

	if news := k.news(dir, allowed); len(news) > 0 {
		again := k.k3splan(dir, c.args...)
		again.Stdin = strings.NewReader(c.stdin)
		out, err := again.CombinedOutput()
		require.NoError(k.t, err, "%s: cannot be called again after a kill: %s\nerrors before that: %s", c, out, news)
		require.Empty(k.t, k.news(dir, allowed), "%s: wrong after it was called again", c)
		k.completed++
	} else {
		k.inOrder++
	}
	if c.project != "" && c.project != "half" {
		before, err := k.k3splan(k.project(c.project), "secrets", "show", string(secrets.InitToken)).Output()
		require.NoError(k.t, err)
		after, err := k.k3splan(dir, "secrets", "show", string(secrets.InitToken)).Output()
		require.NoError(k.t, err, "%s: the token is lost", c)
		require.Equal(k.t, string(before), string(after), "%s: the token is another", c)
	}
	require.NoError(k.t, os.RemoveAll(dir))
}

func (k *killer) copy(c killCommand, dir string) {
	if c.project == "" {
		require.NoError(k.t, os.Mkdir(dir, 0o755))
		return
	}
	k.must(exec.Command("cp", "-a", k.project(c.project), dir))
}

// fill leaves little room.
func (k *killer) fill(file string) {
	var space unix.Statfs_t
	require.NoError(k.t, unix.Statfs(filepath.Dir(file), &space))
	pages := max(0, int(space.Bavail)-k.random.IntN(24))
	require.NoError(k.t, os.WriteFile(file, make([]byte, pages*int(space.Bsize)), 0o600))
}

// writing are the calls of the system after which a project may look different.
const writing = "write,mkdirat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,fsync,ftruncate,fchmod,fchmodat"

// run starts a command and kills it: after some time, or where strace is, at one of its writes. ended is
// false if it was killed.
func (k *killer) run(c killCommand, dir string) (ended, ok bool) {
	command := k.k3splan(dir, c.args...)
	command.Stdin = strings.NewReader(c.stdin)
	calls := k.calls[c.String()]
	if calls > 0 && k.random.IntN(2) == 0 {
		k.aimed++
		inject := fmt.Sprintf("inject=%s:signal=KILL:when=%d", writing, 1+k.random.IntN(calls))
		traced := k.k3splan(dir)
		program, err := exec.LookPath("k3splan")
		require.NoError(k.t, err)
		traced.Path, err = exec.LookPath("strace")
		require.NoError(k.t, err)
		traced.Args = append([]string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + writing, "-e", inject, program}, c.args...)
		traced.Stdin = command.Stdin
		err = traced.Run()
		return !wasKilled(traced), err == nil
	}
	require.NoError(k.t, command.Start())
	timer := time.AfterFunc(time.Duration(k.random.Int64N(int64(70*time.Millisecond))), func() { _ = command.Process.Kill() })
	err := command.Wait()
	timer.Stop()
	return !wasKilled(command), err == nil
}

func wasKilled(command *exec.Cmd) bool {
	status := command.ProcessState.Sys().(syscall.WaitStatus)
	return status.Signaled() && status.Signal() == syscall.SIGKILL
}

// allowed returns the errors of the project before the command and after it, undisturbed, and counts what
// the command writes.
func (k *killer) allowed(c killCommand) map[string]bool {
	if known, ok := k.errors[c.String()]; ok {
		return known
	}
	dir := filepath.Join(k.home, "undisturbed")
	k.copy(c, dir)
	defer os.RemoveAll(dir)
	found := map[string]bool{}
	if c.project != "" {
		found = k.problems(dir)
	}
	command := k.k3splan(dir, c.args...)
	if strace, err := exec.LookPath("strace"); err == nil {
		log := filepath.Join(k.home, "calls")
		command.Args = append([]string{"strace", "-f", "-qq", "-o", log, "-e", "trace=" + writing, command.Path}, c.args...)
		command.Path = strace
		defer func() {
			text, err := os.ReadFile(log)
			require.NoError(k.t, err)
			k.calls[c.String()] = bytes.Count(text, []byte("\n"))
		}()
	}
	command.Stdin = strings.NewReader(c.stdin)
	k.must(command)
	after := k.problems(dir)
	require.NotNil(k.t, after, c)
	for problem := range after {
		if found == nil {
			found = map[string]bool{}
		}
		found[problem] = true
	}
	k.errors[c.String()] = found
	return found
}

// problems returns the errors that validate reports; nil if there is nothing to validate.
func (k *killer) problems(dir string) map[string]bool {
	out, _ := k.k3splan(dir, "validate", "--json").Output()
	var all []struct{ File, Code, Severity, Message string }
	if json.Unmarshal(out, &all) != nil {
		return nil
	}
	found := map[string]bool{}
	for _, p := range all {
		if p.Severity == "error" {
			found[p.File+" "+p.Code] = true
		}
	}
	return found
}

// news returns the errors of a project that are not allowed.
func (k *killer) news(dir string, allowed map[string]bool) (news []string) {
	found := k.problems(dir)
	if found == nil {
		return []string{"nothing to validate"}
	}
	for problem := range found {
		if !allowed[problem] {
			news = append(news, problem)
		}
	}
	return news
}
