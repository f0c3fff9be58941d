package table

import (
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"k3splan/internal/diag"

	"github.com/xuri/excelize/v2"
)

// Sheets are read cell by cell, and only cells with a value are kept: sheets are full of formatted empty
// cells, down to row 1,048,576 and out to column XFD.

// sheetRow is a row that has a value somewhere; line counts from 1.
type sheetRow struct {
	line  int
	cells []sheetCell
}

// sheetCell is a cell with its text, trimmed; column counts from 0.
type sheetCell struct {
	column int
	text   string
	// number: the cell contains a number and not text; how it was typed is lost
	number bool
	// wrong is why text is not what was meant, or not what everybody sees
	wrong *finding
	// isDate: text is a date or time in the form of ISO 8601, whatever the cell shows
	isDate bool
}

// problem returns what is wrong with the cell, in a row of a sheet.
func (c sheetCell) problem(sheet string, row int) diag.Problem {
	return diag.Problem{File: sheet + "!" + CellName(c.column, row), Line: row,
		Value: c.text, Severity: diag.Error, Code: c.wrong.code, Message: c.wrong.message, Hint: c.wrong.hint}
}

// mergedArea is an area of merged cells, both ends included; columns count from 0, rows from 1.
type mergedArea struct {
	firstColumn, firstRow, column, row int
	// wrong is what is wrong with each of its cells
	wrong *finding
}

// xmlCell is a cell in the XML of a sheet (ECMA-376 part 1, 18.3.1.4).
type xmlCell struct {
	kind  string
	style int
	// value and inline are "" if they are missing as well as if they are empty, which makes no difference
	value, inline       string
	hasValue, isFormula bool
}

// readCell reads a cell up to its end.
func readCell(decoder *xml.Decoder, start xml.StartElement) (c xmlCell, err error) {
	c.kind = attribute(start, "t")
	if style := attribute(start, "s"); style != "" {
		if c.style, err = strconv.Atoi(style); err != nil {
			return c, err
		}
	}
	for {
		token, err := decoder.Token()
		if err != nil {
			return c, err
		}
		switch t := token.(type) {
		case xml.EndElement:
			return c, nil
		case xml.StartElement:
			switch t.Name.Local {
			case "v":
				c.hasValue = true
				c.value, err = readText(decoder)
			case "is":
				c.inline, err = readRich(decoder)
			default:
				c.isFormula = c.isFormula || t.Name.Local == "f"
				err = decoder.Skip()
			}
			if err != nil {
				return c, err
			}
		}
	}
}

// readText returns the characters up to the end of an element.
func readText(decoder *xml.Decoder) (string, error) {
	var text strings.Builder
	for {
		token, err := decoder.Token()
		if err != nil {
			return "", err
		}
		switch t := token.(type) {
		case xml.EndElement:
			return text.String(), nil
		case xml.StartElement:
			if err := decoder.Skip(); err != nil {
				return "", err
			}
		case xml.CharData:
			if text.Write(t); text.Len() > maxToken {
				return "", errLongText
			}
		}
	}
}

var errLongText = &limitError{fmt.Sprintf("a text has more than %d kB", maxToken>>10)}

// readRich returns text in pieces of different looks, without what a reader of the sheet does not see (the
// pronunciation of Japanese), up to the end of its element (18.4.8).
func readRich(decoder *xml.Decoder) (string, error) {
	var text strings.Builder
	for inPiece := false; ; {
		token, err := decoder.Token()
		if err != nil {
			return "", err
		}
		switch t := token.(type) {
		case xml.EndElement:
			if !inPiece {
				return unescape(text.String()), nil
			}
			inPiece = false
		case xml.StartElement:
			switch {
			case t.Name.Local == "t":
				piece, err := readText(decoder)
				if err != nil {
					return "", err
				}
				if text.WriteString(piece); text.Len() > maxToken {
					return "", errLongText
				}
			case t.Name.Local == "r" && !inPiece:
				inPiece = true
			default:
				if err := decoder.Skip(); err != nil {
					return "", err
				}
			}
		}
	}
}

var escaped = regexp.MustCompile(`_x[0-9a-fA-F]{4}_`)

// unescape returns the characters that XML cannot contain (22.9.2.19, the type ST_Xstring).
func unescape(text string) string {
	return escaped.ReplaceAllStringFunc(text, func(code string) string {
		char, _ := strconv.ParseUint(code[2:6], 16, 16)
		return string(rune(char))
	})
}

// readSheet returns the rows of a sheet that are not empty, in order, and the merged areas.
func (w *Workbook) readSheet(sheet sheetPart) (rows []sheetRow, merged []mergedArea, err error) {
	err = w.archive.each(sheet.part, func(decoder *xml.Decoder, start xml.StartElement) (err error) {
		switch start.Name.Local {
		case "sheetData": // elsewhere, rows and cells are positions of pictures and buttons
			rows, err = w.readRows(decoder)
		case "mergeCell":
			var area mergedArea
			area, err = parseArea(attribute(start, "ref"))
			if merged = append(merged, area); len(merged) > maxMerged {
				err = &limitError{fmt.Sprintf("more than %d areas of cells are merged", maxMerged)}
			}
		}
		return err
	})
	return rows, merged, err
}

// readRows reads up to the end of the element sheetData.
func (w *Workbook) readRows(decoder *xml.Decoder) (rows []sheetRow, err error) {
	line, column, cells := 0, -1, 0
	for {
		token, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		if end, ok := token.(xml.EndElement); ok && end.Name.Local == "sheetData" {
			return rows, nil
		}
		start, ok := token.(xml.StartElement)
		switch {
		case ok && start.Name.Local == "row":
			if line, err = rowNumber(start, line); err != nil {
				return nil, err
			}
			column = -1
			continue
		case !ok || start.Name.Local != "c":
			continue
		}
		if column, err = columnNumber(start, line, column); err != nil {
			return nil, err
		}
		c, err := readCell(decoder, start)
		if err != nil {
			return nil, err
		}
		if c.isFormula {
			w.formulas++
		}
		cell := w.cell(c)
		if cell.text == "" && cell.wrong == nil {
			continue
		}
		if cell.column = column; column >= maxColumns {
			cell.wrong = &finding{"row-length", "the cell is far beside the table", "delete it, or its content"}
		}
		if len(rows) == 0 || rows[len(rows)-1].line != line {
			rows = append(rows, sheetRow{line: line})
		}
		last := &rows[len(rows)-1]
		last.cells = append(last.cells, cell)
		if cells++; cells > maxCells || len(rows) > maxRows {
			return nil, &limitError{tooManyCells}
		}
	}
}

var errDisorder = errors.New("its rows and cells are not in order")

// rowNumber returns the number of a row, which by default is the next one.
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

// columnNumber does the same for a cell, whose name contains its row as well.
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
	area.wrong = &finding{mergedCode, "the cell is merged with others (" + name + "): which rows and columns its text belongs to cannot be known",
		"split the merged cells, and write the text into each"}
	if area.firstColumn, area.firstRow, err = excelize.CellNameToCoordinates(from); err != nil {
		return area, err
	}
	area.column, area.row, err = excelize.CellNameToCoordinates(cmp.Or(to, from))
	area.firstColumn--
	area.column--
	return area, err
}

// AsText is the hint for a cell that a spreadsheet program has rewritten.
const AsText = "format the cells as text (Format, Cells, Text) and type the value again"

// cell returns the text that a cell shows, or why it cannot be known.
func (w *Workbook) cell(c xmlCell) (cell sheetCell) {
	text := c.value
	switch c.kind {
	case "s":
		if i, err := strconv.Atoi(strings.TrimSpace(text)); err == nil && i >= 0 && i < len(w.shared) {
			return w.text(w.shared[i], c.style)
		}
		if text == "" {
			return sheetCell{}
		}
		return sheetCell{wrong: &finding{"xlsx-syntax", "the text of the cell is not in the file", "type it again"}}
	case "inlineStr":
		return w.text(c.inline, c.style)
	case "str":
		if !c.hasValue && c.isFormula {
			return notComputed
		}
		return w.text(unescape(text), c.style)
	case "b":
		shown := map[string]string{"0": "FALSE", "1": "TRUE"}[text]
		return sheetCell{text: shown, wrong: &finding{"cell-number", "the spreadsheet program turned it into TRUE/FALSE, which it shows in each user's language", AsText}}
	case "e":
		return sheetCell{text: text, wrong: &finding{"cell-formula", "the cell shows an error", "correct its formula"}}
	case "d":
		return sheetCell{text: strings.TrimSuffix(text, "T00:00:00"), isDate: true, wrong: &finding{"cell-number", "the spreadsheet program turned it into a date, which looks different on other machines", AsText}}
	}
	text = strings.TrimSpace(text)
	if text == "" && c.isFormula {
		return notComputed
	}
	if text == "" {
		return sheetCell{}
	}
	cell = sheetCell{text: text, number: true}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(value, 0) || math.IsNaN(value) {
		cell.wrong = &finding{"xlsx-syntax", "the file marks this as a number, but it is not one", "type it again"}
		return cell
	}
	format := w.format(c.style)
	if cell.text, cell.wrong = showNumber(value, format, w.from1904); cell.wrong != nil {
		if iso := isoDate(value, format, w.from1904); iso != "" {
			cell.text, cell.isDate = iso, true
		}
	}
	return cell
}

// notComputed is a formula that no program has computed yet: it was put there by a program that only
// writes workbooks.
var notComputed = sheetCell{wrong: &finding{"cell-formula", "the value of the formula is not in the file", "open the file in a spreadsheet program and save it"}}

// text returns a cell with text, to which its format may add something.
func (w *Workbook) text(text string, style int) (cell sheetCell) {
	cell.text = TrimCell(strings.ReplaceAll(text, "\r\n", "\n"))
	if cell.text == "" {
		return cell
	}
	if len(cell.text) > maxText {
		return sheetCell{wrong: &finding{"cell-invalid", longCell.message, longCell.hint}}
	}
	sections := strings.Split(padding.ReplaceAllString(w.format(style), ""), ";")
	switch last := sections[len(sections)-1]; {
	case last != "@" && (len(sections) == 4 || strings.Contains(last, "@")):
		cell.wrong = &finding{"cell-number", "the cell's format shows something other than its text", AsText}
	case strings.ContainsFunc(cell.text, func(c rune) bool { return c != '\n' && c != '\t' && unicode.IsControl(c) }):
		cell.wrong = &finding{"cell-invalid", "the cell contains a control character", "delete the text and type it again"}
	}
	return cell
}

// padding of a number format is as wide as a character, or fills the cell with it.
var padding = regexp.MustCompile(`[_*].`)

// builtInFormats are those that show a number the same way on all machines, by their fixed ids (ECMA-376
// part 1, 18.8.30), and those of dates. The others follow the user's language and country.
var builtInFormats = map[int]string{0: "General", 1: "0", 2: "0.00", 9: "0%", 10: "0.00%", 49: "@",
	14: "m/d/yyyy", 15: "d-mmm-yy", 16: "d-mmm", 17: "mmm-yy", 18: "h:mm", 19: "h:mm:ss", 20: "h:mm", 21: "h:mm:ss", 22: "m/d/yyyy h:mm", 45: "mm:ss", 46: "[h]:mm:ss"}

// language at the beginning of a format selects the names of months: [$-409].
var language = regexp.MustCompile(`^\[\$-[0-9A-Fa-f]+\]`)

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

// showNumber returns what everybody sees of a number in a cell of this format.
func showNumber(value float64, format string, from1904 bool) (text string, wrong *finding) {
	// no program shows more digits, but the files have them: 1.1000000000000001
	text = strconv.FormatFloat(value, 'g', 15, 64)
	value, _ = strconv.ParseFloat(text, 64)
	text = strconv.FormatFloat(value, 'f', -1, 64)
	format = strings.ToLower(strings.TrimSuffix(strings.NewReplacer(`\`, "", `"`, "").Replace(format), ";@"))
	if format == "general" || format == "@" {
		if len(strings.TrimPrefix(text, "-")) > generalDigits || value != 0 && math.Abs(value) < smallest {
			wrong = &finding{"cell-number", "the spreadsheet program turned it into a number, and shows it rounded", AsText}
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
	return text, &finding{"cell-number", "the spreadsheet program turned it into a number or date, which looks different on other machines", AsText}
}

// notShown matches what a number format shows as it is, or not at all: quoted and escaped characters,
// padding, colours and languages, but not elapsed hours ("[h]").
var notShown = regexp.MustCompile(`"[^"]*"|\\.|[_*].|\[[^\]]{3,}\]`)

// isoDate returns a number in a cell with the format of a date or time as ISO 8601 writes it, "" in a cell
// with another format.
func isoDate(value float64, format string, from1904 bool) string {
	format, _, _ = strings.Cut(strings.ToLower(notShown.ReplaceAllString(format, "")), ";")
	hasDate, hasTime := strings.ContainsAny(format, "yd") || strings.Contains(format, "mmm"), strings.ContainsAny(format, "hs")
	date, err := excelize.ExcelDateToTime(value, from1904)
	switch {
	case err != nil || format == "general", !hasDate && !hasTime, hasDate && value < firstDate:
		return ""
	case !hasDate && value >= 1:
		return "" // elapsed time
	case !hasDate:
		return date.Round(time.Second).Format("15:04:05")
	case value == math.Trunc(value):
		return date.Format(time.DateOnly)
	}
	return date.Round(time.Second).Format("2006-01-02T15:04:05")
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

// records returns the rows of a sheet that are neither empty nor comments, all of one width. Problems use
// name.
func (w *Workbook) records(sheet sheetPart, name string) (records []record, wrong *diag.Problem) {
	rows, merged, err := w.readSheet(sheet)
	if err != nil {
		p := w.unreadable("the sheet", err)
		p.File += "!" + name
		return nil, &p
	}
	width, begin := 0, -1 // begin is the first column of the header
	for i, row := range rows {
		first := row.cells[0]
		if strings.HasPrefix(first.text, "#") && leftover(first.text) == nil && first.wrong == nil && (begin < 0 || first.column <= begin) {
			w.comments[name] = append(w.comments[name], Comment{row.line, row.text()})
			rows[i].cells = nil
			continue
		}
		if begin < 0 {
			begin = first.column
		}
		for _, cell := range row.cells {
			if cell.column < maxColumns {
				width = max(width, cell.column+1)
			}
		}
	}
	if len(rows)*width > maxCells {
		p := w.unreadable("the sheet", &limitError{tooManyCells})
		p.File += "!" + name
		return nil, &p
	}
	for _, row := range rows {
		if len(row.cells) > 0 {
			records = append(records, row.record(merged, width))
		}
	}
	return records, nil
}

const mergedCode = "cell-merged"

// text returns all texts of a row.
func (row sheetRow) text() string {
	var texts []string
	for _, cell := range row.cells {
		texts = append(texts, cell.text)
	}
	return strings.Join(texts, " ")
}

// record returns the texts of a row that can be known.
func (row sheetRow) record(merged []mergedArea, width int) record {
	r := record{line: row.line, cells: make([]string, width)}
	for _, cell := range row.cells {
		switch {
		case cell.wrong != nil:
			r.lost = append(r.lost, cell)
			continue
		case cell.number:
			r.numbers = append(r.numbers, cell.column)
		}
		r.cells[cell.column] = cell.text
	}
	var isLost []bool
	end := min(row.cells[len(row.cells)-1].column+1, width) // beyond, the row has nothing to lose
	for _, area := range merged {
		if row.line < area.firstRow || row.line > area.row {
			continue
		}
		if isLost == nil {
			isLost = make([]bool, end)
		}
		for column := area.firstColumn; column < min(area.column+1, end); column++ {
			if isLost[column] {
				break // areas that overlap cannot be distinguished
			}
			isLost[column] = true
			r.lost = append(r.lost, sheetCell{column: column, text: r.cells[column], wrong: area.wrong})
			r.cells[column] = ""
		}
	}
	return r
}
