package main

import (
	"crypto/x509"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"k3splan/internal/k3s/k3stest"
	"k3splan/internal/secrets/secretstest"
)

// A world is a folder with a project (rack), the machines that it is for (machines), and a store of pass
// (store). Where there are machines, they are those of deploy.txtar.
func (k *killer) world(name string) string { return filepath.Join(k.home, "worlds", name) }

func (k *killer) commands() []killCommand {
	const (
		password  = "a long enough password\n"
		sameToken = `test "$(sed 's/.*:://; s/server://' "$RACK/token")" = "$(k3splan secrets show init-token | sed 's/.*:://; s/server://')"`
		rotated   = sameToken + `; test -e "$RACK/tokens/10.0.100.4" || cmp -s "$RACK/token" "$RACK/first"; for kept in $(k3splan secrets list | cut -d ' ' -f 1 | grep token); do k3splan secrets show "$kept"; done | grep -qFf "$RACK/old"`
		deployed  = `k3splan deploy --dry-run | grep -q 'nothing is to be deployed'`
	)
	all := []killCommand{
		{world: "", args: []string{"setup", "."}},
		{world: "", args: []string{"setup", ".", "--workbook"}},
		{world: "half", args: []string{"setup", "."}},
		{world: "plain", args: []string{"secrets", "move", "--to", "age"}},
		{world: "workbook", args: []string{"secrets", "move", "--to", "age"}},
		{world: "age", args: []string{"secrets", "rekey"}},
		{world: "age", args: []string{"secrets", "move", "--to", "files"}},
		{world: "plain", args: []string{"passwd", "--all", "--stdin"}, stdin: password},
		{world: "age", args: []string{"passwd", "ulf", "--stdin"}, stdin: password},
		{world: "keyless", args: []string{"known-hosts", "make"}},
		{world: "plain", args: []string{"known-hosts", "make", "--renew", "olaf", "ulf"}},
		{world: "plain", args: []string{"add", "host", "zora", "--interface", "eno1", "--admin", "zora"}},
		{world: "workbook", args: []string{"add", "host", "zora", "--interface", "eno1", "--admin", "zora"}},
		{world: "plain", args: []string{"add", "server", "karl"}},
		{world: "plain", args: []string{"add", "agent", "rolf"}},
		{world: "plain", args: []string{"rename", "ulf", "zora"}},
		{world: "plain", args: []string{"remove", "host", "karl", "--yes"}},
		{world: "plain", args: []string{"remove", "server", "rolf", "--yes"}},
		{world: "plain", args: []string{"remove", "agent", "karl", "--yes"}},
		{world: "plain", args: []string{"convert", "xlsx"}},
		{world: "workbook", args: []string{"convert", "csv"}},
		{world: "plain", args: []string{"render"}, files: []string{"generated/hive.nix", "generated/cluster.json"}},
		{world: "age", args: []string{"secrets", "edit", "ulfpasswd"}},
		{world: "plain", args: []string{"man", "../man1"}, files: []string{"../man1/k3splan.1", "../man1/k3splan-validate.1"}},

		{world: "racked", args: []string{"update"}, files: []string{"plans/lock.json"}},
		{world: "racked", args: []string{"build"}, files: []string{"generated/hive.nix"}},
		{world: "racked", args: []string{"deploy", "--yes", "--gate-pause", "1ms"}, done: deployed},
		{world: "racked", args: []string{"deploy", "--yes", "--keep", "--gate-pause", "1ms"}, done: deployed},
		{world: "racked", args: []string{"boot-stick", "olaf", "--output", "../olaf.iso"}, files: []string{"../olaf.iso"}},
		{world: "racked", args: []string{"hardware", "olaf", "ulf", "--yes"}, files: []string{"hardware/olaf.nix", "hardware/ulf.nix"}},
		{world: "racked", args: []string{"known-hosts", "scan", "ulrich", "--yes"}, files: []string{"plans/known_hosts"}},
		{world: "changed", args: []string{"deploy", "--yes", "--gate-pause", "1ms"}, done: deployed},
		{world: "deployed", args: []string{"status"}},
		{world: "deployed", args: []string{"check"}},
		{world: "racked", args: []string{"machines"}},
		{world: "racked", args: []string{"sequence"}},
		{world: "deployed", args: []string{"reboot", "--needed", "--yes", "--gate-pause", "1ms"}},
		{world: "deployed", args: []string{"decommission", "ulrich", "--yes"}, done: `! grep -hq ^ulrich plans/hosts.csv plans/known_hosts`},
		{world: "racked", args: []string{"replace", "ulrich", "--serial", "new-disk", "--new-key", "--yes"}, done: `grep -q '^ulrich.*,new-disk$' plans/hosts.csv`},
		{world: "racked", args: []string{"ssh", "olaf", "true"}},
		{world: "racked", args: []string{"ssh-config"}},
		{world: "racked", args: []string{"kubeconfig", "--address", k.api}, files: []string{".k3splan/kubeconfig"}},
		{world: "racked", args: []string{"kubeconfig", "--address", k.api, "--merge", "-o", "../kubeconfig"}, files: []string{"../kubeconfig"}},
		{world: "racked", args: []string{"token", "rotate", "--yes"}, done: rotated, tokens: true},
		{world: "racked", args: []string{"token", "push"}, done: `cmp "$RACK/tokens/10.0.100.3" secrets/init-token; cmp "$RACK/tokens/10.0.100.4" secrets/init-token`},
		{world: "foreign", args: []string{"token", "adopt", "--yes"}, done: sameToken + `; grep -rqFf "$RACK/old" secrets`, tokens: true},
		{world: "twice", args: []string{"generations", "ulrich"}},
		{world: "twice", args: []string{"rollback", "ulf", "ulrich", "--to", "1", "--yes", "--gate-pause", "1ms"},
			done: `k3splan rollback --dry-run ulf ulrich --to 1 | grep -q 'nothing is to be rolled back'`},
		{world: "twice", args: []string{"rehearse", "--from", "HEAD"}},
		{world: "older", args: []string{"upgrade", "--yes", "--no-snapshot", "--gate-pause", "1ms"}, done: `k3splan upgrade --dry-run > ../way; ! grep ^open ../way`},
		{world: "healthy", args: []string{"etcd", "snapshot"},
			done: `for file in .k3splan/snapshots/*.db; do cmp "$file" "$RACK/snapshot"; done; k3splan etcd list --json > ../list; ! grep '"problem": "[^"]' ../list`},
		{world: "broken", args: []string{"etcd", "restore", "../backup.db", "--yes", "--gate-pause", "1ms"},
			done: `grep finished "$RACK/10.0.100.2/var/lib/k3splan/restore"; test $(cat "$RACK"/clusters/reset-* | sort -u | wc -l) = 3`},
		{world: "renewed", args: []string{"known-hosts", "forget", "ulrich", "$OLDKEY"}, files: []string{"plans/known_hosts"}},
	}
	if k.hasPass {
		all = append(all,
			killCommand{world: "plain", args: []string{"secrets", "move", "--to", "pass", "--prefix", "k3splan/rack"}},
			killCommand{world: "pass", args: []string{"secrets", "move", "--to", "files"}},
			killCommand{world: "pass", args: []string{"passwd", "ulf", "--stdin"}, stdin: password},
			killCommand{world: "pass", args: []string{"secrets", "edit", "ulfpasswd"}},
			killCommand{world: "pass", args: []string{"rename", "ulf", "zora"}},
			killCommand{world: "pass", args: []string{"known-hosts", "make", "--renew", "olaf"}},
			killCommand{world: "pass-racked", args: []string{"token", "rotate", "--yes"}, done: rotated, tokens: true},
		)
	}
	for i, c := range all {
		for j, word := range c.args {
			if word == "$OLDKEY" {
				all[i].args[j] = k.oldKey
			}
		}
	}
	return all
}

// prepare makes the worlds that the commands get copies of.
func (k *killer) prepare() {
	write := func(name, content string, mode os.FileMode) {
		require.NoError(k.t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(k.t, os.WriteFile(name, []byte(content), mode))
	}
	rack := func(world string) string { return filepath.Join(k.world(world), "rack") }
	copied := func(from, to string) { k.must(exec.Command("cp", "-a", k.world(from), k.world(to))) }
	do := func(world string, args ...string) { k.must(k.k3splan(k.world(world), args...)) }

	k.fakes(write)
	write(filepath.Join(k.home, "editor"), "#!/bin/sh\nsed -i s/k3splantest/k3splankills/ \"$1\"\n", 0o755)
	ours := map[string]string{"all.pub": testKey, "passwd": testHash, "ulfpasswd": testHash, "recipients": secretstest.AgeKey(k.t) + "\n"}
	for _, world := range []string{"keyless", "racked"} {
		require.NoError(k.t, os.MkdirAll(filepath.Join(k.world(world), "machines"), 0o755))
		require.NoError(k.t, os.MkdirAll(rack(world), 0o755))
		if world == "keyless" {
			require.NoError(k.t, os.CopyFS(rack(world), os.DirFS("../../examples/rack")))
		}
		do(world, "setup", ".")
		for name, content := range ours {
			write(filepath.Join(rack(world), "secrets", name), content, 0o600)
		}
	}
	copied("keyless", "plain")
	require.NoError(k.t, os.RemoveAll(filepath.Join(rack("keyless"), "secrets", "hosts")))
	require.NoError(k.t, os.RemoveAll(filepath.Join(rack("keyless"), "plans", "known_hosts")))
	do("plain", "known-hosts", "make")
	copied("plain", "age")
	do("age", "secrets", "move", "--to", "age")
	copied("plain", "workbook")
	do("workbook", "convert", "xlsx")
	// tables of the user's own, and nothing else yet
	require.NoError(k.t, os.MkdirAll(filepath.Join(k.world("half"), "machines"), 0o755))
	require.NoError(k.t, os.MkdirAll(rack("half"), 0o755))
	require.NoError(k.t, os.CopyFS(filepath.Join(rack("half"), "plans"), os.DirFS("../../examples/rack/plans")))
	k.prepareRacked(write, copied, do)
	k.prepareEtcd(write, copied, do)
	k.preparePass(copied, do)

	if os.Geteuid() != 0 {
		k.t.Log("SKIP: only root can make a file system that gets full")
		return
	}
	full := filepath.Join(k.home, "full")
	require.NoError(k.t, os.Mkdir(full, 0o755))
	if err := unix.Mount("tmpfs", full, "tmpfs", 0, "size=4m"); err != nil {
		k.t.Logf("SKIP: a file system that gets full: %v", err)
		return
	}
	k.t.Cleanup(func() { require.NoError(k.t, unix.Unmount(full, unix.MNT_DETACH)) })
	k.full = full
}

// fakes puts programs on PATH that would reach out or build.
func (k *killer) fakes(write func(name, content string, mode os.FileMode)) {
	bin := filepath.Join(k.home, "bin")
	require.NoError(k.t, os.CopyFS(bin, os.DirFS("testdata/kills")))
	programs, err := os.ReadDir(bin)
	require.NoError(k.t, err)
	for _, program := range programs {
		require.NoError(k.t, os.Chmod(filepath.Join(bin, program.Name()), 0o755))
	}
	require.NoError(k.t, os.CopyFS(filepath.Join(bin, "etcd"), os.DirFS("../../internal/etcd/testdata/bin")))
	k.must(exec.Command("chmod", "-R", "755", filepath.Join(bin, "etcd")))
	for name, content := range k.archive("deploy") {
		switch name {
		case "bin/ssh":
			write(filepath.Join(bin, "rack-ssh"), content, 0o755)
		case "bin/colmena":
			write(filepath.Join(bin, "colmena"), content, 0o755)
		}
	}
	k.t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
}

// archive returns the files of a script.
func (k *killer) archive(script string) map[string]string {
	archive, err := txtar.ParseFile("testdata/" + script + ".txtar")
	require.NoError(k.t, err)
	files := map[string]string{}
	for _, file := range archive.Files {
		files[file.Name] = string(file.Data)
	}
	return files
}

func (k *killer) prepareRacked(write func(name, content string, mode os.FileMode), copied func(from, to string), do func(world string, args ...string)) {
	dir := k.world("racked")
	files := k.archive("deploy")
	for _, name := range []string{"hosts.csv", "k3s.csv", "lock.json"} {
		write(filepath.Join(dir, "rack", "plans", name), files[name], 0o644)
	}
	do("racked", "known-hosts", "make")
	token, err := k.k3splan(dir, "secrets", "show", "init-token").Output()
	require.NoError(k.t, err)
	full := "K10" + strings.Repeat("0", 64) + "::server:" + string(token)
	authority := k3stest.NewAuthority()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(k.t, err)
	k.api = listener.Addr().String()
	server := &http.Server{Handler: http.HandlerFunc(k3stest.Answer), TLSConfig: authority.TLS(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})}
	go server.ServeTLS(listener, "", "")
	k.t.Cleanup(func() { _ = server.Close() })
	for name, content := range map[string]string{
		"token": full, "first": full, "old": string(token), "key.pub": testKey, "k3s.yaml": authority.K3sYAML("6443"),
		"hardware.nix": "# made by nixos-generate-config\n{ modulesPath, ... }: { imports = [ (modulesPath + \"/profiles/qemu-guest.nix\") ]; }\n",
		"image":        strings.Repeat("image ", 30000),
	} {
		write(filepath.Join(dir, "machines", name), content, 0o644)
	}

	// nixpkgs, from a repository on this machine
	source := filepath.Join(k.home, "nixpkgs")
	k.must(exec.Command("sh", "-euc", `git init -q -b stable "$1"; cd "$1"; echo '"x"' > default.nix; git add .; git -c user.name=t -c user.email=t@example.org commit -qm x`, "sh", source))
	network := filepath.Join(dir, "rack", "plans", "network.yaml")
	k.must(exec.Command("sed", "-i", "s|nixos: .*|nixos: file://"+source+"#stable|", network))
	do("racked", "update")
	k.must(exec.Command("git", "-C", source, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "--allow-empty", "-m", "newer"))

	copied("racked", "deployed")
	do("deployed", "deploy", "--yes", "--gate-pause", "1ms")
	copied("deployed", "changed")
	k.must(exec.Command("sh", "-c", `echo "tls_san: [rack.example.org]" >> "$1"`, "sh", filepath.Join(k.world("changed"), "rack", "plans", "network.yaml")))

	// deployed twice, beside a repository that has the first plan
	copied("deployed", "twice")
	k.must(k.program(k.world("twice"), "sh", "-euc", `git init -q
git add .
git -c user.name=t -c user.email=t@example.org commit -qm deployed
echo "tls_san: [rack.example.org]" >> plans/network.yaml
cd "$RACK"
for host in olaf ulf rolf ulrich; do mkdir $host/receipts; cp $host/receipt "$host/receipts/$(cat $host/system)"; done`))
	do("twice", "deploy", "--yes", "--gate-pause", "1ms")

	// a release behind, deployed; each release has one commit
	copied("racked", "older")
	k.must(k.program(k.world("older"), "sh", "-euc", `sed -i '/nixos:/s/:.*/: nixos-25.11/; /k3s:/s/:.*/: "1.34"/; /state:/s/:.*/: "25.11"/' plans/network.yaml`))
	do("older", "update")
	do("older", "deploy", "--yes", "--gate-pause", "1ms")

	copied("racked", "foreign")
	write(filepath.Join(k.world("foreign"), "machines", "token"), "K10"+strings.Repeat("0", 64)+"::server:the-token-of-the-living-cluster-0\n", 0o644)

	copied("racked", "renewed")
	known := func() []string {
		out, err := k.program(k.world("renewed"), "sh", "-c", `k3splan known-hosts | sed -n 's/^ulrich .*\(SHA256:[^ ]*\).*/\1/p'`).Output()
		require.NoError(k.t, err)
		return strings.Fields(string(out))
	}
	old := known()
	require.Len(k.t, old, 1)
	k.oldKey = old[0]
	do("renewed", "known-hosts", "make", "--renew", "ulrich")
	require.Len(k.t, known(), 2)
}

// prepareEtcd makes worlds with the machines of etcd.txtar: a healthy cluster, and one without a quorum.
func (k *killer) prepareEtcd(write func(name, content string, mode os.FileMode), copied func(from, to string), do func(world string, args ...string)) {
	copied("keyless", "healthy")
	files := k.archive("etcd")
	for _, name := range []string{"hosts.csv", "k3s.csv"} {
		write(filepath.Join(k.world("healthy"), "rack", "plans", name), files[name], 0o644)
	}
	do("healthy", "known-hosts", "make")
	k.must(k.program(k.world("healthy"), "sh", "-euc", "export RIG=\"$RACK\"; mkdir \"$RIG/tmp\"\n"+files["machines.sh"], "sh", "secrets/init-token"))
	copied("healthy", "broken")
	do("broken", "etcd", "snapshot", "--to", "../backup.db")
	k.must(k.program(k.world("broken"), "sh", "-euc", `for machine in 3 4; do echo failed > "$RACK/10.0.100.$machine/k3s"; done`))
}

// preparePass makes worlds whose secrets are in the store of the real pass.
func (k *killer) preparePass(copied func(from, to string), do func(world string, args ...string)) {
	for _, program := range []string{"pass", "gpg", "gpg-agent"} {
		if _, err := exec.LookPath(program); err != nil {
			k.t.Logf("SKIP: secrets kept by pass: %s is not on PATH (Debian: %[1]s)", program)
			return
		}
	}
	secretstest.Pass(k.t)
	k.hasPass = true
	for from, to := range map[string]string{"plain": "pass", "racked": "pass-racked"} {
		for _, world := range []string{from, to} {
			if world == to {
				copied(from, to)
				do(to, "secrets", "move", "--to", "pass", "--prefix", "k3splan/rack")
			} else {
				k.must(exec.Command("cp", "-a", filepath.Join(os.Getenv("HOME"), ".password-store"), filepath.Join(k.world(from), "store")))
			}
		}
	}
}
