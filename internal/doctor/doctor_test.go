package doctor

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A program that hangs is not one that is missing, and says nothing of the others.
func TestDoctorOfAProgramThatHangs(t *testing.T) {
	before := askTime
	askTime = 200 * time.Millisecond
	t.Cleanup(func() { askTime = before })
	file := filepath.Join(t.TempDir(), "lsblk")
	require.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755))
	t.Setenv("PATH", filepath.Dir(file)+":"+os.Getenv("PATH"))

	got := examine(context.Background(), tool{program: "lsblk", version: "--version"})
	require.Equal(t, Check{Name: "lsblk", State: Broken, Path: file, Message: "no answer within 200ms", Hint: "see what delays it: " + file + " --version"}, got)
}
