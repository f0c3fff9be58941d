package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"

	_ "k3splan/internal/release/releasetest" // plans are valid on any day, for the program too
)

// newEnoughNix puts a program before the Nix of this machine, if it has one, that says it is as new as every
// release demands: the tests of commands evaluate no nixpkgs. What is said about an older Nix is tested by
// nix.txtar.
func newEnoughNix() {
	nix, err := exec.LookPath("nix-instantiate")
	if err != nil {
		return
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		panic(err)
	}
	folder := filepath.Join(cache, "k3splan-tests", "nix")
	file := filepath.Join(folder, "nix-instantiate")
	script := []byte("#!/bin/sh\nif [ \"$*\" = --version ]; then echo 'nix-instantiate (Nix) 2.26.3'; exit; fi\nexec " + nix + " \"$@\"\n")
	if present, err := os.ReadFile(file); nix != file && (err != nil || !bytes.Equal(present, script)) {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			panic(err)
		}
		temp := file + ".new"
		if err := os.WriteFile(temp, script, 0o755); err != nil {
			panic(err)
		}
		if err := os.Rename(temp, file); err != nil {
			panic(err)
		}
	}
	if err := os.Setenv("PATH", folder+string(os.PathListSeparator)+os.Getenv("PATH")); err != nil {
		panic(err)
	}
}
