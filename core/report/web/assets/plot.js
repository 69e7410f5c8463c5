// Axes, lines and dots in SVG, drawn at the size at which they are shown.

import { svgElement } from "./dom.js";

const LEFT = 58, RIGHT = 12, TOP = 26, BOTTOM = 38, DIGIT = 7; // pixels; a digit of a label is at most DIGIT wide
const resized = new ResizeObserver((entries) => entries.forEach(({ target }) => target.redraw?.()));

// Draws now, and again whenever the picture's size changes.
export function plot(svg, draw) {
  svg.redraw = () => { if (svg.clientWidth) { svg.replaceChildren(); draw(svg); } };
  resized.observe(svg);
  svg.redraw();
}

// Says in an empty picture what it waits for.
export function waiting(svg, text) {
  svg.setAttribute("viewBox", `0 0 ${svg.clientWidth} ${svg.clientHeight}`);
  const lines = [""], most = Math.max(12, Math.floor(svg.clientWidth / 8));
  for (const word of text.split(" ")) {
    if (lines[lines.length - 1].length + word.length > most) lines.push("");
    lines[lines.length - 1] += `${word} `;
  }
  lines.forEach((words, i) => svg.append(svgElement("text", { x: svg.clientWidth / 2, y: svg.clientHeight / 2 + 18 * (i - (lines.length - 1) / 2), "text-anchor": "middle" }, words.trim())));
}

// Moves heights apart, from the top down, so that no two labels are closer than `least` pixels.
export function spread(heights, least, top, bottom) {
  const order = heights.map((height, index) => [height, index]).sort((a, b) => a[0] - b[0]), found = [];
  let at = top - least;
  for (const [height, index] of order) found[index] = at = Math.max(height, at + least);
  let limit = bottom;
  for (const [, index] of order.reverse()) { found[index] = Math.min(found[index], limit); limit = found[index] - least; }
  return found;
}

export function range(values, share = 0.06) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return [0, 1];
  const margin = high > low ? share * (high - low) : Math.max(Math.abs(low) * 0.01, 1e-6);
  return [low - margin, high + margin];
}

export function axes(svg, { x, y, labelX, labelY, whole = false }) {
  const width = svg.clientWidth, height = svg.clientHeight;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const heights = ticks(y, Math.max(2, Math.round(height / 70)));
  const left = Math.max(LEFT, 12 + DIGIT * Math.max(0, ...heights.map(([, label]) => label.length))); // results that hardly differ have long labels
  const X = (value) => left + ((width - left - RIGHT) * (value - x[0])) / (x[1] - x[0] || 1);
  const Y = (value) => height - BOTTOM - ((height - TOP - BOTTOM) * (value - y[0])) / (y[1] - y[0] || 1);
  for (const [value, label] of heights) {
    svg.append(svgElement("path", { d: `M${left} ${Y(value)}H${width - RIGHT}`, class: "grid" }));
    svg.append(svgElement("text", { x: left - 6, y: Y(value) + 4, "text-anchor": "end" }, label));
  }
  for (const [value, label] of ticks(x, Math.max(2, Math.round(width / 110)), whole)) {
    svg.append(svgElement("text", { x: X(value), y: height - BOTTOM + 17, "text-anchor": "middle" }, label));
  }
  svg.append(svgElement("text", { x: width - RIGHT, y: height - 5, "text-anchor": "end", class: "label" }, labelX));
  svg.append(svgElement("text", { x: 10, y: 16, class: "label" }, labelY));
  return { X, Y, left, right: width - RIGHT, top: TOP, bottom: height - BOTTOM };
}

// Round numbers inside a range, with their labels.
export function ticks([low, high], count, whole = false) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  let step = power * ([1, 2, 5, 10].find((one) => one * power >= rough) ?? 10);
  if (whole) step = Math.max(1, Math.round(step));
  const digits = Math.min(10, Math.max(0, -Math.floor(Math.log10(step) + 1e-9))), found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) {
    found.push([i * step, (i * step).toFixed(digits).replace("-", "−")]);
  }
  return found;
}

export const line = (points, { X, Y }) => points.map(([x, y], i) => `${i ? "L" : "M"}${X(x).toFixed(1)} ${Y(y).toFixed(1)}`).join("");
export const stairs = (points, end, { X, Y }) => points.map(([x, y], i) => (i ? `H${X(x).toFixed(1)}V${Y(y).toFixed(1)}` : `M${X(x).toFixed(1)} ${Y(y).toFixed(1)}`)).join("") + `H${X(end).toFixed(1)}`;
export const dots = (points, { X, Y }) => points.map(([x, y]) => `M${X(x).toFixed(1)} ${Y(y).toFixed(1)}h0`).join("");
export const diamonds = (points, { X, Y }) => points.map(([x, y]) => `M${X(x).toFixed(1)} ${(Y(y) - 7).toFixed(1)}l7 7l-7 7l-7 -7z`).join("");
export const crosses = (points, { X, Y }) => points.map(([x, y]) => `M${(X(x) - 3.5).toFixed(1)} ${(Y(y) - 3.5).toFixed(1)}l7 7m0 -7l-7 7`).join("");

// A small curve without axes, for a trial under way.
export function spark(svg, values) {
  const [low, high] = range(values);
  svg.setAttribute("viewBox", "0 0 300 48");
  const at = { X: (i) => (300 * i) / (values.length - 1), Y: (value) => 48 - (48 * (value - low)) / (high - low) };
  svg.replaceChildren(svgElement("path", { d: line(values.map((value, i) => [i, value]), at), class: "loss" }));
}
