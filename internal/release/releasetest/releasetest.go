// Package releasetest makes tests independent of the day on which they run: importing it sets the clock by which
// the support of releases ends, for the test and for the programs that it starts.
package releasetest

import "os"

// Epoch is 2026-12-01, when NixOS 26.05 is the newest release.
const Epoch = "1796083200"

func init() {
	if err := os.Setenv("SOURCE_DATE_EPOCH", Epoch); err != nil {
		panic(err)
	}
}
