// Package pins keeps the commits and hashes of nixpkgs and disko in plans/lock.json, so that nothing
// is fetched without a hash and nobody upgrades by accident.
package pins

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
)

// File is where the lock is in a project.
const File = files.LockFile

// Lock is what plans/lock.json says. The zero Lock pins nothing.
type Lock struct {
	// Nixpkgs and Disko are nil if they are not pinned.
	Nixpkgs *Entry `json:"nixpkgs,omitempty"`
	Disko   *Entry `json:"disko,omitempty"`
}

// Entry pins one source.
type Entry struct {
	// Ref is the source in its normal form, from which the rest was made (plan.Source.String).
	Ref string `json:"ref"`
	// Rev is the commit, 40 hexadecimal digits; empty for a tarball that does not come from a repository.
	Rev string `json:"rev,omitempty"`
	// URL is that of a tarball.
	URL string `json:"url"`
	// SHA256 is that of the unpacked tarball as Nix knows it: 52 digits in Nix's base 32, or 64
	// hexadecimal ones, or "sha256-" and base 64. All of Nix's fetchTarball take these.
	SHA256 string `json:"sha256"`

	// line is where the entry begins in the file.
	line int
}

// entry returns the place of a source in the lock; nil for an unknown kind.
func (l *Lock) entry(kind plan.SourceKind) **Entry {
	switch kind {
	case plan.SourceNixpkgs:
		return &l.Nixpkgs
	case plan.SourceDisko:
		return &l.Disko
	default:
		return nil
	}
}

// Read reads the lock of the project in fsys. Without the file it is the zero Lock. What it says
// is to be used only if there are no problems, which have the code "lock-invalid".
func Read(fsys fs.FS) (Lock, diag.Problems) {
	data, err := fs.ReadFile(fsys, File)
	missing := errors.Is(err, fs.ErrNotExist)
	if info, linkErr := fs.Lstat(fsys, File); linkErr == nil && info.Mode()&fs.ModeSymlink != 0 && (err == nil || missing) {
		// git keeps links: update would write where somebody else wants it to
		problem := invalid(0, "", "", "is a link, not a file")
		problem.Hint = "put the file in its place"
		return Lock{}, diag.Problems{problem}
	}
	switch {
	case missing:
		return Lock{}, nil
	case err != nil:
		return Lock{}, diag.Problems{invalid(0, "", "", fmt.Sprintf("cannot be read: %v", diag.Reason(err)))}
	}
	return parse(data)
}

func invalid(line int, column, value, message string) diag.Problem {
	return diag.Problem{
		File: File, Line: line, Column: column, Value: value, Severity: diag.Error,
		Code: "lock-invalid", Message: message,
		Hint: "only k3splan update should change this file: restore it, or delete it and run k3splan update",
	}
}

// parser reads the lock token by token: encoding/json alone would take keys in any case, the last
// of several equal ones, and report no lines.
type parser struct {
	data     []byte
	decoder  *json.Decoder
	problems diag.Problems
}

func parse(data []byte) (Lock, diag.Problems) {
	p := &parser{data: data, decoder: json.NewDecoder(bytes.NewReader(data))}
	var lock Lock
	err := p.object("", func(key string, line int) error {
		place := lock.entry(plan.SourceKind(key))
		if place == nil {
			return p.unknown(line, key)
		}
		*place = &Entry{line: line}
		return p.entry(key, *place)
	})
	if err == nil {
		if _, err = p.decoder.Token(); err == nil {
			err = errors.New("something follows the end")
		} else if err == io.EOF {
			err = nil
		}
	}
	if err != nil {
		p.problems = append(p.problems, invalid(p.errorLine(err), "", "", "not JSON as update writes it: "+err.Error()))
		return Lock{}, p.problems
	}
	p.check(plan.SourceNixpkgs, lock.Nixpkgs)
	p.check(plan.SourceDisko, lock.Disko)
	return lock, p.problems
}

// object reads an object and calls member with each key; member reads the value.
func (p *parser) object(path string, member func(key string, line int) error) error {
	token, err := p.decoder.Token()
	if err != nil {
		return noEOF(err)
	}
	if token != json.Delim('{') {
		return fmt.Errorf("%s where an object must be", describe(token))
	}
	var seen []string
	for p.decoder.More() {
		token, err := p.decoder.Token()
		if err != nil {
			return noEOF(err)
		}
		key, line := token.(string), p.line(p.decoder.InputOffset())
		if slices.Contains(seen, key) {
			p.problems = append(p.problems, invalid(line, strings.TrimPrefix(path+"."+key, "."), "", "duplicate key"))
		}
		seen = append(seen, key)
		if err := member(key, line); err != nil {
			return err
		}
	}
	_, err = p.decoder.Token()
	return noEOF(err)
}

func (p *parser) entry(name string, e *Entry) error {
	fields := map[string]*string{"ref": &e.Ref, "rev": &e.Rev, "url": &e.URL, "sha256": &e.SHA256}
	return p.object(name, func(key string, line int) error {
		field := fields[key]
		if field == nil {
			return p.unknown(line, name+"."+key)
		}
		token, err := p.decoder.Token()
		if err != nil {
			return noEOF(err)
		}
		text, ok := token.(string)
		if !ok {
			return fmt.Errorf("%s where a string must be", describe(token))
		}
		*field = text
		return nil
	})
}

// unknown reports a key and passes over its value.
func (p *parser) unknown(line int, path string) error {
	p.problems = append(p.problems, invalid(line, path, "", "unknown key"))
	var value json.RawMessage
	return noEOF(p.decoder.Decode(&value))
}

func describe(token json.Token) string {
	switch token := token.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	default:
		return fmt.Sprint(token)
	}
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (p *parser) line(offset int64) int {
	return 1 + bytes.Count(p.data[:min(int(offset), len(p.data))], []byte("\n"))
}

func (p *parser) errorLine(err error) int {
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		return p.line(syntax.Offset)
	}
	return p.line(p.decoder.InputOffset())
}

var revForm = regexp.MustCompile(`^[0-9a-f]{40}$`)

// check checks what can be checked of an entry without the plan.
func (p *parser) check(kind plan.SourceKind, e *Entry) {
	if e == nil {
		return
	}
	report := func(key, value, message string) {
		p.problems = append(p.problems, invalid(e.line, string(kind)+"."+key, value, message))
	}
	source, err := plan.ParseSource(kind, e.Ref)
	switch {
	case e.Ref == "":
		report("ref", "", "missing: it says what was pinned")
	case err == nil && !source.NeedsLock():
		report("ref", e.Ref, "cannot be pinned")
	}
	switch tarball := err == nil && source.Form == plan.SourceTarball; {
	case e.Rev == "" && !tarball:
		report("rev", "", "missing: it is the commit")
	case e.Rev != "" && !revForm.MatchString(e.Rev):
		report("rev", e.Rev, "not a commit: that has 40 hexadecimal digits")
	case source.Form == plan.SourceCommit && e.Rev != source.Ref:
		report("rev", e.Rev, "not the commit that ref names")
	}
	switch u, err := url.Parse(e.URL); {
	case e.URL == "":
		report("url", "", "missing: it says where the tarball is")
	case err != nil, !slices.Contains([]string{"https", "http", "file"}, u.Scheme), strings.ContainsAny(e.URL, " \"\\<>"):
		report("url", e.URL, "not the URL of a tarball")
	case u.User != nil:
		report("url", u.Redacted(), "must hold no login: others can read the rendered files")
	}
	switch {
	case e.SHA256 == "":
		report("sha256", "", "missing: nothing is fetched without a hash")
	case decodeHash(e.SHA256) == nil:
		report("sha256", e.SHA256, "not a SHA-256 hash in a form that Nix takes")
	}
}

// Check compares the lock with what the plan names, and returns problems with the code "lock-stale"
// where it pins something else, or pins only a part of what is needed. A lock that pins nothing is
// no problem: the rendered hive says what to do. disko is needed if it lays out some host's disks.
func (l Lock) Check(versions plan.Versions, needsDisko bool) diag.Problems {
	if l == (Lock{}) {
		return nil
	}
	needed := []plan.Source{versions.NixOS}
	if needsDisko {
		needed = append(needed, versions.Disko)
	}
	var problems diag.Problems
	for _, source := range needed {
		if !source.NeedsLock() {
			continue
		}
		problem := diag.Problem{
			File: File, Column: string(source.Kind), Severity: diag.Error, Code: "lock-stale",
			Hint: "run k3splan update " + string(source.Kind),
		}
		switch entry := *l.entry(source.Kind); {
		case entry == nil:
			problem.Message = fmt.Sprintf("not pinned, and the plan needs %q", source)
			problems = append(problems, problem)
		case !entry.pins(source):
			problem.Line, problem.Column, problem.Value = entry.line, problem.Column+".ref", entry.Ref
			problem.Message = fmt.Sprintf("the plan names %q", source)
			problems = append(problems, problem)
		}
	}
	return problems
}

// pins reports whether the entry was made from source, however it was written.
func (e *Entry) pins(source plan.Source) bool {
	was, err := plan.ParseSource(source.Kind, e.Ref)
	return err == nil && was == source
}

// Origin is where Nix takes a source from. Exactly one of its fields is set.
type Origin struct {
	Tarball *Tarball
	// Path is absolute or relative to the project ("../nixpkgs").
	Path string
	// Lookup is Nix code, a search path ("<nixpkgs>").
	Lookup string
	// Missing is an error message for Nix to throw: why there is no origin, and what to do.
	Missing string
}

// Tarball is the argument of fetchTarball.
type Tarball struct{ URL, SHA256 string }

// Origin returns where a source of the plan comes from.
func (l Lock) Origin(source plan.Source) Origin {
	switch {
	case source.Form == plan.SourcePath:
		return Origin{Path: source.Location}
	case source.Form == plan.SourceLookup:
		return Origin{Lookup: source.Location}
	}
	place := l.entry(source.Kind)
	switch {
	case place == nil:
		return Origin{Missing: "the plan names no source"}
	case *place == nil:
		return Origin{Missing: fmt.Sprintf("%s is not pinned in %s: run \"k3splan update\"", source.Kind, File)}
	case !(*place).pins(source):
		return Origin{Missing: fmt.Sprintf("%s is pinned in %s at %q, and the plan names %q: run \"k3splan update\"",
			source.Kind, File, (*place).Ref, source)}
	default:
		return Origin{Tarball: &Tarball{URL: (*place).URL, SHA256: (*place).SHA256}}
	}
}

// format returns the bytes of the file.
func (l Lock) format() ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(l)
	return out.Bytes(), err
}
