package edit

import (
	"bytes"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"k3splan/internal/plan"
	"k3splan/internal/remote"
)

// rackWithKeys is a project of two servers, an agent and known hosts.
func rackWithKeys() fstest.MapFS {
	return fstest.MapFS{
		plan.HostsFile:        {Data: []byte("name,interface,ip,admin,slot\n# first row\nolaf, eno1 ,10.0.100.2,olaf,1\nulf,eno1,10.0.100.3,ulf,2\n\nkarl,eno1,10.0.100.5,karl,4\n")},
		plan.K3sFile:          {Data: []byte("host;name;type;ip\nolaf;olaf-s;Init-Server;10.0.100.12\nulf;ulf-s;server;10.0.100.13\n# agents\nkarl;karl-a;agent;10.0.100.25\n")},
		plan.NetworkFile:      {Data: []byte("netmask: 24\ngateway: 10.0.100.1\nversions: {nixos: nixos-24.11, k3s: 1.31}\n")},
		remote.KnownHostsFile: {Data: []byte("# keys\nolaf ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDYX2xUDgCQXsQ3EXtVPkPO6PtS6C5zxVbGWGbMHKP6t made by k3splan\nulf ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGh4RzEpqwQbW9Z7Fzr0EGSs1OKWuwLWIsQo5XcYJIAK adopted\n")},
	}
}

func TestDecommission(t *testing.T) {
	before := rackWithKeys()
	got := change(t, before, func(e *Edit) error { return e.Decommission("olaf", "ulf-s") })
	require.Equal(t, "name,interface,ip,admin,slot\n# first row\nulf,eno1,10.0.100.3,ulf,2\n\nkarl,eno1,10.0.100.5,karl,4\n", string(got[plan.HostsFile].Data))
	require.Equal(t, "host;name;type;ip\nulf;ulf-s;init;10.0.100.13\n# agents\nkarl;karl-a;agent;10.0.100.25\n", string(got[plan.K3sFile].Data))
	require.Equal(t, "# keys\nulf ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGh4RzEpqwQbW9Z7Fzr0EGSs1OKWuwLWIsQo5XcYJIAK adopted\n", string(got[remote.KnownHostsFile].Data))

	e, err := Open(before)
	require.NoError(t, err)
	require.ErrorContains(t, e.Decommission("olaf", ""), "other servers would be left without one: ulf-s")
	e, err = Open(before)
	require.NoError(t, err)
	require.ErrorContains(t, e.Decommission("otto", ""), "no host is called")

	before[plan.K3sFile].Data = bytes.ReplaceAll(before[plan.K3sFile].Data, []byte(";"), []byte(","))
	book := inWorkbook(t, before, nil)
	got = change(t, book, func(e *Edit) error { return e.Decommission("olaf", "ulf-s") })
	p := load(t, got)
	require.Equal(t, []string{"karl", "ulf"}, p.HostNames())
	require.Equal(t, "ulf-s", p.InitServer().Name)
	formula, err := opened(t, got).GetCellFormula("notes", "A1")
	require.NoError(t, err)
	require.Equal(t, "SUM(B1:B9)", formula)
}

func TestReplace(t *testing.T) {
	before := rackWithKeys()
	cells := map[string]string{"serial": "WD-1", "mac": "52:54:00:12:34:56", "interface": "enp3s0"}
	replace := func(e *Edit) error { return e.Replace("olaf", cells, "ulf-s") }
	got := change(t, before, replace)
	require.Equal(t, "name,interface,ip,admin,slot,mac,serial\n# first row\nolaf, enp3s0 ,10.0.100.2,olaf,1,52:54:00:12:34:56,WD-1\nulf,eno1,10.0.100.3,ulf,2,,\n\nkarl,eno1,10.0.100.5,karl,4,,\n", string(got[plan.HostsFile].Data))
	require.Equal(t, "host;name;type;ip\nolaf;olaf-s;server;10.0.100.12\nulf;ulf-s;init;10.0.100.13\n# agents\nkarl;karl-a;agent;10.0.100.25\n", string(got[plan.K3sFile].Data))
	require.Equal(t, before[remote.KnownHostsFile], got[remote.KnownHostsFile])
	again, err := Open(got)
	require.NoError(t, err)
	require.NoError(t, again.Replace("olaf", cells, ""))
	require.Empty(t, again.Files(), "twice is the same")

	before[plan.K3sFile].Data = bytes.ReplaceAll(before[plan.K3sFile].Data, []byte(";"), []byte(","))
	book := inWorkbook(t, before, nil)
	got = change(t, book, replace)
	p := load(t, got)
	require.Equal(t, "wd-1", p.Host("olaf").Serial)
	require.Equal(t, "enp3s0", p.Host("olaf").Interface)
	require.Equal(t, plan.Server, p.Host("olaf").Server.Role)
	require.Equal(t, "ulf-s", p.InitServer().Name)

	e, err := Open(before)
	require.NoError(t, err)
	require.NoError(t, e.Replace("olaf", map[string]string{"mac": "no"}, ""))
	_, _, err = e.Result()
	var invalid *Invalid
	require.ErrorAs(t, err, &invalid)
}
