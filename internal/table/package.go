package table

import (
	"archive/zip"
	"bufio"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// A workbook is read here and not with excelize, which loads all of it and makes room for every cell
// that a sheet mentions: a file of some kilobytes can need gigabytes. What is read here is read once,
// piece by piece, and within limits.

const (
	// MaxUnpacked is how many bytes of a workbook are read, unpacked. 10,000 hosts need a few megabytes;
	// the rest is for the formats of empty cells.
	MaxUnpacked = 128 << 20
	// maxToken is how many bytes a tag or text may have. The longest text of a cell is 32,767 characters.
	maxToken = 1 << 20
	// maxDepth is how deep XML elements are nested; in workbooks of real programs it is about ten.
	maxDepth = 100
	// maxParts is how many files are in the package. A workbook has some for each of its sheets.
	maxParts = 10_000
)

// maxElements is how many XML elements are read: cells, texts, formats. A variable for tests.
var maxElements = 4 << 20

// limitError is a workbook beyond the limits.
type limitError struct{ text string }

func (e *limitError) Error() string { return e.text }

// archive is an opened package of parts (ECMA-376 part 2).
type archive struct {
	parts []*zip.File
	// bytes and elements may still be read
	bytes, elements int
}

// relation is a reference from a part of the package to another one.
type relation struct {
	ID     string `xml:"Id,attr"`
	Type   string `xml:"Type,attr"`
	Target string `xml:"Target,attr"`
}

// is reports whether the relation is of a type, whose URI differs between the transitional and the strict
// form of the standard.
func (r relation) is(kind string) bool { return strings.HasSuffix(r.Type, "/"+kind) }

// open starts to read the XML of a part. Names of parts are the same in any case.
func (a *archive) open(name string) (decoder *xml.Decoder, close func() error, err error) {
	i := slices.IndexFunc(a.parts, func(f *zip.File) bool { return strings.EqualFold(f.Name, name) })
	if i < 0 {
		return nil, nil, fmt.Errorf("%s is missing in it", name)
	}
	content, err := a.parts[i].Open()
	if err != nil {
		return nil, nil, err
	}
	source := &limited{archive: a, from: bufio.NewReader(content)}
	return xml.NewTokenDecoder(&tokens{source: source, raw: xml.NewDecoder(source)}), content.Close, nil
}

// each calls visit with each element of a part, which may read on from the decoder.
func (a *archive) each(name string, visit func(*xml.Decoder, xml.StartElement) error) error {
	decoder, closePart, err := a.open(name)
	if err != nil {
		return err
	}
	defer closePart()
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if start, ok := token.(xml.StartElement); ok {
			if err := visit(decoder, start); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
}

// relations returns the references of a part, or with "" of the package itself.
func (a *archive) relations(from string) (all []relation, err error) {
	folder, base := path.Split(from)
	err = a.each(path.Join(folder, "_rels", base+".rels"), func(decoder *xml.Decoder, start xml.StartElement) error {
		if start.Name.Local != "Relationship" {
			return nil
		}
		var r relation
		if err := decoder.DecodeElement(&r, &start); err != nil {
			return err
		}
		if target, absolute := strings.CutPrefix(r.Target, "/"); absolute {
			r.Target = target
		} else {
			r.Target = path.Join(folder, r.Target)
		}
		all = append(all, r)
		return nil
	})
	return all, err
}

// limited reads the bytes of a part within the limits of the workbook and of a token.
type limited struct {
	archive *archive
	from    *bufio.Reader
	token   int // bytes that the current token may still have
}

func (l *limited) ReadByte() (byte, error) {
	if l.token--; l.token < 0 {
		return 0, &limitError{fmt.Sprintf("a tag or text has more than %d kB", maxToken>>10)}
	}
	if l.archive.bytes--; l.archive.bytes < 0 {
		return 0, &limitError{fmt.Sprintf("unpacked, the workbook has more than %d MB", MaxUnpacked>>20)}
	}
	return l.from.ReadByte()
}

// Read is never called: xml.Decoder takes single bytes from whatever can return them, and so reads no
// further than the end of a token.
func (l *limited) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

// tokens returns the tokens of a part within the limits.
type tokens struct {
	source *limited
	raw    *xml.Decoder
	depth  int
}

// Token implements xml.TokenReader.
func (t *tokens) Token() (xml.Token, error) {
	t.source.token = maxToken
	token, err := t.raw.RawToken()
	switch token.(type) {
	case xml.StartElement:
		t.depth++
		t.source.archive.elements--
	case xml.EndElement:
		t.depth--
	}
	switch {
	case t.depth > maxDepth:
		return nil, &limitError{fmt.Sprintf("its XML is nested more than %d levels deep", maxDepth)}
	case t.source.archive.elements < 0:
		return nil, &limitError{fmt.Sprintf("the workbook has more than %.3g million cells, texts and formats", float64(maxElements)/(1<<20))}
	}
	return token, err
}

// attribute returns the value of an attribute, or "".
func attribute(element xml.StartElement, name string) string {
	for _, a := range element.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}
