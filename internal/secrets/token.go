package secrets

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"k3splan/internal/diag"
)

// TokenKind says what a token is for. It is also the name of the token's file in [Dir].
type TokenKind string

const (
	// InitToken lets servers join, and agents too where there is no AgentToken. k3s encrypts its
	// datastore's bootstrap data with it.
	InitToken TokenKind = "init-token"
	// AgentToken lets only agents join.
	AgentToken TokenKind = "agent-token"
)

// minToken is the length in bytes below which a token can be guessed.
const minToken = 16

var (
	// kubeadm's id.secret, which k3s takes for an entry in a running cluster's token list.
	bootstrapToken = regexp.MustCompile(`^(?:K10[0-9a-f]*::)?[a-z0-9]{6}\.[a-z0-9]{16}$`)
	// k3s's full form: the hash of the cluster's CA (may be left out), the user, the password.
	// k3s refuses everything else that starts with K10.
	fullToken = regexp.MustCompile(`^K10(?:[0-9a-f]{64})?::(server|node):(.+)$`)
)

// NewToken returns a random token of 256 bits, as 64 hexadecimal digits: such a word can be
// neither a bootstrap token nor start with k3s's K10.
func NewToken() (string, error) {
	random := make([]byte, 32)
	if _, err := rand.Read(random); err != nil {
		return "", fmt.Errorf("make a token: %w", err)
	}
	return hex.EncodeToString(random), nil
}

// CheckToken judges the content of a token file: one line, of the kind that k3s takes there. The
// problems have no File, which the caller adds, and show nothing of the content.
func CheckToken(kind TokenKind, content []byte) diag.Problems {
	if _, f := parseToken(kind, content); f != nil {
		return diag.Problems{f.at("", 0)}
	}
	return nil
}

// parseToken also returns the token's password: what remains without the full form's prefix.
func parseToken(kind TokenKind, content []byte) (string, *finding) {
	bad := func(message, hint string) (string, *finding) {
		return "", &finding{diag.Error, codeInvalid, message, hint}
	}
	token, f := oneLine(content)
	if f != nil {
		return "", f
	}
	if !utf8.ValidString(token) || strings.ContainsFunc(token, invisible) {
		return bad("holds a blank or an invisible character", "a token is one word; for a running cluster use the one in /var/lib/rancher/k3s/server/"+serverFile(kind))
	}
	if bootstrapToken.MatchString(token) {
		return bad("is a bootstrap token (id.secret), which is the wrong kind: it is short-lived and cannot start a server",
			replaceHint(kind))
	}
	password := token
	if strings.HasPrefix(token, "K10") {
		parts := fullToken.FindStringSubmatch(token)
		switch {
		case parts == nil:
			return bad("starts with K10 but is not a full k3s token (K10HASH::server:PASSWORD), and k3s would refuse it", replaceHint(kind))
		case kind == InitToken && parts[1] == "node":
			return bad("is an agent's token (::node:), which is the wrong kind: servers need a ::server: token",
				"move it to "+inSecrets(string(AgentToken)))
		case kind == AgentToken && parts[1] == "server":
			return bad("is a server's token (::server:), which is the wrong kind: agents would hold the right to join as servers",
				"move it to "+inSecrets(string(InitToken)))
		}
		password = parts[2]
	}
	if len(password) < minToken {
		return password, &finding{diag.Warning, codeWeak,
			fmt.Sprintf("is shorter than %d characters and can be guessed", minToken),
			"a new cluster should start with a random token: remove the file and run `k3splan setup`"}
	}
	return password, nil
}

func replaceHint(kind TokenKind) string {
	return "for a new cluster remove the file and run `k3splan setup`; for a running one use the token in /var/lib/rancher/k3s/server/" + serverFile(kind)
}

// serverFile is where k3s keeps a token of this kind on a server.
func serverFile(kind TokenKind) string {
	if kind == AgentToken {
		return "agent-token"
	}
	return "token"
}

func invisible(r rune) bool { return unicode.IsSpace(r) || !unicode.IsGraphic(r) }

// TokenPassword is the part of a token that proves the right to join, without the prefix of the
// full form (K10HASH::server:PASSWORD). The error is fit to be shown.
func TokenPassword(kind TokenKind, content []byte) (string, error) {
	password, f := parseToken(kind, content)
	if f != nil && f.severity == diag.Error {
		return "", errors.New(f.message)
	}
	return password, nil
}

// IsFullToken reports whether a token is in the full form, which also pins the cluster's CA.
func IsFullToken(content []byte) bool { return strings.HasPrefix(string(content), "K10") }
