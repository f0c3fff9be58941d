package hive_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/colmena/nixtest"
)

// ownFolders hides what is on this machine: podman writes there as soon as it is asked for anything.
const ownFolders = `
set -eu
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
`

// inRack runs what podman gets from a host's units in a network and with folders of its own. The
// container is created but not started: that takes more of a machine than a test may ask for. Nor is
// there a journal for it.
const inRack = ownFolders + `
export PODMAN_IGNORE_CGROUPSV1_WARNING=1
podman --version
mkdir -p /run/booted-system/kernel-modules/lib/modules /var/lib/k3splan/agent
for folder in node k3s kubelet cni log; do mkdir -p /var/lib/k3splan/agents/karl-k3s-agent/$folder; done
echo K3S_URL=https://10.0.100.3:6443 > /var/lib/k3splan/agents/karl-k3s-agent/server
ip link add enP4p65s0 type veth peer name switch
podman() {
  command podman --root "$PWD/storage" --runroot "$PWD/run" --tmpdir "$PWD/tmp" --storage-driver vfs \
    --cgroup-manager cgroupfs --events-backend none --network-backend netavark --network-config-dir "$PWD/networks" "$@"
}
mkdir networks
podman import --quiet --change 'ENTRYPOINT ["/bin/k3s"]' image.tar docker.io/rancher/k3s:v1.35.1-k3s1 > /dev/null
. ./network > /dev/null
before=$(podman network inspect --format '{{.ID}}' k3splan)
. ./network
[ "$before" = "$(podman network inspect --format '{{.ID}}' k3splan)" ] || echo "an unchanged network was recreated" >&2
. ./create > /dev/null
podman network inspect k3splan > network.json
podman inspect karl-k3s-agent > container.json
# recreating the network removes the container, which systemd starts again
. ./other-network > /dev/null
[ "$before" != "$(podman network inspect --format '{{.ID}}' k3splan)" ] || echo "an outdated network was kept" >&2
! podman container exists karl-k3s-agent || echo "the container of the old network still exists" >&2
. ./create > /dev/null
`

// The Podman of this machine and that of Debian 13 accept the arguments of the agent and its network, with the
// intended meaning.
func TestPodmanTakesTheAgent(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIP: networks of their own need root")
	}
	nixtest.Needs(t, "podman", "unshare", "ip") // a newer Podman uses the helpers of the older one, too
	if out, err := exec.Command("unshare", "-mn", "sh", "-c", ownFolders+"podman --network-backend netavark info").CombinedOutput(); err != nil {
		t.Skipf("SKIP: podman does not work here: %s", bytes.TrimSpace(out))
	}
	units := evaluated["rack"].of(t).part(t, "agent")
	network, create := units["network"].(string), units["create"].(string)
	short := nixtest.TempDir(t) // Podman takes 50 characters
	t.Run("this machine", func(t *testing.T) { testPodman(t, "", filepath.Join(short, "1"), network, create) })
	t.Run("Debian 13", func(t *testing.T) {
		testPodman(t, nixtest.FromDebian13(t, "/usr/bin/podman"), filepath.Join(short, "2"), network, create)
	})
}

func testPodman(t *testing.T, prelude, dir, network, create string) {
	require.NoError(t, os.Mkdir(dir, 0o755))
	program := regexp.MustCompile(`^\S+/podman run\b`)
	require.Regexp(t, program, create)

	for file, content := range map[string]string{
		"network":       network,
		"other-network": regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllString(network, "another"),
		"create":        strings.ReplaceAll(program.ReplaceAllString(create, "podman create"), "=journald", "=k8s-file"),
		"image.tar":     tarOf(t, "bin/k3s"),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600))
	}
	command := exec.Command("unshare", "-mn", "sh", "-c", prelude+inRack)
	command.Dir = dir
	out, err := command.CombinedOutput()
	require.NoError(t, err, "%s", out)
	version, rest, _ := strings.Cut(string(out), "\n")
	t.Log(version)
	require.Contains(t, version, "podman version ")
	require.Empty(t, rest)

	var networks []struct {
		Driver    string
		Interface string `json:"network_interface"`
		Subnets   []struct{ Subnet, Gateway string }
		DNS       bool `json:"dns_enabled"`
		Options   map[string]string
	}
	readJSON(t, filepath.Join(dir, "network.json"), &networks)
	require.Equal(t, "macvlan", networks[0].Driver)
	require.Equal(t, "enP4p65s0", networks[0].Interface)
	require.Equal(t, []struct{ Subnet, Gateway string }{{"10.0.100.0/24", "10.0.100.1"}}, networks[0].Subnets)
	require.Equal(t, map[string]string{"mode": "bridge"}, networks[0].Options)
	require.False(t, networks[0].DNS, "the LAN has its own")

	var containers []struct {
		Config     struct{ Hostname string }
		Args       []string
		HostConfig struct {
			Privileged  bool
			NetworkMode string
			PidsLimit   int
			DNS         []string `json:"Dns"`
			Tmpfs       map[string]string
		}
		Mounts []struct {
			Destination, Propagation string
			RW                       bool
		}
	}
	readJSON(t, filepath.Join(dir, "container.json"), &containers)
	c := containers[0]
	require.Equal(t, "karl-k3s-agent", c.Config.Hostname)
	require.Equal(t, "agent", c.Args[0])
	require.Contains(t, c.Args, "--node-taint=storage=only:PreferNoSchedule")
	require.True(t, c.HostConfig.Privileged)
	require.Equal(t, []string{"9.9.9.9", "1.1.1.1"}, c.HostConfig.DNS)
	require.Contains(t, c.HostConfig.Tmpfs, "/run")
	require.LessOrEqual(t, c.HostConfig.PidsLimit, 0, "no limit for all pods together")
	mounts := map[string]string{}
	for _, m := range c.Mounts {
		mounts[m.Destination] = m.Propagation + map[bool]string{true: " rw", false: " ro"}[m.RW]
	}
	require.Equal(t, "rshared rw", mounts["/var/lib/kubelet"], "volumes of pods are seen by other pods")
	require.Equal(t, "rprivate ro", mounts["/var/lib/k3splan/agent"])
	require.Equal(t, "rprivate rw", mounts["/etc/rancher/node"])
}

// tarOf returns an archive with one empty program.
func tarOf(t *testing.T, program string) string {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: program, Mode: 0o755, Typeflag: tar.TypeReg}))
	require.NoError(t, w.Close())
	return archive.String()
}

func readJSON(t *testing.T, file string, into any) {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, into))
}
