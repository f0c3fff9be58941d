package diag

import (
	"fmt"
	"slices"

	"github.com/agnivade/levenshtein"
)

// Nearest returns the candidate that name is most likely a typo of, or "" if none is near: one
// wrong, missing or surplus letter in a short name, two in a longer one, or two letters swapped.
// Of equally near candidates it returns the first in alphabetical order.
func Nearest(name string, candidates []string) string {
	best, bestDistance := "", 0
	for _, candidate := range candidates {
		if !near(name, candidate) {
			continue
		}
		distance := levenshtein.ComputeDistance(name, candidate)
		if best == "" || distance < bestDistance || distance == bestDistance && candidate < best {
			best, bestDistance = candidate, distance
		}
	}
	return best
}

func near(a, b string) bool {
	// names are ASCII: other letters count by the byte
	shorter := min(len(a), len(b))
	// the lengths alone decide for most pairs: this keeps thousands of candidates cheap
	if a == b || shorter < 3 || max(len(a), len(b))-shorter > 2 {
		return false
	}
	switch distance := levenshtein.ComputeDistance(a, b); distance {
	case 1:
		return true
	case 2:
		return shorter > 4 || sameLetters(a, b)
	default:
		return false
	}
}

func sameLetters(a, b string) bool {
	x, y := []byte(a), []byte(b)
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// DidYouMean returns the hint for an unknown name, or "" if nothing is near.
func DidYouMean(name string, candidates []string) string {
	if nearest := Nearest(name, candidates); nearest != "" {
		return fmt.Sprintf("did you mean %q?", nearest)
	}
	return ""
}
