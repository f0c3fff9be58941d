package colmena

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// asUser lets Colmena log in as somebody else: it has no option for that.
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

// PrivateHive gives the hive in file under a path in a folder of its own, where Colmena can put the
// links of ApplyOne. users are login names by host that replace the hive's. Close removes it.
func PrivateHive(file string, users map[string]string) (*Hive, error) {
	real, err := filepath.Abs(file)
	if err != nil {
		return nil, fmt.Errorf("finding the hive: %w", err)
	}
	if real, err = filepath.EvalSymlinks(real); err != nil {
		return nil, fmt.Errorf("finding the hive: %w", err)
	}
	temp, env, err := tempFolder()
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp(temp, "k3splan-hive-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for the hive: %w", err)
	}
	h := &Hive{File: filepath.Join(folder, "hive.nix"), Env: env, folder: folder}
	files := map[string]string{"hive.nix": "import (/. + builtins.readFile ./path)\n", "path": real}
	if len(users) > 0 {
		list, err := json.Marshal(users)
		if err != nil {
			return nil, errors.Join(err, h.Close())
		}
		files["hive.nix"], files["users.json"] = asUser, string(list)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			return nil, errors.Join(fmt.Errorf("writing the hive: %w", err), h.Close())
		}
	}
	return h, nil
}

// Result gives the store path of the system that ApplyOne has built for a host, or "" if it built
// none.
func (h *Hive) Result(host string) string {
	path, err := os.Readlink(filepath.Join(filepath.Dir(h.File), ".gcroots", "node-"+host))
	if err != nil {
		return ""
	}
	return path
}
