package secrets

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

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

// minPasswordLength is the length in characters below which a password is weak. The hash slows down a
// guess, but anyone who has the disk has time.
const minPasswordLength = 8

// commonPasswords are the first guesses; shorter ones are weak in any case.
var commonPasswords = []string{
	"password", "passwort", "password1", "12345678", "123456789", "1234567890", "qwertyui", "qwertyuiop", "qwertzui", "qwertzuiop", "iloveyou",
	"changeme", "letmein1", "trustno1", "sunshine", "superman", "computer", "internet", "admin123", "administrator", "kubernetes", "abcdefgh",
}

// Weakness returns what is weak about a password, fit to follow "the password", or "". names are those of
// hosts, admins and the like. The words show nothing of it.
func Weakness(password []byte, names []string) string {
	text := strings.ToLower(strings.TrimSpace(string(password)))
	runes := []rune(text)
	isName := func(name string) bool { return name != "" && text == strings.ToLower(name) }
	switch {
	case slices.ContainsFunc(names, isName):
		return "is a name of the plan and can be guessed"
	case len(runes) < minPasswordLength:
		return fmt.Sprintf("is shorter than %d characters and can be guessed", minPasswordLength)
	case slices.Contains(commonPasswords, text):
		return "is one of the most common ones and can be guessed"
	case strings.Count(text, string(runes[0])) == len(runes):
		return "is one character repeated and can be guessed"
	}
	return ""
}
