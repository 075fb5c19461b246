// What the reader can change, and what that changed against the report as it was made.
"use strict";
const LIFETIME = "lifetime_wh";

// A control of a number: what it is called, its unit, its value in the settings and the patch that
// sets it. `scale` is what a reader's number is divided by, `empty` whether it may have none, `range`
// the ends and step of its slider, `most` an upper limit of what is allowed.
function numberControls(group) {
  const points = group.metric.share, scale = points ? 100 : 1;
  const weighed = Object.keys(group.bounds);
  const ofLimit = (name, text, unit, by = 1) => ({ name: `limit ${name}`, text, unit, scale: by, empty: true,
    get: (settings) => settings.limits[name] ?? null,
    set: (value, settings) => ({ limits: withLimit(settings.limits, name, value) }) });
  const used = group.rows.some((row) => row.wh_per_image !== null);
  return {
    verdict: [
      { ...simple("margin", "Margin", points ? "points" : ""), scale, range: [0.1 / 100, 0.1, 0.1 / 100], most: 1, term: null },
      { ...simple("alpha", "α", ""), range: [0.1, 10, 0.1], term: "alpha" },
      ...(weighed.length < 2 ? [] : weighed.map((name) => ({ name: `weight ${name}`, text: `Weight of ${costName(group, name)}`,
        unit: "", scale: 1, range: [0, 1, 0.05], get: (settings) => settings.weights[name] ?? 0,
        set: (value, settings) => ({ weights: withWeight(group, settings.weights, name, value) }) }))),
    ],
    use: used ? [
      { ...simple("images", "Images per year", ""), empty: true, set: (value, settings) => ({ images: value || null,
        ...(value || settings.by !== LIFETIME ? {} : { by: Object.keys(group.costs).find((name) => name !== LIFETIME) }) }) },
      simple("years", "Years of use", ""),
    ] : [],
    grid: [
      { ...simple("price", "Price of a kWh", page.currency), empty: true },
      { ...simple("grams", "CO2e of electricity", "g/kWh"), empty: true, term: "co2e" },
    ],
    limits: [
      ofLimit("p", `${capital(group.metric.name)} at least`, points ? "%" : "", scale),
      ...Object.keys(group.costs).filter((name) => name !== LIFETIME).map((name) =>
        ofLimit(name, `${capital(costName(group, name))} at most`, group.costs[name].unit)),
    ],
  };
}

const costName = (group, name) => group.costs[name]?.name || name;

function simple(name, text, unit) {
  return { name, text, unit, scale: 1, get: (settings) => settings[name], set: (value) => ({ [name]: value }) };
}

// Equal to the weights of the report where they weigh the same.
function withWeight(group, weights, name, value) {
  const found = { ...weights, [name]: value };
  if (value === 0 && !(name in group.weights)) delete found[name];
  return found;
}

function withLimit(limits, name, value) {
  const { [name]: _, ...others } = limits;
  return value === null ? others : { ...others, [name]: value };
}

const TITLES = { verdict: "Good enough and score", use: "Use", grid: "Electricity", limits: "Limits" };
let controlsOf = null; // the group and form that the controls were made for, with those that follow

views.push(({ group, settings, answer }) => {
  const form = document.getElementById("controls");
  if (!answer) return;
  if (!controlsOf || controlsOf.group !== group || !form.childElementCount) controlsOf = makeControls(form, group);
  for (const follow of controlsOf.follow) follow(settings);
  form.querySelector(".differences").textContent = changedText(group, settings);
  form.querySelector(".reset").disabled = answer.as_made;
});

function makeControls(form, group) {
  const follow = [], kinds = numberControls(group);
  const sets = Object.entries(kinds).map(([kind, controls]) => {
    const fields = controls.map((control) => numberField(control, follow));
    if (kind === "verdict" && Object.keys(group.costs).length > 1) fields.push(costChoice(group, follow));
    if (kind === "use" && !controls.length) fields.push(node("p", { className: "note" },
      "What using a model costs is not known here.", ...(group.imported ? [] : [" ", node("code", {}, "pepr profile"), " measures it."])));
    return node("fieldset", {}, node("legend", {}, TITLES[kind]), ...fields);
  });
  const reset = node("button", { type: "button", className: "reset" }, "Reset");
  reset.addEventListener("click", () => change(original(groupOf(settings.group))));
  const state = node("div", { className: "state" }, node("p", { className: "note differences", role: "status" }), reset);
  form.replaceChildren(state, ...sets);
  return { group, follow };
}

// A number with its slider, where it has one. What makes no sense is marked and changes nothing.
function numberField(control, follow) {
  const { name, scale, empty, most } = control, id = `set-${name.replaceAll(" ", "-")}`;
  const input = node("input", { type: "number", id, step: "any", min: "0", inputMode: "decimal", "data-setting": name });
  const slider = control.range && node("input", { type: "range", "aria-label": control.text, min: control.range[0] * scale,
    max: control.range[1] * scale, step: control.range[2] * scale, "data-setting": `${name} slider` });
  const take = (text) => {
    const value = text === "" ? null : Number((Number(text) / scale).toPrecision(12));
    const fits = value === null ? Boolean(empty) : value >= 0 && (value > 0 || empty || control.range?.[0] === 0) && !(value >= most);
    input.setAttribute("aria-invalid", String(!fits));
    if (fits) change(control.set(value, settings));
  };
  input.addEventListener("input", () => take(input.validity.badInput ? "-" : input.value));
  if (slider) slider.addEventListener("input", () => take(slider.value));
  follow.push((current) => {
    const value = control.get(current), text = value === null ? "" : String(Number((value * scale).toPrecision(7)));
    if (document.activeElement !== input) { input.value = text; input.setAttribute("aria-invalid", "false"); }
    if (slider && document.activeElement !== slider) slider.value = text;
  });
  const label = node("label", { htmlFor: id }, control.unit ? `${control.text} (${control.unit})` : control.text);
  return node("div", { className: "control" }, node("span", {}, label, control.term ? explain(control.term) : null),
    slider || null, input);
}

function costChoice(group, follow) {
  const options = Object.entries(group.costs).map(([name, cost]) => node("option", { value: name }, cost.name));
  const select = node("select", { id: "set-by", "data-setting": "by" }, ...options);
  select.addEventListener("change", () => change({ by: select.value }));
  follow.push((current) => { select.value = current.by; select.disabled = Boolean(current.images); });
  return node("div", { className: "control" }, node("label", { htmlFor: "set-by" }, "Cheapest by"), select);
}

const CHANGES = { margin: "margin", alpha: "α", weights: "weights", by: "cost", images: "images per year", years: "years",
  price: "price", grams: "CO2e of electricity", limits: "limits" };

// One line: what is not as the report was made, and what is not shown therefore.
function changedText(group, settings) {
  const first = original(group);
  const changed = Object.keys(CHANGES).filter((name) => JSON.stringify(settings[name]) !== JSON.stringify(first[name]));
  if (!changed.length) return "These are the settings that the report was made with.";
  const of = (name) => (["margin", "alpha", "years", "price", "grams", "images"].includes(name)
    ? `${CHANGES[name]} (was ${wasText(group, name, first[name])})` : CHANGES[name]);
  return `Changed: ${changed.map(of).join(", ")}.` + (scoredAsMade(group, settings) ? ""
    : " Intervals of scores and ranks belong to the original settings, so they are not shown.");
}

function wasText(group, name, value) {
  if (value === null) return "not set";
  return name === "margin" ? marginWords(group.decided_by, value) : String(value);
}
