package files

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k3splan/internal/diag"
)

// TempDir returns a folder for temporary files whose path, with links resolved, is fit for a program
// that cannot take every path, and in which no other user can exchange what is made there: $TMPDIR,
// else /tmp, else /var/tmp.
func TempDir(fit func(path string) bool) (string, error) {
	var refused []string
	for _, candidate := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		real, err := filepath.EvalSymlinks(candidate)
		switch {
		case err != nil:
			err = fmt.Errorf("%s: %w", candidate, diag.Reason(err))
		case !fit(real):
			err = fmt.Errorf("the path %q cannot be used", real)
		default:
			if err = SafeParent(real); err == nil {
				return real, nil
			}
		}
		refused = append(refused, err.Error())
	}
	return "", diag.WithHint(errors.New("no folder for temporary files: "+strings.Join(slices.Compact(refused), "; ")),
		"set TMPDIR to a folder of your own whose path has only letters, digits and . _ + -")
}

// TempFolder makes a folder for this user alone in [TempDir]. The caller removes it.
func TempFolder(pattern string, fit func(path string) bool) (string, error) {
	parent, err := TempDir(fit)
	if err != nil {
		return "", err
	}
	folder, err := os.MkdirTemp(parent, pattern) // of mode 0700
	if err != nil {
		return "", fmt.Errorf("make a temporary folder: %w", err)
	}
	return folder, nil
}
