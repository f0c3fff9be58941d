package secrets

// What a file among the secrets is, and whose. This is the one definition: what `secrets list` lists, what
// is moved, encrypted and renamed, and what the audit guards.

import (
	"path"
	"regexp"
	"strings"
)

// Class says what a file in the folder of the secrets is, by its name alone.
type Class int

const (
	// Secret must not be shown: a token, a password hash, a private key, or a secret of the user's own.
	Secret Class = iota
	// Public may be seen by everyone: public keys, recipients, notes, git's own files, and what is encrypted.
	Public
	// Leftover was left by an editor, or by a command that was killed, and may hold a secret.
	Leftover
	// Hidden was put there by a file manager or the like. Nothing reads it.
	Hidden
)

// ClassOf returns the class of a file from its path below the folder of the secrets.
func ClassOf(file string) Class {
	base := lower(path.Base(file))
	switch {
	case leftover.MatchString(base):
		return Leftover
	case publicName.MatchString(base):
		return Public
	}
	for part := range strings.SplitSeq(file, "/") {
		if isHidden(part) {
			return Hidden
		}
	}
	return Secret
}

var (
	// what editors, package managers and k3splan itself (killed while it wrote) leave behind
	leftover = regexp.MustCompile(`(?i)~$|^#.*#$|^\.#|\.(?:bak|old|orig|rej|save|tmp|sw[a-z])$|^\.(?:init-token|agent-token|.*passwd|.*\.pub|.*_ed25519)[0-9]+$|^\.k3splan-new-`)
	// publicName is matched against lower case
	publicName = regexp.MustCompile(`\.(?:pub|age|gpg|md)$|^(?:recipients|known_hosts|ssh_config|readme|\.gitignore|\.gitattributes|\.gitkeep)$`)
	// what Windows makes of a name without showing it
	textCopy = regexp.MustCompile(`(?i)(?:passwd|\.pub|-token)(\.txt)$`)
)

func isHidden(name string) bool { return strings.HasPrefix(name, ".") }

// What a key file can be for, apart from a host of that name. No host can have these names.
const (
	everyHost  = "all"
	deployUser = "deploy"
)

const (
	passwordName = "passwd"
	keyExtension = ".pub"
	// HostKeys is the folder of the hosts' private ssh keys among the secrets, Retired that of the secrets
	// that were replaced and that somebody may still need.
	HostKeys = "hosts"
	Retired  = "retired"

	hostKeyEnding = "_ed25519"
)

// use is what a secret is for.
type use int

const (
	useNone use = iota // of k3splan's: it is the user's own
	useServers
	useAgents
	usePassword
	useHostKey
	useRetired
)

// useOf returns what a secret is for, by its name, and the host that it is named after: "" for a password
// of all hosts.
func useOf(name string) (u use, host string) {
	folder, base, below := strings.Cut(name, "/")
	switch {
	case below && folder == HostKeys:
		return useHostKey, strings.TrimSuffix(lower(base), hostKeyEnding)
	case below && folder == Retired:
		return useRetired, ""
	case below:
		return useNone, ""
	case name == string(InitToken):
		return useServers, ""
	case name == string(AgentToken):
		return useAgents, ""
	}
	if host, isPassword := strings.CutSuffix(lower(name), passwordName); isPassword {
		return usePassword, strings.TrimSuffix(host, "_")
	}
	return useNone, ""
}

// IsOurs reports whether k3splan itself uses a secret of this name.
func IsOurs(name string) bool {
	u, _ := useOf(name)
	return u != useNone
}

// IsUsed reports whether k3splan uses a secret of this name in a plan with these hosts.
func IsUsed(name string, hosts []string) bool {
	u, _ := useOf(name)
	owners := NewOwners(hosts)
	switch u {
	case useServers, useAgents:
		return true
	case usePassword:
		_, _, known := owners.password(name)
		return known
	case useHostKey:
		host, isKey := strings.CutSuffix(strings.TrimPrefix(name, HostKeys+"/"), hostKeyEnding)
		return isKey && owners[host]
	}
	return false
}

// UsedNames returns the names of all secrets that k3splan uses in a plan with these hosts.
func UsedNames(hosts []string) []string {
	names := []string{string(InitToken), string(AgentToken), passwordName}
	for _, host := range hosts {
		names = append(names, host+passwordName, HostKeyName(host))
	}
	return names
}

// Describe returns what a secret is, for people, by its name.
func Describe(name string) string {
	switch u, host := useOf(name); {
	case u == useServers:
		return "token of the servers"
	case u == useAgents:
		return "token of the agents"
	case u == usePassword && host == "":
		return "password hash of all hosts that have none of their own"
	case u == usePassword:
		return "password hash of " + host
	case u == useHostKey:
		return "ssh host key"
	case u == useRetired:
		return "was replaced, and is kept in case it is still needed"
	default:
		return "yours: k3splan does not use it"
	}
}

// Owners answers whose a file among the secrets is. File names are compared without regard to the case of
// ASCII letters, as the names in the tables are.
type Owners map[string]bool

// NewOwners takes the names of all hosts, in lower case.
func NewOwners(hosts []string) Owners {
	owners := make(Owners, len(hosts))
	for _, host := range hosts {
		owners[host] = true
	}
	return owners
}

// Host returns the host after which a file is named, from its path below the folder of the secrets, in
// plain or encrypted form; "" if it is named after none.
func (owners Owners) Host(file string) string {
	file = strings.TrimSuffix(lower(file), ageExtension)
	host := ""
	switch u, named := useOf(file); {
	case u == usePassword:
		host, _, _ = owners.password(file)
	case u == useHostKey && strings.HasSuffix(file, hostKeyEnding):
		host = named
	case !strings.Contains(file, "/"):
		host, _, _ = owners.key(file)
	}
	if !owners[host] {
		return ""
	}
	return host
}

// password returns whose password a file holds: a host's, or "" for all that have none of their own.
// isPassword is true for all names that look like a password file, known only if it is one.
func (owners Owners) password(name string) (owner string, isPassword, known bool) {
	owner, isPassword = strings.CutSuffix(lower(name), passwordName)
	if !isPassword || owner == "" || owners[owner] {
		return owner, isPassword, isPassword
	}
	if host, found := strings.CutSuffix(owner, "_"); found && owners[host] {
		return host, true, true
	}
	return "", true, false
}

// key returns what a key file opens: a host, everyHost, or the deployUser. It is meant if the whole name
// says so, or what follows a separator; the longest wins, and a substring is never enough. isKey is true
// for all *.pub files, known only if the file opens something.
func (owners Owners) key(name string) (owner string, isKey, known bool) {
	base, isKey := strings.CutSuffix(lower(name), keyExtension)
	if !isKey || isHidden(name) {
		return "", isKey, false // hidden: what editors and file managers leave (._all.pub)
	}
	if base == deployUser {
		return deployUser, true, true
	}
	for _, ending := range endings(base) {
		if ending == everyHost || owners[ending] {
			return ending, true, true
		}
	}
	return "", true, false
}

// endings returns the whole name and what follows each separator, longest first.
func endings(name string) []string {
	all := []string{name}
	for i := range len(name) {
		if strings.IndexByte("-_.", name[i]) >= 0 {
			all = append(all, name[i+1:])
		}
	}
	return all
}

// PasswordName is the name of the secret where a host's own password belongs, in the spelling that is
// present already. An empty host means the password for all hosts that have none of their own.
func PasswordName(host string, present []string) string {
	owners, found := Owners{}, ""
	if host != "" {
		owners[host] = true
	}
	for _, name := range present {
		if owner, _, known := owners.password(name); known && owner == host && (found == "" || name == host+passwordName) {
			found = name
		}
	}
	if found != "" {
		return found
	}
	return host + passwordName
}

// lower changes ASCII only: a letter of another script never becomes one of a host's name.
func lower(name string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, name)
}
