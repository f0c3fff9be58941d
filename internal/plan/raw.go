package plan

import (
	"io/fs"

	"k3splan/internal/diag"
	"k3splan/internal/table"
)

// ReadRaw reads HostsFile or K3sFile for editing in place. A table with errors of form (not of meaning)
// cannot be edited: they are returned instead.
func ReadRaw(fsys fs.FS, file string) (table.Raw, diag.Problems) {
	data, problem := readFile(fsys, file)
	if problem != nil {
		return table.Raw{}, diag.Problems{*problem}
	}
	return table.ReadRaw(data, Schema(file))
}
