"use strict";
// One method's tile of the gallery: its picture with veil and cursor, its tokens, its answer.
const GalleryTile = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const SHORT = 280; // characters of an answer before "more"
  const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

  const html = (name, className, ...children) => {
    const element = document.createElement(name);
    if (className) element.className = className;
    element.append(...children);
    return element;
  };
  const svg = (name, attributes) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  // method: its element in the list of methods, whose mark and name are copied. point(cell | null, tile, aloud): the
  // reader points at [row, column]. The tile is filled again and again, so that focus stays where it is.
  const make = (data, label, method, point) => {
    const frame = html("div", "frame");
    frame.tabIndex = 0;
    frame.setAttribute("role", "application");
    frame.setAttribute("aria-label", `${label}: tokens that stay. Arrow keys move over the cells.`);
    const none = html("p", "no-tokens");
    const count = html("p", "count");
    const cellLine = html("p", "cell");
    const symbol = html("span");
    symbol.setAttribute("aria-hidden", "true");
    const word = html("span");
    const verdict = html("span", "verdict-word", symbol, " ", word);
    const change = html("span", "change");
    const said = html("bdi");
    const more = html("button", "more", "more");
    more.type = "button";
    const who = html("p", "who", method.cloneNode(true));
    const answerLine = html("p", "answer", verdict, " ", change, " ", html("q", "", said), " ", more);
    const element = html("li", "tile", frame, none, who, count, answerLine, cellLine);
    let [answer, veil, cursor, text, at] = [null, null, null, "", null];

    const write = (whole) => {
      said.textContent = whole || text.length <= SHORT * 1.2 ? text : `${text.slice(0, SHORT)}…`;
      more.hidden = whole || text.length <= SHORT * 1.2;
    };
    more.addEventListener("click", () => write(true));

    const fill = (sample, index, symbolOf) => {
      answer = sample.answers[index];
      const shown = answer !== null && answer.grid !== null;
      frame.hidden = !shown;
      none.hidden = shown;
      count.hidden = cellLine.hidden = !shown;
      answerLine.hidden = answer === null;
      none.textContent = answer === null ? "Not asked" : answer.verdict === "failed" ? "No tokens recorded" : "No image";
      element.className = `tile ${answer ? answer.verdict.split(" ")[0] : "absent"}`;
      cellLine.classList.toggle("long", Boolean(answer?.stages.some(([, merged]) => merged)));
      frame.replaceChildren();
      if (!answer) return;
      symbol.textContent = answer.symbol;
      word.textContent = answer.verdict;
      const moved = Gallery.change(sample, index, data);
      change.textContent = moved ? `${moved === "gained" ? "▲" : "▼"} ${moved}` : "";
      change.title = moved ? "against the upper bound" : "";
      text = answer.said;
      write(false);
      if (!shown) return;
      const [rows, columns] = answer.grid;
      const picture = svg("svg", { class: "kept-tokens", viewBox: `0 0 ${columns} ${rows}`, "aria-hidden": "true" });
      const size = { width: columns, height: rows };
      const back = answer.picture
        ? svg("use", { href: `#${symbolOf(answer.picture)}`, ...size })
        : svg("rect", { class: "blank", ...size });
      veil = svg("path", { class: "veil" });
      const ring = (name) => svg("rect", { class: name, width: 1, height: 1 });
      cursor = svg("g", { visibility: "hidden" });
      cursor.append(ring("ring outer"), ring("ring"));
      picture.append(back, veil, cursor);
      frame.append(picture);
    };

    const show = (layer) => {
      if (!answer?.grid) return;
      veil.setAttribute("d", Gallery.veilAt(data, answer, layer));
      const [tokens, merged] = Gallery.tokensAt(data, answer, layer);
      count.textContent = `${tokens} token${tokens === 1 ? "" : "s"}${merged ? `, ${merged} of them merged` : ""}`;
    };

    // Marks a cell here and says what became of it; what it says.
    const mark = (cell) => {
      at = cell;
      if (!answer?.grid) return "";
      const inside = cell && cell[0] < answer.grid[0] && cell[1] < answer.grid[1];
      cursor.setAttribute("visibility", inside ? "visible" : "hidden");
      if (inside) cursor.setAttribute("transform", `translate(${cell[1]} ${cell[0]})`);
      cellLine.textContent = inside ? Gallery.fate(data, answer, cell) : "";
      return cellLine.textContent;
    };

    const under = (event) => {
      const box = frame.getBoundingClientRect();
      const [rows, columns] = answer.grid;
      const clamp = (value, size) => Math.max(0, Math.min(size - 1, Math.floor(value * size)));
      return [clamp((event.clientY - box.top) / box.height, rows), clamp((event.clientX - box.left) / box.width, columns)];
    };
    const tile = { element, frame, fill, show, mark };
    frame.addEventListener("pointermove", (event) => point(under(event), tile, false));
    frame.addEventListener("pointerdown", (event) => point(under(event), tile, false));
    frame.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && point(null, tile, false));
    frame.addEventListener("focus", () => {
      if (answer?.grid && frame.matches(":focus-visible")) point(at ?? answer.grid.map((n) => n >> 1), tile, true);
    });
    frame.addEventListener("keydown", (event) => {
      if (event.key === "Escape") point(null, tile, true);
      const step = ARROWS[event.key];
      if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      const from = at ?? answer.grid.map((n) => n >> 1);
      point(from.map((n, i) => Math.max(0, Math.min(answer.grid[i] - 1, n + step[i]))), tile, true);
    });
    return tile;
  };

  return { make, html };
})();
