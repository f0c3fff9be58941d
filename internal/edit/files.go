package edit

import (
	"errors"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// nixFolders hold the user's Nix files, named NAME.nix.
var nixFolders = []string{"nixConfigs", "partitioning", "hardware"}

const secretsFolder = "secrets"

// FilesOf are the user's files that are named after a host or container, sorted.
func (e *Edit) FilesOf(name string) []string {
	var files []string
	for _, folder := range nixFolders {
		file := path.Join(folder, name+".nix")
		if info, err := fs.Stat(e.fsys, file); err == nil && !info.IsDir() {
			files = append(files, file)
		}
	}
	if e.plan.Host(name) == nil {
		return files // containers have no secrets of their own
	}
	_ = fs.WalkDir(e.fsys, secretsFolder, func(file string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && e.secretOf(entry.Name()) == name {
			files = append(files, file)
		}
		return nil // what cannot be read keeps its name
	})
	slices.Sort(files)
	return files
}

// secretEndings are what stands behind a host's name in the name of a secret: its admin's password,
// people's keys (with a person's name before the host's, perhaps), its own ssh key.
var secretEndings = []string{"passwd", "_passwd", ".pub", "_ed25519"}

// secretOf gives the host after which a secret is named: the whole name, or for a key what follows
// a separator; the longest host that fits.
func (e *Edit) secretOf(file string) string {
	file = strings.TrimSuffix(strings.ToLower(file), ".age")
	best := ""
	for _, host := range e.plan.Hosts {
		for _, ending := range secretEndings {
			person, found := strings.CutSuffix(file, host.Name+ending)
			fits := person == "" || ending == ".pub" && strings.ContainsAny(person[len(person)-1:], "-_.")
			if found && fits && len(host.Name) > len(best) {
				best = host.Name
			}
		}
	}
	return best
}

// renamed gives the name of one of FilesOf an old name as it is with the new one.
func renamed(file, old, new string) string {
	lower := strings.ToLower(file)
	for _, ending := range append([]string{".nix"}, secretEndings...) {
		for _, more := range []string{"", ".age"} {
			if strings.HasSuffix(lower, old+ending+more) {
				end := len(file) - len(ending+more)
				return file[:end-len(old)] + new + file[end:]
			}
		}
	}
	return file
}

// knownHosts tells by which ssh keys the hosts are known: the host's name begins the line.
const knownHosts = "plans/known_hosts"

// renameKnown has the lines of a host in the file of known hosts follow its new name.
func (e *Edit) renameKnown(old, new string) error {
	data, err := fs.ReadFile(e.fsys, knownHosts)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	var changed strings.Builder
	for line := range strings.Lines(string(data)) {
		if word, rest, found := strings.Cut(line, " "); found && strings.EqualFold(word, old) {
			line = new + " " + rest
		}
		changed.WriteString(line)
	}
	if changed.String() != string(data) {
		e.known, e.knownBefore = []byte(changed.String()), data
	}
	return nil
}

// Mention is a line in a file of the user that has a name in it.
type Mention struct {
	File string
	Line int // from 1
}

// mentionFolders hold text in which people write names of machines.
var mentionFolders = slices.Concat(nixFolders, []string{"k3s", "manifests", "plans/network.yaml", "plans/versions.yaml", knownHosts})

// Mentions finds the lines in the user's own texts where a name stands as a word: nobody but the
// user knows whether it means the host.
func (e *Edit) Mentions(name string) []Mention {
	word := regexp.MustCompile(`(?i)(?:^|[^a-z0-9-])` + regexp.QuoteMeta(name) + `(?:$|[^a-z0-9-])`)
	var found []Mention
	for _, folder := range mentionFolders {
		_ = fs.WalkDir(e.fsys, folder, func(file string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() || strings.HasPrefix(entry.Name(), ".") {
				return nil
			}
			data, err := fs.ReadFile(e.fsys, file)
			if err != nil {
				return nil
			}
			for i, line := range strings.Split(string(data), "\n") {
				if word.MatchString(line) {
					found = append(found, Mention{file, i + 1})
				}
			}
			return nil
		})
	}
	return found
}
