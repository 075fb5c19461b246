// The list of sections, which stays in view and marks the section that is read.
"use strict";
const sectionsOf = () => [...document.querySelectorAll("#main > section")];

views.push(() => {
  const list = document.getElementById("contents");
  if (!list || list.childElementCount) return;
  list.append(node("ul", {}, ...sectionsOf().map((section) => {
    const heading = section.querySelector("h2"), text = heading ? heading.textContent : section.getAttribute("aria-label");
    return node("li", {}, node("a", { href: `#${section.id}`, "data-section": section.id }, text));
  })));
  markSection();
});

// The section that is read: the last one that has passed the upper third, at the end of the page the last.
function markSection() {
  const sections = sectionsOf(), end = scrollY + innerHeight >= root.scrollHeight - 2;
  const passed = sections.filter((section) => section.getBoundingClientRect().top < innerHeight / 3);
  const here = (scrollY > 0 && end ? sections : passed).at(-1) || sections[0];
  for (const link of document.querySelectorAll("#contents a")) {
    const current = link.dataset.section === here.id, strip = link.closest("ul");
    if (current === link.hasAttribute("aria-current")) continue;
    if (!current) link.removeAttribute("aria-current");
    else {
      link.setAttribute("aria-current", "true");
      strip.scrollLeft = link.offsetLeft - 40;
    }
  }
}

addEventListener("scroll", markSection, { passive: true });
