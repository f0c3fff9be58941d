#!/usr/bin/env bash
# Man pages by github.com/spf13/cobra/doc v1.10.2 (go-md2man v2.0.6) from a help text with a table in it.
#
# Guess:     a help text that is fine on a terminal is fine in the man page that cobra makes of it.
# Behaviour: it is read as Markdown: "<text in angle brackets>" is lost, indented lines are filled into one paragraph,
#            and mandoc -Tlint reports the tabs before flags. A flag is shown with its default, not with the name of
#            its value (`N` in its usage).
# Seen:      "  restart  the hosts of  restart"; "--parallel=4"; mandoc: WARNING: tab in filled text
# Needs go, mandoc and a Go module proxy. Fails if the behaviour changes.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
cd "$work"
go version
cat > go.mod <<'END'
module example.org/page

go 1.24

require github.com/spf13/cobra v1.10.2
END
cat > main.go <<'END'
package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func main() {
	command := &cobra.Command{Use: "rack", Short: "Run a rack", Run: func(*cobra.Command, []string) {},
		Long: "Deploys:\n\n  none     nothing happens\n  restart  the hosts of <nixpkgs> restart"}
	command.Flags().Int("parallel", 4, "at most `N` hosts at once")
	if err := doc.GenManTree(command, &doc.GenManHeader{Title: "RACK", Section: "1"}, "."); err != nil {
		panic(err)
	}
}
END
go mod tidy 2> /dev/null
go run .
cat rack.1
! grep -q nixpkgs rack.1
grep -q '^none     nothing happens$' rack.1 && ! grep -q '^.nf' rack.1
grep -q -- '--parallel\\fP=4' rack.1
{ mandoc -Tlint rack.1 || true; } | grep 'tab in filled text'
