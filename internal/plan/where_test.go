package plan

import (
	"fmt"
	"testing"
	"testing/fstest"

	"k3splan/internal/diag"

	"github.com/stretchr/testify/require"
	"github.com/xuri/excelize/v2"
)

func TestWhereValuesComeFrom(t *testing.T) {
	p, problems := Load(fstest.MapFS{
		HostsFile:    {Data: []byte("# a comment\nname,interface,ip,admin,boot,rack\n\nulf,eno1,10.0.0.3,ulf,,a1\nolaf,eno1,10.0.0.2,olaf,legacy,\n")},
		K3sFile:      {Data: []byte("name,host,type,ip\nolaf-server,olaf,init,10.0.0.12\n")},
		NetworkFile:  {Data: []byte("gateway: 10.0.0.1\nnetmask: 24\nnameservers:\n  - 9.9.9.9\n")},
		VersionsFile: {Data: []byte("nixos: nixos-26.05\nk3s: \"1.35\"\n")},
	})
	require.Empty(t, problems)
	for _, c := range []struct{ got, want string }{
		{p.Host("ulf").Where("ip"), "plans/hosts.csv:4"},
		{p.Host("ulf").Where("rack"), "plans/hosts.csv:4"},
		{p.Host("ulf").Where("boot"), ""},
		{p.Host("ulf").Where("mac"), ""},
		{p.Host("olaf").Where("boot"), "plans/hosts.csv:5"},
		{p.Host("olaf").Server.Where("ip"), "plans/k3s.csv:2"},
		{p.Host("olaf").Server.Where("labels"), ""},
		{p.Network.Where("gateway"), "plans/network.yaml:1"},
		{p.Network.Where("nameservers"), "plans/network.yaml:4"},
		{p.Network.Where("versions.k3s"), "plans/versions.yaml:2"},
		{p.Network.Where("pod_cidr"), ""},
	} {
		require.Equal(t, c.want, c.got)
	}
	at := func(file string, line int) diag.Problem { return diag.Problem{File: file, Line: line} }
	require.True(t, p.Host("ulf").Concerns(at(HostsFile, 4)))
	require.False(t, p.Host("ulf").Concerns(at(HostsFile, 5)))
	require.False(t, p.Host("ulf").Concerns(at(K3sFile, 4)))
	require.True(t, p.Host("olaf").Server.Concerns(at(K3sFile, 2)))
	require.False(t, new(Host).Concerns(diag.Problem{}))
	require.Empty(t, new(Host).Where("ip"))
}

func TestWhereValuesOfAWorkbookComeFrom(t *testing.T) {
	p, problems := Load(newWorkbook(t, func(file *excelize.File) {
		require.NoError(t, file.SetCellStr("hosts", "B2", "an-interface-name-too-long"))
		require.NoError(t, file.SetSheetRow("network", "A6", &[]string{"nameservers", "9.9.9.9", "1.1.1.1"}))
	}))
	require.Len(t, problems, 1)
	require.Equal(t, "plans/cluster.xlsx!hosts!B2", problems[0].Place())
	for _, host := range p.Hosts {
		require.Equal(t, host.Line == 2, host.Concerns(problems[0]), host.Name)
		require.Equal(t, fmt.Sprintf("plans/cluster.xlsx!hosts!B%d", host.Line), host.Where("interface"))
		for _, c := range host.Containers() {
			require.False(t, c.Concerns(problems[0]), c.Name)
		}
	}
	for _, key := range []string{"gateway", "nameservers", "versions.nixos"} {
		require.Regexp(t, `^plans/cluster\.xlsx!network!B[0-9]+$`, p.Network.Where(key), key)
	}
}

// A value that is wrong is none, neither the default nor what Go calls it.
func TestWrongValuesOfTheNetwork(t *testing.T) {
	p, problems := Load(fstest.MapFS{
		HostsFile:   {Data: []byte("name,interface,ip,admin\nulf,eno1,10.0.0.3,ulf\n")},
		K3sFile:     {Data: []byte("name,host,type,ip\n")},
		NetworkFile: {Data: []byte("gateway: x\nnetmask: 24\nnameservers: [nine]\npod_cidr: y\nservice_cidr: z\nversions: {nixos: nixos-26.05}\n")},
	})
	require.Equal(t, 4, problems.Errors(), "%v", problems)
	m := p.Model().Network
	require.Empty(t, m.Gateway+m.PodCIDR+m.ServiceCIDR)
	require.Empty(t, m.Nameservers)
	require.Equal(t, "plans/network.yaml:3", p.Network.Where("nameservers"))
}
