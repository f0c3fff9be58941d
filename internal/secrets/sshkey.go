package secrets

import (
	"crypto/rsa"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"k3splan/internal/diag"

	"golang.org/x/crypto/ssh"
)

const (
	// minRSA is in bits.
	minRSA = 2048
	// maxBadLines of a key file are reported one by one: with more, the file as a whole is wrong.
	maxBadLines = 20
)

// key is one public key of a key file.
type key struct {
	line string // as authorized_keys takes it: options, type, key and comment, without line break
	blob string // the key itself: keys with equal blobs are the same
	file string // relative to the project
	row  int    // in the file, from 1
	// nobody can log in with a key that has a forced command
	forced bool
}

// The types that sshd of NixOS takes, without those that are too weak.
var keyTypes = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoRSA,
	ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256,
}

// The options of sshd(8) that make sense for a plain key, in lower case; sshd ignores their case.
var (
	flagOptions = []string{"restrict",
		"agent-forwarding", "port-forwarding", "pty", "user-rc", "x11-forwarding", "touch-required", "verify-required",
		"no-agent-forwarding", "no-port-forwarding", "no-pty", "no-user-rc", "no-x11-forwarding", "no-touch-required", "no-verify-required"}
	valueOptions = []string{"command", "environment", "expiry-time", "from", "permitlisten", "permitopen", "tunnel"}
)

// parseKeys reads a file of public keys as people have them: one a line, with comments, blank
// lines, any line ends and a byte-order mark. What is wrong is reported and left out; whole says
// that nothing was wrong.
func parseKeys(file string, content []byte) (keys []key, problems diag.Problems, whole bool) {
	text := string(content)
	report := func(row int, f *finding) { problems = append(problems, f.at(file, row)) }
	if isUTF16(text) {
		report(0, badKey("is UTF-16", "save it as UTF-8"))
		return nil, problems, false
	}
	bad, row := 0, 0
	for line := range strings.Lines(strings.TrimPrefix(text, byteOrderMark)) {
		row++
		line = strings.Trim(line, " \t\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		if f := otherFormat(line); f != nil {
			report(row, f) // the lines that follow belong to it
			return keys, problems, false
		}
		if bad == maxBadLines {
			report(row, badKey("has too many lines that are not ssh public keys", "check that this is the right file"))
			return keys, problems, false
		}
		k, f := parseKey(line)
		if f != nil {
			report(row, f)
			if f.severity == diag.Error {
				bad++
				continue
			}
		}
		k.file, k.row = file, row
		keys = append(keys, k)
	}
	return keys, problems, bad == 0
}

func badKey(message, hint string) *finding {
	return &finding{diag.Error, codeKeyInvalid, message, hint}
}

// otherFormat recognizes the first line of files that are mistaken for public keys.
func otherFormat(line string) *finding {
	pem := strings.HasPrefix(line, "-----BEGIN ")
	switch {
	case pem && strings.Contains(line, "PRIVATE KEY"),
		strings.HasPrefix(line, "PuTTY-User-Key-File-"),
		strings.HasPrefix(line, "AGE-SECRET-KEY-"):
		return badKey("is a private key, which must not leave its owner",
			"put the public key here; if others could see this file, make a new key pair")
	case strings.HasPrefix(line, "---- BEGIN SSH2 PUBLIC KEY"):
		return badKey("is a public key in the format of PuTTY (RFC 4716)", "convert it with `ssh-keygen -i -f FILE`")
	case pem:
		return badKey("is in PEM format, not a line of authorized_keys", "convert a public key with `ssh-keygen -i -m PKCS8 -f FILE`")
	}
	return nil
}

// parseKey reads a line of authorized_keys. A finding that is a warning comes with the key.
func parseKey(line string) (key, *finding) {
	if !utf8.ValidString(line) {
		return key{}, badKey("is not UTF-8", "save the file as UTF-8")
	}
	public, comment, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		// the parser's own words may quote the line
		return key{}, badKey("is not an ssh public key", "a line is like: ssh-ed25519 AAAA… NAME")
	}
	kind := public.Type()
	if _, ok := public.(*ssh.Certificate); ok {
		return key{}, badKey("is a certificate, not a key", "put the public key itself here")
	}
	if kind == ssh.InsecureKeyAlgoDSA {
		return key{}, badKey("is a DSA key, which is too weak and which sshd refuses", "make a new one with `ssh-keygen -t ed25519`")
	}
	if !slices.Contains(keyTypes, kind) {
		return key{}, badKey("is a key of a type that sshd does not take", "make one with `ssh-keygen -t ed25519`")
	}
	if bits := rsaBits(public); bits > 0 && bits < minRSA {
		return key{}, badKey(fmt.Sprintf("is an RSA key of %d bits, which is too weak", bits), "make a new one with `ssh-keygen -t ed25519`")
	}
	k := key{
		blob: string(public.Marshal()),
		// written again, so that sshd reads what was checked here
		line: strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(public)), "\n"),
	}
	if len(options) > 0 {
		k.line = strings.Join(options, ",") + " " + k.line
	}
	if comment != "" {
		k.line += " " + comment
	}
	// a comment is data, but a control character has no business in a line that people read
	if strings.ContainsFunc(k.line, unicode.IsControl) {
		return key{}, badKey("holds a control character", "write options and comment in printable characters")
	}
	if len(options) == 0 {
		return k, nil
	}
	names, f := checkOptions(options)
	if f != nil {
		return key{}, f
	}
	k.forced = slices.Contains(names, "command")
	message := fmt.Sprintf("has options (%s), which restrict what the key can do", strings.Join(names, ", "))
	if k.forced {
		message = fmt.Sprintf("has options (%s): the key runs only that command, nobody can log in with it", strings.Join(names, ", "))
	}
	return k, &finding{diag.Warning, codeKeyOptions, message, "they are kept; remove them if that is not meant"}
}

func rsaBits(public ssh.PublicKey) int {
	if crypto, ok := public.(ssh.CryptoPublicKey); ok {
		if k, ok := crypto.CryptoPublicKey().(*rsa.PublicKey); ok {
			return k.N.BitLen()
		}
	}
	return 0
}

// checkOptions returns the names of options that sshd knows, in lower case. With one that it does
// not know, or a value that is not quoted, sshd ignores the line.
func checkOptions(options []string) ([]string, *finding) {
	var names []string
	for _, option := range options {
		name, value, hasValue := strings.Cut(option, "=")
		name = strings.ToLower(name)
		switch {
		case name == "cert-authority" || name == "principals":
			return nil, badKey("lets in anyone who holds a certificate of this key", "put the public key of each person here")
		case hasValue && slices.Contains(valueOptions, name) && isQuoted(value):
		case !hasValue && slices.Contains(flagOptions, name):
		default:
			return nil, badKey("has options that sshd does not understand, so that it would ignore the key",
				"see authorized_keys in the manual page sshd(8)")
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// isQuoted reports whether a value is one quoted string to the end, as sshd wants it.
func isQuoted(value string) bool {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return false
	}
	inner := strings.ReplaceAll(value[1:len(value)-1], `\"`, "")
	return !strings.Contains(inner, `"`) && !strings.HasSuffix(value, `\"`)
}
