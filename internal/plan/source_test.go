package plan

import (
	"strings"
	"testing"

	"k3splan/internal/diag"

	"github.com/stretchr/testify/require"
)

const someCommit = "0123456789abcdef0123456789abcdef01234567"

func TestParseSource(t *testing.T) {
	nixpkgs := SourceNixpkgs.DefaultRepository()
	disko := SourceDisko.DefaultRepository()
	for _, test := range []struct {
		kind   SourceKind
		text   string
		form   SourceForm
		repo   string
		ref    string
		path   string
		normal string
	}{
		{text: "24.11", form: SourceRef, repo: nixpkgs, ref: "nixos-24.11", normal: "nixos-24.11"},
		{text: " nixos-24.11\t", form: SourceRef, repo: nixpkgs, ref: "nixos-24.11", normal: "nixos-24.11"},
		{text: "nixos-24.11-small", form: SourceRef, repo: nixpkgs, ref: "nixos-24.11-small", normal: "nixos-24.11-small"},
		{text: "release-25.05", form: SourceRef, repo: nixpkgs, ref: "release-25.05", normal: "release-25.05"},
		{text: "nixos-unstable", form: SourceRef, repo: nixpkgs, ref: "nixos-unstable", normal: "nixos-unstable"},
		{text: "nixpkgs-unstable", form: SourceRef, repo: nixpkgs, ref: "nixpkgs-unstable", normal: "nixpkgs-unstable"},
		{text: "refs/heads/master", form: SourceRef, repo: nixpkgs, ref: "master", normal: "master"},
		{text: "tags/24.11", form: SourceTag, repo: nixpkgs, ref: "24.11", normal: "tags/24.11"},
		{text: "refs/tags/24.11", form: SourceTag, repo: nixpkgs, ref: "24.11", normal: "tags/24.11"},
		{text: strings.ToUpper(someCommit), form: SourceCommit, repo: nixpkgs, ref: someCommit, normal: someCommit},
		{text: "feature/decade", form: SourceRef, repo: nixpkgs, ref: "feature/decade", normal: "feature/decade"},

		{text: "https://github.com/nixos/Nixpkgs.git#24.11", form: SourceRef, repo: nixpkgs, ref: "nixos-24.11", normal: "nixos-24.11"},
		{text: "https://git.example.org/me/nixpkgs/#24.11", form: SourceRef, repo: "https://git.example.org/me/nixpkgs", ref: "24.11", normal: "https://git.example.org/me/nixpkgs#24.11"},
		{text: "https://git.example.org/me/nixpkgs.git#tags/x", form: SourceTag, repo: "https://git.example.org/me/nixpkgs", ref: "x", normal: "https://git.example.org/me/nixpkgs#tags/x"},
		{text: "file:///srv/nixpkgs.git#" + someCommit, form: SourceCommit, repo: "file:///srv/nixpkgs.git", ref: someCommit, normal: "file:///srv/nixpkgs.git#" + someCommit},
		{text: "https://github.com/NixOS/nixpkgs/archive/nixos-24.11.tar.gz", form: SourceRef, repo: nixpkgs, ref: "nixos-24.11", normal: "nixos-24.11"},
		{text: "https://github.com/NixOS/nixpkgs/archive/refs/heads/master.zip", form: SourceRef, repo: nixpkgs, ref: "master", normal: "master"},
		{text: "https://github.com/NixOS/nixpkgs/archive/refs/tags/24.11.tar.gz", form: SourceTag, repo: nixpkgs, ref: "24.11", normal: "tags/24.11"},
		{text: "https://github.com/me/fork/archive/" + someCommit + ".tar.gz", form: SourceCommit, repo: "https://github.com/me/fork", ref: someCommit, normal: "https://github.com/me/fork#" + someCommit},

		{text: "https://channels.nixos.org/nixos-24.11/nixexprs.tar.xz", form: SourceRef, repo: nixpkgs, ref: "nixos-24.11", normal: "nixos-24.11"},
		{text: "https://nixos.org/channels/nixos-unstable/nixexprs.tar.xz", form: SourceRef, repo: nixpkgs, ref: "nixos-unstable", normal: "nixos-unstable"},

		{text: "https://releases.nixos.org/nixos/24.11/nixos-24.11.719113/nixexprs.tar.xz", form: SourceTarball, path: "https://releases.nixos.org/nixos/24.11/nixos-24.11.719113/nixexprs.tar.xz"},
		{text: "https://files.example.org/n.tgz?x=1&y=2", form: SourceTarball, path: "https://files.example.org/n.tgz?x=1&y=2"},
		{text: "file:///srv/n.tar.zst", form: SourceTarball, path: "file:///srv/n.tar.zst"},

		{text: "<nixpkgs>", form: SourceLookup, path: "<nixpkgs>"},
		{text: "<my-channels/nixos_24>", form: SourceLookup, path: "<my-channels/nixos_24>"},
		{text: "/srv//nix pkgs/", form: SourcePath, path: "/srv/nix pkgs"},
		{text: "./vendor/../nixpkgs", form: SourcePath, path: "./nixpkgs"},
		{text: `../rack "${x}" 'é'`, form: SourcePath, path: `../rack "${x}" 'é'`},
		{text: "..", form: SourcePath, path: ".."},
		{text: "./x/../..", form: SourcePath, path: ".."},

		{kind: SourceDisko, text: "latest", form: SourceRef, repo: disko, ref: "latest", normal: "latest"},
		{kind: SourceDisko, text: "1.11.0", form: SourceRef, repo: disko, ref: "v1.11.0", normal: "v1.11.0"},
		{kind: SourceDisko, text: "v1.11.0", form: SourceRef, repo: disko, ref: "v1.11.0", normal: "v1.11.0"},
		{kind: SourceDisko, text: "tags/v1.11.0", form: SourceTag, repo: disko, ref: "v1.11.0", normal: "tags/v1.11.0"},
		{kind: SourceDisko, text: nixpkgs + "#x", form: SourceRef, repo: nixpkgs, ref: "x", normal: nixpkgs + "#x"},
	} {
		t.Run(test.text, func(t *testing.T) {
			kind := test.kind
			if kind == "" {
				kind = SourceNixpkgs
			}
			if test.path != "" {
				test.normal = test.path
			}
			source, err := ParseSource(kind, test.text)
			require.NoError(t, err)
			require.Equal(t, Source{Kind: kind, Form: test.form, Repository: test.repo, Ref: test.ref, Location: test.path}, source)
			require.Equal(t, test.normal, source.String())
			require.Equal(t, test.form != SourcePath && test.form != SourceLookup, source.NeedsLock())

			again, err := ParseSource(kind, source.String())
			require.NoError(t, err)
			require.Equal(t, source, again)
		})
	}
}

func TestParseSourceRefuses(t *testing.T) {
	for _, test := range []struct {
		kind          SourceKind
		text          string
		message, hint string
	}{
		{text: "", message: "empty", hint: "26.05"},
		{text: "nixos-24.11\x00", message: "cannot be printed", hint: "26.05"},
		{text: "\xff", message: "cannot be printed", hint: "26.05"},
		{text: "23.05", message: "NixOS 23.05 is too old", hint: "24.11"},
		{text: "nixos-26.06", message: "not a release of NixOS", hint: "26.05"},
		{text: "27.04", message: "not a release of NixOS", hint: "26.05"},
		{text: "NixOS-26.05", message: "small letters", hint: "write nixos-26.05"},
		{text: "nixos-23.11", message: "NixOS 23.11 is too old", hint: "24.11"},
		{text: "nixos-24.05-small", message: "NixOS 24.05 is too old", hint: "24.11"},
		{text: "nixpkgs-23.11-darwin", message: "NixOS 23.11 is too old", hint: "24.11"},
		{text: "release-22.11", message: "NixOS 22.11 is too old", hint: "24.11"},
		{text: "staging-next-24.05", message: "NixOS 24.05 is too old", hint: "24.11"},
		{text: "tags/24.05", message: "NixOS 24.05 is too old", hint: "24.11"},
		{text: "https://example.org/me/nixpkgs#nixos-24.05", message: "NixOS 24.05 is too old", hint: "24.11"},
		{text: "https://channels.nixos.org/nixos-23.11/nixexprs.tar.xz", message: "NixOS 23.11 is too old", hint: "24.11"},
		{text: "https://releases.nixos.org/nixos/23.11/nixos-23.11.7870/nixexprs.tar.xz", message: "NixOS 23.11 is too old", hint: "24.11"},
		{text: "https://github.com/NixOS/nixpkgs/archive/nixos-24.05.tar.gz", message: "NixOS 24.05 is too old", hint: "24.11"},
		{text: "24.1", message: "not the number of a release", hint: "26.05"},
		{text: "24", message: "not the number of a release", hint: "26.05"},
		{text: "d4f247e89f6e", message: "40 digits, not 12", hint: "git rev-parse d4f247e89f6e"},
		{text: someCommit + "0", message: "40 digits, not 41", hint: "git rev-parse"},
		{text: "-rf", message: "not the name of a branch", hint: "26.05"},
		{text: "--upload-pack=x", message: "not the name of a branch", hint: "26.05"},
		{text: "nixos 24.11", message: "not the name of a branch", hint: "26.05"},
		{text: "a..b", message: "not the name of a branch", hint: "26.05"},
		{text: "a/.b", message: "not the name of a branch", hint: "26.05"},
		{text: "a.lock/b", message: "not the name of a branch", hint: "26.05"},
		{text: "nixos-*", message: "not the name of a branch", hint: "26.05"},
		{text: `"; import ./x; "`, message: "not the name of a branch", hint: "26.05"},
		{text: "tags/-x", message: "not the name of a branch", hint: "26.05"},
		{text: "<nixpkgs", message: "not a search path", hint: "<nixpkgs>"},
		{text: "<nixpkgs> + x", message: "not a search path", hint: "<nixpkgs>"},
		{text: "<a b>", message: "not a search path", hint: "<nixpkgs>"},
		{text: "~/nixpkgs", message: "cannot begin with ~", hint: "./"},
		{text: "/srv/x /", message: "cannot end with a blank", hint: "rename"},
		{text: "./", message: "the project itself", hint: "another folder"},
		{text: "github:NixOS/nixpkgs/nixos-24.11", message: "flake", hint: "write nixos-24.11"},
		{text: "github:me/nixpkgs/mine", message: "flake", hint: "write https://github.com/me/nixpkgs#mine"},
		{text: "github:NixOS/nixpkgs", message: "flake", hint: "write BRANCH"},
		{text: "git@github.com:NixOS/nixpkgs.git", message: "https URL", hint: "#BRANCH"},
		{text: "http://example.org/x.tar.gz", message: "http is not supported", hint: "use https"},
		{text: "ssh://git@example.org/x#y", message: "ssh is not supported", hint: "use https"},
		{text: "https://user:hunter2@example.org/x.tar.gz", message: "no login", hint: "netrc"},
		{text: "https://github.com/NixOS/nixpkgs", message: "neither a tarball", hint: "#BRANCH"},
		{text: "file:///#x", message: "neither a tarball", hint: "#BRANCH"},
		{text: "https://github.com/NixOS/nixpkgs#", message: "neither a tarball", hint: "#BRANCH"},
		{text: "https://example.org/x.tar.gz#main", message: "a tarball has no branches", hint: "leave out #main"},
		{text: "https://example.org/x y.tar.gz", message: "a URL contains no blanks", hint: "write https://example.org/x%20y.tar.gz"},
		{text: "file:///home/o b/nixpkgs#x", message: "a URL contains no blanks", hint: "write file:///home/o%20b/nixpkgs#x"},
		{text: `https://example.org/"x.tar.gz`, message: "not a URL", hint: "https://HOST"},
		{text: "https://example.org/x?a=b#main", message: "no query", hint: "#BRANCH"},
		{text: "https:///x.tar.gz", message: "not a URL", hint: "https://HOST"},
		{text: "file://host/x.tar.gz", message: "not a URL", hint: "file:///"},
		{text: "https://example.org/o/r#--upload-pack=x", message: "not the name of a branch", hint: "26.05"},
		{kind: SourceDisko, text: "1.11", message: "not the number of a release", hint: "v1.11.0"},
		{kind: SourceDisko, text: "", message: "empty", hint: "latest"},
	} {
		t.Run(test.text, func(t *testing.T) {
			kind := test.kind
			if kind == "" {
				kind = SourceNixpkgs
			}
			source, err := ParseSource(kind, test.text)
			require.ErrorContains(t, err, test.message)
			require.True(t, source.IsZero())
			require.Contains(t, diag.HintOf(err), test.hint)
			require.NotContains(t, err.Error()+diag.HintOf(err), "hunter2")
		})
	}
}

// FuzzParseSource: whatever is accepted has a normal form that means the same, and no text gets
// to git as an option.
func FuzzParseSource(f *testing.F) {
	for _, text := range []string{"24.11", "tags/24.11", someCommit, "<nixpkgs>", "./a/../..", "../x", "/", "//a",
		"https://github.com/NixOS/nixpkgs#24.11", "https://x/y.git#z", "file:///a/b.git/#c", "https://x/y.tgz?z",
		"https://github.com/a/b/archive/c/d.zip", "refs/tags/refs/heads/x", "1.2.3"} {
		f.Add(text, true)
		f.Add(text, false)
	}
	f.Fuzz(func(t *testing.T, text string, disko bool) {
		kind := SourceNixpkgs
		if disko {
			kind = SourceDisko
		}
		source, err := ParseSource(kind, text)
		if err != nil {
			require.NotEmpty(t, err.Error())
			require.NotEmpty(t, diag.HintOf(err))
			return
		}
		require.False(t, strings.HasPrefix(source.Ref, "-"), source)
		require.True(t, strings.HasPrefix(source.Repository+source.Location, "https://") ||
			strings.HasPrefix(source.Repository+source.Location, "file://") ||
			strings.ContainsAny(source.Location[:1], "/.<"), source)
		again, err := ParseSource(kind, source.String())
		require.NoError(t, err, source)
		require.Equal(t, source, again)
	})
}
