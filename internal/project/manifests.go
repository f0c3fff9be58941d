package project

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
	"k8s.io/apimachinery/pkg/util/validation"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/run"
	"k3splan/internal/yamlfile"
)

// Manifest is a file that k3s deploys, as it was read and checked.
type Manifest struct {
	// Name is the file's name without folder.
	Name string
	Data []byte
}

// stem is the name of the addon that k3s makes of the file: what precedes the first point.
func (m Manifest) stem() string {
	stem, _, _ := strings.Cut(m.Name, ".")
	return stem
}

// packaged are the addons that k3s brings itself; it writes files of these names, and removes them
// when a component is disabled (k3s docs, "Packaged Components").
var packaged = []string{
	"ccm", "coredns", "local-storage", "metrics-server", "rolebindings", "runtimes", "traefik",
	// the files of its folder metrics-server
	"aggregated-metrics-reader", "auth-delegator", "auth-reader", "metrics-apiservice", "metrics-server-deployment",
	"metrics-server-service", "resource-reader",
}

// ignoredCode is the problem code of a file that is not deployed, and of which nothing is lost by that.
const ignoredCode = "manifest-ignored"

// packagedHint says how a manifest gets out of the way of an addon of k3s.
func packagedHint(file string, data []byte) string {
	ending := path.Ext(file)
	other := strings.TrimSuffix(file, ending) + "-config" + ending
	if bytes.Contains(data, []byte("HelmChartConfig")) {
		return fmt.Sprintf("rename it: mv %s %s", run.Word(file), run.Word(other))
	}
	return "rename the file; to change the addon, use a HelmChartConfig, in a file such as " + other
}

// readManifests returns the manifests sorted by name.
func readManifests(fsys fs.FS) (manifests []Manifest, _ diag.Problems) {
	entries, err := fs.ReadDir(fsys, files.ManifestsDir)
	if err != nil {
		return nil, unreadableFolder(files.ManifestsDir, err)
	}
	var found diag.Collector
	stems := map[string]string{}
	for _, entry := range entries { // ReadDir sorts by name
		name := entry.Name()
		if isCompanion(name) {
			continue
		}
		file := path.Join(files.ManifestsDir, name)
		report := func(severity diag.Severity, line int, code, message, hint string) {
			found.Add(diag.Problem{File: file, Line: line, Severity: severity, Code: code, Message: message, Hint: hint})
		}
		if reason := ignored(fsys, file); reason != "" {
			report(diag.Warning, 0, ignoredCode, "not deployed: "+reason, "")
			continue
		}
		data, err := fs.ReadFile(fsys, file)
		if err != nil {
			reason, hint := diag.Reason(err), diag.HintOf(err)
			report(diag.Error, 0, "manifest-invalid", "the file cannot be read: "+reason.Error(), hint)
			continue
		}
		stem, _, _ := strings.Cut(name, ".")
		if wrong := validation.IsDNS1123Label(stem); len(wrong) > 0 {
			report(diag.Error, 0, "manifest-invalid", fmt.Sprintf("k3s cannot name an addon %q", stem),
				"let the file's name be lower-case letters, digits and hyphens up to the first point")
		} else if first, taken := stems[stem]; taken {
			report(diag.Error, 0, "manifest-duplicate", fmt.Sprintf("k3s takes it for the same addon as %s: only the part up to the first point counts", first),
				"rename one of the two")
		} else if slices.Contains(packaged, stem) {
			report(diag.Error, 0, "manifest-duplicate", fmt.Sprintf("k3s writes a file of this name itself, for its addon %q", stem), packagedHint(file, data))
		} else {
			stems[stem] = name
		}
		isIgnored := false
		for _, f := range checkManifest(file, data) {
			report(f.severity, f.line, f.code, f.message, f.hint)
			isIgnored = isIgnored || f.code == ignoredCode
		}
		if !isIgnored {
			manifests = append(manifests, Manifest{Name: name, Data: data})
		}
	}
	return manifests, found.Problems()
}

// isCompanion reports whether a file is usual in any folder and never meant for k3splan: what git and file
// managers keep there, and texts for readers.
func isCompanion(name string) bool {
	stem, _, _ := strings.Cut(name, ".")
	return slices.Contains([]string{".gitkeep", ".keep", ".gitignore", ".gitattributes", ".DS_Store", ".directory", "Thumbs.db", "desktop.ini"}, name) ||
		slices.Contains([]string{"README", "LICENSE"}, strings.ToUpper(stem)) && slices.Contains([]string{"", ".md", ".txt"}, path.Ext(name))
}

// ignored says why an entry of the folder is not a manifest, or "".
func ignored(fsys fs.FS, file string) string {
	name := path.Base(file)
	info, err := fs.Stat(fsys, file)
	switch {
	case strings.HasPrefix(name, "."), strings.HasPrefix(name, "#"), strings.HasSuffix(name, "~"):
		return "hidden, backup and editor files are left out"
	case slices.Contains([]string{".yaml", ".yml", ".json"}, path.Ext(name)):
		return ""
	case err == nil && info.IsDir():
		return "folders are left out"
	}
	return "only *.yaml, *.yml and *.json are manifests"
}

// manifestKeys are keys that every object has, by which slips in YAML are recognized.
var manifestKeys = []string{"apiVersion", "kind", "metadata", "name", "namespace", "labels", "spec", "data"}

// checkManifest checks that every document is an object of Kubernetes, and that k3s sees all of them.
func checkManifest(file string, data []byte) (found []manifestFinding) {
	if program := encryptedFile(data); program != "" {
		return []manifestFinding{{diag.Error, 0, "manifest-encrypted", program + " has encrypted it, and k3s does not decrypt it",
			"move it out of manifests/, or decrypt it"}}
	}
	if message, hint := checkEncoding(file, data); message != "" {
		return []manifestFinding{{diag.Error, 0, "manifest-invalid", message, hint}}
	}
	if yamlfile.TooMany(data) {
		return []manifestFinding{{diag.Error, 0, "manifest-invalid", "the file has more values than k3splan reads", "split it into several files"}}
	}
	documents, failed, isYAML := readDocuments(data)
	if !isYAML {
		if found, ok := checkJSON(path.Base(file), data); ok {
			return found
		}
	}
	var lines []int // where the documents begin that are not empty
	objects := 0
	for _, document := range documents {
		if document.Tag != "!!null" || document.Value != "" {
			lines = append(lines, document.Line)
		}
		if document.Tag != "!!null" {
			objects++
			found = append(found, checkObject(path.Base(file), document)...)
		}
	}
	if at := privateKey.FindIndex(data); at != nil && !slices.ContainsFunc(found, func(f manifestFinding) bool { return f.code == "manifest-secret" }) {
		line := 1 + bytes.Count(data[:at[0]], []byte("\n"))
		found = append(found, manifestFinding{diag.Warning, line, "manifest-secret", "the private key would be readable for everyone on the servers, in the Nix store",
			"put it into a Secret that is created with kubectl, or use sealed or external secrets"})
	}
	switch {
	case failed != nil:
		return append(found, *failed)
	case objects == 0:
		return append(found, manifestFinding{diag.Warning, 0, ignoredCode, "not deployed: the file is empty, or contains only comments", "fill it in; to keep it as it is, rename it to end in .off"})
	case slices.ContainsFunc(found, func(f manifestFinding) bool { return f.severity == diag.Error }):
		return found
	}
	return append(found, compareWithK3s(data, lines)...)
}

// unquotedTemplate matches the beginning of a template's word where YAML has a key or value, up to the word.
// In quotes, and in blocks of text, such words are for other programs.
var unquotedTemplate = regexp.MustCompile(`(?m)^[ \t]*(?:- *)*(?:[A-Za-z0-9_./-]+:[ \t]+)?\{\{`)

// privateKey matches the beginning of a private key in PEM, of age or of WireGuard. The brackets keep searches for keys
// from taking the pattern itself for one.
var privateKey = regexp.MustCompile(`-{5}BEGIN (?:[A-Z0-9]+ )*PRIVATE[ ]KEY-{5}|AGE-SECRET[-]KEY-1[A-Z0-9]{20}|(?m:^\s*PrivateKey\s*=\s*[A-Za-z0-9+/]{43}=)`)

const templateHint = "k3s renders no templates: helm template CHART > manifests/NAME.yaml writes the objects"

// readDocuments returns the documents of a manifest up to the first that is wrong, and what is wrong with
// that. isYAML is false if it is the syntax.
func readDocuments(data []byte) (documents []*yaml.Node, failed *manifestFinding, isYAML bool) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var document yaml.Node
		err := decoder.Decode(&document)
		isYAML = err == nil || err == io.EOF
		if err == nil {
			if line, message := yamlfile.CheckKeys(&document); message != "" {
				return documents, &manifestFinding{diag.Error, line, "manifest-invalid", "not YAML: " + message, ""}, true
			}
			err = document.Decode(new(any)) // finds aliases that cannot be resolved
		}
		switch {
		case err == io.EOF:
			return documents, nil, true
		case err != nil:
			if at := unquotedTemplate.FindIndex(data); at != nil {
				line := 1 + bytes.Count(data[:at[1]], []byte("\n"))
				return documents, &manifestFinding{diag.Error, line, "manifest-invalid", "a template of Helm or Go, not YAML", templateHint}, isYAML
			}
			line, message, hint := yamlfile.Explain(err, data, manifestKeys)
			if strings.Contains(message, "expected <document start>") {
				message, hint = "a second object begins here, without a line --- before it", "write a line --- between any two objects"
			}
			return documents, &manifestFinding{diag.Error, line, "manifest-invalid", "not YAML: " + message, hint}, isYAML
		case len(document.Content) > 0:
			documents = append(documents, document.Content[0])
		}
	}
}

// compareWithK3s reports a file of which k3s would deploy other documents than those that begin at lines.
func compareWithK3s(data []byte, lines []int) []manifestFinding {
	documents, refused := documentsOfK3s(data)
	switch {
	case refused != nil:
		if refused.line == 0 && refused.document < len(lines) {
			refused.line = lines[refused.document]
		}
		return []manifestFinding{{diag.Error, refused.line, "manifest-invalid", refused.message, refused.hint}}
	case documents < len(lines):
		return []manifestFinding{{diag.Error, 0, "manifest-invalid", fmt.Sprintf("k3s sees %d of the %d objects in the file", documents, len(lines)),
			"write a line --- between any two of them"}}
	}
	return nil
}

// checkJSON is checkManifest for an object in JSON that is not YAML, which lacks some escapes and has only
// short keys. The lines of what it finds are unknown. ok is false if it is not JSON.
func checkJSON(name string, data []byte) (found []manifestFinding, ok bool) {
	var object map[string]any
	var node yaml.Node
	if json.Unmarshal(data, &object) != nil || node.Encode(object) != nil {
		return nil, false
	}
	found = checkObject(name, &node)
	for i := range found {
		found[i].line = 0
	}
	return found, true
}
