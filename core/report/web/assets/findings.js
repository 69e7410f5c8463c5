// The view of findings: what this run keeps, what other runs offered, and a page for each offered change.

import { element, facts, link, signed, table } from "./dom.js";

const OUTCOMES = { keep: "held", discard: "did not hold", stopped: "did not hold", untried: "not tried", "in flight": "being tried" };
const outcome = (one) => OUTCOMES[one.outcome] ?? one.outcome;

export function showFindings(box, lineage, offers, tag) {
  const kept = lineage.filter((one) => one.n && !one.demoted), found = [element("h2", "Findings")];
  if (kept.length) {
    found.push(table("Kept here", [
      ["finding", (one) => link(`experiment ${one.n}`, tag, one.n)],
      ["change", (one) => one.hypothesis],
      ["measured", (one) => signed(one.change), true],
      ["trials", (one) => String(one.trials), true],
    ], kept));
  } else found.push(element("p", "Nothing was kept here yet.", "soft"));
  if (offers.length) {
    found.push(table("Offered by other runs", [
      ["finding", (one) => link(`${one.run}, experiment ${one.number}`, tag, "finding", one.key)],
      ["change", (one) => one.hypothesis],
      ["there", (one) => signed(one.there), true],
      ["here", outcome],
      ["change here", (one) => signed(one.here), true],
    ], offers));
  } else found.push(element("p", "No other run has offered a change. The kept changes of this workspace's runs on other devices are tried here; ar loop --findings names further folders.", "soft"));
  box.replaceChildren(...found);
}

// `tried` is the experiment here, null where there is none.
export function showFinding(box, one, tried, tag, diff) {
  const way = element("nav", null, "way");
  way.setAttribute("aria-label", "Findings");
  way.append(link("← all findings", tag, "findings"));
  const found = [way];
  if (!one) { box.replaceChildren(way, element("p", "There is no such finding in this run.", "bad")); return; }
  found.push(element("h2", `Finding of ${one.run}, experiment ${one.number}: ${outcome(one)}`), element("p", one.hypothesis, "hypothesis"), facts([
    ["made on", `${one.device}, ${one.backend}`],
    ["category", one.category],
    ["change there", one.there === null ? null : `${signed(one.there)} bits per byte`],
    ["change here", one.here === null ? null : `${signed(one.here)} bits per byte`],
    ["tried here as", one.experiment === null ? null : link(`experiment ${one.experiment}`, tag, one.experiment)],
    ["in the words of this run", one.tried_as === one.hypothesis ? null : one.tried_as],
    ["decided so because", tried?.reason],
    ["given up there", one.gone ? "yes: its run does not keep it any more" : null],
  ]));
  if (one.experiment === null) found.push(element("p", "It waits for its turn, this train file has it already, or nothing here corresponds to it.", "soft"));
  if (tried) found.push(...diff(tried));
  box.replaceChildren(...found);
}

