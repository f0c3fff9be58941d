package fingerprint

import (
	"slices"
	"strings"
)

// references are what a Nix file can make a system depend on, as far as its text tells.
type references struct {
	// paths are path literals as they are written ("./x.nix", "../y", "/etc/z").
	paths []string
	// computed tells of a path or a listing that only an evaluation can follow.
	computed bool
	// plan tells that the file reads the plan, all that it reads of other hosts' systems, and sources
	// that it reads k3splan's pins.
	plan, nodes, sources bool
	// loose are reasons why the file means something else at another time or place.
	loose []string
}

// refer finds the references of a Nix file. It errs on the side of too many: what is in a comment
// does not count, what is in dead code does.
func refer(text string) references {
	tokens := (&lexer{text: text}).all()
	var r references
	add := func(reason string) {
		if !slices.Contains(r.loose, reason) {
			r.loose = append(r.loose, reason)
		}
	}
	for i, t := range tokens {
		next := token{}
		if i+1 < len(tokens) {
			next = tokens[i+1]
		}
		switch t.kind {
		case pathToken:
			r.paths = append(r.paths, t.text)
		case computedPath:
			r.computed = true
		case lookupToken:
			add("uses <" + strings.Trim(t.text, "<>") + ">, which is not pinned")
		case stringToken:
			r.attribute(t.text) // config."cluster", attrByPath [ "cluster" … ]
		case wordToken:
			r.attribute(t.text)
			switch t.text {
			case "readDir", "filterSource", "fileset", "toPath", "scopedImport":
				r.computed = true
			case "getEnv", "currentTime":
				add("uses " + t.text + ", which is different at another time or place")
			case "getFlake", "fetchTarball", "fetchurl", "fetchGit", "fetchMercurial", "fetchTree":
				if !pinned(tokens[i+1:]) {
					add("uses " + t.text + " without a hash")
				}
			case "import", "readFile", "pathExists":
				switch {
				case next.kind == stringToken && strings.HasPrefix(next.text, "/"):
					add("reads " + next.text + ", which is outside of the project")
				case next.kind == wordToken, next.kind == otherToken && next.text == "(", next.kind == stringToken:
					// a pinned source, or an expression that holds paths: then the folder counts;
					// else what is read may be anything in the folder
					r.computed = r.computed || next.text != "sources" && next.text != "modulesPath" && next.text != "pkgs"
				}
			}
		}
	}
	return r
}

// attribute takes the name of what a file may read.
func (r *references) attribute(name string) {
	switch name {
	case "cluster", "k3splan":
		r.plan = true
	case "nodes":
		r.plan, r.nodes = true, true
	case "sources":
		r.sources = true
	}
}

// pinned tells whether the argument of a fetcher, an attribute set, holds a hash or commit.
func pinned(tokens []token) bool {
	if len(tokens) == 0 || tokens[0].text != "{" {
		return false
	}
	depth := 0
	for _, t := range tokens {
		switch {
		case t.kind == otherToken && t.text == "{":
			depth++
		case t.kind == otherToken && t.text == "}":
			if depth--; depth == 0 {
				return false
			}
		case t.kind == wordToken && slices.Contains([]string{"sha256", "hash", "narHash", "rev", "outputHash", "sha512"}, t.text):
			return true
		}
	}
	return false
}

type tokenKind int

const (
	otherToken tokenKind = iota
	wordToken
	pathToken
	// computedPath is a path literal with an interpolation.
	computedPath
	lookupToken
	// stringToken's text is what stands before the first interpolation.
	stringToken
)

type token struct {
	kind tokenKind
	text string
}

// lexer splits Nix code into tokens, following Nix's own lexer as far as strings, comments and paths
// are concerned. Code in interpolations is split as well. It never fails: on broken code it gives
// broken tokens, and Nix will say the rest.
type lexer struct {
	text   string
	at     int
	tokens []token
}

func (l *lexer) all() []token {
	for l.at < len(l.text) {
		l.code(false)
	}
	return l.tokens
}

func (l *lexer) rest() string { return l.text[l.at:] }

func (l *lexer) has(prefix string) bool { return strings.HasPrefix(l.rest(), prefix) }

func (l *lexer) emit(kind tokenKind, text string) { l.tokens = append(l.tokens, token{kind, text}) }

// code reads up to the end of the text, or to the brace that closes an interpolation.
func (l *lexer) code(inside bool) {
	depth := 0
	for l.at < len(l.text) {
		c := l.text[l.at]
		switch {
		case c == '#':
			l.skipTo("\n")
		case l.has("/*"):
			l.at += 2
			l.skipTo("*/")
		case c == '"':
			l.at++
			l.quoted()
		case l.has("''"):
			l.at += 2
			l.indented()
		case c == '{':
			depth++
			l.at++
			l.emit(otherToken, "{")
		case c == '}':
			l.at++
			if inside && depth == 0 {
				return
			}
			depth--
			l.emit(otherToken, "}")
		case c == '<' && l.lookup(), l.path(), l.uri(), l.word():
		case c <= ' ':
			l.at++
		default:
			l.at++
			l.emit(otherToken, string(c))
		}
	}
}

func (l *lexer) skipTo(end string) {
	if i := strings.Index(l.rest(), end); i >= 0 {
		l.at += i + len(end)
	} else {
		l.at = len(l.text)
	}
}

func (l *lexer) interpolation() {
	l.at += 2
	l.code(true)
}

func (l *lexer) quoted() {
	place, start, whole := len(l.tokens), l.at, true
	l.emit(stringToken, "")
	keep := func() {
		if whole {
			l.tokens[place].text, whole = l.text[start:l.at], false
		}
	}
	for l.at < len(l.text) {
		switch {
		case l.text[l.at] == '\\':
			l.at = min(l.at+2, len(l.text))
		case l.has("$$"): // $${ is text, $$${ is text and an interpolation
			l.at += 2
		case l.has("${"):
			keep()
			l.interpolation()
		case l.text[l.at] == '"':
			keep()
			l.at++
			return
		default:
			l.at++
		}
	}
}

func (l *lexer) indented() {
	l.emit(stringToken, "")
	for l.at < len(l.text) {
		switch {
		case l.has("'''"), l.has("''$"):
			l.at += 3
		case l.has(`''\`):
			l.at = min(l.at+4, len(l.text))
		case l.has("''"):
			l.at += 2
			return
		case l.has("$$"): // $${ is text, $$${ is text and an interpolation
			l.at += 2
		case l.has("${"):
			l.interpolation()
		default:
			l.at++
		}
	}
}

func isWordStart(c byte) bool { return c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' }
func isDigit(c byte) bool     { return c >= '0' && c <= '9' }
func isPathByte(c byte) bool {
	return isWordStart(c) || isDigit(c) || c == '.' || c == '-' || c == '+'
}

func span(text string, ok func(byte) bool) int {
	for i := range len(text) {
		if !ok(text[i]) {
			return i
		}
	}
	return len(text)
}

// lookup reads <name/folder>.
func (l *lexer) lookup() bool {
	text := l.rest()[1:]
	n := span(text, func(c byte) bool { return isPathByte(c) || c == '/' })
	if n == 0 || n == len(text) || text[n] != '>' {
		return false
	}
	l.emit(lookupToken, "<"+text[:n]+">")
	l.at += n + 2
	return true
}

// path reads a path literal: a slash between path characters makes one, as in Nix.
func (l *lexer) path() bool {
	text := l.rest()
	n := 0
	if text[0] == '~' {
		n = 1
	} else {
		n = span(text, isPathByte)
	}
	end := n
	for end < len(text) && text[end] == '/' {
		more := span(text[end+1:], isPathByte)
		if more == 0 {
			break
		}
		end += 1 + more
	}
	// "./${x}": the literal may end in a slash before an interpolation
	if end < len(text) && text[end] == '/' && strings.HasPrefix(text[end+1:], "${") {
		end++
	}
	if !strings.Contains(text[:end], "/") {
		return false
	}
	kind := pathToken
	if strings.HasPrefix(text[end:], "${") {
		kind = computedPath
	}
	l.emit(kind, text[:end])
	l.at += end
	return true
}

// uri reads a URL without quotes, which older Nix code has.
func (l *lexer) uri() bool {
	text := l.rest()
	if !isWordStart(text[0]) {
		return false
	}
	scheme := span(text, isPathByte)
	if !strings.HasPrefix(text[scheme:], "://") {
		return false
	}
	n := span(text, func(c byte) bool { return isPathByte(c) || strings.IndexByte("%/?:@&=$,!~*'", c) >= 0 })
	l.emit(stringToken, text[:n])
	l.at += n
	return true
}

func (l *lexer) word() bool {
	text := l.rest()
	if !isWordStart(text[0]) {
		return false
	}
	n := span(text, func(c byte) bool { return isWordStart(c) || isDigit(c) || c == '-' || c == '\'' })
	l.emit(wordToken, text[:n])
	l.at += n
	return true
}
