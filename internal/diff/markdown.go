package diff

import (
	"fmt"
	"slices"
	"strings"
)

// Markdown gives the changes as a section for a pull request, the greatest risk first.
func (cs Changes) Markdown() string {
	if len(cs) == 0 {
		return "### The tables mean the same as before\n"
	}
	var b strings.Builder
	number := fmt.Sprintf("%d changes", len(cs))
	if len(cs) == 1 {
		number = "1 change"
	}
	fmt.Fprintf(&b, "### %s of the plan\n\n| Risk | Change | Hosts |\n|---|---|---|\n", number)
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
		b.WriteString("\nTo be done besides:\n\n" + strings.Join(hints, ""))
	}
	return b.String()
}

// escapeMarkdown keeps a text from being taken for anything but text.
func escapeMarkdown(text string) string {
	var b strings.Builder
	for _, r := range text {
		if strings.ContainsRune("\\`*_[]<>|~#&@!", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}
