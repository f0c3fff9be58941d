package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/run"
	"k3splan/internal/stick"
)

// stickTest is a project, an image of its host and a loop device in place of a stick.
type stickTest struct {
	t                    *testing.T
	dir, image, device   string
	file                 string // behind the device
	imageData            []byte
	token, hash, hostKey string
}

func newStickTest(t *testing.T) *stickTest {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIP: loop devices need root")
	}
	for _, program := range []string{"losetup", "script", "lsblk", "debugfs"} { // Debian: mount bsdutils util-linux e2fsprogs
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIP: %s is not on PATH", program)
		}
	}
	s := &stickTest{t: t, dir: t.TempDir()}
	s.exec(0, "setup", s.dir)
	s.write("secrets/all.pub", testKey)
	s.write("secrets/passwd", testHash)
	s.exec(0, "-p", s.dir, "known-hosts", "make")
	key, err := os.ReadFile(filepath.Join(s.dir, "secrets/hosts/olaf_ed25519"))
	require.NoError(t, err)
	s.hostKey = string(key)
	token, err := os.ReadFile(filepath.Join(s.dir, "secrets/init-token"))
	require.NoError(t, err)
	s.token, s.hash = string(token), testHash
	// what is read of a hybrid ISO: its boot sector and its volume ID
	s.imageData = bytes.Repeat([]byte("k3splan image. "), 400_000)
	clear(s.imageData[446:510])
	s.imageData[510], s.imageData[511] = 0x55, 0xaa
	copy(s.imageData[16*2048:], "\x01CD001\x01")
	copy(s.imageData[16*2048+40:], "k3splan-olaf"+strings.Repeat(" ", 20))
	s.image = filepath.Join(t.TempDir(), "olaf.iso")
	require.NoError(t, os.WriteFile(s.image, s.imageData, 0o600))
	s.device, s.file = s.loop(32 << 20)
	return s
}

func (s *stickTest) loop(size int64) (device, file string) {
	s.t.Helper()
	file = filepath.Join(s.t.TempDir(), "stick")
	require.NoError(s.t, os.WriteFile(file, nil, 0o600))
	require.NoError(s.t, os.Truncate(file, size))
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		s.t.Skipf("SKIP: no loop device to be had: %s", out)
	}
	device = strings.TrimSpace(string(out))
	s.t.Cleanup(func() { require.NoError(s.t, exec.Command("losetup", "--detach", device).Run()) })
	return device, file
}

func (s *stickTest) write(name, content string) {
	s.t.Helper()
	name = filepath.Join(s.dir, name)
	require.NoError(s.t, os.MkdirAll(filepath.Dir(name), 0o700))
	require.NoError(s.t, os.WriteFile(name, []byte(content), 0o600))
}

// exec runs k3splan without a terminal.
func (s *stickTest) exec(code int, args ...string) string {
	s.t.Helper()
	command := exec.Command(os.Args[0], args...)
	command.Args[0] = "k3splan"
	out, _ := command.CombinedOutput()
	require.Equal(s.t, code, command.ProcessState.ExitCode(), "%s", out)
	return string(out)
}

// typing runs it on a terminal where a user types an answer.
func (s *stickTest) typing(code int, answer string, args ...string) string {
	s.t.Helper()
	link := filepath.Join(s.t.TempDir(), "k3splan")
	require.NoError(s.t, os.Symlink(os.Args[0], link))
	words := []string{link}
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, "script", "--quiet", "--return", "--command", run.Words(append(words, args...)...), "/dev/null")
	command.WaitDelay = time.Second
	in, err := command.StdinPipe()
	require.NoError(s.t, err)
	asked := &prompt{seen: make(chan struct{})}
	command.Stdout = asked
	require.NoError(s.t, command.Start())
	go func() {
		select {
		case <-asked.seen:
			_, _ = io.WriteString(in, answer) // it may have ended
		case <-ctx.Done():
		}
	}()
	_ = command.Wait()
	require.Equal(s.t, code, command.ProcessState.ExitCode(), asked.text.String())
	return asked.text.String()
}

// prompt keeps what is printed and signals the question.
type prompt struct {
	text bytes.Buffer
	seen chan struct{}
	once sync.Once
}

func (p *prompt) Write(data []byte) (int, error) {
	n, err := p.text.Write(data)
	if strings.Contains(p.text.String(), "type the host's name") {
		p.once.Do(func() { close(p.seen) })
	}
	return n, err
}

func (s *stickTest) stick() []byte {
	s.t.Helper()
	data, err := os.ReadFile(s.file)
	require.NoError(s.t, err)
	return data
}

func TestBootStickWritesImageAndSecrets(t *testing.T) {
	s := newStickTest(t)
	call := []string{"-p", s.dir, "boot-stick", "olaf", s.device, "--image", s.image}
	blank := s.stick()

	// nothing is written without the device's name and the user's confirmation
	require.Contains(t, s.exec(2, call...), "--force-device "+s.device)
	require.Contains(t, s.exec(2, append(call, "--force-device", "other")...), `--force-device names "other"`)
	call = append(call, "--force-device", s.device)
	require.Contains(t, s.exec(2, append(call, "--yes")...), "--yes is accepted for removable USB devices only")
	require.Contains(t, s.exec(2, call...), "confirmation needed, but stdin is not a terminal")
	require.Contains(t, s.typing(2, "ulf\n", call...), "not confirmed; nothing was changed")
	require.True(t, bytes.Equal(blank, s.stick()))

	out := s.typing(0, "olaf\n", append(call, "--wipe")...)
	require.Contains(t, out, "you can unplug it")
	require.Contains(t, out, "secrets on the stick: agent-token, passwd, server-token, ssh-host-key")
	require.NotContains(t, out, strings.TrimSpace(s.token))

	data := s.stick()
	start := (len(s.imageData) + 1<<20 - 1) >> 20 << 20
	require.Equal(t, s.imageData[:446], data[:446])
	require.True(t, bytes.Equal(s.imageData[510:], data[510:len(s.imageData)]))
	for _, secret := range []string{s.token, s.hash, s.hostKey} {
		secret := []byte(strings.TrimSpace(secret))
		require.True(t, bytes.Contains(data[start:start+stick.Size], secret))
		require.False(t, bytes.Contains(data[:start], secret), "on the stick's own partition only")
		require.False(t, bytes.Contains(data[start+stick.Size:], secret))
	}
	partition := filepath.Join(t.TempDir(), "partition")
	require.NoError(t, os.WriteFile(partition, data[start:start+stick.Size], 0o600))
	content, err := exec.Command("debugfs", "-R", "cat /secrets/server-token", partition).Output()
	require.NoError(t, err)
	require.Equal(t, s.token, string(content))

	// a stick without secrets
	out = s.typing(0, "olaf\n", append(call, "--no-secrets")...)
	require.NotContains(t, out, "secrets on the stick")
	for _, secret := range []string{s.token, s.hash, s.hostKey} {
		require.False(t, bytes.Contains(s.stick(), []byte(strings.TrimSpace(secret))))
	}
}

func TestBootStickRefusesImages(t *testing.T) {
	s := newStickTest(t)
	blank := s.stick()
	call := func(image string, more ...string) []string {
		return append([]string{"-p", s.dir, "boot-stick", "olaf", s.device, "--force-device", s.device, "--image", image}, more...)
	}
	changed := func(change func(data []byte)) string {
		data := bytes.Clone(s.imageData)
		change(data)
		file := filepath.Join(t.TempDir(), "x.iso")
		require.NoError(t, os.WriteFile(file, data, 0o600))
		return file
	}
	require.Contains(t, s.exec(2, call(changed(func(data []byte) { copy(data[16*2048+40:], "k3splan-ulf ") }))...), "the image of another host")
	foreign := changed(func(data []byte) { copy(data[16*2048+40:], "debian      ") })
	require.Contains(t, s.exec(2, call(foreign)...), "was not made by k3splan")
	require.Contains(t, s.exec(2, call(changed(func(data []byte) { data[510] = 0 }))...), "is not a boot image")
	require.Contains(t, s.exec(1, call(filepath.Join(s.dir, "missing.iso"))...), "no such file")
	require.Contains(t, s.exec(2, call(changed(func(data []byte) { data[446+4] = 0xee }))...), "GPT")
	require.True(t, bytes.Equal(blank, s.stick()))

	require.Contains(t, s.typing(0, "olaf\n", call(foreign, "--no-secrets")...), "you can unplug it")
	data, err := os.ReadFile(foreign)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, s.stick()[:len(data)]), "as it is")

	small, _ := s.loop(8 << 20)
	require.Contains(t, s.exec(2, "-p", s.dir, "boot-stick", "olaf", small, "--force-device", small, "--image", s.image), "use a larger stick")
}
