package plan

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/table"

	"github.com/stretchr/testify/require"
	"github.com/xuri/excelize/v2"
)

const goodNetworkRows = `key,value
netmask,24
gateway,10.0.100.1
versions.nixos,nixos-26.05
versions.k3s,1.35
`

// newWorkbook returns a workbook with the tables as text cells, changed by change.
func newWorkbook(t testing.TB, change func(*excelize.File)) fstest.MapFS {
	t.Helper()
	file := excelize.NewFile()
	defer file.Close()
	for _, sheet := range []string{"hosts", "k3s", "network"} { // sheet2.xml to sheet4.xml
		_, err := file.NewSheet(sheet)
		require.NoError(t, err)
		text := map[string]string{"hosts": goodHosts, "k3s": goodK3s, "network": goodNetworkRows}[sheet]
		rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
		require.NoError(t, err)
		for i, row := range rows {
			for column, text := range row {
				if text != "" {
					require.NoError(t, file.SetCellStr(sheet, table.CellName(column, i+1), text))
				}
			}
		}
	}
	require.NoError(t, file.DeleteSheet("Sheet1"))
	if change != nil {
		change(file)
	}
	var data bytes.Buffer
	require.NoError(t, file.Write(&data))
	return fstest.MapFS{WorkbookFile: {Data: data.Bytes()}}
}

// set writes a cell with a number format, "" for none.
func set(t *testing.T, sheet, cell string, value any, format string) func(*excelize.File) {
	return func(file *excelize.File) {
		require.NoError(t, file.SetCellValue(sheet, cell, value))
		if format == "" {
			format = "General"
		}
		style, err := file.NewStyle(&excelize.Style{CustomNumFmt: &format})
		require.NoError(t, err)
		require.NoError(t, file.SetCellStyle(sheet, cell, cell, style))
	}
}

func modelIn(t testing.TB, fsys fstest.MapFS) string {
	t.Helper()
	p, problems := Load(fsys)
	require.Empty(t, problems)
	data, err := json.MarshalIndent(p.Model(), "", "  ")
	require.NoError(t, err)
	return string(data)
}

// A workbook means the same as the files, however its owner arranges it.
func TestWorkbooksThatMeanTheSame(t *testing.T) {
	want := modelOf(t, nil)
	for name, change := range map[string]func(*excelize.File){
		"as it is": nil,
		"sheets with capitals, and one of notes": func(file *excelize.File) {
			require.NoError(t, file.SetSheetName("hosts", "Hosts"))
			_, err := file.NewSheet("Shopping list")
			require.NoError(t, err)
		},
		"rows of comments, also merged": func(file *excelize.File) {
			require.NoError(t, file.InsertRows("hosts", 1, 2))
			require.NoError(t, file.SetCellStr("hosts", "A1", "# the machines"))
			require.NoError(t, file.MergeCell("hosts", "A1", "F1"))
			require.NoError(t, file.InsertRows("k3s", 3, 3))
			require.NoError(t, file.SetCellStr("k3s", "A4", "# 1"))
			require.NoError(t, file.SetCellBool("k3s", "B4", true))
		},
		"a table that begins in another column": func(file *excelize.File) {
			require.NoError(t, file.InsertCols("hosts", "A", 2))
			require.NoError(t, file.InsertCols("network", "A", 1))
		},
		"numbers": func(file *excelize.File) {
			set(t, "network", "B2", 24, "")(file)
			set(t, "network", "B5", 1.35, "")(file)
		},
		"a number with the digits that its format shows": set(t, "network", "B5", 1.35, "0.00"),
		"capitals and blanks": func(file *excelize.File) {
			require.NoError(t, file.SetCellStr("hosts", "A1", " Name"))
			require.NoError(t, file.SetCellStr("hosts", "A2", "Olaf\u00a0"))
			require.NoError(t, file.SetCellStr("network", "A2", "Netmask "))
		},
		"no header in the network": func(file *excelize.File) {
			require.NoError(t, file.RemoveRow("network", 1))
		},
		"a list in cells side by side, empty and with notes": func(file *excelize.File) {
			require.NoError(t, file.SetSheetRow("network", "A1", &[]any{"note", "key", "value", "", "remark"}))
			for i, row := range [][]any{{"", "netmask", "/24", "", "as ever"}, {true, "gateway", "10.0.100.1"},
				{"", "nameservers", "8.8.8.8", "", 1e20}, {"", "versions.nixos", "26.05"}, {"", "versions.k3s", "v1.35"}, {"", "domain", ""}} {
				require.NoError(t, file.SetSheetRow("network", table.CellName(0, i+2), &row))
			}
		},
		"rich text": func(file *excelize.File) {
			require.NoError(t, file.SetCellRichText("hosts", "A3", []excelize.RichTextRun{{Text: "u"}, {Text: "lf", Font: &excelize.Font{Bold: true}}}))
		},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, want, modelIn(t, newWorkbook(t, change))) })
	}
}

// A wrong cell is named by sheet and cell; what the spreadsheet program has spoilt is no other
// mistake.
func TestProblemsInWorkbooks(t *testing.T) {
	text := func(sheet, cell, value string) func(*excelize.File) {
		return func(file *excelize.File) { require.NoError(t, file.SetCellStr(sheet, cell, value)) }
	}
	for _, test := range []struct {
		name   string
		change func(*excelize.File)
		want   []string
	}{
		{"type", text("k3s", "C3", "agnet"), []string{"type-unknown k3s!C3 type"}},
		{"an apostrophe that became text", text("hosts", "B3", "'enP4p65s0"), []string{"cell-number hosts!B3 interface"}},
		{"a failed formula that became text", text("hosts", "A3", "#BEZUG!"), []string{"cell-formula hosts!A3 name"}},
		{"address twice", text("k3s", "D4", "10.0.100.3"), []string{"address-duplicate k3s!D4 ip"}},
		{"column twice", text("hosts", "J1", "tags"), []string{"column-duplicate hosts!J1 tags"}},
		{"column nearly known", text("hosts", "E1", "serail"), []string{"column-suspicious hosts!E1 serail"}},
		{"no header", func(file *excelize.File) { require.NoError(t, file.RemoveRow("hosts", 1)) }, []string{"column-missing hosts!A1"}},
		{"a cell beside the table", text("k3s", "J3", "see below"), []string{"row-length k3s!J3"}},
		{"unknown key", text("network", "A3", "gatway"), []string{"key-unknown network!A3 gatway"}},
		{"key twice", text("network", "A6", "netmask"), []string{"key-duplicate network!A6 netmask"}},
		{"value", text("network", "B3", "router"), []string{"gateway-invalid network!B3 gateway"}},
		{"two values", text("network", "C3", "10.0.100.2"), []string{"value-invalid network!C3 gateway"}},
		{"value without a key", text("network", "B6", "x"), []string{"key-missing network!B6"}},
		{"a note without a header", func(file *excelize.File) {
			require.NoError(t, file.RemoveRow("network", 1))
			require.NoError(t, file.SetCellStr("network", "C1", "2"))
		}, []string{"value-invalid network!C1 netmask"}},
		{"versions on levels", func(file *excelize.File) {
			require.NoError(t, file.SetCellStr("network", "A6", "versions"))
			require.NoError(t, file.SetSheetRow("network", "A7", &[]any{"", "disko", "latest"}))
		}, []string{"key-unknown network!A6 versions", "key-missing network!B7"}},
		{"wrong item of a list", func(file *excelize.File) {
			require.NoError(t, file.SetSheetRow("network", "A6", &[]any{"tls_san", "ok.example", "b!"}))
		}, []string{"tls-san-invalid network!C6 tls_san"}},
		{"missing key", func(file *excelize.File) { require.NoError(t, file.RemoveRow("network", 3)) }, []string{"key-missing network gateway"}},
		{"sheet missing", func(file *excelize.File) { require.NoError(t, file.SetSheetName("k3s", "k3z")) }, []string{"sheet-missing k3s"}},
		{"network missing", func(file *excelize.File) { require.NoError(t, file.DeleteSheet("network")) }, []string{"sheet-missing network"}},
		{"an address that became a number", set(t, "hosts", "C3", 10100100200, "#,##0"), []string{"cell-number hosts!C3 ip"}},
		{"a serial that became a number", set(t, "hosts", "E3", 500123456789012, ""), []string{"cell-number hosts!E3 serial"}},
		{"a date in the user's language", set(t, "hosts", "E3", time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), "d. mmm"), []string{"cell-number hosts!E3 serial"}},
		{"Excel's own date", func(file *excelize.File) {
			require.NoError(t, file.SetCellValue("hosts", "E3", time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)))
		}, []string{"cell-number hosts!E3 serial"}},
		{"truth", func(file *excelize.File) { require.NoError(t, file.SetCellBool("hosts", "J3", true)) }, []string{"cell-number hosts!J3 rack"}},
		{"a version that lost its zero", set(t, "network", "B5", 1.3, ""), []string{"cell-number network!B5 versions.k3s"}},
		{"several mistakes in one row, one of them lost", func(file *excelize.File) {
			require.NoError(t, file.SetCellBool("hosts", "J3", true))
			require.NoError(t, file.SetCellStr("hosts", "C3", "10.0.100.2"))
			require.NoError(t, file.SetCellStr("hosts", "B3", "bad/if"))
		}, []string{"interface-invalid hosts!B3 interface", "address-duplicate hosts!C3 ip", "cell-number hosts!J3 rack"}},
		{"a name that was lost is not missed elsewhere", func(file *excelize.File) {
			require.NoError(t, file.SetCellBool("hosts", "A3", true))
		}, []string{"cell-number hosts!A3 name"}},
		{"formula without a value", func(file *excelize.File) {
			require.NoError(t, file.SetCellFormula("hosts", "I3", "1+1"))
		}, []string{"cell-formula hosts!I3 mac"}},
		{"merged", func(file *excelize.File) { require.NoError(t, file.MergeCell("k3s", "A2", "A3")) }, []string{
			"cell-merged k3s!A2 host"}},
		{"two merged areas, in the table and beside it", func(file *excelize.File) {
			require.NoError(t, file.MergeCell("hosts", "J2", "J4"))
			require.NoError(t, file.MergeCell("hosts", "A3", "B3"))
		}, []string{"cell-merged hosts!J2 rack", "cell-merged hosts!A3 name"}},
		{"a title", func(file *excelize.File) {
			require.NoError(t, file.InsertRows("hosts", 1, 1))
			require.NoError(t, file.SetCellStr("hosts", "A1", "The machines"))
		}, []string{"column-missing hosts!A1"}},
		{"a merged title", func(file *excelize.File) {
			require.NoError(t, file.InsertRows("hosts", 1, 1))
			require.NoError(t, file.SetCellStr("hosts", "A1", "The machines"))
			require.NoError(t, file.MergeCell("hosts", "A1", "J1"))
		}, []string{"cell-merged hosts!A1"}},
		{"two sheets of almost the same name", func(file *excelize.File) {
			_, err := file.NewSheet("Hosts ")
			require.NoError(t, err)
		}, []string{"sheet-duplicate hosts"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, problems := Load(newWorkbook(t, test.change))
			got := []string{}
			for _, p := range problems {
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s", p.Code, strings.TrimPrefix(p.File, WorkbookFile+"!"), p.Column)))
				require.NotEmpty(t, p.Message)
			}
			require.Equal(t, test.want, got, "%v", problems)
		})
	}
}

func TestProblemInWorkbookNamesTheCell(t *testing.T) {
	_, problems := Load(newWorkbook(t, func(file *excelize.File) {
		require.NoError(t, file.SetCellStr("k3s", "C3", "agnet"))
		require.NoError(t, file.SetCellStr("k3s", "D3", "10.0.100.3"))
	}))
	require.Len(t, problems, 2)
	require.Equal(t, diag.Problem{File: "plans/cluster.xlsx!k3s!D3", Line: 3, Column: "ip", Value: "10.0.100.3", Severity: diag.Error, Code: "address-duplicate",
		Message: `the address is taken by host "ulf" (plans/cluster.xlsx!hosts!C3)`, Hint: "the next free one is 10.0.100.6"}, problems[0])
	require.Equal(t, `plans/cluster.xlsx!k3s!C3: type "agnet": unknown type`, problems[1].String())
}

// Hints are about cells, not about YAML.
func TestHintsInWorkbooks(t *testing.T) {
	_, problems := Load(newWorkbook(t, func(file *excelize.File) {
		require.NoError(t, file.SetSheetRow("network", "A1", &[]any{"versions", ""}))
		for range 4 {
			require.NoError(t, file.RemoveRow("network", 2))
		}
	}))
	hints := map[string]string{}
	for _, p := range problems {
		hints[p.Column] = p.Hint
	}
	require.Equal(t, map[string]string{
		"netmask":        "write a row with netmask in one cell, and 24 in the next",
		"gateway":        "write a row with gateway in one cell, and 10.0.100.1 in the next, the address of your router",
		"versions":       "write versions.nixos, versions.k3s, versions.disko, versions.state, versions.permit_ended, each in a row of its own",
		"versions.nixos": "write a row with versions.nixos in one cell, and nixos-26.05 in the next",
		"versions.k3s":   "write a row with versions.k3s in one cell, and 1.35 in the next",
	}, hints)
}

// Problems are in the order of the rows, not of the cells' names: C10 comes after C9.
func TestProblemsInWorkbooksAreSorted(t *testing.T) {
	_, problems := Load(newWorkbook(t, func(file *excelize.File) {
		for i := range 12 {
			name := fmt.Sprintf("host-%d", i)
			require.NoError(t, file.SetSheetRow("hosts", table.CellName(0, 5+i), &[]any{name, "bad/if", "dhcp@" + name, "admin"}))
		}
	}))
	var lines []int
	for _, p := range problems {
		lines = append(lines, p.Line)
	}
	require.Equal(t, []int{5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, lines)
}

func TestBothFormsAtOnce(t *testing.T) {
	fsys := newWorkbook(t, nil)
	for file, data := range project(nil) {
		fsys[file] = data
	}
	p, problems := Load(fsys)
	require.Len(t, problems, 1)
	require.Equal(t, `plans/cluster.xlsx: the plan is here and in plans/hosts.csv, plans/k3s.csv, plans/network.yaml`, problems[0].String())
	require.Equal(t, "plan-duplicate", problems[0].Code)
	require.False(t, p.Complete)
}

// zipOf returns an archive of one file.
func zipOf(t *testing.T, name string, content []byte) []byte {
	var data bytes.Buffer
	writer := zip.NewWriter(&data)
	part, err := writer.Create(name)
	require.NoError(t, err)
	_, err = part.Write(content)
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	return data.Bytes()
}

// A spreadsheet under another name is found and named, instead of missing tables.
func TestWorkbooksUnderOtherNames(t *testing.T) {
	for _, file := range []string{"plans/Cluster.xlsx", "plans/rack.ods", "plans/old.XLS", "plans/macros.xlsm"} {
		_, problems := Load(fstest.MapFS{file: {Data: []byte("x")}, "plans/.~lock.cluster.xlsx#": {}})
		require.Len(t, problems, 1)
		require.Equal(t, file+": k3splan reads no spreadsheet but plans/cluster.xlsx", problems[0].String())
	}
	for _, lock := range []string{"plans/.~lock.cluster.xlsx#", "plans/~$cluster.xlsx"} {
		_, problems := Load(fstest.MapFS{lock: {}})
		require.Len(t, problems, 3, "the tables are missing")
		fsys := newWorkbook(t, nil)
		fsys[lock] = &fstest.MapFile{Data: []byte("x")}
		require.Equal(t, modelOf(t, nil), modelIn(t, fsys))
	}
	fsys := project(nil)
	fsys["plans/orders.ods"] = &fstest.MapFile{}
	require.Equal(t, modelOf(t, nil), modelIn(t, fsys))
}

func TestWorkbooksThatCannotBeRead(t *testing.T) {
	good := newWorkbook(t, nil)[WorkbookFile].Data
	for name, data := range map[string][]byte{
		"empty": {}, "text": []byte("name;interface"), "cut off": good[:len(good)/2],
		"of an old Excel":      append([]byte("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), make([]byte, 4096)...),
		"with a wrong archive": append([]byte("PK\x03\x04"), good[200:]...),
		"of OpenDocument":      zipOf(t, "mimetype", []byte("application/vnd.oasis.opendocument.spreadsheet")),
	} {
		t.Run(name, func(t *testing.T) {
			_, problems := Load(fstest.MapFS{WorkbookFile: {Data: data}})
			require.Len(t, problems, 1)
			require.Equal(t, "xlsx-syntax", problems[0].Code)
			require.Contains(t, problems[0].File, WorkbookFile) // or one of its sheets
		})
	}
	t.Run("protected", func(t *testing.T) {
		file := excelize.NewFile()
		defer file.Close()
		var data bytes.Buffer
		require.NoError(t, file.Write(&data, excelize.Options{Password: "x"}))
		_, problems := Load(fstest.MapFS{WorkbookFile: {Data: data.Bytes()}})
		require.Len(t, problems, 1)
		require.Contains(t, problems[0].Message, "protected by a password")
	})
}

// What a cell shows by its format, as LibreOffice shows it; "" is a problem.
func TestFormats(t *testing.T) {
	for _, test := range []struct {
		value  any
		format string
		want   string
	}{
		{1.31, "General", "1.31"}, {7, "@", "7"}, {1.1000000000000001, "General", "1.1"}, {12345678901, "General", "12345678901"},
		{123456789012, "General", ""}, {1.0 / 3, "General", ""}, {1e-5, "General", ""}, {1.3, "0.00", "1.30"}, {0.125, "0.00", "0.13"},
		{-0.001, "0.00", "0.00"}, {-2.5, "0", "-3"}, {12, "0000", "0012"}, {0.05, "0%", "5%"}, {7, "[$-409]0.00", "7.00"},
		{46000.5, "yyyy\\-mm\\-dd", "2025-12-09"}, {46000.5, "[$-40C]yyyy-mm-dd hh:mm:ss", "2025-12-09 12:00:00"}, {59, "yyyy-mm-dd", ""},
		{0.5, "hh:mm", ""}, {1, "#,##0", ""}, {1, `"rack-"0`, ""}, {1, "General;;;", ""}, {100000, "0.00E+00", ""},
		{"x", "General", "x"}, {"x", "@", "x"}, {"x", "[$-407]@", "x"}, {"x", "0.00", "x"}, {"x", "0;-0;;@", "x"},
		{"x", `_-* #,##0_-;-* #,##0_-;_-* "-"_-;_-@_-`, "x"}, {"x", `"rack-"@`, ""}, {"x", ";;;", ""},
	} {
		t.Run(fmt.Sprint(test.value, " in ", test.format), func(t *testing.T) {
			p, problems := Load(newWorkbook(t, set(t, "hosts", "E3", test.value, test.format)))
			if test.want == "" {
				require.Len(t, problems, 1)
				require.Equal(t, "plans/cluster.xlsx!hosts!E3", problems[0].Place())
				require.Equal(t, "cell-number", problems[0].Code)
				require.NotEmpty(t, problems[0].Hint)
				return
			}
			require.Empty(t, problems)
			require.Equal(t, test.want, p.Host("ulf").Serial)
		})
	}
}

// In the user's own columns a value counts, whatever its cell shows: dates in the form of ISO 8601, and what
// not everybody sees alike with one warning for the column.
func TestValuesOfOwnColumns(t *testing.T) {
	day := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		value        any
		format, want string
		warned       bool
	}{
		{day, "d. mmm", "2026-01-02", false}, {day, "m/d/yyyy", "2026-01-02", false}, {day.Add(90 * time.Minute), "dd.mm.yy hh:mm", "2026-01-02T01:30:00", false},
		{0.5, "hh:mm", "12:00:00", false}, {2.5, "[h]:mm", "2.5", true}, {1234.5, `#,##0.00 "€"`, "1234.5", true}, {1234.5, `#,##0.00\ [$€-407]`, "1234.5", true},
		{7, `"day "0`, "7", true}, {7, "[Red]0;[Red]-0", "7", true}, {59, "yyyy-mm-dd", "59", true}, {123456789012345, "General", "123456789012345", true}, {"x", `"rack-"@`, "x", true}, {true, "", "TRUE", true},
	} {
		t.Run(fmt.Sprint(test.value, " in ", test.format), func(t *testing.T) {
			p, problems := Load(newWorkbook(t, func(file *excelize.File) {
				set(t, "hosts", "J2", test.value, test.format)(file)
				set(t, "hosts", "J3", test.value, test.format)(file)
			}))
			require.Zero(t, problems.Errors(), "%v", problems)
			require.Equal(t, test.want, p.Host("ulf").Own["rack"])
			require.Equal(t, test.warned, len(problems) == 1, "%v", problems)
			if test.warned {
				require.Equal(t, "plans/cluster.xlsx!hosts!J2", problems[0].Place())
				require.Contains(t, problems[0].Message, "is read as "+test.want)
			}
		})
	}
}

// Where dates count from 1904, the same number is another day.
func TestDatesOfOldMacs(t *testing.T) {
	fsys := newWorkbook(t, func(file *excelize.File) {
		yes := true
		require.NoError(t, file.SetWorkbookProps(&excelize.WorkbookPropsOptions{Date1904: &yes}))
		set(t, "hosts", "J3", 44538, "yyyy-mm-dd")(file)
	})
	p, problems := Load(fsys)
	require.Empty(t, problems)
	require.Equal(t, "2025-12-09", p.Host("ulf").Own["rack"])
}

// partOf returns a part of a workbook's package.
func partOf(t testing.TB, workbook fstest.MapFS, name string) string {
	t.Helper()
	data := workbook[WorkbookFile].Data
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	require.NoError(t, err)
	text, err := fs.ReadFile(archive, name)
	require.NoError(t, err)
	return string(text)
}

// withPart returns the workbook with another text in a part of its package.
func withPart(t testing.TB, workbook fstest.MapFS, name, text string) fstest.MapFS {
	t.Helper()
	data := workbook[WorkbookFile].Data
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	require.NoError(t, err)
	var changed bytes.Buffer
	writer := zip.NewWriter(&changed)
	for _, part := range archive.File {
		if part.Name != name {
			require.NoError(t, writer.Copy(part))
		}
	}
	part, err := writer.Create(name)
	require.NoError(t, err)
	_, err = part.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	return fstest.MapFS{WorkbookFile: {Data: changed.Bytes()}}
}

const hostsPart = "xl/worksheets/sheet2.xml"

// withRows returns the good workbook with more rows, as XML, at the end of the sheet hosts.
func withRows(t testing.TB, rows string) fstest.MapFS {
	good := newWorkbook(t, nil)
	return withPart(t, good, hostsPart, strings.Replace(partOf(t, good, hostsPart), "</sheetData>", rows+"</sheetData>", 1))
}

// Sheets are formatted as far as they reach. What has no value costs neither time nor memory: with
// excelize's own ways to look at a cell, 1,000 values in the last column took hours.
func TestSheetsThatReachFar(t *testing.T) {
	many := func(n int, format string) string {
		var rows strings.Builder
		for i := range n {
			fmt.Fprintf(&rows, format, 100+i)
		}
		return rows.String()
	}
	want := modelOf(t, nil)
	for name, rows := range map[string]string{
		"a format in the last cell":       `<row r="1048576"><c r="XFD1048576" s="0"/></row>`,
		"a comment in the last row":       `<row r="1048576"><c r="A1048576" t="inlineStr"><is><t># end</t></is></c></row>`,
		"heights and formats of all rows": many(100_000, `<row r="%[1]d" ht="12"><c r="A%[1]d" s="0"/><c r="B%[1]d" s="0"/></row>`),
		"formats in the last column":      many(1000, `<row r="%[1]d"><c r="XFD%[1]d" s="0"/></row>`),
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, want, modelIn(t, withRows(t, rows))) })
	}
	t.Run("merged down to the last cell", func(t *testing.T) {
		good := newWorkbook(t, nil)
		text := strings.Replace(partOf(t, good, hostsPart), "</sheetData>", `</sheetData><mergeCells><mergeCell ref="A10:XFD1048576"/></mergeCells>`, 1)
		require.Equal(t, want, modelIn(t, withPart(t, good, hostsPart, text)))
	})
	t.Run("values in the last column", func(t *testing.T) {
		_, problems := Load(withRows(t, many(1000, `<row r="%[1]d"><c r="XFD%[1]d"><v>1</v></c></row>`)))
		require.Len(t, problems, diag.MaxOfKind+1)
		require.Equal(t, `plans/cluster.xlsx!hosts!XFD100: "1": the cell is far beside the table`, problems[0].String())
		require.Equal(t, `plans/cluster.xlsx!hosts: and 900 more problems of this kind (row-length)`, problems[diag.MaxOfKind].String(), "in the end")
	})
}

// What no program writes is refused, before a row gets lost in it.
func TestSheetsInDisorder(t *testing.T) {
	for name, rows := range map[string]string{
		"a row before the others": `<row r="1"><c r="A1"><v>1</v></c></row>`,
		"a row behind the last":   `<row r="1048577"><c r="A1048577"><v>1</v></c></row>`,
		"a cell twice":            `<row r="9"><c r="A9"><v>1</v></c><c r="A9"><v>2</v></c></row>`,
		"a cell of another row":   `<row r="9"><c r="A10"><v>1</v></c></row>`,
		"a cell without a row":    `<row r="9"><c r="A"><v>1</v></c></row>`,
		"a row without a number":  `<row r="x"></row>`,
		"an element not closed":   `<row r="9"><c></row>`,
	} {
		t.Run(name, func(t *testing.T) {
			_, problems := Load(withRows(t, rows))
			require.Len(t, problems, 1, "%v", problems)
			require.Equal(t, "xlsx-syntax", problems[0].Code)
			require.Equal(t, "plans/cluster.xlsx!hosts", problems[0].File)
			require.Contains(t, problems[0].Message, "the sheet cannot be read: ")
		})
	}
}

// What others write, and Excel itself, beside the plain sheet.
func TestSheetsOfOtherPrograms(t *testing.T) {
	want := modelOf(t, nil)
	good := newWorkbook(t, nil)
	changed := func(part, from, to string) fstest.MapFS {
		text := partOf(t, good, part)
		require.Contains(t, text, from)
		return withPart(t, good, part, strings.ReplaceAll(text, from, to))
	}
	unnumbered := regexp.MustCompile(`<c r="J[2-9]"`).ReplaceAllString(partOf(t, good, hostsPart), "<c/><c/><c/><c/><c/><c")
	unnumbered = regexp.MustCompile(`<(row|c) r="[A-Z]?[0-9]+"`).ReplaceAllString(unnumbered, "<$1")
	for name, fsys := range map[string]fstest.MapFS{
		"a button at row 99999999":       changed(hostsPart, "</sheetData>", `</sheetData><controls><from><row r="99999999">9</row><c r="?"/></from></controls>`),
		"rows and cells without numbers": withPart(t, good, hostsPart, unnumbered),
		"the strict form":                changed(hostsPart, "http://schemas.openxmlformats.org/spreadsheetml/2006/main", "http://purl.oclc.org/ooxml/spreadsheetml/main"),
		"absolute names of parts":        changed("xl/_rels/workbook.xml.rels", `Target="worksheets`, `Target="/xl/worksheets`),
		"names of parts in another case": changed("xl/_rels/workbook.xml.rels", `Target="worksheets/sheet`, `Target="Worksheets/Sheet`),
		"the reading of a text":          changed("xl/sharedStrings.xml", "</t></si>", "</t><rPh sb=\"0\" eb=\"1\"><t>reading</t></rPh></si>"),
		"escaped line ends":              changed("xl/sharedStrings.xml", "</t></si>", "_x000D_\n</t></si>"),
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, want, modelIn(t, fsys)) })
	}
}

// #REF! at the beginning of a row is not a comment.
func TestFormulaErrorsInWorkbooks(t *testing.T) {
	_, problems := Load(withRows(t, `<row r="9"><c r="A9" t="e"><f>#REF!</f><v>#REF!</v></c><c r="B9" t="str"><f>B2</f><v>eno1</v></c></row>`))
	require.Len(t, problems, 3, "and what else is missing: %v", problems)
	require.Equal(t, `plans/cluster.xlsx!hosts!A9: name "#REF!": the cell shows an error`, problems[2].String())
}

// FuzzSheet: whatever a sheet's XML holds is a plan or problems, never a panic.
func FuzzSheet(f *testing.F) {
	good := newWorkbook(f, nil)
	parts := []string{hostsPart, "xl/sharedStrings.xml", "xl/styles.xml", "xl/workbook.xml", "xl/_rels/workbook.xml.rels"}
	for i, name := range parts {
		f.Add(uint8(i), partOf(f, good, name))
	}
	f.Add(uint8(0), `<worksheet><sheetData><row r="1"><c r="A1" t="inlineStr"><is><t>name</t></is></c><c r="XFD1" t="e" s="9"><v>#N/A</v></c></row><row r="1048576"><c><f>1+A1</f></c></row></sheetData><mergeCells><mergeCell ref="A1:XFD1048576"/></mergeCells></worksheet>`)
	f.Add(uint8(0), `<worksheet><sheetData><row r="1"><c r="A1" t="d"><v>2024</v></c><c r="A1" t="s"><v>-1</v></c><c t="b"><f>A1</f><v></v></c></row></sheetData></worksheet>`)
	f.Fuzz(func(t *testing.T, which uint8, text string) {
		_, problems := Load(withPart(t, good, parts[int(which)%len(parts)], text))
		for _, problem := range problems {
			require.NotEmpty(t, problem.Code)
		}
	})
}

func BenchmarkWorkbook(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			fsys := rackInWorkbook(b, n)
			b.ReportAllocs()
			for b.Loop() {
				if p, problems := Load(fsys); problems.Errors() > 0 || len(p.Hosts) != n {
					b.Fatal(problems)
				}
			}
		})
	}
}

// rackInWorkbook returns the tables of rack in a workbook.
func rackInWorkbook(t testing.TB, n int) fstest.MapFS {
	t.Helper()
	file := excelize.NewFile()
	defer file.Close()
	for sheet, name := range map[string]string{"hosts": HostsFile, "k3s": K3sFile} {
		_, err := file.NewSheet(sheet)
		require.NoError(t, err)
		rows, err := csv.NewReader(bytes.NewReader(rack(n)[name].Data)).ReadAll()
		require.NoError(t, err)
		stream, err := file.NewStreamWriter(sheet)
		require.NoError(t, err)
		for i, row := range rows {
			cells := make([]any, len(row))
			for j := range row {
				cells[j] = row[j]
			}
			require.NoError(t, stream.SetRow(table.CellName(0, i+1), cells))
		}
		require.NoError(t, stream.Flush())
	}
	require.NoError(t, file.SetSheetName("Sheet1", "network"))
	for i, row := range [][]any{{"netmask", 10}, {"gateway", "10.127.255.254"}, {"pod_cidr", "10.128.0.0/16"}, {"service_cidr", "10.129.0.0/16"},
		{"versions.nixos", "nixos-26.05"}, {"versions.k3s", "1.35"}, {"versions.state", "26.05"}} {
		require.NoError(t, file.SetSheetRow("network", table.CellName(0, i+1), &row))
	}
	var data bytes.Buffer
	require.NoError(t, file.Write(&data))
	return fstest.MapFS{WorkbookFile: {Data: data.Bytes()}}
}

// What LibreOffice makes of the CSV tables, opening them and saving them as the sheets of one
// workbook, reads to the same model as the CSV tables themselves. With "special numbers" it takes
// all for a number or date that looks like one.
func TestLibreOffice(t *testing.T) {
	office, err := exec.LookPath("soffice")
	if err != nil {
		t.Skip("SKIP: LibreOffice is not on PATH (Debian: libreoffice-calc)")
	}
	for example, options := range map[string][]bool{"rack": {false, true}, "single": {false}} {
		for _, specialNumbers := range options {
			t.Run(fmt.Sprintf("%s, special numbers %v", example, specialNumbers), func(t *testing.T) {
				folder := filepath.Join("..", "..", "examples", example)
				want, problems := Load(os.DirFS(folder))
				require.Empty(t, problems)
				tables := map[string]string{"network": networkRows(want)}
				for _, name := range []string{"hosts", "k3s"} {
					data, err := os.ReadFile(filepath.Join(folder, "plans", name+".csv"))
					require.NoError(t, err)
					tables[name] = string(data)
				}
				got, problems := Load(fstest.MapFS{WorkbookFile: {Data: saveAsWorkbook(t, office, tables, specialNumbers)}})
				require.Empty(t, problems)
				require.Equal(t, want.Model(), got.Model())
			})
		}
	}
}

// What LibreOffice takes for a number or date comes out as it shows it, or as a problem. What it
// shows is what it writes into a CSV file of the workbook.
func TestLibreOfficeShowsTheSame(t *testing.T) {
	office, err := exec.LookPath("soffice")
	if err != nil {
		t.Skip("SKIP: LibreOffice is not on PATH (Debian: libreoffice-calc)")
	}
	cells := []string{"0012", "500123456789012345", "1e10", "2026-03-01", "3/4", "TRUE", "12:30", "5%", "1,000", "=1+1", "1.50", "$5",
		"Jan 24", "52:54:00:12:34:56", "2026-03-01 12:30:00", "-7", "0.1", "=1/3", "='1'&\"x\"", "1-2-26", "10.100.100.200", "#x", "1E5", "24.11", "1.31", "00:1A:2B",
		`="10.0.100."&ROW()`, "=NA()", `=""`, "=TRUE()", "0.00001", "12345678901", "_x0041_"}
	hosts := "name,interface,ip,admin,serial\n"
	for i, cell := range cells {
		hosts += fmt.Sprintf("host-%d,eno1,10.0.100.%d,admin,\"%s\"\n", i, i+2, strings.ReplaceAll(cell, `"`, `""`))
	}
	dir := t.TempDir()
	data := saveAsWorkbook(t, office, map[string]string{
		"hosts": hosts, "k3s": "host,name,type,ip\n", "network": "netmask,24\ngateway,10.0.100.1\nversions.nixos,26.05\n",
	}, true)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "shown.xlsx"), data, 0o600))
	convertIn(t, office, dir, "csv:Text - txt - csv (StarCalc):44,34,76,1,,1033,false,false,true", "shown.xlsx")
	file, err := os.Open(filepath.Join(dir, "shown.csv"))
	require.NoError(t, err)
	defer file.Close()
	shown, err := csv.NewReader(file).ReadAll()
	require.NoError(t, err)

	p, problems := Load(fstest.MapFS{WorkbookFile: {Data: data}})
	told := map[int]bool{}
	for _, problem := range problems {
		require.Equal(t, "serial", problem.Column)
		require.Contains(t, []string{"cell-number", "cell-formula"}, problem.Code)
		told[problem.Line] = true
	}
	read := []string{}
	for i, cell := range cells {
		if !told[i+2] {
			require.Equal(t, strings.ToLower(shown[i+1][4]), p.Host(fmt.Sprintf("host-%d", i)).Serial, cell)
			read = append(read, cell)
		}
	}
	require.Subset(t, read, []string{"0012", "2026-03-01", "=1+1", "52:54:00:12:34:56", "-7", "10.100.100.200", "#x", "24.11", "1.31", "00:1A:2B", `="10.0.100."&ROW()`, "12345678901", "_x0041_"}, "what is the same everywhere is read")
	for _, cell := range []string{"500123456789012345", "3/4", "TRUE", "$5", "Jan 24", "12:30", "1E5", "=NA()", "=TRUE()"} {
		require.NotContains(t, read, cell, "LibreOffice shows %s", shown[slices.Index(cells, cell)+1][4])
	}
}

// networkRows returns a network as the rows of a sheet.
func networkRows(p *Plan) string {
	m := p.Model().Network
	rows := fmt.Sprintf("key,value\nnetmask,/%d\ngateway,%s\nnameservers,%s\nversions.nixos,%s\npod_cidr,%s\n",
		m.Netmask, m.Gateway, strings.Join(m.Nameservers, ","), m.Versions.NixOS, m.PodCIDR)
	for key, value := range map[string]*string{"domain": m.Domain, "timezone": m.Timezone, "versions.k3s": m.Versions.K3s, "versions.state": m.Versions.State} {
		if value != nil {
			rows += key + "," + *value + "\n"
		}
	}
	return rows + fmt.Sprintf("tls_san,%q\n", strings.Join(m.TLSSAN, " "))
}

// saveAsWorkbook has LibreOffice make a workbook of CSV tables: it opens each of them, and saves
// their sheets together as xlsx. specialNumbers is the option of that name when it opens a CSV file.
func saveAsWorkbook(t *testing.T, office string, tables map[string]string, specialNumbers bool) []byte {
	t.Helper()
	dir := t.TempDir()
	names := []string{"hosts", "k3s", "network"}
	args := []string{fmt.Sprintf("--infilter=CSV:44,34,76,1,,1033,false,%v", specialNumbers)}
	for _, name := range names {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name+".csv"), []byte(tables[name]), 0o600))
		args = append(args, name+".csv")
	}
	convertIn(t, office, dir, "fods", args...)
	var document string
	for i, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, name+".fods"))
		require.NoError(t, err)
		if i == 0 {
			document = string(data)
		} else {
			document = withSheetOf(t, document, string(data), name)
		}
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cluster.fods"), []byte(document), 0o600))
	convertIn(t, office, dir, "xlsx:Calc MS Excel 2007 XML", "cluster.fods")
	data, err := os.ReadFile(filepath.Join(dir, "cluster.xlsx"))
	require.NoError(t, err)
	return data
}

// convertIn has LibreOffice convert files of a folder.
func convertIn(t *testing.T, office, dir, to string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	profile := url.URL{Scheme: "file", Path: filepath.Join(dir, "profile")} // with a blank in it LibreOffice waits for ever
	run := exec.CommandContext(ctx, office, append([]string{"-env:UserInstallation=" + profile.String(),
		"--headless", "--norestore", "--convert-to", to}, args...)...)
	run.Dir = dir
	run.Env = append(os.Environ(), "HOME="+dir, "LC_ALL=C.UTF-8")
	// the program starts another one, which holds our pipe
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	run.Cancel = func() error { return syscall.Kill(-run.Process.Pid, syscall.SIGKILL) }
	out, err := run.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

var styleName = regexp.MustCompile(`style:name="([^"]+)"`)

// withSheetOf puts the sheet of another flat OpenDocument at the end of a document, with its
// styles under new names.
func withSheetOf(t *testing.T, document, other, name string) string {
	between := func(text, from, to string) string {
		begin, end := strings.Index(text, from), strings.Index(text, to)
		require.True(t, begin >= 0 && end > begin, "%s", from)
		return text[begin:end]
	}
	const styles, stylesEnd, tableEnd = "<office:automatic-styles>", "</office:automatic-styles>", "</table:table>"
	moved := strings.TrimPrefix(between(other, styles, stylesEnd), styles)
	sheet := between(other, "<table:table ", tableEnd) + tableEnd
	for _, m := range styleName.FindAllStringSubmatch(moved, -1) {
		old, new := `="`+m[1]+`"`, `="`+name+"-"+m[1]+`"`
		moved, sheet = strings.ReplaceAll(moved, old, new), strings.ReplaceAll(sheet, old, new)
	}
	document = strings.Replace(document, stylesEnd, moved+stylesEnd, 1)
	last := strings.LastIndex(document, tableEnd) + len(tableEnd)
	return document[:last] + sheet + document[last:]
}
