package files

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
)

// What somebody else can have put in the place of k3splan's own folder, in a clone or on a shared machine.
func TestOwnFolderRefusesWhatIsNotOnesOwn(t *testing.T) {
	elsewhere := t.TempDir()
	for name, test := range map[string]struct {
		put        func(own string) error
		want, hint string
	}{
		"missing":     {func(string) error { return nil }, "", ""},
		"a folder":    {func(own string) error { return os.Mkdir(own, 0o755) }, "", ""},
		"a link":      {func(own string) error { return os.Symlink(elsewhere, own) }, "is a symbolic link to", "rm .k3splan"},
		"a dead link": {func(own string) error { return os.Symlink("nowhere", own) }, "is a symbolic link to", "rm .k3splan"},
		"a file":      {func(own string) error { return os.WriteFile(own, nil, 0o600) }, "is not a folder", "move it away"},
		"for a group": {func(own string) error {
			if os.Geteuid() != 0 {
				return makeMode(own, 0o772) // only root can give it to a group that is not one's own
			}
			return errors.Join(makeMode(own, 0o770), os.Chown(own, -1, 12345))
		}, "can be changed by other users", "chmod go-w .k3splan"},
		"for all": {func(own string) error { return makeMode(own, 0o777) }, "can be changed by other users", "chmod go-w .k3splan"},
	} {
		t.Run(name, func(t *testing.T) {
			project := t.TempDir()
			own := filepath.Join(project, StateDir)
			require.NoError(t, test.put(own))
			path, err := OwnFolder(project, StateDir, "logs")
			if test.want == "" {
				require.NoError(t, err)
				require.Equal(t, filepath.Join(own, "logs"), path)
				info, err := os.Stat(path)
				require.NoError(t, err)
				require.Equal(t, fs.FileMode(0o700), info.Mode().Perm())
				require.Empty(t, CheckOwn(project))
				return
			}
			require.ErrorContains(t, err, ".k3splan "+test.want)
			require.ErrorAs(t, err, new(*Error))
			require.Contains(t, diag.HintOf(err), test.hint)
			problems := CheckOwn(project)
			require.Len(t, problems, 1)
			require.Equal(t, StateDir, problems[0].File)
			_, err = OwnFile(project, "lock")
			require.Error(t, err)
			left, err := os.ReadDir(elsewhere)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

func makeMode(folder string, mode fs.FileMode) error {
	if err := os.Mkdir(folder, mode); err != nil {
		return err
	}
	return os.Chmod(folder, mode) // whatever the umask
}

// After a clone with a umask of 002, folders are writable by the user's own group.
func TestAPrivateGroup(t *testing.T) {
	me, err := user.Current()
	require.NoError(t, err)
	group, err := user.LookupGroupId(me.Gid)
	if err != nil || group.Name != me.Username {
		t.Skip("SKIP: this user has no private group")
	}
	project := t.TempDir()
	require.NoError(t, makeMode(filepath.Join(project, SecretsDir), 0o775))
	require.NoError(t, os.Chown(filepath.Join(project, SecretsDir), -1, os.Getegid()))
	require.Empty(t, CheckOwn(project))
}

func TestOwnFile(t *testing.T) {
	for name, test := range map[string]struct {
		put  func(file, elsewhere string) error
		want string
	}{
		"missing":   {func(string, string) error { return nil }, ""},
		"a file":    {func(file, _ string) error { return os.WriteFile(file, nil, 0o644) }, ""},
		"a link":    {func(file, elsewhere string) error { return os.Symlink(elsewhere, file) }, "is a symbolic link"},
		"hard link": {func(file, elsewhere string) error { return os.Link(elsewhere, file) }, "has a second name"},
		"a pipe":    {func(file, _ string) error { return syscall.Mkfifo(file, 0o600) }, "is not a file"},
		"a folder":  {func(file, _ string) error { return os.Mkdir(file, 0o700) }, "is not a file"},
	} {
		t.Run(name, func(t *testing.T) {
			project := t.TempDir()
			elsewhere := filepath.Join(project, "bashrc")
			require.NoError(t, os.WriteFile(elsewhere, nil, 0o644))
			own, err := OwnFolder(project, StateDir)
			require.NoError(t, err)
			file := filepath.Join(own, "lock")
			require.NoError(t, test.put(file, elsewhere))
			path, err := OwnFile(project, "lock")
			if test.want == "" {
				require.NoError(t, err)
				require.Equal(t, file, path)
				return
			}
			require.ErrorContains(t, err, ".k3splan/lock "+test.want)
			require.NotEmpty(t, diag.HintOf(err))
		})
	}
}

// Every folder and file that k3splan alone writes is looked at, and the pins, by which machines are built.
func TestCheckOwn(t *testing.T) {
	elsewhere := t.TempDir()
	for name, put := range map[string]func(project string) error{
		SecretsDir:              func(project string) error { return os.Symlink(elsewhere, filepath.Join(project, SecretsDir)) },
		SecretsDir + "/hosts":   func(project string) error { return linkIn(project, SecretsDir, "hosts", elsewhere) },
		SecretsDir + "/retired": func(project string) error { return linkIn(project, SecretsDir, "retired", elsewhere) },
		StateDir + "/logs":      func(project string) error { return linkIn(project, StateDir, "logs", elsewhere) },
		StateDir + "/lock":      func(project string) error { return linkIn(project, StateDir, "lock", elsewhere) },
		GeneratedDir:            func(project string) error { return makeMode(filepath.Join(project, GeneratedDir), 0o777) },
		PlansDir:                func(project string) error { return os.Symlink(elsewhere, filepath.Join(project, PlansDir)) },
		LockFile: func(project string) error {
			file := filepath.Join(project, LockFile)
			return errors.Join(os.Mkdir(filepath.Dir(file), 0o755), os.WriteFile(file, []byte("{}"), 0o644), os.Chmod(file, 0o666))
		},
	} {
		t.Run(name, func(t *testing.T) {
			project := t.TempDir()
			require.Empty(t, CheckOwn(project))
			require.NoError(t, put(project))
			problems := CheckOwn(project)
			require.NotEmpty(t, problems)
			require.Equal(t, name, problems[0].File)
			require.NotEmpty(t, problems[0].Hint)
			require.NotContains(t, problems[0].Message, name, "the problem names the place already")
		})
	}
}

// What everyone can change becomes code of root on the machines, wherever it is in the project.
func TestSourcesThatEveryoneCanChange(t *testing.T) {
	project := t.TempDir()
	require.NoError(t, os.Chmod(project, 0o777))
	require.NoError(t, errors.Join(os.Mkdir(filepath.Join(project, PlansDir), 0o755), makeMode(filepath.Join(project, SnippetsDir), 0o777)))
	for file, mode := range map[string]fs.FileMode{"plans/hosts.csv": 0o666, "plans/k3s.csv": 0o664, "nixConfigs/my host.nix": 0o602} {
		path := filepath.Join(project, file)
		require.NoError(t, errors.Join(os.WriteFile(path, nil, 0o644), os.Chmod(path, mode)))
	}
	var found []string
	for _, p := range CheckOwn(project) {
		require.Equal(t, diag.Warning, p.Severity)
		found = append(found, p.File+": "+p.Hint)
	}
	require.Equal(t, []string{
		".: chmod o-w .", "plans/hosts.csv: chmod o-w plans/hosts.csv", "nixConfigs: chmod o-w nixConfigs",
		"nixConfigs/my host.nix: chmod o-w 'nixConfigs/my host.nix'",
	}, found)
}

func linkIn(project, folder, name, target string) error {
	if err := MakeFolder(filepath.Join(project, folder), 0o700); err != nil {
		return err
	}
	return os.Symlink(target, filepath.Join(project, folder, name))
}

// After a `sudo k3splan`, everything in the project still belongs to its owner.
func TestWhatRootMakesBelongsToTheOwnerOfTheFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP: only root can give files away")
	}
	const owner = 65534
	project := t.TempDir()
	require.NoError(t, os.Chown(project, owner, owner))
	require.NoError(t, Create(filepath.Join(project, "secrets/hosts/olaf"), nil, Private))
	require.NoError(t, Replace(filepath.Join(project, "plans/hosts.csv"), nil, Public))
	_, err := Update(project, "plans/known_hosts", func([]byte) ([]byte, error) { return []byte("x"), nil })
	require.NoError(t, err)
	logs, err := OwnFolder(project, StateDir, "logs", "today")
	require.NoError(t, err)
	log, err := Append(filepath.Join(logs, "olaf.log"))
	require.NoError(t, err)
	require.NoError(t, log.Close())
	// another user's file keeps its owner
	other := filepath.Join(project, "plans/other.csv")
	require.NoError(t, os.WriteFile(other, nil, 0o640))
	require.NoError(t, os.Chown(other, owner-1, owner-1))
	require.NoError(t, Replace(other, []byte("x"), Public))

	seen := 0
	require.NoError(t, filepath.WalkDir(project, func(name string, entry fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := entry.Info()
		require.NoError(t, err)
		want := uint32(owner)
		if name == other {
			want--
			require.Equal(t, fs.FileMode(0o640), info.Mode().Perm())
		}
		require.Equal(t, want, info.Sys().(*syscall.Stat_t).Uid, name)
		require.Equal(t, want, info.Sys().(*syscall.Stat_t).Gid, name)
		seen++
		return nil
	}))
	require.Equal(t, 12, seen)
	require.Empty(t, CheckOwn(project), "to root, what belongs to the project's owner is its own")
}

// In a folder of temporary files that others can write to without the sticky bit, they can exchange ours.
func TestSafeParent(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "tmp")
	require.NoError(t, makeMode(folder, 0o700))
	require.NoError(t, SafeParent(folder))
	below := filepath.Join(folder, "below")
	require.NoError(t, os.Mkdir(below, 0o700))
	require.NoError(t, os.Chmod(folder, 0o777))
	require.ErrorContains(t, SafeParent(folder), "can be changed by other users")
	require.ErrorContains(t, SafeParent(below), "can be changed by other users")
	t.Setenv("TMPDIR", folder)
	used, err := TempDir(func(string) bool { return true })
	require.NoError(t, err)
	require.NotEqual(t, folder, used)
	require.NoError(t, os.Chmod(folder, 0o777|fs.ModeSticky))
	require.NoError(t, SafeParent(folder))
}
