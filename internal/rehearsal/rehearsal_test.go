package rehearsal

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"k3splan"
	"k3splan/internal/diag"
	"k3splan/internal/plan"
)

func tables(t testing.TB, hosts, containers string) *plan.Plan {
	t.Helper()
	p, problems := plan.Load(fstest.MapFS{
		"plans/hosts.csv":    {Data: []byte("name,interface,ip,admin\n" + hosts)},
		"plans/k3s.csv":      {Data: []byte("host,name,type,ip\n" + containers)},
		"plans/network.yaml": {Data: []byte("netmask: 24\ngateway: 10.0.0.1\nversions: {nixos: nixos-24.11, k3s: 1.31}\n")},
	})
	require.Zero(t, problems.Errors(), "%v", problems)
	return p
}

func rack(t testing.TB) *plan.Plan {
	return tables(t, "a,eno1,10.0.0.2,x\nb,eno1,10.0.0.3,x\nc,eno1,10.0.0.4@10.0.0.4:2222,x\nd,eno1,10.0.0.5,x\ne,eno1,10.0.0.6@10.9.9.9:2200,x\nf,eno1,dhcp@f.example,x\ng,eno1,dhcp@g.example,x\n",
		"c,c-s,init,10.0.0.12\nd,d-s,server,10.0.0.13\ne,e-s,server,10.0.0.14\nb,b-a,agent,10.0.0.23\nd,d-a,agent,10.0.0.24\n")
}

func TestChoose(t *testing.T) {
	p := rack(t)
	for name, test := range map[string]struct {
		hosts        string // "" are all
		limit        int
		chosen, left string
		added        string
	}{
		"servers first":             {"", 3, "c d e", "b a f g", ""},
		"then agents":               {"", 4, "b c d e", "a f g", ""},
		"the init server alone":     {"", 1, "c", "d e b a f g", ""},
		"all":                       {"", 9, "a b c d e f g", "", ""},
		"a host without containers": {"a", 5, "a", "", ""},
		"an agent needs a server":   {"b", 5, "b c", "", "c"},
		"a server, too":             {"e a", 5, "a c e", "", "c"},
		"the init server is there":  {"c b", 2, "b c", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			named := p.Hosts
			if test.hosts != "" {
				named = nil
				for _, host := range strings.Fields(test.hosts) {
					named = append(named, p.Host(host))
				}
			}
			c, err := Choose(p, named, test.hosts == "", test.limit)
			require.NoError(t, err)
			var names []string
			for _, host := range c.Hosts {
				names = append(names, host.Name)
			}
			require.Equal(t, test.chosen, strings.Join(names, " "))
			require.Equal(t, test.left, strings.Join(c.Left, " "))
			require.Equal(t, test.added, strings.Join(c.Added, " "))
		})
	}
	_, err := Choose(p, p.Hosts[:3], false, 2)
	require.EqualError(t, err, "3 hosts, and at most 2 are rehearsed")
	_, err = Choose(p, p.Hosts[1:2], false, 1)
	require.EqualError(t, err, "2 hosts, and at most 1 are rehearsed")
	require.Equal(t, "name fewer, or add --max 2", diag.HintOf(err))
}

func TestData(t *testing.T) {
	p := rack(t)
	d, err := dataOf(p, p.Hosts)
	require.NoError(t, err)
	by := map[string]machine{}
	for _, m := range d.Hosts {
		by[m.Name] = m
	}
	require.Equal(t, machine{Name: "a", IP: "10.0.0.2", Port: 22, MemorySize: 768}, by["a"])
	require.Equal(t, 2222, by["c"].Port)
	require.Equal(t, 22, by["e"].Port, "the port of a router")
	require.Equal(t, machine{Name: "d", IP: "10.0.0.5", Port: 22, Server: &container{"d-s", "10.0.0.13"}, Agent: &container{"d-a", "10.0.0.24"}, MemorySize: 3840}, by["d"])
	require.Regexp(t, `^10\.0\.0\.`, by["f"].IP)
	require.NotEqual(t, by["f"].IP, by["g"].IP)
	for _, m := range d.Hosts {
		require.True(t, m.Name == "f" || m.IP != by["f"].IP, "a free address")
	}
	require.Equal(t, 7*768+3*1536+2*1536, d.memory())
}

// contentsBelow returns all files below a folder in one.
func contentsBelow(t testing.TB, folder string) string {
	t.Helper()
	var all bytes.Buffer
	require.NoError(t, filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		all.WriteString(name + "\n")
		all.Write(content)
		return err
	}))
	return all.String()
}

// The project's own secrets are not in the rehearsal; those that are in it are as private, and gone afterwards.
func TestSecretsAreMade(t *testing.T) {
	p := copyExample(t, "rack", nil)
	real := map[string]string{}
	for _, name := range []string{"init-token", "agent-token", "passwd", "all.pub", "hosts/olaf_ed25519"} {
		content, err := os.ReadFile(filepath.Join(p.Dir, "secrets", name))
		require.NoError(t, err)
		lines := strings.Split(strings.TrimSpace(string(content)), "\n")
		real[name] = lines[len(lines)/2] // of a key the middle, which differs from key to key
	}
	r, err := Prepare(t.Context(), Request{Project: p, Hosts: p.Plan.Hosts, Templates: k3splan.Files})
	require.NoError(t, err)
	everything := contentsBelow(t, r.folder)
	for name, secret := range real {
		require.NotContains(t, everything, secret, name)
		made, err := os.ReadFile(filepath.Join(r.folder, "secrets", name))
		require.NoError(t, err, "the same kinds")
		require.NotEmpty(t, made)
	}
	require.Contains(t, contentsBelow(t, p.Dir), real["init-token"], "the search can find it")
	info, err := os.Stat(filepath.Join(r.folder, "secrets", "init-token"))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
	info, err = os.Stat(r.folder)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o700), info.Mode().Perm())

	// each rehearsal has its own
	another := prepare(t, p, "")
	require.NotEqual(t, contentsBelow(t, filepath.Join(r.folder, "secrets")), contentsBelow(t, filepath.Join(another.folder, "secrets")))
	require.NoError(t, r.Close())
	require.NoDirExists(t, r.folder)

	// a project whose agents join with the servers' token is rehearsed like that
	require.NoError(t, os.Remove(filepath.Join(p.Dir, "secrets/agent-token")))
	r = prepare(t, load(t, p.Dir), "")
	require.NoFileExists(t, filepath.Join(r.folder, "secrets/agent-token"))
	require.NotContains(t, contentsBelow(t, filepath.Join(r.folder, "generated", "hosts")), "agent-token")
}

// What is rendered names the project's files from where it is, and its own secrets.
func TestRendered(t *testing.T) {
	p := copyExample(t, "rack", nil)
	r := prepare(t, p, "")
	host, err := os.ReadFile(filepath.Join(r.folder, "generated/hosts/olaf.nix"))
	require.NoError(t, err)
	require.Contains(t, string(host), `(../../../../.. + "/nixConfigs/all.nix")`)
	folder := ".k3splan/rehearsal/" + filepath.Base(r.folder)
	require.Contains(t, string(host), `(../../../../.. + "/`+folder+`/secrets/passwd")`)
	require.FileExists(t, filepath.Join(r.folder, "generated/hosts/../../../../..", "nixConfigs/all.nix"))
	var d data
	content, err := os.ReadFile(filepath.Join(r.folder, "generated/rehearsal.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(content, &d))
	require.Len(t, d.Plan.Hosts, 5)
	require.FileExists(t, filepath.Join(r.File, "default.nix"))
	nixFiles, err := filepath.Glob(filepath.Join(r.folder, "generated/*/*.nix"))
	require.NoError(t, err)
	if nix, err := exec.LookPath("nix-instantiate"); err == nil {
		out, err := exec.Command(nix, append([]string{"--parse"}, nixFiles...)...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}

// The plan of a revision comes first: with the files that the project's own refer to, wherever they are in the
// repository.
func TestFrom(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("SKIP: git is not on PATH")
	}
	p := copyExample(t, "rack", nil)
	git := func(args ...string) {
		t.Helper()
		command := exec.Command("git", append([]string{"-C", filepath.Dir(p.Dir), "-c", "user.name=x", "-c", "user.email=x@example.org"}, args...)...)
		out, err := command.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	name := filepath.Base(p.Dir)
	write(t, filepath.Dir(p.Dir), map[string]string{"common/motd.nix": "{ }", name + "/nixConfigs/karl.nix": "{ imports = [ ../../common/motd.nix ]; }"})
	git("init", "-q")
	git("add", ".")
	git("commit", "-q", "-m", "deployed")
	hosts, err := os.ReadFile(filepath.Join(p.Dir, "plans/hosts.csv"))
	require.NoError(t, err)
	write(t, p.Dir, map[string]string{"plans/hosts.csv": strings.Replace(string(hosts), "karl,,storage,4", "karl,,storage,9", 1)})
	require.NotEqual(t, string(hosts), strings.Replace(string(hosts), "karl,,storage,4", "karl,,storage,9", 1))

	r := prepare(t, load(t, p.Dir), "HEAD")
	var waves []string
	for _, wave := range r.Waves {
		waves = append(waves, wave.Kind+": "+strings.Join(wave.Hosts, " "))
	}
	// a snippet of all hosts reads the plan
	require.Equal(t, []string{"init server: olaf", "server: rolf", "server: ulf", "agents: karl", "hosts without k3s: ulrich"}, waves)
	before := filepath.Join(r.folder, "from", name)
	content, err := os.ReadFile(filepath.Join(before, "generated/cluster.json"))
	require.NoError(t, err)
	require.Contains(t, string(content), `"slot": "4"`)
	content, err = os.ReadFile(filepath.Join(r.folder, "generated/cluster.json"))
	require.NoError(t, err)
	require.Contains(t, string(content), `"slot": "9"`)
	require.FileExists(t, filepath.Join(before, "../common/motd.nix"))
	change, err := os.ReadFile(r.File)
	require.NoError(t, err)
	require.Contains(t, string(change), `to = import (./. + "/generated/rehearse")`)
	// both have the same secrets
	for _, file := range []string{"init-token", "rehearsal", "hosts/olaf_ed25519"} {
		one, err := os.ReadFile(filepath.Join(r.folder, "secrets", file))
		require.NoError(t, err)
		other, err := os.ReadFile(filepath.Join(before, "secrets", file))
		require.NoError(t, err)
		require.Equal(t, one, other)
	}

	for rev, want := range map[string]string{"nowhere": `no such revision in git: "nowhere"`} {
		_, err := Prepare(t.Context(), Request{Project: p, Hosts: p.Plan.Hosts, From: rev, Templates: k3splan.Files})
		require.EqualError(t, err, want)
	}
	leftovers, err := filepath.Glob(filepath.Join(p.Dir, ".k3splan/rehearsal/*"))
	require.NoError(t, err)
	require.Len(t, leftovers, 1, "only the one that is open")
}

func TestSubtests(t *testing.T) {
	var found []string
	s := &subtests{found: func(name string) { found = append(found, name) }}
	for _, part := range []string{"start\nsubtest: the hosts", " are up\n(finished: subtest: the hosts are up, in 3.2 seconds)\n", "subtest: no unit has failed\nx\x1b[31mred\n"} {
		_, err := s.Write([]byte(part))
		require.NoError(t, err)
	}
	require.Equal(t, []string{"the hosts are up", "no unit has failed"}, found)
	require.NotContains(t, s.last[len(s.last)-1], "\x1b")
	for range 100 {
		_, _ = s.Write([]byte("more\n"))
	}
	require.Len(t, s.last, keptLines)
	_, _ = s.Write(bytes.Repeat([]byte("x"), 1<<20))
	require.LessOrEqual(t, len(s.part), maxLine)
}
