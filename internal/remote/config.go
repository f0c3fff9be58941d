// Package remote reaches the machines of a plan by ssh. [Prepare] writes an ssh_config and known_hosts
// from the plan and from the keys in plans/known_hosts, and a [Machine] runs commands and scripts on one
// host through them; Colmena and editors use the same files.
package remote

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/crypto/ssh"

	"k3splan/internal/files"
	"k3splan/internal/plan"
)

// Dir is where the files are written, relative to the project; it is not in git.
const Folder = files.StateDir

const (
	configName = "ssh_config"
	knownName  = "known_hosts"
)

// Config is an ssh_config on disk.
type Config struct {
	// File is to be given to `ssh -F`. Its path holds no character that a shell, ssh or Colmena
	// would treat: Colmena joins ssh's options with blanks for nix-copy-closure.
	File string

	folder string // a temporary one, or ""
}

// Prepare writes known_hosts and ssh_config of a project, found in dir, from what is known of its
// machines. With that file, ssh connects to a machine of the plan only if it has the key by which it
// is known, and asks nothing; for all else the user's own configuration holds. Close removes what
// must not stay.
func Prepare(dir string, p *plan.Plan, keys HostKeys) (*Config, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the project: %w", err)
	}
	c := &Config{}
	folder := filepath.Join(dir, Folder)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("make a folder for ssh's files: %w", err)
	}
	if !plainPath.MatchString(folder) {
		temp, err := files.TempDir(plainPath.MatchString)
		if err != nil {
			return nil, err
		}
		if c.folder, err = os.MkdirTemp(temp, "k3splan-ssh-"); err != nil {
			return nil, fmt.Errorf("make a folder for ssh's files: %w", err)
		}
		folder = c.folder
	}
	c.File = filepath.Join(folder, configName)
	known := filepath.Join(folder, knownName)
	err = errors.Join(
		write(known, KnownHosts(p, keys)),
		write(c.File, config(p, keys, known, ownConfig(c.File))),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write ssh's files: %w", err), c.Close())
	}
	return c, nil
}

// Close removes what Prepare made in a temporary folder.
func (c *Config) Close() error {
	if c.folder == "" {
		return nil
	}
	if err := os.RemoveAll(c.folder); err != nil {
		return fmt.Errorf("remove ssh's temporary files: %w", err)
	}
	return nil
}

// Env makes Colmena use the file.
func (c *Config) Env() []string { return []string{"SSH_CONFIG_FILE=" + c.File} }

// plainPath needs no quoting anywhere.
var plainPath = regexp.MustCompile(`^(/[A-Za-z0-9._+-]+)+$`)

// write replaces a file in one step, if it has another content.
func write(name, content string) error {
	if present, err := files.Read(name); err == nil && string(present) == content {
		return nil
	}
	return renameio.WriteFile(name, []byte(content), 0o600)
}

// KnownHosts is the content of a known_hosts file for ssh: each machine by its name in the plan and
// by its target.
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

// WriteKnownHosts writes KnownHosts to a file, for ForInclusion.
func WriteKnownHosts(file string, p *plan.Plan, keys HostKeys) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("make a folder for ssh's files: %w", err)
	}
	if err := write(file, KnownHosts(p, keys)); err != nil {
		return fmt.Errorf("write ssh's files: %w", err)
	}
	return nil
}

// address is how known_hosts writes a target.
func address(t plan.Target) string {
	if t.Port == 0 || t.Port == 22 {
		return t.Host
	}
	return fmt.Sprintf("[%s]:%d", t.Host, t.Port)
}

// ownConfig gives the files of the user's own configuration: those that ssh reads by itself, or the one
// that the user has named for Colmena.
func ownConfig(file string) []string {
	named := os.Getenv("SSH_CONFIG_FILE")
	if absolute, err := filepath.Abs(named); named != "" && err == nil && absolute != file && !strings.ContainsAny(absolute, "\"\n\r") {
		return []string{`"` + absolute + `"`}
	}
	return []string{"~/.ssh/config", "/etc/ssh/ssh_config"}
}

// config is the ssh_config for `ssh -F`, which replaces the user's own: hence it includes that.
func config(p *plan.Plan, keys HostKeys, known string, own []string) string {
	var b strings.Builder
	b.WriteString("# Written by k3splan from the plan's tables: change those, not this.\n")
	byName(&b, p, keys, known)
	byTarget(&b, p, keys, known)
	b.WriteString("\nMatch all\n")
	for _, file := range own {
		fmt.Fprintf(&b, "    Include %s\n", file)
	}
	return b.String()
}

// ForInclusion is an ssh_config to be included in the user's own: the machines by their names only.
// An address of the plan may be another machine in another network. known is the path of the file
// with KnownHosts.
func ForInclusion(p *plan.Plan, keys HostKeys, known string) (string, error) {
	known, err := filepath.Abs(known)
	if err != nil {
		return "", err
	}
	// ssh expands variables in this path, and has no way to write these characters as they are
	if strings.Contains(known, "${") || strings.ContainsAny(known, "\"\\\n\r") {
		return "", fmt.Errorf("ssh cannot read a file of known hosts at %q", known)
	}
	var b strings.Builder
	b.WriteString("# The machines of a k3splan project, for ssh and editors.\n")
	byName(&b, p, keys, `"`+strings.ReplaceAll(known, "%", "%%")+`"`)
	return strings.TrimSuffix(b.String(), "\n") + "\n", nil
}

// byName lets the machines be called as in the plan.
func byName(b *strings.Builder, p *plan.Plan, keys HostKeys, known string) {
	for _, host := range p.Hosts {
		if host.Target.Local {
			continue
		}
		names := host.Name
		if p.Network.Domain != "" {
			names += " " + host.Name + "." + p.Network.Domain
		}
		fmt.Fprintf(b, "\nHost %s\n    HostName %s\n", names, host.Target.Host)
		if host.Target.Port != 0 {
			fmt.Fprintf(b, "    Port %d\n", host.Target.Port)
		}
		fmt.Fprintf(b, "    User %s\n    HostKeyAlias %s\n", host.Admin, host.Name)
		verify(b, known, keys.Of(host.Name))
	}
}

// byTarget is for programs that call a machine by its address, as Colmena does.
func byTarget(b *strings.Builder, p *plan.Plan, keys HostKeys, known string) {
	targets := map[string][]*plan.Host{}
	for _, host := range p.Hosts {
		if !host.Target.Local {
			targets[host.Target.Host] = append(targets[host.Target.Host], host)
		}
	}
	for _, target := range slices.Sorted(maps.Keys(targets)) {
		fmt.Fprintf(b, "\nHost %s\n", target)
		var all []HostKey
		for _, host := range targets[target] {
			all = append(all, keys.Of(host.Name)...)
		}
		// whatever port the user's own configuration says. Several machines behind one address are
		// told apart by their ports, which stand in known_hosts.
		if hosts := targets[target]; len(hosts) == 1 {
			fmt.Fprintf(b, "    HostKeyAlias %s\n", hosts[0].Name)
		}
		verify(b, known, all)
	}
}

// verify lets ssh take the known keys and no others, whatever the user's configuration says and
// from wherever other keys might come.
func verify(b *strings.Builder, known string, keys []HostKey) {
	fmt.Fprintf(b, `    UserKnownHostsFile %s
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    VerifyHostKeyDNS no
    UpdateHostKeys no
    IgnoreUnknown KnownHostsCommand
    KnownHostsCommand none
`, known)
	// Colmena takes unknown keys. A key of a type of which none is known must not count as such, nor
	// a certificate.
	if algorithms := algorithms(keys); len(algorithms) > 0 {
		fmt.Fprintf(b, "    HostKeyAlgorithms %s\n", strings.Join(algorithms, ","))
	}
}

// algorithms are the signatures that the keys' types can make.
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

// UnknownKeyError is one or several machines that could not be verified.
type UnknownKeyError struct{ Hosts []string }

func (e *UnknownKeyError) Error() string {
	if len(e.Hosts) == 1 {
		return fmt.Sprintf("the ssh key of %s is unknown: nobody could tell it from an impostor", e.Hosts[0])
	}
	return fmt.Sprintf("the ssh keys of %s are unknown: nobody could tell them from impostors", strings.Join(e.Hosts, ", "))
}

// Hint names the two ways to know a machine.
func (e *UnknownKeyError) Hint() string {
	hosts := strings.Join(e.Hosts, " ")
	return "a machine that runs already: k3splan known-hosts scan " + hosts +
		"\na machine that is still to be installed: k3splan known-hosts make " + hosts
}

// CheckKnown refuses hosts whose key is unknown, with an [UnknownKeyError] that names all of them.
// The deploying machine itself needs no key.
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
	return &UnknownKeyError{Hosts: unknown}
}
