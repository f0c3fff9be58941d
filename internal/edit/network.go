package edit

import (
	"errors"
	"slices"
	"strings"

	"github.com/xuri/excelize/v2"

	"k3splan/internal/plan"
	"k3splan/internal/table"
)

const networkSheet = "network"

// SetSecretStore writes a store into the sheet network of a workbook, as [plan.SetSecretStore] does into a
// network.yaml: into the rows of its keys, or into new rows below the last one. Everything else keeps its
// values and formats. If the workbook names the store already, data are returned. The error is an [Invalid]
// or a [Refused].
func SetSecretStore(data []byte, store plan.SecretStore) ([]byte, error) {
	w, err := loadWorkbook(data)
	if err != nil {
		return nil, err
	}
	defer w.file.Close()
	for _, key := range store.Keys() {
		if err := w.setNetwork(key[0], key[1]); err != nil {
			return nil, err
		}
	}
	return w.data, nil
}

// SetNetwork sets a key ("versions.k3s") in the sheet network of a workbook to a single value, or removes its
// row if the value is empty. Everything else keeps its values and formats. The error is an [Invalid] or a
// [Refused].
func SetNetwork(data []byte, key, value string) ([]byte, error) {
	w, err := loadWorkbook(data)
	if err != nil {
		return nil, err
	}
	defer w.file.Close()
	if value == "" {
		err = w.removeNetwork(key)
	} else {
		err = w.setNetwork(key, value)
	}
	return w.data, err
}

// removeNetwork removes the rows of a key of the network.
func (w *workbook) removeNetwork(key string) error {
	title := slices.IndexFunc(w.file.GetSheetList(), func(name string) bool { return strings.EqualFold(strings.TrimSpace(name), networkSheet) })
	if title < 0 || len(w.network) == 0 {
		return nil
	}
	keys, _, _ := plan.NetworkLayout(w.network)
	rows := networkCells(w.network)
	at := slices.IndexFunc(rows, func(row []string) bool { return keys < len(row) && strings.EqualFold(row[keys], key) })
	if at < 0 {
		return nil
	}
	line, hosts, k3s := w.network[at].Line, w.hosts.text(), w.k3s.text()
	rows = slices.Delete(rows, at, at+1)
	err := w.change(w.file.GetSheetList()[title], func(file *excelize.File, sheet string) error { return file.RemoveRow(sheet, line) })
	if err != nil {
		return err
	}
	if !slices.EqualFunc(networkCells(w.network), trimmed(rows), slices.Equal) || w.hosts.text() != hosts || w.k3s.text() != k3s {
		return w.cannot(errors.New("other cells of it would change"))
	}
	return nil
}

// setNetwork sets a key of the network to a single value, and checks that nothing else changes.
func (w *workbook) setNetwork(key, value string) error {
	title := slices.IndexFunc(w.file.GetSheetList(), func(name string) bool { return strings.EqualFold(strings.TrimSpace(name), networkSheet) })
	if title < 0 || len(w.network) == 0 {
		return w.cannot(errors.New("its sheet network has no rows"))
	}
	keys, column, end := plan.NetworkLayout(w.network)
	rows := networkCells(w.network)
	at := slices.IndexFunc(rows, func(row []string) bool { return keys < len(row) && strings.EqualFold(row[keys], key) })
	isNew := at < 0
	last := w.network[len(w.network)-1].Line
	line, neighbour := last+1, last
	if isNew {
		at = len(rows)
		rows = append(rows, nil)
	} else {
		line, neighbour = w.network[at].Line, w.network[at].Line
		if end == 0 {
			end = len(rows[at])
		}
		if i := slices.IndexFunc(rows[at][min(column, len(rows[at])):min(end, len(rows[at]))], func(cell string) bool { return cell != "" }); i > 0 {
			column += i // a value may be in the place of any item of a list
		}
	}
	for len(rows[at]) <= column {
		rows[at] = append(rows[at], "")
	}
	if rows[at][column] == value {
		return nil
	}
	rows[at][column] = value
	if isNew {
		rows[at][keys] = key
	}
	hosts, k3s := w.hosts.text(), w.k3s.text()
	err := w.change(w.file.GetSheetList()[title], func(file *excelize.File, sheet string) error {
		if !isNew {
			return writeCell(file, sheet, column, line, value, table.CellName(column, neighbour))
		}
		if free, err := isFree(file, sheet, max(column+1, end), line); err != nil {
			return err
		} else if !free {
			if err := file.InsertRows(sheet, line, 1); err != nil {
				return err
			}
		}
		return errors.Join(writeCell(file, sheet, keys, line, key, table.CellName(keys, neighbour)),
			writeCell(file, sheet, column, line, value, table.CellName(column, neighbour)))
	})
	if err != nil {
		return err
	}
	if !slices.EqualFunc(networkCells(w.network), trimmed(rows), slices.Equal) || w.hosts.text() != hosts || w.k3s.text() != k3s {
		return w.cannot(errors.New("other cells of it would change"))
	}
	return nil
}

// networkCells returns a copy of the cells of rows, without empty ones at their ends.
func networkCells(rows []table.SheetRow) (cells [][]string) {
	for _, row := range rows {
		cells = append(cells, slices.Clone(row.Cells))
	}
	return trimmed(cells)
}

func trimmed(rows [][]string) [][]string {
	for i, row := range rows {
		for len(row) > 0 && row[len(row)-1] == "" {
			row = row[:len(row)-1]
		}
		rows[i] = row
	}
	return rows
}
