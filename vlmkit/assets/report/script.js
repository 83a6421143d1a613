"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  // Theme: the system's until somebody chooses.
  const root = document.documentElement;
  const theme = byId("theme");
  const isDark = () =>
    (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const showTheme = () => theme.setAttribute("aria-pressed", String(isDark()));
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
  });
  showTheme();

  // Tables: a click or Enter on a column's name sorts; unknown values stay at the end.
  const keyOf = (row, column) => {
    const text = row.cells[column].textContent.trim();
    if (!row.cells[column].classList.contains("number")) return text;
    const number = parseFloat(text.replace("−", "-").replace("<", ""));
    return Number.isNaN(number) ? null : text.startsWith("<") ? number - 1e-9 : number;
  };
  const compareKeys = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const isNumber = head.classList.contains("number");
        const before = head.getAttribute("aria-sort");
        const order = before === "descending" ? "ascending"
          : before === "ascending" ? "descending" : isNumber ? "descending" : "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const rows = [...table.tBodies[0].rows].map((row) => [keyOf(row, column), row]);
        rows.sort((a, b) => compareKeys(a[0], b[0], sign));
        table.tBodies[0].append(...rows.map((pair) => pair[1]));
      });
    });
  }

  // Samples: filters, search, and keys while the focus is among them.
  const samples = [...document.querySelectorAll("article.sample")];
  const texts = samples.map((sample) => sample.textContent.toLowerCase());
  const [search, disagree, errors] = ["search", "disagree", "errors"].map(byId);
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    samples.forEach((sample, index) => {
      const fits = words.every((word) => texts[index].includes(word))
        && (!disagree.checked || "disagree" in sample.dataset)
        && (!errors.checked || "errors" in sample.dataset);
      sample.hidden = !fits;
      shown += fits;
    });
    byId("count").textContent = `${shown} of ${samples.length} shown`;
  };
  byId("filters").hidden = samples.length === 0;
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("input", filter);
  disagree.addEventListener("change", filter);
  errors.addEventListener("change", filter);
  const shade = byId("shade");
  if (shade) shade.addEventListener("change", () => root.classList.toggle("shaded", shade.checked));
  filter();

  const move = (step) => {
    const visible = samples.filter((sample) => !sample.hidden);
    const here = document.activeElement.closest("article.sample");
    const place = here ? visible.indexOf(here) + step : 0;
    const target = visible[Math.min(Math.max(place, 0), visible.length - 1)];
    if (target) { target.focus({ preventScroll: true }); target.scrollIntoView({ block: "start" }); }
  };
  byId("samples").addEventListener("keydown", (event) => {
    const typing = event.target.matches("input[type=search]");
    if (typing && event.key === "Escape") { search.value = ""; filter(); return; }
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") search.focus();
    else if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
    else if (event.key === "d") { disagree.checked = !disagree.checked; filter(); }
    else return;
    event.preventDefault();
  });
})();
