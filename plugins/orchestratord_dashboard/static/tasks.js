// The list of tasks: what is selected, and what is done to many at once.

import { ask, say, why } from "./dashboard.js";

const LIKE = { retry: ["pending", "failed", "cancelled"], cancel: ["pending", "running", "failed"], resolve: ["pending", "failed"] };
const MEANT = { retry: ["failed"], cancel: ["pending"], resolve: ["failed"] };
const STOP_AFTER = 50;
const VERB = { retry: "Retry", cancel: "Cancel", resolve: "Resolve" };
const DONE = { retry: "retried", cancel: "cancelled", resolve: "resolved" };
const PATH = { retry: "/v1/retries/trigger", cancel: "/v1/retries/cancel", resolve: "/v1/retries/resolve" };

// -- the filter -----------------------------------------------------------------------------------

const filter = document.getElementById("filter");

// What is empty stays out of the address.
filter.addEventListener("formdata", (event) => {
  for (const [name, value] of [...event.formData]) if (!value.trim()) event.formData.delete(name);
  const states = event.formData.getAll("status");
  if (states.length) event.formData.set("status", states.join(","));
});
filter.addEventListener("change", (event) => {
  if (event.target.matches("input[type=checkbox], select")) filter.requestSubmit();
});

// -- what is selected -----------------------------------------------------------------------------

const bar = document.querySelector(".bulkbar");

function boxes() {
  return [...document.querySelectorAll("#list tbody input[type=checkbox]")];
}

function selected() {
  return boxes().filter((box) => box.checked).map((box) => Number(box.value));
}

function count() {
  const all = boxes();
  const number = selected().length;
  document.getElementById("count").textContent = number ? `${number} selected` : "None selected";
  for (const button of bar.querySelectorAll("[data-scope=selected]")) button.disabled = !number;
  const every = document.getElementById("every");
  if (every) {
    every.checked = number > 0 && number === all.length;
    every.indeterminate = number > 0 && number < all.length;
  }
}

let last = null;

if (bar) {
  document.getElementById("list").addEventListener("click", (event) => {
    const box = event.target.closest("input[type=checkbox]");
    if (!box) return;
    if (box.id === "every") {
      for (const one of boxes()) one.checked = box.checked;
    } else if (event.shiftKey && last?.isConnected) {
      const all = boxes();
      const [from, to] = [all.indexOf(last), all.indexOf(box)].sort((a, b) => a - b);
      for (const one of all.slice(from, to + 1)) one.checked = box.checked;
    }
    if (box.id !== "every") last = box;
    count();
  });
  document.addEventListener("refreshed", count);
  addEventListener("pageshow", count);
  bar.addEventListener("click", (event) => {
    const button = event.target.closest("[data-many]");
    if (button) many(button.dataset.many, button.dataset.scope).catch((e) => say(why(e), true));
  });
}

// -- many at once ---------------------------------------------------------------------------------

// What succeeded is repeated only where that status is chosen.
function liked(action, status) {
  return LIKE[action].includes(status) || (action === "retry" && status === "succeeded");
}

function wanted(action, scope) {
  if (scope === "selected") return { id: selected(), status: LIKE[action] };
  const given = JSON.parse(bar.dataset.filter);
  if (!given.status) return { ...given, status: MEANT[action] };
  return { ...given, status: given.status.split(",").filter((one) => liked(action, one)) };
}

async function many(action, scope) {
  const chosen = wanted(action, scope);
  if (!chosen.status.length) {
    return say(`Of these, none can be ${DONE[action]}.`, true);
  }
  const force = chosen.status.includes("succeeded") && { force: true };
  const outcome = document.getElementById("many-as");
  const about = () => ({ ...force, ...(action === "resolve" && { as: outcome.value }) });
  const found = await ask("POST", PATH[action], { filter: chosen, dry_run: true, ...about() });
  const { matched } = found;
  const without = leftOut(found.left_out);
  if (!matched) return say(["No task matches.", without].join(" ").trim(), true);
  const tasks = `${grouped(matched)} ${matched === 1 ? "task" : "tasks"}`;
  const dialog = document.getElementById("many");
  document.getElementById("many-title").textContent = `${VERB[action]} ${tasks}?`;
  const again = force ? "Those that succeeded are sent once more, as new requests." : "";
  document.getElementById("many-what").textContent = [sentence(chosen, scope), without, again].join(" ").trim();
  document.getElementById("many-which").replaceChildren(...which(found));
  document.getElementById("many-yes").textContent = `${VERB[action]} ${tasks}`;
  document.getElementById("rate").value = scope === "selected" || action !== "retry" ? "" : "10/s";
  document.getElementById("stop-after").value = STOP_AFTER;
  document.getElementById("many-stop").hidden = action !== "retry";
  document.getElementById("many-how").hidden = action !== "resolve";
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  if (dialog.returnValue !== "yes") return undefined;
  const rate = document.getElementById("rate").value.trim();
  const body = { filter: chosen, ...(rate && { rate }), ...about() };
  if (action === "retry") body.stop_after = Number(document.getElementById("stop-after").value);
  const note = document.getElementById("many-note").value.trim();
  if (action === "resolve" && note) body.note = note;
  const { bulk } = await ask("POST", PATH[action], body);
  location.assign(`/bulks/${bulk}`);
  return undefined;
}

// As the pages write numbers.
function grouped(number) {
  return new Intl.NumberFormat("en").format(number).replaceAll(",", "\u202f");
}

// The largest parts, and the first tasks of all.
function which({ counts, examples }) {
  const largest = [...counts].sort((a, b) => b.tasks - a.tasks).slice(0, 5);
  const lines = largest.map(({ reason, endpoint, tasks }) =>
    `${grouped(tasks)} of ${endpoint}${reason ? `, ${reason.replaceAll("_", " ")}` : ""}`);
  if (counts.length > largest.length) lines.push(`and ${counts.length - largest.length} kinds more`);
  if (examples.length) lines.push(`such as ${examples.map(({ id }) => `task ${id}`).join(", ")}`);
  return lines.map((line) => Object.assign(document.createElement("li"), { textContent: line }));
}

// What may have been carried out already is retried only where its reason is asked for.
function leftOut(reasons) {
  const parts = Object.entries(reasons ?? {}).map(([reason, count]) => `${grouped(count)} ${reason}`);
  const again = Object.keys(reasons ?? {}).every((reason) => reason === "webhook_disabled")
    ? "enable the webhook to send them" : "filter by the reason to retry them";
  return parts.length ? `Left out: ${parts.join(", ")}; ${again}.` : "";
}

function sentence(chosen, scope) {
  const states = chosen.status.join(", ");
  if (scope === "selected") return `Those of the selected ones that are ${states}.`;
  const parts = Object.entries(chosen)
    .filter(([name]) => name !== "status")
    .map(([name, value]) => `${name.replace("_", " ")} ${value}`);
  return [`State ${states}`, ...parts].join("; ") + ".";
}
