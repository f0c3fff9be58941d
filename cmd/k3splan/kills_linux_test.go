package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	k := &killer{t: t, random: rand.New(rand.NewPCG(seed, 0)), home: secretstest.Home(t), undisturbed: map[string]undisturbed{}}
	k.prepare()
	commands := k.commands()
	k.random.Shuffle(len(commands), func(i, j int) { commands[i], commands[j] = commands[j], commands[i] })
	attempts := 0
	for ; k.killed < kills && attempts < 10*kills; attempts++ {
		k.kill(commands[attempts%len(commands)], k.full != "" && k.random.IntN(2) == 0)
	}
	t.Logf("%d kills of %d commands in %d attempts: the others ended before; %d were aimed at one of the writes and the rest at a random time; %d were on a full disk, where %d commands failed by themselves",
		k.killed, len(commands), attempts, k.aimed, k.onFull, k.failed)
	t.Logf("afterwards everything was in order %d times, and the same command completed it %d times", k.inOrder, k.completed)
	require.Equal(t, kills, k.killed)
	require.Equal(t, attempts, k.inOrder+k.completed)
}

// Every command is among those that are killed, or leaves a project as it is.
func TestEveryCommandThatWritesIsKilled(t *testing.T) {
	killed := map[string]bool{}
	root := (&app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}).root()
	for _, c := range (&killer{}).commands() {
		found, _, err := root.Find(c.args)
		require.NoError(t, err, c)
		killed[found.CommandPath()] = true
	}
	project := exampleProject(t)
	for _, command := range commands() {
		path := command.CommandPath()
		if command.Annotations[onlyGroup] != "" || killed[path] {
			continue
		}
		args, reads := readers[strings.TrimPrefix(path, "k3splan ")]
		require.True(t, reads, "%s is neither among the commands that are killed nor among those that only read", path)
		out, err := inShell(t, project, "{ find . -type f -print0 | sort -z | xargs -0 sha256sum; find . | sort; } > ../before\n"+
			"k3splan "+args+"\n{ find . -type f -print0 | sort -z | xargs -0 sha256sum; find . | sort; } | diff ../before -").CombinedOutput()
		require.NoError(t, err, "%s: %s", path, out)
	}
}

// readers are the commands that write nothing into a project, with arguments.
var readers = map[string]string{
	"validate": "validate > ../out", "show": "show > ../out", "show addresses": "show addresses > ../out", "show host": "show host olaf > ../out",
	"diff": "diff > ../out", "configuration": "configuration > ../out", "secrets list": "secrets list > ../out",
	"secrets show": "secrets show passwd > ../out", "secrets audit": "secrets audit > ../out 2>&1", "token show": "token show --server > ../out",
	"known-hosts": "known-hosts > ../out", "etcd list": "etcd list > ../out", "doctor": "doctor > ../out || true", "schema": "schema > ../out",
	"completion": "completion bash > ../out", "help": "help > ../out",
}

type killer struct {
	t      *testing.T
	random *rand.Rand
	home   string
	full   string // a small file system, "" where none can be made
	// api is the address of the API of the rack's cluster, oldKey a key of ulrich in the world renewed
	api, oldKey string
	hasPass     bool
	undisturbed map[string]undisturbed // by command
	runs        int

	killed, aimed, onFull, failed, inOrder, completed int
}

// undisturbed is a command that nobody kills.
type undisturbed struct {
	errors map[string]bool   // of the project, before it and after it
	calls  int               // how many calls of the system write something
	time   time.Duration     // what it takes
	files  map[string]string // the contents of killCommand.files after it
	token  string            // of the servers, before it
}

// killCommand is a command that writes, in a copy of a world; without one it makes the project.
type killCommand struct {
	world string
	args  []string
	stdin string
	// files, relative to the project, are the same whenever the command has ended
	files []string
	// done is a shell's script that fails, in the project, if the command is to be called again
	done string
	// tokens is for commands that replace the server token: the old one is kept
	tokens bool
}

func (c killCommand) String() string { return c.world + ": " + strings.Join(c.args, " ") }

// k3splan is a command in a world; its programs find that, too.
func (k *killer) k3splan(world string, args ...string) *exec.Cmd {
	return k.program(world, "k3splan", args...)
}

func (k *killer) program(world, program string, args ...string) *exec.Cmd {
	k.runs++
	command := exec.Command(program, args...)
	command.Dir = filepath.Join(world, "rack")
	command.Env = append(os.Environ(), "EDITOR="+filepath.Join(k.home, "editor"), "RACK="+filepath.Join(world, "machines"),
		"PASSWORD_STORE_DIR="+filepath.Join(world, "store"), fmt.Sprintf("%s%d-%d", killMark, os.Getpid(), k.runs))
	return command
}

// killMark is in the environment of a killed command's children.
const killMark = "K3SPLAN_KILL="

func (k *killer) must(command *exec.Cmd) {
	k.t.Helper()
	out, err := command.CombinedOutput()
	require.NoError(k.t, err, "%s: %s", command.Args, out)
}

// kill lets a command work in a copy of its world, kills it at some moment, and looks what it left.
func (k *killer) kill(c killCommand, onFull bool) {
	parent := filepath.Join(k.home, "work")
	if onFull {
		parent = k.full
	}
	dir := filepath.Join(parent, "world")
	require.NoError(k.t, os.MkdirAll(parent, 0o755))
	alone := k.alone(c)
	k.copy(c, dir)
	if onFull && c.world != "" {
		k.moveMachines(dir)
	}
	filler := filepath.Join(parent, "filler")
	if onFull {
		k.onFull++
		k.fill(filler)
	}
	ended, ok := k.run(c, dir, alone)
	switch {
	case !ended:
		k.killed++
	case !ok && onFull:
		k.failed++
	}
	require.NoError(k.t, os.RemoveAll(filler))

	if news := k.news(c, dir, alone); len(news) > 0 {
		again := k.k3splan(dir, c.args...)
		again.Stdin = strings.NewReader(c.stdin)
		out, err := again.CombinedOutput()
		require.NoError(k.t, err, "%s: cannot be called again after a kill: %s\nwrong before that: %s", c, out, news)
		require.Empty(k.t, k.news(c, dir, alone), "%s: wrong after it was called again", c)
		k.completed++
	} else {
		k.inOrder++
	}
	if c.world != "" && c.world != "half" && !c.tokens {
		after, err := k.k3splan(dir, "secrets", "show", string(secrets.InitToken)).Output()
		require.NoError(k.t, err, "%s: the token is lost", c)
		require.Equal(k.t, alone.token, string(after), "%s: the token is another", c)
	}
	require.NoError(k.t, os.RemoveAll(dir))
}

func (k *killer) copy(c killCommand, dir string) {
	if c.world == "" {
		require.NoError(k.t, os.MkdirAll(filepath.Join(dir, "rack"), 0o755))
		return
	}
	k.must(exec.Command("cp", "-a", k.world(c.world), dir))
}

// moveMachines lets the machines of a world have disks of their own.
func (k *killer) moveMachines(dir string) {
	own := filepath.Join(k.home, "machines")
	require.NoError(k.t, os.RemoveAll(own))
	machines := filepath.Join(dir, "machines")
	k.must(exec.Command("mv", machines, own))
	require.NoError(k.t, os.Symlink(own, machines))
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

// run starts a command and kills it: after some time, or where strace is, at one of its writes. ended is false if
// it was killed.
func (k *killer) run(c killCommand, dir string, alone undisturbed) (ended, ok bool) {
	command := k.k3splan(dir, c.args...)
	command.Stdin = strings.NewReader(c.stdin)
	defer func() { k.wait(command) }()
	if alone.calls > 0 && k.random.IntN(2) == 0 {
		k.aimed++
		inject := fmt.Sprintf("inject=%s:signal=KILL:when=%d", writing, 1+k.random.IntN(alone.calls))
		k.trace(command, "/dev/null", "-e", inject)
		err := command.Run()
		return !wasKilled(command), err == nil
	}
	require.NoError(k.t, command.Start())
	timer := time.AfterFunc(time.Duration(k.random.Int64N(int64(alone.time))), func() { _ = command.Process.Kill() })
	err := command.Wait()
	timer.Stop()
	return !wasKilled(command), err == nil
}

// trace makes strace start a command. It detaches from the programs that the command calls: they are not killed
// with it, and some of them would not end if one of their own were (pass without its getopt).
func (k *killer) trace(command *exec.Cmd, log string, options ...string) {
	strace, err := exec.LookPath("strace")
	require.NoError(k.t, err)
	command.Args = slices.Concat([]string{"strace", "-f", "-b", "execve", "-qq", "-o", log, "-e", "trace=" + writing}, options, []string{command.Path}, command.Args[1:])
	command.Path = strace
}

// wait waits for the programs that a killed command has started: they do not know that it is gone.
func (k *killer) wait(command *exec.Cmd) {
	mark := []byte(command.Env[len(command.Env)-1])
	require.Eventually(k.t, func() bool {
		processes, err := filepath.Glob("/proc/[0-9]*/environ")
		require.NoError(k.t, err)
		return !slices.ContainsFunc(processes, func(file string) bool {
			environment, _ := os.ReadFile(file) // not those of others, nor of one that has just ended
			name, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "comm"))
			return bytes.Contains(environment, mark) && !strings.HasPrefix(string(name), "gpg-agent")
		})
	}, time.Minute, 10*time.Millisecond, "%s: a program that it called does not end", command.Args)
}

func wasKilled(command *exec.Cmd) bool {
	status := command.ProcessState.Sys().(syscall.WaitStatus)
	return status.Signaled() && status.Signal() == syscall.SIGKILL
}

// alone runs a command undisturbed.
func (k *killer) alone(c killCommand) undisturbed {
	if known, ok := k.undisturbed[c.String()]; ok {
		return known
	}
	u := undisturbed{errors: map[string]bool{}, files: map[string]string{}}
	if c.world != "" {
		for problem := range k.problems(k.world(c.world)) {
			u.errors[problem] = true
		}
		token, _ := k.k3splan(k.world(c.world), "secrets", "show", string(secrets.InitToken)).Output() // not where there is none yet
		u.token = string(token)
	}
	dir := filepath.Join(k.home, "undisturbed")
	k.copy(c, dir)
	command := k.k3splan(dir, c.args...)
	command.Stdin = strings.NewReader(c.stdin)
	log := filepath.Join(k.home, "calls")
	_, err := exec.LookPath("strace")
	if err == nil {
		k.trace(command, log)
	}
	start := time.Now()
	k.must(command)
	u.time = time.Since(start)
	if err == nil {
		u.time /= 2 // about what strace takes
		text, err := os.ReadFile(log)
		require.NoError(k.t, err)
		calls := map[string]int{} // by process
		for line := range strings.Lines(string(text)) {
			process, _, _ := strings.Cut(line, " ")
			calls[process]++
			u.calls = max(u.calls, calls[process])
		}
	}
	after := k.problems(dir)
	require.NotNil(k.t, after, c)
	for problem := range after {
		u.errors[problem] = true
	}
	for _, file := range c.files {
		content, err := os.ReadFile(filepath.Join(dir, "rack", file))
		require.NoError(k.t, err, c)
		u.files[file] = string(content)
	}
	require.Empty(k.t, k.news(c, dir, u), c)
	require.NoError(k.t, os.RemoveAll(dir))
	k.undisturbed[c.String()] = u
	return u
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

// news returns what is wrong with a world, or not done yet.
func (k *killer) news(c killCommand, dir string, alone undisturbed) (news []string) {
	found := k.problems(dir)
	if found == nil {
		return []string{"nothing to validate"}
	}
	for problem := range found {
		if !alone.errors[problem] {
			news = append(news, problem)
		}
	}
	for file, want := range alone.files {
		content, err := os.ReadFile(filepath.Join(dir, "rack", file))
		if err != nil || string(content) != want {
			news = append(news, file+" is not what it becomes")
		}
	}
	if c.done != "" {
		if out, err := k.program(dir, "sh", "-euc", c.done).CombinedOutput(); err != nil {
			news = append(news, fmt.Sprintf("not done: %s (%v)", out, err))
		}
	}
	return news
}
