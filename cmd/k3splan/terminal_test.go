package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"k3splan"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/secrets"
	"k3splan/internal/secrets/secretstest"
)

// terminal is a person at a terminal: what they see, and what they type when they are asked.
type terminal struct {
	t      *testing.T
	master *os.File
	mutex  sync.Mutex
	screen bytes.Buffer
}

func (t *terminal) seen() string {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return t.screen.String()
}

// openTerminal returns a terminal, and the file by which a program uses it.
func openTerminal(t *testing.T) (*terminal, *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	term := &terminal{t: t, master: master}
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			term.mutex.Lock()
			term.screen.Write(buffer[:n])
			term.mutex.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { _ = master.Close() })
	return term, slave
}

// startOn starts a program on a terminal of its own.
func startOn(t *testing.T, program string, args ...string) (*terminal, *exec.Cmd) {
	t.Helper()
	term, slave := openTerminal(t)
	command := exec.Command(program, args...)
	command.Stdin, command.Stdout, command.Stderr = slave, slave, slave
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, command.Start())
	require.NoError(t, slave.Close())
	t.Cleanup(func() { _ = command.Process.Kill() })
	return term, command
}

// answer waits for a question that does not show the answer, and types it.
func (t *terminal) answer(question, answer string) {
	t.t.Helper()
	require.Eventually(t.t, func() bool {
		mode, err := unix.IoctlGetTermios(int(t.master.Fd()), unix.TCGETS)
		return err == nil && mode.Lflag&unix.ECHO == 0 && strings.HasSuffix(t.seen(), question)
	}, 10*time.Second, time.Millisecond, "never asked %q: %q", question, t.seen())
	_, err := t.master.WriteString(answer + "\n")
	require.NoError(t.t, err)
}

// A password is asked for twice, and is seen neither time.
func TestAPasswordIsNotSeen(t *testing.T) {
	secretstest.Home(t)
	dir := t.TempDir()
	_, err := project.Setup(dir, k3splan.Files)
	require.NoError(t, err)
	for name, test := range map[string]struct {
		second string
		want   string
		code   int
	}{
		"the same":  {"correct horse", "stored the hash in secrets/passwd", 0},
		"different": {"correct house", "the two passwords differ; nothing was changed", 1},
	} {
		t.Run(name, func(t *testing.T) {
			before, _ := os.ReadFile(filepath.Join(dir, "secrets", "passwd"))
			term, command := startOn(t, "k3splan", "-p", dir, "passwd")
			term.answer("Password: ", "correct horse")
			term.answer("Repeat password: ", test.second)
			_ = command.Wait()
			require.Eventually(t, func() bool { return strings.Contains(term.seen(), test.want) }, 10*time.Second, time.Millisecond, term.seen())
			require.Equal(t, test.code, command.ProcessState.ExitCode())
			require.NotContains(t, term.seen(), "correct")
			after, _ := os.ReadFile(filepath.Join(dir, "secrets", "passwd"))
			require.Equal(t, test.code == 0, !bytes.Equal(before, after))
		})
	}
}

// A question may have a line before it; what a terminal would obey is quoted all the same.
func TestQuestionOfTwoLines(t *testing.T) {
	term, slave := openTerminal(t)
	defer slave.Close()
	_, err := term.master.WriteString("yes\n")
	require.NoError(t, err)
	user := (&app{stdin: slave, stdout: slave, stderr: slave}).user(false)
	require.NoError(t, user.Type(t.Context(), "Servers are down.\nRotate the token on \x1b[2Jolaf?", "yes"))
	require.Eventually(t, func() bool {
		return strings.Contains(term.seen(), "Servers are down.\r\nRotate the token on \\x1b[2Jolaf? Type yes: ")
	},
		10*time.Second, time.Millisecond, "%q", term.seen())
}

// Ctrl-C ends every kind of question, and the terminal shows again what is typed.
func TestInterruptedQuestion(t *testing.T) {
	secretstest.Home(t)
	dir := t.TempDir()
	_, err := project.Setup(dir, k3splan.Files)
	require.NoError(t, err)
	sealed, key := sealedProject(t)
	passphrase := "Passphrase of " + key + ": "
	for name, test := range map[string]struct {
		args   []string
		prompt string
	}{
		"a password":        {[]string{"passwd"}, "Password: "},
		"show":              {[]string{"-p", sealed, "secrets", "show", "agent-token"}, passphrase},
		"edit":              {[]string{"-p", sealed, "secrets", "edit", "agent-token", "--force"}, passphrase},
		"rekey":             {[]string{"-p", sealed, "secrets", "rekey"}, passphrase},
		"move":              {[]string{"-p", sealed, "secrets", "move", "--to", "files"}, passphrase},
		"a new host key":    {[]string{"-p", sealed, "known-hosts", "make", "--renew", "olaf"}, passphrase},
		"a yes/no question": {[]string{"remove", "host", "karl"}, "write this? [y/N] "},
	} {
		t.Run(name, func(t *testing.T) {
			if test.args[0] == "remove" {
				add := exec.Command("k3splan", "-p", dir, "add", "host", "karl")
				out, err := add.CombinedOutput()
				require.NoError(t, err, string(out))
			}
			term, command := startOn(t, "k3splan", append([]string{"-p", dir}, test.args...)...)
			require.Eventually(t, func() bool { return strings.HasSuffix(term.seen(), test.prompt) }, 10*time.Second, time.Millisecond, "never asked %q", test.prompt)
			_, err := term.master.WriteString("\x03")
			require.NoError(t, err)
			ended := make(chan error, 1)
			go func() { ended <- command.Wait() }()
			select {
			case <-ended:
			case <-time.After(10 * time.Second):
				t.Fatalf("still asking: %q", term.seen())
			}
			require.Equal(t, 1, command.ProcessState.ExitCode(), term.seen())
			require.Eventually(t, func() bool { return strings.Contains(term.seen(), "interrupted; nothing was changed") }, 10*time.Second, time.Millisecond, term.seen())
			mode, err := unix.IoctlGetTermios(int(term.master.Fd()), unix.TCGETS)
			require.NoError(t, err)
			require.NotZero(t, mode.Lflag&unix.ECHO, "the terminal does not echo")
		})
	}
}

// sealedProject makes a project whose secrets are encrypted to a key with the passphrase "open sesame".
func sealedProject(t *testing.T) (dir, key string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "sealed")
	_, err := project.Setup(dir, k3splan.Files)
	require.NoError(t, err)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("open sesame"))
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	key = filepath.Join(os.Getenv("HOME"), ".ssh", "id_ed25519")
	require.NoError(t, files.Create(key, pem.EncodeToMemory(block), files.Private))
	require.NoError(t, os.WriteFile(filepath.Join(dir, secrets.RecipientsFile), ssh.MarshalAuthorizedKey(signer.PublicKey()), 0o644))
	term, command := startOn(t, "k3splan", "-p", dir, "secrets", "move", "--to", "age")
	term.answer("Passphrase of "+key+": ", "open sesame")
	require.NoError(t, command.Wait(), term.seen())
	// what only has to be encrypted needs no passphrase
	alone := exec.Command("k3splan", "-p", dir, "known-hosts", "make", "olaf")
	alone.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal
	out, err := alone.CombinedOutput()
	require.NoError(t, err, string(out))
	return dir, key
}

// With a key that has a passphrase, a deploy asks for it once, before Colmena starts; Colmena's key
// commands ask nobody. Without a terminal nothing is started.
func TestADeployAsksForThePassphraseOnce(t *testing.T) {
	r := newRack(t, plan.SecretAge)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("open sesame"))
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(key)
	require.NoError(t, err)
	private := filepath.Join(os.Getenv("HOME"), ".ssh", "id_ed25519")
	require.NoError(t, files.Create(private, pem.EncodeToMemory(block), files.Private))
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, secrets.RecipientsFile), ssh.MarshalAuthorizedKey(signer.PublicKey()), 0o644))

	term, command := startOn(t, "k3splan", "-p", r.dir, "secrets", "rekey")
	term.answer("Passphrase of "+private+": ", "open sesame") // what is encrypted anew is tried
	require.NoError(t, command.Wait(), term.seen())
	require.NoError(t, os.RemoveAll(filepath.Join(os.Getenv("HOME"), ".config")))

	alone := exec.Command("k3splan", "-p", r.dir, "deploy", "--no-gates", "--force")
	alone.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal
	said, err := alone.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(said), "needs its passphrase")
	require.Contains(t, string(said), "hint: run the command on a terminal")
	require.NotContains(t, string(said), "colmena apply")

	term, command = startOn(t, "k3splan", "-p", r.dir, "deploy", "--no-gates", "--force")
	term.answer("Passphrase of "+private+": ", "open sesame")
	require.NoError(t, command.Wait(), term.seen())
	r.requireUploaded()
	require.Equal(t, 1, strings.Count(term.seen(), "Passphrase of "), term.seen())
	require.NotContains(t, term.seen(), "sesame")
	require.False(t, r.leaks([]byte(term.seen())))
	require.Empty(t, r.found())
	require.Empty(t, r.leftOver())

	term, command = startOn(t, "k3splan", "-p", r.dir, "deploy", "--no-gates", "--force")
	term.answer("Passphrase of "+private+": ", "wrong")
	require.Error(t, command.Wait())
	require.Eventually(t, func() bool { return strings.Contains(term.seen(), "the passphrase of "+private+" is wrong") }, 10*time.Second, time.Millisecond, term.seen())
}
