package pins

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
)

// nix32Digits are the digits of Nix's base 32, which leaves out e, o, u and t.
const nix32Digits = "0123456789abcdfghijklmnpqrsvwxyz"

// decodeHash gives the bytes of a SHA-256 hash in one of the forms that all of Nix's fetchTarball
// take: "sha256-" and base 64, Nix's base 32, or hexadecimal. It is nil for anything else.
func decodeHash(text string) []byte {
	if encoded, ok := strings.CutPrefix(text, "sha256-"); ok {
		// the decoder would pass over line breaks
		if sum, err := base64.StdEncoding.Strict().DecodeString(encoded); err == nil &&
			len(sum) == sha256.Size && !strings.ContainsAny(encoded, "\r\n") {
			return sum
		}
		return nil
	}
	switch len(text) {
	case hex.EncodedLen(sha256.Size):
		if sum, err := hex.DecodeString(text); err == nil && text == strings.ToLower(text) {
			return sum
		}
	case (sha256.Size*8 + 4) / 5:
		return decodeNix32(text)
	}
	return nil
}

// decodeNix32 reads digits of five bits each, the last digit being the lowest of the number and the
// first byte the lowest of the hash.
func decodeNix32(text string) []byte {
	// one byte more takes up what may not be there
	sum := make([]byte, sha256.Size+1)
	for n := range len(text) {
		digit := strings.IndexByte(nix32Digits, text[len(text)-1-n])
		if digit < 0 {
			return nil
		}
		shifted := uint16(digit) << (n * 5 % 8)
		at := n * 5 / 8
		sum[at] |= byte(shifted)
		if at+1 < len(sum) {
			sum[at+1] |= byte(shifted >> 8)
		}
	}
	if sum[sha256.Size] != 0 {
		return nil
	}
	return sum[:sha256.Size]
}

// sameHash compares two hashes in whatever form.
func sameHash(a, b string) bool {
	x, y := decodeHash(a), decodeHash(b)
	return x != nil && bytes.Equal(x, y)
}
