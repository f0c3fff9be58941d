// Package systemdiff compares two systems of NixOS: the packages in their closures, and what an activation would
// do to units.
package systemdiff

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// ClosureScript is a POSIX shell script that prints the closure of the store path "$1", for [ParseClosure]. The order of
// the sizes is that of the paths.
const ClosureScript = `
paths=$(nix-store --query --requisites "$1") || exit 1
printf '%s\n' "$paths"
echo sizes
printf '%s\n' "$paths" | xargs nix-store --query --size
`

// Path is a store path with the size of what it holds, in bytes, without what it refers to.
type Path struct {
	Path string
	Size int64
}

// ParseClosure reads what ClosureScript prints.
func ParseClosure(out string) (closure []Path, err error) {
	names, sizes, whole := strings.Cut(strings.TrimSpace(out), "\nsizes\n")
	paths, numbers := strings.Fields(names), strings.Fields(sizes)
	if !whole || len(paths) != len(numbers) {
		return nil, fmt.Errorf("incomplete list of a closure: %d paths, %d sizes", len(paths), len(numbers))
	}
	for i, p := range paths {
		size, err := strconv.ParseInt(numbers[i], 10, 64)
		if err != nil || size < 0 || !path.IsAbs(p) {
			return nil, fmt.Errorf("a closure has the path %q of the size %q", p, numbers[i])
		}
		closure = append(closure, Path{p, size})
	}
	return closure, nil
}

// Package is a package that differs between two closures. There may be several versions of one in each.
type Package struct {
	Name string `json:"name"`
	// Before and After are its versions, sorted; one that is not in the store path is "". They are empty if the
	// closure lacks it, and equal if it was only rebuilt.
	Before []string `json:"before"`
	After  []string `json:"after"`
	// Bytes is by how much it is larger afterwards.
	Bytes int64 `json:"bytes"`
}

// String is the package in words: "k3s 1.35.1 → 1.35.2, +1.2 MiB".
func (p Package) String() string {
	words := p.Name
	switch before, after := versions(p.Before), versions(p.After); {
	case len(p.Before) == 0:
		words = strings.TrimSpace("new: " + p.Name + " " + after)
	case len(p.After) == 0:
		words = strings.TrimSpace("removed: " + p.Name + " " + before)
	case before != after:
		words += " " + before + " → " + after
	}
	if max(p.Bytes, -p.Bytes) >= small {
		words += ", " + Size(p.Bytes)
	}
	return words
}

// IsVersion reports whether the package came, went or has another version.
func (p Package) IsVersion() bool { return !slices.Equal(p.Before, p.After) }

func versions(all []string) string {
	words := slices.Clone(all)
	for i, word := range words {
		if word == "" {
			words[i] = "(no version)"
		}
	}
	if len(words) == 1 && words[0] == "(no version)" {
		return ""
	}
	return strings.Join(words, " ")
}

// Size is a change of a size in words, "+1.2 MiB".
func Size(bytes int64) string {
	size := float64(bytes)
	for _, unit := range []string{"B", "KiB", "MiB"} {
		if max(size, -size) < 1024 {
			if unit == "B" {
				return fmt.Sprintf("%+.0f B", size)
			}
			return fmt.Sprintf("%+.1f %s", size, unit)
		}
		size /= 1024
	}
	return fmt.Sprintf("%+.1f GiB", size)
}

// small is below which size a package that was rebuilt is not worth mentioning, in bytes.
const small = 64 << 10

// Compare returns the packages in which two closures differ, those with other versions first, and by how many bytes the
// second one is larger. A package that was only rebuilt is one of them if its size has changed by more than that
// of a few texts.
func Compare(before, after []Path) (packages []Package, bytes int64) {
	found := map[string]*Package{}
	of := func(p Path) (*Package, string) {
		name, version := split(p.Path)
		if found[name] == nil {
			found[name] = &Package{Name: name, Before: []string{}, After: []string{}}
		}
		return found[name], version
	}
	for _, p := range before {
		pkg, version := of(p)
		pkg.Before, pkg.Bytes = append(pkg.Before, version), pkg.Bytes-p.Size
		bytes -= p.Size
	}
	for _, p := range after {
		pkg, version := of(p)
		pkg.After, pkg.Bytes = append(pkg.After, version), pkg.Bytes+p.Size
		bytes += p.Size
	}
	for _, later := range []bool{false, true} {
		for _, name := range slices.Sorted(maps.Keys(found)) {
			p := found[name]
			p.Before, p.After = distinct(p.Before), distinct(p.After)
			hasVersion := slices.ContainsFunc(append(slices.Clone(p.Before), p.After...), func(v string) bool { return v != "" })
			differs := p.IsVersion() && hasVersion
			if !differs && max(p.Bytes, -p.Bytes) < small || differs == later {
				continue
			}
			packages = append(packages, *p)
		}
	}
	return packages, bytes
}

func distinct(versions []string) []string {
	slices.Sort(versions)
	return slices.Compact(versions)
}

// outputs are what nixpkgs calls the parts of a package that have store paths of their own.
var outputs = []string{"bin", "dev", "doc", "info", "lib", "man", "data", "debug", "out", "modules", "kmod"}

// split returns the name and the version in a store path, as Nix itself does: the version begins after
// the first dash that no letter follows (builtins.parseDrvName).
func split(store string) (name, version string) {
	name = path.Base(store)
	if len(name) > 33 && name[32] == '-' {
		name = name[33:]
	}
	for i := 0; i+1 < len(name); i++ {
		if c := name[i+1] | 0x20; name[i] == '-' && (c < 'a' || c > 'z') {
			name, version = name[:i], name[i+1:]
			break
		}
	}
	for _, output := range outputs {
		if rest, ok := strings.CutSuffix(version, "-"+output); ok {
			return name, rest
		}
	}
	return name, version
}
