package colmena

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena/nixtest"
	"k3splan/internal/run"
)

// hardNames are folders that a user may have and that Nix code would choke on or run.
var hardNames = []string{
	`rack "${x}" 'a b'`, `''${y}''`, `$HOME`, `back\slash`, "new\nline", "ü", `a;b`, `#c`, `<nixpkgs>`, `~`, `*`, "bad\xffbyte",
}

// writeHive makes folder with a hive that consists of importing text from a file beside it.
func writeHive(t *testing.T, folder, text string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(folder, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "hive.nix"), []byte("import ./imported.nix\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "imported.nix"), []byte(text), 0o644))
	return filepath.Join(folder, "hive.nix")
}

func openHive(t *testing.T, file string) *Hive {
	t.Helper()
	hive, err := OpenHive(file)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, hive.Close()) })
	return hive
}

func listing(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestOpenHive(t *testing.T) {
	t.Run("a plain path is taken as it is", func(t *testing.T) {
		t.Setenv("TMPDIR", nixtest.PlainDir(t))
		file := writeHive(t, filepath.Join(nixtest.PlainDir(t), "my.rack_1+2-3"), "{ }")
		hive := openHive(t, file)
		require.Equal(t, file, hive.File)
		require.Empty(t, hive.Env)
		require.NoError(t, hive.Close())
		require.FileExists(t, file)
		require.Empty(t, listing(t, os.Getenv("TMPDIR")))
	})
	t.Run("a relative path", func(t *testing.T) {
		file := writeHive(t, filepath.Join(nixtest.PlainDir(t), "rack"), "{ }")
		t.Chdir(filepath.Dir(file))
		hive := openHive(t, "hive.nix")
		require.Equal(t, file, hive.File)
	})
	t.Run("a link to a hard path", func(t *testing.T) {
		t.Setenv("TMPDIR", nixtest.PlainDir(t))
		root := nixtest.PlainDir(t)
		writeHive(t, filepath.Join(root, "a b"), "{ }") // Colmena resolves links
		require.NoError(t, os.Symlink("a b", filepath.Join(root, "link")))
		hive := openHive(t, filepath.Join(root, "link", "hive.nix"))
		require.Equal(t, os.Getenv("TMPDIR"), filepath.Dir(filepath.Dir(hive.File)))
		require.NoError(t, hive.Close())
	})
	t.Run("a hard path gets a private folder", func(t *testing.T) {
		t.Setenv("TMPDIR", nixtest.TempDir(t))
		hive := openHive(t, writeHive(t, filepath.Join(nixtest.TempDir(t), hardNames[0]), "{ }"))
		require.Regexp(t, pathLiteral, hive.File)
		info, err := os.Stat(filepath.Dir(hive.File))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
		require.NoError(t, hive.Close())
		require.Empty(t, listing(t, os.Getenv("TMPDIR")))
	})
	t.Run("Colmena's own temporary folder must be plain as well", func(t *testing.T) {
		hard := filepath.Join(nixtest.TempDir(t), "a b")
		require.NoError(t, os.Mkdir(hard, 0o755))
		t.Setenv("TMPDIR", hard)
		hive := openHive(t, writeHive(t, filepath.Join(hard, "rack"), "{ }"))
		require.Regexp(t, pathLiteral, hive.File)
		require.Len(t, hive.Env, 1)
		require.NotEqual(t, "TMPDIR="+hard, hive.Env[0])
		require.Regexp(t, "^TMPDIR=/", hive.Env[0])
		require.NoError(t, hive.Close())
		require.NoFileExists(t, hive.File)
	})
	t.Run("no hive", func(t *testing.T) {
		t.Setenv("TMPDIR", nixtest.TempDir(t))
		_, err := OpenHive(filepath.Join(nixtest.TempDir(t), "a b", "hive.nix"))
		require.ErrorIs(t, err, os.ErrNotExist)
		require.Empty(t, listing(t, os.Getenv("TMPDIR")))
	})
}

// Nix reads the hive behind the path just as Colmena has it read: pasted into an expression.
func TestOpenHiveInNix(t *testing.T) {
	nixtest.Needs(t, "nix-instantiate")
	for _, name := range hardNames {
		t.Run(strings.ToValidUTF8(name, "?"), func(t *testing.T) {
			hive := openHive(t, writeHive(t, filepath.Join(nixtest.TempDir(t), name, "generated"), `{ sources ? "found" }: { meta.description = sources; }`))
			out, err := run.Output(context.Background(), run.Command{
				Program: "nix-instantiate",
				Args:    []string{"--eval", "--json", "--strict", "-E", "with builtins; let rawHive = import " + hive.File + "; in (rawHive { }).meta.description"},
				Env:     nixtest.Private(t),
			})
			require.NoError(t, err)
			require.JSONEq(t, `"found"`, out)
		})
	}
}

// The real Colmena evaluates a hive in a hard path, with a temporary folder in another.
func TestOpenHiveInColmena(t *testing.T) {
	nixtest.Needs(t, "colmena", "nix-instantiate")
	env := append(nixtest.Private(t), nixtest.Environment(t)...)
	root := filepath.Join(nixtest.TempDir(t), hardNames[0])
	file := writeHive(t, root, `{ sources ? "x" }: {
  meta.nixpkgs = <nixpkgs>;
  olaf = { lib, ... }: {
    # the harness and "colmena eval" set this differently
    _module.check = lib.mkForce true;
    deployment.tags = [ "in a hard path" ];
  };
}`)
	t.Setenv("TMPDIR", root)

	evaluate := func(file string, env []string) (string, error) {
		return run.Output(context.Background(), run.Command{
			Program: "colmena",
			Args:    []string{"eval", "-f", file, "-E", "{ nodes, ... }: nodes.olaf.config.deployment.tags"},
			Env:     env,
		})
	}
	_, err := evaluate(file, append(env, "TMPDIR=/tmp"))
	require.Error(t, err, "Colmena quotes paths by now: OpenHive can go")

	hive := openHive(t, file)
	out, err := evaluate(hive.File, append(env, hive.Env...))
	require.NoError(t, err)
	require.JSONEq(t, `["in a hard path"]`, out)
}

func TestPrivateHive(t *testing.T) {
	t.Setenv("TMPDIR", nixtest.TempDir(t))
	file := writeHive(t, filepath.Join(nixtest.TempDir(t), "rack"), "{ }")
	hive, err := PrivateHive(file, nil)
	require.NoError(t, err)
	require.NotEqual(t, file, hive.File)
	info, err := os.Stat(filepath.Dir(hive.File))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	require.Empty(t, hive.Result("olaf"))
	roots := filepath.Join(filepath.Dir(hive.File), ".gcroots")
	require.NoError(t, os.Mkdir(roots, 0o755))
	require.NoError(t, os.Symlink("/nix/store/x-system", filepath.Join(roots, "node-olaf")))
	require.Equal(t, "/nix/store/x-system", hive.Result("olaf"))
	require.NoError(t, hive.Close())
	require.NoFileExists(t, hive.File)
}

// Another login name is a matter of one host; everything else of the hive stays.
func TestPrivateHiveAsUser(t *testing.T) {
	nixtest.Needs(t, "nix-instantiate")
	t.Setenv("TMPDIR", nixtest.TempDir(t))
	file := writeHive(t, filepath.Join(nixtest.TempDir(t), hardNames[0]), `{ sources ? "found" }: { meta.description = sources; "olaf" = ./olaf.nix; "ulf" = ./ulf.nix; }`)
	hive, err := PrivateHive(file, map[string]string{"olaf": `ro"ot${x}`})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, hive.Close()) })
	out, err := run.Output(context.Background(), run.Command{
		Program: "nix-instantiate",
		Args: []string{"--eval", "--json", "--strict", "-E", `
			let hive = import ` + hive.File + ` { }; olaf = hive.olaf { lib.mkForce = x: x; };
			in [ hive.meta.description olaf.deployment.targetUser (map baseNameOf olaf.imports) (baseNameOf hive.ulf) ]`},
		Env: nixtest.Private(t),
	})
	require.NoError(t, err)
	require.JSONEq(t, `["found", "ro\"ot${x}", ["olaf.nix"], "ulf.nix"]`, out)
}
