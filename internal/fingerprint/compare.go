package fingerprint

import "maps"

// OnlyNames reports whether two inputs differ in the names of /etc/hosts, or in the servers to join by, and
// in nothing else.
func OnlyNames(was, is Inputs) bool {
	return (!maps.Equal(was.Names, is.Names) || was.Servers != is.Servers) &&
		maps.Equal(was.Data, is.Data) && maps.Equal(was.Files, is.Files) && maps.Equal(was.Pins, is.Pins)
}

// Difference is one input that has changed.
type Difference struct {
	// Group is "data", "names", "servers", "files" or "pins".
	Group string
	// Name is the input's name in Inputs.
	Name string
	// Was and Is are its values, empty where there is none.
	Was, Is string
	// Added reports that it is new, Removed that it does not exist any more.
	Added, Removed bool
}

// Compare returns what differs, sorted by group and name.
func Compare(was, is Inputs) []Difference {
	var all []Difference
	add := func(group string, was, is map[string]string) {
		for _, name := range sorted(was, is) {
			before, wasThere := was[name]
			after, isThere := is[name]
			if before != after || wasThere != isThere {
				all = append(all, Difference{Group: group, Name: name, Was: before, Is: after, Added: !wasThere, Removed: !isThere})
			}
		}
	}
	add("data", was.Data, is.Data)
	add("files", was.Files, is.Files)
	add("names", was.Names, is.Names)
	add("pins", was.Pins, is.Pins)
	if was.Servers != is.Servers {
		all = append(all, Difference{Group: "servers", Was: was.Servers, Is: is.Servers})
	}
	return all
}
