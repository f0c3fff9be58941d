package show

import (
	"encoding/csv"
	"fmt"
	"strings"
)

// Addresses draws the table of all used addresses and, below, the free ones. Columns that do not fit are
// hidden, from the right.
func (t Terminal) Addresses(v *View) string {
	header, rows := v.addressTable()
	var lines []line
	for i, row := range rows {
		lines = append(lines, line{row, styles[v.Used[i].Kind]})
	}
	for i := range header {
		header[i] = strings.ToUpper(header[i])
	}
	var left []string
	for last := len(header) - 1; last >= always; last-- {
		need := leastWidths(header, lines)
		if header[last] == "MAC" {
			need = naturalWidths(header, lines)
		}
		if total(need) <= t.width() {
			break
		}
		left = append([]string{strings.ToLower(header[last])}, left...)
		header = header[:last]
		for i := range lines {
			lines[i].cells = lines[i].cells[:last]
		}
	}
	facts := v.Free.facts(len(v.Free.Ranges))
	if v.Subnet != "" {
		facts = append([]Fact{{"network", v.Subnet}}, facts...)
	}
	return t.table(header, lines) + t.noRoom(left, "--format csv") + "\n" + t.facts(facts)
}

// addressTable returns the used addresses; it has a column mac if any address has one.
func (v *View) addressTable() (header []string, rows [][]string) {
	header = []string{"ip", "name", "kind", "host", "interface"}
	withMAC := false
	for _, a := range v.Used {
		withMAC = withMAC || a.MAC != ""
	}
	if withMAC {
		header = append(header, "mac")
	}
	for _, a := range v.Used {
		row := []string{a.IP.String(), a.Name, a.Kind, a.Host, a.Interface}
		if withMAC {
			row = append(row, a.MAC)
		}
		rows = append(rows, row)
	}
	return header, rows
}

// AddressesCSV returns the used addresses as a table for programs.
func (v *View) AddressesCSV() string {
	var b strings.Builder
	w := csv.NewWriter(&b)
	header, rows := v.addressTable()
	w.WriteAll(append([][]string{header}, rows...)) // a strings.Builder does not fail
	return b.String()
}

// AddressesMarkdown returns the used addresses as a table for a wiki or a pull request.
func (v *View) AddressesMarkdown() string {
	var b strings.Builder
	header, rows := v.addressTable()
	write := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	write(header)
	b.WriteString(strings.Repeat("|---", len(header)) + "|\n")
	for _, row := range rows {
		write(row)
	}
	return b.String()
}

// AddressesHosts returns the addresses of hosts and containers in the form of /etc/hosts, with the names
// that are in those of every host of the rack.
func (v *View) AddressesHosts() string {
	var b strings.Builder
	for _, a := range v.Used {
		if a.Host == "" || a.Kind == "target" {
			continue
		}
		names := a.Name
		if v.Network.Domain != nil {
			names = a.Name + "." + *v.Network.Domain + " " + names
		}
		fmt.Fprintf(&b, "%-15s %s\n", a.IP, names)
	}
	return b.String()
}
