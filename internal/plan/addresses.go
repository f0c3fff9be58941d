package plan

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"k3splan/internal/table"
)

// onlyIPv4 is the hint for all that is IPv6.
const onlyIPv4 = "k3splan supports IPv4 only, neither IPv6 nor dual stack: write one IPv4 address"

// addressForm is the hint for what is not an address. An example could be that of a machine in the plan.
const addressForm = "four numbers from 0 to 255, separated by points"

// plainNumber is what a spreadsheet program makes of an address with too few or too large parts: 10.0.1
// becomes 10.01 or 100001.
var plainNumber = regexp.MustCompile(`^\d+(?:[.,]\d+)?$`)

// parseAddress reads the IPv4 address of a machine.
func parseAddress(text string) (netip.Addr, *finding) {
	address, err := netip.ParseAddr(text)
	if err == nil && address.Is4() {
		if wrong := notAMachine(address); wrong != "" {
			return netip.Addr{}, &finding{"address-invalid", wrong, addressForm}
		}
		return address, nil
	}
	message, hint := "not an IPv4 address", addressForm
	switch {
	case isMAC(text):
		message, hint = "a MAC address, not an IPv4 address", "MAC addresses are in the column mac"
	case holdsIPv6(text) || slices.Contains(ipv6Words, text):
		message, hint = "IPv6 is not supported", onlyIPv4
	case plainNumber.MatchString(text):
		message, hint = "not an IPv4 address: a number, as a spreadsheet program makes of it", table.AsText
	case strings.Contains(text, "/"):
		hint = "without the netmask, which network.yaml gives for all"
	case strings.Count(text, ",") == 3:
		hint = "with points instead of commas"
	case len(SplitList(text)) > 1:
		message, hint = "more than one address", "write one IPv4 address"
	case oddCharacter(text) != "":
		hint = oddCharacter(text)
	case hasLeadingZero(text):
		hint = "without leading zeros, which some programs read as octal numbers"
	}
	return netip.Addr{}, &finding{"address-invalid", message, hint}
}

// ipv6Words are ways in which a host gets an IPv6 address.
var ipv6Words = []string{"slaac", "dhcp6", "dhcpv6", "ra", "auto6"}

func isMAC(text string) bool {
	_, wrong := parseMAC(text)
	return wrong == nil
}

// notAMachine returns what an IPv4 address is that no machine in a LAN can have, or "".
func notAMachine(address netip.Addr) string {
	switch first := address.As4()[0]; {
	case address.IsUnspecified():
		return "the unspecified address, which means any address"
	case address.IsLoopback():
		return "a loopback address, by which a machine reaches only itself"
	case address.IsMulticast():
		return "a multicast address, which belongs to a group of machines"
	case address == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "the broadcast address"
	case first == 0 || first >= 240:
		return "a reserved address, which no machine can have"
	}
	return ""
}

// SplitList splits a cell at white space, commas and semicolons.
func SplitList(text string) []string {
	return strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == ';' || unicode.IsSpace(c) })
}

// holdsIPv6 reports whether a part of the text is an IPv6 address.
func holdsIPv6(text string) bool { return ipv6Part(text) != "" }

// ipv6Part returns the first part of a cell that is an IPv6 address, with brackets, a zone, a prefix
// length or a port, or looks like one, or "".
func ipv6Part(text string) string {
	parts := strings.FieldsFunc(text, func(c rune) bool { return strings.ContainsRune(" ,;@\t\n", c) })
	i := slices.IndexFunc(parts, func(part string) bool {
		if inside, ok := strings.CutPrefix(part, "["); ok {
			part, _, _ = strings.Cut(inside, "]")
		}
		part, _, _ = strings.Cut(part, "/")
		if isMAC(part) {
			return false
		}
		if address, err := netip.ParseAddr(part); err == nil {
			return address.Is6()
		}
		// an IPv6 address with a slip: one group too few or too many
		return strings.Contains(part, "::") || strings.Count(part, ":") > 1 && strings.Trim(part, "0123456789abcdefABCDEF:.%") == ""
	})
	if i < 0 {
		return ""
	}
	return parts[i]
}

func hasLeadingZero(text string) bool {
	return slices.ContainsFunc(strings.Split(text, "."), func(part string) bool {
		return len(part) > 1 && part[0] == '0'
	})
}

// parseNetmask returns the length of the prefix: "24", "/24" and "255.255.255.0" are the same.
func parseNetmask(text string) (bits int, wrong *finding) {
	const forms = "24, /24 or 255.255.255.0"
	if address, err := netip.ParseAddr(text); err == nil && address.Is4() {
		mask := address.As4()
		value := uint32(mask[0])<<24 | uint32(mask[1])<<16 | uint32(mask[2])<<8 | uint32(mask[3])
		for value<<bits != 0 {
			bits++
		}
		if bits > 0 && value != ^uint32(0)<<(32-bits) {
			return 0, &finding{"netmask-invalid", "not a netmask: its 1 bits are not contiguous", forms}
		}
	} else {
		digits := strings.TrimPrefix(text, "/")
		bits, err = strconv.Atoi(digits)
		if err != nil || bits < 0 || strconv.Itoa(bits) != digits {
			return 0, &finding{"netmask-invalid", "not a netmask", forms}
		}
		if bits > 32 {
			return 0, &finding{"netmask-invalid", "not a netmask of IPv4", forms}
		}
	}
	if bits < 8 || bits > 30 {
		return 0, &finding{"netmask-invalid", "no LAN has this netmask", "between 8 and 30, mostly 24"}
	}
	return bits, nil
}

// lastAddress is the broadcast address of an IPv4 network.
func lastAddress(network netip.Prefix) netip.Addr {
	address := network.Masked().Addr().As4()
	for bit := network.Bits(); bit < 32; bit++ {
		address[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(address)
}

// AddressRange is a range of IPv4 addresses, both ends included.
type AddressRange struct {
	First netip.Addr `json:"first"`
	Last  netip.Addr `json:"last"`
}

// Contains reports whether the address is in the range.
func (a AddressRange) Contains(address netip.Addr) bool {
	return a.First.Compare(address) <= 0 && address.Compare(a.Last) <= 0
}

func (a AddressRange) String() string { return a.First.String() + "-" + a.Last.String() }

// parseRange reads FIRST-LAST or a network.
func parseRange(text string) (AddressRange, *finding) {
	wrong := &finding{"range-invalid", "not a range of IPv4 addresses", "10.0.100.32-10.0.100.63, or 10.0.100.32/27"}
	if holdsIPv6(strings.ReplaceAll(text, "-", " ")) {
		return AddressRange{}, &finding{"range-invalid", "IPv6 is not supported", "k3splan supports IPv4 only: 10.0.100.32-10.0.100.63"}
	}
	if strings.Contains(text, "/") {
		prefix, err := netip.ParsePrefix(text)
		if err != nil || prefix != prefix.Masked() {
			return AddressRange{}, wrong
		}
		return AddressRange{prefix.Addr(), lastAddress(prefix)}, nil
	}
	first, last, both := strings.Cut(text, "-")
	if !both {
		return AddressRange{}, wrong
	}
	var found AddressRange
	for _, end := range []struct {
		text string
		to   *netip.Addr
	}{{first, &found.First}, {last, &found.Last}} {
		address, wrongEnd := parseAddress(strings.TrimSpace(end.text))
		if wrongEnd != nil {
			return AddressRange{}, wrong
		}
		*end.to = address
	}
	if found.Last.Less(found.First) {
		return AddressRange{}, &finding{"range-invalid", "the first address comes after the last", fmt.Sprintf("write %s-%s", found.Last, found.First)}
	}
	return found, nil
}
