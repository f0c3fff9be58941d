package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/run"
)

// emulated is how long an emulated machine may take, on a machine that has other things to do.
const emulated = 25 * time.Minute

// A stick that boot-stick writes boots in a virtual machine, installs the host on its blank disk, and powers off. The
// installed system boots from the disk with the plan's address, and deploy finds on it what the plan says.
func TestInstaller(t *testing.T) {
	if !all() {
		t.Skip("SKIP: the installer is part of make boot-all")
	}
	l := openLab(t, "installer")
	for _, program := range []string{"script", "losetup"} { // Debian: bsdutils mount
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIP: %s is not on PATH", program)
		}
	}
	files := os.Getenv("K3SPLAN_BOOTFILES")
	if files == "" {
		home, err := os.UserHomeDir()
		require.NoError(t, err)
		files = filepath.Join(home, ".cache", "k3splan-tests", "boot")
	}
	skipIfMissing(t, l.Virtual(files))
	s := newSiteIn(t, l, "single", "192.168.1.1/24")
	const host, server, serial = "olaf", "olaf-server", "S4EWNX0M700101"
	machine := l.Machine(host)
	// no agent: its image cannot be pulled
	s.write("plans/k3s.csv", "host,name,type,ip\nolaf,olaf-server,init,192.168.1.11\n")
	s.edit("plans/hosts.csv", "olaf,eno1,192.168.1.10,olaf,,", "olaf,enp0s16,192.168.1.10,olaf,"+serial+",")

	stick := filepath.Join(l.Dir, "stick")
	require.NoError(t, os.WriteFile(stick, nil, 0o600))
	require.NoError(t, os.Truncate(stick, 2<<30))
	out, err := runOut("losetup", "--find", "--show", stick)
	if err != nil {
		t.Skip("SKIP: no loop device available")
	}
	device := strings.TrimSpace(out)
	t.Cleanup(func() { require.NoError(t, exec.Command("losetup", "--detach", device).Run()) })

	s.row("a stick is written", func(t *testing.T) {
		said := s.typing(host, "boot-stick", host, device, "--force-device", device)
		require.Contains(t, said, "the boot stick of olaf is written and compared")
	})
	s.row("the stick boots, installs the host and powers off", func(t *testing.T) {
		require.NoError(t, machine.NewDisk(8<<30))
		ctx, cancel := context.WithTimeout(t.Context(), emulated)
		defer cancel()
		require.NoError(t, machine.Power(ctx, serial, device), "see %s", machine.Console())
		console, err := os.ReadFile(machine.Console())
		require.NoError(t, err)
		require.Contains(t, string(console), "olaf is installed")
	})
	s.row("the disk boots, and deploy finds what the plan says", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- machine.Power(ctx, serial, "") }()
		defer func() { cancel(); <-ended }()
		ssh := func(command string) (string, error) {
			out, err := s.command("ssh", host, "--", command).Output()
			return strings.TrimSpace(string(out)), err
		}
		require.Eventually(t, func() bool { _, err := ssh("sudo sh -c " + run.Word(serverReady(server))); return err == nil }, emulated, 3*time.Second)
		// since when what runs
		since := func() string {
			out, err := ssh("readlink /run/current-system; systemctl show --property ExecMainStartTimestampMonotonic --value sshd container@" + server)
			require.NoError(t, err)
			return out
		}
		before := since()
		out, err := ssh("systemctl --failed --no-legend; ip -brief address; findmnt --noheadings --raw --output TARGET,SOURCE,FSTYPE --types ext4,vfat; sudo bootctl --path=/boot status --no-pager")
		require.NoError(t, err)
		fmt.Println(out)
		require.Regexp(t, `(?m)^k3splan-lan@enp0s16 .* 192\.168\.1\.10/24`, out)
		systems, err := l.Build(s.project, host)
		require.NoError(t, err)
		require.Equal(t, systems[host], strings.Fields(before)[0], "the system of the plan is installed")
		s.deploy(host)
		require.Equal(t, before, since(), "the first deployment changes nothing")
		require.Contains(t, s.ok("deploy", "--dry-run", "--json").out, `"waves": []`)
		s.ok("hardware", host)
		hardware, err := os.ReadFile(filepath.Join(s.project, "hardware", host+".nix"))
		require.NoError(t, err)
		require.Contains(t, string(hardware), "virtio_blk")
	})
}

// typing runs k3splan at a terminal, where somebody types an answer as soon as it asks. It returns what it printed.
func (s *site) typing(answer string, args ...string) string {
	s.t.Helper()
	command := s.command(args...)
	terminal := exec.Command("script", "--quiet", "--return", "--command", run.Words(command.Args...), "/dev/null")
	terminal.Env = command.Env
	in, err := terminal.StdinPipe()
	require.NoError(s.t, err)
	asked := &prompt{text: answer, to: in}
	terminal.Stdout = asked
	require.NoError(s.t, terminal.Run(), "%s", &asked.printed)
	return asked.printed.String()
}

// prompt types a text when it is asked to type something.
type prompt struct {
	text    string
	to      io.WriteCloser
	printed bytes.Buffer
	typed   bool
}

func (p *prompt) Write(data []byte) (int, error) {
	n, err := p.printed.Write(data)
	if !p.typed && bytes.Contains(p.printed.Bytes(), []byte("Type "+p.text)) {
		p.typed = true
		_, err = io.WriteString(p.to, p.text+"\n")
	}
	return n, err
}
