// Keeps the live page as its server has it: news, troubles, runs under way, the choice of experiments.
{
  const TICK_MS = 3000, BUSY_MS = 400, PATIENCE_MS = 20000;
  const box = (id) => document.getElementById(id), main = box("main");
  const time = (ms) => new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const when = (ms) => (Date.now() - ms < 20 * 3600e3 ? "" : new Date(ms).toLocaleDateString() + " ") + time(ms);
  let version = "", underWay = { runs: [], finished: null }, held = false, timer, busy = false, away = null, waiting = null;
  const experiments = page.experiments; // by the address or the command line

  async function poll() {
    if (busy || document.hidden) return;
    clearTimeout(timer);
    busy = true;
    let news = null;
    try {
      news = await fetched();
      if (news) follow(news);
    } finally {
      busy = false;
      timer = setTimeout(poll, news?.doing ? BUSY_MS : TICK_MS);
    }
  }

  // What the page's own server has; null, and a trouble on the page, where it does not answer.
  async function fetched() {
    const query = new URLSearchParams(location.search);
    query.set("version", version);
    let refusal = "";
    try {
      const answer = await fetch("changes?" + query, { signal: AbortSignal.timeout(PATIENCE_MS) });
      if (answer.ok) {
        const news = await answer.json();
        away = null;
        return news;
      }
      if (answer.headers.get("Content-Type").startsWith("text/plain")) refusal = await answer.text();
    } catch { /* it has ended, or the network is gone */ }
    away = away || Date.now();
    say(`pepr dashboard has not answered since ${when(away)}. The page tries every 3 seconds.`, refusal);
    return null;
  }

  function follow(news) {
    if (news.trouble) {
      say(`No news from the tracking server since ${when(news.trouble.since)}. The page tries every 3 seconds.`,
        page.groups.length ? news.trouble.text : "");
    } else say("", "");
    if (news.doing && !version) main.querySelector("h1").textContent = news.doing + " …";
    if ("main" in news) {
      waiting = news;
      if (!held) show();
    }
    const now = { runs: news.under_way, finished: news.finished };
    if (JSON.stringify(now) !== JSON.stringify(underWay)) {
      underWay = now;
      strip();
    }
  }

  // A trouble, or its end: an alert is read out when its text changes.
  function say(text, why) {
    const alert = box("trouble");
    if (alert.textContent !== text + why) alert.replaceChildren(text, why && node("p", {}, why));
  }

  // Shows new content as the reader has the page: settings, open details, place and focus stay.
  function show() {
    const before = new Set([...main.querySelectorAll("details[open]")].map(place));
    const heights = new Map([...main.querySelectorAll(".plot")].map((plot) => [place(plot), plot.offsetHeight]));
    const focus = document.activeElement && main.contains(document.activeElement) ? document.activeElement : null;
    const focused = focus && place(focus), caret = focus && "selectionStart" in focus ? focus.selectionStart : null;
    const top = scrollY, seen = top > 0 && [focus, ...main.querySelectorAll("h2, h3, summary, figure")].find(inView);
    const read = seen && { at: place(seen), top: seen.getBoundingClientRect().top };
    for (const plot of main.querySelectorAll(".js-plotly-plot")) Plotly.purge(plot);
    near.disconnect();
    heroSize.disconnect();
    main.innerHTML = waiting.main;
    page = waiting.data;
    version = root.dataset.version = waiting.version;
    waiting = null;
    if (box("again")) box("again").hidden = !page.groups.length;
    document.title = box("title").textContent = page.title;
    start();
    box("first-command")?.parentElement.after(copyButton("copy-command", "first-command", "Copy"));
    for (const one of main.querySelectorAll("details")) if (before.has(place(one))) one.open = true;
    for (const plot of main.querySelectorAll(".plot")) {
      if (heights.has(place(plot))) plot.style.minHeight = heights.get(place(plot)) + "px";
    }
    const again = focused && at(focus.tagName, focused);
    if (again) again.focus({ preventScroll: true });
    if (again && caret !== null) again.setSelectionRange(caret, caret);
    const stays = read && at(seen.tagName, read.at);
    scrollTo(0, stays ? scrollY + stays.getBoundingClientRect().top - read.top : top);
    box("updated").textContent = `Updated ${time(Date.now())}`;
    strip();
  }

  function inView(one) {
    const area = one?.getBoundingClientRect();
    return area && area.bottom > 0 && area.top < innerHeight;
  }

  function at(tag, wanted) {
    return [...main.querySelectorAll(tag)].find((one) => place(one) === wanted);
  }

  // Where an element is in the page, in words that new content has too.
  function place(one) {
    const figure = one.closest("figure"), section = one.closest("section");
    const name = one.id.startsWith("figure-") ? "" : one.id || one.name || one.getAttribute("aria-label");
    const label = one.matches("details") ? one.querySelector("summary") : one;
    const kind = figure && [figure.dataset.kind, figure.dataset.group, figure.querySelector("h3")?.textContent];
    return JSON.stringify([section?.id, kind, one.tagName, name || label.textContent.slice(0, 80)]);
  }

  // How far the runs under way are. What is below is of the runs that have finished.
  function strip() {
    const { runs, finished } = underWay, area = box("under-way");
    area.hidden = !runs.length;
    const labels = page.groups.flatMap((group) => group.rows.map((row) => row.label));
    const known = (model) => labels.some((label) => label === model || label.startsWith(model + " ("));
    const coming = new Set(runs.map((run) => run.model).filter((model) => !known(model)));
    const done = new Set(labels).size;
    const ended = finished === null ? "" : `${count(finished, "run")} finished, `;
    const models = ended && coming.size ? `; ${done} of ${count(done + coming.size, "model")} have a result` : "";
    const rows = runs.map(progress), rest = rows.splice(matchMedia("(max-width: 900px)").matches ? 1 : 3);
    const open = area.querySelector("details")?.open;
    area.replaceChildren(node("p", { className: "so-far" }, "So far: "), list(rows));
    area.firstChild.append(node("b", {}, `${ended}${runs.length} running${models}`));
    if (rest.length) {
      const more = node("details", { open });
      more.append(node("summary", {}, count(rest.length, "more run")), list(rest));
      area.append(more);
    }
  }

  function list(rows) {
    const found = node("ul");
    found.append(...rows);
    return found;
  }

  function progress(run) {
    const row = node("li"), words = wordsOf(run);
    const bar = node("progress", run.of ? { max: run.of, value: Math.min(run.done, run.of) } : {});
    bar.setAttribute("aria-label", `${run.model}, ${words}`);
    if (run.silent_since) row.className = "silent";
    row.append(node("b", {}, run.model + (run.seed ? `, seed ${run.seed}` : "")), bar, node("span", {}, words));
    return row;
  }

  function wordsOf(run) {
    const words = [run.of ? `epoch ${run.done} of ${run.of}` : "running"];
    if (run.silent_since) words.push(`no sign of life since ${when(run.silent_since)}`);
    else if (run.until) words.push(`${run.at_most ? "until at the latest" : "until about"} ${when(run.until)}`);
    else words.push(...(run.started ? [`since ${when(run.started)}`] : []), run.of && !run.done ? "no forecast yet" : "no forecast");
    if (run.energy_wh !== null) {
      const estimated = run.energy_source === "estimated" ? " (estimated)" : "";
      const rest = run.to_come_wh === null ? ""
        : `, ${run.at_most ? "at most" : "about"} ${amount(run.to_come_wh, "Wh", 2)} to come`;
      words.push(`${amount(run.energy_wh, "Wh", 2)} so far${rest}${estimated}`);
    }
    return unbroken(words.join(", "));
  }

  // The choice of experiments: a list of checkboxes, read when it is opened.
  const choice = box("choice"), filter = choice.querySelector("input"), names = choice.querySelector("ul");
  choice.addEventListener("toggle", async () => {
    if (!choice.open) return;
    const found = await fetch("experiments").then((answer) => answer.json()).catch(() => []);
    filter.hidden = found.length < 8;
    names.replaceChildren(...found.map((one) => {
      const row = node("li"), label = node("label");
      label.append(node("input", { type: "checkbox", value: one.name, checked: experiments.includes(one.name) }),
        node("span", {}, one.text), node("small", {}, one.about));
      row.append(label);
      return row;
    }));
    if (!found.length) names.append(node("li", {}, "No experiment is known."));
    (filter.hidden ? names.querySelector("input") || choice.querySelector("button") : filter).focus();
  });
  filter.addEventListener("input", () => {
    const text = filter.value.trim().toLowerCase();
    for (const row of names.children) row.hidden = !row.textContent.toLowerCase().includes(text);
  });
  choice.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const words = new URLSearchParams(location.search);
    words.delete("experiment");
    const chosen = [...names.querySelectorAll(":checked")].map((one) => one.value);
    for (const name of chosen.length ? chosen : [""]) words.append("experiment", name);
    location.assign("?" + words);
  });
  choice.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    choice.open = false;
    choice.querySelector("summary").focus();
  });
  document.addEventListener("click", (event) => { if (!choice.contains(event.target)) choice.open = false; });

  // The report has the reader's settings as its own.
  const OPTIONS = { margin: "margin", alpha: "alpha", images: "images-per-year", years: "years", price: "price-per-kwh" };
  box("download")?.addEventListener("click", (event) => {
    const group = groupOf(settings.group), link = new URL(event.target.href);
    if (!group) return;
    for (const [name, option] of Object.entries(OPTIONS)) {
      const needed = name !== "years" || settings.images;
      if (needed && settings[name] !== original(group)[name] && settings[name] !== null) {
        link.searchParams.set(option, name === "price" ? `${settings.price}${page.currency}` : settings[name]);
      }
    }
    event.target.href = link;
  });

  addEventListener("pointerdown", () => { held = true; });
  for (const end of ["pointerup", "pointercancel"]) {
    addEventListener(end, () => {
      held = false;
      if (waiting) setTimeout(() => waiting && show());
    });
  }
  document.addEventListener("visibilitychange", poll);
  poll();
}
