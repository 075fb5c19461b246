// What the reader has set, kept in the address after #, and the views that follow it.
"use strict";
let page = JSON.parse(document.getElementById("facts").textContent);
const views = []; // functions of {group, settings, answer}, called after every change
let settings = {};
const READERS = { clinician: "Clinician", researcher: "Researcher", funder: "Funder" };

// Everything a reader can set for a group, as the report was made.
function original(group) {
  return { margin: group.margin, alpha: group.alpha, weights: { ...group.weights }, by: group.by,
    images: group.images_per_year, years: group.years, price: page.price, grams: group.gco2e_per_kwh,
    limits: {} };
}

// How a reader has the table; no answer depends on it. `columns` are keys, none for the usual ones.
const LOOKS = { columns: "", sort: "rank" };

const everySetting = (group) => ({ ...original(group), ...LOOKS });

const isAmount = (value) => Number.isFinite(value) && value >= 0;
const isAmountOrNone = (value) => value === null || isAmount(value);
const areAll = (values, right) => values !== null && !Array.isArray(values) && Object.values(values).every(right);
// What a setting of the address may be, where its type says too little.
const SENSIBLE = {
  margin: (value) => value > 0 && value < 1, alpha: (value) => value > 0 && Number.isFinite(value), years: isAmount,
  weights: (value) => areAll(value, isAmount), limits: (value) => areAll(value, isAmountOrNone),
  by: (value, group) => value in group.costs, images: isAmountOrNone, price: isAmountOrNone, grams: isAmountOrNone,
};

const groupOf = (name) => page.groups.find((group) => group.name === name) || page.groups[0];

// The address: reader and group, and each setting that is not as the report was made.
function written() {
  const group = groupOf(settings.group), first = everySetting(group), words = new URLSearchParams();
  if (settings.reader !== page.reader) words.set("reader", settings.reader);
  if (group !== page.groups[0]) words.set("group", group.name);
  for (const [name, value] of Object.entries(first)) {
    if (JSON.stringify(settings[name]) !== JSON.stringify(value)) {
      words.set(name, typeof value === "object" && value !== null ? JSON.stringify(settings[name]) : settings[name]);
    }
  }
  return words.toString();
}

function read() {
  const words = new URLSearchParams(location.hash.slice(1));
  const group = groupOf(words.get("group"));
  const reader = words.get("reader") in READERS ? words.get("reader") : page.reader;
  settings = { reader, group: group && group.name };
  if (!group) return;
  for (const [name, value] of Object.entries(everySetting(group))) {
    const found = words.has(name) ? parsed(words.get(name), value) : value;
    settings[name] = !SENSIBLE[name] || SENSIBLE[name](found, group) ? found : value;
  }
}

// A setting from the address; one that makes no sense is as the report was made.
function parsed(text, value) {
  if (typeof value === "string") return text;
  try {
    const found = JSON.parse(text);
    return value === null || typeof found === typeof value ? found : value;
  } catch {
    return value;
  }
}

function change(patch) {
  Object.assign(settings, patch);
  if ("group" in patch) Object.assign(settings, original(groupOf(patch.group)));
  remember();
  update();
}

const remember = () => history.replaceState(null, "", "#" + written());

function update() {
  const group = groupOf(settings.group);
  if (!group) return; // the live page has no results yet
  const found = { group, settings, answer: answered(group, settings) };
  for (const view of views) view(found);
}
