// Package release knows the releases of NixOS that k3splan works with, the minor versions of k3s that each
// of them has, and what is different in each. What k3splan says about releases, in problems, hints and the
// README, comes from this table. It contacts nothing: a k3splan that is older than a release does not know it.
package release

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Stage1 is what runs before the root file system is mounted.
type Stage1 string

const (
	Scripted Stage1 = "scripted" // shell scripts of NixOS
	Systemd  Stage1 = "systemd"
)

// NixOS is a release of NixOS.
type NixOS struct {
	// Name is "25.11".
	Name string
	// Released is the zero Time if this k3splan is older than the release.
	Released time.Time
	// Ends is the last day with security updates. Expected means that it follows from NixOS's schedule (the
	// end of the month after the next release) and was not announced.
	Ends     time.Time
	Expected bool
	// K3s are its minor versions of k3s, oldest first. The last is the one for new projects.
	K3s []string
	// Nix is the oldest version that evaluates it (lib/minver.nix, from 25.11 on lib/minfeatures.nix).
	Nix string
	// ISOStage1 is the stage 1 of its installer image. Systemd's has no root=LABEL= on the command line.
	ISOStage1 Stage1
	// DBus is the default implementation of D-Bus, "dbus" or "broker". It cannot change in a running system.
	DBus string
	// Notes are what else is different from the release before, for people.
	Notes []string
}

// K3s is a minor version of k3s.
type K3s struct {
	// Minor is "1.31".
	Minor string
	// Ends is the last day on which Kubernetes supports it; k3s follows Kubernetes.
	Ends time.Time
	// Leave is the patch release ("1.33.7+k3s3") that has to run on all servers before the next minor
	// version does; "" if any will do.
	Leave string
}

func day(year int, month time.Month, day int) time.Time {
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

// releases, oldest first. Dates of NixOS: https://endoflife.date/nixos and the announcements at
// https://nixos.org/blog/announcements.html. k3s: pkgs/applications/networking/cluster/k3s and
// pkgs/top-level/aliases.nix of nixpkgs, which say since when a version was removed.
var releases = []NixOS{
	{
		Name: "24.11", Released: day(2024, time.November, 30), Ends: day(2025, time.June, 30),
		K3s: []string{"1.28", "1.29", "1.30", "1.31"},
		Nix: "2.3.17", ISOStage1: Scripted, DBus: "dbus",
	},
	{
		Name: "25.05", Released: day(2025, time.May, 23), Ends: day(2025, time.December, 31),
		K3s: []string{"1.30", "1.31", "1.32"},
		Nix: "2.3.17", ISOStage1: Scripted, DBus: "dbus",
		Notes: []string{"multi-user.target no longer waits for network-online.target"},
	},
	{
		Name: "25.11", Released: day(2025, time.November, 30), Ends: day(2026, time.June, 30),
		K3s: []string{"1.31", "1.32", "1.33", "1.34"},
		Nix: "2.18", ISOStage1: Scripted, DBus: "dbus",
		Notes: []string{"the minimal installer image starts NetworkManager"}, // nixpkgs#421082
	},
	{
		Name: "26.05", Released: day(2026, time.May, 30), Ends: day(2026, time.December, 31), Expected: true,
		K3s: []string{"1.34", "1.35"},
		Nix: "2.18", ISOStage1: Systemd, DBus: "broker",
		Notes: []string{ // nixpkgs#512050, nixpkgs#473282
			"the running system cannot change from dbus-daemon to dbus-broker: reboot",
			"switch inhibitors refuse to activate what needs a reboot",
			"addresses of interfaces are set asynchronously",
		},
	},
	{
		Name: "26.11", Ends: day(2027, time.June, 30), Expected: true,
		K3s: []string{"1.35", "1.36"},
		Nix: "2.18", ISOStage1: Systemd, DBus: "broker",
	},
}

// minors of k3s, oldest first. Dates: https://kubernetes.io/releases/ (1.33 to 1.36) and
// https://kubernetes.io/releases/patch-releases/#non-active-branch-history.
//
// k3s 1.34 brings etcd 3.6. Members of etcd 3.5 have to run 3.5.26 at least before one of them is upgraded:
// else removed members can come back, and the quorum can be lost (k3s#13485, k3s#13493, k3s#13494).
var minors = []K3s{
	{Minor: "1.28", Ends: day(2024, time.October, 28)},
	{Minor: "1.29", Ends: day(2025, time.February, 28)},
	{Minor: "1.30", Ends: day(2025, time.June, 28)},
	{Minor: "1.31", Ends: day(2025, time.October, 28)},
	{Minor: "1.32", Ends: day(2026, time.February, 28), Leave: "1.32.11+k3s3"},
	{Minor: "1.33", Ends: day(2026, time.June, 28), Leave: "1.33.7+k3s3"},
	{Minor: "1.34", Ends: day(2026, time.October, 27)},
	{Minor: "1.35", Ends: day(2027, time.February, 28)},
	{Minor: "1.36", Ends: day(2027, time.June, 28)},
}

// ForNewProjects is the release that new projects start with, and with it the last of its minor versions of
// k3s.
const ForNewProjects = "26.05"

// FirstState is the release whose data formats a machine uses if its plan does not say: plans had no
// versions.state when 24.11 was the release for new projects. It never changes.
const FirstState = "24.11"

// All returns the releases, oldest first.
func All() []NixOS { return slices.Clone(releases) }

// Minors returns the minor versions of k3s, oldest first.
func Minors() []K3s { return slices.Clone(minors) }

// Find returns the release of a name ("25.11").
func Find(name string) (NixOS, bool) {
	i := slices.IndexFunc(releases, func(r NixOS) bool { return r.Name == name })
	if i < 0 {
		return NixOS{}, false
	}
	return releases[i], true
}

// FindK3s returns a minor version of k3s ("1.31").
func FindK3s(minor string) (K3s, bool) {
	i := slices.IndexFunc(minors, func(k K3s) bool { return k.Minor == minor })
	if i < 0 {
		return K3s{}, false
	}
	return minors[i], true
}

// refForm finds the release in the names of nixpkgs' branches, tags and channels.
var refForm = regexp.MustCompile(`^(?:(?:nixos|nixpkgs|release|staging|staging-next)-)?([0-9]{2}\.[0-9]{2})(?:$|[.-])`)

// NameIn returns the release ("25.11") that a branch, tag or channel of nixpkgs names ("nixos-25.11-small"),
// or "". k3splan may not know the release.
func NameIn(ref string) string {
	if m := refForm.FindStringSubmatch(ref); m != nil {
		return m[1]
	}
	return ""
}

// Before reports whether release a is older than b ("24.11" than "25.05").
func Before(a, b string) bool { return a < b } // both have two digits before and after the point

// Oldest is the oldest release that k3splan works with.
func Oldest() NixOS { return releases[0] }

// Latest is the last release of the table, which may not be out.
func Latest() NixOS { return releases[len(releases)-1] }

// Newest is the newest one that was released when this k3splan was made.
func Newest() NixOS {
	r := releases[0]
	for _, next := range releases {
		if !next.Released.IsZero() {
			r = next
		}
	}
	return r
}

// Ended reports whether the release got its last security updates before the day.
func (r NixOS) Ended(today time.Time) bool { return today.After(r.Ends.AddDate(0, 0, 1)) }

// Has reports whether the release has a minor version of k3s.
func (r NixOS) Has(minor string) bool { return slices.Contains(r.K3s, minor) }

// Insecure reports whether a minor version of k3s was past its end when the release came out. nixpkgs keeps
// it there, and marks it as insecure (nixpkgs#372410, nixpkgs#469591): it does not build without permission.
// It may do the same with one that ends later.
func (r NixOS) Insecure(minor string) bool {
	k, ok := FindK3s(minor)
	return ok && r.Has(minor) && k.Ends.Before(r.Released)
}

// Secure returns the minor versions of k3s that are not past their end on the day; if there are none, the
// last one.
func (r NixOS) Secure(today time.Time) []string {
	secure := slices.DeleteFunc(slices.Clone(r.K3s), func(minor string) bool {
		k, ok := FindK3s(minor)
		return ok && k.Ended(today)
	})
	if len(secure) == 0 {
		return r.K3s[len(r.K3s)-1:]
	}
	return secure
}

// NewK3s is the minor version of k3s for new projects.
func (r NixOS) NewK3s() string { return r.K3s[len(r.K3s)-1] }

// Branch is nixpkgs' branch of the release.
func (r NixOS) Branch() string { return "nixos-" + r.Name }

// Ended reports whether the minor version was no longer supported on the day.
func (k K3s) Ended(today time.Time) bool { return today.After(k.Ends.AddDate(0, 0, 1)) }

// Following returns the minor version after "1.31": "1.32"; "" for what is not a minor version.
func Following(minor string) string {
	major, number, ok := strings.Cut(minor, ".")
	n, err := strconv.Atoi(number)
	if !ok || err != nil {
		return ""
	}
	return major + "." + strconv.Itoa(n+1)
}

var numberForm = regexp.MustCompile(`[0-9]+`)

// OlderK3s reports whether a version of k3s ("v1.33.5+k3s1") is older than another one. Of a version that is
// cut short ("1.33") only its numbers are compared.
func OlderK3s(a, b string) bool {
	left, right := numberForm.FindAllString(strings.ReplaceAll(a, "k3s", ""), -1), numberForm.FindAllString(strings.ReplaceAll(b, "k3s", ""), -1)
	return slices.CompareFunc(left[:min(len(left), len(right))], right[:min(len(left), len(right))], func(x, y string) int {
		n, _ := strconv.Atoi(x)
		m, _ := strconv.Atoi(y)
		return n - m
	}) < 0
}

// MinorIn returns the minor version of a version of k3s ("1.33" of "v1.33.5+k3s1"), or "".
func MinorIn(version string) string {
	if m := minorForm.FindStringSubmatch(version); m != nil {
		return m[1]
	}
	return ""
}

var minorForm = regexp.MustCompile(`^v?([0-9]+\.[0-9]+)(?:$|[.+-])`)

// Today is the day by which support ends. SOURCE_DATE_EPOCH (seconds since 1970), the convention for
// reproducible results, replaces the clock.
func Today() time.Time {
	if seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		return time.Unix(seconds, 0).UTC()
	}
	return time.Now().UTC()
}

// Date writes a day as messages and documents do: "2026-06-30".
func Date(t time.Time) string { return t.Format(time.DateOnly) }
