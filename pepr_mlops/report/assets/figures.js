// The figures made in Python: drawn when they come near the window, light or dark.
"use strict";
const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");
let chosenTheme = null; // light or dark once the button was pressed
const theme = () => chosenTheme || (system.matches ? "dark" : "light");
// Two buttons that appear in the margin above a plot; a finger scrolls the page instead of zooming.
const PLOT = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "resetScale2d"]],
  toImageButtonOptions: { format: "svg" } };
const dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
const drawnIn = new Map(); // the theme each figure was last drawn in

function drawFigure(i) {
  const box = document.getElementById("figure-" + i), figure = page.figures[i];
  if (drawnIn.get(i) === theme()) return;
  drawnIn.set(i, theme());
  Plotly.react(box, figure.data, { ...figure.layout, dragmode, template: page.templates[theme()] }, PLOT).then(() => {
    if (page.runPage && !box.dataset.opens) {
      box.dataset.opens = "yes";
      box.on("plotly_click", (event) => {
        const id = event.points[0].id;
        if (id) window.open(page.runPage + encodeURIComponent(id), "_blank", "noopener");
      });
    }
  });
}

const near = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) drawFigure(Number(entry.target.closest(".figure").dataset.figure));
}, { rootMargin: "600px" });

function watchFigures() {
  drawnIn.clear();
  for (const box of document.querySelectorAll(".figure .plot")) {
    const figure = page.figures[Number(box.closest(".figure").dataset.figure)];
    box.style.minHeight = figure.layout.height + "px"; // what is below does not move when it is drawn
    near.observe(box);
  }
}

// Figures and explanations of other groups are hidden.
views.push(({ group }) => {
  for (const box of document.querySelectorAll("#main [data-group]")) {
    box.hidden = Boolean(group) && box.dataset.group !== "" && box.dataset.group !== group.name;
  }
});

function repaint() {
  root.dataset.theme = theme();
  for (const i of [...drawnIn.keys()]) drawFigure(i);
  update();
}

// The numbers of a figure, which its button carries compressed.
async function unpackedCsv(button) {
  const bytes = Uint8Array.from(atob(button.dataset.csv), (c) => c.charCodeAt(0));
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(unpacked).text();
}

async function saveCsv(button) {
  saveFile(button.dataset.file, new Blob([await unpackedCsv(button)], { type: "text/csv" }));
}

function saveFile(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
