package plan

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"k3splan/internal/diag"

	"github.com/xuri/excelize/v2"
)

// Sheets are read here from their XML, cell by cell, and only what has a value is kept: sheets are
// full of formatted empty cells, down to row 1,048,576 and out to column XFD, for all of which
// excelize would make room.

// maxColumns is how far to the right a table reaches, which is as far as Excel 97 did: cells beyond
// are somebody's slip, and each row would get as long.
const maxColumns = 256

// sheetRow is a row that has a value somewhere; line counts from 1.
type sheetRow struct {
	line  int
	cells []sheetCell
}

// sheetCell is a cell with its text, trimmed; column counts from 0.
type sheetCell struct {
	column int
	text   string
	// number: the cell holds no text but a number, which has forgotten how it was typed
	number bool
	// wrong tells why text is not what was meant, or not what everybody sees
	wrong *finding
}

// problem tells what is wrong with the cell, in a column that the header may name.
func (c sheetCell) problem(sheet string, row int, column string) diag.Problem {
	return diag.Problem{File: sheet + "!" + cellName(c.column, row), Line: row, Column: column,
		Value: c.text, Severity: diag.Error, Code: c.wrong.code, Message: c.wrong.message, Hint: c.wrong.hint}
}

// mergedArea is an area of merged cells, both ends included; columns count from 0, rows from 1.
type mergedArea struct {
	name                               string // "A2:A5"
	firstColumn, firstRow, column, row int
}

// xmlCell is a cell in the XML of a sheet (ECMA-376 part 1, 18.3.1.4).
type xmlCell struct {
	Kind    string    `xml:"t,attr"`
	Style   int       `xml:"s,attr"`
	Value   *string   `xml:"v"`
	Formula *struct{} `xml:"f"`
	Inline  *richText `xml:"is"`
}

// richText is text in pieces of different looks. What a reader of the sheet does not see (the
// reading of Japanese) is not in it.
type richText struct {
	Text   string     `xml:"t"`
	Pieces []richText `xml:"r"`
}

func (r richText) String() string {
	text := r.Text
	for _, piece := range r.Pieces {
		text += piece.Text
	}
	return unescape(text)
}

var escaped = regexp.MustCompile(`_x[0-9a-fA-F]{4}_`)

// unescape gives the characters that XML cannot hold (18.4.12, the type ST_Xstring).
func unescape(text string) string {
	return escaped.ReplaceAllStringFunc(text, func(code string) string {
		char, _ := strconv.ParseUint(code[2:6], 16, 16)
		return string(rune(char))
	})
}

// relation is a reference from a part of the package to another one.
type relation struct {
	ID     string `xml:"Id,attr"`
	Type   string `xml:"Type,attr"`
	Target string `xml:"Target,attr"`
}

// part gives a file of the package, whose names are the same in any case.
func (w *workbook) part(name string) (content []byte, err error) {
	w.file.Pkg.Range(func(key, data any) bool {
		if strings.EqualFold(key.(string), name) {
			content = data.([]byte)
		}
		return content == nil
	})
	if content == nil {
		return nil, fmt.Errorf("there is no %s in it", name)
	}
	return content, nil
}

// related gives the part that another one, "" for the package itself, refers to.
func (w *workbook) related(from string, wanted func(relation) bool) (string, error) {
	folder, base := path.Split(from)
	data, err := w.part(path.Join(folder, "_rels", base+".rels"))
	if err != nil {
		return "", err
	}
	var all struct {
		Relations []relation `xml:"Relationship"`
	}
	if err := xml.Unmarshal(data, &all); err != nil {
		return "", err
	}
	i := slices.IndexFunc(all.Relations, wanted)
	if i < 0 {
		return "", fmt.Errorf("a part is missing that %q needs", from)
	}
	if target, ok := strings.CutPrefix(all.Relations[i].Target, "/"); ok {
		return target, nil
	}
	return path.Join(folder, all.Relations[i].Target), nil
}

// sheetPart gives the XML of a sheet and loads the texts that the sheets share.
func (w *workbook) sheetPart(sheet string) ([]byte, error) {
	main, err := w.related("", func(r relation) bool { return strings.HasSuffix(r.Type, "/officeDocument") })
	if err != nil {
		return nil, err
	}
	for _, s := range w.file.WorkBook.Sheets.Sheet {
		if s.Name != sheet {
			continue
		}
		name, err := w.related(main, func(r relation) bool { return r.ID == s.ID })
		if err != nil {
			return nil, err
		}
		if err := w.loadShared(main); err != nil {
			return nil, err
		}
		return w.part(name)
	}
	return nil, errors.New("it has no content")
}

// loadShared reads the texts of the cells of all sheets, if the workbook has them in one place.
func (w *workbook) loadShared(main string) error {
	name, err := w.related(main, func(r relation) bool { return strings.HasSuffix(r.Type, "/sharedStrings") })
	if err != nil || w.shared != nil {
		return nil // a workbook without text, or with the texts in its cells
	}
	data, err := w.part(name)
	if err != nil {
		return err
	}
	var all struct {
		Items []richText `xml:"si"`
	}
	if err := xml.Unmarshal(data, &all); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	w.shared = make([]string, len(all.Items))
	for i, item := range all.Items {
		w.shared[i] = item.String()
	}
	return nil
}

// readSheet gives the rows that are not empty, in order, and the merged areas.
func (w *workbook) readSheet(sheet string) (rows []sheetRow, merged []mergedArea, err error) {
	data, err := w.sheetPart(sheet)
	if err != nil {
		return nil, nil, err
	}
	decoder := xml.NewDecoder(bytes.NewReader(data))
	line, column := 0, -1
	inData := false // elsewhere, rows and cells are where pictures and buttons stand
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			return rows, merged, nil
		}
		if err != nil {
			return nil, nil, err
		}
		if end, ok := token.(xml.EndElement); ok && end.Name.Local == "sheetData" {
			inData = false
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		inData = inData || start.Name.Local == "sheetData"
		switch name := start.Name.Local; {
		case inData && name == "row":
			if line, err = rowNumber(start, line); err != nil {
				return nil, nil, err
			}
			column = -1
		case inData && name == "c":
			if column, err = columnNumber(start, line, column); err != nil {
				return nil, nil, err
			}
			var c xmlCell
			if err := decoder.DecodeElement(&c, &start); err != nil {
				return nil, nil, err
			}
			cell := w.cell(c)
			if cell.text == "" && cell.wrong == nil {
				continue
			}
			if cell.column = column; column >= maxColumns {
				cell.wrong = &finding{"row-length", "the cell stands far beside the table", "delete it, or what stands in it"}
			}
			if len(rows) == 0 || rows[len(rows)-1].line != line {
				rows = append(rows, sheetRow{line: line})
			}
			last := &rows[len(rows)-1]
			last.cells = append(last.cells, cell)
		case name == "mergeCell":
			area, err := parseArea(attribute(start, "ref"))
			if err != nil {
				return nil, nil, err
			}
			merged = append(merged, area)
		}
	}
}

func attribute(element xml.StartElement, name string) string {
	for _, a := range element.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

var errDisorder = errors.New("its rows and cells are not in order")

// rowNumber is the number of a row, which follows on the one before if it does not say.
func rowNumber(row xml.StartElement, before int) (int, error) {
	text := attribute(row, "r")
	if text == "" {
		return before + 1, nil
	}
	number, err := strconv.Atoi(text)
	if err == nil && (number <= before || number > excelize.TotalRows) {
		err = errDisorder
	}
	return number, err
}

// columnNumber is the same for a cell, whose name tells its row as well.
func columnNumber(cell xml.StartElement, line, before int) (int, error) {
	name := attribute(cell, "r")
	if name == "" {
		return before + 1, nil
	}
	column, row, err := excelize.CellNameToCoordinates(name)
	if err == nil && (column-1 <= before || row != line) {
		err = errDisorder
	}
	return column - 1, err
}

func parseArea(name string) (area mergedArea, err error) {
	from, to, _ := strings.Cut(name, ":")
	area.name = name
	if area.firstColumn, area.firstRow, err = excelize.CellNameToCoordinates(from); err != nil {
		return area, err
	}
	area.column, area.row, err = excelize.CellNameToCoordinates(cmp.Or(to, from))
	area.firstColumn--
	area.column--
	return area, err
}

const asText = "format the cells as text (Format, Cells, Text) and type the value again"

// cell gives the text that a cell shows, or why nobody can know it.
func (w *workbook) cell(c xmlCell) (cell sheetCell) {
	text := ""
	if c.Value != nil {
		text = *c.Value
	}
	switch c.Kind {
	case "s":
		if i, err := strconv.Atoi(strings.TrimSpace(text)); err == nil && i >= 0 && i < len(w.shared) {
			return w.text(w.shared[i], c.Style)
		}
		if text == "" {
			return sheetCell{}
		}
		return sheetCell{wrong: &finding{"xlsx-syntax", "the text of the cell is not in the file", "type it again"}}
	case "inlineStr":
		if c.Inline != nil {
			text = c.Inline.String()
		}
		return w.text(text, c.Style)
	case "str":
		if c.Value == nil && c.Formula != nil {
			return notComputed
		}
		return w.text(unescape(text), c.Style)
	case "b":
		shown := map[string]string{"0": "FALSE", "1": "TRUE"}[text]
		return sheetCell{text: shown, wrong: &finding{"cell-number", "the spreadsheet program has made a truth value of it, which shows in each user's language", asText}}
	case "e":
		return sheetCell{text: text, wrong: &finding{"cell-formula", "the cell shows an error", "correct its formula"}}
	case "d":
		return sheetCell{text: text, wrong: &finding{"cell-number", "the spreadsheet program has made a date of it, which shows differently on other machines", asText}}
	}
	text = strings.TrimSpace(text)
	if text == "" && c.Formula != nil {
		return notComputed
	}
	if text == "" {
		return sheetCell{}
	}
	cell = sheetCell{text: text, number: true}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(value, 0) || math.IsNaN(value) {
		cell.wrong = &finding{"xlsx-syntax", "the file says that this is a number", "type it again"}
		return cell
	}
	cell.text, cell.wrong = showNumber(value, w.format(c.Style), w.from1904)
	return cell
}

// notComputed is a formula that no program has computed yet: a program that writes workbooks has put
// it there.
var notComputed = sheetCell{wrong: &finding{"cell-formula", "the value of the formula is not in the file", "open the file in a spreadsheet program and save it"}}

// text is a cell with text. Its format may add something to it.
func (w *workbook) text(text string, style int) (cell sheetCell) {
	cell.text = strings.TrimFunc(strings.ReplaceAll(text, "\r\n", "\n"), isBlank)
	if cell.text == "" {
		return cell
	}
	sections := strings.Split(padding.ReplaceAllString(w.format(style), ""), ";")
	switch last := sections[len(sections)-1]; {
	case last != "@" && (len(sections) == 4 || strings.Contains(last, "@")):
		cell.wrong = &finding{"cell-number", "the cell's format shows something else than its text", asText}
	case strings.ContainsFunc(cell.text, func(c rune) bool { return c != '\n' && c != '\t' && unicode.IsControl(c) }):
		cell.wrong = &finding{"cell-invalid", "there is a control character in the cell", "delete the text and type it again"}
	}
	return cell
}

// padding of a number format is as wide as a character, or fills the cell with it.
var padding = regexp.MustCompile(`[_*].`)

// builtInFormats are those that show a number alike on all machines, by their fixed ids (ECMA-376
// part 1, 18.8.30). The others follow the user's language and country.
var builtInFormats = map[int]string{0: "General", 1: "0", 2: "0.00", 9: "0%", 10: "0.00%", 49: "@"}

// language at the beginning of a format tells whose names of months it wants: [$-409].
var language = regexp.MustCompile(`^\[\$-[0-9A-Fa-f]+\]`)

// format is the number format of a style, "" for one that shows differently on other machines.
func (w *workbook) format(style int) string {
	format, known := w.formats[style]
	if known {
		return format
	}
	if s, err := w.file.GetStyle(style); err == nil {
		if format = builtInFormats[s.NumFmt]; s.CustomNumFmt != nil {
			format = language.ReplaceAllString(*s.CustomNumFmt, "")
		}
	}
	w.formats[style] = format
	return format
}

var (
	plainFormat = regexp.MustCompile(`^#*(0+)(?:\.(0+))?(%?)$`)
	isoFormat   = regexp.MustCompile(`^yyyy-mm-dd(?:([t ])hh:mm(:ss)?)?$`)
)

// generalDigits is what Excel shows of a number in a cell without a format, before it rounds it;
// smallest is the number from which on it has an exponent.
const (
	generalDigits = 11
	smallest      = 1e-4
)

// showNumber gives what everybody sees of a number in a cell of this format.
func showNumber(value float64, format string, from1904 bool) (text string, wrong *finding) {
	// no program shows more digits, but the files have them: 1.1000000000000001
	text = strconv.FormatFloat(value, 'g', 15, 64)
	value, _ = strconv.ParseFloat(text, 64)
	text = strconv.FormatFloat(value, 'f', -1, 64)
	format = strings.ToLower(strings.TrimSuffix(strings.NewReplacer(`\`, "", `"`, "").Replace(format), ";@"))
	if format == "general" || format == "@" {
		if len(strings.TrimPrefix(text, "-")) > generalDigits || value != 0 && math.Abs(value) < smallest {
			wrong = &finding{"cell-number", "the spreadsheet program has made a number of it, and shows it rounded", asText}
		}
		return text, wrong
	}
	if m := plainFormat.FindStringSubmatch(format); m != nil {
		return fixedPoint(text, len(m[1]), len(m[2]), m[3] != ""), nil
	}
	if m := isoFormat.FindStringSubmatch(format); m != nil && value >= firstDate {
		if date, err := excelize.ExcelDateToTime(value, from1904); err == nil {
			layout := map[string]string{"": "2006-01-02", " ": "2006-01-02 15:04", "t": "2006-01-02T15:04"}[m[1]]
			if m[2] != "" {
				layout += ":05"
			}
			return date.Round(time.Second).Format(layout), nil
		}
	}
	return text, &finding{"cell-number", "the spreadsheet program has made a number or date of it, which shows differently on other machines", asText}
}

// firstDate is 1900-03-01: programs do not agree on the dates before it.
const firstDate = 61

// fixedPoint rounds as spreadsheet programs do, half away from zero.
func fixedPoint(number string, integer, fraction int, percent bool) string {
	value, _ := new(big.Rat).SetString(number)
	if percent {
		value.Mul(value, big.NewRat(100, 1))
	}
	text := value.FloatString(fraction)
	digits, negative := strings.CutPrefix(text, "-")
	whole, _, _ := strings.Cut(digits, ".")
	digits = strings.Repeat("0", max(integer-len(whole), 0)) + digits
	if negative && strings.Trim(digits, "0.") != "" {
		digits = "-" + digits
	}
	if percent {
		digits += "%"
	}
	return digits
}
