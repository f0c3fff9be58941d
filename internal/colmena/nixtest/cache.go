package nixtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Evaluations take most of the time of all tests, and most commits change nothing that they read. So an evaluation
// of a hive is kept under the hash of everything that it can read, and made in a copy of the project that holds
// nothing else: the private secrets are empty there, and the public keys of hosts, which differ in each run, are missing.
// Therefore a kept result cannot differ from that of an evaluation. "go test -count=1" evaluates again.

const (
	// evaluations is the folder of what is kept, below the user's home.
	evaluations = ".cache/k3splan-tests/evaluations"
	// projectPath and projectInJSON are the project's folder in what is kept, as it is and within a JSON string.
	projectPath   = "\x00path"
	projectInJSON = "\x00json"
	// unusedFor is how long what nobody asks for is kept.
	unusedFor = 14 * 24 * time.Hour
)

// projectOf returns the folder of the project whose hive evalhive.sh is to evaluate, or "" if what it can read is not
// known to be there.
func projectOf(t testing.TB, args []string) (root string) {
	t.Helper()
	i := slices.IndexFunc(args, func(word string) bool { return filepath.Base(word) == "hive.nix" && filepath.IsAbs(word) })
	nix, err := exec.LookPath("nix-instantiate")
	switch {
	case i < 0 || err != nil || strings.HasPrefix(nix, os.TempDir()), os.Getenv("EVALHIVE_INSTALLER")+os.Getenv("EVALHIVE_ARGS") != "":
		return ""
	}
	root = filepath.Dir(args[i])
	if filepath.Base(root) == "generated" {
		root = filepath.Dir(root)
	}
	elsewhere := false
	if err := eachFile(root, func(_ string, entry fs.DirEntry, content []byte) error {
		elsewhere = elsewhere || entry.Type()&fs.ModeSymlink != 0 || bytes.Contains(content, []byte(os.TempDir()+"/Test"))
		return nil
	}); err != nil || elsewhere {
		return ""
	}
	return root
}

// kept returns what evalhive.sh prints about a project, and runs it only if that is not known.
func kept(t testing.TB, harness, sources, root string, args []string) (stdout string, code int) {
	t.Helper()
	key := sha256.New()
	for _, word := range args {
		fmt.Fprintf(key, "%q", strings.ReplaceAll(word, root, "."))
	}
	for _, entry := range slices.Sorted(slices.Values(os.Environ())) {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "NIX") || name == "OPTION_INDEX" || name == k3sVariable {
			fmt.Fprintf(key, "%q", entry)
		}
	}
	fmt.Fprintf(key, "%s%s%s", machineHash(t, harness), treeHash(t, sources), overlay)
	require.NoError(t, hashProject(key, root))
	name := hex.EncodeToString(key.Sum(nil))[:32]

	folder := filepath.Join(home, evaluations)
	require.NoError(t, os.MkdirAll(folder, 0o755))
	lock, err := os.OpenFile(filepath.Join(folder, name+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	require.NoError(t, err)
	defer lock.Close()
	require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)) // another process may be about to find out the same
	file := filepath.Join(folder, name)
	elsewhere := filepath.Join(os.TempDir(), "k3splan-evaluation-"+name)
	copied := filepath.Join(elsewhere, filepath.Base(root))
	content, err := os.ReadFile(file)
	if err != nil || again() {
		require.NoError(t, copyProject(root, copied))
		defer os.RemoveAll(elsewhere)
		moved := slices.Clone(args)
		for i := range moved {
			moved[i] = strings.ReplaceAll(moved[i], root, copied)
		}
		var out, said bytes.Buffer
		code = runHarness(t, &out, &said, "evalhive.sh", moved...)
		if said.Len() > 0 {
			t.Log(said.String())
		}
		// not the folder of the copy, which is another one for the next test
		content = []byte(strings.NewReplacer(inJSON(t, copied), projectInJSON, copied, projectPath).Replace(out.String()))
		if code == 0 { // the reason of a failure is to be seen each time
			require.NoError(t, os.WriteFile(file+".new", content, 0o600))
			require.NoError(t, os.Rename(file+".new", file))
			forget(folder)
		}
	} else {
		now := time.Now()
		_ = os.Chtimes(file, now, now)
	}
	return strings.NewReplacer(projectInJSON, inJSON(t, root), projectPath, root).Replace(string(content)), code
}

// inJSON is a path as it is in a JSON string.
func inJSON(t testing.TB, path string) string {
	t.Helper()
	text, err := json.Marshal(path)
	require.NoError(t, err)
	return strings.Trim(string(text), `"`)
}

// again reports whether the tests are to run whatever is known: the flag is set by nothing else.
var again = func() (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "test.count" || f.Name == "test.bench" })
	return set
}

// forget removes what has not been used for long.
func forget(folder string) {
	entries, _ := os.ReadDir(folder)
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && time.Since(info.ModTime()) > unusedFor {
			_ = os.Remove(filepath.Join(folder, entry.Name()))
		}
	}
}

// private reports whether a file of a project is one that no evaluation may read: it exists in the copy, and is
// empty; and missing whether it is not there at all.
func private(name string) (empty, missing bool) {
	secret := strings.HasPrefix(name, "secrets/")
	return secret && !strings.HasSuffix(name, ".pub"), name == "plans/known_hosts" || name == ".k3splan"
}

// eachFile calls do for every file of a project, by its path relative to the project.
func eachFile(root string, do func(name string, entry fs.DirEntry, content []byte) error) error {
	return filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		empty, missing := private(name)
		switch {
		case missing && entry.IsDir():
			return fs.SkipDir
		case missing:
			return nil
		case empty || entry.IsDir():
			return do(name, entry, nil)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return do(name, entry, content)
	})
}

func hashProject(key hash.Hash, root string) error {
	return eachFile(root, func(name string, entry fs.DirEntry, content []byte) error {
		info, err := entry.Info()
		if err == nil {
			fmt.Fprintf(key, "%q %v %d\n", name, info.Mode(), len(content))
			_, err = key.Write(content)
		}
		return err
	})
}

func copyProject(root, to string) error {
	return eachFile(root, func(name string, entry fs.DirEntry, content []byte) error {
		target := filepath.Join(to, name)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, info.Mode().Perm())
	})
}

// machineHash is of the harness and of the programs that evaluate.
func machineHash(t testing.TB, harness string) string {
	sum := sha256.New()
	for _, program := range []string{"nix-instantiate", "jq", "python3", "bash"} {
		path, err := exec.LookPath(program)
		if err != nil {
			continue // the harness skips
		}
		if path, err = filepath.EvalSymlinks(path); err == nil {
			err = hashFile(sum, path)
		}
		require.NoError(t, err)
	}
	require.NoError(t, hashTree(sum, harness))
	option, err := filepath.Glob(filepath.Join(filepath.Dir(harness), "*-options.json.gz"))
	require.NoError(t, err)
	for _, file := range option {
		require.NoError(t, hashFile(sum, file))
	}
	return hex.EncodeToString(sum.Sum(nil))
}

var (
	treeMutex  sync.Mutex
	treeHashes = map[string]string{}
)

// treeHash is of the source trees in a folder.
func treeHash(t testing.TB, folder string) string {
	t.Helper()
	treeMutex.Lock()
	defer treeMutex.Unlock()
	if treeHashes[folder] == "" {
		sum := sha256.New()
		entries, err := os.ReadDir(folder)
		require.NoError(t, err)
		for _, entry := range entries {
			path, err := filepath.EvalSymlinks(filepath.Join(folder, entry.Name()))
			require.NoError(t, err)
			fmt.Fprintf(sum, "%q", entry.Name())
			require.NoError(t, hashTree(sum, path))
		}
		treeHashes[folder] = hex.EncodeToString(sum.Sum(nil))
	}
	return treeHashes[folder]
}

// hashTree adds the names, sizes and times of the files of a tree: the content of all of nixpkgs would take seconds, and the time of
// the last change of a file's inode cannot be set.
func hashTree(sum hash.Hash, root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == ".git":
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		return hashFile(sum, path)
	})
}

func hashFile(sum hash.Hash, path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	changed := info.ModTime().UnixNano()
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		changed = stat.Ctim.Nano()
	}
	fmt.Fprintf(sum, "%q %d %d\n", path, info.Size(), changed)
	if info.Mode()&os.ModeSymlink != 0 {
		target, err := os.Readlink(path)
		fmt.Fprintf(sum, "%q", target)
		return err
	}
	return nil
}
