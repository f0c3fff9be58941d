package secrets

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"io"
	"io/fs"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/table"
)

// Traces returns texts any of which shows that a file holds the secret: its content as it is, and in base64
// as a Kubernetes Secret would hold it. Of a private key they are the lines after the first two, which
// contain what all keys have in common and the public key. None is shorter than shortest, in bytes: it
// would be found by chance.
func Traces(content []byte, shortest int) [][]byte {
	candidates := telling(content)
	for _, whole := range [][]byte{content, bytes.TrimSpace(content)} {
		candidates = append(candidates, []byte(strings.TrimRight(base64.StdEncoding.EncodeToString(whole), "=")))
	}
	var traces [][]byte
	for _, trace := range candidates {
		if len(trace) >= shortest && !slices.ContainsFunc(traces, func(t []byte) bool { return bytes.Equal(t, trace) }) {
			traces = append(traces, trace)
		}
	}
	return traces
}

func telling(content []byte) [][]byte {
	content = bytes.TrimSpace(content)
	if !bytes.HasPrefix(content, []byte("-----BEGIN ")) {
		return [][]byte{content}
	}
	lines := bytes.Split(content, []byte("\n"))
	if len(lines) < 5 {
		return [][]byte{content}
	}
	var parts [][]byte
	for _, line := range lines[3 : len(lines)-1] {
		if line = bytes.TrimSpace(line); len(line) >= 40 {
			parts = append(parts, line)
		}
	}
	return parts
}

const (
	// shortestSpilled keeps a weak token from being found in a word of a comment; the audit looks for
	// shorter ones.
	shortestSpilled = 16
	// largestSource is the size in bytes of the largest source that is searched. What people write is smaller.
	largestSource = 1 << 20
	// largestWorkbook is how much is searched of the parts of a workbook together, in bytes.
	largestWorkbook = 16 << 20
)

// MendSpilled is what to do about a secret in a source of the systems.
const MendSpilled = "take it out: what is there gets into the Nix store, where everyone on the machine can read it; then rotate the secret"

// SourceDirs are the folders of a project that become part of the systems.
var SourceDirs = []string{files.PlansDir, files.SnippetsDir, files.PartitioningDir, files.HardwareDir, files.ManifestsDir, files.K3sDir}

type spillable struct {
	name   string
	traces [][]byte
}

// findSpilled reports each token and password hash that is in a source of the systems. A source that
// cannot be read is its reader's to report.
func (o *opening) findSpilled() {
	if o.needs.Sources == nil || len(o.read) == 0 {
		return
	}
	for _, dir := range SourceDirs {
		_ = fs.WalkDir(o.needs.Sources, dir, func(file string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return nil
			}
			// of what a link leads to
			if info, err := fs.Stat(o.needs.Sources, file); err != nil || !info.Mode().IsRegular() || info.Size() > largestSource {
				return nil
			}
			content, err := fs.ReadFile(o.needs.Sources, file)
			if err != nil {
				return nil
			}
			text, lines := plainText(content)
			told := map[string]bool{}
			for _, secret := range o.read {
				for _, trace := range secret.traces {
					before, _, found := bytes.Cut(text, trace)
					if !found || told[secret.name] {
						continue
					}
					told[secret.name] = true
					line := 0
					if lines {
						line = 1 + bytes.Count(before, []byte("\n"))
					}
					o.report(file, line, finding{diag.Error, codeInFile, "holds the secret " + secret.name, MendSpilled})
				}
			}
			return nil
		})
	}
}

// plainText returns what a file says in UTF-8, whatever the encoding of a table is; of a workbook what its parts
// say, which are not the lines that people see.
func plainText(content []byte) (text []byte, lines bool) {
	workbook, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		return []byte(table.Text(content)), true
	}
	for _, part := range workbook.File {
		file, err := part.Open()
		if err != nil {
			continue
		}
		data, _ := io.ReadAll(io.LimitReader(file, int64(largestWorkbook-len(text)))) // what cannot be read is its reader's to report
		_ = file.Close()
		text = append(text, data...)
	}
	return text, false
}
