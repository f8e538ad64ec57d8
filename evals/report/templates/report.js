const figures = JSON.parse(document.getElementById("figures").textContent);
const draw = (place, name) => Plotly.react(place, figures[name].data, figures[name].layout, {responsive: true, displayModeBar: false});
const plane = document.getElementById("plane");
const fronts = () => document.querySelectorAll("[data-front]").forEach(p => draw(p, `front-${p.dataset.front}-${plane.value}`));
plane.value = plane.options[0].value;
plane.onchange = fronts;
fronts();
document.querySelectorAll("[data-figure]").forEach(p => draw(p, p.dataset.figure));
// A plot is drawn when the page has not all its columns yet: fit it to its place whenever that changes, and for print.
const resize = () => document.querySelectorAll(".plot").forEach(p => Plotly.Plots.resize(p));
const fit = new ResizeObserver(entries => entries.forEach(e => Plotly.Plots.resize(e.target)));
document.querySelectorAll(".plot").forEach(p => fit.observe(p));
addEventListener("beforeprint", resize);

const body = document.querySelector("#cells tbody"), rows = [...body.rows];
const selects = [...document.querySelectorAll("#filters select")], find = document.getElementById("find");
const value = (row, key) => row.querySelector(`[data-key="${key}"]`).textContent;
for (const s of selects) for (const v of new Set(rows.map(r => value(r, s.dataset.key)))) s.add(new Option(v, v));
function filter() {
  const words = find.value.toLowerCase().split(/\s+/);
  for (const r of rows) {
    const text = (r.dataset.cell + " " + r.textContent).toLowerCase();
    r.hidden = !selects.every(s => !s.value || value(r, s.dataset.key) === s.value) || !words.every(w => text.includes(w));
  }
  document.getElementById("count").textContent = `${rows.filter(r => !r.hidden).length} of ${rows.length} cells`;
}
[find, ...selects].forEach(e => e.addEventListener("input", filter));
filter();
const heads = [...document.querySelectorAll("#cells th")];
heads.forEach((head, i) => head.querySelector("button").onclick = () => {
  const down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  heads.forEach(h => h.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down > 0 ? "ascending" : "descending");
  const words = (a, b) => down * a.cells[i].textContent.localeCompare(b.cells[i].textContent, "en", {numeric: true});
  const numeric = rows.some(r => r.cells[i].dataset.value !== undefined);
  const numbers = (a, b) => {  // what does not apply stays last
    const [x, y] = [a, b].map(r => r.cells[i].dataset.value);
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return down * (x - y);
  };
  body.append(...rows.sort(numeric ? numbers : words));
});
