// What a run has learnt about itself: lineage of keeps, predictions, noise, categories and quotas.

import { drawn, element, facts, link, number, percent, signed, table } from "./dom.js";
import { axes, dots, line, plot, range } from "./plot.js";

export function showInsight(box, it, tag) {
  box.replaceChildren(element("h2", "Insight"));
  const grid = element("div", null, "panels");
  grid.append(panel("Lineage of keeps", lineage(it.lineage, tag)), panel("Predictions against outcomes", predictions(it)), panel("Noise", noise(it.noise, tag)), panel("What was tried", tried(it)), panel("Quotas for the next proposal", quotas(it.quotas)));
  box.append(grid);
}

function panel(title, nodes) {
  const whole = element("section", null, "panel");
  whole.append(element("h3", title), ...nodes);
  return whole;
}

function lineage(keeps, tag) {
  if (!keeps.length) return [element("p", "No baseline yet.", "soft")];
  const list = element("ol", null, "lineage");
  for (const one of keeps) {
    const item = element("li", null, one.now ? "" : "off"), name = link(one.n ? `experiment ${one.n}` : "baseline", tag, one.n);
    const how = one.demoted ? "kept, then measured again and given up" : one.now ? "" : "not part of today's best";
    item.append(name, ` ${number(one.estimate)}`, one.n ? ` (${signed(one.delta)})` : "", element("span", one.n ? one.hypothesis : "", "words"));
    item.append(element("span", [one.n ? `${one.category}, edit of ${one.parent || "the baseline"}` : "", `${one.trials} trials`, how].filter(Boolean).join(", "), "soft"));
    list.append(item);
  }
  return [list];
}

function predictions({ predictions: points, scores }) {
  if (!points.length) return [element("p", "No experiment has both a prediction and a result yet.", "soft")];
  const svg = drawn("svg", { class: "plot square", role: "img", "aria-label": "Predicted change against measured change of every experiment; the scores are in the table below." });
  plot(svg, () => {
    const x = range([0, ...points.map(([, guess]) => guess)]), y = range([0, ...points.map(([, , found]) => found)]);
    const at = axes(svg, { x, y, labelX: "predicted change", labelY: "measured change" });
    const [low, high] = [Math.max(x[0], y[0]), Math.min(x[1], y[1])];
    svg.append(drawn("path", { d: line([[low, low], [high, high]], at), class: "yard" }), drawn("path", { d: `M${at.left} ${at.Y(0)}H${at.right}`, class: "zero" }));
    svg.append(drawn("path", { d: dots(points.map(([, guess, found]) => [guess, found]), at), class: "discards" }));
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

function noise(it, tag) {
  if (it.sigma === null) return [element("p", "This run's judge estimates no noise.", "soft")];
  const found = [facts([
    ["one trial", `uncertain by ${number(it.sigma, 5)} bits per byte (1 sigma)`],
    ["known from", it.dof === null ? null : `${it.dof.toFixed(1)} degrees of freedom, the prior's included`],
    ["of which training", it.training && number(it.training, 5)],
    ["of which throughput", it.throughput && number(it.throughput, 5)],
  ])];
  if (it.sigmas.length > 1) {
    const svg = drawn("svg", { class: "plot low", role: "img", "aria-label": "The noise estimate after every experiment" });
    plot(svg, () => {
      const at = axes(svg, { x: [it.sigmas[0][0], it.sigmas[it.sigmas.length - 1][0]], y: range([0, ...it.sigmas.map(([, value]) => value)]), labelX: "experiment", labelY: "sigma", whole: true });
      svg.append(drawn("path", { d: line(it.sigmas, at), class: "step" }));
    });
    found.push(svg);
  }
  if (it.repeats.length) {
    const spread = (values) => Math.max(...values) - Math.min(...values);
    found.push(table("Repeats", [
      ["source of", (one) => link(one.n ? `experiment ${one.n}` : "baseline", tag, one.n)],
      ["trials", (one) => String(one.values.length), true],
      ["bits per byte", (one) => one.values.slice(0, 6).map((value) => number(value)).join(", ") + (one.values.length > 6 ? " …" : "")],
      ["range", (one) => number(spread(one.values)), true],
    ], it.repeats));
  }
  return found;
}

function tried({ categories }) {
  if (!categories.length) return [element("p", "Nothing yet.", "soft")];
  return [table("Changes by category", [
    ["category", (one) => one.name],
    ["tried", (one) => String(one.tried), true],
    ["kept", (one) => String(one.kept), true],
    ["discarded", (one) => String(one.discarded), true],
    ["failed", (one) => String(one.failed), true],
    ["best delta", (one) => signed(one.best_delta), true],
  ], categories)];
}

function quotas(it) {
  if (!it) return [element("p", "They hold for language models, and none has proposed here.", "soft")];
  const count = (kind) => it.kinds.filter((one) => one === kind).length;
  return [facts([
    [`last ${it.kinds.length} proposals`, `${count("bold")} bold, ${count("structural")} structural, ${count("knob")} only numbers`],
    [`asked of every ${it.window}`, `at least ${it.structural} structural and ${it.bold} bold`],
    ["the next one must be", it.least === "knob" ? "anything" : it.least === "bold" ? "bold" : "structural or bold"],
    ["resting categories", it.closed.join(", ") || "none"],
    ["why", it.why],
  ])];
}
