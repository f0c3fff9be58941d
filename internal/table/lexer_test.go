package table

import (
	"encoding/csv"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzRecords: each cell is at its position, and records do not overlap. Whatever encoding/csv can read, it
// reads the same way.
func FuzzRecords(f *testing.F) {
	for _, text := range []string{"name,interface,ip,admin,note\nolaf,eno1,10.0.100.2,olaf,\"Two\nlines\"\n", "a;\"b\r\n\"\"c\" ; d\r\n#x\n\r\n\"# y\"\n e\u200b\r", "sep=;\n\"a\"b;c\n\"", "a\t\"b\"\t\t\n\t\"\"", "a\rb,c\"\n\"#d\",\n,"} {
		for _, separator := range separators {
			f.Add(text, byte(separator))
		}
	}
	f.Fuzz(func(t *testing.T, text string, separator byte) {
		if !strings.Contains(separators, string(separator)) {
			return
		}
		r := newReader(text)
		r.separator = separator
		type lines map[int][]string
		got, errors := lines{}, 0
		end := r.at
		for record, wrong := range r.records() {
			require.LessOrEqual(t, end, record.Start)
			require.Equal(t, 1+strings.Count(text[:record.Start], "\n"), record.Line)
			if wrong != nil {
				errors++
				continue
			}
			end = record.End
			at := record.Start
			for i, c := range record.Cells {
				if i > 0 {
					require.Equal(t, separator, text[at])
					at++
				}
				require.Equal(t, at, c.Start)
				at = c.End
				content := text[c.TextStart:c.TextEnd]
				if c.Quoted {
					content = strings.NewReplacer(`""`, `"`, "\r\n", "\n").Replace(content[1 : len(content)-1])
				}
				require.Equal(t, TrimCell(content), c.Text)
				require.Empty(t, TrimCell(text[c.Start:c.TextStart]+text[c.TextEnd:c.End]))
				got[record.Line] = append(got[record.Line], c.Text)
			}
			require.Contains(t, []string{"", "\n", "\r\n"}, text[at:end])
		}

		read := csv.NewReader(strings.NewReader(text[r.at:]))
		read.Comma, read.Comment, read.FieldsPerRecord = rune(separator), '#', -1
		want := lines{}
		for cells, err := read.Read(); err != io.EOF; cells, err = read.Read() {
			if err != nil {
				return // for blanks around quotes, if for nothing else
			}
			for i := range cells {
				cells[i] = TrimCell(cells[i])
			}
			all := strings.Join(cells, "")
			if line, _ := read.FieldPos(0); all != "" && !strings.HasPrefix(cells[0], "# ") && (cells[0] != all || all[0] != '#') {
				want[line+r.line-1] = cells
			}
		}
		require.Zero(t, errors)
		require.Equal(t, want, got)
	})
}
