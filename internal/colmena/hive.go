package colmena

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// Hive is a hive's file under a path that Colmena can take. Colmena puts the paths of the hive and
// of its own temporary folder unquoted into Nix code (colmena#204), so that a blank or a quote in
// one of them is a syntax error or worse.
type Hive struct {
	// File is to be given to Colmena.
	File string
	// Env is to be added to Colmena's environment.
	Env []string

	folder string
}

// pathLiteral is what Nix reads as one absolute path.
var pathLiteral = regexp.MustCompile(`^(/[A-Za-z0-9._+-]+)+$`)

// OpenHive finds or makes a path for the hive in file. If the hive's own will not do, a folder is
// made that only the user can read, with a hive that consists of importing the real one. Close
// removes it. Colmena's --keep-result then has no effect that lasts, as it puts its links beside the
// hive that it is given.
func OpenHive(file string) (*Hive, error) {
	real, err := filepath.Abs(file)
	if err != nil {
		return nil, fmt.Errorf("finding the hive: %w", err)
	}
	// Colmena resolves links before it uses the path
	if real, err = filepath.EvalSymlinks(real); err != nil {
		return nil, fmt.Errorf("finding the hive: %w", err)
	}
	temp, env, err := tempFolder()
	if err != nil {
		return nil, err
	}
	if pathLiteral.MatchString(real) {
		return &Hive{File: real, Env: env}, nil
	}
	folder, err := os.MkdirTemp(temp, "k3splan-hive-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for the hive: %w", err)
	}
	h := &Hive{File: filepath.Join(folder, "hive.nix"), Env: env, folder: folder}
	for name, text := range map[string]string{
		// the path comes from a file of its own: so it need not be quoted
		"hive.nix": "import (/. + builtins.readFile ./path)\n",
		"path":     real,
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			return nil, errors.Join(fmt.Errorf("writing the hive: %w", err), h.Close())
		}
	}
	return h, nil
}

// Close removes what OpenHive made.
func (h *Hive) Close() error {
	if h.folder == "" {
		return nil
	}
	if err := os.RemoveAll(h.folder); err != nil {
		return fmt.Errorf("removing the temporary hive: %w", err)
	}
	return nil
}

// tempFolder gives a folder for temporary files whose path Nix can read, and the environment with
// which Colmena uses it too.
func tempFolder() (folder string, env []string, err error) {
	for _, candidate := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		real, err := filepath.EvalSymlinks(candidate)
		if err != nil || !pathLiteral.MatchString(real) {
			continue
		}
		if candidate != os.TempDir() || !pathLiteral.MatchString(candidate) {
			env = []string{"TMPDIR=" + real}
		}
		return real, env, nil
	}
	return "", nil, fmt.Errorf("no folder for temporary files: TMPDIR is %q, and there is no /tmp", os.TempDir())
}
