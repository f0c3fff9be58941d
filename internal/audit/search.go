package audit

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"slices"
	"strings"

	"k3splan/internal/files"
	"k3splan/internal/secrets"
)

// minPattern is the length in bytes below which a secret would be found by chance.
const minPattern = 8

// search looks for secrets in other files. It holds them in memory.
type search struct {
	patterns []pattern
	longest  int
}

type pattern struct {
	name string // of the secret
	text []byte
}

// add looks for a secret as it is and in base64, as a Kubernetes Secret would hold it.
func (s *search) add(name string, content []byte) {
	add := func(text []byte) {
		if len(text) >= minPattern {
			s.patterns = append(s.patterns, pattern{name, text})
			s.longest = max(s.longest, len(text))
		}
	}
	for _, part := range telling(content) {
		add([]byte(part))
	}
	for _, whole := range [][]byte{content, bytes.TrimSpace(content)} {
		add([]byte(strings.TrimRight(base64.StdEncoding.EncodeToString(whole), "=")))
	}
}

// telling returns what is in a secret and nowhere else. Of a private key these are the lines after the
// first two, which contain what all keys have in common and the public key.
func telling(content []byte) []string {
	text := strings.TrimSpace(string(content))
	if !strings.HasPrefix(text, "-----BEGIN ") {
		return []string{text}
	}
	lines := strings.Split(text, "\n")
	if len(lines) < 5 {
		return []string{text}
	}
	var parts []string
	for _, line := range lines[3 : len(lines)-1] {
		if line = strings.TrimSpace(line); len(line) >= 40 {
			parts = append(parts, line)
		}
	}
	return parts
}

// maxArchive is how much is read of an archive and of each file in it, in bytes.
const maxArchive = 128 << 20

// in returns the names of the secrets that are in what is read, each once and sorted. It looks into
// archives as well: a workbook is one.
func (s *search) in(r io.Reader) ([]string, error) {
	start := bufio.NewReader(r)
	if mark, _ := start.Peek(4); string(mark) != "PK\x03\x04" {
		return s.scan(start)
	}
	data, err := io.ReadAll(io.LimitReader(start, maxArchive))
	if err != nil {
		return nil, err
	}
	found, err := s.scan(io.MultiReader(bytes.NewReader(data), start))
	archive, wrong := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil || wrong != nil {
		return found, err // what only begins like an archive has been searched
	}
	for _, file := range archive.File {
		part, err := file.Open()
		if err != nil {
			continue
		}
		names, _ := s.scan(io.LimitReader(part, maxArchive)) // as far as it can be unpacked
		part.Close()
		found = append(found, names...)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// scan returns the names of the secrets in a text, each once and sorted. Its memory is bounded.
func (s *search) scan(r io.Reader) ([]string, error) {
	var found []string
	buffer := make([]byte, 1<<20+s.longest)
	kept := 0
	for {
		n, err := io.ReadFull(r, buffer[kept:])
		window := buffer[:kept+n]
		for _, p := range s.patterns {
			if !slices.Contains(found, p.name) && bytes.Contains(window, p.text) {
				found = append(found, p.name)
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			slices.Sort(found)
			return found, nil
		} else if err != nil {
			return found, err
		}
		kept = copy(buffer, window[len(window)-min(s.longest, len(window)):])
	}
}

func (s *search) inFile(name string) ([]string, error) {
	file, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return s.in(file)
}

// newSearch reads all secrets; those that cannot be read are given apart, with why.
func newSearch(vault *secrets.Vault, names []string) (s *search, unread map[string]error) {
	s, unread = &search{}, map[string]error{}
	for _, name := range names {
		content, err := vault.Read(name)
		if err != nil {
			unread[name] = err
			continue
		}
		s.add(name, content)
	}
	return s, unread
}
