// The dashboard's page: which view is shown, and what keeps it up to date.

import { showChart, startChart } from "./chart.js";
import { showRuns, startRuns } from "./compare.js";
import { $, address, dollars, drawn, element, facts, link, number, signed } from "./dom.js";
import { showExperiment } from "./experiment.js";
import { showInsight } from "./insight.js";
import { spark } from "./plot.js";
import { focusRow, place, showTable, startTable } from "./table.js";

const VIEWS = ["run", "one", "insight", "runs"];
const RUNS_MILLISECONDS = 5000;

let tag = null, state = null, rows = new Map(), loading = false, stream = null, left = null, route = { view: "run" };

// ---- addresses: #/runs, #/TAG, #/TAG/insight, #/TAG/12

function parse() {
  const parts = location.hash.replace(/^#\/?/, "").split("/").map((part) => { try { return decodeURIComponent(part); } catch { return ""; } });
  if (parts[0] === "runs" && parts.length === 1) return { view: "runs" };
  if (/^\d+$/.test(parts[1] ?? "")) return { tag: parts[0], view: "one", n: Number(parts[1]) };
  return { tag: parts[0], view: parts[1] === "insight" ? "insight" : "run" };
}

async function go() {
  const before = route;
  route = parse();
  if (route.view !== "runs") {
    if (!route.tag) { const all = await get("/api/runs"); location.replace(address(all.length ? all[all.length - 1].tag : "runs")); return; }
    if (route.tag !== tag) follow(route.tag);
  }
  for (const [view, path] of [["run", [tag]], ["insight", [tag, "insight"]], ["runs", ["runs"]]]) {
    const way = $("to-" + view);
    way.hidden = !tag && view !== "runs";
    way.href = address(...path);
    if (view === route.view) way.setAttribute("aria-current", "page"); else way.removeAttribute("aria-current");
  }
  if (before.view === "one") left = before.n;
  for (const view of VIEWS) $(view).hidden = view !== (route.view === "one" ? "" : route.view);
  $("top").hidden = route.view === "runs";
  await render();
  if (route.view === "run") { draw(); if (before.view === "one") focusRow(left); }
}

// The view's own data; the run view is fed by the stream.
async function render() {
  const asked = route, there = () => route === asked;
  try {
    if (asked.view === "runs") { const all = await get("/api/runs"); if (there()) showRuns(all); }
    if (asked.view === "insight") { const it = await get(`/api/runs/${encodeURIComponent(asked.tag)}/overview`); if (there()) showInsight($("insight"), it, asked.tag); }
    if (asked.view === "one") {
      const it = await get(`/api/runs/${encodeURIComponent(asked.tag)}/experiment/${asked.n}`);
      if (!there()) return;
      showExperiment($("one"), it, asked.tag, state ? state.decided + state.running.length : it.n + 1);
      show("one");
    }
  } catch (error) {
    if (!there()) return;
    if (asked.view === "one") { $("one").replaceChildren(link("← all experiments", asked.tag), element("p", error.message, "bad")); show("one"); } else say(error.message);
  }
}

function show(view) {
  $(view).hidden = false;
  $(view).querySelector("a")?.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

// ---- live

function follow(newTag) {
  [tag, state, rows] = [newTag, null, new Map()];
  listen();
}

function listen() {
  stream?.close();
  stream = null;
  if (!tag || document.hidden) return; // a page that nobody sees takes no connection
  stream = new EventSource(`/api/runs/${encodeURIComponent(tag)}/events`);
  stream.onmessage = (event) => take(JSON.parse(event.data));
  stream.onopen = () => say("");
  stream.onerror = () => say(stream.readyState === EventSource.CLOSED ? `There is no run ${tag}, or the server refuses.` : "The server does not answer; trying again.");
}

const say = (words) => { $("trouble").textContent = words; };
const kept = () => { let count = 0; for (const row of rows.values()) if (row.n > 0 && row.status === "keep") count += 1; return count; };
const behind = () => state && !state.error && (state.decided !== rows.size || (state.by_status.keep ?? 0) !== kept());

async function load() {
  if (loading) return;
  loading = true;
  const asked = tag;
  try {
    let since = 0;
    for (const row of rows.values()) since = Math.max(since, row.decided);
    await merge(asked, since);
    if (tag === asked && behind() && since) await merge(asked, 0); // a keep was given up, or the clock was set back
    if (tag === asked) draw();
  } catch (error) {
    say(error.message);
  } finally {
    loading = false;
    if (behind()) setTimeout(() => { if (behind()) load(); }, 1000); // more was decided meanwhile, or the server was away
  }
}

async function merge(asked, since) {
  const fresh = await get(`/api/runs/${encodeURIComponent(asked)}/experiments?since=${since}`);
  if (tag === asked) for (const row of fresh) rows.set(row.n, row);
}

function draw() {
  if (route.view !== "run" || !state || state.error) return;
  const all = [...rows.values()].sort((a, b) => a.n - b.n);
  showTable(all, tag);
  showChart(all, state);
}

function take(now) {
  if (now.error) { say(now.error); return; }
  const before = state;
  state = now;
  document.title = `${now.tag}: ${now.state}`;
  $("tag").textContent = now.tag;
  $("state").textContent = now.state + (now.state === "running" || !now.ended ? "" : `: ${now.ended}`);
  $("setting").textContent = [`${now.backend}, preset ${now.preset}`, now.device, now.isolation && `isolation ${now.isolation}`, `judge ${now.judge}`].filter(Boolean).join(" · ");
  $("cards").replaceChildren(...facts([
    ["best", now.best_estimate === null ? "–" : `${number(now.best_estimate)} bpb`],
    ["against the baseline", now.best ? signed(now.gain) : "–"],
    ["experiments", `${now.experiments}, ${now.by_status.keep ?? 0} kept`],
    ["noise (1 sigma)", number(now.sigma)],
    ["language models", dollars(now.usd)],
    ["memory, last trial", now.memory_mb === null ? null : `${now.memory_mb.toFixed(0)} MB`],
  ]).childNodes);
  trials(now);
  if (behind()) load();
  else if (before && JSON.stringify(before.keeps) !== JSON.stringify(now.keeps)) draw();
  if (before && before.decided !== now.decided && route.view === "insight") render();
}

// Every trial in flight: there may be several.
function trials(now) {
  const nodes = now.running.map((one) => {
    const whole = element("div", null, "now"), words = element("p"), bar = element("progress");
    words.append(link(one.name, now.tag, one.n), `: ${one.progress}`);
    bar.value = one.share ?? 0;
    bar.setAttribute("aria-label", `experiment ${one.n}`);
    whole.append(words, element("p", one.hypothesis, "soft words"));
    if (one.share !== null) whole.append(bar);
    if (one.losses.length > 1) {
      const svg = drawn("svg", { role: "img", "aria-label": `Loss of experiment ${one.n}`, preserveAspectRatio: "none" });
      spark(svg, one.losses);
      whole.append(svg);
    }
    return whole;
  });
  if (!nodes.length && now.state === "running") nodes.push(element("p", "proposing", "now soft"));
  const focused = $("now").contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  $("now").replaceChildren(...nodes);
  if (focused) [...$("now").querySelectorAll("a")].find((one) => one.getAttribute("href") === focused)?.focus({ preventScroll: true });
}

startChart();
startTable();
startRuns();
$("skip").onclick = () => { $("main").focus(); };
window.onhashchange = go;
window.onresize = () => { if (route.view === "run") place(); };
document.onvisibilitychange = listen;
document.onkeydown = (event) => { if (event.key === "Escape" && route.view === "one") location.hash = address(route.tag); };
setInterval(() => { if (route.view === "runs" && !document.hidden) render(); }, RUNS_MILLISECONDS);
go();
