package lab

import (
	"os/exec"
	"path/filepath"
	"runtime"
)

// makeK3S builds the replacement of k3s, if there is no real one.
func (l *Lab) makeK3S() error {
	if !l.standIn() {
		return nil
	}
	_, here, _, _ := runtime.Caller(0)
	command := exec.Command("go", "build", "-ldflags=-s -w", "-o", l.K3S, "./standin")
	command.Dir = filepath.Dir(filepath.Dir(here))
	command.Env = append(command.Environ(), "CGO_ENABLED=0")
	_, err := run(command)
	return err
}
