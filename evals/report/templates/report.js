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
const heads = [...document.querySelectorAll("#cells th")];
const names = heads.map(h => h.textContent.trim().toLowerCase());
const selects = [...document.querySelectorAll("#filters select")], find = document.getElementById("find");
const where = document.getElementById("where");
const value = (row, key) => row.querySelector(`[data-key="${key}"]`).textContent;
for (const s of selects) for (const v of new Set(rows.map(r => value(r, s.dataset.key)))) s.add(new Option(v, v));

// "FVU < 0.2, l0 <= 40": each condition is a column, a sign and a number
const signs = {"<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b, "=": (a, b) => a === b};
function conditions(text) {
  return text.split(/,|\band\b/i).map(t => t.trim()).filter(Boolean).map(t => {
    const [, name, sign, number] = t.match(/^(.+?)\s*(<=|>=|<|>|=)\s*(-?[\d.]+(?:e-?\d+)?)$/i) || [];
    const column = names.indexOf((name || "").toLowerCase());
    return column < 0 ? null : r => r.cells[column].dataset.value !== undefined && signs[sign](+r.cells[column].dataset.value, +number);
  });
}
function filter() {
  const words = find.value.toLowerCase().split(/\s+/), asked = conditions(where.value);
  const wrong = asked.includes(null);
  where.setAttribute("aria-invalid", wrong);
  for (const r of rows) {
    const text = (r.dataset.cell + " " + r.textContent).toLowerCase();
    r.hidden = !selects.every(s => !s.value || value(r, s.dataset.key) === s.value) || !words.every(w => text.includes(w))
      || !asked.every(test => !test || test(r));
  }
  const shown = `${rows.filter(r => !r.hidden).length} of ${rows.length} cells`;
  document.getElementById("count").textContent = wrong ? `${shown}; write a column's name, <, <=, =, >= or >, and a number` : shown;
}
[find, where, ...selects].forEach(e => e.addEventListener("input", filter));
filter();

// A click sorts by a column; with the shift key it is added to those that are sorted by already.
let order = [];
const numeric = heads.map((_, i) => rows.some(r => r.cells[i].dataset.value !== undefined));
function compare(a, b, {column, down}) {
  if (!numeric[column]) return down * a.cells[column].textContent.localeCompare(b.cells[column].textContent, "en", {numeric: true});
  const [x, y] = [a, b].map(r => r.cells[column].dataset.value);
  if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);  // what does not apply stays last
  return down * (x - y);
}
heads.forEach((head, i) => head.querySelector("button").onclick = event => {
  const last = order.find(o => o.column === i), next = {column: i, down: last ? -last.down : 1};
  order = event.shiftKey ? (last ? order.map(o => o === last ? next : o) : [...order, next]) : [next];
  heads.forEach((h, j) => {
    const place = order.findIndex(o => o.column === j);
    h.removeAttribute("aria-sort");
    if (place >= 0) h.setAttribute("aria-sort", order[place].down > 0 ? "ascending" : "descending");
    h.querySelector("button").dataset.place = place > 0 || (place === 0 && order.length > 1) ? place + 1 : "";
  });
  body.append(...rows.sort((a, b) => order.map(o => compare(a, b, o)).find(d => d) || 0));
});
