package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k3splan/internal/ask"
	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/fingerprint"
	"k3splan/internal/k3s"
	"k3splan/internal/plan"
	"k3splan/internal/rollout"
	"k3splan/internal/secrets"
)

// SaveRequest is what is to be made a snapshot of, and where it goes.
type SaveRequest struct {
	// To is a file, which must not exist; "" is one in the project, named after the cluster and the time.
	To string
	// Server is asked alone if it is not nil; else each of the plan's servers until one is healthy.
	Server *plan.Container
	// Reason is kept in the description.
	Reason string
	// Now is the time of the snapshot.
	Now time.Time
}

// ErrNoServer is a cluster without a server that could make a snapshot.
var ErrNoServer = errors.New("no server is a healthy voter, and only such a server makes a snapshot")

// transferTime is how long a snapshot may be under way, in either direction.
const transferTime = time.Hour

// Save lets a healthy server make a snapshot and fetches it. The file is there with its whole content, or not
// at all. The server keeps nothing of it.
func (c *Cluster) Save(ctx context.Context, user ask.User, r SaveRequest) (Snapshot, error) {
	file, err := c.place(r)
	if err != nil {
		return Snapshot{}, err
	}
	server, err := c.healthyServer(ctx, r.Server)
	if err != nil {
		return Snapshot{}, err
	}
	password, err := c.tokenOf(ctx, server)
	if err != nil {
		return Snapshot{}, err
	}
	user.Say("%s makes a snapshot", server.Name)
	name := "k3splan-" + r.Now.UTC().Format("20060102t150405z")
	made, err := c.make(ctx, server, name)
	// whatever was made is of no use on the server any more
	defer func() {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if err := c.forget(after, server, name); err != nil {
			user.Warn("the snapshot %s could not be removed from %s: %v", name, server.Name, diag.Reason(err))
		}
	}()
	if err != nil {
		return Snapshot{}, err
	}
	description := &Description{
		Version: descriptionVersion, Cluster: c.Name, Server: server.Name, K3s: made.k3s,
		Time: r.Now.UTC().Truncate(time.Second), Reason: r.Reason, Size: made.size, SHA256: made.sum,
		Token: fingerprint.Contents{tokenKind: []byte(password)}.Seal(),
	}
	// first, so that a snapshot in its place always has one
	if err := describe(file, description); err != nil {
		return Snapshot{}, err
	}
	if err := c.fetch(ctx, server, made, file); err != nil {
		return Snapshot{}, errors.Join(err, files.Remove(file+descriptionExtension))
	}
	return Open(file)
}

// place returns the path of the file to write. Nothing may be there yet.
func (c *Cluster) place(r SaveRequest) (string, error) {
	file := r.To
	if file == "" {
		place, err := files.OwnFolder(c.Dir, strings.Split(Folder, "/")...)
		if err != nil {
			return "", err
		}
		file = filepath.Join(place, c.Name+"-"+r.Now.UTC().Format("20060102T150405Z")+extension)
		if c.Vault.Encrypts() {
			file += secrets.SealedExtension
		}
		// what was interrupted there is of no use
		unlock, err := files.Lock(c.Dir)
		if err != nil {
			return "", err
		}
		err = removeLeftovers(place)
		unlock()
		if err != nil {
			return "", err
		}
	}
	for _, name := range []string{file, file + descriptionExtension} {
		if _, err := os.Lstat(name); err == nil {
			return "", diag.WithHint(fmt.Errorf("%s exists already; nothing was changed", name), "give another name")
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return file, nil
}

// removeLeftovers removes descriptions without a snapshot.
func removeLeftovers(place string) error {
	entries, err := os.ReadDir(place)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		snapshot, isDescription := strings.CutSuffix(entry.Name(), descriptionExtension)
		if _, err := os.Lstat(filepath.Join(place, snapshot)); isDescription && errors.Is(err, fs.ErrNotExist) {
			if err := files.Remove(filepath.Join(place, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// healthyServer returns a server that is a healthy voter.
func (c *Cluster) healthyServer(ctx context.Context, only *plan.Container) (*plan.Container, error) {
	servers := k3s.Servers(c.Plan)
	if only != nil {
		servers = []*plan.Container{only}
	}
	var why []string
	for _, server := range servers {
		health := rollout.AskServer(ctx, c.Machine(server.Host), server.Name)
		if health.Ready {
			return server, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		why = append(why, server.Name+": "+diag.Printable(health.Why))
	}
	return nil, diag.WithHint(fmt.Errorf("%w:\n  %s", ErrNoServer, strings.Join(why, "\n  ")), "k3splan status shows how the hosts are")
}

// tokenOf returns the secret part of the token with which the data of the server's etcd is encrypted.
func (c *Cluster) tokenOf(ctx context.Context, server *plan.Container) (string, error) {
	asked := k3s.Server{Container: server.Name, Run: func(ctx context.Context, stdin string, command ...string) (string, error) {
		return c.run(ctx, server.Host, stdin, command...)
	}}
	token, err := asked.Token(ctx)
	if err != nil {
		return "", err
	}
	password, err := secrets.TokenPassword(secrets.InitToken, []byte(token))
	if err != nil {
		return "", fmt.Errorf("the token of %s %w", server.Name, err)
	}
	if good, err := asked.CanStartWith(ctx, password); err != nil {
		return "", err
	} else if good {
		return password, nil
	}
	// after a rotation the project has the newer one
	own, err := c.token()
	if err != nil {
		return "", err
	}
	if own != "" {
		if good, err := asked.CanStartWith(ctx, own); err != nil {
			return "", err
		} else if good {
			return own, nil
		}
	}
	return "", diag.WithHint(fmt.Errorf("neither %s nor the project has the token with which the data of etcd is encrypted", server.Name), "k3splan token adopt --server NAME, with a server that was restarted since the last rotation")
}

// token returns the secret part of the project's server token, "" if there is none.
func (c *Cluster) token() (string, error) {
	content, err := c.Vault.Read(string(secrets.InitToken))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	password, err := secrets.TokenPassword(secrets.InitToken, content)
	if err != nil {
		return "", fmt.Errorf("%s %w", c.Vault.At(string(secrets.InitToken)), err)
	}
	return password, nil
}

// made is a snapshot on a server's host.
type made struct {
	// file is its path on the host.
	file string
	sum  string
	size int64
	k3s  string
}

// saveScript lets the server "$1" make a snapshot named "$2", and prints what it is. k3s adds the name of the
// server and the time to the name.
const saveScript = `
set -e
container=$1 name=$2
inside() { timeout 240 nixos-container run "$container" -- "$@"; }
inside k3s etcd-snapshot save --name "$name" --etcd-snapshot-compress=false >&2
found=$(inside k3s etcd-snapshot ls 2> /dev/null | while read -r file location rest; do
  case $file-$location in "$name"-*-file://*) echo "${location#file://}"; break ;; esac
done)
if [ -z "$found" ]; then echo "k3s made a snapshot and does not list it" >&2; exit 1; fi
path=/var/lib/nixos-containers/$container$found
echo "sum $(sha256sum "$path" | cut -d ' ' -f 1)"
echo "size $(stat -c %s "$path")"
echo "k3s $(inside k3s --version 2> /dev/null | grep -o -m 1 'v[0-9][^ ]*')"
echo "file $path"
`

// maxSize is what no database of etcd has: 8 GB are the most that its authors suggest
// (https://etcd.io/docs/v3.6/dev-guide/limit/).
const maxSize = 64 << 30

func (c *Cluster) make(ctx context.Context, server *plan.Container, name string) (made, error) {
	out, err := c.Machine(server.Host).Script(ctx, saveScript, server.Name, name)
	if err != nil {
		return made{}, fmt.Errorf("making a snapshot on %s: %w", server.Name, err)
	}
	var m made
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "sum":
			m.sum = value
		case "size":
			m.size, _ = strconv.ParseInt(value, 10, 64)
		case "k3s":
			m.k3s = value
		case "file":
			m.file = value
		}
	}
	if m.file == "" || m.sum == "" || m.size <= 0 || path.Clean(m.file) != m.file {
		return made{}, fmt.Errorf("making a snapshot on %s: incomplete response", server.Name)
	}
	if m.size > maxSize {
		return made{}, fmt.Errorf("making a snapshot on %s: it has %d GB, and etcd at most %d", server.Name, m.size>>30, int64(maxSize>>30))
	}
	return m, nil
}

// forgetScript removes the snapshots named "$2" from the server "$1", if there are any.
const forgetScript = `
container=$1 name=$2
inside() { timeout 50 nixos-container run "$container" -- "$@"; }
inside k3s etcd-snapshot ls 2> /dev/null | while read -r file rest; do
  case $file in "$name"-*) echo "$file" ;; esac
done | sort -u | while read -r file; do inside k3s etcd-snapshot delete "$file" < /dev/null >&2; done
`

func (c *Cluster) forget(ctx context.Context, server *plan.Container, name string) error {
	_, err := c.Machine(server.Host).Script(ctx, forgetScript, server.Name, name)
	return err
}

// describe writes the description of a snapshot.
func describe(file string, d *Description) error {
	content, err := marshal(d)
	if err != nil {
		return err
	}
	return files.Create(file+descriptionExtension, content, files.Private)
}

// fetch copies a snapshot from a server's host into a file that does not exist yet.
func (c *Cluster) fetch(ctx context.Context, server *plan.Container, m made, file string) error {
	machine := c.Machine(server.Host)
	machine.Timeout = transferTime
	in, out := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		out.CloseWithError(func() error {
			sealed, err := c.Vault.Seal(out)
			if err != nil {
				return err
			}
			check := newCheck()
			check.limit = m.size
			if err := machine.Pipe(ctx, nil, io.MultiWriter(check, sealed), "cat", m.file); err != nil {
				return fmt.Errorf("fetching the snapshot from %s: %w", server.Host.Name, cmp.Or(check.tooLong, err))
			}
			if check.sum() != m.sum || check.size != m.size {
				return fmt.Errorf("fetching the snapshot from %s: it did not arrive whole", server.Host.Name)
			}
			if err := check.verify(); err != nil {
				return fmt.Errorf("the snapshot that %s made %w", server.Name, err)
			}
			return sealed.Close()
		}())
	}()
	err := files.CreateFrom(file, in, files.Private)
	_ = in.Close() // so that nothing waits for a reader
	<-ended
	return err
}
