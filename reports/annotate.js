"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(find(id).textContent);
  const ballot = read("ballot");
  const pictures = read("pictures");
  const samples = ballot.samples.map((sample, i) => ({ ...sample, id: `${sample.benchmark}/${sample.doc_id}`, place: i }));
  const byId = new Map(samples.map((sample) => [sample.id, sample]));
  const slot = `atp-eval-votes-${ballot.page}`;
  const CHOICES = ["left", "right", "tie"];

  let votes = new Map(); // sample -> { choice, seconds }, in the order of voting
  let later = new Set(); // put off: shown again when no other is left
  let now = null; // the sample on show
  let since = null; // when it was shown; null once the page was out of sight
  let storable = true;
  let exported = true;

  const say = (text) => { find("said").textContent = text; };
  const name = () => find("annotator").value.trim();
  const isVote = (vote) => vote !== null && typeof vote === "object" && CHOICES.includes(vote.choice)
    && (vote.seconds === null || (Number.isFinite(vote.seconds) && vote.seconds >= 0));

  // What is kept: everything after each vote, under a name made of the page's contents.
  const keep = () => {
    try {
      localStorage.setItem(slot, JSON.stringify({ annotator: name(), votes: [...votes] }));
    } catch { storable = false; }
    find("warning").hidden = storable;
    if (!storable) find("warning").textContent = "This browser does not let the page keep your progress. Export your votes before you close it.";
  };
  const restore = () => {
    let kept = null;
    try { kept = JSON.parse(localStorage.getItem(slot) ?? "null"); } catch { /* blocked, or not ours: nothing is kept */ }
    if (kept === null || !Array.isArray(kept.votes)) return;
    const good = kept.votes.filter((row) => Array.isArray(row) && byId.has(row[0]) && isVote(row[1]));
    votes = new Map(good.map(([id, { choice, seconds }]) => [id, { choice, seconds }]));
    if (typeof kept.annotator === "string") find("annotator").value = kept.annotator;
  };

  const show = (sample, focus) => {
    now = sample;
    since = document.hidden ? null : performance.now();
    find("progress").max = samples.length;
    find("progress").value = votes.size;
    const off = later.size ? `, ${later.size} put off` : "";
    find("count").textContent = `${votes.size} of ${samples.length} voted${off}`;
    find("undo").disabled = votes.size === 0;
    find("later").disabled = now === null || samples.length - votes.size < 2;
    find("sample").hidden = now === null;
    find("done").hidden = now !== null;
    if (now !== null) {
      find("tag").textContent = now.benchmark;
      find("asked").textContent = now.asked;
      const [left, right] = now.answers;
      find("left").textContent = left || "(an empty answer)";
      find("right").textContent = right || "(an empty answer)";
      const picture = now.picture === null ? null : pictures[now.picture];
      find("picture").hidden = picture === null;
      if (picture === null) find("picture").removeAttribute("src");
      else find("picture").src = picture;
      find("pictureless").hidden = picture !== null;
      find("pictureless").textContent = now.image === null ? "This question has no picture." : "The run kept no picture of this sample.";
    }
    if (find("copy").open) fill();
    if (focus) find(now === null ? "done-title" : "asked").focus();
  };
  const next = (focus) => {
    const open = samples.filter((sample) => !votes.has(sample.id));
    show(open.find((sample) => !later.has(sample.id)) ?? open[0] ?? null, focus);
  };
  const vote = (choice) => {
    if (now === null) return;
    const seconds = since === null ? null : Math.round((performance.now() - since) / 100) / 10;
    votes.set(now.id, { choice, seconds });
    later.delete(now.id);
    exported = false;
    find("how").open = false;
    keep();
    next(true);
  };
  const undo = () => {
    const last = [...votes.keys()].at(-1);
    if (last === undefined) return;
    votes.delete(last);
    exported = false;
    keep();
    show(byId.get(last), true);
  };
  const putOff = () => {
    if (find("later").disabled) return;
    const open = samples.filter((sample) => !votes.has(sample.id));
    later.delete(now.id); // and in again, behind the others
    later.add(now.id);
    const rest = open.find((sample) => !later.has(sample.id));
    show(rest ?? byId.get([...later].find((id) => id !== now.id)), true);
  };

  // Only here it is unpacked who stood where.
  const votesFile = () => {
    const key = JSON.parse(atob(ballot.sealed));
    const rows = [...votes].map(([id, { choice, seconds }]) => {
      const { benchmark, doc_id, image, place } = byId.get(id);
      return { benchmark, doc_id, picture: image, looks: [{ left: key.left[place], choice, reason: null }], seconds };
    });
    return {
      schema_version: ballot.schema_version, format: ballot.format, page: ballot.page, annotator: name(), judge: null,
      a: key.a, b: key.b, seed: ballot.seed, pools: ballot.pools, exported: new Date().toISOString(), votes: rows, missing: [],
    };
  };
  const fill = () => { find("text").value = name() ? JSON.stringify(votesFile(), null, 1) : "Write your name above first."; };
  const named = () => {
    const wrong = !name() ? "Write your name or initials first." : name().startsWith(ballot.judge) ? `A name that begins with “${ballot.judge}” stands for a model. Choose another.` : "";
    if (wrong) { say(wrong); find("annotator").focus(); }
    return !wrong;
  };
  const exportVotes = () => {
    if (!named()) return;
    const link = document.createElement("a");
    const file = name().replace(/[^A-Za-z0-9._-]+/g, "-").slice(0, 40);
    link.download = `votes-${file}-${ballot.page.slice(0, 8)}.json`;
    link.href = `data:application/json;charset=utf-8,${encodeURIComponent(JSON.stringify(votesFile(), null, 1))}`;
    link.click();
    exported = true;
    say(`Exported ${votes.size} of ${samples.length} votes as ${link.download}.`);
  };
  const importVotes = (text) => {
    let data = null;
    try { data = JSON.parse(text); } catch { /* said below */ }
    if (data === null || data.format !== ballot.format || !Array.isArray(data.votes)) return say("That file holds no exported votes.");
    if (data.page !== ballot.page) return say("Those votes were given on another page, with other samples or answers.");
    if (data.judge) return say("Those are a model's votes.");
    const owner = String(data.annotator ?? "").trim();
    if (votes.size && name() && owner !== name()) return say(`Those are ${owner}'s votes, and here are ${name()}'s. Start over first.`);
    const rows = data.votes.map((row) => [`${row?.benchmark}/${row?.doc_id}`, { choice: row?.looks?.[0]?.choice, seconds: row?.seconds ?? null }]);
    if (!rows.every(([id, row]) => byId.has(id) && isVote(row))) return say("That file holds votes that this page does not know.");
    const fresh = rows.filter(([id]) => !votes.has(id));
    votes = new Map([...fresh, ...votes]);
    if (!name()) find("annotator").value = owner;
    keep();
    next(false);
    const rest = rows.length - fresh.length;
    return say(`Imported ${fresh.length} votes${rest ? `; ${rest} samples were voted on here already and stay as they are` : ""}.`);
  };

  const KEYS = { 1: "left", ArrowLeft: "left", 2: "right", ArrowRight: "right", 0: "tie", " ": "tie" };
  document.addEventListener("keydown", (event) => {
    if (!find("shortcuts").checked || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.closest("input:not([type=checkbox]), textarea")) return;
    if (event.key === " " && event.target.closest("button, input, summary, a")) return; // it presses what has the focus
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key in KEYS) vote(KEYS[key]);
    else if (key === "u" || key === "Backspace") undo();
    else if (key === "s") putOff();
    else return;
    event.preventDefault();
  });
  for (const button of document.querySelectorAll("[data-choice]")) button.addEventListener("click", () => vote(button.dataset.choice));
  find("undo").addEventListener("click", undo);
  find("later").addEventListener("click", putOff);
  find("export").addEventListener("click", exportVotes);
  find("annotator").addEventListener("input", () => { say(""); keep(); if (find("copy").open) fill(); });
  find("copy").addEventListener("toggle", fill);
  find("import").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (file) importVotes(await file.text());
    event.target.value = "";
  });
  find("restart").addEventListener("click", () => {
    if (votes.size && !confirm(`Forget ${votes.size} votes on this page?`)) return;
    votes = new Map();
    later = new Set();
    exported = true;
    find("annotator").value = "";
    keep();
    next(false);
    say("Started over.");
  });
  document.addEventListener("visibilitychange", () => { if (document.hidden) since = null; });
  addEventListener("storage", (event) => { if (event.key === slot) { restore(); next(false); } }); // voted on in another tab
  addEventListener("beforeunload", (event) => { if (!storable && !exported) event.preventDefault(); });

  restore();
  keep();
  find("app").hidden = false;
  next(false);
})();
