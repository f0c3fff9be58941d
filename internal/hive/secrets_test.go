package hive_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan"
	"k3splan/internal/hive"
	"k3splan/internal/plan"
	"k3splan/internal/project"
	"k3splan/internal/secrets"
	"k3splan/internal/secrets/secretstest"
)

// encrypted returns the folder of an example whose secrets are encrypted with age, and the plain secrets.
func encrypted(t testing.TB, example string) (dir string, contents map[string]string) {
	t.Helper()
	dir = copyExample(t, example, nil)
	require.NoError(t, os.WriteFile(filepath.Join(dir, secrets.RecipientsFile), []byte(secretstest.AgeKey(t)+"\n"), 0o644))
	names := []string{"init-token", "agent-token", "passwd"}
	if example == "rack" {
		names = append(names, "ulfpasswd")
		require.NoError(t, os.WriteFile(filepath.Join(dir, secrets.Dir, "ulfpasswd"), []byte(poisonHash+"\n"), 0o600))
	}
	hostKeys, err := filepath.Glob(filepath.Join(dir, secrets.Dir, secrets.HostKeys, "*"))
	require.NoError(t, err)
	require.NotEmpty(t, hostKeys)
	for _, file := range hostKeys {
		names = append(names, secrets.HostKeys+"/"+filepath.Base(file))
	}
	contents = map[string]string{}
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(dir, secrets.Dir, name))
		require.NoError(t, err)
		contents[name] = string(content)
	}
	_, err = project.MoveSecrets(dir, plan.SecretStore{Kind: plan.SecretAge}, nil)
	require.NoError(t, err)
	return dir, contents
}

func TestSecretsOfAHost(t *testing.T) {
	secretstest.Home(t)
	dir, _ := encrypted(t, "rack")
	p, problems, err := project.Load(dir)
	require.NoError(t, err)
	require.Empty(t, problems)
	require.Equal(t, []hive.Secret{
		{Name: "passwd", Entry: "ulfpasswd"}, {Name: "ssh-host-key", Entry: "hosts/ulf_ed25519"},
		{Name: "server-token", Entry: "init-token"}, {Name: "agent-token", Entry: "agent-token"},
	}, hive.Secrets(p, p.Plan.Host("ulf")))
	require.Equal(t, []hive.Secret{{Name: "passwd", Entry: "passwd"}, {Name: "ssh-host-key", Entry: "hosts/ulrich_ed25519"}}, hive.Secrets(p, p.Plan.Host("ulrich")))
}

// With encrypted secrets the tree is the same wherever the project lies and whoever renders it, and it holds no
// secret.
func TestEncryptedSecretsRender(t *testing.T) {
	secretstest.Home(t)
	dir, contents := encrypted(t, "rack")
	tree := render(t, dir)
	for _, file := range tree.Paths() {
		require.NotContains(t, string(tree[file]), dir, file)
		for name, content := range contents {
			require.NotContains(t, string(tree[file]), strings.TrimSpace(content), "%s in %s", name, file)
		}
	}
	elsewhere := filepath.Join(t.TempDir(), "else where")
	require.NoError(t, os.CopyFS(elsewhere, os.DirFS(dir)))
	require.Equal(t, tree, render(t, elsewhere), "it can be moved")

	// without the key: a warning, and the same tree
	require.NoError(t, os.RemoveAll(filepath.Join(os.Getenv("HOME"), ".config")))
	p, problems, err := project.Load(dir)
	require.NoError(t, err)
	require.Zero(t, problems.Errors())
	require.Len(t, problems, 1)
	again, err := hive.Render(p, k3splan.Files)
	require.NoError(t, err)
	require.Equal(t, tree, again)

}

// With encrypted secrets the hive evaluates, and what Colmena will run for a key prints the very secret: the real
// program, found by K3SPLAN or on PATH, in a project whose path has blanks and quotes.
func TestKeyCommandsPrintTheSecrets(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: builds the program")
	}
	program := filepath.Join(t.TempDir(), "bin", "k3splan")
	out, err := exec.Command("go", "build", "-o", program, "k3splan/cmd/k3splan").CombinedOutput()
	require.NoError(t, err, "%s", out)
	secretstest.Home(t)
	dir, contents := encrypted(t, "rack")
	_, err = render(t, dir).Write(dir)
	require.NoError(t, err)
	d := data(evaluate(t, `{
		inherit check;
		keys = lib.mapAttrs (_: n: lib.mapAttrs (_: k: { inherit (k) keyCommand keyFile text; }) n.config.deployment.keys) nodes;
	}`, filepath.Join(dir, hive.Dir, "hive.nix")).(map[string]any))
	said, code := checked(t, d.part(t, "check"))
	require.Zero(t, code, said)
	require.Empty(t, said)

	ran := map[string]bool{}
	for host, of := range d.part(t, "keys") {
		for key, source := range of.(map[string]any) {
			source := source.(map[string]any)
			require.Nil(t, source["keyFile"])
			require.Nil(t, source["text"])
			var words []string
			for _, word := range source["keyCommand"].([]any) {
				words = append(words, word.(string))
			}
			name := words[len(words)-1]
			for _, env := range []string{"K3SPLAN=" + program, "PATH=" + filepath.Dir(program) + ":" + os.Getenv("PATH")} {
				command := exec.Command(words[0], words[1:]...)
				command.Env = append(os.Environ(), env)
				command.Dir = "/"
				out, err := command.Output()
				require.NoError(t, err)
				require.Equal(t, contents[name], string(out), "%s of %s", key, host)
			}
			ran[host+" "+key+" "+name] = true
		}
	}
	for _, want := range []string{
		"olaf k3splan-passwd passwd", "olaf k3splan-server-passwd passwd", "olaf k3splan-server-token init-token", "olaf k3splan-server-agent-token agent-token",
		"olaf k3splan-agent-token agent-token", "ulf k3splan-passwd ulfpasswd", "ulf k3splan-server-passwd ulfpasswd", "ulrich k3splan-passwd passwd",
	} {
		require.True(t, ran[want], "%s: %v", want, ran)
	}
}

// What we make of a password is what NixOS takes as hashedPassword: it warns about others. (The NixOS
// of the harness is older than yescrypt; that kind is compared with crypt(3) in package secrets.)
func TestHashesAreTakenByNixOS(t *testing.T) {
	made, err := secrets.HashPassword([]byte("correct horse"))
	require.NoError(t, err)
	hashes := map[string]string{
		"made": made, "other": poisonHash,
		// the controls, among them ancestor-defect 10: a line break inside the Nix string
		"plain": "correct horse", "broken": made + "\n",
	}
	var users strings.Builder
	for name, hash := range hashes {
		fmt.Fprintf(&users, "%s = { isNormalUser = true; hashedPassword = %s; }; ", name, hive.NixString(hash))
	}
	require.Empty(t, secrets.CheckHash([]byte(hashes["made"])))
	require.Empty(t, secrets.CheckHash([]byte(hashes["other"])))
	out, code := evalHive(t, "--check", rendered(t, "single", map[string]string{"nixConfigs/olaf.nix": "{ users.users = { " + users.String() + "}; }"}))
	require.Zero(t, code, out)
	require.Equal(t, 2, strings.Count(out, "WARNING"), out)
	require.Contains(t, out, `user "plain"`)
	require.Contains(t, out, `user "broken"`)
	require.NotContains(t, out, `"made"`)
	require.NotContains(t, out, `"other"`)
}
