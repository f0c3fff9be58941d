// Package table reads the tables that people keep in CSV files and in the sheets of a workbook: a
// header, rows, and cells that know their place. Everything wrong with the form of a table becomes a
// [diag.Problem]; what the cells mean is the caller's business.
//
//	t := table.ReadCSV(fsys, schema)             // or workbook.Table(schema)
//	rows, err := table.Decode[hostCells](t)      // the known columns, normalized
//	t.Rows[0].Fail("ip", value, code, message, hint)
//	problems := t.Problems()
//
// [ReadRaw] returns the same table with the position of each cell in its file, for editing it in
// place.
package table
