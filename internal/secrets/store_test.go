package secrets

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"k3splan/internal/diag"

	"github.com/stretchr/testify/require"
)

var fiveHosts = Needs{
	Hosts:      []string{"olaf", "ulf", "rolf", "karl", "ulrich"},
	Containers: []string{"olaf-k3s-server", "olaf-k3s-agent"},
	K3s:        true,
}

func open(t testing.TB, files map[string]string, needs Needs) (*Store, diag.Problems) {
	t.Helper()
	return Open(project(t, files), needs)
}

// complete returns the least that the five hosts need, and these files.
func complete(t testing.TB, more map[string]string) map[string]string {
	t.Helper()
	files := map[string]string{"init-token": goodToken, "passwd": goodHash, "all.pub": newKey(t) + " olaf\n"}
	for name, content := range more {
		files[name] = content
	}
	return files
}

func TestACompleteProjectHasNoProblems(t *testing.T) {
	files := complete(t, nil)
	s, problems := open(t, files, fiveHosts)
	require.Empty(t, problems)
	require.Equal(t, "secrets/init-token", s.InitToken())
	require.Empty(t, s.AgentToken())
	for _, host := range fiveHosts.Hosts {
		require.Equal(t, "secrets/passwd", s.PasswordFile(host))
		require.Equal(t, []string{strings.TrimSpace(files["all.pub"])}, s.Keys(host))
		require.Equal(t, s.Keys(host), s.DeployKeys(host))
	}
}

// Ancestor's defect 6: what setup leaves open is said, with the command for each.
func TestWhatIsMissingIsSaidOnce(t *testing.T) {
	for name, dir := range map[string]string{"no folder": t.TempDir(), "empty folder": project(t, nil), "no project": filepath.Join(t.TempDir(), "none")} {
		t.Run(name, func(t *testing.T) {
			s, problems := Open(dir, fiveHosts)
			require.Equal(t, []string{
				"error ssh-key-missing secrets/all.pub", "error secret-missing secrets/init-token", "error secret-missing secrets/passwd",
			}, found(problems))
			require.Contains(t, problems[0].Message, "olaf, ulf, rolf, karl and ulrich")
			require.Contains(t, problems[0].Hint, "secrets/all.pub")
			require.Contains(t, problems[1].Hint, "`k3splan setup`")
			require.Contains(t, problems[2].Message, "olaf, ulf, rolf, karl and ulrich")
			require.Contains(t, problems[2].Hint, "`k3splan passwd`")
			require.Empty(t, s.InitToken())
			require.Empty(t, s.PasswordFile("olaf"))
			require.Empty(t, s.Keys("olaf"))
		})
	}
}

func TestATokenIsNeededOnlyForK3s(t *testing.T) {
	needs := fiveHosts
	needs.K3s = false
	files := complete(t, nil)
	delete(files, "init-token")
	_, problems := open(t, files, needs)
	require.Empty(t, problems)

	files["init-token"] = "not a token"
	_, problems = open(t, files, needs)
	require.Equal(t, []string{"error secret-invalid secrets/init-token"}, found(problems), "what is there is judged all the same")
}

func TestNoHostsNeedNothing(t *testing.T) {
	_, problems := open(t, nil, Needs{})
	require.Empty(t, problems)
}

func TestThousandsOfHostsAreNotAllNamed(t *testing.T) {
	_, problems := open(t, map[string]string{"init-token": goodToken}, manyHosts(10_000))
	require.Len(t, problems, 2)
	for _, p := range problems {
		require.Contains(t, p.Message, "host-7 and 9992 more")
		require.Less(t, len(p.Message), 300)
	}
}

func TestTokens(t *testing.T) {
	full := strings.TrimSpace(goodToken)
	for name, test := range map[string]struct {
		agent string
		want  []string
	}{
		"own":              {strings.Repeat("a", 64) + "\n", nil},
		"same":             {goodToken, []string{"warning secret-weak secrets/agent-token"}},
		"same in disguise": {"K10::node:" + full, []string{"warning secret-weak secrets/agent-token"}},
		"servers' kind":    {"K10::server:" + full, []string{"error secret-invalid secrets/agent-token"}},
		"short":            {"short", []string{"warning secret-weak secrets/agent-token"}},
		"empty":            {"", []string{"error secret-invalid secrets/agent-token"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, problems := open(t, complete(t, map[string]string{"agent-token": test.agent}), fiveHosts)
			require.ElementsMatch(t, test.want, found(problems))
			require.Equal(t, "secrets/agent-token", s.AgentToken())
		})
	}
}

func TestPasswordFiles(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  []string
		paths map[string]string // of the hosts that differ from secrets/passwd
	}{
		"own file":                 {map[string]string{"ulfpasswd": nextHash}, nil, map[string]string{"ulf": "secrets/ulfpasswd"}},
		"own file, other spelling": {map[string]string{"ulf_passwd": nextHash}, nil, map[string]string{"ulf": "secrets/ulf_passwd"}},
		"any case":                 {map[string]string{"Ulfpasswd": nextHash}, nil, map[string]string{"ulf": "secrets/Ulfpasswd"}},
		"both spellings, the same": {map[string]string{"ulfpasswd": nextHash, "ulf_passwd": strings.TrimSpace(nextHash)},
			[]string{"error secret-duplicate secrets/ulfpasswd"}, map[string]string{"ulf": "secrets/ulfpasswd"}},
		"both spellings, not the same": {map[string]string{"ulfpasswd": nextHash, "ulf_passwd": goodHash},
			[]string{"error secret-duplicate secrets/ulfpasswd"}, map[string]string{"ulf": "secrets/ulfpasswd"}},
		"both spellings, one damaged": {map[string]string{"ulfpasswd": nextHash, "ulf_passwd": "hunter2"},
			[]string{"error secret-invalid secrets/ulf_passwd", "error secret-duplicate secrets/ulfpasswd"}, map[string]string{"ulf": "secrets/ulfpasswd"}},
		"in two cases": {map[string]string{"ULFpasswd": nextHash, "ulfpasswd": nextHash},
			[]string{"error secret-duplicate secrets/ulfpasswd"}, map[string]string{"ulf": "secrets/ulfpasswd"}},
		"plain text":         {map[string]string{"ulfpasswd": "hunter2"}, []string{"error secret-invalid secrets/ulfpasswd"}, map[string]string{"ulf": "secrets/ulfpasswd"}},
		"plain text for all": {map[string]string{"passwd": "hunter2"}, []string{"error secret-invalid secrets/passwd"}, nil},
		"of no host":         {map[string]string{"wolfpasswd": goodHash}, []string{"warning file-orphan secrets/wolfpasswd"}, nil},
		"of a container":     {map[string]string{"olaf-k3s-serverpasswd": goodHash}, []string{"warning file-orphan secrets/olaf-k3s-serverpasswd"}, nil},
		"a blank behind it":  {map[string]string{"ulfpasswd ": goodHash}, []string{"warning file-orphan secrets/ulfpasswd "}, nil},
		"another word":       {map[string]string{"Passwords": goodHash}, []string{"warning file-orphan secrets/Passwords"}, nil},
		"tokens of other names": {map[string]string{"agent_token": "x", "AgentToken": "x", "init-tokn": "x", "k3s.token": "x", "wifi-token": "x", "authorized_keys": "x"}, []string{
			"warning file-orphan secrets/AgentToken", "warning file-orphan secrets/agent_token", "warning file-orphan secrets/authorized_keys", "warning file-orphan secrets/init-tokn",
			"warning file-orphan secrets/k3s.token"}, nil},
		"wrong separator":     {map[string]string{"ulf-passwd": goodHash}, []string{"warning file-orphan secrets/ulf-passwd"}, nil},
		"two separators":      {map[string]string{"ulf__passwd": goodHash}, []string{"warning file-orphan secrets/ulf__passwd"}, nil},
		"only an end of it":   {map[string]string{"x-ulfpasswd": goodHash}, []string{"warning file-orphan secrets/x-ulfpasswd"}, nil},
		"orphan not judged":   {map[string]string{"wolfpasswd": "hunter2"}, []string{"warning file-orphan secrets/wolfpasswd"}, nil},
		"another file's name": {map[string]string{"ssh_host_key": "x", ".gitignore": "*", "wireguard.age": "x"}, nil, nil},
		"encrypted as well":   {map[string]string{"passwd.age": "x"}, []string{"error secret-duplicate secrets/passwd.age"}, nil},
		"the other spelling":  {map[string]string{"ulf_passwd": nextHash, "ulfpasswd.age": "x"}, []string{"error secret-duplicate secrets/ulfpasswd.age"}, map[string]string{"ulf": "secrets/ulf_passwd"}},
		"only encrypted":      {map[string]string{"ulfpasswd.age": "x"}, []string{"warning secret-plain secrets/ulfpasswd.age"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s, problems := open(t, complete(t, test.files), fiveHosts)
			require.ElementsMatch(t, test.want, found(problems))
			for _, host := range fiveHosts.Hosts {
				want, own := test.paths[host]
				if !own {
					want = "secrets/passwd"
				} else {
					require.Equal(t, want, Dir+"/"+PasswordName(host, slices.Collect(maps.Keys(test.files))), "a new password goes where the old one is")
				}
				require.Equal(t, want, s.PasswordFile(host))
			}
		})
	}
}

func TestTheHostsWithoutPasswordAreNamed(t *testing.T) {
	files := complete(t, map[string]string{"olafpasswd": goodHash, "rolf_passwd": nextHash, "karlpasswd": "plain"})
	delete(files, "passwd")
	s, problems := open(t, files, fiveHosts)
	require.Equal(t, []string{"error secret-invalid secrets/karlpasswd", "error secret-missing secrets/passwd"}, found(problems))
	require.Equal(t, "run `k3splan passwd karl`", problems[0].Hint)
	require.Contains(t, problems[1].Message, " ulf and ulrich")
	require.NotContains(t, problems[1].Message, "karl")
	require.Empty(t, s.PasswordFile("ulf"))

	files["ulfpasswd"], files["ulrichpasswd"], files["karlpasswd"] = goodHash, goodHash, goodHash
	_, problems = open(t, files, fiveHosts)
	require.Empty(t, problems, "with a file for each host none for all is needed")
}

// Ancestor's defect 11, and the rules of key files: which hosts does a file of this name open?
func TestWhatAKeyFileOpens(t *testing.T) {
	hosts := []string{"olaf", "ulf", "ulf-2", "2", "a", "wall", "x-all", "db-1"}
	const everyone = "olaf ulf ulf-2 2 a wall x-all db-1"
	for file, want := range map[string]string{
		"all.pub": everyone, "ALL.pub": everyone, "All.PUB": everyone,
		"alice-all.pub": everyone, "alice_ALL.pub": everyone, "alice.all.pub": everyone, "a-b-all.pub": everyone,
		"-all.pub": everyone, "x-ALL.pub": "x-all", "alice-x-all.pub": "x-all",
		"ulf.pub": "ulf", "Ulf.pub": "ulf", "alice-ulf.pub": "ulf", "alice_ulf.pub": "ulf", "alice.ulf.pub": "ulf", "alice@home-ulf.pub": "ulf",
		"ulf-2.pub": "ulf-2", "x-ulf-2.pub": "ulf-2", "x.y_ulf-2.pub": "ulf-2", "ulf_2.pub": "2", "ulf.2.pub": "2", "3-2.pub": "2",
		"bad-a-guest.pub": "", "a.pub": "a", "guest-a.pub": "a", "b-a.pub": "a",
		"wall.pub": "wall", "firewall.pub": "", "fire-wall.pub": "wall", "small.pub": "", "overall.pub": "", "ball.pub": "",
		"all-ulf.pub": "ulf", "ulf-all.pub": everyone, "all-guests.pub": "", "all2.pub": "", "all-2.pub": "2",
		"rolf.pub": "", "dolaf.pub": "", "olafs.pub": "", "alice-olaf2.pub": "", "alice+olaf.pub": "", "alice olaf.pub": "",
		"db_1.pub": "", "db-1.pub": "db-1", "1.pub": "", ".all.pub": "", "._all.pub": "", ".ulf.pub": "", "id_ed25519.pub": "", ".pub": "", "-.pub": "",
		"all.pub.pub": "", "alice-deploy.pub": "", "deployment.pub": "", "Kulf.pub": "", "\u212aulf.pub": "",
	} {
		t.Run(file, func(t *testing.T) {
			k := newKey(t)
			s, problems := open(t, map[string]string{file: k + "\n", "passwd": goodHash}, Needs{Hosts: hosts})
			var opened []string
			for _, host := range hosts {
				if len(s.Keys(host)) > 0 {
					require.Equal(t, []string{k}, s.Keys(host))
					opened = append(opened, host)
				}
			}
			require.Equal(t, want, strings.Join(opened, " "))
			orphan := false
			for _, p := range problems {
				orphan = orphan || p.Code == "file-orphan"
			}
			require.Equal(t, want == "", orphan, "a file that opens nothing is an orphan, and no other: %v", problems)
		})
	}
}

// The issue's own example: no host is called ulf-2.
func TestALongerNameOpensNothing(t *testing.T) {
	s, problems := open(t, complete(t, map[string]string{"alice-ulf-2.pub": newKey(t), "firewall.pub": newKey(t)}), fiveHosts)
	require.Equal(t, []string{"warning file-orphan secrets/alice-ulf-2.pub", "warning file-orphan secrets/firewall.pub"}, found(problems))
	require.Len(t, s.Keys("ulf"), 1)
}

func TestKeysComeOnceAndInOrder(t *testing.T) {
	a, b, c, d := newKey(t), newKey(t), newKey(t), newKey(t)
	s, problems := open(t, complete(t, map[string]string{
		"all.pub":        a + " first\n" + b + "\n" + a + " again\n",
		"bob-all.pub":    c + "\n",
		"ulf.pub":        b + " ulf's\n" + d + "\n",
		"eve-ulf.pub":    d + " eve's\n",
		"karl.pub":       "restrict " + a + "\n",
		"alice-olaf.pub": c + "\n\n# c\n" + d + "\n",
	}), fiveHosts)
	require.Equal(t, []string{
		"warning ssh-key-duplicate secrets/alice-olaf.pub:1",
		"warning ssh-key-duplicate secrets/all.pub:3",
		"warning ssh-key-duplicate secrets/karl.pub:1",
		"warning ssh-key-options secrets/karl.pub:1",
		"warning ssh-key-duplicate secrets/ulf.pub:1",
		"warning ssh-key-duplicate secrets/ulf.pub:2",
	}, found(problems))
	require.Contains(t, problems[1].Message, "line 1 of secrets/all.pub")
	require.Equal(t, []string{a + " first", b, c, d + " eve's"}, s.Keys("ulf"))
	require.Equal(t, []string{a + " first", b, c, d}, s.Keys("olaf"))
	require.Equal(t, []string{a + " first", b, c}, s.Keys("rolf"))
	require.Equal(t, []string{a + " first", b, c}, s.Keys("karl"), "the first of two equal keys counts")
}

func TestKeysOfTheDeployUser(t *testing.T) {
	admin, deploy := newKey(t), newKey(t)
	s, problems := open(t, complete(t, map[string]string{"all.pub": admin, "deploy.pub": deploy + "\n" + deploy + "\n"}), fiveHosts)
	require.Equal(t, []string{"warning ssh-key-duplicate secrets/deploy.pub:2"}, found(problems))
	require.Equal(t, []string{deploy}, s.DeployKeys("ulf"))
	require.Equal(t, []string{admin}, s.Keys("ulf"))
	require.Equal(t, []string{"secrets/all.pub", "secrets/deploy.pub"}, s.KeyFiles("ulf"))

	s, problems = open(t, complete(t, map[string]string{"all.pub": admin, "deploy.pub": "# nobody\n"}), fiveHosts)
	require.Empty(t, problems)
	require.Equal(t, []string{admin}, s.DeployKeys("ulf"))

	s, problems = open(t, map[string]string{"init-token": goodToken, "passwd": goodHash, "Deploy.pub": deploy}, fiveHosts)
	require.Equal(t, []string{"error ssh-key-missing secrets/all.pub"}, found(problems), "the deploy user is nobody's way in")
	require.Empty(t, s.Keys("ulf"))
	require.Equal(t, []string{deploy}, s.DeployKeys("ulf"))
}

func TestNobodyIsLockedOut(t *testing.T) {
	k := newKey(t)
	for name, test := range map[string]struct {
		files map[string]string
		want  []string
		named string
	}{
		"keys for some":           {map[string]string{"ulf.pub": k, "bob-karl.pub": k}, []string{"error ssh-key-missing secrets/all.pub"}, "olaf, rolf and ulrich"},
		"keys for all but one":    {map[string]string{"ulf.pub": k, "bob-karl.pub": k, "olaf.pub": k, "rolf.pub": k}, []string{"error ssh-key-missing secrets/all.pub"}, "log in to ulrich"},
		"keys for each":           {map[string]string{"ulf.pub": k, "bob-karl.pub": k, "olaf.pub": k, "rolf.pub": k, "ulrich.pub": k}, nil, ""},
		"only comments":           {map[string]string{"all.pub": "# nobody\n"}, []string{"error ssh-key-missing secrets/all.pub"}, "olaf, ulf, rolf, karl and ulrich"},
		"only a forced command":   {map[string]string{"all.pub": `command="backup" ` + k}, []string{"error ssh-key-missing secrets/all.pub", "warning ssh-key-options secrets/all.pub:1"}, "olaf, ulf, rolf, karl and ulrich"},
		"restricted key":          {map[string]string{"all.pub": "no-port-forwarding " + k}, []string{"warning ssh-key-options secrets/all.pub:1"}, ""},
		"one mistake, one report": {map[string]string{"all.pub": "rubbish"}, []string{"error ssh-key-invalid secrets/all.pub:1"}, ""},
		"weak key, one report":    {map[string]string{"all.pub": rsaKey(1024)}, []string{"error ssh-key-invalid secrets/all.pub:1"}, ""},
		"mistake for one host":    {map[string]string{"ulf.pub": "rubbish"}, []string{"error ssh-key-invalid secrets/ulf.pub:1", "error ssh-key-missing secrets/all.pub"}, "olaf, rolf, karl and ulrich"},
	} {
		t.Run(name, func(t *testing.T) {
			test.files["init-token"], test.files["passwd"] = goodToken, goodHash
			_, problems := open(t, test.files, fiveHosts)
			require.ElementsMatch(t, test.want, found(problems))
			for _, p := range problems {
				if p.Code == "ssh-key-missing" {
					require.Contains(t, p.Message, test.named)
				}
			}
		})
	}
}

func TestOrphans(t *testing.T) {
	for file, hint := range map[string]string{
		"ulffpasswd":            `did you mean "ulfpasswd"?`,
		"ulf-passwd":            `did you mean "ulfpasswd"?`,
		"ULRCHpasswd":           `did you mean "ulrichpasswd"?`,
		"olaf-k3s-serverpasswd": "that is a container: it takes the password of its host",
		"zzzzzzpasswd":          "",
		"alice-ulrihc.pub":      `did you mean "alice-ulrich.pub"?`,
		"ullrich.pub":           `did you mean "ulrich.pub"?`,
		"alice-al.pub":          "",
		"alice-alll.pub":        `did you mean "alice-all.pub"?`,
		"ci-deploy.pub":         `did you mean "deploy.pub"?`,
		"olaf-k3s-agent.pub":    "that is a container: name the file after its host",
		"firewall.pub":          "",
		"passwd~":               "rm 'secrets/passwd~'",
		"all.pub~":              "rm 'secrets/all.pub~'",
		".passwd.swp":           "rm secrets/.passwd.swp",
		"#passwd#":              "rm 'secrets/#passwd#'",
		"init-token.bak":        "rm secrets/init-token.bak",
		"ulf's passwd.orig":     `rm 'secrets/ulf'\''s passwd.orig'`,
		".passwd4611686018427":  "rm secrets/.passwd4611686018427",
		"all.pub.txt":           "rename it to all.pub",
		"passwd.TXT":            "rename it to passwd",
		"init-token.txt":        "rename it to init-token",
		"._all.pub":             "remove or rename it",
		".passwd":               "remove or rename it",
	} {
		t.Run(file, func(t *testing.T) {
			_, problems := open(t, complete(t, map[string]string{file: "x"}), fiveHosts)
			require.Equal(t, []string{"warning file-orphan secrets/" + file}, found(problems))
			require.Equal(t, hint, problems[0].Hint)
		})
	}
}

// A crash while a password or an ssh host key is replaced leaves the new one behind.
func TestWhatReplaceLeavesAfterACrashIsReported(t *testing.T) {
	dir := project(t, complete(t, nil))
	require.NoError(t, os.Mkdir(filepath.Join(dir, Dir, HostKeys), 0o700))
	for _, name := range []string{"passwd", "ulf_passwd", HostKeyName("ulf")} {
		path := filepath.Join(dir, Dir, name)
		// as the present version leaves it, and the one before
		for _, left := range []string{".k3splan-new-" + strings.ReplaceAll(name, "/", ""), "." + filepath.Base(name) + "123"} {
			require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(path), left), nil, 0o600))
		}
	}
	_, problems := Open(dir, fiveHosts)
	require.Len(t, problems, 6)
	for _, p := range problems {
		require.Equal(t, "file-orphan", p.Code)
		require.Contains(t, p.Message, "may hold a secret")
	}
}

// Ancestor's defect 14: the token stood in the configuration. Whatever prints a store prints no secret.
func TestAStoreHoldsPathsOnly(t *testing.T) {
	files := complete(t, map[string]string{"agent-token": strings.Repeat("agent", 8), "ulfpasswd": nextHash})
	s, problems := open(t, files, fiveHosts)
	require.Empty(t, problems)
	dump := fmt.Sprintf("%+v %#v", *s, *s)
	for _, name := range []string{"init-token", "agent-token", "passwd", "ulfpasswd"} {
		require.NotContains(t, dump, strings.TrimSpace(files[name]))
		require.Contains(t, dump, "secrets/"+name)
	}
	require.Contains(t, dump, strings.TrimSpace(files["all.pub"]), "a public key is none, and the dump shows what is there")
}

func TestAnIncompletePlanHasNoOrphans(t *testing.T) {
	needs := fiveHosts
	needs.Partial = true
	_, problems := open(t, complete(t, map[string]string{"wolfpasswd": "x", "wolf.pub": "x", "alice-wolf.pub": "x", "passwd~": "x"}), needs)
	require.Equal(t, []string{"warning file-orphan secrets/passwd~"}, found(problems), "what an editor left belongs to no host whatever the plan")

	_, problems = open(t, nil, Needs{Partial: true})
	require.Empty(t, problems)
}

func TestModes(t *testing.T) {
	dir := project(t, complete(t, map[string]string{"agent-token": strings.Repeat("a", 32), "ulfpasswd": goodHash, "wolfpasswd": goodHash}))
	secrets := filepath.Join(dir, Dir)
	for name, mode := range map[string]os.FileMode{"init-token": 0o644, "agent-token": 0o640, "passwd": 0o604, "ulfpasswd": 0o602, "all.pub": 0o666, "wolfpasswd": 0o644} {
		require.NoError(t, os.Chmod(filepath.Join(secrets, name), mode))
	}
	require.NoError(t, os.Chmod(secrets, 0o755))
	_, problems := Open(dir, fiveHosts)
	require.Equal(t, []string{
		"warning secret-readable secrets",
		"warning secret-readable secrets/agent-token", "warning secret-readable secrets/init-token",
		"warning secret-readable secrets/passwd", "warning secret-readable secrets/ulfpasswd", "warning file-orphan secrets/wolfpasswd",
	}, found(problems))
	require.Equal(t, "chmod 0700 secrets", problems[0].Hint)
	require.Contains(t, problems[1].Message, "0640")
	require.Equal(t, "chmod 0600 secrets/agent-token", problems[1].Hint)

	require.NoError(t, os.Chmod(secrets, 0o500))
	require.NoError(t, os.Chmod(filepath.Join(secrets, "passwd"), 0o400))
	_, problems = Open(dir, fiveHosts)
	require.Len(t, problems, 4, "more private than needed is fine")
}

func TestSymbolicLinks(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "id.pub")
	k := newKey(t)
	require.NoError(t, os.WriteFile(outside, []byte(k), 0o644))
	files := complete(t, nil)
	delete(files, "all.pub")
	dir := project(t, files)
	secrets := filepath.Join(dir, Dir)
	require.NoError(t, os.Symlink(outside, filepath.Join(secrets, "all.pub")))
	s, problems := Open(dir, fiveHosts)
	require.Empty(t, problems, "a link to one's own key is common")
	require.Equal(t, []string{k}, s.Keys("ulf"))

	require.NoError(t, os.Symlink("nowhere", filepath.Join(secrets, "ulfpasswd")))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(secrets, "agent-token")))
	require.NoError(t, os.Symlink("ulf.pub", filepath.Join(secrets, "ulf.pub")))
	_, problems = Open(dir, fiveHosts)
	require.Equal(t, []string{
		"error secret-invalid secrets/agent-token", "error ssh-key-invalid secrets/ulf.pub", "error secret-invalid secrets/ulfpasswd",
	}, found(problems))
	require.Contains(t, problems[0].Message, "dangling")
	require.Contains(t, problems[1].Message, "cannot be read")
}

func TestWhatIsNoFile(t *testing.T) {
	files := complete(t, map[string]string{"ulfpasswd": strings.Repeat("x", maxSecret+1), "ulf.pub": strings.Repeat("#", maxKeyFile+1)})
	delete(files, "passwd")
	delete(files, "init-token")
	delete(files, "all.pub")
	dir := project(t, files)
	secrets := filepath.Join(dir, Dir)
	require.NoError(t, os.Mkdir(filepath.Join(secrets, "passwd"), 0o700))
	require.NoError(t, syscall.Mkfifo(filepath.Join(secrets, "init-token"), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(secrets, "all.pub"), 0o700))
	require.NoError(t, os.Mkdir(filepath.Join(secrets, "hosts"), 0o700))
	require.NoError(t, os.Symlink("/dev/zero", filepath.Join(secrets, "karl.pub")))
	_, problems := Open(dir, fiveHosts)
	require.Equal(t, []string{
		"error ssh-key-invalid secrets/all.pub", "error secret-invalid secrets/init-token", "error ssh-key-invalid secrets/karl.pub",
		"error secret-invalid secrets/passwd", "error ssh-key-invalid secrets/ulf.pub", "error secret-invalid secrets/ulfpasswd",
	}, found(problems))
	for i, want := range []string{"folder", "pipe", "device", "folder", "larger than 1 MiB", "larger than 4 KiB"} {
		require.Contains(t, problems[i].Message, want)
	}
}

func TestAFolderThatIsNone(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"file":          func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
		"dangling link": func(path string) error { return os.Symlink("nowhere", path) },
		"loop":          func(path string) error { return os.Symlink(Dir, path) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, make(filepath.Join(dir, Dir)))
			s, problems := Open(dir, fiveHosts)
			require.Equal(t, []string{"error secret-invalid secrets"}, found(problems), "nothing else can be said")
			require.Empty(t, s.PasswordFile("ulf"))
		})
	}
}

func TestWhatCannotBeRead(t *testing.T) {
	dir := project(t, complete(t, map[string]string{"ulf.pub": newKey(t)}))
	secrets := filepath.Join(dir, Dir)
	for _, path := range []string{filepath.Dir(dir), dir} { // nobody must get here
		require.NoError(t, os.Chmod(path, 0o755))
	}
	for _, name := range []string{"init-token", "passwd", "all.pub", "ulf.pub"} {
		require.NoError(t, os.Chmod(filepath.Join(secrets, name), 0))
	}
	require.NoError(t, os.Chmod(secrets, 0o300))
	problems := openAsNobody(dir)
	require.Equal(t, []string{"error secret-invalid secrets"}, found(problems))
	require.Contains(t, problems[0].Message, "permission denied")

	require.NoError(t, os.Chmod(secrets, 0o755))
	problems = openAsNobody(dir)
	require.Equal(t, []string{
		"warning secret-readable secrets", "error ssh-key-invalid secrets/all.pub", "error secret-invalid secrets/init-token",
		"error secret-invalid secrets/passwd", "error ssh-key-invalid secrets/ulf.pub",
	}, found(problems))
	for _, p := range problems[1:] {
		require.Equal(t, "cannot be read: permission denied", p.Message)
	}
}

// openAsNobody opens a project as a user who owns none of it, also when root runs the tests: the
// user for files can be changed for one thread.
func openAsNobody(dir string) diag.Problems {
	result := make(chan diag.Problems)
	go func() {
		runtime.LockOSThread() // the thread ends with its user
		_ = syscall.Setfsgid(65534)
		_ = syscall.Setfsuid(65534)
		_, problems := Open(dir, fiveHosts)
		result <- problems
	}()
	return <-result
}

func TestSeveralMistakesAreAllReported(t *testing.T) {
	_, problems := open(t, map[string]string{
		"init-token": "abcdef.0123456789abcdef", "passwd": "hunter2", "all.pub": dsaKey() + "\n" + newKey(t) + "\nrubbish\n", "wolf.pub": "", "passwd~": "",
	}, fiveHosts)
	require.Equal(t, []string{
		"error ssh-key-invalid secrets/all.pub:1", "error ssh-key-invalid secrets/all.pub:3", "error secret-invalid secrets/init-token",
		"error secret-invalid secrets/passwd", "warning file-orphan secrets/passwd~", "warning file-orphan secrets/wolf.pub",
	}, found(problems))
}

func manyHosts(n int) Needs {
	needs := Needs{K3s: true}
	for i := range n {
		needs.Hosts = append(needs.Hosts, fmt.Sprintf("host-%d", i))
		needs.Containers = append(needs.Containers, fmt.Sprintf("host-%d-k3s", i))
	}
	return needs
}

// One all.pub and one passwd, as in a large rack.
func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprintf("hosts=%d", n), func(b *testing.B) {
			benchmarkOpen(b, manyHosts(n), complete(b, map[string]string{"all.pub": strings.Repeat("# a comment\n", 100) + newKey(b)}))
		})
	}
}

// A password, a key file and an orphan for each host.
func BenchmarkOpenOwnFiles(b *testing.B) {
	for _, n := range []int{10, 1_000} {
		b.Run(fmt.Sprintf("hosts=%d", n), func(b *testing.B) {
			needs, files := manyHosts(n), complete(b, nil)
			for _, host := range needs.Hosts {
				files[host+"passwd"], files["alice-"+host+".pub"], files["x"+host+".pub"] = goodHash, newKey(b), "x"
			}
			benchmarkOpen(b, needs, files)
		})
	}
}

func benchmarkOpen(b *testing.B, needs Needs, files map[string]string) {
	dir := project(b, files)
	b.ReportAllocs()
	for b.Loop() {
		s, problems := Open(dir, needs)
		if problems.Errors() > 0 {
			b.Fatal(problems)
		}
		for _, host := range needs.Hosts {
			if len(s.Keys(host)) == 0 || s.PasswordFile(host) == "" || len(s.DeployKeys(host)) == 0 {
				b.Fatal(host)
			}
		}
	}
}
