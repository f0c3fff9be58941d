package secrets

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"k3splan/internal/diag"

	"github.com/tredoe/osutil/user/crypt/sha512_crypt"
)

const (
	// hashRounds makes one try cost some tenths of a second on a small machine: the 5000 that
	// crypt(3) takes by itself are too few today.
	hashRounds = 250_000
	// maxPassword is in bytes: crypt(3) of libxcrypt refuses 512 and more.
	maxPassword = 511
)

// HashPassword returns the sha512-crypt hash of a password, with a random salt, as NixOS takes it
// in hashedPasswordFile (without a final newline). A password that could not be typed at a login
// is refused; the error does not show it.
func HashPassword(password []byte) (string, error) {
	switch {
	case len(password) == 0:
		return "", errors.New("the password is empty")
	case len(password) > maxPassword:
		return "", fmt.Errorf("the password is longer than %d bytes, more than a login takes", maxPassword)
	case bytes.ContainsAny(password, "\x00\r\n"):
		return "", errors.New("the password holds a line break or a null byte, which a login cannot take")
	}
	saltMaker := sha512_crypt.GetSalt()
	salt := saltMaker.GenerateWRounds(sha512_crypt.SaltLenMax, hashRounds)
	hash, err := sha512_crypt.New().Generate(password, salt)
	if err != nil {
		return "", fmt.Errorf("hash the password: %w", err)
	}
	return hash, nil
}

// The shapes are those of crypt(5) of libxcrypt 4.4. NixOS, since 23.05, builds it with the
// methods that libxcrypt calls strong, and a login against any other hash always fails.
var strongHash = regexp.MustCompile(`^(?:` + strings.Join([]string{
	`\$6\$(?:rounds=[1-9][0-9]{3,8}\$)?[./0-9A-Za-z]{1,16}\$[./0-9A-Za-z]{86}`,       // sha512
	`\$g?y\$[./0-9A-Za-z]+\$[./0-9A-Za-z]{0,86}\$[./0-9A-Za-z]{43}`,                  // yescrypt, gost-yescrypt
	`\$2[aby]\$(?:0[4-9]|[12][0-9]|3[01])\$[./0-9A-Za-z]{21}[.Oeu][./0-9A-Za-z]{31}`, // bcrypt
	`\$7\$[./0-9A-Za-z]{11,97}\$[./0-9A-Za-z]{43}`,                                   // scrypt
}, "|") + `)$`)

// notTaken knows hashes that NixOS does not take, so that the message can say so.
var notTaken = []struct {
	shape   *regexp.Regexp
	message string
}{
	{regexp.MustCompile(`^\$5\$`), "is a sha256-crypt hash, which NixOS no longer takes: every login with it would fail"},
	{regexp.MustCompile(`^\$2x\$`), "is a bcrypt hash of the faulty kind 2x, which NixOS no longer takes: every login with it would fail"},
	{regexp.MustCompile(`^(?:\$1\$|\$apr1\$|\$md5|\$sha1|\$3\$|_[./0-9A-Za-z]{19}$)`), "is a hash of an old kind (MD5, SHA-1, NT or DES), which is too weak and which NixOS no longer takes"},
	{regexp.MustCompile(`^[./0-9A-Za-z]{13}$`), "is plain text or a DES hash, and both are too weak"},
	{regexp.MustCompile(`^\$(?:6|y|gy|7|2[aby])\$`), "is a damaged password hash: a part of it is missing or there is too much"},
}

// CheckHash judges the content of a password file: one line with a hash that NixOS takes. The
// problems lack only the File, which the caller knows; they show nothing of the content.
func CheckHash(content []byte) diag.Problems {
	if f := checkHash(content, "k3splan passwd"); f != nil {
		return diag.Problems{f.at("", 0)}
	}
	return nil
}

// checkHash names command as the way to mend the file.
func checkHash(content []byte, command string) *finding {
	bad := func(message string) *finding {
		return &finding{diag.Error, codeInvalid, message, "run `" + command + "`"}
	}
	hash, f := oneLine(content)
	if f != nil {
		return bad(f.message)
	}
	if strongHash.MatchString(hash) {
		return nil
	}
	if strongHash.MatchString(strings.TrimSpace(hash)) {
		return bad("has blanks around the hash, which would become part of it")
	}
	if strings.Contains(hash, "$") && strings.Contains(hash, ":") {
		return bad("holds a colon: of a line of a shadow file, only the second field is the hash")
	}
	for _, other := range notTaken {
		if other.shape.MatchString(hash) {
			return bad(other.message)
		}
	}
	switch {
	case strings.HasPrefix(hash, "!") || strings.HasPrefix(hash, "*"):
		return bad("locks the account: the admin could never use sudo")
	case strings.HasPrefix(hash, "$"):
		return bad("is not a password hash of a kind that NixOS takes")
	default:
		return bad("is plain text, not a password hash")
	}
}
