package secrets

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/text"
)

// Needs is what a plan asks of its secrets, as plain data.
type Needs struct {
	// Hosts are the names of all hosts, in lower case. Problems name them in this order.
	Hosts []string
	// Containers are the names of all containers. No file is named after one: they explain a file
	// that belongs to nothing.
	Containers []string
	// K3s says that there are containers, so that a token is needed.
	K3s bool
	// Partial says that the tables have errors and Hosts may lack some: then no file is called an
	// orphan.
	Partial bool
	// Where says how the secrets are kept; the zero value means plain files.
	Where plan.SecretStore
	// Sources are the project's files, which must not hold a secret; nil: they are not searched.
	Sources fs.FS
}

// Store holds where the secrets of one project are: paths and public keys, no contents.
type Store struct {
	where     plan.SecretStore
	tokens    map[TokenKind]string     // path, if the file exists
	passwords map[string]string        // path, by host; "" for the hosts that have none of their own
	keys      map[string][]key         // by what they open
	shared    []string                 // the lines of the keys that open every host
	hostKeys  map[string]ssh.PublicKey // by host, if there is a private one; nil where it could not be read
}

// Open reads the secrets of a project, each file once. The problems are
// sorted; the store is usable whatever they are, and with an error among them it may know less
// than there is.
func Open(project string, needs Needs) (*Store, diag.Problems) {
	s := &Store{where: needs.Where, tokens: map[TokenKind]string{}, passwords: map[string]string{}, keys: map[string][]key{}, hostKeys: map[string]ssh.PublicKey{}}
	dir := folderOf(project)
	o := opening{Store: s, needs: needs, hosts: NewOwners(needs.Hosts), folder: dir, keeper: newKeeper(dir, needs.Where, nil)}
	names, shared, err := o.folder.names()
	if err != nil {
		// what is in it is unknown, so nothing can be said to be missing
		o.report(Dir, 0, finding{diag.Error, codeInvalid, err.Error(), "secrets are in a folder " + Dir + " of mode 0700"})
		return s, o.problems
	}
	if o.Plain() && shared != 0 {
		o.report(Dir, 0, sharedFolder(shared))
	}
	o.readSecrets(names)
	o.readKeys(names)
	o.findOrphans(names)
	o.problems.Sort()
	return s, o.problems
}

// readSecrets reads the tokens and passwords, wherever they are.
func (o *opening) readSecrets(files []string) {
	kept := files
	switch o.where.Kind {
	case plan.SecretUnknown:
		return
	case plan.SecretAge, plan.SecretPass:
		if o.where.Kind == plan.SecretAge {
			_, problems := o.folder.recipients()
			o.problems = append(o.problems, problems...)
		}
		var err error
		if kept, err = o.keeper.list(); err != nil {
			o.report(o.At(""), 0, finding{diag.Error, codeInvalid, err.Error(), diag.HintOf(err)})
			return
		}
		o.readHostKeys(kept)
		kept = slices.DeleteFunc(kept, func(name string) bool { return strings.Contains(name, "/") })
		o.findLostPasswords(kept)
	}
	if o.Plain() {
		o.readHostKeyFiles()
	}
	o.findOtherForms()
	o.readTokens(kept)
	o.readPasswords(kept)
	o.findSpilled()
	if len(o.locked) > 0 {
		f := finding{diag.Warning, codeLocked,
			"cannot be decrypted here without asking, so that it was not checked", o.lockedHint}
		if more := len(o.locked) - 1; more > 0 {
			f.message = fmt.Sprintf("cannot be decrypted here without asking, nor can %d more: they were not checked", more)
		}
		o.report(o.locked[0], 0, f)
	}
}

// At returns where a secret of this name is or belongs, like [Store.InitToken].
func (s *Store) At(name string) string { return at(s.where, name) }

// Plain reports whether the secrets are plain files, so that the places that the store gives are files
// which hold a secret as it is. Otherwise a [Vault] reads them.
func (s *Store) Plain() bool {
	return s.where.Kind != plan.SecretAge && s.where.Kind != plan.SecretPass
}

// Name returns the name, for a [Vault], of a secret from the place that another method gave.
func (s *Store) Name(place string) string { return nameOf(s.where, place) }

// InitToken is the place of the token for servers: with plain files and age a path relative to the
// project with forward slashes; "" if there is none.
func (s *Store) InitToken() string { return s.tokens[InitToken] }

// AgentToken is the place of the token for agents, like [Store.InitToken]. Without one ("") agents
// join with the servers' token.
func (s *Store) AgentToken() string { return s.tokens[AgentToken] }

// PasswordFile is the place of the admin's password hash on a host, like
// [Store.InitToken]: the host's own or the one for all; "" if there is neither.
func (s *Store) PasswordFile(host string) string {
	if own := s.passwords[host]; own != "" {
		return own
	}
	return s.passwords[""]
}

// Keys are the public keys that open a host for its admin, as lines of authorized_keys without
// line break: those for all hosts, then the host's own, each by file name and line. No key comes
// twice. The lines must not be changed: hosts share them.
func (s *Store) Keys(host string) []string {
	own := s.keys[host]
	if len(own) == 0 {
		return s.shared
	}
	return lines(s.keys[everyHost], own)
}

// DeployKeys are the public keys that open a host for the deploy user: those of deploy.pub, or if
// it holds none, the admin's. Their form is that of [Store.Keys].
func (s *Store) DeployKeys(host string) []string {
	if own := s.keys[deployUser]; len(own) > 0 {
		return lines(own)
	}
	return s.Keys(host)
}

// KeyFiles are the files that open a host, for its admin or the deploy user, relative to the
// project with forward slashes.
func (s *Store) KeyFiles(host string) []string {
	var files []string
	for _, owner := range []string{everyHost, host, deployUser} {
		for _, k := range s.keys[owner] {
			files = append(files, k.file)
		}
	}
	return slices.Compact(files)
}

func lines(groups ...[]key) []string {
	var all []string
	seen := map[string]bool{}
	for _, group := range groups {
		for _, k := range group {
			if !seen[k.blob] {
				seen[k.blob] = true
				all = append(all, k.line)
			}
		}
	}
	return all
}

// opening is the state of one Open.
type opening struct {
	*Store
	folder   folder
	keeper   keeper
	needs    Needs
	hosts    Owners
	problems diag.Problems
	// read are the tokens and password hashes, for findSpilled
	read []spillable
	// locked are the places of secrets that cannot be decrypted, lockedHint what to do
	locked     []string
	lockedHint string
}

func (o *opening) report(file string, line int, f finding) {
	o.problems = append(o.problems, f.at(file, line))
}

// secret reads a file of one secret and reports what is wrong with the file as such.
func (o *opening) secret(name string) (content []byte, ok bool) {
	content, shared, err := o.keeper.read(name, maxSecret)
	if shared != 0 {
		o.report(o.At(name), 0, sharedFile(shared, o.At(name)))
	}
	var locked *LockedError
	switch {
	case errors.As(err, &locked):
		if o.locked = append(o.locked, o.At(name)); len(o.locked) == 1 {
			o.lockedHint = diag.HintOf(err)
		}
		return nil, false
	case err != nil:
		o.report(o.At(name), 0, finding{diag.Error, codeInvalid, err.Error(), diag.HintOf(err)})
		return nil, false
	}
	return content, true
}

func (o *opening) readTokens(names []string) {
	passwords := map[TokenKind]string{}
	for _, kind := range []TokenKind{InitToken, AgentToken} {
		name := string(kind)
		if _, found := slices.BinarySearch(names, name); !found {
			continue
		}
		o.tokens[kind] = o.At(name)
		content, ok := o.secret(name)
		if !ok {
			continue
		}
		password, f := parseToken(kind, content)
		if f != nil {
			o.report(o.At(name), 0, *f)
		}
		passwords[kind] = password
		o.read = append(o.read, spillable{name, Traces(content, shortestSpilled)})
		if full := strings.TrimSpace(string(content)); full != password { // K10HASH::server:PASSWORD
			o.read = append(o.read, spillable{name, Traces([]byte(password), shortestSpilled)})
		}
	}
	if same := passwords[InitToken]; same != "" && same == passwords[AgentToken] {
		o.report(o.At(string(AgentToken)), 0, finding{diag.Warning, codeWeak,
			"is the same as the servers' token: agents hold the right to join as servers",
			"remove it, which changes nothing, or give the agents a token of their own"})
	}
	if o.needs.K3s && o.tokens[InitToken] == "" {
		o.report(o.At(string(InitToken)), 0, finding{diag.Error, codeMissing,
			"is missing: without a token no k3s server can start or join",
			"for a new cluster run `k3splan setup`; for a running one copy the file from where it was set up"})
	}
}

func (o *opening) readPasswords(names []string) {
	for _, name := range names {
		host, _, known := o.hosts.password(name)
		if !known {
			continue
		}
		path := o.At(name)
		if first := o.passwords[host]; first != "" {
			o.report(path, 0, finding{diag.Error, codeDuplicate, "is a second password file of the same owner, beside " + first,
				"remove one of the two: which of them counts must not be a guess"})
		}
		o.passwords[host] = path
		content, ok := o.secret(name)
		if !ok {
			continue
		}
		command := strings.TrimSpace("k3splan passwd " + host)
		if f := checkHash(content, command); f != nil {
			o.report(path, 0, *f)
			continue
		}
		o.read = append(o.read, spillable{name, Traces(content, shortestSpilled)})
	}
	if o.passwords[""] != "" {
		return
	}
	without := o.hostsWhere(func(host string) bool { return o.passwords[host] == "" })
	if len(without) > 0 {
		o.report(o.At(passwordName), 0, finding{diag.Error, codeMissing,
			"is missing: the admin has no password on " + text.Some(without, 8), "run `k3splan passwd`"})
	}
}

func (o *opening) readKeys(names []string) {
	broken := map[string]bool{} // what files open that could not be read in whole
	for _, name := range names {
		owner, _, known := o.hosts.key(name)
		if !known {
			continue
		}
		content, _, err := o.folder.read(name, maxKeyFile)
		if err != nil {
			o.report(inSecrets(name), 0, *badKey(err.Error(), diag.HintOf(err)))
			broken[owner] = true
			continue
		}
		keys, problems, whole := parseKeys(inSecrets(name), content)
		o.problems = append(o.problems, problems...)
		o.keys[owner] = append(o.keys[owner], keys...)
		broken[owner] = broken[owner] || !whole
	}
	o.shared = lines(o.keys[everyHost])
	o.reportDuplicates()

	opens := func(owner string) bool {
		return broken[owner] || slices.ContainsFunc(o.keys[owner], func(k key) bool { return !k.forced })
	}
	if opens(everyHost) {
		return
	}
	closed := o.hostsWhere(func(host string) bool { return !opens(host) })
	if len(closed) > 0 {
		file := inSecrets(everyHost + keyExtension)
		o.report(file, 0, finding{diag.Error, codeKeyMissing,
			"no public key lets anyone log in to " + text.Some(closed, 8),
			"put your public key there, for example `cat ~/.ssh/id_ed25519.pub >> " + file + "`"})
	}
}

// reportDuplicates finds keys that open the same host twice. Of keys that differ in their options
// only, too, the first counts.
func (o *opening) reportDuplicates() {
	find := func(keys []key, before map[string]key) map[string]key {
		first := make(map[string]key, len(keys))
		for _, k := range keys {
			earlier, twice := first[k.blob]
			if !twice {
				earlier, twice = before[k.blob]
			}
			if !twice {
				first[k.blob] = k
				continue
			}
			o.report(k.file, k.row, finding{diag.Warning, codeKeyDuplicate,
				fmt.Sprintf("is the same key as in line %d of %s, which counts", earlier.row, earlier.file), "remove one of the two"})
		}
		return first
	}
	all := find(o.keys[everyHost], nil)
	for owner, keys := range o.keys {
		switch owner {
		case everyHost:
		case deployUser:
			find(keys, nil)
		default:
			find(keys, all)
		}
	}
}

// hostsWhere returns each host once that meets a condition, in the plan's order.
func (o *opening) hostsWhere(condition func(string) bool) []string {
	var hosts []string
	seen := make(map[string]bool, len(o.needs.Hosts))
	for _, host := range o.needs.Hosts {
		if !seen[host] && condition(host) {
			hosts = append(hosts, host)
		}
		seen[host] = true
	}
	return hosts
}
