package project

import (
	"io/fs"
	"path"
	"regexp"
	"strings"

	"k3splan/internal/diag"
)

// checkLayouts warns about encrypted disko layouts that a boot stick cannot carry out: it installs without
// a keyboard, and brings no key. This goes by the text, without Nix; `k3splan boot-stick` evaluates the
// layout before it builds the image, and refuses.
func (p *Project) checkLayouts() (problems diag.Problems) {
	for _, host := range p.Plan.Hosts {
		if !p.Partitioned(host) {
			continue
		}
		for _, key := range layoutKeys(p.fsys, partitioningFile(host), map[string]bool{}) {
			message := "the layout is encrypted with a key file that a boot stick does not bring"
			switch {
			case key.computed:
				message = "the layout is encrypted with a key whose file is computed, and a boot stick brings none"
			case key.file == "":
				message = "the layout is encrypted and asks for a passphrase, which nobody can type during an installation by a boot stick"
			}
			problems = append(problems, diag.Problem{
				File: key.in, Line: key.line, Value: key.file, Severity: diag.Warning, Code: "disk-key-missing", Message: message,
				Hint: "take the encryption out, or install " + host.Name + " without a boot stick and deploy to it then",
			})
		}
	}
	return problems
}

// diskKey is what a layout reads its encryption key from: a file, or, with an empty name, the keyboard.
type diskKey struct {
	file     string
	computed bool   // the file's name is not in the text
	in       string // the file of the project that names it
	line     int    // from 1
}

// imported is a path to another file of the project.
var imported = regexp.MustCompile(`\.{1,2}/[A-Za-z0-9._/@+-]+\.nix\b`)

// layoutKeys returns the missing keys of a layout and of the files that it refers to, each read once.
func layoutKeys(fsys fs.FS, file string, seen map[string]bool) []diskKey {
	if seen[file] {
		return nil
	}
	seen[file] = true
	text, err := fs.ReadFile(fsys, file)
	if err != nil {
		return nil // reported already, or outside of the project
	}
	keys := missingKeys(string(text))
	for i := range keys {
		keys[i].in = file
	}
	for _, name := range imported.FindAllString(comment.ReplaceAllString(string(text), "$1"), -1) {
		keys = append(keys, layoutKeys(fsys, path.Join(path.Dir(file), name), seen)...)
	}
	return keys
}

var (
	// oneKey is an option of disko or ZFS with a key file, or with what makes them ask.
	oneKey = regexp.MustCompile(`\b(?:passwordFile|keyFile)\s*=\s*(?:(?:lib\.)?mk[A-Z]\w*\s+)?"([^"$]+)"|\bkeylocation\s*=\s*"(?:file://([^"$]+)|prompt)"|\baskPassword\s*=\s*true\b`)
	// keyList is a list of key files.
	keyList  = regexp.MustCompile(`\badditionalKeyFiles\s*=\s*\[([^\]]*)\]`)
	inQuotes = regexp.MustCompile(`"([^"$]+)"`)
	// encryption is what makes disko ask if nothing names a key.
	encryption = regexp.MustCompile(`\btype\s*=\s*"luks"`)
	// keyOption is an option that names a key, in whatever way.
	keyOption = regexp.MustCompile(`\b(?:passwordFile|keyFile)\b`)
	// keyHook is a hook of disko that may make the key.
	keyHook = regexp.MustCompile(`\b(?:preCreateHook|preMountHook)\b`)
	comment = regexp.MustCompile(`(?m)(^|\s)#.*$`)
)

// missingKeys returns the keys in the text of a layout that nothing in it makes. Devices do not count:
// they may be plugged in.
func missingKeys(text string) (keys []diskKey) {
	text = comment.ReplaceAllString(text, "$1")
	add := func(file string, at int) {
		made := keyHook.MatchString(text) && strings.Count(text, file) > 1
		if file == "" || !made && !strings.HasPrefix(file, "/dev/") {
			keys = append(keys, diskKey{file: file, line: 1 + strings.Count(text[:at], "\n")})
		}
	}
	for _, found := range oneKey.FindAllStringSubmatchIndex(text, -1) {
		add(group(text, found, 1)+group(text, found, 2), found[0])
	}
	for _, list := range keyList.FindAllStringSubmatchIndex(text, -1) {
		for _, file := range inQuotes.FindAllStringSubmatch(group(text, list, 1), -1) {
			add(file[1], list[0])
		}
	}
	if found := encryption.FindStringIndex(text); found != nil && !oneKey.MatchString(text) && !keyHook.MatchString(text) {
		add("", found[0])
		keys[len(keys)-1].computed = keyOption.MatchString(text)
	}
	return keys
}

// group returns a group of a match, "" if it does not take part in it.
func group(text string, match []int, number int) string {
	if match[2*number] < 0 {
		return ""
	}
	return text[match[2*number]:match[2*number+1]]
}
