package etcd

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/fingerprint"
	"k3splan/internal/secrets"
)

const (
	// Folder is where snapshots are kept, in the project's own folder for what is not for git.
	Folder = files.StateDir + "/snapshots"
	// extension ends the name of a snapshot that is not encrypted.
	extension = ".db"
	// descriptionExtension comes after the whole name of a snapshot's file.
	descriptionExtension = ".json"
	// descriptionVersion is the only form of descriptions that this k3splan reads.
	descriptionVersion = 1
)

// Description is what is known of a snapshot without decrypting it. It contains no secret.
type Description struct {
	Version int `json:"version"`
	// Cluster is the name of the cluster, Server that of the server that made the snapshot, and K3s its
	// version ("v1.31.14+k3s1").
	Cluster string `json:"cluster"`
	Server  string `json:"server"`
	K3s     string `json:"k3s"`
	// Time is when it was made, by the clock of the operator's machine.
	Time time.Time `json:"time"`
	// Reason is what it was made for: "by hand", "before k3s changes on olaf".
	Reason string `json:"reason"`
	// Size in bytes and SHA256 in hexadecimal digits are those of the snapshot itself, not encrypted.
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// Token is a salted hash of the server token with which k3s encrypted what is in the snapshot. Without
	// this token nothing can be restored from it.
	Token fingerprint.Secrets `json:"token"`
}

// TokenState is how a snapshot's token relates to that of the project.
type TokenState string

const (
	TokenSame    TokenState = "same"
	TokenOther   TokenState = "other"
	TokenUnknown TokenState = "unknown"
)

// Snapshot is a file with a snapshot.
type Snapshot struct {
	// File is its path.
	File string
	// Description is nil where there is none, because the file comes from elsewhere; BadDescription says why
	// there is one that cannot be used.
	Description    *Description
	BadDescription string
	// Encrypted reports whether the file is encrypted by age.
	Encrypted bool
	// FileSize is in bytes.
	FileSize int64
}

// List returns the snapshots in the project, the newest last.
func List(dir string) ([]Snapshot, error) {
	place := filepath.Join(dir, filepath.FromSlash(Folder))
	entries, err := os.ReadDir(place)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := files.CheckOwnFolder(dir, Folder); err != nil {
		return nil, err
	}
	var snapshots []Snapshot
	for _, entry := range entries {
		name := strings.TrimSuffix(entry.Name(), secrets.SealedExtension)
		if strings.HasPrefix(name, ".") || !strings.HasSuffix(name, extension) || !entry.Type().IsRegular() {
			continue // unfinished files begin with a dot
		}
		snapshot, err := Open(filepath.Join(place, entry.Name()))
		if err != nil {
			return nil, err
		}
		snapshots = append(snapshots, snapshot)
	}
	slices.SortStableFunc(snapshots, func(a, b Snapshot) int { return a.time().Compare(b.time()) })
	return snapshots, nil
}

func (s Snapshot) time() time.Time {
	if s.Description == nil {
		return time.Time{}
	}
	return s.Description.Time
}

// Open looks at a snapshot and its description. Whether the snapshot is whole shows when it is read.
func Open(file string) (Snapshot, error) {
	s := Snapshot{File: file}
	opened, err := files.Open(file)
	if err != nil {
		return s, err
	}
	defer opened.Close()
	info, err := opened.Stat()
	if err != nil {
		return s, err
	}
	s.FileSize = info.Size()
	if s.Encrypted, err = secrets.IsSealed(opened); err != nil {
		return s, fmt.Errorf("%s: %w", file, err)
	}
	content, err := files.Read(file + descriptionExtension)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		s.BadDescription = diag.Reason(err).Error()
	default:
		var d Description
		switch err := json.Unmarshal(content, &d); {
		case err != nil:
			s.BadDescription = "it is damaged"
		case d.Version != descriptionVersion:
			s.BadDescription = fmt.Sprintf("it was written by another version of k3splan (form %d)", d.Version)
		case len(d.SHA256) != hex.EncodedLen(sha256.Size) || d.Size <= 0:
			s.BadDescription = "it names no checksum"
		default:
			s.Description = &d
		}
	}
	return s, nil
}

// TokenState compares the token with one that the project has, or had.
func (s Snapshot) TokenState(password string) TokenState {
	if s.Description == nil || s.Description.Token.Kinds[tokenKind] == "" || password == "" {
		return TokenUnknown
	}
	if len((fingerprint.Contents{tokenKind: []byte(password)}).Changed(s.Description.Token)) > 0 {
		return TokenOther
	}
	return TokenSame
}

// copyTo decrypts the snapshot and writes it to out. The error says what is wrong with the file: all of it
// has been written then, so out must not be used.
func (s Snapshot) copyTo(out io.Writer, vault *secrets.Vault) (sum string, size int64, err error) {
	file, err := files.Open(s.File)
	if err != nil {
		return "", 0, err
	}
	defer file.Close()
	content, err := vault.Unseal(file)
	if err != nil {
		return "", 0, fmt.Errorf("%s %w", s.File, err)
	}
	check := newCheck()
	if _, err := io.Copy(io.MultiWriter(out, check), content); err != nil {
		return "", 0, fmt.Errorf("reading %s: %w", s.File, err)
	}
	if err := check.verify(); err != nil {
		return "", 0, fmt.Errorf("%s %w", s.File, err)
	}
	sum, size = check.sum(), check.size
	if d := s.Description; d != nil && (d.SHA256 != sum || d.Size != size) {
		return "", 0, diag.WithHint(fmt.Errorf("%s is not the snapshot that %s describes: its checksum is another one", s.File, filepath.Base(s.File)+descriptionExtension),
			"it was exchanged or damaged; use another one: k3splan etcd list")
	}
	return sum, size, nil
}

// Verify reads the whole snapshot and returns the checksum of its content.
func (s Snapshot) Verify(vault *secrets.Vault) (sum string, size int64, err error) {
	return s.copyTo(io.Discard, vault)
}

// check computes the checksum of a snapshot and checks that it is whole: etcd puts a SHA-256 of the database,
// whose pages have at least 512 bytes, at its end (go.etcd.io/etcd/etcdutl/v3/snapshot, hasChecksum).
type check struct {
	whole, database interface {
		io.Writer
		Sum([]byte) []byte
	}
	last []byte // the last bytes, not yet in database
	size int64
	// limit is the size that a host has named, or 0: what sends more is not read to its end, and tooLong is set
	limit   int64
	tooLong error
}

func newCheck() *check { return &check{whole: sha256.New(), database: sha256.New()} }

func (c *check) Write(p []byte) (int, error) {
	if c.limit > 0 && c.size+int64(len(p)) > c.limit {
		c.tooLong = fmt.Errorf("it sends more than the %d bytes that it has named", c.limit)
		return 0, c.tooLong
	}
	_, _ = c.whole.Write(p) // never fails
	c.size += int64(len(p))
	c.last = append(c.last, p...)
	if surplus := len(c.last) - sha256.Size; surplus > 0 {
		_, _ = c.database.Write(c.last[:surplus])
		c.last = append(c.last[:0], c.last[surplus:]...)
	}
	return len(p), nil
}

func (c *check) sum() string { return hex.EncodeToString(c.whole.Sum(nil)) }

func (c *check) verify() error {
	const page = 512
	if c.size <= sha256.Size || c.size%page != sha256.Size || !bytes.Equal(c.database.Sum(nil), c.last) {
		return diag.WithHint(errNotASnapshot, "a snapshot that k3s made, not compressed, is needed: k3splan etcd list")
	}
	return nil
}

var errNotASnapshot = errors.New("is not a snapshot of etcd, or is damaged")

func marshal(d *Description) ([]byte, error) {
	content, err := json.MarshalIndent(d, "", "  ")
	return append(content, '\n'), err
}
