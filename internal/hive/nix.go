package hive

import (
	"path"
	"strings"
)

// nixEscapes are the characters that mean something inside a Nix string. Every dollar sign is
// escaped, so that neither ${ nor $${ can begin an interpolation.
var nixEscapes = strings.NewReplacer(
	`\`, `\\`,
	`"`, `\"`,
	`$`, `\$`,
	"\n", `\n`,
	"\r", `\r`,
	"\t", `\t`,
)

// NixString returns text as a Nix string literal that evaluates to the same text. Nix strings cannot
// hold a null byte, so neither can text.
func NixString(text string) string { return `"` + nixEscapes.Replace(text) + `"` }

// NixPath returns a file of the project as a Nix path expression for the files of generated/hosts,
// wherever the project is. A path literal could not contain blanks.
func NixPath(file string) string { return nixPath(Dir, file) }

// nixPath is NixPath for the folder hosts in another folder of the project than generated.
func nixPath(dir, file string) string {
	up := strings.Repeat("../", strings.Count(path.Clean(dir), "/")+1) + ".."
	return "(" + up + " + " + NixString("/"+path.Clean(file)) + ")"
}
