// Package hostkeys reads and writes plans/known_hosts: by which ssh keys the machines of the plan
// are known.
//
// The file is in git, unlike the private keys, so that a fresh clone verifies each connection. It
// has the format of ssh's own known_hosts, with the plan's name of a host in front:
//
//	olaf ssh-ed25519 AAAA… made by k3splan
//	karl ssh-ed25519 AAAA… adopted
package hostkeys

import (
	"bytes"
	"cmp"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
)

// File is relative to the project.
const File = "plans/known_hosts"

// The codes of this package's problems. They are stable.
const (
	codeInvalid = "host-key-invalid"
	codeOrphan  = "file-orphan"
)

const (
	commentMade    = "made by k3splan"
	commentAdopted = "adopted"
	// minRSA is in bits.
	minRSA = 2048
)

const header = `# By these ssh keys k3splan knows the machines of the plan. They are public and belong in git.
# Made and adopted by ` + "`k3splan known-hosts`" + `.
`

// Key is one public key of a machine.
type Key struct {
	Public ssh.PublicKey
	// Made says that k3splan made the key and brings its private part to the machine; else the
	// machine had it, and an operator has looked at its fingerprint.
	Made bool
}

// Fingerprint is as ssh-keygen shows it: "SHA256:…".
func (k Key) Fingerprint() string { return ssh.FingerprintSHA256(k.Public) }

// Type is ssh's name of it ("ssh-ed25519").
func (k Key) Type() string { return k.Public.Type() }

func (k Key) equal(other Key) bool { return bytes.Equal(k.Public.Marshal(), other.Public.Marshal()) }

// Keys are the keys of all machines.
type Keys struct{ byHost map[string][]Key }

// Of gives the keys by which a host is known, none if it is not. They must not be changed.
func (k Keys) Of(host string) []Key { return k.byHost[host] }

// Known tells whether the host can be verified.
func (k Keys) Known(host string) bool { return len(k.byHost[host]) > 0 }

// Read reads the file of a project; without one no host is known. hosts are the names in the plan,
// partial says that there may be more. The problems are sorted by line.
func Read(fsys fs.FS, hosts []string, partial bool) (Keys, diag.Problems) {
	content, err := fs.ReadFile(fsys, File)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		reason, hint := files.Reason(err)
		return Keys{}, diag.Problems{{File: File, Severity: diag.Error, Code: codeInvalid, Message: "cannot be read: " + reason.Error(), Hint: hint}}
	}
	return parseFile(content, hosts, partial)
}

func parseFile(content []byte, hosts []string, partial bool) (Keys, diag.Problems) {
	keys := Keys{byHost: map[string][]Key{}}
	var problems diag.Problems
	report := func(row int, severity diag.Severity, code, value, message, hint string) {
		problems = append(problems, diag.Problem{File: File, Line: row, Severity: severity, Code: code, Value: value, Message: message, Hint: hint})
	}
	known := map[string]bool{}
	for _, host := range hosts {
		known[host] = true
	}
	row := 0
	for line := range strings.Lines(string(content)) {
		row++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		host, key, message, hint := parse(line)
		switch {
		case message != "":
			report(row, diag.Error, codeInvalid, "", message, hint)
		case !known[host] && !partial:
			report(row, diag.Warning, codeOrphan, host, "belongs to no host of the plan", cmp.Or(plan.DidYouMean(host, hosts), "remove the line"))
		case !slices.ContainsFunc(keys.byHost[host], key.equal):
			keys.byHost[host] = append(keys.byHost[host], key)
		}
	}
	return keys, problems
}

// parse reads one line; with a message it is wrong.
func parse(line string) (host string, key Key, message, hint string) {
	const form = "a line is like: olaf ssh-ed25519 AAAA…"
	if line[0] == '@' {
		return "", Key{}, "has a marker, which k3splan does not take", form
	}
	if line[0] == '|' {
		return "", Key{}, "has a hashed name, in which no host can be found", form
	}
	host, rest, _ := strings.Cut(line, " ")
	if strings.ContainsAny(host, ",*?![]:") {
		return "", Key{}, "has a pattern or several names in front, not the name of one host of the plan", form
	}
	public, comment, options, _, err := ssh.ParseAuthorizedKey([]byte(rest))
	if err != nil || len(options) > 0 {
		return "", Key{}, "is not a host's name and an ssh public key", form
	}
	if reason := Unfit(public); reason != "" {
		return "", Key{}, reason, "run `k3splan known-hosts scan " + host + "`"
	}
	return strings.ToLower(host), Key{Public: public, Made: comment == commentMade}, "", ""
}

var types = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA}

// Unfit says why no machine should be known by this key; "" if nothing is wrong with it.
func Unfit(public ssh.PublicKey) string {
	if _, ok := public.(*ssh.Certificate); ok {
		return "is a certificate, not a key"
	}
	if !slices.Contains(types, public.Type()) {
		return "is a key of a type that is too weak or that sshd does not have"
	}
	if crypto, ok := public.(ssh.CryptoPublicKey); ok {
		if k, ok := crypto.CryptoPublicKey().(*rsa.PublicKey); ok && k.N.BitLen() < minRSA {
			return fmt.Sprintf("is an RSA key of %d bits, which is too weak", k.N.BitLen())
		}
	}
	return ""
}

// Set lets a host of the project in dir be known by these keys and no others; by none, if there are
// none. What else is in the file stays as it is.
func Set(dir, host string, keys ...Key) error { return SetAll(dir, map[string][]Key{host: keys}) }

// SetAll does what Set does for several hosts, in one step.
func SetAll(dir string, keys map[string][]Key) error {
	return Change(dir, func(Keys) (map[string][]Key, error) { return keys, nil })
}

// Change is SetAll with keys that depend on those by which machines are known already: set gets them
// and gives what is to be changed. Between the two no other k3splan changes the file.
func Change(dir string, set func(known Keys) (map[string][]Key, error)) error {
	var failed error
	_, err := files.Update(filepath.Join(dir, filepath.FromSlash(File)), func(present []byte) ([]byte, error) {
		known, _ := parseFile(present, nil, true)
		var keys map[string][]Key
		if keys, failed = set(known); failed != nil {
			return nil, failed
		}
		return with(present, keys), nil
	})
	var noFile *files.Error
	switch {
	case failed != nil:
		return failed
	case errors.As(err, &noFile):
		return fmt.Errorf("%s %w", File, noFile)
	case err != nil:
		return fmt.Errorf("write %s: %w", File, err)
	}
	return nil
}

// with gives the file's content with other keys of some hosts.
func with(present []byte, keys map[string][]Key) []byte {
	if len(keys) == 0 {
		return present
	}
	var content strings.Builder
	for line := range strings.Lines(string(present)) {
		if host, _, _ := strings.Cut(strings.TrimSpace(line), " "); !has(keys, strings.ToLower(host)) {
			content.WriteString(strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	for _, host := range slices.Sorted(maps.Keys(keys)) {
		for _, key := range keys[host] {
			comment := commentAdopted
			if key.Made {
				comment = commentMade
			}
			fmt.Fprintf(&content, "%s %s %s\n", host, Line(key.Public), comment)
		}
	}
	if len(present) == 0 && content.Len() > 0 {
		return []byte(header + content.String())
	}
	return []byte(content.String())
}

func has(keys map[string][]Key, host string) bool {
	_, ok := keys[host]
	return ok
}

// Line is a public key as known_hosts has it behind the name: type and key, without comment.
func Line(public ssh.PublicKey) string {
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(public)), "\n")
}
