package lab

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// makePrograms builds the replacements of k3s and of Colmena, where there is no real one.
func (l *Lab) makePrograms() error {
	if l.standIn() {
		if err := build(l.K3S, "./standin"); err != nil {
			return err
		}
	}
	colmena := l.path("bin", "colmena")
	if _, err := exec.LookPath("colmena"); err == nil {
		return errors.Join(os.RemoveAll(colmena))
	}
	return errors.Join(build(l.path("bin", "boot"), "."), write(colmena, "#!/bin/sh\nexec boot colmena \"$@\"\n", 0o755))
}

// build builds a package of this folder, statically: it runs where there is no library.
func build(program, name string) error {
	_, here, _, _ := runtime.Caller(0)
	command := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, name)
	command.Dir = filepath.Dir(filepath.Dir(here))
	command.Env = append(command.Environ(), "CGO_ENABLED=0")
	_, err := run(command)
	return err
}
