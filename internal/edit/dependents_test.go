package edit

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"k3splan/internal/plan"
)

// rackWithChecks is a project whose hosts depend on each other and are checked.
func rackWithChecks() fstest.MapFS {
	return fstest.MapFS{
		plan.HostsFile:   {Data: []byte("name,interface,ip,admin,tags,depends_on\nolaf,eno1,10.0.100.2,olaf,,\nulf,eno1,10.0.100.3,ulf,big,\"Olaf, olaf-2\"\nolaf-2,eno1,10.0.100.4,ulf,,olaf\n")},
		plan.K3sFile:     {Data: []byte("host,name,type,ip\n")},
		plan.NetworkFile: {Data: []byte("netmask: 24\ngateway: 10.0.100.1\nversions: {nixos: nixos-26.05, k3s: 1.35, state: \"26.05\"}\n")},
		plan.ChecksFile:  {Data: []byte("# what has to answer\nhost,name,type,target\n\n# everywhere\n!OLAF,ssh,tcp,22\nolaf  olaf-2,web,http,http://olaf/\nolaf,db,tcp,5432\n*-2,x,tcp,1\n@big,y,tcp,2\n")},
	}
}

// Cells that list hosts follow a new name, and forget a host that leaves, in files and in a workbook.
func TestListsOfHosts(t *testing.T) {
	for name, test := range map[string]struct {
		do            func(*Edit) error
		hosts, checks string
	}{
		"rename": {func(e *Edit) error { return e.Rename("olaf", "Anna") },
			"name,interface,ip,admin,tags,depends_on\nanna,eno1,10.0.100.2,olaf,,\nulf,eno1,10.0.100.3,ulf,big,\"anna, olaf-2\"\nolaf-2,eno1,10.0.100.4,ulf,,anna\n",
			"# what has to answer\nhost,name,type,target\n\n# everywhere\n!anna,ssh,tcp,22\nanna  olaf-2,web,http,http://olaf/\nanna,db,tcp,5432\n*-2,x,tcp,1\n@big,y,tcp,2\n"},
		"remove": {func(e *Edit) error { return e.RemoveHost("olaf") },
			"name,interface,ip,admin,tags,depends_on\nulf,eno1,10.0.100.3,ulf,big,\"olaf-2\"\nolaf-2,eno1,10.0.100.4,ulf,,\n",
			"# what has to answer\nhost,name,type,target\n\n# everywhere\n*,ssh,tcp,22\nolaf-2,web,http,http://olaf/\n*-2,x,tcp,1\n@big,y,tcp,2\n"},
		"remove by tag": {func(e *Edit) error { return e.RemoveHost("ulf") },
			"name,interface,ip,admin,tags,depends_on\nolaf,eno1,10.0.100.2,olaf,,\nolaf-2,eno1,10.0.100.4,ulf,,olaf\n",
			"# what has to answer\nhost,name,type,target\n\n# everywhere\n!OLAF,ssh,tcp,22\nolaf  olaf-2,web,http,http://olaf/\nolaf,db,tcp,5432\n*-2,x,tcp,1\n"},
		"decommission": {func(e *Edit) error { return e.Decommission("olaf-2", "") },
			"name,interface,ip,admin,tags,depends_on\nolaf,eno1,10.0.100.2,olaf,,\nulf,eno1,10.0.100.3,ulf,big,\"Olaf\"\n",
			"# what has to answer\nhost,name,type,target\n\n# everywhere\n!OLAF,ssh,tcp,22\nolaf,web,http,http://olaf/\nolaf,db,tcp,5432\n@big,y,tcp,2\n"},
	} {
		t.Run(name, func(t *testing.T) {
			before := rackWithChecks()
			got := change(t, before, test.do)
			require.Equal(t, test.hosts, string(got[plan.HostsFile].Data))
			require.Equal(t, test.checks, string(got[plan.ChecksFile].Data))
			want, inBook := load(t, got), load(t, change(t, inWorkbook(t, rackWithChecks(), nil), test.do))
			require.Equal(t, want.Model(), inBook.Model())
		})
	}
}

// A rename that was made in the table of hosts only is completed.
func TestRenameIsCompletedInLists(t *testing.T) {
	files := rackWithChecks()
	files[plan.HostsFile] = &fstest.MapFile{Data: []byte("name,interface,ip,admin,tags,depends_on\nanna,eno1,10.0.100.2,olaf,,\nulf,eno1,10.0.100.3,ulf,big,\"anna, olaf-2\"\nolaf-2,eno1,10.0.100.4,ulf,,anna\n")}
	got := change(t, files, func(e *Edit) error { return e.Rename("olaf", "anna") })
	require.Contains(t, string(got[plan.ChecksFile].Data), "!anna,ssh,tcp,22\nanna  olaf-2,web")
}
