package main

import (
	"encoding/csv"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/xuri/excelize/v2"
	"gopkg.in/yaml.v3"

	"k3splan/internal/plan"
)

// intoWorkbook puts a project's tables into plans/cluster.xlsx, in place of the files.
func intoWorkbook(t *testing.T, project string) {
	t.Helper()
	file := excelize.NewFile()
	defer file.Close()
	for _, table := range []string{"hosts", "k3s"} {
		name := filepath.Join(project, "plans", table+".csv")
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		reader := csv.NewReader(strings.NewReader(string(text)))
		reader.Comment = '#'
		rows, err := reader.ReadAll()
		require.NoError(t, err)
		_, err = file.NewSheet(table)
		require.NoError(t, err)
		for i, row := range rows {
			cell, err := excelize.CoordinatesToCellName(1, i+1)
			require.NoError(t, err)
			require.NoError(t, file.SetSheetRow(table, cell, &row))
		}
		require.NoError(t, os.Remove(name))
	}
	require.NoError(t, file.SetSheetName("Sheet1", "network"))
	network := filepath.Join(project, "plans", "network.yaml")
	text, err := os.ReadFile(network)
	require.NoError(t, err)
	var keys map[string]any
	require.NoError(t, yaml.Unmarshal(text, &keys))
	var rows [][]any
	add := func(key string, value any) {
		list, isList := value.([]any)
		if !isList {
			list = []any{value}
		}
		rows = append(rows, append([]any{key}, list...))
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		inner, isMap := keys[key].(map[string]any)
		if !isMap {
			add(key, keys[key])
		}
		for _, name := range slices.Sorted(maps.Keys(inner)) {
			add(key+"."+name, inner[name])
		}
	}
	for i, row := range rows {
		cell, err := excelize.CoordinatesToCellName(1, i+1)
		require.NoError(t, err)
		require.NoError(t, file.SetSheetRow("network", cell, &row))
	}
	require.NoError(t, os.Remove(network))
	require.NoError(t, file.SaveAs(filepath.Join(project, plan.WorkbookFile)))
}

// A workbook in place of the tables renders to the same bytes; setup and validate find all they need.
func TestWorkbookProject(t *testing.T) {
	tables, workbook := exampleProject(t), exampleProject(t)
	intoWorkbook(t, workbook)
	rendered := func(project string) map[string]string {
		command := inShell(t, project, "k3splan setup; k3splan validate --strict; k3splan render")
		out, err := command.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.NotContains(t, string(out), "hosts.csv", "setup makes no tables beside a workbook")
		files := map[string]string{}
		root := filepath.Join(command.Dir, "generated")
		require.NoError(t, filepath.WalkDir(root, func(name string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			text, err := os.ReadFile(name)
			files[strings.TrimPrefix(name, root)] = string(text)
			return err
		}))
		return files
	}
	want := rendered(tables)
	require.NotEmpty(t, want["/cluster.json"])
	require.Equal(t, want, rendered(workbook))
}

func TestWorkbookProblems(t *testing.T) {
	project := exampleProject(t)
	intoWorkbook(t, project)
	name := filepath.Join(project, plan.WorkbookFile)
	file, err := excelize.OpenFile(name)
	require.NoError(t, err)
	require.NoError(t, file.SetCellStr("k3s", "C5", "agnet"))
	require.NoError(t, file.Save())
	require.NoError(t, file.Close())

	out, err := inShell(t, project, "k3splan validate").Output()
	require.Error(t, err)
	require.Equal(t, "plans/cluster.xlsx!k3s!C5: type \"agnet\": unknown type\n  hint: did you mean \"agent\"?\n", string(out))

	out, err = inShell(t, project, "k3splan validate --json").Output()
	require.Error(t, err)
	var problems []map[string]any
	require.NoError(t, json.Unmarshal(out, &problems))
	require.Equal(t, "plans/cluster.xlsx!k3s!C5", problems[0]["file"])
	require.EqualValues(t, 5, problems[0]["line"])
	require.Equal(t, "type", problems[0]["column"])

	// both forms at once
	require.NoError(t, os.WriteFile(filepath.Join(project, plan.HostsFile), []byte("name,interface,ip,admin\n"), 0o600))
	out, err = inShell(t, project, "k3splan validate").Output()
	require.Error(t, err)
	require.Equal(t, "plans/cluster.xlsx: the plan is here and in plans/hosts.csv\n  hint: keep the one that holds: the workbook, or the other files\n", string(out))
}

// A project that has moved into a workbook means the same as before, and what is shown of it is
// placed by its cell.
func TestWorkbookShownAndCompared(t *testing.T) {
	t.Setenv("COLUMNS", "") // of the developer's terminal
	project := exampleProject(t)
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("SKIP: git is not on PATH (Debian: git)")
	}
	intoWorkbook(t, project)
	run := func(script string) string {
		out, err := inShell(t, project, script).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	require.Equal(t, "the plan has not changed\n", run("k3splan diff"))

	name := filepath.Join(project, plan.WorkbookFile)
	file, err := excelize.OpenFile(name)
	require.NoError(t, err)
	require.NoError(t, file.SetCellStr("hosts", "C6", "10.0.100.36"))
	require.NoError(t, file.Save())
	require.NoError(t, file.Close())
	sentence := "host ulrich: ip 10.0.100.6 → 10.0.100.36 (may cut the connection)\n"
	require.Contains(t, run("k3splan diff"), sentence)
	require.Contains(t, run("k3splan diff --json"), `"where": "plans/cluster.xlsx!hosts!C6"`)
	require.Contains(t, run("git add plans && git -c user.name=t -c user.email=t@example.org commit -qm workbook && k3splan diff && k3splan diff HEAD~1"),
		"the plan has not changed\nask      "+sentence)

	host := run("k3splan show host ulrich")
	require.Regexp(t, `(?m)^  ip +10\.0\.100\.36 +plans/cluster\.xlsx!hosts!C6$`, host)
	require.Regexp(t, `(?m)^  gateway +10\.0\.100\.1 +plans/cluster\.xlsx!network!B2$`, host)

	// a workbook that was wrong in the past
	file, err = excelize.OpenFile(name)
	require.NoError(t, err)
	require.NoError(t, file.SaveAs(filepath.Join(project, "good.xlsx")))
	require.NoError(t, file.SetCellStr("hosts", "C6", "10.0.100"))
	require.NoError(t, file.SaveAs(name))
	require.NoError(t, file.Close())
	out, err := inShell(t, project, "git add plans && git -c user.name=t -c user.email=t@example.org commit -qm wrong && mv good.xlsx plans/cluster.xlsx && k3splan diff").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), `HEAD:plans/cluster.xlsx!hosts!C6: ip "10.0.100": not an IPv4 address`)
}
