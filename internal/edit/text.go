package edit

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// encoding is how a file writes its text.
type encoding struct {
	mark  string           // byte-order mark
	order binary.ByteOrder // of UTF-16; nil for UTF-8
	// oldMac: lines end in CR alone
	oldMac bool
}

var marks = []encoding{
	{mark: "\xef\xbb\xbf"},
	{mark: "\xff\xfe", order: binary.LittleEndian},
	{mark: "\xfe\xff", order: binary.BigEndian},
}

// decode gives the text in UTF-8, its lines ending in LF or CRLF. ok is false if encode would not
// give the same bytes again.
func decode(data []byte) (text string, e encoding, ok bool) {
	for _, known := range marks {
		if bytes.HasPrefix(data, []byte(known.mark)) {
			e = known
		}
	}
	body := data[len(e.mark):]
	text = string(body)
	if e.order != nil {
		if len(body)%2 != 0 {
			return "", e, false
		}
		units := make([]uint16, len(body)/2)
		for i := range units {
			units[i] = e.order.Uint16(body[2*i:])
		}
		text = string(utf16.Decode(units))
	}
	if !strings.Contains(text, "\n") && strings.Contains(text, "\r") {
		e.oldMac = true
		text = strings.ReplaceAll(text, "\r", "\n")
	}
	return text, e, utf8.ValidString(text) && bytes.Equal(e.encode(text), data)
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
