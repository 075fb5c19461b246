// The first screen: who reads it, which group it is about, the verdict and its tiles.
"use strict";
const TILES = { clinician: ["performance", "cost", "saving"], researcher: ["performance", "saving", "cost"],
  funder: ["saving", "cost", "performance"] };
const SOURCES = { imported: "as published", "not known": "of unknown origin" };

// Replaces what changed only, so that nothing is announced or loses the focus without need.
function refill(box, ...children) {
  const fresh = node("div", {}, ...children);
  if (box.innerHTML !== fresh.innerHTML) box.replaceChildren(...fresh.childNodes);
}

function radios(box, label, choices, chosen, choose) {
  if (box.dataset.choices !== JSON.stringify(choices)) {
    box.dataset.choices = JSON.stringify(choices);
    box.setAttribute("role", "radiogroup");
    box.setAttribute("aria-label", label);
    box.replaceChildren(...choices.map(([value, text]) => {
      const input = node("input", { type: "radio", name: box.id, value });
      input.addEventListener("change", () => choose(value));
      return node("label", {}, input, node("span", {}, text));
    }));
  }
  for (const input of box.querySelectorAll("input")) input.checked = input.value === chosen;
}

// A tile is a heading, a value and what the value means.
function performanceTile(group, row) {
  const metric = group.metric, decimals = decimalsOf(row.p_low, row.p_high);
  const say = (value) => performanceWords(metric, value, decimals);
  return [capital(metric.name) + (metric.on === "validation" ? " on validation" : ""), say(row.p),
    row.p_low === null ? "no interval" : `95% interval ${say(row.p_low)} to ${say(row.p_high)}`];
}

function sourceWords(group, settings, row) {
  const guessed = guessWords(group, settings, [row]);
  if (guessed.length) return guessed;
  return ofTraining(settings) && row.energy_source in SOURCES ? [SOURCES[row.energy_source]] : [];
}

function costTile(group, settings, row) {
  const speech = spokenOf(group, settings), wh = energyOf(row, settings);
  const heading = settings.images ? "To train and use" : speech.tile || capital(speech.thing);
  const time = row.costs.T === undefined || row.costs.T === null || settings.by === "T" || settings.images ? []
    : [`in ${row.codes.includes("estimated_time") ? "an estimated " : ""}${amount(row.costs.T, "s", 2)}`];
  const guessed = row.energy_source.includes("estimated") ? "estimated " : "";
  const energy = settings.images || OF_ENERGY.includes(settings.by) || wh === null ? [] : [guessed + amount(wh, "Wh")];
  const paid = wh === null || settings.price === null ? []
    : [`${money(wh, settings)} at ${atPrice(settings)}`];
  const grams = wh === null || settings.grams === null || settings.by === "C" ? []
    : [`${amount(wh / 1000 * settings.grams, "g", 2)} CO2e`];
  const years = settings.images ? [`${GROUPED.format(settings.images)} images a year for ${count(settings.years, "year")}`] : [];
  return [heading, costWords(group, settings, row) || "not known",
    [...sourceWords(group, settings, row), ...years, ...energy, ...time, ...paid, ...grams].join(", ")];
}

function savingTile(group, settings, answer) {
  const { state, saving, best: top, next, rows } = answer, row = shownOf(answer), metric = group.decided_by;
  if (saving !== null) return savedTile(group, settings, saving, row, top);
  if (state === "none") {
    const some = (heading, fits) => [heading, `${rows.filter(fits).length}`, `of ${count(rows.length, "model")}`];
    return limited(settings) ? some("Within your limits", (r) => r.allowed) : some("With a known cost", (r) => r.cost !== null);
  }
  if (state === "open" && row.likely !== null) {
    return ["Good enough", likelyWords(row), `likely, ${number(100 * group.level)}% required`
      + (row.likely < group.level ? "" : " in all comparisons at once")];
  }
  if (state === "open") {
    const most = row.at_most === null ? "" : `at most ${roundedUp(metric, row.at_most)}`;
    return ["Behind best", difference(metric, row.behind, decimalsOf(row.p_low, row.p_high)), most];
  }
  if (state === "one") return ["Runs", `${row.n}`, row.n === 1 ? "trained once" : "their mean is shown"];
  if (next === null) return ["Cheaper models", `${cheaperThan(row, answer).length}`, `of ${count(rows.length, "model")}`];
  return ["Margin needed", roundedUp(metric, next.at_most),
    `for ${brief(next.label, 30)}, ${costWords(group, settings, next)}`];
}

function savedTile(group, settings, saving, row, top) {
  const unit = unitOf(group, settings), size = Math.abs(saving.amount);
  const value = amount(size, unit, digitsOf(size, saving.low, saving.high));
  const nothing = saving.low !== null && saving.low <= 0 && saving.amount > 0;
  const [heading, word] = saving.amount < 0 ? ["Costs more", "more"] : ["Saved", "less"];
  const doubts = ([row, top].some((one) => estimated(group, settings, one)) ? ", estimated" : "")
    + (nothing ? ", but may be nothing" : "");
  return [heading, value, `${number(100 * Math.abs(saving.share), 2)}% ${word} than ${brief(top.label, 30)}${doubts}`];
}

// A number and its unit stay on one line.
const unbroken = (text) => text
  .replace(/(\d) (?=(?:[kM]?Wh|mWh|min|[hsgt]|kg|[GM]B|points?)\b)/g, "$1\u00a0").replace(/ CO2e/g, "\u00a0CO2e");

function glossed(text) {
  return unbroken(text).split(/(PePR-\S+)/).map((word) =>
    (word.startsWith("PePR-") ? node("span", {}, word, " ", explain("pepr")) : word));
}

function drawAnswer(box, group, settings, answer) {
  const row = shownOf(answer), learnt = !row.codes.includes("one_class"), none = answer.state === "none";
  const tone = !learnt || ["open", "none"].includes(answer.state) ? "doubt" : answer.state === "one" ? "plain" : "";
  const tiles = { performance: performanceTile(group, row), cost: costTile(group, settings, row),
    saving: savingTile(group, settings, answer) };
  const name = none ? "No model" : row.label, [strong, certain] = certainty(group, settings, answer);
  const changed = answer.as_made ? [] : [node("a", { className: "changed", href: "#what-if" }, "with your settings")];
  refill(box,
    node("p", { className: "eyebrows" }, node("span", { className: `eyebrow ${tone}` },
      eyebrow(answer, learnt)), ...changed),
    node("h1", { className: name.length > 40 ? "longest" : name.length > 20 ? "long" : "" }, name),
    node("p", { className: "lead" }, ...glossed(sentence(group, settings, answer))),
    node("p", { className: "sure" }, node("b", {}, strong),
      unbroken([certain, ...unknowns(group, settings, answer)].join(" "))),
    ...(answer.state === "one" && group.command ? [node("p", { className: "sure" }, "Add another:",
      node("code", { className: "command", tabIndex: 0 }, group.command))] : []),
    node("dl", { className: "tiles" }, ...TILES[settings.reader].map((tile) => node("div", { className: "tile" },
      node("dt", {}, tiles[tile][0]), node("dd", { className: tiles[tile][1].length > 8 ? "value wide" : "value" },
        unbroken(tiles[tile][1])), node("dd", {}, unbroken(tiles[tile][2]))))));
}

const shortAnswers = new WeakMap(); // of a group as the report was made
function shortOf(group) {
  if (!shortAnswers.has(group)) shortAnswers.set(group, short(answered(group, original(group))));
  return shortAnswers.get(group);
}

// The groups side by side, and why those of one experiment are not scored together.
function drawGroups(box, group, answer) {
  box.hidden = page.groups.length < 2;
  if (box.hidden) return;
  if (!box.firstChild) box.append(node("div", { id: "group" }), node("p", { className: "why" }));
  const [cards, why] = box.children;
  radios(cards, "Group of models", page.groups.map((g) => [g.name, ""]), group.name, (name) => change({ group: name }));
  page.groups.forEach((g, i) => {
    const speech = g === group ? short(answer) : shortOf(g);
    refill(cards.children[i].lastChild, node("b", {}, g.title), node("small", {}, count(g.rows.length, "model")),
      node("small", {}, speech));
  });
  why.textContent = group.differs.length === 0 ? ""
    : `Not scored together: they differ in ${listed(group.differs)}.`;
}

views.push(({ group, settings: set, answer }) => {
  radios(document.getElementById("reader"), "Written for", Object.entries(READERS), set.reader,
    (reader) => change({ reader }));
  if (!group) return;
  const title = document.getElementById("title"); // the full text where it is cut off
  title.textContent = title.title = page.title;
  document.getElementById("about").textContent = page.title.includes(group.experiment) ? about(group)
    : `${group.experiment}: ${about(group)}`;
  drawGroups(document.getElementById("groups"), group, answer);
  drawAnswer(document.getElementById("answer"), group, set, answer);
});

// The address holds the settings, so a link within the page moves there without changing it.
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  const place = link && document.getElementById(link.getAttribute("href").slice(1));
  if (!place) return;
  event.preventDefault();
  for (let box = place.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
  place.tabIndex = -1;
  place.scrollIntoView({ block: "start" });
  place.focus({ preventScroll: true });
});
