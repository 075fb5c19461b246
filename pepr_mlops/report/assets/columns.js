// The columns of the table of models: what they show, of whom, and what they are sorted by.
"use strict";
const NONE = "—";

const ENERGY_WORDS = { measured: "measured", estimated: "estimated", imported: "published", none: "not measured" };
const DOUBT_WORDS = {
  power: "implausible power", same_energy: "repeated energy", same_numbers: "repeated numbers",
  impossible_accuracy: "impossible accuracy", predictions: "contradicting predictions",
  still_counter: "energy counter stood still", coarse_counter: "coarse energy counter", estimated: "energy estimated",
  doubtful_import: "doubtful imported energy",
  estimated_time: "time estimated", interrupted: "interrupted", other_processes: "others on the GPU",
  busy_cpu: "others on the CPUs", busy_machine: "others on the machine", shared_node: "shared node",
  paused: "paused while measured",
  data_leak: "test images in training", data_patients: "patients in two splits", data_conflict: "contradicting labels",
  data_few: "few test images of a class", one_class: "learnt nothing", fewer_seeds: "fewer runs than others",
};
const doubtWords = (code) => DOUBT_WORDS[code] || code.replaceAll("_", " ");
const energyWords = (source) => ENERGY_WORDS[source] || source;

// "84.2% to 87.3%", null where either end is not known.
function rangeText(low, high, text) {
  return low === null || high === null ? null : `${text(low)} to ${text(high)}`;
}

const performanceRange = (row, { group, scales }) => rangeText(row.p_low, row.p_high,
  (value) => performanceWords(group.metric, value, scales.decimals));

function scoreText(row, { scales }) {
  if (row.score === null) return [NONE];
  const say = (value) => value.toFixed(scales.scoreDecimals);
  const range = rangeText(row.ci_low, row.ci_high, say);
  return range ? [say(row.score), node("small", {}, ` (${range})`)] : [say(row.score)];
}

function rankText(row) {
  if (row.rank_low === null) return String(row.rank);
  return row.rank_low === row.rank_high ? String(row.rank_low) : `${row.rank_low}–${row.rank_high}`;
}

// How much less than the most accurate model a model costs.
function savingText(row, best) {
  if (row.cost === null || best.cost === null || best.cost === 0 || row.label === best.label) return NONE;
  const share = 1 - row.cost / best.cost;
  if (Math.abs(share) < 0.005) return "as much";
  return `${number(100 * Math.abs(share), 2)}% ${share < 0 ? "more" : "less"}`;
}

const kwhOf = (row, settings) => { const wh = energyOf(row, settings); return wh === null ? null : wh / 1000; };
const times = (a, b) => (a === null || b === null ? null : a * b);
const moneyOf = (row, settings) => times(kwhOf(row, settings), settings.price);
const gramsOf = (row, settings) => times(kwhOf(row, settings), settings.grams);

const severalModels = ({ group }) => group.rows.length > 1;

const CLINICIAN = ["clinician"], RESEARCHER = ["researcher"], FUNDER = ["funder"];
const EVERYBODY = [...CLINICIAN, ...RESEARCHER, ...FUNDER];

// A column: its heading, what it is sorted by, its cell as text or elements, and who sees it unless
// they choose, where it is `telling`. `first` says which end is on top at first, `narrow` that a phone
// shows it in the row, `possible` whether the runs have it.
// `at` is {group, settings, answer, scales}.
const COLUMNS = {
  rank: { heading: () => "rank", value: (row) => row.rank, first: "least", narrow: true, readers: EVERYBODY,
    number: true, term: "rank", cell: (row) => because(row, rankText(row)) },
  model: { heading: () => "model", value: (row) => row.label, first: "least", narrow: true, readers: EVERYBODY,
    cell: modelCell },
  p: { heading: ({ group }) => group.metric.name, value: (row) => row.p, first: "most", narrow: true, readers: EVERYBODY,
    number: true, term: ({ group }) => (group.metric.name === "AUC" ? "auc" : null), cell: performanceCell },
  interval: { heading: ({ group }) => `95% interval of ${group.metric.name}`, value: (row) => row.p_low, first: "most",
    readers: [], number: true, term: "interval",
    cell: (row, at) => because(row, performanceRange(row, at) || NONE) },
  cost: { heading: ({ group, settings, answer }) => [nameOf(group, settings), ...guessWords(group, settings, answer.rows)].join(", "),
    value: (row) => row.cost, first: "least", narrow: true, readers: EVERYBODY, number: true,
    term: (at) => (unitOf(at.group, at.settings) === "Wh" ? "wh" : null), cell: costCell },
  saving: { heading: ({ answer }) => `against ${answer.best.label}`, value: (row) => row.cost, first: "least",
    readers: [...CLINICIAN, ...FUNDER], possible: severalModels, number: true,
    cell: (row, { answer }) => savingText(row, answer.best) },
  money: { heading: ({ settings }) => `electricity at ${atPrice(settings)}`, readers: FUNDER,
    value: (row, { settings }) => moneyOf(row, settings), first: "least", number: true,
    possible: ({ settings }) => settings.price !== null,
    cell: (row, { settings }) => { const paid = moneyOf(row, settings); return paid === null ? NONE : moneyWords(paid); } },
  co2e: { heading: ({ settings }) => `CO2e at ${settings.grams} g/kWh`, readers: FUNDER, term: "co2e",
    value: (row, { settings }) => gramsOf(row, settings), first: "least", number: true,
    possible: ({ settings }) => settings.grams !== null,
    cell: (row, { settings }) => { const grams = gramsOf(row, settings); return grams === null ? NONE : amount(grams, "g", 2); } },
  score: { heading: () => "PePR", value: (row) => row.score, first: "most", readers: RESEARCHER, number: true,
    term: "pepr", cell: (row, at) => because(row, scoreText(row, at)) },
  verdict: { heading: () => "good enough?", value: (row) => [GOOD, OPEN, BAD].indexOf(row.verdict), first: "least",
    readers: EVERYBODY, possible: severalModels, cell: verdictCell },
  curve: { heading: () => "learning curve", value: (row) => row.curve.length || null, first: "most",
    readers: RESEARCHER, possible: ({ group }) => group.rows.some((row) => row.curve.length > 1), cell: curveCell },
  n: { heading: () => "runs", value: (row) => row.n, first: "most", readers: RESEARCHER, number: true,
    telling: ({ group }) => differ(group.rows.map((row) => row.n)), cell: (row) => String(row.n) },
  kind: { heading: () => "type", value: (row) => row.kind, first: "least", readers: [],
    possible: ({ group }) => group.rows.some((row) => row.kind !== null), cell: (row) => row.kind || NONE },
  parameters: { heading: () => "parameters (millions)", value: (row) => row.parameters, first: "least", readers: [],
    number: true, cell: (row) => (row.parameters === null ? NONE : number(row.parameters / 1e6)) },
  energy: { heading: () => "energy", value: (row) => row.energy_source, first: "least", readers: FUNDER,
    telling: ({ group }) => differ(group.rows.map((row) => row.energy_source)),
    cell: (row) => energyWords(row.energy_source) },
  doubts: { heading: () => "doubts", value: (row) => row.codes.length, first: "most", readers: EVERYBODY,
    telling: ({ group }) => differ(group.rows.map((row) => row.codes.join())),
    cell: (row) => row.codes.map(doubtWords).join(", ") || "none" },
};

const differ = (values) => new Set(values).size > 1;

// Where the interval is missing, the reason is the title.
function because(row, content) {
  return row.no_interval ? node("span", { title: `No interval: ${row.no_interval}` }, content) : content;
}

function modelCell(row, { group, answer }) {
  const name = page.runPage && row.run_id
    ? node("a", { href: page.runPage + encodeURIComponent(row.run_id), target: "_blank", rel: "noopener" }, row.label)
    : row.label;
  const marks = [answer.choice && row.label === answer.choice.label ? ["chosen", "chosen"] : null,
    row.label === answer.best.label ? ["best", `best ${group.metric.name}`] : null];
  if (group.rows.length === 1) return name;
  return [name, ...marks.map((mark) => mark && node("span", { className: `mark ${mark[0]}` }, mark[1]))];
}

function performanceCell(row, at) {
  const { group, scales } = at, range = performanceRange(row, at);
  const text = performanceWords(group.metric, row.p, scales.decimals);
  return marked(scales.p && intervalMark(row, scales.p),
    because(row, node("span", { title: range ? `95% interval ${range}` : "" }, text)));
}

function costCell(row, { group, settings, scales }) {
  return marked(row.cost !== null && scales.cost ? bar(row.cost / scales.cost) : null, costWords(group, settings, row) || NONE);
}

const marked = (mark, text) => node("div", { className: "marked" }, mark, node("span", {}, text));

function verdictCell(row) {
  const words = row.allowed ? row.verdict : "outside the limits";
  return node("span", { className: `verdict ${words.replaceAll(" ", "-")}` }, words);
}

const WIDE = 120, HIGH = 14; // of marks, in px

function drawing(...marks) {
  return svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, width: WIDE, height: HIGH, "aria-hidden": "true" }, ...marks);
}

function intervalMark(row, [low, high]) {
  const x = (value) => 4 + ((WIDE - 8) * (value - low)) / (high - low || 1);
  const line = row.p_low === null ? []
    : [svg("line", { class: "ci", x1: x(row.p_low), x2: x(row.p_high), y1: HIGH / 2, y2: HIGH / 2 })];
  return drawing(svg("line", { class: "axis", x1: 0, x2: WIDE, y1: HIGH / 2, y2: HIGH / 2 }), ...line,
    svg("circle", { class: "pt", cx: x(row.p), cy: HIGH / 2, r: 3.5 }));
}

function bar(share) {
  return drawing(svg("rect", { class: "cost", width: Math.max(share * WIDE, 1), height: HIGH - 4, y: 2, rx: 2 }));
}

function curveCell(row, { scales: { curve: [low, high] } }) {
  const known = row.curve.map((value, i) => [i, value]).filter(([, value]) => value !== null);
  if (known.length < 2) return NONE;
  const x = (i) => 2 + ((WIDE - 4) * i) / (row.curve.length - 1);
  const y = (value) => HIGH - 2 - ((HIGH - 4) * Math.max(value - low, 0)) / (high - low || 1);
  return drawing(svg("polyline", { class: "curve", points: known.map(([i, v]) => `${x(i).toFixed(1)},${y(v).toFixed(1)}`).join(" ") }));
}

const extent = (values) => {
  const known = values.filter((value) => value !== null);
  return known.length ? [known.reduce((a, b) => Math.min(a, b)), known.reduce((a, b) => Math.max(a, b))] : null;
};

// The decimals that most intervals of the rows justify.
function usualDecimals(intervals) {
  const width = ([low, high]) => high - low;
  const known = intervals.filter(([low, high]) => low !== null && high !== null).sort((a, b) => width(a) - width(b));
  return decimalsOf(...(known[Math.floor(known.length / 2)] || [null, null]));
}

// The range that all learning curves are drawn in. Without the lowest tenth of the points: one poor
// first epoch would make all curves flat.
function curveRange(rows) {
  const points = rows.flatMap((row) => row.curve).filter((value) => value !== null).sort((a, b) => a - b);
  return [points[Math.floor(points.length / 10)] ?? 0, points.at(-1) ?? 1];
}

// What the cells of all rows share: the ranges of their marks, and the decimals of P and scores.
function scalesOf(rows) {
  return { p: extent(rows.flatMap((row) => [row.p, row.p_low, row.p_high])),
    cost: (extent(rows.map((row) => row.cost)) || [0, 0])[1], curve: curveRange(rows),
    decimals: usualDecimals(rows.map((row) => [row.p_low, row.p_high])),
    scoreDecimals: usualDecimals(rows.map((row) => [row.ci_low, row.ci_high])) };
}
