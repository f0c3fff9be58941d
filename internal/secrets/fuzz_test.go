package secrets

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"k3splan/internal/diag"

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

func FuzzCheckHash(f *testing.F) {
	for _, hash := range hashesOfHello {
		f.Add(hash)
		f.Add(hash + "\n")
	}
	for _, seed := range []string{"", "hunter2", md5OfHello, desOfHello, sha256OfHello, "!", "olaf:$6$x:1::"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content string) {
		problems := CheckHash([]byte(content))
		for _, p := range problems {
			checkProblem(t, p)
		}
		if len(problems) > 0 {
			return
		}
		hash := strings.TrimSuffix(content, "\n")
		methods := []string{"$6$", "$y$", "$gy$", "$7$", "$2a$", "$2b$", "$2y$"}
		known := false
		for _, method := range methods {
			known = known || strings.HasPrefix(hash, method)
		}
		const alphabet = "$./=0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
		if !known || len(hash) < 50 || strings.Trim(hash, alphabet) != "" {
			t.Fatalf("not a hash: %q", content)
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	k := newKey(f)
	for _, seed := range []string{
		"", k, k + " olaf\n", "\ufeff# x\r\n" + k + "\r\n", `restrict,command="a \"b\" c" ` + k + ` ''${x}"`, rsaKey(1024), rsaKey(2048) + " x", dsaKey(),
		securityKey(f), certificate(f), "cert-authority " + k, "-----BEGIN OPENSSH PRIVATE KEY-----\nx", k + "\n" + k + "\nrubbish\n", "\xff\xfe",
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
