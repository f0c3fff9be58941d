package etcd

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"

	"k3splan/internal/ask"
	"k3splan/internal/ask/asktest"
	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/secrets/secretstest"
)

func TestSave(t *testing.T) {
	secretstest.Home(t)
	r := newRig(t, "files")
	r.secret(poison)
	s := r.kept()
	require.Equal(t, filepath.Join(r.cluster.Dir, ".k3splan/snapshots/rack-20261201T120000Z.db"), s.File)
	content, err := os.ReadFile(s.File)
	require.NoError(t, err)
	require.Equal(t, database(5), content)
	d := s.Description
	require.Equal(t, hexSum(content), d.SHA256)
	require.Equal(t, int64(len(content)), d.Size)
	require.Equal(t, []string{"rack", "olaf-s", "v1.31.14+k3s1", "by hand"}, []string{d.Cluster, d.Server, d.K3s, d.Reason})
	require.Equal(t, TokenSame, s.TokenState(poison))
	require.Equal(t, TokenOther, s.TokenState(olderOne))
	require.Equal(t, TokenUnknown, s.TokenState(""))
	for _, name := range []string{s.File, s.File + ".json"} {
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Equal(t, files.Private, info.Mode().Perm(), name)
	}
	require.Equal(t, []string{"secrets/init-token"}, filesWith(t, poison, r.cluster.Dir), "the token is in no other file")
	entries, err := os.ReadDir(filepath.Join(r.dir, r.address("olaf"), r.state("olaf", "db/snapshots")))
	require.NoError(t, err)
	require.Empty(t, entries, "the server keeps nothing of it")

	list, err := List(r.cluster.Dir)
	require.NoError(t, err)
	require.Equal(t, []Snapshot{s}, list)
	_, err = r.cluster.Save(t.Context(), asktest.New(t), SaveRequest{To: s.File, Now: time.Now()})
	require.ErrorContains(t, err, "exists already")
}

// With age, nothing of a snapshot is readable without a key.
func TestSaveWithAge(t *testing.T) {
	secretstest.Home(t)
	r := newRig(t, "age")
	require.NoError(t, os.WriteFile(filepath.Join(r.cluster.Dir, "secrets/recipients"), []byte(secretstest.AgeKey(t)+"\n"), 0o600))
	r.secret(poison)
	s := r.kept()
	require.True(t, strings.HasSuffix(s.File, ".db.age"))
	require.True(t, s.Encrypted)
	require.Empty(t, filesWith(t, "etcd page", r.cluster.Dir))
	require.NotEmpty(t, filesWith(t, "etcd page", r.dir), "the search finds it where it is")
	sum, size, err := s.Verify(r.cluster.Vault)
	require.NoError(t, err)
	require.Equal(t, hexSum(database(5)), sum)
	require.Equal(t, int64(len(database(5))), size)

	content, err := os.ReadFile(s.File)
	require.NoError(t, err)
	content[len(content)/2] ^= 1
	require.NoError(t, os.WriteFile(s.File, content, 0o600))
	_, _, err = s.Verify(r.cluster.Vault)
	require.ErrorContains(t, err, "is damaged")
}

// What is not whole never gets the name of a snapshot, and its description goes as well.
func TestSaveOfADamagedSnapshot(t *testing.T) {
	secretstest.Home(t)
	r := newRig(t, "files")
	r.secret(poison)
	damaged := database(5)
	damaged[7] ^= 1
	r.file("snapshot", string(damaged))
	_, err := r.cluster.Save(t.Context(), asktest.New(t), SaveRequest{Now: time.Now()})
	require.ErrorContains(t, err, "is not a snapshot of etcd, or is damaged")
	require.Empty(t, filesWith(t, "", filepath.Join(r.cluster.Dir, ".k3splan/snapshots")))
}

// A host that sends without an end fills no disk, and nor does one that promises to.
func TestSaveOfAnEndlessSnapshot(t *testing.T) {
	secretstest.Home(t)
	r := newRig(t, "files")
	r.secret(poison)
	bin := t.TempDir()
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	program := func(name, script string) {
		real, err := exec.LookPath(name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\nexec "+real+" \"$@\"\n"), 0o755))
	}
	program("cat", "case $1 in */snapshots/*) exec yes ;; esac")
	_, err := r.cluster.Save(t.Context(), asktest.New(t), SaveRequest{Now: time.Now()})
	require.ErrorContains(t, err, "olaf: it sends more than the 20512 bytes that it has named")
	program("stat", "case $3 in */snapshots/*) echo 99999999999999; exit ;; esac")
	_, err = r.cluster.Save(t.Context(), asktest.New(t), SaveRequest{Now: time.Now()})
	require.ErrorContains(t, err, "it has 93132 GB, and etcd at most 64")
	require.Empty(t, filesWith(t, "", filepath.Join(r.cluster.Dir, ".k3splan/snapshots")))
}

func TestSaveNeedsAHealthyServer(t *testing.T) {
	secretstest.Home(t)
	r := newRig(t, "files")
	r.secret(poison)
	r.lose()
	_, err := r.cluster.Save(t.Context(), asktest.New(t), SaveRequest{Now: time.Now()})
	require.ErrorIs(t, err, ErrNoServer)
	require.ErrorContains(t, err, "olaf-s: /readyz: etcd failed")
}

// A save that is interrupted at any step leaves no half snapshot, and the next one works.
func TestSaveInterrupted(t *testing.T) {
	secretstest.Home(t)
	for n := 1; ; n++ {
		r := newRig(t, "files")
		r.secret(poison)
		r.failAt(n)
		_, err := r.cluster.Save(t.Context(), asktest.New(t), SaveRequest{Now: time.Unix(1, 0)})
		crashed := r.steps() >= n
		r.failAt(0)
		list, listErr := List(r.cluster.Dir)
		require.NoError(t, listErr)
		if err != nil {
			require.Empty(t, list, "at step %d", n)
			_, err = r.cluster.Save(t.Context(), asktest.New(t), SaveRequest{Now: time.Unix(1, 0)})
			require.NoError(t, err, "after a failure at step %d", n)
		}
		if !crashed {
			require.Greater(t, n, 15, "the failures came")
			return
		}
	}
}

func TestRestore(t *testing.T) {
	secretstest.Home(t)
	r := newRig(t, "files")
	r.secret(poison)
	s := r.kept()
	r.lose()
	user := asktest.New(t, asktest.Answer{Question: "restore the cluster?", Text: "rack"})
	require.NoError(t, r.restore(user, s, false))
	r.restoredTo(s)
	require.True(t, user.Saw("olaf-s gets the snapshot, and rolf-s and ulf-s join again"))
	require.True(t, user.Saw("made at 2026-12-01"))
	require.False(t, user.Saw(poison))
	for _, host := range []string{"rolf", "ulf"} {
		aside, err := filepath.Glob(filepath.Join(r.dir, r.address(host), r.container(host, "var/lib/rancher/k3s/before-restore-*/db.*/etcd/data")))
		require.NoError(t, err)
		require.Len(t, aside, 1, "what %s had is put aside", host)
	}
}

func TestRestoreIsRefused(t *testing.T) {
	secretstest.Home(t)
	r := newRig(t, "files")
	r.secret(poison)
	s := r.kept()
	before := r.steps()
	refused := func(text string) {
		t.Helper()
		err := r.restore(asktest.New(t), s, false)
		require.ErrorContains(t, err, text)
		require.NotEmpty(t, diag.HintOf(err))
		for _, host := range servers {
			require.False(t, r.exists(host, "var/lib/k3splan/restore"), "nothing was changed")
		}
	}
	refused("the cluster is healthy")
	require.Greater(t, r.steps(), before)
	r.lose()
	r.away("rolf", true)
	r.away("ulf", true)
	refused("rolf and ulf: no answer, and together they could still run the cluster")
	r.away("rolf", false)
	r.away("ulf", false)
	r.away("olaf", true)
	refused("the init server's host olaf does not answer")
	r.away("olaf", false)
	r.write("olaf", "join", "")
	refused("the server on olaf is the init server in the plan, and was not deployed as such")
	require.NoError(t, os.Remove(filepath.Join(r.dir, r.address("olaf"), "join")))
	require.NoError(t, os.Remove(filepath.Join(r.dir, r.address("rolf"), "join")))
	r.write("ulf", "join", " --server https://10.0.1.9:6443 \\\n")
	refused("the server on rolf was deployed as the init server")
	refused("the server on ulf was deployed to join https://10.0.1.9:6443, and not the init server olaf-s (10.0.1.2)")
	r.write("rolf", "join", "")
	r.write("ulf", "join", " --server https://10.0.1.2:6443 \\\n") // as older k3splan did it

	require.NoError(t, r.cluster.Vault.Replace("init-token", []byte(olderOne+"\n")))
	refused("another server token")
	_, err := r.cluster.Vault.Retire("init-token", time.Now())
	require.NoError(t, err)

	content, err := os.ReadFile(s.File)
	require.NoError(t, err)
	content[99] ^= 1
	require.NoError(t, os.WriteFile(s.File, content, 0o600))
	refused("is not a snapshot of etcd, or is damaged")
	require.NoError(t, os.WriteFile(s.File, database(6), 0o600))
	refused("its checksum is another one")
	require.NoError(t, os.WriteFile(s.File, database(5), 0o600))

	require.NoError(t, r.cluster.Vault.Replace("init-token", []byte(poison+"\n")))
	require.ErrorIs(t, r.restore(asktest.New(t, asktest.Answer{Question: "restore", Text: "rick"}), s, false), ask.ErrDeclined)
	require.False(t, r.exists("olaf", "var/lib/k3splan/restore"))
}

// A healthy cluster is restored if that is forced.
func TestRestoreForced(t *testing.T) {
	secretstest.Home(t)
	r := newRig(t, "files")
	r.secret(poison)
	s := r.kept()
	require.NoError(t, r.restore(ask.Confirmed(asktest.New(t)), s, true))
	r.restoredTo(s)
}

// The token of the snapshot comes to the hosts, wherever they have another one, and the hint says where it is
// kept. No token is in an error.
func TestRestoreWithAnOlderToken(t *testing.T) {
	secretstest.Home(t)
	r := newRig(t, "files")
	r.secret(olderOne)
	r.file("token-of-snapshot", olderOne)
	r.file("token-of-cluster", olderOne)
	for _, host := range servers {
		r.write(host, "var/lib/k3splan/server/token", olderOne+"\n")
	}
	s := r.kept()
	_, err := r.cluster.Vault.Retire("init-token", time.Unix(1, 0))
	require.NoError(t, err)
	require.NoError(t, r.cluster.Vault.Replace("init-token", []byte(poison+"\n")))
	for _, host := range servers {
		r.write(host, "var/lib/k3splan/server/token", poison+"\n")
	}
	r.lose()
	err = r.restore(asktest.New(t), s, false)
	require.ErrorContains(t, err, "another server token")
	require.Contains(t, diag.HintOf(err), "it is in secrets/retired/init-token-19700101T000001.000Z")

	err = r.restore(ask.Confirmed(asktest.New(t)), s, true)
	require.ErrorContains(t, err, "encrypted with different token [token]")
	require.NotContains(t, err.Error(), poison)
	require.Contains(t, diag.HintOf(err), "the same command continues")

	require.NoError(t, r.cluster.Vault.Replace("init-token", []byte(olderOne+"\n")))
	require.NoError(t, r.restore(ask.Confirmed(asktest.New(t)), s, false))
	r.restoredTo(s)
	require.Equal(t, olderOne, r.read("ulf", "var/lib/k3splan/server/token"))
}

// A restore that crashes at any step, on any machine, is completed by the same call; at no time does an empty
// init server start.
func TestRestoreInterrupted(t *testing.T) {
	secretstest.Home(t)
	crashes := 0
	stride := 11 // each restore takes a second
	if os.Getenv("K3SPLAN_ALL_STEPS") != "" {
		stride = 1
	}
	for n := 1; ; n += stride {
		r := newRig(t, "files")
		r.secret(poison)
		s := r.kept()
		r.lose()
		before := r.steps()
		r.failAt(n)
		err := r.restore(ask.Confirmed(asktest.New(t)), s, false)
		crashed := r.steps() >= before+n
		r.failAt(0)
		if err != nil {
			crashes++
		}
		for tries := 0; err != nil; tries++ {
			require.Less(t, tries, 2, "after a crash at step %d: %v", n, err)
			// whatever runs on a machine after it has lost its power, k3s starts if nothing holds it
			for _, host := range servers {
				if r.read(host, "k3s") != "active" {
					r.boot(host)
				}
			}
			require.NoFileExists(t, filepath.Join(r.dir, "founded"), "at step %d", n)
			for _, host := range []string{"rolf", "ulf"} {
				if r.read(host, r.state(host, "db/etcd/id")) == "c0" { // it was not stopped, and does not heal by itself
					r.write(host, "k3s", "failed\n")
				}
			}
			err = r.restore(ask.Confirmed(asktest.New(t)), s, false)
			if err != nil && strings.Contains(err.Error(), "the cluster is healthy") {
				err = nil // it was complete: restoredTo checks that
			}
		}
		r.restoredTo(s)
		if !crashed {
			require.Greater(t, crashes, 40/stride)
			return
		}
	}
}

// A server that was away joins again by the same call, and one more call is a new restore, which is refused.
// What a machine does goes on after k3splan was killed. The next run waits for it, and does not overwrite the snapshot
// that k3s reads.
func TestRestoreWaitsForAnEarlierStep(t *testing.T) {
	secretstest.Home(t)
	r := newRig(t, "files")
	r.secret(poison)
	s := r.kept()
	r.lose()
	earlier := flock.New(filepath.Join(r.dir, r.address("olaf"), "var/lib/k3splan/restore.lock"))
	require.NoError(t, earlier.Lock())
	ended := make(chan error, 1)
	go func() { ended <- r.restore(ask.Confirmed(asktest.New(t)), s, false) }()
	require.Eventually(t, func() bool { return r.exists("ulf", "var/lib/k3splan/restore") }, time.Minute, 5*time.Millisecond)
	require.Never(t, func() bool { return r.read("olaf", "k3s") != "active" }, 10*time.Second, 20*time.Millisecond, "it did not wait")
	require.NoError(t, earlier.Unlock())
	require.NoError(t, <-ended)
	r.restoredTo(s)
}

func TestRestoreWithoutOneServer(t *testing.T) {
	secretstest.Home(t)
	r := newRig(t, "files")
	r.secret(poison)
	s := r.kept()
	r.lose()
	r.away("ulf", true)
	err := r.restore(ask.Confirmed(asktest.New(t)), s, false)
	require.ErrorContains(t, err, "ulf did not answer and must join again")
	r.away("ulf", false)
	r.boot("ulf")
	require.Equal(t, "c0", r.read("ulf", r.state("ulf", "db/etcd/id")), "it still belongs to the old cluster")
	first := r.read("olaf", r.state("olaf", "db/etcd/id"))
	require.NoError(t, r.restore(ask.Confirmed(asktest.New(t)), s, false))
	r.restoredTo(s)
	require.Equal(t, first, r.read("olaf", r.state("olaf", "db/etcd/id")), "the init server was not restored twice")
	require.ErrorContains(t, r.restore(asktest.New(t), s, false), "the cluster is healthy")
}

// The init server is started only with a state.
func TestStartScriptRefusesAnEmptyInitServer(t *testing.T) {
	secretstest.Home(t)
	r := newRig(t, "files")
	require.NoError(t, os.RemoveAll(filepath.Join(r.dir, r.address("olaf"), r.state("olaf", "db"))))
	_, err := r.cluster.Machine(r.cluster.Plan.Host("olaf")).Script(context.Background(), startScript, "olaf-s", "a b started", "init")
	require.ErrorContains(t, err, "it would found another cluster")
	require.NoFileExists(t, filepath.Join(r.dir, "founded"))
}
