package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts in testdata/loop write to a loop device, which the command "loop FILE" makes: its
// path is in $LOOP from then on, and it is detached at the end.
func TestLoopScripts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP: loop devices need root")
	}
	for _, name := range []string{"losetup", "lsblk"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("SKIP: %s is not installed", name)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/loop",
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"loop": func(ts *testscript.TestScript, _ bool, args []string) {
				if len(args) != 1 {
					ts.Fatalf("usage: loop FILE")
				}
				file := ts.MkAbs(args[0])
				output, err := exec.Command("losetup", "--find", "--show", file).Output()
				if err != nil {
					t.Skipf("SKIP: no loop device available: %v", err)
				}
				device := strings.TrimSpace(string(output))
				ts.Defer(func() { ts.Check(exec.Command("losetup", "--detach", device).Run()) })
				ts.Setenv("LOOP", device)
				ts.Check(os.WriteFile(filepath.Join(ts.Getenv("WORK"), "loop-path"), []byte(device), 0o600))
			},
		},
	})
}
