// What a person may do to a run: note, pin, pause, stop. Shown only where the server says that this page may.

import { element } from "./dom.js";

let allowed = false;

export const allowActions = (given) => { allowed = given; };
export const mayAct = () => allowed;

async function ask(tag, action) {
  const answer = await fetch(`/api/runs/${encodeURIComponent(tag)}/actions`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(action) });
  const text = await answer.text();
  if (!answer.ok) throw new Error(text.trim());
}

function button(text, act, said) {
  const made = element("button", text);
  made.type = "button";
  made.onclick = async () => {
    made.disabled = true;
    try { await act(); } catch (error) { said.textContent = error.message; }
    made.disabled = false;
  };
  return made;
}

// Buttons for the loop; the stream shows what came of them.
export function loopButtons(state) {
  if (!allowed || state.state !== "running") return [];
  const box = element("div", null, "tools"), said = element("span", null, "soft");
  said.setAttribute("role", "status");
  const wish = (action) => () => ask(state.tag, { action });
  if (state.wish === "pause") box.append(button("Resume", wish("resume"), said));
  else box.append(button("Pause", wish("pause"), said));
  box.append(button("Stop after this trial", wish("stop"), said), said);
  return [box];
}

// A note and a pin for one experiment; `done` shows the experiment again.
export function experimentButtons(data, tag, done) {
  if (!allowed || data.state === "proposed") return [];
  const box = element("div", null, "tools"), field = element("input"), label = element("label", "Note for researchers "), said = element("span", null, "soft");
  said.setAttribute("role", "status");
  field.maxLength = 1000;
  field.autocomplete = "off";
  label.append(field);
  const act = (action) => async () => { await ask(tag, { experiment: data.n, ...action() }); await done(); };
  box.append(button(data.pinned ? "Take the pin off" : "Pin", act(() => ({ action: data.pinned ? "unpin" : "pin" })), said));
  const add = button("Add the note", act(() => ({ action: "note", text: field.value })), said);
  field.onkeydown = (event) => { if (event.key === "Enter") add.click(); };
  box.append(label, add);
  if (data.notes.length) box.append(button("Take all notes back", act(() => ({ action: "clear" })), said));
  box.append(said);
  return [box];
}
