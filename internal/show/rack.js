"use strict";
(() => {
  const table = document.querySelector("#addresses");
  const rows = [...table.tBodies]; // an entry with its problems
  const machines = [...document.querySelectorAll(".k3-machine")];
  const search = document.querySelector("#search");
  const found = document.querySelector("#found");

  // Every word has to be found. Other rows are hidden, other machines fade.
  const look = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = element => words.every(word => element.dataset.search.includes(word));
    let hits = 0;
    for (const row of rows) {
      row.hidden = !fits(row);
      hits += row.hidden ? 0 : 1;
    }
    for (const machine of machines) machine.classList.toggle("k3-dim", !fits(machine));
    found.textContent = words.length ? `${hits} of ${rows.length}` : `${rows.length} entries`;
  };
  search.addEventListener("input", look);
  const showAll = () => { search.value = ""; look(); };
  search.addEventListener("keydown", event => { if (event.key === "Escape") showAll(); });
  for (const link of document.querySelectorAll("a[href^='#']")) link.addEventListener("click", showAll);

  // A click on a header sorts by its column, a second click reverses the order.
  const headers = [...document.querySelectorAll("#addresses th")];
  const keyOf = (row, column) => {
    const cell = row.rows[0].cells[column];
    return cell.dataset.key ?? cell.textContent.trim();
  };
  headers.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const other of headers) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const order = new Intl.Collator("en", { numeric: true }).compare;
    rows.sort((a, b) => {
      const x = keyOf(a, column), y = keyOf(b, column);
      if (!x || !y) return (x ? 0 : 1) - (y ? 0 : 1); // empty cells stay last
      return down ? order(y, x) : order(x, y);
    });
    table.append(...rows);
  }));

  // Contents that continue beyond the right edge fade there.
  const note = document.querySelector("#more");
  const scrollers = [...document.querySelectorAll("figure, .wide")];
  const showMore = () => {
    for (const scroller of scrollers) {
      const more = scroller.scrollWidth - scroller.clientWidth - scroller.scrollLeft > 4;
      scroller.classList.toggle("more", more);
      if (scroller.tagName === "FIGURE") note.hidden = !more;
    }
  };
  for (const scroller of scrollers) scroller.addEventListener("scroll", showMore);
  addEventListener("resize", showMore);

  showMore();
  look();
})();
