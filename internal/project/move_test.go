package project

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/xuri/excelize/v2"
	"golang.org/x/crypto/ssh"

	"k3splan"
	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/secrets"
	"k3splan/internal/secrets/secretstest"
)

var (
	inFiles = plan.SecretStore{Kind: plan.SecretFiles}
	inAge   = plan.SecretStore{Kind: plan.SecretAge}
	inPass  = plan.SecretStore{Kind: plan.SecretPass, Prefix: "k3splan/rack"}
)

const moveHash = "$6$rounds=5000$k3splantest$3NZsTVpZzBrpJtNsvTBiEItI1rfXRWzF6wBnJqLWYxIfPaTvVfPTIuZVmp3WHVgNKr0wAnuW4NrXYbHtOpkzL1\n"

// withSecrets returns a project that is set up and has recipients, and what its secrets are.
func withSecrets(t *testing.T) (dir string, contents map[string]string) {
	t.Helper()
	secretstest.Home(t)
	dir = t.TempDir()
	_, err := Setup(dir, k3splan.Files)
	require.NoError(t, err)
	for name, content := range map[string]string{
		"passwd": moveHash, "olaf_passwd": moveHash, "hosts/olaf": "a private key\n", "wireguard.key": "mine", "recipients": secretstest.AgeKey(t) + "\n", "all.pub": "x",
	} {
		require.NoError(t, files.Create(filepath.Join(dir, "secrets", name), []byte(content), files.Private))
	}
	contents = map[string]string{}
	for _, name := range []string{"init-token", "agent-token", "passwd", "olaf_passwd", "hosts/olaf", "wireguard.key"} {
		content, err := os.ReadFile(filepath.Join(dir, "secrets", name))
		require.NoError(t, err)
		contents[name] = string(content)
	}
	return dir, contents
}

func storeOf(t *testing.T, dir string) plan.SecretStore {
	t.Helper()
	p, _ := plan.Load(os.DirFS(dir))
	return p.Network.Secrets
}

// requireSecrets wants exactly these secrets in a back end.
func requireSecrets(t *testing.T, dir string, where plan.SecretStore, contents map[string]string) {
	t.Helper()
	vault, err := secrets.OpenVault(dir, where, nil)
	require.NoError(t, err)
	names, err := vault.List()
	require.NoError(t, err)
	require.Len(t, names, len(contents), "%s: %v", where.Kind, names)
	for name, want := range contents {
		content, err := vault.Read(name)
		require.NoError(t, err)
		require.Equal(t, want, string(content), name)
	}
}

func TestSecretsMoveThereAndBack(t *testing.T) {
	dir, contents := withSecrets(t)
	secretstest.Pass(t)
	before := tree(t, dir)
	_, err := MoveSecrets(dir, inFiles, nil)
	require.NoError(t, err)
	require.Equal(t, before, tree(t, dir), "what holds by default is not written")
	last := inFiles
	for _, to := range []plan.SecretStore{inAge, inPass, inFiles, inPass, {Kind: plan.SecretPass, Prefix: "k3splan/other"}, inAge, inFiles} {
		moved, err := MoveSecrets(dir, to, nil)
		require.NoError(t, err)
		require.Equal(t, []string{"agent-token", "hosts/olaf", "init-token", "olaf_passwd", "passwd", "wireguard.key"}, moved.Names)
		require.Equal(t, []string{"wireguard.key"}, moved.Foreign)
		require.Equal(t, to, storeOf(t, dir))
		requireSecrets(t, dir, to, contents)
		requireSecrets(t, dir, last, nil)
		require.FileExists(t, filepath.Join(dir, "secrets", "all.pub"))
		last = to
		before := tree(t, dir)
		moved, err = MoveSecrets(dir, to, nil)
		require.NoError(t, err)
		require.Empty(t, moved.Names)
		require.Empty(t, moved.Files)
		require.Equal(t, before, tree(t, dir), "a second time nothing happens")
	}
}

// A link is removed, but not its target, which may be another project's: that is reported.
func TestSecretsMoveReportsWhatLinksLeave(t *testing.T) {
	dir, contents := withSecrets(t)
	outside := t.TempDir()
	secret := func(name string) string { return filepath.Join(dir, "secrets", name) }
	token, passwd := filepath.Join(outside, "shared token"), filepath.Join(outside, "passwd")
	require.NoError(t, os.Rename(secret("init-token"), token))
	require.NoError(t, os.Symlink(token, filepath.Join(outside, "link"))) // by way of another one
	require.NoError(t, os.Symlink(filepath.Join(outside, "link"), secret("init-token")))
	require.NoError(t, os.Link(secret("passwd"), passwd))
	require.NoError(t, os.Remove(secret("olaf_passwd")))
	require.NoError(t, os.Symlink("passwd", secret("olaf_passwd"))) // one of the secrets itself
	require.NoError(t, os.Symlink("hosts/olaf", secret("z")))
	contents["z"] = contents["hosts/olaf"]

	moved, err := MoveSecrets(dir, inAge, nil)
	require.NoError(t, err)
	requireSecrets(t, dir, inAge, contents)
	requireSecrets(t, dir, inFiles, nil)
	info, err := os.Stat(passwd)
	require.NoError(t, err)
	real, err := filepath.EvalSymlinks(token)
	require.NoError(t, err)
	require.Equal(t, []Left{
		{"secrets/init-token", secrets.Elsewhere{File: real}},
		{"secrets/passwd", secrets.Elsewhere{Inode: info.Sys().(*syscall.Stat_t).Ino}},
	}, moved.Left)
	kept, err := os.ReadFile(token)
	require.NoError(t, err)
	require.Equal(t, contents["init-token"], string(kept))

	moved, err = MoveSecrets(dir, inFiles, nil)
	require.NoError(t, err)
	require.Empty(t, moved.Left)
}

// A table may be a link to a file in any folder of the project: no lock of it may be in its own way.
func TestTablesMayBeLinksIntoTheProject(t *testing.T) {
	for name, folder := range map[string]string{"the project": ".", "another folder": "nixConfigs"} {
		t.Run(name, func(t *testing.T) {
			dir, contents := withSecrets(t)
			for _, file := range []string{"network.yaml", "known_hosts", "hosts.csv"} {
				place, link := filepath.Join(dir, folder, file), filepath.Join(dir, "plans", file)
				if err := os.Rename(link, place); err != nil { // before any host is known
					require.NoError(t, os.WriteFile(place, nil, 0o644))
				}
				require.NoError(t, os.Symlink(filepath.Join("..", folder, file), link))
			}
			hosts, err := os.ReadFile(filepath.Join(dir, folder, "hosts.csv"))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, folder, "hosts.csv"), append(hosts, '\n'), 0o644)) // the user's own
			_, err = Setup(dir, k3splan.Files)
			require.NoError(t, err)
			known, err := os.ReadFile(filepath.Join(dir, folder, "known_hosts"))
			require.NoError(t, err)
			require.Contains(t, string(known), "olaf ssh-ed25519 ")
			key, err := os.ReadFile(filepath.Join(dir, "secrets", "hosts", "olaf_ed25519"))
			require.NoError(t, err)
			contents["hosts/olaf_ed25519"] = string(key)
			_, err = MoveSecrets(dir, inAge, nil)
			require.NoError(t, err)
			requireSecrets(t, dir, inAge, contents)
			require.Equal(t, inAge, storeOf(t, dir))
		})
	}
}

// If the choice cannot be written in the end, the secrets are in two places, perhaps in plain text.
func TestAMoveReportsSecretsInTwoPlaces(t *testing.T) {
	dir, contents := withSecrets(t)
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("open sesame"))
	require.NoError(t, err)
	identity := filepath.Join(t.TempDir(), "id")
	require.NoError(t, os.WriteFile(identity, pem.EncodeToMemory(locked), 0o600))
	t.Setenv(secrets.IdentityVariable, identity)
	recipient, err := ssh.NewPublicKey(public)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secrets", "recipients"), ssh.MarshalAuthorizedKey(recipient), 0o644))
	network := filepath.Join(dir, plan.NetworkFile)
	ask := func(string) ([]byte, error) { return []byte("open sesame"), nil }

	_, err = MoveSecrets(dir, inAge, func(string) ([]byte, error) { // to read back what was stored
		require.NoError(t, os.Rename(network, network+"~"))
		require.NoError(t, os.Mkdir(network, 0o755))
		return []byte("open sesame"), nil
	})
	require.ErrorContains(t, err, "all secrets are in the new place as well, but plans/network.yaml does not say so yet: ")
	require.NoError(t, os.Remove(network))
	require.NoError(t, os.Rename(network+"~", network))
	requireSecrets(t, dir, inFiles, contents)
	_, err = MoveSecrets(dir, inAge, ask)
	require.NoError(t, err)
	require.Equal(t, inAge, storeOf(t, dir))
	requireSecrets(t, dir, inFiles, nil)
}

// What another process stores in the old place while the secrets are moved must not be removed unread.
func TestAMoveKeepsWhatIsStoredMeanwhile(t *testing.T) {
	dir, contents := withSecrets(t)
	source, err := secrets.OpenVault(dir, inFiles, nil)
	require.NoError(t, err)
	target, err := secrets.OpenVault(dir, inAge, nil)
	require.NoError(t, err)
	taken, err := takeOver(source, target)
	require.NoError(t, err)
	require.NoError(t, source.Replace("passwd", []byte("new")))
	require.NoError(t, source.Remove("wireguard.key"))
	moved := &Moved{Names: slices.Sorted(maps.Keys(contents))}
	require.ErrorContains(t, moved.clear(source, taken), "secrets/passwd was changed by another process")
	requireSecrets(t, dir, inFiles, map[string]string{"passwd": "new"})
	requireSecrets(t, dir, inAge, contents)
}

// tree returns all files below a folder with their contents.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(file string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(file)
		files[file] = string(content)
		return err
	}))
	return files
}

// Whatever goes wrong before the choice is written, the project stays as it was.
func TestAMoveThatFailsChangesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(t *testing.T, dir string)
		want  string
	}{
		"no recipients": {func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, secrets.RecipientsFile)))
		}, "recipients"},
		"not for us": {func(t *testing.T, dir string) { // what was stored cannot be read back
			require.NoError(t, os.RemoveAll(filepath.Join(os.Getenv("HOME"), ".config")))
		}, "cannot be read back"},
		"another secret is there": {func(t *testing.T, dir string) {
			vault, err := secrets.OpenVault(dir, inAge, nil)
			require.NoError(t, err)
			require.NoError(t, vault.Create("passwd", []byte("another")))
		}, "hold different secrets"},
		"network.yaml cannot be edited": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "plans", "network.yaml"), []byte("{netmask: 24, gateway: 10.0.100.1, versions: {nixos: nixos-26.05, k3s: '1.35'}}\n"), 0o644))
		}, "write this line there yourself"},
		"network.yaml is wrong": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "plans", "network.yaml"), []byte("secrets: aeg\n"), 0o644))
		}, "uncertain"},
		"a secret cannot be read": {func(t *testing.T, dir string) {
			file := filepath.Join(dir, "secrets", "passwd")
			require.NoError(t, errors.Join(os.Remove(file), os.Symlink("nowhere", file)))
		}, "dangling"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := withSecrets(t)
			test.spoil(t, dir)
			var before map[string]string
			if name != "a secret cannot be read" {
				before = tree(t, dir)
			}
			_, err := MoveSecrets(dir, inAge, nil)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), strings.TrimSpace(moveHash))
			if before != nil {
				require.Equal(t, before, tree(t, dir))
			}
		})
	}
}

// An interrupted move is completed by the next: at any point each secret is in at least one place,
// and what is read is whole.
func TestAnInterruptedMoveIsCompleted(t *testing.T) {
	dir, contents := withSecrets(t)
	vault, err := secrets.OpenVault(dir, inAge, nil)
	require.NoError(t, err)
	for _, name := range []string{"passwd", "init-token"} { // killed while it copied
		require.NoError(t, vault.Create(name, []byte(contents[name])))
	}
	_, err = MoveSecrets(dir, inAge, nil)
	require.NoError(t, err)
	requireSecrets(t, dir, inAge, contents)
	requireSecrets(t, dir, inFiles, nil)

	for _, name := range []string{"passwd", "hosts/olaf"} { // killed while it removed
		require.NoError(t, files.Create(filepath.Join(dir, "secrets", name), []byte(contents[name]), files.Private))
	}
	moved, err := MoveSecrets(dir, inAge, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"hosts/olaf", "passwd"}, moved.Names)
	requireSecrets(t, dir, inAge, contents)
	requireSecrets(t, dir, inFiles, nil)
}

// git sees encrypted secrets and public keys of a project that age keeps, and no plain text ever.
func TestGitSeesWhatIsEncrypted(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("SKIP: git is not on PATH")
	}
	dir, contents := withSecrets(t)
	secretstest.Run(t, "", "git", "-C", dir, "init", "-q")
	seen := func() string {
		return secretstest.Run(t, "", "git", "-C", dir, "status", "--short", "--untracked-files=all", "--", "secrets")
	}
	require.Empty(t, seen())
	_, err := MoveSecrets(dir, inAge, nil)
	require.NoError(t, err)
	for _, file := range []string{"init-token.age", "hosts/olaf.age", "recipients", "all.pub"} {
		require.Contains(t, seen(), "secrets/"+file+"\n")
	}
	for name, content := range contents {
		require.NoError(t, files.Create(filepath.Join(dir, "secrets", name), []byte(content), files.Private))
		require.NotContains(t, seen(), "secrets/"+name+"\n", "plain text stays out")
	}
	made, err := Setup(dir, k3splan.Files)
	require.NoError(t, err)
	require.Empty(t, made, "setup leaves it so")

	_, err = MoveSecrets(dir, inFiles, nil)
	require.NoError(t, err)
	require.NotContains(t, seen(), "token")
	require.NotContains(t, seen(), "passwd")
}

func TestSetupUsesTheStore(t *testing.T) {
	secretstest.Home(t)
	dir := t.TempDir()
	for file, content := range map[string]string{
		"plans/network.yaml": "netmask: 24\ngateway: 10.0.100.1\nversions: {nixos: nixos-26.05, k3s: '1.35'}\nsecrets: age\n",
		"secrets/recipients": secretstest.AgeKey(t) + "\n",
	} {
		require.NoError(t, files.Create(filepath.Join(dir, file), []byte(content), files.Private))
	}
	made, err := Setup(dir, k3splan.Files)
	require.NoError(t, err)
	require.Contains(t, made, Made{File: "secrets/init-token.age"})
	require.NoFileExists(t, filepath.Join(dir, "secrets", "init-token"))
	ignored, err := os.ReadFile(filepath.Join(dir, ".gitignore"))
	require.NoError(t, err)
	require.Contains(t, string(ignored), "!/secrets/**/*.age\n")
	before := tree(t, dir)
	made, err = Setup(dir, k3splan.Files)
	require.NoError(t, err)
	require.Empty(t, made)
	require.Equal(t, before, tree(t, dir), "a living cluster's token is never replaced")

	require.NoError(t, os.RemoveAll(filepath.Join(os.Getenv("HOME"), ".config")))
	made, err = Setup(dir, k3splan.Files)
	require.NoError(t, err)
	require.Empty(t, made, "nor where it cannot be decrypted")
}

// Killed while pass waits for a secret, k3splan leaves an empty entry behind, which is not a secret.
func TestSecretsMoveOverAnEmptyEntry(t *testing.T) {
	dir, contents := withSecrets(t)
	secretstest.Pass(t)
	secretstest.Run(t, "", "pass", "insert", "--multiline", inPass.Prefix+"/passwd")
	_, err := MoveSecrets(dir, inPass, nil)
	require.NoError(t, err)
	requireSecrets(t, dir, inPass, contents)
	requireSecrets(t, dir, inFiles, nil)
}

// saveWorkbook puts a workbook in place of the tables.
func saveWorkbook(t *testing.T, dir string, network ...[]any) {
	t.Helper()
	file := excelize.NewFile()
	defer file.Close()
	network = append(network, []any{"netmask", 24}, []any{"gateway", "10.0.100.1"}, []any{"versions.nixos", "26.05"})
	for sheet, rows := range map[string][][]any{
		"hosts":   {{"name", "interface", "ip", "admin"}, {"olaf", "eno1", "10.0.100.2", "olaf"}},
		"k3s":     {{"host", "name", "type", "ip"}},
		"network": network,
	} {
		_, err := file.NewSheet(sheet)
		require.NoError(t, err)
		for i, row := range rows {
			require.NoError(t, file.SetSheetRow(sheet, fmt.Sprintf("A%d", i+1), &row))
		}
	}
	for _, table := range []string{plan.HostsFile, plan.K3sFile, "plans/network.yaml"} {
		require.NoError(t, os.RemoveAll(filepath.Join(dir, table)))
	}
	require.NoError(t, file.SaveAs(filepath.Join(dir, plan.WorkbookFile)))
}

// A workbook names the back end in its sheet network, which is written as network.yaml is, and last.
func TestSecretsMoveBesideAWorkbook(t *testing.T) {
	dir, contents := withSecrets(t)
	secretstest.Pass(t)
	saveWorkbook(t, dir)
	last := inFiles
	for _, to := range []plan.SecretStore{inAge, inPass, inFiles, {Kind: plan.SecretPass, Prefix: "k3splan/other"}, inAge} {
		moved, err := MoveSecrets(dir, to, nil)
		require.NoError(t, err)
		require.Len(t, moved.Names, len(contents))
		require.Contains(t, moved.Files, plan.WorkbookFile)
		require.Equal(t, to, storeOf(t, dir))
		requireSecrets(t, dir, to, contents)
		requireSecrets(t, dir, last, nil)
		last = to
		before := tree(t, dir)
		moved, err = MoveSecrets(dir, to, nil)
		require.NoError(t, err)
		require.Empty(t, moved.Files)
		require.Equal(t, before, tree(t, dir), "a second time nothing happens")
	}
}

// If the workbook cannot be written, both places have everything, and the same call completes it.
func TestAMoveBesideAWorkbookIsCompleted(t *testing.T) {
	dir, contents := withSecrets(t)
	saveWorkbook(t, dir)
	book := filepath.Join(dir, plan.WorkbookFile)
	require.NoError(t, os.Chmod(book, 0o444))
	_, err := MoveSecrets(dir, inAge, nil)
	require.ErrorContains(t, err, "plans/cluster.xlsx is read-only; nothing was changed")
	require.Equal(t, "chmod u+w plans/cluster.xlsx", diag.HintOf(err))
	requireSecrets(t, dir, inAge, nil)
	require.NoError(t, os.Chmod(book, 0o644))

	network, err := openNetworkFile(dir, inAge) // killed after it had copied, and after it had written
	require.NoError(t, err)
	vault, err := secrets.OpenVault(dir, inAge, nil)
	require.NoError(t, err)
	for name, content := range contents {
		require.NoError(t, vault.Create(name, []byte(content)))
	}
	_, err = network.write()
	require.NoError(t, err)
	moved, err := MoveSecrets(dir, inAge, nil)
	require.NoError(t, err)
	require.Len(t, moved.Names, len(contents))
	requireSecrets(t, dir, inFiles, nil)
	requireSecrets(t, dir, inAge, contents)
}

// The hosts of a workbook get their ssh keys, and there is nothing else to make.
func TestSetupBesideAWorkbook(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "plans"), 0o755))
	saveWorkbook(t, dir)
	_, err := Setup(dir, k3splan.Files)
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(dir, "secrets/hosts/olaf_ed25519"))
	for _, table := range []string{plan.HostsFile, plan.K3sFile, "plans/network.yaml", files.SchemaFile} {
		require.NoFileExists(t, filepath.Join(dir, table))
	}
}

func TestNixpkgsOfAWorkbookThatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "plans"), 0o755))
	saveWorkbook(t, dir)
	file, err := excelize.OpenFile(filepath.Join(dir, plan.WorkbookFile))
	require.NoError(t, err)
	require.NoError(t, file.SetCellStr("network", "B3", "./nixpkgs"))
	require.NoError(t, file.Save())
	_, problems, err := Load(dir)
	require.NoError(t, err)
	require.Equal(t, "plans/cluster.xlsx!network!B3", problems[0].Place(), "%v", problems)
}
