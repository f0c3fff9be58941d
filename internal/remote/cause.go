package remote

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"k3splan/internal/diag"
	"k3splan/internal/files"
)

// knownCause is a kind of line in which ssh, or a program on the other side, says why something failed.
type knownCause struct {
	pattern *regexp.Regexp
	// advice gets the submatches of the pattern.
	advice func(m Machine, match []string) string
}

func fixed(advice string) func(Machine, []string) string {
	return func(Machine, []string) string { return advice }
}

// sshCauses are what ssh says when there is no connection. The first line that matches one of them is the
// cause; later lines are consequences ("Disconnected from …"). The texts are those of OpenSSH 8 to 10.
var sshCauses = []knownCause{
	{regexp.MustCompile(`Bad configuration option|Unsupported option|terminating, \d+ bad configuration|Bad owner or permissions on|extra arguments at end of line|[Mm]issing argument`),
		fixed("plain ssh stops at the same line: correct your own ssh configuration")},
	{regexp.MustCompile(`open failed: |stdio forwarding failed`),
		fixed("the jump host does not reach the host: is the host switched on, and are its address and port right?")},
	{regexp.MustCompile(`Could not resolve hostname ([^\s:]+)`), Machine.unresolved},
	{regexp.MustCompile(`Too many authentication failures`),
		func(m Machine, _ []string) string {
			return fmt.Sprintf("your ssh-agent offers more keys than sshd accepts: say in ~/.ssh/config which one is for this host\n"+
				"Host %s, and below it IdentityFile ~/.ssh/YOUR_KEY and IdentitiesOnly yes", m.Host.Name)
		}},
	{regexp.MustCompile(`^Permissions .* are too open|: bad permissions`),
		fixed("ssh ignores a private key that others can read: chmod 600 that file")},
	{regexp.MustCompile(`agent refused operation|signing failed`),
		fixed("the agent has the key but does not sign with it: is the agent locked, or does it wait for a confirmation or a touch of the security key?")},
	{regexp.MustCompile(`Host key for (\S+) has changed`), Machine.otherKey},
	{regexp.MustCompile(`host key is known for (\S+)`), Machine.otherKey},
	{regexp.MustCompile(`no matching host key type`), Machine.otherKey},
	{regexp.MustCompile(`no matching (key exchange method|cipher|MAC)`),
		fixed("the sshd there and the ssh here have no algorithm in common: does another system run there?")},
	{regexp.MustCompile(`Connection refused`),
		func(m Machine, _ []string) string {
			advice := fmt.Sprintf("the machine answers, but nothing listens on that port: is sshd running, and on which port? The plan names another one as %s:PORT after the @", m.Host.Target.Host)
			if m.Host.Target.Port != 0 {
				advice += "\na port is moved in two steps, which k3splan diff explains"
			}
			return advice
		}},
	{regexp.MustCompile(`No route to host|Network is unreachable|Host is down`),
		fixed("this machine has no route to that address: is the host switched on, and are you in its network? A jump host belongs in ~/.ssh/config (ProxyJump)")},
	{regexp.MustCompile(`banner exchange|kex_exchange_identification|ssh_exchange_identification|invalid format`),
		fixed("whatever listens there closes the connection or does not speak ssh: is it the right port, is the host just starting, or does a proxy (ProxyJump, ProxyCommand) fail?")},
	{regexp.MustCompile(`timed out|Timeout, server .* not responding`),
		fixed("nothing answers at that address: is the host switched on, and does a firewall drop the connection? A jump host belongs in ~/.ssh/config (ProxyJump)")},
	{regexp.MustCompile(`: (command )?not found`), fixed("is this the ProxyCommand in your ssh configuration?")},
	{regexp.MustCompile(`Host key verification failed`), Machine.otherKey},
	{regexp.MustCompile(`^(?:(\S+): )?Permission denied|No supported authentication methods`), Machine.denied},
}

// commandCauses are what goes wrong on the other side, once there is a connection.
var commandCauses = []knownCause{
	{regexp.MustCompile(`sudo: .*(password is required|terminal is required|no tty present)|not in the sudoers|not allowed to (run|execute)`),
		func(m Machine, _ []string) string {
			if m.User == DeployUser {
				return fmt.Sprintf("sudo must not ask %s for a password; a deployment as root makes it so: k3splan deploy --as root %s", m.User, m.Host.Name)
			}
			return fmt.Sprintf("sudo must not ask %s for a password: in the host's configuration, for now, security.sudo.wheelNeedsPassword = false; or use --as root", m.User)
		}},
	{regexp.MustCompile(`sudo: (command )?not found`), fixed("sudo is missing there: use --as root")},
	{regexp.MustCompile(`nixos-[a-z-]+: (command |inaccessible or )?not found`),
		func(m Machine, _ []string) string {
			return fmt.Sprintf("%s does not run NixOS; a boot stick installs it: k3splan boot-stick %[1]s", m.Host.Name)
		}},
	{regexp.MustCompile(`account is (currently )?not available`),
		func(m Machine, _ []string) string { return "the account " + m.User + " has no shell there" }},
}

// explain returns the line of ssh's words that names the cause, fit for a terminal, and advice. In words
// that are not known it is the last one, or the one before ssh says that the connection was closed.
func (m Machine) explain(said string) (line, advice string) {
	for text := range strings.Lines(said) {
		text = strings.TrimSpace(text)
		if isNoise(text) {
			continue
		}
		for _, c := range sshCauses {
			if match := c.pattern.FindStringSubmatch(text); match != nil {
				return diag.Printable(text), c.advice(m, match)
			}
		}
		if ended.MatchString(text) {
			advice = "the other side ended the connection: see its journal (journalctl -u sshd)"
			return cmp.Or(line, diag.Printable(text)), advice
		}
		line = diag.Printable(text)
	}
	return line, ""
}

// ended is a consequence of anything.
var ended = regexp.MustCompile(`Connection reset|Connection closed|Broken pipe|Connection to .* closed`)

// isNoise reports whether a line says nothing about a cause: frames, and warnings about something else.
func isNoise(line string) bool {
	return line == "" || slices.ContainsFunc([]string{"@", "** ", "debug", "Warning: Permanently added", "Pseudo-terminal will not", "no such identity: "},
		func(prefix string) bool { return strings.HasPrefix(line, prefix) })
}

// unresolved is for a name that does not resolve, the host's or one in the user's configuration.
func (m Machine) unresolved(match []string) string {
	if strings.EqualFold(match[1], m.Host.Target.Host) {
		return fmt.Sprintf("check the target of %s in the plan, and this machine's DNS", m.Host.Name)
	}
	return "this name is from your own ssh configuration: check it there, and this machine's DNS"
}

// otherKey is for a host that shows another key than the known ones, or a jump host that does so.
func (m Machine) otherKey(match []string) string {
	if len(match) > 1 {
		name := strings.Trim(strings.Split(match[1], "]")[0], "[")
		if name != m.Host.Name && name != m.Host.Target.Host {
			return fmt.Sprintf("ssh verifies a jump host by your own known_hosts: log in to %s once by hand", diag.Printable(name))
		}
	}
	return fmt.Sprintf("if the machine was reinstalled: k3splan known-hosts scan %s\nif it was not, another machine may be answering at its address", m.Host.Name)
}

// denied looks at the user's keys for the reason why a login was refused.
func (m Machine) denied(match []string) string {
	if account := match[1]; account != "" && account != m.Target() {
		return fmt.Sprintf("the jump host does not accept your key: ssh %s must work without a password", diag.Printable(account))
	}
	if reason := m.lockedKeys(); reason != "" {
		return reason
	}
	switch {
	case m.User == DeployUser:
		return fmt.Sprintf("the user %s accepts the keys in secrets/deploy.pub, or else the admins': is yours among them, and was it deployed?\n"+
			"a NixOS that k3splan has not deployed yet has no user %[1]s: k3splan deploy --as root %s", DeployUser, m.Host.Name)
	case m.User == m.Host.Admin:
		return fmt.Sprintf("%s accepts the keys in secrets/all.pub and secrets/%[1]s.pub that were deployed: is yours among them?", m.User)
	}
	return "that account does not accept your key: ssh-copy-id " + m.Target()
}

// lockedKeys returns advice if ssh has no key that it could use without asking for a passphrase.
func (m Machine) lockedKeys() string {
	settings, ok := askSSH([]string{"-F", m.config, m.Target()})
	if !ok {
		return ""
	}
	if n, err := agentKeys(settings["identityagent"]); err == nil && n > 0 {
		return ""
	}
	var locked []string
	for _, file := range settings["identityfile"] {
		if rest, ok := strings.CutPrefix(file, "~/"); ok {
			file = filepath.Join(home(), rest)
		}
		content, err := files.Read(file)
		if err != nil {
			continue
		}
		var passphrase *ssh.PassphraseMissingError
		if _, err := ssh.ParseRawPrivateKey(content); !errors.As(err, &passphrase) {
			return "" // one that works, or of a type that only ssh can read
		}
		if !slices.Contains(locked, file) {
			locked = append(locked, file)
		}
	}
	if len(locked) == 0 {
		return ""
	}
	advice := "your key has a passphrase and is not in the ssh-agent: ssh-add " + diag.Printable(locked[0])
	if os.Getenv("SSH_AUTH_SOCK") == "" {
		advice += "\nno ssh-agent is running: eval \"$(ssh-agent)\""
	}
	return advice
}

// agentKeys is how many keys the user's agent has.
func agentKeys(configured []string) (int, error) {
	socket := os.Getenv("SSH_AUTH_SOCK")
	if len(configured) == 1 && configured[0] != "SSH_AUTH_SOCK" && !strings.HasPrefix(configured[0], "$") {
		socket = configured[0]
	}
	if socket == "" {
		return 0, errors.New("no agent")
	}
	connection, err := net.Dial("unix", socket)
	if err != nil {
		return 0, err
	}
	defer func() { _ = connection.Close() }()
	keys, err := agent.NewClient(connection).List()
	return len(keys), err
}
