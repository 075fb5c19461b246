"use strict";
const page = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");
let chosen = null; // light or dark once the button was pressed

const theme = () => chosen || (system.matches ? "dark" : "light");
const settings = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"],
  toImageButtonOptions: { format: "svg" } };

function draw(i) {
  const figure = page.figures[i], box = document.getElementById("figure-" + i);
  const narrow = box.clientWidth < 560;
  const layout = { ...figure.layout, template: page.templates[theme()] };
  if (narrow) {
    layout.font = { size: 11 };
    layout.margin = { ...(layout.margin || {}), l: 40, r: 8 };
    layout.modebar = { orientation: "v" };
    layout.legend = { ...(layout.legend || {}), y: -0.2, yanchor: "top" };
    layout.annotations = (layout.annotations || []).filter((a) => !a.showarrow); // names overlap
  }
  return Plotly.react(box, figure.data, layout, settings);
}

// One after another, so that the first is seen at once.
async function drawAll() {
  root.dataset.theme = theme();
  for (let i = 0; i < page.figures.length; i++) {
    await draw(i);
    await new Promise((next) => setTimeout(next));
  }
  root.dataset.drawn = "yes";
}

function openRun(i) {
  if (!page.runPage) return;
  document.getElementById("figure-" + i).on("plotly_click", (event) => {
    const id = event.points[0].id;
    if (id) window.open(page.runPage + encodeURIComponent(id), "_blank", "noopener");
  });
}

async function save(button) {
  const bytes = Uint8Array.from(atob(button.dataset.csv), (c) => c.charCodeAt(0));
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([await new Response(unpacked).text()], { type: "text/csv" }));
  link.download = button.dataset.file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// The sliders of a ranking: αP / (α + Σ wR) with weights that sum to 1.
function slider(form, name, title, low, high, step, value) {
  const label = document.createElement("label"), input = document.createElement("input");
  const shown = document.createElement("output");
  label.append(title, input, shown);
  Object.assign(input, { type: "range", min: low, max: high, step, name, value });
  form.append(label);
  return { input, shown };
}

function ranking(form) {
  const i = Number(form.dataset.figure), given = page.figures[i].recompute;
  const table = document.querySelector(`table.ranking[data-figure="${i}"]`);
  const asked = { body: table.tBodies[0].cloneNode(true), figure: page.figures[i],
    head: table.querySelector('th[data-key="score"]').textContent };
  const alpha = slider(form, "alpha", "α", 1, Math.max(20, given.alpha), 0.1, given.alpha);
  const names = Object.keys(given.R);
  const weights = names.map((n) => slider(form, n, "weight of " + n, 0, 1, 0.05, given.weights[n]));
  names.forEach((n, k) => { weights[k].input.parentElement.title = given.titles[n]; });
  const reset = document.createElement("button");
  reset.type = "button";
  reset.textContent = "Reset";
  form.append(reset);

  // The exact settings: a slider holds only its steps.
  let a, raw;
  function restore() {
    a = given.alpha;
    raw = names.map((n) => given.weights[n]);
    alpha.input.value = a;
    names.forEach((n, k) => { weights[k].input.value = raw[k]; });
    show(raw);
  }
  function show(share) {
    alpha.shown.textContent = a.toFixed(1);
    weights.forEach((w, k) => { w.shown.textContent = share[k].toFixed(2); });
  }
  function update(event) {
    if (event.target === alpha.input) a = Number(alpha.input.value);
    weights.forEach((w, k) => { if (event.target === w.input) raw[k] = Number(w.input.value); });
    const sum = raw.reduce((x, y) => x + y, 0);
    const share = raw.map((w) => (sum > 0 ? w / sum : 1 / raw.length));
    show(share);
    const rows = given.models.map((model, m) => {
      const r = names.reduce((total, n, k) => total + share[k] * given.R[n][m], 0);
      return { model, p: given.P[m], r, score: (a * given.P[m]) / (a + r) };
    }).sort((x, y) => y.score - x.score || y.p - x.p);
    rows.forEach((row, k) => { row.rank = k && row.score === rows[k - 1].score ? rows[k - 1].rank : k + 1; });
    const top = rows.slice(0, given.top);
    const best = rows.reduce((x, y) => (y.p > x.p ? y : x));
    if (!top.includes(best)) top.push(best);
    fill(table, top, asked.figure);
    redraw(i, asked.figure, top, share);
  }
  reset.addEventListener("click", () => {
    restore();
    page.figures[i] = asked.figure;
    table.tBodies[0].replaceWith(asked.body.cloneNode(true));
    table.querySelector('th[data-key="score"]').textContent = asked.head;
    draw(i);
  });
  form.addEventListener("input", update);
  restore();
}

// The intervals are known for the original settings only.
function fill(table, rows, known) {
  const head = [...table.tHead.rows[0].cells];
  head.find((c) => c.dataset.key === "score").textContent = "PePR";
  const body = document.createElement("tbody");
  for (const row of rows) {
    const changed = { rank: row.rank, score: row.score.toFixed(4), interval: "", ranks: "" };
    const line = body.insertRow();
    head.forEach(({ dataset: { key } }, k) => {
      const words = key in changed ? changed[key] : known.rows[row.model][k];
      let place = line.insertCell();
      if (key === "model" && page.runPage) {
        place = place.appendChild(document.createElement("a"));
        place.href = page.runPage + encodeURIComponent(known.runs[row.model]);
      }
      place.textContent = words;
    });
  }
  table.tBodies[0].replaceWith(body);
}

const escaped = (words) => words.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function redraw(i, asked, rows, share) {
  const points = { ...asked.data[0], x: rows.map((r) => r.score), y: rows.map((r) => escaped(r.model)),
    customdata: rows.map((r) => [r.p, r.rank]), error_x: { visible: false },
    ids: asked.runs ? rows.map((r) => asked.runs[r.model]) : null,
    hovertemplate: "<b>%{y}</b><br>score %{x:.4f}<br>P %{customdata[0]:.4f}<br>rank %{customdata[1]}<extra></extra>" };
  const layout = { ...asked.layout, xaxis: { ...asked.layout.xaxis, title: { text: "PePR with these settings" } } };
  page.figures[i] = { ...asked, data: [points], layout };
  draw(i);
}

document.querySelectorAll(".csv").forEach((b) => b.addEventListener("click", () => save(b)));
document.querySelectorAll("form.controls").forEach(ranking);
document.getElementById("theme").addEventListener("click", () => {
  chosen = theme() === "dark" ? "light" : "dark";
  drawAll();
});
system.addEventListener("change", drawAll);
drawAll().then(() => page.figures.forEach((_, i) => openRun(i)));
