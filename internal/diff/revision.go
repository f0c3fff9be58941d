package diff

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
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
	tree, err := commit(ctx, dir, rev)
	if err != nil {
		return nil, err
	}
	return archive(ctx, dir, rev, tree, "plans")
}

// Repository returns all files of the repository of the project in dir, as in [Revision], and the project's
// folder in it ("." for the whole).
func Repository(ctx context.Context, dir, rev string) (files fs.FS, within string, err error) {
	tree, err := commit(ctx, dir, rev)
	if err != nil {
		return nil, "", err
	}
	root, err := git(ctx, dir, "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, "", fmt.Errorf("finding the git repository: %w", err)
	}
	prefix, err := git(ctx, dir, "rev-parse", "--show-prefix")
	if err != nil {
		return nil, "", fmt.Errorf("finding the git repository: %w", err)
	}
	files, err = archive(ctx, strings.TrimSuffix(root, "\n"), rev, tree)
	return files, path.Clean(strings.TrimSuffix(prefix, "\n")), err
}

// commit returns the hash of a revision that has a plan of the project in dir.
func commit(ctx context.Context, dir, rev string) (string, error) {
	const otherwise = "compare with a copy of the project: k3splan diff DIR"
	if _, err := git(ctx, dir, "rev-parse", "--show-toplevel"); err != nil {
		var missing *run.MissingError
		if errors.As(err, &missing) {
			return "", diag.WithHint(errors.New("git is not installed, and the older plan is read from it"), otherwise)
		}
		return "", diag.WithHint(fmt.Errorf("the project is not in a git repository: %w", err), otherwise)
	}
	commit, err := git(ctx, dir, "rev-parse", "--verify", "--quiet", "--end-of-options", rev+"^{commit}")
	if err != nil {
		if _, err := git(ctx, dir, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"); err != nil {
			return "", diag.WithHint(errors.New("the git repository has no commit yet"), "git add plans && git commit")
		}
		return "", fmt.Errorf("%w in git: %q", ErrNoRevision, rev)
	}
	// relative to dir, which may be below the root of the repository
	tree := strings.TrimSpace(commit)
	if listed, err := git(ctx, dir, "ls-tree", "--name-only", tree, "plans/"); err != nil || listed == "" {
		return "", diag.WithHint(fmt.Errorf("revision %s has no plans/ of this project", rev), "git log -- plans shows the revisions that do")
	}
	return tree, nil
}

// archive returns files of a commit: those of the folders in dir, or all.
func archive(ctx context.Context, dir, rev, tree string, folders ...string) (fs.FS, error) {
	archive, err := git(ctx, dir, append([]string{"archive", "--format=zip", tree}, folders...)...)
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
