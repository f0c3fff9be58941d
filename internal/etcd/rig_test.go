package etcd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/ask"
	"k3splan/internal/ask/asktest"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/secrets"
)

// rig is a rack of folders: the scripts that k3splan sends run for real, and testdata/bin plays ssh, systemd,
// and a k3s whose clusters are files.
type rig struct {
	t       *testing.T
	dir     string
	cluster *Cluster
}

const (
	poison   = "poison-7f3a91-token"
	olderOne = "older-5b2c44-token"
)

// servers are the hosts of a rig, the init server first.
var servers = []string{"olaf", "rolf", "ulf"}

func newRig(t *testing.T, store string) *rig {
	t.Helper()
	bin, err := filepath.Abs("testdata/bin")
	require.NoError(t, err)
	r := &rig{t: t, dir: t.TempDir()}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("RIG", r.dir)
	require.NoError(t, os.Mkdir(filepath.Join(r.dir, "tmp"), 0o700))
	require.NoError(t, os.Mkdir(filepath.Join(r.dir, "clusters"), 0o700))
	project := t.TempDir()
	secret := "secrets: " + store + "\n"
	for name, text := range map[string]string{
		"plans/hosts.csv":    "name,interface,ip,admin\nolaf,eno1,10.0.0.2,someone\nrolf,eno1,10.0.0.3,someone\nulf,eno1,10.0.0.4,someone\nkarl,eno1,10.0.0.5,someone\n",
		"plans/k3s.csv":      "host,name,type,ip\nolaf,olaf-s,init,10.0.1.2\nrolf,rolf-s,server,10.0.1.3\nulf,ulf-s,server,10.0.1.4\nkarl,karl-a,agent,10.0.1.5\n",
		"plans/network.yaml": "netmask: 16\ngateway: 10.0.200.1\nversions: {nixos: nixos-24.11, k3s: 1.31}\n" + secret,
	} {
		file := filepath.Join(project, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
	require.NoError(t, os.Mkdir(filepath.Join(project, "secrets"), 0o700))
	p, problems := plan.Load(os.DirFS(project))
	require.Zero(t, problems.Errors(), "%v", problems)
	vault, err := secrets.OpenVault(project, p.Network.Secrets, nil)
	require.NoError(t, err)
	r.cluster = &Cluster{Dir: project, Name: "rack", Plan: p, Vault: vault, Machine: (&remote.Config{File: "none"}).Machines("root")}
	for _, host := range []string{"olaf", "rolf", "ulf", "karl"} {
		r.write(host, "facts", "system /nix/store/x\nprofile /nix/store/x\nbooted /nix/store/x\n")
	}
	for _, host := range servers {
		r.write(host, "k3s", "active\n")
		r.write(host, "var/lib/k3splan/server/token", poison+"\n")
		r.write(host, r.state(host, "db/etcd/member/wal/x"), "")
		r.write(host, r.state(host, "db/etcd/id"), "c0\n")
		r.write(host, r.state(host, "db/etcd/data"), "newer data\n")
		r.write(host, r.state(host, "tls/ca"), "ca")
		r.write(host, r.state(host, "cred/passwd"), "passwd")
		r.write(host, "facts", "system /nix/store/x\nprofile /nix/store/x\nbooted /nix/store/x\netcd "+host+"-s\n")
		if host != "olaf" {
			r.write(host, "join", "")
		}
	}
	r.file("clusters/c0", "olaf-s\nrolf-s\nulf-s\n")
	r.file("init", r.address("olaf"))
	r.file("token-of-snapshot", poison+"\n")
	r.file("token-of-cluster", poison)
	r.file("snapshot", string(database(5)))
	return r
}

// secret stores the server token of the project.
func (r *rig) secret(token string) {
	r.t.Helper()
	require.NoError(r.t, r.cluster.Vault.Create("init-token", []byte(token+"\n")))
}

// database returns what etcd would write as a snapshot: pages, and their checksum.
func database(pages int) []byte {
	content := bytes.Repeat([]byte("etcd page "), pages*4096)[:pages*4096]
	sum := sha256.Sum256(content)
	return append(content, sum[:]...)
}

func (r *rig) file(name, text string) {
	r.t.Helper()
	file := filepath.Join(r.dir, name)
	require.NoError(r.t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(r.t, os.WriteFile(file, []byte(text), 0o600))
}

func (r *rig) address(host string) string {
	return map[string]string{"olaf": "10.0.0.2", "rolf": "10.0.0.3", "ulf": "10.0.0.4", "karl": "10.0.0.5"}[host]
}

func (r *rig) write(host, name, text string) { r.file(r.address(host)+"/"+name, text) }

func (r *rig) read(host, name string) string {
	content, _ := os.ReadFile(filepath.Join(r.dir, r.address(host), name))
	return strings.TrimSpace(string(content))
}

func (r *rig) exists(host, name string) bool {
	_, err := os.Lstat(filepath.Join(r.dir, r.address(host), name))
	return err == nil
}

func (r *rig) container(host, name string) string {
	return "var/lib/nixos-containers/" + host + "-s/" + name
}

// state is a path below k3s's folder for servers.
func (r *rig) state(host, name string) string {
	return r.container(host, "var/lib/rancher/k3s/server/"+name)
}

// lose lets the cluster lose its quorum: k3s has ended on two servers.
func (r *rig) lose() {
	r.write("rolf", "k3s", "failed\n")
	r.write("ulf", "k3s", "failed\n")
}

func (r *rig) away(host string, away bool) {
	file := filepath.Join(r.dir, r.address(host), "away")
	if away {
		require.NoError(r.t, os.WriteFile(file, nil, 0o600))
		return
	}
	require.NoError(r.t, os.Remove(file))
}

// kept saves a snapshot of the cluster as it is, in the project.
func (r *rig) kept() Snapshot {
	r.t.Helper()
	s, err := r.cluster.Save(context.Background(), asktest.New(r.t), SaveRequest{Reason: "by hand", Now: time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)})
	require.NoError(r.t, err)
	return s
}

func (r *rig) restore(user ask.User, s Snapshot, force bool) error {
	return r.cluster.Restore(context.Background(), user, RestoreRequest{
		File: s.File, Force: force, GateTimeout: 20 * time.Second, GatePause: 10 * time.Millisecond, Now: time.Date(2026, 12, 2, 12, 0, r.steps(), 0, time.UTC),
	})
}

func (r *rig) steps() int {
	content, _ := os.ReadFile(filepath.Join(r.dir, "steps"))
	return bytes.Count(content, []byte("\n"))
}

// failAt lets the step crash that comes n steps from now; 0 lets none.
func (r *rig) failAt(n int) {
	if n == 0 {
		_ = os.Remove(filepath.Join(r.dir, "fail"))
		return
	}
	r.file("fail", strconv.Itoa(r.steps()+n))
}

// restoredTo checks that all servers are healthy members of one cluster, with the data of a snapshot, and
// that nothing is left over.
func (r *rig) restoredTo(s Snapshot) {
	r.t.Helper()
	id := r.read("olaf", r.state("olaf", "db/etcd/id"))
	require.True(r.t, strings.HasPrefix(id, "reset-"), id)
	members, err := os.ReadFile(filepath.Join(r.dir, "clusters", id))
	require.NoError(r.t, err)
	require.ElementsMatch(r.t, []string{"olaf-s", "rolf-s", "ulf-s"}, strings.Fields(string(members)))
	for _, host := range servers {
		require.Equal(r.t, "active", r.read(host, "k3s"), host)
		require.Equal(r.t, id, r.read(host, r.state(host, "db/etcd/id")), host)
		require.Equal(r.t, s.Description.SHA256, r.read(host, r.state(host, "db/etcd/data")), host)
		require.False(r.t, r.exists(host, r.container(host, "etc/systemd/system.control/k3s.service.d")), "nothing keeps k3s of %s from starting", host)
		require.False(r.t, r.exists(host, r.container(host, "var/lib/rancher/k3s/k3splan-restore")), "no snapshot in plain text is left on %s", host)
	}
	require.NoFileExists(r.t, filepath.Join(r.dir, "founded"), "no second cluster was ever founded")
	forgotten, err := os.ReadFile(filepath.Join(r.dir, "forgotten"))
	require.NoError(r.t, err)
	require.Contains(r.t, string(forgotten), "karl-a.node-password.k3s", "its machine may have been replaced since")
	require.True(r.t, strings.HasSuffix(r.read("olaf", "var/lib/k3splan/restore"), " finished"))
}

// filesWith returns all files below folders that contain a text.
func filesWith(t *testing.T, text string, folders ...string) (found []string) {
	t.Helper()
	for _, folder := range folders {
		require.NoError(t, filepath.WalkDir(folder, func(name string, entry os.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			content, err := os.ReadFile(name)
			if err == nil && bytes.Contains(content, []byte(text)) {
				relative, _ := filepath.Rel(folder, name)
				found = append(found, relative)
			}
			return err
		}))
	}
	slices.Sort(found)
	return found
}

func hexSum(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// boot lets a host start its container, and k3s in it.
func (r *rig) boot(host string) {
	r.t.Helper()
	_, err := r.cluster.Machine(r.cluster.Plan.Host(host)).Script(context.Background(), `nixos-container run "$1" -- systemctl start k3s.service`, host+"-s")
	require.NoError(r.t, err)
}

func hexOf(content []byte) string { return hex.EncodeToString(content) }
