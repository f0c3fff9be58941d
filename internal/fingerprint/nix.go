package fingerprint

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"k3splan/internal/nixtext"
)

// references are what a Nix file can make a system depend on, as far as its text shows.
type references struct {
	// paths are path literals as they are written ("./x.nix", "../y", "/etc/z"), with a constant string
	// that is added to them.
	paths []string
	// imported are those of paths that are read as Nix code, whatever their names.
	imported []string
	// folders are where paths begin that are put together: anything below may be read.
	folders []string
	// beside are those of paths whose names may be continued.
	beside []string
	// bound are path literals by the name that they are given, "" for the value of the file.
	bound map[string][]string
	// used counts how often the file uses the value of a name; extends reports whether it adds something to a value
	// that may continue the name of a file.
	used    map[string]int
	extends bool
	// computed reports a path or a listing that only an evaluation can follow; project, that anything in
	// the project may be read.
	computed, project bool
	// climbed counts the ".." in pieces of text that may be added to a path, by the name that they are bound to.
	// repeats reports one in a function, which can be called several times.
	climbed map[string]int
	repeats bool
	// dots counts pieces of text that can become a ".." together: 2 for one that can be used twice. sums reports
	// text or paths put together of values.
	dots int
	sums bool
	// unanchoredRead reports a function that reads what has no path literal at its beginning, absolutes are
	// strings that are given to functions and could be such a path.
	unanchoredRead bool
	absolutes      []string
	// parses reports that the file takes values from data.
	parses bool
	// plan reports that the file reads the plan, nodes that it reads other hosts' systems, and sources
	// that it reads k3splan's pins.
	plan, nodes, sources bool
	// loose are reasons why the file can mean something else at another time or place.
	loose []string
}

// What Nix code can read from outside of itself, by the names of built-in functions and values and those
// of nixpkgs' library. A name counts wherever it occurs, also as a string, so that neither `with builtins`
// nor `inherit` nor another name for builtins hides it.
var (
	readers = set("import", "scopedImport", "readFile", "readFileType", "readDir", "pathExists", "hashFile", "path",
		"filterSource", "toPath", "fileContents", "importJSON", "importTOML", "listFilesRecursive", "packagesFromDirectoryRecursive")
	listers  = set("readDir", "filterSource", "fileset", "toPath", "scopedImport", "listFilesRecursive", "packagesFromDirectoryRecursive")
	fetchers = set("fetchTarball", "fetchurl", "fetchGit", "fetchMercurial", "fetchTree", "fetchFinalTree", "fetchClosure", "getFlake")
	volatile = set("getEnv", "currentTime", "currentSystem", "nixVersion", "langVersion", "nixPath", "storeDir", "findFile",
		"exec", "importNative", "inNixShell", "commitIdFromGitRepo", "revisionWithDefault")
	// where a file itself lies, as text
	positions = set("curPos", "unsafeGetAttrPos", "definitionsWithLocations", "declarations", "declarationPositions")

	// importers are functions and options that take Nix files.
	importers = set("import", "scopedImport", "callPackage", "callPackages", "imports", "modules", "sharedModules", "extraModules", "evalModules")
	// keepers are functions that do not continue the names of paths that they are given.
	keepers = set("optional", "optionals", "mkIf", "mkDefault", "mkForce", "mkMerge", "mkBefore", "mkAfter", "mkOverride", "mkOption",
		"toSource", "union", "unions", "difference", "intersection", "cleanSource", "cleanSourceWith", "writeText",
		"replaceVars", "substituteAll", "throw", "toString", "toPath")
	// fileOptions are options whose values NixOS reads while it evaluates.
	fileOptions = set("imports", "modules", "sharedModules", "extraModules", "keyFiles")
	// splitters take words out of texts, cutters also other pieces, and joiners put texts together.
	splitters = set("split", "splitString", "match", "fromJSON", "fromTOML")
	cutters   = set("substring", "replaceStrings", "removePrefix", "removeSuffix", "stringToCharacters")
	joiners   = set("concatStrings", "concatStringsSep", "concatMapStrings", "concatMapStringsSep", "concatImapStrings", "concatLines",
		"toPath", "append", "replicate", "fixedWidthString", "strings", "foldl'", "foldl", "foldr", "fold")
	// comparers use a text only to look for it in another, or to take it away.
	parsers   = set("fromJSON", "fromTOML", "importJSON", "importTOML")
	comparers = set("splitString", "hasPrefix", "hasSuffix", "hasInfix", "removePrefix", "removeSuffix", "split", "match")
	selectors = set("getAttr", "attrByPath", "getAttrFromPath", "attrValues", "attrVals", "mapAttrs")
	keywords  = set("if", "then", "else", "assert", "with", "let", "in", "rec", "inherit", "or")
)

func set(names ...string) map[string]bool {
	all := make(map[string]bool, len(names))
	for _, name := range names {
		all[name] = true
	}
	return all
}

// refer finds the references of a Nix file. It errs on the side of too many: what is in a comment does not
// count, what is in dead code does.
func refer(text string) references {
	s := newScan(text)
	s.splits = slices.ContainsFunc(s.tokens, func(t nixtext.Token) bool { return t.Kind == nixtext.Word && (splitters[t.Text] || cutters[t.Text]) })
	for i, t := range s.tokens {
		s.token(i)
		s.sums = s.sums || t.Is("+") && !s.at(i+1).Whole() || t.Kind == nixtext.Word && joiners[t.Text]
		s.parses = s.parses || t.Kind == nixtext.Word && parsers[t.Text]
		s.extends = s.extends || s.continued(i) || t.Kind == nixtext.Close && !strings.Contains("/\"' \n", t.Text)
	}
	s.unanchored()
	return s.references
}

// scan goes through the tokens of one file.
type scan struct {
	references
	tokens []nixtext.Token
	places []place
	// flows remembers flow for brackets.
	flows map[int]flow
	// pathsBefore counts the path literals before each token.
	pathsBefore []int
	// ownPkgs and deployment report that the file binds pkgs, or has the word deployment.
	ownPkgs, deployment bool
	// absolute is a string that could be the path of an unanchored read.
	absolute string
	// taken is a string that is part of a path literal.
	taken int
	// splits reports that the file takes words out of longer texts.
	splits bool
	// names of builtins taken by computed attributes
	builtinsPassed, selected bool
}

// place is where a token is, as indices of others; -1 for none.
type place struct {
	// around is the bracket or interpolation that it is in, partner the other end of a bracket.
	around, partner int
	// first is where the application begins that it is part of ("lib.optional a b"), last the last word of
	// the function there.
	first, last int
	// name is what the expression around it is bound to, within its brackets.
	name int
	// inherited reports that it is a name in "inherit (x) name;", function that it is in a function's body.
	inherited, function bool
}

func newScan(text string) *scan {
	tokens, whole := nixtext.Tokens(text)
	s := &scan{tokens: tokens, flows: map[int]flow{}}
	if !whole {
		s.add("is nested too deep to be followed")
	}
	s.place()
	return s
}

func (s *scan) add(reason string) {
	if !slices.Contains(s.loose, reason) {
		s.loose = append(s.loose, reason)
	}
}

// at returns a token, or an empty one beyond both ends.
func (s *scan) at(i int) nixtext.Token {
	if i < 0 || i >= len(s.tokens) {
		return nixtext.Token{}
	}
	return s.tokens[i]
}

// place finds for each token where it is.
func (s *scan) place() {
	outside := place{around: -1, partner: -1, first: -1, name: -1}
	levels := []place{outside} // of the open brackets, as of the last token in each
	inHead := []bool{false}
	paths := 0
	for i, t := range s.tokens {
		isOpen := t.Kind == nixtext.Open || t.Kind == nixtext.Punctuation && strings.Contains("([{", t.Text)
		isClose := t.Kind == nixtext.Close || t.Kind == nixtext.Punctuation && strings.Contains(")]}", t.Text)
		here := &levels[len(levels)-1]
		if isClose && len(levels) > 1 {
			opener := here.around
			levels, inHead = levels[:len(levels)-1], inHead[:len(inHead)-1]
			s.places = append(s.places, s.places[opener])
			s.places[i].partner, s.places[opener].partner = opener, i
			s.pathsBefore = append(s.pathsBefore, paths)
			continue
		}
		delimiter := t.Kind == nixtext.Punctuation && !isOpen && t.Text != "." || t.Kind == nixtext.Word && keywords[t.Text] && t.Text != "rec"
		if here.around >= 0 && s.tokens[here.around].Is("[") && !t.Is(".") && !s.at(i-1).Is(".") {
			here.first = -1 // elements of a list are not arguments of each other
		}
		top := len(levels) - 1
		switch {
		case delimiter:
			here.first = -1
		case here.first < 0:
			here.first, here.last, inHead[top] = i, i, true
		case inHead[top] && t.Kind == nixtext.Word && s.at(i-1).Is("."):
			here.last = i
		case !t.Is("."):
			inHead[top] = false
		}
		switch {
		case t.Is(";"):
			here.name, here.inherited, here.function = -1, false, false
		case t.Is("inherit"):
			here.inherited = true
		case t.Is(":"):
			here.function = true
		case t.Is("?"), t.Is("=") && !s.at(i-1).Is("=") && !s.at(i+1).Is("=") && !s.at(i-1).Is("!"):
			here.name = i - 1
		}
		s.places = append(s.places, *here)
		s.pathsBefore = append(s.pathsBefore, paths)
		if t.Kind == nixtext.Path || t.Kind == nixtext.ComputedPath {
			paths++
		}
		s.ownPkgs = s.ownPkgs || t.Is("pkgs") && s.at(i+1).Is("=") && !s.at(i-1).Is(".")
		s.deployment = s.deployment || t.Is("deployment")
		if isOpen {
			inner := outside
			inner.around = i
			levels, inHead = append(levels, inner), append(inHead, false)
		}
	}
	s.pathsBefore = append(s.pathsBefore, paths)
}

// partner returns the other end of the bracket at i, the end of the file where it is missing.
func (s *scan) partner(i int) int {
	if end := s.places[i].partner; end >= 0 {
		return end
	}
	return len(s.tokens)
}

func (s *scan) token(i int) {
	switch t := s.tokens[i]; t.Kind {
	case nixtext.Path:
		s.path(i)
	case nixtext.ComputedPath:
		s.computedPath(i)
	case nixtext.Lookup:
		s.add("uses " + t.Text + ", which is not pinned")
	case nixtext.String:
		s.string(i)
	case nixtext.Word:
		s.word(i)
	case nixtext.Open:
		s.selected = s.selected || s.at(i-1).Is(".")
	}
}

func (s *scan) computedPath(i int) {
	t := s.tokens[i]
	s.computed = true
	if strings.HasPrefix(t.Text, "/") || strings.HasPrefix(t.Text, "~") {
		s.paths = append(s.paths, t.Text)
		return
	}
	folder, _ := path.Split(t.Text)
	s.folders = append(s.folders, folder)
	for _, part := range t.Parts[1:] {
		s.secret(part)
	}
	s.sums = true
	s.climb(i, t.Parts[1:])
	s.secret(t.Text)
}

// path takes a path literal, and what may be added to it.
func (s *scan) path(i int) {
	literal := s.tokens[i].Text
	_, argument := s.function(i) // of a function, to whose result something may be added
	if suffix := s.at(i + 2); s.continued(i) {
		s.beside = append(s.beside, literal)
	} else if s.at(i+1).Is("+") && suffix.Whole() && !s.at(i+3).Is("+") && !argument {
		literal += unescaped(suffix.Text)
		s.taken = i + 2
	}
	to := s.flow(i)
	switch {
	case importers[to.name] && to.known:
		s.imported = append(s.imported, literal)
	case to.known && !readers[to.name] && !fetchers[to.name]:
		if s.bound == nil {
			s.bound = map[string][]string{}
		}
		s.bound[to.name] = append(s.bound[to.name], literal)
	case !to.known:
		s.beside = append(s.beside, literal)
	}
	s.paths = append(s.paths, literal)
}

// flow is where a value goes: the name that it is bound to, or the function that it is given to. It is
// known unless a function may continue the value under a name that the file does not show.
type flow struct {
	name  string
	known bool
}

// flow follows the value at i.
func (s *scan) flow(i int) flow {
	found, ok := s.flows[i]
	if !ok {
		found = s.follow(i)
		s.flows[i] = found
	}
	return found
}

func (s *scan) follow(i int) flow {
	function, argument := s.function(i)
	switch {
	case argument && keepers[function]: // as its result
	case argument:
		return flow{function, (importers[function] || readers[function] || fetchers[function]) && s.places[i].last+1 == i}
	}
	at := s.places[i]
	if at.name >= 0 {
		if name := s.tokens[at.name]; name.Kind == nixtext.Word || name.Kind == nixtext.String {
			return flow{name.Text, true}
		}
		return flow{"", true}
	}
	if at.around < 0 {
		return flow{"", true}
	}
	switch bracket, end := s.tokens[at.around], s.partner(at.around); {
	case bracket.Kind == nixtext.Open: // "${./x}/y" continues it, "${./x}-y" continues its name
		return flow{"", strings.Contains("/\"' \n", s.at(end).Text)}
	case bracket.Is("(") && s.continued(end):
		return flow{"", false}
	case bracket.Is("("), bracket.Is("["):
		return s.flow(at.around)
	}
	return flow{"", true}
}

// continued reports whether something is added to the value that ends at i which may continue the name of
// a file: anything but a slash and what follows it.
func (s *scan) continued(i int) bool {
	suffix := s.at(i + 2)
	return s.at(i+1).Is("+") && !(suffix.Kind == nixtext.String && strings.HasPrefix(suffix.Text, "/"))
}

// function returns the function that the value at i is an argument of, the last word of lib.optional.
func (s *scan) function(i int) (name string, argument bool) {
	at := s.places[i]
	if at.first < 0 || at.first == i {
		return "", false
	}
	if function := s.tokens[at.last]; function.Kind == nixtext.Word {
		return function.Text, true
	}
	return "", true
}

func (s *scan) string(i int) {
	t := s.tokens[i]
	s.name(t.Text)
	s.use(i)
	if t.Whole() && s.besideBuiltins(i) {
		s.builtin(i)
	}
	for j, part := range t.Parts {
		if !strings.Contains(part, "\n") {
			s.secret(part)
		}
		s.sums = s.sums || j > 0 && j < len(t.Parts)-1 && strings.HasPrefix(part, "/")
	}
	if s.taken != i || i == 0 {
		s.climb(i, t.Parts)
	}
	if strings.HasPrefix(t.Text, "/") && !strings.HasPrefix(t.Text, "//") && !strings.Contains(t.Text, "\n") && (len(t.Text) > 1 || !t.Whole()) && !s.at(i-1).Is("+") {
		if fileOptions[s.flow(i).name] {
			s.add("reads " + t.Text + ", which is outside of the project")
		}
		if s.absolute == "" {
			s.absolute = t.Text
		}
		if s.given(i) && len(s.absolutes) < 3 {
			s.absolutes = append(s.absolutes, t.Text)
		}
	}
}

// given reports whether the value at i is an argument of a function, alone or in a set, that another file may
// have made.
func (s *scan) given(i int) bool {
	name, argument := s.function(i)
	if around := s.places[i].around; !argument && around >= 0 && s.tokens[around].Is("{") {
		name, argument = s.function(around)
	}
	return argument && !keepers[name] && !comparers[name]
}

// besideBuiltins reports whether a string is an attribute of builtins: builtins."readFile",
// getAttr "readFile" builtins.
func (s *scan) besideBuiltins(i int) bool {
	return s.at(i-1).Is(".") || s.at(i+1).Is("builtins") || s.at(i-1).Is("getAttr")
}

// climb takes the pieces of a string or computed path, which may be added to a path.
func (s *scan) climb(i int, pieces []string) {
	n := 0
	for _, piece := range pieces {
		switch {
		case !strings.Contains(piece, "\n"):
			if n += climbs(piece); s.splits {
				n = max(n, climbsOfWords(piece))
			}
			if s.splits && inside(piece) || escaped(piece) {
				s.dots += 2 // what is cut out of it
			}
			if !hasDot(piece) {
				continue
			}
			function, argument := s.function(i)
			switch {
			case len(pieces) > 1: // "${host}.${domain}"
				s.dots++
			case !argument || !comparers[function]:
				s.dots += 2
			}
		case s.splits:
			n += climbsOfWords(piece)
		}
	}
	if n == 0 {
		return
	}
	if s.climbed == nil {
		s.climbed = map[string]int{}
	}
	bound, levels := false, 0
	for at := i; at >= 0; at = s.places[at].around {
		here := s.places[at]
		if levels++; levels > 50 { // so that work is linear in the text
			s.repeats = true
			break
		}
		if here.name >= 0 {
			s.climbed[s.tokens[here.name].Text] += n
			bound = true
		}
		s.repeats = s.repeats || here.function && here.around >= 0 && s.tokens[here.around].Is("(")
	}
	if !bound {
		s.climbed[""] += n
	}
}

// unescaped returns a piece of a string as Nix reads it, as far as dots and slashes are concerned: "\." is ".".
func unescaped(piece string) string {
	if !strings.Contains(piece, "\\") {
		return piece
	}
	return strings.ReplaceAll(strings.ReplaceAll(piece, "''\\", ""), "\\", "")
}

// climbs counts the ".." among the components of a piece of a path.
func climbs(piece string) int {
	n := 0
	for component := range strings.SplitSeq(unescaped(piece), "/") {
		if component == ".." {
			n++
		}
	}
	return n
}

// climbsOfWords returns the largest number of ".." in a word of a text.
func climbsOfWords(text string) (most int) {
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n\"',;=", r) }) {
		most = max(most, climbs(word))
	}
	return most
}

// hasDot reports whether a piece of a path begins or ends with the component ".", which another one makes a "..".
func hasDot(piece string) bool {
	piece = unescaped(piece)
	return piece == "." || strings.HasPrefix(piece, "./") || strings.HasSuffix(piece, "/.")
}

// inside reports whether a ".." can be cut out of a piece that has none as a component.
func inside(piece string) bool {
	return strings.Contains(piece, "..") && climbs(piece) == 0 && !strings.ContainsAny(piece, " \t")
}

// escaped reports whether a piece has dots or slashes written as JSON and TOML do it.
func escaped(piece string) bool {
	piece = strings.ToLower(piece)
	return strings.Contains(piece, `u002e`) || strings.Contains(piece, `u0000002e`) || strings.Contains(piece, `u002f`)
}

// secret looks for names of secrets, whose content is not compared.
func (s *scan) secret(piece string) {
	if strings.ContainsAny(piece, " \n") {
		return
	}
	_, name, found := strings.Cut("/"+piece, "/secrets/")
	if found && (!strings.HasPrefix(piece, "/") || strings.HasPrefix(piece, "/secrets/") || strings.HasPrefix(piece, "/../")) && !strings.HasSuffix(name, ".pub") {
		s.add("names secrets/" + name + ", whose content is not compared")
	}
}

func (s *scan) word(i int) {
	t, next := s.tokens[i], s.at(i+1)
	s.name(t.Text)
	s.use(i)
	s.builtin(i)
	switch {
	case t.Text == "keyCommand":
		s.add("uploads what a command prints")
	case t.Text == "keyFile" && next.Is("=") && s.at(i+2).Kind != nixtext.Path && s.deployment:
		s.add("uploads a file that is not a path of the project")
	case t.Text == "builtins":
		ok := next.Is(".") && s.at(i+2).Kind == nixtext.Word || s.at(i-1).Is("with") && next.Is(";") || s.at(i-1).Is("(") && s.at(i-2).Is("inherit")
		s.builtinsPassed = s.builtinsPassed || !ok
		if next.Is("?") || s.at(i-2).Is("hasAttr") {
			s.add("depends on which functions Nix has")
		}
	case selectors[t.Text]:
		s.selected = true // also of builtins under another name
	}
}

// builtin takes what a built-in function or value by this name makes the file depend on.
func (s *scan) builtin(i int) {
	name := s.tokens[i].Text
	switch {
	case listers[name]:
		s.computed = true
	case positions[name]:
		s.project = true
	case volatile[name]:
		s.add("uses " + name + ", which is different at another time or place")
	}
	if s.inherited(i) {
		return // under the same name
	}
	if fetchers[name] && !s.pinned(i) {
		s.add("uses " + name + " without a hash")
	}
	if readers[name] && !s.at(i+1).Is("=") {
		s.reader(i)
	}
}

// inherited reports whether a word is a name in "inherit (builtins) name;" or an argument in "{ name, ... }:".
func (s *scan) inherited(i int) bool {
	return s.places[i].inherited || s.at(i-1).Is(",") || s.at(i+1).Is(",") || // which separate nothing else
		s.at(i-1).Is("{") && s.at(i+1).Is("}")
}

// use takes a name whose value the file uses, and whether something is added to that.
func (s *scan) use(i int) {
	if next := s.at(i + 1); next.Is("=") && !s.at(i+2).Is("=") {
		return
	}
	if s.used == nil {
		s.used = map[string]int{}
	}
	s.used[s.tokens[i].Text]++
}

// name takes the name of what a file may read.
func (s *scan) name(name string) {
	switch name {
	case "cluster", "k3splan":
		s.plan = true
	case "nodes":
		s.plan, s.nodes = true, true
	case "sources":
		s.sources = true
	}
}

// reader looks at what a function reads.
func (s *scan) reader(i int) {
	t, next := s.tokens[i], s.at(i+1)
	selectedFrom := s.at(i - 2)
	if t.Text == "path" && s.at(i-1).Is(".") && !selectedFrom.Is("builtins") {
		return // pkgs.path, config.x.path
	}
	if t.Text == "path" && !next.Is("{") && !s.at(i-1).Is(".") {
		return // an option or variable
	}
	switch {
	case next.Kind == nixtext.String && strings.HasPrefix(next.Text, "/"):
		s.add("reads " + next.Text + ", which is outside of the project")
	case next.Kind == nixtext.Path, next.Kind == nixtext.ComputedPath, next.Kind == nixtext.Lookup:
	case next.Is("sources"), next.Is("pkgs"), next.Is("nixpkgs"):
		s.nixpkgs(i)
	case next.Is("modulesPath"):
	case next.Is("("):
		inner := s.tokens[i+2 : max(i+2, s.partner(i+1))]
		anchored := len(inner) > 0 && (inner[0].Kind == nixtext.Path || inner[0].Kind == nixtext.ComputedPath || inner[0].Is("modulesPath") || inner[0].Is("sources"))
		if !anchored {
			s.computed, s.unanchoredRead = true, true
		}
		if len(inner) > 0 && (inner[0].Is("sources") || inner[0].Is("nixpkgs")) {
			s.nixpkgs(i)
		}
	case next.Is("{"):
		// builtins.path { path = ./x; }: the literal counts
		if s.pathsBefore[s.partner(i+1)] == s.pathsBefore[i+1] {
			s.computed, s.unanchoredRead = true, true
		}
	case next.Kind == nixtext.String:
		s.computed = true
		s.unanchoredRead = s.unanchoredRead || next.Text != ""
	default:
		s.computed, s.unanchoredRead = true, true
	}
}

// nixpkgs looks at an import of nixpkgs, which reads the environment for what it is not given.
func (s *scan) nixpkgs(i int) {
	last := i + 1
	if s.at(last).Is("(") {
		last = s.partner(last)
	}
	for s.at(last+1).Is(".") && s.at(last+2).Kind == nixtext.Word {
		last += 2
	}
	if !s.tokens[i].Is("import") || s.at(last).Is("disko") || s.at(i+1).Is("pkgs") && !s.at(last).Is("path") {
		return
	}
	var given []string
	if s.at(last + 1).Is("{") {
		for _, at := range s.attributes(last + 1) {
			given = append(given, s.tokens[at].Text)
		}
	}
	platform := slices.ContainsFunc(given, func(name string) bool { return name == "system" || name == "localSystem" })
	if !platform || !s.at(i+1).Is("(") && (!slices.Contains(given, "config") || !slices.Contains(given, "overlays")) {
		s.add("imports nixpkgs without system, config and overlays, which it then takes from the environment")
	}
}

// attributes returns the indices of the names in the attribute set whose brace is at open: those that are
// bound to a value or inherited, and the first of each a.b.c.
func (s *scan) attributes(open int) (names []int) {
	for i := open + 1; i < s.places[open].partner; i++ {
		switch {
		case s.places[i].partner > i:
			i = s.places[i].partner
		case s.tokens[i].Kind == nixtext.Word && (s.at(i+1).Is("=") || s.at(i+1).Is(".") || s.inherited(i)):
			names = append(names, i)
		}
	}
	return names
}

var (
	hexadecimal = regexp.MustCompile(`^[0-9a-f]+$`)
	commit      = regexp.MustCompile(`\b[0-9a-f]{40}\b`)
)

// pinned reports whether the argument of the fetcher at i is an attribute set in which a hash or commit is
// written out.
func (s *scan) pinned(i int) bool {
	if s.at(i-1).Is(".") && s.at(i-2).Is("pkgs") && !s.at(i-3).Is(".") && !s.ownPkgs {
		return true // a derivation, which Nix builds only with a hash
	}
	if s.at(i + 1).Is("=") {
		return true // an attribute or variable of that name
	}
	if s.tokens[i].Text == "getFlake" {
		return s.at(i+1).Whole() && commit.MatchString(s.at(i+1).Text)
	}
	open := i + 1
	if s.at(open).Is("rec") {
		open++
	}
	if !s.at(open).Is("{") {
		return false
	}
	for _, at := range s.attributes(open) {
		if !s.at(at+1).Is("=") || !s.at(at+2).Whole() || !s.at(at+3).Is(";") || s.at(at-1).Is(".") {
			continue
		}
		value := s.at(at + 2).Text
		switch name := s.tokens[at].Text; name {
		case "sha256", "hash", "narHash", "outputHash", "sha512":
			return value != ""
		case "rev":
			if s.tokens[i].Is("fetchGit") && hexadecimal.MatchString(value) || commit.MatchString(value) {
				return true
			}
		}
	}
	return false
}

// unanchored takes what only the whole file shows.
func (s *scan) unanchored() {
	if s.unanchoredRead && s.absolute != "" {
		s.add("may read " + s.absolute + ", which is outside of the project")
		s.absolutes = nil
	}
	if s.builtinsPassed && s.selected {
		s.add("uses builtins by a computed name")
	}
}

// looksLikeNix reports whether a file whose name does not end in .nix may be Nix code that refers to
// something: it begins like an expression, and its brackets match.
func looksLikeNix(text string) bool {
	s := newScan(text)
	for i, t := range s.tokens {
		if t.Kind == nixtext.Punctuation && strings.Contains("()[]{}", t.Text) && s.places[i].partner < 0 {
			return false
		}
	}
	first, second := s.at(0), s.at(1)
	switch {
	case first.Is("{"):
		return second.Kind != nixtext.String || !s.at(2).Is(":") // JSON
	case first.Is("let"), first.Is("with"), first.Is("rec"), first.Is("assert"), first.Is("import"), first.Is("("):
		return true
	case first.Kind == nixtext.Word && (second.Is(":") || second.Is("@")):
		third := s.at(2)
		return third.Is("{") || third.Is("let") || third.Is("with") || third.Is("import") || third.Is("rec")
	}
	return first.Is("builtins") || first.Kind == nixtext.Path
}
