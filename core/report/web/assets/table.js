// The table of experiments: filtered and sorted, with only the rows in view in the document.

import { $, address, element, number, signed, statusClass } from "./dom.js";

const NARROW = matchMedia("(max-width: 860px)"); // as in style.css
const rowHeight = () => (NARROW.matches ? 74 : 32); // pixels, as in style.css
const SPARE_ROWS = 8; // drawn above and below the visible ones
const PAGE_ROWS = 12; // that Page Up and Page Down move by
const WIDTHS = { id: "4.2rem", status: "4.8rem", bpb: "5rem", change: "5.2rem", count: "3.6rem", seconds: "5rem", amount: "5rem", text: "9rem" };
const NARROW_WIDTHS = { id: "3rem", status: "1fr", bpb: "4.4rem", change: "4.6rem" };
const WRITERS = { bpb: number, change: signed };

const drawnRows = new Map(); // the rows in the document, with their elements
let columns = [], rows = [], shown = [], tag = "", sort = { by: "experiment", descending: true };

export function showTable(newRows, newTag, newColumns) {
  if (newTag !== tag) $("scroll").scrollTop = 0;
  rows = newRows;
  tag = newTag;
  if (JSON.stringify(newColumns) !== JSON.stringify(columns)) {
    columns = newColumns;
    setWidths();
    drawHeadings();
  }
  for (const row of rows) row.text ??= `${row.experiment} ${row.status} ${row.category} ${row.researcher} ${row.description}`.toLowerCase();
  filterAndSort();
}

function setWidths() {
  const width = (column, widths) => (column.name === "description" ? "1fr" : (widths[column.kind] ?? "5rem"));
  $("table").style.setProperty("--columns", columns.map((column) => width(column, WIDTHS)).join(" "));
  $("table").style.setProperty("--narrow-columns", columns.filter((column) => column.name !== "description" && (!column.minor || column.kind === "change")).map((column) => width(column, NARROW_WIDTHS)).join(" "));
}

function filterAndSort() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean), status = $("status").value;
  shown = rows.filter((row) => (!status || row.status === status) && words.every((word) => row.text.includes(word)));
  const { by, descending } = sort, sign = descending ? -1 : 1;
  shown.sort((a, b) => {
    const x = a[by], y = b[by];
    if (x === y) return b.experiment - a.experiment;
    // A missing number comes last in either direction.
    if (x === null) return 1;
    if (y === null) return -1;
    return sign * (x < y ? -1 : 1);
  });
  $("space").style.height = shown.length * rowHeight() + "px";
  $("count").textContent = `${shown.length} of ${rows.length}`;
  $("table").setAttribute("aria-rowcount", shown.length + 1);
  drawVisibleRows();
}

export function drawVisibleRows() {
  const box = $("scroll"), space = $("space"), wanted = new Map();
  const first = Math.max(0, Math.floor(box.scrollTop / rowHeight()) - SPARE_ROWS);
  const last = Math.min(shown.length, Math.ceil((box.scrollTop + box.clientHeight) / rowHeight()) + SPARE_ROWS);
  for (let index = first; index < last; index++) wanted.set(shown[index], index);
  for (const [row, node] of drawnRows) if (!wanted.has(row)) { node.remove(); drawnRows.delete(row); }
  // A row that stays in view stays in the document, and keeps the focus.
  let next = space.firstChild;
  for (const [row, index] of wanted) {
    let node = drawnRows.get(row);
    if (!node) drawnRows.set(row, (node = rowElement(row)));
    setPosition(node, index);
    if (node === next) next = next.nextSibling; else space.insertBefore(node, next);
  }
}

function setPosition(node, index) {
  if (node.dataset.index === String(index)) return;
  node.dataset.index = index;
  node.setAttribute("aria-rowindex", index + 2); // from 1, the headings first
  node.style.top = index * rowHeight() + "px";
}

// Gives the focus back to the row that a person came from.
export function focusRow(experiment) {
  const index = shown.findIndex((row) => row.experiment === experiment);
  if (index >= 0) focusIndex(index);
}

function focusIndex(index) {
  const box = $("scroll");
  if (index * rowHeight() < box.scrollTop) box.scrollTop = index * rowHeight();
  if ((index + 1) * rowHeight() > box.scrollTop + box.clientHeight) box.scrollTop = (index + 1) * rowHeight() - box.clientHeight;
  drawVisibleRows();
  drawnRows.get(shown[index])?.querySelector("a").focus({ preventScroll: true });
}

function cellClass(column, row) {
  const kind = column.numeric ? "n" : column.kind === "status" ? statusClass(row?.status) : row ? "words" : "";
  if (column.name === "description") return `${kind} below`;
  return column.minor && column.kind !== "change" ? `${kind} minor` : kind;
}

function rowElement(row) {
  const node = element("div", null, "row");
  node.setAttribute("role", "row");
  for (const column of columns) {
    const isLink = column.kind === "id", value = row[column.name];
    const cell = element("div", isLink ? null : (WRITERS[column.kind] ?? String)(value ?? (column.numeric ? null : "")), cellClass(column, row));
    cell.setAttribute("role", "cell");
    if (isLink) {
      const link = element("a", value);
      link.href = address(tag, value);
      link.setAttribute("aria-label", "experiment " + value);
      cell.append(link);
    }
    node.append(cell);
  }
  return node;
}

function drawHeadings() {
  $("head").replaceChildren(...columns.map((column) => {
    const cell = element("div", null, cellClass(column)), isSorted = sort.by === column.name;
    const button = element("button", column.title + (isSorted ? (sort.descending ? " ↓" : " ↑") : ""));
    cell.setAttribute("role", "columnheader");
    cell.setAttribute("aria-sort", isSorted ? (sort.descending ? "descending" : "ascending") : "none");
    button.onclick = () => {
      sort = { by: column.name, descending: isSorted ? !sort.descending : false };
      drawHeadings();
      filterAndSort();
      $("head").querySelectorAll("button")[columns.indexOf(column)].focus();
    };
    cell.append(button);
    return cell;
  }));
}

function moveFocus(event) {
  const index = event.target.closest(".row")?.dataset.index;
  const step = { ArrowDown: 1, ArrowUp: -1, PageDown: PAGE_ROWS, PageUp: -PAGE_ROWS, Home: -shown.length, End: shown.length }[event.key];
  if (index === undefined || !step) return;
  event.preventDefault();
  focusIndex(Math.min(Math.max(Number(index) + step, 0), shown.length - 1));
}

export function startTable() {
  $("filter").oninput = filterAndSort;
  $("status").onchange = filterAndSort;
  $("scroll").onscroll = () => requestAnimationFrame(drawVisibleRows);
  NARROW.onchange = () => { for (const node of drawnRows.values()) node.remove(); drawnRows.clear(); if (columns.length) filterAndSort(); };
  $("space").onkeydown = moveFocus;
  $("space").onclick = (event) => { if (event.target.tagName !== "A") event.target.closest(".row")?.querySelector("a").click(); };
}
