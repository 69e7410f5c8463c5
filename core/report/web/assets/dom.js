// Elements and number formats. Text from a run becomes a text node, never HTML, an address or a class.

const SVG = "http://www.w3.org/2000/svg";
const STATUSES = new Set(["keep", "discard", "stopped", "crash", "invalid", "timeout"]);

export const $ = (id) => document.getElementById(id);

export function element(name, text, className) {
  const node = document.createElement(name);
  if (text !== undefined && text !== null) node.textContent = text;
  if (className) node.className = className;
  return node;
}

export function svgElement(name, attributes = {}, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

export function link(text, ...path) {
  const node = element("a", text);
  node.href = address(...path);
  return node;
}

export const address = (...path) => "#/" + path.map((part) => encodeURIComponent(part)).join("/");
export const statusClass = (status) => (STATUSES.has(status) ? status : "");

const missing = (value) => value === null || value === undefined;
export const number = (value, digits = 4) => (missing(value) ? "–" : value.toFixed(digits));
export const signed = (value, digits = 4) => (missing(value) ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits));
export const percent = (value, digits = 0) => (missing(value) ? "–" : `${(100 * value).toFixed(digits)} %`.replace("-", "−"));
export const dollars = (usd) => (missing(usd) ? "not known" : usd === 0 ? "$0" : "$" + usd.toFixed(usd < 0.1 ? 4 : 2));
export const compact = (value) => (missing(value) ? "–" : value >= 1e6 ? (value / 1e6).toFixed(1) + " M" : value >= 1e4 ? (value / 1e3).toFixed(0) + " k" : String(Math.round(value)));

export function duration(seconds) {
  if (missing(seconds)) return "–";
  if (seconds < 60) return seconds.toFixed(1) + " s";
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function facts(pairs, className) {
  const list = element("dl", null, className);
  for (const [name, value] of pairs) {
    if (missing(value) || value === "") continue;
    const detail = element("dd");
    detail.append(...[value].flat());
    list.append(element("dt", name), detail);
  }
  return list;
}

// A table of data. A column is [heading, function from a row to text or a node, whether it is numeric].
export function table(label, columns, rows) {
  const whole = element("table"), head = element("tr"), body = element("tbody"), box = element("div", null, "wide");
  whole.append(element("caption", label), element("thead"), body);
  whole.tHead.append(head);
  for (const [name, , numeric] of columns) {
    const cell = element("th", name, numeric ? "n" : "");
    cell.scope = "col";
    head.append(cell);
  }
  for (const row of rows) {
    const line = element("tr");
    for (const [, show, numeric] of columns) {
      const cell = element("td", null, numeric ? "n" : "");
      cell.append(show(row) ?? "–");
      line.append(cell);
    }
    body.append(line);
  }
  box.append(whole);
  box.tabIndex = 0; // so that the keyboard can scroll it sideways
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", label);
  return box;
}
