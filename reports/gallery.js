"use strict";
(() => {
  const find = (id) => document.getElementById(id);

  // Layers: one control for all pictures; each shows the veil of its last prune point up to that layer.
  const slider = find("layer");
  if (!slider) return;
  const said = find("layer-said");
  const tiles = [...document.querySelectorAll(".kept-tokens")].map((picture) => ({
    picture,
    full: picture.dataset.full,
    veils: [...picture.querySelectorAll(".veil")],
    count: picture.parentElement.querySelector(".count"),
  }));
  const points = [...new Set(tiles.flatMap((t) => t.veils.map((v) => Number(v.dataset.layer))))].sort((a, b) => a - b);
  const stops = [...new Set([0, ...points, Number(slider.max)])].sort((a, b) => a - b);

  const show = () => {
    const layer = Number(slider.value);
    for (const { full, veils, count } of tiles) {
      const now = veils.filter((v) => Number(v.dataset.layer) <= layer).at(-1);
      for (const v of veils) v.classList.toggle("off", v !== now);
      const merged = now && now.dataset.merged !== "0" ? `, ${now.dataset.merged} of them merged` : "";
      const tokens = now ? now.dataset.tokens : full;
      count.textContent = `${tokens} token${tokens === "1" ? "" : "s"}${merged}`;
    }
    said.textContent = `entering layer ${layer}` + (points.includes(layer) ? ", a prune point" : "");
  };
  const jump = (step) => {
    const layer = Number(slider.value);
    const next = step < 0 ? stops.filter((s) => s < layer).at(-1) : stops.find((s) => s > layer);
    if (next !== undefined) { slider.value = String(next); show(); }
  };
  slider.addEventListener("input", show);
  find("back").addEventListener("click", () => jump(-1));
  find("forth").addEventListener("click", () => jump(1));
  find("control").hidden = false;
  addEventListener("beforeprint", () => { slider.value = slider.max; show(); });
  show();
})();
