// Package nixtext splits Nix code into tokens: strings, comments, paths and interpolations as Nix's own
// lexer sees them (https://nix.dev/manual/nix/latest/language/syntax), the rest word by word.
//
// There is no parser behind it. Searches in a Nix file find matches outside of comments
// and strings, and errs in the way that is safe for the purpose.
package nixtext

import "strings"

// Kind is a kind of token.
type Kind int

const (
	// Punctuation is a single character, or "++" or "//".
	Punctuation Kind = iota
	// Word is a keyword or name. "__readFile", Nix's internal spelling of a built-in name, is a word
	// without its underscores.
	Word
	// Path is a path literal, "./x.nix" or "~/x" or "/etc/x".
	Path
	// ComputedPath is a path literal with interpolations.
	ComputedPath
	// Lookup is <nixpkgs/x>.
	Lookup
	// String is a quoted string or a URL without quotes.
	String
	// Open and Close are the ends of an interpolation, "${" and "}".
	Open
	Close
)

// Token is a piece of Nix code.
type Token struct {
	Kind Kind
	// Text is the token as it is written. That of a String is what precedes the first interpolation,
	// without quotes and with its escapes; that of a ComputedPath is what precedes it. That of a Close
	// is the character that follows it in a string or path, if any.
	Text string
	// Parts are all pieces of a String or ComputedPath between interpolations.
	Parts []string
}

// Is reports whether the token is this word or punctuation.
func (t Token) Is(text string) bool {
	return t.Text == text && (t.Kind == Word || t.Kind == Punctuation)
}

// Whole reports whether the token is a string without interpolations.
func (t Token) Whole() bool { return t.Kind == String && len(t.Parts) == 1 }

const (
	// maxDepth is how deep strings in interpolations are followed. People nest three.
	maxDepth = 500
	// maxTokens keeps the memory for a file of nothing but brackets small. The list of all packages of nixpkgs, its
	// longest file written by hand, has about half of it.
	maxTokens = 600_000
)

// Tokens splits Nix code. A String or ComputedPath comes before the code in its interpolations. Broken code
// gives broken tokens. It is not whole if interpolations are nested too deep, or if there are too many tokens: the
// rest is missing.
func Tokens(text string) (tokens []Token, whole bool) {
	l := &lexer{text: text}
	for l.at < len(l.text) {
		l.code(false)
	}
	return l.tokens, !l.cut
}

type lexer struct {
	text      string
	at, depth int
	cut       bool
	tokens    []Token
}

func (l *lexer) rest() string { return l.text[l.at:] }

func (l *lexer) has(prefix string) bool { return strings.HasPrefix(l.rest(), prefix) }

func (l *lexer) emit(kind Kind, text string) {
	l.tokens = append(l.tokens, Token{Kind: kind, Text: text})
}

// code reads up to the end of the text, or to the brace that closes an interpolation.
func (l *lexer) code(inside bool) {
	if l.depth == maxDepth {
		l.at, l.cut = len(l.text), true
		return
	}
	l.depth++
	defer func() { l.depth-- }()
	depth := 0
	for l.at < len(l.text) {
		if len(l.tokens) >= maxTokens {
			l.at, l.cut = len(l.text), true
			return
		}
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
		case l.has("${"): // an attribute's name
			l.at += 2
			l.emit(Open, "${")
			l.code(true)
			l.emit(Close, "")
		case c == '{':
			depth++
			l.at++
			l.emit(Punctuation, "{")
		case c == '}':
			l.at++
			if inside && depth == 0 {
				return
			}
			depth--
			l.emit(Punctuation, "}")
		case c == '<' && l.lookup(), l.path(), l.uri(), l.word():
		case c <= ' ':
			l.at++
		case l.has("++"), l.has("//"):
			l.emit(Punctuation, l.text[l.at:l.at+2])
			l.at += 2
		default:
			l.at++
			l.emit(Punctuation, string(c))
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

// interpolation reads "${…}" in a string or path.
func (l *lexer) interpolation() {
	l.at += 2
	l.emit(Open, "${")
	l.code(true)
	following := ""
	if l.at < len(l.text) {
		following = l.text[l.at : l.at+1]
	}
	l.emit(Close, following)
}

// pieces collects the parts of a string or path, whose token it has emitted.
type pieces struct {
	*lexer
	place, start int
}

func (l *lexer) pieces(kind Kind) *pieces {
	l.emit(kind, "")
	return &pieces{l, len(l.tokens) - 1, l.at}
}

func (p *pieces) end() {
	token := &p.tokens[p.place]
	token.Parts = append(token.Parts, p.text[p.start:p.at])
	token.Text = token.Parts[0]
}

func (p *pieces) interpolation() {
	p.end()
	p.lexer.interpolation()
	p.start = p.at
}

func (l *lexer) quoted() {
	p := l.pieces(String)
	for l.at < len(l.text) {
		switch {
		case l.text[l.at] == '\\':
			l.at = min(l.at+2, len(l.text))
		case l.has("$$"): // $${ is text, $$${ is text and an interpolation
			l.at += 2
		case l.has("${"):
			p.interpolation()
		case l.text[l.at] == '"':
			p.end()
			l.at++
			return
		default:
			l.at++
		}
	}
	p.end()
}

func (l *lexer) indented() {
	p := l.pieces(String)
	for l.at < len(l.text) {
		switch {
		case l.has("'''"), l.has("''$"):
			l.at += 3
		case l.has(`''\`):
			l.at = min(l.at+4, len(l.text))
		case l.has("''"):
			p.end()
			l.at += 2
			return
		case l.has("$$"):
			l.at += 2
		case l.has("${"):
			p.interpolation()
		default:
			l.at++
		}
	}
	p.end()
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
	l.emit(Lookup, "<"+text[:n]+">")
	l.at += n + 2
	return true
}

// pathEnd returns where the path that starts with text ends, interpolations aside, and whether one follows.
func pathEnd(text string, end int) (int, bool) {
	for end < len(text) && text[end] == '/' {
		more := span(text[end+1:], isPathByte)
		if more == 0 {
			break
		}
		end += 1 + more
	}
	if strings.HasPrefix(text[end:], "/${") {
		end++
	}
	return end, strings.HasPrefix(text[end:], "${")
}

// path reads a path literal: a slash between path characters makes one, as in Nix.
func (l *lexer) path() bool {
	text := l.rest()
	n := 1
	if text[0] != '~' {
		n = span(text, isPathByte)
	}
	end, computed := pathEnd(text, n)
	if !strings.Contains(text[:end], "/") {
		return false
	}
	if !computed {
		l.emit(Path, text[:end])
		l.at += end
		return true
	}
	p := l.pieces(ComputedPath)
	l.at += end
	for computed {
		p.interpolation()
		end, computed = pathEnd(l.rest(), span(l.rest(), isPathByte))
		l.at += end
	}
	p.end()
	return true
}

// uri reads a URL without quotes.
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
	l.tokens = append(l.tokens, Token{Kind: String, Text: text[:n], Parts: []string{text[:n]}})
	l.at += n
	return true
}

func (l *lexer) word() bool {
	text := l.rest()
	if !isWordStart(text[0]) {
		return false
	}
	n := span(text, func(c byte) bool { return isWordStart(c) || isDigit(c) || c == '-' || c == '\'' })
	word := text[:n]
	if internal, ok := strings.CutPrefix(word, "__"); ok && internal != "" {
		word = internal
	}
	l.emit(Word, word)
	l.at += n
	return true
}
