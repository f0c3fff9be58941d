package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"k3splan/internal/colmena/nixtest"
	"k3splan/internal/remote"
	"k3splan/internal/rollout"
)

// box is a rack in a box: every host is a network namespace with an address, sshd, users and a Nix
// store of its own; one more is the machine that deploys. All links are between namespaces that the
// test made, so that nothing leaves the machine.
type box struct {
	t    *testing.T
	dir  string
	id   string
	data string // testdata/box
	// nixpkgs is a tarball for the real Colmena, or empty.
	nixpkgs string

	hosts map[string]*boxHost
}

type boxHost struct {
	name, ip, dir, netns string
	process              *exec.Cmd
	// stopped is closed when the machine has ended, watched when nothing more will be killed on it.
	stopped, watched chan struct{}
}

var boxes atomic.Int32

// newBox makes a rack without hosts, and the project for it.
func newBox(t *testing.T) *box {
	t.Helper()
	switch {
	case testing.Short():
		t.Skip("SKIP: a rack in a box takes minutes")
	case os.Geteuid() != 0:
		t.Skip("SKIP: a rack in a box needs root")
	}
	for _, program := range []string{"ip", "unshare", "sudo", "nix-build", "nix-daemon", "nix-copy-closure", "/usr/sbin/sshd", "ssh-keygen"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIP: %s is not there (Debian: iproute2 openssh-server sudo nix-bin)", program)
		}
	}
	if _, err := os.Stat("/etc/systemd"); err != nil {
		t.Skipf("SKIP: the machines of a rack in a box need a place for units: %v", err)
	}
	b := &box{t: t, dir: nixtest.PlainDir(t), id: fmt.Sprintf("k3b%d-%d", os.Getpid()%100000, boxes.Add(1)), hosts: map[string]*boxHost{}}
	data, err := filepath.Abs("testdata/box")
	require.NoError(t, err)
	b.data = data
	t.Cleanup(b.close)
	if out, err := exec.Command("ip", "netns", "add", b.netns("sw")).CombinedOutput(); err != nil {
		t.Skipf("SKIP: no network namespaces here: %s", out)
	}
	b.ip("-n", b.netns("sw"), "link", "add", "br0", "type", "bridge")
	b.ip("-n", b.netns("sw"), "link", "set", "br0", "up")
	b.plug("deployer", "10.77.0.1", 0)
	for _, folder := range []string{"members", "running", "nodes", "passwords", "bin", "deployer/nix", "deployer/run", "deployer/var/lib", "conf"} {
		require.NoError(t, os.MkdirAll(filepath.Join(b.dir, folder), 0o755))
	}
	// users other than root go through here
	for folder := b.dir; len(folder) > len(os.TempDir()); folder = filepath.Dir(folder) {
		require.NoError(t, os.Chmod(folder, 0o755))
	}
	require.NoError(t, os.CopyFS(filepath.Join(b.dir, "bin"), os.DirFS(filepath.Join(b.data, "bin"))))
	entries, err := os.ReadDir(filepath.Join(b.dir, "bin"))
	require.NoError(t, err)
	for _, entry := range entries {
		require.NoError(t, os.Chmod(filepath.Join(b.dir, "bin", entry.Name()), 0o755))
	}
	// on NixOS, sh is bash, and Colmena relies on it
	require.NoError(t, os.Symlink("/bin/bash", filepath.Join(b.dir, "bin", "sh")))
	b.write("bin/poweroff", "#!/bin/sh\n. /run/box.env\ntouch \"$box/off\"\n", 0o755)
	if real, err := exec.LookPath("colmena"); err == nil {
		b.realColmena(real)
	} else {
		b.write("bin/colmena", "#!/bin/sh\nexec box-colmena \"$@\"\n", 0o755)
	}
	b.countNix()
	b.write("conf/nix.conf", "sandbox = false\nbuild-users-group =\nsubstituters =\ntrusted-users = root deploy\n", 0o644)
	b.write("deployer/sudoers", b.sudoers(), 0o440)
	b.write("deployer/os-release", "ID=nixos\n", 0o644)
	b.write("deployer/run/box.env", fmt.Sprintf("box=%s/deployer\nrack=%s\n", b.dir, b.dir), 0o644)
	b.installed("deployer")
	b.key("key")
	b.write("ssh_config", fmt.Sprintf("Host *\n  IdentityFile %s/key\n  IdentitiesOnly yes\n  UserKnownHostsFile %s/known_hosts\n  StrictHostKeyChecking accept-new\n  LogLevel ERROR\n", b.dir, b.dir), 0o600)
	return b
}

// countNix puts programs before those of Nix that note what is evaluated and built for k3splan.
func (b *box) countNix() {
	for name, script := range map[string]string{
		"nix-instantiate": `for word; do if [ "$last" = hosts ]; then echo "$word" | tr -d '[]"' | tr , '\n' >> "$BOX_RACK/evaluations"; fi; last=$word; done`,
		"nix-store":       `case "$*" in *--realise*--keep-going*) for word; do echo "$word"; done | sed -n 's/.*-nixos-system-\(.*\)\.drv$/\1/p' >> "$BOX_RACK/builds" ;; esac`,
	} {
		real, err := exec.LookPath(name)
		require.NoError(b.t, err)
		b.write("bin/"+name, "#!/bin/sh\n"+script+"\nexec "+real+" \"$@\"\n", 0o755)
	}
}

// key makes a pair of ssh keys. Half of the processor time of a rack is that of ssh's connections,
// and half of a connection's that of OpenSSH's own arithmetic: ECDSA is done by OpenSSL, which is many times as fast.
func (b *box) key(name string) {
	b.t.Helper()
	b.run("ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", filepath.Join(b.dir, name))
}

// keepConnections is for an operator whose ssh keeps its connections for a while and uses them again.
func (b *box) keepConnections() {
	b.write("ssh_config", b.read("ssh_config")+"  ControlMaster auto\n  ControlPath "+b.dir+"/ssh-%r@%h\n  ControlPersist 60\n", 0o600)
}

// realColmena lets the rack be deployed with the real Colmena, which evaluates the rendered hive with
// a nixpkgs of a few lines.
func (b *box) realColmena(program string) {
	b.t.Helper()
	sources := os.Getenv("NIXEVAL_SOURCES")
	if sources == "" {
		cache, err := os.UserCacheDir()
		require.NoError(b.t, err)
		sources = filepath.Join(cache, "nixeval-sources")
	}
	lib := filepath.Join(sources, "nixpkgs-lib", "lib")
	if _, err := os.Stat(lib); err != nil {
		b.t.Skipf("SKIP: Colmena is on PATH, but not the library of nixpkgs that it needs: %v", err)
	}
	b.write("bin/colmena", fmt.Sprintf(`#!/bin/sh
case "$1" in apply | apply-local) file=applications ;; *) file=others ;; esac
for word in "$@"; do
  if [ "$last" = --on ] || [ "$last" = --node ]; then echo "$word" | tr , '\n' >> %s/$file; fi
  last=$word
done
exec %s "$@"
`, b.dir, program), 0o755)
	tree := filepath.Join(b.dir, "conf", "nixpkgs")
	require.NoError(b.t, os.CopyFS(tree, os.DirFS(filepath.Join(b.data, "nixpkgs"))))
	require.NoError(b.t, os.CopyFS(filepath.Join(tree, "lib"), os.DirFS(lib)))
	b.nixpkgs = filepath.Join(b.dir, "conf", "nixpkgs.tar.gz")
	b.run("tar", "-C", filepath.Dir(tree), "-czf", b.nixpkgs, "nixpkgs")
	b.t.Logf("with %s", strings.TrimSpace(b.run(program, "--version")))
}

func (b *box) netns(name string) string { return b.id + "-" + name }

func (b *box) write(name, text string, mode os.FileMode) {
	b.t.Helper()
	file := filepath.Join(b.dir, name)
	require.NoError(b.t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(b.t, os.WriteFile(file, []byte(text), mode))
	require.NoError(b.t, os.Chmod(file, mode))
}

func (b *box) read(name string) string {
	data, _ := os.ReadFile(filepath.Join(b.dir, name))
	return string(data)
}

// has reports whether a file is there: an absolute path, or one in the box.
func (b *box) has(name string) bool {
	if !filepath.IsAbs(name) {
		name = filepath.Join(b.dir, name)
	}
	_, err := os.Stat(name)
	return err == nil
}

func (b *box) remove(name string) { require.NoError(b.t, os.RemoveAll(filepath.Join(b.dir, name))) }

func (b *box) run(program string, args ...string) string {
	b.t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	require.NoError(b.t, err, "%s %s: %s", program, strings.Join(args, " "), out)
	return string(out)
}

func (b *box) ip(args ...string) { b.t.Helper(); b.run("ip", args...) }

// plug makes a namespace with an address on the switch.
func (b *box) plug(name, ip string, number int) {
	b.t.Helper()
	netns, port := b.netns(name), fmt.Sprintf("p%d", number)
	b.ip("netns", "add", netns)
	b.ip("link", "add", "lan", "netns", netns, "type", "veth", "peer", "name", port, "netns", b.netns("sw"))
	b.ip("-n", b.netns("sw"), "link", "set", port, "master", "br0", "up")
	b.ip("-n", netns, "addr", "add", ip+"/24", "dev", "lan")
	b.ip("-n", netns, "link", "set", "lan", "up")
	b.ip("-n", netns, "link", "set", "lo", "up")
}

// close ends everything in the namespaces of the rack, and removes them.
func (b *box) close() {
	if b.t.Failed() {
		logs, _ := filepath.Glob(filepath.Join(b.project(), ".k3splan/logs/*/*.log"))
		for _, log := range logs[max(0, len(logs)-3):] {
			text, _ := os.ReadFile(log)
			b.t.Logf("%s:\n%s", log, text)
		}
	}
	out, _ := exec.Command("ip", "netns", "list").Output()
	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(name, b.id+"-") {
			killNamespace(name)
			_ = exec.Command("ip", "netns", "del", name).Run()
		}
	}
}

// killNamespace kills the processes in a namespace that a test made.
func killNamespace(netns string) {
	for range 5 {
		out, _ := exec.Command("ip", "netns", "pids", netns).Output()
		pids := strings.Fields(string(out))
		if len(pids) == 0 {
			return
		}
		_ = exec.Command("kill", append([]string{"-9"}, pids...)...).Run()
		time.Sleep(20 * time.Millisecond)
	}
}

// add makes a machine that runs "NixOS": it has a deploy user and a system that k3splan did not make.
func (b *box) add(name, ip string) {
	b.t.Helper()
	b.hosts[name] = &boxHost{name: name, ip: ip, dir: filepath.Join(b.dir, "hosts", name), netns: b.netns(name)}
	b.plug(name, ip, len(b.hosts))
	b.install(name)
}

// install puts a new disk into a machine that is off, installs it and switches it on. It gets the ssh key that the
// project has for it, if there is one.
func (b *box) install(name string) {
	b.t.Helper()
	h := b.hosts[name]
	b.remove(filepath.Join("hosts", name))
	b.remove("known_hosts") // by which the test logs in
	in := func(file string) string { return filepath.Join("hosts", name, file) }
	for _, folder := range []string{"nix", "run", "var/lib/k3splan", "etc/nix", "etc/systemd"} {
		require.NoError(b.t, os.MkdirAll(filepath.Join(h.dir, folder), 0o755))
	}
	for file, more := range map[string]string{
		"passwd": "deploy:x:1999:1999::/tmp:/bin/sh\n", "group": "deploy:x:1999:\n", "shadow": "deploy:*:19000:0:99999:7:::\n",
	} {
		system, err := os.ReadFile("/etc/" + file)
		require.NoError(b.t, err)
		// by ssh, bash would read the .bashrc of this machine's root
		own := strings.Replace(string(system), ":/root:/bin/bash\n", ":/root:/bin/sh\n", 1)
		b.write(in("etc/"+file), own+more, 0o644)
	}
	b.write(in("etc/sudoers"), b.sudoers(), 0o440)
	b.write(in("etc/nix/nix.conf"), b.read("conf/nix.conf"), 0o644)
	hostKey := filepath.Join(h.dir, "etc/host_key")
	if own := filepath.Join(b.project(), "secrets/hosts", name+"_ed25519"); b.has(own) {
		b.run("cp", own, hostKey)
		b.write(in("etc/host_key.pub"), b.run("ssh-keygen", "-y", "-f", hostKey), 0o644)
	} else {
		b.key(in("etc/host_key"))
	}
	for _, user := range []string{"root", "deploy"} {
		b.write(in("etc/keys/"+user), b.read("key.pub"), 0o644)
	}
	b.write(in("etc/sshd_config"), strings.Join([]string{
		"ListenAddress " + h.ip, "HostKey " + hostKey, "AuthorizedKeysFile " + h.dir + "/etc/keys/%u",
		"StrictModes no", "UsePAM no", "PasswordAuthentication no", "PermitRootLogin yes", "PidFile none", "MaxStartups 200",
		"KexAlgorithms ecdh-sha2-nistp256", // as for the keys
		"SetEnv NIX_REMOTE=daemon NIX_CONF_DIR=" + h.dir + "/etc/nix PATH=" + b.path(), "",
	}, "\n"), 0o644)
	b.write(in("run/box.env"), fmt.Sprintf("box=%s\nrack=%s\n", h.dir, b.dir), 0o644)
	b.installed(filepath.Join("hosts", name))
	b.start(name)
}

// installed lets a machine run a NixOS that k3splan did not make.
func (b *box) installed(machine string) {
	b.t.Helper()
	require.NoError(b.t, os.MkdirAll(filepath.Join(b.dir, machine, "nix/store"), 0o755))
	require.NoError(b.t, os.Symlink("/nix/store/00000000000000000000000000000000-nixos-system-installer", filepath.Join(b.dir, machine, "run/current-system")))
}

// path is PATH on the machines.
func (b *box) path() string {
	return filepath.Join(b.dir, "bin") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

func (b *box) sudoers() string {
	return "Defaults secure_path=\"" + b.path() + "\"\nDefaults env_keep += NIX_CONF_DIR\nroot ALL=(ALL) ALL\ndeploy ALL=(ALL) NOPASSWD: ALL\n"
}

// start switches a machine on.
func (b *box) start(name string) {
	b.t.Helper()
	h := b.hosts[name]
	b.remove(filepath.Join("hosts", name, "off"))
	var said bytes.Buffer
	require.NoError(b.t, b.launch(h, &said))
	require.Eventually(b.t, func() bool {
		return exec.Command("ip", "netns", "exec", b.netns("deployer"), "ssh", "-F", b.dir+"/ssh_config", "-o", "BatchMode=yes", "root@"+h.ip, "true").Run() == nil
	}, 30*time.Second, 50*time.Millisecond, "%s: %s%s", name, &said, b.read(filepath.Join("hosts", name, "sshd.log")))
	stopped := h.stopped
	h.watched = make(chan struct{})
	go func() {
		defer close(h.watched)
		for {
			select {
			case <-stopped:
				return
			case <-time.After(50 * time.Millisecond):
				if _, err := os.Stat(filepath.Join(h.dir, "off")); err != nil {
					continue
				}
				killNamespace(h.netns)
				_, reboot := os.Stat(filepath.Join(h.dir, "reboot"))
				_, stays := os.Stat(filepath.Join(h.dir, "stay-away"))
				if reboot != nil || stays == nil {
					return
				}
				<-stopped
				if os.Remove(filepath.Join(h.dir, "off")) != nil || b.launch(h, io.Discard) != nil {
					return
				}
				stopped = h.stopped
			}
		}
	}()
}

// launch starts what runs on a machine.
func (b *box) launch(h *boxHost, said io.Writer) error {
	h.process = exec.Command("ip", "netns", "exec", h.netns, "unshare", "-m", filepath.Join(b.data, "host.sh"), h.dir)
	h.process.Stdout, h.process.Stderr = said, said
	if err := h.process.Start(); err != nil {
		return err
	}
	process, stopped := h.process, make(chan struct{})
	h.stopped = stopped
	go func() { _ = process.Wait(); close(stopped) }()
	return nil
}

// stop switches a machine off without warning.
func (b *box) stop(name string) {
	b.t.Helper()
	h := b.hosts[name]
	killNamespace(h.netns)
	<-h.stopped
	<-h.watched
}

// on runs a command as root on a machine.
func (b *box) on(name, command string) string {
	b.t.Helper()
	return b.run("ip", "netns", "exec", b.netns("deployer"), "ssh", "-F", b.dir+"/ssh_config", "-o", "BatchMode=yes", "root@"+b.hosts[name].ip, command)
}

// know lets the project know the machines by their ssh keys.
func (b *box) know() {
	b.t.Helper()
	keys := map[string][]remote.HostKey{}
	for name, host := range b.hosts {
		line, err := os.ReadFile(filepath.Join(host.dir, "etc/host_key.pub"))
		require.NoError(b.t, err)
		public, _, _, _, err := ssh.ParseAuthorizedKey(line)
		require.NoError(b.t, err)
		keys[name] = []remote.HostKey{{Public: public}}
	}
	require.NoError(b.t, remote.ChangeKnownHosts(b.project(), func(remote.HostKeys) (map[string][]remote.HostKey, error) { return keys, nil }))
}

// command is a program on the machine that deploys.
func (b *box) command(args ...string) *exec.Cmd {
	b.know()
	all := append([]string{"netns", "exec", b.netns("deployer"), "unshare", "-m", filepath.Join(b.data, "deployer.sh"), filepath.Join(b.dir, "deployer")}, args...)
	cmd := exec.Command("ip", all...)
	cmd.Env = append(os.Environ(),
		"PATH="+filepath.Join(b.dir, "bin")+":"+os.Getenv("PATH"), "BOX_RACK="+b.dir, "BOX_DATA="+b.data, "BOX_GENERATED="+filepath.Join(b.project(), "generated"),
		"SSH_CONFIG_FILE="+filepath.Join(b.dir, "ssh_config"), "NIX_CONF_DIR="+filepath.Join(b.dir, "conf"), "NIX_REMOTE=",
		"HOME="+filepath.Join(b.dir, "deployer"),
	)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// ran is what a k3splan did.
type ran struct {
	code           int
	stdout, stderr string
	results        map[string]rollout.Result
	seconds        float64
	// cpu is the processor time of the deploying machine alone, in seconds.
	cpu float64
}

// leak looks for the project's secrets in what was said, in the logs and in what is rendered, and gives
// the first place.
func (b *box) leak(said string) (place string) {
	b.t.Helper()
	for _, name := range []string{"init-token", "agent-token", "passwd"} {
		secret := strings.TrimSpace(b.read("project/secrets/" + name))
		require.NotEmpty(b.t, secret)
		if strings.Contains(said, secret) {
			return name + " was said"
		}
		for _, folder := range []string{".k3splan", "generated"} {
			_ = filepath.WalkDir(filepath.Join(b.project(), folder), func(file string, entry fs.DirEntry, err error) error {
				if err != nil || entry.IsDir() {
					return nil // the folder may vanish meanwhile
				}
				if content, _ := os.ReadFile(file); strings.Contains(string(content), secret) {
					place = name + " in " + file
				}
				return nil
			})
		}
	}
	return place
}

// status gives what became of each host, in words.
func (r ran) status() map[string]string {
	status := map[string]string{}
	for host, result := range r.results {
		status[host] = string(result.Status)
	}
	return status
}

// k3splan runs in the project; the JSON of deploy is read.
func (b *box) k3splan(args ...string) ran {
	b.t.Helper()
	cmd := b.command(append([]string{"k3splan", "-p", b.project()}, args...)...)
	return b.finish(cmd, b.begin(cmd))
}

type streams struct{ stdout, stderr *bytes.Buffer }

func (b *box) begin(cmd *exec.Cmd) streams {
	b.t.Helper()
	s := streams{new(bytes.Buffer), new(bytes.Buffer)}
	cmd.Stdout, cmd.Stderr = s.stdout, s.stderr
	require.NoError(b.t, cmd.Start())
	return s
}

func (b *box) finish(cmd *exec.Cmd, s streams) ran {
	b.t.Helper()
	start := time.Now()
	_ = cmd.Wait()
	r := ran{code: cmd.ProcessState.ExitCode(), stdout: s.stdout.String(), stderr: s.stderr.String(), seconds: time.Since(start).Seconds(), results: map[string]rollout.Result{},
		cpu: (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()}
	require.Empty(b.t, b.leak(r.stdout+r.stderr))
	var parsed struct{ Results []rollout.Result }
	if json.Unmarshal(s.stdout.Bytes(), &parsed) == nil {
		for _, result := range parsed.Results {
			r.results[result.Host] = result
		}
	}
	return r
}

// deploy deploys without questions.
func (b *box) deploy(args ...string) ran {
	b.t.Helper()
	return b.k3splan(append([]string{"deploy", "--json", "--yes", "--gate-timeout", "60s", "--gate-pause", "100ms"}, args...)...)
}

func (b *box) project() string { return filepath.Join(b.dir, "project") }

// applied are the hosts that Colmena was called to deploy, since the last call; evaluated and built are those that Nix
// has evaluated and built for k3splan itself.
func (b *box) applied() []string   { return b.words("applications") }
func (b *box) evaluated() []string { return b.words("evaluations") }
func (b *box) built() []string     { return b.words("builds") }

func (b *box) words(file string) []string {
	words := strings.Fields(b.read(file))
	b.remove(file)
	slices.Sort(words)
	return words
}

// activated tells which hosts were activated since the last call.
func (b *box) activated() []string {
	var hosts []string
	for name := range b.hosts {
		if file := filepath.Join("hosts", name, "activations"); strings.Contains(b.read(file), "switch ") {
			hosts = append(hosts, name)
			b.remove(file)
		}
	}
	slices.Sort(hosts)
	return hosts
}

// connections is how often somebody has logged in to a machine by ssh.
func (b *box) connections(name string) int {
	return strings.Count(b.read(filepath.Join("hosts", name, "sshd.log")), "Accepted publickey")
}

// events are restarts in the cluster since the last call.
func (b *box) events() []string {
	lines := strings.Split(strings.TrimSpace(b.read("events")), "\n")
	b.remove("events")
	if lines[0] == "" {
		return nil
	}
	return lines
}
