"use strict";
// The gallery's viewer: filters, a list of which only the visible rows are drawn, one sample open, its address.
(() => {
  const source = document.getElementById("gallery-data");
  if (!source) return;
  const { html } = GalleryTile;
  const find = (name) => document.getElementById(`gallery-${name}`);
  const data = JSON.parse(source.textContent);
  if (!data.samples.length) return;
  const addresses = new Map(Object.entries(JSON.parse(find("pictures").textContent)));
  const usual = data.methods.map((m, i) => (m.shown ? i : -1)).filter((i) => i >= 0);
  const last = Math.max(0, data.layers - 1);
  const root = find("viewer");
  let [state, results, tiles, cell] = [Gallery.start(), [], [], null];
  const layer = () => state.layer ?? last;
  const methods = () => state.methods ?? usual;

  // Pictures: each address stands in the page once, in an SVG symbol while it is open or in a row while it is seen.
  const addressOf = (name) =>
    addresses.get(name) ?? document.getElementById(`picture-${name}`)?.firstElementChild.getAttribute("href") ?? "";
  const symbolOf = (name) => {
    const id = `picture-${name}`;
    if (!document.getElementById(id)) {
      const symbol = document.createElementNS("http://www.w3.org/2000/svg", "symbol");
      const image = document.createElementNS("http://www.w3.org/2000/svg", "image");
      for (const [key, value] of Object.entries({ id, viewBox: "0 0 1 1", preserveAspectRatio: "none" })) symbol.setAttribute(key, value);
      for (const [key, value] of Object.entries({ href: addressOf(name), width: 1, height: 1, preserveAspectRatio: "none" })) image.setAttribute(key, value);
      symbol.append(image);
      find("symbols").append(symbol);
    }
    return id;
  };

  // ---------------------------------------------------------------- the list
  const rows = find("rows");
  const room = rows.firstElementChild;
  let rowHeight = 0;
  const pictureOf = (sample) => sample.answers.find((a) => a?.picture)?.picture;
  const pictured = data.samples.some(pictureOf);
  const makeRow = (position) => {
    const sample = data.samples[results[position]];
    const there = methods().map((i) => sample.answers[i]).filter(Boolean);
    const picture = pictureOf(sample);
    const thumb = picture ? new Image(44, 44) : html("span", pictured ? "thumb" : "");
    if (picture) Object.assign(thumb, { src: addressOf(picture), alt: "", className: "thumb", decoding: "async" });
    const symbols = html("span", "symbols", ...there.map((a) => html("span", a.verdict.split(" ")[0], a.symbol)));
    symbols.setAttribute("aria-hidden", "true");
    const right = there.filter((a) => a.verdict === "right").length;
    const words = html("span", "unseen", `, ${right} of ${there.length} right`);
    const name = html("span", "name", sample.id.replace("/", " "));
    const text = html("span", "text", html("span", "line", name, symbols, words), html("span", "asked", sample.question));
    const row = html("div", "row", thumb, text);
    row.id = `gallery-row-${position}`;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(results[position] === state.sample));
    row.setAttribute("aria-posinset", String(position + 1));
    row.setAttribute("aria-setsize", String(results.length));
    row.style.top = `${position * rowHeight}px`;
    row.addEventListener("click", () => open(results[position], true));
    return row;
  };
  const drawRows = () => {
    rows.hidden = !results.length;
    if (!results.length) return;
    if (!rowHeight) {
      room.replaceChildren(makeRow(0));
      rowHeight = room.firstElementChild.offsetHeight;
    }
    room.style.height = `${results.length * rowHeight}px`;
    const first = Math.max(0, Math.floor(rows.scrollTop / rowHeight) - 3);
    const end = Math.min(results.length, Math.ceil((rows.scrollTop + rows.clientHeight) / rowHeight) + 3);
    room.replaceChildren(...Array.from({ length: Math.max(0, end - first) }, (_, i) => makeRow(first + i)));
    const here = results.indexOf(state.sample);
    if (here >= first && here < end) rows.setAttribute("aria-activedescendant", `gallery-row-${here}`);
    else rows.removeAttribute("aria-activedescendant");
  };
  const reveal = () => {
    const here = results.indexOf(state.sample);
    if (here < 0 || !rowHeight) return;
    const [top, bottom] = [here * rowHeight, (here + 1) * rowHeight];
    if (top < rows.scrollTop) rows.scrollTop = top;
    else if (bottom > rows.scrollTop + rows.clientHeight) rows.scrollTop = bottom - rows.clientHeight;
  };
  let waiting = false;
  rows.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; drawRows(); });
  });
  new ResizeObserver(() => { rowHeight = 0; drawRows(); }).observe(rows);

  // ---------------------------------------------------------------- the open sample
  const makeTiles = () => {
    const chosen = methods();
    const labels = [...find("methods").querySelectorAll("label")];
    labels.forEach((label, i) => { label.firstElementChild.checked = chosen.includes(i); });
    find("chosen").textContent = String(chosen.length);
    tiles = chosen.map((i) => ({ i, ...GalleryTile.make(data, data.methods[i].label, labels[i].lastElementChild, point) }));
    find("tiles").replaceChildren(...tiles.map((t) => t.element));
  };
  const point = (wanted, tile, aloud) => {
    cell = wanted;
    if (find("pointed")) find("pointed").textContent = cell ? Gallery.place(cell) : "";
    for (const t of tiles) {
      const said = t.mark(cell);
      if (t.frame === tile.frame && aloud) find("cell").textContent = said && `${data.methods[t.i].label}, ${Gallery.place(cell)}: ${said}`;
    }
  };
  const showLayer = () => {
    for (const t of tiles) t.show(layer());
    if (!find("layer")) return;
    find("layer").value = String(layer());
    find("layer-said").textContent = `entering layer ${layer()}${points().includes(layer()) ? ", a prune point" : ""}`;
  };
  const points = () => {
    const answers = tiles.map((t) => data.samples[state.sample]?.answers[t.i]).filter(Boolean);
    return [...new Set(answers.flatMap((a) => a.stages.map(([from]) => from)))];
  };
  const fill = () => {
    const sample = data.samples[state.sample];
    const used = sample.answers.map((a) => a && `picture-${a.picture}`);
    for (const symbol of [...find("symbols").children]) if (!used.includes(symbol.id)) symbol.remove();
    find("question").textContent = sample.question;
    find("target").textContent = sample.target;
    find("options").replaceChildren(...sample.options.map((o) => { const li = html("li", "", o); li.dir = "auto"; return li; }));
    const tags = [...new Set([sample.level, sample.category, sample.kind].filter(Boolean))].map((t) => html("span", "", html("bdi", "", t)));
    const how = sample.random ? [html("span", "", "drawn at random")] : [];
    find("tags").replaceChildren(...tags, ...how);
    for (const t of tiles) { t.fill(sample, t.i, symbolOf); t.mark(cell); }
    showLayer();
    where();
  };
  const where = () => {
    const here = results.indexOf(state.sample);
    const name = data.samples[state.sample].id.replace("/", " ");
    const lost = state.unknown ? `There is no sample ${state.unknown} here. ` : "";
    const among = here < 0 ? `${name}, not among the ${results.length} found` : `${name}, ${here + 1} of ${results.length}`;
    find("where").textContent = lost + among;
    find("previous").disabled = here <= 0;
    find("next").disabled = here >= results.length - 1;
  };
  const open = (sample, push) => {
    if (sample === undefined) return;
    state.sample = sample;
    state.unknown = "";
    fill();
    reveal();
    drawRows();
    remember(push);
  };
  const step = (by) => open(results[results.indexOf(state.sample) + by], true);
  const setLayer = (wanted) => {
    state.layer = wanted === last ? null : wanted;
    showLayer();
    remember(false);
  };
  const jump = (direction) => {
    const stops = [...new Set([0, ...points(), last])].sort((a, b) => a - b);
    const next = direction < 0 ? stops.filter((s) => s < layer()).at(-1) : stops.find((s) => s > layer());
    if (next !== undefined) setLayer(next);
  };

  // ---------------------------------------------------------------- filters
  const fields = ["q", "benchmark", "category", "level", "kind"];
  const number = (text) => (/^\d{1,9}$/.test(text) ? Number(text) : null);
  const readFilters = () => {
    for (const name of fields) state[name] = find(name)?.value ?? "";
    state.by = find("by").selectedIndex ? find("by").selectedIndex - 1 : null;
    [state.least, state.most] = [number(find("least").value), number(find("most").value)];
  };
  const writeFilters = () => {
    for (const name of fields) if (find(name) && find(name).value !== state[name]) find(name).value = state[name];
    find("by").selectedIndex = state.by === null ? 0 : state.by + 1;
    find("least").value = state.least ?? "";
    find("most").value = state.most ?? "";
  };
  const search = () => {
    results = data.samples.map((_, i) => i).filter((i) => Gallery.matches(data.samples[i], state, data));
    const all = data.samples.length;
    find("found").textContent = results.length ? `${results.length} of ${all} samples` : "No sample matches. Clear a filter.";
    rows.scrollTop = 0;
  };
  const refine = () => {
    readFilters();
    search();
    if (results.length && !results.includes(state.sample)) { state.sample = results[0]; fill(); } else where();
    reveal();
    drawRows();
    remember(false);
  };
  find("filters").addEventListener("input", refine);
  find("filters").addEventListener("submit", (event) => event.preventDefault());
  find("filters").addEventListener("reset", () => setTimeout(refine));
  const choose = (chosen) => {
    if (!chosen.length) chosen = [0];
    state.methods = chosen.join() === usual.join() ? null : chosen;
    makeTiles();
    fill();
    drawRows();
    remember(false);
  };
  const boxes = [...find("methods").querySelectorAll("input")];
  find("methods").addEventListener("change", () => choose(boxes.map((b, i) => (b.checked ? i : -1)).filter((i) => i >= 0)));
  find("all").addEventListener("click", () => choose(boxes.map((_, i) => i)));
  find("none").addEventListener("click", () => choose([0]));

  // ---------------------------------------------------------------- the address
  // Written a moment later and once for several changes: browsers refuse an address that changes all the time.
  let [timer, pushing] = [0, false];
  const remember = (push) => {
    find("link").href = Gallery.write(state, data);
    pushing ||= push;
    clearTimeout(timer);
    timer = setTimeout(() => {
      const address = Gallery.write(state, data);
      if (address !== location.hash) history[pushing ? "pushState" : "replaceState"](null, "", address);
      pushing = false;
    }, 150);
  };
  const follow = () => {
    clearTimeout(timer);
    pushing = false;
    const found = Gallery.read(location.hash, data);
    if (!found && location.hash) return false; // an anchor of the page
    state = found ?? Gallery.start();
    writeFilters();
    search();
    state.sample ??= results[0] ?? 0;
    makeTiles();
    fill();
    reveal();
    drawRows();
    find("link").href = Gallery.write(state, data);
    return found !== null;
  };

  // ---------------------------------------------------------------- keys
  const keys = find("keys");
  try { keys.checked = localStorage.getItem("atp-eval-keys") !== "off"; } catch { /* storage is blocked: on */ }
  keys.addEventListener("change", () => {
    try { localStorage.setItem("atp-eval-keys", keys.checked ? "on" : "off"); } catch { /* not kept */ }
  });
  const inSight = () => {
    const box = root.getBoundingClientRect();
    return box.top < 0.8 * innerHeight && box.bottom > 0.2 * innerHeight;
  };
  const actions = new Map([
    ["j", () => step(1)], ["ArrowRight", () => step(1)], ["k", () => step(-1)], ["ArrowLeft", () => step(-1)],
    [".", () => jump(1)], [",", () => jump(-1)], ["/", () => { find("q").focus(); find("q").select(); }],
  ]);
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
    const target = event.target;
    if (target.closest("input:not([type=checkbox]), select, textarea, [contenteditable]")) return;
    if (!(root.contains(target) || (target === document.body && inSight()))) return;
    const action = actions.get(event.key);
    if (!action || (event.key.length === 1 && !keys.checked)) return;
    event.preventDefault();
    action();
  });
  rows.addEventListener("keydown", (event) => {
    const here = results.indexOf(state.sample);
    const page = Math.max(1, Math.floor(rows.clientHeight / rowHeight) - 1);
    const to = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: results.length - 1, PageDown: here + page, PageUp: here - page }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    open(results[Math.max(0, Math.min(results.length - 1, to))], true);
  });
  find("previous").addEventListener("click", () => step(-1));
  find("next").addEventListener("click", () => step(1));
  find("layer")?.addEventListener("input", (event) => setLayer(Number(event.target.value)));
  find("back")?.addEventListener("click", () => jump(-1));
  find("forth")?.addEventListener("click", () => jump(1));
  addEventListener("popstate", follow);

  root.hidden = false;
  find("few").classList.add("spare");
  if (follow()) root.scrollIntoView({ behavior: "instant" });
  else if (state.sample === null) { state = Gallery.start(); search(); state.sample = results[0]; makeTiles(); fill(); drawRows(); }
})();
