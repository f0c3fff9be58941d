package project

import (
	"io/fs"
	"path/filepath"
	"sync"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/secrets"
)

// Workspace is the one reader of a project's folder. Nothing is read before it is asked for, and each
// file and each part of the project is read once: a command that opens one workspace sees one state of
// the project. A file that the command creates is read when it is asked for; one that it changes is not
// read again.
type Workspace struct {
	// Dir is the project's folder, absolute.
	Dir string

	fsys     *readOnce
	tables   func() (*plan.Plan, diag.Problems)
	hostKeys func() (remote.HostKeys, diag.Problems)
	whole    func() (*Project, diag.Problems)
}

// Open returns the workspace of the project in dir, which need not exist yet.
func Open(dir string) (*Workspace, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return open(dir, &readOnce{FS: files.In(dir)}), nil
}

func open(dir string, fsys *readOnce) *Workspace {
	w := &Workspace{Dir: dir, fsys: fsys}
	w.tables = sync.OnceValues(func() (*plan.Plan, diag.Problems) { return plan.Load(fsys) })
	w.hostKeys = sync.OnceValues(func() (remote.HostKeys, diag.Problems) {
		p, _ := w.Plan()
		return remote.ReadKnownHosts(fsys, p.HostNames(), !p.Complete)
	})
	w.whole = sync.OnceValues(w.load)
	return w
}

// FS returns the project's files; each is read once.
func (w *Workspace) FS() fs.FS { return w.fsys }

// Plan returns the plan in the tables with its problems, as [plan.Load] does.
func (w *Workspace) Plan() (*plan.Plan, diag.Problems) { return w.tables() }

// HostKeys returns the ssh keys by which the hosts of the plan are known, and the problems of their file.
func (w *Workspace) HostKeys() (remote.HostKeys, diag.Problems) { return w.hostKeys() }

// Project returns the whole project with all its problems, sorted. Only without an error among them is
// it good for more than being shown.
func (w *Workspace) Project() (*Project, diag.Problems) { return w.whole() }

// Vault opens the project's secrets, wherever they are kept; see [secrets.OpenVault].
func (w *Workspace) Vault(ask secrets.Ask) (*secrets.Vault, error) {
	p, _ := w.Plan()
	return secrets.OpenVault(w.Dir, p.Network.Secrets, ask)
}

// readOnce remembers the content of files. A file that is missing may be created later, so that is not
// remembered.
type readOnce struct {
	fs.FS

	mutex    sync.Mutex
	contents map[string][]byte
}

// ReadFile returns the content of a file, which must not be changed.
func (r *readOnce) ReadFile(name string) ([]byte, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if content, known := r.contents[name]; known {
		return content, nil
	}
	content, err := fs.ReadFile(r.FS, name)
	if err != nil {
		return nil, err
	}
	if r.contents == nil {
		r.contents = map[string][]byte{}
	}
	r.contents[name] = content
	return content, nil
}

func (r *readOnce) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(r.FS, name) }
func (r *readOnce) Stat(name string) (fs.FileInfo, error)      { return fs.Stat(r.FS, name) }
func (r *readOnce) Lstat(name string) (fs.FileInfo, error)     { return fs.Lstat(r.FS, name) }
func (r *readOnce) ReadLink(name string) (string, error)       { return fs.ReadLink(r.FS, name) }
