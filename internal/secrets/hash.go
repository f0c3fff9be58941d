package secrets

// Password hashes as crypt(3) of libxcrypt 4.4 takes them; crypt(5) describes the methods. A hash is good
// only if a login can pass: crypt(3) accepts its setting, and could return exactly this text for some
// password. FuzzCheckHash compares this file with the real function.

import (
	"regexp"
	"strings"

	"k3splan/internal/diag"
)

// checkSetting returns what is wrong with a hash of a method that NixOS takes: NixOS, since 23.05, builds
// libxcrypt with the methods that it calls strong. other is true for everything else.
func checkSetting(hash string) (wrong string, other bool) {
	method, rest, found := strings.Cut(strings.TrimPrefix(hash, "$"), "$")
	if !found || hash[0] != '$' {
		return "", true
	}
	check := map[string]func(rest string) string{
		"6": checkSHA512, "y": checkYescrypt, "gy": checkYescrypt, "7": checkScrypt,
		"2a": checkBcrypt, "2b": checkBcrypt, "2y": checkBcrypt,
	}[method]
	if check == nil {
		return "", true
	}
	return check(rest), false
}

const (
	damagedHash = "is a damaged password hash: a part of it is missing, or there is too much, or it holds characters that crypt(3) does not take"
	slowHash    = "is a password hash of so high a cost that a login would take minutes, or all memory"
)

// The highest costs that are accepted. A login with them takes about ten seconds, or 1 GiB of memory.
const (
	maxSHA512Rounds = 20_000_000
	maxBcryptCost   = 17
	maxScryptMemory = 1 << 30 // bytes
	maxScryptWork   = 1 << 26 // blocks of 128 bytes
)

// neverInSalt are printable characters that no method of crypt(3) takes in a setting.
const neverInSalt = `!*:;\`

// sha512Shape: rounds are optional; an unsalted hash is taken by crypt(3) and refused here. The last of
// the 86 characters encodes two bits.
var sha512Shape = regexp.MustCompile(`^(?:rounds=([1-9][0-9]{3,8})\$)?[!-~]{1,16}\$[./0-9A-Za-z]{85}[./01]$`)

func checkSHA512(rest string) string {
	parts := sha512Shape.FindStringSubmatch(rest)
	salt := rest
	if parts != nil && parts[1] != "" {
		salt = rest[len("rounds=")+len(parts[1])+1:]
	}
	switch {
	case parts == nil, strings.ContainsAny(salt, neverInSalt), strings.Count(salt, "$") != 1, strings.HasPrefix(salt, "rounds="):
		return damagedHash
	case len(parts[1]) > 8 || len(parts[1]) == 8 && parts[1] > "20000000":
		return slowHash
	}
	return ""
}

// bcryptShape: the last characters of the 22 of the salt and the 31 of the hash encode fewer bits.
var bcryptShape = regexp.MustCompile(`^(0[4-9]|[12][0-9]|3[01])\$[./0-9A-Za-z]{21}[.Oeu][./0-9A-Za-z]{30}[.CGKOSWaeimquy26]$`)

func checkBcrypt(rest string) string {
	parts := bcryptShape.FindStringSubmatch(rest)
	switch {
	case parts == nil:
		return damagedHash
	case parts[1] > "17":
		return slowHash
	}
	return ""
}

// cryptAlphabet are the digits of base 64 in crypt(3), least significant first where it matters.
const cryptAlphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// hash32Shape is a hash of 32 bytes; the last of its 43 characters encodes four bits.
var hash32Shape = regexp.MustCompile(`^[./0-9A-Za-z]{42}[./0-9A-D]$`)

// cost is that of scrypt and yescrypt.
type cost struct {
	log2N      uint32
	r, p, time uint64
}

func (c cost) check() string {
	switch {
	case c.log2N < 2 || c.log2N > 63 || c.r < 1 || c.p < 1 || c.r*c.p >= 1<<30:
		return damagedHash
	case c.log2N > 30 || c.r<<c.log2N > maxScryptMemory/128 || (c.r<<c.log2N)*c.p*(c.time+1) > maxScryptWork:
		return slowHash
	}
	return ""
}

// checkScrypt: a digit for log2 of N, five for r, five for p, the salt, the hash.
func checkScrypt(rest string) string {
	end := strings.LastIndexByte(rest, '$') // a salt may hold some, too
	if end < 11 || end > 11+maxScryptSalt || strings.Trim(rest[:11], cryptAlphabet) != "" || !hash32Shape.MatchString(rest[end+1:]) {
		return damagedHash
	}
	digits, more, _ := strings.Cut(rest[11:end], "$") // behind the first $ anything is salt (verify_salt in crypt-scrypt.c)
	if strings.Trim(digits, cryptAlphabet) != "" || strings.ContainsFunc(more, func(c rune) bool { return c <= ' ' || c > '~' }) || strings.ContainsAny(more, neverInSalt) {
		return damagedHash
	}
	setting := rest[:end]
	number := func(digits string) (n uint64) {
		for i := range len(digits) {
			n |= uint64(strings.IndexByte(cryptAlphabet, digits[i])) << (6 * i)
		}
		return n
	}
	return cost{uint32(number(setting[:1])), number(setting[1:6]), number(setting[6:11]), 0}.check()
}

// maxScryptSalt is in characters: libxcrypt's buffer for all of the hash has 384 bytes.
const maxScryptSalt = 320

// Modes of yescrypt, the first number of a setting: that of classic scrypt, the one that writes its memory
// once, and the only other one that is implemented, which everyone uses.
const (
	yescryptClassic   = 0
	yescryptWriteOnce = 1
	yescryptDefault   = 47 // "j"
)

// checkYescrypt: parameters, salt and hash, see yescrypt-common.c of libxcrypt.
func checkYescrypt(rest string) string {
	parts := strings.Split(rest, "$")
	if len(parts) != 3 || !isSalt(parts[1]) || !hash32Shape.MatchString(parts[2]) {
		return damagedHash
	}
	numbers := yescryptNumbers{parts[0], true}
	mode := numbers.next(0)
	c := cost{log2N: numbers.next(1), r: uint64(numbers.next(1)), p: 1}
	if numbers.text != "" {
		have := numbers.next(1) // bits; crypt(3) ignores those above 8
		if have&1 != 0 {
			c.p = uint64(numbers.next(2))
		}
		if have&2 != 0 {
			c.time = uint64(numbers.next(1))
		}
		if have&(4|8) != 0 { // for upgrades of hashes and a ROM, which do not exist
			return damagedHash
		}
	}
	switch {
	case !numbers.good || numbers.text != "":
		return damagedHash
	case mode == yescryptClassic && c.time == 0, mode == yescryptWriteOnce:
	case mode == yescryptDefault && (c.log2N > 40 || 1<<c.log2N/c.p > 3):
	default:
		return damagedHash
	}
	return c.check()
}

// yescryptNumbers reads numbers of variable length.
type yescryptNumbers struct {
	text string
	good bool
}

// next returns the next number; the smallest that can be written is least.
func (n *yescryptNumbers) next(least uint32) uint32 {
	digit := n.digit()
	start, end, more, bits := uint32(0), uint32(47), 0, 0
	number := least
	for digit > end && n.good {
		number += (end + 1 - start) << bits
		start = end + 1
		end = start + (62-end)/2
		more++
		bits += 6
	}
	number += (digit - start) << bits
	for range more {
		bits -= 6
		number += n.digit() << bits
	}
	return number
}

func (n *yescryptNumbers) digit() uint32 {
	if n.text == "" || !n.good {
		n.good = false
		return 0
	}
	digit := strings.IndexByte(cryptAlphabet, n.text[0])
	n.text = n.text[1:]
	if digit < 0 {
		n.good = false
		return 0
	}
	return uint32(digit)
}

// isSalt reports whether a text encodes whole bytes, at most 64: four characters for three of them.
func isSalt(text string) bool {
	if len(text) > 86 || strings.Trim(text, cryptAlphabet) != "" {
		return false
	}
	var last int
	if text != "" {
		last = strings.IndexByte(cryptAlphabet, text[len(text)-1])
	}
	switch len(text) % 4 {
	case 1:
		return false
	case 2:
		return last < 4 // 2 of 6 bits
	case 3:
		return last < 16 // 4 of 6 bits
	}
	return true
}

// notTaken matches hashes that NixOS does not take, so that the message can say so.
var notTaken = []struct {
	shape   *regexp.Regexp
	message string
}{
	{regexp.MustCompile(`^\$5\$`), "is a sha256-crypt hash, which NixOS no longer takes: every login with it would fail"},
	{regexp.MustCompile(`^\$2x\$`), "is a bcrypt hash of the faulty kind 2x, which NixOS no longer takes: every login with it would fail"},
	{regexp.MustCompile(`^(?:\$1\$|\$apr1\$|\$md5|\$sha1|\$3\$|_[./0-9A-Za-z]{19}$)`), "is a hash of an old kind (MD5, SHA-1, NT or DES), which is too weak and which NixOS no longer takes"},
	{regexp.MustCompile(`^[./0-9A-Za-z]{13}$`), "is plain text or a DES hash, and both are too weak"},
}

// CheckHash checks the content of a password file: one line with a hash that NixOS takes. The problems
// have no File, which the caller adds, and show nothing of the content.
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
	wrong, other := checkSetting(hash)
	if wrong == "" && !other {
		return nil
	}
	if trimmed := strings.TrimSpace(hash); trimmed != hash && trimmed != "" {
		if wrong, other := checkSetting(trimmed); wrong == "" && !other {
			return bad("has blanks around the hash, which would become part of it")
		}
	}
	if strings.Contains(hash, "$") && strings.Contains(hash, ":") {
		return bad("holds a colon: of a line of a shadow file, only the second field is the hash")
	}
	if !other {
		return bad(wrong)
	}
	for _, known := range notTaken {
		if known.shape.MatchString(hash) {
			return bad(known.message)
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
