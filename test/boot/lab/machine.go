package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Machine is a host of the plan that runs, or can run, in the lab.
type Machine struct {
	*Lab
	Host string
}

// Machine returns the machine of a host, whether it is installed or not.
func (l *Lab) Machine(host string) Machine { return Machine{l, host} }

// Machines returns those that are installed.
func (l *Lab) Machines() (machines []Machine) {
	entries, _ := os.ReadDir(l.path("machines"))
	for _, entry := range entries {
		machines = append(machines, l.Machine(entry.Name()))
	}
	return machines
}

func (m Machine) path(name string) string { return m.Lab.path("machines", m.Host, name) }
func (m Machine) netns() string           { return m.Name + "-" + m.Host }

// veth is the end of the machine's cable at the bridge.
func (m Machine) veth() string { return ("v-" + m.Host)[:min(len(m.Host)+2, 15)] }

// Root is the machine's file system.
func (m Machine) Root() string { return m.path("root") }

// Console is the file with what the machine prints.
func (m Machine) Console() string { return m.path("console") }

// Build builds the systems of hosts from a project's plan, and returns their store paths.
func (l *Lab) Build(project string, hosts ...string) (map[string]string, error) {
	project, err := filepath.Abs(project)
	if err != nil {
		return nil, err
	}
	if _, err := run(l.Deployer("k3splan", "-p", project, "render")); err != nil {
		return nil, err
	}
	systems := map[string]string{}
	for _, host := range hosts {
		if systems[host], err = l.BuildHive(filepath.Join(project, "generated", "hive.nix"), host); err != nil {
			return nil, err
		}
	}
	return systems, nil
}

// BuildHive builds the system of one host of a hive.
func (l *Lab) BuildHive(hive, host string) (string, error) {
	out, err := run(l.Deployer("nix-build", "--no-out-link", l.path("tree", "hive.nix"), "--argstr", "hive", hive, "--argstr", "host", host, "-A", "toplevel"))
	return lastLine(out), err
}

func lastLine(text string) string { return text[strings.LastIndexByte(text, '\n')+1:] }

// secret is what Colmena would upload to the machine before it activates a system.
type secret struct{ KeyFile, Path, Permissions string }

// Install makes the file system of a machine with a system and its secrets, as a boot stick would have done.
func (m Machine) Install(project, system string) error {
	if err := m.InstallBare(system); err != nil {
		return err
	}
	project, err := filepath.Abs(project)
	if err != nil {
		return err
	}
	out, err := run(m.Deployer("nix-instantiate", "--eval", "--strict", "--json", m.Lab.path("tree", "hive.nix"), "--argstr", "hive",
		filepath.Join(project, "generated", "hive.nix"), "--argstr", "host", m.Host, "-A", "deployment.keys"))
	if err != nil {
		return err
	}
	var secrets []secret
	if err := json.Unmarshal([]byte(out), &secrets); err != nil {
		return err
	}
	for _, s := range secrets {
		if s.KeyFile == "" {
			return fmt.Errorf("%s: %s is encrypted", m.Host, s.Path)
		}
		if _, err := run(exec.Command("install", "-D", "-m", s.Permissions, s.KeyFile, filepath.Join(m.Root(), s.Path))); err != nil {
			return err
		}
	}
	return nil
}

// InstallBare makes the file system of a machine with a system alone.
func (m Machine) InstallBare(system string) error {
	if err := m.Remove(); err != nil {
		return err
	}
	for _, folder := range []string{"nix/store", "etc", "var/lib", "tmp", "root", "usr", "nix/var/nix/profiles", "nix/var/nix/daemon-socket"} {
		if err := os.MkdirAll(filepath.Join(m.Root(), folder), 0o755); err != nil {
			return err
		}
	}
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+link, filepath.Join(m.Root(), link)); err != nil {
			return err
		}
	}
	if err := m.Copy(system); err != nil {
		return err
	}
	profiles := filepath.Join(m.Root(), "nix/var/nix/profiles")
	return errors.Join(os.Symlink(system, filepath.Join(profiles, "system-1-link")), os.Symlink("system-1-link", filepath.Join(profiles, "system")))
}

// Copy puts a system beside those that the machine has.
func (m Machine) Copy(system string) error {
	_, err := run(m.Deployer("nix", "copy", "--no-check-sigs", "--to", "local?root="+m.Root(), system))
	return err
}

// Remove stops the machine, and removes its file system.
func (m Machine) Remove() error {
	if err := m.Kill(); err != nil {
		return err
	}
	// NixOS makes folders immutable
	_ = exec.Command("sh", "-c", `chattr -i "$1/var/empty" "$1"/var/lib/nixos-containers/*/var/empty`, "sh", m.Root()).Run()
	return os.RemoveAll(m.path(""))
}

// masked are folders of Debian's /usr that would be read beside NixOS's own in /etc.
var masked = []string{
	"/usr/lib/systemd/system", "/usr/lib/systemd/user", "/usr/lib/systemd/network", "/usr/lib/systemd/system-preset", "/usr/lib/systemd/user-preset",
	"/usr/lib/systemd/system-generators", "/usr/lib/tmpfiles.d", "/usr/lib/sysctl.d", "/usr/lib/sysusers.d", "/usr/lib/environment.d", "/usr/lib/modules-load.d",
}

// Start switches the machine on. Its interface has the name nic; mac may be empty.
func (m Machine) Start(nic, mac string) error {
	if m.Running() {
		return fmt.Errorf("%s runs already", m.Host)
	}
	veth := m.veth()
	if exec.Command("ip", "netns", "exec", m.netns(), "true").Run() != nil {
		if err := each([]string{"ip", "netns", "add", m.netns()}); err != nil {
			return err
		}
	}
	if exec.Command("ip", "-n", m.netns(), "link", "show", nic).Run() != nil {
		peer := []string{"ip", "-n", m.Name, "link", "add", veth, "type", "veth", "peer", "name", nic}
		if mac != "" {
			peer = append(peer, "address", mac)
		}
		if err := each(append(peer, "netns", m.netns()), []string{"ip", "-n", m.Name, "link", "set", veth, "master", "br0", "up"}); err != nil {
			return err
		}
	}
	args := []string{m.netns(), filepath.Join(m.Root()), "--quiet", "--directory=" + m.Root(), "--machine=" + m.Host, "--keep-unit", "--register=no",
		"--capability=all", "--drop-capability=CAP_SYS_MODULE,CAP_SYS_TIME,CAP_SYS_BOOT", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"--bind=/dev/fuse", "--bind=/dev/net/tun", "--bind=/dev/kmsg", "--console=read-only",
		"--bind-ro=" + filepath.Join(m.Lab.Root, "usr") + ":/usr",
		// NixOS's sh is bash, and Colmena relies on it
		"--bind-ro=" + filepath.Join(m.Lab.Root, "usr/bin/bash") + ":/usr/bin/dash"}
	for _, folder := range masked {
		if _, err := os.Stat(filepath.Join(m.Lab.Root, folder)); err == nil {
			args = append(args, "--tmpfs="+folder+":mode=0755")
		}
	}
	console, err := os.OpenFile(m.Console(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer console.Close()
	command := exec.Command("bash", append(append([]string{"-c", startScript, "bash"}, args...), "/nix/var/nix/profiles/system/init")...)
	command.Stdout, command.Stderr = console, console
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	command.Env = append(os.Environ(), "SYSTEMD_NSPAWN_API_VFS_WRITABLE=yes", "SYSTEMD_SECCOMP=0", "SYSTEMD_NSPAWN_LOCK=0", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if err := command.Start(); err != nil {
		return err
	}
	go func() { _ = command.Wait() }()
	if err := os.WriteFile(m.path("pid"), []byte(strconv.Itoa(command.Process.Pid)), 0o644); err != nil {
		return err
	}
	if err := m.Wait("systemctl is-active --quiet basic.target", time.Minute); err != nil {
		return fmt.Errorf("%s does not start: %w: see %s", m.Host, err, m.Console())
	}
	return nil
}

// startScript puts itself into a group of its own in each hierarchy of cgroup v1, and becomes systemd-nspawn.
const startScript = `
netns=$1; shift 2
for hierarchy in /sys/fs/cgroup/*/; do
  [ -e "$hierarchy/cgroup.procs" ] || continue
  group=$hierarchy$netns
  mkdir -p "$group"
  for setting in cpuset.cpus cpuset.mems; do
    [ ! -e "$group/$setting" ] || cat "$hierarchy/$setting" > "$group/$setting"
  done
  [ ! -e "$group/cgroup.clone_children" ] || echo 1 > "$group/cgroup.clone_children"
  # a group has the share of a single process otherwise
  [ ! -e "$group/cpu.shares" ] || echo 16384 > "$group/cpu.shares"
  echo $$ > "$group/cgroup.procs"
done
exec nsenter --net="/run/netns/$netns" systemd-nspawn "$@"
`

// pid is that of systemd-nspawn, or 0.
func (m Machine) pid() int {
	data, err := os.ReadFile(m.path("pid"))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(string(data))
	command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if !strings.Contains(string(command), m.Root()) {
		return 0
	}
	return pid
}

// Running reports whether the machine is on.
func (m Machine) Running() bool { return m.pid() != 0 }

// leader is the machine's first process, as this machine numbers it.
func (m Machine) leader() (string, error) {
	out, _ := exec.Command("pgrep", "--parent", strconv.Itoa(m.pid())).Output()
	for _, child := range strings.Fields(string(out)) {
		status, _ := os.ReadFile(filepath.Join("/proc", child, "status"))
		for line := range strings.Lines(string(status)) {
			if numbers := strings.Fields(line); numbers[0] == "NSpid:" && numbers[len(numbers)-1] == "1" {
				return child, nil
			}
		}
	}
	return "", fmt.Errorf("%s does not run", m.Host)
}

// Command is a command of bash, run on the machine by root.
func (m Machine) Command(script string) (*exec.Cmd, error) {
	leader, err := m.leader()
	if err != nil {
		return nil, err
	}
	return exec.Command("nsenter", "--target", leader, "--all", "env", "-i", "PATH=/run/wrappers/bin:/run/current-system/sw/bin:/usr/bin",
		"HOME=/root", "TERM=dumb", "bash", "-c", script), nil
}

// Do runs a command of bash on the machine, and returns what it printed.
func (m Machine) Do(script string) (string, error) {
	command, err := m.Command(script)
	if err != nil {
		return "", err
	}
	return run(command)
}

// Wait waits until a command succeeds on the machine.
func (m Machine) Wait(script string, limit time.Duration) error {
	end := time.Now().Add(limit)
	for {
		_, err := m.Do(script)
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// Stop shuts the machine down.
func (m Machine) Stop() error {
	pid := m.pid()
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return err
	}
	for range 600 {
		if !m.Running() {
			return m.swept()
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("%s does not shut down: see %s", m.Host, m.Console())
}

// Kill takes the power away.
func (m Machine) Kill() error {
	for range 50 {
		pid := m.pid()
		if pid == 0 {
			return m.swept()
		}
		if leader, err := m.leader(); err == nil {
			if number, _ := strconv.Atoi(leader); number > 1 {
				_ = syscall.Kill(number, syscall.SIGKILL)
			}
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("%s cannot be killed", m.Host)
}

// swept removes the network of a machine that is off: its interface is made again by the next start, as all
// that was in memory is lost.
func (m Machine) swept() error {
	_ = os.Remove(m.path("pid"))
	if _, err := os.Stat("/run/netns/" + m.netns()); err != nil {
		return nil
	}
	// the kernel removes a namespace some time later, and with it the cable
	_ = exec.Command("ip", "-n", m.Name, "link", "delete", m.veth()).Run()
	return each([]string{"ip", "netns", "delete", m.netns()})
}

// AgentImage is the image of agents in a project that uses the lab's nixpkgs.
var AgentImage = "docker.io/rancher/k3s:v" + strings.ReplaceAll(k3sVersions["k3s_1_31"], "+", "-")

// Image imports into the machine's podman an image of k3s's agent, which cannot be pulled in the lab, under a name; ""
// is that for which the agent's unit asks, and without an agent there is nothing to do then. Its programs are the
// machine's own.
func (m Machine) Image(name string) error {
	const script = `
set -e
shopt -s nullglob
image=$1
if [ -z "$image" ]; then
  units=(/etc/systemd/system/podman-*.service)
  [ ${#units[@]} -gt 0 ] || exit 0
  image=$(grep -hoE 'docker\.io/rancher/k3s:[^ ]+' $(sed -n 's/^ExecStart=//p' "${units[@]}") | head -n 1)
fi
! podman image exists "$image" || exit 0
version=${image##*:}
folder=$(mktemp -d)
mkdir -p $folder/{usr,lib/modules,etc,tmp,var,root,proc,sys,dev,run}
for link in bin sbin lib64; do ln -s usr/$link $folder/$link; done
ln -s ../usr/lib/x86_64-linux-gnu $folder/lib/x86_64-linux-gnu
cp /var/lib/lab/k3s $folder/k3s
# Debian's iptables is one of two by a link there
cp -a /var/lib/lab/alternatives $folder/etc/
touch $folder/etc/machine-id
cp -rL /etc/ssl $folder/etc/ 2> /dev/null || true
tar -C $folder -cf $folder.tar .
# before NixOS's own settings are there
export HOME=$(mktemp -d)
mkdir -p $HOME/.config/containers
echo '{"default": [{"type": "insecureAcceptAnything"}]}' > $HOME/.config/containers/policy.json
podman import --change 'ENTRYPOINT ["/k3s"]' --change "ENV LAB_K3S_VERSION=${version/-/+}" --change 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/cni' $folder.tar "$image" > /dev/null
rm -rf $folder $folder.tar $HOME
`
	leader, err := m.leader()
	if err != nil {
		return err
	}
	k3s, err := os.ReadFile(m.K3S)
	if err != nil {
		return err
	}
	parts := filepath.Join(m.Root(), "var/lib/lab")
	if err := os.MkdirAll(parts, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(parts, "k3s"), k3s, 0o755); err != nil {
		return err
	}
	if err := each([]string{"cp", "-aT", filepath.Join(m.Lab.Root, "etc/alternatives"), filepath.Join(parts, "alternatives")}); err != nil {
		return err
	}
	_, err = run(exec.Command("nsenter", "--target", leader, "--all", "env", "-i", "PATH=/run/current-system/sw/bin:/usr/bin", "HOME=/root",
		"bash", "-c", script, "bash", name))
	return err
}

// Network opens the network namespace of a container of the machine.
func (m Machine) Network(container string) (*os.File, error) {
	leader, err := m.leader()
	if err != nil {
		return nil, err
	}
	pid, err := m.Do("pgrep --parent $(systemctl show --property MainPID --value container@" + container + ")")
	if err != nil {
		return nil, err
	}
	first, _, _ := strings.Cut(pid, "\n")
	return os.Open(filepath.Join("/proc", leader, "root/proc", first, "ns/net"))
}
