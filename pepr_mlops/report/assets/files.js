// Everything to take away: numbers as CSV, all of them in one archive, and what to cite.
"use strict";
let shownAnswer = null; // what the table is made from

views.push(({ group, settings, answer }) => {
  shownAnswer = answer && { group, settings, answer };
  const place = document.getElementById("files");
  if (!place.childElementCount) place.append(...fileList());
  for (const [id, of, text] of [["copy-methods", "methods-text", "Copy text"], ["copy-bibtex", "bibtex", "Copy BibTeX"]]) {
    const source = document.getElementById(of);
    if (source && !document.getElementById(id)) source.after(copyButton(id, of, text));
  }
});

// A CSV cell that a spreadsheet takes for no formula.
function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "string") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// The table with its columns, order and search, all pages of it; numbers are not rounded.
function tableCsv({ group, settings, answer }) {
  const at = { group, settings, answer }, keys = chosenColumns(at);
  const fields = keys.flatMap((key) => (CSV_OF[key] || [[key, (row) => COLUMNS[key].value(row, at)]]));
  const lines = [fields.map(([name]) => name), ...foundRows(at).map((row) => fields.map(([, value]) => value(row, at)))];
  return lines.map((line) => line.map(csvCell).join(",")).join("\n") + "\n";
}

const field = (name) => [name, (row) => row[name]];
// Columns of the file for a column of the table, where its value is not what the reader sees.
const CSV_OF = {
  rank: ["rank", "rank_low", "rank_high"].map(field),
  model: [["model", (row) => row.label]],
  p: [["performance", (row) => row.p]],
  interval: ["p_low", "p_high"].map(field),
  cost: [["cost", (row) => row.cost], ["cost_low", (row) => row.low], ["cost_high", (row) => row.high],
    ["cost_estimated", (row, { group, settings }) => guessWords(group, settings, [row]).join()],
    ["cost_name", (row, { group, settings }) => (settings.images ? LIFETIME : settings.by)],
    ["cost_unit", (row, { group, settings }) => unitOf(group, settings)]],
  money: [["electricity", (row, { settings }) => moneyOf(row, settings)], ["currency", () => page.currency]],
  co2e: [["co2e_g", (row, { settings }) => gramsOf(row, settings)]],
  saving: [["saved", (row, { answer }) => (row.cost === null || answer.best.cost === null ? null : answer.best.cost - row.cost)],
    ["saved_unit", (row, { group, settings }) => unitOf(group, settings)]],
  score: ["score", "ci_low", "ci_high"].map(field),
  verdict: [["verdict", (row) => (row.allowed ? row.verdict : "outside the limits")]],
  curve: [["curve", (row) => row.curve.join(" ")]],
  doubts: [["doubts", (row) => row.codes.join(" ")]],
};

const figureButtons = () => [...document.querySelectorAll("#main .figure .csv")];

function fileList() {
  const all = action("Download all (ZIP)", async () => saveFile("pepr.zip", zipped(await allFiles())));
  const table = action("Ranking as shown (CSV)", () => saveFile("ranking.csv", csvFile(tableCsv(shownAnswer))));
  const figures = figureButtons().map((button) => {
    const title = button.closest(".figure").querySelector("h3").firstChild.textContent;
    return node("li", {}, `${title} `, action(button.dataset.file, () => saveCsv(button)));
  });
  all.classList.add("main");
  return [node("p", { className: "files-row" }, all, table), node("p", { className: "note" }, "The numbers behind each figure:"),
    node("ul", { className: "csvs" }, ...figures)];
}

const csvFile = (text) => new Blob([text], { type: "text/csv" });

async function allFiles() {
  const files = [["ranking.csv", tableCsv(shownAnswer)]];
  for (const button of figureButtons()) files.push([button.dataset.file, await unpacked(button.dataset.csv)]);
  for (const [name, id] of [["methods.txt", "methods-text"], ["references.bib", "bibtex"]]) {
    const source = document.getElementById(id);
    if (source) files.push([name, source.textContent.trim() + "\n"]);
  }
  return files;
}

function action(text, act) {
  const button = node("button", { type: "button" }, text);
  button.addEventListener("click", act);
  return button;
}

// Copies the text of an element, and says so; without the right to, it selects the text.
function copyButton(id, of, text) {
  const button = action(text, async () => {
    const source = document.getElementById(of);
    try {
      await navigator.clipboard.writeText(source.textContent.trim());
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { button.textContent = text; }, 3000);
  });
  button.id = id;
  button.setAttribute("aria-live", "polite");
  return button;
}
