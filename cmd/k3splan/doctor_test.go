package main

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
	require.Equal(t, checkup{Name: "lsblk", State: stateBroken, Path: file, Message: "gave no answer in 200ms", Hint: "see what keeps it: " + file + " --version"}, got)
}
