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
	caution    = shade{"#8a5800", "#e69f00"}
)

// rule is a rule of a style sheet whose colours differ by day and night.
type rule struct {
	selector, property string
	shade
}

// rules of the picture. They name classes that nothing else in a page has.
var pictureRules = []rule{
	{".k3-rack:root", "background", paper}, {".k3-paper", "fill", paper},
	{".k3-rack", "fill", ink},
	{".k3-pale", "fill", pale},
	{".k3-wire", "stroke", wire},
	{".k3-port", "fill", wire},
	{".k3-host", "fill", hostFill}, {".k3-host", "stroke", hostEdge},
	{".k3-panel", "fill", paper}, {".k3-panel", "stroke", hairline},
	{".k3-gateway", "fill", hostFill}, {".k3-gateway", "stroke", wire},
	{".k3-server", "fill", serverFill}, {".k3-server", "stroke", serverEdge},
	{".k3-init", "fill", serverFill}, {".k3-init", "stroke", serverEdge},
	{".k3-agent", "fill", agentFill}, {".k3-agent", "stroke", agentEdge},
	{".k3-unknown", "fill", paper}, {".k3-unknown", "stroke", alarm},
	{".k3-alarm", "fill", alarm}, {".k3-alarm", "stroke", alarm},
	{".k3-on-alarm", "fill", onAlarm},
}

// Theme is the set of colours of a picture.
type Theme string

const (
	// Auto follows the reader's choice of light or dark.
	Auto  Theme = "auto"
	Light Theme = "light"
	Dark  Theme = "dark"
)

// Themes are all of them, the default first.
var Themes = []string{string(Auto), string(Light), string(Dark)}

// inColour writes rules in the colours of a theme. With Auto, each dark rule is in an @media block of its
// own: LibreOffice 7.4 drops the first rule of such a block and applies the others always. The colours
// are plain values, because programs that know no CSS variables draw the light picture.
func inColour(theme Theme, rules []rule) string {
	var light, dark strings.Builder
	for _, r := range rules {
		fmt.Fprintf(&light, "%s{%s:%s}\n", r.selector, r.property, r.light)
		night := fmt.Sprintf("%s{%s:%s}", r.selector, r.property, r.dark)
		if theme == Auto {
			night = "@media (prefers-color-scheme: dark){" + night + "}"
		}
		dark.WriteString(night + "\n")
	}
	switch theme {
	case Light:
		return light.String()
	case Dark:
		return dark.String()
	}
	return light.String() + dark.String()
}

// fixedWidth is the fonts of picture and table. The first is one that LibreOffice brings along: it tries
// no other.
const fixedWidth = "DejaVu Sans Mono, Liberation Mono, Menlo, Consolas, ui-monospace, monospace"

// pictureStyle is the style sheet within the picture: colours, and blanks that stay (HTML ignores
// xml:space).
func pictureStyle(theme Theme) template.CSS {
	return template.CSS(`
.k3-rack text{white-space:pre}
.k3-dim{opacity:.25}
` + inColour(theme, pictureRules))
}
