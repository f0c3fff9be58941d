// Package remote reaches the machines of a plan by ssh. [Prepare] writes an ssh_config and known_hosts
// from the plan and from the keys in plans/known_hosts; a [Machine] runs commands and scripts on one host
// through them. Colmena, nix-copy-closure and editors use the same files, so there is one way to a host.
package remote

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
)

// Folder is where the files are written, relative to the project; it is not in git.
const Folder = files.StateDir

const (
	configName = "ssh_config"
	knownName  = "known_hosts"
)

// Config is an ssh_config on disk.
type Config struct {
	// File is for `ssh -F`. Its path contains no character that a shell, ssh or Colmena treats
	// specially: Colmena joins ssh's options with blanks for nix-copy-closure.
	File string

	folder string // a temporary one, or ""
	// targets are what Share applies to, unless the user shares connections (ownSharing); sockets is the folder of
	// shared connections, or "".
	targets    []string
	ownSharing bool
	sockets    string
}

// Prepare writes known_hosts and ssh_config of the project in dir. With that file, ssh connects to a host
// of the plan only if it shows one of its known keys, and asks nothing. For everything else the user's own
// configuration applies, including its Host blocks for a host's name. Close removes temporary files.
func Prepare(dir string, p *plan.Plan, keys HostKeys) (*Config, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the project: %w", err)
	}
	c := &Config{}
	// ssh must not read a configuration that somebody else can have put there
	folder, err := files.OwnFolder(dir, files.StateDir)
	if err != nil {
		return nil, err
	}
	if !plainPath.MatchString(folder) {
		if c.folder, err = files.TempFolder("k3splan-ssh-", plainPath.MatchString); err != nil {
			return nil, err
		}
		folder = c.folder
	}
	c.File = filepath.Join(folder, configName)
	known := filepath.Join(folder, knownName)
	own := usersConfig(c.File)
	c.targets, c.ownSharing = targetsOf(p), own.shares
	for _, name := range []string{configName, knownName} {
		if _, err := files.OwnFile(dir, name); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	err = errors.Join(
		write(known, KnownHosts(p, keys)),
		write(c.File, config(p, keys, known, own, own.settings(p.Hosts, p.Network.Domain))),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write ssh's files: %w", err), c.Close())
	}
	return c, nil
}

// Close ends shared connections and removes what was made in temporary folders.
func (c *Config) Close() error {
	err := c.unshare()
	if c.folder != "" {
		err = errors.Join(err, os.RemoveAll(c.folder))
	}
	if err != nil {
		return fmt.Errorf("remove ssh's temporary files: %w", err)
	}
	return nil
}

// Env makes Colmena use the file.
func (c *Config) Env() []string { return []string{"SSH_CONFIG_FILE=" + c.File} }

// plainPath needs no quoting anywhere.
var plainPath = regexp.MustCompile(`^(/[A-Za-z0-9._+-]+)+$`)

// write replaces a file in one step, if its content differs.
func write(name, content string) error {
	if present, err := files.Read(name); err == nil && string(present) == content {
		return nil
	}
	return files.Replace(name, []byte(content), files.Private)
}

// KnownHosts returns the content of a known_hosts file for ssh: each host by its name in the plan and by
// its target.
func KnownHosts(p *plan.Plan, keys HostKeys) string {
	var b strings.Builder
	b.WriteString("# Written by k3splan from " + KnownHostsFile + ": change that, not this.\n")
	for _, host := range p.Hosts {
		if host.Target.Local {
			continue
		}
		names := host.Name
		if target := address(host.Target); target != host.Name {
			names += "," + target
		}
		for _, key := range keys.Of(host.Name) {
			fmt.Fprintf(&b, "%s %s\n", names, KeyLine(key.Public))
		}
	}
	return b.String()
}

// WriteKnownHosts writes KnownHosts to a file of the project in dir, for ForInclusion, and returns its
// path.
func WriteKnownHosts(dir string, p *plan.Plan, keys HostKeys) (file string, err error) {
	if file, err = files.OwnFile(dir, knownName); err != nil {
		return "", err
	}
	if err := write(file, KnownHosts(p, keys)); err != nil {
		return "", fmt.Errorf("write ssh's files: %w", err)
	}
	return file, nil
}

// address is how known_hosts writes a target.
func address(t plan.Target) string {
	if t.Port == 0 || t.Port == 22 {
		return t.Host
	}
	return fmt.Sprintf("[%s]:%d", t.Host, t.Port)
}

// config returns the ssh_config for `ssh -F`, which replaces the user's own and therefore includes it.
// settings are those of the user's configuration for a host's name.
func config(p *plan.Plan, keys HostKeys, known string, own ownConfig, settings map[string][]setting) string {
	var b strings.Builder
	b.WriteString("# Written by k3splan from the plan's tables: change those, not this.\n")
	for _, host := range p.Hosts {
		for _, s := range settings[host.Name] {
			if len(s.named) > 0 {
				fmt.Fprintf(&b, "\nMatch originalhost %s%s\n%s", strings.Join(namesOf(host, p.Network.Domain), ","), s.criterion(), indented(s.named))
			}
		}
	}
	byName(&b, p, keys, known, alive)
	byTarget(&b, p, keys, known, settings)
	b.WriteString("\nMatch all\n")
	for _, file := range own.includes {
		fmt.Fprintf(&b, "    Include %s\n", file)
	}
	return b.String()
}

// inclusionHeader begins what ForInclusion returns; see ownConfig.read.
const inclusionHeader = "# The machines of a k3splan project, for ssh and editors."

// ForInclusion returns an ssh_config to be included in the user's own: the hosts by their names only, as
// an address of the plan may be another machine in another network. known is the path of the file with
// KnownHosts.
func ForInclusion(p *plan.Plan, keys HostKeys, known string) (string, error) {
	known, err := filepath.Abs(known)
	if err != nil {
		return "", err
	}
	// ssh expands variables in this path, and there is no way to write these characters literally
	if strings.Contains(known, "${") || strings.ContainsAny(known, "\"\\\n\r") {
		return "", fmt.Errorf("ssh cannot read a file of known hosts at %q", known)
	}
	var b strings.Builder
	b.WriteString(inclusionHeader + "\n")
	byName(&b, p, keys, `"`+strings.ReplaceAll(known, "%", "%%")+`"`, "")
	b.WriteString("\nHost *\n") // for what somebody writes below it
	return b.String(), nil
}

// alive ends a connection within about a minute when the network or the host's address has changed under
// it. Otherwise a command on such a host, or Colmena's activation of it, would wait for hours.
const alive = "    ServerAliveInterval 15\n    ServerAliveCountMax 4\n"

// forPrograms keeps away what people want of their own sessions, and what breaks a program's.
const forPrograms = "    RemoteCommand none\n    RequestTTY no\n    PermitLocalCommand no\n    ClearAllForwardings yes\n"

// forNewPrograms is the same for options that older versions of ssh do not have.
const forNewPrograms = "    SessionType default\n    StdinNull no\n    ForkAfterAuthentication no\n"

// byName makes ssh accept the hosts' names in the plan. CanonicalizeHostname has ssh read the
// configuration again with the address in place of the name, so that the user's blocks for it apply.
func byName(b *strings.Builder, p *plan.Plan, keys HostKeys, known, options string) {
	for _, host := range p.Hosts {
		if host.Target.Local {
			continue
		}
		fmt.Fprintf(b, "\nHost %s\n    HostName %s\n    CanonicalizeHostname yes\n", strings.Join(namesOf(host, p.Network.Domain), " "), host.Target.Host)
		if host.Target.Port != 0 {
			fmt.Fprintf(b, "    Port %d\n", host.Target.Port)
		}
		fmt.Fprintf(b, "    User %s\n    HostKeyAlias %s\n%s", host.Admin, host.Name, options)
		verify(b, known, keys.Of(host.Name))
	}
}

// namesOf returns by which names people call a host.
func namesOf(host *plan.Host, domain string) []string {
	if domain == "" {
		return []string{host.Name}
	}
	return []string{host.Name, host.Name + "." + domain}
}

// byTarget is for programs that call a host by its address, as Colmena and k3splan itself do. settings
// are those that the user's configuration has for the host's name.
func byTarget(b *strings.Builder, p *plan.Plan, keys HostKeys, known string, settings map[string][]setting) {
	targets := map[string][]*plan.Host{}
	for _, host := range p.Hosts {
		if !host.Target.Local {
			targets[host.Target.Host] = append(targets[host.Target.Host], host)
		}
	}
	for _, target := range slices.Sorted(maps.Keys(targets)) {
		var all []HostKey
		for _, host := range targets[target] {
			all = append(all, keys.Of(host.Name)...)
		}
		hosts := targets[target]
		for _, host := range hosts {
			where := "originalhost " + target
			if len(hosts) > 1 { // told apart by their ports only
				port := host.Target.Port
				if port == 0 {
					port = 22
				}
				where += fmt.Sprintf(" exec \"test %%p = %d\"", port)
			}
			for _, s := range settings[host.Name] {
				fmt.Fprintf(b, "\nMatch %s%s\n%s", where, s.criterion(), indented(s.lines))
			}
		}
		fmt.Fprintf(b, "\nHost %s\n", target)
		if _, err := netip.ParseAddr(target); err == nil {
			fmt.Fprintf(b, "    HostName %s\n", target) // whatever the user's own configuration makes of names
		}
		// Whatever port the user's own configuration has. known_hosts has the ports of several hosts
		// behind one address.
		if len(hosts) == 1 {
			fmt.Fprintf(b, "    HostKeyAlias %s\n", hosts[0].Name)
		}
		b.WriteString(alive)
		verify(b, known, all)
		// not Host, which applies to a person's call by name as well
		fmt.Fprintf(b, "\nMatch originalhost %s\n%s", target, forPrograms)
		if sessionType.has(version()) {
			b.WriteString(forNewPrograms)
		}
	}
}

// criterion is the part of a Match line by which a setting is for one user.
func (s setting) criterion() string {
	if s.user == "" {
		return ""
	}
	return " user " + s.user
}

func indented(lines []string) string {
	var b strings.Builder
	for _, line := range lines {
		b.WriteString("    " + line + "\n")
	}
	return b.String()
}

// verify makes ssh accept the known keys and no others, whatever the user's configuration has and
// wherever other keys might come from.
func verify(b *strings.Builder, known string, keys []HostKey) {
	fmt.Fprintf(b, `    UserKnownHostsFile %s
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    VerifyHostKeyDNS no
    UpdateHostKeys no
`, known)
	// With IgnoreUnknown instead of asking ssh for its version, ssh would ignore an IgnoreUnknown of the
	// user's and then refuse what that one is for.
	if knownHostsCommand.has(version()) {
		b.WriteString("    KnownHostsCommand none\n")
	}
	// Colmena accepts unknown keys. A key of a type of which none is known must not count as unknown, nor
	// must a certificate.
	if algorithms := algorithms(keys); len(algorithms) > 0 {
		fmt.Fprintf(b, "    HostKeyAlgorithms %s\n", strings.Join(algorithms, ","))
	}
}

// algorithms are the signatures that keys of these types can make.
func algorithms(keys []HostKey) []string {
	var all []string
	for _, key := range keys {
		if key.Type() == ssh.KeyAlgoRSA {
			all = append(all, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		} else {
			all = append(all, key.Type())
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// UnknownKeyError is one or several hosts that cannot be verified.
type UnknownKeyError struct{ Hosts []string }

func (e *UnknownKeyError) Error() string {
	if len(e.Hosts) == 1 {
		return fmt.Sprintf("the ssh key of %s is unknown, so another machine could pass for it", e.Hosts[0])
	}
	return fmt.Sprintf("the ssh keys of %s are unknown, so other machines could pass for them", strings.Join(e.Hosts, ", "))
}

// CheckKnown refuses hosts whose key is unknown, with an [*UnknownKeyError] that names all of them and a
// hint. The machine on which k3splan runs needs no key.
func CheckKnown(hosts []*plan.Host, keys HostKeys) error {
	var unknown []string
	for _, host := range hosts {
		if !host.Target.Local && !keys.Known(host.Name) {
			unknown = append(unknown, host.Name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	names := strings.Join(unknown, " ")
	return diag.WithHint(&UnknownKeyError{Hosts: unknown}, "a machine that is running already: k3splan known-hosts scan "+names+
		"\na machine that is still to be installed: k3splan known-hosts make "+names)
}
