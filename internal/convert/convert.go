// Package convert turns the plan of a project from one form into the other: CSV and YAML files, or one
// workbook. Values, own columns, the order of rows and columns, and comments stay; what the other form
// cannot hold is reported first. The result means the same, or nothing is written.
package convert

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
)

// Form is how a plan is written.
type Form string

const (
	// CSV means plans/hosts.csv, k3s.csv and network.yaml.
	CSV Form = "csv"
	// XLSX means plans/cluster.xlsx.
	XLSX Form = "xlsx"
)

// Conversion is a prepared change of form.
type Conversion struct {
	// Create are the new files by their names, Remove the old ones.
	Create map[string][]byte
	Remove []string
	// Lost is what the new form cannot hold.
	Lost []string
}

// InvalidError is a plan with errors, whose meaning cannot be kept.
type InvalidError struct{ Problems diag.Problems }

func (e *InvalidError) Error() string {
	return fmt.Sprintf("the plan has %d errors", e.Problems.Errors())
}

// tables are the files of the form CSV.
var tables = []string{plan.HostsFile, plan.K3sFile, plan.ChecksFile, plan.NetworkFile, plan.VersionsFile}

// To prepares the conversion of the plan into a form; nil means that it already has that form. A conversion
// that was interrupted left both forms: it is completed if they do not contradict each other.
func To(fsys fs.FS, form Form) (*Conversion, error) {
	var present []string
	for _, file := range tables {
		if exists(fsys, file) {
			present = append(present, file)
		}
	}
	hasBook := exists(fsys, plan.WorkbookFile)
	switch {
	case hasBook && len(present) > 0:
		return complete(fsys, form, present)
	case hasBook == (form == XLSX):
		return nil, valid(fsys)
	}
	if err := valid(fsys); err != nil {
		return nil, err
	}
	c, err := convert(fsys, form)
	if err != nil {
		return nil, err
	}
	return c, same(fsys, c.after(fsys))
}

// complete goes on where a conversion was interrupted: with the old form alone, the conversion gives the
// files of the new one that are there.
func complete(fsys fs.FS, form Form, present []string) (*Conversion, error) {
	unclear := diag.WithHint(fmt.Errorf("the plan is in %s and in %s, and they differ", plan.WorkbookFile, strings.Join(present, ", ")),
		"keep the one that is right: the workbook, or the other files")
	if form == XLSX {
		// the workbook comes first: the files that are left are removed, if they mean the same
		book := without(fsys, tables)
		if err := valid(book); err != nil {
			return nil, err
		}
		back, err := convert(book, CSV)
		if err != nil {
			return nil, err
		}
		for _, file := range present {
			if file == plan.VersionsFile {
				continue // it is a part of network.yaml
			}
			mixed := back.after(book)
			data, err := fs.ReadFile(fsys, file)
			if err != nil {
				return nil, err
			}
			mixed.changed[file] = data
			if versions, err := fs.ReadFile(fsys, plan.VersionsFile); err == nil && file == plan.NetworkFile {
				mixed.changed[plan.VersionsFile] = versions
			}
			if same(book, mixed) != nil {
				return nil, unclear
			}
		}
		return &Conversion{Remove: present}, nil
	}
	// the files come first, one after the other
	book := without(fsys, tables)
	if err := valid(book); err != nil {
		return nil, err
	}
	c, err := convert(book, CSV)
	if err != nil {
		return nil, err
	}
	for _, file := range present {
		data, err := fs.ReadFile(fsys, file)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(data, c.Create[file]) {
			return nil, unclear
		}
	}
	return c, same(book, c.after(book))
}

func convert(fsys fs.FS, form Form) (*Conversion, error) {
	if form == XLSX {
		return toWorkbook(fsys)
	}
	return toFiles(fsys)
}

// valid returns an *InvalidError if the plan has errors.
func valid(fsys fs.FS) error {
	if _, problems := plan.Load(fsys); problems.Errors() > 0 {
		return &InvalidError{problems}
	}
	return nil
}

// same returns an error unless two projects have plans that mean the same.
func same(before, after fs.FS) error {
	meaning := func(fsys fs.FS) (string, error) {
		p, problems := plan.Load(fsys)
		if problems.Errors() > 0 {
			return "", &InvalidError{problems}
		}
		data, err := json.Marshal([]any{p.Model(), p.Network.AddressRange, p.Network.Secrets})
		return string(data), err
	}
	want, err := meaning(before)
	if err != nil {
		return err
	}
	got, err := meaning(after)
	if err == nil && got != want {
		err = errors.New("the result would mean something else")
	}
	if err != nil {
		return fmt.Errorf("the plan cannot be converted; nothing was written: %w", err)
	}
	return nil
}

// Created returns the names of the new files, in the order in which they are written.
func (c *Conversion) Created() (names []string) {
	for _, file := range append(slices.Clone(tables), plan.WorkbookFile) {
		if _, ok := c.Create[file]; ok {
			names = append(names, file)
		}
	}
	return names
}

// Write makes the conversion in the project's folder. If it is interrupted, the project has both forms,
// which k3splan refuses to work with, and the same conversion completes it.
func (c *Conversion) Write(dir string) error {
	unlock, err := files.Lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	var changes []files.Change
	for _, file := range c.Created() {
		changes = append(changes, files.Change{Name: filepath.Join(dir, file), Content: c.Create[file]})
	}
	for _, file := range c.Remove {
		changes = append(changes, files.Change{Name: filepath.Join(dir, file), Remove: true})
	}
	exchange, err := files.Prepare(changes)
	if err != nil {
		return err
	}
	return errors.Join(exchange.Commit(), exchange.Discard())
}

// after is the project after the conversion.
func (c *Conversion) after(fsys fs.FS) overlay {
	o := without(fsys, c.Remove)
	for file, content := range c.Create {
		o.changed[file] = content
	}
	return o
}

func exists(fsys fs.FS, file string) bool {
	_, err := fs.Stat(fsys, file)
	return err == nil
}

// overlay is a project in which some files have another content, or are missing (nil).
type overlay struct {
	fs.FS
	changed map[string][]byte
}

func without(fsys fs.FS, names []string) overlay {
	o := overlay{fsys, map[string][]byte{}}
	for _, file := range names {
		o.changed[file] = nil
	}
	return o
}

// ReadFile returns the content of a file after the change.
func (o overlay) ReadFile(name string) ([]byte, error) {
	content, ok := o.changed[name]
	switch {
	case !ok:
		return fs.ReadFile(o.FS, name)
	case content == nil:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return content, nil
}

// Stat describes a file after the change.
func (o overlay) Stat(name string) (fs.FileInfo, error) {
	content, ok := o.changed[name]
	switch {
	case !ok:
		return fs.Stat(o.FS, name)
	case content == nil:
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return info{name, int64(len(content))}, nil
}

// info is that of a file that is not written yet.
type info struct {
	name string
	size int64
}

func (i info) Name() string     { return filepath.Base(i.name) }
func (i info) Size() int64      { return i.size }
func (info) Mode() fs.FileMode  { return files.Public }
func (info) ModTime() time.Time { return time.Time{} }
func (info) IsDir() bool        { return false }
func (info) Sys() any           { return nil }
