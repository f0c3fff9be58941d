package files

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"k3splan/internal/diag"
)

// TempDir returns a folder for temporary files whose path, with links resolved, is fit for a program
// that cannot take every path: $TMPDIR, else /tmp, else /var/tmp.
func TempDir(fit func(path string) bool) (string, error) {
	for _, candidate := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if real, err := filepath.EvalSymlinks(candidate); err == nil && fit(real) {
			return real, nil
		}
	}
	err := errors.New("no folder for temporary files: /tmp is missing")
	if temp := os.TempDir(); temp != "/tmp" {
		err = fmt.Errorf("no folder for temporary files: the path %q in TMPDIR cannot be used, and /tmp is missing", temp)
	}
	return "", diag.WithHint(err, "set TMPDIR to a folder whose path has only letters, digits and . _ + -")
}
