// The researcher's story: every change with its hypothesis, its prediction and its outcome, the latest first.

import { element, link, signed, statusClass } from "./dom.js";

// `more(before)` fetches the changes below a number.
export async function showStory(box, tag, more) {
  const list = element("ol", null, "story"), button = element("button", "Show earlier ones"), head = element("h2", "The researcher's story");
  const filter = element("select"), label = element("label", "Show "), count = element("p", null, "soft");
  for (const [value, text] of [["", "all"], ["keep", "kept"], ["discard", "discarded"], ["stopped", "stopped early"], ["failed", "failed"]]) {
    const option = element("option", text);
    option.value = value;
    filter.append(option);
  }
  label.append(filter);
  count.setAttribute("role", "status");
  let rows = [];
  const draw = () => {
    const wanted = rows.filter((row) => !filter.value || row.status === filter.value || (filter.value === "failed" && !["keep", "discard", "stopped"].includes(row.status)));
    list.replaceChildren(...wanted.map((row) => entry(row, tag)));
    count.textContent = rows.length ? (wanted.length ? "" : "None of those shown.") : "Nothing yet: the baseline is trained first, then the first change is proposed.";
  };
  const load = async () => {
    const found = await more(rows.length ? rows[rows.length - 1].n : null);
    rows = rows.concat(found);
    button.hidden = !rows.length || rows[rows.length - 1].n <= 1 || !found.length;
    draw();
  };
  filter.onchange = draw;
  button.onclick = load;
  await load();
  box.replaceChildren(head, label, count, list, button);
}

const sentence = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);

function entry(row, tag) {
  const item = element("li", null, statusClass(row.status)), head = element("p"), facts = [];
  head.append(link(`experiment ${row.n}`, tag, row.n), " ", element("b", row.status, statusClass(row.status)), " ", element("span", [row.category, row.researcher && `by ${row.researcher}`].filter(Boolean).join(", "), "soft"));
  if (row.predicted !== null) facts.push(`Predicted ${signed(row.predicted)}`);
  facts.push(row.change === null ? "no result" : `measured ${signed(row.change)}`);
  item.append(head, element("p", row.hypothesis), element("p", `${sentence(facts.join(", "))}. ${sentence(row.reason)}`, "soft"));
  return item;
}
