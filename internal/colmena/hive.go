package colmena

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"k3splan/internal/files"
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
	return hiveAt(file, false, nil)
}

// PrivateHive returns the hive in file under a path in a folder of its own, where Colmena can put the
// links of ApplyOne. users are login names by host that replace the hive's. Close removes it.
func PrivateHive(file string, users map[string]string) (*Hive, error) {
	return hiveAt(file, true, users)
}

// asUser makes Colmena log in as another user: it has no option for that.
const asUser = `args:
let
  hive = import (/. + builtins.readFile ./path) args;
  users = builtins.fromJSON (builtins.readFile ./users.json);
  override = host: user: { lib, ... }: {
    imports = [ hive.${host} ];
    deployment.targetUser = lib.mkForce user;
  };
in
hive // builtins.mapAttrs override users
`

// hiveAt makes a folder if it has to, or if it is wanted in any case.
func hiveAt(file string, private bool, users map[string]string) (*Hive, error) {
	real, err := filepath.Abs(file)
	if err != nil {
		return nil, fmt.Errorf("finding the hive: %w", err)
	}
	// Colmena resolves links before it uses the path
	if real, err = filepath.EvalSymlinks(real); err != nil {
		return nil, fmt.Errorf("finding the hive: %w", err)
	}
	temp, err := files.TempDir(pathLiteral.MatchString)
	if err != nil {
		return nil, err
	}
	if !private && pathLiteral.MatchString(real) {
		return &Hive{File: real, Env: environment(temp)}, nil
	}
	// the path comes from a file of its own: so it need not be quoted
	content := map[string]string{"hive.nix": "import (/. + builtins.readFile ./path)\n", "path": real}
	if len(users) > 0 {
		list, err := json.Marshal(users)
		if err != nil {
			return nil, err
		}
		content["hive.nix"], content["users.json"] = asUser, string(list)
	}
	return newHive(temp, content)
}

// environment is that of a Colmena that is to use a temporary folder.
func environment(temp string) []string {
	if temp == os.TempDir() {
		return nil
	}
	return []string{"TMPDIR=" + temp}
}

// newHive makes a hive of files, one of them hive.nix, in a folder of its own within temp.
func newHive(temp string, content map[string]string) (*Hive, error) {
	folder, err := os.MkdirTemp(temp, "k3splan-hive-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for the hive: %w", err)
	}
	h := &Hive{File: filepath.Join(folder, "hive.nix"), Env: environment(temp), folder: folder}
	for name, text := range content {
		file := filepath.Join(folder, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			return nil, errors.Join(fmt.Errorf("writing the hive: %w", err), h.Close())
		}
	}
	return h, nil
}

// Close removes what OpenHive or PrivateHive made.
func (h *Hive) Close() error {
	if h.folder == "" {
		return nil
	}
	if err := os.RemoveAll(h.folder); err != nil {
		return fmt.Errorf("removing the temporary hive: %w", err)
	}
	return nil
}

// Result returns the store path of the system that ApplyOne has built for a host, or "" if it built
// none.
func (h *Hive) Result(host string) string {
	path, err := os.Readlink(filepath.Join(filepath.Dir(h.File), ".gcroots", "node-"+host))
	if err != nil {
		return ""
	}
	return path
}
