package secrets

import (
	"regexp"
	"strings"
)

// What a key file can be for, beside a host of that name. No host can have these names.
const (
	everyHost  = "all"
	deployUser = "deploy"
)

const (
	passwordName = "passwd"
	keyExtension = ".pub"
)

// hostSet answers what a file's name means. File names are compared without regard to the case
// of ASCII letters, as the names in the tables are.
type hostSet map[string]bool

// passwordOwner says whose password a file holds: a host's, or "" for all that have none of their
// own. isPassword is true for all names that look like a password file, known only if it is one.
func (hosts hostSet) passwordOwner(name string) (owner string, isPassword, known bool) {
	owner, isPassword = strings.CutSuffix(lower(name), passwordName)
	if !isPassword || owner == "" || hosts[owner] {
		return owner, isPassword, isPassword
	}
	if host, found := strings.CutSuffix(owner, "_"); found && hosts[host] {
		return host, true, true
	}
	return "", true, false
}

// PasswordName is the name of the secret where a host's own password belongs, in the spelling that is
// present already. An empty host means the password for all hosts that have none of their own.
func PasswordName(host string, present []string) string {
	hosts, found := hostSet{}, ""
	if host != "" {
		hosts[host] = true
	}
	for _, name := range present {
		if owner, _, known := hosts.passwordOwner(name); known && owner == host && (found == "" || name == host+passwordName) {
			found = name
		}
	}
	if found != "" {
		return found
	}
	return host + passwordName
}

// IsOurs tells whether a secret is of a kind that k3splan itself uses.
func IsOurs(name string) bool {
	if folder, _, below := strings.Cut(name, "/"); below {
		return folder == HostKeys || folder == Retired
	}
	return name == string(InitToken) || name == string(AgentToken) || strings.HasSuffix(lower(name), passwordName)
}

// Describe tells people what a secret is, by its name.
func Describe(name string) string {
	switch host, isPassword := strings.CutSuffix(lower(name), passwordName); {
	case name == string(InitToken):
		return "token of the servers"
	case name == string(AgentToken):
		return "token of the agents"
	case isPassword && host == "":
		return "password hash of all hosts that have none of their own"
	case isPassword && !strings.Contains(name, "/"):
		return "password hash of " + strings.TrimSuffix(host, "_")
	case strings.HasPrefix(name, HostKeys+"/"):
		return "ssh host key"
	case strings.HasPrefix(name, Retired+"/"):
		return "was replaced, and is kept in case that somebody needs it"
	default:
		return "yours: k3splan does not use it"
	}
}

// keyOwner says what a key file opens: a host, everyHost, or the deployUser. It is meant if the
// whole name says so, or what follows a separator; the longest wins, and a substring is never
// enough. isKey is true for all *.pub files, known only if the file opens something.
func (hosts hostSet) keyOwner(name string) (owner string, isKey, known bool) {
	base, isKey := strings.CutSuffix(lower(name), keyExtension)
	if !isKey || isHidden(name) {
		return "", isKey, false // hidden: what editors and file managers leave (._all.pub)
	}
	if base == deployUser {
		return deployUser, true, true
	}
	for _, ending := range endings(base) {
		if ending == everyHost || hosts[ending] {
			return ending, true, true
		}
	}
	return "", true, false
}

// endings gives the whole name and what follows each separator, longest first.
func endings(name string) []string {
	all := []string{name}
	for i := range len(name) {
		if strings.IndexByte("-_.", name[i]) >= 0 {
			all = append(all, name[i+1:])
		}
	}
	return all
}

var (
	// what editors, package managers and we ourselves (after a crash while replacing) leave behind
	leftover = regexp.MustCompile(`(?i)~$|^#.*#$|^\.#|\.(?:bak|old|orig|rej|save|tmp|sw[a-z])$|^\.(?:init-token|agent-token|.*passwd|.*\.pub|.*_ed25519)[0-9]+$|^\.k3splan-new-`)
	// what Windows makes of a name without its letting one see it
	textCopy = regexp.MustCompile(`(?i)(?:passwd|\.pub|-token)(\.txt)$`)
)

func isHidden(name string) bool { return strings.HasPrefix(name, ".") }

// lower changes ASCII only: a letter of another script never becomes one of a host's name.
func lower(name string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, name)
}
