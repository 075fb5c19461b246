// The sentences of the first screen: facts in, text out. No DOM.
"use strict";

const NTH = { 3: "third", 4: "quarter", 5: "fifth", 6: "sixth", 7: "seventh", 8: "eighth", 9: "ninth", 10: "tenth" };
// From which value on a unit is written in a greater one, the greatest first.
const SCALES = {
  Wh: [[1e6, 1e6, "MWh"], [1e3, 1e3, "kWh"], [0.1, 1, "Wh"], [0, 1e-3, "mWh"]],
  s: [[7200, 3600, "h"], [120, 60, "min"], [0, 1, "s"]],
  g: [[1e6, 1e6, "t"], [1e3, 1e3, "kg"], [0, 1, "g"]],
  GB: [[1, 1, "GB"], [0, 1e-3, "MB"]],
};
// How a sentence speaks of a cost: what a model does, with how much of what, for what.
const OF_USE = { verb: "takes", thing: "energy", end: " to train and use" };
const SPOKEN = {
  E: { verb: "takes", thing: "energy", end: " to train", tile: "To train once" },
  T: { verb: "takes", thing: "time", end: " to train", tile: "Time to train" },
  C: { verb: "emits", thing: "CO2e", end: " in training", what: " of CO2e", tile: "CO2e of training" },
  M: { verb: "needs", thing: "memory", end: "", what: " of memory", tile: "Memory" },
  D: { verb: "needs", thing: "training data", end: "", what: " of the training data", tile: "Training data" },
};
const OF_ENERGY = ["E", "C", "lifetime_wh"];

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const GROUPED = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 15 }); // made once: it is slow to make
const count = (n, word) => `${GROUPED.format(n)} ${word}${n === 1 ? "" : "s"}`;

const a = (name) => `${/^[aeiou]|^AUC/.test(name) ? "an" : "a"} ${name}`;

function listed(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

// A name of at most so many characters: its start and its end tell more than its middle.
const brief = (name, most) => (name.length <= most ? name
  : `${name.slice(0, Math.ceil(most / 2) - 1)}…${name.slice(-Math.floor(most / 2))}`);

// So many significant digits, in groups of thousands, without an exponent.
function number(value, digits = 3) {
  return GROUPED.format(Number(value.toPrecision(digits)));
}

// Two significant digits where the interval is wider than a tenth of the value, else three.
function digitsOf(value, low, high) {
  return low !== null && high !== null && high - low > 0.1 * Math.abs(value) ? 2 : 3;
}

function amount(value, unit, digits = 3) {
  const steps = SCALES[unit];
  if (!steps) return unit ? `${number(value, digits)} ${unit}` : number(value, digits);
  const size = Math.abs(Number(value.toPrecision(digits)));
  const [, by, name] = size ? steps.find(([from]) => size >= from) : [0, 1, unit];
  return `${number(value / by, digits)} ${name}`;
}

// Decimals of a performance in [0, 1] that an interval this wide justifies.
function decimalsOf(low, high) {
  const half = low === null || high === null ? null : (high - low) / 2;
  return half === null ? 3 : half >= 0.03 ? 2 : half >= 0.003 ? 3 : 4;
}

function performanceWords(metric, value, decimals = 3) {
  return metric.share ? `${(100 * value).toFixed(decimals - 2)}%` : value.toFixed(decimals);
}

// A difference of performance: points where the metric is a share of images, else in its own unit.
function difference(metric, value, decimals = 3) {
  const text = metric.share ? (100 * value).toFixed(decimals - 2) : value.toFixed(decimals);
  const least = metric.share ? 10 ** (2 - decimals) : 10 ** -decimals;
  const shown = Number(text) === 0 && value !== 0 ? `less than ${least}` : text;
  return metric.share ? `${shown} point${Number(text) === 1 ? "" : "s"}` : shown;
}

// A margin as it was set, all its digits.
function marginWords(metric, margin) {
  if (!metric.share) return number(margin, 4);
  return `${number(100 * margin, 4)} point${margin === 0.01 ? "" : "s"}`;
}

// A margin of this size is enough: rounded up to thousandths.
const roundedUp = (metric, value) => marginWords(metric, Math.ceil(Number((value * 1000).toPrecision(6))) / 1000);

// How much of another's cost a model takes that costs so many `times` less: "a third of the energy".
// A fraction is named only where the ratio is within 5% of it.
function part(times, thing, guessed) {
  const n = Math.round(times), known = Math.abs(times / n - 1) <= 0.05;
  const say = (text, article) => `${guessed ? "an estimated " : article}${text} the ${thing}`;
  if (n === 1 && known) return `about as much ${thing}${guessed ? " by estimate" : ""}`;
  if (n === 2 && known) return say("half", "");
  if (n in NTH && known) return say(`${NTH[n]} of`, n === 8 ? "an " : "a ");
  if (times < 1) return say(`${number(1 / times, 2)} times`, "");
  return say(`${number(100 / times, times > 100 ? 1 : 2)}% of`, "");
}

const spokenOf = (group, settings) =>
  settings.images ? OF_USE : SPOKEN[settings.by] || { verb: "takes", thing: group.costs[settings.by].name, end: "" };
const nameOf = (group, settings) => (settings.images ? "energy of training and use" : group.costs[settings.by].name);
const unitOf = (group, settings) => (settings.images ? "Wh" : group.costs[settings.by].unit);

const ofTraining = (settings) => settings.images || OF_ENERGY.includes(settings.by);

// Whether each part of the cost was estimated for a row, at least in one run.
function estimates(group, settings, row) {
  const is = (code) => row.codes.includes(code);
  if (settings.images) return [is("estimated"), row.use_estimated];
  if (settings.by === "T") return [is("estimated_time")];
  if (OF_ENERGY.includes(settings.by)) return [is("estimated")];
  return unitOf(group, settings) === "Wh" ? [is(`${settings.by.split("/")[0]}_estimated`)] : [];
}

const estimated = (group, settings, row) => estimates(group, settings, row).some(Boolean);

// ["estimated"] or ["partly estimated"], empty for neither.
function guessWords(group, settings, rows) {
  const known = rows.filter((row) => row.cost !== null);
  if (!known.some((row) => estimated(group, settings, row))) return [];
  const whole = (row) => estimates(group, settings, row).every(Boolean)
    && (!ofTraining(settings) || row.energy_source === "estimated");
  return [known.every(whole) ? "estimated" : "partly estimated"];
}

function costWords(group, settings, row) {
  if (row.cost === null) return null;
  if (settings.by === "D" && !settings.images) return `${number(100 * row.cost)}%`;
  return amount(row.cost, unitOf(group, settings), digitsOf(row.cost, row.low, row.high));
}

// "takes 18 Wh to train", with "an estimated" before an estimate.
function spends(group, settings, row) {
  const speech = spokenOf(group, settings), cost = costWords(group, settings, row);
  if (cost === null) return null;
  const about = estimated(group, settings, row) ? "an estimated " : "";
  if (!settings.images && !(settings.by in SPOKEN)) return `has ${a(speech.thing)} of ${cost}`;
  return `${speech.verb} ${about}${cost}${speech.what || ""}${speech.end}`;
}

// The energy in Wh that electricity is paid for, null where it is not known.
function energyOf(row, settings) {
  return settings.images ? row.cost : row.costs.E === undefined ? null : row.costs.E;
}

const moneyWords = (paid) => `${paid > 0 && paid < 0.001 ? "under 0.001" : number(paid, 2)} ${page.currency}`;
const atPrice = (settings) => `${number(settings.price)} ${page.currency}/kWh`;
const money = (wh, settings) => moneyWords(wh / 1000 * settings.price);

// What energy stands for: "0.01 € in electricity and 12 g CO2e".
function standsFor(wh, settings) {
  if (wh === null) return [];
  const paid = settings.price === null ? [] : [`${money(wh, settings)} in electricity`];
  const grams = settings.grams === null ? [] : [`${amount(wh / 1000 * settings.grams, "g", 2)} CO2e`];
  return [...paid, ...grams];
}

const ON = { "the test set": "test", validation: "validation" };
const images = (metric) => (metric.on === null ? "images" : `${ON[metric.on]} images`);
const best = (metric) => (metric.share ? "the most accurate model" : "the best model");

// How well a model performs, as a clinician says it and as a researcher does.
function finds(metric, p) {
  if (metric.share) return `finds the right diagnosis in ${p} of ${images(metric)}`;
  const scale = metric.name === "AUC" ? ", where 0.5 is chance and 1 is perfect" : "";
  return `reaches ${a(metric.name)} of ${p}${scale}`;
}
const reaches = (metric, p) =>
  `reaches ${p} ${metric.on === null ? "" : `${ON[metric.on]} `}${metric.name}`;

// The score by the costs that it weighs: PePR-E, or PePR-E+M where the reader weighs both.
function scoreName(group, settings) {
  const asMade = JSON.stringify(settings.weights) === JSON.stringify(original(group).weights);
  return `PePR-${asMade ? group.scored_by : Object.keys(shares(group, settings.weights)).join("+")}`;
}

function ranks(group, settings, row) {
  if (row.score === null || row.rank === null) return null;
  const from = row.rank_low === null ? row.rank : row.rank_low, to = row.rank_high === null ? row.rank : row.rank_high;
  const place = from === to ? `${from}` : `${from} to ${to}`;
  return `ranks ${place} of ${GROUPED.format(group.rows.length)} by ${scoreName(group, settings)} (${row.score.toFixed(3)})`;
}

// The model that the first screen is about.
const shownOf = (answer) => (answer.state === "none" ? answer.best : answer.choice || answer.likely || answer.best);

// What the sentences of a model are made of; null is not known or does not apply.
function slots(group, settings, answer) {
  const row = shownOf(answer), top = answer.best, metric = group.metric, own = row === top;
  const decimals = decimalsOf(row.p_low, row.p_high), p = performanceWords(metric, row.p, decimals);
  const here = group.split === "test" || group.metric.key === group.decided_by.key;
  const behind = own ? null : difference(metric, row.behind, decimals);
  const times = own || top.cost === null || !(row.cost > 0) ? null : top.cost / row.cost;
  const speech = spokenOf(group, settings), doubt = [row, top].some((one) => estimated(group, settings, one));
  const elsewhere = behind === null || here ? "" : ` ${top.label}, which is ${behind} better on validation`;
  const share = (thing, end) => {
    const words = part(times, thing, doubt);
    return elsewhere ? words + (words.startsWith("about") ? " as" : " of") + elsewhere : words + end;
  };
  const energy = own ? null : energyOf(row, settings), most = energyOf(top, settings);
  const saves = energy === null || most === null || most <= energy || !OF_ENERGY.includes(settings.by) ? []
    : standsFor(most - energy, settings);
  const of = group.rows.length, first = here ? null : `the best of ${count(of, "model")} on validation`;
  return {
    finds: finds(metric, p), reaches: reaches(metric, p), costs: spends(group, settings, row),
    fewer: own ? first || (of === 2 ? "more than the other model" : `the most of all ${count(of, "model")}`)
      : here ? `${behind} ${metric.share ? "fewer" : "less"} than ${best(metric)}` : null,
    comma: own || here ? "," : "",
    below: own ? first || `the ${of === 2 ? "higher" : "highest"} of ${count(of, "model")}`
      : here ? `${behind} below ${top.label}` : null,
    takes: times === null ? null : `${speech.verb} ${share(speech.thing, speech.end)}`,
    share: times === null ? null : share(nameOf(group, settings), ""),
    instead: own || times === null ? null
      : (estimated(group, settings, top) && !estimated(group, settings, row) ? "an estimated " : "") + costWords(group, settings, top),
    saves: saves.length ? listed(saves) : null,
    stands: standsFor(energyOf(row, settings), settings).join(" and ") || null,
    less: behind && `${a(metric.name)} ${behind} lower${here ? "" : " on validation"}`,
    ranks: ranks(group, settings, row), ...others(group, settings, answer),
  };
}

const limited = (settings) => Object.values(settings.limits).some((limit) => limit !== null);

// What the sentences say of models that are not chosen.
function others(group, settings, answer) {
  const { tied, next } = answer, top = answer.best;
  const named = tied.slice(0, 2).map((row) => row.label);
  if (tied.length > 2) named.push(count(tied.length - 2, "more model"));
  const row = shownOf(answer);
  return {
    others: tied.length === 0 ? null
      : `${listed(named)} ${tied.length === 1 ? "is" : "are"} good enough, too, and may be as cheap`,
    next: next && `${next.label} would be good enough with a margin of ${roundedUp(group.decided_by, next.at_most)}`,
    none: limited(settings) ? "No model within your limits" : `No model with a known ${spokenOf(group, settings).thing}`,
    top: `${top.label} performs best`,
    maybe: row.likely !== null && row.likely >= 0.5 ? "is probably good enough"
      : row === top ? "performs best so far" : "may be good enough",
    then: row === top && !(row.likely >= 0.5) ? " and" : ": it",
  };
}

const EYEBROWS = { good: "Good enough", tied: "Good enough, tied", open: "Cannot tell yet",
  only_best: "No cheaper model is good enough", one: "One model so far", none: "Nothing to choose" };

function eyebrow(answer, learnt) {
  if (!learnt) return "Has learnt nothing";
  if (answer.state !== "only_best") return EYEBROWS[answer.state];
  const cheaper = cheaperThan(answer.choice, answer), open = cheaper.some((row) => row.verdict === OPEN);
  if (!cheaper.length && answer.rows.every((row) => row.cost !== null)) return "Best and cheapest";
  return open ? "No cheaper model is shown to be good enough" : EYEBROWS.only_best;
}

// The models that cost less than another one, also those outside the limits.
const cheaperThan = (row, answer) => answer.rows.filter((other) => other.cost !== null && other.cost < row.cost);

// A part in brackets is left out where one of its slots is not known.
const SENTENCES = {
  good: {
    clinician: "It {finds}[, {fewer}][{comma} and {takes}].",
    researcher: "It {reaches}[, {below}][, for {share}][, and {ranks}].",
    funder: "It {costs}[ instead of {instead}][, which saves {saves}][, for {less}].",
  },
  tied: {
    clinician: "It {finds}[, {fewer}][{comma} and {takes}][; {others}].",
    researcher: "It {reaches}[, {below}][, for {share}][; {others}].",
    funder: "It {costs}[ instead of {instead}][, which saves {saves}][, for {less}][; {others}].",
  },
  open: {
    clinician: "It {maybe}{then} {finds}[, {fewer}][{comma} and {takes}].",
    researcher: "It {maybe}{then} {reaches}[, {below}][, for {share}].",
    funder: "It {maybe}{then} {costs}[ instead of {instead}][, which saves {saves}][, for {less}].",
  },
  only_best: {
    clinician: "It {finds}, {fewer}[, and {costs}][; {next}].",
    researcher: "It {reaches}, {below}[, and {costs}][; {next}].",
    funder: "It {costs}[, {stands}], and is the best of all[; {next}].",
  },
  one: {
    clinician: "It {finds}[ and {costs}].",
    researcher: "It {reaches}[ and {costs}].",
    funder: "It {costs}[, {stands}], and {finds}.",
  },
  none: {
    clinician: "{none} is good enough; {top}: it {finds}[ and {costs}].",
    researcher: "{none} is good enough; {top}: it {reaches}[ and {costs}].",
    funder: "{none} is good enough; {top}: it {costs} and {finds}.",
  },
};

const LEARNT_NOTHING = "In at least one run it names one class for every image, so that it {reaches} without having "
  + "learnt anything.";
const TRAIN_LONGER = " Train it longer or with other settings before you choose.";

function filled(template, words) {
  const slot = /\{(\w+)\}/g;
  const rest = template.replace(/\[([^\]]*)\]/g, (_, inner) =>
    ([...inner.matchAll(slot)].every(([, name]) => words[name] !== null) ? inner : ""));
  return rest.replace(slot, (_, name) => words[name]);
}

// The sentence of the first screen; a funder reads the clinician's where no cost is known.
function sentence(group, settings, answer) {
  const words = slots(group, settings, answer);
  if (shownOf(answer).codes.includes("one_class")) {
    return filled(LEARNT_NOTHING + (group.imported ? "" : TRAIN_LONGER), words);
  }
  const reader = words.costs === null ? "clinician" : settings.reader;
  return filled(SENTENCES[answer.state][reader], words);
}

// How sure the sentence is: a few strong words and what they say.
function certainty(group, settings, answer) {
  const level = `${number(100 * group.level)}%`, row = shownOf(answer), metric = group.decided_by;
  const margin = marginWords(metric, settings.margin), within = `at most ${margin} below the best`;
  if (answer.state === "one") return ["Nothing to compare it with yet.", ""];
  if (answer.state === "none") {
    if (!answer.rows.some((r) => r.allowed && r.cost !== null)) return ["There is no such model.", ""];
    return [`${level} confident`, ` that each of these is more than ${margin} below the best.`];
  }
  if (answer.choice !== null && answer.choice === answer.best) {
    return [`${level} confident`, ` that no model is more than ${margin} better.`];
  }
  if (answer.choice !== null) return [`${level} confident`, ` that it is ${within}.`];
  if (row.at_most === null) return ["How far it may be off is not known", `: ${row.no_interval || "no interval"}.`];
  if (row.likely === null) return ["Not shown", ` to be ${within}: it may be ${roundedUp(metric, row.at_most)} below.`];
  const claim = row === answer.best ? `that no model is more than ${margin} better` : `to be ${within}`;
  return [`${likelyWords(row)} likely`, ` ${claim}, ${row.likely < group.level ? `short of the ${level} required`
    : `but not shown with ${level} confidence in all comparisons at once`}.`];
}

// A share of draws in whole per cent; no share is certain.
function likelyWords(row) {
  const percent = Math.round(100 * row.likely);
  return percent > 99 ? "over 99%" : percent < 1 ? "under 1%" : `${percent}%`;
}

// What would tell whether the likeliest model is good enough, null where the facts do not say. Who reads
// published results can only choose another margin.
function decides(group, row) {
  if (row.at_most === null || row.likely === null) return null;
  if (row.more_images === null) return "Even a hundred times as many images or runs would not decide.";
  const parts = [], split = group.split === "val" ? "validation" : "test", times = number(Math.max(row.more_images, 1.1), 2);
  if (row.more_images > 1) {
    parts.push(group.images === null ? `${times} times as many ${split} images`
      : `${number(row.more_images * group.images, 2)} ${split} images (${times} times as many)`);
  }
  if (row.more_runs > 1) parts.push(`${count(Math.ceil(row.more_runs * row.n), "run")} of each model`);
  const margin = `a margin of ${roundedUp(group.decided_by, row.at_most)}`;
  if (group.imported) return `${capital(margin)} would decide.`;
  return parts.length ? `About ${parts.join(" and ")} would decide, and so would ${margin}.` : null;
}

// What the answer does not tell.
const DECIDING = { estimated: "Measured instead of estimated energy", imported: "Measuring them on one machine" };
function unknowns(group, settings, answer) {
  const { rows, counts } = answer, row = shownOf(answer), found = [];
  if (limited(settings) && answer.state !== "none") found.push("Only models within your limits were considered.");
  if (answer.state === "open") found.push(decides(group, row));
  else if (row.no_interval) found.push(`No interval is known: ${row.no_interval}.`);
  if (answer.state === "tied") {
    const source = Object.keys(DECIDING).find((name) => group.energy.includes(name));
    const by = source && ofTraining(settings) ? DECIDING[source] : "More runs of each";
    found.push(`${by} would tell which is cheapest.`);
  }
  if (group.split === "val" && group.metric.key !== group.decided_by.key) {
    found.push("Validation chose it; the test set only says how good it is.");
  }
  if (answer.state !== "open" && rows.length > 1 && counts.open) {
    const split = group.split === "val" ? "validation" : "test";
    const by = group.images === null ? `the ${split} images` : count(group.images, `${split} image`);
    const of = `${GROUPED.format(counts.open)} of the ${count(rows.length, "model")}`;
    found.push(`${of} cannot be judged with ${by}.`);
  }
  if (rows.length > 1 && rows.every((r) => r.n === 1)) found.push("Each model was trained once.");
  return found.filter(Boolean);
}

// A few words about the answer of a group, for the switch between groups.
function short(answer) {
  const { label: name, codes } = shownOf(answer);
  if (codes.includes("one_class")) return `${name} has learnt nothing`;
  return { good: `${name} is good enough`, tied: `${name} is good enough, tied`, open: "cannot tell yet",
    only_best: `${name}, no cheaper one`, one: `${name} so far`, none: "nothing to choose" }[answer.state];
}

// "131 fine-tuned models on DermaMNIST".
function about(group) {
  const start = group.pretrained === true ? "fine-tuned model" : "model";
  return count(group.rows.length, start) + (group.pretrained === false ? " trained from scratch" : "")
    + (group.dataset === null ? "" : ` on ${group.dataset}`);
}
