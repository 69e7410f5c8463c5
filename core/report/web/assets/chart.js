// The progress chart: every experiment, the best so far with its noise, and the results of compressors.

import { $, address, svgElement, number, signed } from "./dom.js";
import { axes, crosses, diamonds, dots, plot, range, spread, stairs, waiting } from "./plot.js";

const FAILED = new Set(["crash", "invalid", "timeout"]), STOPPED = "stopped";
const OFF_SCALE = 1.5; // multiple of the whole gain: results further than that above the start are drawn at the edge
const NEAR = 24; // pixels within which the pointer chooses an experiment

let rows = [], state = null, frame = null, chosen = -1, means = new Map();

export function showChart(newRows, newState) {
  rows = newRows;
  state = newState;
  means = new Map(state.keeps);
  const box = $("chart-box");
  box.setAttribute("aria-valuemin", rows.length ? rows[0].experiment : 0);
  box.setAttribute("aria-valuemax", rows.length ? rows[rows.length - 1].experiment : 0);
  choose(Math.min(chosen, rows.length - 1));
  plot($("chart"), draw);
}

function scale() {
  const measured = rows.filter((row) => row.val_bpb !== null), kept = measured.filter((row) => row.status === "keep");
  if (!measured.length) return null;
  const start = measured[0].val_bpb, steps = state.keeps.length ? state.keeps : [[measured[0].experiment, start]];
  const best = Math.min(...steps.map(([, value]) => value), ...(kept.length ? kept : measured.slice(0, 1)).map((row) => row.val_bpb));
  const limit = start + OFF_SCALE * Math.max(start - best, 0.01 * best);
  const values = measured.map((row) => row.val_bpb).filter((value) => value <= limit), sigma = state.sigma ?? 0;
  for (const [, value] of steps) values.push(value - sigma, value + sigma);
  return { measured, steps, sigma, y: range(values) };
}

function draw(svg) {
  const found = scale();
  frame = null;
  if (!found) { waiting(svg, emptyReason()); return; }
  const { steps, sigma, y } = found, last = Math.max(rows[rows.length - 1].experiment, 1);
  const at = axes(svg, { x: [-0.015 * last, last * 1.015], y, labelX: "experiment", labelY: "bits per byte", whole: true });
  frame = { ...at, y };
  const yards = Object.entries(state.yardsticks).filter(([, value]) => value > y[0] && value < y[1]);
  const heights = spread(yards.map(([, value]) => at.Y(value) - 5), 14, at.top, at.bottom - 4);
  yards.forEach(([name, value], i) => {
    svg.append(svgElement("path", { d: `M${at.left} ${at.Y(value)}H${at.right}`, class: "yard" }));
    svg.append(svgElement("text", { x: at.right - 4, y: heights[i], "text-anchor": "end", class: "on" }, `${name} ${value.toFixed(3)}`));
  });
  if (sigma) {
    const up = stairs(steps.map(([n, value]) => [n, value + sigma]), last, at);
    const down = steps.map(([n, value]) => [n, value - sigma]).reverse();
    let lowerEdge = `V${at.Y(down[0][1]).toFixed(1)}`;
    down.forEach(([n], i) => { lowerEdge += `H${at.X(n).toFixed(1)}` + (down[i + 1] ? `V${at.Y(down[i + 1][1]).toFixed(1)}` : ""); });
    svg.append(svgElement("path", { d: up + lowerEdge + "Z", class: "band" }));
  }
  const [inside, above, failed, kept, simpler] = [[], [], [], [], []];
  for (const row of rows) {
    const place = position(row);
    (row.status === "keep" ? (row.simpler ? simpler : kept) : FAILED.has(row.status) ? failed : row.status === STOPPED || row.val_bpb !== null && row.val_bpb > y[1] ? above : inside).push(place);
  }
  svg.append(svgElement("path", { d: dots(inside, at), class: "discards" }));
  svg.append(svgElement("path", { d: above.map(([n, value]) => `M${(at.X(n) - 4).toFixed(1)} ${(at.Y(value) + 3).toFixed(1)}l4 -7l4 7z`).join(""), class: "above" }));
  svg.append(svgElement("path", { d: crosses(failed, at), class: "fails" }));
  svg.append(svgElement("path", { d: stairs(steps, last, at), class: "step" }));
  svg.append(svgElement("path", { d: dots(kept, at), class: "kept" }));
  svg.append(svgElement("path", { d: diamonds(simpler, at), class: "simpler" }));
  svg.append(svgElement("circle", { r: 8, class: "ring", id: "ring", visibility: "hidden" }));
  drawRing();
}

function emptyReason() {
  if (state.state !== "running") return "No experiment has a result.";
  return rows.length ? "Waits for the first result." : "Waits for the baseline: its first trial is the first dot.";
}

// Where a row is drawn: a kept one on the line that it makes, others by their first trial, and at the upper edge what has
// no number or one off the scale.
function position(row) {
  const mean = row.status === "keep" ? means.get(row.experiment) : undefined;
  if (mean !== undefined) return [row.experiment, mean];
  const top = frame.y[1] - 0.02 * (frame.y[1] - frame.y[0]);
  return [row.experiment, row.val_bpb === null ? top : Math.min(row.val_bpb, top)];
}

function choose(index) {
  chosen = index;
  const row = rows[index], box = $("chart-box");
  const text = row ? `experiment ${row.experiment}: ${row.status}${row.simpler ? " for less code" : ""}, ${number(row.val_bpb)} (${signed(row.change)}) · ${row.description}` : "";
  $("point").textContent = text || "Point at a dot, or focus the chart and use the arrow keys; Enter or a click opens the experiment.";
  box.setAttribute("aria-valuenow", row ? row.experiment : 0);
  box.setAttribute("aria-valuetext", text || "none chosen");
  drawRing();
}

function drawRing() {
  const ring = $("ring"), row = rows[chosen];
  if (!ring) return;
  ring.setAttribute("visibility", row ? "visible" : "hidden");
  if (!row || !frame) return;
  const [n, value] = position(row);
  ring.setAttribute("cx", frame.X(n));
  ring.setAttribute("cy", frame.Y(value));
}

function nearest(event) {
  if (!frame) return -1;
  const box = $("chart").getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
  let best = -1, least = NEAR * NEAR;
  rows.forEach((row, index) => {
    const dx = frame.X(row.experiment) - px;
    if (dx < -NEAR || dx > NEAR) return;
    const dy = frame.Y(position(row)[1]) - py, distance = dx * dx + dy * dy - (row.status === "keep" ? 30 : 0); // of two, the kept one
    if (distance < least) [best, least] = [index, distance];
  });
  return best;
}

function open() {
  if (rows[chosen]) location.hash = address(state.tag, rows[chosen].experiment);
}

export function startChart() {
  const box = $("chart-box");
  box.onpointermove = (event) => { const index = nearest(event); if (index >= 0) choose(index); };
  box.onclick = (event) => { const index = nearest(event); if (index >= 0) { choose(index); open(); } };
  box.onkeydown = (event) => {
    const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageDown: -10, PageUp: 10, Home: -rows.length, End: rows.length }[event.key];
    if (by) { event.preventDefault(); choose(Math.max(0, Math.min(rows.length - 1, chosen + by))); }
    if (event.key === "Enter") open();
  };
}
