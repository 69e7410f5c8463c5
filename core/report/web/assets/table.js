// The table of experiments: filter, sort, and only the rows in view in the document.

import { $, address, element, number, signed, statusClass } from "./dom.js";

const ROW = 32; // pixels, as in style.css
const SPARE = 8;
const COLUMNS = [["n", "n"], ["status", "status"], ["val_bpb", "bpb"], ["delta", "delta"], ["trials", "trials"], ["category", "category"], ["hypothesis", "change"]];
const NUMERIC = new Set(["n", "val_bpb", "delta", "trials"]);

const drawn = new Map(); // the rows in the document, with their elements
let rows = [], shown = [], tag = "", sort = { by: "n", down: true };

export function showTable(newRows, newTag) {
  if (newTag !== tag) $("scroll").scrollTop = 0;
  rows = newRows;
  tag = newTag;
  for (const row of rows) row.text ??= `${row.n} ${row.status} ${row.category} ${row.researcher} ${row.hypothesis}`.toLowerCase();
  choose();
}

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
  $("table").setAttribute("aria-rowcount", shown.length + 1);
  place();
}

export function place() {
  const box = $("scroll"), space = $("space"), wanted = new Map();
  const first = Math.max(0, Math.floor(box.scrollTop / ROW) - SPARE);
  const last = Math.min(shown.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW) + SPARE);
  for (let index = first; index < last; index++) wanted.set(shown[index], index);
  for (const [row, node] of drawn) if (!wanted.has(row)) { node.remove(); drawn.delete(row); }
  // A row that stays in view stays in the document, and with it the focus.
  let next = space.firstChild;
  for (const [row, index] of wanted) {
    let node = drawn.get(row);
    if (!node) drawn.set(row, (node = line(row)));
    put(node, index);
    if (node === next) next = next.nextSibling; else space.insertBefore(node, next);
  }
}

function put(node, index) {
  if (node.dataset.index === String(index)) return;
  node.dataset.index = index;
  node.setAttribute("aria-rowindex", index + 2);
  node.style.top = index * ROW + "px";
}

// The row that a person came from gets the focus back.
export function focusRow(n) {
  const index = shown.findIndex((row) => row.n === n);
  if (index >= 0) reach(index);
}

function reach(index) {
  const box = $("scroll");
  if (index * ROW < box.scrollTop) box.scrollTop = index * ROW;
  if ((index + 1) * ROW > box.scrollTop + box.clientHeight) box.scrollTop = (index + 1) * ROW - box.clientHeight;
  place();
  drawn.get(shown[index])?.querySelector("a").focus({ preventScroll: true });
}

function line(row) {
  const node = element("div", null, "row");
  node.setAttribute("role", "row");
  for (const [name] of COLUMNS) {
    const value = name === "delta" ? signed(row.delta) : name === "val_bpb" ? number(row.val_bpb) : row[name];
    const cell = element("div", name === "n" ? null : value, NUMERIC.has(name) ? "n" : name === "status" ? statusClass(row.status) : "words");
    cell.setAttribute("role", "cell");
    if (name === "n") {
      const link = element("a", row.n);
      link.href = address(tag, row.n);
      link.setAttribute("aria-label", "experiment " + row.n);
      cell.append(link);
    }
    node.append(cell);
  }
  return node;
}

function heads() {
  $("head").replaceChildren(...COLUMNS.map(([name, words]) => {
    const cell = element("div", null, NUMERIC.has(name) ? "n" : "");
    const button = element("button", words + (sort.by === name ? (sort.down ? " ↓" : " ↑") : ""));
    cell.setAttribute("role", "columnheader");
    cell.setAttribute("aria-sort", sort.by !== name ? "none" : sort.down ? "descending" : "ascending");
    button.onclick = () => {
      sort = { by: name, down: sort.by === name ? !sort.down : false };
      heads();
      choose();
      $("head").querySelectorAll("button")[COLUMNS.findIndex(([one]) => one === name)].focus();
    };
    cell.append(button);
    return cell;
  }));
}

function move(event) {
  const at = event.target.closest(".row")?.dataset.index, by = { ArrowDown: 1, ArrowUp: -1, PageDown: 12, PageUp: -12, Home: -shown.length, End: shown.length }[event.key];
  if (at === undefined || !by) return;
  event.preventDefault();
  reach(Math.min(Math.max(Number(at) + by, 0), shown.length - 1));
}

export function startTable() {
  heads();
  $("filter").oninput = choose;
  $("status").onchange = choose;
  $("scroll").onscroll = () => requestAnimationFrame(place);
  $("space").onkeydown = move;
  $("space").onclick = (event) => { if (event.target.tagName !== "A") event.target.closest(".row")?.querySelector("a").click(); };
}
