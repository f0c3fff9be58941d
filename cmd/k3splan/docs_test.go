package main

import (
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var root = filepath.Join("..", "..")

// documents returns the README, the developers' guide and the reference, by name.
func documents(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "secrets.example/*.md", "plans/*.md"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		require.NoError(t, err)
		for _, name := range names {
			content, err := os.ReadFile(name)
			require.NoError(t, err)
			texts[filepath.ToSlash(strings.TrimPrefix(name, root+string(filepath.Separator)))] = string(content)
		}
	}
	require.Contains(t, texts, "README.md")
	require.Contains(t, texts, "CONTRIBUTING.md")
	require.Contains(t, texts, "docs/json.md")
	return texts
}

// The README has every command, and the documents call none that does not exist.
func TestReadme(t *testing.T) {
	texts := documents(t)
	for _, command := range commands() {
		if command.Parent() != nil && !command.Parent().HasParent() && command.Name() != "help" {
			require.Regexp(t, "(?m)^\\| .*`"+regexp.QuoteMeta(command.Name())+"\\b.*\\|", texts["README.md"])
		}
	}
	calls := 0
	inBlock := regexp.MustCompile(`(?m)^(?:\$ |sudo )?(k3splan [a-z].*)$`)
	inline := regexp.MustCompile("`(k3splan [a-z][^`]*)`")
	for name, text := range texts {
		for i, part := range strings.Split(text, "```") {
			pattern := inline
			if i%2 == 1 {
				pattern = inBlock
			}
			for _, call := range pattern.FindAllStringSubmatch(part, -1) {
				if !strings.Contains(call[1], "--help") && !strings.Contains(call[1], "COMMAND") {
					t.Run(name+" "+call[1], func(t *testing.T) { requireReadable(t, call[1]) })
					calls++
				}
			}
		}
	}
	require.Greater(t, calls, 40)
}

// Links in the documents lead to files that exist.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)|(?:src|srcset)="([^":]+)"`)
	for name, text := range documents(t) {
		for _, found := range link.FindAllStringSubmatch(text, -1) {
			target := filepath.Join(root, filepath.Dir(name), cmp.Or(found[1], found[2]))
			_, err := os.Stat(target)
			require.NoError(t, err, "%s links to %s", name, cmp.Or(found[1], found[2]))
		}
	}
}

// A blank line ends a table: the rows after it would be shown as text. Two lines begin a table, the second one of
// hyphens.
func TestTablesInDocuments(t *testing.T) {
	rule := regexp.MustCompile(`^\|[ :|-]+\|$`)
	for name, text := range documents(t) {
		lines := append(strings.Split(text, "\n"), "", "")
		code := false
		for i, line := range lines {
			if strings.HasPrefix(line, "```") {
				code = !code
			}
			if !code && strings.HasPrefix(line, "|") && (i == 0 || !strings.HasPrefix(lines[i-1], "|")) {
				require.Regexp(t, rule, lines[i+1], "%s:%d", name, i+1)
			}
		}
	}
}

// The map in CONTRIBUTING.md contains every package.
func TestMap(t *testing.T) {
	text := documents(t)["CONTRIBUTING.md"]
	folders, err := filepath.Glob(filepath.Join(root, "internal", "*", "*.go"))
	require.NoError(t, err)
	require.NotEmpty(t, folders)
	for _, file := range folders {
		require.Contains(t, text, "`internal/"+filepath.Base(filepath.Dir(file))+"`")
	}
}

// The pictures in the README are those of the example, as the program draws it today.
func TestPictures(t *testing.T) {
	for _, theme := range []string{"light", "dark"} {
		show := exec.Command("k3splan", "-p", filepath.Join(root, "examples", "rack"), "show", "--format", "svg", "--theme", theme)
		drawn, err := show.Output()
		require.NoError(t, err)
		file := filepath.Join("docs", "rack-"+theme+".svg")
		kept, err := os.ReadFile(filepath.Join(root, file))
		require.NoError(t, err)
		require.True(t, string(kept) == string(drawn), "%s is out of date: k3splan -p examples/rack show --format svg --theme %s > %s", file, theme, file)
	}
}

// docs/json.md has the shape of everything that --json prints.
func TestJSONReference(t *testing.T) {
	squeeze := func(text string) string { return strings.Join(strings.Fields(text), "") }
	blocks := map[string]bool{}
	for i, part := range strings.Split(documents(t)["docs/json.md"], "```") {
		if i%2 == 1 {
			blocks[squeeze(part)] = true
		}
	}
	used := map[string]bool{}
	for _, command := range commands() {
		flag := command.Flags().Lookup("json")
		if flag == nil {
			continue
		}
		require.NotEmpty(t, flag.Annotations[shapeAnnotation], command.CommandPath())
		for _, shape := range flag.Annotations[shapeAnnotation] {
			require.Contains(t, blocks, squeeze(shape), "%s --json prints\n%s", command.CommandPath(), shape)
			used[squeeze(shape)] = true
			require.NotRegexp(t, `[a-z][A-Z]`, shape, "keys are in snake_case")
		}
	}
	for block := range blocks {
		require.Contains(t, used, block, "nothing prints this")
	}
}

// codeWords end the codes of problems.
var codeWords = regexp.MustCompile(`^[a-z0-9]+(?:-[a-z0-9]+)*-(?:conflict|containers|cycle|duplicate|empty|encrypted|ended|even|formula|git|ignored|invalid|length|locked|merged|missing|number|object|options|orphan|outside-subnet|overlap|owner|plain|readable|refused|removed|reserved|self|stale|store|suspicious|syntax|unknown|unlisted|unnamed|unread|unreadable|weak|wireless)$|^manifest-secret$|^secret-in-file$`)

// notCodes are other words of that form.
var notCodes = []string{"nix-store", "k3-unknown"}

// docs/problems.md has every code of a problem.
func TestProblemCodes(t *testing.T) {
	codes := map[string]bool{}
	require.NoError(t, filepath.WalkDir(filepath.Join(root, "internal"), func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(node ast.Node) bool {
			if literal, ok := node.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				text, _ := strconv.Unquote(literal.Value)
				if codeWords.MatchString(text) && !slices.Contains(notCodes, text) {
					codes[text] = true
				}
			}
			return true
		})
		return nil
	}))
	// the objections of deploy, and what evaluation finds about an installation
	for pattern, file := range map[string]string{`\{"([a-z0-9-]+)", diag\.`: "internal/rollout/judge.go", `Code: "([a-z-]+)"`: "internal/rollout/alone.go",
		`report\(diag\.[A-Z][a-z]+, "([a-z-]+)"`: "internal/rollout/leave.go", `w\.object\(diag\.[A-Z][a-z]+, "([a-z-]+)"`: "internal/lifecycle/*.go",
		`(?:layoutProblem|problem) "([a-z-]+)"`: "templates/modules/installation.nix"} {
		names, err := filepath.Glob(filepath.Join(root, file))
		require.NoError(t, err)
		var text []byte
		for _, name := range names {
			content, err := os.ReadFile(name)
			require.NoError(t, err)
			text = append(text, content...)
		}
		found := regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1)
		require.NotEmpty(t, found, file)
		for _, code := range found {
			codes[code[1]] = true
		}
	}
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9-]+)` \\|").FindAllStringSubmatch(documents(t)["docs/problems.md"], -1) {
		documented[row[1]] = true
	}
	var missing, surplus []string
	for code := range codes {
		if !documented[code] {
			missing = append(missing, code)
		}
	}
	for code := range documented {
		if !codes[code] {
			surplus = append(surplus, code)
		}
	}
	slices.Sort(missing)
	slices.Sort(surplus)
	require.Empty(t, missing, "not in docs/problems.md")
	require.Empty(t, surplus, "in docs/problems.md, but in no code")
}
