package table

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
)

// machines is a table as simple as possible.
var machines = Schema{
	File: "plans/machines.csv", Sheet: "machines", Required: []string{"name", "ip"}, Optional: []string{"serial", "mac", "tags"}, Words: []string{"tags"}, Serials: "serial",
	Synonyms: map[string][]string{"name": {"hostname"}, "ip": {"ipaddress"}, "mac": {"macaddress", "hwaddr"}, "serial": {"serialnumber", "seriennummer", "herstellernr"}},
}

// brief returns the problems as "line column severity: message / hint".
func brief(problems diag.Problems) []string {
	lines := []string{}
	for _, p := range problems {
		lines = append(lines, fmt.Sprintf("%d %s %s: %s / %s", p.Line, p.Column, p.Severity, p.Message, p.Hint))
	}
	return lines
}

// What other inventories call the columns is reported with the name that k3splan knows.
func TestColumnsByOtherNames(t *testing.T) {
	suspicious := func(column, hint string) string {
		return "1 " + column + " warning: k3splan does not know this column and treats it as one of your own / " + hint
	}
	missing := func(column, hint string) string {
		return "1 " + column + " error: the column is missing / " + hint
	}
	const noHeader = "1  error: there is no header: this line names none of the columns / " +
		"let the first line name the columns, separated by comma, semicolon or tab: name,ip; begin a title above it with #"
	for header, want := range map[string][]string{
		"name,ip": {}, "name,ip,colour,rack unit": {},
		"name,ip,MAC Address,serial-number": {suspicious("mac address", `rename it to "mac" if that is what it holds`), suspicious("serial-number", `rename it to "serial" if that is what it holds`)},
		"name,ip,HWaddr":                    {suspicious("hwaddr", `rename it to "mac" if that is what it holds`)},
		"name,ip,mac,mac address":           {},
		"name,ip,mac_address,hwaddr":        {suspicious("mac_address", `rename it to "mac" if that is what it holds`)},
		"name,ip,serail":                    {suspicious("serail", `did you mean "serial"?`)},
		"Hostname;IP address":               {missing("name", `rename the column "hostname" to "name"`), missing("ip", `rename the column "ip address" to "ip"`)},
		"hostname\tmac address": {missing("name", `rename the column "hostname" to "name"`), missing("ip", "add the column to the header"),
			suspicious("mac address", `rename it to "mac" if that is what it holds`)},
		"name,ip,Seriennummer (SSD)":     {suspicious("seriennummer (ssd)", `rename it to "serial" if that is what it holds`)},
		"Hostname,IP address [LAN]":      {missing("name", `rename the column "hostname" to "name"`), missing("ip", `rename the column "ip address [lan]" to "ip"`)},
		"name,ip,Geraet":                 {},
		"name,ip,Hersteller-Nr. (Gerät)": {suspicious("hersteller-nr. (gerät)", `rename it to "serial" if that is what it holds`)},
		"olaf,10.0.0.1":                  {noHeader}, "olaf,mac": {noHeader}, "Our machines,": {noHeader},
	} {
		t.Run(header, func(t *testing.T) {
			require.Equal(t, want, brief(ReadCSV([]byte(header+"\n"), machines).Problems()))
		})
	}
}

// What a spreadsheet program makes of a cell is reported in CSV files too, where its text is all there is.
func TestRewrittenCells(t *testing.T) {
	for cell, what := range map[string]string{
		"1E+05": "a number in scientific notation", "5.00123E+15": "a number in scientific notation", "5,1E+12": "a number in scientific notation",
		"1,234": "a number with separators of thousands", "12'345'678": "a number with separators of thousands", "1,234.50": "a number with separators of thousands",
		"1'234": "a number with separators of thousands", "1.234.567": "a number with separators of thousands", "5.001.234.567.890": "a number with separators of thousands",
		"2. Mrz 26": "a date", "02-Dez": "a date", "3. Mär": "a date",
		"01/02/2026": "a date", "1/2": "a date", "2026-01-02": "a date", "2026-01-02 00:00:00": "a date", "01.02.2026": "a date", "2-Jan": "a date", "02. Mar 2026": "a date",
		"####": "signs for a number that its column was too narrow for",
	} {
		for _, column := range []string{"serial", "name"} {
			table := map[string]string{"name": "ip,name\n1,\"%s\"\n", "serial": "name,ip,serial\nolaf,1,\"%s\"\n"}[column]
			got := ReadCSV(fmt.Appendf(nil, table, cell), machines)
			require.Equal(t, []string{"2 " + column + " error: a spreadsheet program turned the cell into " + what + " / " + AsText}, brief(got.Problems()), cell)
			got.Rows[0].Fail(column, cell, "other", "and its consequences", "")
			require.Equal(t, 1, got.Errors(), "only that is reported")
		}
	}
	for _, cell := range []string{"S4EWNX0M700101", "1E5", "0012", "jan-2", "10.0.100.2", "24.11", "2-january-2", "12-34", "3/4/5/6", "0x1E", "e+5", "may"} {
		require.Empty(t, ReadCSV(fmt.Appendf(nil, "name,ip,serial\n%s,1,%s\n", cell, cell), machines).Problems(), cell)
	}
	// the user's own columns may hold dates and prices; digits are lost only in one of the forms
	got := ReadCSV([]byte("name,ip,bought,price,asset,tags\nolaf,1,01/02/2026,\"1,234\",5.1E+12,2026-01-02 a\nulf,2,,,6E+12,2026-01-02\n"), machines)
	require.Equal(t, []string{"2 asset warning: a spreadsheet program turned the cell into a number in scientific notation / " + AsText}, brief(got.Problems()))
}

// What a spreadsheet program leaves in a cell instead of its value is reported, and never taken for a comment.
func TestLeftovers(t *testing.T) {
	const failed, formula, apostrophe = "a formula of the spreadsheet failed here / correct it there and save the table again",
		"a formula of a spreadsheet, and not its value / save the table with the values of its cells, or type the value",
		"the cell begins with an apostrophe, by which spreadsheet programs mark a text / delete the apostrophe"
	for cell, what := range map[string]string{
		"#REF!": failed, "#NAME?": failed, "#N/A": failed, "#DIV/0!": failed, "#SPILL!": failed, "#ERROR!": failed,
		"#BEZUG!": failed, "#WERT!": failed, "#NV": failed, "#ZAHL!": failed, "#ÜBERLAUF!": failed, "#VALEUR!": failed, "#¿NOMBRE?": failed, "#¡REF!": failed,
		"#N/D": failed, "#Н/Д": failed, "#DEEL/0!": failed, "Err:502": failed,
		"=A1": formula, `=""olaf""`: formula, "'olaf": apostrophe, "'0012": apostrophe,
	} {
		for _, column := range []string{"ip", "serial", "tags"} {
			got := ReadCSV(fmt.Appendf(nil, "name,%s,%s\nolaf,\"%s\",1\n", column, map[bool]string{true: "serial", false: "ip"}[column == "ip"], cell), machines)
			require.Equal(t, []string{"2 " + column + " error: " + what}, brief(got.Problems()), cell)
			got.Rows[0].Fail(column, cell, "other", "and its consequences", "")
			require.Equal(t, 1, got.Errors(), "only that is reported")
		}
		own := ReadCSV(fmt.Appendf(nil, "name,ip,rack\nolaf,1,\"%s\"\nulf,2,\"%[1]s\"\n", cell), machines)
		require.Equal(t, []string{"2 rack warning: " + what}, brief(own.Problems()), "once a column: %s", cell)
		if cell[0] == '#' {
			require.Equal(t, []string{"2 name error: " + failed}, brief(ReadCSV([]byte("name,ip\n\""+cell+"\",1\nulf,2\n"), machines).Problems()))
			for _, row := range []string{cell + ",1", cell + " ,1", cell} {
				first := ReadCSV([]byte("name,ip\n"+row+"\nulf,2\n"), machines)
				require.Equal(t, []string{"2  error: " + failed}, brief(first.Problems()), row)
				require.False(t, first.Complete)
			}
		}
	}
	for _, comment := range []string{"# REF!", "#old,10.0.0.1", "#####", "#####,,", "##### racks #####", "#N/A is for machines without an address", "#olaf!,1", "#1"} {
		require.Empty(t, ReadCSV([]byte("name,ip\n"+comment+"\nulf,2\n"), machines).Problems(), comment)
	}
	require.Equal(t, []string{"2  error: a spreadsheet program turned the cell into " + tooNarrow + " / " + AsText},
		brief(ReadCSV([]byte("name,ip,tags\n#####,1,a\nulf,2,\n"), machines).Problems()))
}

func TestLostZeros(t *testing.T) {
	serials := func(cells ...string) []string {
		var text strings.Builder
		text.WriteString("name,ip,serial\n")
		for i, cell := range cells {
			fmt.Fprintf(&text, "host-%d,%d,%s\n", i, i, cell)
		}
		return brief(ReadCSV([]byte(text.String()), machines).Problems())
	}
	require.Equal(t, []string{"4 serial warning: shorter than the other numbers: a spreadsheet program removes the zeros at the beginning (012345) / " + AsText},
		serials("123456", "234567", "12345"))
	require.Empty(t, serials("123456", "12345"), "nobody knows")
	require.Empty(t, serials("123456", "234567", "12345", "1"), "of all lengths")
	require.Empty(t, serials("123456", "234567", "a12345"))
}
