package show

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"

	"k3splan/internal/diag"

	"charm.land/lipgloss/v2"
)

//go:embed page.html.tmpl
var pageSource string

//go:embed rack.js
var script string

var pageTemplate = template.Must(template.New("page").Parse(pageSource))

// page is the data of the page's template.
type page struct {
	Title   string
	Facts   []Fact
	Picture template.HTML
	Style   template.CSS
	Script  template.JS
	// ScriptHash makes the browser run this script and no other.
	ScriptHash    string
	Problems      []placed
	ProblemCounts string
	Columns       []string
	Rows          []row
}

// placed is a problem with the row in which it is also shown.
type placed struct {
	diag.Problem
	Anchor string
}

// row is one of the table of addresses, with its problems below it.
type row struct {
	ID, Search string
	Cells      []cell
	Problems   diag.Problems
}

type cell struct {
	Text string
	// Key sorts an address; it is empty for DHCP.
	Key string
}

// Long reports whether the text is broken into lines, so that the table is not wider than the page.
func (c cell) Long() bool { return lipgloss.Width(c.Text) > 36 }

// HTML writes a self-contained page: the picture, all addresses to sort and search, and the problems of
// the project, each in its place.
func (v *View) HTML(w io.Writer) error {
	var picture bytes.Buffer
	if err := pictureTemplate.Execute(&picture, v.picture("", Auto)); err != nil {
		return fmt.Errorf("draw the rack: %w", err)
	}
	hash := sha256.Sum256([]byte(script))
	p := page{
		Title: v.Title, Facts: v.summary(), Style: pageStyle(), Picture: template.HTML(picture.String()),
		Script: template.JS(script), ScriptHash: "sha256-" + base64.StdEncoding.EncodeToString(hash[:]),
	}
	p.Columns, p.Rows = v.pageTable()
	p.Problems, p.ProblemCounts = v.placedProblems(), problemCounts(v.Problems)
	return pageTemplate.Execute(w, p)
}

// placedProblems returns all problems with their rows.
func (v *View) placedProblems() []placed {
	anchors := map[diag.Problem]string{}
	for _, h := range v.Hosts {
		for _, problem := range h.Problems {
			anchors[problem] = "host-" + h.Name
		}
		for _, c := range h.Containers {
			for _, problem := range c.Problems {
				anchors[problem] = "container-" + c.Name
			}
		}
	}
	var all []placed
	for _, problem := range v.Problems {
		all = append(all, placed{problem, anchors[problem]})
	}
	return all
}

// pageTable returns the table of everything with a name in the LAN, sorted by address.
func (v *View) pageTable() (columns []string, rows []row) {
	own := v.own
	columns = slices.Concat([]string{"Address", "Name", "Kind", "Host", "Interface", "MAC", "Admin", "Tags and labels"}, own)
	add := func(r row, a Address, addressText, admin string, tags []string, cells map[string]string) {
		address := cell{Text: addressText}
		if a.IP.IsValid() {
			address.Key = fmt.Sprintf("%010d", number(a.IP)) // as text it would sort .10 before .2
		}
		r.Cells = []cell{address}
		for _, text := range []string{a.Name, a.Kind, a.Host, a.Interface, a.MAC, admin, strings.Join(tags, " ")} {
			r.Cells = append(r.Cells, cell{Text: text})
		}
		for _, column := range own {
			r.Cells = append(r.Cells, cell{Text: cells[column]})
		}
		rows = append(rows, r)
	}
	for _, a := range v.Used {
		if a.Host == "" || a.Kind == "target" {
			search := strings.ToLower(joined(" ", a.IP.String(), a.Name, a.Kind, a.Host))
			add(row{Search: search}, a, a.IP.String(), "", nil, nil)
		}
	}
	for _, h := range v.Hosts {
		a := Address{Name: h.Name, Kind: "host", Host: h.Name, Interface: h.Interface, MAC: h.MAC}
		if h.Address != nil {
			a.IP = *h.Address
		}
		alone := h
		alone.Containers = nil
		add(row{ID: "host-" + h.Name, Search: alone.searchText(), Problems: h.Problems}, a, h.AddressText(), h.Admin, h.Tags, h.Own)
		for _, c := range h.Containers {
			r := row{ID: "container-" + c.Name, Search: c.searchText() + " " + h.Name, Problems: c.Problems}
			a := Address{c.Address, c.Name, roleText(c.Role), h.Name, h.Interface, c.MAC}
			add(r, a, c.AddressText(), "", slices.Concat(c.Labels, c.Taints), c.Own)
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		x, y := a.Cells[0].Key, b.Cells[0].Key
		switch {
		case x == y:
			return 0
		case x == "":
			return 1
		case y == "":
			return -1
		}
		return strings.Compare(x, y)
	})
	return withoutEmpty(columns, rows)
}

// withoutEmpty removes empty columns.
func withoutEmpty(columns []string, rows []row) ([]string, []row) {
	for i := len(columns) - 1; i >= 0; i-- {
		if slices.ContainsFunc(rows, func(r row) bool { return r.Cells[i].Text != "" }) {
			continue
		}
		columns = slices.Delete(columns, i, i+1)
		for j := range rows {
			rows[j].Cells = slices.Delete(rows[j].Cells, i, i+1)
		}
	}
	return columns, rows
}

// pageStyle returns the style sheet of the page around the picture.
func pageStyle() template.CSS {
	return template.CSS(`
:root{color-scheme:light dark}
body{margin:0 auto;padding:1.5rem clamp(1rem,2.5vw,2rem);max-width:1400px;font:15px/1.5 system-ui,"DejaVu Sans",sans-serif}
h1{margin:0 0 .75rem;font-size:1.7rem;line-height:1.2;overflow-wrap:anywhere}
h2{margin:1.75rem 0 .5rem;font-size:1.2rem}
summary{cursor:pointer;margin:1.25rem 0 .5rem}
summary h2{display:inline}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(32rem,100%),1fr));gap:.25rem 2rem;margin:0}
dl div{display:flex;gap:.75rem}
dt{flex:0 0 6rem}
dd{margin:0;overflow-wrap:anywhere}
code,td{font-family:` + fixedWidth + `;font-size:13px}
code{overflow-wrap:anywhere}
.tools{position:sticky;top:0;z-index:1;display:flex;flex-wrap:wrap;gap:.5rem .75rem;align-items:center;margin-top:1rem;padding:.6rem 0}
#search{flex:1 1 9rem;min-width:0;max-width:26rem;font:inherit;padding:.35rem .6rem;border:1px solid;border-radius:6px}
figure{margin:0;overflow-x:auto;border:1px solid;border-radius:8px}
figure svg{display:block;margin:0 auto}
.wide{overflow-x:auto}
.more{mask-image:linear-gradient(to left,transparent,#000 3rem)}
#more{margin:.25rem 0 0;text-align:right}
table{border-collapse:collapse;width:100%}
th{white-space:nowrap}
th,td{padding:.3rem .75rem .3rem 0;text-align:left;vertical-align:top}
thead,tbody{border-bottom:1px solid}
td:first-child,td:nth-child(2),td:nth-child(3){white-space:nowrap}
td.long{white-space:normal;min-width:24ch;overflow-wrap:anywhere}
td[colspan]{white-space:normal;padding-top:0}
th button{all:unset;cursor:pointer;font:inherit;font-weight:bold;font-size:13px}
:focus-visible{outline:2px solid;outline-offset:2px}
th button:focus-visible{outline:2px solid}
th button::after{content:" ↕";opacity:.35}
th[aria-sort=ascending] button::after{content:" ↑";opacity:1}
th[aria-sort=descending] button::after{content:" ↓";opacity:1}
.problems{margin:.25rem 0;padding:0;list-style:none;max-width:60rem}
.many{max-height:50vh;overflow-y:auto;padding:.25rem .75rem;border:1px solid;border-radius:8px}
.problems li{margin:.25rem 0;padding:.25rem .6rem;border-left:4px solid}
.problems strong::before{content:"! "}
tbody{scroll-margin-top:5rem}
` + inColour(Auto, []rule{
		{"body,.tools,#search", "background", paper},
		{"body,#search,th button", "color", ink},
		{"dt,#found,#more,.problems em,td::before", "color", pale},
		{"#search", "border-color", hostEdge},
		{"figure,thead,tbody,.many", "border-color", hairline},
		{".problems li", "border-color", alarm},
		{".problems strong", "color", alarm},
		{".problems .warning", "border-color", caution},
		{".problems .warning strong", "color", caution},
		{"a", "color", serverEdge},
		{"tbody:target", "background", serverFill},
		{":focus-visible", "outline-color", serverEdge},
	}) + `@media (max-width:700px){
/* each entry of the table is a card, each header a button above them */
#addresses,#addresses tbody,#addresses tr,#addresses td{display:block}
#addresses thead tr{display:flex;flex-wrap:wrap;gap:0 .75rem}
#addresses tbody{padding:.4rem 0}
#addresses td{padding:0;min-width:0;white-space:normal;overflow-wrap:anywhere}
#addresses td[data-column]{display:flex;gap:.5rem}
#addresses td[data-column]::before{content:attr(data-column);flex:0 0 7.5rem;font:13px/1.6 system-ui,"DejaVu Sans",sans-serif}
#addresses td:empty{display:none}
#addresses td:nth-child(2){font-weight:bold}
[hidden]{display:none!important}
}
@media print{
body{max-width:none;padding:0}
.tools,#more{display:none}
.more{mask-image:none}
figure,.wide{overflow:visible}
.many{max-height:none;border:0}
figure{border:0;break-inside:avoid}
figure svg{max-width:100%;max-height:100vh;height:auto}
tbody,.problems li{break-inside:avoid}
th button::after{content:none!important}
}
`)
}
