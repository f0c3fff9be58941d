package diff

import (
	"fmt"
	"slices"
	"strings"

	"k3splan/internal/text"
)

// Markdown returns the changes as a section of a pull request, the greatest risk first.
func (cs Changes) Markdown() string {
	if len(cs) == 0 {
		return "### The plan has not changed\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "### %s of the plan\n\n| Risk | Change | Hosts |\n|---|---|---|\n", text.Count(len(cs), "change"))
	var hints []string
	for i := len(risks) - 1; i >= 0; i-- {
		for _, change := range cs.With(risks[i]) {
			risk := string(change.Risk)
			if change.Risk.Compare(Ask) >= 0 {
				risk = "**" + risk + "**"
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", risk, escapeMarkdown(change.Sentence), escapeMarkdown(strings.Join(change.Hosts, ", ")))
			if change.Hint != "" {
				hint := fmt.Sprintf("- %s: %s\n", escapeMarkdown(change.Name), strings.ReplaceAll(escapeMarkdown(change.Hint), "\n", "\\\n  "))
				if !slices.Contains(hints, hint) {
					hints = append(hints, hint)
				}
			}
		}
	}
	if len(hints) > 0 {
		b.WriteString("\nAlso needed:\n\n" + strings.Join(hints, ""))
	}
	return b.String()
}

// escapeMarkdown returns a text that Markdown shows as it is.
func escapeMarkdown(plain string) string {
	var b strings.Builder
	for _, r := range plain {
		if strings.ContainsRune("\\`*_[]<>|~#&@!", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}
