// On paper the page is light, has the first models of the table, and a figure as wide as the paper.
"use strict";
const PAPER = { width: "640px", height: "430px" }; // of the figure: what A4 has between margins and frame

function forPaper(printing) {
  root.dataset.theme = printing ? "light" : theme();
  Object.assign(document.querySelector("#hero .plot").style, printing ? PAPER : { width: "", height: "" });
  if (printing) table.page = 0;
  update();
  plotHero();
}

addEventListener("beforeprint", () => forPaper(true));
addEventListener("afterprint", () => forPaper(false));
