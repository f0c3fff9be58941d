package remote

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/run"
)

func TestConnections(t *testing.T) {
	p, conf := loadPlan(t), &Config{File: "/x/ssh_config"}
	words := func(program string, args []string) string { return program + " " + strings.Join(args, " ") }
	const options = "ssh -F /x/ssh_config -T -o BatchMode=yes -o ConnectTimeout=8 -o ServerAliveInterval=15 -o ServerAliveCountMax=4 "
	require.Equal(t, options+"deploy@10.0.100.2 -- sudo -n -H -- sh -s -- olaf-s", words(conf.Machine(p.Host("olaf"), DeployUser).root([]string{"sh", "-s", "--", "olaf-s"})))
	require.Equal(t, options+"-p 2222 root@ulf.example -- true", words(conf.Machine(p.Host("ulf"), "root").root([]string{"true"})))
	if local := conf.Machine(p.Host("ulrich"), DeployUser); os.Geteuid() == 0 {
		require.Equal(t, "sh -c 'x'", words(local.root([]string{"sh", "-c", "'x'"})))
	} else {
		require.Equal(t, "sudo -H -- sh -c 'x'", words(local.root([]string{"sh", "-c", "'x'"})))
	}

	// people call a machine by its name
	require.Equal(t, "ssh -F /x/ssh_config -l olaf olaf", words("ssh", conf.Machine(p.Host("olaf"), "").Login(false, nil)))
	require.Equal(t, []string{"-F", "/x/ssh_config", "-t", "-l", "deploy", "ulf", "--", "ls", "a b"},
		conf.Machine(p.Host("ulf"), DeployUser).Login(true, []string{"ls", "a b"}))
}

// fakeSSH does what ssh and the shell of the other side do with a command.
func fakeSSH(t *testing.T, connect string) {
	t.Helper()
	folder := t.TempDir()
	script := "#!/bin/sh\n" + connect + `
while [ "$1" != -- ]; do shift; done; shift
exec sh -c "$*"
`
	require.NoError(t, os.WriteFile(filepath.Join(folder, "ssh"), []byte(script), 0o755))
	t.Setenv("PATH", folder+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func TestWordsArriveAsTheyAre(t *testing.T) {
	fakeSSH(t, "")
	machine := (&Config{}).Machine(loadPlan(t).Host("olaf"), "root")
	out, err := machine.Run(context.Background(), "input", "sh", "-c", `cat; printf '<%s>' "$@"`, "sh", `echo '$x'; "`, "", "a b")
	require.NoError(t, err)
	require.Equal(t, `input<echo '$x'; "><><a b>`, out)
}

// What a script starts cannot read the rest of it.
func TestScript(t *testing.T) {
	fakeSSH(t, "")
	machine := (&Config{}).Machine(loadPlan(t).Host("olaf"), "root")
	out, err := machine.Script(context.Background(), "set -e\ncat\necho \"$1\"\ncat << 'end'\n$1\nend", "two words")
	require.NoError(t, err)
	require.Equal(t, "two words\n$1\n", out)
	out, err = machine.Script(context.Background(), "echo half; echo talk >&2; exit 3")
	require.EqualError(t, err, "on olaf: ssh failed with exit code 3: talk")
	require.Equal(t, "half\n", out)
	var exit *run.ExitError
	require.ErrorAs(t, err, &exit)
}

func TestErrorHints(t *testing.T) {
	olaf := loadPlan(t).Host("olaf")
	for name, test := range map[string]struct{ connect, user, says, hint string }{
		"another key":       {"echo 'Host key verification failed.' >&2; exit 255", DeployUser, "no connection to olaf: ssh failed with exit code 255: Host key", "known-hosts scan olaf"},
		"another type":      {"echo 'no matching host key type found' >&2; exit 255", "root", "no connection to olaf: ", "known-hosts scan olaf"},
		"not let in":        {"echo 'Permission denied (publickey).' >&2; exit 255", DeployUser, "no connection to olaf: ", "secrets/deploy.pub"},
		"another user":      {"echo 'Permission denied (publickey).' >&2; exit 255", "root", "no connection to olaf: ", ""},
		"the command fails": {"echo 'Permission denied' >&2; exit 1", DeployUser, "on olaf: ssh failed with exit code 1: Permission denied", ""},
	} {
		t.Run(name, func(t *testing.T) {
			fakeSSH(t, test.connect)
			err := (&Config{}).Machine(olaf, test.user).LogIn(context.Background())
			require.ErrorContains(t, err, test.says)
			var failed *Error
			require.ErrorAs(t, err, &failed)
			if test.hint == "" {
				require.Empty(t, failed.Hint())
			}
			require.Contains(t, failed.Hint(), test.hint)
		})
	}
	t.Setenv("PATH", t.TempDir())
	_, err := (&Config{}).Machine(olaf, "root").Run(context.Background(), "", "true")
	var failed *Error
	require.True(t, errors.As(err, &failed))
	require.Contains(t, failed.Hint(), "apt install openssh-client", "the hint of what it wraps")
}

// Whatever keys the machine is known by, the one that it shows is given.
func TestHostKey(t *testing.T) {
	p, dir := loadPlan(t), t.TempDir()
	conf, err := Prepare(dir, p, knownTo(t))
	require.NoError(t, err)
	shown, old := key(t), rsaKey(t)
	for name, test := range map[string]struct {
		script, says string
		want         *HostKey
	}{
		"the best":        {"show " + KeyLine(shown.Public), "", &shown},
		"whatever it has": {`case "$*" in *HostKeyAlgorithms=+ssh-ed25519*) show ` + KeyLine(old.Public) + `; esac`, "", &old},
		"none":            {"echo 'Connection refused' >&2", "rolf at gate.example has shown no key: ssh failed with exit code 255: Connection refused", nil},
		"what is no key":  {"show ssh-ed25519 AAAA", "the key of rolf: ", nil},
		"by its address":  {`case "$*" in *StrictHostKeyChecking=accept-new*HostKeyAlias=rolf*" -p 2201 rolf@gate.example -- true") show ` + KeyLine(shown.Public) + `; esac`, "", &shown},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(folder, "ssh"), []byte(`#!/bin/sh
for word in "$@"; do case $word in UserKnownHostsFile=*) file=${word#*=}; esac; done
show() { echo "rolf $*" > "$file"; }
`+test.script+"\nexit 255\n"), 0o755))
			t.Setenv("PATH", folder+string(os.PathListSeparator)+os.Getenv("PATH"))
			got, err := conf.Machine(p.Host("rolf"), "").HostKey(context.Background())
			if test.want == nil {
				require.ErrorContains(t, err, test.says)
			} else {
				require.NoError(t, err)
				require.Equal(t, test.want.Fingerprint(), got.Fingerprint())
			}
			left, err := filepath.Glob(filepath.Join(dir, Folder, "scan-*"))
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}
