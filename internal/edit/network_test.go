package edit

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
	"github.com/xuri/excelize/v2"

	"k3splan/internal/plan"
)

// The sheet of the network is written in whatever form people gave it, and nothing else in it changes.
func TestSetSecretStore(t *testing.T) {
	set := func(cells map[string]string) func(*testing.T, *excelize.File) {
		return func(t *testing.T, file *excelize.File) {
			require.NoError(t, file.RemoveRow("network", 6)) // versions.state
			for cell, text := range cells {
				require.NoError(t, file.SetCellStr("network", cell, text))
			}
		}
	}
	inPass := plan.SecretStore{Kind: plan.SecretPass, Prefix: "k3splan/rack"}
	for name, test := range map[string]struct {
		change func(*testing.T, *excelize.File)
		want   map[string]string
	}{
		"new rows":      {set(nil), map[string]string{"A6": "secrets", "B6": "pass", "A7": "pass_prefix", "B7": "k3splan/rack"}},
		"a row":         {set(map[string]string{"A6": "Secrets", "B6": "age"}), map[string]string{"A6": "Secrets", "B6": "pass", "A7": "pass_prefix"}},
		"an empty row":  {set(map[string]string{"A6": "secrets"}), map[string]string{"A6": "secrets", "B6": "pass", "A7": "pass_prefix"}},
		"farther right": {set(map[string]string{"A6": "secrets", "D6": "age"}), map[string]string{"B6": "", "D6": "pass", "B7": "k3splan/rack"}},
		"a note below":  {set(map[string]string{"A6": "# ask Ulf", "A8": "# before noon"}), map[string]string{"A6": "secrets", "A7": "pass_prefix", "A8": "# ask Ulf", "A10": "# before noon"}},
		"a header":      {set(map[string]string{"A1": "key", "B1": "value", "C1": "note", "C2": "ask Ulf"}), map[string]string{"C2": "ask Ulf", "A6": "secrets", "B6": "pass", "C6": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			book := inWorkbook(t, rack(t), func(file *excelize.File) { test.change(t, file) })
			got, err := SetSecretStore(book[plan.WorkbookFile].Data, inPass)
			require.NoError(t, err)
			after := fstest.MapFS{}
			for name, file := range book {
				after[name] = file
			}
			after[plan.WorkbookFile] = &fstest.MapFile{Data: got}
			require.Equal(t, inPass, load(t, after).Network.Secrets)
			require.Equal(t, model(t, book), model(t, after))
			file := opened(t, after)
			for cell, want := range test.want {
				text, err := file.GetCellValue("network", cell)
				require.NoError(t, err)
				require.Equal(t, want, text, cell)
			}
			again, err := SetSecretStore(got, inPass)
			require.NoError(t, err)
			require.Equal(t, got, again)
		})
	}
	_, err := SetSecretStore([]byte("x"), inPass)
	require.ErrorAs(t, err, new(*Invalid))
}

func TestSetNetwork(t *testing.T) {
	book := inWorkbook(t, rack(t), func(file *excelize.File) {
		require.NoError(t, file.RemoveRow("network", 6)) // versions.state
		require.NoError(t, file.SetCellStr("network", "A7", "# below"))
	})
	cell := func(data []byte, name string) string {
		text, err := opened(t, fstest.MapFS{plan.WorkbookFile: &fstest.MapFile{Data: data}}).GetCellValue("network", name)
		require.NoError(t, err)
		return text
	}
	before := book[plan.WorkbookFile].Data
	set, err := SetNetwork(before, "timezone", "Europe/Berlin")
	require.NoError(t, err)
	require.Equal(t, []string{"timezone", "Europe/Berlin"}, []string{cell(set, "A6"), cell(set, "B6")})
	again, err := SetNetwork(set, "timezone", "Europe/Rome")
	require.NoError(t, err)
	require.Equal(t, "Europe/Rome", cell(again, "B6"))
	gone, err := SetNetwork(again, "timezone", "")
	require.NoError(t, err)
	require.Equal(t, cell(before, "A5"), cell(gone, "A5"))
	require.NotEqual(t, "timezone", cell(gone, "A6"))
	same, err := SetNetwork(gone, "timezone", "")
	require.NoError(t, err)
	require.Equal(t, gone, same)
}
