"use strict";
// What the gallery's address, filters and keep masks mean. Nothing here touches the page.
const Gallery = (() => {
  const KINDS = ["lost", "gained", "differ", "right", "partly", "wrong", "invalid", "failed", "random"];
  const KEYS = ["sample", "layer", "show", "benchmark", "category", "level", "q", "tokens", "method"];
  const LONGEST = 200; // characters of a search

  const start = () => ({
    sample: null, unknown: "", layer: null, kind: "", by: null, benchmark: "", category: "", level: "", q: "", least: null, most: null, methods: null,
  });
  const whole = (text) => (/^\d{1,9}$/.test(text ?? "") ? Number(text) : null);
  const wellFormed = (text) => new URLSearchParams([["t", text]]).get("t");
  const indexOf = (data, label) => {
    const found = data.methods.findIndex((m) => m.label === label);
    return found < 0 ? null : found;
  };

  // `#sample=gqa/12&layer=3&show=lost:fastv@144` as a state; null where the address says nothing of the gallery.
  // Whatever names nothing that is there is left out.
  const read = (hash, data) => {
    const words = new URLSearchParams(String(hash).replace(/^#/, ""));
    if (!KEYS.some((key) => words.has(key))) return null;
    const state = start();
    const wanted = words.get("sample");
    const sample = data.samples.findIndex((s) => s.id === wanted);
    if (sample >= 0) state.sample = sample;
    else if (wanted) state.unknown = wanted.slice(0, 60);
    const layer = whole(words.get("layer"));
    if (layer !== null && layer < data.layers) state.layer = layer;
    const [kind, ...rest] = (words.get("show") ?? "").split(":");
    if (KINDS.includes(kind)) state.kind = kind;
    if (state.kind || kind === "any") state.by = indexOf(data, rest.join(":"));
    for (const key of ["benchmark", "category", "level"]) {
      const value = words.get(key);
      if (value && data.samples.some((s) => s[key] === value)) state[key] = value;
    }
    state.q = (words.get("q") ?? "").slice(0, LONGEST);
    const [least, most] = (words.get("tokens") ?? "").split("-");
    [state.least, state.most] = [whole(least), whole(most)];
    const methods = words.getAll("method").map((label) => indexOf(data, label)).filter((i) => i !== null);
    if (methods.length) state.methods = [...new Set(methods)].sort((a, b) => a - b);
    return state;
  };

  const encode = (text) => encodeURIComponent(wellFormed(text)).replace(/%(2F|40|3A|2C)/g, decodeURIComponent);

  // The address of a state; `layer` and `methods` only where they are not the usual ones (null).
  const write = (state, data) => {
    const parts = [];
    const add = (key, value) => parts.push(`${key}=${encode(value)}`);
    if (state.sample !== null) add("sample", data.samples[state.sample].id);
    if (state.layer !== null) add("layer", String(state.layer));
    const by = state.by === null ? "" : `:${data.methods[state.by].label}`;
    if (state.kind || by) add("show", `${state.kind || "any"}${by}`);
    for (const key of ["benchmark", "category", "level", "q"]) if (state[key]) add(key, state[key]);
    if (state.least !== null || state.most !== null) add("tokens", `${state.least ?? ""}-${state.most ?? ""}`);
    for (const i of state.methods ?? []) add("method", data.methods[i].label);
    return `#${parts.join("&")}`;
  };

  const folded = (text) => text.normalize("NFKC").toLowerCase();
  const texts = new WeakMap();
  const textOf = (sample) => {
    if (!texts.has(sample)) {
      const said = sample.answers.filter(Boolean).map((a) => a.said);
      texts.set(sample, folded([sample.id, sample.question, sample.target, ...sample.options, ...new Set(said)].join("\n")));
    }
    return texts.get(sample);
  };

  // "gained" or "lost" against the upper bound of the same run, or "".
  const change = (sample, method, data) => {
    const against = data.methods[method].against;
    const [own, other] = [sample.answers[method], against === null ? null : sample.answers[against]];
    if (!own || !other || own.score === other.score) return "";
    return own.score > other.score ? "gained" : "lost";
  };

  const VERDICTS = { right: "right", wrong: "wrong", invalid: "no answer", failed: "failed" };
  const isKind = (sample, method, kind, data) => {
    if (kind === "gained" || kind === "lost") return change(sample, method, data) === kind;
    if (kind === "differ") return change(sample, method, data) !== "";
    const verdict = sample.answers[method].verdict;
    return kind === "partly" ? verdict.startsWith("partly") : verdict === VERDICTS[kind];
  };

  // Whether a sample passes all filters of a state.
  const matches = (sample, state, data) => {
    for (const key of ["benchmark", "category", "level"]) if (state[key] && sample[key] !== state[key]) return false;
    const there = sample.answers.map((a, i) => (a ? i : -1)).filter((i) => i >= 0);
    const asked = state.by === null ? there : there.filter((i) => i === state.by);
    if (state.kind === "random" ? !sample.random : false) return false;
    if (state.kind === "differ" && state.by === null) {
      if (new Set(there.map((i) => sample.answers[i].score)).size < 2) return false;
    } else if (state.kind && state.kind !== "random" && !asked.some((i) => isKind(sample, i, state.kind, data))) return false;
    if (state.least !== null || state.most !== null) {
      const pruned = state.by === null ? asked.filter((i) => !data.methods[i].reference) : asked;
      const fits = (n) => n !== null && n >= (state.least ?? 0) && n <= (state.most ?? Infinity);
      if (!pruned.some((i) => fits(sample.answers[i].tokens))) return false;
    }
    const words = folded(state.q).split(/\s+/).filter(Boolean);
    return words.every((word) => textOf(sample).includes(word));
  };

  // Keep masks: a bit a cell in raster order, the first in the highest bit of the first byte.
  const masks = new Map();
  const mask = (data, index) => {
    if (!masks.has(index)) masks.set(index, Uint8Array.from(atob(data.masks[index]), (c) => c.charCodeAt(0)));
    return masks.get(index);
  };
  const kept = (bytes, cell) => (bytes[cell >> 3] & (128 >> (cell & 7))) !== 0;
  const stageAt = (answer, layer) => answer.stages.filter(([from]) => from <= layer).at(-1) ?? null;

  // [visual tokens, how many of them are made of several cells] that enter a layer.
  const tokensAt = (data, answer, layer) => {
    const cells = answer.grid[0] * answer.grid[1];
    const stage = stageAt(answer, layer);
    if (!stage) return [cells, 0];
    const bytes = mask(data, stage[2]);
    let count = stage[1];
    for (let cell = 0; cell < cells; cell++) count += kept(bytes, cell);
    return [count, stage[1]];
  };

  // The path over the cells without a token of their own at a layer, in units of cells.
  const veilAt = (data, answer, layer) => {
    const stage = stageAt(answer, layer);
    if (!stage) return "";
    const [rows, columns] = answer.grid;
    const bytes = mask(data, stage[2]);
    let path = "";
    for (let row = 0; row < rows; row++) {
      for (let from = 0; from < columns; from++) {
        if (kept(bytes, row * columns + from)) continue;
        let to = from + 1;
        while (to < columns && !kept(bytes, row * columns + to)) to++;
        path += `M${from},${row}h${to - from}v1h${from - to}z`;
        from = to;
      }
    }
    return path;
  };

  // A cell in words, where rows and columns count from 1, and what became of it.
  const place = ([row, column]) => `row ${row + 1}, column ${column + 1}`;
  const fate = (data, answer, [row, column]) => {
    const cell = row * answer.grid[1] + column;
    const gone = answer.stages.find((stage) => !kept(mask(data, stage[2]), cell));
    if (!gone) return "stays to the end";
    return `${gone[1] ? "pruned or merged" : "pruned"} before layer ${gone[0]}`;
  };

  return { start, read, write, matches, change, stageAt, tokensAt, veilAt, place, fate };
})();
