// The models of the group in a table: sorted, searched, with the columns that the reader chose.
"use strict";
const ROWS = 50; // of a page of the table
const PRINTED = 15; // on paper
const narrow = matchMedia("screen and (max-width: 44rem)");
narrow.addEventListener("change", () => update());
// What a reader searches, the page of rows, and the rows that are open on a phone.
const table = { query: "", page: 0, open: new Set(), at: null };

// Consecutive models by score whose rank interval overlaps that of the first of them: the number of
// each row's group, null where ranks have no intervals.
function tiesOf(rows) {
  if (rows.some((row) => row.rank_low === null)) return null;
  let first = null, n = -1;
  return rows.map((row) => {
    if (first === null || row.rank_low > first.rank_high) [first, n] = [row, n + 1];
    return n;
  });
}

const alphabet = new Intl.Collator();

// Rows in the order of a column, those without a value last; `-p` is from the greatest.
function sorted(rows, order, at) {
  const falls = order.startsWith("-"), column = COLUMNS[order.replace("-", "")] || COLUMNS.rank;
  const value = new Map(rows.map((row) => [row, column.value(row, at)]));
  const compare = (a, b) => (typeof a === "string" ? alphabet.compare(a, b) : a - b) * (falls ? -1 : 1);
  return [...rows].sort((a, b) => (value.get(a) === null) - (value.get(b) === null)
    || (value.get(a) === null ? 0 : compare(value.get(a), value.get(b))));
}

function chosenColumns(at) {
  const wanted = at.settings.columns ? at.settings.columns.split(",") : null;
  const usual = ({ readers, telling }) => readers.includes(at.settings.reader) && (!telling || telling(at));
  return Object.keys(COLUMNS).filter((key) => isPossible(key, at)
    && (key === "model" || (wanted ? wanted.includes(key) : usual(COLUMNS[key]))));
}

const isPossible = (key, at) => !COLUMNS[key].possible || COLUMNS[key].possible(at);

views.push(({ group, settings, answer }) => {
  if (!answer) return;
  table.at = { group, settings, answer, scales: scalesOf(answer.rows), ties: tiesOf(answer.rows) };
  drawTable();
});

function drawTable() {
  const place = document.getElementById("table"), { at } = table;
  if (!place.childElementCount) place.append(...tableTools());
  const keys = chosenColumns(at), rows = foundRows(at);
  const pages = Math.max(Math.ceil(rows.length / ROWS), 1);
  table.page = Math.min(table.page, pages - 1);
  const from = table.page * ROWS, here = rows.slice(from, from + ROWS);
  const focused = document.activeElement && place.contains(document.activeElement) && document.activeElement.dataset.key;
  const ties = tiesText(at, rows);
  place.querySelector(".ties").replaceChildren(ties, ties.includes("PePR") ? explain("pepr") : "");
  drawMenu(place.querySelector(".menu"), keys, at);
  place.querySelector("table").replaceChildren(tableHead(keys, at), ...tableBodies(here, from, keys, at));
  drawPager(place.querySelector(".pager"), from, here.length, rows.length);
  if (focused) place.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

// Changes how the table looks, which no other part of the page follows.
function look(patch) {
  Object.assign(settings, patch);
  remember();
  drawTable();
}

function foundRows(at) {
  const query = table.query.trim().toLowerCase();
  const found = at.answer.rows.filter((row) => row.label.toLowerCase().includes(query));
  return sorted(found, at.settings.sort, at);
}

const inTies = (at) => at.ties !== null && at.settings.sort === "rank" && !table.query.trim();

// What the order means, and how certain it is.
function tiesText(at, rows) {
  const { group, answer, ties } = at;
  if (!rows.length) return `No model has “${table.query.trim()}” in its name.`;
  if (at.settings.sort !== "rank") return "";
  const costs = Object.keys(shares(group, at.settings.weights)).map((name) => group.costs[name]?.name || name);
  const by = `Ranked by PePR, which weighs ${group.metric.name} against ${listed(costs)}.`;
  if (answer.rows.length === 1 || ties === null) return by;
  const first = answer.rows.filter((row) => row.rank_low === 1).length;
  if (first === 1) return `${by} No other model ranks first within the 95% intervals.`;
  const joined = Math.max(...ties) + 1 < rows.length ? " A bar on the left joins models whose order is not certain." : "";
  return `${by} ${count(first, "model")} could rank first (95% intervals).${joined}`;
}

// What stays while the table changes: search, menu of columns, table and pages.
function tableTools() {
  const search = node("input", { type: "search", id: "search", placeholder: "Search models", "aria-label": "Search models" });
  search.addEventListener("input", () => {
    Object.assign(table, { query: search.value, page: 0 });
    drawTable();
  });
  search.value = table.query;
  const turn = (by) => () => { table.page += by; drawTable(); };
  const buttons = [["previous", "Previous", -1], ["next", "Next", 1]].map(([name, text, by]) => {
    const button = node("button", { type: "button", className: name }, text);
    button.addEventListener("click", turn(by));
    return button;
  });
  const models = node("table", { className: "ranking", "aria-labelledby": "ranking-title" });
  models.addEventListener("click", tableClick);
  return [
    node("p", { className: "note ties" }),
    node("div", { className: "tools" }, search,
      node("details", { className: "columns" }, node("summary", {}, "Columns"), node("div", { className: "menu" }))),
    node("div", { className: "scroll" }, models),
    node("div", { className: "pager" }, buttons[0], node("span", { role: "status" }), buttons[1]),
  ];
}

function drawMenu(menu, keys, at) {
  const possible = Object.keys(COLUMNS).filter((key) => key !== "model" && isPossible(key, at));
  const boxes = possible.map((key) => {
    const box = node("input", { type: "checkbox", checked: keys.includes(key), "data-key": `column ${key}` });
    box.addEventListener("change", () => {
      const wanted = possible.filter((other) => (other === key ? box.checked : keys.includes(other)));
      look({ columns: ["model", ...wanted].join(",") });
    });
    return node("label", {}, box, COLUMNS[key].heading(at));
  });
  const usual = node("button", { type: "button", "data-key": "usual columns" }, "Usual columns");
  usual.addEventListener("click", () => look({ columns: "" }));
  menu.replaceChildren(...boxes, usual);
}

const onPhone = (key) => !narrow.matches || COLUMNS[key].narrow;

function tableHead(keys, at) {
  const cells = keys.filter(onPhone).map((key) => {
    const column = COLUMNS[key], order = at.settings.sort;
    const sort = order === key ? "ascending" : order === `-${key}` ? "descending" : null;
    const term = typeof column.term === "function" ? column.term(at) : column.term;
    return node("th", { scope: "col", className: `${key} ${column.number ? "number" : ""}`.trim(), "aria-sort": sort },
      node("button", { type: "button", className: "sort", "data-key": key }, column.heading(at)),
      term && !narrow.matches ? explain(term) : null);
  });
  return node("thead", {}, node("tr", {}, ...cells));
}

// A body for each group of ties, or one for all.
function tableBodies(rows, from, keys, at) {
  const bodies = [], place = inTies(at) ? new Map(at.answer.rows.map((row, i) => [row, at.ties[i]])) : new Map();
  let last;
  rows.forEach((row, i) => {
    const tie = place.get(row);
    if (!bodies.length || tie !== last) bodies.push(node("tbody", { "data-tie": tie ?? null }));
    bodies.at(-1).append(...tableRows(row, from + i, keys, at));
    last = tie;
  });
  const models = (body) => body.querySelectorAll("tr:not(.more)").length;
  for (const body of bodies) body.classList.toggle("tied", body.dataset.tie !== undefined && models(body) > 1);
  return bodies;
}

// The row of a model; on a phone a second one has the columns that found no room.
function tableRows(row, place, keys, at) {
  const { answer } = at, here = keys.filter(onPhone), others = keys.filter((key) => !onPhone(key));
  const state = [answer.choice && row.label === answer.choice.label ? "chosen" : "", row.label === answer.best.label ? "best" : "",
    row.allowed ? "" : "outside", place < PRINTED ? "" : "unprinted"].join(" ").trim();
  const cells = here.map((key) => node(key === "model" ? "th" : "td",
    { className: `${key} ${COLUMNS[key].number ? "number" : ""}`.trim(), scope: key === "model" ? "row" : null },
    COLUMNS[key].cell(row, at)));
  const made = node("tr", { className: state, "data-model": row.label }, ...cells);
  if (!others.length) return [made];
  const open = table.open.has(row.label);
  cells[here.indexOf("model")].append(node("button", { type: "button", className: "opens", "data-key": `open ${row.label}`,
    "aria-expanded": String(open), "aria-label": `More about ${row.label}` }, open ? "▴" : "▾"));
  if (!open) return [made];
  const facts = others.flatMap((key) => [node("dt", {}, COLUMNS[key].heading(at)), node("dd", {}, COLUMNS[key].cell(row, at))]);
  return [made, node("tr", { className: "more" }, node("td", { colSpan: here.length }, node("dl", {}, ...facts)))];
}

function tableClick(event) {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.classList.contains("sort")) {
    const { key } = button.dataset, usual = COLUMNS[key].first === "most" ? `-${key}` : key;
    table.page = 0;
    look({ sort: table.at.settings.sort !== usual ? usual : usual === key ? `-${key}` : key });
  } else if (button.classList.contains("opens")) {
    const { model } = button.closest("tr").dataset;
    if (!table.open.delete(model)) table.open.add(model);
    drawTable();
  }
}

function drawPager(pager, from, here, all) {
  pager.querySelector("span").textContent = all > ROWS ? `${from + 1}–${from + here} of ${all} models`
    : count(all, "model");
  for (const [name, off] of [["previous", from === 0], ["next", from + here >= all]]) {
    const button = pager.querySelector("." + name);
    button.disabled = off;
    button.hidden = all <= ROWS;
  }
}
