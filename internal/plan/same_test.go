package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"k3splan/internal/table"

	"github.com/stretchr/testify/require"
	"github.com/xuri/excelize/v2"
	"pgregory.net/rapid"
)

// The same cells mean the same in tables and in a workbook, right or wrong.
func TestTablesAndWorkbooksMeanTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cell := func(column string) string {
			usual := map[string][]string{
				"name": {"olaf", "ulf", "Karl", "bad name"}, "host": {"olaf", "ULF", "nobody"}, "interface": {"eno1", "enP4p65s0", "a/b"},
				"ip": {"10.0.100.2", "10.0.100.3", "10.0.100.12", "10.0.101.1", "dhcp@x", "x"}, "admin": {"anna", "Root"},
				"type": {"init", "server", "agent", "agnet"}, "labels": {"a=b", "a=b c=d", "a=b\nc=d", "=x"}, "tags": {"rack-a", "x  y", "bad/"},
			}[column]
			return rapid.SampledFrom(append(usual, "", "", " ", "\u00a0", "# x", "#x", "x,y", `say "x"`, " padded\u200b", "x\ny", "1,5")).Draw(t, column)
		}
		draw := func(label string, columns ...string) [][]string {
			rows := [][]string{columns}
			for range rapid.IntRange(0, 4).Draw(t, label) {
				row := []string{}
				for _, column := range columns {
					row = append(row, cell(column))
				}
				if !strings.HasPrefix(row[0], "#") || row[0] == "# x" { // "#5" beside others is not a comment in CSV, if it is quoted
					rows = append(rows, row)
				}
			}
			return rows
		}
		hosts := append(draw("hosts", "name", "interface", "ip", "admin", "tags", "note"), []string{"rolf", "eno1", "10.0.100.9", "rolf", "", ""})
		k3s := draw("k3s", "host", "name", "type", "ip", "labels")

		files := fstest.MapFS{NetworkFile: {Data: []byte("netmask: 24\ngateway: 10.0.100.1\nversions: {nixos: nixos-26.05, k3s: '1.35'}\n")}}
		file := excelize.NewFile()
		defer file.Close()
		for sheet, rows := range map[string][][]string{"hosts": hosts, "k3s": k3s,
			"network": {{"netmask", "24"}, {"gateway", "10.0.100.1"}, {"versions.nixos", "nixos-26.05"}, {"versions.k3s", "1.35"}}} {
			_, err := file.NewSheet(sheet)
			require.NoError(t, err)
			var text bytes.Buffer
			for i, row := range rows {
				for column, cell := range row {
					if column > 0 {
						text.WriteByte(',')
					}
					text.WriteString(`"` + strings.ReplaceAll(cell, `"`, `""`) + `"`)
					require.NoError(t, file.SetCellStr(sheet, table.CellName(column, i+1), cell))
				}
				text.WriteByte('\n')
			}
			if sheet != "network" {
				files["plans/"+sheet+".csv"] = &fstest.MapFile{Data: text.Bytes()}
			}
		}
		var data bytes.Buffer
		require.NoError(t, file.Write(&data))

		meaning := func(fsys fstest.MapFS) []string {
			p, problems := Load(fsys)
			lines := []string{}
			for _, problem := range problems {
				lines = append(lines, fmt.Sprint(problem.Code, " ", problem.Column, " ", problem.Value))
			}
			slices.Sort(lines)
			if problems.Errors() == 0 {
				model, err := json.Marshal(p.Model())
				require.NoError(t, err)
				lines = append(lines, string(model))
			}
			return lines
		}
		require.Equal(t, meaning(files), meaning(fstest.MapFS{WorkbookFile: {Data: data.Bytes()}}))
	})
}
