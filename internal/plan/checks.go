package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k3splan/internal/diag"
)

// HealthCheck is one way to tell that a host does its work. What its type does not use is empty.
type HealthCheck struct {
	// Name is unique on its host.
	Name string    `json:"name"`
	Type CheckType `json:"type"`
	// URL is that of an http check, http or https.
	URL string `json:"url,omitempty"`
	// Host and Port are those of a tcp check. Without a Host it is the machine itself.
	Host string `json:"host,omitempty"`
	Port int    `json:"port,omitempty"`
	// Command is given to a POSIX shell.
	Command string `json:"command,omitempty"`
	// Unit is a unit of systemd, with its suffix.
	Unit string `json:"unit,omitempty"`
	// ExpectStatus is the status that an http check asks for; 0 is any from 200 to 299.
	ExpectStatus int `json:"expectStatus,omitempty"`
	// ExpectBody is a text that the body of an http answer has to contain.
	ExpectBody string `json:"expectBody,omitempty"`
	// Insecure leaves out the verification of an https server.
	Insecure bool `json:"insecure,omitempty"`
	// Timeout is in seconds.
	Timeout int       `json:"timeout"`
	From    CheckFrom `json:"from"`
}

// CheckType is what a health check does.
type CheckType string

const (
	// CheckHTTP asks for a URL.
	CheckHTTP CheckType = "http"
	// CheckTCP connects to a port.
	CheckTCP CheckType = "tcp"
	// CheckCommand runs a command, which has to succeed.
	CheckCommand CheckType = "command"
	// CheckUnit asks whether a unit of systemd is active.
	CheckUnit CheckType = "unit"
)

// CheckFrom is the machine that a health check is made from.
type CheckFrom string

const (
	FromHost     CheckFrom = "host"
	FromOperator CheckFrom = "operator"
)

var (
	checkTypes = []string{string(CheckHTTP), string(CheckTCP), string(CheckCommand), string(CheckUnit)}
	checkFroms = []string{string(FromHost), string(FromOperator)}
	// otherTypes are other words for the types.
	otherTypes = map[string]CheckType{
		"https": CheckHTTP, "url": CheckHTTP, "web": CheckHTTP, "port": CheckTCP, "connect": CheckTCP, "socket": CheckTCP,
		"cmd": CheckCommand, "exec": CheckCommand, "script": CheckCommand, "shell": CheckCommand,
		"service": CheckUnit, "systemd": CheckUnit,
	}
)

// From returns where a check of the type is made from if nothing else is said.
func (t CheckType) From() CheckFrom {
	if t == CheckCommand || t == CheckUnit {
		return FromHost
	}
	return FromOperator
}

// Target returns what the check asks, as in the column target: a URL, HOST:PORT, a command or a unit. A login in a
// URL, which a snippet may have, is left out.
func (c HealthCheck) Target() string {
	switch {
	case c.Type == CheckHTTP:
		return withoutLogin(c.URL)
	case c.Type == CheckTCP && c.Host != "":
		return c.Host + ":" + strconv.Itoa(c.Port)
	case c.Type == CheckTCP:
		return strconv.Itoa(c.Port)
	}
	return c.Command + c.Unit
}

// model returns the check with the keys that its type uses.
func (c HealthCheck) model() map[string]any {
	m := map[string]any{"name": c.Name, "type": string(c.Type), "timeout": c.Timeout, "from": string(c.From)}
	for key, value := range map[string]string{"url": c.URL, "host": c.Host, "command": c.Command, "unit": c.Unit} {
		if value != "" {
			m[key] = value
		}
	}
	if c.Port != 0 {
		m["port"] = c.Port
	}
	return m
}

// readChecks reads checks.csv, after all hosts and containers are known.
func (l *loader) readChecks() {
	l.plan.OwnColumns = append(l.plan.OwnColumns, newOnes(l.checks.Own(), l.plan.OwnColumns)...)
	places := map[*Host]map[string]string{}
	for i, cells := range decode[checkCells](l.checks) {
		r := row{l.checks.Rows[i]}
		check := readCheck(r, cells)
		for _, host := range l.hostsOfCheck(r, cells.Host) {
			if check.Name == "" {
				continue
			}
			if first := places[host][check.Name]; first != "" {
				r.Fail("name", r.Raw("name"), "check-duplicate", fmt.Sprintf("%s has a check of this name already (%s)", host.Name, first), "give one of the two another name")
				break
			}
			if places[host] == nil {
				places[host] = map[string]string{}
			}
			places[host][check.Name] = r.Table.Place(r.Line, "name")
			host.Machine.HealthChecks = append(host.Machine.HealthChecks, check)
			host.checkRows = append(host.checkRows, checkRow{check.Name, r})
		}
	}
	for host := range places {
		slices.SortFunc(host.Machine.HealthChecks, func(a, b HealthCheck) int { return cmp.Compare(a.Name, b.Name) })
	}
}

// checkRow is the row that a host has a check by.
type checkRow struct {
	name string
	row  row
}

// WhereCheck returns the place of a check in the tables ("plans/checks.csv:3"), or "".
func (h *Host) WhereCheck(name string) string {
	for _, c := range h.checkRows {
		if c.name == name {
			return c.row.Table.Place(c.row.Line, "name")
		}
	}
	return ""
}

func newOnes(columns, known []string) []string {
	return slices.DeleteFunc(slices.Clone(columns), func(c string) bool { return slices.Contains(known, c) })
}

// hostsOfCheck returns the hosts that a row is about.
func (l *loader) hostsOfCheck(r row, cell string) []*Host {
	if !r.required("host", cell) {
		return nil
	}
	hosts, err := l.plan.Select(cell)
	if err == nil {
		return hosts
	}
	if l.hosts.Complete && l.k3s.Complete { // otherwise the host or tag may be in a row that could not be read
		hint := ""
		if l.unknownHosts++; l.unknownHosts <= maxHints {
			hint = diag.HintOf(err)
		}
		r.Fail("host", r.Raw("host"), "check-host-unknown", err.Error(), cmp.Or(hint, "a name, a pattern (ka*), or @TAG; several are separated by blanks"))
	}
	return nil
}

func readCheck(r row, cells checkCells) HealthCheck {
	c := HealthCheck{Name: cells.Name, Timeout: DefaultCheckTimeout}
	if r.required("name", c.Name) {
		r.check("name", checkWords(c.Name, "check-name-invalid", "name of a check"))
	}
	if r.required("type", cells.Type) {
		if slices.Contains(checkTypes, cells.Type) {
			c.Type = CheckType(cells.Type)
		} else {
			hint := cmp.Or(diag.DidYouMean(cells.Type, checkTypes), strings.Join(checkTypes, ", "))
			if meant := otherTypes[cells.Type]; meant != "" {
				hint = fmt.Sprintf("write %q", meant)
			}
			r.Fail("type", r.Raw("type"), "check-type-unknown", "unknown type of check", hint)
		}
	}
	if cells.Timeout != "" {
		n, err := strconv.Atoi(cells.Timeout)
		if err != nil || n < 1 || n > maxCheckTimeout {
			hint := fmt.Sprintf("seconds; an empty cell means %d", DefaultCheckTimeout)
			if seconds := inSeconds(cells.Timeout); err != nil && seconds > 0 && seconds <= maxCheckTimeout {
				hint = fmt.Sprintf("write %d", seconds)
			}
			r.Fail("timeout", r.Raw("timeout"), "number-invalid", fmt.Sprintf("not a whole number from 1 to %d", maxCheckTimeout), hint)
		} else {
			c.Timeout = n
		}
	}
	c.From = CheckFrom(cells.From)
	switch {
	case cells.From == "":
		c.From = c.Type.From()
	case !slices.Contains(checkFroms, cells.From):
		r.Fail("from", r.Raw("from"), "check-from-unknown", "unknown place to check from",
			cmp.Or(diag.DidYouMean(cells.From, checkFroms), "host: on the host itself; operator: from the machine that k3splan runs on"))
	case c.Type == CheckUnit && c.From == FromOperator:
		r.Fail("from", r.Raw("from"), "check-from-unknown", "a unit can only be asked on its host", `write "host", or leave the cell empty`)
	}
	if c.Type != "" {
		readTarget(r, &c, cells.Target)
	}
	return c
}

// readTarget reads what a check of a known type asks.
func readTarget(r row, c *HealthCheck, target string) {
	if target == "" {
		if r.Table.Has("target") {
			r.Fail("target", "", "check-target-missing", fmt.Sprintf("%s check has no target", article(c.Type)), targetForms[c.Type])
		}
		return
	}
	switch c.Type {
	case CheckHTTP:
		c.URL = target
	case CheckTCP:
		port := target
		if i := strings.LastIndex(target, ":"); i >= 0 {
			c.Host, port = target[:i], target[i+1:]
		}
		var err error
		if c.Port, err = strconv.Atoi(port); err != nil {
			c.Port = -1
		}
	case CheckCommand:
		c.Command = target
	case CheckUnit:
		if c.Unit = target; !strings.Contains(target, ".") {
			c.Unit += ".service"
		}
	}
	if wrong := c.wrongTarget(); wrong != nil {
		shown := r.Raw("target")
		if c.Type == CheckHTTP || c.Type == CheckTCP {
			shown = withoutLogin(shown)
		}
		r.Fail("target", shown, wrong.code, wrong.message, wrong.hint)
	}
}

func article(t CheckType) string {
	if t == CheckHTTP {
		return "an http"
	}
	return "a " + string(t)
}

// targetForms are what the targets of the types look like.
var targetForms = map[CheckType]string{
	CheckHTTP:    "write a URL: http://10.0.100.5:8080/health",
	CheckTCP:     "write a port, or HOST:PORT: 5432, 10.0.100.5:5432",
	CheckCommand: "write a command for the shell: test -e /srv/data",
	CheckUnit:    "write a unit of systemd: nginx.service",
}

// unitName is what systemd accepts (systemd.unit(5)); a template without its instance cannot be active.
var unitName = regexp.MustCompile(`^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]+)?\.(service|socket|device|mount|automount|swap|target|path|timer|slice|scope)$`)

// wrongTarget returns what is wrong with what a check asks, or nil.
func (c HealthCheck) wrongTarget() *finding {
	wrong := func(message string) *finding {
		return &finding{"check-target-invalid", message, targetForms[c.Type]}
	}
	switch c.Type {
	case CheckHTTP:
		u, err := url.Parse(c.URL)
		switch {
		case err != nil || !isPrintable(c.URL) || strings.Contains(c.URL, " "):
			return wrong("not a URL")
		case u.Scheme != "http" && u.Scheme != "https":
			return wrong("not a URL of http or https")
		case u.User != nil:
			return &finding{"check-target-invalid", "a URL is copied to files that everyone on the host can read, and must contain no login",
				"check an address that needs none, or use a command that reads the login from a file of root's"}
		case u.Hostname() == "":
			return wrong("the URL has no host")
		case !isHostOrAddress(u.Hostname()):
			return wrong("the host of the URL is neither an IPv4 address nor the name of a machine")
		case u.Port() != "" && !isPort(u.Port()) || u.Port() == "" && strings.HasSuffix(u.Host, ":"):
			return wrong("the port of the URL is not one from 1 to 65535")
		}
	case CheckTCP:
		switch {
		case c.Port < 1 || c.Port > 65535:
			return wrong("not a port from 1 to 65535")
		case c.Host != "" && !isHostOrAddress(c.Host):
			return wrong("neither an IPv4 address nor the name of a machine before the port")
		}
	case CheckCommand:
		if strings.TrimSpace(c.Command) == "" || strings.ContainsRune(c.Command, 0) {
			return wrong("not a command")
		}
	case CheckUnit:
		if !unitName.MatchString(c.Unit) {
			return wrong("not the name of a unit")
		}
	}
	return nil
}

func isPort(text string) bool {
	n, err := strconv.Atoi(text)
	return err == nil && n >= 1 && n <= 65535
}

// isHostOrAddress reports whether a text is an IPv4 address or a DNS name, in any case.
func isHostOrAddress(text string) bool {
	if address, err := netip.ParseAddr(text); err == nil {
		return address.Is4()
	}
	labels := strings.Split(strings.TrimSuffix(strings.ToLower(text), "."), ".")
	return len(text) <= 253 && strings.Trim(text, "0123456789.") != "" && !slices.ContainsFunc(labels, func(label string) bool { return !isHostName(label) })
}

// withoutLogin leaves out what is or may be the login of a URL, so that nothing shows it: a password that is not
// escaped may have any character, and the scheme may be missing.
func withoutLogin(target string) string {
	at := strings.LastIndex(target, "@")
	if u, err := url.Parse(target); at < 0 || err == nil && u.User == nil && u.Host != "" {
		return target
	}
	scheme, _, found := strings.Cut(target[:at], "://")
	if !found {
		return "…" + target[at:]
	}
	return scheme + "://…" + target[at:]
}

// Wrong returns what is wrong with a check that NixOS evaluated, or "".
func (c HealthCheck) Wrong() string {
	switch {
	case c.Name == "":
		return "it has no name"
	case !slices.Contains(checkTypes, string(c.Type)):
		return fmt.Sprintf("unknown type %q", c.Type)
	case c.Target() == "" || c.Type == CheckTCP && c.Port == 0:
		return fmt.Sprintf("%s check has no target", article(c.Type))
	}
	if wrong := c.wrongTarget(); wrong != nil {
		return wrong.message
	}
	return ""
}
