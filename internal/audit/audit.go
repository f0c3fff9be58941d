// Package audit looks for secrets where they must not be: in git, in what is rendered or logged, in
// the Nix store, in files that others can read or that were left behind. It changes nothing.
package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/run"
	"k3splan/internal/secrets"
)

// Input is what is looked at.
type Input struct {
	// Dir is the project's folder.
	Dir   string
	Plan  *plan.Plan
	Vault *secrets.Vault
	// Known are the problems that were found when the secrets were opened.
	Known diag.Problems
	// StorePaths are further paths of the Nix store whose closures are looked at.
	StorePaths []string
}

// Report is the result. A place that is not mentioned in Notes was looked at.
type Report struct {
	// Findings have a hint each.
	Findings diag.Problems
	// Notes say where it was looked, and what could not be looked at, with the reason.
	Notes []string
}

// The codes of the findings, beside those of the package secrets. They are stable.
const (
	codeOwner      = "secret-owner"
	codeReadable   = "secret-readable"
	codeTracked    = "secret-in-git"
	codeNotIgnored = "secret-not-ignored"
	codeInFile     = "secret-in-file"
	codeInStore    = "secret-in-store"
	codeUnread     = "secret-unread"
)

type audit struct {
	Input
	Report
	search *search
}

// Run looks everywhere. The error is one of the machine; secrets are in neither.
func Run(ctx context.Context, in Input) (*Report, error) {
	a := &audit{Input: in}
	var err error
	if a.Dir, err = filepath.EvalSymlinks(in.Dir); err != nil { // a walk does not begin at a link
		return nil, err
	}
	names, err := in.Vault.List()
	if err != nil {
		return nil, err
	}
	var unread map[string]error
	a.search, unread = newSearch(in.Vault, names)
	a.note("%d of %d secrets can be read here and were looked for", len(names)-len(unread), len(names))
	for name, err := range unread {
		a.unread(in.Vault.At(name), err)
	}
	a.known()
	for _, step := range []func(context.Context) error{a.modes, a.project, a.git, a.store} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	a.Findings.Sort()
	return &a.Report, nil
}

func (a *audit) find(file, code, message, hint string) {
	a.Findings = append(a.Findings, diag.Problem{File: file, Severity: diag.Error, Code: code, Message: message, Hint: hint})
}

// unread reports a secret that could not be looked for elsewhere.
func (a *audit) unread(place string, err error) {
	var locked *secrets.LockedError
	if errors.As(err, &locked) {
		a.find(place, "secret-locked", "cannot be decrypted here, so it was not looked for elsewhere", "run the audit where the key is")
		return
	}
	if reason := errors.Unwrap(err); reason != nil {
		err = reason // the place is named
	}
	a.find(place, codeUnread, err.Error()+", so it was not looked for elsewhere", "fix it, or keep it elsewhere if k3splan does not use it")
}

func (a *audit) note(format string, args ...any) {
	a.Notes = append(a.Notes, fmt.Sprintf(format, args...))
}

// known takes over what validate finds as well, without what is missing and people's keys.
func (a *audit) known() {
	for _, p := range a.Known {
		switch p.Code {
		case "secret-invalid", "secret-weak", "secret-plain", "secret-duplicate", "recipients-invalid", "not-own":
			a.Findings = append(a.Findings, p)
		case "file-orphan":
			if strings.HasPrefix(p.File, secrets.Dir+"/") && path.Ext(p.File) != ".pub" {
				a.Findings = append(a.Findings, p)
			}
		}
	}
}

// modes checks which other users can access the secrets' files.
func (a *audit) modes(context.Context) error {
	root := filepath.Join(a.Dir, secrets.Dir)
	looked := 0
	check := func(file, shown string, public bool) error {
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a link that leads nowhere: validate reports it
		} else if err != nil {
			return err
		}
		looked++
		if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() && !(public && owner.Uid == 0) {
			a.find(shown, codeOwner, fmt.Sprintf("belongs to another user (number %d)", owner.Uid), fmt.Sprintf("chown %d %s", os.Geteuid(), run.Word(shown)))
		}
		wrong, right := fs.FileMode(0o077), "0600"
		if public {
			wrong = 0o022 // anyone who can change a key file can let themselves in
		}
		if info.IsDir() {
			right = "0700"
		}
		if mode := info.Mode().Perm(); mode&wrong != 0 {
			a.find(shown, codeReadable, fmt.Sprintf("has mode %04o: other users can access it", mode), "chmod "+right+" "+run.Word(shown))
		}
		return nil
	}
	plain := a.Vault.Where().Kind == plan.SecretFiles
	err := a.walk(root, func(file string, entry fs.DirEntry) error {
		relative, _ := filepath.Rel(root, file)
		shown := path.Join(secrets.Dir, filepath.ToSlash(relative))
		return check(file, shown, !entry.IsDir() && !isGuarded(shown) || entry.IsDir() && !plain)
	})
	if err != nil {
		return fmt.Errorf("check the modes: %w", err)
	}
	if a.Vault.Where().Kind == plan.SecretAge {
		for _, file := range secrets.IdentityFiles() {
			if err := check(file, file, false); err != nil {
				return err
			}
		}
	}
	a.note("%d modes and owners looked at", looked)
	return nil
}

// walk visits all that is below root. It skips what vanishes in between (an editor, another
// k3splan or Nix's garbage collector may be at work). What is another user's (sudo k3splan) is a finding:
// what it contains is unknown.
func (a *audit) walk(root string, visit func(file string, entry fs.DirEntry) error) error {
	return filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = visit(file, entry)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case errors.Is(err, fs.ErrPermission):
			shown := file
			if relative, err := filepath.Rel(a.Dir, file); err == nil && filepath.IsLocal(relative) {
				shown = filepath.ToSlash(relative)
			}
			a.find(shown, codeUnread, "cannot be read: permission denied", "run the audit as its owner, or: sudo chown -R "+strconv.Itoa(os.Geteuid())+" "+run.Word(shown))
			return nil
		}
		return err
	})
}

// isGuarded reports whether a file of the project is a secret by its name, or may hold one.
func isGuarded(file string) bool {
	name, among := strings.CutPrefix(file, secrets.Dir+"/")
	if !among {
		return false
	}
	class := secrets.ClassOf(name)
	return class == secrets.Secret || class == secrets.Leftover
}

// project looks for the secrets in all other files of the project: rendered ones, logs, snippets.
func (a *audit) project(context.Context) error {
	looked := 0
	err := a.walk(a.Dir, func(file string, entry fs.DirEntry) error {
		relative, _ := filepath.Rel(a.Dir, file)
		relative = filepath.ToSlash(relative)
		switch {
		case entry.IsDir() && (entry.Name() == ".git" || relative == secrets.Dir):
			return fs.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		looked++
		names, err := a.search.inFile(file)
		if err != nil {
			return err
		}
		for _, name := range names {
			a.find(relative, codeInFile, "holds the secret "+name, mendFile(relative))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look through the project: %w", err)
	}
	a.note("%d files of the project looked through, generated/ and logs among them", looked)
	return nil
}

func mendFile(file string) string {
	switch top, _, _ := strings.Cut(file, "/"); {
	case top == files.GeneratedDir, top == files.StateDir:
		return "remove the file and report it: k3splan must not write secrets there; then rotate the secret"
	case slices.Contains(secrets.SourceDirs, top):
		return secrets.MendSpilled
	}
	return "take it out, and rotate the secret if others could read it"
}

// git checks whether plain secrets are tracked, or ever were in the history of what is checked out.
func (a *audit) git(ctx context.Context) error {
	if _, err := exec.LookPath("git"); err != nil {
		a.note("git not looked at: git is not installed")
		return nil
	}
	prefix, err := a.gitOutput(ctx, "rev-parse", "--show-prefix")
	var failed *run.ExitError
	if errors.As(err, &failed) {
		if strings.Contains(failed.Stderr, "not a git repository") {
			a.note("git: the project is in no repository")
			return nil
		}
		a.note("git not looked at: %s", failed.Stderr)
		return nil
	} else if err != nil {
		return err
	}
	prefix = strings.TrimSuffix(prefix, "\n")

	tracked, err := a.gitOutput(ctx, "ls-files", "-z", "--", secrets.Dir, "generated")
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for file := range strings.SplitSeq(strings.TrimSuffix(tracked, "\x00"), "\x00") {
		switch {
		case isGuarded(file):
			seen[file] = true
			a.find(file, codeTracked, "is tracked by git", "git rm --cached "+run.Word(file)+", then rotate the secret if the repository is anywhere else")
		case strings.HasPrefix(file, files.GeneratedDir+"/"):
			seen[file] = true
			a.find(file, codeTracked, "is rendered, and tracked by git", "git rm -r --cached "+files.GeneratedDir)
		}
	}
	if err := a.gitHistory(ctx, prefix, seen); err != nil {
		return err
	}
	return a.gitIgnored(ctx)
}

func (a *audit) gitOutput(ctx context.Context, args ...string) (string, error) {
	return run.Output(ctx, run.Command{Program: "git", Args: args, Dir: a.Dir, Env: []string{"LC_ALL=C", "GIT_OPTIONAL_LOCKS=0"}})
}

const mendHistory = "rotate the secret: anyone who has a clone has it; `git filter-repo` removes it from the history"

// gitHistory searches every version of every file that HEAD or the index reaches. The secrets are
// compared here: as an argument of git they would be seen by everyone on the machine.
func (a *audit) gitHistory(ctx context.Context, prefix string, seen map[string]bool) error {
	args := []string{"rev-list", "--objects", "--indexed-objects"}
	if _, err := a.gitOutput(ctx, "rev-parse", "--verify", "--quiet", "HEAD"); err == nil {
		args = append(args, "HEAD")
	}
	list, err := a.gitOutput(ctx, args...)
	if err != nil {
		return fmt.Errorf("list git's objects: %w", err)
	}
	paths := map[string]string{} // by object
	var objects strings.Builder
	for line := range strings.Lines(list) {
		object, file, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if _, twice := paths[object]; !twice && file != "" {
			paths[object] = file
			objects.WriteString(object + "\n")
		}
	}
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run.Run(ctx, run.Command{
			Program: "git", Args: []string{"cat-file", "--batch", "--buffer"}, Dir: a.Dir, Stdin: strings.NewReader(objects.String()), Stdout: writer,
		})
		writer.CloseWithError(err) // nil is the end
		ended <- err
	}()
	looked, searchErr := a.searchObjects(bufio.NewReaderSize(reader, 1<<20), paths, prefix, seen)
	_ = reader.CloseWithError(searchErr)
	if err := errors.Join(searchErr, <-ended); err != nil {
		return fmt.Errorf("look through git's history: %w", err)
	}
	a.note("%d versions of files in git looked through: the index and the history of what is checked out", looked)
	return nil
}

// searchObjects reads what `git cat-file --batch` gives: a line "OBJECT TYPE SIZE", the content, a
// line break.
func (a *audit) searchObjects(in *bufio.Reader, paths map[string]string, prefix string, seen map[string]bool) (looked int, err error) {
	for {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			return looked, nil
		} else if err != nil {
			return looked, err
		}
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return looked, fmt.Errorf("git said %q", line)
		}
		size, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil {
			return looked, err
		}
		content := io.LimitReader(in, size)
		if fields[1] == "blob" {
			looked++
			file := paths[fields[0]]
			names, err := a.search.in(content)
			if err != nil {
				return looked, err
			}
			shown, ours := strings.CutPrefix(file, prefix)
			for _, name := range names {
				if !seen[shown] {
					a.find(shown, codeTracked, "in git, now or in the history, holds the secret "+name, mendHistory)
				}
			}
			// an older secret, whose content is unknown
			if ours && len(names) == 0 && !seen[shown] && isGuarded(shown) {
				seen[shown] = true
				a.find(shown, codeTracked, "is in git's history", mendHistory)
			}
		}
		if _, err := io.Copy(io.Discard, content); err != nil {
			return looked, err
		}
		if _, err := in.Discard(1); err != nil {
			return looked, err
		}
	}
}

// gitIgnored checks whether the next `git add` would include plain secrets.
func (a *audit) gitIgnored(ctx context.Context) error {
	for _, file := range []string{path.Join(secrets.Dir, "init-token"), path.Join(secrets.Dir, "hosts", "x"), "generated/hive.nix", ".k3splan/x"} {
		top, _, _ := strings.Cut(file, "/")
		if info, err := os.Lstat(filepath.Join(a.Dir, top)); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			continue // git takes the link, and nothing behind it
		}
		_, err := a.gitOutput(ctx, "check-ignore", "--quiet", "--no-index", file)
		var failed *run.ExitError
		switch {
		case errors.As(err, &failed) && failed.Code == 1:
			a.find(".gitignore", codeNotIgnored, "does not keep "+path.Dir(file)+"/ out of git", "k3splan setup")
		case err != nil:
			return err
		}
	}
	return nil
}

// store looks through the closures of the plan's systems in the local Nix store.
func (a *audit) store(ctx context.Context) error {
	dir := os.Getenv("NIX_STORE_DIR")
	if dir == "" {
		dir = "/nix/store"
	}
	roots := slices.Clone(a.StorePaths)
	entries, err := os.ReadDir(dir)
	if err != nil && len(roots) == 0 {
		a.note("store: there is none here (%s)", dir)
		return nil
	}
	for _, entry := range entries {
		for _, host := range a.Plan.Hosts {
			_, name, _ := strings.Cut(entry.Name(), "-")
			if strings.HasPrefix(name, "nixos-system-"+host.Name+"-") {
				roots = append(roots, filepath.Join(dir, entry.Name()))
			}
		}
	}
	if len(roots) == 0 {
		a.note("store: no system of the plan's hosts is in %s", dir)
		return nil
	}
	closure, err := a.closure(ctx, roots)
	if err != nil {
		return err
	}
	for _, storePath := range closure {
		if err := a.searchStorePath(storePath); err != nil {
			return fmt.Errorf("look through the store: %w", err)
		}
	}
	a.note("%d store paths looked through, of %d systems", len(closure), len(roots))
	return nil
}

// closure returns the paths that the roots need, or the roots alone if Nix does not know them.
func (a *audit) closure(ctx context.Context, roots []string) ([]string, error) {
	out, err := run.Output(ctx, run.Command{Program: "nix-store", Args: append([]string{"--query", "--requisites"}, roots...)})
	var missing *run.MissingError
	var failed *run.ExitError
	switch {
	case errors.As(err, &missing), errors.As(err, &failed) && failed.Interrupted == nil:
		a.note("store: only the systems themselves, not what they need: %v", err)
		return roots, nil
	case err != nil:
		return nil, err
	}
	paths := strings.FieldsFunc(out, func(char rune) bool { return char == '\n' })
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

func (a *audit) searchStorePath(root string) error {
	found := map[string]bool{}
	return a.walk(root, func(file string, entry fs.DirEntry) error {
		if !entry.Type().IsRegular() {
			return nil
		}
		names, err := a.search.inFile(file)
		for _, name := range names {
			if !found[name] {
				found[name] = true
				a.find(file, codeInStore, "holds the secret "+name+", which everyone on the machine can read",
					"find what brings it in (`nix-store -q --referrers "+root+"`): a Nix file that names it as a path in a string, or a manifest; then rotate it and collect the garbage")
			}
		}
		return err
	})
}
