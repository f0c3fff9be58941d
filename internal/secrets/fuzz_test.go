package secrets

import (
	"bufio"
	"fmt"
	mathrand "math/rand/v2"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"

	"k3splan/internal/diag"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

// checkProblem wants a problem without value, in words that can be read.
func checkProblem(t *testing.T, p diag.Problem) {
	t.Helper()
	if p.Value != "" || p.Column != "" || p.Code == "" || p.Message == "" {
		t.Fatalf("not a problem about a secret: %#v", p)
	}
	for _, text := range []string{p.Message, p.Hint} {
		if strings.ContainsFunc(text, unicode.IsControl) || len(text) > 250 {
			t.Fatalf("not fit to be read: %q", text)
		}
	}
}

func FuzzCheckToken(f *testing.F) {
	for _, seed := range []string{"", "0123456789abcdef\n", "abcdef.0123456789abcdef", "K10::server:0123456789abcdef", "K10::node:x", "\ufeffx", "a b", "x\r\n"} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, content string, agent bool) {
		kind := InitToken
		if agent {
			kind = AgentToken
		}
		problems := CheckToken(kind, []byte(content))
		for _, p := range problems {
			checkProblem(t, p)
			if again := CheckToken(kind, []byte(content+"\n\n")); len(again) == 0 {
				t.Fatal("a blank line mends a token")
			}
		}
		if problems.Errors() > 0 {
			return
		}
		word := strings.TrimSuffix(content, "\n")
		if word == "" || !utf8.ValidString(word) || len(strings.Fields(word)) != 1 || strings.Fields(word)[0] != word || strings.ContainsFunc(word, unicode.IsControl) {
			t.Fatalf("not one word: %q", content)
		}
		if len(word) < minToken && len(problems) == 0 {
			t.Fatalf("too short and no warning: %q", content)
		}
		if strings.HasPrefix(word, "K10") && strings.Contains(word, "::server:") == agent && strings.Contains(word, "::node:") != agent {
			t.Fatalf("the wrong kind: %q", content)
		}
	})
}

// FuzzCheckHash compares CheckHash with the real crypt(3): what is taken can be the hash of a password,
// and what crypt(3) makes of the input, by a method that NixOS takes, is taken.
func FuzzCheckHash(f *testing.F) {
	for _, hash := range hashesOfHello {
		f.Add(hash)
		f.Add(hash + "\n")
	}
	for _, seed := range []string{
		"", "hunter2", md5OfHello, desOfHello, sha256OfHello, "!", "olaf:$6$x:1::", "$6$rounds=1000$a-b$", "$y$j75/.$a/$", "$y$.75..$abcd$", "$y$/750./$abc/$",
		"$y$j75$abc/$b", "$7$0/..../....abc$", "$y$5$$SJq5Nf1y3/Io1IvkGBmc11y3/Io1Ivkma66L.wiz59/", "$2b$04$abcdefghijklmnopqrstuu", "$gy$j35$$", "$y$.00T$$", "$y$j0k.$a/$", "$7$00....0....$$", "$7$00....0....$=$", "$7$00....0....a$-,~$", "$7$00....0....a$:$", "$7$0/..../....abc$PIQGS1IJCK4CYha7o5Ym6ztz0btRu8W4Gcp/1/6v.x6",
	} {
		f.Add(seed)
	}
	crypt := startCrypt(f)
	f.Fuzz(func(t *testing.T, content string) {
		problems := CheckHash([]byte(content))
		for _, p := range problems {
			checkProblem(t, p)
		}
		hash := strings.TrimSuffix(content, "\n")
		if len(problems) == 0 {
			known := false
			for _, method := range strongMethods {
				known = known || strings.HasPrefix(hash, method)
			}
			if !known || len(hash) < 50 || strings.ContainsFunc(hash, func(r rune) bool { return r <= ' ' || r > '~' }) {
				t.Fatalf("not a hash: %q", content)
			}
		}
		if crypt != nil && !tooSlowToTry(hash) {
			agree(t, crypt, hash)
		}
	})
}

// agree fails if CheckHash and crypt(3) differ about a hash or a setting.
func agree(t *testing.T, crypt func(setting string) string, hash string) {
	t.Helper()
	made := crypt(hash)
	if len(CheckHash([]byte(hash))) == 0 && !sameSetting(made, hash) {
		t.Fatalf("no login passes with %q: crypt(3) makes %q", hash, made)
	}
	for _, method := range strongMethods {
		if strings.HasPrefix(made, method) && !unsalted.MatchString(made) {
			if wrong := CheckHash([]byte(made)); len(wrong) > 0 {
				t.Fatalf("crypt(3) makes %q, which is refused: %s", made, wrong[0].Message)
			}
		}
	}
}

// Settings made of what settings are made of: the fuzzer seldom finds a valid one.
func TestCheckHashAgreesWithCryptOnRandomSettings(t *testing.T) {
	crypt := startCrypt(t)
	if crypt == nil {
		t.Skip("SKIP: there is no crypt(3) to compare with")
	}
	random := mathrand.New(mathrand.NewPCG(1, 2))
	pick := func(from string, most int) string {
		var text strings.Builder
		for range random.IntN(most + 1) {
			text.WriteByte(from[random.IntN(len(from))])
		}
		return text.String()
	}
	taken := 0
	for range 2500 {
		hash := pick(cryptAlphabet, 1) + pick(cryptAlphabet, 30) + strings.Repeat("abc.", 22)
		salt := pick(cryptAlphabet, 6)
		switch random.IntN(5) {
		case 0:
			hash = "$6$" + []string{"", "rounds=1000$", "rounds=" + pick("0129", 5) + "$"}[random.IntN(3)] + pick(cryptAlphabet+"-,!:+ ", 18) + "$" + hash[:86]
		case 1:
			hash = "$2" + []string{"a", "b", "y", "x", ""}[random.IntN(5)] + "$0" + pick("345", 2) + "$" + pick(cryptAlphabet, 3) + hash[:49+random.IntN(3)]
		case 2:
			hash = "$7$" + pick("./0123", 1) + pick("./0", 1) + "...." + pick("./0", 2) + "...." + salt + pick("$", 1) + "$" + hash[:43]
		default:
			hash = []string{"$y$", "$gy$"}[random.IntN(2)] + pick("./jjj0k", 1) + pick("./012345", 1) + pick("./0123456", 1) + pick("./01TG", 3) + "$" + salt + "$" + hash[:43]
		}
		if tooSlowToTry(hash) {
			continue
		}
		agree(t, crypt, hash)
		if strings.HasPrefix(crypt(hash), "$") {
			taken++
		}
	}
	require.Greater(t, taken, 100, "the settings are too wild to show anything")
}

// unsalted sha512 hashes are taken by crypt(3), and refused on purpose.
var unsalted = regexp.MustCompile(`^\$6\$(?:rounds=[0-9]+\$)?\$`)

var strongMethods = []string{"$6$", "$y$", "$gy$", "$7$", "$2a$", "$2b$", "$2y$"}

// sameSetting reports whether two hashes differ at most behind their settings and salts.
func sameSetting(made, hash string) bool {
	end := strings.LastIndexByte(hash, '$')
	if strings.HasPrefix(hash, "$2") {
		end += 22 // the salt is not separated
	}
	return len(made) == len(hash) && len(made) > end && made[:end+1] == hash[:end+1]
}

// tooSlowToTry is what could keep crypt(3) busy for more than a moment: settings of another cost than the
// lowest few.
func tooSlowToTry(hash string) bool {
	switch {
	case strings.HasPrefix(hash, "$6$rounds="):
		return !regexp.MustCompile(`^\$6\$rounds=[0-9]{0,4}(?:\D|$)`).MatchString(hash)
	case strings.HasPrefix(hash, "$2"):
		return !regexp.MustCompile(`^\$2.?\$0[0-4]`).MatchString(hash)
	case strings.HasPrefix(hash, "$7$"):
		return !regexp.MustCompile(`^\$7\$[./0-9A][./0-9]\.{4}[./0-9]\.{4}`).MatchString(hash)
	case strings.HasPrefix(hash, "$y$"), strings.HasPrefix(hash, "$gy$"):
		return !regexp.MustCompile(`^\$g?y\$[./j][./0-6][./0-9][./0-9A-Z]{0,3}\$`).MatchString(hash)
	case strings.HasPrefix(hash, "$"), strings.HasPrefix(hash, "_"):
		return true // not of our methods
	}
	return false
}

// startCrypt starts the system's crypt(3), by way of perl, and returns a function that hashes a word with
// a setting; nil where there is none.
func startCrypt(t testing.TB) func(setting string) string {
	perl := exec.Command("perl", "-e", `$| = 1; while (<STDIN>) { chomp; my $h = crypt("hello", pack("H*", $_)); print defined $h ? $h : "", "\n" }`)
	in, err := perl.StdinPipe()
	require.NoError(t, err)
	out, err := perl.StdoutPipe()
	require.NoError(t, err)
	if err := perl.Start(); err != nil {
		t.Logf("SKIP: the comparison with crypt(3) needs perl: %v", err)
		return nil
	}
	t.Cleanup(func() { _ = in.Close(); _ = perl.Wait() })
	lines := bufio.NewReader(out)
	var mutex sync.Mutex
	crypt := func(setting string) string {
		mutex.Lock()
		defer mutex.Unlock()
		fmt.Fprintf(in, "%x\n", setting)
		line, err := lines.ReadString('\n')
		if err != nil {
			panic(fmt.Sprintf("crypt(3) does not answer about %q: %v", setting, err))
		}
		return strings.TrimSuffix(line, "\n")
	}
	if crypt(hashesOfHello["yescrypt"]) != hashesOfHello["yescrypt"] {
		t.Log("SKIP: the system's crypt(3) does not know yescrypt")
		return nil
	}
	return crypt
}

func FuzzParseKeys(f *testing.F) {
	k := newKey(f)
	for _, seed := range []string{
		"", k, k + " olaf\n", "\ufeff# x\r\n" + k + "\r\n", `restrict,command="a \"b\" c" ` + k + ` ''${x}"`, rsaKey(1024), rsaKey(2048) + " x", dsaKey(),
		securityKey(f), certificate(f), "cert-authority " + k, "-----BEGIN OPENSSH PRIVATE" + " KEY-----\nx", k + "\n" + k + "\nrubbish\n", "\xff\xfe",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content string) {
		keys, problems, whole := parseKeys("secrets/all.pub", []byte(content))
		for _, p := range problems {
			checkProblem(t, p)
			if p.File != "secrets/all.pub" || p.Line > strings.Count(content, "\n")+1 {
				t.Fatalf("stands nowhere: %v", p)
			}
		}
		if whole == (problems.Errors() > 0) {
			t.Fatal("whole, with errors, or the other way round")
		}
		for _, k := range keys {
			if !utf8.ValidString(k.line) || strings.ContainsFunc(k.line, unicode.IsControl) || k.row < 1 || k.row > strings.Count(content, "\n")+1 {
				t.Fatalf("not a line: %q", k.line)
			}
			public, comment, _, rest, err := ssh.ParseAuthorizedKey([]byte(k.line))
			if err != nil || len(rest) > 0 || string(public.Marshal()) != k.blob || !strings.HasSuffix(k.line, comment) {
				t.Fatalf("the line is not the key: %q: %v", k.line, err)
			}
			again, problems, _ := parseKeys("x", []byte(k.line))
			if len(again) != 1 || again[0].line != k.line || problems.Errors() > 0 {
				t.Fatalf("reading what was written gives something else: %q", k.line)
			}
		}
	})
}

// A file's name must not open two ways at once, nor a host by a part of its name.
func FuzzKeyOwner(f *testing.F) {
	for _, seed := range []string{"all.pub", "x-ALL.pub", "firewall.pub", "alice-ulf-2.pub", "ulf.pub", "deploy.pub", "._all.pub"} {
		f.Add(seed)
	}
	hosts := Owners{"ulf": true, "ulf-2": true, "2": true, "wall": true}
	f.Fuzz(func(t *testing.T, name string) {
		owner, isKey, known := hosts.key(name)
		if known != (owner != "") || known && !isKey {
			t.Fatalf("%q: %q %v %v", name, owner, isKey, known)
		}
		if !known {
			return
		}
		before, found := strings.CutSuffix(lower(name), owner+".pub")
		if !found || before != "" && (owner == deployUser || !strings.ContainsAny(before[len(before)-1:], "-_.")) {
			t.Fatalf("%q opens %q", name, owner)
		}
	})
}
