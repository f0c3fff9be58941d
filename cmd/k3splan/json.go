package main

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf16"

	"k3splan/internal/diag"

	"github.com/spf13/cobra"
)

// Every command with a result prints it as text, or as JSON with --json: one value, two views.

// shapeAnnotation is where the flag --json keeps the full shape of its value, for the reference.
const shapeAnnotation = "shape"

// addJSON adds the flag --json to a command. values are of the types that the command prints; their keys are
// listed in the help.
func addJSON(command *cobra.Command, asJSON *bool, values ...any) {
	var short, full []string
	for _, value := range values {
		short = append(short, jsonShape(reflect.TypeOf(value), 1))
		full = append(full, jsonShape(reflect.TypeOf(value), 9))
	}
	command.Flags().BoolVar(asJSON, "json", false, "print JSON: "+strings.Join(short, " or "))
	if err := command.Flags().SetAnnotation("json", shapeAnnotation, full); err != nil {
		panic(err) // the flag is the one above
	}
}

// print prints a result: value as JSON, or what text returns.
func (a *app) print(asJSON bool, value any, text func() (string, error)) error {
	if asJSON {
		return printJSON(a.stdout, value)
	}
	out, err := text()
	if err != nil {
		return err
	}
	_, err = io.WriteString(a.stdout, out)
	return err
}

// printJSON writes a value as JSON. What a terminal would obey is written as JSON's own escapes, which mean
// the same.
func printJSON(out io.Writer, value any) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return err
	}
	var safe strings.Builder
	for _, r := range text.String() {
		if r == '\n' || diag.Printable(string(r)) == string(r) {
			safe.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&safe, `\u%04x`, unit)
		}
	}
	_, err := io.WriteString(out, safe.String())
	return err
}

var (
	marshalsJSON = reflect.TypeFor[json.Marshaler]()
	marshalsText = reflect.TypeFor[encoding.TextMarshaler]()
)

// jsonShape returns how a type looks in JSON: "[{name, hosts: [{name}]}]". depth is how many levels of
// objects are shown with their keys.
func jsonShape(t reflect.Type, depth int) string {
	if t.Implements(marshalsJSON) || t.Implements(marshalsText) {
		return ""
	}
	switch t.Kind() {
	case reflect.Pointer:
		return jsonShape(t.Elem(), depth)
	case reflect.Slice, reflect.Array:
		return "[" + jsonShape(t.Elem(), depth) + "]"
	case reflect.Map:
		if depth == 0 {
			return "{...}"
		}
		key := "NAME"
		if shape := jsonShape(t.Elem(), depth-1); shape != "" {
			key += ": " + shape
		}
		return "{" + key + "}"
	case reflect.Struct:
		if depth == 0 {
			return "{...}"
		}
		return "{" + strings.Join(jsonKeys(t, depth-1), ", ") + "}"
	}
	return ""
}

func jsonKeys(t reflect.Type, depth int) (keys []string) {
	for i := range t.NumField() {
		field := t.Field(i)
		key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case key == "-" || !field.IsExported():
		case key == "" && field.Anonymous:
			keys = append(keys, jsonKeys(field.Type, depth)...)
		case jsonShape(field.Type, depth) == "" || depth == 0 && jsonShape(field.Type, 1) == "[]":
			keys = append(keys, key)
		default:
			keys = append(keys, fmt.Sprintf("%s: %s", key, jsonShape(field.Type, depth)))
		}
	}
	return keys
}
