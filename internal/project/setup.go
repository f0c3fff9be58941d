package project

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"k3splan/internal/convert"
	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/secrets"
)

// Made is what Setup has done with one file or folder.
type Made struct {
	// File is relative to the project; a folder ends in "/".
	File string
	// Completed reports whether the file was there and lines were added to it.
	Completed bool
}

// Setup is Setup of a new [Workspace] of the project in dir.
func Setup(dir string, starters fs.FS) ([]Made, error) {
	w, err := Open(dir)
	if err != nil {
		return nil, err
	}
	return w.Setup(starters)
}

// Setup makes a project, or completes one: what is there already stays as it is. starters holds the
// starter files. While a table that exists has errors it makes nothing, since nothing that follows from such
// a plan is certain. It returns what it made, in the order in which it made it.
func (w *Workspace) Setup(starters fs.FS) ([]Made, error) {
	return w.setup(&setup{Workspace: w, starters: starters})
}

// ErrPlanInFiles is the reason for which SetupWorkbook makes no workbook.
var ErrPlanInFiles = errors.New("the plan is already")

// SetupWorkbook is Setup with the tables in a workbook. Tables in files are not converted: the error is
// [ErrPlanInFiles], and its hint says how.
func (w *Workspace) SetupWorkbook(starters fs.FS) ([]Made, error) {
	s := &setup{Workspace: w, starters: starters, workbook: true}
	for _, file := range []string{plan.HostsFile, plan.K3sFile, plan.NetworkFile} {
		if s.exists(file) {
			return nil, diag.WithHint(fmt.Errorf("%w in %s and the files beside it", ErrPlanInFiles, file), "to make a workbook of it: k3splan convert xlsx")
		}
	}
	return w.setup(s)
}

func (w *Workspace) setup(s *setup) ([]Made, error) {
	if s.wrongTables() {
		return nil, nil
	}
	for _, step := range []func() error{s.folders, s.files, s.hostKeys} {
		if err := step(); err != nil {
			return s.made, err
		}
	}
	return s.made, nil
}

// wrongTables reports whether there is an error in a table that exists. Nothing is made then: what fits the
// plan cannot be known.
func (s *setup) wrongTables() bool {
	_, problems := plan.Load(s.fsys)
	return slices.ContainsFunc(problems, func(p diag.Problem) bool {
		file, _, _ := strings.Cut(p.File, "!") // a cell of a workbook
		return p.Severity == diag.Error && p.Code != "file-missing" && s.exists(file)
	})
}

type setup struct {
	*Workspace
	starters fs.FS
	// workbook: the tables that are missing are made in a workbook
	workbook bool
	made     []Made
}

func (s *setup) exists(file string) bool {
	_, err := os.Lstat(filepath.Join(s.Dir, file))
	return err == nil
}

// files are all that setups must not make at the same time.
func (s *setup) files() error {
	unlock, err := files.Lock(s.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	for _, step := range []func() error{s.tables, s.manifests, s.gitignore, s.tokens} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (s *setup) folders() error {
	for _, folder := range []string{"plans", files.SnippetsDir, files.PartitioningDir, files.HardwareDir} {
		if err := s.folder(folder, 0o755); err != nil {
			return err
		}
	}
	return s.folder(secrets.Dir, 0o700)
}

func (s *setup) folder(folder string, mode fs.FileMode) error {
	if s.exists(folder) {
		return nil
	}
	if err := files.MakeFolder(filepath.Join(s.Dir, folder), mode); err != nil {
		return err
	}
	s.made = append(s.made, Made{File: folder + "/"})
	return nil
}

// create writes a file that is not there.
func (s *setup) create(file string, content []byte) error {
	if s.exists(file) {
		return nil
	}
	if err := files.Create(filepath.Join(s.Dir, file), content, files.Public); err != nil {
		return err
	}
	s.made = append(s.made, Made{File: file})
	return nil
}

// starter returns an embedded file, or the starter tables as a workbook.
func (s *setup) starter(file string) ([]byte, error) { return Starter(s.starters, file) }

// Starter returns a file as Setup makes it.
func Starter(starters fs.FS, file string) ([]byte, error) {
	if file == plan.WorkbookFile {
		return convert.Workbook(starters)
	}
	return fs.ReadFile(starters, file)
}

// tablesReadme says what the columns are: the tables themselves are also edited by programs that would take
// comments for rows.
const tablesReadme = files.PlansDir + "/README.md"

// tables writes the starter tables. They fit together; beside tables of the user, a missing one
// must fit to those instead: no container on hosts that are not theirs, and a gateway in the
// network of their hosts.
func (s *setup) tables() error {
	made := []string{plan.HostsFile, plan.K3sFile, plan.NetworkFile, files.SchemaFile}
	if s.exists(plan.WorkbookFile) {
		made = nil // it takes the place of all of them
	} else if s.workbook {
		made = []string{plan.WorkbookFile}
	}
	beside := s.isUsers(plan.HostsFile) || s.isUsers(plan.K3sFile)
	for _, file := range append(made, tablesReadme) {
		if plan.Misplaced(s.fsys, file) {
			continue // it is there under another name, which validate reports
		}
		content, err := s.starter(file)
		if err != nil {
			return err
		}
		if beside {
			content = s.fit(file, string(content))
		}
		if err := s.create(file, content); err != nil {
			return err
		}
	}
	return nil
}

// isUsers reports whether a table exists and is not the starter, which an interrupted setup leaves.
func (s *setup) isUsers(file string) bool {
	present, err := fs.ReadFile(s.fsys, file)
	if err != nil {
		return s.exists(file)
	}
	starter, err := s.starter(file)
	return err != nil || !bytes.Equal(present, starter)
}

var starterGateway = regexp.MustCompile(`(?m)^gateway: .*$`)

func (s *setup) fit(file, content string) []byte {
	if strings.HasSuffix(file, ".csv") {
		header, _, _ := strings.Cut(content, "\n")
		return []byte(header + "\n")
	}
	if file != plan.NetworkFile {
		return []byte(content)
	}
	p, _ := plan.Load(s.fsys) // not Plan: network.yaml may still be missing
	taken := map[netip.Addr]bool{}
	var first netip.Addr
	for _, host := range p.Hosts {
		taken[host.Address] = true
		if host.Address.IsValid() && (!first.IsValid() || host.Line < p.Host(host.Name).Line) {
			first = host.Address
		}
		for _, container := range host.Containers() {
			taken[container.Address] = true
		}
	}
	if !first.IsValid() {
		return []byte(content)
	}
	bytes := first.As4()
	for _, last := range []byte{1, 254} {
		bytes[3] = last
		if gateway := netip.AddrFrom4(bytes); !taken[gateway] {
			content = starterGateway.ReplaceAllString(content, "gateway: "+gateway.String())
			break
		}
	}
	return []byte(content)
}

// manifests writes the starter manifests only together with their folder: anyone who deletes one does
// not want it again.
func (s *setup) manifests() error {
	if s.exists(files.ManifestsDir) {
		return nil
	}
	if err := s.folder(files.ManifestsDir, 0o755); err != nil {
		return err
	}
	entries, err := fs.ReadDir(s.starters, files.ManifestsDir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		file := path.Join(files.ManifestsDir, entry.Name())
		content, err := s.starter(file)
		if err != nil {
			return err
		}
		if err := s.create(file, content); err != nil {
			return err
		}
	}
	return nil
}

// tokens makes the tokens of a new cluster. No other command does.
func (s *setup) tokens() error {
	content, err := s.starter("secrets.example/README.md")
	if err != nil {
		return err
	}
	if err := s.create(path.Join(secrets.Dir, "README.md"), content); err != nil {
		return err
	}
	if _, problems := s.Plan(); problems.Errors() > 0 {
		return nil
	}
	vault, err := s.Vault(nil)
	if err != nil {
		return err
	}
	vault = vault.Held()
	// a running cluster may have no agent token: its agents joined with the servers' token
	if there, err := vault.Has(string(secrets.InitToken)); err != nil || there {
		return err
	}
	// the servers' token last: an interrupted setup must not pass for such a cluster
	for _, kind := range []secrets.TokenKind{secrets.AgentToken, secrets.InitToken} {
		if there, err := vault.Has(string(kind)); err != nil {
			return err
		} else if there {
			continue
		}
		token, err := secrets.NewToken()
		if err != nil {
			return err
		}
		err = vault.Create(string(kind), []byte(token+"\n"))
		if errors.Is(err, fs.ErrExist) {
			continue // something that is not a token, which validate reports
		} else if err != nil {
			return err
		}
		s.made = append(s.made, Made{File: vault.At(string(kind))})
	}
	return nil
}

// notInGit are the folders that git must not see: secrets, what is rendered, and k3splan's own.
var notInGit = []string{"/secrets/", "/generated/", "/.generated-*/", "/.k3splan/"}

// gitignore keeps secrets out of git: a missing line is added to a file that is there.
func (s *setup) gitignore() error {
	had := s.exists(files.GitignoreFile)
	p, _ := s.Plan() // of which only a certain choice of age matters here
	changed, err := rewriteGitignore(s.Dir, func(present []byte) ([]byte, error) {
		var missing []string
		for _, line := range notInGit {
			switch {
			case ignoresFolder(string(present), line):
			case line == notInGit[0] && p.Network.Secrets.Kind == plan.SecretAge:
				missing = append(missing, sharedInGit...)
			default:
				missing = append(missing, line)
			}
		}
		if len(missing) == 0 {
			return present, nil
		}
		text := string(present)
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		return []byte(text + "# k3splan: secrets, and what it renders\n" + strings.Join(missing, "\n") + "\n"), nil
	})
	if err != nil {
		return fmt.Errorf("complete %s: %w", files.GitignoreFile, err)
	}
	if changed {
		s.made = append(s.made, Made{File: files.GitignoreFile, Completed: had})
	}
	return nil
}

// ignoresFolder reports whether a .gitignore has the line, in any usual spelling, and does not take it
// back below.
func ignoresFolder(text, line string) (ignored bool) {
	bare := strings.Trim(line, "/")
	for present := range strings.Lines(text) {
		pattern, negated := strings.CutPrefix(strings.TrimSpace(present), "!")
		switch {
		case strings.Trim(pattern, "/") == bare:
			ignored = !negated
		case strings.TrimPrefix(pattern, "/") == bare+"/**" && !negated:
			ignored = true
		}
	}
	return ignored
}
