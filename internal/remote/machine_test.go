package remote

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
	"k3splan/internal/run"
)

func TestConnections(t *testing.T) {
	p, conf := loadPlan(t), &Config{File: "/x/ssh_config"}
	words := func(program string, args []string) string { return program + " " + strings.Join(args, " ") }
	options := "ssh -F /x/ssh_config -T " + strings.Join(connection, " ") + " "
	require.Equal(t, options+"deploy@10.0.100.2 -- sudo -n -H -- sh -s -- olaf-s", words(conf.Machine(p.Host("olaf"), DeployUser).root([]string{"sh", "-s", "--", "olaf-s"})))
	require.Equal(t, options+"-p 2222 root@ulf.example -- true", words(conf.Machine(p.Host("ulf"), "root").root([]string{"true"})))
	if local := conf.Machine(p.Host("ulrich"), DeployUser); os.Geteuid() == 0 {
		require.Equal(t, "sh -c 'x'", words(local.root([]string{"sh", "-c", "'x'"})))
	} else {
		require.Equal(t, "sudo -H -- sh -c 'x'", words(local.root([]string{"sh", "-c", "'x'"})))
	}

	// people call a machine by its name
	require.Equal(t, "ssh -F /x/ssh_config -l olaf olaf", words("ssh", conf.Machine(p.Host("olaf"), "").login(false, nil)))
	require.Equal(t, []string{"-F", "/x/ssh_config", "-o", "RemoteCommand=none", "-t", "-l", "deploy", "ulf", "--", "ls", "a b"},
		conf.Machine(p.Host("ulf"), DeployUser).login(true, []string{"ls", "a b"}))
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

// What ssh 9.2 said in each of these cases, word for word. The first line that names a cause is shown, and
// the advice fits it.
func TestCauses(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "")
	p := loadPlan(t)
	for name, test := range map[string]struct{ host, user, said, says, hint string }{
		"too many keys": {"olaf", "root", "Received disconnect from 10.0.100.2 port 22:2: Too many authentication failures\r\nDisconnected from 10.0.100.2 port 22\r\n",
			"no connection to olaf: Received disconnect from 10.0.100.2 port 22:2: Too many authentication failures", "IdentitiesOnly yes"},
		"another key": {"olaf", DeployUser, "@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@\nIT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\nHost key for olaf has changed and you have requested strict checking.\nHost key verification failed.\n",
			"no connection to olaf: Host key for olaf has changed and you have requested strict checking.", "if the machine was reinstalled: k3splan known-hosts scan olaf\n"},
		"another key behind a shared address": {"rolf", DeployUser, "Host key for [gate.example]:2201 has changed and you have requested strict checking.\nHost key verification failed.\n",
			"no connection to rolf: Host key for [gate.example]:2201 has changed", "known-hosts scan rolf"},
		"another type": {"olaf", "root", "Unable to negotiate with 10.0.100.2 port 22: no matching host key type found. Their offer: ssh-rsa\n",
			"no connection to olaf: Unable to negotiate", "known-hosts scan olaf"},
		"unknown jump host": {"olaf", DeployUser, "No ED25519 host key is known for 192.0.2.1 and you have requested strict checking.\r\nHost key verification failed.\nConnection closed by UNKNOWN port 65535\n",
			"no connection to olaf: No ED25519 host key is known for 192.0.2.1", "log in to 192.0.2.1 once by hand"},
		"not let in by the jump host": {"olaf", DeployUser, "me@192.0.2.1: Permission denied (publickey).\r\nConnection closed by UNKNOWN port 65535\n",
			"no connection to olaf: me@192.0.2.1: Permission denied", "ssh me@192.0.2.1 must work without a password"},
		"behind the jump host": {"olaf", DeployUser, "channel 0: open failed: connect failed: No route to host\nstdio forwarding failed\nConnection closed by UNKNOWN port 65535\n",
			"no connection to olaf: channel 0: open failed: connect failed: No route to host", "the jump host does not reach the host"},
		"not let in":      {"olaf", DeployUser, "deploy@10.0.100.2: Permission denied (publickey).\n", "no connection to olaf: deploy@10.0.100.2: Permission denied (publickey).", "secrets/deploy.pub"},
		"no user deploy":  {"olaf", DeployUser, "deploy@10.0.100.2: Permission denied (publickey).\n", "Permission denied", "\na NixOS that k3splan has not deployed yet has no user deploy: k3splan deploy --as root olaf"},
		"not an admin":    {"olaf", "olaf", "olaf@10.0.100.2: Permission denied (publickey).\n", "Permission denied", "secrets/olaf.pub"},
		"another account": {"olaf", "root", "root@10.0.100.2: Permission denied (publickey).\n", "Permission denied", "ssh-copy-id root@10.0.100.2"},
		"agent refuses": {"olaf", DeployUser, "sign_and_send_pubkey: signing failed for ED25519 \"/home/me/.ssh/id_ed25519\" from agent: agent refused operation\ndeploy@10.0.100.2: Permission denied (publickey).\n",
			"no connection to olaf: sign_and_send_pubkey: signing failed", "is the agent locked"},
		"a key that others can read": {"olaf", DeployUser, "@@@@\n@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @\n@@@@\nPermissions 0644 for '/home/me/.ssh/id' are too open.\nIt is required that your private key files are NOT accessible by others.\nThis private key will be ignored.\nLoad key \"/home/me/.ssh/id\": bad permissions\ndeploy@10.0.100.2: Permission denied (publickey).\n",
			"no connection to olaf: Permissions 0644 for '/home/me/.ssh/id' are too open.", "chmod 600"},
		"closed port":    {"olaf", DeployUser, "ssh: connect to host 10.0.100.2 port 22: Connection refused\n", "no connection to olaf: ssh: connect to host 10.0.100.2 port 22: Connection refused", "nothing listens on that port"},
		"no route":       {"olaf", DeployUser, "ssh: connect to host 10.0.100.2 port 22: No route to host\n", "No route to host", "switched on"},
		"timeout":        {"olaf", DeployUser, "ssh: connect to host 10.0.100.2 port 22: Connection timed out\n", "timed out", "nothing answers at that address"},
		"a wrong port":   {"olaf", DeployUser, "Connection timed out during banner exchange\nConnection to 10.0.100.2 port 22 timed out\n", "banner exchange", "is it the right port"},
		"no name":        {"ulf", DeployUser, "ssh: Could not resolve hostname ulf.example: Name or service not known\n", "Could not resolve hostname", "the target of ulf in the plan"},
		"no jump host":   {"ulf", DeployUser, "ssh: Could not resolve hostname jump: Name or service not known\nConnection closed by UNKNOWN port 65535\n", "Could not resolve hostname jump", "your own ssh configuration"},
		"configuration":  {"olaf", DeployUser, "/home/me/.ssh/config: line 3: Bad configuration option: usekeychain\n/home/me/.ssh/config: terminating, 1 bad configuration options\n", "line 3: Bad configuration option", "your own ssh configuration"},
		"proxy command":  {"olaf", DeployUser, "/bin/sh: 1: exec: nc: not found\nConnection closed by UNKNOWN port 65535\n", "nc: not found", "ProxyCommand"},
		"unknown words":  {"olaf", DeployUser, "Bad packet length 1349676916.\nConnection to 10.0.100.2 closed by remote host.\n", "no connection to olaf: Bad packet length", "see its journal"},
		"closed":         {"olaf", DeployUser, "Connection closed by 10.0.100.2 port 22\n", "no connection to olaf: Connection closed by 10.0.100.2 port 22", "see its journal"},
		"escapes":        {"olaf", DeployUser, "\x1b]0;x\x07\u202ewelcome\n", `no connection to olaf: \x1b]0;x\a\u202ewelcome`, ""},
		"nothing":        {"olaf", DeployUser, "", "no connection to olaf: ssh says nothing about the reason", ""},
		"sudo asks":      {"olaf", DeployUser, "exit 1\nsudo: a password is required\n", "on olaf: ssh failed with exit code 1: sudo: a password is required", "k3splan deploy --as root olaf"},
		"sudo asks root": {"olaf", "someone", "exit 1\nsudo: a password is required\n", "on olaf: ", "security.sudo.wheelNeedsPassword = false"},
		"not NixOS":      {"olaf", "root", "exit 127\nsh: 2: exec: nixos-generate-config: not found\n", "on olaf: ", "olaf does not run NixOS"},
		"another 255":    {"olaf", DeployUser, "exit 1\nPermission denied\n", "on olaf: ssh failed with exit code 1: Permission denied", ""},
	} {
		t.Run(name, func(t *testing.T) {
			code, said := "255", test.said
			if rest, ok := strings.CutPrefix(said, "exit "); ok {
				code, said, _ = strings.Cut(rest, "\n")
			}
			file := filepath.Join(t.TempDir(), "said")
			require.NoError(t, os.WriteFile(file, []byte(said), 0o600))
			fakeSSH(t, "cat "+file+" >&2; exit "+code)
			err := (&Config{}).Machine(p.Host(test.host), test.user).LogIn(context.Background())
			require.ErrorContains(t, err, test.says)
			if test.hint == "" {
				require.Empty(t, diag.HintOf(err))
			}
			require.Contains(t, diag.HintOf(err), test.hint)
			require.Equal(t, diag.Printable(Reason(err)), Reason(err))
		})
	}
	t.Setenv("PATH", t.TempDir())
	_, err := (&Config{}).Machine(p.Host("olaf"), "root").Run(context.Background(), "", "true")
	require.Contains(t, diag.HintOf(err), "apt install openssh-client", "the hint of what it wraps")
}

// A key with a passphrase that no agent holds is the cause, and not the host.
func TestLockedKeys(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("SKIP: ssh-keygen is not on PATH (Debian: openssh-client)")
	}
	dir := t.TempDir()
	for name, passphrase := range map[string]string{"locked": "secret words", "open": ""} {
		out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", filepath.Join(dir, name)).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	t.Setenv("SSH_AUTH_SOCK", "")
	machine := func(keys ...string) Machine {
		text := "Host *\n"
		for _, key := range keys {
			text += "    IdentityFile " + filepath.Join(dir, key) + "\n"
		}
		file := filepath.Join(t.TempDir(), "config")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return (&Config{File: file}).Machine(loadPlan(t).Host("olaf"), DeployUser)
	}
	require.Contains(t, machine("locked", "missing").lockedKeys(), "ssh-add "+filepath.Join(dir, "locked")+"\nno ssh-agent is running")
	require.Empty(t, machine("locked", "open").lockedKeys())
	require.Empty(t, machine("missing").lockedKeys())
}

func TestAnswersHaveALimit(t *testing.T) {
	fakeSSH(t, "exec yes")
	machine := (&Config{}).Machine(loadPlan(t).Host("olaf"), "root")
	machine.Limit = 1 << 20
	_, err := machine.Script(context.Background(), "true")
	require.EqualError(t, err, "on olaf: the host answers too much (more than 1 MiB)")
	require.Equal(t, "the host answers too much (more than 1 MiB)", Reason(err))

	fakeSSH(t, "exec sleep 1000")
	machine.Timeout = 50 * time.Millisecond
	_, err = machine.Script(context.Background(), "true")
	require.Equal(t, "no answer in time", Reason(err))
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
		"none":            {"echo 'Connection refused' >&2", "rolf at gate.example showed no key: Connection refused", nil},
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
