package diff

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/run"
)

// ErrNoRevision is in the chain of the error if git knows no such revision.
var ErrNoRevision = errors.New("no such revision")

// Revision returns the folder plans/ of the project in dir as it is in git's revision rev, in memory.
// An unknown revision is ErrNoRevision.
func Revision(ctx context.Context, dir, rev string) (fs.FS, error) {
	const otherwise = "compare with a copy of the project: k3splan diff DIR"
	if _, err := git(ctx, dir, "rev-parse", "--show-toplevel"); err != nil {
		var missing *run.MissingError
		if errors.As(err, &missing) {
			return nil, diag.WithHint(errors.New("git is not installed, and the older plan is read from it"), otherwise)
		}
		return nil, diag.WithHint(fmt.Errorf("the project is not in a git repository: %w", err), otherwise)
	}
	commit, err := git(ctx, dir, "rev-parse", "--verify", "--quiet", "--end-of-options", rev+"^{commit}")
	if err != nil {
		if _, err := git(ctx, dir, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"); err != nil {
			return nil, diag.WithHint(errors.New("the git repository has no commit yet"), "git add plans && git commit")
		}
		return nil, fmt.Errorf("%w in git: %q", ErrNoRevision, rev)
	}
	// relative to dir, which may be below the root of the repository
	tree := strings.TrimSpace(commit)
	if listed, err := git(ctx, dir, "ls-tree", "--name-only", tree, "plans/"); err != nil || listed == "" {
		return nil, diag.WithHint(fmt.Errorf("revision %s has no plans/ of this project", rev), "git log -- plans shows the revisions that do")
	}
	archive, err := git(ctx, dir, "archive", "--format=zip", tree, "plans")
	if err != nil {
		return nil, fmt.Errorf("reading revision %s: %w", rev, err)
	}
	files, err := zip.NewReader(strings.NewReader(archive), int64(len(archive)))
	if err != nil {
		return nil, fmt.Errorf("reading revision %s: %w", rev, err)
	}
	return files, nil
}

// gitTime is more than git needs for the largest repository.
const gitTime = 5 * time.Minute

// git runs git in dir and returns its output. The error is the first line of what git says.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	output, err := run.Output(ctx, run.Command{Program: "git", Args: append([]string{"-C", dir}, args...), Timeout: gitTime})
	var exit *run.ExitError
	if errors.As(err, &exit) && exit.Interrupted == nil {
		if said, _, _ := strings.Cut(exit.Stderr, "\n"); said != "" {
			return "", errors.New(diag.Printable(strings.TrimPrefix(said, "fatal: ")))
		}
	}
	return output, err
}
