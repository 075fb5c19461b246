// Which model is good enough under the reader's settings. No DOM: facts and settings in, facts out.
"use strict";
const GOOD = "good enough", BAD = "not good enough", OPEN = "cannot tell";
const SURE = 1.645; // standard errors: cheaper with 95% confidence

const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

// Weights that sum to 1, of the costs that have bounds; equal ones where all are 0.
function shares(group, weights) {
  const names = Object.keys(group.bounds).filter((name) => weights[name] > 0);
  const total = sum(names.map((name) => weights[name]));
  if (total > 0) return Object.fromEntries(names.map((name) => [name, weights[name] / total]));
  const all = Object.keys(group.bounds);
  return Object.fromEntries(all.map((name) => [name, 1 / all.length]));
}

// Whether the CO2e is that of another grid than that of the runs.
const onOtherGrid = (group, { grams }) => "C" in group.costs && grams !== null && grams !== group.gco2e_per_kwh;

// The row under the reader's grid: every CO2e is the energy times the same intensity, so that its R is
// that of the energy, unless it is normalised by given bounds.
function onGrid(group, row, settings) {
  if (!onOtherGrid(group, settings)) return row;
  const with_ = (of) => ({ ...of, C: of.E === undefined || of.E === null ? null : (of.E / 1000) * settings.grams });
  const costs = with_(row.costs);
  const r = group.given_bounds && "C" in group.bounds ? scaled(costs.C, group.bounds.C) : row.R.E ?? null;
  return { ...row, costs, low: with_(row.low), high: with_(row.high), noise: { ...row.noise, C: row.noise.E ?? null },
    R: { ...row.R, C: r } };
}

// R of a cost between bounds, clipped; with equal bounds it is 0 up to them.
function scaled(cost, [low, high]) {
  if (cost === null) return null;
  return high === low ? Number(cost > high) : Math.min(Math.max((cost - low) / (high - low), 0), 1);
}

// Whether score and ranks are those of the report, whose intervals then hold.
function scoredAsMade(group, settings) {
  const first = original(group), asMade = (name) => JSON.stringify(settings[name]) === JSON.stringify(first[name]);
  return asMade("alpha") && asMade("weights") && !(onOtherGrid(group, settings) && "C" in shares(group, settings.weights));
}

// The cost that models are chosen by, with what is known of its error.
function costOf(group, row, settings) {
  const asMade = settings.images === group.images_per_year && settings.years === group.years;
  if (settings.images && !asMade) {
    const training = row.costs.E ?? null, known = training !== null && row.wh_per_image !== null;
    return { cost: known ? training + settings.images * settings.years * row.wh_per_image : null,
      low: null, high: null, noise: row.noise.E ?? null };
  }
  const by = settings.images ? group.by : settings.by;
  return { cost: row.costs[by], low: row.low[by], high: row.high[by], noise: row.noise[by] };
}

function verdictOf(row, margin) {
  if (row.at_most === null) return OPEN;
  return row.at_most <= margin ? GOOD : row.at_least > margin ? BAD : OPEN;
}

function within(row, limits) {
  return Object.entries(limits).every(([name, limit]) =>
    limit === null || (name === "p" ? row.p >= limit : row.costs[name] !== null && row.costs[name] <= limit));
}

// Rows by score, with rank, cost and verdict under the settings. How likely a model is good enough
// and what would decide is known for the margin that the report was made with.
function ranked(group, settings, asMade, sameMargin) {
  const share = shares(group, settings.weights), names = Object.keys(share);
  const rows = group.rows.map((made) => {
    const row = onGrid(group, made, settings);
    const r = names.every((n) => row.R[n] !== null) ? sum(names.map((n) => share[n] * row.R[n])) : null;
    const score = r === null ? null : (settings.alpha * row.p) / (settings.alpha + r);
    const likely = sameMargin && row.at_most !== null;
    const unknown = likely ? {} : { likely: null, more_images: null, more_runs: null };
    const found = { ...row, ...unknown, ...costOf(group, row, settings), r, score,
      verdict: verdictOf(row, settings.margin), allowed: within(row, settings.limits) };
    return asMade ? { ...found, score: row.score } : { ...found, ci_low: null, ci_high: null,
      rank_low: null, rank_high: null };
  });
  rows.sort((a, b) => b.score - a.score || b.p - a.p);
  rows.forEach((row, i) => { row.rank = i && row.score === rows[i - 1].score ? rows[i - 1].rank : i + 1; });
  return rows;
}

// State, one of: one, none (all that may be chosen are worse), open, only_best, tied, good. `choice`
// is the cheapest good-enough model, `likely` the cheapest that is probably one where none is shown
// to be, or else the nearest to the best that may be one, `tied` those that may be as cheap as the
// choice, `next` the cheaper model that needs the least margin.
function answered(group, settings) {
  const first = original(group);
  const same = (...names) => names.every((n) => JSON.stringify(settings[n]) === JSON.stringify(first[n]));
  const rows = ranked(group, settings, scoredAsMade(group, settings), same("margin"));
  const best = rows.reduce((a, b) => (before(a, b) <= 0 ? a : b));
  const cheap = rows.filter((row) => row.allowed && row.cost !== null).sort((a, b) => a.cost - b.cost);
  const good = cheap.filter((row) => row.verdict === GOOD), choice = good[0] || null;
  const tied = choice === null ? [] : good.slice(1).filter((row) => !dearer(row, choice));
  const cheaper = cheap.filter((row) => row.cost < (choice || best).cost && row.at_most !== null);
  const next = cheaper.reduce((a, b) => (a === null || b.at_most < a.at_most ? b : a), null);
  const open = cheap.filter((row) => row.verdict !== BAD);
  const probable = open.find((row) => (row.likely === null ? row.behind <= settings.margin : row.likely >= 0.5))
    || open.reduce((a, b) => (a === null || b.behind < a.behind ? b : a), null);
  return { state: stateOf(rows, cheap, choice, best, tied), rows, best, choice, tied, next,
    likely: choice === null ? probable : null,
    counts: { good: rows.filter((row) => row.verdict === GOOD).length,
      open: rows.filter((row) => row.verdict === OPEN).length,
      bad: rows.filter((row) => row.verdict === BAD).length },
    saving: choice === null || choice === best || !(best.cost > 0) ? null
      : savingOf(group, settings, choice, best,
        same("margin", "by", "images", "years", "limits", ...(settings.by === "C" ? ["grams"] : []))),
    as_made: Object.keys(first).every((name) => same(name)) };
}

// Whether a model costs more than another for certain.
function dearer(row, other) {
  if (other.cost === 0) return row.cost > 0;
  if (row.noise === null || other.noise === null) return false;
  return Math.log(row.cost / other.cost) >= SURE * Math.hypot(row.noise, other.noise);
}

// The better of two models; of equals that of the better verdict, then the cheaper one.
const VERDICTS = [GOOD, OPEN, BAD];
function before(a, b) {
  return b.decided - a.decided || VERDICTS.indexOf(a.verdict) - VERDICTS.indexOf(b.verdict)
    || (a.cost === null ? Infinity : a.cost) - (b.cost === null ? Infinity : b.cost) || 0;
}

function stateOf(rows, cheap, choice, best, tied) {
  if (rows.length === 1) return "one";
  if (cheap.every((row) => row.verdict === BAD)) return "none";
  if (choice === null) return "open";
  if (tied.length) return "tied";
  return choice === best ? "only_best" : "good";
}

// What the choice costs less than the best; the interval is known as the report was made only.
function savingOf(group, settings, choice, best, asMade) {
  const known = asMade ? group.savings[group.by] : undefined;
  const amount = best.cost - choice.cost;
  return { amount, share: amount / best.cost, times: best.cost / choice.cost,
    low: known ? known.amount_low : null, high: known ? known.amount_high : null };
}
