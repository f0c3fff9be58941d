package plan

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
	"k3splan/internal/files"
)

// A link that leads nowhere is not a missing file: setup does not write one.
func TestLinksThatLeadNowhere(t *testing.T) {
	for _, file := range []string{HostsFile, K3sFile, NetworkFile, WorkbookFile} {
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "plans"), 0o755))
		for name, content := range project(nil) {
			if strings.HasPrefix(name, "plans/") && name != file && file != WorkbookFile {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), content.Data, 0o644))
			}
		}
		require.NoError(t, os.Symlink("../elsewhere", filepath.Join(dir, file)))
		_, problems := Load(files.In(dir))
		require.Len(t, problems, 1, "%v", problems)
		require.Equal(t, file+`: the file is a link to "../elsewhere", which does not exist`, problems[0].String())
		require.Equal(t, "file-unreadable", problems[0].Code)
	}
}

// A table under another name is neither ignored nor answered with an offer to write a new one.
func TestTablesUnderOtherNames(t *testing.T) {
	for other, real := range map[string]string{
		"plans/Hosts.csv": HostsFile, "plans/rack - hosts.csv": HostsFile, "plans/hosts.csv.txt": HostsFile, "plans/hosts (1).csv": HostsFile, "plans/hosts.tsv": HostsFile,
		"plans/hosts.xlsx": HostsFile, "plans/hosts.ods": HostsFile, "plans/HOSTS.XLS": HostsFile, "plans/hosts": HostsFile, "plans/hosts.csv.txt.txt": HostsFile, "hosts.csv": HostsFile,
		"plans/K3s.csv": K3sFile, "plans/rack-k3s.csv": K3sFile, "plans/k3s.ods": K3sFile, "k3s.csv": K3sFile,
		"plans/network.yml": NetworkFile, "plans/Network.yaml": NetworkFile, "plans/network.yaml.txt": NetworkFile, "plans/network.json": NetworkFile, "network.yaml": NetworkFile, "plans/network.xlsx": NetworkFile,
	} {
		t.Run(other, func(t *testing.T) {
			fsys := project(nil)
			fsys[other] = &fstest.MapFile{Data: fsys[real].Data}
			_, problems := Load(fsys)
			require.Len(t, problems, 1, "beside the real one")
			require.Equal(t, other+": k3splan does not read this file", problems[0].String())
			require.Equal(t, diag.Warning, problems[0].Severity)
			require.Contains(t, problems[0].Hint, real+" is read")

			delete(fsys, real)
			_, problems = Load(fsys)
			require.Len(t, problems, 1, "instead of the real one: %v", problems)
			require.Equal(t, real+": the file is missing; "+other+" may be meant to be it", problems[0].String())
			require.Equal(t, diag.Error, problems[0].Severity)
			require.Contains(t, problems[0].Hint, real)
			require.NotContains(t, problems[0].Hint, "setup")
			require.True(t, Misplaced(fsys, real))
		})
	}
	for _, other := range []string{"plans/hosts.csv~", "plans/hosts.csv.bak", "plans/.~lock.hosts.csv#", "plans/README.md", "plans/network.schema.json", "plans/known_hosts", "plans/lock.json", "plans/orders.csv",
		"plans/my-ghosts.csv", "plans/hosts.md", "plans/network.svg", "plans/prices.ods"} {
		fsys := project(nil)
		fsys[other] = &fstest.MapFile{}
		_, problems := Load(fsys)
		require.Empty(t, problems, other)
	}
	// a table that is missing is found by its contents
	for other, real := range map[string]string{
		"plans/machines.csv": HostsFile, "plans/servers.txt": HostsFile, "plans/containers.csv": K3sFile, "plans/cluster.tsv": K3sFile, "plans/lan.yml": NetworkFile, "plans/settings.json": NetworkFile,
	} {
		fsys := project(nil)
		fsys["plans/orders.csv"] = &fstest.MapFile{Data: []byte("name,ip,price\nolaf,10.0.100.2,12\n")}
		fsys["plans/notes.yaml"] = &fstest.MapFile{Data: []byte("rack: a\n")}
		fsys[other] = fsys[real]
		_, problems := Load(fsys)
		require.Empty(t, problems, "%s beside the real one", other)
		delete(fsys, real)
		_, problems = Load(fsys)
		require.Len(t, problems, 1, "%s: %v", other, problems)
		require.Equal(t, real+": the file is missing; "+other+" may be meant to be it", problems[0].String())
		require.True(t, Misplaced(fsys, real))
		delete(fsys, other)
		require.False(t, Misplaced(fsys, real))
	}
	fsys := project(nil)
	delete(fsys, NetworkFile)
	fsys["plans/network.csv"] = &fstest.MapFile{Data: []byte("key,value\nnetmask,24\ngateway,10.0.100.1\n")}
	_, problems := Load(fsys)
	require.Len(t, problems, 1)
	require.Equal(t, "write its keys and values into plans/network.yaml, as key: value", problems[0].Hint)

	// a workbook in the wrong case, and in the wrong folder
	book := newWorkbook(t, nil)
	for _, other := range []string{"plans/Cluster.xlsx", "cluster.xlsx"} {
		fsys := fstest.MapFS{"plans/README.md": {}, other: book[WorkbookFile]}
		_, problems := Load(fsys)
		require.NotEmpty(t, problems)
		for _, p := range problems {
			require.Equal(t, "rename it: mv "+other+" plans/cluster.xlsx", p.Hint)
		}
		require.True(t, Misplaced(fsys, HostsFile), "setup writes no table beside it")
	}
	// what another program would take for a command
	fsys = project(nil)
	delete(fsys, HostsFile)
	fsys["plans/a';reboot;'hosts.csv"] = &fstest.MapFile{}
	_, problems = Load(fsys)
	require.Equal(t, `rename it: mv 'plans/a'\'';reboot;'\''hosts.csv' plans/hosts.csv`, problems[0].Hint)

	// several at once, and beside a workbook
	fsys = newWorkbook(t, nil)
	fsys["plans/hosts.ods"], fsys["plans/cluster (1).xlsx"] = &fstest.MapFile{}, &fstest.MapFile{}
	_, problems = Load(fsys)
	require.Len(t, problems, 2)
	for _, p := range problems {
		require.Contains(t, p.Hint, WorkbookFile+" is read")
	}
	require.False(t, Misplaced(fsys, "plans/none.csv"))
}
