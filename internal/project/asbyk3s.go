package project

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	k8syaml "k8s.io/apimachinery/pkg/util/yaml"

	"k3splan/internal/run"
	"k3splan/internal/yamlfile"
)

// The encodings that a byte-order mark announces. YAML allows them, and k3s does not expect them when it
// cuts a file into documents: it refuses such a file, or deploys its first document alone.
var encodings = []struct {
	mark []byte
	name string
}{
	{[]byte{0xff, 0xfe, 0, 0}, "UTF-32"}, // before UTF-16, whose mark it begins with
	{[]byte{0, 0, 0xfe, 0xff}, "UTF-32"},
	{[]byte{0xff, 0xfe}, "UTF-16"},
	{[]byte{0xfe, 0xff}, "UTF-16"},
}

// byteOrderMark is that of UTF-8.
var byteOrderMark = []byte("\ufeff")

// checkEncoding returns why a manifest is not UTF-8, or "".
func checkEncoding(file string, data []byte) (message, hint string) {
	name := ""
	for _, e := range encodings {
		if name == "" && bytes.HasPrefix(data, e.mark) {
			name = e.name
		}
	}
	switch {
	case name != "":
		message = "the file is encoded as " + name + ", of which k3s reads the first object at best"
	case bytes.IndexByte(data, 0) < 0:
		return "", ""
	default:
		message = "the file contains null bytes: UTF-16 without byte-order mark, or not a text"
		if name = "UTF-16LE"; len(data) > 1 && binary.BigEndian.Uint16(data) < 0x80 { // the first letter is ASCII
			name = "UTF-16BE"
		}
	}
	return message, fmt.Sprintf("save it as UTF-8: iconv -f %s -t UTF-8 %s > new && mv new %[2]s", name, run.Word(file))
}

const refusedMessage = "k3s deploys nothing of the file: "

// refusal is why k3s would deploy nothing of a manifest.
type refusal struct {
	document      int // the one that it does not like, from 0, as k3s counts
	line          int // the line, if that is known, else 0
	message, hint string
}

// documentsOfK3s counts the documents that k3s would deploy of a manifest. It follows the deploy
// controller of k3s (pkg/deploy/controller.go): a file is cut at lines that begin with ---, what holds
// nothing but comments is left out, what begins with a brace is JSON, and of everything else the first
// document counts as YAML sees it.
func documentsOfK3s(data []byte) (documents int, refused *refusal) {
	reader := k8syaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		part, err := reader.Read()
		switch {
		case errors.Is(err, io.EOF):
			return documents, nil
		case err != nil: // only text after --- in a line
			return 0, &refusal{line: badSeparator(data), message: refusedMessage + lowerFirst(err.Error()), hint: "nothing but a comment may follow --- in its line"}
		}
		if isBlank(part) {
			continue
		}
		if refused := refuseDocument(part); refused != nil {
			refused.document = documents
			return 0, refused
		}
		documents++
	}
}

// isBlank reports whether a document holds nothing but comments.
func isBlank(document []byte) bool {
	for line := range bytes.Lines(document) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && string(line) != "---" {
			return false
		}
	}
	return true
}

func refuseDocument(document []byte) *refusal {
	text, err := k8syaml.ToJSON(document)
	if err != nil {
		hint := ""
		if bytes.HasPrefix(document, []byte("%")) || bytes.Contains(document, []byte("\n%")) {
			hint = "delete the line that begins with %"
		}
		_, message := yamlfile.Error(err) // its line counts from the document's beginning
		return &refusal{message: refusedMessage + message, hint: hint}
	}
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil {
		return &refusal{message: refusedMessage + "what begins with { is JSON for it, and this is none: " + err.Error(),
			hint: "put keys and texts into quotes, or write the object without braces around it"}
	}
	switch {
	case object == nil && bytes.HasPrefix(document, byteOrderMark): // before which a comment is none
		return &refusal{line: 1, message: refusedMessage + "one of its documents is null", hint: "save it as UTF-8 without byte-order mark"}
	case object == nil:
		return &refusal{message: refusedMessage + "one of its documents is null", hint: "delete it, with the line --- before it"}
	}
	return nil
}

// badSeparator returns the line, from 1, in which text follows ---.
func badSeparator(data []byte) (line int) {
	for text := range bytes.Lines(data) {
		line++
		if behind, found := bytes.CutPrefix(text, []byte("---")); found {
			if behind = bytes.TrimSpace(behind); len(behind) > 0 && behind[0] != '#' {
				return line
			}
		}
	}
	return 0
}

func lowerFirst(text string) string { return strings.ToLower(text[:1]) + text[1:] }
