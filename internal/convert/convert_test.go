package convert

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
	"github.com/xuri/excelize/v2"

	"k3splan/internal/plan"
	"k3splan/internal/plan/plantest"
)

// rack is a project with everything that the two forms write in different ways.
func rack() fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, text := range map[string]string{
		plan.HostsFile:  "# the machines, \"ours\"\n\n\"# in quotes, with a separator\";;;;;\nName;interface;ip;admin;Rack;note\nolaf;eno1;10.0.100.2;Olaf;A1;\"two\nlines; \"\"x\"\"\"\n\n# ulf is on loan\nulf;eno1;10.0.100.3;ulf;0012;\"#1\"\n\n# end\n",
		plan.K3sFile:    "host,name,type,ip,labels\nolaf,olaf-s,init,10.0.100.12,\nolaf,olaf-a,agent,10.0.100.22,a=B c=1E5\n",
		plan.ChecksFile: "# what has to answer\nhost,name,type,target,timeout,from\n\n*,ssh,tcp,22,,\nolaf,Web,http,http://10.0.100.2/Health?a=b,5,host\n",
		plan.NetworkFile: "# the network\nnetmask: 24 # of all\ngateway: 10.0.100.1\n\n# two of them\nnameservers: [9.9.9.9, 1.1.1.1]\ntls_san:\n  - a.example\n  - b.example # second\n" +
			"versions:\n  nixos: nixos-26.05 # stable\n  k3s: 1.40\naddress_range: 10.0.100.32-10.0.100.60\n# secrets: files\n",
	} {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	fsys["nixConfigs/all.nix"] = &fstest.MapFile{Data: []byte("{ }")}
	return fsys
}

// applied returns the project after a conversion.
func applied(fsys fstest.MapFS, c *Conversion) fstest.MapFS {
	after := maps.Clone(fsys)
	for name, content := range c.Create {
		after[name] = &fstest.MapFile{Data: content}
	}
	for _, name := range c.Remove {
		delete(after, name)
	}
	return after
}

func meaning(t *testing.T, fsys fstest.MapFS) string {
	t.Helper()
	p, problems := plan.Load(fsys)
	require.Zero(t, problems.Errors(), "%v", problems)
	data, err := json.MarshalIndent([]any{p.Model(), p.Network.AddressRange}, "", " ")
	require.NoError(t, err)
	return string(data)
}

func TestThereAndBack(t *testing.T) {
	files := rack()
	c, err := To(files, XLSX)
	require.NoError(t, err)
	require.Empty(t, c.Lost)
	require.Equal(t, []string{plan.HostsFile, plan.K3sFile, plan.ChecksFile, plan.NetworkFile}, c.Remove)
	book := applied(files, c)
	require.Equal(t, meaning(t, files), meaning(t, book))
	again, err := To(files, XLSX)
	require.NoError(t, err)
	require.True(t, bytes.Equal(c.Create[plan.WorkbookFile], again.Create[plan.WorkbookFile]), "the same bytes")

	c, err = To(book, CSV)
	require.NoError(t, err)
	require.Empty(t, c.Lost)
	back := applied(book, c)
	require.Equal(t, meaning(t, files), meaning(t, back))
	require.Equal(t, "# the machines, \"ours\"\n\n# in quotes, with a separator\nName,interface,ip,admin,Rack,note\nolaf,eno1,10.0.100.2,Olaf,A1,\"two\nlines; \"\"x\"\"\"\n\n# ulf is on loan\nulf,eno1,10.0.100.3,ulf,0012,#1\n\n# end\n",
		string(back[plan.HostsFile].Data))
	network := string(back[plan.NetworkFile].Data)
	for _, kept := range []string{"# the network\nnetmask: 24 # of all\n", "# two of them\nnameservers: [9.9.9.9, 1.1.1.1]\n", "# second", "nixos: nixos-26.05 # stable\n", "k3s: \"1.40\"\n", "address_range: 10.0.100.32-10.0.100.60\n", "# secrets: files\n"} {
		require.Contains(t, network, kept)
	}
	// the second time nothing changes any more
	c, err = To(back, XLSX)
	require.NoError(t, err)
	third := applied(back, c)
	c, err = To(third, CSV)
	require.NoError(t, err)
	for name, content := range c.Create {
		require.Equal(t, string(back[name].Data), string(content))
	}
}

// The cells are texts, and so is what somebody types below them.
// Comments and blank lines of network.yaml stay; one blank line is as good as several.
func TestLinesOfTheNetworkStay(t *testing.T) {
	const network = "# the rack\n\nnetmask: 24 # the mask\n\ngateway: 10.0.100.1\n\n# names\nnameservers: [1.1.1.1, 9.9.9.9]\n\nversions:\n  nixos: nixos-24.11\n\n  # servers and agents\n  k3s: \"1.31\"\ndomain: example.org\n\n# end\n"
	for name, text := range map[string]string{"as it is": network, "more blank lines": strings.ReplaceAll(network, "\n\n", "\n\n\n")} {
		t.Run(name, func(t *testing.T) {
			fsys := rack()
			fsys[plan.NetworkFile] = &fstest.MapFile{Data: []byte(text)}
			book, err := To(fsys, XLSX)
			require.NoError(t, err)
			files, err := To(applied(fsys, book), CSV)
			require.NoError(t, err)
			require.Equal(t, network, string(files.Create[plan.NetworkFile]))
		})
	}
}

func TestWorkbookIsOfTexts(t *testing.T) {
	data, err := Workbook(rack())
	require.NoError(t, err)
	file, err := excelize.OpenReader(bytes.NewReader(data))
	require.NoError(t, err)
	defer file.Close()
	require.Equal(t, sheetNames, file.GetSheetList())
	for _, cell := range []string{"A2", "C3", "B500"} {
		id, err := file.GetCellStyle("hosts", cell)
		require.NoError(t, err)
		style, err := file.GetStyle(id)
		require.NoError(t, err)
		require.Equal(t, 49, style.NumFmt, cell)
	}
	width, err := file.GetColWidth("hosts", "C")
	require.NoError(t, err)
	require.Greater(t, width, 10.0)
}

func TestWhatIsLost(t *testing.T) {
	data, err := Workbook(rack())
	require.NoError(t, err)
	file, err := excelize.OpenReader(bytes.NewReader(data))
	require.NoError(t, err)
	defer file.Close()
	_, err = file.NewSheet("shopping list")
	require.NoError(t, err)
	require.NoError(t, file.SetCellFormula("hosts", "G3", `"x"`))
	require.NoError(t, file.SetCellStr("hosts", "G1", "computed"))
	require.NoError(t, file.AddComment("hosts", excelize.Comment{Cell: "A5", Text: "bought in May"}))
	var changed bytes.Buffer
	require.NoError(t, file.Write(&changed))
	c, err := toFiles(fstest.MapFS{plan.WorkbookFile: {Data: changed.Bytes()}})
	require.NoError(t, err)
	require.Equal(t, []string{"the formulas of 1 cells, whose values stay", `the sheet "shopping list"`, "notes on cells"}, c.Lost)
}

func TestNothingToConvert(t *testing.T) {
	c, err := To(rack(), CSV)
	require.NoError(t, err)
	require.Nil(t, c)
	wrong := rack()
	wrong[plan.K3sFile] = &fstest.MapFile{Data: []byte("host,name,type,ip\nnobody,x,init,10.0.100.12\n")}
	for _, form := range []Form{CSV, XLSX} {
		_, err = To(wrong, form)
		var invalid *InvalidError
		require.ErrorAs(t, err, &invalid)
	}
}

// A conversion that was killed after any of its steps is completed by the same one; the other form, or files
// that say something else, are refused.
func TestInterruptedConversions(t *testing.T) {
	write := func(fsys fstest.MapFS) string {
		dir := t.TempDir()
		for name, file := range fsys {
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), file.Data, 0o644))
		}
		return dir
	}
	files := rack()
	files[plan.VersionsFile] = &fstest.MapFile{Data: []byte("disko: latest\n")}
	book, err := To(files, XLSX)
	require.NoError(t, err)
	for form, start := range map[Form]fstest.MapFS{XLSX: files, CSV: applied(files, book)} {
		c, err := To(start, form)
		require.NoError(t, err)
		want := applied(start, c)
		state := maps.Clone(start)
		states := []fstest.MapFS{start}
		for _, name := range append(slices.Clone(tables), plan.WorkbookFile) {
			if content, ok := c.Create[name]; ok {
				state[name] = &fstest.MapFile{Data: content}
				states = append(states, maps.Clone(state))
			}
		}
		for _, name := range c.Remove {
			delete(state, name)
			states = append(states, maps.Clone(state))
		}
		for i, state := range states {
			dir := write(state)
			again, err := To(os.DirFS(dir), form)
			require.NoError(t, err, "%s, killed after step %d", form, i)
			if again != nil {
				require.NoError(t, again.Write(dir))
			}
			for _, name := range append(slices.Clone(tables), plan.WorkbookFile) {
				data, err := os.ReadFile(filepath.Join(dir, name))
				require.Equal(t, want[name] != nil, err == nil, "%s, killed after step %d: %s", form, i, name)
				if err == nil {
					require.Equal(t, string(want[name].Data), string(data))
				}
			}
		}
	}
	both := applied(files, &Conversion{Create: book.Create})
	both[plan.HostsFile] = &fstest.MapFile{Data: []byte(strings.Replace(string(files[plan.HostsFile].Data), "10.0.100.3", "10.0.100.4", 1))}
	for _, form := range []Form{CSV, XLSX} {
		_, err = To(both, form)
		require.ErrorContains(t, err, "and they differ")
	}
}

func TestLargeRack(t *testing.T) {
	fsys := fstest.MapFS{}
	for name, text := range plantest.Rack(1000) {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	c, err := To(fsys, XLSX)
	require.NoError(t, err)
	book := applied(fsys, c)
	c, err = To(book, CSV)
	require.NoError(t, err)
	require.Equal(t, string(fsys[plan.HostsFile].Data), string(c.Create[plan.HostsFile]))
	require.Equal(t, string(fsys[plan.K3sFile].Data), string(c.Create[plan.K3sFile]))
}
