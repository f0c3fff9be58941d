package pins

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/run"
)

// How long the programs may take: git only asks for names, Nix fetches all of nixpkgs.
var (
	resolveTime = 2 * time.Minute
	fetchTime   = time.Hour
)

// Move is what Update did with one source.
type Move struct {
	Source plan.Source
	// From is what was pinned before, nil if nothing was.
	From *Entry
	// To is what is pinned now: From itself if nothing moved, nil if the source needs no pin.
	To *Entry
}

// Moved reports whether the pin has changed.
func (m Move) Moved() bool { return m.To != nil && m.From != m.To }

// String returns one line: what is pinned, and from where to where it moved.
func (m Move) String() string {
	name := string(m.Source.Kind)
	switch {
	case m.To == nil:
		return fmt.Sprintf("%s: %s needs no pin", name, m.Source)
	case m.From == nil:
		return fmt.Sprintf("%s: %s pinned at %s", name, m.To.Ref, m.To.short())
	case !m.Moved():
		return fmt.Sprintf("%s: %s stays at %s", name, m.To.Ref, m.To.short())
	case m.From.Ref == m.To.Ref:
		return fmt.Sprintf("%s: %s moved from %s to %s", name, m.To.Ref, m.From.short(), m.To.short())
	default:
		return fmt.Sprintf("%s: moved from %s at %s to %s at %s", name, m.From.Ref, m.From.short(), m.To.Ref, m.To.short())
	}
}

// short returns the first digits of the commit, or of the hash without one.
func (e *Entry) short() string {
	if e.Rev == "" {
		return e.SHA256[:min(12, len(e.SHA256))]
	}
	return e.Rev[:12]
}

// Update pins the newest commits of the sources in the lock of the project in dir, and returns a Move
// for each source, in their order. git looks the commits up, Nix fetches them; progress and what Nix
// prints are written to log.
//
// The file is written only if everything succeeded and something moved. A source whose commit is
// still the newest is not fetched again. A tarball that does not come from a repository has no commit; it
// is fetched to see whether it changed.
func Update(ctx context.Context, dir string, sources []plan.Source, log io.Writer) ([]Move, error) {
	moves, err := Find(ctx, dir, sources, log)
	if err != nil {
		return nil, err
	}
	return moves, save(dir, moves)
}

// Find is Update without writing anything: [Apply] makes the lock's new content from the moves.
func Find(ctx context.Context, dir string, sources []plan.Source, log io.Writer) ([]Move, error) {
	old, err := usable(Read(files.In(dir)))
	if err != nil {
		return nil, err
	}
	u := updater{log: log}
	moves := make([]Move, len(sources))
	// everything is looked up before anything is fetched
	for i, source := range sources {
		if moves[i], err = u.resolve(ctx, old, source); err != nil {
			return nil, err
		}
	}
	for i := range moves {
		if err := u.fetch(ctx, &moves[i]); err != nil {
			return nil, err
		}
	}
	return moves, nil
}

// usable returns the lock, or the first of its problems as an error.
func usable(lock Lock, problems diag.Problems) (Lock, error) {
	if len(problems) > 0 {
		return Lock{}, diag.WithHint(errors.New(problems[0].String()), problems[0].Hint)
	}
	return lock, nil
}

// save writes the moves into the lock as it is now: fetching took minutes.
func save(dir string, moves []Move) error {
	if !slices.ContainsFunc(moves, Move.Moved) {
		return nil
	}
	// a link stays: racks may share their pins
	_, err := files.Update(dir, File, func(present []byte) ([]byte, error) { return Apply(present, moves) })
	if err != nil {
		return fmt.Errorf("writing %s: %w", File, err)
	}
	return nil
}

// Apply returns the content of the lock with the moves; present is what it holds, or nil.
func Apply(present []byte, moves []Move) ([]byte, error) {
	var lock Lock
	if present != nil {
		var err error
		if lock, err = usable(parse(present)); err != nil {
			return nil, err
		}
	}
	for _, move := range moves {
		if move.Moved() {
			*lock.entry(move.Source.Kind) = move.To
		}
	}
	return lock.format()
}

type updater struct{ log io.Writer }

func (u updater) say(format string, args ...any) { fmt.Fprintf(u.log, format+"\n", args...) }

// resolve looks up what a source means today. If it must be fetched, the hash of the move's To is still
// missing.
func (u updater) resolve(ctx context.Context, lock Lock, source plan.Source) (Move, error) {
	place := lock.entry(source.Kind)
	switch {
	case place == nil:
		return Move{}, errors.New("a source without a kind cannot be pinned")
	case !source.NeedsLock():
		return Move{Source: source, From: *place}, nil
	case source.Form == plan.SourceTarball:
		return Move{source, *place, &Entry{Ref: source.String(), URL: source.Location}}, nil
	}
	rev := source.Ref
	if source.Form != plan.SourceCommit {
		u.say("%s: asking %s for %s", source.Kind, source.Repository, source.Ref)
		var err error
		if rev, err = resolveRef(ctx, source); err != nil {
			return Move{}, fmt.Errorf("%s: %w", source.Kind, err)
		}
	}
	from := *place
	switch {
	case from == nil || from.Rev != rev:
		return Move{source, from, &Entry{Ref: source.String(), Rev: rev, URL: archiveURL(source.Repository, rev)}}, nil
	case from.pins(source):
		return Move{source, from, from}, nil
	default:
		// a commit has the same content under every name
		to := *from
		to.Ref = source.String()
		return Move{source, from, &to}, nil
	}
}

// archiveURL is the URL of a commit's tarball: GitHub, Gitea and Forgejo have one scheme, GitLab another.
func archiveURL(repository, rev string) string {
	if strings.HasPrefix(repository, "https://gitlab.") {
		return fmt.Sprintf("%s/-/archive/%s/%s-%s.tar.gz", repository, rev, path.Base(repository), rev)
	}
	return repository + "/archive/" + rev + ".tar.gz"
}

// resolveRef returns the commit of a branch or tag, which it asks the repository for.
func resolveRef(ctx context.Context, source plan.Source) (rev string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, resolveTime, fmt.Errorf("%s did not answer within %s", source.Repository, resolveTime))
	defer cancel()
	out, err := run.Output(ctx, run.Command{
		Program: "git",
		// without --heads and --tags the server would send all pull requests as well
		Args: []string{"ls-remote", "--heads", "--tags", "--", source.Repository},
		// never ask for a name and password; answer in the language that gitHints match
		Env: []string{"GIT_TERMINAL_PROMPT=0", "LC_ALL=C"},
	})
	if err != nil {
		return "", explain(err, "asking "+source.Repository, gitHints)
	}
	commits := make(map[string]string)
	for line := range strings.Lines(out) {
		if commit, ref, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && revForm.MatchString(commit) {
			commits[ref] = commit
		}
	}
	tag := "refs/tags/" + source.Ref
	// an annotated tag is an object of its own; git lists its commit under the name with ^{}
	names := []string{"refs/heads/" + source.Ref, tag + "^{}", tag}
	if source.Form == plan.SourceTag {
		names = names[1:]
	}
	for _, name := range names {
		if commit := commits[name]; commit != "" {
			return commit, nil
		}
	}
	what := "branch or tag"
	if source.Form == plan.SourceTag {
		what = "tag"
	}
	return "", diag.WithHint(fmt.Errorf("%s has no %s %q", source.Repository, what, source.Ref), nearestRef(source, commits))
}

// nearestRef returns a hint for a ref that does not exist.
func nearestRef(source plan.Source, commits map[string]string) string {
	var names []string
	for ref := range commits {
		if name, ok := strings.CutPrefix(ref, "refs/tags/"); ok {
			names = append(names, strings.TrimSuffix(name, "^{}"))
		} else if source.Form == plan.SourceRef {
			names = append(names, strings.TrimPrefix(ref, "refs/heads/"))
		}
	}
	slices.Sort(names)
	nearest := diag.Nearest(source.Ref, names)
	if i := slices.IndexFunc(names, func(name string) bool { return strings.Contains(name, source.Ref) }); nearest == "" && i >= 0 {
		nearest = names[i]
	}
	if nearest == "" {
		return "git ls-remote " + source.Repository + " lists them"
	}
	return fmt.Sprintf("did you mean %q?", nearest)
}

// fetch fetches what a move needs and fills in its hash.
func (u updater) fetch(ctx context.Context, move *Move) error {
	if !move.Moved() || move.To.SHA256 != "" {
		return nil
	}
	u.say("%s: fetching %s", move.Source.Kind, move.To.URL)
	hash, err := u.prefetch(ctx, move.To.URL)
	if err != nil {
		return fmt.Errorf("%s: %w", move.Source.Kind, err)
	}
	move.To.SHA256 = hash
	if from := move.From; from != nil && from.pins(move.Source) && from.URL == move.To.URL && sameHash(from.SHA256, hash) {
		move.To = from
	}
	return nil
}

// prefetch returns the hash of a tarball's content, in Nix's base 32, and leaves the content in the
// store under the name that fetchTarball looks for.
func (u updater) prefetch(ctx context.Context, url string) (hash string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTime, fmt.Errorf("not fetched within %s", fetchTime))
	defer cancel()
	command := run.Command{
		Program: "nix-prefetch-url",
		Args:    []string{"--unpack", "--type", "sha256", "--name", "source", "--", url},
	}
	// Nix shows a progress bar on a terminal; elsewhere what it prints belongs into the error.
	if file, ok := u.log.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		command.Stderr = file
	}
	out, err := run.Output(ctx, command)
	if err != nil {
		return "", explain(err, "fetching "+url, nixHints)
	}
	hash = strings.TrimSpace(out)
	if decodeHash(hash) == nil {
		return "", fmt.Errorf("nix-prefetch-url printed %q instead of a hash", hash)
	}
	return hash, nil
}

// hint is the advice for an error of a program whose output matches.
type hint struct {
	words *regexp.Regexp
	text  string
}

var (
	networkHint = hint{
		regexp.MustCompile(`(?i)could ?n.t resolve host|could not resolve host|failed to connect|could not connect|couldn't connect|timed? ?out|network is unreachable|connection (refused|reset)`),
		"is there a network? Behind a proxy, set https_proxy",
	}
	gitHints = []hint{
		networkHint,
		{regexp.MustCompile(`could not read Username|terminal prompts disabled|Authentication failed|not found|does not exist|does not appear to be a git repository`),
			"there is no such repository, or it is private: check its URL in the plan"},
	}
	nixHints = []hint{
		networkHint,
		{regexp.MustCompile(`(?i)HTTP error 404|error 37|couldn't open file|couldn't read a file`),
			"check the commit or URL in the plan: there is no such file"},
		{regexp.MustCompile(`(?i)permission denied|cannot connect to (socket|daemon)`),
			"does Nix work on this machine? Try nix-store --version and nix-store --verify"},
	}
)

// explain returns the failure of a program with the hint that fits its output. A missing program comes
// with advice already, and an interruption needs none.
func explain(err error, doing string, hints []hint) error {
	exit := (*run.ExitError)(nil)
	if !errors.As(err, &exit) || exit.Interrupted != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	for _, hint := range hints {
		if hint.words.MatchString(exit.Stderr) {
			return diag.WithHint(fmt.Errorf("%s: %w", doing, err), hint.text)
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}
