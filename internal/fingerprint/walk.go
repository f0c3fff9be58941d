package fingerprint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"k3splan/internal/diag"
	"k3splan/internal/files"
)

// walk follows the user's Nix files of one host.
type walk struct {
	*collector
	in   *Inputs
	seen map[string]bool
	// plan, nodes and sources report what one of the files reads; anything, that it may read any file of
	// the project.
	plan, nodes, sources, anything bool
	// bound, used, extends and climbs are those of all files: values go from one to another.
	bound   map[string][]string
	used    map[string]bool
	extends bool
	climbs  int
	ofWords int // of data and cells
	climbed map[string]int
	repeats bool
	dots    int
	sums    bool
	// unanchoredRead reports a read of what has no path literal at its beginning, absolute what such a path may
	// be, with the file that has it.
	unanchoredRead, parses bool
	absolute, data         [][2]string
	// explicit are the names used by files that something refers to, and whole is set while all of the project
	// is taken: what that finds need not be read at all.
	explicit map[string]int
	whole    bool
	// based reports a path that something may be added to.
	based bool
	// depth is the least number of folders that a path literal is below the project's.
	depth int
}

// all takes the files, and whatever they refer to.
func (w *walk) all(names []string) error {
	w.depth = 1 // of the files' own folder
	for _, name := range names {
		if err := w.nixFile(name); err != nil {
			return err
		}
	}
	if w.plan {
		w.ofWords = w.climbsOfPlan()
		w.climbs = max(w.climbs, w.ofWords)
	}
	for {
		taken := len(w.in.Files)
		for name, literals := range w.bound {
			if !w.extends || name != "" && !w.used[name] {
				continue
			}
			for _, literal := range literals {
				if err := w.existing(path.Dir(literal)); err != nil {
					return err
				}
			}
		}
		if w.anything || w.based && w.climbs > 0 {
			w.whole = true
			if err := w.folder("."); err != nil {
				return err
			}
			w.whole = false
		}
		if len(w.in.Files) == taken {
			break
		}
	}
	w.leadsOut()
	return nil
}

// leadsOut notes what may lead out of the project, once everything that refers to it is known.
func (w *walk) leadsOut() {
	// of values that others use, all may come together with the one that has most of them
	most, shared := w.ofWords, 0
	for name, n := range w.climbed {
		switch uses := w.explicit[name]; {
		case uses == 0:
			most = max(most, n)
		default:
			shared += n
			w.repeats = w.repeats || uses > 1
		}
	}
	switch climbs := most + shared; {
	case w.based && (climbs > w.depth || w.repeats && climbs > 0):
		w.loose("a path is put together with so many \"..\" that it may lead out of the project")
	case w.based && w.sums && w.dots > 1:
		w.loose("a path is put together, with pieces that may become a \"..\" and lead out of the project")
	}
	if w.parses {
		w.absolute = append(w.absolute, w.data...)
	}
	if w.unanchoredRead {
		for _, found := range w.absolute {
			w.loose("a path may be %s of %s, which is outside of the project", found[1], found[0])
		}
	}
}

// climbsOfPlan returns the largest number of ".." in a cell, which a snippet may add to a path.
func (w *walk) climbsOfPlan() (most int) {
	if w.project == nil {
		return 0
	}
	all := Inputs{Data: map[string]string{}}
	w.wholePlan(&all)
	for _, value := range all.Data {
		most = max(most, climbs(value))
	}
	return most
}

func (w *walk) loose(format string, args ...any) {
	w.in.Loose = append(w.in.Loose, fmt.Sprintf(format, args...))
}

// nixFile takes a file of the project that Nix reads as code.
func (w *walk) nixFile(name string) error {
	name, ok, err := w.resolve(name)
	if err != nil || !ok {
		return err
	}
	f, err := w.file(name)
	if err != nil {
		return err
	}
	return w.refer(name, f.references())
}

// file takes the content of a file.
func (w *walk) file(name string) (*file, error) {
	f, err := w.read(name)
	if err != nil {
		return nil, err
	}
	w.in.Files[name] = f.digest
	if f.tooLarge {
		w.loose("%s is too large to be compared", name)
	}
	return f, nil
}

// contentOf takes a file, and what it refers to if it is Nix code. Its words may be parts of paths; those of
// one that is only among others of a folder may not be what leads out of the project.
func (w *walk) contentOf(name string, named bool) error {
	f, err := w.file(name)
	if err != nil && !named {
		w.loose("%s cannot be read: %v", name, diag.Reason(err))
		return nil
	}
	if err != nil {
		return err
	}
	if !f.isNix(name) {
		words := f.words(name)
		w.anything = w.anything || w.based && words.climbs > 0
		if named {
			w.climbs, w.ofWords = max(w.climbs, words.climbs), max(w.ofWords, words.climbs)
			w.dots += words.dots
		}
		switch found := [2]string{name, words.absolute}; {
		case words.absolute == "" || w.whole:
		case named:
			w.absolute = append(w.absolute, found)
		case isData(name):
			w.data = append(w.data, found)
		}
		return nil
	}
	return w.refer(name, f.references())
}

// resolve returns the file or folder of the project that a name leads to through links. It is not ok if
// there is none that can be followed, which is noted. The folder of a Nix file is where it is, not where a
// link to it is.
func (w *walk) resolve(name string) (target string, ok bool, err error) {
	full := filepath.Join(w.root, filepath.FromSlash(name))
	real, err := filepath.EvalSymlinks(full)
	switch {
	case isMissing(err):
		if _, link := os.Lstat(full); link == nil {
			w.in.Files[name] = "a link to nothing"
			return "", false, nil
		}
		return name, true, nil
	case err != nil:
		w.loose("%s cannot be followed: %v", name, diag.Reason(err))
		return "", false, nil
	case real == full:
		return name, true, nil
	}
	relative, err := filepath.Rel(w.root, real)
	if err != nil || !filepath.IsLocal(relative) {
		w.loose("%s leads out of the project by a link", name)
		return "", false, nil
	}
	target = filepath.ToSlash(relative)
	w.in.Files[name] = "a link to " + target
	return target, true, nil
}

// refer takes what a Nix file refers to.
func (w *walk) refer(name string, r references) error {
	if w.seen[name] {
		return nil
	}
	w.seen[name] = true
	for _, reason := range r.loose {
		w.loose("%s %s", name, reason)
	}
	w.plan = w.plan || r.plan
	w.sources = w.sources || r.sources
	w.anything = w.anything || r.project
	for _, n := range r.climbed {
		w.climbs = max(w.climbs, n)
	}
	if !w.whole {
		w.puts(name, r)
	}
	w.based = w.based || r.computed || r.project || len(r.paths)+len(r.folders) > 0
	w.extends = w.extends || r.extends
	for name := range r.used {
		w.used[name] = true
	}
	dir := path.Dir(name)
	for bound, literals := range r.bound {
		for _, literal := range literals {
			if target := path.Join(dir, literal); filepath.IsLocal(target) {
				w.bound[bound] = append(w.bound[bound], target)
			}
		}
	}
	var folders []string
	if r.computed {
		folders = append(folders, files.SnippetsDir)
	}
	if r.nodes {
		folders = append(folders, files.SnippetsDir, files.HardwareDir, files.PartitioningDir, files.ManifestsDir, files.K3sDir)
	}
	for _, folder := range folders {
		if err := w.folder(folder); err != nil {
			return err
		}
	}
	for _, folder := range r.folders {
		if err := w.beginning(name, folder); err != nil {
			return err
		}
	}
	for _, literal := range r.beside {
		if err := w.beside(name, literal); err != nil {
			return err
		}
	}
	for _, literal := range r.paths {
		if err := w.reference(name, literal, slices.Contains(r.imported, literal)); err != nil {
			return err
		}
	}
	return nil
}

// puts takes what a file may put paths together from.
func (w *walk) puts(name string, r references) {
	w.dots += r.dots
	w.sums, w.repeats = w.sums || r.sums, w.repeats || r.repeats
	w.unanchoredRead, w.parses = w.unanchoredRead || r.unanchoredRead, w.parses || r.parses
	for name, n := range r.used {
		w.explicit[name] += n
	}
	for name, n := range r.climbed {
		w.climbed[name] += n
	}
	for _, absolute := range r.absolutes {
		w.absolute = append(w.absolute, [2]string{name, absolute})
	}
}

// inProject returns what a path literal in a file names, if that is in the project and an input.
func (w *walk) inProject(from, literal string) (target string, ok bool) {
	target = path.Join(path.Dir(from), literal)
	switch {
	case strings.HasPrefix(literal, "/"), strings.HasPrefix(literal, "~"), target == "..", strings.HasPrefix(target, "../"):
		w.loose("%s reads %s, which is outside of the project", from, literal)
		return "", false
	case isSecret(target) && !isPublicKey(target):
		w.loose("%s names %s, whose content is not compared", from, target)
		return "", false
	case changesByItself(target):
		w.loose("%s reads %s, which changes by itself", from, literal)
		return "", false
	}
	return target, true
}

// beginning takes everything below the folder that a path begins with.
func (w *walk) beginning(from, folder string) error {
	target, ok := w.inProject(from, folder)
	if !ok {
		return nil
	}
	w.depth = min(w.depth, depth(target))
	return w.existing(target)
}

// beside takes everything in the folder of what a path literal names, and below.
func (w *walk) beside(from, literal string) error {
	target, ok := w.inProject(from, literal)
	if !ok {
		return nil
	}
	w.depth = min(w.depth, depth(target))
	return w.existing(path.Dir(target))
}

// existing takes everything below a folder or, where there is none, below the nearest one above it.
func (w *walk) existing(folder string) error {
	for {
		info, err := fs.Stat(w.fsys, folder)
		if err == nil && info.IsDir() {
			return w.folder(folder)
		}
		if folder == "." {
			return err
		}
		folder = path.Dir(folder)
	}
}

func depth(folder string) int {
	if folder == "." {
		return 0
	}
	return 1 + strings.Count(folder, "/")
}

// reference takes what a path literal in a file names.
func (w *walk) reference(from, literal string, imported bool) error {
	target, ok := w.inProject(from, literal)
	if !ok {
		return nil
	}
	target, ok, err := w.resolve(target)
	if err != nil || !ok {
		return err
	}
	info, err := fs.Stat(w.fsys, target)
	switch {
	case isMissing(err):
		w.depth = min(w.depth, depth(path.Dir(target)))
		return w.existing(path.Dir(target)) // the beginning of a name that is put together
	case err != nil:
		return err
	case info.IsDir():
		w.depth = min(w.depth, depth(target))
		if target == "." {
			w.loose("%s reads %s, the whole project", from, literal)
		}
		return w.folder(target)
	case info.Mode().IsRegular() && imported:
		return w.nixFile(target)
	case info.Mode().IsRegular():
		return w.contentOf(target, true)
	}
	w.loose("%s reads %s, which is not a regular file", from, literal)
	return nil
}

// folder takes everything below a folder of the project; Nix files there can refer to others.
func (w *walk) folder(name string) error {
	if w.seen[name+"/"] {
		return nil
	}
	w.seen[name+"/"] = true
	if isSecret(name) {
		w.loose("secrets/ is read as a whole, whose content is not compared")
		return nil
	}
	if name == "." {
		w.publicKeys()
	}
	return fs.WalkDir(w.fsys, name, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil: // perhaps of a folder that Nix does not read at all
			w.loose("%s cannot be read: %v", file, diag.Reason(err))
			return nil
		case entry.IsDir() && (isSecret(file) || changesByItself(file)):
			return fs.SkipDir
		case entry.IsDir():
			w.emptyFolder(file)
		case entry.Type().IsRegular():
			return w.contentOf(file, false)
		case entry.Type()&fs.ModeSymlink != 0:
			return w.link(file)
		default:
			w.loose("%s is not a regular file", file)
		}
		return nil
	})
}

// emptyFolder takes a folder that only a listing of the one above shows.
func (w *walk) emptyFolder(name string) {
	if entries, err := fs.ReadDir(w.fsys, name); err == nil && len(entries) == 0 {
		w.in.Files[name+"/"] = ""
	}
}

// link takes a link in a folder, and what it leads to.
func (w *walk) link(name string) error {
	target, ok, err := w.resolve(name)
	if err != nil || !ok || isSecret(target) {
		if isSecret(target) {
			w.loose("%s is a link to %s, whose content is not compared", name, target)
		}
		return err
	}
	info, err := fs.Stat(w.fsys, target)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return w.folder(target)
	case info.Mode().IsRegular():
		return w.contentOf(target, false)
	}
	w.loose("%s is a link to what is not a regular file", name)
	return nil
}

// publicKeys takes the public keys among the secrets, all as one input.
func (w *walk) publicKeys() {
	var all strings.Builder
	err := fs.WalkDir(w.fsys, files.SecretsDir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !isPublicKey(name) {
			return err
		}
		f, err := w.read(name)
		if err == nil {
			fmt.Fprintln(&all, name, f.digest)
		}
		return err
	})
	if err != nil && !isMissing(err) {
		w.loose("the public keys in %s/ cannot be read: %v", files.SecretsDir, diag.Reason(err))
	}
	w.in.Files["public keys"] = digest([]byte(all.String()))
}

// isMissing reports whether there is nothing by a name: also below a file.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func isSecret(name string) bool {
	return name == files.SecretsDir || strings.HasPrefix(name, files.SecretsDir+"/")
}

func isPublicKey(name string) bool { return path.Ext(name) == ".pub" }

// changesByItself reports whether a name is in a folder that k3splan or git changes.
func changesByItself(name string) bool {
	for folder := name; folder != "." && folder != "/"; folder = path.Dir(folder) {
		if path.Base(folder) == ".git" || folder == files.GeneratedDir || folder == files.StateDir ||
			!strings.Contains(folder, "/") && strings.HasPrefix(folder, "."+files.GeneratedDir) {
			return true
		}
	}
	return false
}

// file is a file of the project, read once.
type file struct {
	digest   string
	text     string
	tooLarge bool
	// refers is made when it is asked for.
	refers *references
}

func (f *file) references() references {
	if f.refers == nil {
		r := refer(f.text)
		f.refers = &r
	}
	return *f.refers
}

// maxCode is the size in bytes of the largest file without .nix that is looked at for Nix code.
const maxCode = 1 << 20

func (f *file) isNix(name string) bool {
	return path.Ext(name) == ".nix" || len(f.text) <= maxCode && looksLikeNix(f.text)
}

// maxData is the size in bytes of the largest file without a telling name whose words may be parts of paths.
const maxData = 4 << 10

// isData reports whether Nix code can read values from a file of this name.
func isData(name string) bool {
	return slices.Contains([]string{".json", ".toml", ".lock", ".csv", ".yaml", ".yml"}, path.Ext(name))
}

// words are what a text has that Nix code may take paths from.
type words struct {
	// climbs is the largest number of ".." in a word, dots is for references.dots, and absolute a word that
	// begins with a slash.
	climbs, dots int
	absolute     string
}

func (f *file) words(name string) (found words) {
	if !isData(name) && (len(f.text) > maxData || strings.HasPrefix(f.text, "#!")) {
		return found
	}
	for word := range strings.FieldsFuncSeq(f.text, func(r rune) bool { return strings.ContainsRune(" \t\r\n\"',;=", r) }) {
		found.climbs = max(found.climbs, climbs(word))
		if hasDot(word) || escaped(word) {
			found.dots += 2
		}
		if found.absolute == "" && len(word) > 1 && strings.HasPrefix(word, "/") && !strings.HasPrefix(word, "//") {
			found.absolute = word
		}
	}
	return found
}

func (c *collector) read(name string) (*file, error) {
	if f, ok := c.files[name]; ok {
		return f, nil
	}
	info, err := fs.Stat(c.fsys, name)
	if err != nil {
		return nil, err
	}
	f := &file{}
	c.files[name] = f
	if info.Size() > files.MaxSize {
		f.digest, f.tooLarge = fmt.Sprintf("size %d", info.Size()), true
		return f, nil
	}
	data, err := fs.ReadFile(c.fsys, name)
	if err != nil {
		return nil, err
	}
	f.digest, f.text = digest(data), string(data)
	if info.Mode()&0o100 != 0 {
		f.digest += " executable" // which Nix keeps
	}
	return f, nil
}

// readsNames reports whether the files may read the option that holds the names of /etc/hosts: they use
// the configuration, and a name on the way to that option.
func (w *walk) readsNames() bool {
	uses := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return w.used[name] })
	}
	return uses("config", "options") && uses("networking", "hosts", "extraHosts", "hostFiles", "etc")
}
