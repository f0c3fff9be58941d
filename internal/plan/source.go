package plan

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"k3splan/internal/diag"
	"k3splan/internal/release"
)

// SourceKind is what a Source provides.
type SourceKind string

const (
	SourceNixpkgs SourceKind = "nixpkgs"
	SourceDisko   SourceKind = "disko"
)

// DefaultRepository is the repository of a branch, tag or commit that is given alone.
func (k SourceKind) DefaultRepository() string {
	if k == SourceDisko {
		return "https://github.com/nix-community/disko"
	}
	return "https://github.com/NixOS/nixpkgs"
}

// SourceForm is the way in which a Source names what it means, and so which of its fields are set.
type SourceForm int

const (
	// SourceRef is a branch, or a tag if no branch has the name: Repository and Ref.
	SourceRef SourceForm = iota + 1
	// SourceTag is a tag even if a branch has its name: Repository and Ref.
	SourceTag
	// SourceCommit is a commit: Repository and, in Ref, 40 hexadecimal digits.
	SourceCommit
	// SourceTarball is the URL of an archive in Location.
	SourceTarball
	// SourcePath is a folder in Location, absolute or relative to the project ("../nixpkgs").
	SourcePath
	// SourceLookup is a name in Location that Nix looks for in its search path ("<nixpkgs>").
	SourceLookup
)

// Source is where nixpkgs or disko comes from. Texts that mean the same are equal Sources. The
// zero Source is none.
type Source struct {
	Kind SourceKind
	Form SourceForm
	// Repository is an https or file URL without a trailing slash.
	Repository string
	// Ref is a branch, a tag or a commit, without "refs/heads/" and the like.
	Ref      string
	Location string
}

// String returns the normal form, which ParseSource reads back to the same Source.
func (s Source) String() string {
	ref := s.Ref
	if s.Form == SourceTag {
		ref = "tags/" + ref
	}
	switch {
	case s.Location != "":
		return s.Location
	case s.Repository == s.Kind.DefaultRepository():
		return ref
	case s.Repository != "":
		return s.Repository + "#" + ref
	default:
		return ""
	}
}

// IsZero reports whether s is not a source at all.
func (s Source) IsZero() bool { return s == Source{} }

// NeedsLock reports whether the source moves on its own or comes over a network, so that a commit
// and a hash must be pinned before anything is fetched.
func (s Source) NeedsLock() bool {
	switch s.Form {
	case SourceRef, SourceTag, SourceCommit, SourceTarball:
		return true
	default:
		return false
	}
}

func wrongSource(message, hint string) (Source, error) {
	return Source{}, diag.WithHint(errors.New(message), hint)
}

var (
	commitForm      = regexp.MustCompile(`^[0-9a-fA-F]{40}$`)
	shortCommitForm = regexp.MustCompile(`^[0-9a-f]*[0-9][0-9a-f]*$`)
	releaseForm     = regexp.MustCompile(`^[0-9]{2}\.[0-9]{2}$`)
	diskoForm       = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+$`)
	numberForm      = regexp.MustCompile(`^[0-9.]+$`)
	// refForm is stricter than git: nothing that a shell, a URL or an option parser could take
	// for something else.
	refForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+/-]*$`)
	// lookupForm is what Nix's lexer takes for a search path (SPATH in its lexer.l).
	lookupForm = regexp.MustCompile(`^<[a-zA-Z0-9._+-]+(/[a-zA-Z0-9._+-]+)*>$`)
	flakeForm  = regexp.MustCompile(`^(github|gitlab):([^/]+)/([^/]+)(?:/(.+))?$`)
	// githubArchive is the URL of a branch, tag or commit as GitHub offers it for download.
	githubArchive = regexp.MustCompile(`^(https://github\.com/[^/]+/[^/]+)/archive/(?:refs/(heads|tags)/)?(.+)\.(?:tar\.gz|zip)$`)
	// channelArchive is the URL of a channel. The branch of that name follows the channel.
	channelArchive = regexp.MustCompile(`^https://(?:channels\.nixos\.org|nixos\.org/channels)/([^/]+)/nixexprs\.tar\.(?:xz|bz2)$`)

	tarballEndings = []string{".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst", ".zip"}
)

// ParseSource reads versions.nixos or versions.disko: a release ("26.05"), branch,
// tag ("tags/26.05"), commit, search path ("<nixpkgs>"), path ("/x", "./x", "../x"), the URL of a
// tarball, or that of a repository with "#" and a branch, tag or commit. Every error has a hint.
func ParseSource(kind SourceKind, text string) (Source, error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return wrongSource("empty", "write "+exampleRef(kind))
	case !isPrintable(text):
		return wrongSource("has characters that cannot be printed", "write "+exampleRef(kind))
	case strings.HasPrefix(text, "<"):
		if !lookupForm.MatchString(text) {
			return wrongSource("not a search path of Nix", "write <nixpkgs>, or <name/folder>, without blanks")
		}
		return Source{Kind: kind, Form: SourceLookup, Location: text}, nil
	case strings.Contains(text, "://"):
		return parseSourceURL(kind, text)
	case strings.HasPrefix(text, "/"), strings.HasPrefix(text, "./"), strings.HasPrefix(text, "../"), text == "..":
		return parseSourcePath(kind, text)
	case strings.HasPrefix(text, "~"):
		return wrongSource("a path cannot begin with ~", "write it from / on, or relative to the project with ./ or ../")
	case flakeForm.MatchString(text):
		return wrongSource("flake references are not supported", "write "+unflake(kind, text))
	case strings.HasPrefix(text, "git@"):
		return wrongSource("a repository is named by an https URL", "write https://github.com/OWNER/REPOSITORY#BRANCH")
	default:
		return parseRef(kind, kind.DefaultRepository(), text)
	}
}

func exampleRef(kind SourceKind) string {
	if kind == SourceDisko {
		return "latest, a tag like v1.11.0, or a commit"
	}
	return "a release like " + release.ForNewProjects + ", a branch like nixos-unstable, or a commit"
}

// unflake returns the source that a flake reference means.
func unflake(kind SourceKind, text string) string {
	part := flakeForm.FindStringSubmatch(text)
	repository := "https://" + part[1] + ".com/" + part[2] + "/" + part[3]
	ref := part[4]
	if ref == "" {
		ref = "BRANCH"
	}
	if strings.EqualFold(repository, kind.DefaultRepository()) {
		return ref
	}
	return repository + "#" + ref
}

func parseSourcePath(kind SourceKind, text string) (Source, error) {
	location := path.Clean(text)
	switch {
	case location == ".":
		return wrongSource("the project itself cannot be the source of "+string(kind), "name another folder")
	case strings.TrimSpace(location) != location:
		return wrongSource("a folder's name cannot end with a blank", "rename the folder")
	}
	if !path.IsAbs(location) && location != ".." && !strings.HasPrefix(location, "../") {
		// so that the normal form is read as a path again
		location = "./" + location
	}
	return Source{Kind: kind, Form: SourcePath, Location: location}, nil
}

func parseSourceURL(kind SourceKind, text string) (Source, error) {
	const forms = "write https://HOST/FILE.tar.gz, or https://HOST/OWNER/REPOSITORY#BRANCH"
	u, err := url.Parse(text)
	switch {
	case strings.Contains(text, " "):
		return wrongSource("a URL contains no blanks", "write "+strings.ReplaceAll(text, " ", "%20"))
	case err != nil || strings.ContainsAny(text, "\"'`\\<>"):
		return wrongSource("not a URL", forms)
	case !strings.HasPrefix(text, "https://") && !strings.HasPrefix(text, "file://"):
		scheme, _, _ := strings.Cut(text, "://")
		return wrongSource(scheme+" is not supported", "use https, or file for a file on this machine")
	case u.User != nil:
		return wrongSource("a URL is copied into files that others can read, and must contain no login", "put the login into ~/.netrc")
	case u.Scheme == "https" && u.Host == "", u.Scheme == "file" && (u.Host != "" || !path.IsAbs(u.Path)):
		return wrongSource("not a URL", forms+", or file:///FOLDER/FILE.tar.gz")
	}
	repository, ref, hasRef := strings.Cut(text, "#")
	tarball := slices.ContainsFunc(tarballEndings, func(ending string) bool { return strings.HasSuffix(u.Path, ending) })
	switch {
	case tarball && hasRef:
		return wrongSource("a tarball has no branches", "leave out #"+ref)
	case tarball:
		return parseTarball(kind, text, u.Path)
	case !hasRef, ref == "", strings.Trim(u.Path, "/") == "":
		return wrongSource("neither a tarball nor a repository with a branch", forms)
	case u.RawQuery != "":
		return wrongSource("a repository's URL has no query", forms)
	}
	repository = strings.TrimRight(repository, "/")
	if u.Scheme == "https" {
		repository = strings.TrimSuffix(repository, ".git")
	}
	if strings.EqualFold(repository, kind.DefaultRepository()) {
		repository = kind.DefaultRepository()
	}
	return parseRef(kind, repository, ref)
}

// parseTarball takes a channel, and GitHub's archive of a branch, for the branch itself: the file
// behind such a URL changes, and a hash of it would soon be wrong.
func parseTarball(kind SourceKind, text, urlPath string) (Source, error) {
	if part := githubArchive.FindStringSubmatch(text); part != nil {
		ref := part[3]
		if part[2] == "tags" {
			ref = "tags/" + ref
		}
		return ParseSource(kind, part[1]+"#"+ref)
	}
	if part := channelArchive.FindStringSubmatch(text); part != nil && kind == SourceNixpkgs {
		return parseRef(kind, kind.DefaultRepository(), part[1])
	}
	for _, segment := range strings.Split(urlPath, "/") {
		if err := checkRelease(kind, segment); err != nil {
			return Source{}, err
		}
	}
	return Source{Kind: kind, Form: SourceTarball, Location: text}, nil
}

func parseRef(kind SourceKind, repository, text string) (Source, error) {
	source := Source{Kind: kind, Form: SourceRef, Repository: repository, Ref: strings.TrimPrefix(text, "refs/heads/")}
	for _, prefix := range []string{"refs/tags/", "tags/"} {
		if ref, ok := strings.CutPrefix(text, prefix); ok {
			source.Form, source.Ref = SourceTag, ref
			break
		}
	}
	switch {
	case commitForm.MatchString(text):
		source.Form, source.Ref = SourceCommit, strings.ToLower(text)
		return source, nil
	case !isRef(source.Ref):
		return wrongSource("not the name of a branch or tag", "write "+exampleRef(kind))
	}
	if err := checkRelease(kind, source.Ref); err != nil {
		return Source{}, err
	}
	if source.Form == SourceRef && repository == kind.DefaultRepository() {
		lower := strings.ToLower(source.Ref)
		switch {
		case kind == SourceNixpkgs && lower != source.Ref && release.NameIn(lower) != "":
			return wrongSource("the branches of nixpkgs are in small letters", "write "+lower)
		case kind == SourceNixpkgs && source.Release() != "" && !stateForm.MatchString(source.Release()):
			return wrongSource("not a release of NixOS, which comes out in May (05) and November (11)", "write "+exampleRef(kind))
		case kind == SourceNixpkgs && releaseForm.MatchString(text):
			source.Ref = "nixos-" + text
		case kind == SourceDisko && diskoForm.MatchString(text):
			source.Ref = "v" + text
		case numberForm.MatchString(text):
			return wrongSource("not the number of a release", "write "+exampleRef(kind))
		}
	}
	if len(text) >= 7 && shortCommitForm.MatchString(text) {
		return wrongSource(fmt.Sprintf("a commit has 40 digits, not %d", len(text)), "write all of them: git rev-parse "+text)
	}
	return source, nil
}

// isRef reports whether git accepts text as the name of a branch or tag, see git check-ref-format.
func isRef(text string) bool {
	return refForm.MatchString(text) && !strings.Contains(text, "..") && !strings.Contains(text, "//") &&
		!strings.Contains(text, "/.") && !strings.HasSuffix(text, "/") && !strings.HasSuffix(text, ".") &&
		!slices.ContainsFunc(strings.Split(text, "/"), func(part string) bool { return strings.HasSuffix(part, ".lock") })
}

// checkRelease refuses the name of a release of NixOS that lacks options which the rendered modules use.
func checkRelease(kind SourceKind, name string) error {
	named, oldest := release.NameIn(name), release.Oldest().Name
	if kind != SourceNixpkgs || named == "" || !release.Before(named, oldest) {
		return nil
	}
	return diag.WithHint(fmt.Errorf("NixOS %s is too old", named), oldest+" is the oldest release that works")
}

// unstable are branches of nixpkgs that become the next release.
var unstable = []string{"master", "nixos-unstable", "nixos-unstable-small", "nixpkgs-unstable", "staging", "staging-next"}

// Release returns the release of NixOS that the source's name says it is, also one that k3splan does not know
// ("25.11"), or "": what a path, a commit or an unstable branch holds shows only when it is evaluated.
func (s Source) Release() string {
	if s.Kind != SourceNixpkgs || s.Form == SourceCommit {
		return ""
	}
	return release.NameIn(s.Ref)
}

// Nix returns the oldest version of Nix that evaluates the source, as far as its name shows what it is, or "".
func (s Source) Nix() string {
	switch r, known := release.Find(s.Release()); {
	case s.Kind != SourceNixpkgs:
		return ""
	case known:
		return r.Nix
	case s.Release() != "" || s.Form == SourceRef && slices.Contains(unstable, s.Ref): // newer than what k3splan knows
		return release.Latest().Nix
	default:
		return ""
	}
}

func isPrintable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}
