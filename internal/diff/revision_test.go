package diff

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/plan"
)

// repository is a git repository with the tables in a project that has a blank in its path.
type repository struct {
	t            *testing.T
	dir, project string
}

func newRepository(t *testing.T) repository {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("SKIP: git is not on PATH (Debian: git)")
	}
	dir := t.TempDir()
	r := repository{t, dir, filepath.Join(dir, "my racks", "one")}
	require.NoError(t, os.MkdirAll(filepath.Join(r.project, "plans"), 0o755))
	r.git("init", "--quiet", "--initial-branch=trunk")
	return r
}

func (r repository) git(args ...string) {
	r.t.Helper()
	command := exec.Command("git", append([]string{"-C", r.dir, "-c", "user.name=Test", "-c", "user.email=test@example.org"}, args...)...)
	output, err := command.CombinedOutput()
	require.NoError(r.t, err, "%s", output)
}

func (r repository) write(ts tables) {
	r.t.Helper()
	for file, name := range map[string]string{"hosts": "hosts.csv", "k3s": "k3s.csv", "network": "network.yaml"} {
		require.NoError(r.t, os.WriteFile(filepath.Join(r.project, "plans", name), []byte(ts[file]), 0o644))
	}
}

func TestRevision(t *testing.T) {
	r := newRepository(t)
	ctx := context.Background()
	_, err := Revision(ctx, r.project, "HEAD")
	require.EqualError(t, err, "the git repository has no commit yet")

	r.git("commit", "--quiet", "--allow-empty", "-m", "nothing yet")
	_, err = Revision(ctx, r.project, "HEAD")
	require.EqualError(t, err, "revision HEAD has no plans/ of this project")

	rack := example(t, "rack")
	r.write(rack)
	r.git("add", ".")
	r.git("commit", "--quiet", "-m", "the rack")
	r.git("tag", "v1")
	r.write(rack.edited(t, "hosts", "10.0.100.5", "10.0.100.35"))
	r.git("commit", "--quiet", "-am", "karl moves")
	r.write(rack.edited(t, "hosts", "10.0.100.5", "10.0.100.45"))

	working, problems := plan.Load(os.DirFS(r.project))
	require.Empty(t, problems)
	for rev, was := range map[string]string{"HEAD": "10.0.100.35", "v1": "10.0.100.5", "trunk~1": "10.0.100.5"} {
		fsys, err := Revision(ctx, r.project, rev)
		require.NoError(t, err, rev)
		older, problems := plan.Load(fsys)
		require.Empty(t, problems, rev)
		changes := Compare(older, working)
		require.Len(t, changes, 1, rev)
		require.Equal(t, "host karl: ip "+was+" → 10.0.100.45 (may cut the connection)", changes[0].Sentence)
	}

	for _, rev := range []string{"nosuch", "--help", "-p", "HEAD:plans", ""} {
		_, err = Revision(ctx, r.project, rev)
		require.ErrorIs(t, err, ErrNoRevision, rev)
	}
	_, err = Revision(ctx, t.TempDir(), "HEAD")
	require.ErrorContains(t, err, "the project is not in a git repository")
}

func TestMarkdown(t *testing.T) {
	rack := example(t, "rack")
	now := rack.edited(t, "k3s", "ulf,ulf-k3s-server,server,10.0.100.13,,\n", "", "hosts", "storage,4", "storage,<b>|_x_ @all", "hosts", "10.0.100.6", "10.0.100.36")
	require.Equal(t, `### 3 changes of the plan

| Risk | Change | Hosts |
|---|---|---|
| **refuse** | server ulf-k3s-server removed: 2 of 2 left, no loss tolerated any more | ulf |
| **ask** | host ulrich: ip 10.0.100.6 → 10.0.100.36 (may cut the connection) | ulrich |
| none | host karl: slot 4 → \<b\>\|\_x\_ \@all | karl |

Also needed:

- ulf-k3s-server: on olaf: nixos-container run olaf-k3s-server -- etcdctl member list\
  on olaf: nixos-container run olaf-k3s-server -- etcdctl member remove ID of ulf-k3s-server\
  on ulf: nixos-container stop ulf-k3s-server; rm -r /var/lib/nixos-containers/ulf-k3s-server/var/lib/rancher/k3s/server/{db,tls,cred}\
  k3splan deploy
- ulrich: have a console at hand; with 10.0.100.36\@10.0.100.6 as its ip k3splan still reaches the host at the old address
`, Compare(rack.plan(t), now.plan(t)).Markdown())
	labels := rack.edited(t, "k3s", "disk=large", "disk=small")
	require.Contains(t, Compare(rack.plan(t), labels.plan(t)).Markdown(), "label disk=large → disk=small")
	require.Equal(t, "### The plan has not changed\n", Changes{}.Markdown())
}
