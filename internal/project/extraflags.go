package project

import (
	"regexp"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
)

var (
	// extraFlags matches a value of services.k3s.extraFlags in Nix text.
	extraFlags = regexp.MustCompile(`\bextraFlags\s*=([^;]*);`)
	nixComment = regexp.MustCompile(`(?m)(?:^|\s)#.*$`)
	// k3sFlag matches a flag at the beginning of a string or of a word in it.
	k3sFlag = regexp.MustCompile(`(?:["'\s])--([A-Za-z][A-Za-z0-9-]*)`)
)

// checkExtraFlags looks for flags in the Nix text of a server container's snippet with which k3s would not
// start, or which contradict the plan. What the text computes is left to k3s.
func checkExtraFlags(file, text string, p *plan.Plan) (problems diag.Problems) {
	text = nixComment.ReplaceAllStringFunc(text, func(comment string) string { return strings.Repeat(" ", len(comment)) })
	if !strings.Contains(text, "k3s") {
		return nil
	}
	for _, value := range extraFlags.FindAllStringSubmatchIndex(text, -1) {
		for _, flag := range k3sFlag.FindAllStringSubmatchIndex(text[value[2]:value[3]], -1) {
			begin := value[2] + flag[2]
			name := text[begin : value[2]+flag[3]]
			wrong := checkOption(serverRole, name, p)
			if wrong == nil {
				continue
			}
			wrong.File, wrong.Line, wrong.Column = file, 1+strings.Count(text[:begin], "\n"), "extraFlags"
			wrong.Value = "--" + name
			if strings.HasPrefix(wrong.Code, "k3s-option-unknown") || wrong.Code == "k3s-option-removed" {
				// k3s skips unknown options of the configuration file, but not of the command line
				wrong.Message = strings.NewReplacer(", and skips it", ": it would not start", ", which newer ones skip", ": newer ones would not start",
					", and k3s server skips it", ": it would not start", "; before, it skips it", "; before, it does not start").Replace(wrong.Message)
			}
			problems = append(problems, *wrong)
		}
	}
	return problems
}
