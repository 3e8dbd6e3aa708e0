"use strict";
(() => {
  const find = (id) => document.getElementById(id);

  // Theme: follow the system until the reader chooses.
  const theme = find("theme");
  const order = ["auto", "light", "dark"];
  const wear = (name) => {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    theme.lastElementChild.textContent = name;
  };
  let worn = "auto";
  try { worn = localStorage.getItem("atp-eval-theme") ?? "auto"; } catch { /* storage is blocked: auto */ }
  wear(order.includes(worn) ? worn : "auto");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const next = order[(order.indexOf(theme.lastElementChild.textContent) + 1) % order.length];
    wear(next);
    try { localStorage.setItem("atp-eval-theme", next); } catch { /* not kept, still worn */ }
  });
})();
