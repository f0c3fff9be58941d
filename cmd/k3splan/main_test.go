package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"k3splan/internal/colmena/nixtest"
	"k3splan/internal/release/releasetest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"k3splan": main, "box-colmena": boxColmena, "kubeapi": kubeAPI, "peak": peak})
}

const (
	// a key whose private half exists nowhere
	testKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDYX2xUDgCQXsQ3EXtVPkPO6PtS6C5zxVbGWGbMHKP6t alice@laptop\n"
	// the hash of a password that nobody uses
	testHash = "$6$rounds=5000$k3splantest$3NZsTVpZzBrpJtNsvTBiEItI1rfXRWzF6wBnJqLWYxIfPaTvVfPTIuZVmp3WHVgNKr0wAnuW4NrXYbHtOpkzL1\n"
)

// Each script is a behaviour, run with the real program. A script finds $KEY and $HASH, files that
// complete a project's secrets. [plain] tells that its folder has a path that ssh and Colmena take.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Condition: func(condition string) (bool, error) {
			if condition != "plain" {
				return false, fmt.Errorf("unknown condition %q", condition)
			}
			return nixtest.Plain(os.TempDir()), nil
		},
		Setup: func(env *testscript.Env) error {
			// a home, a runtime directory and a folder for temporary files of its own
			for variable, name := range map[string]string{"HOME": "home", "XDG_RUNTIME_DIR": "run", "TMPDIR": "tmp"} {
				dir := filepath.Join(env.WorkDir, ".test", name)
				if err := os.MkdirAll(filepath.Join(dir, ".config"), 0o700); err != nil {
					return err
				}
				env.Setenv(variable, dir)
			}
			for name, content := range map[string]string{"KEY": testKey, "HASH": testHash} {
				file := filepath.Join(env.WorkDir, ".test", name)
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					return err
				}
				if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
					return err
				}
				env.Setenv(name, file)
			}
			rig, err := filepath.Abs("../../internal/etcd/testdata/bin")
			if err != nil {
				return err
			}
			env.Setenv("ETCD_RIG", rig)
			env.Setenv("SOURCE_DATE_EPOCH", releasetest.Epoch)
			return newEnoughNix(env)
		},
	})
}

// newEnoughNix puts a program before the Nix of this machine, if it has one, that says it is as new as every
// release demands: the scripts evaluate no nixpkgs. What an older Nix is told is in nix.txtar.
func newEnoughNix(env *testscript.Env) error {
	nix, err := exec.LookPath("nix-instantiate")
	if err != nil {
		return nil
	}
	folder := filepath.Join(env.WorkDir, ".test", "nix")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	env.Setenv("PATH", folder+string(os.PathListSeparator)+env.Getenv("PATH"))
	return os.WriteFile(filepath.Join(folder, "nix-instantiate"), []byte("#!/bin/sh\n"+
		"if [ \"$*\" = --version ]; then echo 'nix-instantiate (Nix) 2.26.3'; exit; fi\nexec "+nix+" \"$@\"\n"), 0o755)
}
