// Package secrets finds, checks and makes what a project must not show: the tokens of the k3s cluster, the
// admins' password hashes, the private ssh keys of the hosts. People's public ssh keys lie beside them.
//
// [Open] reads a project's folder once and returns where the secrets of each host are and which keys open
// it, with every problem. It returns paths, never contents: a secret is a path until it is copied to its
// machine. Nothing here prints, and no problem or error quotes from a secret.
//
// At rest, secrets are plain files, files encrypted with age, or entries of pass. A [Vault] reads and
// writes them, by the same names in all three. Public keys are always plain files. What a file among the
// secrets is, and whose, is decided in names.go alone.
package secrets

import (
	"path"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/files"
)

// Dir is the folder of the secrets, relative to the project.
const Dir = files.SecretsDir

// The codes of this package's problems. They are stable.
const (
	codeMissing      = "secret-missing"
	codeInvalid      = "secret-invalid"
	codeInFile       = "secret-in-file"
	codeWeak         = "secret-weak"
	codeReadable     = "secret-readable"
	codeDuplicate    = "secret-duplicate"
	codeOrphan       = "file-orphan"
	codeKeyMissing   = "ssh-key-missing"
	codeKeyInvalid   = "ssh-key-invalid"
	codeKeyOptions   = "ssh-key-options"
	codeKeyDuplicate = "ssh-key-duplicate"
	codeLocked       = "secret-locked"
	codePlain        = "secret-plain"
	codeRecipients   = "recipients-invalid"
)

// finding is a problem without its place. It has no value, and its message and hint consist of fixed words,
// counts and file names, so that it cannot show a secret.
type finding struct {
	severity diag.Severity
	code     string
	message  string
	hint     string
}

func (f finding) at(file string, line int) diag.Problem {
	return diag.Problem{File: file, Line: line, Severity: f.severity, Code: f.code, Message: f.message, Hint: f.hint}
}

func inSecrets(name string) string { return path.Join(Dir, name) }

// oneLine takes the one line out of a file that must have only one, with or without a final
// newline. A second line, a carriage return or a byte-order mark would become part of the secret.
func oneLine(content []byte) (string, *finding) {
	text := string(content)
	bad := func(message, hint string) (string, *finding) {
		return "", &finding{diag.Error, codeInvalid, message, hint}
	}
	switch {
	case isUTF16(text):
		return bad("is UTF-16, which would become part of the secret", "save it as UTF-8 without byte-order mark")
	case strings.HasPrefix(text, byteOrderMark):
		return bad("starts with a byte-order mark, which would become part of the secret", "save it as UTF-8 without byte-order mark")
	case strings.TrimSpace(text) == "":
		return bad("is empty", "")
	case strings.Contains(text, "\r"):
		return bad("has Windows line ends, which would become part of the secret", "save it with Unix line ends")
	}
	text = strings.TrimSuffix(text, "\n")
	if strings.Contains(text, "\n") {
		return bad("has more than one line", "leave the one line that holds the secret")
	}
	return text, nil
}

const byteOrderMark = "\xef\xbb\xbf"

func isUTF16(text string) bool {
	return strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff")
}
