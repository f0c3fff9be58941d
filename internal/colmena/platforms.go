package colmena

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"

	"k3splan/internal/run"
)

// Platforms are those for which Nix builds ("x86_64-linux"): the machine's own first, then those of
// emulation and remote builders, as far as Nix reports them. The error is a *MissingError without Nix.
func Platforms(ctx context.Context) ([]string, error) {
	own, err := run.Output(ctx, run.Command{Program: "nix-instantiate", Args: []string{"--eval", "-E", "builtins.currentSystem"}})
	if err != nil {
		return nil, err
	}
	return append([]string{strings.Trim(strings.TrimSpace(own), `"`)}, foreignPlatforms(ctx)...), nil
}

// foreignPlatforms are the platforms for which Nix builds beside the machine's own, by emulation or
// on other machines.
func foreignPlatforms(ctx context.Context) []string {
	type setting struct{ Value json.RawMessage }
	var settings map[string]setting
	for _, ask := range [][]string{{"config", "show", "--json"}, {"show-config", "--json"}} {
		out, err := run.Output(ctx, run.Command{Program: "nix",
			Args: append([]string{"--extra-experimental-features", "nix-command"}, ask...), Stderr: io.Discard})
		if err == nil && json.Unmarshal([]byte(out), &settings) == nil {
			break
		}
	}
	var platforms []string
	_ = json.Unmarshal(settings["extra-platforms"].Value, &platforms) // none of them, if it is not there
	var builders string
	_ = json.Unmarshal(settings["builders"].Value, &builders)
	for _, line := range strings.FieldsFunc(builders, func(c rune) bool { return c == '\n' || c == ';' }) {
		line = strings.TrimSpace(line)
		if file, found := strings.CutPrefix(line, "@"); found {
			text, err := os.ReadFile(file)
			if err != nil {
				continue
			}
			line = string(text)
		}
		for machine := range strings.Lines(line) {
			// STORE PLATFORM,PLATFORM …
			if words := strings.Fields(machine); len(words) > 1 && !strings.HasPrefix(words[0], "#") {
				platforms = append(platforms, strings.Split(words[1], ",")...)
			}
		}
	}
	slices.Sort(platforms)
	return slices.Compact(platforms)
}
