package k3s

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"k3splan/internal/ask"
	"k3splan/internal/ask/asktest"
	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/secrets"
)

// living is a cluster of three servers and an agent, with the project that it was deployed by.
type living struct {
	t     *testing.T
	dir   string
	plan  *plan.Plan
	vault *secrets.Vault
	// token is the password; the servers show it in its full form. stored is that for which etcd's data is.
	token, stored string
	stale         string           // what ulf shows instead
	fails         map[string]error // by HOST: COMMAND or a part of that
	// onRotate is done in place of k3s's work.
	onRotate func() error
	done     []string
}

// full is what stands before the password in a token's full form.
var full = "K10" + strings.Repeat("0", 64) + "::server:"

const (
	first = "the-first-token-of-the-cluster"
	next  = "the-next-token-of-the-cluster"
)

func newLiving(t *testing.T) *living {
	p, problems := plan.Load(fstest.MapFS{
		"plans/hosts.csv":    {Data: []byte("name,interface,ip,admin\nkarl,lan,10.0.0.2,x\nolaf,lan,10.0.0.3,x\nulf,lan,10.0.0.4,x\n")},
		"plans/k3s.csv":      {Data: []byte("host,name,type,ip\nkarl,karl-s,server,10.0.0.12\nolaf,olaf-s,init,10.0.0.13\nulf,ulf-s,server,10.0.0.14\nulf,ulf-a,agent,10.0.0.24\n")},
		"plans/network.yaml": {Data: []byte("netmask: 24\ngateway: 10.0.0.254\nversions: {nixos: nixos-24.11, k3s: 1.31}\n")},
	})
	require.Zero(t, problems.Errors(), "%v", problems)
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "secrets"), 0o700))
	vault, err := secrets.OpenVault(dir, plan.SecretStore{}, nil)
	require.NoError(t, err)
	l := &living{t: t, dir: dir, plan: p, vault: vault, token: first, stored: first, fails: map[string]error{}}
	l.onRotate = func() error { l.rotate(); return nil }
	return l
}

func (l *living) rotate() { l.token, l.stored = next, next }

func (l *living) run(_ context.Context, host *plan.Host, stdin string, command ...string) (string, error) {
	call := host.Name + ": " + strings.Join(command, " ")
	for part, err := range l.fails {
		if strings.Contains(call, part) {
			return "", err
		}
	}
	switch {
	case strings.HasSuffix(call, "cat "+tokenFile):
		if host.Name == "ulf" && l.stale != "" {
			return full + l.stale + "\n", nil
		}
		return full + l.token + "\n", nil
	case strings.HasSuffix(call, "etcdctl get --prefix --keys-only /bootstrap/"):
		return fmt.Sprintf("/bootstrap/%x\n\n", sha256.Sum256([]byte(l.stored)))[:len("/bootstrap/")+12] + "\n\n", nil
	case strings.HasSuffix(call, "k3s token rotate"):
		l.done = append(l.done, "rotate on "+host.Name)
		return "", l.onRotate()
	case strings.Contains(call, "systemctl restart"):
		l.done = append(l.done, "restart "+host.Name)
	case strings.HasSuffix(call, serverTokenFile), strings.HasSuffix(call, agentTokenFile):
		l.done = append(l.done, host.Name+" "+filepath.Base(filepath.Dir(command[len(command)-1]))+" "+strings.TrimSpace(stdin))
	}
	return "", nil
}

func (l *living) find() *Cluster {
	l.t.Helper()
	c, err := Find(context.Background(), l.plan, Servers(l.plan), l.vault, l.run)
	require.NoError(l.t, err)
	return c
}

func (l *living) put(content string) {
	l.t.Helper()
	require.NoError(l.t, l.vault.Create(string(secrets.InitToken), []byte(content+"\n")))
}

func (l *living) file() string {
	l.t.Helper()
	content, err := l.vault.Read(string(secrets.InitToken))
	require.NoError(l.t, err)
	return strings.TrimSpace(string(content))
}

// kept is the content of the retired tokens.
func (l *living) kept() []string {
	names, err := filepath.Glob(filepath.Join(l.dir, "secrets", secrets.Retired, "*"))
	require.NoError(l.t, err)
	kept := []string{}
	for _, name := range names {
		content, err := os.ReadFile(name)
		require.NoError(l.t, err)
		kept = append(kept, strings.TrimSpace(string(content)))
	}
	return kept
}

func hint(t *testing.T, err error) string {
	t.Helper()
	require.Error(t, err)
	return diag.HintOf(err)
}

func yes() error { return nil }

func TestFindAsksTheInitServerFirst(t *testing.T) {
	l := newLiving(t)
	require.Equal(t, "olaf-s", l.find().Server())
	l.fails["olaf: "] = errors.New("it is away")
	require.Equal(t, "karl-s", l.find().Server())
	l.fails[": "] = errors.New("all are away")
	_, err := Find(context.Background(), l.plan, Servers(l.plan), l.vault, l.run)
	for _, server := range []string{"olaf-s", "karl-s", "ulf-s"} {
		require.ErrorContains(t, err, "ask "+server+" for its token")
	}
}

// A server that runs since before a rotation still shows the old token.
func TestFindAsksForTheTokenOfTheCluster(t *testing.T) {
	l := newLiving(t)
	l.rotate()
	l.stale = first
	ask := func(host string) (*Cluster, error) {
		return Find(context.Background(), l.plan, []*plan.Container{l.plan.Host(host).Server}, l.vault, l.run)
	}
	_, err := ask("ulf")
	require.EqualError(t, err, "the token of ulf-s is not the one with which its etcd's data is encrypted")
	c, err := ask("karl")
	require.NoError(t, err)
	require.Equal(t, next, c.password)
	l.fails["olaf: "] = errors.New("it is away")
	l.fails["karl: "] = errors.New("it is away")
	_, err = Find(context.Background(), l.plan, Servers(l.plan), l.vault, l.run)
	require.ErrorContains(t, err, "the token of ulf-s")

	clear(l.fails)
	l.fails["etcdctl"] = errors.New("etcdctl: command not found")
	_, err = ask("karl")
	require.Contains(t, hint(t, err), "k3splan deploy brings etcdctl")
}

// The key is the one that k3s 1.33 made for this token.
func TestCanStartWith(t *testing.T) {
	server := Server{Container: "s", Run: func(context.Context, string, ...string) (string, error) { return "/bootstrap/6b8792afd16b\n\n", nil }}
	good, err := server.CanStartWith(context.Background(), "9091c2c2618e8d54f53fc3371fc64f29")
	require.NoError(t, err)
	require.True(t, good)
	good, err = server.CanStartWith(context.Background(), "9091c2c2618e8d54f53fc3371fc64f28")
	require.NoError(t, err)
	require.False(t, good)
	server.Run = func(context.Context, string, ...string) (string, error) { return "\n", nil }
	_, err = server.CanStartWith(context.Background(), "x")
	require.ErrorContains(t, err, "it has no bootstrap data")
}

func TestRotate(t *testing.T) {
	ctx := context.Background()
	for name, test := range map[string]struct {
		prepare    func(*living)
		file       string
		says, hint string
		kept       []string
	}{
		"it works":               {func(*living) {}, next, "", "", []string{first}},
		"the connection is lost": {func(l *living) { l.onRotate = func() error { l.rotate(); return errors.New("lost") } }, next, "", "", []string{first}},
		"k3s fails":              {func(l *living) { l.onRotate = func() error { return errors.New("etcd is away") } }, first, "rotate the token on olaf-s: etcd is away", "", []string{}},
		"nothing happens":        {func(l *living) { l.onRotate = func() error { return nil } }, first, "has the same one as before", "", []string{}},
		"half of it happens":     {func(l *living) { l.onRotate = func() error { l.token = next; return errors.New("etcd is away") } }, first, "etcd is away\nthe token of olaf-s is not the one with which its etcd's data is encrypted; secrets/init-token still contains the old one", "nixos-container run olaf-s -- systemctl restart k3s", []string{first}},
		"etcd goes away": {func(l *living) {
			l.onRotate = func() error { l.rotate(); l.fails["etcdctl"] = errors.New("no leader"); return nil }
		}, first, "no leader; secrets/init-token still contains the old one", "k3splan token adopt", []string{first}},
		"not restarted since": {func(l *living) { l.onRotate = func() error { return errors.New("fatal: Error: not authorized") } }, first, "not authorized", "k3splan deploy restarts those", []string{}},
		"the server goes away": {func(l *living) {
			l.onRotate = func() error { l.fails[tokenFile] = errors.New("gone"); return errors.New("lost") }
		}, first, "lost", "it is not known whether the token was rotated", nil},
		"it was not the token":     {func(l *living) { l.token, l.stored = "another-one-of-the-cluster", "another-one-of-the-cluster" }, first, "is not the token of the running cluster (asked olaf-s); nothing was changed", "k3splan token adopt", []string{}},
		"the token is in an error": {func(l *living) { l.onRotate = func() error { return errors.New("say " + first) } }, first, "say [token]", "", []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLiving(t)
			l.put(first)
			test.prepare(l)
			kept, err := l.find().Rotate(ctx, yes)
			require.Equal(t, test.file, l.file())
			if test.says == "" {
				require.NoError(t, err)
				require.FileExists(t, filepath.Join(l.dir, kept))
			} else {
				require.ErrorContains(t, err, test.says)
				require.NotContains(t, err.Error(), first)
			}
			if test.hint != "" {
				require.Contains(t, hint(t, err), test.hint)
			}
			if test.kept != nil {
				require.Equal(t, test.kept, l.kept())
			}
		})
	}
}

func TestRotateKeepsTheForm(t *testing.T) {
	l := newLiving(t)
	l.put(full + first)
	_, err := l.find().Rotate(context.Background(), yes)
	require.NoError(t, err)
	require.Equal(t, full+next, l.file())
}

// Killed after the cluster had taken the new token: the same command stores it, and rotates nothing again.
func TestAKilledRotationIsCompleted(t *testing.T) {
	l := newLiving(t)
	l.put(first)
	l.onRotate = func() error { l.rotate(); panic("killed") }
	require.Panics(t, func() { _, _ = l.find().Rotate(context.Background(), yes) })
	require.Equal(t, first, l.file())
	l.done = nil
	kept, err := l.find().Rotate(context.Background(), func() error { t.Error("asked without need"); return nil })
	require.NoError(t, err)
	require.Equal(t, next, l.file())
	require.Equal(t, []string{first}, l.kept())
	require.FileExists(t, filepath.Join(l.dir, kept))
	require.Empty(t, l.done)
}

func TestRotateNeedsConsent(t *testing.T) {
	l := newLiving(t)
	l.put(first)
	no := errors.New("no")
	_, err := l.find().Rotate(context.Background(), func() error { return no })
	require.ErrorIs(t, err, no)
	require.Empty(t, l.done)
	require.Empty(t, l.kept())
}

func TestAdopt(t *testing.T) {
	ctx := context.Background()
	never := func() error { t.Error("asked without need"); return nil }
	l := newLiving(t)
	kept, adopted, err := l.find().Adopt(ctx, never)
	require.NoError(t, err)
	require.True(t, adopted)
	require.Empty(t, kept)
	require.Equal(t, first, l.file())

	_, adopted, err = l.find().Adopt(ctx, never)
	require.NoError(t, err)
	require.False(t, adopted)

	l.rotate()
	no := errors.New("no")
	_, _, err = l.find().Adopt(ctx, func() error { return no })
	require.ErrorIs(t, err, no)
	require.Equal(t, first, l.file())

	l = newLiving(t)
	l.put(next)
	kept, adopted, err = l.find().Adopt(ctx, yes)
	require.NoError(t, err)
	require.True(t, adopted)
	require.FileExists(t, filepath.Join(l.dir, kept))
	require.Equal(t, first, l.file())
	require.Equal(t, []string{next}, l.kept())
}

func TestPush(t *testing.T) {
	ctx := context.Background()
	l := newLiving(t)
	l.put(first)
	told := map[string]string{}
	tell := func(host string, err error) {
		told[host] = "has it"
		if err != nil {
			told[host] = err.Error()
		}
	}
	l.fails["karl: sh"] = errors.New("say " + first)
	err := l.find().Push(ctx, tell)
	require.EqualError(t, err, "karl could not get the new token and cannot join again without it")
	require.Contains(t, hint(t, err), "k3splan token push")
	require.Equal(t, map[string]string{"karl": "bring the token to " + serverTokenFile + ": say [token]", "olaf": "has it", "ulf": "has it"}, told)
	require.Equal(t, []string{"olaf server " + first, "ulf server " + first, "ulf agent " + first}, l.done)

	clear(l.fails)
	l.done = nil
	require.NoError(t, l.vault.Create(string(secrets.AgentToken), []byte("a-token-for-agents-alone\n")))
	require.NoError(t, l.find().Push(ctx, tell))
	require.Equal(t, []string{"karl server " + first, "olaf server " + first, "ulf server " + first}, l.done, "agents have one of their own")

	l.done = nil
	l.rotate()
	require.Contains(t, hint(t, l.find().Push(ctx, tell)), "k3splan token adopt")
	require.Empty(t, l.done, "it is not the cluster's")
}

// restarter restarts nothing.
type restarter struct {
	refuses error
	done    func(string)
}

func (r restarter) Check(context.Context) error { return r.refuses }
func (r restarter) Servers(_ context.Context, done func(string)) error {
	done("olaf-s")
	return errors.New("ulf-s did not become ready")
}

func TestRotateToken(t *testing.T) {
	l := newLiving(t)
	l.put(first)
	l.onRotate = func() error { l.rotate(); return nil }
	request := TokenRequest{Plan: l.plan, Vault: l.vault, Servers: Servers(l.plan), Run: l.run}

	refused := restarter{refuses: diag.WithHint(errors.New("ulf-s is down"), "bring it back")}
	err := RotateToken(context.Background(), asktest.New(t), request, refused)
	require.EqualError(t, err, "the servers cannot be restarted now, so the token was not rotated: ulf-s is down")
	require.Equal(t, "bring it back", hint(t, err))
	require.Empty(t, l.done)

	err = RotateToken(context.Background(), asktest.New(t, asktest.No("the cluster's server token")), request, nil)
	require.ErrorIs(t, err, ask.ErrDeclined)
	require.Empty(t, l.done)

	user := asktest.New(t, asktest.Yes("the cluster's server token"))
	require.EqualError(t, RotateToken(context.Background(), user, request, restarter{}), "ulf-s did not become ready")
	require.True(t, user.Saw("olaf-s       restarted and ready"))
	require.Equal(t, next, l.file())
}
