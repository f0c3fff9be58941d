package audit_test

import (
	"context"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/xuri/excelize/v2"

	"k3splan"
	"k3splan/internal/audit"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/secrets"
	"k3splan/internal/secrets/secretstest"
)

const hash = "$6$rounds=5000$k3splantest$3NZsTVpZzBrpJtNsvTBiEItI1rfXRWzF6wBnJqLWYxIfPaTvVfPTIuZVmp3WHVgNKr0wAnuW4NrXYbHtOpkzL1\n"

// newProject returns a project in which nothing is to be found, in a git repository, and its token.
func newProject(t *testing.T) (dir, token string) {
	t.Helper()
	secretstest.Home(t)
	t.Setenv("NIX_STORE_DIR", filepath.Join(t.TempDir(), "none"))
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	dir = filepath.Join(t.TempDir(), "a rack")
	_, err := project.Setup(dir, k3splan.Files)
	require.NoError(t, err)
	write(t, dir, "secrets/passwd", hash)
	write(t, dir, "secrets/recipients", secretstest.AgeKey(t)+"\n")
	content, err := os.ReadFile(filepath.Join(dir, "secrets", "init-token"))
	require.NoError(t, err)
	if _, err := exec.LookPath("git"); err == nil {
		git(t, dir, "init", "-q", "-b", "main")
		git(t, dir, "add", ".")
		commit(t, dir)
	}
	return dir, strings.TrimSpace(string(content))
}

func write(t *testing.T, dir, file, content string) {
	t.Helper()
	name := filepath.Join(dir, file)
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o700))
	require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("SKIP: git is not on PATH")
	}
	secretstest.Run(t, "", "git", append([]string{"-C", dir}, args...)...)
}

func commit(t *testing.T, dir string) {
	t.Helper()
	git(t, dir, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "--allow-empty", "-m", "x")
}

func run(t *testing.T, dir string, storePaths ...string) *audit.Report {
	t.Helper()
	p, problems, err := project.Load(dir)
	require.NoError(t, err)
	vault, err := p.Vault(nil)
	require.NoError(t, err)
	report, err := audit.Run(context.Background(), audit.Input{Dir: dir, Plan: p.Plan, Vault: vault, Known: problems, StorePaths: storePaths})
	require.NoError(t, err)
	return report
}

func found(report *audit.Report) []string {
	lines := []string{}
	for _, p := range report.Findings {
		lines = append(lines, p.Code+" "+p.File)
	}
	return lines
}

func TestNothingIsFoundWhereNothingIs(t *testing.T) {
	dir, _ := newProject(t)
	report := run(t, dir)
	require.Empty(t, found(report))
	require.Contains(t, strings.Join(report.Notes, "\n"), "3 of 3 secrets")
	require.Contains(t, strings.Join(report.Notes, "\n"), "versions of files in git")

	_, err := project.MoveSecrets(dir, plan.SecretStore{Kind: plan.SecretAge}, nil)
	require.NoError(t, err)
	git(t, dir, "add", ".")
	commit(t, dir)
	require.Empty(t, found(run(t, dir)), "what is encrypted may be committed")
}

func TestFindings(t *testing.T) {
	const key = "secrets/init-token"
	for name, test := range map[string]struct {
		spoil func(t *testing.T, dir, token string)
		want  []string
	}{
		"mode of a secret": {func(t *testing.T, dir, _ string) {
			require.NoError(t, os.Chmod(filepath.Join(dir, key), 0o640))
		}, []string{"secret-readable secrets/init-token"}},
		"mode of the folder": {func(t *testing.T, dir, _ string) {
			require.NoError(t, os.Chmod(filepath.Join(dir, "secrets"), 0o755))
		}, []string{"secret-readable secrets"}},
		"others can add a key": {func(t *testing.T, dir, _ string) {
			write(t, dir, "secrets/all.pub", "x")
			require.NoError(t, os.Chmod(filepath.Join(dir, "secrets", "all.pub"), 0o666))
		}, []string{"secret-readable secrets/all.pub"}},
		"owner": {func(t *testing.T, dir, _ string) {
			if os.Chown(filepath.Join(dir, key), 65534, -1) != nil {
				t.Skip("SKIP: only root can give a file away")
			}
		}, []string{"secret-owner secrets/init-token"}},
		"rendered": {func(t *testing.T, dir, token string) {
			write(t, dir, "generated/hosts/olaf.nix", "x = \""+token+"\";")
		}, []string{"secret-in-file generated/hosts/olaf.nix"}},
		"a secret of the user's own naming": {func(t *testing.T, dir, _ string) {
			write(t, dir, "secrets/Kennwörter (alt)", "drei Chinesen")
			write(t, dir, "manifests/x.yaml", "motd: drei Chinesen")
		}, []string{"secret-in-file manifests/x.yaml"}},
		"what is no secret of k3splan's": {func(t *testing.T, dir, token string) {
			write(t, dir, "secrets/backup.tar", strings.Repeat("x", 100<<10))
			require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "secrets", "gone")))
			write(t, dir, "notes", token)
		}, []string{"secret-in-file notes", "secret-unread secrets/backup.tar", "secret-unread secrets/gone"}},
		"log": {func(t *testing.T, dir, _ string) {
			write(t, dir, ".k3splan/logs/x", "passwd: "+hash)
		}, []string{"secret-in-file .k3splan/logs/x"}},
		"manifest, in base64": {func(t *testing.T, dir, token string) {
			write(t, dir, "manifests/x.yaml", "data: {token: "+base64.StdEncoding.EncodeToString([]byte(token))+"}")
		}, []string{"secret-in-file manifests/x.yaml"}},
		"a cell of a workbook": {func(t *testing.T, dir, token string) {
			file := excelize.NewFile()
			defer file.Close()
			require.NoError(t, file.SetCellStr("Sheet1", "A1", "the token is "+token))
			require.NoError(t, file.SaveAs(filepath.Join(dir, "notes.xlsx")))
			git(t, dir, "add", "notes.xlsx")
		}, []string{"secret-in-file notes.xlsx", "secret-in-git notes.xlsx"}},
		"an archive that is cut off": {func(t *testing.T, dir, token string) {
			write(t, dir, "notes.zip", "PK\x03\x04"+token)
		}, []string{"secret-in-file notes.zip"}},
		"across the edge of a block": {func(t *testing.T, dir, token string) {
			write(t, dir, "notes", strings.Repeat("x", 1<<20+100)+token)
			write(t, dir, "more", strings.Repeat("x", 3<<20-20)+token)
		}, []string{"secret-in-file more", "secret-in-file notes"}},
		"leftover": {func(t *testing.T, dir, _ string) {
			write(t, dir, "secrets/passwd~", "old")
			write(t, dir, "secrets/.init-token123", "old")
		}, []string{"file-orphan secrets/.init-token123", "file-orphan secrets/passwd~"}},
		"plain text for a password": {func(t *testing.T, dir, _ string) {
			write(t, dir, "secrets/passwd", "hunter2hunter2\n")
		}, []string{"secret-invalid secrets/passwd"}},
		"tracked": {func(t *testing.T, dir, _ string) {
			git(t, dir, "add", "--force", key)
		}, []string{"secret-in-git secrets/init-token"}},
		"committed once": {func(t *testing.T, dir, _ string) {
			git(t, dir, "add", "--force", key)
			commit(t, dir)
			git(t, dir, "rm", "-q", "--cached", key)
			commit(t, dir)
		}, []string{"secret-in-git secrets/init-token"}},
		"committed once, and replaced since": {func(t *testing.T, dir, _ string) {
			git(t, dir, "add", "--force", key)
			commit(t, dir)
			git(t, dir, "rm", "-q", "--cached", key)
			commit(t, dir)
			write(t, dir, key, strings.Repeat("b", 64)+"\n")
		}, []string{"secret-in-git secrets/init-token"}},
		"committed in another file": {func(t *testing.T, dir, token string) {
			write(t, dir, "nixConfigs/olaf.nix", `{ x = "`+token+`"; }`)
			git(t, dir, "add", ".")
			commit(t, dir)
			write(t, dir, "nixConfigs/olaf.nix", "{ }")
		}, []string{"secret-in-git nixConfigs/olaf.nix"}},
		"on another branch, which is not looked at": {func(t *testing.T, dir, _ string) {
			git(t, dir, "checkout", "-q", "-b", "other")
			git(t, dir, "add", "--force", key)
			commit(t, dir)
			git(t, dir, "checkout", "-q", "main")
			write(t, dir, key, strings.Repeat("b", 64)+"\n")
		}, nil},
		"not ignored": {func(t *testing.T, dir, _ string) {
			write(t, dir, ".gitignore", "/generated/\n")
		}, []string{"secret-not-ignored .gitignore", "secret-not-ignored .gitignore", "secret-not-ignored .gitignore"}},
		"plain beside age": {func(t *testing.T, dir, token string) {
			_, err := project.MoveSecrets(dir, plan.SecretStore{Kind: plan.SecretAge}, nil)
			require.NoError(t, err)
			write(t, dir, key, token+"\n")
		}, []string{"secret-duplicate secrets/init-token"}},
		"private key that others can read": {func(t *testing.T, dir, _ string) {
			_, err := project.MoveSecrets(dir, plan.SecretStore{Kind: plan.SecretAge}, nil)
			require.NoError(t, err)
			require.NoError(t, os.Chmod(filepath.Join(os.Getenv("HOME"), ".config", "age", "keys.txt"), 0o644))
		}, []string{"secret-readable KEYS"}},
		"without the key": {func(t *testing.T, dir, _ string) {
			_, err := project.MoveSecrets(dir, plan.SecretStore{Kind: plan.SecretAge}, nil)
			require.NoError(t, err)
			require.NoError(t, os.RemoveAll(filepath.Join(os.Getenv("HOME"), ".config")))
		}, []string{"secret-locked secrets/agent-token.age", "secret-locked secrets/init-token.age", "secret-locked secrets/passwd.age"}},
		"damaged recipients": {func(t *testing.T, dir, _ string) {
			_, err := project.MoveSecrets(dir, plan.SecretStore{Kind: plan.SecretAge}, nil)
			require.NoError(t, err)
			write(t, dir, "secrets/recipients", "rubbish\n")
		}, []string{"recipients-invalid secrets/recipients"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, token := newProject(t)
			test.spoil(t, dir, token)
			report := run(t, dir)
			want := []string{}
			for _, line := range test.want {
				want = append(want, strings.Replace(line, "KEYS", filepath.Join(os.Getenv("HOME"), ".config", "age", "keys.txt"), 1))
			}
			require.ElementsMatch(t, want, found(report))
			for _, p := range report.Findings {
				require.NotEmpty(t, p.Hint, "a way to mend: %v", p)
				require.NotContains(t, p.String()+p.Hint, token)
				require.NotContains(t, p.String()+p.Hint, "hunter2")
			}
			require.NotContains(t, strings.Join(report.Notes, "\n"), token)
		})
	}
}

// The commands that mend are for a shell.
func TestHintsOfOddNames(t *testing.T) {
	dir, _ := newProject(t)
	write(t, dir, "secrets/it's.key", "twelve letters")
	git(t, dir, "add", "--force", "secrets/it's.key")
	require.NoError(t, os.Remove(filepath.Join(dir, "secrets", "it's.key")))
	write(t, dir, "secrets/a b.pub", "")
	require.NoError(t, os.Chmod(filepath.Join(dir, "secrets", "a b.pub"), 0o666))
	hints := map[string]string{}
	for _, p := range run(t, dir).Findings {
		hints[p.Code] = p.Hint
	}
	require.Equal(t, "chmod 0600 'secrets/a b.pub'", hints["secret-readable"])
	require.Contains(t, hints["secret-in-git"], `git rm --cached 'secrets/it'\''s.key'`)
}

// A project may be reached by a link; its secrets may not: a clone could bring one that leads anywhere.
func TestLinks(t *testing.T) {
	dir, token := newProject(t)
	write(t, dir, "nixConfigs/olaf.nix", `{ x = "`+token+`"; }`)
	require.NoError(t, os.Chmod(filepath.Join(dir, "secrets", "passwd"), 0o644))
	want := []string{"secret-in-file nixConfigs/olaf.nix", "secret-readable secrets/passwd"}
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	require.Equal(t, want, found(run(t, link)))

	elsewhere := filepath.Join(t.TempDir(), "disk")
	require.NoError(t, os.Rename(filepath.Join(dir, "secrets"), elsewhere))
	require.NoError(t, os.Symlink(elsewhere, filepath.Join(dir, "secrets")))
	_, err := secrets.OpenVault(dir, plan.SecretStore{}, nil)
	require.ErrorContains(t, err, "secrets is a symbolic link")
}

// A project below the top of its repository, as among other files of a team.
func TestAProjectWithinARepository(t *testing.T) {
	secretstest.Home(t)
	t.Setenv("NIX_STORE_DIR", "/nowhere")
	top := t.TempDir()
	git(t, top, "init", "-q")
	dir := filepath.Join(top, "racks", "one")
	_, err := project.Setup(dir, k3splan.Files)
	require.NoError(t, err)
	git(t, top, "add", ".")
	require.Empty(t, found(run(t, dir)), "before the first commit")
	git(t, dir, "add", "--force", "secrets/init-token")
	commit(t, top)
	require.Equal(t, []string{"secret-in-git secrets/init-token"}, found(run(t, dir)))
}

// The store: by a path that is named, and by the name of a host's system, with Nix's closure where
// there is Nix. A store of ours is enough for the search itself.
func TestTheStore(t *testing.T) {
	dir, token := newProject(t)
	store := t.TempDir()
	t.Setenv("NIX_STORE_DIR", store)
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	system := filepath.Join(store, "abc-nixos-system-olaf-24.11")
	other := filepath.Join(store, "def-token")
	unrelated := filepath.Join(store, "ghi-nixos-system-olafson-24.11")
	write(t, system, "etc/x", "nothing")
	write(t, other, "sub/token", "x"+token)
	write(t, unrelated, "x", token)
	require.NoError(t, os.WriteFile(filepath.Join(bin, "nix-store"), []byte("#!/bin/sh\necho \"$@\" >> '"+store+"/args'\nprintf '%s\\n%s\\n' '"+system+"' '"+other+"'\n"), 0o755))
	report := run(t, dir)
	require.Equal(t, []string{"secret-in-store " + filepath.Join(other, "sub/token")}, found(report))
	args, err := os.ReadFile(filepath.Join(store, "args"))
	require.NoError(t, err)
	require.Equal(t, "--query --requisites "+system+"\n", string(args))

	// a Nix that does not know the paths: what is named is looked at all the same, and it is said
	require.NoError(t, os.WriteFile(filepath.Join(bin, "nix-store"), []byte("#!/bin/sh\necho not valid >&2; exit 1\n"), 0o755))
	report = run(t, dir, other)
	require.Equal(t, []string{"secret-in-store " + filepath.Join(other, "sub/token")}, found(report))
	require.Contains(t, strings.Join(report.Notes, "\n"), "only the systems themselves")
}

// A real closure in a real store: a system that needs what holds the token.
func TestARealStore(t *testing.T) {
	if _, err := exec.LookPath("nix-store"); err != nil {
		t.Skip("SKIP: nix-store is not on PATH (Debian: nix-bin)")
	}
	dir, token := newProject(t)
	root := t.TempDir()
	for variable, name := range map[string]string{
		"NIX_STORE_DIR": "store", "NIX_STATE_DIR": "state", "NIX_LOG_DIR": "log", "NIX_LOCALSTATE_DIR": "state", "NIX_CONF_DIR": "conf",
	} {
		t.Setenv(variable, filepath.Join(root, name))
	}
	t.Setenv("NIX_REMOTE", "")
	write(t, root, "token", "the token: "+token)
	leak := strings.TrimSpace(secretstest.Run(t, "", "nix-store", "--add", filepath.Join(root, "token")))
	expression := `derivation { name = "nixos-system-olaf-24.11"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo ${builtins.storePath "` + leak + `"}" ]; }`
	system := strings.TrimSpace(secretstest.Run(t, "", "nix-instantiate", "-E", expression))
	require.Contains(t, system, "nixos-system-olaf-24.11.drv")
	require.Equal(t, []string{"secret-in-store " + leak}, found(run(t, dir)))
}

// The audit called a file a secret that `secrets list` calls none: a README, an encrypted entry, a .gitkeep.
func TestTheAuditGuardsWhatIsListed(t *testing.T) {
	dir, _ := newProject(t)
	for _, name := range []string{"README", "readme.md", ".gitkeep", ".DS_Store", "._all.pub", "known_hosts", "entry.gpg", "x.age", "all.pub", "mine", "vpn/key", "agent-token"} {
		write(t, dir, "secrets/"+name, "of no interest: "+name+"\n")
	}
	vault, err := secrets.OpenVault(dir, plan.SecretStore{}, nil)
	require.NoError(t, err)
	want, err := vault.List()
	require.NoError(t, err)
	require.Subset(t, want, []string{"agent-token", "mine", "vpn/key"})
	git(t, dir, "add", "--force", "secrets")
	for _, state := range []string{"in the index", "removed from the index"} {
		if state != "in the index" {
			commit(t, dir)
			git(t, dir, "rm", "-q", "-r", "--cached", "secrets")
			commit(t, dir)
		}
		var tracked []string
		for _, p := range run(t, dir).Findings {
			if p.Code == "secret-in-git" {
				tracked = append(tracked, strings.TrimPrefix(p.File, "secrets/"))
			}
		}
		slices.Sort(tracked)
		require.Equal(t, want, slices.Compact(tracked), state)
	}
}
