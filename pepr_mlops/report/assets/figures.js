// The figures made in Python: drawn when they come near the window, light or dark.
"use strict";
// What Python has compressed and written in base64, as text.
async function unpacked(base64) {
  const packed = atob(base64), bytes = new Uint8Array(packed.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = packed.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

// Runs the plotly.js that a report carries compressed: words and table need not wait for it. The policy
// of the page allows its text by its hash. Elsewhere plotly.js is a file that has run before.
async function loadPlotly() {
  const packed = document.getElementById("plotly");
  if (!packed) return;
  const script = document.createElement("script");
  script.textContent = await unpacked(packed.textContent);
  document.head.append(script);
}
const plotly = loadPlotly();

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
  for (const entry of entries) {
    if (entry.isIntersecting) plotly.then(() => drawFigure(Number(entry.target.closest(".figure").dataset.figure)));
  }
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

async function saveCsv(button) {
  saveFile(button.dataset.file, new Blob([await unpacked(button.dataset.csv)], { type: "text/csv" }));
}

function saveFile(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
