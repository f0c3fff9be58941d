// Package yamlfile reads the YAML files of a project that people write by hand: one mapping of keys to
// values, and nothing else. For the usual slips it says what is wrong in which line, where a YAML parser
// only reports what it expected. Scalars keep the text that is in the file: 1.30 is not a number that loses
// its zero.
package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/unicode"
	"gopkg.in/yaml.v3"

	"k3splan/internal/diag"
)

// Code is the code of the problems of this package, NoBlank the message of the most frequent one.
const (
	Code    = "yaml-syntax"
	NoBlank = "a blank is missing after the colon"
)

// Read returns the mapping that the file holds, nil if it is empty. known are the keys that it may have,
// with a dot for each level ("versions.k3s"); they serve to recognize slips. The problem is that of the
// first syntax error.
func Read(file string, data []byte, known []string) (mapping *yaml.Node, problem *diag.Problem) {
	wrong := func(line int, message, hint string) (*yaml.Node, *diag.Problem) {
		return nil, &diag.Problem{File: file, Line: line, Severity: diag.Error, Code: Code, Message: message, Hint: hint}
	}
	if line, message := oddText(data); message != "" {
		return wrong(line, message, "type the line again, or save the file as UTF-8")
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var root yaml.Node
	err := decoder.Decode(&root)
	if err == nil {
		switch second := decoder.Decode(new(yaml.Node)); {
		case second == nil:
			return wrong(0, "there is more than one document in the file", "delete the line ---")
		case second != io.EOF:
			err = second
		}
	}
	if err != nil && err != io.EOF {
		return wrong(Explain(err, data, known))
	}
	if len(root.Content) == 0 || IsNull(root.Content[0]) {
		return nil, nil
	}
	top := root.Content[0]
	if top.Kind != yaml.MappingNode {
		if line, message, hint := explainLine(data, known); message != "" {
			return wrong(line, message, hint)
		}
		return wrong(top.Line, "keys with values are needed here", "key: value")
	}
	return top, nil
}

// maxValues is how many values a text may have. Bundles of CustomResourceDefinitions, the largest files in
// YAML that people have in a project, have about a third of that.
const maxValues = 300_000

// TooMany reports whether a text may hold more values than a project has any use for. Each needs some
// hundred bytes of memory once it is parsed, and in YAML it may be two bytes long.
func TooMany(data []byte) bool {
	return bytes.Count(data, []byte(":"))+bytes.Count(data, []byte(","))+bytes.Count(data, []byte("- ")) > maxValues
}

// maxKeys is how many keys a mapping may have: yaml.v3 compares each with each.
const maxKeys = 10_000

// CheckKeys reports a mapping in a node that has a key twice, or more keys than yaml.v3 can look through in
// a moment. yaml.v3 reports duplicate keys too, but each with each other.
func CheckKeys(node *yaml.Node) (line int, message string) {
	if node.Kind == yaml.MappingNode {
		if len(node.Content)/2 > maxKeys {
			return node.Line, fmt.Sprintf("a mapping has more than %d keys", maxKeys)
		}
		first := map[string]int{}
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i]
			if key.Kind != yaml.ScalarNode {
				continue
			}
			name := key.ShortTag() + " " + key.Value
			if at, twice := first[name]; twice {
				return key.Line, fmt.Sprintf("mapping key %q already defined at line %d", key.Value, at)
			}
			first[name] = key.Line
		}
	}
	for _, child := range node.Content { // aliases have none, so this ends
		if line, message := CheckKeys(child); message != "" {
			return line, message
		}
	}
	return 0, ""
}

// Value returns the node that an alias refers to, and any other node itself.
func Value(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

// IsNull reports whether a node holds no value: nothing, ~ or null.
func IsNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.Tag == "!!null" }

// syntaxError matches the messages of the scanner and the parser of yaml.v3.
var syntaxError = regexp.MustCompile(`^(?:found|did not find|could not find|mapping values|block sequence)`)

var errorForm = regexp.MustCompile(`^(?:yaml: )?(?:line ([0-9]+): )?`)

// Error returns the line of an error of yaml.v3, 0 if it gives none, and its message without the line.
func Error(err error) (line int, message string) {
	message = err.Error()
	var several *yaml.TypeError
	if errors.As(err, &several) && len(several.Errors) > 0 {
		message = several.Errors[0]
	}
	m := errorForm.FindStringSubmatch(message)
	line, _ = strconv.Atoi(m[1])
	message = message[len(m[0]):]
	switch {
	case line > 0 && strings.HasPrefix(message, "did not find expected"):
		line++ // yaml.v3 counts from 0 in the errors of its parser, from 1 in those of its scanner
	case line == 0 && syntaxError.MatchString(message):
		line = 1 // which yaml.v3 leaves out
	}
	return line, message
}

// Explain returns what is wrong with a file that yaml.v3 refused with err: the slip that explains the
// error if one is found, else the parser's own words. known are the keys that the file may have; without
// any, every word before a colon may be a key.
func Explain(err error, data []byte, known []string) (line int, message, hint string) {
	if line, message, hint = explainLine(data, known); message != "" {
		return line, message, hint
	}
	line, message = Error(err)
	for _, known := range usualCauses {
		if strings.Contains(message, known.words) {
			return line, message, known.hint
		}
	}
	return line, message, "key: value, with a blank after the colon, and blanks (no tabs) at the beginning of a line"
}

// usualCauses are hints for messages of the parser.
var usualCauses = []struct{ words, hint string }{
	{"cannot start any token", "put a value that begins with a special character into single quotes: 'value'"},
	{"did not find expected alphabetic", "put a value that begins with a special character into single quotes: 'value'"},
	{"unknown anchor", "put a value that begins with * into single quotes: '*.example'"},
	{"found unknown escape", "put the value into single quotes: 'value'"},
	{"unexpected end of stream", "close the quote or bracket that is open"},
	{"mapping values are not allowed", "indent the line as the one above; put a value with a colon in it into quotes"},
}

var (
	// noBlank matches a key whose colon is followed by its value at once. What follows the colon of a URL
	// are slashes.
	noBlank = regexp.MustCompile(`^[ ]*(?:- +)?([A-Za-z_][A-Za-z0-9_-]*):([^\s/].*?)\s*$`)
	// tabIndent matches a line that begins with a tab, after blanks or not.
	tabIndent = regexp.MustCompile(`^ *\t[ \t]*[^\s#]`)
)

// explainLine looks for the two slips that a YAML parser reports elsewhere, or not at all: a blank that
// is missing after a colon, and tabs that indent a line.
func explainLine(data []byte, known []string) (line int, message, hint string) {
	for text := range bytes.Lines(data) {
		line++
		if tabIndent.Match(text) {
			return line, "the line begins with a tab, which YAML does not allow", "indent it with blanks"
		}
		if m := noBlank.FindSubmatch(text); m != nil && isKey(string(m[1]), known) {
			return line, NoBlank, fmt.Sprintf("write: %s: %s", m[1], m[2])
		}
	}
	return 0, "", ""
}

// isKey reports whether word is a key on any level.
func isKey(word string, known []string) bool {
	return len(known) == 0 || slices.ContainsFunc(known, func(key string) bool {
		return slices.Contains(strings.Split(key, "."), word)
	})
}

// MissingBlank returns the hint for a key such as "nixos:nixos-24.11", which is a known one whose colon
// is not followed by a blank, or "".
func MissingBlank(key string, known []string) string {
	name, value, found := strings.Cut(key, ":")
	if !found || value == "" || !isKey(name, known) {
		return ""
	}
	return fmt.Sprintf("write: %s: %s", name, value)
}

// oddText finds what no editor shows and no parser explains: text that is not UTF-8, blanks that are not
// blanks to YAML, and characters that end a line for YAML (1.1) but for few editors, a comment's too.
func oddText(data []byte) (line int, what string) {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		decoded, err := unicode.UTF16(unicode.LittleEndian, unicode.ExpectBOM).NewDecoder().Bytes(data) // the mark decides
		if err != nil {
			return 0, "" // yaml.v3 says what is wrong with it
		}
		data = decoded
	}
	for text := range bytes.Lines(data) {
		line++
		if !utf8.Valid(text) {
			return line, "a character here is not UTF-8"
		}
		if i := bytes.IndexAny(text, "\u0085\u2028\u2029"); i >= 0 {
			char, _ := utf8.DecodeRune(text[i:])
			return line, fmt.Sprintf("there is an invisible line break (U+%04X), which ends the line in YAML", char)
		}
		key, _, _ := bytes.Cut(text, []byte("#"))
		if bytes.ContainsRune(key, '\u00a0') {
			return line, "there is a no-break space (U+00A0), which is not a blank in YAML"
		}
	}
	return 0, ""
}
