// Package runtest puts fake programs on PATH for tests.
package runtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Fake puts a shell script of that name first on PATH for the rest of the test and returns its path.
func Fake(t *testing.T, name, script string) string {
	t.Helper()
	folder := t.TempDir()
	file := filepath.Join(folder, name)
	require.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\n"+script), 0o755))
	t.Setenv("PATH", folder+string(os.PathListSeparator)+os.Getenv("PATH"))
	return file
}
