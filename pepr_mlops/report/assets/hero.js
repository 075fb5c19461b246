// The figure of the first screen: performance against cost, with the answer where it lies.
"use strict";
const SPACE = { t: 26, r: 16, b: 44, l: 48 }; // px around the axes
const NARROW = 500; // px of a figure whose marks and labels are smaller
const FEW = 12; // models of which all intervals are drawn
const NEARBY = 3; // times the distance from the best to the median model: farther down is cut off

const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

// The lowest performance that is shown: some models far below would press the others together.
function floorOf(rows, top, margin, marked) {
  const all = rows.map((row) => row.decided).sort((a, b) => a - b), least = all[0];
  const reach = Math.max(NEARBY * (top - all[Math.floor(all.length / 2)]), 8 * margin);
  const floor = Math.min(top - reach, ...marked.map((row) => row.decided));
  return least >= floor - 0.15 * (top - floor) ? least : floor;
}

// Round numbers from low to high, at most so many.
function evenTicks(low, high, most) {
  const size = 10 ** Math.floor(Math.log10((high - low) / most));
  const step = [1, 2, 5, 10].map((n) => n * size).find((n) => (high - low) / n <= most);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-9); i++) {
    found.push(Number((i * step).toPrecision(12)));
  }
  return found;
}

function logTicks(low, high, most) {
  const decades = [];
  for (let n = Math.floor(Math.log10(low)); n <= Math.log10(high); n++) decades.push(n);
  const ticks = (digits) => decades.flatMap((n) => digits.map((d) => Number((d * 10 ** n).toPrecision(3))))
    .filter((x) => x >= low && x <= high);
  const found = [[1, 2, 5], [1, 3], [1]].map(ticks).find((all) => all.length <= most);
  return found || ticks([1]).filter((_, i, all) => i % Math.ceil(all.length / most) === 0);
}

// Axes over the shown models: ranges, ticks, and where a model lies in px.
function axesOf(shown, marked, band, size, metric, unit) {
  const intervals = shown.length <= FEW ? shown : marked;
  const costs = [...shown.map((row) => row.cost), ...intervals.flatMap((r) => [r.low, r.high]).filter((c) => c > 0)];
  const least = Math.min(...costs), most = Math.max(...costs), log = least > 0 && most > 10 * least;
  const scale = log ? Math.log10 : (x) => x;
  const wide = scale(most) - scale(least), alike = log ? 0 : Math.max(0, 0.5 * most - wide) / 2;
  const room = 0.05 * wide + alike || 0.5;
  const x = [scale(least) - room, scale(most) + room];
  const low = Math.min(...shown.map((row) => row.decided));
  const highest = Math.max(band[1], ...intervals.map((row) => row.decided_high).filter((p) => p !== null));
  const lowest = Math.min(low, band[0], ...(shown.length <= FEW ? shown : [])
    .map((row) => row.decided_low).filter((p) => p !== null));
  const tall = highest - lowest || 0.1;
  const y = [lowest - 0.05 * tall, Math.min(highest + 0.08 * tall, 1 + 0.05 * tall)];
  const width = size.width - SPACE.l - SPACE.r, height = size.height - SPACE.t - SPACE.b;
  const few = Math.max(2, Math.floor(width / 85));
  const ends = log ? x.map((v) => 10 ** v) : [Math.max(x[0], 0), x[1]];
  return { log, x, y, width, height,
    xTicks: (log ? logTicks : evenTicks)(...ends, few).map((v) => [v, amount(v, unit)]),
    yTicks: evenTicks(y[0], Math.min(y[1], 1), 6).map((v) => [v, metric.share ? `${number(100 * v)}%` : number(v)]),
    px: (cost) => ((scale(cost) - x[0]) / (x[1] - x[0])) * width,
    py: (p) => ((y[1] - p) / (y[1] - y[0])) * height };
}

const ruler = document.createElement("canvas").getContext("2d");
function widthOf(text, px, weight) {
  ruler.font = `${weight} ${px}px ${getComputedStyle(document.body).fontFamily}`;
  return ruler.measureText(text).width;
}

const overlap = (a, b) => a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1;

// The place, of those a label may have, that hides least; all are within the figure.
function placed(boxes, axes, obstacles) {
  const cost = (box) => box.away + 1000 * (box.y0 < -SPACE.t || box.y1 > axes.height)
    + obstacles.reduce((total, other) => total + (overlap(box, other) ? other.weight : 0), 0);
  return boxes.reduce((a, b) => (cost(b) < cost(a) ? b : a));
}

// Where the label of a model may be, around its dot and its intervals, in px.
function around(row, axes, width, height) {
  const x = axes.px(row.cost), y = axes.py(row.decided), gap = 10;
  const top = Math.min(y - gap, row.decided_high === null ? y : axes.py(row.decided_high) - 4);
  const bottom = Math.max(y + gap, row.decided_low === null ? y : axes.py(row.decided_low) + 4);
  const left = row.low > 0 ? Math.min(x - gap, axes.px(row.low) - 4) : x - gap;
  const right = row.high === null ? x + gap : Math.max(x + gap, axes.px(row.high) + 4);
  const boxes = [];
  for (const shift of [0.5, 0.25, 0.75, 0, 1, -0.1, 1.1]) {
    for (const away of [0, 14, 30]) {
      boxes.push({ left: x - shift * width, up: top - away - height, away: away / 20 + Math.abs(shift - 0.5) });
      boxes.push({ left: x - shift * width, up: bottom + away, away: 0.5 + away / 20 + Math.abs(shift - 0.5) });
    }
  }
  boxes.push({ left: right, up: y - height / 2, away: 0.3 }, { left: left - width, up: y - height / 2, away: 0.4 });
  return boxes.map(({ left, up, away }) => {
    const x0 = Math.max(0, Math.min(left, axes.width + SPACE.r - 4 - width));
    return { x0, x1: x0 + width, y0: up, y1: up + height, away };
  });
}

// The marked models: which they are, their colour and what they are called in the figure.
function marksOf(group, answer, narrow) {
  const { best: top, choice, likely } = answer, metric = group.decided_by, found = [];
  const chosen = choice || likely;
  if (top !== chosen && top.cost !== null) {
    const word = metric.share && !narrow ? "most accurate" : "best";
    found.push({ row: top, colour: "--best", text: `${word}: ${brief(top.label, narrow ? 18 : 24)}`, px: narrow ? 12 : 13,
      size: narrow ? 10 : 12 });
  }
  if (chosen) {
    found.push({ row: chosen, colour: choice ? "--answer" : "--doubt", text: brief(chosen.label, narrow ? 22 : 34),
      px: narrow ? 13 : 15, size: narrow ? 12 : 14 });
  }
  return found;
}

function dot(row, group, settings, text) {
  const metric = group.decided_by, decimals = decimalsOf(row.decided_low, row.decided_high);
  const say = (p) => performanceWords(metric, p, decimals);
  const on = group.split === "val" ? " on validation" : "";
  const interval = row.decided_low === null ? "" : ` (${say(row.decided_low)} to ${say(row.decided_high)})`;
  const test = on && group.metric.key !== metric.key ? [`on the test set ${performanceWords(group.metric, row.p)}`] : [];
  const rank = row.rank_low === null ? `rank ${row.rank}` : `rank ${row.rank_low} to ${row.rank_high}`;
  const score = row.score === null ? [] : [`${scoreName(group, settings)} ${row.score.toFixed(3)}, ${rank}`];
  return [`<b>${escaped(text)}</b>`, escaped(`${metric.name}${on} ${say(row.decided)}${interval}`), ...test.map(escaped),
    escaped([`${nameOf(group, settings)} ${costWords(group, settings, row)}`,
      ...guessWords(group, settings, [row])].join(", ")), ...score.map(escaped)].join("<br>");
}

function trace(rows, group, settings, marker, bars) {
  const error = (low, high, own) => ({ type: "data", symmetric: false, visible: true, width: 0, ...bars,
    array: rows.map((r) => (high(r) === null ? 0 : Math.max(0, high(r) - own(r)))),
    arrayminus: rows.map((r) => (low(r) === null ? 0 : Math.max(0, own(r) - low(r)))) });
  return { type: "scatter", mode: "markers", x: rows.map((r) => r.cost), y: rows.map((r) => r.decided),
    ids: rows.map((r) => r.run_id), text: rows.map((r) => dot(r, group, settings, r.label)), marker,
    hovertemplate: "%{text}<extra></extra>",
    ...(bars ? { error_x: error((r) => r.low, (r) => r.high, (r) => r.cost),
      error_y: error((r) => r.decided_low, (r) => r.decided_high, (r) => r.decided) } : {}) };
}

// How the models that are not named are drawn, and the sign of each in the key.
const isOut = (row) => row.verdict === BAD || !row.allowed;
const DOTS = [
  { sign: "●", words: GOOD, of: (row) => !isOut(row) && row.verdict === GOOD, symbol: "circle", opacity: 0.9 },
  { sign: "○", words: OPEN, of: (row) => !isOut(row) && row.verdict === OPEN, symbol: "circle-open", opacity: 0.9 },
  { sign: "·", words: BAD, of: isOut, symbol: "circle", opacity: 0.5 },
];

// The key of the dots.
function keyWords(shown, marked) {
  const rest = shown.filter((row) => !marked.includes(row));
  const found = DOTS.filter(({ of }) => rest.some(of));
  const out = rest.some((row) => !row.allowed) ? " or outside the limits" : "";
  return found.map(({ sign, words }) => `${sign} ${words}${words === BAD ? out : ""}`).join("   ");
}

function tracesOf(group, settings, shown, marks, narrow) {
  const size = narrow ? 5.5 : 7.5;
  const soft = colour("--soft"), rest = shown.filter((row) => marks.every((mark) => mark.row !== row));
  const bars = (paint, thickness) => ({ color: paint, thickness });
  const few = shown.length <= FEW, thin = few ? bars(colour("--bar"), 1.5) : null;
  return [
    ...DOTS.map(({ of, symbol, opacity }) => trace(rest.filter(of), group, settings,
      { color: soft, symbol, opacity: opacity - (few ? 0 : 0.25), size }, thin)),
    ...marks.map((mark) => trace([mark.row], group, settings,
      { color: colour(mark.colour), size: mark.size, line: { color: colour("--card"), width: 1.5 } },
      bars(colour(mark.colour), 2.5))),
  ];
}

function annotation(text, box, axes, paint, px) {
  return { text, showarrow: false, xref: "paper", yref: "paper", xanchor: "left", yanchor: "top", align: "left",
    borderpad: 0, x: box.x0 / axes.width, y: 1 - box.y0 / axes.height, font: { color: colour(paint), size: px } };
}

// The labels of the marked models and of the band, none over another.
function labelsOf(axes, shown, marks, band, title) {
  const dots = shown.map((row) => ({ x: axes.px(row.cost), y: axes.py(row.decided) }));
  const obstacles = dots.map(({ x, y }) => ({ x0: x - 4, x1: x + 4, y0: y - 4, y1: y + 4, weight: 1 }));
  obstacles.push({ x0: -SPACE.l, x1: widthOf(title, 12, 400) - SPACE.l + 12, y0: -SPACE.t, y1: -6, weight: 100 });
  for (const [p] of axes.yTicks) {
    obstacles.push({ x0: 0, x1: axes.width, y0: axes.py(p) - 1, y1: axes.py(p) + 1, weight: 1 });
  }
  for (const { row } of marks) {
    const x = axes.px(row.cost), y = axes.py(row.decided);
    obstacles.push({ x0: x - 8, x1: x + 8, y0: y - 8, y1: y + 8, weight: 50 });
    if (row.decided_low !== null) {
      obstacles.push({ x0: x - 2, x1: x + 2, y0: axes.py(row.decided_high), y1: axes.py(row.decided_low), weight: 8 });
    }
    if (row.low > 0) {
      obstacles.push({ x0: axes.px(row.low), x1: axes.px(row.high), y0: y - 2, y1: y + 2, weight: 8 });
    }
  }
  const found = [];
  const put = (text, boxes, paint, px) => {
    const box = placed(boxes, axes, obstacles);
    obstacles.push({ ...box, weight: 100 });
    found.push(annotation(text, box, axes, paint, px));
  };
  for (const { row, text, colour: paint, px } of [...marks].reverse()) {
    put(`<b>${escaped(text)}</b>`, around(row, axes, widthOf(text, px, 700) + 2, px * 1.3), paint, px);
  }
  if (shown.length === 1) return found;
  const width = widthOf("good enough", 12, 400), up = axes.py(band[1]), down = axes.py(band[0]);
  const heights = down - up >= 17 ? [down - 16, up + 1, (up + down) / 2 - 8] : [down + 1, up - 16];
  const lefts = [0, 0.5, 1].map((side) => 6 + side * (axes.width - width - 12));
  const boxes = heights.flatMap((y0) => lefts.map((x0, i) => ({ x0, x1: x0 + width, y0, y1: y0 + 15, away: i / 10 })));
  put("good enough", boxes, "--answer", 12);
  return found;
}

function captionOf(group, settings, answer) {
  const metric = group.decided_by, on = group.split === "val" ? " on validation" : "";
  const better = metric.share ? `more accurate${on}` : `a better ${metric.name}${on}`;
  const doubts = [...guessWords(group, settings, answer.rows).map((how) => ` ${capital(spokenOf(group, settings).thing)} ${how}.`),
    ...(group.mixed ? [" Conditions mixed."] : [])].join("");
  if (group.rows.length === 1) return `The lines span the 95% intervals.${doubts}`;
  return `Higher is ${better}, left is cheaper. `
    + `Shaded: at most ${marginWords(metric, settings.margin)} below the best.${doubts}`;
}

function missingWords(group, settings, unknown, below, low) {
  const metric = group.decided_by;
  return [...(below ? [`${count(below, "model")} below ${performanceWords(metric, low)}`] : []),
    ...(unknown ? [`${count(unknown, "model")} without a known ${nameOf(group, settings)}`] : [])]
    .join(" and ") + (below + unknown === 0 ? "" : below + unknown === 1 ? " is not shown." : " are not shown.");
}

// The figure in words, for those who cannot see it.
function spokenFigure(group, settings, shown, marks) {
  const unit = unitOf(group, settings), costs = shown.map((row) => row.cost), ps = shown.map((row) => row.decided);
  const say = (p) => performanceWords(group.decided_by, p);
  const cost = `${nameOf(group, settings)} from ${amount(Math.min(...costs), unit)} to ${amount(Math.max(...costs), unit)}`;
  const range = `${group.decided_by.name} from ${say(Math.min(...ps))} to ${say(Math.max(...ps))}`;
  const named = marks.map(({ row, text }) => ` ${text}: ${say(row.decided)} for ${costWords(group, settings, row)}.`);
  return `${count(shown.length, "model")}; ${cost}, ${range}.${named.join("")}`;
}

const upwards = (group) => `↑ ${group.decided_by.name}${group.split === "val" ? " on validation" : ""}`;

function layoutOf(group, settings, answer, axes, band, labels) {
  const font = { family: getComputedStyle(document.body).fontFamily, color: colour("--soft"), size: 12 };
  const axis = { fixedrange: true, zeroline: false, showline: false, ticks: "", tickfont: font, tickmode: "array" };
  const title = [nameOf(group, settings), ...guessWords(group, settings, answer.rows)].join(", ")
    + (axes.log ? " (log scale)" : "") + (group.mixed ? ", conditions mixed" : "");
  const small = { showarrow: false, xref: "paper", yref: "paper", x: 0, xanchor: "left", font };
  return { font, margin: SPACE, showlegend: false, hovermode: "closest", dragmode: false, paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)", hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), align: "left",
      font: { ...font, color: colour("--ink") } },
    xaxis: { ...axis, type: axes.log ? "log" : "linear", range: axes.x, showgrid: false,
      tickvals: axes.xTicks.map(([v]) => v), ticktext: axes.xTicks.map(([, text]) => text) },
    yaxis: { ...axis, range: axes.y, gridcolor: colour("--line"),
      tickvals: axes.yTicks.map(([v]) => v), ticktext: axes.yTicks.map(([, text]) => text) },
    shapes: group.rows.length === 1 ? [] : [{ type: "rect", layer: "below", xref: "paper", x0: 0, x1: 1,
      y0: band[0], y1: band[1], line: { width: 0 }, fillcolor: colour("--wash") }],
    annotations: [...labels,
      { ...small, y: 0, yanchor: "top", yshift: -26, text: escaped(`${title} →`) },
      { ...small, y: 1, yanchor: "bottom", yshift: 8, xshift: -SPACE.l + 6,
        text: escaped(upwards(group)) }] };
}

// Everything that is drawn, from facts, settings and the size of the figure in px; needs a model of
// known cost.
function heroOf(group, settings, answer, size) {
  const narrow = size.width < NARROW, top = answer.best.decided;
  const marks = marksOf(group, answer, narrow), marked = marks.map((mark) => mark.row);
  const known = answer.rows.filter((row) => row.cost !== null);
  const floor = floorOf(known, top, settings.margin, marked);
  const shown = known.filter((row) => row.decided >= floor);
  const band = [top - settings.margin, top];
  const axes = axesOf(shown, marked, band, size, group.decided_by, unitOf(group, settings));
  return { data: tracesOf(group, settings, shown, marks, narrow),
    layout: { ...size, ...layoutOf(group, settings, answer, axes, band, labelsOf(axes, shown, marks, band, upwards(group))) },
    caption: captionOf(group, settings, answer), spoken: spokenFigure(group, settings, shown, marks),
    key: keyWords(shown, marked),
    missing: missingWords(group, settings, answer.rows.length - known.length, known.length - shown.length,
      Math.min(...shown.map((row) => row.decided))) };
}

let heroShown = null; // what the figure was last drawn from
const heroSize = new ResizeObserver(([{ target }]) => {
  const drawn = target.layout;
  if (!drawn || drawn.width !== target.clientWidth || drawn.height !== target.clientHeight) drawHero(heroShown);
});

function drawHero(state) {
  heroShown = state;
  const figure = document.getElementById("hero");
  figure.hidden = !state.group;
  if (!state.group) return;
  const box = figure.querySelector(".plot"), caption = figure.querySelector("figcaption");
  const missing = figure.querySelector(".missing");
  box.hidden = state.answer.rows.every((row) => row.cost === null);
  if (box.hidden) {
    caption.textContent = `No model has a known ${nameOf(state.group, state.settings)}.`;
    figure.querySelector(".key").textContent = missing.textContent = "";
    return;
  }
  if (!box.dataset.watched) heroSize.observe(box);
  box.dataset.watched = "yes";
  const size = { width: box.clientWidth, height: box.clientHeight };
  if (!size.width) return; // not visible yet
  const hero = heroOf(state.group, state.settings, state.answer, size);
  caption.textContent = hero.caption;
  figure.querySelector(".key").textContent = hero.key;
  missing.textContent = hero.missing;
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", hero.spoken);
  if (!heroDue) requestAnimationFrame(() => setTimeout(() => plotly.then(plotHero)));
  heroDue = { box, data: hero.data, layout: hero.layout };
}

// Draws the figure, which with many models takes longer than all else: the page calls this when words
// and table have been painted.
let heroDue = null; // what is to be drawn, the last of several changes
function plotHero() {
  if (!heroDue || !window.Plotly) return;
  const { box, data, layout } = heroDue, drawn = JSON.stringify([data, layout]);
  heroDue = null;
  if (box.drawn === drawn || !box.isConnected) return;
  box.drawn = drawn;
  Plotly.react(box, data, layout, { displayModeBar: false, doubleClick: false });
  if (!box.dataset.opens) {
    box.dataset.opens = "yes";
    box.on("plotly_click", ({ points: [{ id }] }) => {
      if (page.runPage) window.open(page.runPage + encodeURIComponent(id), "_blank", "noopener");
    });
  }
}
views.push(drawHero);
