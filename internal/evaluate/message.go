package evaluate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// messagePrefix begins what Nix says with --log-format internal-json (src/libutil/logging.cc).
const messagePrefix = "@nix "

// message is one line of that.
type message struct {
	Action string `json:"action"`
	// Text is that of a message as it is shown, Raw that of an error without its trace.
	Text string `json:"msg"`
	Raw  string `json:"raw_msg"`
	// File, Line and Column say where an error is, if that is known.
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	// StartText is that of an activity that begins.
	StartText string `json:"text"`
	// ID and Kind are those of an activity or of a result of one.
	ID     int64             `json:"id"`
	Kind   int               `json:"type"`
	Fields []json.RawMessage `json:"fields"`
}

func (m *message) parse(line string) bool {
	data, ok := strings.CutPrefix(line, messagePrefix)
	return ok && json.Unmarshal([]byte(data), m) == nil
}

// words are those of an error, with its place.
func (m *message) words() string {
	words := strings.TrimSpace(plain(m.Raw))
	if m.File != "" && m.Line > 0 && !strings.HasPrefix(m.File, "(") {
		words += fmt.Sprintf("\nat %s:%d:%d", m.File, m.Line, m.Column)
	}
	return words
}

var colours = regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]")

// plain is a text without colours.
func plain(text string) string { return colours.ReplaceAllString(strings.ToValidUTF8(text, ""), "") }

// maxLine is how much of a line is read, in bytes: a host's data is one line.
const maxLine = 64 << 20

// lines passes each line on that is written to it.
type lines struct {
	take func(line string)
	part []byte
}

func (l *lines) Write(data []byte) (int, error) {
	for rest := data; ; {
		line, after, found := bytes.Cut(rest, []byte("\n"))
		if l.part = append(l.part, line...); len(l.part) > maxLine {
			return 0, fmt.Errorf("Nix writes a line of more than %d MiB", maxLine>>20)
		}
		if !found {
			return len(data), nil
		}
		l.take(string(l.part))
		l.part, rest = l.part[:0], after
	}
}
