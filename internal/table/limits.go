package table

import "fmt"

// Limits of a table. The largest rack that we know how to name has 10,000 hosts; what is beyond these
// limits is a mistake or an attack, and would need more memory than a machine may have.
const (
	// MaxCSV and MaxWorkbook are the sizes of files in bytes. 10,000 hosts need about a megabyte; a
	// workbook may have pictures.
	MaxCSV      = 16 << 20
	MaxWorkbook = 32 << 20
	// maxColumns is also how far to the right Excel 97 went: cells beyond are a mistake.
	maxColumns = 256
	maxRows    = 100_000
	// maxCells is rows times columns.
	maxCells = 2_000_000
	// maxText is how many bytes a cell may have. Spreadsheet programs allow 32,767 characters.
	maxText = 64 << 10
	// maxMerged areas of cells may be merged, in titles or beside the table
	maxMerged = 4096
)

var tooManyCells = fmt.Sprintf("the table has more than %d rows or %d cells", maxRows, maxCells)
