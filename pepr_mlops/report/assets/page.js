// Starts the page, and starts it again when the live page has news.
"use strict";
function start() {
  read();
  root.dataset.theme = theme();
  update();
  watchFigures();
  plotly.then(() => { root.dataset.drawn = "yes"; });
}

document.addEventListener("click", (event) => {
  const button = event.target.closest(".csv");
  if (button) saveCsv(button);
});
document.getElementById("theme").addEventListener("click", () => {
  chosenTheme = theme() === "dark" ? "light" : "dark";
  repaint();
});
system.addEventListener("change", repaint);
addEventListener("hashchange", () => { read(); update(); });
start();
