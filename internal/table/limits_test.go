package table

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
)

const (
	mainXML   = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
	officeXML = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
)

// book makes a workbook of one sheet from its parts; a part that is not given is as small as possible.
func book(t *testing.T, sheet, shared, styles string) []byte {
	t.Helper()
	var data bytes.Buffer
	archive := zip.NewWriter(&data)
	relation := func(id, kind, target string) string {
		return fmt.Sprintf(`<Relationship Id=%q Type="%s/%s" Target=%q/>`, id, officeXML, kind, target)
	}
	for _, part := range [][2]string{
		{"[Content_Types].xml", "<Types/>"},
		{"_rels/.rels", "<Relationships>" + relation("r1", "officeDocument", "xl/workbook.xml") + "</Relationships>"},
		{"xl/workbook.xml", fmt.Sprintf(`<workbook xmlns=%q xmlns:r=%q><sheets><sheet name="machines" sheetId="1" r:id="r1"/></sheets></workbook>`, mainXML, officeXML)},
		{"xl/_rels/workbook.xml.rels", "<Relationships>" + relation("r1", "worksheet", "sheet.xml") + relation("r2", "sharedStrings", "shared.xml") + relation("r3", "styles", "styles.xml") + "</Relationships>"},
		{"xl/sheet.xml", "<worksheet><sheetData>" + sheet + "</sheetData></worksheet>"}, {"xl/shared.xml", "<sst>" + shared + "</sst>"}, {"xl/styles.xml", "<styleSheet>" + styles + "</styleSheet>"},
	} {
		writer, err := archive.Create(part[0])
		require.NoError(t, err)
		_, err = io.WriteString(writer, part[1])
		require.NoError(t, err)
	}
	require.NoError(t, archive.Close())
	return data.Bytes()
}

// What is far beyond any rack is refused with the reason, before it costs memory.
func TestLimitsOfWorkbooks(t *testing.T) {
	before := maxElements
	defer func() { maxElements = before }()
	maxElements = 400_000 // as for the others, only sooner
	const header = `<row r="1"><c t="inlineStr"><is><t>name</t></is></c><c t="inlineStr"><is><t>ip</t></is></c></row>`
	many := func(piece string, n int) string { return strings.Repeat(piece, n) }
	for name, test := range map[string]struct{ sheet, shared, styles, want string }{
		"formats":        {styles: "<cellXfs>" + many("<xf/>", maxElements+1) + "</cellXfs>", want: "more than 0.381 million cells, texts and formats"},
		"shared texts":   {shared: many("<si/>", maxElements+1), want: "more than 0.381 million cells, texts and formats"},
		"pieces of text": {shared: "<si>" + many("<r/>", maxElements+1) + "</si>", want: "more than 0.381 million cells, texts and formats"},
		"one text":       {shared: "<si><t>" + many("x", maxToken+1) + "</t></si>", want: "a tag or text has more than 1024 kB"},
		"text in pieces": {shared: "<si>" + many("<r><t>"+many("x", 1000)+"</t></r>", 1100) + "</si>", want: "a text has more than 1024 kB"},
		"attributes":     {sheet: "<row " + many(`a="" `, 300_000) + "/>", want: "a tag or text has more than 1024 kB"},
		"a comment":      {sheet: "<!--" + many("<>", maxToken) + "-->", want: "a tag or text has more than 1024 kB"},
		"depth":          {sheet: many("<a>", maxDepth), want: "its XML is nested more than 100 levels deep"},
		"rows":           {sheet: header + many("<row><c><v>1</v></c></row>", maxRows), want: "the table has more than 100000 rows or 2000000 cells"},
		"rows that reach far": {sheet: header + many(`<row><c><v>1</v></c></row>`, 9000) + `<row r="9999"><c r="IV9999"><v>1</v></c></row>`,
			want: "the table has more than 100000 rows or 2000000 cells"},
		"merged areas": {sheet: header + `</sheetData><mergeCells>` + many(`<mergeCell ref="A9:B9"/>`, maxMerged+1) + `</mergeCells><sheetData>`, want: "more than 4096 areas of cells are merged"},
		"a cell":       {sheet: header + `<row><c t="inlineStr"><is><t>` + many("x", maxText+1) + `</t></is></c></row>`, want: "a cell has more than 64 kB"},
	} {
		t.Run(name, func(t *testing.T) {
			w, problem := OpenWorkbook(book(t, test.sheet, test.shared, test.styles), "plans/cluster.xlsx")
			if problem == nil {
				problems := w.Table(machines).Problems()
				require.NotEmpty(t, problems)
				problem = &problems[0]
			}
			require.Equal(t, diag.Error, problem.Severity)
			require.Contains(t, problem.Message, test.want)
			require.NotEmpty(t, problem.Hint)
		})
	}
}

func TestLimitsOfCSV(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"bytes":   {strings.Repeat(",", MaxCSV+1), "the file has more than 16 MB"},
		"columns": {"name,ip" + strings.Repeat(",x", maxColumns) + "\n", "the row has more than 256 cells"},
		"rows":    {"name,ip\n" + strings.Repeat("a,b\n", maxRows+1), "the table has more than 100000 rows or 2000000 cells"},
		"cells":   {"name,ip" + strings.Repeat(",", 200) + "\n" + strings.Repeat("a"+strings.Repeat(",", 201)+"\n", maxCells/200), "the table has more than 100000 rows or 2000000 cells"},
		"a cell":  {"name,ip\n\"" + strings.Repeat("x", maxText+1) + "\",1\n", "a cell has more than 64 kB"},
	} {
		t.Run(name, func(t *testing.T) {
			table := ReadCSV([]byte(test.text), machines)
			require.Contains(t, fmt.Sprint(table.Problems()), test.want)
			require.False(t, table.Complete)
		})
	}
}

// Of thousands of problems of a kind the first are kept, and the number of the others.
func TestProblemsOfAKind(t *testing.T) {
	table := ReadCSV([]byte("name,ip\n"+strings.Repeat("a\n,,,\nb,c,d\n", 1000)), machines)
	problems := table.Problems()
	require.Len(t, problems, diag.MaxOfKind+1)
	require.Equal(t, 2000, table.Errors())
	problems.Sort()
	require.Equal(t, "plans/machines.csv: and 1900 more problems of this kind (row-length)", problems[diag.MaxOfKind].String())
}
