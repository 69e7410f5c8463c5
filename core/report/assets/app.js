// The dashboard's page. Everything that comes from the run is put in as text, never as HTML.
"use strict";

const ROW = 30;
const COLUMNS = [["n", "n"], ["status", "status"], ["val_bpb", "val_bpb"], ["delta", "delta"], ["category", "category"], ["hypothesis", "change"]];
const NUMERIC = new Set(["n", "val_bpb", "delta"]);
const FAILED = ["crash", "invalid", "timeout"];
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

let rows = [], shown = [], state = null, loading = false;
let sort = { by: "n", down: true };

function element(name, words, kind) {
  const node = document.createElement(name);
  if (words !== undefined && words !== null) node.textContent = words;
  if (kind) node.className = kind;
  return node;
}

function drawn(name, attributes, words) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (words) node.textContent = words;
  return node;
}

const number = (value, digits = 4) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const signed = (value) => (value === null || value === undefined ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(4));

// ---- the table: only the rows in view are in the document

function choose() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean), status = $("status").value;
  shown = rows.filter((row) => (!status || row.status === status) && words.every((word) => row.text.includes(word)));
  const { by, down } = sort, sign = down ? -1 : 1;
  shown.sort((a, b) => {
    const x = a[by], y = b[by];
    if (x === y) return b.n - a.n;
    if (x === null) return 1;
    if (y === null) return -1;
    return sign * (x < y ? -1 : 1);
  });
  $("space").style.height = shown.length * ROW + "px";
  $("count").textContent = `${shown.length} of ${rows.length}`;
  place();
}

function place() {
  const box = $("scroll"), focused = document.activeElement && document.activeElement.dataset.n;
  const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 8);
  const last = Math.min(shown.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW) + 8);
  $("space").replaceChildren(...shown.slice(first, last).map((row, i) => line(row, first + i)));
  if (focused) { const again = $("space").querySelector(`a[data-n="${focused}"]`); if (again) again.focus({ preventScroll: true }); }
}

function line(row, index) {
  const node = element("div", null, "row");
  node.setAttribute("role", "row");
  node.style.top = index * ROW + "px";
  for (const [name] of COLUMNS) {
    const value = name === "delta" ? signed(row.delta) : name === "val_bpb" ? number(row.val_bpb) : row[name];
    const cell = element("div", name === "n" ? null : value, NUMERIC.has(name) ? "n" : name === "status" ? row.status : "");
    cell.setAttribute("role", "cell");
    if (name === "n") {
      const link = element("a", row.n);
      link.href = "#" + row.n;
      link.dataset.n = row.n;
      link.dataset.index = index;
      link.setAttribute("aria-label", "experiment " + row.n);
      cell.append(link);
    }
    node.append(cell);
  }
  return node;
}

function heads() {
  $("head").replaceChildren(...COLUMNS.map(([name, words]) => {
    const cell = element("div", null, NUMERIC.has(name) ? "n" : ""), button = element("button", words + (sort.by === name ? (sort.down ? " ↓" : " ↑") : ""));
    cell.setAttribute("role", "columnheader");
    cell.setAttribute("aria-sort", sort.by !== name ? "none" : sort.down ? "descending" : "ascending");
    button.onclick = () => { sort = { by: name, down: sort.by === name ? !sort.down : false }; heads(); choose(); $("head").querySelectorAll("button")[COLUMNS.findIndex((one) => one[0] === name)].focus(); };
    cell.append(button);
    return cell;
  }));
}

function move(event) {
  const at = event.target.dataset.index, by = { ArrowDown: 1, ArrowUp: -1, PageDown: 12, PageUp: -12 }[event.key];
  if (at === undefined || !by) return;
  event.preventDefault();
  const to = Math.min(Math.max(Number(at) + by, 0), shown.length - 1), box = $("scroll");
  if (to * ROW < box.scrollTop) box.scrollTop = to * ROW;
  if ((to + 1) * ROW > box.scrollTop + box.clientHeight) box.scrollTop = (to + 1) * ROW - box.clientHeight;
  place();
  const link = $("space").querySelector(`a[data-index="${to}"]`);
  if (link) link.focus({ preventScroll: true });
}

// ---- pictures

function curve(svg, values, width, height) {
  svg.replaceChildren();
  if (values.length < 2) return;
  const low = Math.min(...values), high = Math.max(...values), scale = high > low ? (height - 6) / (high - low) : 0;
  const points = values.map((value, i) => `${((i * width) / (values.length - 1)).toFixed(1)} ${(height - 3 - (value - low) * scale).toFixed(1)}`);
  svg.append(drawn("path", { d: "M" + points.join("L"), class: "loss" }));
}

function chart() {
  const svg = $("chart"), measured = rows.filter((row) => row.val_bpb !== null), kept = rows.filter((row) => row.status === "keep" && row.val_bpb !== null);
  svg.replaceChildren();
  if (!measured.length) return;
  const start = measured[0].val_bpb;
  let best = Infinity, top = start;
  for (const row of kept.length ? kept : measured) best = Math.min(best, row.val_bpb);
  const reach = Math.max(start - best, 0.01 * best);
  for (const row of measured) if (row.val_bpb <= start + 1.5 * reach) { top = Math.max(top, row.val_bpb); best = Math.min(best, row.val_bpb); }
  const keeps = state.keeps.length ? state.keeps : [[0, start]], now = keeps[keeps.length - 1][1], sigma = state.sigma || 0;
  for (const [, value] of keeps) { best = Math.min(best, value); top = Math.max(top, value); }
  best = Math.min(best, now - sigma);
  top = Math.max(top, now + sigma);
  const margin = 0.12 * Math.max(top - best, 0.01 * best), low = best - margin, high = top + margin;
  const last = Math.max(rows[rows.length - 1].n, 1), X = (n) => 86 + (894 * n) / last, Y = (value) => 290 - (275 * (Math.min(value, high) - low)) / (high - low);
  for (let i = 0; i <= 4; i++) {
    const value = low + ((high - low) * i) / 4;
    svg.append(drawn("path", { d: `M86 ${Y(value)}H980`, class: "grid" }), drawn("text", { x: 80, y: Y(value) + 5, "text-anchor": "end" }, value.toFixed(3)));
  }
  for (const n of new Set([0, 1, 2, 3, 4].map((i) => Math.round((last * i) / 4)))) svg.append(drawn("text", { x: X(n), y: 312, "text-anchor": "middle" }, String(n)));
  for (const [name, value] of Object.entries(state.yardsticks)) {
    if (value > low && value < high) svg.append(drawn("path", { d: `M86 ${Y(value)}H980`, class: "yard" }), drawn("text", { x: 976, y: Y(value) - 4, "text-anchor": "end" }, `${name} ${value.toFixed(3)}`));
  }
  if (sigma) svg.append(drawn("path", { d: `M86 ${Y(now + sigma)}H980V${Y(now - sigma)}H86Z`, class: "band" }));
  const dots = (some) => some.map((row) => `M${X(row.n).toFixed(1)} ${Y(row.val_bpb === null ? high : row.val_bpb).toFixed(1)}h0`).join("");
  svg.append(drawn("path", { d: dots(rows.filter((row) => row.status === "discard" && row.val_bpb !== null)), class: "discards" }));
  svg.append(drawn("path", { d: dots(rows.filter((row) => FAILED.includes(row.status))), class: "fails" }));
  svg.append(drawn("path", { d: keeps.map(([n, value], i) => (i ? `H${X(n)}V${Y(value)}` : `M${X(n)} ${Y(value)}`)).join("") + "H980", class: "step" }));
  svg.append(drawn("path", { d: dots(kept), class: "kept" }));
  svg.append(drawn("title", {}, "Dots are first trials: green kept, grey discarded, red failed. The line is the best estimate so far, its band one sigma."));
}

// ---- one experiment

async function one(n) {
  const box = $("one"), answer = await fetch("/api/experiment/" + n);
  const it = answer.ok ? await answer.json() : null, trouble = it ? "" : await answer.text();
  if (location.hash !== "#" + n) return;
  const back = element("a", "← all experiments");
  back.href = "#";
  box.replaceChildren(back);
  fill(box, it, trouble);
  $("run").hidden = true;
  box.hidden = false;
  back.focus();
}

function fill(box, it, trouble) {
  if (!it) { box.append(element("p", trouble, "bad")); return; }
  box.append(element("h2", `Experiment ${it.n}: ${it.status || it.state}`), element("p", it.hypothesis));
  if (it.reason) box.append(element("p", it.reason, "soft"));
  const facts = element("dl"), say = (name, value) => facts.append(element("dt", name), element("dd", value));
  say("predicted, came out", `${signed(it.predicted_delta)}, ${signed(it.delta)}`);
  say("estimate, first trial", `${number(it.estimate)}, ${number(it.val_bpb)} bits per byte`);
  say("category, researcher", `${it.category}, ${it.researcher || "–"}`);
  say("cost", it.usd === null ? "not known" : "$" + it.usd.toFixed(4));
  say("edit of, commit", `experiment ${it.parent}, ${it.commit || "–"}`);
  box.append(facts);
  for (const trial of it.runs) {
    const audit = trial.audit ? (trial.audit.ok ? "audit passed" : "audit failed") : "no audit";
    const words = [`Trial ${trial.k}: ${trial.status || "running"}`, trial.role + (trial.subject === it.n ? "" : ` (experiment ${trial.subject})`), "seed " + trial.seed, number(trial.val_bpb), trial.isolation || "–", audit, trial.wall_seconds ? trial.wall_seconds.toFixed(1) + " s" : "", trial.peak_memory_mb ? trial.peak_memory_mb.toFixed(0) + " MB" : ""];
    box.append(element("h2", words.filter(Boolean).join(" · ")));
    const svg = drawn("svg", { viewBox: "0 0 300 90", preserveAspectRatio: "none", role: "img", "aria-label": `Loss of trial ${trial.k}` });
    curve(svg, trial.curve, 300, 90);
    if (trial.curve.length > 1) box.append(svg);
  }
  if (it.diff.length) {
    const pre = element("pre");
    pre.tabIndex = 0;
    pre.append(...it.diff.map((text) => element("span", text, text.startsWith("+") ? "add" : text.startsWith("-") ? "cut" : "")));
    box.append(element("h2", "Edit"), pre);
  }
  if (it.log) { const pre = element("pre", it.log); pre.tabIndex = 0; box.append(element("h2", "End of the log"), pre); }
}

function route() {
  const n = location.hash.slice(1);
  if (/^\d+$/.test(n)) { one(n); return; }
  $("one").hidden = true;
  $("run").hidden = false;
  place();
}

// ---- live

const keptRows = (some) => some.filter((row) => row.n > 0 && row.status === "keep").length;
const behind = () => state.next !== rows.length || (state.by_status.keep || 0) !== keptRows(rows);

async function load() {
  if (loading) return;
  loading = true;
  let wait = 2000;
  try {
    const after = rows.length ? rows[rows.length - 1].n : -1;
    const fresh = await (await fetch("/api/experiments?after=" + after)).json();
    let all = rows.concat(fresh);
    if (after >= 0 && keptRows(all) !== (state.by_status.keep || 0)) all = await (await fetch("/api/experiments?after=-1")).json();
    for (const row of all) row.text = row.text || `${row.n} ${row.status} ${row.category} ${row.hypothesis}`.toLowerCase();
    rows = all;
    choose();
    chart();
    wait = 500;
  } finally {
    loading = false;
    if (behind()) setTimeout(() => { if (behind()) load(); }, wait); // more was decided meanwhile, or the server was away
  }
}

function show(now) {
  state = now;
  document.title = `${now.tag}: ${now.state}`;
  $("tag").textContent = `${now.tag}: ${now.state}`;
  const usd = now.usd === null ? "cost not known" : "$" + now.usd.toFixed(2);
  $("setting").textContent = [now.setting, now.isolation, "judge " + now.judge, `${now.experiments} experiments`, `${now.by_status.keep || 0} kept`, usd].filter(Boolean).join(" · ");
  $("best").textContent = now.best_words;
  $("doing").textContent = (now.current ? `experiment ${now.current.experiment}: ${now.current.hypothesis} · ` : "") + now.doing;
  $("losses").toggleAttribute("hidden", now.losses.length < 2);
  curve($("losses"), now.losses, 300, 48);
  if (behind()) load();
}

heads();
$("filter").oninput = choose;
$("status").onchange = choose;
$("scroll").onscroll = () => requestAnimationFrame(place);
$("space").onkeydown = move;
window.onhashchange = route;
document.onkeydown = (event) => { if (event.key === "Escape" && !$("one").hidden) location.hash = ""; };
new EventSource("/api/events").onmessage = (event) => show(JSON.parse(event.data));
route();
