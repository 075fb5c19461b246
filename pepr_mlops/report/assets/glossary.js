// Terms that a reader may not know: a button next to each opens its meaning.
"use strict";
const TERMS = {
  pepr: ["PePR", "Performance per resource unit, αP / (α + R). P is the performance from 0 to 1 and R the cost from 0 to 1. "
    + "A model scores high if it is both good and cheap."],
  r: ["R", "The cost on a scale from 0 to 1. With the usual normalisation the cheapest model has 0 and the most expensive 1."],
  alpha: ["α", "How much performance counts against cost in PePR: with a larger α, cost counts less. Usually 1."],
  pareto: ["Pareto-optimal", "No other model is better in performance or cost without being worse in the other."],
  wh: ["Wh", "Watt-hour, a unit of energy: what a device of one watt uses in an hour. 1,000 Wh are 1 kWh."],
  co2e: ["CO2e", "CO2 equivalent: the greenhouse gases from making the electricity, as the mass of CO2 that warms as much. It is the "
    + "energy times the intensity of the grid."],
  auc: ["AUC", "Area under the ROC curve: how often a random image with the finding gets a higher score than one without. "
    + "1 is perfect, 0.5 is chance."],
  interval: ["95% interval", "The range that holds the true value with 95% confidence. It accounts for the choice of test images, "
    + "for differences between training runs and for the error of the energy."],
  rank: ["rank interval", "The places that a model takes in 95% of equally likely repetitions of the comparison. Models whose "
    + "intervals overlap may be in either order."],
};

// Figures that use a term, by kind: it is explained next to their title.
const OF_FIGURES = { plane: "pareto", sensitivity: "alpha", curves: "r", clinical: "auc", energy: "wh", ranking: "interval" };

const tip = node("div", { id: "tip", hidden: true, "aria-hidden": "true" });
const meanings = node("div", { hidden: true }, ...Object.entries(TERMS).map(([key, [, text]]) => node("p", { id: `term-${key}` }, text)));
document.body.append(tip, meanings);

// The button that explains a term of TERMS.
function explain(key) {
  return node("button", { type: "button", className: "term", "aria-label": `What is ${TERMS[key][0]}?`,
    "aria-describedby": `term-${key}`, "data-explains": key, "data-key": `explains ${key}` }, "?");
}

// Every element that is marked by data-term, and the titles of figures, once.
views.push(() => {
  for (const title of document.querySelectorAll(".figure h3:not([data-term])")) {
    title.dataset.term = OF_FIGURES[title.closest(".figure").dataset.kind] || "";
  }
  for (const place of document.querySelectorAll("[data-term]:not([data-explained])")) {
    place.dataset.explained = "yes";
    if (place.dataset.term in TERMS) place.append(" ", explain(place.dataset.term));
  }
});

function showTip(button) {
  tip.textContent = TERMS[button.dataset.explains][1];
  tip.hidden = false;
  const of = button.getBoundingClientRect(), width = tip.offsetWidth;
  tip.style.left = `${Math.max(8, Math.min(of.left, document.documentElement.clientWidth - width - 8)) + scrollX}px`;
  tip.style.top = `${of.bottom + 6 + scrollY}px`;
}

const termOf = (event) => event.target.closest?.(".term");
for (const kind of ["mouseover", "focusin", "click"]) {
  document.addEventListener(kind, (event) => {
    const button = termOf(event);
    if (button) showTip(button);
    else if (kind === "click") tip.hidden = true;
  });
}
for (const kind of ["mouseout", "focusout"]) {
  document.addEventListener(kind, (event) => { if (termOf(event)) tip.hidden = true; });
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
