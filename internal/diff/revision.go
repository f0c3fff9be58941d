package diff

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
)

// RevisionError says why the tables of a revision cannot be read.
type RevisionError struct{ message, hint string }

func (e *RevisionError) Error() string { return e.message }

// Hint says what to do about it.
func (e *RevisionError) Hint() string { return e.hint }

// ErrNoRevision is in the chain of the error where git knows no such revision.
var ErrNoRevision = errors.New("no such revision")

// Revision gives the folder plans/ of the project in dir as git's revision rev has it, in memory.
// The error is a *RevisionError, or wraps ErrNoRevision.
func Revision(ctx context.Context, dir, rev string) (fs.FS, error) {
	if _, err := exec.LookPath("git"); err != nil {
		return nil, &RevisionError{"git is not installed, and the other plan is to be read from it", "compare with a copy of the project: k3splan diff DIR"}
	}
	if _, err := git(ctx, dir, "rev-parse", "--show-toplevel"); err != nil {
		return nil, &RevisionError{"the project is in no git repository: " + err.Error(), "compare with a copy of the project: k3splan diff DIR"}
	}
	commit, err := git(ctx, dir, "rev-parse", "--verify", "--quiet", "--end-of-options", rev+"^{commit}")
	if err != nil {
		if _, err := git(ctx, dir, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"); err != nil {
			return nil, &RevisionError{"the git repository has no commit yet", "git add plans && git commit"}
		}
		return nil, fmt.Errorf("%w in git: %q", ErrNoRevision, rev)
	}
	// relative to dir, which may lie below the root of the repository
	tree := strings.TrimSpace(string(commit))
	if listed, err := git(ctx, dir, "ls-tree", "--name-only", tree, "plans/"); err != nil || len(listed) == 0 {
		return nil, &RevisionError{fmt.Sprintf("revision %s has no plans/ of this project", rev), "git log -- plans shows the revisions that do"}
	}
	archive, err := git(ctx, dir, "archive", "--format=zip", tree, "plans")
	if err != nil {
		return nil, &RevisionError{"git archive: " + err.Error(), ""}
	}
	files, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		return nil, &RevisionError{"git archive: " + err.Error(), ""}
	}
	return files, nil
}

// git runs git in dir and gives its output; the error is the first line that it says.
func git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...)
	output, err := command.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		said, _, _ := strings.Cut(strings.TrimSpace(string(exit.Stderr)), "\n")
		if said != "" {
			return nil, errors.New(strings.TrimPrefix(said, "fatal: "))
		}
	}
	return output, err
}
