package audit

import (
	"archive/zip"
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"

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

func (s *search) add(name string, content []byte) {
	for _, text := range secrets.Traces(content, minPattern) {
		s.patterns = append(s.patterns, pattern{name, text})
		s.longest = max(s.longest, len(text))
	}
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
