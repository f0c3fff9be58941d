package secrets

import (
	"bytes"
	"errors"
	"fmt"

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
