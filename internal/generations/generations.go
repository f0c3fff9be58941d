// Package generations knows the generations of a host's system profile: what each contains, which runs, which
// boots next, and which of them were deployed.
package generations

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"k3splan/internal/diag"
	"k3splan/internal/remote"
)

//go:embed script.sh
var script string

// Container is the k3s server or agent in a generation; the zero value if it has none.
type Container struct {
	Name string
	// K3s is its version, "1.31.14+k3s1", or "" if that cannot be found out.
	K3s string
	// Address is the server's IPv4 address, or "".
	Address string
}

// Generation is one of a host.
type Generation struct {
	Number int
	// Time is when it was made, by the host's clock.
	Time time.Time
	// System is its store path, and Kernel that of its kernel.
	System, Kernel string
	// NixOS is its version.
	NixOS         string
	Server, Agent Container
	// Boots are the parts of it that cannot be activated in the running system, so that it has to be booted.
	Boots []string
	// Receipt is when its deployment ended well, by the clock of the machine that deployed; zero if it did not,
	// or before receipts were kept.
	Receipt time.Time
}

// String names it in messages: "generation 12 of 2026-11-30 17:05".
func (g Generation) String() string {
	return fmt.Sprintf("generation %d of %s", g.Number, g.Time.Local().Format("2006-01-02 15:04"))
}

// Versions returns what it contains, in words: "NixOS 24.11.7, server k3s 1.31.14+k3s1".
func (g Generation) Versions() string {
	words := []string{"NixOS " + orUnknown(g.NixOS)}
	if g.Server.Name != "" {
		words = append(words, "server k3s "+orUnknown(g.Server.K3s))
	}
	if g.Agent.Name != "" {
		words = append(words, "agent k3s "+orUnknown(g.Agent.K3s))
	}
	return strings.Join(words, ", ")
}

func orUnknown(version string) string {
	if version == "" {
		return "(unknown)"
	}
	return version
}

// Host is what a host says about its generations.
type Host struct {
	// All are sorted by number. A generation whose system is not in the store any more is not among them.
	All []Generation
	// Runs and Booted are store paths.
	Runs, Booted string
	// Profile is the number of the generation that the profile names, and Loader that of the one that
	// systemd-boot starts; 0 is unknown.
	Profile, Loader int
	// Deployed is the store path in the host's receipt, or "".
	Deployed string
}

// Of asks a host.
func Of(ctx context.Context, machine remote.Machine) (Host, error) {
	out, err := machine.Script(ctx, script)
	if err != nil {
		return Host{}, diag.WithHint(errors.New(remote.Reason(err)), diag.HintOf(err))
	}
	return parse(out)
}

// parse reads what the script prints.
func parse(out string) (Host, error) {
	var h Host
	var g *Generation
	whole := false
	lines := bufio.NewScanner(strings.NewReader(out))
	lines.Buffer(nil, remote.DefaultLimit)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), " ")
		words := strings.Fields(value)
		switch {
		case key == "runs":
			h.Runs = value
		case key == "booted":
			h.Booted = value
		case key == "profile":
			h.Profile, _ = strconv.Atoi(value)
		case key == "loader":
			h.Loader, _ = strconv.Atoi(value)
		case key == "deployed":
			h.Deployed = value
		case key == "generation":
			made, err := parseGeneration(words)
			if err != nil {
				return Host{}, err
			}
			h.All = append(h.All, made)
			g = &h.All[len(h.All)-1]
		case key == "end":
			whole = true
		case g == nil:
		case key == "nixos":
			g.NixOS = value
		case key == "kernel":
			g.Kernel = value
		case key == "boot":
			g.Boots = append(g.Boots, value)
		case key == "receipt":
			g.Receipt, _ = time.Parse(time.RFC3339, value)
		case key == "server" && len(words) == 3:
			g.Server = Container{Name: words[0], K3s: known(words[1]), Address: known(words[2])}
		case key == "agent" && len(words) == 2:
			g.Agent = Container{Name: words[0], K3s: known(words[1])}
		}
	}
	if !whole {
		return Host{}, errors.New("incomplete response")
	}
	slices.SortFunc(h.All, func(a, b Generation) int { return a.Number - b.Number })
	return h, nil
}

func parseGeneration(words []string) (Generation, error) {
	if len(words) != 3 {
		return Generation{}, fmt.Errorf("cannot read the host's generations: %q", strings.Join(words, " "))
	}
	number, err := strconv.Atoi(words[0])
	seconds, timeErr := strconv.ParseInt(words[1], 10, 64)
	if err := errors.Join(err, timeErr); err != nil {
		return Generation{}, fmt.Errorf("cannot read the host's generations: %w", err)
	}
	return Generation{Number: number, Time: time.Unix(seconds, 0), System: words[2]}, nil
}

func known(word string) string {
	if word == "-" {
		return ""
	}
	return word
}

// Number returns a generation, or nil if the host does not have it.
func (h Host) Number(number int) *Generation {
	for i := range h.All {
		if h.All[i].Number == number {
			return &h.All[i]
		}
	}
	return nil
}

// With returns the newest generation of a system, or nil. Several can have the same one; the profile's comes
// first.
func (h Host) With(system string) *Generation {
	if g := h.Number(h.Profile); g != nil && g.System == system {
		return g
	}
	for _, g := range slices.Backward(h.All) {
		if g.System == system {
			return h.Number(g.Number)
		}
	}
	return nil
}

// BootsNext is the number of the generation that the host boots next, as far as that is known, or 0.
func (h Host) BootsNext() int {
	if h.Loader != 0 {
		return h.Loader
	}
	return h.Profile
}

// Named returns the generation with a number; the error says which the host has.
func (h Host) Named(number int) (Generation, error) {
	if g := h.Number(number); g != nil {
		return *g, nil
	}
	var numbers []string
	for _, g := range h.All {
		numbers = append(numbers, strconv.Itoa(g.Number))
	}
	if len(numbers) == 0 {
		return Generation{}, errors.New("it has no generation at all")
	}
	return Generation{}, fmt.Errorf("it has no generation %d, only %s (garbage collection removes old ones)", number, strings.Join(numbers, " "))
}

// Previous returns the generation to go back to where none is named: the last one that was deployed before
// the one that is deployed now. After a deployment that did not end well it is the one that is deployed
// itself: that of the receipt.
func (h Host) Previous() (Generation, error) {
	deployed := h.With(h.Deployed)
	if deployed == nil {
		return Generation{}, errors.New("the generation that was deployed last was removed, so which one was before it is unknown")
	}
	if profile := h.Number(h.Profile); h.Runs != h.Deployed || profile == nil || profile.System != h.Deployed {
		return *deployed, nil
	}
	var found *Generation
	for i := range h.All {
		g := &h.All[i]
		if g.Number >= deployed.Number || g.System == deployed.System {
			continue
		}
		// one that never passed its gates only if there is no other
		if found == nil || !g.Receipt.IsZero() || found.Receipt.IsZero() {
			found = g
		}
	}
	if found == nil {
		return Generation{}, fmt.Errorf("there is no generation before %d, which is deployed", deployed.Number)
	}
	return *found, nil
}
