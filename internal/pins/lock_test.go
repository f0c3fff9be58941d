package pins

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
)

const (
	revA = "0123456789abcdef0123456789abcdef01234567"
	revB = "89abcdef0123456789abcdef0123456789abcdef"
	// the three forms of one hash, as nix-hash returns them
	hash32  = "094qif9n4cq4fdg459qzbhg1c6wywawwaaivx0k0x8xhbyx4vwic"
	hash16  = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	hashSRI = "sha256-LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="
)

func lockFS(text string) fstest.MapFS { return fstest.MapFS{File: {Data: []byte(text)}} }

func source(t *testing.T, kind plan.SourceKind, text string) plan.Source {
	t.Helper()
	s, err := plan.ParseSource(kind, text)
	require.NoError(t, err)
	return s
}

func TestRead(t *testing.T) {
	lock, problems := Read(fstest.MapFS{})
	require.Empty(t, problems)
	require.Equal(t, Lock{}, lock)

	const text = `{
  "nixpkgs": {
    "ref": "nixos-24.11",
    "rev": "` + revA + `",
    "url": "https://github.com/NixOS/nixpkgs/archive/` + revA + `.tar.gz",
    "sha256": "` + hash32 + `"
  },
  "disko": {
    "ref": "https://example.org/disko.tar.gz?a=1&b=2",
    "url": "https://example.org/disko.tar.gz?a=1&b=2",
    "sha256": "` + hashSRI + `"
  }
}
`
	lock, problems = Read(lockFS(text))
	require.Empty(t, problems)
	require.Equal(t, Lock{
		Nixpkgs: &Entry{Ref: "nixos-24.11", Rev: revA, URL: "https://github.com/NixOS/nixpkgs/archive/" + revA + ".tar.gz", SHA256: hash32, line: 2},
		Disko:   &Entry{Ref: "https://example.org/disko.tar.gz?a=1&b=2", URL: "https://example.org/disko.tar.gz?a=1&b=2", SHA256: hashSRI, line: 8},
	}, lock)
}

// What is written is read again, and written again byte by byte.
func TestFormat(t *testing.T) {
	for name, lock := range map[string]Lock{
		"nothing": {},
		"one":     {Disko: &Entry{Ref: "latest", Rev: revA, URL: "https://x/y", SHA256: hash16}},
		"both": {
			Nixpkgs: &Entry{Ref: "https://x/y.tar.gz?a&b", URL: "https://x/y.tar.gz?a&b", SHA256: hash32},
			Disko:   &Entry{Ref: "latest", Rev: revB, URL: "http://mirror/y", SHA256: hashSRI},
		},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := lock.format()
			require.NoError(t, err)
			again, problems := parse(data)
			require.Empty(t, problems)
			for _, entry := range []*Entry{again.Nixpkgs, again.Disko} {
				if entry != nil {
					entry.line = 0
				}
			}
			require.Equal(t, lock, again)
			twice, err := again.format()
			require.NoError(t, err)
			require.Equal(t, string(data), string(twice))
			require.NotContains(t, string(data), `\u0026`)
		})
	}
}

func TestReadInvalid(t *testing.T) {
	// entry returns a lock in which nixpkgs' keys, on a line each from the third, are changed
	entry := func(change ...string) string {
		values := map[string]string{"ref": "nixos-24.11", "rev": revA, "url": "https://x.org/y.tar.gz", "sha256": hash32}
		for i := 0; i < len(change); i += 2 {
			values[change[i]] = change[i+1]
		}
		var lines []string
		for _, key := range []string{"ref", "rev", "url", "sha256"} {
			if values[key] != "-" {
				lines = append(lines, fmt.Sprintf("%q: %q", key, values[key]))
			}
		}
		return "{\n\"nixpkgs\": {\n" + strings.Join(lines, ",\n") + "\n}\n}"
	}
	_, problems := Read(lockFS(entry()))
	require.Empty(t, problems)

	for _, test := range []struct {
		name, text   string
		line         int
		column, says string
	}{
		{"empty", "", 1, "", "unexpected EOF"},
		{"cut off", "{\n\"nixpkgs\": {\n", 2, "", "unexpected EOF"},
		{"a conflict of git", "{\n<<<<<<< HEAD\n", 2, "", "invalid character"},
		{"a list", "[]", 1, "", "[ where an object must be"},
		{"null", `{"nixpkgs": null}`, 1, "", "null where an object must be"},
		{"a number", "{\"nixpkgs\": {\n\"ref\": 24.11}}", 2, "", "24.11 where a string must be"},
		{"a second document", "{}\n{}", 2, "", "something follows the end"},
		{"unknown source", "{\n\"nixos\": {\"ref\": [1, {}]}}", 2, "nixos", "unknown key"},
		{"unknown key", strings.Replace(entry(), `"url"`, "\"hash\": null,\n\"url\"", 1), 5, "nixpkgs.hash", "unknown key"},
		{"case", `{"Nixpkgs": {}}`, 1, "Nixpkgs", "unknown key"},
		{"twice", "{\"disko\": {\"ref\": \"latest\",\n\"ref\": \"latest\", \"rev\": \"" + revA + "\", \"url\": \"https://x/y\", \"sha256\": \"" + hash32 + "\"}}", 2, "disko.ref", "duplicate key"},
		{"no ref", entry("ref", "-"), 2, "nixpkgs.ref", "missing"},
		{"a ref that needs no pin", entry("ref", "../nixpkgs"), 2, "nixpkgs.ref", "cannot be pinned"},
		{"no rev", entry("rev", "-"), 2, "nixpkgs.rev", "missing"},
		{"short rev", entry("rev", "0123456"), 2, "nixpkgs.rev", "40 hexadecimal digits"},
		{"upper-case rev", entry("rev", strings.ToUpper(revA)), 2, "nixpkgs.rev", "40 hexadecimal digits"},
		{"not hexadecimal", entry("rev", strings.Repeat("g", 40)), 2, "nixpkgs.rev", "40 hexadecimal digits"},
		{"not the commit", entry("ref", revB), 2, "nixpkgs.rev", "not the commit that ref names"},
		{"no url", entry("url", "-"), 2, "nixpkgs.url", "missing"},
		{"a path", entry("url", "/x.tar.gz"), 2, "nixpkgs.url", "not the URL"},
		{"a wrong scheme", entry("url", "ssh://x/y.tar.gz"), 2, "nixpkgs.url", "not the URL"},
		{"a login", entry("url", "https://me:hunter2@x.org/y.tar.gz"), 2, "nixpkgs.url", "no login"},
		{"no hash", entry("sha256", "-"), 2, "nixpkgs.sha256", "without a hash"},
		{"http without a hash", entry("url", "http://x.org/y.tar.gz", "sha256", ""), 2, "nixpkgs.sha256", "without a hash"},
		{"a wrong hash", entry("sha256", "sha1-LPJNul+wow4m6DsqxbninhsWHlw="), 2, "nixpkgs.sha256", "not a SHA-256 hash"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, problems := Read(lockFS(test.text))
			require.Len(t, problems, 1, problems)
			problem := problems[0]
			require.Equal(t, "plans/lock.json", problem.File)
			require.Equal(t, "lock-invalid", problem.Code)
			require.Equal(t, diag.Error, problem.Severity)
			require.Equal(t, test.line, problem.Line)
			require.Equal(t, test.column, problem.Column)
			require.Contains(t, problem.Message, test.says)
			require.Contains(t, problem.Hint, "k3splan update")
			require.NotContains(t, problem.String(), "hunter2")
		})
	}

	t.Run("everything at once", func(t *testing.T) {
		_, problems := Read(lockFS(`{"nixpkgs": {}, "disko": {"x": 1}}`))
		require.Len(t, problems, 9)
	})
	t.Run("unreadable", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "plans", "lock.json"), 0o755))
		_, problems := Read(os.DirFS(dir))
		require.Len(t, problems, 1)
		require.Contains(t, problems[0].Message, "is a directory")
		require.NotContains(t, problems[0].Message, "lock.json")
	})
}

func FuzzRead(f *testing.F) {
	f.Add(`{"nixpkgs": {"ref": "nixos-24.11", "rev": "` + revA + `", "url": "https://x/y", "sha256": "` + hash32 + `"}}`)
	f.Add(`{"disko": {"ref": "https://x/y.tgz", "url": "https://x/y.tgz", "sha256": "` + hashSRI + `"}, "x": [{}]}`)
	f.Add("{\"nixpkgs\": {\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		lock, problems := parse([]byte(text))
		for _, problem := range problems {
			require.LessOrEqual(t, problem.Line, strings.Count(text, "\n")+1)
			require.NotEmpty(t, problem.Message)
		}
		if len(problems) > 0 {
			return
		}
		data, err := lock.format()
		require.NoError(t, err)
		_, problems = parse(data)
		require.Empty(t, problems)
		for _, entry := range []*Entry{lock.Nixpkgs, lock.Disko} {
			if entry != nil {
				require.NotNil(t, decodeHash(entry.SHA256))
				require.NotEmpty(t, entry.short())
			}
		}
	})
}

func TestDecodeHash(t *testing.T) {
	require.NotNil(t, decodeHash(hash16))
	require.Equal(t, decodeHash(hash16), decodeHash(hash32))
	require.Equal(t, decodeHash(hash16), decodeHash(hashSRI))
	require.True(t, sameHash(hash16, hash32))
	require.False(t, sameHash(hash16, "1"+hash32[1:]))
	require.False(t, sameHash("x", "x"))
	for _, text := range []string{
		"", "x", hash16[1:], hash16 + "0", strings.ToUpper(hash16), "sha256:" + hash32,
		"g" + hash16[1:],
		hash32[1:], "2" + hash32[1:], "z" + hash32[1:], "e" + hash32[1:], strings.ToUpper(hash32),
		hashSRI[:len(hashSRI)-1], hashSRI + "=", hashSRI[:20] + "\n" + hashSRI[20:], "sha256-AAAA", "sha512-" + hashSRI[7:],
		// the last digit has bits that no byte has
		hashSRI[:len(hashSRI)-2] + "R=",
	} {
		require.Nil(t, decodeHash(text), text)
	}
}

func TestCheck(t *testing.T) {
	pinned := func(ref string) *Entry {
		return &Entry{Ref: ref, Rev: revA, URL: "https://x/y", SHA256: hash32, line: 7}
	}
	for _, test := range []struct {
		name         string
		lock         Lock
		nixos, disko string
		needsDisko   bool
		want         []string
	}{
		{name: "no lock", nixos: "24.11", needsDisko: true},
		{name: "as the plan names it", lock: Lock{Nixpkgs: pinned("nixos-24.11")}, nixos: "nixos-24.11"},
		{name: "the same in other words", lock: Lock{Nixpkgs: pinned("nixos-24.11")}, nixos: "24.11"},
		{name: "by hand in other words", lock: Lock{Nixpkgs: pinned("24.11")}, nixos: "https://github.com/NixOS/nixpkgs#nixos-24.11"},
		{name: "another release", lock: Lock{Nixpkgs: pinned("nixos-24.11")}, nixos: "25.05",
			want: []string{`plans/lock.json:7: nixpkgs.ref "nixos-24.11": the plan names "nixos-25.05"; run k3splan update nixpkgs`}},
		{name: "a tag is not a branch", lock: Lock{Nixpkgs: pinned("nixos-24.11")}, nixos: "tags/nixos-24.11",
			want: []string{`plans/lock.json:7: nixpkgs.ref "nixos-24.11": the plan names "tags/nixos-24.11"; run k3splan update nixpkgs`}},
		{name: "a fork", lock: Lock{Nixpkgs: pinned("nixos-24.11")}, nixos: "https://example.org/nixpkgs#nixos-24.11",
			want: []string{`plans/lock.json:7: nixpkgs.ref "nixos-24.11": the plan names "https://example.org/nixpkgs#nixos-24.11"; run k3splan update nixpkgs`}},
		{name: "nonsense is stale", lock: Lock{Nixpkgs: pinned("nixos-20.09")}, nixos: "24.11",
			want: []string{`plans/lock.json:7: nixpkgs.ref "nixos-20.09": the plan names "nixos-24.11"; run k3splan update nixpkgs`}},
		{name: "a path needs no pin", lock: Lock{Nixpkgs: pinned("nixos-24.11")}, nixos: "../nixpkgs"},
		{name: "a search path needs no pin", lock: Lock{Nixpkgs: pinned("nixos-24.11")}, nixos: "<nixpkgs>"},
		{name: "disko not needed", lock: Lock{Nixpkgs: pinned("nixos-24.11"), Disko: pinned("v1.0.0")}, nixos: "24.11"},
		{name: "disko not pinned", lock: Lock{Nixpkgs: pinned("nixos-24.11")}, nixos: "24.11", needsDisko: true,
			want: []string{`plans/lock.json: disko: not pinned, and the plan needs "latest"; run k3splan update disko`}},
		{name: "disko stale", lock: Lock{Nixpkgs: pinned("nixos-24.11"), Disko: pinned("v1.0.0")}, nixos: "24.11", needsDisko: true,
			want: []string{`plans/lock.json:7: disko.ref "v1.0.0": the plan names "latest"; run k3splan update disko`}},
		{name: "disko from a path", lock: Lock{Nixpkgs: pinned("nixos-24.11")}, nixos: "24.11", disko: "/srv/disko", needsDisko: true},
		{name: "only disko pinned", lock: Lock{Disko: pinned("latest")}, nixos: "24.11", needsDisko: true,
			want: []string{`plans/lock.json: nixpkgs: not pinned, and the plan needs "nixos-24.11"; run k3splan update nixpkgs`}},
		{name: "the plan's own mistake is not ours", lock: Lock{Nixpkgs: pinned("nixos-24.11")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			versions := plan.Versions{Disko: source(t, plan.SourceDisko, "latest")}
			if test.nixos != "" {
				versions.NixOS = source(t, plan.SourceNixpkgs, test.nixos)
			}
			if test.disko != "" {
				versions.Disko = source(t, plan.SourceDisko, test.disko)
			}
			var got []string
			for _, problem := range test.lock.Check(versions, test.needsDisko) {
				require.Equal(t, "lock-stale", problem.Code)
				require.Equal(t, diag.Error, problem.Severity)
				got = append(got, problem.String()+"; "+problem.Hint)
			}
			require.Equal(t, test.want, got)
		})
	}
}

func TestOrigin(t *testing.T) {
	lock := Lock{Nixpkgs: &Entry{Ref: "nixos-24.11", Rev: revA, URL: "https://x/y", SHA256: hash32}}
	for _, test := range []struct {
		source plan.Source
		want   Origin
	}{
		{source(t, plan.SourceNixpkgs, "24.11"), Origin{Tarball: &Tarball{"https://x/y", hash32}}},
		{source(t, plan.SourceNixpkgs, "25.05"), Origin{Missing: `nixpkgs is pinned in plans/lock.json at "nixos-24.11", and the plan names "nixos-25.05": run "k3splan update"`}},
		{source(t, plan.SourceDisko, "latest"), Origin{Missing: `disko is not pinned in plans/lock.json: run "k3splan update"`}},
		{source(t, plan.SourceNixpkgs, "<nixpkgs>"), Origin{Lookup: "<nixpkgs>"}},
		{source(t, plan.SourceNixpkgs, "../a b/"), Origin{Path: "../a b"}},
		{source(t, plan.SourceDisko, "/srv/disko"), Origin{Path: "/srv/disko"}},
		{plan.Source{}, Origin{Missing: "the plan names no source"}},
	} {
		require.Equal(t, test.want, lock.Origin(test.source))
	}
}

// `update nixpkgs` and `update disko` at once: one of the two moves was lost.
func TestSaveLosesNoMove(t *testing.T) {
	nixpkgs, disko := source(t, plan.SourceNixpkgs, "nixos-24.11"), source(t, plan.SourceDisko, "latest")
	for range 20 {
		dir := t.TempDir()
		var group sync.WaitGroup
		for _, s := range []plan.Source{nixpkgs, disko} {
			to := &Entry{Ref: s.String(), Rev: revA, URL: "https://example.org/x.tar.gz", SHA256: hash32}
			group.Go(func() { assert.NoError(t, save(dir, []Move{{Source: s, To: to}})) })
		}
		group.Wait()
		lock, problems := Read(os.DirFS(dir))
		require.Empty(t, problems)
		require.NotNil(t, lock.Nixpkgs)
		require.NotNil(t, lock.Disko)
	}
}
