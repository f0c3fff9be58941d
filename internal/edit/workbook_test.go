package edit

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
	"github.com/xuri/excelize/v2"

	"k3splan/internal/plan"
	"k3splan/internal/table"
)

// inWorkbook returns the project with its tables in a workbook: a title above each table, text cells with
// a border, a note in a sheet of its own, and what change does.
func inWorkbook(t *testing.T, fsys fstest.MapFS, change func(*excelize.File)) fstest.MapFS {
	t.Helper()
	file := excelize.NewFile()
	defer file.Close()
	style, err := file.NewStyle(&excelize.Style{NumFmt: 49, Border: []excelize.Border{{Type: "bottom", Style: 1}}})
	require.NoError(t, err)
	require.NoError(t, file.SetSheetName("Sheet1", "notes"))
	require.NoError(t, file.SetCellFormula("notes", "A1", "SUM(B1:B9)"))
	texts := map[string]string{"Hosts": string(fsys[plan.HostsFile].Data), "k3s": string(fsys[plan.K3sFile].Data),
		"network": "netmask,24\ngateway,10.0.100.1\nversions.nixos,nixos-26.05\nversions.k3s,1.35\nversions.state,26.05\n"}
	if checks := fsys[plan.ChecksFile]; checks != nil {
		texts["checks"] = string(checks.Data)
	}
	for sheet, text := range texts {
		reader := csv.NewReader(strings.NewReader(text))
		reader.Comment, reader.FieldsPerRecord = '#', -1
		rows, err := reader.ReadAll()
		require.NoError(t, err)
		_, err = file.NewSheet(sheet)
		require.NoError(t, err)
		require.NoError(t, file.SetCellStr(sheet, "A1", "# "+sheet))
		for i, row := range rows {
			for column, cell := range row {
				require.NoError(t, file.SetCellStr(sheet, table.CellName(column, i+2), cell))
			}
			require.NoError(t, file.SetCellStyle(sheet, table.CellName(0, i+2), table.CellName(len(row)-1, i+2), style))
		}
	}
	if change != nil {
		change(file)
	}
	var data bytes.Buffer
	require.NoError(t, file.Write(&data))
	moved := fstest.MapFS{}
	for name, content := range fsys {
		if name != plan.HostsFile && name != plan.K3sFile && name != plan.ChecksFile && name != plan.NetworkFile {
			moved[name] = content
		}
	}
	moved[plan.WorkbookFile] = &fstest.MapFile{Data: data.Bytes()}
	return moved
}

func opened(t *testing.T, fsys fstest.MapFS) *excelize.File {
	t.Helper()
	file, err := excelize.OpenReader(bytes.NewReader(fsys[plan.WorkbookFile].Data))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, file.Close()) })
	return file
}

func model(t *testing.T, fsys fstest.MapFS) string {
	t.Helper()
	data, err := json.MarshalIndent(load(t, fsys).Model().Hosts, "", " ")
	require.NoError(t, err)
	return string(data)
}

var edits = map[string]func(*Edit) error{
	"add a host": func(e *Edit) error {
		return e.AddHost(map[string]string{"name": "otto", "interface": "eno1", "serial": "007"})
	},
	"add a host with a new column": func(e *Edit) error {
		return e.AddHost(map[string]string{"name": "otto", "interface": "eno1", "mac": "52:54:00:00:00:01"})
	},
	"add an agent":           func(e *Edit) error { return e.AddContainer(plan.Agent, map[string]string{"host": "rolf"}) },
	"add a server":           func(e *Edit) error { return e.AddContainer(plan.Server, map[string]string{"host": "karl"}) },
	"remove a host":          func(e *Edit) error { return e.RemoveHost("karl") },
	"remove a server":        func(e *Edit) error { return e.RemoveContainer(plan.Server, "rolf") },
	"rename a host":          func(e *Edit) error { return e.Rename("ulf", "ulla") },
	"rename an agent":        func(e *Edit) error { return e.Rename("ulf-k3s-agent", "worker") },
	"remove several of them": func(e *Edit) error { return e.RemoveHost("ulf") },
}

// An edit of a workbook means the same as that of the files, and loses nothing else.
func TestEditsOfWorkbooks(t *testing.T) {
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			files := rack(t)
			book := inWorkbook(t, files, nil)
			require.Equal(t, model(t, files), model(t, book))
			got := change(t, book, edit)
			require.Equal(t, model(t, change(t, files, edit)), model(t, got))

			file := opened(t, got)
			require.Equal(t, []string{"notes"}, file.GetSheetList()[:1])
			formula, err := file.GetCellFormula("notes", "A1")
			require.NoError(t, err)
			require.Equal(t, "SUM(B1:B9)", formula)
			for sheet, rows := range map[string]int{"Hosts": len(load(t, got).Hosts), "k3s": len(load(t, got).Containers())} {
				title, err := file.GetCellValue(sheet, "A1")
				require.NoError(t, err)
				require.Equal(t, "# "+sheet, title)
				want, err := file.GetCellStyle(sheet, "A2")
				require.NoError(t, err)
				require.NotZero(t, want)
				for row := range rows {
					style, err := file.GetCellStyle(sheet, table.CellName(0, row+3))
					require.NoError(t, err)
					require.Equal(t, want, style, "the format of %s, row %d", sheet, row+3)
				}
			}
		})
	}
}

// A new row is a text whatever it looks like, and pushes down what is below its neighbour.
func TestRowsOfWorkbooks(t *testing.T) {
	book := inWorkbook(t, rack(t), func(file *excelize.File) {
		require.NoError(t, file.SetCellStr("Hosts", "A8", "# a note below the table"))
	})
	after := change(t, book, func(e *Edit) error {
		return e.AddHost(map[string]string{"name": "otto", "interface": "eno1", "serial": "1e5"})
	})
	file := opened(t, after)
	for cell, want := range map[string]string{"A8": "otto", "A9": "# a note below the table"} {
		got, err := file.GetCellValue("Hosts", cell)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	require.Equal(t, "1e5", load(t, after).Host("otto").Serial)

	e, err := Open(after)
	require.NoError(t, err)
	require.NoError(t, e.RemoveHost("otto"))
	_, _, err = e.Result()
	require.NoError(t, err)
	require.Equal(t, []string{"plans/cluster.xlsx!hosts", "plans/cluster.xlsx!k3s", "plans/known_hosts"}, e.Names())
	diff := e.Diff()["plans/cluster.xlsx!hosts"]
	require.Contains(t, diff, "-otto,eno1,10.0.100.7")
	require.NotContains(t, diff, "\n+o")

	// a row that would be a comment
	e, err = Open(after)
	require.NoError(t, err)
	require.ErrorContains(t, e.AddHost(map[string]string{"name": "#otto", "interface": "eno1"}), "would begin with # and be a comment")
}

func TestWorkbooksThatCannotBeEdited(t *testing.T) {
	_, err := Open(fstest.MapFS{plan.WorkbookFile: {}})
	var invalid *Invalid
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, plan.WorkbookFile, invalid.Problems[0].File)
	require.True(t, invalid.Already)
}
