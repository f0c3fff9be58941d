package show

import (
	"fmt"
	"html/template"
	"strings"
)

// shade is a colour by day and by night.
type shade struct{ light, dark string }

// The colours of picture and page. Hues are those of Okabe and Ito, which people with any kind of
// colour blindness tell apart, darker or lighter where text or thin lines need the contrast. What
// they mean is always said by a sign or word as well.
var (
	paper      = shade{"#ffffff", "#14181d"}
	ink        = shade{"#1b1f24", "#e6edf3"}
	pale       = shade{"#57606a", "#a3adb7"}
	wire       = shade{"#6e7781", "#8b949e"}
	hostFill   = shade{"#f4f6f8", "#1f262d"}
	hostEdge   = shade{"#818b98", "#6b7683"}
	hairline   = shade{"#d5dae0", "#343d47"} // ornament, which says nothing
	serverFill = shade{"#dcecf8", "#12344d"}
	serverEdge = shade{"#0072b2", "#56b4e9"}
	agentFill  = shade{"#fdf0d5", "#3f2f08"}
	agentEdge  = shade{"#a86c00", "#e69f00"}
	alarm      = shade{"#b3123a", "#ff6b81"}
	onAlarm    = shade{"#ffffff", "#14181d"}
)

// rule is a rule of a style sheet whose colours differ by day and night.
type rule struct {
	selector, property string
	shade
}

// rules of the picture. They name classes that nothing else in a page has.
var pictureRules = []rule{
	{".k3-rack:root", "background", paper}, {".k3-paper", "fill", paper},
	{".k3-rack text", "fill", ink},
	{".k3-rack .k3-pale", "fill", pale},
	{".k3-wire", "stroke", wire},
	{".k3-port", "fill", wire},
	{".k3-host", "fill", hostFill}, {".k3-host", "stroke", hostEdge},
	{".k3-panel", "fill", paper}, {".k3-panel", "stroke", hairline},
	{".k3-gateway", "fill", hostFill}, {".k3-gateway", "stroke", wire},
	{".k3-server", "fill", serverFill}, {".k3-server", "stroke", serverEdge},
	{".k3-agent", "fill", agentFill}, {".k3-agent", "stroke", agentEdge},
	{".k3-alarm", "fill", alarm}, {".k3-alarm", "stroke", alarm},
	{".k3-rack .k3-on-alarm", "fill", onAlarm},
}

// inColour writes rules for the day, and those for the night in a media query. They stand there as
// plain values: programs that know no variables of CSS draw the day.
func inColour(rules []rule) string {
	var day, night strings.Builder
	for _, r := range rules {
		fmt.Fprintf(&day, "%s{%s:%s}\n", r.selector, r.property, r.light)
		fmt.Fprintf(&night, "%s{%s:%s}\n", r.selector, r.property, r.dark)
	}
	return day.String() + "@media (prefers-color-scheme: dark){\n" + night.String() + "}\n"
}

// pictureStyle is the style sheet within the picture.
func pictureStyle() template.CSS {
	return template.CSS(`
.k3-rack text{font-family:ui-monospace,"DejaVu Sans Mono","Liberation Mono",Menlo,Consolas,monospace;font-size:12px;white-space:pre}
.k3-rack .k3-title{font-size:20px;font-weight:bold}
.k3-rack .k3-name{font-size:14px;font-weight:bold}
.k3-rack .k3-word{font-size:11px}
.k3-rack .k3-bold,.k3-rack .k3-on-alarm{font-weight:bold}
.k3-wire{fill:none;stroke-width:2}
.k3-host,.k3-panel,.k3-server,.k3-agent{stroke-width:1.5}
.k3-init{stroke-width:4}
.k3-gateway{stroke-width:2}
.k3-dim{opacity:.25}
` + inColour(pictureRules))
}
