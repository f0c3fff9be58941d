package receipt

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"k3splan/internal/fingerprint"
	"k3splan/internal/plan"
)

func smallPlan(t testing.TB) *plan.Plan {
	p, problems := plan.Load(fstest.MapFS{
		"plans/hosts.csv":    {Data: []byte("name,interface,ip,admin\nolaf,eno1,10.0.0.2,someone\nkarl,eno1,10.0.0.3,someone\n")},
		"plans/k3s.csv":      {Data: []byte("host,name,type,ip\nolaf,olaf-s,init,10.0.0.12\nkarl,karl-a,agent,10.0.0.13\n")},
		"plans/network.yaml": {Data: []byte("netmask: 24\ngateway: 10.0.0.1\nversions: {nixos: nixos-24.11, k3s: 1.31}\n")},
	})
	require.Zero(t, problems.Errors(), "%v", problems)
	return p
}

func TestKeptPlan(t *testing.T) {
	p := smallPlan(t)
	kept, err := Keep(p)
	require.NoError(t, err)
	again, err := Keep(p)
	require.NoError(t, err)
	require.Equal(t, kept, again)
	back, err := kept.Plan()
	require.NoError(t, err)
	require.Equal(t, p.Model(), back.Model())
	for _, bad := range []KeptPlan{nil, []byte("x"), kept[:len(kept)/2]} {
		_, err := bad.Plan()
		require.Error(t, err)
	}
}

// written runs the script in a folder instead of /var/lib/k3splan and returns the receipt.
func written(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	script = strings.ReplaceAll(script, "/var/lib/k3splan", dir)
	out, err := exec.Command("sh", "-c", script+"cat "+dir+"/receipt; stat -c %a "+dir+"/receipt; ls "+dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	content, rest, _ := strings.Cut(string(out), "\n")
	require.Regexp(t, "^600\nreceipt\n(receipts\n)?$", rest, "private, and nothing beside it but the archive")
	return content
}

// The receipt of each deployment is kept for as long as its system is a generation; going back takes it from there.
func TestArchive(t *testing.T) {
	dir := t.TempDir()
	here := func(script string) string {
		return strings.NewReplacer("/var/lib/k3splan", dir+"/k3splan", "/nix/var/nix/profiles", dir+"/profiles").Replace(script)
	}
	run := func(script string, words ...string) string {
		t.Helper()
		out, err := exec.Command("sh", append([]string{"-c", here(script), "sh"}, words...)...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	run("mkdir " + dir + "/profiles")
	deploy := func(number, system string) *Receipt {
		t.Helper()
		run("ln -sfn \"$1\" \"$2\"", system, dir+"/profiles/system-"+number+"-link")
		r, err := New(smallPlan(t), system, fingerprint.Inputs{Data: map[string]string{"n": number}}, fingerprint.Contents{"passwd": []byte("poison")})
		require.NoError(t, err)
		script, err := r.WriteScript()
		require.NoError(t, err)
		run(script)
		return r
	}
	first := deploy("1", "/nix/store/aaa-nixos-system-olaf-24.11")
	second := deploy("2", "/nix/store/bbb-nixos-system-olaf-24.11")
	kept, err := Parse([]byte(run(ReadKeptScript, first.System)))
	require.NoError(t, err)
	require.Equal(t, first, kept)
	require.Empty(t, run(ReadKeptScript, "/nix/store/ccc-nixos-system-olaf-24.11"))
	require.Equal(t, "700\n600\n", run("stat -c %a /var/lib/k3splan/receipts /var/lib/k3splan/receipts/aaa-nixos-system-olaf-24.11"))

	require.Empty(t, run(ReadRollbackScript))
	run(RollbackScript, "1")
	require.Equal(t, "rollback 1\n", run(ReadRollbackScript))
	after := second.BackTo(kept, first.System, 1, "", "")
	script, err := after.WriteScript()
	require.NoError(t, err)
	run(script)
	require.Empty(t, run(ReadRollbackScript), "it has ended")
	now, err := Parse([]byte(run(ReadScript)))
	require.NoError(t, err)
	require.Equal(t, after, now)
	require.Equal(t, second.Secrets, now.Secrets, "secrets do not go back")
	require.Equal(t, first.Fingerprint, now.Fingerprint)
	require.Equal(t, second.System, now.RolledBack.From)
	require.Equal(t, 1, now.RolledBack.Generation)
	require.False(t, now.Same(first))
	require.True(t, now.Same(after))
	require.False(t, now.Same(nil))
	require.True(t, (*Receipt)(nil).Same(nil))
	kept, err = Parse([]byte(run(ReadKeptScript, first.System)))
	require.NoError(t, err)
	require.Nil(t, kept.RolledBack, "the archive has deployments alone")

	// without a receipt only the containers of the generation are known
	blind := second.BackTo(nil, "/nix/store/ccc", 3, "olaf-s", "")
	require.Equal(t, "olaf-s", blind.ServerName())
	require.Empty(t, blind.AgentName())
	require.Empty(t, blind.Fingerprint)
	require.Equal(t, second.Plan, blind.Plan)
	require.NotEqual(t, "olaf-s", second.ServerName(), "a copy")

	run("rm " + dir + "/profiles/system-1-link")
	deploy("3", "/nix/store/ddd-nixos-system-olaf-24.11")
	require.Equal(t, "bbb-nixos-system-olaf-24.11\nddd-nixos-system-olaf-24.11\n", run("ls /var/lib/k3splan/receipts"))
}

func TestWrite(t *testing.T) {
	in := fingerprint.Inputs{Data: map[string]string{"host.name": "olaf", "server.name": "olaf-s", "host.note": "'$x `y`\nk3splan-end-of-receipt\n"}}
	secrets := fingerprint.Contents{"server-token": []byte("poison"), "passwd": []byte("poison")}
	r, err := New(smallPlan(t), "/nix/store/x", in, secrets)
	require.NoError(t, err)
	script, err := r.WriteScript()
	require.NoError(t, err)
	require.NotContains(t, script, "poison")
	back, err := Parse([]byte(written(t, script)))
	require.NoError(t, err)
	require.Equal(t, r, back)
	require.Equal(t, "olaf-s", back.ServerName())
	require.Empty(t, back.AgentName())
	require.True(t, back.HasK3s())
	require.Equal(t, "olaf", back.HostName("ulf"))
	require.False(t, (*Receipt)(nil).HasK3s())
	require.Empty(t, secrets.Changed(back.Secrets))

	// a rotated token is new to the host, and nothing else is
	content, err := json.Marshal(r)
	require.NoError(t, err)
	forget, err := ForgetScript(content, "server-token")
	require.NoError(t, err)
	after, err := Parse([]byte(written(t, forget)))
	require.NoError(t, err)
	require.Equal(t, []string{"server-token"}, secrets.Changed(after.Secrets))
	require.Empty(t, after.Secrets.Kinds["server-token"])
	after.Secrets = r.Secrets
	require.Equal(t, r, after)
}

func TestForgetLeavesTheRestAlone(t *testing.T) {
	script, err := ForgetScript([]byte(`{"version": 9, "later": [1], "secrets": {"salt": "s", "kinds": {"server-token": "x", "passwd": "y"}, "more": true}}`), "server-token")
	require.NoError(t, err)
	require.JSONEq(t, `{"version": 9, "later": [1], "secrets": {"salt": "s", "kinds": {"passwd": "y"}, "more": true}}`, written(t, script))
	for _, content := range []string{"", "{}", "{", `{"secrets": {}}`, `{"secrets": {"kinds": {"passwd": "y"}}}`} {
		script, err := ForgetScript([]byte(content), "server-token")
		require.NoError(t, err, content)
		require.Empty(t, script, content)
	}
}

// An attempt is remembered until the receipt of a deployment that ended is written.
func TestAttempt(t *testing.T) {
	dir := t.TempDir()
	run := func(script string) string {
		t.Helper()
		out, err := exec.Command("sh", "-c", strings.ReplaceAll(script, "/var/lib/k3splan", dir)).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	require.Empty(t, run(ReadAttemptScript))
	secrets := fingerprint.Contents{"passwd": []byte("poison"), "agent-token": []byte("poison")}
	script, err := AttemptScript(secrets)
	require.NoError(t, err)
	require.NotContains(t, script, "poison")
	run(script)
	said, found := strings.CutPrefix(run(ReadAttemptScript), "attempt ")
	require.True(t, found)
	require.Empty(t, secrets.Changed(*ParseAttempt(said)))
	secrets["passwd"] = []byte("another")
	require.Equal(t, []string{"passwd"}, secrets.Changed(*ParseAttempt(said)))
	require.Equal(t, []string{"agent-token", "passwd"}, secrets.Changed(*ParseAttempt("{")), "what cannot be read is unknown")

	r, err := New(smallPlan(t), "/nix/store/x", fingerprint.Inputs{}, secrets)
	require.NoError(t, err)
	content, err := json.Marshal(r)
	require.NoError(t, err)
	forget, err := ForgetScript(content, "passwd")
	require.NoError(t, err)
	run(forget)
	require.NotEmpty(t, run(ReadAttemptScript), "a token that is pushed ends no deployment")
	script, err = r.WriteScript()
	require.NoError(t, err)
	run(script)
	require.Empty(t, run(ReadAttemptScript))
}

func TestParse(t *testing.T) {
	for text, why := range map[string]string{`{"vers`: "cannot be read", `{"version": 7}`: "another version of k3splan (form 7, this one reads 2)"} {
		_, err := Parse([]byte(text))
		require.ErrorContains(t, err, why)
	}
}
