// The dashboard's page: chooses the view and keeps it up to date.

import { showChart, startChart } from "./chart.js";
import { showRuns, startRuns } from "./compare.js";
import { allowActions, experimentButtons, loopButtons } from "./actions.js";
import { $, address, cards, dollars, svgElement, element, link, number, signed } from "./dom.js";
import { showFinding, showFindings } from "./findings.js";
import { edit, showExperiment } from "./experiment.js";
import { showInsight } from "./insight.js";
import { spark } from "./plot.js";
import { showStory } from "./story.js";
import { drawVisibleRows, focusRow, showTable, startTable } from "./table.js";

const VIEWS = ["run", "one", "story", "findings", "insight", "runs"];
const NAMED = ["story", "findings", "insight"]; // views with an address of their own below a run's
const REFRESHED = ["findings", "insight"]; // views that are fetched again after a decision
const RUNS_MILLISECONDS = 5000, REST = 9; // a view that is fetched again rests that many times as long as it took

let tag = null, state = null, rows = new Map(), loading = false, stream = null, left = null, first = null, route = { view: "run" };
let due = false, resting = false, undecided = null; // `undecided`: the number of the experiment shown, until its verdict falls

// ---- views by address: #/runs, #/TAG, #/TAG/insight, #/TAG/12, #/TAG/finding/KEY

function parseAddress() {
  const parts = location.hash.replace(/^#\/?/, "").split("/").map((part) => { try { return decodeURIComponent(part); } catch { return ""; } });
  if (parts[0] === "runs" && parts.length === 1) return { view: "runs" };
  if (/^\d+$/.test(parts[1] ?? "")) return { tag: parts[0], view: "one", n: Number(parts[1]) };
  return { tag: parts[0], view: parts[1] === "finding" ? "finding" : NAMED.includes(parts[1]) ? parts[1] : "run", key: parts[2] };
}

async function showRoute() {
  const before = route;
  route = parseAddress();
  if (route.view !== "runs") {
    if (!route.tag) { location.replace(address(first ?? "runs")); return; }
    if (route.tag !== tag) followRun(route.tag);
  }
  for (const [view, path] of [["run", [tag]], ...NAMED.map((name) => [name, [tag, name]]), ["runs", ["runs"]]]) {
    const navigation = $("to-" + view);
    navigation.hidden = !tag && view !== "runs";
    navigation.href = address(...path);
    if (view === route.view || (view === "findings" && route.view === "finding")) navigation.setAttribute("aria-current", "page"); else navigation.removeAttribute("aria-current");
  }
  if (before.view === "one") left = before.n;
  for (const view of VIEWS) $(view).hidden = view !== ({ one: "", finding: "findings" }[route.view] ?? route.view);
  $("top").hidden = route.view === "runs";
  await render();
  if (route.view === "run") { drawRun(); if (before.view === "one") focusRow(left); }
}

// Fetches and shows the view's own data. The run's view gets its data from the stream. `again`: the view is open already.
async function render(again = false) {
  const asked = route, isCurrent = () => route === asked; // a person may go on while the data come
  try {
    if (asked.view === "runs") { const all = await get("/api/runs"); if (isCurrent()) showRuns(all); }
    if (asked.view === "insight") { const data = await get(`/api/runs/${encodeURIComponent(asked.tag)}/overview`); if (isCurrent()) showInsight($("insight"), data, asked.tag); }
    if (asked.view === "story") await showStory($("story"), asked.tag, (before) => get(`/api/runs/${encodeURIComponent(asked.tag)}/story` + (before === null ? "" : `?before=${before}`)));
    if (asked.view === "findings") {
      const [lineage, offers] = await Promise.all([get(`/api/runs/${encodeURIComponent(asked.tag)}/lineage`), get(`/api/runs/${encodeURIComponent(asked.tag)}/findings`)]);
      if (isCurrent()) showFindings($("findings"), lineage, offers, asked.tag);
    }
    if (asked.view === "finding") {
      const one = (await get(`/api/runs/${encodeURIComponent(asked.tag)}/findings`)).find(({ key }) => key === asked.key);
      const tried = one && one.experiment !== null ? await get(`/api/runs/${encodeURIComponent(asked.tag)}/experiment/${one.experiment}`) : null;
      if (isCurrent()) { showFinding($("findings"), one, tried, asked.tag, ({ diff }) => edit(diff, "Edit, as it was tried here")); showAtTop("findings"); }
    }
    if (asked.view === "one") {
      const data = await get(`/api/runs/${encodeURIComponent(asked.tag)}/experiment/${asked.n}`);
      if (!isCurrent()) return;
      undecided = data.state === "decided" ? null : data.n;
      const field = () => $("one").querySelector(".tools input"), typed = again ? field()?.value : "", focused = again && $("one").contains(document.activeElement), writing = focused && document.activeElement === field();
      showExperiment($("one"), data, asked.tag, experimentButtons(data, asked.tag, render));
      if (typed && field()) field().value = typed;
      if (!again) showAtTop("one");
      else if (focused) ((writing && field()) || $("one").querySelector("a")).focus({ preventScroll: true });
    }
  } catch (error) {
    if (!isCurrent()) return;
    if (asked.view === "one") { $("one").replaceChildren(link("← all experiments", asked.tag), element("p", error.message, "bad")); showAtTop("one"); } else showMessage(error.message);
  }
}

function showAtTop(view) {
  $(view).hidden = false;
  $(view).querySelector("a")?.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

// ---- following a run

function followRun(newTag) {
  [tag, state, rows] = [newTag, null, new Map()];
  clearRun(newTag);
  openStream();
}

// Takes away what the page says of the run before.
function clearRun(heading) {
  document.title = heading;
  $("tag").textContent = heading;
  for (const id of ["state", "setting"]) $(id).textContent = "";
  for (const id of ["cards", "wishes", "now"]) $(id).replaceChildren();
  $("chart").replaceChildren();
  showTable([], tag, []);
  showMessage("");
}

function openStream() {
  stream?.close();
  stream = null;
  if (!tag || document.hidden) return; // a hidden page holds no connection
  stream = new EventSource(`/api/runs/${encodeURIComponent(tag)}/events`);
  stream.onmessage = (event) => showState(JSON.parse(event.data));
  stream.onopen = () => showMessage("");
  stream.onerror = () => {
    if (stream.readyState !== EventSource.CLOSED) { showMessage("The server does not answer; trying again."); return; }
    clearRun(state ? tag : "No such run");
    showMessage(`There is no run ${tag}, or the server refuses. “All runs” lists those that there are.`);
    for (const view of VIEWS) $(view).hidden = true;
  };
}

const showMessage = (text) => { $("trouble").textContent = text; };
const countKept = () => { let count = 0; for (const row of rows.values()) if (row.experiment > 0 && row.status === "keep") count += 1; return count; };
const isBehind = () => state && !state.error && (state.decided !== rows.size || (state.by_status.keep ?? 0) !== countKept());

async function loadRows() {
  if (loading) return;
  loading = true;
  const asked = tag;
  try {
    let since = 0;
    for (const row of rows.values()) since = Math.max(since, row.decided);
    await fetchRows(asked, since);
    if (tag === asked && isBehind() && since) await fetchRows(asked, 0); // an older decision has changed: a kept change was given up, or the clock was set back
    if (tag === asked) drawRun();
  } catch (error) {
    showMessage(error.message);
  } finally {
    loading = false;
    if (isBehind()) setTimeout(() => { if (isBehind()) loadRows(); }, 1000); // more was decided meanwhile, or the server did not answer
  }
}

async function fetchRows(asked, since) {
  const fresh = await get(`/api/runs/${encodeURIComponent(asked)}/experiments?since=${since}`);
  if (tag === asked) for (const row of fresh) rows.set(row.experiment, row);
}

function drawRun() {
  if (route.view !== "run" || !state || state.error) return;
  const all = [...rows.values()].sort((a, b) => a.experiment - b.experiment);
  showTable(all, tag, state.columns);
  showChart(all, state);
}

function showState(now) {
  if (now.error) { clearRun(now.tag); showMessage(now.error); return; }
  const before = state;
  state = now;
  document.title = `${now.tag}: ${now.state}`;
  $("tag").textContent = now.tag;
  $("state").textContent = (now.wish === "pause" && now.state === "running" ? "paused" : now.state) + (now.state === "running" || !now.ended ? "" : `: ${now.ended}`);
  $("setting").textContent = [`${now.backend}, preset ${now.preset}`, now.device, now.isolation && `isolation ${now.isolation}`, `judge ${now.judge}`].filter(Boolean).join(" · ");
  $("cards").replaceChildren(...cards([
    ["best, measured mean", now.best_bpb === null ? "–" : `${number(now.best_bpb)}${now.best_high === null ? "" : ` ± ${number(now.best_high - now.best_bpb)}`} bpb`],
    ["against the baseline", now.delta === null ? "–" : signed(now.delta)],
    ["best, cautious estimate", now.best_experiment && now.best_high !== null ? `${number(now.best_estimate)} bpb` : null],
    ["experiments", `${now.experiments}, ${now.by_status.keep ?? 0} kept${now.by_status.stopped ? `, ${now.by_status.stopped} stopped early` : ""}`],
    ["noise between seeds", number(now.sigma)],
    ["paired noise", now.paired === null ? null : number(now.paired)],
    ["language models", dollars(now.usd)],
    ["memory, last trial", now.memory_mb === null ? null : `${now.memory_mb.toFixed(0)} MB`],
  ]));
  if (before?.state !== now.state || before?.wish !== now.wish) $("wishes").replaceChildren(...loopButtons(now));
  showTrials(now);
  if (isBehind()) loadRows();
  else if (!before && !now.decided) drawRun();
  else if (before && JSON.stringify(before.keeps) !== JSON.stringify(now.keeps)) drawRun();
  if (before && before.decided !== now.decided && REFRESHED.includes(route.view)) refresh();
  if (route.view === "one" && undecided === route.n && !now.running.some((one) => one.n === undecided)) { undecided = null; render(true); }
}

// Fetches the open view again after a decision, and then rests: what a long run has learnt takes seconds to gather.
async function refresh() {
  due = true;
  if (resting) return;
  resting = true;
  while (due && REFRESHED.includes(route.view)) {
    due = false;
    const began = performance.now();
    await render(true);
    await new Promise((done) => { setTimeout(done, REST * (performance.now() - began)); });
  }
  due = resting = false;
}

// Shows every trial under way: there may be several.
function showTrials(now) {
  const nodes = now.running.map((one) => {
    const box = element("div", null, "now"), line = element("p"), bar = element("progress");
    line.append(link(one.name, now.tag, one.n), `: ${one.progress}`);
    bar.value = one.share ?? 0;
    bar.setAttribute("aria-label", `experiment ${one.n}`);
    box.append(line, element("p", one.hypothesis, "soft words"));
    if (one.share !== null) box.append(bar);
    if (one.losses.length > 1) {
      const svg = svgElement("svg", { role: "img", "aria-label": `Loss of experiment ${one.n}`, preserveAspectRatio: "none" });
      spark(svg, one.losses);
      box.append(svg);
    }
    return box;
  });
  if (!nodes.length && now.state === "running") nodes.push(element("p", now.wish === "pause" ? "paused: nothing begins until it is resumed" : now.decided ? "proposing" : "preparing the baseline", "now soft"));
  const focused = $("now").contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  $("now").replaceChildren(...nodes);
  if (focused) [...$("now").querySelectorAll("a")].find((one) => one.getAttribute("href") === focused)?.focus({ preventScroll: true });
}

startChart();
startTable();
startRuns();
$("skip").onclick = () => { $("main").focus(); };
window.onhashchange = showRoute;
window.onresize = () => { if (route.view === "run") drawVisibleRows(); };
document.onvisibilitychange = openStream;
document.onkeydown = (event) => { if (event.key === "Escape" && route.view === "one") location.hash = address(route.tag); };

// Which run to show first, and whether this page may act, are the server's to say.
async function begin() {
  try {
    const start = await get("/api/start");
    first = start.tag;
    allowActions(start.actions);
  } catch { /* the page shows what it can */ }
  await showRoute();
}

setInterval(() => { if (route.view === "runs" && !document.hidden) render(); }, RUNS_MILLISECONDS);
begin();
