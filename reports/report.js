"use strict";
(() => {
  // Tables: a button in each header cell sorts the rows by its column: down, up, and as they were.
  const ASCENDING = "ascending", DESCENDING = "descending";
  const sortable = (table) => {
    const heads = leaves(table.tHead);
    const body = table.tBodies[0];
    const given = [...body.rows];
    const said = table.caption.appendChild(document.createElement("span"));
    said.className = "unseen";
    said.setAttribute("role", "status");
    for (const [column, head] of heads) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const first = given.some((row) => typeof value(row.cells[column]) === "number") ? DESCENDING : ASCENDING;
        const second = first === DESCENDING ? ASCENDING : DESCENDING;
        const now = head.getAttribute("aria-sort");
        const next = now === first ? second : now === second ? null : first;
        for (const [, other] of heads) other.removeAttribute("aria-sort");
        if (next) head.setAttribute("aria-sort", next);
        body.append(...(next ? ordered(given, column, next) : given));
        said.textContent = next ? `Sorted by ${button.textContent.trim()}, ${next}.` : "In the order as given.";
      });
    }
  };
  // The header cells right above the rows, by the column that each heads, whatever spans above them.
  const leaves = (head) => {
    const taken = [...head.rows].map(() => []);
    const found = new Map();
    [...head.rows].forEach((row, y) => {
      let x = 0;
      for (const cell of row.cells) {
        while (taken[y][x]) x += 1;
        for (let dy = 0; dy < cell.rowSpan; dy += 1) for (let dx = 0; dx < cell.colSpan; dx += 1) taken[y + dy][x + dx] = true;
        if (y + cell.rowSpan === head.rows.length && cell.colSpan === 1) found.set(x, cell);
        x += cell.colSpan;
      }
    });
    return [...found];
  };
  // A number where the cell has one, else its text; nothing where it is empty.
  const value = (cell) => {
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const text = cell.textContent.trim();
    return text === "–" || text === "" ? undefined : cell.tagName === "TH" || !/^[−\d]/.test(text) ? text
      : Number(text.replace("−", "-").replaceAll(",", "").match(/^-?[\d.]+/)?.[0] ?? NaN);
  };
  const ordered = (rows, column, direction) => {
    const sign = direction === ASCENDING ? 1 : -1;
    const keyed = rows.map((row) => [value(row.cells[column]), row]);
    const there = keyed.filter(([v]) => v !== undefined && !Number.isNaN(v));
    const empty = keyed.filter((pair) => !there.includes(pair));
    const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
    there.sort(([a], [b]) => sign * compare(a, b));
    return [...there, ...empty].map(([, row]) => row);
  };
  for (const table of document.querySelectorAll("table.sortable")) sortable(table);

  // The section being read is marked in the navigation.
  const links = new Map([...document.querySelectorAll("#sections a")].map((a) => [document.getElementById(a.hash.slice(1)), a]));
  links.delete(null);
  const mark = () => {
    const line = innerHeight / 3;
    const begun = [...links].filter(([heading]) => heading.getBoundingClientRect().top <= line);
    const atEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 4;
    const current = atEnd ? [...links].at(-1) : begun.at(-1);
    for (const [, link] of links) {
      if (link === current?.[1]) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  let waiting = false;
  addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; mark(); });
  }, { passive: true });
  addEventListener("resize", mark, { passive: true });
  mark();
})();
