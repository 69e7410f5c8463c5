// One experiment's page.

import { compact, dollars, drawn, element, facts, link, number, percent, signed, span, statusClass, table } from "./dom.js";
import { axes, line, plot, range } from "./plot.js";

const SERIES = 6; // colours in style.css
const MARKS = { "+": "add", "-": "cut", "@": "jump", " ": "" };
const WHO = { candidate: "this experiment", incumbent: "the best of its time", baseline: "baseline" };

export function showExperiment(box, it, tag, count) {
  const title = element("h2", `Experiment ${it.n}: `);
  title.append(element("span", it.status ?? it.state, statusClass(it.status)));
  const way = element("nav", null, "way");
  way.setAttribute("aria-label", "Experiments");
  way.append(link("← all experiments", tag));
  if (it.n > 0) way.append(link(`‹ ${it.n - 1}`, tag, it.n - 1));
  if (it.n + 1 < count) way.append(link(`${it.n + 1} ›`, tag, it.n + 1));
  box.replaceChildren(way, title, element("p", it.hypothesis, "hypothesis"));
  if (it.reason) box.append(element("p", it.reason, "soft"));
  box.append(...outcome(it), ...costs(it, tag), ...trials(it), ...curves(it), ...edit(it, tag), ...logs(it));
}

// ---- prediction against outcome

function outcome(it) {
  const interval = (some) => some && `${signed(some[0])} (95 % ${signed(some[1])} to ${signed(some[2])})`;
  const list = facts([
    ["predicted", it.predicted_delta === null ? null : signed(it.predicted_delta)],
    ["measured", interval(it.measured)],
    ["shrunken", interval(it.shrunken) ?? (it.delta === null ? null : signed(it.delta))],
    ["better with", it.better === undefined || it.better === null ? null : percent(it.better, 1)],
    ["estimate", it.estimate === null ? null : `${number(it.estimate)} bits per byte`],
    ["first trial", it.val_bpb === null ? null : `${number(it.val_bpb)} bits per byte`],
  ]);
  if (!list.childElementCount) return [];
  const marks = [["predicted", it.predicted_delta], ["measured", it.measured], ["shrunken", it.shrunken ?? it.delta]].filter(([, value]) => value !== null && value !== undefined);
  const found = [element("h3", it.n ? "Prediction and outcome" : "Outcome"), list];
  if (marks.length > 1) found.splice(1, 0, intervals(marks));
  return found;
}

function intervals(marks) {
  const svg = drawn("svg", { class: "intervals", role: "img", "aria-label": "Predicted, measured and shrunken change with their 95 % intervals; the figures are listed below." });
  plot(svg, () => {
    const values = marks.map(([name, value]) => [name, [value].flat()]), [low, high] = range([0, ...values.flatMap(([, some]) => some)], 0.1);
    const width = svg.clientWidth, X = (value) => 90 + ((width - 110) * (value - low)) / (high - low);
    svg.setAttribute("viewBox", `0 0 ${width} 96`);
    svg.append(drawn("path", { d: `M${X(0)} 4V78`, class: "zero" }), drawn("text", { x: X(0), y: 92, "text-anchor": "middle" }, "no change"));
    values.forEach(([name, [value, from, to]], i) => {
      const y = 16 + 24 * i;
      svg.append(drawn("text", { x: 0, y: y + 4 }, name));
      if (from !== undefined) svg.append(drawn("path", { d: `M${X(from)} ${y}H${X(to)}M${X(from)} ${y - 5}v10M${X(to)} ${y - 5}v10`, class: "whisker" }));
      svg.append(drawn("circle", { cx: X(value), cy: y, r: 5, class: name === "predicted" ? "guess" : "dot" }));
    });
  });
  return svg;
}

// ---- facts

function costs(it, tag) {
  const { cost } = it, device = it.trials.reduce((sum, trial) => sum + (trial.wall_seconds ?? 0), 0);
  const model = cost.tokens_in + cost.tokens_out ? `, ${compact(cost.tokens_in)} tokens in, ${compact(cost.tokens_out)} out, ${cost.calls} ${cost.calls === 1 ? "call" : "calls"}` : "";
  return [element("h3", "Cost and origin"), facts([
    ["cost", `${dollars(cost.usd)}${model}; ${span(device)} on the device`],
    ["model", cost.models],
    ["category", it.category],
    ["researcher", it.researcher],
    ["found by", it.origin],
    ["edit of", it.n ? link(`experiment ${it.parent}`, tag, it.parent) : null],
    ["commit", it.commit],
    ["remembers", Object.entries(it.parameters).map(([name, value]) => `${name} = ${value}`).join(", ")],
  ])];
}

function trials(it) {
  if (!it.trials.length) return [];
  const audit = (one) => (one ? `${one.ok ? "passed" : "failed"}: ${one.positions} positions, largest difference ${one.max_abs?.toExponential(1) ?? "–"}` : "none");
  return [table(`Trials of experiment ${it.n}`, [
    ["trial", (one) => String(one.k), true],
    ["of", (one) => (one.subject === it.n ? WHO.candidate : `experiment ${one.subject}`)],
    ["status", (one) => element("span", one.status ?? "running", statusClass(one.status)) ],
    ["bpb", (one) => number(one.val_bpb), true],
    ["seed", (one) => String(one.seed), true],
    ["tokens", (one) => compact(one.tokens), true],
    ["start, train, score", (one) => [one.startup_seconds, one.train_seconds, one.eval_seconds].map(span).join(", "), true],
    ["memory", (one) => (one.peak_memory_mb === null ? "–" : `${one.peak_memory_mb.toFixed(0)} MB`), true],
    ["isolation", (one) => one.isolation ?? "–"],
    ["audit", (one) => audit(one.audit)],
  ], it.trials), ...it.trials.filter((one) => one.reason).map((one) => element("p", `Trial ${one.k}: ${one.reason}`, "soft"))];
}

// ---- curves

function curves(it) {
  const series = it.trials.map((one) => [`trial ${one.k}`, one.curve]), drawnOnes = [["before the edit", it.before], ...series].filter(([, points]) => points.length > 1);
  if (!drawnOnes.length) return [];
  const svg = drawn("svg", { class: "plot", role: "img", "aria-label": `Training loss of ${drawnOnes.map(([name]) => name).join(", ")}` });
  plot(svg, () => {
    const all = drawnOnes.flatMap(([, points]) => points);
    const at = axes(svg, { x: [0, 1], y: range(all.map(([, loss]) => loss)), labelX: "share of the budget", labelY: "training loss, as the file logs it" });
    drawnOnes.forEach(([name, points], i) => svg.append(drawn("path", { d: line(points, at), class: name === "before the edit" ? "before" : `series s${i % SERIES}` })));
  });
  const legend = element("p", null, "legend");
  drawnOnes.forEach(([name], i) => {
    legend.append(element("span", "━ ", name === "before the edit" ? "before" : `s${i % SERIES}`), element("span", name + "  "));
  });
  return [element("h3", "Curves"), svg, legend];
}

// ---- the edit and the logs

function edit(it, tag) {
  if (!it.diff.length) return [];
  const pre = element("pre", null, "diff");
  for (const [mark, at, parts] of it.diff) {
    const row = element("span", null, MARKS[mark]);
    if (mark === "@") row.textContent = "⋯";
    else row.append(element("span", String(at).padStart(5) + " ", "at"), mark + " ", ...parts.map(([kind, text]) => element("span", text, kind && `t-${kind}`)));
    pre.append(row, "\n");
  }
  return [element("h3", "Edit"), scrolls(pre, "Edit")];
}

function logs(it) {
  return it.trials.filter((one) => one.log).map((one) => {
    const fold = element("details"), pre = element("pre", one.log);
    fold.append(element("summary", `End of the log of trial ${one.k}`), scrolls(pre, `Log of trial ${one.k}`));
    fold.open = one.status !== "ok";
    return fold;
  });
}

function scrolls(pre, label) {
  pre.tabIndex = 0;
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", label);
  return pre;
}
