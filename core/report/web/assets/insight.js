// The view of what a run has learnt: lineage of kept changes, predictions, noise, categories and quotas.

import { svgElement, element, facts, link, number, percent, signed, table } from "./dom.js";
import { edit } from "./experiment.js";
import { axes, dots, line, plot, range } from "./plot.js";
import { samples } from "./samples.js";

export function showInsight(box, data, tag) {
  const focused = document.activeElement; // the form of samples is placed anew, and a person may be typing in it
  const grid = element("div", null, "panels");
  grid.append(panel("Lineage of kept changes", lineage(data.lineage, tag)), panel("Predictions against outcomes", predictions(data)), panel("Noise", noise(data.noise, tag)), panel("What was tried", tried(data)), panel("Quotas for the next proposal", quotas(data.quotas)), panel("Samples", samples(data.samples, tag, data.draws_samples)));
  box.replaceChildren(element("h2", "Insight"), ...edit(data.edit, "What the best file changes"), grid);
  if (box.contains(focused)) focused.focus({ preventScroll: true });
}

function panel(title, nodes) {
  const box = element("section", null, "panel");
  box.append(element("h3", title), ...nodes);
  return box;
}

function lineage(keeps, tag) {
  if (!keeps.length) return [element("p", "Waits for the baseline.", "soft")];
  const list = element("ol", null, "lineage");
  for (const one of keeps) {
    const item = element("li", null, one.now ? "" : "off"), name = link(one.n ? `experiment ${one.n}` : "baseline", tag, one.n);
    const how = one.demoted ? "kept, then measured again and given up" : one.now ? "" : "not part of today's best";
    item.append(name, ` ${one.mean === null ? `${number(one.estimate)} (cautious estimate)` : number(one.mean)}`, one.n ? ` (${signed(one.change)})` : "", element("span", one.n ? one.hypothesis : "", "words"));
    item.append(element("span", [one.n ? `${one.category}, based on ${one.parent ? `experiment ${one.parent}` : "the baseline"}` : "", `${one.trials} ${one.trials === 1 ? "trial" : "trials"}`, how].filter(Boolean).join(", "), "soft"));
    list.append(item);
  }
  return [list];
}

function predictions({ predictions: points, scores }) {
  if (!points.length) return [element("p", "Waits for an experiment with both a prediction and a result.", "soft")];
  const svg = svgElement("svg", { class: "plot square", role: "img", "aria-label": "Predicted change against measured change of every experiment; the scores are in the table below." });
  plot(svg, () => {
    const x = range([0, ...points.map(([, guess]) => guess)]), y = range([0, ...points.map(([, , found]) => found)]);
    const at = axes(svg, { x, y, labelX: "predicted change", labelY: "measured change" });
    const [low, high] = [Math.max(x[0], y[0]), Math.min(x[1], y[1])];
    svg.append(svgElement("path", { d: line([[low, low], [high, high]], at), class: "yard" }), svgElement("path", { d: `M${at.left} ${at.Y(0)}H${at.right}`, class: "zero" }));
    svg.append(svgElement("path", { d: dots(points.map(([, guess, found]) => [guess, found]), at), class: "discards" }));
  });
  return [svg, element("p", "On the dashed line a prediction came true; below the level line the change was better.", "soft"), table("Score of the predictions", [
    ["researcher", (one) => one.researcher || "–"],
    ["predictions", (one) => String(one.count), true],
    ["right sign", (one) => percent(one.right_sign), true],
    ["error", (one) => number(one.error), true],
    ["error of “no change”", (one) => number(one.error_of_zero), true],
    ["bias", (one) => signed(one.bias), true],
    ["rank corr.", (one) => (one.rank_correlation === null ? "–" : one.rank_correlation.toFixed(2).replace("-", "−")), true],
  ], scores)];
}

function noise(data, tag) {
  if (data.sigma === null) return [element("p", "Waits for a judge's estimate. The greedy judge makes none; racing makes one once the baseline is decided.", "soft")];
  const found = [facts([
    ["noise between seeds", `${number(data.sigma, 5)} bits per byte (standard deviation of one file)`],
    ["estimated from", data.dof === null ? null : `${data.dof.toFixed(1)} degrees of freedom, the prior's included`],
    ["paired noise", data.paired === null ? null : `${number(data.paired, 5)} bits per byte (standard deviation of a difference at one seed)`],
    ["estimated from", data.paired_dof === null ? null : `${data.paired_dof.toFixed(1)} degrees of freedom, the prior's included`],
    ["of which training", data.training && number(data.training, 5)],
    ["of which throughput", data.throughput && number(data.throughput, 5)],
  ])];
  if (data.sigmas.length > 1) {
    const svg = svgElement("svg", { class: "plot low", role: "img", "aria-label": "The noise estimate after every experiment" });
    plot(svg, () => {
      const at = axes(svg, { x: [data.sigmas[0][0], data.sigmas[data.sigmas.length - 1][0]], y: range([0, ...data.sigmas.map(([, value]) => value)]), labelX: "experiment", labelY: "noise", whole: true });
      svg.append(svgElement("path", { d: line(data.sigmas, at), class: "step" }));
    });
    found.push(svg);
  }
  if (data.repeats.length) {
    const spread = (values) => Math.max(...values) - Math.min(...values);
    found.push(table("Repeated trials", [
      ["source of", (one) => link(one.n ? `experiment ${one.n}` : "baseline", tag, one.n)],
      ["trials", (one) => String(one.values.length), true],
      ["bits per byte", (one) => one.values.slice(0, 6).map((value) => number(value)).join(", ") + (one.values.length > 6 ? " …" : "")],
      ["range", (one) => number(spread(one.values)), true],
    ], data.repeats));
  }
  return found;
}

function tried({ categories }) {
  if (!categories.length) return [element("p", "Waits for the first change.", "soft")];
  return [table("Changes by category", [
    ["category", (one) => one.name],
    ["tried", (one) => String(one.tried), true],
    ["kept", (one) => String(one.kept), true],
    ["discarded", (one) => String(one.discarded), true],
    ["failed", (one) => String(one.failed), true],
    ["best change", (one) => signed(one.best_delta), true],
  ], categories)];
}

function quotas(data) {
  if (!data) return [element("p", "Quotas apply to language models, and none has proposed here yet.", "soft")];
  const count = (kind) => data.kinds.filter((one) => one === kind).length;
  return [facts([
    [`last ${data.kinds.length === 1 ? "proposal" : `${data.kinds.length} proposals`}`, `${count("bold")} bold, ${count("structural")} structural, ${count("knob")} only numbers`],
    [`required in every ${data.window}`, `at least ${data.structural} structural and ${data.bold} bold`],
    ["the next one must be", data.least === "knob" ? "anything" : data.least === "bold" ? "bold" : "structural or bold"],
    ["paused categories", data.closed.join(", ") || "none"],
    ["reason", data.why],
  ])];
}
