package pins

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixbase32"
)

// decodeHash returns the bytes of a SHA-256 hash in one of the forms that every Nix's fetchTarball
// accepts: "sha256-" and base 64, Nix's base 32, or lower-case hexadecimal. It returns nil for anything
// else. (nixhash.ParseAny of go-nix accepts more: bare base 64, upper case, line breaks in base 64.)
func decodeHash(text string) []byte {
	var sum []byte
	var err error
	switch encoded, isSRI := strings.CutPrefix(text, "sha256-"); {
	case isSRI && strings.ContainsAny(encoded, "\r\n"): // which the decoder would skip
		return nil
	case isSRI:
		sum, err = base64.StdEncoding.Strict().DecodeString(encoded)
	case len(text) == hex.EncodedLen(sha256.Size) && text == strings.ToLower(text):
		sum, err = hex.DecodeString(text)
	case len(text) == nixbase32.EncodedLen(sha256.Size):
		sum, err = nixbase32.DecodeString(text)
	}
	if err != nil || len(sum) != sha256.Size {
		return nil
	}
	return sum
}

// sameHash reports whether two hashes are the same, in whatever form.
func sameHash(a, b string) bool {
	x, y := decodeHash(a), decodeHash(b)
	return x != nil && bytes.Equal(x, y)
}
