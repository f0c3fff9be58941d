package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"k3splan/internal/colmena/nixtest"
	"k3splan/internal/release/releasetest"
)

func TestMain(m *testing.M) {
	if strings.HasSuffix(os.Args[0], ".test") { // and not one of the programs below
		newEnoughNix()
	}
	testscript.Main(inOwnFolders{m}, map[string]func(){"k3splan": main, "box-colmena": boxColmena, "kubeapi": kubeAPI, "peak": peak})
}

// inOwnFolders fails if a test has written where a host of a rack keeps what k3splan brings to it.
type inOwnFolders struct{ testscript.TestingM }

func (m inOwnFolders) Run() int {
	const folder = "/var/lib/k3splan"
	_, before := os.Lstat(folder)
	code := m.TestingM.Run()
	if _, after := os.Lstat(folder); before != nil && after == nil {
		fmt.Printf("FAIL: a test has made %s on this machine\n", folder)
		return 1
	}
	return code
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
			return nil
		},
	})
}
