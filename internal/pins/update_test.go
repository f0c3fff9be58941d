package pins

import (
	"bytes"
	"context"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena/nixtest"
	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/run"
)

// repository is a git repository that offers its commits as a forge does.
type repository struct {
	t   *testing.T
	dir string
}

func newRepository(t *testing.T) repository {
	t.Helper()
	nixtest.Needs(t, "git")
	for name, value := range map[string]string{
		"HOME": t.TempDir(), "XDG_CONFIG_HOME": "", "no_proxy": "127.0.0.1", "GIT_CONFIG_GLOBAL": os.DevNull, "GIT_CONFIG_NOSYSTEM": "1",
		"GIT_AUTHOR_NAME": "Olaf", "GIT_AUTHOR_EMAIL": "olaf@example.org",
		"GIT_COMMITTER_NAME": "Olaf", "GIT_COMMITTER_EMAIL": "olaf@example.org",
	} {
		t.Setenv(name, value)
	}
	r := repository{t, nixtest.TempDir(t)}
	r.git("init", "--quiet", "--initial-branch", "master")
	return r
}

func (r repository) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", append([]string{"-C", r.dir}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(r.t, err)
	return strings.TrimSpace(string(out))
}

// commit makes a commit of default.nix and its archive, and returns the commit.
func (r repository) commit(text string) string {
	r.t.Helper()
	require.NoError(r.t, os.WriteFile(filepath.Join(r.dir, "default.nix"), []byte(text), 0o644))
	r.git("add", "default.nix")
	r.git("commit", "--quiet", "--message", text)
	rev := r.git("rev-parse", "HEAD")
	require.NoError(r.t, os.MkdirAll(filepath.Join(r.dir, "archive"), 0o755))
	r.git("archive", "--prefix", "nixpkgs-"+rev+"/", "--output", "archive/"+rev+".tar.gz", rev)
	return rev
}

func (r repository) url() string { return fileURL(r.dir) }

func fileURL(path string) string { return (&url.URL{Scheme: "file", Path: path}).String() }

// source returns what "URL#ref" in the plan means.
func (r repository) source(kind plan.SourceKind, ref string) plan.Source {
	r.t.Helper()
	return source(r.t, kind, r.url()+"#"+ref)
}

// project makes a project in a folder that no shell and no Nix code could name without quotes.
func project(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), `rack "${x}" 'a b'`)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "plans"), 0o755))
	return dir
}

func readLock(t *testing.T, dir string) Lock {
	t.Helper()
	lock, problems := Read(os.DirFS(dir))
	require.Empty(t, problems)
	return lock
}

// fakeNix puts a nix-prefetch-url on PATH that prints hash32 and notes its arguments, a line each.
func fakeNix(t *testing.T, script string) (calls func() []string) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "calls")
	t.Setenv("CALLS", log)
	if script == "" {
		script = "echo " + hash32
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "nix-prefetch-url"),
		[]byte("#!/bin/sh\necho \"$*\" >> \"$CALLS\"\n"+script+"\n"), 0o755))
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	return func() []string {
		data, err := os.ReadFile(log)
		if err != nil {
			return nil
		}
		require.NoError(t, os.Remove(log))
		return strings.Split(strings.TrimSpace(string(data)), "\n")
	}
}

func update(t *testing.T, dir string, sources ...plan.Source) []Move {
	t.Helper()
	moves, err := Update(context.Background(), dir, sources, io.Discard)
	require.NoError(t, err)
	require.Len(t, moves, len(sources))
	entries, err := os.ReadDir(filepath.Join(dir, "plans"))
	require.NoError(t, err)
	for _, entry := range entries {
		require.Equal(t, "lock.json", entry.Name(), "something was left beside the lock")
	}
	return moves
}

func TestUpdate(t *testing.T) {
	calls := fakeNix(t, "")
	r := newRepository(t)
	first := r.commit("1")
	r.git("branch", "nixos-24.11")
	dir := project(t)
	branch := r.source(plan.SourceNixpkgs, "nixos-24.11")
	archive := r.url() + "/archive/"
	prefetch := func(rev string) string {
		return "--unpack --type sha256 --name source -- " + archive + rev + ".tar.gz"
	}

	moves := update(t, dir, branch)
	require.True(t, moves[0].Moved())
	require.Equal(t, "nixpkgs: "+branch.String()+" pinned at "+first[:12], moves[0].String())
	require.Equal(t, []string{prefetch(first)}, calls())
	data, err := os.ReadFile(filepath.Join(dir, "plans", "lock.json"))
	require.NoError(t, err)
	require.Equal(t, `{
  "nixpkgs": {
    "ref": "`+branch.String()+`",
    "rev": "`+first+`",
    "url": "`+archive+first+`.tar.gz",
    "sha256": "`+hash32+`"
  }
}
`, string(data))
	info, err := os.Stat(filepath.Join(dir, "plans", "lock.json"))
	require.NoError(t, err)
	mask := syscall.Umask(0o077)
	syscall.Umask(mask)
	require.Equal(t, os.FileMode(0o644&^mask), info.Mode().Perm())

	// the branch does not move: nothing is fetched, nothing is written
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	require.NoError(t, os.Chtimes(filepath.Join(dir, "plans", "lock.json"), old, old))
	moves = update(t, dir, branch)
	require.False(t, moves[0].Moved())
	require.Equal(t, "nixpkgs: "+branch.String()+" stays at "+first[:12], moves[0].String())
	require.Empty(t, calls())
	info, err = os.Stat(filepath.Join(dir, "plans", "lock.json"))
	require.NoError(t, err)
	require.True(t, old.Equal(info.ModTime()))

	// it moves, and another source is pinned beside it
	r.git("checkout", "--quiet", "nixos-24.11")
	second := r.commit("2")
	moves = update(t, dir, branch, r.source(plan.SourceDisko, "master"))
	require.Equal(t, "nixpkgs: "+branch.String()+" moved from "+first[:12]+" to "+second[:12], moves[0].String())
	require.Equal(t, "disko: "+r.url()+"#master pinned at "+first[:12], moves[1].String())
	require.Equal(t, []string{prefetch(second), prefetch(first)}, calls())
	require.Equal(t, second, readLock(t, dir).Nixpkgs.Rev)

	// one source alone moves alone
	third := r.commit("3")
	r.git("branch", "--force", "master", third)
	update(t, dir, r.source(plan.SourceDisko, "master"))
	require.Equal(t, second, readLock(t, dir).Nixpkgs.Rev)
	require.Equal(t, third, readLock(t, dir).Disko.Rev)
	calls()

	// a link, which git may have brought, is neither read nor written through
	lock, elsewhere := filepath.Join(dir, "plans", "lock.json"), filepath.Join(dir, "elsewhere")
	require.NoError(t, os.Rename(lock, lock+".aside"))
	require.NoError(t, os.Symlink("../elsewhere", lock))
	_, err = Update(context.Background(), dir, []plan.Source{r.source(plan.SourceDisko, "master")}, io.Discard)
	require.ErrorContains(t, err, "plans/lock.json: is a link, not a file")
	require.NoFileExists(t, elsewhere)
	require.NoError(t, os.Rename(lock+".aside", lock))

	// another name for the same commit is noted, but not fetched
	r.git("branch", "other", second)
	moves = update(t, dir, r.source(plan.SourceNixpkgs, "other"))
	require.True(t, moves[0].Moved())
	require.Equal(t, "nixpkgs: moved from "+branch.String()+" at "+second[:12]+" to "+r.url()+"#other at "+second[:12], moves[0].String())
	require.Empty(t, calls())
	require.Equal(t, r.url()+"#other", readLock(t, dir).Nixpkgs.Ref)
	require.Equal(t, second, readLock(t, dir).Nixpkgs.Rev)

	// a commit is not asked for
	moves = update(t, dir, r.source(plan.SourceNixpkgs, first))
	require.Equal(t, first, readLock(t, dir).Nixpkgs.Rev)
	require.Equal(t, []string{prefetch(first)}, calls())
	require.True(t, moves[0].Moved())

	// what needs no pin is left alone
	before := readLock(t, dir)
	moves = update(t, dir, source(t, plan.SourceNixpkgs, "../nixpkgs"), source(t, plan.SourceDisko, "<disko>"))
	require.Equal(t, "nixpkgs: ../nixpkgs needs no pin", moves[0].String())
	require.Equal(t, "disko: <disko> needs no pin", moves[1].String())
	require.Equal(t, before, readLock(t, dir))
}

// A branch comes before a tag of its name, and a tag that is an object resolves to its commit.
func TestUpdateBranchesAndTags(t *testing.T) {
	fakeNix(t, "")
	r := newRepository(t)
	tagged := r.commit("1")
	r.git("tag", "light")
	r.git("tag", "--annotate", "--message", "x", "heavy")
	r.git("tag", "both")
	r.git("tag", "deep/er")
	head := r.commit("2")
	r.git("branch", "both")
	r.git("branch", "remote/refs/heads/light")
	for ref, want := range map[string]string{
		"light": tagged, "heavy": tagged, "tags/heavy": tagged, "both": head, "tags/both": tagged,
		"deep/er": tagged, "master": head, "refs/heads/both": head, "refs/tags/both": tagged,
	} {
		dir := project(t)
		update(t, dir, r.source(plan.SourceNixpkgs, ref))
		require.Equal(t, want, readLock(t, dir).Nixpkgs.Rev, ref)
	}
}

func TestUpdateTarball(t *testing.T) {
	dir := project(t)
	tarball := source(t, plan.SourceNixpkgs, "https://example.org/x.tar.gz")
	calls := fakeNix(t, "")
	moves := update(t, dir, tarball)
	require.Equal(t, "nixpkgs: https://example.org/x.tar.gz pinned at "+hash32[:12], moves[0].String())
	require.Equal(t, &Entry{Ref: tarball.String(), URL: tarball.Location, SHA256: hash32, line: 2}, readLock(t, dir).Nixpkgs)
	require.Len(t, calls(), 1)

	// there is no commit to compare: only its content shows whether it moved
	moves = update(t, dir, tarball)
	require.False(t, moves[0].Moved())
	require.Len(t, calls(), 1)

	// the same hash in other digits
	lock := readLock(t, dir)
	lock.Nixpkgs.SHA256 = hashSRI
	data, err := lock.format()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "plans", "lock.json"), data, 0o644))
	require.False(t, update(t, dir, tarball)[0].Moved())

	other := "1" + hash32[1:]
	fakeNix(t, "echo "+other)
	moves = update(t, dir, tarball)
	require.Equal(t, "nixpkgs: https://example.org/x.tar.gz moved from sha256-LPJNu to "+other[:12], moves[0].String())
	require.Equal(t, other, readLock(t, dir).Nixpkgs.SHA256)
}

func TestArchiveURL(t *testing.T) {
	for repository, want := range map[string]string{
		"https://github.com/NixOS/nixpkgs":   "https://github.com/NixOS/nixpkgs/archive/" + revA + ".tar.gz",
		"https://codeberg.org/me/nixpkgs":    "https://codeberg.org/me/nixpkgs/archive/" + revA + ".tar.gz",
		"https://gitlab.com/group/me/mypkgs": "https://gitlab.com/group/me/mypkgs/-/archive/" + revA + "/mypkgs-" + revA + ".tar.gz",
	} {
		require.Equal(t, want, archiveURL(repository, revA))
	}
}

// Whatever fails, the lock stays as it was, and the error says how to go on.
func TestUpdateFails(t *testing.T) {
	r := newRepository(t)
	r.commit("1")
	r.git("branch", "nixos-24.11")
	r.git("tag", "v1.11.0")
	noRepository := fileURL(filepath.Join(r.dir, "no-such"))
	const old = `{"disko": {"ref": "latest", "rev": "` + revA + `", "url": "https://x/y", "sha256": "` + hash32 + "\"}}\n"
	path := os.Getenv("PATH")

	for _, test := range []struct {
		name   string
		source string
		// setup may change PATH
		setup      func(t *testing.T)
		says, hint string
	}{
		{name: "no such branch", source: r.url() + "#nixos-24.12",
			says: r.url() + ` has no branch or tag "nixos-24.12"`, hint: `did you mean "nixos-24.11"?`},
		{name: "no such branch, but a part of one", source: r.url() + "#24.11",
			says: `has no branch or tag "24.11"`, hint: `did you mean "nixos-24.11"?`},
		{name: "nothing like it", source: r.url() + "#quite-another",
			says: `has no branch or tag "quite-another"`, hint: "git ls-remote " + r.url()},
		{name: "no such tag", source: r.url() + "#tags/v1.11.1",
			says: `has no tag "v1.11.1"`, hint: `did you mean "v1.11.0"?`},
		{name: "a branch is not a tag", source: r.url() + "#tags/nixos-24.11",
			says: `has no tag "nixos-24.11"`, hint: "git ls-remote"},
		{name: "no such repository", source: noRepository + "#master",
			says: "asking " + noRepository + ": git failed with exit code 128", hint: "there is no such repository"},
		{name: "no network", source: "https://127.0.0.1:1/me/nixpkgs#master",
			says: "asking https://127.0.0.1:1/me/nixpkgs: git failed", hint: "is there a network?"},
		{name: "no git", source: r.url() + "#master", setup: func(t *testing.T) { t.Setenv("PATH", t.TempDir()) },
			says: "git is not on PATH", hint: "install git; on Debian: apt install git"},
		{name: "no Nix", source: r.url() + "#master", setup: func(t *testing.T) {
			bin := t.TempDir()
			git, err := exec.LookPath("git")
			require.NoError(t, err)
			require.NoError(t, os.Symlink(git, filepath.Join(bin, "git")))
			t.Setenv("PATH", bin)
		}, says: "nix-prefetch-url is not on PATH", hint: "nix-bin"},
		{name: "no such archive", source: r.url() + "#" + revB,
			setup: func(t *testing.T) { fakeNix(t, "echo \"error: unable to download: HTTP error 404\" >&2; exit 1") },
			says:  "fetching " + r.url() + "/archive/" + revB + ".tar.gz: nix-prefetch-url failed with exit code 1: error: unable", hint: "no such file"},
		{name: "an unknown failure", source: r.url() + "#master", setup: func(t *testing.T) { fakeNix(t, "echo odd >&2; exit 3") },
			says: "nix-prefetch-url failed with exit code 3: odd"},
		{name: "nonsense", source: r.url() + "#master", setup: func(t *testing.T) { fakeNix(t, "echo done") },
			says: `nix-prefetch-url printed "done" instead of a hash`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("PATH", path)
			dir := project(t)
			lockFile := filepath.Join(dir, "plans", "lock.json")
			require.NoError(t, os.WriteFile(lockFile, []byte(old), 0o644))
			sources := []plan.Source{source(t, plan.SourceNixpkgs, test.source)}
			if test.setup == nil {
				// these fail before Nix is called, although the first source could be pinned
				sources = append([]plan.Source{r.source(plan.SourceDisko, "master")}, sources...)
				calls := fakeNix(t, "")
				defer func() { require.Empty(t, calls(), "fetched before everything was looked up") }()
			} else {
				test.setup(t)
			}
			_, err := Update(context.Background(), dir, sources, io.Discard)
			require.ErrorContains(t, err, test.says)
			require.Equal(t, test.hint == "", diag.HintOf(err) == "", diag.HintOf(err))
			require.Contains(t, diag.HintOf(err), test.hint)
			data, err := os.ReadFile(lockFile)
			require.NoError(t, err)
			require.Equal(t, old, string(data))
		})
	}

	t.Run("an invalid lock", func(t *testing.T) {
		dir := project(t)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "plans", "lock.json"), []byte("{"), 0o644))
		_, err := Update(context.Background(), dir, []plan.Source{r.source(plan.SourceNixpkgs, "master")}, io.Discard)
		require.ErrorContains(t, err, "plans/lock.json:1: not JSON")
		require.Contains(t, diag.HintOf(err), "delete it")
	})
	t.Run("no kind", func(t *testing.T) {
		_, err := Update(context.Background(), project(t), []plan.Source{{}}, io.Discard)
		require.Error(t, err)
	})
	t.Run("no answer", func(t *testing.T) {
		before := resolveTime
		resolveTime = 50 * time.Millisecond
		t.Cleanup(func() { resolveTime = before })
		bin := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(bin, "git"), []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755))
		t.Setenv("PATH", bin+":"+path)
		_, err := Update(context.Background(), project(t), []plan.Source{source(t, plan.SourceNixpkgs, "24.11")}, io.Discard)
		require.EqualError(t, err, "nixpkgs: asking https://github.com/NixOS/nixpkgs: git: https://github.com/NixOS/nixpkgs did not answer within 50ms")
	})
	t.Run("never asks for a password", func(t *testing.T) {
		bin := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(bin, "git"), []byte("#!/bin/sh\necho \"$GIT_TERMINAL_PROMPT $LC_ALL $*\" >&2\nexit 1\n"), 0o755))
		t.Setenv("PATH", bin+":"+path)
		_, err := Update(context.Background(), project(t), []plan.Source{source(t, plan.SourceNixpkgs, "24.11")}, io.Discard)
		require.ErrorContains(t, err, ": 0 C ls-remote --heads --tags -- https://github.com/NixOS/nixpkgs")
	})
}

func TestUpdateReportsItsProgress(t *testing.T) {
	fakeNix(t, "")
	r := newRepository(t)
	rev := r.commit("1")
	var log bytes.Buffer
	_, err := Update(context.Background(), project(t), []plan.Source{r.source(plan.SourceNixpkgs, "master")}, &log)
	require.NoError(t, err)
	require.Equal(t, "nixpkgs: asking "+r.url()+" for master\nnixpkgs: fetching "+r.url()+"/archive/"+rev+".tar.gz\n", log.String())
}

// Real git and real Nix pin a repository, and Nix evaluates what is rendered from the lock.
func TestUpdateInNix(t *testing.T) {
	nixtest.Needs(t, "git", "nix-prefetch-url", "nix-instantiate")
	r := newRepository(t)
	rev := r.commit(`{ }: "first"`)
	nixtest.SetPrivate(t)
	dir := project(t)
	branch := r.source(plan.SourceNixpkgs, "master")

	// evaluate returns what the sources that are rendered from the lock evaluate to
	evaluate := func() (string, error) {
		origin := readLock(t, dir).Origin(branch)
		require.NotNil(t, origin.Tarball, origin)
		for _, text := range []string{origin.Tarball.URL, origin.Tarball.SHA256} {
			require.Regexp(t, regexp.MustCompile(`^[A-Za-z0-9:/._+=%-]+$`), text, "needs no escape here")
		}
		return run.Output(context.Background(), run.Command{
			Program: "nix-instantiate",
			Args: []string{"--eval", "--json", "-E",
				`import (fetchTarball { url = "` + origin.Tarball.URL + `"; sha256 = "` + origin.Tarball.SHA256 + `"; }) { }`},
		})
	}
	moves := update(t, dir, branch)
	require.True(t, moves[0].Moved())
	require.Equal(t, rev, readLock(t, dir).Nixpkgs.Rev)
	out, err := evaluate()
	require.NoError(t, err)
	require.JSONEq(t, `"first"`, out)

	// what update fetched is what the hive looks for: it is not fetched a second time
	require.NoError(t, os.Rename(filepath.Join(r.dir, "archive"), filepath.Join(r.dir, "gone")))
	out, err = evaluate()
	require.NoError(t, err)
	require.JSONEq(t, `"first"`, out)
	require.NoError(t, os.Rename(filepath.Join(r.dir, "gone"), filepath.Join(r.dir, "archive")))

	rev = r.commit(`{ }: "second"`)
	moves = update(t, dir, branch)
	require.True(t, moves[0].Moved())
	require.Equal(t, rev, moves[0].To.Rev)
	second := *moves[0].To

	// a machine that has nothing yet fetches it, and takes nothing but that
	nixtest.SetPrivate(t)
	out, err = evaluate()
	require.NoError(t, err)
	require.JSONEq(t, `"second"`, out)

	nixtest.SetPrivate(t)
	r.git("archive", "--prefix", "x/", "--output", "archive/"+rev+".tar.gz", "HEAD^")
	_, err = evaluate()
	require.ErrorContains(t, err, "hash mismatch")
	require.ErrorContains(t, err, second.SHA256)
}

// The same for a tarball that does not come from a repository.
func TestUpdateTarballInNix(t *testing.T) {
	nixtest.Needs(t, "tar", "nix-prefetch-url")
	nixtest.SetPrivate(t)
	folder := nixtest.TempDir(t)
	pack := func(text string) {
		require.NoError(t, os.MkdirAll(filepath.Join(folder, "top"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(folder, "top", "default.nix"), []byte(text), 0o644))
		require.NoError(t, exec.Command("tar", "-C", folder, "-czf", filepath.Join(folder, "x.tar.gz"), "top").Run())
	}
	pack(`"first"`)
	dir := project(t)
	tarball := source(t, plan.SourceDisko, fileURL(folder+"/x.tar.gz"))
	require.True(t, update(t, dir, tarball)[0].Moved())
	require.False(t, update(t, dir, tarball)[0].Moved())
	pack(`"second"`)
	require.True(t, update(t, dir, tarball)[0].Moved())

	require.NoError(t, os.Remove(filepath.Join(folder, "x.tar.gz")))
	_, err := Update(context.Background(), dir, []plan.Source{tarball}, io.Discard)
	require.Contains(t, diag.HintOf(err), "no such file", err)
}
