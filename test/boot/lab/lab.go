// Package lab runs the hosts of a plan on this machine: each is a systemd-nspawn machine with the system that
// Nix builds from the rendered hive, on a network that leads nowhere. Systems are built from NixOS's own
// modules; in place of its packages they have links to the programs in this machine's /usr.
package lab

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Lab is a network of machines and the machine that deploys to them. All of its files are below Dir, with a
// Nix store of its own; its processes run in network namespaces whose names begin with Name.
type Lab struct {
	Dir, Name string
	// Root has the Debian programs of the machines in its usr; "/" is this machine itself.
	Root string
	// K3S is a k3s program, or the replacement that the lab brings.
	K3S string
	// Harness is the folder of the evaluation harness, Sources that of its sources.
	Harness, Sources, options string
	// more has programs for virtual machines beside Root's, kernel is the version of their kernel; see Virtual.
	more, kernel string
}

// Substitutes says what is another thing here than on a machine that NixOS was installed on.
func (l *Lab) Substitutes() []string {
	kept := []string{
		"NixOS: modules of 20.09 that are made to look like 24.11, with its switch-to-configuration (Perl)",
		"plan: versions are NixOS 24.11, k3s 1.31 and state 24.11 whatever the example has, as a Nix below 2.18 is refused for newer releases",
		"packages: Debian's programs, " + version("/usr/lib/systemd/systemd", "--version") + ", " + version("podman", "--version") + ", " + version("nix", "--version"),
		l.machines(),
		"off: nscd, systemd-resolved, polkit, setuid wrappers (Debian's programs are setuid themselves)",
		"agent's image: k3s and this machine's /usr, under the name of upstream's image",
	}
	if program, err := exec.LookPath("colmena"); err == nil {
		kept = append(kept, "Colmena: itself, "+version(program, "--version"))
	} else {
		kept = append(kept, "Colmena: a program that does the same steps with nix-copy-closure and ssh")
	}
	if l.standIn() {
		kept = append(kept, "k3s: a program that answers like it and holds connections open ($LAB_K3S names a real one)")
	} else {
		kept = append(kept, "k3s: "+version(l.K3S, "--version")+", under whatever version the plan says; no CNI plugin of flannel, so no pods")
	}
	return kept
}

func (l *Lab) machines() string {
	if l.isVirtual() {
		return "machine: qemu, its processor emulated; Debian's kernel " + l.kernel + " and the lab's first stage; /usr of this machine over 9p, of which " +
			"nixos-install brings a link into the new system; console on the serial line"
	}
	return "machine: systemd-nspawn on the kernel of this one; no boot loader, no first stage, no disks, no kernel modules, only sysctls of the network"
}

func version(program string, args ...string) string {
	out, _ := exec.Command(program, args...).Output()
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// Missing is something that this machine lacks. Without it there is no lab.
type Missing struct{ What string }

func (m Missing) Error() string { return m.What }

// programs are those that the lab or its machines use, with their Debian packages.
var programs = []struct{ file, from string }{
	{"/usr/bin/systemd-nspawn", "systemd-container"}, {"/usr/lib/systemd/systemd", "systemd"}, {"/usr/bin/udevadm", "udev"},
	{"/usr/bin/dbus-daemon", "dbus"}, {"/usr/sbin/sshd", "openssh-server"}, {"/usr/bin/sudo", "sudo"}, {"/usr/bin/nix-daemon", "nix-bin"},
	{"/usr/bin/podman", "podman"}, {"/usr/lib/podman/netavark", "netavark"}, {"/usr/bin/crun", "crun"}, {"/usr/bin/conmon", "conmon"},
	{"/usr/sbin/iptables", "iptables"}, {"/usr/sbin/ip", "iproute2"}, {"/usr/bin/ping", "iputils-ping"}, {"/usr/bin/kmod", "kmod"},
	{"/usr/bin/curl", "curl"}, {"/usr/sbin/ethtool", "ethtool"}, {"/usr/sbin/conntrack", "conntrack"}, {"/usr/sbin/ipset", "ipset"},
	{"/usr/share/perl5/File/Slurp.pm", "libfile-slurp-perl"}, {"/usr/lib/x86_64-linux-gnu/perl5/5.*/Net/DBus.pm", "libnet-dbus-perl"},
	{"/usr/bin/inotifywait", "inotify-tools"}, {"/usr/bin/jq", "jq"}, {"/usr/bin/pgrep", "procps"}, {"/usr/share/zoneinfo/UTC", "tzdata"},
}

// forK3S is what a real k3s needs beside them.
var forK3S = []struct{ file, from string }{{"/usr/bin/etcdctl", "etcd-client"}}

// Open returns the lab in a folder, which need not exist yet. If this machine lacks something, the error is a
// Missing. Settings come from the environment: K3SPLAN_EVALHIVE, LAB_ROOT and LAB_K3S.
func Open(dir string) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, Missing{"machines need root"}
	}
	// in a container, root may not be allowed to
	if out, err := exec.Command("unshare", "--mount", "--net", "true").CombinedOutput(); err != nil {
		return nil, Missing{"machines need namespaces: " + string(bytes.TrimSpace(out))}
	}
	if _, err := os.Stat("/sys/fs/cgroup/systemd/cgroup.procs"); err != nil {
		return nil, Missing{"machines need cgroup v1: on v2, this was never tried"}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(dir))
	l := &Lab{Dir: dir, Name: fmt.Sprintf("lab%x", sum[:3]), Root: os.Getenv("LAB_ROOT"), K3S: os.Getenv("LAB_K3S")}
	if l.Root == "" {
		l.Root = "/"
	}
	var missing []string
	if l.K3S != "" {
		programs = append(programs, forK3S...)
	}
	for _, program := range programs {
		if found, _ := filepath.Glob(filepath.Join(l.Root, program.file)); len(found) == 0 {
			missing = append(missing, program.from)
		}
	}
	if len(missing) > 0 {
		return nil, Missing{"Debian packages are missing: " + strings.Join(missing, " ")}
	}
	if l.K3S == "" {
		l.K3S = l.path("bin/k3s")
	} else if _, err := os.Stat(l.K3S); err != nil {
		return nil, fmt.Errorf("LAB_K3S: %w", err)
	}
	return l, l.findHarness()
}

func (l *Lab) standIn() bool { return l.K3S == l.path("bin/k3s") }

// findHarness asks the evaluation harness where its sources are.
func (l *Lab) findHarness() error {
	program := os.Getenv("K3SPLAN_EVALHIVE")
	if program == "" {
		return Missing{"no evaluation harness (K3SPLAN_EVALHIVE)"}
	}
	program, err := filepath.Abs(program)
	if err != nil {
		return err
	}
	l.Harness = filepath.Dir(program)
	out, err := exec.Command("bash", "-c", `. "$1/sources.sh"; prepare; printf '%s\n' "$NIXEVAL_SOURCES" "$NIXEVAL_AUTO_OPTIONS"`, "-", l.Harness).Output()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 2 {
		return Missing{"the evaluation harness lacks its sources: " + string(bytes.TrimSpace(out))}
	}
	l.Sources, l.options = lines[0], lines[1]
	return nil
}

func (l *Lab) path(name ...string) string { return filepath.Join(append([]string{l.Dir}, name...)...) }

// Deployer is a command on the machine that deploys: in the lab's network and with the lab's Nix store.
func (l *Lab) Deployer(words ...string) *exec.Cmd {
	script := `mount --bind "$1" /nix && shift && exec "$@"`
	command := exec.Command("ip", append([]string{"netns", "exec", l.Name, "unshare", "--mount", "sh", "-c", script, "sh", l.path("nix")}, words...)...)
	path := l.path("bin") + ":" + os.Getenv("PATH") + ":/usr/sbin:/sbin"
	command.Env = append(slices.DeleteFunc(os.Environ(), func(pair string) bool { return strings.HasPrefix(pair, "NIX_") }),
		"PATH="+path, "NIX_CONFIG=sandbox = false\nbuild-users-group =\nsubstitute = false\nexperimental-features = nix-command flakes",
		"NIX_PATH=nixpkgs="+l.path("tree")+":disko="+filepath.Join(l.Sources, "disko"),
		"NIXEVAL_SOURCES="+l.Sources, "NIXEVAL_AUTO_OPTIONS="+l.options, "XDG_CACHE_HOME="+l.path("cache"), "LAB_TREE="+l.path("tree"))
	return command
}

// run runs a command to its end. What it printed is in the error.
func run(command *exec.Cmd) (string, error) {
	var out, messages bytes.Buffer
	if command.Stdout == nil {
		command.Stdout = &out
	}
	if command.Stderr == nil {
		command.Stderr = &messages
	}
	if err := command.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s%s", strings.Join(command.Args, " "), err, out.String(), messages.String())
	}
	return strings.TrimSpace(out.String()), nil
}

func each(commands ...[]string) error {
	for _, words := range commands {
		if _, err := run(exec.Command(words[0], words[1:]...)); err != nil {
			return err
		}
	}
	return nil
}

// Up makes the network, in which gateway ("10.0.100.1/24") is the address of the machine that deploys, and
// the nixpkgs from which systems are built.
func (l *Lab) Up(gateway string) error {
	// where the store is mounted, and what sshd wants to see when NixOS has it check its settings
	for _, folder := range []string{"/nix", "/run/sshd"} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	for _, folder := range []string{"nix/store", "bin", "cache", "machines"} {
		if err := os.MkdirAll(l.path(folder), 0o755); err != nil {
			return err
		}
	}
	if err := l.makeTree(); err != nil {
		return err
	}
	if exec.Command("ip", "netns", "exec", l.Name, "true").Run() != nil {
		ip := []string{"ip", "-n", l.Name}
		if err := each(
			[]string{"ip", "netns", "add", l.Name},
			append(ip, "link", "set", "lo", "up"),
			append(ip, "link", "add", "br0", "type", "bridge"),
			append(ip, "address", "add", gateway, "dev", "br0"),
			append(ip, "link", "set", "br0", "up"),
		); err != nil {
			return err
		}
	}
	if err := l.keepSysctls(); err != nil {
		return err
	}
	// what k3splan sets on a host with an agent: with 128, programs of several machines get no more
	return os.WriteFile("/proc/sys/"+inotifyInstances, []byte("524288\n"), 0o644)
}

const inotifyInstances = "fs/inotify/max_user_instances"

// sysctls are settings of the kernel that the lab changes, or a kubelet on whatever machine it runs.
var sysctls = []string{inotifyInstances, "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxbytes", "kernel/keys/root_maxkeys", "vm/overcommit_memory"}

func (l *Lab) keepSysctls() error {
	for _, name := range sysctls {
		value, err := os.ReadFile(filepath.Join("/proc/sys", name))
		kept := l.path("sysctls", strings.ReplaceAll(name, "/", "."))
		if _, there := os.Stat(kept); err != nil || there == nil {
			continue
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(kept), 0o755), os.WriteFile(kept, value, 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// Down ends all machines and removes the network. The folder stays, with what was built.
func (l *Lab) Down() error {
	var failures []error
	for _, machine := range l.Machines() {
		failures = append(failures, machine.Kill())
	}
	for _, netns := range l.namespaces() {
		out, _ := exec.Command("ip", "netns", "pids", netns).Output()
		if pids := strings.Fields(string(out)); len(pids) > 0 {
			_ = exec.Command("kill", append([]string{"-9"}, pids...)...).Run()
		}
		failures = append(failures, each([]string{"ip", "netns", "delete", netns}))
	}
	for _, name := range sysctls {
		if value, err := os.ReadFile(l.path("sysctls", strings.ReplaceAll(name, "/", "."))); err == nil {
			_ = os.WriteFile(filepath.Join("/proc/sys", name), value, 0o644)
		}
	}
	_ = os.RemoveAll(l.path("sysctls"))
	return errors.Join(failures...)
}

func (l *Lab) namespaces() (names []string) {
	out, _ := exec.Command("ip", "netns", "list").Output()
	for line := range strings.Lines(string(out)) {
		if name, _, _ := strings.Cut(strings.TrimSpace(line), " "); name == l.Name || strings.HasPrefix(name, l.Name+"-") {
			names = append(names, name)
		}
	}
	return names
}
