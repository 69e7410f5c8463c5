// The panel of samples: the last ones that were drawn, and a form that asks for new ones where the server draws any.

import { element } from "./dom.js";

let form = null, formTag = null; // kept between updates: a person may be typing

export function samples(data, tag, drawn) {
  const texts = element("div");
  show(texts, data, drawn);
  if (!drawn) return [texts];
  if (!form || formTag !== tag) [form, formTag] = [makeForm(tag), tag];
  form.show = (fresh) => show(texts, fresh, drawn);
  return [form.box, texts];
}

function show(box, data, drawn) {
  if (!data) { box.replaceChildren(element("p", `None yet${drawn ? "" : ": ar sample --baseline lets the best model and the baseline's continue a text"}.`, "soft")); return; }
  const found = [element("p", `At temperature ${data.temperature}, top-p ${data.top_p}, seed ${data.seed}. The prompt is in bold.`, "soft")];
  for (const { prompt, sides } of data.prompts) {
    for (const { name, text } of sides) {
      const pre = element("pre", null, "sample");
      pre.tabIndex = 0;
      pre.setAttribute("aria-label", `Sample of ${name}`);
      pre.append(element("b", prompt), text);
      found.push(element("p", name, "soft"), pre);
    }
  }
  box.replaceChildren(...found);
}

function makeForm(tag) {
  const box = element("div", null, "ask"), label = element("label", "Prompt "), prompt = element("textarea");
  [prompt.rows, prompt.maxLength, prompt.id] = [2, 4000, "prompt"];
  label.htmlFor = prompt.id;
  const seed = field("Seed", "0", 0, 2147483647), tokens = field("Tokens", "100", 1, 400);
  const button = element("button", "Draw"), told = element("p", "The best model and the baseline's continue it. Drawing slows a running trial.", "soft");
  told.setAttribute("role", "status");
  button.type = "button";
  const made = { box, show: () => {} };
  button.onclick = async () => {
    button.disabled = true;
    told.textContent = "Drawing; this takes seconds to minutes.";
    try {
      const asked = { prompts: prompt.value ? [prompt.value] : [], seed: Number(seed.input.value), tokens: Number(tokens.input.value) };
      const answer = await fetch(`/api/runs/${encodeURIComponent(tag)}/samples`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(asked) });
      if (!answer.ok) throw new Error(await answer.text());
      made.show(await answer.json());
      told.textContent = "Drawn.";
    } catch (error) {
      told.textContent = error.message;
    } finally {
      button.disabled = false;
    }
  };
  box.append(label, prompt, seed.label, tokens.label, button, told);
  return made;
}

function field(name, value, min, max) {
  const label = element("label", `${name} `), input = element("input");
  Object.assign(input, { type: "number", value, min, max });
  label.append(input, " ");
  return { label, input };
}
