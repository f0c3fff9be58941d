package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena/nixtest"
	"k3splan/internal/k3s/k3stest"
	"k3splan/internal/release/releasetest"
)

// insideVariable tells the test that it runs in the namespaces that it made.
const insideVariable = "K3SPLAN_TEST_INSIDE"

// Scripts run at the same time: each has a network of its own, 10.0.100.0/24 and so on.
// The machines of these scripts: a network namespace in which each has its address and a real sshd,
// and a mount namespace in which the users exist. What a machine would run (sudo, nixos-container,
// k3s) is played by scripts.
func TestNetworkScripts(t *testing.T) {
	if os.Getenv(insideVariable) == "" {
		enterNamespaces(t)
		return
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "network"),
		RequireExplicitExec: true,
		Setup:               setUpScript,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"sshd": startSSHD},
	})
}

// enterNamespaces runs the test again, inside.
func enterNamespaces(t *testing.T) {
	for _, program := range []string{"unshare", "ip", "mount", "ssh", "ssh-keygen", "/usr/sbin/sshd"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIP: %s is not there (Debian: openssh-server openssh-client iproute2 util-linux)", program)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIP: only root can make the network of machines that this test needs")
	}
	if out, err := exec.Command("unshare", "--net", "--mount", "true").CombinedOutput(); err != nil {
		t.Skipf("SKIP: this machine makes no network namespaces: %s", out)
	}
	home := operatorHome(t)
	passwd := filepath.Join(t.TempDir(), "passwd")
	users := fmt.Sprintf("root:x:0:0:root:%s:/bin/sh\nsshd:x:102:65534::/run/sshd:/usr/sbin/nologin\n", home)
	for i, name := range []string{"olaf", "karl", "deploy"} {
		users += fmt.Sprintf("%s:*:%d:65534::/:/bin/sh\n", name, 4000+i)
	}
	require.NoError(t, os.WriteFile(passwd, []byte(users), 0o644))
	script := `set -e
mount --bind "$1" /etc/passwd
mount -t tmpfs tmpfs /run
mkdir /run/sshd
ip link set lo up
for address in 10.0.100.2 10.0.100.3 10.0.100.5 10.0.101.2 10.0.101.3 10.0.101.5 10.0.102.2 10.0.102.3 10.0.102.12 10.0.102.13 10.0.103.2 10.0.103.3 10.0.103.12 10.0.103.13; do ip address add $address/32 dev lo; done
shift
exec "$@"`
	self, err := os.Executable()
	require.NoError(t, err)
	args := []string{"--net", "--mount", "--", "sh", "-c", script, "sh", passwd, self, "-test.run", "^TestNetworkScripts$", "-test.timeout", "5m"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	command := exec.Command("unshare", args...)
	command.Env = append(os.Environ(), insideVariable+"=1", "HOME="+home, "TMPDIR="+nixtest.PlainDir(t)) // elsewhere ssh's files would be beside the project
	out, err := command.CombinedOutput()
	t.Logf("%s", out)
	require.NoError(t, err)
}

// operatorHome makes a home with an ssh key, and a configuration that tries to get in the way.
func operatorHome(t *testing.T) string {
	home := t.TempDir()
	folder := filepath.Join(home, ".ssh")
	require.NoError(t, os.Mkdir(folder, 0o700))
	key := filepath.Join(folder, "operator")
	out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "alice", "-f", key).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "config"), []byte(
		"Host *\n    IdentityFile \""+key+"\"\n    StrictHostKeyChecking no\n    UserKnownHostsFile /dev/null\n    User nobody\n"), 0o600))
	return home
}

func setUpScript(env *testscript.Env) error {
	folder := filepath.Join(env.WorkDir, ".test")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for dir := env.WorkDir; dir != "/"; dir = filepath.Dir(dir) { // the machines' users run the scripts in it
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o005 == 0 {
			if err := os.Chmod(dir, info.Mode().Perm()|0o055); err != nil {
				return err
			}
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "HASH"), []byte(testHash), 0o600); err != nil {
		return err
	}
	env.Setenv("KEY", filepath.Join(home, ".ssh", "operator.pub"))
	env.Setenv("HASH", filepath.Join(folder, "HASH"))
	env.Setenv("HOME", home)
	env.Setenv("SOURCE_DATE_EPOCH", releasetest.Epoch)
	return nil
}

// startSSHD is the script command `sshd ADDRESS PORT KEY…`: a machine at that address, which proves
// itself by these keys and runs the programs in $WORK/bin. It ends with the script.
func startSSHD(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: sshd ADDRESS PORT KEY…")
	}
	work := ts.Getenv("WORK")
	authorized := filepath.Join(work, ".test", "authorized_keys") // the machines' users cannot look into the operator's home
	public, err := os.ReadFile(ts.Getenv("KEY"))
	ts.Check(err)
	ts.Check(os.WriteFile(authorized, public, 0o644))
	config := fmt.Sprintf(`ListenAddress %s:%s
PidFile none
KexAlgorithms curve25519-sha256
UsePAM no
StrictModes no
AuthorizedKeysFile "%s"
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv "PATH=%s/bin:/usr/bin:/bin" "WORK=%s" MACHINE=%s
`, args[0], args[1], authorized, work, work, args[0])
	for i, key := range args[2:] {
		content, err := os.ReadFile(ts.MkAbs(key))
		ts.Check(err)
		copied := filepath.Join(work, ".test", fmt.Sprintf("key-%s-%s-%d", args[0], args[1], i))
		ts.Check(os.WriteFile(copied, content, 0o600))
		config += "HostKey \"" + copied + "\"\n"
	}
	file := filepath.Join(work, ".test", "sshd-"+args[0]+"-"+args[1])
	ts.Check(os.WriteFile(file, []byte(config), 0o600))
	command := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", file)
	log, err := os.Create(file + ".log")
	ts.Check(err)
	command.Stderr = log
	ts.Check(command.Start())
	ts.Defer(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		if log, err := os.ReadFile(file + ".log"); err == nil {
			ts.Logf("%s: %s", file, log)
		}
	})
	waitFor(ts, net.JoinHostPort(args[0], args[1]))
}

func waitFor(ts *testscript.TestScript, address string) {
	for range 100 {
		if connection, err := net.Dial("tcp", address); err == nil {
			_ = connection.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("nothing listens at %s", address)
}

// kubeAPI is the program `kubeapi ADDRESS DIR`: it makes a cluster's CA, writes the kubeconfig that k3s
// would write to DIR/k3s.yaml, and serves /version at the address to whoever has a certificate of that CA.
func kubeAPI() {
	address, dir := os.Args[1], os.Args[2]
	ca := k3stest.NewAuthority()
	must(os.WriteFile(filepath.Join(dir, "k3s.yaml"), []byte(ca.K3sYAML("6443")), 0o644))
	host, _, err := net.SplitHostPort(address)
	must(err)
	listener, err := tls.Listen("tcp", address, ca.TLS(&x509.Certificate{IPAddresses: []net.IP{net.ParseIP(host)}}))
	must(err)
	must(http.Serve(listener, http.HandlerFunc(k3stest.Answer)))
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
