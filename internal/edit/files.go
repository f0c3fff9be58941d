package edit

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/secrets"
	"k3splan/internal/text"
)

// overlay is a project in which some files have a different content.
type overlay struct {
	fs.FS
	files map[string][]byte
}

// ReadFile returns the different content.
func (o overlay) ReadFile(name string) ([]byte, error) {
	if data, ok := o.files[name]; ok {
		return data, nil
	}
	if o.FS == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return fs.ReadFile(o.FS, name)
}

// Stat does not open the file, which would block for a pipe.
func (o overlay) Stat(name string) (fs.FileInfo, error) {
	if o.FS == nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return fs.Stat(o.FS, name)
}

// nixFolders hold the user's Nix files, named NAME.nix.
var nixFolders = []string{"nixConfigs", "partitioning", "hardware"}

// openVault looks for secrets that are not files of the project.
func (e *Edit) openVault() error {
	where := e.plan.Network.Secrets
	if where.Kind != plan.SecretPass {
		return nil
	}
	vault, err := secrets.OpenVault("", where, nil)
	if err != nil {
		return err
	}
	names, err := vault.List()
	if err != nil {
		return err
	}
	e.vault, e.entries = vault, map[string]string{}
	for _, name := range names {
		e.entries[vault.At(name)] = name
	}
	return nil
}

// filesOf returns the user's files that are named after a host, a container, or a tag of hosts ("@storage"),
// sorted, and the places of secrets that are kept elsewhere. Only hosts have secrets of their own.
func (e *Edit) filesOf(name string, isHost bool) []string {
	var files []string
	for _, folder := range nixFolders {
		if file := path.Join(folder, name+".nix"); e.exists(file) {
			files = append(files, file)
		}
	}
	if !isHost {
		return files
	}
	owners := secrets.NewOwners(append(e.plan.HostNames(), name))
	_ = fs.WalkDir(e.fsys, secrets.Dir, func(file string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && owners.Host(strings.TrimPrefix(file, secrets.Dir+"/")) == name {
			files = append(files, file)
		}
		return nil // what cannot be read keeps its name
	})
	for place, entry := range e.entries {
		if owners.Host(entry) == name {
			files = append(files, place)
		}
	}
	slices.Sort(files)
	return files
}

func (e *Edit) exists(file string) bool {
	_, isEntry := e.entries[file]
	_, err := fs.Stat(e.fsys, file)
	return isEntry || err == nil
}

// secretEndings follow a host's name in the name of a secret: its admin's password, people's keys (with a
// person's name before the host's, perhaps), its own ssh key.
var secretEndings = []string{"passwd", "_passwd", ".pub", "_ed25519"}

// renamed returns the new name of a file from filesOf the old name.
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

// linesOf matches the beginnings of the lines of a host in the file of known hosts.
func linesOf(host string) *regexp.Regexp {
	return regexp.MustCompile(`(?im)^([ \t]*)` + regexp.QuoteMeta(host) + ` `)
}

// renameKnown writes the new name into the lines of a host in the file of known hosts.
func (e *Edit) renameKnown(old, new string) error {
	data, err := fs.ReadFile(e.fsys, remote.KnownHostsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if lines := linesOf(old); lines.Match(data) {
		e.known, e.knownBefore = lines.ReplaceAll(data, []byte("${1}"+new+" ")), data
	}
	return nil
}

// Aftermath is what a change leaves to be done by its user. Places are files, or "file:line".
type Aftermath struct {
	// Left are places that belong to nothing after the change.
	Left []string `json:"left"`
	// Taken are files that already exist and will belong to what the change adds.
	Taken []string `json:"taken"`
	// Kept are containers that keep the old name of a renamed host.
	Kept []string `json:"kept"`
	// Mentions are places that contain a removed name as a word: only the user knows whether it means
	// the host.
	Mentions []string `json:"mentions"`
}

// Aftermath returns what remains to be done if the change leads to this plan.
func (e *Edit) Aftermath(now *plan.Plan) Aftermath {
	a := Aftermath{Left: []string{}, Taken: []string{}, Kept: []string{}, Mentions: []string{}}
	moved := map[string]string{}
	for _, move := range e.Moves {
		moved[move.From] = move.To
	}
	was, is := namesOf(e.plan), namesOf(now)
	gone, come := text.Without(was, is), text.Without(is, was)
	for _, name := range gone {
		for _, file := range e.filesOf(name, e.plan.Host(name) != nil) {
			if moved[file] == "" {
				a.Left = append(a.Left, file)
			}
		}
		if host := e.plan.Host(name); host != nil {
			kept := slices.DeleteFunc(plan.Names(host.Containers()), func(c string) bool { return !strings.Contains(c, name) })
			a.Kept = append(a.Kept, text.Without(kept, gone)...)
		}
	}
	for _, name := range gone {
		for _, m := range e.mentions(name) {
			place := fmt.Sprintf("%s:%d", cmp.Or(moved[m.file], m.file), m.line)
			switch {
			case m.file == remote.KnownHostsFile && linesOf(name).MatchString(m.text):
				a.Left = append(a.Left, place)
			case !slices.Contains(a.Left, m.file):
				a.Mentions = append(a.Mentions, place)
			}
		}
	}
	for _, name := range come {
		for _, file := range e.filesOf(name, now.Host(name) != nil) {
			if !slices.ContainsFunc(e.Moves, func(m Move) bool { return m.To == file }) {
				a.Taken = append(a.Taken, file)
			}
		}
	}
	return a
}

// namesOf are the names after which files can be named: of hosts, containers, and tags ("@storage").
func namesOf(p *plan.Plan) []string {
	all := append(p.HostNames(), plan.Names(p.Containers())...)
	for _, tag := range p.Tags() {
		all = append(all, "@"+tag)
	}
	return all
}

// mention is a line that contains a name as a word.
type mention struct {
	file string
	line int // from 1
	text string
}

// mentionFolders hold text in which people write names of machines.
var mentionFolders = slices.Concat(nixFolders, []string{"k3s", "manifests", plan.NetworkFile, plan.VersionsFile, remote.KnownHostsFile})

// mentions returns the lines in the user's own texts, as they are after the change, that contain a name.
func (e *Edit) mentions(name string) []mention {
	word := regexp.MustCompile(`(?i)(?:^|[^a-z0-9-])` + regexp.QuoteMeta(name) + `(?:$|[^a-z0-9-])`)
	changed := overlay{e.fsys, e.Files()}
	var found []mention
	for _, t := range e.tables() {
		columns := t.columns()
		for row := range t.rows() {
			for i, text := range t.cells(row) {
				// an admin is a person, who may have the name of the machine
				if !slices.Contains([]string{"name", "host", "admin"}, columns[i]) && word.MatchString(text) {
					found = append(found, mention{t.name(), t.line(row), text})
				}
			}
		}
	}
	for _, folder := range mentionFolders {
		_ = fs.WalkDir(e.fsys, folder, func(file string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() || strings.HasPrefix(entry.Name(), ".") {
				return nil
			}
			data, _ := changed.ReadFile(file) // nothing is found in what cannot be read
			for i, line := range strings.Split(string(data), "\n") {
				if word.MatchString(line) {
					found = append(found, mention{file, i + 1, line})
				}
			}
			return nil
		})
	}
	return found
}
