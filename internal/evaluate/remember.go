package evaluate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k3splan/internal/colmena"
	"k3splan/internal/files"
	"k3splan/internal/run"
)

// folderName is that of what is remembered, within the state folder: for each host the last evaluation, and links
// that keep the derivations from Nix's garbage collector.
const (
	folderName  = "evaluations"
	rootsFolder = "roots"
)

// memory is what is remembered of a project's hosts.
type memory struct {
	request *Request
	folder  string
	// common is what all keys have in common.
	common string
}

// remembered is a file of the folder.
type remembered struct {
	// Key identifies everything that the evaluation depends on.
	Key  string `json:"key"`
	Host *Host  `json:"host"`
}

// remember opens what is remembered. An evaluation is valid for the same inputs of the host, by the same code of
// Colmena, the same Nix and the same expression, in the same place: paths of secrets are in it.
func (r *Request) remember(evaluator *colmena.Evaluator) (*memory, error) {
	folder, err := files.OwnFolder(r.Dir, files.StateDir, folderName)
	if err != nil {
		return nil, err
	}
	hive, err := filepath.EvalSymlinks(r.Hive)
	if err == nil {
		hive, err = filepath.Abs(hive)
	}
	if err != nil {
		return nil, fmt.Errorf("finding the hive: %w", err)
	}
	parts := []string{evaluator.Digest(), hive}
	parts = append(parts, r.Options...)
	err = fs.WalkDir(code, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := code.ReadFile(name)
		parts = append(parts, string(text))
		return err
	})
	if err != nil {
		return nil, err
	}
	return &memory{request: r, folder: folder, common: digest(parts...)}, nil
}

// digest is of words, whatever is in them.
func digest(words ...string) string {
	data, err := json.Marshal(words)
	if err != nil {
		panic(err) // strings
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// key returns the key of a host, or "" if its inputs say too little: with something that has no hash, the same ones
// can give another system.
func (m *memory) key(name string) string {
	in, known := m.request.Inputs[name]
	if !known || len(in.Loose) > 0 {
		return ""
	}
	return digest(m.common, name, in.Fingerprint())
}

func (m *memory) file(name string) string { return filepath.Join(m.folder, name+".json") }

// recall returns the hosts that are remembered and whose derivations are in the store.
func (m *memory) recall(ctx context.Context, names []string) (map[string]*Host, error) {
	known, derivations := map[string]*Host{}, []string{}
	for _, name := range names {
		key := m.key(name)
		if key == "" {
			continue
		}
		data, err := files.Read(m.file(name))
		var r remembered
		if err != nil || json.Unmarshal(data, &r) != nil || r.Key != key || r.Host == nil || r.Host.Derivation == "" {
			continue // evaluated again
		}
		known[name] = r.Host
		derivations = append(derivations, r.Host.Derivation)
	}
	lost, err := invalid(ctx, derivations)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(known, func(_ string, h *Host) bool { return slices.Contains(lost, h.Derivation) })
	return known, nil
}

// invalid returns those of the paths that are not in the store.
func invalid(ctx context.Context, paths []string) ([]string, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	var lost []string
	for chunk := range slices.Chunk(paths, 500) {
		out, err := run.Output(ctx, run.Command{Program: "nix-store", Args: append([]string{"--check-validity", "--print-invalid"}, chunk...)})
		if err != nil {
			return nil, fmt.Errorf("asking for what is in the Nix store: %w", err)
		}
		lost = append(lost, strings.Fields(out)...)
	}
	return lost, nil
}

// keep remembers what was evaluated just now, and forgets hosts that are not in the plan any more.
func (m *memory) keep(ctx context.Context, result *Result) error {
	for _, name := range result.Evaluated {
		host, key := result.Hosts[name], m.key(name)
		if host == nil || key == "" || host.HasTexts {
			if err := files.Remove(m.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("forgetting an evaluation: %w", err)
			}
			continue
		}
		data, err := json.Marshal(remembered{key, host})
		if err != nil {
			return err
		}
		if err := files.Replace(m.file(name), data, files.Private); err != nil {
			return fmt.Errorf("remembering an evaluation: %w", err)
		}
	}
	return m.root(ctx)
}

// rootsExpression has Nix take derivations that are in its store: their paths alone matter.
const rootsExpression = `{ paths }: map (path: {
  type = "derivation";
  name = "remembered";
  system = "any";
  outputName = "out";
  drvPath = path;
  outPath = path;
}) (builtins.fromJSON paths)`

// root protects the derivations of everything that is remembered and still valid, and nothing else: what was found with
// another store or other inputs is not used again, and may not even be a path of this store.
func (m *memory) root(ctx context.Context) error {
	entries, err := os.ReadDir(m.folder)
	if err != nil {
		return fmt.Errorf("looking at what is remembered: %w", err)
	}
	var derivations []string
	for _, entry := range entries {
		name, isHost := strings.CutSuffix(entry.Name(), ".json")
		if !isHost {
			continue
		}
		if _, inPlan := m.request.Inputs[name]; !inPlan {
			_ = files.Remove(m.file(name))
			continue
		}
		var r remembered
		if data, err := files.Read(m.file(name)); err == nil && json.Unmarshal(data, &r) == nil && r.Key != "" && r.Key == m.key(name) && r.Host != nil && r.Host.Derivation != "" {
			derivations = append(derivations, r.Host.Derivation)
		}
	}
	lost, err := invalid(ctx, derivations)
	if err != nil {
		return err
	}
	derivations = slices.DeleteFunc(derivations, func(path string) bool { return slices.Contains(lost, path) })
	roots, err := files.OwnFolder(m.request.Dir, files.StateDir, folderName, rootsFolder)
	if err != nil {
		return err
	}
	present, err := os.ReadDir(roots)
	if err != nil {
		return fmt.Errorf("looking at what is remembered: %w", err)
	}
	if len(derivations) > 0 {
		list, err := json.Marshal(derivations)
		if err != nil {
			return err
		}
		if _, err := run.Output(ctx, run.Command{Program: "nix-instantiate", Args: []string{
			"--add-root", filepath.Join(roots, "root"), "--indirect", "--argstr", "paths", string(list), "-E", rootsExpression,
		}}); err != nil {
			return fmt.Errorf("protecting derivations from Nix's garbage collector: %w", err)
		}
	}
	// Nix names them root, root-2, root-3, …
	for _, entry := range present {
		var n int
		if _, err := fmt.Sscanf(entry.Name(), "root-%d", &n); (err == nil && n > len(derivations)) || len(derivations) == 0 {
			_ = files.Remove(filepath.Join(roots, entry.Name()))
		}
	}
	return nil
}
