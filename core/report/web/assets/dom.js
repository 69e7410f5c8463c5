// Elements and number formats. Text from a run becomes a text node, never HTML, an address or a class.

const SVG = "http://www.w3.org/2000/svg";
const MOST_COLUMNS = 8; // of a table that stays one on a tablet
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

// Figures side by side, each under its name.
export function cards(pairs) {
  return pairs.filter(([, value]) => !missing(value)).map(([name, value]) => {
    const box = element("div");
    box.append(element("dt", name), element("dd", value));
    return box;
  });
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

// A table of data. A column is [heading, function from a row to text or a node, whether it is numeric]. On a phone, and
// where there are many columns on a tablet, each row becomes a list of its cells with their headings; the roles say there, too, what is a row and what a cell.
export function table(label, columns, rows) {
  const whole = as("table", "table"), head = as("tr", "row"), body = as("tbody", "rowgroup"), box = element("div", null, columns.length > MOST_COLUMNS ? "wide many" : "wide");
  whole.append(element("caption", label), as("thead", "rowgroup"), body);
  whole.tHead.append(head);
  for (const [name, , numeric] of columns) {
    const cell = as("th", "columnheader", name, numeric ? "n" : "");
    cell.scope = "col";
    head.append(cell);
  }
  for (const row of rows) {
    const line = as("tr", "row");
    for (const [name, show, numeric] of columns) {
      const cell = as("td", "cell", null, numeric ? "n" : "");
      cell.dataset.label = name;
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

function as(name, role, text, className) {
  const node = element(name, text, className);
  node.setAttribute("role", role);
  return node;
}
