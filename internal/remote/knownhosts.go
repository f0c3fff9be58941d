package remote

// plans/known_hosts contains the ssh keys by which the hosts of the plan are known.
//
// The file is in git, unlike the private keys, so that a fresh clone verifies each connection. It has
// the format of ssh's own known_hosts, with the plan's name of a host in front:
//
//	olaf ssh-ed25519 AAAA… made by k3splan
//	karl ssh-ed25519 AAAA… adopted

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
)

// KnownHostsFile is relative to the project.
const KnownHostsFile = files.KnownHostsFile

// The codes of this package's problems. They are stable.
const (
	codeInvalid = "host-key-invalid"
	codeOrphan  = "file-orphan"
	codeShared  = "host-key-shared"
)

const (
	commentMade    = "made by k3splan"
	commentAdopted = "adopted"
	// minRSA is in bits.
	minRSA = 2048
)

const header = `# The ssh keys by which the hosts of the plan are known. They are public and belong in git.
# Made and adopted by ` + "`k3splan known-hosts`" + `.
`

// HostKey is a public key of a host.
type HostKey struct {
	Public ssh.PublicKey
	// Made means that k3splan made the key and brings its private part to the machine; otherwise the
	// machine had it, and an operator adopted it.
	Made bool
}

// Fingerprint returns the key's fingerprint as ssh-keygen shows it: "SHA256:…".
func (k HostKey) Fingerprint() string { return ssh.FingerprintSHA256(k.Public) }

// Type returns ssh's name of the type ("ssh-ed25519").
func (k HostKey) Type() string { return k.Public.Type() }

func (k HostKey) equal(other HostKey) bool {
	return bytes.Equal(k.Public.Marshal(), other.Public.Marshal())
}

// HostKeys are the keys of all hosts.
type HostKeys struct{ byHost map[string][]HostKey }

// Of returns the keys by which a host is known, none if it is not. They must not be changed.
func (k HostKeys) Of(host string) []HostKey { return k.byHost[host] }

// Known reports whether the host can be verified.
func (k HostKeys) Known(host string) bool { return len(k.byHost[host]) > 0 }

// ReadKnownHosts reads the file of a project; without one no host is known. hosts are the names in the plan,
// partial says that there may be more. The problems are sorted by line.
func ReadKnownHosts(fsys fs.FS, hosts []string, partial bool) (HostKeys, diag.Problems) {
	content, err := fs.ReadFile(fsys, KnownHostsFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		reason, hint := diag.Reason(err), diag.HintOf(err)
		return HostKeys{}, diag.Problems{{File: KnownHostsFile, Severity: diag.Error, Code: codeInvalid, Message: "cannot be read: " + reason.Error(), Hint: hint}}
	}
	return parseFile(content, hosts, partial)
}

func parseFile(content []byte, hosts []string, partial bool) (HostKeys, diag.Problems) {
	keys := HostKeys{byHost: map[string][]HostKey{}}
	var found diag.Collector
	report := func(row int, severity diag.Severity, code, value, message, hint string) {
		found.Add(diag.Problem{File: KnownHostsFile, Line: row, Severity: severity, Code: code, Value: value, Message: message, Hint: hint})
	}
	known := map[string]bool{}
	for _, host := range hosts {
		known[host] = true
	}
	type place struct {
		host string
		row  int
	}
	first := map[string]place{} // by key
	row, orphans := 0, 0
	for line := range strings.Lines(string(content)) {
		row++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		host, key, message, hint := parse(line)
		if message == "" && known[host] {
			blob := string(key.Public.Marshal())
			if other, taken := first[blob]; !taken {
				first[blob] = place{host, row}
			} else if other.host != host {
				report(row, diag.Error, codeShared, host, fmt.Sprintf("has the same ssh key as %s in line %d: the two machines cannot be told apart", other.host, other.row), SharedHint(host))
			}
		}
		switch {
		case message != "":
			report(row, diag.Error, codeInvalid, "", message, hint)
		case !known[host] && !partial:
			hint := "remove the line"
			if orphans++; orphans <= diag.MaxOfKind { // the others are only counted
				hint = cmp.Or(diag.DidYouMean(host, hosts), hint)
			}
			report(row, diag.Warning, codeOrphan, host, "belongs to no host of the plan", hint)
		case !slices.ContainsFunc(keys.byHost[host], key.equal):
			keys.byHost[host] = append(keys.byHost[host], key)
		}
	}
	return keys, found.Problems()
}

// SharedWith returns another host that is known by the key of a host, "" if none is.
func (k HostKeys) SharedWith(host string, key HostKey) string {
	for _, other := range slices.Sorted(maps.Keys(k.byHost)) {
		if other != host && slices.ContainsFunc(k.byHost[other], key.equal) {
			return other
		}
	}
	return ""
}

// SharedHint is advice for a host with the key of another one: machines made of one image have the same key.
func SharedHint(host string) string {
	return "a machine cloned from another's image needs a key of its own: on it `rm /etc/ssh/ssh_host_*_key*`, `ssh-keygen -A` and `systemctl restart sshd`, then here `k3splan known-hosts scan " + host + "`;" +
		" if the machine only has a new name, remove the line of the old one"
}

// parse reads one line; with a message it is invalid.
func parse(line string) (host string, key HostKey, message, hint string) {
	const form = "a line is like: olaf ssh-ed25519 AAAA…"
	if line[0] == '@' {
		return "", HostKey{}, "has a marker, which k3splan does not support", form
	}
	if line[0] == '|' {
		return "", HostKey{}, "has a hashed name, so the host is unknown", form
	}
	host, rest := line, ""
	if i := strings.IndexAny(line, " \t"); i > 0 {
		host, rest = line[:i], strings.TrimLeft(line[i:], " \t")
	}
	if strings.ContainsAny(host, ",*?![]:") {
		return "", HostKey{}, "has a pattern or several names in front, not the name of one host of the plan", form
	}
	public, comment, options, _, err := ssh.ParseAuthorizedKey([]byte(rest))
	if err != nil || len(options) > 0 {
		return "", HostKey{}, "is not a host's name and an ssh public key", form
	}
	if reason := unfit(public); reason != "" {
		return "", HostKey{}, reason, "run `k3splan known-hosts scan " + host + "`"
	}
	return strings.ToLower(host), HostKey{Public: public, Made: comment == commentMade}, "", ""
}

var types = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA}

// unfit returns why no host should be known by this key, or "".
func unfit(public ssh.PublicKey) string {
	if _, ok := public.(*ssh.Certificate); ok {
		return "is a certificate, not a key"
	}
	if !slices.Contains(types, public.Type()) {
		return "is of a type that is too weak or that sshd does not have"
	}
	if crypto, ok := public.(ssh.CryptoPublicKey); ok {
		if k, ok := crypto.CryptoPublicKey().(*rsa.PublicKey); ok && k.N.BitLen() < minRSA {
			return fmt.Sprintf("is an RSA key of %d bits, which is too weak", k.N.BitLen())
		}
	}
	return ""
}

// ChangeKnownHosts changes the keys by which hosts of the project in dir are known: set gets those that
// are known now and returns the new keys of the hosts that change, none for a host that is to be unknown.
// Everything else in the file stays as it is. The project is locked while it runs.
func ChangeKnownHosts(dir string, set func(known HostKeys) (map[string][]HostKey, error)) error {
	unlock, err := files.Lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	return ChangeKnownHostsLocked(dir, set)
}

// ChangeKnownHostsLocked is ChangeKnownHosts for those who hold the project's lock.
func ChangeKnownHostsLocked(dir string, set func(known HostKeys) (map[string][]HostKey, error)) error {
	var failed error
	_, err := files.Rewrite(filepath.Join(dir, filepath.FromSlash(KnownHostsFile)), func(present []byte) ([]byte, error) {
		known, problems := parseFile(present, nil, true)
		if target := files.LeadsOut(dir, KnownHostsFile); target != "" && problems.Errors() > 0 {
			return nil, diag.WithHint(fmt.Errorf("%s leads to %q, which is not a file of k3splan's", KnownHostsFile, target), "put a file in its place")
		}
		var keys map[string][]HostKey
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
		return fmt.Errorf("%s %w", KnownHostsFile, diag.Reason(err))
	case err != nil:
		return fmt.Errorf("write %s: %w", KnownHostsFile, err)
	}
	return nil
}

// with returns the file's content with other keys for some hosts.
func with(present []byte, keys map[string][]HostKey) []byte {
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
			fmt.Fprintf(&content, "%s %s %s\n", host, KeyLine(key.Public), comment)
		}
	}
	if len(present) == 0 && content.Len() > 0 {
		return []byte(header + content.String())
	}
	return []byte(content.String())
}

func has(keys map[string][]HostKey, host string) bool {
	_, ok := keys[host]
	return ok
}

// KeyLine returns a public key as in known_hosts after the name: type and key, without comment.
func KeyLine(public ssh.PublicKey) string {
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(public)), "\n")
}
