package project

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/nixtext"
	"k3splan/internal/plan"
)

// checkInstallation warns about what the text of the host's Nix files shows to prevent an installation by
// a boot stick, or the host's network. `k3splan boot-stick` evaluates the host before it builds the image,
// and finds more.
func (p *Project) checkInstallation() (problems diag.Problems) {
	reader := importReader{fsys: p.fsys, known: map[string][]nixFile{}}
	for _, host := range p.Plan.Hosts {
		if p.Partitioned(host) {
			problems = append(problems, checkLayout(host, reader.withImports(partitioningFile(host)))...)
		}
		problems = append(problems, p.checkInterface(host, reader)...)
	}
	return problems
}

// checkLayout warns about an encrypted disko layout: the installer has no keyboard, and brings no key.
func checkLayout(host *plan.Host, layout []nixFile) (problems diag.Problems) {
	for _, file := range layout {
		for _, key := range missingKeys(file.text) {
			message := "the layout is encrypted with a key file that a boot stick does not bring"
			switch {
			case key.computed:
				message = "the layout is encrypted with a key whose file is computed, and a boot stick brings none"
			case key.file == "":
				message = "the layout is encrypted and asks for a passphrase, which nobody can type during an installation by a boot stick"
			}
			problems = append(problems, diag.Problem{
				File: file.name, Line: lineOf(file.text, key.file), Value: key.file, Severity: diag.Warning, Code: "disk-key-missing", Message: message,
				Hint: "take the encryption out, or install " + host.Name + " without a boot stick and deploy to it then",
			})
		}
	}
	return problems
}

var (
	// virtual are the names of interfaces that no hardware has: the kernel and udev give it names without a
	// dot, and with other beginnings.
	virtual = regexp.MustCompile(`^((bond|br|vmbr|virbr|lxcbr|lxdbr|docker|podman|cni|vlan|team|dummy|veth|macvlan|ipvlan|tun|tap|vxlan|gre|sit|wg|tailscale)[-_]?[0-9].*|` +
		`(bond|br|bridge|vlan|team)([-_].*)?|.*\..*)$`)
	// capitals are in no name that the kernel or udev gives, apart from the P before the number of a PCI domain
	// (systemd.net-naming-scheme(7)): a keyboard or spreadsheet that begins words with one has made it.
	capitals = regexp.MustCompile(`[A-Z]`)
	domain   = regexp.MustCompile(`^(en|wl|ww|sl|ib)P[0-9]+`)
)

// checkInterface warns about an interface that no hardware has and that no Nix file of the host mentions.
func (p *Project) checkInterface(host *plan.Host, reader importReader) diag.Problems {
	message := "nothing makes this interface, so " + host.Name + " would have no network"
	hint := "define it in nixConfigs/" + host.Name + ".nix (networking.bonds, .vlans, .bridges), or name an interface of the machine"
	switch {
	case capitals.MatchString(domain.ReplaceAllString(host.Interface, "")):
		message = "hardware has no interface with capitals in its name, so " + host.Name + " would have no network"
		hint = fmt.Sprintf("did you mean %q?", strings.ToLower(host.Interface))
	case !virtual.MatchString(host.Interface):
		return nil
	}
	base, _, _ := strings.Cut(host.Interface, ".")
	for _, file := range p.Imports(host) {
		for _, file := range reader.withImports(file) {
			if strings.Contains(file.text, base) {
				return nil
			}
		}
	}
	return diag.Problems{{
		File: p.Plan.Tables.Hosts, Line: host.Line, Column: "interface", Value: host.Interface, Severity: diag.Warning, Code: "interface-missing",
		Message: message, Hint: hint,
	}}
}

// nixFile is a file of the project with its text.
type nixFile struct{ name, text string }

// importReader remembers what files refer to: thousands of hosts may share a few.
type importReader struct {
	fsys  fs.FS
	known map[string][]nixFile
}

// withImports returns a Nix file and those of the project that its text refers to, each once.
func (r importReader) withImports(name string) (found []nixFile) {
	if found, known := r.known[name]; known {
		return found
	}
	defer func() { r.known[name] = found }()
	queue := []string{name}
	for i := 0; i < len(queue); i++ {
		text, err := fs.ReadFile(r.fsys, queue[i])
		if err != nil {
			continue // reported already, or outside of the project
		}
		found = append(found, nixFile{queue[i], string(text)})
		tokens, _ := nixtext.Tokens(string(text))
		for _, token := range tokens {
			file := path.Join(path.Dir(queue[i]), token.Text)
			if token.Kind == nixtext.Path && strings.HasPrefix(token.Text, ".") && path.Ext(file) == ".nix" && !slices.Contains(queue, file) {
				queue = append(queue, file)
			}
		}
	}
	return found
}

// lineOf returns the line, from 1, in which a string is written, 0 if it is not found.
func lineOf(text, value string) int {
	before, _, found := strings.Cut(text, `"`+value)
	if value == "" || !found {
		return 0
	}
	return 1 + strings.Count(before, "\n")
}

// diskKey is what a layout reads its encryption key from: a file, or, with an empty name, the keyboard.
type diskKey struct {
	file     string
	computed bool // the file's name is not in the text
}

// missingKeys returns the keys that a layout of disko reads and does not make itself. Devices do not count:
// they may be plugged in.
func missingKeys(text string) (keys []diskKey) {
	tokens, _ := nixtext.Tokens(text)
	var hooks strings.Builder
	encrypted, named := false, false
	for i, token := range tokens {
		if i+1 == len(tokens) || !tokens[i+1].Is("=") {
			continue
		}
		value := valueOf(tokens[i+2:])
		switch token.Text {
		case "preCreateHook", "preMountHook":
			for _, t := range value {
				hooks.WriteString(strings.Join(append(t.Parts, t.Text), " ") + "\n")
			}
		case "type":
			encrypted = encrypted || len(value) == 1 && value[0].Whole() && value[0].Text == "luks"
		case "askPassword":
			if len(value) == 1 && value[0].Is("true") {
				keys, named = append(keys, diskKey{}), true
			}
		case "keylocation":
			keys = append(keys, locations(value)...)
		case "passwordFile", "keyFile", "additionalKeyFiles":
			named = true
			keys = append(keys, keyFiles(value)...)
		}
	}
	if encrypted && !named {
		keys = append(keys, diskKey{})
	}
	return slices.DeleteFunc(keys, func(key diskKey) bool {
		made := hooks.Len() > 0 && (key.computed || key.file != "" && strings.Contains(hooks.String(), key.file))
		return made || strings.HasPrefix(key.file, "/dev/")
	})
}

// valueOf returns the tokens up to the end of a definition.
func valueOf(tokens []nixtext.Token) []nixtext.Token {
	if end := slices.IndexFunc(tokens, func(t nixtext.Token) bool { return t.Is(";") }); end >= 0 {
		return tokens[:end]
	}
	return tokens
}

// keyFiles returns the strings in a value; a value without any is computed, unless it is null or empty.
func keyFiles(value []nixtext.Token) (keys []diskKey) {
	computed := false
	for _, token := range value {
		switch {
		case token.Whole():
			keys = append(keys, diskKey{file: token.Text})
		case token.Kind != nixtext.Punctuation && !token.Is("null"):
			computed = true
		}
	}
	if len(keys) == 0 && computed {
		return []diskKey{{computed: true}}
	}
	return keys
}

// locations returns the keys in a value of ZFS's keylocation.
func locations(value []nixtext.Token) (keys []diskKey) {
	for _, token := range value {
		if file, isFile := strings.CutPrefix(token.Text, "file://"); token.Whole() && isFile {
			keys = append(keys, diskKey{file: file})
		} else if token.Whole() && token.Text == "prompt" {
			keys = append(keys, diskKey{})
		}
	}
	return keys
}
