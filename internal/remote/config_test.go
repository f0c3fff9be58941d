package remote

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena/nixtest"
	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/run/runtest"
)

const hostsTable = `name,interface,ip,admin
olaf,eno1,10.0.100.2,olaf
ulf,eno1,10.0.100.3@ulf.example:2222,ulf
rolf,eno1,10.0.100.4@gate.example:2201,rolf
karl,eno1,10.0.100.5@gate.example:2202,karl
ulrich,eno1,10.0.100.6@local,ulrich
`

func loadPlan(t *testing.T) *plan.Plan {
	t.Helper()
	p, problems := plan.Load(fstest.MapFS{
		"plans/hosts.csv":    {Data: []byte(hostsTable)},
		"plans/k3s.csv":      {Data: []byte("host,name,type,ip\n")},
		"plans/network.yaml": {Data: []byte("netmask: 24\ngateway: 10.0.100.1\ndomain: rack.example\nversions: {nixos: nixos-26.05}\n")},
	})
	require.Empty(t, problems)
	return p
}

func key(t *testing.T) HostKey    { return HostKey{Public: newKey(t), Made: true} }
func rsaKey(t *testing.T) HostKey { return HostKey{Public: newRSAKey(t, 2048)} }

// knownTo gives the keys of all hosts but karl; ulf has a new one beside an old one of RSA.
func knownTo(t *testing.T) HostKeys {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, setKnownHosts(dir, map[string][]HostKey{
		"olaf": {key(t)}, "ulf": {rsaKey(t), key(t)}, "rolf": {key(t)},
	}))
	keys, problems := ReadKnownHosts(os.DirFS(dir), []string{"olaf", "ulf", "rolf", "karl", "ulrich"}, false)
	require.Empty(t, problems)
	return keys
}

func TestKnownHosts(t *testing.T) {
	keys := knownTo(t)
	var lines []string
	for line := range strings.Lines(KnownHosts(loadPlan(t), keys)) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	line := func(host string, i int) string { return KeyLine(keys.Of(host)[i].Public) }
	require.Equal(t, []string{
		"olaf,10.0.100.2 " + line("olaf", 0),
		"rolf,[gate.example]:2201 " + line("rolf", 0),
		"ulf,[ulf.example]:2222 " + line("ulf", 0),
		"ulf,[ulf.example]:2222 " + line("ulf", 1),
	}, lines)
}

func TestCheckKnown(t *testing.T) {
	p, keys := loadPlan(t), knownTo(t)
	require.NoError(t, CheckKnown([]*plan.Host{p.Host("olaf"), p.Host("ulrich")}, keys), "this machine needs no key")
	err := CheckKnown(p.Hosts, keys)
	var unknown *UnknownKeyError
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, []string{"karl"}, unknown.Hosts)
	require.Contains(t, diag.HintOf(err), "k3splan known-hosts scan karl")
	require.Error(t, CheckKnown(p.Hosts, HostKeys{}), "nobody is known without the file")
}

// What ssh makes of the files, in a folder whose path it could not take as well.
func TestSSHReadsIt(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("SKIP: ssh is not on PATH (Debian: openssh-client)")
	}
	p, keys := loadPlan(t), knownTo(t)
	for name, dir := range map[string]string{
		"plain":   filepath.Join(nixtest.PlainDir(t), "rack"),
		"awkward": filepath.Join(t.TempDir(), `my "rack" of %h ${HOME} $x \ '`),
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.Mkdir(dir, 0o755))
			conf, err := Prepare(dir, p, keys)
			require.NoError(t, err)
			require.Regexp(t, plainPath, conf.File, "Colmena joins ssh's options with blanks")
			require.Equal(t, []string{"SSH_CONFIG_FILE=" + conf.File}, conf.Env())
			require.Equal(t, name == "plain", strings.HasPrefix(conf.File, dir))
			known := filepath.Join(filepath.Dir(conf.File), "known_hosts")
			for destination, want := range map[string][]string{
				"olaf":              {"hostname 10.0.100.2", "user olaf", "port 22", "hostkeyalias olaf", "hostkeyalgorithms ssh-ed25519"},
				"olaf.rack.example": {"hostname 10.0.100.2", "user olaf", "hostkeyalias olaf"},
				"deploy@10.0.100.2": {"hostname 10.0.100.2", "user deploy", "hostkeyalias olaf"},
				"ulf":               {"hostname ulf.example", "port 2222", "hostkeyalgorithms rsa-sha2-256,rsa-sha2-512,ssh-ed25519"},
				"x@ulf.example":     {"user x", "hostkeyalias ulf"},
				"karl":              {"hostname gate.example", "port 2202", "hostkeyalias karl"}, // unknown: refused by ssh, too
				"gate.example":      {"hostname gate.example"},
			} {
				out, err := exec.Command("ssh", "-G", "-F", conf.File, destination).CombinedOutput()
				require.NoError(t, err, "%s", out)
				settings := strings.Split(string(out), "\n")
				for _, setting := range append(want, "stricthostkeychecking true", "userknownhostsfile "+known, "globalknownhostsfile /dev/null",
					"updatehostkeys false", "verifyhostkeydns false", "serveraliveinterval 15", "serveralivecountmax 4") {
					require.Contains(t, settings, setting, destination)
				}
			}
			out, err := exec.Command("ssh", "-G", "-F", conf.File, "gate.example").CombinedOutput()
			require.NoError(t, err)
			require.NotContains(t, string(out), "hostkeyalias", "two machines behind one address")
			out, err = exec.Command("ssh", "-G", "-F", conf.File, "ulrich").CombinedOutput()
			require.NoError(t, err)
			require.NotContains(t, string(out), known, "this machine")

			for _, file := range []string{conf.File, known} {
				info, err := os.Stat(file)
				require.NoError(t, err)
				require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
			}
			before, err := os.Stat(conf.File)
			require.NoError(t, err)
			require.NoError(t, conf.Close())
			_, err = os.Stat(conf.File)
			require.Equal(t, name == "plain", err == nil, "what is temporary goes")
			if name == "plain" {
				_, err = Prepare(dir, p, keys)
				require.NoError(t, err)
				after, err := os.Stat(conf.File)
				require.NoError(t, err)
				require.Equal(t, before.ModTime(), after.ModTime(), "the same is not written again")
			}
		})
	}
}

func TestForInclusion(t *testing.T) {
	p, keys := loadPlan(t), knownTo(t)
	folder := filepath.Join(t.TempDir(), "a b %h 'c'")
	require.NoError(t, os.Mkdir(folder, 0o755))
	known, err := WriteKnownHosts(folder, p, keys)
	require.NoError(t, err)
	text, err := ForInclusion(p, keys, known)
	require.NoError(t, err)
	require.NotContains(t, text, "Include", "it would include itself")
	require.NotContains(t, text, "Host 10.0.100.2", "another machine in another network")
	for _, bad := range []string{"/a/${x}/known_hosts", "/a/\"/known_hosts", "/a/\n/known_hosts"} {
		_, err := ForInclusion(p, keys, bad)
		require.Error(t, err, bad)
	}
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("SKIP: ssh is not on PATH (Debian: openssh-client)")
	}
	file := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	out, err := exec.Command("ssh", "-G", "-F", file, "ulf").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "hostname ulf.example\n")
	require.Contains(t, string(out), known+"\n")
}

// The configuration that the user has named for Colmena holds in place of the usual one.
func TestTheUsersOwnConfiguration(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("SKIP: ssh is not on PATH (Debian: openssh-client)")
	}
	own := filepath.Join(t.TempDir(), "my config")
	require.NoError(t, os.WriteFile(own, []byte("Host *\n    IdentityFile /their/key\n    StrictHostKeyChecking no\n"), 0o600))
	t.Setenv("SSH_CONFIG_FILE", own)
	dir := t.TempDir()
	conf, err := Prepare(dir, loadPlan(t), knownTo(t))
	require.NoError(t, err)
	out, err := exec.Command("ssh", "-G", "-F", conf.File, "olaf").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "identityfile /their/key\n")
	require.Contains(t, string(out), "stricthostkeychecking true\n")

	t.Setenv("SSH_CONFIG_FILE", conf.File) // it must not include itself
	_, err = Prepare(dir, loadPlan(t), knownTo(t))
	require.NoError(t, err)
	require.NoError(t, exec.Command("ssh", "-G", "-F", conf.File, "olaf").Run())
}

// ssh keeps the first value of an option. What the user's own configuration needs to be read by other
// programs too must therefore not be taken by ours.
func TestWhatSSHAcceptsOfTheUser(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("SKIP: ssh is not on PATH (Debian: openssh-client)")
	}
	dir := t.TempDir()
	more := filepath.Join(dir, "more")
	require.NoError(t, os.Mkdir(more, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(more, "a.conf"), []byte("Host olaf\n    IdentityFile /from/include\n"), 0o600))
	own := filepath.Join(dir, "[my] config *")
	require.NoError(t, os.WriteFile(own, []byte(`IgnoreUnknown UseKeychain,AddKeysToNowhere
UseKeychain yes
Include "`+more+`/*.conf"
Match originalhost olaf exec "test %h = 10.0.100.2 -o %h = olaf"
    IdentityFile %d/.ssh/%u-from-exec
Host ulf.rack.example
    ProxyCommand nc -X 5 -x "a b" %h %p
    IdentityFile "/with blank/key"
Host 10.0.100.*
    ProxyJump jump
Host rolf
    ProxyJump gate-of-rolf
Host karl
    HostName wrong.example
    Port 99
    User wrong
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    IdentitiesOnly yes
Host *
    AddKeysToNowhere yes
    RemoteCommand tmux
    RequestTTY force
    ServerAliveInterval 0
`), 0o600))
	t.Setenv("SSH_CONFIG_FILE", own)
	p, keys := loadPlan(t), knownTo(t)
	conf, err := Prepare(t.TempDir(), p, keys)
	require.NoError(t, err)
	known, err := WriteKnownHosts(t.TempDir(), p, keys)
	require.NoError(t, err)
	text, err := ForInclusion(p, keys, known)
	require.NoError(t, err)
	included := filepath.Join(dir, "included")
	content, err := os.ReadFile(own)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(included, append([]byte(text), content...), 0o600))

	ask := func(t *testing.T, file string, args ...string) []string {
		out, err := exec.Command("ssh", append([]string{"-G", "-F", file}, args...)...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return strings.Split(string(out), "\n")
	}
	for name, test := range map[string]struct {
		byName, byAddress []string
		want              []string
		not               string
	}{
		"a name's include, a condition, an address's jump host": {[]string{"olaf"}, []string{"deploy@10.0.100.2"},
			[]string{"identityfile /from/include", "identityfile %d/.ssh/%u-from-exec", "proxyjump jump", "hostname 10.0.100.2"}, ""},
		"an alias": {[]string{"ulf.rack.example"}, []string{"-p", "2222", "deploy@ulf.example"},
			[]string{`proxycommand nc -X 5 -x "a b" %h %p`, "identityfile /with blank/key", "hostname ulf.example"}, ""},
		"one of two behind an address": {[]string{"rolf"}, []string{"-p", "2201", "deploy@gate.example"},
			[]string{"proxyjump gate-of-rolf", "port 2201"}, ""},
		"the other": {[]string{"karl"}, []string{"-p", "2202", "deploy@gate.example"},
			[]string{"identitiesonly yes", "port 2202", "hostname gate.example", "stricthostkeychecking true"}, "proxyjump"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, settings := range [][]string{ask(t, conf.File, test.byName...), ask(t, conf.File, test.byAddress...), ask(t, included, test.byName...)} {
				for _, setting := range test.want {
					require.Contains(t, settings, setting)
				}
				if test.not != "" {
					require.NotContains(t, strings.Join(settings, "\n"), test.not)
				}
			}
			require.Contains(t, ask(t, conf.File, test.byAddress...), "serveraliveinterval 15")
			require.NotContains(t, ask(t, conf.File, test.byAddress...), "remotecommand tmux")
			require.Contains(t, ask(t, conf.File, test.byAddress...), "requesttty false")
			byName := ask(t, conf.File, test.byName...)
			require.Contains(t, byName, "requesttty force", "a person's own session stays as it is")
			require.Contains(t, byName, "remotecommand tmux")
			require.Contains(t, byName, "clearallforwardings no")
		})
	}
}

// ssh is not asked about hosts for which the user has no blocks: a rack may have thousands.
func TestSSHIsAskedLittle(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	runtest.Fake(t, "ssh", `case "$*" in *-G*) echo "$*" >> '`+log+`';; esac`)
	own := filepath.Join(t.TempDir(), "config")
	t.Setenv("SSH_CONFIG_FILE", own)
	count := func(config string) int {
		require.NoError(t, os.WriteFile(own, []byte(config), 0o600))
		require.NoError(t, os.WriteFile(log, nil, 0o600))
		_, err := Prepare(t.TempDir(), loadPlan(t), knownTo(t))
		require.NoError(t, err)
		content, err := os.ReadFile(log)
		require.NoError(t, err)
		return strings.Count(string(content), "\n")
	}
	require.Zero(t, count("Host *\n  User x\nHost github.com\n  User git\nMatch all\n  Compression yes\n"))
	require.Equal(t, 1, count("Host OLAF\n  User x\n"), "the defaults, which this ssh does not give")
	printed, err := ForInclusion(loadPlan(t), knownTo(t), "/x/known_hosts")
	require.NoError(t, err)
	require.Zero(t, count(printed))
}

func TestVersionsOfSSH(t *testing.T) {
	for version, want := range map[string][2]bool{
		"OpenSSH_8.4p1 Debian-5+deb11u3, OpenSSL 1.1.1n": {false, false}, "OpenSSH_8.5p1": {true, false}, "OpenSSH_9.2p1 Debian-2": {true, true},
		"OpenSSH_10.0p2": {true, true}, "OpenSSH_7.9p1": {false, false}, "OpenSSH_for_Windows_8.1p1, LibreSSL 3.0.2": {false, false}, "": {true, true},
	} {
		v := parseVersion(version)
		require.Equal(t, want, [2]bool{knownHostsCommand.has(v), sessionType.has(v)}, version)
	}
}

// How people name their hosts in ssh's configuration, beyond plain Host blocks.
func TestTheUsersWaysToNameHosts(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("SKIP: ssh is not on PATH (Debian: openssh-client)")
	}
	dir := t.TempDir()
	blank := filepath.Join(dir, "with blank")
	require.NoError(t, os.WriteFile(blank, []byte("Host olaf\n    IdentityFile /from/blank\n"), 0o600))
	byAddress, byName := []string{"deploy@10.0.100.2"}, []string{"olaf"}
	for name, test := range map[string]struct {
		own       string
		args      [][]string
		want, not string
	}{
		"an include with a blank":       {"Include \"" + blank + "\"\n", [][]string{byAddress, byName}, "identityfile /from/blank", "-"},
		"all but one":                   {"Host * !olaf\n    ProxyJump gate\n", [][]string{byAddress, byName}, "hostname 10.0.100.2", "proxyjump"},
		"a name and a user":             {"Match host olaf user deploy\n    IdentityFile /of/deploy\n", [][]string{byAddress}, "identityfile /of/deploy", "-"},
		"a name and another user":       {"Match host olaf user root\n    IdentityFile /of/root\n", [][]string{byAddress}, "user deploy", "/of/root"},
		"a name and root":               {"Match host olaf user root\n    IdentityFile /of/root\n", [][]string{{"root@10.0.100.2"}}, "identityfile /of/root", "-"},
		"a user by a condition":         {"Match originalhost olaf exec \"test %r = deploy\"\n    IdentityFile /of/deploy\n", [][]string{byAddress}, "identityfile /of/deploy", "-"},
		"one of two, for a user":        {"Match host rolf user deploy\n    ProxyJump gate\n", [][]string{{"-p", "2201", "deploy@gate.example"}}, "proxyjump gate", "-"},
		"the other of the two":          {"Match host rolf user deploy\n    ProxyJump gate\n", [][]string{{"-p", "2202", "deploy@gate.example"}}, "port 2202", "proxyjump"},
		"a key by the name":             {"Host olaf\n    IdentityFile /keys/%n_ed25519\n", [][]string{byAddress}, "identityfile /keys/olaf_ed25519", "-"},
		"a key by the host":             {"Host o*\n    IdentityFile /keys/%h_%%h\n", [][]string{byAddress, byName}, "identityfile /keys/olaf_%%h", "-"},
		"a key by the user's own name":  {"Host olaf\n    HostName olaf.example\n    IdentityFile /keys/%h\n", [][]string{byAddress, byName}, "identityfile /keys/olaf.example", "-"},
		"names that become longer":      {"Host *\n    HostName %h.example\n", [][]string{byAddress}, "hostname 10.0.100.2", "-"},
		"one connection for each login": {"Host *\n    ControlMaster auto\n    ControlPath /x/%r@%h\nHost olaf\n    ProxyJump gate\n", [][]string{byAddress}, "controlpath /x/deploy@10.0.100.2", "/x/root"},
		"no shared connection":          {"Host olaf\n    ControlPath none\nHost *\n    ControlPath /x/%r@%h\n", [][]string{byAddress, byName}, "hostname 10.0.100.2", "controlpath /x"},
		"a tunnel":                      {"Host olaf\n    SessionType none\n    StdinNull yes\n    ForkAfterAuthentication yes\n", [][]string{byAddress}, "sessiontype default", "stdinnull yes"},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(test.own, "SessionType") && !sessionType.has(version()) {
				t.Skip("SKIP: this ssh has no SessionType")
			}
			own := filepath.Join(t.TempDir(), "config")
			require.NoError(t, os.WriteFile(own, []byte(test.own), 0o600))
			t.Setenv("SSH_CONFIG_FILE", own)
			conf, err := Prepare(t.TempDir(), loadPlan(t), knownTo(t))
			require.NoError(t, err)
			for _, args := range test.args {
				out, err := exec.Command("ssh", append([]string{"-G", "-F", conf.File}, args...)...).CombinedOutput()
				require.NoError(t, err, "%s", out)
				require.Contains(t, string(out), test.want+"\n", args)
				if test.not != "-" {
					require.NotContains(t, string(out), test.not, args)
				}
			}
		})
	}
}
