// The view of all runs side by side, whatever backend they ran on.

import { $, dollars, svgElement, element, link, number, percent, signed, duration, table } from "./dom.js";
import { axes, plot, range, spread, stairs, waiting } from "./plot.js";

const SERIES = 6; // colours in style.css; further runs get the same again, dashed
const NARROW = 560; // width in pixels below which names would cover each other
const hidden = new Set();
let runs = [];

export function showRuns(newRuns) {
  runs = newRuns;
  const same = new Set(runs.map((run) => run.text)).size < 2;
  $("same").textContent = same || runs.length < 2 ? "" : "These runs read different texts (see the last column). Their bits per byte cannot be compared; their changes in per cent can, roughly.";
  const focused = document.activeElement?.dataset.run;
  $("sides").replaceChildren(table("Runs", [
    ["show", showBox],
    ["run", (run) => link(run.tag, run.tag)],
    ["state", (run) => run.state],
    ["backend", (run) => `${run.backend}, ${run.preset}`],
    ["device", (run) => run.device],
    ["budget", (run) => duration(run.budget), true],
    ["experiments", (run) => `${run.experiments}, ${run.kept} kept`, true],
    ["baseline", (run) => number(run.steps[0]?.[1]), true],
    ["best", (run) => number(bestOf(run)), true],
    ["change", (run) => (run.steps.length ? `${signed(bestOf(run) - run.steps[0][1])} (${percent(bestOf(run) / run.steps[0][1] - 1, 1)})` : "–"), true],
    ["noise", (run) => number(run.sigma, 5), true],
    ["device time", (run) => duration(run.wall_seconds), true],
    ["cost", (run) => dollars(run.usd), true],
    ["text", (run) => `${run.corpus}, ${run.text.slice(0, 8)}`],
  ], runs));
  if (focused) [...$("sides").querySelectorAll("input")].find((one) => one.dataset.run === focused)?.focus();
  plot($("side-chart"), draw);
}

const bestOf = (run) => run.steps[run.steps.length - 1]?.[1];

function showBox(run) {
  const label = element("label"), box = element("input"), index = runs.indexOf(run);
  box.type = "checkbox";
  box.checked = !hidden.has(run.tag);
  box.dataset.run = run.tag;
  box.setAttribute("aria-label", "show " + run.tag);
  box.onchange = () => { if (box.checked) hidden.delete(run.tag); else hidden.add(run.tag); $("side-chart").redraw(); };
  label.append(box, element("span", index % (2 * SERIES) < SERIES ? " ━━" : " ╌╌", `s${index % SERIES}`));
  return label;
}

function draw(svg) {
  const hours = $("side-x").value === "hours", share = $("side-y").value === "percent";
  const lines = runs.map((run, index) => {
    const points = run.steps.map(([n, value, at]) => [hours ? at : n, share ? 100 * (value / run.steps[0][1] - 1) : value]);
    const end = hours ? Math.max(points[points.length - 1]?.[0] ?? 0, (run.wall_seconds ?? 0) / 3600) : run.experiments;
    return { index, points, end, tag: run.tag };
  }).filter((one) => one.points.length && !hidden.has(one.tag));
  if (!lines.length) { waiting(svg, runs.some((run) => run.steps.length) ? "No run is chosen in the table." : "Waits for the first run with a baseline."); return; }
  const x = [0, Math.max(...lines.map((one) => one.end)) * 1.02 || 1], y = range(lines.flatMap((one) => one.points.map(([, value]) => value)), 0.1);
  const at = axes(svg, { x, y, labelX: hours ? "hours" : "experiment", labelY: share ? "per cent of the run's own baseline" : "bits per byte", whole: !hours });
  const heights = spread(lines.map(({ points }) => at.Y(points[points.length - 1][1]) - 6), 14, at.top, at.bottom - 4);
  lines.forEach(({ index, points, end }, i) => {
    svg.append(svgElement("path", { d: stairs(points, end, at), class: `series s${index % SERIES}` + (index % (2 * SERIES) < SERIES ? "" : " dashed") }));
    if (svg.clientWidth < NARROW) return; // the table names the lines
    const name = svgElement("text", { x: at.X(end) - 4, y: heights[i], "text-anchor": "end", class: "on" }, runs[index].tag);
    svg.append(name);
    // A short line with a long name: the name begins at the axis and goes on beyond the line.
    name.setAttribute("x", Math.min(Math.max(at.X(end) - 4, at.left + 4 + name.getComputedTextLength()), svg.clientWidth));
  });
}

export function startRuns() {
  $("side-x").onchange = $("side-y").onchange = () => $("side-chart").redraw();
}
