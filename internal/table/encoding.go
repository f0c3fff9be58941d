package table

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// encoding is how a file stores its text.
type encoding struct {
	name  string
	mark  string           // byte-order mark
	order binary.ByteOrder // of UTF-16; nil for UTF-8
	// oldMac: lines end in CR alone
	oldMac bool
}

var encodings = []encoding{
	{name: "UTF-8"},
	{name: "UTF-8", mark: "\xef\xbb\xbf"},
	{name: "UTF-16", mark: "\xff\xfe", order: binary.LittleEndian},
	{name: "UTF-16", mark: "\xfe\xff", order: binary.BigEndian},
}

// Text returns what a file says, in UTF-8, with lines that end in LF or CRLF.
func Text(data []byte) string {
	text, _ := decode(data)
	return text
}

// decode returns the text in UTF-8, with lines that end in LF or CRLF; encode returns the same bytes
// again. Bytes that are not a character of the encoding become bytes that are not valid UTF-8.
func decode(data []byte) (text string, e encoding) {
	for _, known := range encodings {
		if bytes.HasPrefix(data, []byte(known.mark)) {
			e = known
		}
	}
	data = data[len(e.mark):]
	if e.order != nil {
		data = e.fromUTF16(data)
	}
	text = string(data)
	if !strings.Contains(text, "\n") && strings.Contains(text, "\r") {
		e.oldMac = true
		text = strings.ReplaceAll(text, "\r", "\n")
	}
	return text, e
}

// fromUTF16 returns UTF-8.
func (e encoding) fromUTF16(data []byte) (text []byte) {
	const invalid = 0xff // occurs in no character of UTF-8
	for len(data) >= 2 {
		char, rest := rune(e.order.Uint16(data)), data[2:]
		if utf16.IsSurrogate(char) {
			low := rune(0)
			if len(rest) >= 2 {
				low, rest = rune(e.order.Uint16(rest)), rest[2:]
			}
			if char = utf16.DecodeRune(char, low); char == utf8.RuneError { // half of a pair
				text, data = append(text, invalid), data[2:]
				continue
			}
		}
		text, data = utf8.AppendRune(text, char), rest
	}
	if len(data) > 0 {
		text = append(text, invalid)
	}
	return text
}

func (e encoding) encode(text string) []byte {
	if e.oldMac {
		text = strings.ReplaceAll(text, "\n", "\r")
	}
	data := []byte(e.mark)
	if e.order == nil {
		return append(data, text...)
	}
	for _, unit := range utf16.Encode([]rune(text)) {
		data = append(data, 0, 0)
		e.order.PutUint16(data[len(data)-2:], unit)
	}
	return data
}
