package edit

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
)

// write puts a project into a new folder.
func write(t *testing.T, fsys fstest.MapFS) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, file := range fsys {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), file.Data, 0o644))
	}
	return dir
}

// tree returns the contents of all files of a folder.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	contents := map[string]string{}
	require.NoError(t, fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		contents[name] = string(data)
		return err
	}))
	return contents
}

// prefixes returns what Write leaves in a project when it is killed after each of its steps: files with two
// names; then one exchanged content after the other; then one old name less after the other.
func prefixes(t *testing.T, fsys fstest.MapFS, edit func(*Edit) error) (states []fstest.MapFS) {
	t.Helper()
	e, err := Open(fsys)
	require.NoError(t, err)
	require.NoError(t, edit(e))
	changes, err := e.changes("")
	require.NoError(t, err)
	state := maps.Clone(fsys)
	step := func() { states = append(states, maps.Clone(state)) }
	moves := slices.DeleteFunc(slices.Clone(changes), func(c files.Change) bool { return c.From == "" })
	for _, c := range moves {
		state[c.Name] = fsys[c.From]
		step()
	}
	for _, c := range changes {
		if c.From == "" {
			state[c.Name] = &fstest.MapFile{Data: c.Content}
			step()
		}
	}
	for _, c := range moves {
		delete(state, c.From)
		step()
	}
	return states
}

// Whenever a command is killed, the project that it leaves does no harm, and the same command completes the
// change.
func TestInterruptedEdits(t *testing.T) {
	project := func(t *testing.T) fstest.MapFS {
		fsys := rack(t)
		for name, content := range map[string]string{
			"hardware/ulf.nix": "{ hardware = \"of ulf\"; }", "nixConfigs/ulf.nix": "{ }", "secrets/ulf_passwd": "of ulf", "secrets/ulf.pub": "ssh-ed25519 AAAA ulf",
			"nixConfigs/ulf-k3s-agent.nix": "{ agent = true; }", remote.KnownHostsFile: "olaf ssh-ed25519 AAAA\nulf ssh-ed25519 BBBB\n",
		} {
			fsys[name] = &fstest.MapFile{Data: []byte(content)}
		}
		return fsys
	}
	for name, edit := range edits {
		for _, form := range []string{"files", "workbook"} {
			t.Run(name+", "+form, func(t *testing.T) {
				fsys := project(t)
				if form == "workbook" {
					fsys = inWorkbook(t, fsys, nil)
				}
				dir := write(t, fsys)
				t.Chdir(dir) // the names of changes are relative to it
				e, err := Open(os.DirFS(dir))
				require.NoError(t, err)
				require.NoError(t, edit(e))
				want, _, err := e.Result()
				require.NoError(t, err)
				require.NoError(t, e.Write(dir))
				done := tree(t, dir)

				for i, state := range prefixes(t, fsys, edit) {
					p, problems := plan.Load(state)
					for _, host := range p.Hosts {
						if host.Name != "ulf" && host.Name != "ulla" || problems.Errors() > 0 {
							continue // nothing is done with a plan that has errors
						}
						require.Contains(t, state, "hardware/"+host.Name+".nix", "killed after step %d", i+1)
						require.Contains(t, state, "secrets/"+host.Name+"_passwd", "killed after step %d", i+1)
					}
					if _, isAddition := strings.CutPrefix(name, "add"); isAddition {
						continue // one file
					}
					left := write(t, state)
					t.Chdir(left)
					again, err := Open(os.DirFS(left))
					require.NoError(t, err)
					if err := edit(again); err != nil {
						require.Equal(t, done, tree(t, left), "killed after step %d: %v", i+1, err)
						continue
					}
					now, _, err := again.Result()
					require.NoError(t, err, "killed after step %d", i+1)
					require.Equal(t, want.Model(), now.Model())
					require.NoError(t, again.Write(left))
					if form == "files" {
						require.Equal(t, done, tree(t, left), "killed after step %d", i+1)
					}
				}
			})
		}
	}
}

// What an older k3splan left half-way, or somebody has renamed in the tables by hand, is completed as well.
func TestRestOfARename(t *testing.T) {
	fsys := rack(t)
	hosts := strings.Replace(string(fsys[plan.HostsFile].Data), "ulf,", "ulla,", 1)
	fsys[plan.HostsFile] = &fstest.MapFile{Data: []byte(hosts)}
	fsys["hardware/ulf.nix"] = &fstest.MapFile{Data: []byte("{ }")}
	fsys[remote.KnownHostsFile] = &fstest.MapFile{Data: []byte("ulf ssh-ed25519 BBBB\n")}
	e, err := Open(fsys)
	require.NoError(t, err)
	require.NoError(t, e.Rename("ulf", "ulla"))
	p, _, err := e.Result()
	require.NoError(t, err)
	require.NotNil(t, p.Host("ulla").Agent)
	require.Equal(t, []Move{{"hardware/ulf.nix", "hardware/ulla.nix"}}, e.Moves)
	require.Equal(t, "ulla ssh-ed25519 BBBB\n", string(e.Files()[remote.KnownHostsFile]))

	e, err = Open(rack(t))
	require.NoError(t, err)
	require.ErrorContains(t, e.Rename("nobody", "ulf"), "no host, server or agent is called", "nothing is left of it")

	fsys = rack(t)
	fsys[plan.HostsFile] = &fstest.MapFile{Data: []byte(strings.ReplaceAll(string(fsys[plan.HostsFile].Data), "karl,", "# karl,"))}
	e, err = Open(fsys)
	require.NoError(t, err)
	require.NoError(t, e.RemoveHost("karl"))
	p, _, err = e.Result()
	require.NoError(t, err)
	require.Nil(t, p.Host("karl"))
}
