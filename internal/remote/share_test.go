package remote

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/plan"
)

func shared(t *testing.T, own string) (*Config, *plan.Plan) {
	t.Helper()
	if !sessionType.has(version()) {
		t.Skip("SKIP: this ssh does not share connections")
	}
	file := filepath.Join(t.TempDir(), "own")
	require.NoError(t, os.WriteFile(file, []byte(own), 0o600))
	t.Setenv("SSH_CONFIG_FILE", file)
	t.Setenv("TMPDIR", "/tmp") // a socket's path is short
	p := &plan.Plan{Hosts: []*plan.Host{
		{Name: "olaf", Admin: "alice", Target: plan.Target{Host: "10.0.100.2"}},
		{Name: "ulf", Admin: "alice", Target: plan.Target{Host: "ulf.example", Port: 2222}},
		{Name: "rolf", Admin: "alice", Target: plan.Target{Local: true}},
	}}
	c, err := Prepare(t.TempDir(), p, HostKeys{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	require.NoError(t, c.Share())
	return c, p
}

// asked are what ssh makes of a destination.
func asked(t *testing.T, args ...string) options {
	t.Helper()
	o, ok := askSSH(args)
	require.True(t, ok)
	return o
}

// Programs that call a host by its address share a connection; people, other users and other hosts do not.
func TestShare(t *testing.T) {
	c, p := shared(t, "Host *\n    ServerAliveInterval 7\n")
	require.NotEmpty(t, c.sockets)
	for user, target := range map[string]*plan.Host{"deploy": p.Hosts[0], "root": p.Hosts[1]} {
		o := asked(t, c.Machine(target, user).ssh(nil)[0:]...)
		require.Equal(t, []string{"auto"}, o["controlmaster"])
		path := o["controlpath"][0]
		require.True(t, strings.HasPrefix(path, c.sockets+"/"+target.Target.Host+"-"), path)
		require.Less(t, len(path), maxSocket+1)
	}
	once := c.Machine(p.Hosts[0], DeployUser)
	once.Once = true
	require.Equal(t, []string{"false"}, asked(t, once.ssh(nil)...)["controlmaster"])
	for _, args := range [][]string{{"-F", c.File, "-l", "deploy", "olaf"}, {"-F", c.File, "-l", "alice", "10.0.100.2"}, {"-F", c.File, "-l", "deploy", "10.0.100.99"}} {
		require.Empty(t, asked(t, args...)["controlpath"], args)
	}
	folder := c.sockets
	require.NoError(t, c.Close())
	require.NoDirExists(t, folder)
}

// What users have set up for their own connections stays.
func TestShareLeavesTheUsersWay(t *testing.T) {
	c, p := shared(t, "Host 10.*\n    ControlPath ~/.ssh/%C\n")
	require.Empty(t, c.sockets)
	require.NotContains(t, asked(t, c.Machine(p.Hosts[0], DeployUser).ssh(nil)...)["controlpath"][0], "k3splan")
}

// Disconnect forgets the connections to one machine, also one that does not answer.
func TestDisconnect(t *testing.T) {
	c, p := shared(t, "")
	open := func(name string) string {
		file := filepath.Join(c.sockets, name)
		l, err := net.Listen("unix", file)
		require.NoError(t, err)
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		require.NoError(t, l.Close())
		return file
	}
	olaf, root, ulf := open("10.0.100.2-22-deploy"), open("10.0.100.2-22-root"), open("ulf.example-2222-deploy")
	// another machine behind the same address, and one whose name only begins like this one's
	behind, longer := open("ulf.example-22-deploy"), open("ulf.example-1-2222-deploy")
	c.Machine(p.Hosts[0], DeployUser).Disconnect()
	c.Machine(p.Hosts[2], DeployUser).Disconnect() // this machine has none
	require.NoFileExists(t, olaf)
	require.FileExists(t, root)
	require.FileExists(t, ulf)
	c.Machine(p.Hosts[1], DeployUser).Disconnect()
	require.NoFileExists(t, ulf)
	require.FileExists(t, behind)
	require.FileExists(t, longer)
}
