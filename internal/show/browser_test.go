package show

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k3splan/internal/diag"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// The tests in this file look at picture and page in a real browser. With K3SPLAN_SCREENSHOTS=DIR
// they leave what they have seen there.

// browser starts headless Chromium, or skips the test.
func browser(t *testing.T) context.Context {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIP: no browser in a short test")
	}
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			program = found
			break
		}
	}
	if program == "" {
		t.Skip("SKIP: there is no chromium to look at the page with (Debian: apt-get install chromium)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.UserDataDir(t.TempDir()),
		chromedp.Env("HOME="+t.TempDir(), "XDG_CONFIG_HOME="), // not everything is in the folder above
		chromedp.NoSandbox, // the tests may run as root, and open their own files only
		chromedp.DisableGPU, chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND")) // nothing leaves the machine
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	require.NoError(t, chromedp.Do(ctx)) // starts it, and so must have no time limit
	ctx, stop = context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(stop)
	return ctx
}

// open writes a document and opens it in the browser, in "light" or "dark".
func open(t *testing.T, ctx context.Context, name, content, scheme string, width int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
	location := url.URL{Scheme: "file", Path: file}
	run(t, ctx,
		chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}
			_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
			return err
		}),
		chromedp.EmulateViewport(int64(width), 900),
		chromedp.Navigate(location.String()),
		chromedp.WaitReady(chromedp.CSS("svg")),
	)
}

func run(t *testing.T, ctx context.Context, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	require.NoError(t, chromedp.Do(ctx, actions...))
}

// ask evaluates an expression in the page.
func ask[T any](t *testing.T, ctx context.Context, expression string) T {
	t.Helper()
	answer, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	require.NoError(t, err, expression)
	return answer
}

// screenshot leaves a picture of the whole document where the environment says.
func screenshot(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	dir := os.Getenv("K3SPLAN_SCREENSHOTS")
	if dir == "" {
		return
	}
	image, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, name+".png"), image, 0o644))
}

// geometry finds what overlaps or sticks out: texts in boxes and boxes among each other.
const geometry = `(() => {
	const wrong = [];
	const svg = document.querySelector("svg.k3-rack");
	const inside = (a, b, slack) => a.left >= b.left - slack && a.right <= b.right + slack && a.top >= b.top - slack && a.bottom <= b.bottom + slack;
	const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
	const all = svg.getBoundingClientRect();
	for (const text of svg.querySelectorAll("text")) {
		const group = text.closest("g"), own = text.getBoundingClientRect();
		const box = group.querySelector(":scope > rect");
		if (!inside(own, all, 0)) wrong.push("out of the picture: " + text.textContent);
		if (box && !group.classList.contains("k3-legend") && !inside(own, box.getBoundingClientRect(), 0.5)) wrong.push("out of its box: " + text.textContent);
	}
	const check = (selector) => {
		const elements = [...svg.querySelectorAll(selector)];
		elements.forEach((a, i) => elements.slice(i + 1).forEach(b => {
			if (!apart(a.getBoundingClientRect(), b.getBoundingClientRect())) wrong.push(selector + ": " + (a.textContent || a.outerHTML).slice(0, 60) + " over " + (b.textContent || b.outerHTML).slice(0, 60));
		}));
	};
	check("text");
	check(".k3-host");
	check(".k3-panel, .k3-gateway");
	check(".k3-init, .k3-server, .k3-agent, .k3-unknown");
	const boxes = [...svg.querySelectorAll(".k3-panel, .k3-host")];
	for (const panel of svg.querySelectorAll(".k3-panel, .k3-gateway")) for (const host of svg.querySelectorAll(".k3-host"))
		if (!apart(panel.getBoundingClientRect(), host.getBoundingClientRect())) wrong.push("a panel over a host");
	for (const machine of svg.querySelectorAll(".k3-machine")) {
		const box = machine.querySelector(":scope > rect").getBoundingClientRect();
		for (const inner of machine.querySelectorAll("rect")) if (!inside(inner.getBoundingClientRect(), box, 0)) wrong.push("out of its host: " + machine.textContent);
	}
	return wrong;
})()`

func TestPictureInBrowser(t *testing.T) {
	ctx := browser(t)
	for name, view := range views(t) {
		for _, scheme := range []string{"light", "dark"} {
			t.Run(name+" "+scheme, func(t *testing.T) {
				open(t, ctx, "my rack.svg", render(t, view.auto), scheme, 1400)
				require.Empty(t, ask[[]string](t, ctx, geometry))
				screenshot(t, ctx, name+"-svg-"+scheme)

				want := shadeIn(serverFill, scheme)
				if name != "broken" {
					require.Equal(t, rgbText(t, want), ask[string](t, ctx, `getComputedStyle(document.querySelector(".k3-init")).fill`))
				}
				// every name and address is text that can be found and selected
				shown := ask[string](t, ctx, `document.querySelector("svg").textContent`)
				joined := strings.Join(strings.Fields(shown), "")
				for _, host := range view.Hosts {
					require.Contains(t, joined, host.Name)
					require.Contains(t, joined, host.AddressText())
					for _, container := range host.Containers {
						require.Contains(t, joined, container.Name)
					}
				}
				selected := ask[string](t, ctx, `(() => { getSelection().selectAllChildren(document.querySelector(".k3-machine")); return getSelection().toString() })()`)
				require.Contains(t, strings.Join(strings.Fields(selected), ""), view.byImportance()[0].Name)
			})
		}
	}
}

func shadeIn(s shade, scheme string) string {
	if scheme == "dark" {
		return s.dark
	}
	return s.light
}

func rgbText(t *testing.T, hex string) string {
	c := rgb(t, hex)
	return fmt.Sprintf("rgb(%.0f, %.0f, %.0f)", c[0]*255, c[1]*255, c[2]*255)
}

const (
	visibleNames = `[...document.querySelectorAll("#addresses tbody:not([hidden])")].map(row => row.querySelector("td:nth-child(2)").textContent)`
	bright       = `[...document.querySelectorAll(".k3-machine:not(.k3-dim) > text.k3-name")].map(text => text.textContent)`
)

func TestPageInBrowser(t *testing.T) {
	ctx := browser(t)
	all := views(t)
	for name, view := range all {
		for _, scheme := range []string{"light", "dark"} {
			t.Run(name+" "+scheme, func(t *testing.T) {
				open(t, ctx, "page.html", render(t, view.HTML), scheme, 1400)
				require.Empty(t, ask[[]string](t, ctx, geometry))
				require.Equal(t, rgbText(t, shadeIn(paper, scheme)), ask[string](t, ctx, `getComputedStyle(document.body).backgroundColor`))
				require.Equal(t, rgbText(t, shadeIn(ink, scheme)), ask[string](t, ctx, `getComputedStyle(document.querySelector("#addresses td")).color`))
				require.False(t, ask[bool](t, ctx, `document.documentElement.scrollWidth > innerWidth`), "the page itself does not scroll sideways")
				screenshot(t, ctx, name+"-html-"+scheme)
				require.Len(t, ask[[]string](t, ctx, visibleNames), len(view.Used)+dhcpHosts(view)+withoutAddress(view))
			})
		}
	}
}

// However many hosts there are, the picture keeps the size of its text, and fits a screen of 1280 pixels.
func TestPictureKeepsItsSizeInBrowser(t *testing.T) {
	ctx := browser(t)
	open(t, ctx, "page.html", render(t, fifty().view(t, "fifty").HTML), "light", 1280)
	require.Equal(t, 1.0, ask[float64](t, ctx, `(() => { const svg = document.querySelector("svg"); return svg.getBoundingClientRect().width / svg.viewBox.baseVal.width })()`))
	require.False(t, ask[bool](t, ctx, `document.querySelector("figure").classList.contains("more")`), "nothing is beyond the right edge")
	require.True(t, ask[bool](t, ctx, `document.querySelector("#more").hidden`))
	require.Equal(t, "pre", ask[string](t, ctx, `getComputedStyle(document.querySelector(".k3-fact text")).whiteSpace`), "columns in a panel are aligned by blanks")
}

// On a phone the picture scrolls sideways, which is said, and the table shows every column; on paper
// nothing is cut off.
func TestNarrowPageInBrowser(t *testing.T) {
	ctx := browser(t)
	for name, view := range views(t) {
		open(t, ctx, "page.html", render(t, view.HTML), "light", 360)
		require.Equal(t, 360, ask[int](t, ctx, `document.documentElement.scrollWidth`), name)
		screenshot(t, ctx, name+"-html-phone")
		require.Equal(t, "block", ask[string](t, ctx, `getComputedStyle(document.querySelector("#more")).display`), name)
		require.True(t, ask[bool](t, ctx, `(() => { const wide = document.querySelector(".wide"); return wide.scrollWidth <= wide.clientWidth })()`), name)
		require.Empty(t, ask[[]string](t, ctx, `[...document.querySelectorAll("#addresses td")].filter(td => td.textContent && (td.scrollWidth > td.clientWidth + 1 || td.getBoundingClientRect().right > innerWidth)).map(td => td.textContent)`), name)
		require.Equal(t, `"Address"`, ask[string](t, ctx, `(() => { const style = getComputedStyle(document.querySelector("#addresses td"), "::before"); return style.content === "attr(data-column)" ? JSON.stringify(document.querySelector("#addresses td").dataset.column) : style.content })()`), name)
		run(t, ctx, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"})
			return err
		}), chromedp.EmulateViewport(720, 1000))
		require.LessOrEqual(t, ask[float64](t, ctx, `document.querySelector("svg").getBoundingClientRect().right`), 720.0, name)
		require.Equal(t, "none", ask[string](t, ctx, `getComputedStyle(document.querySelector(".tools")).display`))
	}
}

func dhcpHosts(v *View) (n int) {
	for _, h := range v.Hosts {
		if h.Address == nil {
			n++
		}
	}
	return n
}

func withoutAddress(v *View) (n int) {
	for _, h := range v.Hosts {
		for _, c := range h.Containers {
			if !c.Address.IsValid() {
				n++
			}
		}
	}
	return n
}

func TestSearchInBrowser(t *testing.T) {
	ctx := browser(t)
	_, rack := example(t, "rack")
	open(t, ctx, "page.html", render(t, rack.HTML), "light", 1200)
	search := func(words string) {
		run(t, ctx, chromedp.SendKeys(chromedp.CSS("#search"), kb.Escape), chromedp.SendKeys(chromedp.CSS("#search"), words+" "))
	}
	search("STORAGE")
	require.ElementsMatch(t, []string{"karl", "ulrich", "karl-k3s-agent"}, ask[[]string](t, ctx, visibleNames))
	require.ElementsMatch(t, []string{"karl", "ulrich"}, ask[[]string](t, ctx, bright))
	require.Equal(t, "3 of 12", ask[string](t, ctx, `document.querySelector("#found").textContent`))
	search("server ulf")
	require.Equal(t, []string{"ulf-k3s-server"}, ask[[]string](t, ctx, visibleNames))
	search("10.0.100.22")
	require.Equal(t, []string{"olaf-k3s-agent"}, ask[[]string](t, ctx, visibleNames))
	require.Equal(t, []string{"olaf"}, ask[[]string](t, ctx, bright))
	search("nowhere")
	require.Empty(t, ask[[]string](t, ctx, visibleNames))
	require.Empty(t, ask[[]string](t, ctx, bright))
	run(t, ctx, chromedp.SendKeys(chromedp.CSS("#search"), kb.Escape))
	require.Len(t, ask[[]string](t, ctx, visibleNames), 12)
	require.Len(t, ask[[]string](t, ctx, bright), 5)
}

func TestSortInBrowser(t *testing.T) {
	ctx := browser(t)
	open(t, ctx, "page.html", render(t, fifty().view(t, "fifty").HTML), "light", 1400)
	first := func() []string { return ask[[]string](t, ctx, visibleNames)[:3] }
	click := func(header string) {
		run(t, ctx, chromedp.Click(fmt.Sprintf(`//th/button[text()=%q]`, header)))
	}
	require.Equal(t, []string{"gateway", "nameserver", "node-01"}, first(), "by address")
	click("Address")
	require.Equal(t, []string{"node-42-k3s-agent", "node-41-k3s-agent", "node-40-k3s-agent"}, first(), "from the last address on")
	require.Equal(t, "descending", ask[string](t, ctx, `document.querySelector("th").getAttribute("aria-sort")`))
	last := ask[[]string](t, ctx, visibleNames)
	require.Equal(t, "node-50", last[len(last)-1], "without an address, whichever way it is sorted")
	click("Name")
	require.Equal(t, []string{"gateway", "nameserver", "node-01"}, first())
	require.Equal(t, 1, ask[int](t, ctx, `document.querySelectorAll("th[aria-sort]").length`))
	click("Name")
	require.Equal(t, []string{"node-50", "node-49", "node-48"}, first())
	click("unit")
	require.Equal(t, []string{"1", "1", "1"}, ask[[]string](t, ctx, `[...document.querySelectorAll("#addresses tbody tr:first-child")].slice(0, 3).map(row => row.lastElementChild.textContent)`))
	click("unit")
	require.Equal(t, []string{"10", "10", "10"}, ask[[]string](t, ctx, `[...document.querySelectorAll("#addresses tbody tr:first-child")].slice(0, 3).map(row => row.lastElementChild.textContent)`), "as numbers")
	// by the keyboard too, and together with the search
	run(t, ctx, chromedp.SendKeys(chromedp.CSS("#search"), "edge"), chromedp.Focus(chromedp.CSS(`th button`)), chromedp.SendKeys(chromedp.CSS("th button"), "\r"))
	require.Equal(t, []string{"node-07", "node-14", "node-21"}, first())
}

// Many problems leave room for the picture, and long names for the other columns.
func TestMuchOnThePageInBrowser(t *testing.T) {
	ctx := browser(t)
	long := longNames().view(t, "long")
	for i := range 60 {
		long.Problems = append(long.Problems, diag.Problem{File: fmt.Sprintf("secrets/hosts/node-%02d", i), Severity: diag.Error, Message: "is missing", Hint: "copy it"})
	}
	open(t, ctx, "page.html", render(t, long.HTML), "light", 1400)
	screenshot(t, ctx, "much-html-light")
	require.Less(t, ask[float64](t, ctx, `document.querySelector("figure").getBoundingClientRect().top`), 900.0, "on the first screen")
	require.Equal(t, 60, ask[int](t, ctx, `document.querySelectorAll("details .problems li").length`))
	require.False(t, ask[bool](t, ctx, `(() => { const wide = document.querySelector(".wide"); return wide.scrollWidth > wide.clientWidth })()`), "the table needs no scrolling")
}

// Problems stand in their rows and in the picture; what tries to be markup stays text.
func TestProblemsInBrowser(t *testing.T) {
	ctx := browser(t)
	view := brokenTables().view(t, "<script>document.title='hacked'</script>")
	open(t, ctx, "page.html", render(t, view.HTML), "light", 1200)
	require.Contains(t, ask[string](t, ctx, `document.title`), "<script>")
	require.Equal(t, 1, ask[int](t, ctx, `document.scripts.length`))
	in := func(selector string) string {
		return ask[string](t, ctx, fmt.Sprintf(`document.querySelector(%q)?.textContent ?? ""`, selector))
	}
	require.Contains(t, in("#host-ulf"), "not an IPv4 address")
	require.Contains(t, in("#host-karl"), "longer than 15 characters")
	require.Contains(t, in("#container-karl-agent"), "not in the subnet")
	require.NotContains(t, in("#host-olaf"), "error")
	require.Contains(t, in("#host-olaf"), "<script>alert(1)</script>", "a cell is text")
	require.Contains(t, in("#host-nobody"), "no host of this name", "a host that a container names wrongly")
	require.Contains(t, in("#container-ulf-agent"), "type", "a container of an unknown type")
	require.Contains(t, in("details .problems"), "nine", "a problem without a row is in the list")
	require.Equal(t, 7, ask[int](t, ctx, `document.querySelectorAll(".k3-machine .k3-problem").length`), "four hosts, three containers")
	require.Equal(t, 1, ask[int](t, ctx, `document.querySelectorAll(".k3-fact .k3-problem").length`), "the nameserver")
	require.Contains(t, in(".k3-machine .k3-problem title"), "plans/")
	require.Contains(t, in(".k3-fact .k3-problem title"), "nine")
	run(t, ctx, chromedp.SendKeys(chromedp.CSS("#search"), "problem"))
	require.ElementsMatch(t, []string{"ulf", "ulf-agent", "rolf", "karl", "karl-agent", "nobody", "x"}, ask[[]string](t, ctx, visibleNames))
	run(t, ctx, chromedp.SendKeys(chromedp.CSS("#search"), kb.Escape), chromedp.SendKeys(chromedp.CSS("#search"), "not in the Subnet"))
	require.Equal(t, []string{"karl-agent"}, ask[[]string](t, ctx, visibleNames), "by what a problem says")
	run(t, ctx, chromedp.SendKeys(chromedp.CSS("#search"), kb.Escape), chromedp.SendKeys(chromedp.CSS("#search"), "problem"))
	// sorted, each row takes its problems along
	run(t, ctx, chromedp.Click(`//th/button[text()="Name"]`))
	require.Equal(t, []string{"karl", "karl-agent", "nobody", "rolf", "ulf", "ulf-agent", "x"}, ask[[]string](t, ctx, visibleNames))
	require.Contains(t, in("#addresses tbody:not([hidden]) .problems"), "longer than 15 characters")
	// a link shows its row also while others are searched
	run(t, ctx, chromedp.SendKeys(chromedp.CSS("#search"), kb.Escape), chromedp.SendKeys(chromedp.CSS("#search"), "olaf"),
		chromedp.Click(chromedp.CSS(`details .problems a`)))
	require.Equal(t, "#host-ulf", ask[string](t, ctx, `location.hash`))
	require.Equal(t, "ulf", ask[string](t, ctx, `document.querySelector("tbody:target:not([hidden]) td:nth-child(2)").textContent`))
}
