// One task: how it ended, as a person says, and a retry with other parameters.

import { ask, exact, refresh, say, why } from "./dashboard.js";

// What a dialog sends, by its id; throws a text for people where it makes no sense.
const BODY = {
  resolve(form) {
    const body = { as: form.get("as") };
    const text = form.get("body").trim();
    if (form.get("note").trim()) body.note = form.get("note").trim();
    if (text) body.body = json(text) ?? text;
    return body;
  },
  // Only what was changed: what is secret of the rest is masked on the page.
  change(form) {
    const params = json(form.get("params"));
    if (!params || !form.get("params").trim().startsWith("{")) {
      throw new Error("The parameters have to be a JSON object.");
    }
    const before = json(document.querySelector("#change textarea").defaultValue) ?? {};
    const missing = Object.keys(before).filter((name) => !(name in params));
    if (missing.length) throw new Error(`A parameter cannot be left out: ${missing.join(", ")}.`);
    const changed = Object.entries(params).filter(([name, value]) =>
      JSON.stringify(value) !== JSON.stringify(before[name]));
    if (!changed.length) throw new Error("No parameter is changed.");
    return { params: Object.fromEntries(changed) };
  },
};

function json(text) {
  try {
    return exact(text);
  } catch {
    return undefined;
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-opens]");
  if (!button) return;
  const { opens: name, sends } = button.dataset;
  const dialog = document.getElementById(name);
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  if (dialog.returnValue !== "yes") return;
  try {
    const task = await ask("POST", sends, BODY[name](new FormData(dialog.querySelector("form"))));
    if (name === "change") location.assign(`/retries/${task.id}`);
    else say(`It is resolved as ${task.status}.`);
  } catch (error) {
    say(why(error), true);
  }
  await refresh();
});
