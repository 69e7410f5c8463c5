// The view of one experiment.

import { compact, dollars, svgElement, element, facts, link, number, percent, signed, duration, statusClass, table } from "./dom.js";
import { axes, line, plot, range } from "./plot.js";

const SERIES = 6; // colours in style.css
const MARKS = { "+": "add", "-": "cut", "@": "jump", " ": "" };
const SUBJECTS = { candidate: "this experiment", incumbent: "the best of its time", baseline: "baseline" };

export function showExperiment(box, data, tag, buttons) {
  const title = element("h2", `Experiment ${data.n}: `);
  title.append(element("span", data.status ?? data.state, statusClass(data.status)));
  const navigation = element("nav", null, "way");
  navigation.setAttribute("aria-label", "Experiments");
  navigation.append(link("← all experiments", tag));
  if (data.previous !== null) navigation.append(link(`‹ ${data.previous}`, tag, data.previous));
  if (data.next !== null) navigation.append(link(`${data.next} ›`, tag, data.next));
  box.replaceChildren(navigation, title, element("p", data.hypothesis, "hypothesis"));
  if (data.reason) box.append(element("p", data.reason, "soft"));
  if (data.pinned) box.append(element("p", "Pinned"));
  for (const note of data.notes) box.append(element("p", `Note: ${note}`));
  box.append(...buttons, ...edit(data.diff, "Edit"), ...outcome(data), ...trials(data), ...curves(data), ...costs(data, tag), ...logs(data));
}

// ---- prediction against outcome

function outcome(data) {
  const interval = (some) => some && `${signed(some[0])} (95 % ${signed(some[1])} to ${signed(some[2])})`;
  const list = facts([
    ["predicted", data.predicted_delta === null ? null : signed(data.predicted_delta)],
    // A judge that leaves no interval estimates nothing: its difference is what was measured.
    ["measured", interval(data.measured) ?? (data.delta === null ? null : signed(data.delta))],
    ["cautious estimate", interval(data.shrunken)],
    ["probability that it is better", data.better === undefined || data.better === null ? null : percent(data.better, 1)],
    ["its file, cautious estimate", data.estimate === null || data.shrunken === null ? null : `${number(data.estimate)} bits per byte`],
    ["its file, first trial", data.val_bpb === null ? null : `${number(data.val_bpb)} bits per byte`],
  ]);
  if (!list.childElementCount) return [];
  const marks = [["predicted", data.predicted_delta], ["measured", data.measured ?? data.delta], ["cautious", data.shrunken]].filter(([, value]) => value !== null && value !== undefined);
  const found = [element("h3", data.n ? "Prediction and outcome" : "Outcome"), list];
  if (marks.length > 1) found.splice(1, 0, intervals(marks));
  return found;
}

function intervals(marks) {
  const svg = svgElement("svg", { class: "intervals", role: "img", "aria-label": "Predicted and measured change and cautious estimate, with 95 % intervals; the figures are listed below." });
  plot(svg, () => {
    const values = marks.map(([name, value]) => [name, [value].flat()]), [low, high] = range([0, ...values.flatMap(([, some]) => some)], 0.1);
    const width = svg.clientWidth, X = (value) => 90 + ((width - 110) * (value - low)) / (high - low);
    svg.setAttribute("viewBox", `0 0 ${width} 96`);
    svg.append(svgElement("path", { d: `M${X(0)} 4V78`, class: "zero" }), svgElement("text", { x: Math.max(30, Math.min(X(0), width - 34)), y: 92, "text-anchor": "middle" }, "no change"));
    values.forEach(([name, [value, from, to]], i) => {
      const y = 16 + 24 * i;
      svg.append(svgElement("text", { x: 0, y: y + 4 }, name));
      if (from !== undefined) svg.append(svgElement("path", { d: `M${X(from)} ${y}H${X(to)}M${X(from)} ${y - 5}v10M${X(to)} ${y - 5}v10`, class: "whisker" }));
      svg.append(svgElement("circle", { cx: X(value), cy: y, r: 5, class: name === "predicted" ? "guess" : "dot" }));
    });
  });
  return svg;
}

// ---- facts

function costs(data, tag) {
  const { cost } = data, device = data.trials.reduce((sum, trial) => sum + (trial.wall_seconds ?? 0), 0);
  const model = cost.tokens_in + cost.tokens_out ? `, ${compact(cost.tokens_in)} tokens in, ${compact(cost.tokens_out)} out, ${cost.calls} ${cost.calls === 1 ? "call" : "calls"}` : "";
  return [element("h3", "Cost and origin"), facts([
    ["cost", `${dollars(cost.usd)}${model}; ${duration(device)} on the device`],
    ["model", cost.models],
    ["category", data.category],
    ["researcher", data.researcher],
    ["offered by", data.origin],
    ["based on", data.n ? link(`experiment ${data.parent}`, tag, data.parent) : null],
    ["commit", data.commit],
    ["parameters", Object.entries(data.parameters).map(([name, value]) => `${name} = ${value}`).join(", ")],
  ])];
}

function trials(data) {
  if (!data.trials.length) return [];
  const audit = (one) => (one ? `${one.ok ? "passed" : "failed"}: ${one.positions} positions, largest difference ${one.max_abs?.toExponential(1) ?? "–"}` : "none");
  return [table(`Trials of experiment ${data.n}`, [
    ["trial", (one) => String(one.k), true],
    ["source of", (one) => (one.subject === data.n ? SUBJECTS.candidate : `experiment ${one.subject}`)],
    ["status", (one) => element("span", one.status ?? "running", statusClass(one.status)) ],
    ["bpb", (one) => number(one.val_bpb), true],
    ["seed", (one) => String(one.seed), true],
    ["tokens", (one) => compact(one.tokens), true],
    ["start, train, score", (one) => [one.startup_seconds, one.train_seconds, one.eval_seconds].map(duration).join(", "), true],
    ["memory", (one) => (one.peak_memory_mb === null ? "–" : `${one.peak_memory_mb.toFixed(0)} MB`), true],
    ["isolation", (one) => one.isolation ?? "–"],
    ["audit", (one) => audit(one.audit)],
  ], data.trials), ...data.trials.filter((one) => one.reason).map((one) => element("p", `Trial ${one.k}: ${one.reason}`, "soft"))];
}

// ---- curves

function curves(data) {
  const series = data.trials.map((one) => [`trial ${one.k}`, one.curve]), shownCurves = [["before the edit", data.before], ...series].filter(([, points]) => points.length > 1);
  if (!shownCurves.length) return [];
  const svg = svgElement("svg", { class: "plot", role: "img", "aria-label": `Training loss of ${shownCurves.map(([name]) => name).join(", ")}` });
  plot(svg, () => {
    const all = shownCurves.flatMap(([, points]) => points);
    const at = axes(svg, { x: [0, 1], y: range(all.map(([, loss]) => loss)), labelX: "share of the budget", labelY: "training loss, as the file logs it" });
    shownCurves.forEach(([name, points], i) => svg.append(svgElement("path", { d: line(points, at), class: name === "before the edit" ? "before" : `series s${i % SERIES}` })));
  });
  const legend = element("p", null, "legend");
  shownCurves.forEach(([name], i) => {
    legend.append(element("span", "━ ", name === "before the edit" ? "before" : `s${i % SERIES}`), element("span", name + "  "));
  });
  return [element("h3", "Curves"), svg, legend];
}

// ---- the edit and the logs

export function edit(diff, title) {
  if (!diff.length) return [];
  const pre = element("pre", null, "diff");
  for (const [mark, at, parts] of diff) {
    const row = element("span", null, MARKS[mark]);
    if (mark === "@") row.textContent = "⋯";
    else row.append(element("span", String(at).padStart(5) + " ", "at"), mark + " ", ...parts.map(([kind, text]) => element("span", text, kind && `t-${kind}`)));
    pre.append(row, "\n");
  }
  return [element("h3", title), scrolls(pre, title)];
}

function logs(data) {
  return data.trials.filter((one) => one.log).map((one) => {
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
